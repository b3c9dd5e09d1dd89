"""Decodes images and clips of a submission; runs in the sandbox, and imports little.

    python -m grading.decode FILE ...

For file i it sends `i.frames`, uint8 (n, H, W, 3), and `i.size`: the number of frames, the height
and the width of the file; or `i.problem`, a text as bytes.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageSequence

from grading.pipe import send

MAX_PIXELS = 24_000_000  # of one image
MAX_FRAMES = 1000  # of a clip that are read
MAX_SIDE = 1200  # pixels; larger images are reduced
CLIP_HEIGHT = 160  # pixels; higher clips are reduced
KEPT = 64  # frames of a clip, evenly from its length
FORMATS = ("PNG", "JPEG", "GIF")


def frames_of_image(path: Path) -> Iterator[Image.Image]:
    """Yield the frames of an image file as RGB."""
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels")
        for frame in ImageSequence.Iterator(image):
            yield frame.convert("RGB")


def frames_of_clip(path: Path) -> Iterator[Image.Image]:
    """Yield the frames of an MP4 as RGB."""
    frames = imageio_ffmpeg.read_frames(str(path), pix_fmt="rgb24")
    size = next(frames)["size"]
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"it has {size[0]} x {size[1]} pixels")
    for frame in frames:
        yield Image.frombytes("RGB", tuple(size), frame)


def decode(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return frames (n, H, W, 3) uint8 and their number, height and width in the file."""
    is_clip = path.suffix == ".mp4"
    frames = frames_of_clip(path) if is_clip else frames_of_image(path)
    kept: list[np.ndarray] = []
    size = (0, 0)
    for count, frame in enumerate(frames):
        if count == MAX_FRAMES:
            break
        size = size if count else frame.size
        limit = CLIP_HEIGHT if count or is_clip else MAX_SIDE
        frame.thumbnail((8 * limit, limit) if is_clip else (limit, limit))
        kept.append(np.asarray(frame))
    if not kept:
        raise ValueError("it has no frame")
    number = len(kept)
    if number > 1:
        shape = kept[-1].shape
        kept = [frame for frame in kept if frame.shape == shape]
        kept = [kept[i * len(kept) // KEPT] for i in range(KEPT)] if len(kept) > KEPT else kept
    return np.stack(kept), np.array([number, size[1], size[0]])


def main(paths: list[str]) -> int:
    results = int(os.environ["GRADING_RESULTS"])
    for i, path in enumerate(paths):
        try:
            frames, size = decode(Path(path))
        except Exception as error:  # what a damaged file raises depends on where its reading stops
            reason = (str(error) or type(error).__name__).splitlines()[0][:200]
            send(results, {f"{i}.problem": np.frombuffer(reason.encode(), np.uint8)})
        else:
            send(results, {f"{i}.frames": frames, f"{i}.size": size})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
