"""From frames to a clip: folders in numeric order, two of them side by side, MP4 and GIF.

    video.join_folders("frames/x_t", "frames/x_0", "sampling.mp4", fps=8, hold=2)

Lesson 1.2 writes such folders; `make_video.ipynb` does the same piece by piece.
"""

import base64
import html
import itertools
import math
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import imageio_ffmpeg
import numpy as np
from IPython.display import HTML
from PIL import Image, ImageDraw, ImageFont

from course.arguments import check_integer, check_number
from course.files import replace_file
from course.images.frame_order import IMAGE_SUFFIXES, VideoError, frame_numbers, parse_timestep
from course.images.grid import wrap
from course.images.io import (
    BACKGROUND,
    TEXT_COLOR,
    ImageError,
    ImageLike,
    expand_path,
    load_image,
    to_pil,
)

GIF_TICK = 0.01  # seconds: a GIF counts time in hundredths
MIN_FPS = 0.02  # frames a second; with the longest hold a frame stays 650 seconds
MIN_FONT_SIZE = 12  # pixels; below, letters run together
VIDEO_PREFIX = "data:video/mp4;base64,"  # of a clip that is part of a page
MAX_FPS = {".mp4": 1000, ".gif": 50}  # browsers slow down a GIF that is faster
MAX_HOLD = 600  # seconds; a GIF can count to 655
# What an ffmpeg without libx264 says; the second where it has no other encoder with that option.
NO_ENCODER = "Unknown encoder|Unrecognized option 'crf'|[Ee]ncoder not found"
MAX_SIDE = {".mp4": 16_384, ".gif": 65_535}  # pixels; libx264 refuses more, a GIF has 16 bits


@dataclass(frozen=True)
class Frame:
    """An image of a series and its place there; `timestep` is None if the file name has none."""

    path: Path
    image: Image.Image
    step: int
    timestep: int | None = None

    def __str__(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}"


AnyFrame: TypeAlias = "Frame | ImageLike"


# --- Reading


def read_frames(folder: str | Path) -> list[Frame]:
    """Read the images of a folder as RGB, in the order and with the numbers of `frame_numbers`.

    `012_t0481.png` is step 12 at timestep 481. Files that are not images are left out. Raises
    VideoError if the folder is missing or has no images, if an image cannot be read, or if the
    order is not certain.
    """
    folder = expand_path(folder, VideoError)
    if folder.is_file():
        raise VideoError(f"{folder} is a file, not a folder of frames.")
    if not folder.is_dir():
        raise VideoError(f"There is no folder {folder}: make the frames first.")
    paths = {path.name: path for path in sorted(folder.iterdir()) if _is_frame(path.name)}
    if not paths:
        raise VideoError(
            f"There are no images in {folder}: frames end in {', '.join(IMAGE_SUFFIXES)}."
        )
    try:
        numbers = frame_numbers(paths)
    except VideoError as error:
        raise VideoError(f"{folder}: {error}") from error
    frames = []
    for name, number in sorted(numbers.items(), key=lambda item: item[1]):
        path = paths[name]
        frames.append(Frame(path, _open(path), number, parse_timestep(name)))
    return frames


def _is_frame(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def _open(path: Path) -> Image.Image:
    try:
        return load_image(path, min_side=1)
    except ImageError as error:
        raise VideoError(f"{error} Make it again, or move it away.") from error


# --- Side by side


def side_by_side(
    left: Sequence[AnyFrame],
    right: Sequence[AnyFrame],
    captions: Sequence[object] | None = None,
    headings: tuple[str, str] | None = None,
    height: int | None = None,
) -> list[Image.Image]:
    """Join two series, frame by frame, into images of one size.

    Args:
        left, right: frames from `read_frames`, or anything that `course.images.to_pil` takes.
        captions: one text for each pair, below it. By default frames from `read_frames` get their
            step and timestep; an empty list leaves the line out.
        headings: above the two sides; one such as "x_t" gets its subscript.
        height: of all images, in pixels; by default that of the highest. Proportions stay.
    Raises:
        VideoError: if the series are empty or of unequal length, or the captions do not fit.
    """
    pairs = _pair(left, right)
    texts = [_caption(a, b) for a, b in pairs] if captions is None else list(map(str, captions))
    if texts and len(texts) != len(pairs):
        raise VideoError(f"{len(texts)} captions do not fit {len(pairs)} frames.")
    if height is not None:
        height = check_integer("height", height, 1, MAX_SIDE[".gif"], VideoError)
    columns = [[_image(frame) for frame in column] for column in zip(*pairs, strict=True)]
    height = height or max(image.height for column in columns for image in column)
    columns = [[_fit(image, height) for image in column] for column in columns]
    return _draw_pairs(columns, texts, headings, height)


def _draw_pairs(
    columns: list[list[Image.Image]],
    texts: list[str],
    headings: tuple[str, str] | None,
    height: int,
) -> list[Image.Image]:
    """Return one image for each pair of two columns of images of one height."""
    widths = [max(image.width for image in column) for column in columns]
    size = max(MIN_FONT_SIZE, min(height, *widths) // 16)
    font, gap = ImageFont.load_default(size), max(4, size // 4)
    line = round(size * 1.6)
    if headings:
        widths = [
            max(w, math.ceil(font.getlength(text)) + gap)
            for w, text in zip(widths, headings, strict=True)
        ]
    # Wide enough for the longest word, however small the images.
    words = [math.ceil(font.getlength(word)) for text in texts for word in text.split()]
    width = max(sum(widths) + gap, max(words, default=0) + 2 * gap if texts else 0)
    wrapped = [wrap(text, font, width - 2 * gap) for text in texts]
    above, below = line if headings else 0, 0
    if any(wrapped):
        below = line + round(1.3 * size) * max(text.count("\n") for text in wrapped)
    # All captions begin at one place: the text does not tremble when a number gets shorter.
    lines = [part for text in wrapped for part in text.split("\n")]
    caption_left = (width - max(map(font.getlength, lines), default=0)) / 2
    start = (width - sum(widths) - gap) // 2  # of the left column
    lefts = (start, start + widths[0] + gap)

    sheets = []
    for i in range(len(columns[0])):
        sheet = Image.new("RGB", (width, above + height + below), BACKGROUND)
        draw = ImageDraw.Draw(sheet)
        for x, w, column, heading in zip(lefts, widths, columns, headings or ("", ""), strict=True):
            sheet.paste(column[i], (x + (w - column[i].width) // 2, above))
            _write_heading(draw, heading, x + w / 2, above / 2, size)
        if below:
            place, spacing = (caption_left, above + height + below / 2), size * 0.3
            draw.multiline_text(place, wrapped[i], TEXT_COLOR, font, anchor="lm", spacing=spacing)
        sheets.append(sheet)
    return sheets


def _pair(left: Sequence[AnyFrame], right: Sequence[AnyFrame]) -> list[tuple[AnyFrame, AnyFrame]]:
    """Return the two series as pairs: by their steps where both have them, else in order."""
    if not len(left) or not len(right):
        raise VideoError("Side by side needs at least one frame at the left and one at the right.")
    a, b = ({f.step: f for f in frames if isinstance(f, Frame)} for frames in (left, right))
    if len(a) == len(left) and len(b) == len(right):
        if single := [str((a | b)[step]) for step in sorted(a.keys() ^ b.keys())]:
            more = f" and {len(single) - 8} more" if len(single) > 8 else ""
            raise VideoError(
                "Without a partner of the same step on the other side: "
                f"{', '.join(single[:8])}{more}. Make both folders in one run."
            )
        for step in a:
            times = {a[step].timestep, b[step].timestep} - {None}
            if len(times) > 1:
                raise VideoError(
                    f"{a[step]} and {b[step]} are of different timesteps: make both folders in "
                    "one run."
                )
        return [(a[step], b[step]) for step in sorted(a)]
    if len(left) != len(right):
        raise VideoError(
            f"Both sides must have one length, got {len(left)} frames at the left and "
            f"{len(right)} at the right."
        )
    return list(zip(left, right, strict=True))


def _caption(left: AnyFrame, right: AnyFrame) -> str:
    frames = [frame for frame in (left, right) if isinstance(frame, Frame)]
    times = [frame.timestep for frame in frames if frame.timestep is not None]
    return (f"step {frames[0].step}" if frames else "") + (f", t = {times[0]}" if times else "")


def _image(frame: AnyFrame) -> Image.Image:
    return frame.image if isinstance(frame, Frame) else to_pil(frame)


def _fit(image: Image.Image, height: int) -> Image.Image:
    width = max(1, round(image.width * height / image.height))
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _write_heading(draw: ImageDraw.ImageDraw, text: str, x: float, y: float, size: int) -> None:
    """Write text centered at (x, y); the index of one letter, as in "x_t", is lower and smaller."""
    font = ImageFont.load_default(size)
    if not re.fullmatch(r"\w_\w", text):
        draw.text((x, y), text, TEXT_COLOR, font, anchor="mm")
        return
    small = ImageFont.load_default(round(size * 0.7))
    x -= (font.getlength(text[0]) + small.getlength(text[2])) / 2
    draw.text((x, y + size * 0.25), text[0], TEXT_COLOR, font, anchor="ls")
    draw.text(
        (x + font.getlength(text[0]), y + size * 0.45), text[2], TEXT_COLOR, small, anchor="ls"
    )


# --- Writing


def write_video(
    path: str | Path, frames: Iterable[AnyFrame], fps: float = 8, hold: float = 1.0
) -> Path:
    """Write frames of one size as .mp4 (H.264) or .gif (which loops), and return the path.

    `fps` frames a second; the last one stays `hold` seconds longer. MP4 needs even sides: an odd
    last row or column is doubled, none is lost. The file appears under its name when it is
    complete. Raises VideoError for another suffix, no frames, frames of several sizes, times out of
    range, a path that cannot be written, or no ffmpeg.
    """
    path = expand_path(path, VideoError)
    ending = path.suffix.lower()
    if ending not in MAX_FPS:
        raise VideoError(f"The name of a clip must end in .mp4 or .gif, got {path.name!r}.")
    rate = "fps of a GIF (an MP4 takes more)" if ending == ".gif" else "fps"
    fps = check_number(rate, fps, MIN_FPS, MAX_FPS[ending], VideoError)
    hold = check_number("hold", hold, 0, MAX_HOLD, VideoError)
    images = [_image(frame) for frame in frames]
    if not images:
        raise VideoError("A clip needs at least one frame.")
    if len(sizes := {image.size for image in images}) > 1:
        listed = ", ".join(f"{width} x {height}" for width, height in sorted(sizes))
        raise VideoError(
            f"The frames of a clip must have one size, got {listed}. side_by_side(...) fits them."
        )
    _check_sides(ending, *images[0].size)
    make_folder(path.parent)
    if path.is_dir():
        raise VideoError(f"{path} is a folder. Name a file in it, such as {path / 'clip'}{ending}.")
    write = _write_gif if ending == ".gif" else _write_mp4
    try:
        with replace_file(path) as new:
            write(new.resolve(), images, fps, hold)
    except OSError as error:
        reason = error.strerror or error
        raise VideoError(f"{path} cannot be written: {reason}. Name another place.") from error
    return path


def make_folder(path: str | Path) -> Path:
    """Create a folder, with those above it; raise VideoError if that is not possible."""
    folder = expand_path(path, VideoError)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        file = next((place for place in (folder, *folder.parents) if os.path.isfile(place)), None)
        reason = f"{file} is a file" if file else error.strerror or error
        raise VideoError(
            f"The folder {folder} cannot be created: {reason}. Name another place."
        ) from error
    return folder


def _check_sides(ending: str, width: int, height: int) -> None:
    largest = MAX_SIDE[ending]
    if max(width, height) > largest:
        other = f", or write a .gif: up to {MAX_SIDE['.gif']:,}" if ending == ".mp4" else ""
        raise VideoError(
            f"{ending[1:].upper()} allows at most {largest:,} pixels on a side; these frames have "
            f"{width:,} x {height:,}. Make them smaller{other}."
        )


def _write_mp4(path: Path, images: list[Image.Image], fps: float, hold: float) -> None:
    # Not through imageio, which does not notice when ffmpeg fails.
    width, height = images[0].size
    odd = ((0, height % 2), (0, width % 2), (0, 0))
    arrays = [np.pad(np.asarray(image), odd, mode="edge") for image in images]  # (H, W, 3) uint8
    size = f"{width + width % 2}x{height + height % 2}"
    # Browsers read unmarked files as BT.709 or BT.601: so convert, and mark the file.
    marks = (
        "scale=out_color_matrix=bt709:out_range=tv,setparams=color_primaries=bt709:color_trc=bt709"
    )
    filters = f"tpad=stop_mode=clone:stop={round(hold * fps)},{marks}"
    coding = "-c:v libx264 -crf 17 -pix_fmt yuv420p -movflags +faststart"
    source = f"-f rawvideo -pix_fmt rgb24 -s {size} -r {fps:.6f} -i -"
    try:
        ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
        options = ["-v", "error", *source.split(), "-vf", filters, *coding.split()]
        pixels = b"".join(array.tobytes() for array in arrays)
        process = subprocess.run([ffmpeg, *options, str(path)], input=pixels, capture_output=True)
    except (RuntimeError, OSError) as error:
        raise VideoError(
            f"No ffmpeg to write {path.name} with ({error}). Run `pip install imageio-ffmpeg`, "
            "which brings one, or write a .gif, which needs none."
        ) from error
    if process.returncode:
        complaint = process.stderr.decode(errors="replace")
        first = re.sub(r"(\[[^]]*\]\s*)*", "", complaint.strip().split("\n")[0], count=1)
        reason = f"it ended with status {process.returncode} and says: {first[:200] or 'nothing'}"
        if re.search(NO_ENCODER, complaint):
            reason = "it has no encoder for H.264 (libx264)"
        raise VideoError(
            f"{ffmpeg} could not write {path.name}: {reason}. Use the ffmpeg that `pip install "
            "imageio-ffmpeg` brings (remove IMAGEIO_FFMPEG_EXE from the environment), or write a "
            ".gif, which needs none."
        )


def _write_gif(path: Path, images: list[Image.Image], fps: float, hold: float) -> None:
    # Each frame ends at the nearest tick, so that rounding does not add up.
    ends = [round(i / fps / GIF_TICK) for i in range(len(images) + 1)]
    ends[-1] += round(hold / GIF_TICK)
    milliseconds = [10 * (end - begin) for begin, end in itertools.pairwise(ends)]
    # One palette for all: a color that is the same in two frames stays the same. No dithering: its
    # dots would move.
    palette = _sample(images).quantize(256, kmeans=1)
    indexed = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    indexed[0].save(path, save_all=True, append_images=indexed[1:], duration=milliseconds, loop=0)


def _sample(images: list[Image.Image], pixels: int = 100_000) -> Image.Image:
    """Return about so many pixels, evenly from all images, as one image."""
    every = math.ceil(sum(image.width * image.height for image in images) / pixels)
    chosen = np.concatenate([np.asarray(image).reshape(-1, 3)[::every] for image in images])
    return Image.fromarray(chosen[None])


# --- Showing


def show_video(path: str | Path, width: int | None = None) -> HTML:
    """Return an MP4 as an element that plays in a notebook, and in the HTML that nbconvert makes.

    The clip is in the element itself, so it needs no file and no network. It starts by itself,
    without sound, and loops. `width` in pixels; by default its own, or less on a narrow page.
    Raises VideoError for another suffix or a file that cannot be read.
    """
    path = expand_path(path, VideoError)
    if path.suffix.lower() != ".mp4":
        raise VideoError(f"The name of a clip to show must end in .mp4, got {path.name!r}.")
    try:
        data = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise VideoError(f"{path} cannot be read: {error.strerror or error}.") from error
    if width is not None:
        width = check_integer("width", width, 1, MAX_SIDE[".mp4"], VideoError)
    side = f' width="{width}"' if width else ""
    return HTML(
        f'<video autoplay loop muted playsinline controls{side} style="max-width: 100%" '
        f'aria-label="Clip {html.escape(path.name)}" '
        f'src="{VIDEO_PREFIX}{data}"></video>'
    )


# --- The whole job


def join_folders(
    left: str | Path,
    right: str | Path,
    path: str | Path,
    captions: Sequence[object] | None = None,
    headings: tuple[str, str] | None = None,
    height: int | None = None,
    fps: float = 8,
    hold: float = 1.0,
) -> Path:
    """Write two folders of frames, side by side, as a clip, and return its path.

    Arguments and errors are those of `read_frames`, `side_by_side` and `write_video`. By default
    the headings are the names of the folders.
    """
    headings = headings or (Path(left).name, Path(right).name)
    frames = side_by_side(read_frames(left), read_frames(right), captions, headings, height)
    return write_video(path, frames, fps, hold)
