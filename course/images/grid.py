"""Images side by side: labeled grids, and maps in false colors."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from course.images.io import BACKGROUND, TEXT_COLOR, ImageLike, to_pil


def image_grid(
    images: Iterable[ImageLike],
    columns: int | None = None,
    titles: Sequence[object] | None = None,
    rows: Sequence[object] | None = None,
    side: int | None = None,
) -> Image.Image:
    """Return one image with all images, left to right and top to bottom.

    Args:
        columns: images in a row; by default all in one.
        titles: above the images, one for each or one for each column.
        rows: names at the left of the rows.
        side: width of one image in pixels; by default that of the widest.
    Raises:
        ValueError: if there is no image, or the labels do not fit.
    """
    tiles = [to_pil(image) for image in images]
    if not tiles:
        raise ValueError("a grid needs at least one image")
    columns = columns or len(tiles)
    lines = -(-len(tiles) // columns)
    above_tiles = [str(title) for title in titles or ()]
    beside = [str(row) for row in rows or ()]
    _check_labels(len(tiles), columns, len(above_tiles), len(beside))

    width = side or max(tile.width for tile in tiles)
    tiles = [_resize(tile, width) for tile in tiles]
    height = max(tile.height for tile in tiles)
    size = max(11, width // 16)
    font = ImageFont.load_default(size)
    gap, line_height = 4, round(size * 1.3)
    wrapped = [wrap(title, font, width) for title in above_tiles]
    above = line_height * max((text.count("\n") + 1 for text in wrapped), default=0)
    left = max((round(font.getlength(row)) + 2 * gap for row in beside), default=0)
    every_line = len(wrapped) == len(tiles)
    step = height + gap + (above if every_line else 0)

    sheet = Image.new(
        "RGB",
        (left + columns * (width + gap) - gap, above + (lines - 1) * step + height),
        BACKGROUND,
    )
    draw = ImageDraw.Draw(sheet)
    for i, tile in enumerate(tiles):
        line, column = divmod(i, columns)
        x, y = left + column * (width + gap), above + line * step
        sheet.paste(tile, (x, y))
        if wrapped and (every_line or line == 0):
            draw.multiline_text(
                (x + width / 2, y - gap / 2),
                wrapped[i],
                TEXT_COLOR,
                font,
                anchor="md",
                align="center",
            )
    for line, row in enumerate(beside):
        draw.text(
            (left - gap, above + line * step + height / 2), row, TEXT_COLOR, font, anchor="rm"
        )
    return sheet


def _resize(image: Image.Image, width: int) -> Image.Image:
    height = round(image.height * width / image.width)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _check_labels(images: int, columns: int, titles: int, rows: int) -> None:
    """Raise ValueError unless the numbers of titles and row names fit a grid."""
    if titles not in (0, columns, images):
        raise ValueError(f"{titles} titles fit neither {columns} columns nor {images} images")
    lines = -(-images // columns)
    if rows not in (0, lines):
        raise ValueError(f"{rows} row names do not fit {lines} rows")


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


def heat_map(
    values: torch.Tensor, over: "ImageLike | None" = None, side: int | None = None
) -> Image.Image:
    """Return a map (h, w) in false colors, from its lowest value (dark) to its highest (bright).

    It is smoothly enlarged to the image `over`, and blended with it, or else to a width of `side`
    pixels. Raises ValueError for another shape.
    """
    from matplotlib import colormaps

    if values.dim() != 2:
        raise ValueError(f"a map must have the shape (h, w), got {tuple(values.shape)}")
    low, high = values.min(), values.max()
    level = ((values - low) / (high - low).clamp_min(1e-12)).detach().float().cpu().numpy()
    height, width = level.shape
    below = None if over is None else to_pil(over)
    size = below.size if below else (side or width, round(height * (side or width) / width))
    smooth = np.asarray(Image.fromarray(level).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    colored = Image.fromarray((colormaps["inferno"](smooth)[..., :3] * 255).astype(np.uint8))
    return colored if below is None else Image.blend(below, colored, 0.6)
