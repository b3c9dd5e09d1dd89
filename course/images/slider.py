"""A slider over a series of images, for notebooks with a kernel and for readers without one."""

from collections.abc import Sequence

from PIL import Image

from course.images.grid import image_grid
from course.images.io import ImageLike, to_pil

MAX_SHOWN = 7  # images of a long series in the grid


def image_slider(
    images: Sequence[ImageLike], values: Sequence[object], name: str, side: int | None = None
) -> Image.Image:
    """Display a slider `name` over `values`, and return a grid for readers without a kernel.

    The slider shows the image of the chosen value. All images exist before, so that moving it
    computes nothing. The grid has up to seven of them, from the first to the last, each `side`
    pixels wide. Raises ValueError if values and images differ in number.
    """
    from ipywidgets import SelectionSlider, interact

    if not values or len(images) != len(values):
        raise ValueError(f"{len(values)} values do not fit {len(images)} images")
    tiles = [to_pil(image) for image in images]
    labels = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    choices = [(label, i) for i, label in enumerate(labels)]
    interact(lambda i: tiles[i], i=SelectionSlider(options=choices, description=name))
    last, count = len(images) - 1, min(len(images), MAX_SHOWN)
    shown = sorted({round(i * last / max(count - 1, 1)) for i in range(count)})
    titles = [f"{name} = {labels[i]}" for i in shown]
    return image_grid([tiles[i] for i in shown], titles=titles, side=side)
