"""What a student's page shows of images and clips: the student's, the reference, the difference.

The files lie in OUT/NAME/media and are written anew from pixels, so nothing of a file that a
student handed in reaches a browser. OUT/NAME/exhibits.json lists them.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from course.files import write_text
from course.images.video import write_video

MEDIA = "media"
EXHIBITS = "exhibits.json"
MAX_SIDE = 1600  # pixels of an image on a page
MAX_FRAMES = 120  # of a clip
GAIN = 4  # of differences, so that small ones are visible
FPS = 12


@dataclass(frozen=True)
class Exhibit:
    """What belongs next to each other on a page: (file in MEDIA, caption) of each image or clip."""

    exercise: str
    files: list[tuple[str, str]]


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of two uint8 images of one shape, in dB."""
    error = np.square(image.astype(np.float64) - reference).mean()
    return math.inf if error == 0 else float(10 * math.log10(255**2 / error))


def difference(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the absolute difference of two uint8 images, `GAIN` times as large: black is equal."""
    gap = np.abs(image.astype(np.int16) - reference)
    return np.clip(GAIN * gap, 0, 255).astype(np.uint8)


def save_image(path: Path, image: np.ndarray) -> None:
    """Write an image (H, W, 3) uint8 as PNG, reduced to MAX_SIDE. Raises OSError."""
    picture = Image.fromarray(image)
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    picture.save(path)


def exhibit_image(
    folder: Path, exercise: str, name: str, image: np.ndarray, reference: np.ndarray | None = None
) -> Exhibit:
    """Write an image into FOLDER/media, beside its reference and the difference.

    Args:
        folder: of the submission.
        exercise: id of the exercise.
        name: of the files, without suffix; the caller makes it unique.
        image: (H, W, 3) uint8. reference: the same, or None; the difference needs equal shapes.
    """
    media = folder / MEDIA
    media.mkdir(parents=True, exist_ok=True)
    parts = [(image, "", f"{image.shape[1]} × {image.shape[0]}")]
    if reference is not None:
        parts.append((reference, "-reference", "reference"))
        if reference.shape == image.shape:
            ratio = psnr(image, reference)
            label = "no difference" if math.isinf(ratio) else f"difference × {GAIN}, {ratio:.0f} dB"
            parts.append((difference(image, reference), "-difference", label))
    files = []
    for pixels, ending, caption in parts:
        save_image(media / f"{name}{ending}.png", pixels)
        files.append((f"{name}{ending}.png", caption))
    return Exhibit(exercise, files)


def exhibit_clip(folder: Path, exercise: str, name: str, frames: Sequence[np.ndarray]) -> Exhibit:
    """Write a clip of frames (H, W, 3) uint8 into FOLDER/media as MP4; long ones are sampled."""
    media = folder / MEDIA
    media.mkdir(parents=True, exist_ok=True)
    step = math.ceil(len(frames) / MAX_FRAMES)
    images = [Image.fromarray(frame) for frame in frames[::step]]
    write_video(media / f"{name}.mp4", images, fps=FPS)
    return Exhibit(exercise, [(f"{name}.mp4", f"{len(frames)} frames")])


def write_exhibits(folder: Path, exhibits: Sequence[Exhibit]) -> None:
    """Write FOLDER/exhibits.json, whole or not at all. Raises OSError."""
    write_text(folder / EXHIBITS, json.dumps([asdict(exhibit) for exhibit in exhibits]) + "\n")


def read_exhibits(folder: Path) -> list[Exhibit]:
    """Return what FOLDER/exhibits.json lists, none without that file."""
    path = folder / EXHIBITS
    if not path.is_file():
        return []
    return [
        Exhibit(value["exercise"], [(name, caption) for name, caption in value["files"]])
        for value in json.loads(path.read_text("utf-8"))
    ]
