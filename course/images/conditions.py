"""Conditions for ControlNets: edges, a scribble, depth or normals of an image.

    edges = canny(image)                          # (H, W, 3) float32 in [0, 1]
    image = pipe(prompt, image=to_control(edges)) # as diffusers' pipelines take it

Each condition is an image, and follows the conventions of the public ControlNets. pocket's training
uses the same functions: `canny_mask`, `scribble_mask`, `normalize_inverse_depth` and the
colors of normals.
"""

from typing import TypeVar

import cv2
import numpy as np
import torch

from course.images.io import ImageLike, to_pil

LOW, HIGH = 100, 200  # Canny's thresholds on the gradient of an 8-bit image
CANNY_BLUR = 1.4  # standard deviation in pixels
SCRIBBLE_LOW, SCRIBBLE_HIGH = 40, 80  # Canny's thresholds for a scribble
SCRIBBLE_BLUR = 2.5  # pixels of an image 256 pixels wide, as the three below
SCRIBBLE_MIN_LENGTH = 40.0
SCRIBBLE_STRAIGHTEN = 1.5
SCRIBBLE_WIDTH = 3
# Red is left, green is up, blue is toward the viewer, where a normal's x is to the right.
NORMAL_SIGNS = (-1.0, 1.0, 1.0)
Values = TypeVar("Values", np.ndarray, torch.Tensor)


def canny(image: ImageLike, low: float = LOW, high: float = HIGH) -> np.ndarray:
    """Return white edges on black, (H, W, 3) float32 of 0 and 1, by OpenCV (Canny 1986).

    An edge begins where the gradient exceeds `high` and continues while it exceeds `low`.
    Raises ValueError unless 0 <= low <= high.
    """
    if not 0 <= low <= high:
        raise ValueError(
            f"Canny's thresholds must satisfy 0 <= low <= high, got low {low} and high {high}."
        )
    return _to_rgb(canny_mask(np.array(to_pil(image)), low, high) / 255)


def canny_mask(pixels: np.ndarray, low: float = LOW, high: float = HIGH) -> np.ndarray:
    """Return uint8 (H, W), 255 on an edge, of an image uint8 (H, W, 3).

    The image is smoothed first, as in the paper; OpenCV leaves that to the caller.
    """
    return cv2.Canny(cv2.GaussianBlur(pixels, (0, 0), CANNY_BLUR), low, high)


def scribble(image: ImageLike) -> np.ndarray:
    """Return a sketch with a thick pen, white on black, (H, W, 3) float32 of 0 and 1.

    A sketch drawn by hand, white on black, serves as well.
    """
    return _to_rgb(scribble_mask(np.array(to_pil(image))) / 255)


def scribble_mask(pixels: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Return uint8 (H, W), 255 on a stroke, of an image uint8 (H, W, 3).

    Strokes are the outlines that outlast a strong blur, without the short ones, straightened
    (Douglas and Peucker 1973). With `rng` blur, width and straightness vary, strokes are shifted,
    and a tenth is left out: training sees many hands.
    """
    unit = min(pixels.shape[:2]) / 256

    def vary(low: float, high: float) -> float:
        return rng.uniform(low, high) if rng else 1.0

    soft = cv2.GaussianBlur(pixels, (0, 0), SCRIBBLE_BLUR * unit * vary(0.8, 1.4))
    edges = cv2.Canny(soft, SCRIBBLE_LOW, SCRIBBLE_HIGH)
    width = max(1, round(SCRIBBLE_WIDTH * unit * vary(0.6, 1.6)))
    straighten = SCRIBBLE_STRAIGHTEN * unit * vary(0.7, 2.0)
    mask = np.zeros(pixels.shape[:2], np.uint8)
    for line in cv2.findContours(edges, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]:
        # A contour runs along a stroke and back, so it is twice as long.
        if cv2.arcLength(line, True) < SCRIBBLE_MIN_LENGTH * unit or (rng and rng.random() < 0.1):
            continue
        stroke = cv2.approxPolyDP(line, straighten, True)
        if rng:
            shift = rng.normal(0, unit, (1, 1, 2)) + rng.normal(0, 0.5 * unit, stroke.shape)
            stroke = (stroke + shift).astype(np.int32)
        cv2.polylines(mask, [stroke], True, 255, width)
    return mask


def depth_to_image(inverse_depth: np.ndarray) -> np.ndarray:
    """Return inverse depth (H, W) of any scale, larger where nearer, as gray (H, W, 3) float32.

    The nearest point of the image is white, the farthest black. Raises ValueError if a value is not
    finite.
    """
    values = np.asarray(inverse_depth, np.float32)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(
            f"inverse_depth must be an array (H, W) of finite numbers, got shape {values.shape}."
        )
    return _to_rgb(normalize_inverse_depth(torch.from_numpy(values)).numpy())


def normalize_inverse_depth(inverse: torch.Tensor) -> torch.Tensor:
    """Return inverse depth (..., H, W) in [0, 1]: 1 at an image's nearest point, 0 at its farthest.

    Public depth estimators give it up to scale and shift, which this removes.
    """
    low, high = inverse.amin((-2, -1), keepdim=True), inverse.amax((-2, -1), keepdim=True)
    return (inverse - low) / (high - low).clamp(min=1e-6)


def normals_to_image(normals: Values) -> Values:
    """Return camera-space normals (..., 3) as colors in [0, 1] (Bae et al. 2021).

    Normals have x to the right, y up, z toward the viewer and length 1, or 0 where there is no
    surface. Red is left, green is up, blue is toward the viewer.
    """
    return ((normals * _normal_signs(normals) + 1) / 2).clip(0, 1)


def image_to_normals(image: Values) -> Values:
    """Return the normals (..., 3) of length 1 that colors in [0, 1] stand for.

    They are 0 where the color means that there is no surface.
    """
    normals = (2 * image - 1) * _normal_signs(image)
    length = (normals**2).sum(-1)[..., None] ** 0.5
    return normals / length.clip(1e-6) * (length > 0.5)


def _normal_signs(like: Values) -> Values:
    if isinstance(like, torch.Tensor):
        return torch.tensor(NORMAL_SIGNS, device=like.device)
    return np.array(NORMAL_SIGNS, np.float32)


def to_control(
    condition: ImageLike, width: int | None = None, height: int | None = None
) -> torch.Tensor:
    """Return a condition as pipelines take it: float32 (1, 3, H, W) in [0, 1].

    With `width` and `height` it is resized to them.
    """
    image = to_pil(condition)
    if width and height and image.size != (width, height):
        image = image.resize((width, height))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def _to_rgb(gray: np.ndarray) -> np.ndarray:
    """Return (H, W) as (H, W, 3) float32."""
    return np.repeat(gray.astype(np.float32)[..., None], 3, axis=2)
