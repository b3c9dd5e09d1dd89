"""What a student's page shows of images and clips: the student's, the reference, the difference.

The files lie in OUT/NAME/media, those of the official lessons in OUT/reference. They are written
anew from pixels, which a decoder in the sandbox sends: nothing of a file that a student handed in
reaches a browser, and no decoder runs in the grading process. OUT/NAME/exhibits.json lists them.
"""

import hashlib
import json
import math
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from course.files import write_text
from course.images.video import write_video
from course.notebooks import ROOT, lesson_paths
from grading import pipe, sandbox
from grading.media import FILES, Media
from grading.sandbox import Limits
from grading.submissions import StudentFiles, opened

MEDIA = "media"
REFERENCE = "reference"
EXHIBITS = "exhibits.json"
IMAGES = (".png", ".jpg", ".jpeg")
IMAGE_SIDE = 1280  # pixels
CLIP_SIDE = 256
MAX_FRAMES = 60  # of a clip
MAX_SHOWN = 4  # images and clips of an exercise
SAME = 45.0  # dB: images that differ less are not shown beside each other
GAIN = 4  # of differences, so that small ones are visible
FPS = 12
LIMITS = Limits(seconds=120, memory=2 << 30, processes=32, results=256 << 20)
NEEDED = ("__init__.py", "pipe.py", "decoder.py")  # in the sandbox, beside `course`

References = Mapping[str, Sequence[Path]]  # the official images by exercise


@dataclass(frozen=True)
class Exhibit:
    """Images and clips that stand next to each other: (address from the page, caption) of each."""

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
    """Write an image (H, W, 3) uint8 as PNG. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def exhibit_image(
    folder: Path, exercise: str, name: str, image: np.ndarray, reference: Path | None = None
) -> Exhibit:
    """Write an image into FOLDER/media, and the difference from its reference.

    Args:
        folder: of the submission.
        exercise: id of the exercise.
        name: of the files, without suffix; the caller makes it unique.
        image: (H, W, 3) uint8.
        reference: a file in OUT/reference, or None. If it agrees, it is shown alone.
    """
    size = f"{image.shape[1]} × {image.shape[0]}"
    own = (f"{MEDIA}/{name}.png", size)
    if reference is None:
        save_image(folder / own[0], image)
        return Exhibit(exercise, [own])
    official = np.asarray(Image.open(reference).convert("RGB"))
    address = f"../{REFERENCE}/{reference.name}"
    files = [own, (address, "reference")]
    if official.shape == image.shape:
        ratio = psnr(image, official)
        if ratio >= SAME:
            return Exhibit(exercise, [(address, "as the reference")])
        gap = (f"{MEDIA}/{name}-difference.png", f"difference × {GAIN}, {ratio:.0f} dB")
        save_image(folder / gap[0], difference(image, official))
        files.append(gap)
    save_image(folder / own[0], image)
    return Exhibit(exercise, files)


def exhibit_clip(folder: Path, exercise: str, name: str, frames: np.ndarray) -> Exhibit:
    """Write a clip, frames (F, H, W, 3) uint8, into FOLDER/media as MP4. Raises VideoError.

    Beside it lies a still with the suffix ".png": four frames, evenly spaced.
    """
    write_video(folder / MEDIA / f"{name}.mp4", list(map(Image.fromarray, frames)), fps=FPS)
    rows = np.hsplit(np.hstack([frames[i * len(frames) // 4] for i in range(4)]), 2)
    save_image(folder / MEDIA / f"{name}.png", np.vstack(rows))
    return Exhibit(exercise, [(f"{MEDIA}/{name}.mp4", f"{len(frames)} frames")])


def decode(paths: Sequence[Path], sandbox_name: str = "") -> list[np.ndarray | None]:
    """Return the frames (F, H, W, 3) uint8 of images and clips, None for what cannot be decoded.

    Images have one frame. Large ones are reduced to IMAGE_SIDE or CLIP_SIDE pixels, long clips to
    MAX_FRAMES. The decoders run in the named sandbox, by default the first that works. Raises
    SandboxError without one.
    """
    decoded: dict[Path, np.ndarray] = {}
    images = [path for path in paths if path.suffix.lower() in IMAGES]
    clips = [path for path in paths if path.suffix.lower() not in IMAGES]
    for files, side, frames, count in (
        (images, IMAGE_SIDE, 1, 40),
        (clips, CLIP_SIDE, MAX_FRAMES, 2),
    ):
        for start in range(0, len(files), count):
            batch = files[start : start + count]
            decoded |= decode_batch(batch, side, frames, sandbox_name)
    return [decoded.get(path) for path in paths]


def decode_batch(
    paths: Sequence[Path], side: int, frames: int, sandbox_name: str
) -> dict[Path, np.ndarray]:
    """Return the frames of files in one sandbox; side: the longest. frames: of each, at most."""
    request = {"paths": [str(path.resolve()) for path in paths], "side": side, "frames": frames}
    outcome = sandbox.run(
        [sys.executable, "-m", "grading.decoder"],
        [ROOT / "course", *(ROOT / "grading" / name for name in NEEDED), *paths],
        {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        LIMITS,
        json.dumps(request).encode() + b"\n",
        name=sandbox_name,
    )
    try:
        arrays = pipe.receive(outcome.results)
    except pipe.PipeError:
        return {}  # a limit stopped it
    numbered = {str(number): path for number, path in enumerate(paths)}
    return {numbered[name]: a for name, a in arrays.items() if name in numbered and is_frames(a)}


def is_frames(array: np.ndarray) -> bool:
    return array.dtype == np.uint8 and array.ndim == 4 and array.shape[3] == 3 and array.size > 0


def lesson_images(out: Path, sandbox_name: str = "") -> References:
    """Write the images of the official lessons to OUT/reference, and return them by exercise.

    Results of free choice have no reference. Raises OSError, SandboxError.
    """
    with opened(StudentFiles("reference", tuple(lesson_paths()))) as lessons:
        return write_references(out, lessons.media, sandbox_name)


def write_references(
    out: Path, media: Mapping[str, Sequence[Media]], sandbox_name: str = ""
) -> References:
    """Write official images to OUT/reference, and return them by exercise, as `media` has them."""
    folder = out / REFERENCE
    folder.mkdir(parents=True, exist_ok=True)
    items = [(id, item.path) for id, shown in media.items() if id not in FILES for item in shown]
    references: dict[str, list[Path]] = {}
    decoded = decode([path for _, path in items], sandbox_name)
    for number, ((id, _), frames) in enumerate(zip(items, decoded, strict=True)):
        if frames is not None and len(frames) == 1:
            path = folder / f"{number:03d}.png"
            save_image(path, frames[0])
            references.setdefault(id, []).append(path)
    return references


def collect(
    folder: Path,
    media: Mapping[str, Sequence[Media]],
    references: References,
    sandbox_name: str = "",
) -> list[Exhibit]:
    """Write what a page shows of a submission's images and clips, and return it.

    folder: of the submission, OUT/NAME. media: by exercise. Raises OSError, SandboxError.
    """
    shutil.rmtree(folder / MEDIA, ignore_errors=True)
    (folder / MEDIA).mkdir(parents=True)
    items = [(id, item.path) for id, shown in media.items() for item in shown[:MAX_SHOWN]]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for _, path in items]
    files = dict(zip(digests, [path for _, path in items], strict=True))  # each once
    decoded = dict(zip(files, decode(list(files.values()), sandbox_name), strict=True))
    clips: dict[str, Exhibit] = {}
    exhibits = []
    seen: Counter[str] = Counter()
    for number, ((id, _), digest) in enumerate(zip(items, digests, strict=True)):
        frames = decoded[digest]
        if frames is None:
            continue
        if len(frames) > 1:
            if digest not in clips:
                clips[digest] = exhibit_clip(folder, id, f"{number:03d}", frames)
            exhibits.append(Exhibit(id, clips[digest].files))
            continue
        official = references.get(id, ())
        reference = official[seen[id]] if seen[id] < len(official) else None
        seen[id] += 1
        exhibits.append(exhibit_image(folder, id, f"{number:03d}", frames[0], reference))
    write_exhibits(folder, exhibits)
    return exhibits


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
