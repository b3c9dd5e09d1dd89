"""The exercises of the course with their points: the rubric in course/exercises.toml."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from course.errors import CourseError

RUBRIC = Path(__file__).resolve().parent.parent / "exercises.toml"
LESSONS = {  # short titles by Exercise.lesson
    "0": "Introduction",
    "1.1": "A simple introduction to Stable Diffusion",
    "1.2": "A deeper look at Stable Diffusion",
    "video": "Make a video",
    "1.3": "ControlNet",
    "1.4": "Train your own latent diffusion model",
    "2": "Joint diffusion",
    "3": "DreamFusion",
}
STARS = {"warm-up": "★☆☆", "core": "★★☆", "challenge": "★★★", "written": "★☆☆"}  # by tier


class RubricError(CourseError):
    """The rubric has an entry that is not allowed; the message names it."""


@dataclass(frozen=True)
class Exercise:
    """An exercise.

    id: such as "1.2 (d)" or "1.2 challenge 1". tier: a key of `STARS`. minutes: the time it takes.
    check: the name of its function in course.checks, "" for a written answer.
    """

    id: str
    title: str
    tier: str
    minutes: int
    points: float
    check: str

    def __post_init__(self) -> None:
        if self.tier not in STARS:
            raise RubricError(
                f"{self.id}: tier must be one of {', '.join(STARS)}, got {self.tier!r}."
            )
        for name, kind in {
            "title": str,
            "minutes": int,
            "points": int | float,
            "check": str,
        }.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise RubricError(f"{self.id}: {name} must not be {value!r}.")
        if self.minutes < 1 or self.points < 0 or not self.title:
            raise RubricError(
                f"{self.id}: an exercise needs a title, at least one minute, and points from 0."
            )
        if (self.tier == "written") != (self.check == ""):
            raise RubricError(f"{self.id}: a written answer has no check, all others have one.")

    @property
    def lesson(self) -> str:
        """The lesson it belongs to: "1.2" for "1.2 (d)", "2" for "2.1 (1)"."""
        prefix = re.split(r" \(| challenge| written", self.id)[0]
        return "2" if prefix in ("2.1", "2.2") else prefix

    @property
    def label(self) -> str:
        """Stars, tier and time, as its heading in the lesson shows them."""
        return f"{STARS[self.tier]} {self.tier}, {self.minutes} min"


def read(path: Path) -> Mapping[str, Exercise]:
    """Return the exercises of a rubric by id, in its order. Raises RubricError."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        return {id: Exercise(id, **table) for id, table in tables.items()}
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise RubricError(f"{path.name}: {error}") from error


@cache
def exercises() -> Mapping[str, Exercise]:
    """Return all exercises of the course by id, in the order of the lessons."""
    return MappingProxyType(dict(read(RUBRIC)))


def points_of(id: str) -> float:
    """Return the points of an exercise, 0 if the rubric does not have it."""
    return exercises()[id].points if id in exercises() else 0
