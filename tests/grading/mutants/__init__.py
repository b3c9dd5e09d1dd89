"""Answers to the exercises that are wrong, or right in another way: official ones, changed.

Each module here belongs to a module of `grading.recipes` and has two lists of `Answer`: WRONG, each
of which has to lose points at its exercise, and HARMLESS, which have to get all points.
"""

from dataclasses import dataclass

from grading import official
from grading.fences import solutions


@dataclass(frozen=True)
class Answer:
    """An answer to an exercise: the source of a whole code cell, or of a function of task 3."""

    exercise: str
    name: str
    source: str

    def __str__(self) -> str:
        return f"{self.exercise} {self.name}".replace(" ", "_")


def changed(exercise: str, name: str, *changes: str) -> Answer:
    """Return the official answer with changes in its text: old, new, old, new, ..."""
    source = official.answers()[exercise]
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in source, f"{exercise} has no {old!r}"
        source = source.replace(old, new)
    return Answer(exercise, name, source)


def rewritten(exercise: str, name: str, lines: str) -> Answer:
    """Return the official answer with other lines in its fence, indented as in the lesson."""
    source = official.answers()[exercise]
    [solution] = solutions(source, exercise)
    code = "".join(f"{solution.indent}{line}".rstrip() + "\n" for line in lines.strip().split("\n"))
    return Answer(exercise, name, source.replace(solution.code, code))
