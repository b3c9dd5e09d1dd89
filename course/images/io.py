"""Pictures as the lessons show them: labelled grids, false colours, and any picture file that a person brings."""

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import ExifTags, Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from course.arguments import check_integer
from course.errors import CourseError

INK, PAPER = (40, 40, 40), (255, 255, 255)
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # no others: EPS starts Ghostscript
LEAST_SIDE = 16  # pixels
MOST_PIXELS = 150_000_000  # in colour half a gigabyte
BAND_PIXELS = 1_000_000  # converted at a time
OVERSAMPLING = 3  # an image is decoded to this many times the size that is needed, or finer
ROUNDING = 0.002  # of white: about half a step of 8 bits, by which floats may leave their range
DIMMEST_BYTES = 16.0  # floats between 1 and this are neither in [0, 1] nor plausibly in [0, 255]
Picture: TypeAlias = "Image.Image | np.ndarray | torch.Tensor"


class PictureError(CourseError, ValueError):
    """A picture cannot be used; the message names it and says why."""


def to_pil(picture: Picture) -> Image.Image:
    """Return one picture as PIL RGB, as `load_picture` reads a file: 16 bits as 8, alpha on white.

    A PIL image of any mode; an array (H, W, 3) or (H, W); a tensor (3, H, W) or (1, 3, H, W).
    Tensors of floats are in [-1, 1], as a decoder returns them, and clipped. Otherwise white is
    1 in bool, 255 in uint8, 65535 in uint16; in other integers 255 if no value exceeds it, else
    65535; in floats 1 if no value exceeds it, else 255, else 65535.
    Raises PictureError for another type or shape, and for values that are negative, too large,
    not finite, or floats that fit neither [0, 1] nor [0, 255].
    """
    if isinstance(picture, Image.Image):
        return _to_rgb(picture)
    if isinstance(picture, torch.Tensor):
        picture = _tensor_to_array(picture)
    if not isinstance(picture, np.ndarray):
        kind = type(picture).__name__
        raise PictureError(f"A picture must be a PIL image, an array or a tensor, not {kind}.")
    shape = picture.shape
    if picture.ndim not in (2, 3) or shape[2:] not in ((), (3,)) or not picture.size:
        raise PictureError(f"A picture must be an array (H, W, 3) or (H, W), not {shape}.")
    if picture.dtype.kind not in "biuf":
        raise PictureError(f"The values of a picture must be numbers, not {picture.dtype}.")
    white = _white_level(picture.dtype, picture.min(), picture.max())
    return Image.fromarray(_to_bytes(picture, white)).convert("RGB")


def _tensor_to_array(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor (3, H, W) or (1, 3, H, W) as an array (H, W, 3), floats in [0, 1]."""
    if tensor.dim() == 4 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.dim() != 3 or tensor.shape[0] != 3 or not tensor.numel():
        shape = tuple(tensor.shape)
        raise PictureError(f"A picture must be a tensor (3, H, W) or (1, 3, H, W), not {shape}.")
    values = tensor.detach().cpu().permute(1, 2, 0)
    if not tensor.is_floating_point():
        return values.numpy()
    values = values.float().numpy()
    _check_finite(values)
    if values.max() >= DIMMEST_BYTES:
        raise PictureError(
            f"A tensor of floats must be in [-1, 1], got values up to {values.max():g}. "
            "Divide one in [0, 255] by 127.5 and subtract 1."
        )
    return (values.clip(-1, 1) + 1) / 2


def _check_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise PictureError("The picture holds NaN or infinite values. Look at what computed it.")


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
    uncertain = floats and white == 255 and high < DIMMEST_BYTES
    if not white or low < white * (1 - room) or uncertain:
        raise PictureError(
            "The values of a picture must be in [0, 1] (floats), [0, 255] or [0, 65535], "
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


def heat(
    values: torch.Tensor, over: "Picture | None" = None, side: int | None = None
) -> Image.Image:
    """A map (h, w) in false colours, from its least value (dark) to its greatest (bright), smoothly enlarged to the
    picture it lies `over`, which shines through, or else to a width of `side` pixels."""
    from matplotlib import colormaps

    if values.dim() != 2:
        raise ValueError(f"a map has the shape (h, w), not {tuple(values.shape)}")
    low, high = values.min(), values.max()
    level = ((values - low) / (high - low).clamp_min(1e-12)).detach().float().cpu().numpy()
    height, width = level.shape
    below = None if over is None else to_pil(over)
    size = below.size if below else (side or width, round(height * (side or width) / width))
    smooth = np.asarray(Image.fromarray(level).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    colored = Image.fromarray((colormaps["inferno"](smooth)[..., :3] * 255).astype(np.uint8))
    return colored if below is None else Image.blend(below, colored, 0.6)


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


def load_picture(
    path: str | Path, size: int | tuple[int, int] | None = None, least: int = LEAST_SIDE
) -> Image.Image:
    """Return any picture file as RGB, upright as its camera was held, with values as `to_pil` reads
    them; of an animation the first frame.

    `size`, one number for a square or (width, height): cut about its middle to that shape and
    brought to it, and decoded no finer than that takes.
    Raises PictureError if there is no such file, it is no picture or a damaged one, it has too many pixels, or a side
    below `least`.
    """
    path = expand_path(path, PictureError)
    wanted = None if size is None else _check_size(size)
    try:
        picture = _decode(path, wanted)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{path} is not a picture that can be read here. PNG, JPEG, WebP, GIF, BMP and TIFF can; save it as one of "
            "these."
        ) from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"{path} is too large: {error}. Make it smaller first.") from error
    except (OSError, SyntaxError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PictureError(f"{path} is damaged or cannot be read: {reason}.") from error
    if min(picture.size) < least:
        raise PictureError(
            f"{path} has {picture.width} x {picture.height} pixels: too few to see anything in. "
            f"Each side needs {least}."
        )
    return picture if wanted is None else ImageOps.fit(picture, wanted, Image.Resampling.LANCZOS)


def _check_size(size: int | tuple[int, int]) -> tuple[int, int]:
    width, height = size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)
    checked = [check_integer("size", side, 1, 16_384, PictureError) for side in (width, height)]
    return checked[0], checked[1]


def _decode(path: Path, wanted: tuple[int, int] | None) -> Image.Image:
    """Return a picture file as RGB, upright, no finer than needed for `wanted` (width, height)."""
    if not path.exists():
        raise PictureError(f"There is no file {path}.")
    if path.is_dir():
        raise PictureError(f"{path} is a folder, not a picture.")
    if not path.is_file():
        raise PictureError(f"{path} is a pipe or a device, not a file. Name a picture file.")
    with warnings.catch_warnings():
        # Large pictures are welcome.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        opened = Image.open(path, formats=FORMATS)
    with opened:
        if opened.width * opened.height > MOST_PIXELS:
            raise PictureError(
                f"{path} has {opened.width} x {opened.height} pixels, more than "
                f"{MOST_PIXELS / 1e6:.0f} million: make it smaller first."
            )
        factor = 1
        if wanted is not None:
            # The decoder of JPEG can leave detail out itself.
            opened.draft("RGB", (2 * max(wanted), 2 * max(wanted)))
            factor = max(1, min(opened.size) // (OVERSAMPLING * max(wanted)))
        opened.load()  # a TIFF turns itself upright here
        orientation = opened.getexif().get(ExifTags.Base.Orientation)
        try:
            picture = _to_rgb(opened, factor)
        except PictureError as error:
            raise PictureError(f"{path}: {error}") from error
    picture.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(picture)


def _to_rgb(picture: Image.Image, factor: int = 1) -> Image.Image:
    """Return a picture of any of PIL's modes as RGB, smaller by a whole `factor`.

    A band of rows at a time: a 16-bit picture would otherwise be held several times, in floats.
    """
    if not all(picture.size):
        raise PictureError(f"The picture has no pixels: {picture.width} x {picture.height}.")
    white = 65535.0 if picture.mode.startswith("I;16") else 255.0
    if picture.mode in ("I", "F"):
        dtype = np.dtype(np.int32 if picture.mode == "I" else np.float32)
        white = _white_level(dtype, *picture.getextrema())
    sheet = Image.new("RGB", (-(-picture.width // factor), -(-picture.height // factor)))
    rows = factor * max(1, BAND_PIXELS // (picture.width * factor))
    for top in range(0, picture.height, rows):
        band = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        sheet.paste(_band_to_rgb(band, white).reduce(factor), (0, top // factor))
    return sheet


def _band_to_rgb(band: Image.Image, white: float) -> Image.Image:
    if band.mode.startswith(("I", "F")):  # convert() would cut these off at 255
        return Image.fromarray(_to_bytes(np.asarray(band), white)).convert("RGB")
    if not band.has_transparency_data:
        return band.convert("RGB")
    if band.mode == "La":
        band = band.convert("LA")
    page = Image.new("RGBA", band.size, PAPER)
    return Image.alpha_composite(page, band.convert("RGBA")).convert("RGB")


def grid(
    pictures: Iterable[Picture],
    columns: int | None = None,
    titles: Sequence[object] | None = None,
    rows: Sequence[object] | None = None,
    side: int | None = None,
) -> Image.Image:
    """Pictures side by side, left to right and top to bottom.

    `columns` a line (default: all in one), `titles` above them (one for each picture, or one for each column),
    `rows` names the lines at the left. `side` is the width of one picture in pixels (default: as it is).
    Raises ValueError if there is no picture or the labels do not fit.
    """
    tiles = [to_pil(picture) for picture in pictures]
    if not tiles:
        raise ValueError("a grid needs at least one picture")
    columns = columns or len(tiles)
    lines = -(-len(tiles) // columns)
    above_tiles, beside = [str(title) for title in titles or ()], [str(row) for row in rows or ()]
    if above_tiles and len(above_tiles) not in (columns, len(tiles)):
        raise ValueError(
            f"{len(above_tiles)} titles fit neither {columns} columns nor {len(tiles)} pictures"
        )
    if beside and len(beside) != lines:
        raise ValueError(f"{len(beside)} row names do not fit {lines} rows")

    width = side or max(tile.width for tile in tiles)
    tiles = [
        tile.resize((width, round(tile.height * width / tile.width)), Image.Resampling.LANCZOS)
        for tile in tiles
    ]
    height = max(tile.height for tile in tiles)
    size = max(11, width // 16)
    font = ImageFont.load_default(size)
    gap, line_height = 4, round(size * 1.3)
    wrapped = [wrap(title, font, width) for title in above_tiles]
    above = line_height * max((text.count("\n") + 1 for text in wrapped), default=0)
    left = max((round(font.getlength(row)) + 2 * gap for row in beside), default=0)
    every_line = len(wrapped) == len(tiles) > columns
    step = height + gap + (above if every_line else 0)

    sheet = Image.new(
        "RGB", (left + columns * (width + gap) - gap, above + (lines - 1) * step + height), PAPER
    )
    draw = ImageDraw.Draw(sheet)
    for i, tile in enumerate(tiles):
        line, column = divmod(i, columns)
        x, y = left + column * (width + gap), above + line * step
        sheet.paste(tile, (x, y))
        if wrapped and (every_line or line == 0):
            draw.multiline_text(
                (x + width / 2, y - gap / 2), wrapped[i], INK, font, anchor="md", align="center"
            )
    for line, row in enumerate(beside):
        draw.text((left - gap, above + line * step + height / 2), row, INK, font, anchor="rm")
    return sheet


def wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Break `text` between words into lines of at most `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)
