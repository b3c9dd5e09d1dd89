"""Answers to the exercises that are wrong, or right in another way: official ones, changed.

Each module here belongs to a module of `grading.recipes` and has two lists of `Answer`: WRONG, each
of which has to lose points at its exercise, and HARMLESS, which have to get all points.
"""

import ast
import functools
from dataclasses import dataclass

from course.notebooks import code_cells, lesson_paths, read
from grading.fences import cells_with_exercise, exercise_in, solutions
from grading.release import fenced_modules


@dataclass(frozen=True)
class Answer:
    """An answer to an exercise: the source of a whole code cell, or of a function of task 3."""

    exercise: str
    name: str
    source: str

    def __str__(self) -> str:
        return f"{self.exercise} {self.name}".replace(" ", "_")


@functools.cache
def official_answers() -> dict[str, str]:
    """Return the official answer of each exercise that has code: its cell, or its function."""
    answers = {}
    for path in lesson_paths():
        for cell, exercise in cells_with_exercise(read(path)):
            if cell.cell_type == "code" and solutions(cell.source, exercise):
                answers[exercise] = cell.source
    for path in fenced_modules():
        source = path.read_text("utf-8")
        lines = source.splitlines(keepends=True)
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef):
                start = min(part.lineno for part in (node, *node.decorator_list)) - 1
                function = "".join(lines[start : node.end_lineno])
                exercise = exercise_in("".join(lines[:start]))
                if exercise and solutions(function, exercise):
                    answers[exercise] = function
    return answers


@functools.cache
def lesson_cells(lesson: str) -> dict[str, str]:
    """Return the sources of a lesson's code cells by their ids; lesson: the notebook's name."""
    [path] = [path for path in lesson_paths() if lesson.endswith(path.name)]
    return {cell.id: cell.source for cell in code_cells(read(path))}


def changed(exercise: str, name: str, *changes: str) -> Answer:
    """Return the official answer with changes in its text: old, new, old, new, ..."""
    source = official_answers()[exercise]
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in source, f"{exercise} has no {old!r}"
        source = source.replace(old, new)
    return Answer(exercise, name, source)


def rewritten(exercise: str, name: str, lines: str) -> Answer:
    """Return the official answer with other lines in its fence, indented as in the lesson."""
    source = official_answers()[exercise]
    [solution] = solutions(source, exercise)
    code = "".join(f"{solution.indent}{line}".rstrip() + "\n" for line in lines.strip().split("\n"))
    return Answer(exercise, name, source.replace(solution.code, code))
