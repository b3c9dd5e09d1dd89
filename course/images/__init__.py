"""Images: reading and converting, grids, conditions, video and panoramas.

from course.images import image_grid, load_image

image_grid([load_image("duck.png"), load_image("car.png")], titles=["duck", "car"])
"""

from course.images.grid import heat_map, image_grid
from course.images.io import ImageError, ImageLike, load_image, to_pil
from course.images.slider import image_slider, show_slider

__all__ = [
    "ImageError",
    "ImageLike",
    "heat_map",
    "image_grid",
    "image_slider",
    "load_image",
    "show_slider",
    "to_pil",
]
