"""A slider over a series of images, for notebooks with a kernel and for readers without one."""

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from course.images.grid import image_grid
from course.images.io import ImageLike, to_pil

MAX_SHOWN = 7  # images of a long series in the grid


def show_slider(images: Sequence[ImageLike], values: Sequence[object], name: str) -> Any:
    """Display a slider `name` over `values` that shows the image of the chosen value.

    All images exist before, so that moving it computes nothing. Returns the widget. Raises
    ValueError if values and images differ in number.
    """
    # Not `interact`: its Output widget can make nbclient wait forever (nbclient issue 312).
    from IPython.display import display
    from ipywidgets import Image as ImageWidget
    from ipywidgets import SelectionSlider, VBox

    if not values or len(images) != len(values):
        raise ValueError(f"{len(values)} values do not fit {len(images)} images")
    files = [png_bytes(to_pil(image)) for image in images]
    choices = [(label(value), i) for i, value in enumerate(values)]
    slider = SelectionSlider(options=choices, description=name)
    shown = ImageWidget(value=files[0], format="png")
    slider.observe(lambda change: setattr(shown, "value", files[change.new]), "value")
    widget = VBox([slider, shown])
    display(widget)
    return widget


def label(value: object) -> str:
    """Return a value as the slider and the grid show it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def png_bytes(image: Image.Image) -> bytes:
    """Return an image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def image_slider(
    images: Sequence[ImageLike], values: Sequence[object], name: str, side: int | None = None
) -> Image.Image:
    """Display a slider as `show_slider` does, and return a grid for readers without a kernel.

    The grid has up to seven of the images, from the first to the last, each `side` pixels wide.
    """
    show_slider(images, values, name)
    last, count = len(images) - 1, min(len(images), MAX_SHOWN)
    shown = sorted({round(i * last / max(count - 1, 1)) for i in range(count)})
    titles = [f"{name} = {label(values[i])}" for i in shown]
    return image_grid([images[i] for i in shown], titles=titles, side=side)
