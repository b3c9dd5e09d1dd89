"""The fences of the exercises: what students get in the place of a solution, and what they wrote.

A fence is a line `### BEGIN SOLUTION`, the solution, and a line `### END SOLUTION`, in a cell of a
lesson or in a module of task 3. The exercise is the last "TODO 1.2 (d)" before it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from nbformat import NotebookNode

from course.checks import exercises
from course.errors import CourseError
from course.notebooks import BEGIN_SOLUTION, END_SOLUTION

FENCE = re.compile(
    rf"^(?P<indent> *){BEGIN_SOLUTION}\n(?P<code>.*?)^ *{END_SOLUTION}$", re.DOTALL | re.MULTILINE
)


class FenceError(CourseError):
    """A solution belongs to no exercise, or a stub is not there; the message names it."""


@dataclass(frozen=True)
class Solution:
    """A fenced solution: the id of its exercise, its indentation, and its lines."""

    exercise: str
    indent: str
    code: str

    @property
    def stub(self) -> str:
        """What stands in the student copy in the place of the solution and its fence."""
        return f"{self.indent}...  # TODO {self.exercise}: write your lines here"

    @property
    def source(self) -> str:
        """The solution with its fence, as in the lesson."""
        return f"{self.indent}{BEGIN_SOLUTION}\n{self.code}{self.indent}{END_SOLUTION}"


def exercise_in(text: str) -> str | None:
    """Return the id of the exercise that the last "TODO" of a text names, None without one."""
    longest_first = sorted(exercises(), key=len, reverse=True)
    for rest in reversed(text.split("TODO ")[1:]):
        for id in longest_first:
            if re.match(rf"{re.escape(id)}(?!\w)", rest):
                return id
    return None


def cells_with_exercise(
    notebook: NotebookNode,
) -> Iterator[tuple[NotebookNode, str | None]]:
    """Yield the cells of a lesson, each with the exercise that it belongs to."""
    exercise = None
    for cell in notebook.cells:
        exercise = exercise_in(cell.source) or exercise
        yield cell, exercise


def solutions(source: str, exercise: str | None = None) -> list[Solution]:
    """Return the fenced solutions of a source, in order.

    exercise: of solutions with no TODO before them in the source. Raises FenceError.
    """
    result = []
    for match in FENCE.finditer(source):
        id = exercise_in(source[: match.start()]) or exercise
        if id is None:
            raise FenceError(f"There is no TODO of course/exercises.toml before {match.group()!r}.")
        result.append(Solution(id, match["indent"], match["code"]))
    return result


def without_solutions(source: str, exercise: str | None = None) -> str:
    """Return a source with a stub in the place of each solution; arguments as in `solutions`."""
    for solution in solutions(source, exercise):
        source = source.replace(solution.source, solution.stub, 1)
    return source
