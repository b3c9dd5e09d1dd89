"""Grades the exercises with a free choice by what a submission shows: images and clips.

They are taken from the outputs of its notebooks and from its files, and decoded in the sandbox.
What is not the student's own, such as an image of the student copy, has no points.
"""

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from course.checks import exercises
from course.notebooks import ROOT, code_cells, lesson_paths, read
from grading import answers, exhibits
from grading.media import FILES, Media
from grading.policy import violation
from grading.scores import Score
from grading.submissions import Submission

IMAGE_SIDE = 1280  # pixels; larger images are reduced
CLIP_SIDE = 480  # of a clip of the program three images, of the judge's size
MAX_FRAMES = 96  # of a clip; of longer ones every second frame is left out, and so on
BATCH = 3  # clips that are decoded in one sandbox
SAME = 5.0  # mean difference of two images that are the same, from 0 to 255
FLAT = 3.0  # standard deviation of an image with one color everywhere
SAMPLES = ("assets/samples/*.png", "assets/*.png")


class NoOutput(Exception):
    """What the exercise asks for is not there, or not the student's; the message says what."""


@dataclass(frozen=True)
class Part:
    """A part of an exercise: whether it is right, and what to look at if it is not."""

    ok: bool
    message: str


@dataclass(frozen=True)
class Decoded:
    """An image or a clip: its name, and frames uint8 (n, H, W, 3), none if it cannot be read."""

    name: str
    frames: np.ndarray

    @property
    def count(self) -> int:
        """The number of frames; at most MAX_FRAMES, and then more than half of that."""
        return len(self.frames)

    @property
    def image(self) -> np.ndarray:
        """The first frame, uint8 (H, W, 3)."""
        return self.frames[0]

    @property
    def ratio(self) -> float:
        """Width by height."""
        return self.frames.shape[2] / self.frames.shape[1]


@dataclass
class Work:
    """What a check looks at: the answer's source, and what was decoded of its outputs and files.

    is_official: whether the answer is the official one, which may show what the lesson shows.
    """

    exercise: str
    answer: str
    items: list[Decoded]
    is_official: bool

    @cached_property
    def images(self) -> list[np.ndarray]:
        """The images, uint8 (H, W, 3)."""
        return [item.image for item in self.items if item.count == 1]

    @cached_property
    def clips(self) -> list[Decoded]:
        """The clips."""
        return [item for item in self.items if item.count > 1]

    @property
    def problems(self) -> str:
        """Which files cannot be read, as the end of a message; "" if all can."""
        damaged = [item.name for item in self.items if not item.count]
        return f" What cannot be read: {', '.join(damaged[:3])}." if damaged else ""


Check = Callable[[Work], list[Part]]


def grade(submission: Submission) -> list[Score]:
    """Return the scores of all exercises with a free choice.

    The submission is one of `submissions.opened`. Raises SandboxError.
    """
    from grading.output_checks import CHECKS

    media = {id: items for id, items in submission.media.items() if id in submission.answers}
    decoded = decode_all({item.path: item for items in media.values() for item in items})
    scores = []
    for exercise in FILES:
        answer = submission.answers.get(exercise, "")
        if refusal := _refusal(exercise, answer):
            scores.append(refusal)
            continue
        items = [decoded[item.path] for item in media.get(exercise, [])]
        is_official = answers.is_same(answer, answers.official()[exercise])
        scores.append(score(CHECKS[exercise], Work(exercise, answer, items, is_official)))
    return scores


def _refusal(exercise: str, answer: str) -> Score | None:
    """Return the score of an answer whose output is not looked at, None if it is."""
    points = exercises()[exercise].points
    if not answer:
        return Score(exercise, 0, points, "empty", "There is no answer.")
    if answers.parse(answer) is None:
        return Score(exercise, 0, points, "error", "The answer is no valid Python.")
    if message := violation(exercise, answer):
        return Score(exercise, 0, points, "not allowed", message)
    return None


def score(check: Check, work: Work) -> Score:
    """Return the score that a check gives: each part has the same weight."""
    points = exercises()[work.exercise].points
    try:
        parts = check(work)
    except NoOutput as reason:
        return Score(work.exercise, 0, points, "wrong", f"{reason}{work.problems}")
    right = sum(part.ok for part in parts)
    status = {0: "wrong", len(parts): "right"}.get(right, "partly")
    messages = [part.message for part in parts if not part.ok]
    message = " ".join(messages) or "The output is what the exercise asks for."
    return Score(work.exercise, round(points * right / len(parts), 4), points, status, message)


# --- Decoding


def decode_all(media: Mapping[Path, Media]) -> dict[Path, Decoded]:
    """Return images and clips by the path of their file, decoded in the sandbox."""
    images = [path for path in media if path.suffix in exhibits.IMAGES]
    clips = [path for path in media if path.suffix not in exhibits.IMAGES]
    frames = exhibits.decode_batch(images, IMAGE_SIDE, 1) if images else {}
    for start in range(0, len(clips), BATCH):
        frames |= exhibits.decode_batch(clips[start : start + BATCH], CLIP_SIDE, MAX_FRAMES)
    none = np.zeros((0, 1, 1, 3), np.uint8)
    return {path: Decoded(item.name, frames.get(path, none)) for path, item in media.items()}


# --- Comparing


def thumbnail(image: np.ndarray, side: int = 32) -> np.ndarray:
    """Return an image uint8 (H, W, 3) as float (side, side, 3), from 0 to 255."""
    small = Image.fromarray(image).resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, np.float32)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean difference of two images of any size, from 0 to 255."""
    return float(np.abs(thumbnail(a) - thumbnail(b)).mean())


def is_flat(image: np.ndarray) -> bool:
    """Return whether an image has nearly one color."""
    return float(image.std(axis=(0, 1)).max()) < FLAT


def is_among(image: np.ndarray, others: Iterable[np.ndarray]) -> bool:
    """Return whether an image, or its mirror image, is one of others, up to small changes."""
    return any(
        difference(each, other) < SAME for other in others for each in (image, image[:, ::-1])
    )


@cache
def handed_out(exercise: str) -> tuple[np.ndarray, ...]:
    """Return the images of the hand-out that a student could copy: samples and expected results."""
    images = [
        np.asarray(Image.open(path).convert("RGB"))
        for pattern in SAMPLES
        for path in sorted(ROOT.glob(pattern))
    ]
    [lesson] = [
        lesson
        for lesson in answers.lessons()
        if exercise in {place.exercise for place in lesson.places}
    ]
    [path] = [path for path in lesson_paths() if path.stem == lesson.stem]
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            if data := output.get("data", {}).get("image/png"):
                image = Image.open(io.BytesIO(base64.b64decode(data)))
                images.append(np.asarray(image.convert("RGB")))
    return tuple(images)


def tiles(image: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the images of a row that `course.images.image_grid` has put side by side.

    Empty if the width does not fit. They are square, below their titles.
    """
    gap = 4  # course.images.grid.GAP
    height, width = image.shape[:2]
    side, rest = divmod(width + gap - count * gap, count)
    above = height - side
    if rest or side < 32 or not 0 <= above <= 64:
        return []
    starts = [i * (side + gap) for i in range(count)]
    between = [image[above:, start - gap : start] for start in starts[1:]]
    if any(pixels.min() < 240 for pixels in between):  # white in a grid
        return []
    return [image[above:, start : start + side] for start in starts]


def find_row(work: Work, count: int) -> list[np.ndarray]:
    """Return the images of the first output that is a row of `count`. Raises NoOutput."""
    for image in work.images:
        if row := tiles(image, count):
            return row
    raise NoOutput(
        f"Below the answer there is no output with {count} images in a row: run the cells, and "
        "save the notebook with its outputs."
    )


def expect_own(work: Work, images: Sequence[np.ndarray], others: Iterable[np.ndarray]) -> None:
    """Raise NoOutput if an image is one of the hand-out's, or has one color."""
    for image in images:
        if is_flat(image):
            raise NoOutput("An image has one color everywhere.")
        if not work.is_official and is_among(image, others):
            raise NoOutput("An image is one of the course's own: make one yourself.")
