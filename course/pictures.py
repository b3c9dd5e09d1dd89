"""Pictures as the lessons show them: labelled grids."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

INK, PAPER = (40, 40, 40), (255, 255, 255)
Picture: TypeAlias = "Image.Image | np.ndarray | torch.Tensor"


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
