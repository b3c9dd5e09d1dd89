"""What a ControlNet is told of an image: edges, a scribble, depth or normals, each itself an image.

    edges = canny(image)                        # (H, W, 3) float32 in [0, 1]
    image = pipe(prompt, image=to_control(edges)) # as diffusers' pipelines take it

A condition is an array (H, W, 3) in [0, 1], which `course.images.image_grid` shows as it is. All follow the conventions of
the public ControlNets, so one serves any model. The embedded ControlNets learnt from conditions made the same way; what
both must agree on stands also in pocket/train/conditions.py, and a test holds the two equal.
"""

import cv2
import numpy as np
import torch

from course.images.io import ImageLike, to_pil

LOW, HIGH = 100, 200  # Canny's thresholds on the gradient of an 8-bit image
CANNY_BLUR = 1.4  # deviation in pixels
SCRIBBLE_BLUR, SCRIBBLE_LOW, SCRIBBLE_HIGH = 2.5, 40, 80
SCRIBBLE_SHORTEST, SCRIBBLE_STRAIGHTEN, SCRIBBLE_WIDTH = (
    40.0,
    1.5,
    3,
)  # pixels of an image 256 pixels wide
# Red is left, green is up, blue is towards the viewer, where a normal's x is to the right.
SIGNS = np.array([-1.0, 1.0, 1.0], np.float32)


def canny(image: ImageLike, low: float = LOW, high: float = HIGH) -> np.ndarray:
    """White edges on black, (H, W, 3) float32 of 0 and 1, by OpenCV (Canny 1986).

    An edge begins where the gradient exceeds `high` and goes on while it exceeds `low`; smoothed first, as the paper
    has it and OpenCV leaves to the caller. Raises ValueError unless 0 <= low <= high.
    """
    if not 0 <= low <= high:
        raise ValueError(f"Canny's thresholds are 0 <= low <= high, not low {low} and high {high}")
    return _colors(cv2.Canny(cv2.GaussianBlur(_array(image), (0, 0), CANNY_BLUR), low, high) / 255)


def scribble(image: ImageLike) -> np.ndarray:
    """The image as somebody would sketch it with a thick pen, white on black, (H, W, 3) float32 of 0 and 1.

    The outlines that outlast a strong blur, without the short ones, straightened (Douglas and Peucker 1973). A sketch
    by hand, white on black, will do as well.
    """
    pixels = _array(image)
    unit = min(pixels.shape[:2]) / 256
    edges = cv2.Canny(
        cv2.GaussianBlur(pixels, (0, 0), SCRIBBLE_BLUR * unit), SCRIBBLE_LOW, SCRIBBLE_HIGH
    )
    page = np.zeros(pixels.shape[:2], np.uint8)
    for line in cv2.findContours(edges, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]:
        if cv2.arcLength(line, True) >= SCRIBBLE_SHORTEST * unit:  # it runs along a stroke and back
            stroke = cv2.approxPolyDP(line, SCRIBBLE_STRAIGHTEN * unit, True)
            cv2.polylines(page, [stroke], True, 255, max(1, round(SCRIBBLE_WIDTH * unit)))
    return _colors(page / 255)


def depth_to_image(inverse_depth: np.ndarray) -> np.ndarray:
    """Inverse depth (H, W) of any scale, larger where nearer, as gray (H, W, 3) float32: the nearest point of the
    image is white, the farthest black. Raises ValueError if a value is not finite."""
    values = np.asarray(inverse_depth, np.float32)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"inverse depth is an array (H, W) of finite numbers, not {values.shape}")
    low, high = values.min(), values.max()
    return _colors((values - low) / max(high - low, 1e-6))


def image_to_depth(image: np.ndarray) -> np.ndarray:
    """The inverse depth (H, W) in [0, 1] that a gray condition (H, W, 3) stands for."""
    return np.asarray(image, np.float32).mean(axis=2)


def normals_to_image(normals: np.ndarray) -> np.ndarray:
    """Normals (H, W, 3) in camera space (x to the right, y up, z towards the viewer) of length 1, or 0 where there is
    no surface, as colours (H, W, 3) float32: red is left, green is up, blue is towards the viewer (Bae et al. 2021)."""
    return np.clip((np.asarray(normals, np.float32) * SIGNS + 1) / 2, 0, 1)


def image_to_normals(image: np.ndarray) -> np.ndarray:
    """The normals (H, W, 3) float32 of length 1 that the colours stand for; 0 where they say there is no surface."""
    normals = (2 * np.asarray(image, np.float32) - 1) * SIGNS
    length = np.linalg.norm(normals, axis=2, keepdims=True)
    return np.where(length > 0.5, normals / np.maximum(length, 1e-6), 0)


def to_control(
    condition: ImageLike, width: int | None = None, height: int | None = None
) -> torch.Tensor:
    """A condition as pipelines take it: float32 (1, 3, H, W) in [0, 1]; at another size where one is given."""
    image = to_pil(condition)
    if width and height and image.size != (width, height):
        image = image.resize((width, height))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def _array(image: ImageLike) -> np.ndarray:
    """uint8 (H, W, 3)."""
    return np.array(to_pil(image))


def _colors(page: np.ndarray) -> np.ndarray:
    """(H, W) to (H, W, 3) float32."""
    return np.repeat(page.astype(np.float32)[..., None], 3, axis=2)
