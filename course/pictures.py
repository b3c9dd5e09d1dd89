"""Pictures as the lessons show them: labelled grids, false colours, and any picture file that a person brings."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from course.errors import CourseError

INK, PAPER = (40, 40, 40), (255, 255, 255)
LEAST_SIDE = 16  # pixels
MOST_PIXELS = 150_000_000  # in colour half a gigabyte
Picture: TypeAlias = "Image.Image | np.ndarray | torch.Tensor"


class PictureError(CourseError):
    """A picture cannot be used; the message names it and says why."""


def to_pil(picture: Picture) -> Image.Image:
    """One picture as PIL RGB: a tensor (3, H, W) or (1, 3, H, W) in [-1, 1], as a decoder returns it; an array
    (H, W, 3) or (H, W) in [0, 255] if uint8, else in [0, 1]; or a PIL picture. Values beyond are clipped."""
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if isinstance(picture, torch.Tensor):
        if picture.dim() == 4 and picture.shape[0] == 1:
            picture = picture[0]
        if picture.dim() != 3 or picture.shape[0] != 3:
            raise ValueError(f"a picture is a tensor (3, H, W) or (1, 3, H, W), not {tuple(picture.shape)}")
        picture = (picture.detach().float().cpu().permute(1, 2, 0).numpy() + 1) / 2
    if picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
        raise ValueError(f"a picture is an array (H, W, 3) or (H, W), not {picture.shape}")
    if picture.dtype != np.uint8:
        picture = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(picture).convert("RGB")


def heat(values: torch.Tensor, over: "Picture | None" = None, side: int | None = None) -> Image.Image:
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


def load_picture(path: str | Path, size: int | tuple[int, int] | None = None, least: int = LEAST_SIDE) -> Image.Image:
    """Any picture file as RGB, upright as its camera was held, what is transparent on white, 16 bits as 8, of an
    animation the first frame.

    `size`, one number for a square or (width, height): cut about its middle to that shape and brought to it.
    Raises PictureError if there is no such file, it is no picture or a damaged one, it has too many pixels, or a side
    below `least`.
    """
    path = Path(path).expanduser()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large pictures are welcome
            with Image.open(path) as opened:
                if opened.width * opened.height > MOST_PIXELS:
                    raise PictureError(
                        f"{path} has {opened.width} x {opened.height} pixels, more than {MOST_PIXELS / 1e6:.0f} "
                        "million: make it smaller first."
                    )
                if size is not None:
                    wanted = (size, size) if isinstance(size, int) else size
                    opened.draft("RGB", (2 * max(wanted), 2 * max(wanted)))  # a JPEG is read no finer than is needed
                opened.load()
                picture = _rgb(ImageOps.exif_transpose(opened))
    except FileNotFoundError as error:
        raise PictureError(f"There is no file {path}.") from error
    except IsADirectoryError as error:
        raise PictureError(f"{path} is a folder, not a picture.") from error
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{path} is not a picture that can be read here. PNG, JPEG, WebP, GIF, BMP and TIFF can; save it as one of "
            "these."
        ) from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"{path} is too large: {error}. Make it smaller first.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise PictureError(f"{path} is damaged or cannot be read: {error}.") from error
    if min(picture.size) < least:
        raise PictureError(
            f"{path} has {picture.width} x {picture.height} pixels: too few to see anything in. "
            f"Each side needs {least}."
        )
    return picture if size is None else ImageOps.fit(picture, wanted, Image.Resampling.LANCZOS)


def _rgb(picture: Image.Image) -> Image.Image:
    """A picture of any of PIL's kinds as RGB."""
    if picture.mode.startswith(("I", "F")):  # 16-bit or 32-bit gray, which convert() would cut off at 255
        values = np.asarray(picture, np.float64)
        whole = 65535.0 if values.max() > 255 or picture.mode.startswith("I;16") else 255.0
        return to_pil(values / max(whole, values.max()))
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        page = Image.new("RGBA", picture.size, PAPER)
        return Image.alpha_composite(page, picture).convert("RGB")
    return picture.convert("RGB")


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
        raise ValueError(f"{len(above_tiles)} titles fit neither {columns} columns nor {len(tiles)} pictures")
    if beside and len(beside) != lines:
        raise ValueError(f"{len(beside)} row names do not fit {lines} rows")

    width = side or max(tile.width for tile in tiles)
    tiles = [tile.resize((width, round(tile.height * width / tile.width)), Image.Resampling.LANCZOS) for tile in tiles]
    height = max(tile.height for tile in tiles)
    size = max(11, width // 16)
    font = ImageFont.load_default(size)
    gap, line_height = 4, round(size * 1.3)
    wrapped = [wrap(title, font, width) for title in above_tiles]
    above = line_height * max((text.count("\n") + 1 for text in wrapped), default=0)
    left = max((round(font.getlength(row)) + 2 * gap for row in beside), default=0)
    every_line = len(wrapped) == len(tiles) > columns
    step = height + gap + (above if every_line else 0)

    sheet = Image.new("RGB", (left + columns * (width + gap) - gap, above + (lines - 1) * step + height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, tile in enumerate(tiles):
        line, column = divmod(i, columns)
        x, y = left + column * (width + gap), above + line * step
        sheet.paste(tile, (x, y))
        if wrapped and (every_line or line == 0):
            draw.multiline_text((x + width / 2, y - gap / 2), wrapped[i], INK, font, anchor="md", align="center")
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
