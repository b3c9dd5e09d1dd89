"""Decodes images and clips of a submission; runs in the sandbox, started by `grading.exhibits`.

It reads a line of JSON from stdin, {"paths": [...], "side": pixels, "frames": number}, and sends
frames (F, H, W, 3) uint8 by the number of the path. What it cannot decode is missing.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageSequence

from grading import pipe

MAX_PIXELS = 64 << 20  # of an image or frame
MAX_READ = 4000  # frames of a clip that are looked at


def read_frames(path: Path) -> Iterator[Image.Image]:
    """Yield the frames of an image, GIF or MP4. Raises what the decoders raise."""
    if path.suffix.lower() != ".mp4":
        with Image.open(path) as image:
            for frame in ImageSequence.Iterator(image):
                yield frame.convert("RGB")
        return
    reader = imageio_ffmpeg.read_frames(path, pix_fmt="rgb24")
    size = next(reader)["size"]
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError("too many pixels")
    for data in reader:
        yield Image.frombytes("RGB", size, data)


def sampled(frames: Iterator[Image.Image], side: int, most: int) -> list[Image.Image]:
    """Return at most `most` frames, evenly spaced, none longer than `side` pixels."""
    kept: list[Image.Image] = []
    step = 1
    for i, frame in enumerate(frames):
        if i >= MAX_READ:
            break
        if i % step:
            continue
        if len(kept) == most:  # keep every second one from here on
            kept, step = kept[::2], 2 * step
            if i % step:
                continue
        frame.thumbnail((side, side))
        kept.append(frame)
    return kept


def main() -> int:
    request = json.loads(sys.stdin.readline())
    descriptor = int(os.environ["GRADING_RESULTS"])
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow refuses twice as many
    for number, path in enumerate(request["paths"]):
        try:
            frames = sampled(read_frames(Path(path)), request["side"], request["frames"])
            array = np.stack([np.asarray(frame) for frame in frames])
        except Exception:  # decoders raise anything for damaged files
            continue
        pipe.send(descriptor, {str(number): array})
    return 0


if __name__ == "__main__":
    sys.exit(main())
