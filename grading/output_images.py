"""The images and clips of an answer, decoded, and whether they are the student's own."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from PIL import Image

from course.notebooks import ROOT, code_cells, lesson_paths, read
from grading import answers

SAME = 5.0  # mean difference of two images that are the same, from 0 to 255
TITLE = 17  # pixels, the height of a line of titles in a grid
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
        """The number of frames; of long clips grading.outputs.MAX_FRAMES at most, half at least."""
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


def handed_out(exercise: str) -> tuple[np.ndarray, ...]:
    """Return the images of the hand-out that a student could copy: samples and expected results."""
    [lesson] = [
        lesson
        for lesson in answers.lessons()
        if exercise in {place.exercise for place in lesson.places}
    ]
    return (*_samples(), *_expected_results(lesson.stem))


@cache
def _samples() -> tuple[np.ndarray, ...]:
    paths = [path for pattern in SAMPLES for path in sorted(ROOT.glob(pattern))]
    return tuple(np.asarray(Image.open(path).convert("RGB")) for path in paths)


@cache
def _expected_results(stem: str) -> tuple[np.ndarray, ...]:
    """Return the images in the outputs of an official lesson."""
    [path] = [path for path in lesson_paths() if path.stem == stem]
    data = [
        output.get("data", {}).get("image/png")
        for cell in code_cells(read(path))
        for output in cell.outputs
    ]
    images = [Image.open(io.BytesIO(base64.b64decode(each))) for each in data if each]
    return tuple(np.asarray(image.convert("RGB")) for image in images)


def tiles(image: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the images of a row that `course.images.image_grid` has put side by side.

    Empty if the width does not fit. Their titles are above them.
    """
    gap = 4  # course.images.grid.GAP
    height, width = image.shape[:2]
    side, rest = divmod(width + gap - count * gap, count)
    if rest or side < 32 or height < 48:
        return []
    above = height - side
    if not 0 <= above <= 64:  # they are not square
        above = TITLE
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
