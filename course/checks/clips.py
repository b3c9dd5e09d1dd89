"""Clips of full turns: their frames, what they show, and whether two are the same."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from PIL import Image

from course.figures import ROOT

HANDED_OUT = [ROOT / "assets" / f"{name}.gif" for name in ("hamburger", "squirrel", "bunny")]
MIN_FRAMES = 48  # of a turntable


def read_frames(path: Path) -> np.ndarray:
    """Return the frames (n, H, W, 3) of a clip."""
    frames = np.asarray(iio.imread(path))
    return frames[..., :3] if frames.ndim == 4 else frames[None]


def color_part(frames: np.ndarray) -> np.ndarray:
    """Return the color images of the program's clips, which have depth and normals beside them."""
    height, width = frames.shape[1:3]
    return frames[:, :, :height] if width == 3 * height else frames


def directions(turn: np.ndarray, count: int, offset: float = 0.0) -> list[np.ndarray]:
    """Return `count` frames, evenly from a full turn; the first is `offset` of them later."""
    return [turn[int((i + offset) * len(turn) / count)] for i in range(count)]


def thumbnails(frames: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Return frames as small images (n, 24, 24, 3), float from 0 to 255."""
    images = [Image.fromarray(frame).resize((24, 24)).convert("RGB") for frame in frames]
    return np.stack([np.asarray(image, np.float32) for image in images])


def same_clip(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether eight directions of a clip are all among the frames of another one."""
    sampled = np.stack(directions(a, 8))
    differences = np.abs(sampled[:, None] - b[None]).mean((2, 3, 4))  # (8, n)
    return bool(differences.min(1).mean() < 3)


def known_objects(classes: Iterable[str]) -> set[str]:
    """Return the objects among the judge's classes, which are called "group:class"."""
    parts = [name.partition(":") for name in classes]
    return {label for group, _, label in parts if group == "object"} - {"none"}


def object_of(text: str, known: set[str]) -> str | None:
    """Return the first object of a prompt that the judge knows, or None."""
    words = text.lower()
    places = {name: words.find(name) for name in known if name in words}
    return min(places, key=lambda name: (places[name], -len(name))) if places else None
