"""A slider that shows one of several images, all of them computed before."""

from collections.abc import Mapping
from typing import Any

from PIL import Image


def image_slider(images: Mapping[Any, Image.Image], name: str) -> None:
    """Show a slider `name` whose values are the keys of `images`, and the image of its value.

    It needs a running kernel; a stored notebook shows nothing of it.
    """
    from ipywidgets import SelectionSlider, interact

    options = [(str(value), value) for value in images]
    slider = SelectionSlider(options=options, description=name)
    interact(lambda value: images[value], value=slider)
