"""Reading images: any image file, PIL image, array or tensor becomes RGB."""

import os
import warnings
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from course.arguments import check_integer
from course.errors import CourseError

TEXT_COLOR, BACKGROUND = (40, 40, 40), (255, 255, 255)
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # no others: EPS starts Ghostscript
MIN_SIDE = 16  # pixels
MAX_PIXELS = 150_000_000  # in color half a gigabyte
BAND_PIXELS = 1_000_000  # converted at a time
OVERSAMPLING = 3  # an image is decoded to this many times the size that is needed, or finer
ROUNDING = 0.002  # of white: about half a step of 8 bits, by which floats may leave their range
MIN_BYTE_MAXIMUM = 16.0  # floats between 1 and this are neither in [0, 1] nor plausibly in [0, 255]
ImageLike: TypeAlias = "Image.Image | np.ndarray | torch.Tensor"


class ImageError(CourseError, ValueError):
    """An image cannot be used; the message names it and says why."""


def to_pil(image: ImageLike) -> Image.Image:
    """Return one image as PIL RGB, as `load_image` reads a file: 16 bits as 8, alpha on white.

    A PIL image of any mode; an array (H, W, 3) or (H, W); a tensor (3, H, W) or (1, 3, H, W).
    Tensors of floats are in [-1, 1], as a decoder returns them, and clipped. Otherwise white is
    1 in bool, 255 in uint8, 65535 in uint16; in other integers 255 if no value exceeds it, else
    65535; in floats 1 if no value exceeds it, else 255, else 65535.
    Raises ImageError for another type or shape, and for values that are negative, too large,
    not finite, or floats that fit neither [0, 1] nor [0, 255].
    """
    if isinstance(image, Image.Image):
        return _to_rgb(image)
    if isinstance(image, torch.Tensor):
        image = _tensor_to_array(image)
    if not isinstance(image, np.ndarray):
        kind = type(image).__name__  # type: ignore[unreachable]
        raise ImageError(f"An image must be a PIL image, an array or a tensor, got {kind}.")
    shape = image.shape
    if image.ndim not in (2, 3) or shape[2:] not in ((), (3,)) or not image.size:
        raise ImageError(f"An image must be an array (H, W, 3) or (H, W), got {shape}.")
    if image.dtype.kind not in "biuf":
        raise ImageError(f"The values of an image must be numbers, got {image.dtype}.")
    white = _white_level(image.dtype, image.min(), image.max())
    return Image.fromarray(_to_bytes(image, white)).convert("RGB")


def _tensor_to_array(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor (3, H, W) or (1, 3, H, W) as an array (H, W, 3), floats in [0, 1]."""
    if tensor.dim() == 4 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.dim() != 3 or tensor.shape[0] != 3 or not tensor.numel():
        shape = tuple(tensor.shape)
        raise ImageError(f"An image must be a tensor (3, H, W) or (1, 3, H, W), got {shape}.")
    channels_last = tensor.detach().cpu().permute(1, 2, 0)
    if not tensor.is_floating_point():
        return channels_last.numpy()
    values: np.ndarray = channels_last.float().numpy()
    _check_finite(values)
    if values.max() >= MIN_BYTE_MAXIMUM:
        raise ImageError(
            f"A tensor of floats must be in [-1, 1], got values up to {values.max():g}. "
            "Divide one in [0, 255] by 127.5 and subtract 1."
        )
    return (values.clip(-1, 1) + 1) / 2


def _check_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise ImageError("The image has NaN or infinite values. Check what computed it.")


def _white_level(dtype: np.dtype, low: float, high: float) -> float:
    """Return the value that is white in an image of this type with values from `low` to `high`."""
    fixed = {"bool": 1.0, "uint16": 65535.0}
    if dtype.name in fixed:
        return fixed[dtype.name]
    _check_finite(np.array([low, high]))
    floats = dtype.kind == "f"
    room = 1 + ROUNDING if floats else 1.0
    whites = (1.0, 255.0, 65535.0) if floats else (255.0, 65535.0)
    white = next((white for white in whites if high <= white * room), 0.0)
    uncertain = floats and white == 255 and high < MIN_BYTE_MAXIMUM
    if not white or low < white * (1 - room) or uncertain:
        raise ImageError(
            "The values of an image must be in [0, 1] (floats), [0, 255] or [0, 65535], "
            f"got {low:g} to {high:g}. Clip or scale them first, such as array.clip(0, 1)."
        )
    return white


def _to_bytes(values: np.ndarray, white: float) -> np.ndarray:
    """Return values in [0, white] as uint8."""
    if values.dtype == np.uint8:
        return values
    _check_finite(values)
    scaled = values * (255 / white)
    np.clip(scaled, 0, 255, out=scaled)
    return np.rint(scaled, out=scaled).astype(np.uint8)


def expand_path(path: str | os.PathLike[str], error: type[CourseError]) -> Path:
    """Return `path` with a leading ~ or ~user expanded; raise `error` if that user is not known."""
    try:
        return Path(path).expanduser()
    except TypeError:
        raise error(f"A path must be text or a pathlib.Path, got {path!r}.") from None
    except RuntimeError:
        raise error(
            f"{path} begins with the home folder of a user that this machine does not know. "
            f"Write the whole path, or ./{path} if that is its name."
        ) from None


def load_image(
    path: str | Path, size: int | tuple[int, int] | None = None, min_side: int = MIN_SIDE
) -> Image.Image:
    """Return any image file as RGB, upright as its camera was held, with values as `to_pil` reads
    them; of an animation the first frame.

    `size`, one number for a square or (width, height): cut about its middle to that shape and
    brought to it, and decoded no finer than that takes.
    Raises ImageError if there is no such file, if it is not an image or is damaged, and if it has
    too many pixels or a side shorter than `min_side`.
    """
    path = expand_path(path, ImageError)
    wanted = None if size is None else _check_size(size)
    try:
        image = _decode(path, wanted)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path} is not an image in a format that can be read: PNG, JPEG, WebP, GIF, BMP or "
            "TIFF. Save it as one of these."
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} is too large: {error}. Make it smaller first.") from error
    except (OSError, SyntaxError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path} is damaged or cannot be read: {reason}.") from error
    if min(image.size) < min_side:
        raise ImageError(
            f"{path} has {image.width} x {image.height} pixels, but each side must have at least "
            f"{min_side}."
        )
    return image if wanted is None else ImageOps.fit(image, wanted, Image.Resampling.LANCZOS)


def _check_size(size: int | tuple[int, int]) -> tuple[int, int]:
    width, height = size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)
    checked = [check_integer("size", side, 1, 16_384, ImageError) for side in (width, height)]
    return checked[0], checked[1]


def _decode(path: Path, wanted: tuple[int, int] | None) -> Image.Image:
    """Return an image file as RGB, upright, no finer than needed for `wanted` (width, height)."""
    if not path.exists():
        raise ImageError(f"There is no file {path}.")
    if path.is_dir():
        raise ImageError(f"{path} is a folder, not an image.")
    if not path.is_file():
        raise ImageError(f"{path} is a pipe or a device, not a file. Name an image file.")
    with warnings.catch_warnings():
        # Large images are welcome.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        opened = Image.open(path, formats=FORMATS)
    with opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ImageError(
                f"{path} has {opened.width} x {opened.height} pixels, more than "
                f"{MAX_PIXELS / 1e6:.0f} million: make it smaller first."
            )
        factor = 1
        if wanted is not None:
            # The decoder of JPEG can leave detail out itself.
            opened.draft("RGB", (2 * max(wanted), 2 * max(wanted)))
            factor = max(1, min(opened.size) // (OVERSAMPLING * max(wanted)))
        opened.load()  # a TIFF turns itself upright here
        orientation = opened.getexif().get(ExifTags.Base.Orientation)
        try:
            image = _to_rgb(opened, factor)
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error
    image.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(image)


def _to_rgb(image: Image.Image, factor: int = 1) -> Image.Image:
    """Return an image of any of PIL's modes as RGB, smaller by a whole `factor`.

    A band of rows at a time: a 16-bit image would otherwise be held several times, in floats.
    """
    if not all(image.size):
        raise ImageError(f"The image has no pixels: {image.width} x {image.height}.")
    white = 65535.0 if image.mode.startswith("I;16") else 255.0
    if image.mode in ("I", "F"):
        dtype = np.dtype(np.int32 if image.mode == "I" else np.float32)
        white = _white_level(dtype, *image.getextrema())
    sheet = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    rows = factor * max(1, BAND_PIXELS // (image.width * factor))
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        sheet.paste(_band_to_rgb(band, white).reduce(factor), (0, top // factor))
    return sheet


def _band_to_rgb(band: Image.Image, white: float) -> Image.Image:
    if band.mode.startswith(("I", "F")):  # convert() would cut these off at 255
        return Image.fromarray(_to_bytes(np.asarray(band), white)).convert("RGB")
    if not band.has_transparency_data:
        return band.convert("RGB")
    if band.mode == "La":
        band = band.convert("LA")
    page = Image.new("RGBA", band.size, BACKGROUND)
    return Image.alpha_composite(page, band.convert("RGBA")).convert("RGB")
