"""Images side by side: labeled grids, and maps in false colors."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from course.images.io import BACKGROUND, TEXT_COLOR, ImageLike, to_pil

FONT_SIZES = (12, 16)  # pixels: the least that is easy to read, and the most that a label needs
GAP = 4  # pixels between images, and between an image and its label


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
    tiles = _resize_to_width([to_pil(image) for image in images], side)
    columns = columns or len(tiles)
    lines = -(-len(tiles) // columns)
    above_tiles, beside = list(map(str, titles or ())), list(map(str, rows or ()))
    if above_tiles and len(above_tiles) not in (columns, len(tiles)):
        raise ValueError(
            f"{len(above_tiles)} titles fit neither {columns} columns nor {len(tiles)} images"
        )
    if beside and len(beside) != lines:
        raise ValueError(f"{len(beside)} row names do not fit {lines} rows")

    width, height = tiles[0].width, max(tile.height for tile in tiles)
    font = ImageFont.load_default(font_size(width))
    # A column is as wide as the longest word above it, so that no title reaches into the next.
    words = [word for title in above_tiles for word in title.split()]
    cell = max([width, *(math.ceil(font.getlength(word)) for word in words)])
    wrapped = [wrap(title, font, cell - 2 * GAP) for title in above_tiles]
    above = max((_text_height(title, font) for title in wrapped), default=0)
    left = max((math.ceil(font.getlength(row)) + 2 * GAP for row in beside), default=0)
    every_line = len(wrapped) == len(tiles)
    row_height = max(height, max((_text_height(row, font) for row in beside), default=0))
    step = row_height + GAP + (above if every_line else 0)

    shape = left + columns * (cell + GAP) - GAP, above + (lines - 1) * step + row_height
    sheet = Image.new("RGB", shape, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for i, tile in enumerate(tiles):
        line, column = divmod(i, columns)
        x, y = left + column * (cell + GAP), above + line * step
        sheet.paste(tile, (x + (cell - width) // 2, y))
        if wrapped and (every_line or line == 0):
            place = (x + cell / 2, y - GAP / 2)
            draw.multiline_text(place, wrapped[i], TEXT_COLOR, font, anchor="md", align="center")
    for line, row in enumerate(beside):
        place = (left - GAP, above + line * step + height / 2)
        draw.text(place, row, TEXT_COLOR, font, anchor="rm")
    return sheet


def font_size(side: int) -> int:
    """Return the size in pixels of labels beside images of `side` pixels."""
    smallest, largest = FONT_SIZES
    return max(smallest, min(largest, side // 16))


def _text_height(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    """Return the height in pixels of lines of text, with a gap below; 0 without text."""
    if not text:
        return 0
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    _, top, _, _ = draw.multiline_textbbox((0, 0), text, font, anchor="md", align="center")
    return math.ceil(-top) + GAP


def _resize_to_width(tiles: list[Image.Image], width: int | None) -> list[Image.Image]:
    """Return images of one width, by default that of the widest, in proportion."""
    if not tiles:
        raise ValueError("a grid needs at least one image")
    width = width or max(tile.width for tile in tiles)
    sizes = [(width, round(tile.height * width / tile.width)) for tile in tiles]
    return [
        tile.resize(size, Image.Resampling.LANCZOS) for tile, size in zip(tiles, sizes, strict=True)
    ]


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
