"""How an exercise is graded: code that runs with the student's answer, and gives values to compare.

A recipe runs twice with the same seed: in the sandbox, with the student's answer, and, after that
process is dead, with the official solution. Both times it returns arrays; the grader compares them.
So it returns values that only a right answer gives, and never a verdict.

The recipes of a lesson are a module in `grading.recipes`. Its source goes to the sandbox over a
pipe, so it imports nothing of `grading` but this module and `small_model`. The current folder has
the files of the course, as in a lesson, and can be written to.

The exercises in a module of task 3 need nothing special: the answer stands for an import of the
student's function, and the module itself calls it as well.
"""

import __future__

import ast
import contextlib
import functools
import io
import json
import operator
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from course.models.files import ROOT

ANSWER = "<ipython-input-answer>"  # the file of an answer, as tracebacks name it
FUTURE = functools.reduce(
    operator.or_, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)  # flags of the imports from __future__
Space = dict[str, Any]  # the global names of a lesson
Arrays = dict[str, np.ndarray]  # the values to compare; each is a part of the exercise


@dataclass(frozen=True)
class Recipe:
    """The recipe of an exercise.

    exercise: its id. run: (space, seed) to the arrays, called after the answer. cells: ids of the
    lesson's cells that are executed before the answer, with the official solutions in them.
    prepare: called before the answer, after the cells; it may set names in `space`, such as a
    stand-in for a function that takes long. measure: the arrays and the seed to those that are
    compared, called outside the sandbox; for answers with more than one right value, such as random
    samples.
    """

    exercise: str
    run: Callable[[Space, int], Arrays]
    cells: tuple[str, ...] = ()
    prepare: Callable[[Space, int], None] | None = None
    measure: Callable[[Arrays, int], Arrays] | None = None


@dataclass
class Recipes:
    """The recipes of a lesson by exercise, and what they share.

    setup: called once, before any answer is there; it returns names that all recipes of the lesson
    start with (the model, say).
    """

    lesson: str  # the notebook's path in the repository
    setup: Callable[[], Space] = dict
    by_exercise: dict[str, Recipe] = field(default_factory=dict)

    def add(
        self,
        exercise: str,
        cells: Sequence[str] = (),
        prepare: Callable[[Space, int], None] | None = None,
        measure: Callable[[Arrays, int], Arrays] | None = None,
    ) -> Callable[[Callable[[Space, int], Arrays]], Callable[[Space, int], Arrays]]:
        """Make a function the recipe of an exercise."""

        def decorate(run: Callable[[Space, int], Arrays]) -> Callable[[Space, int], Arrays]:
            self.by_exercise[exercise] = Recipe(exercise, run, tuple(cells), prepare, measure)
            return run

        return decorate


class _Discard(io.TextIOBase):
    """Takes what an answer prints and keeps nothing of it, however much it is."""

    def write(self, text: str) -> int:
        return len(text)


def evaluate(
    recipe: Recipe, shared: Mapping[str, Any], cells: Sequence[str], answer: str, seed: int
) -> Arrays:
    """Return the arrays of an answer.

    Args:
        recipe: of the exercise.
        shared: names of the lesson's `setup`; a new namespace starts with them.
        cells: sources of the recipe's cells, with the official solutions.
        answer: source of the student's cell.
        seed: for all random inputs.
    Raises what the cells, the answer or the recipe raise.
    """
    space: Space = {"__name__": "__main__", "display": lambda *_, **__: None, **shared}
    with contextlib.redirect_stdout(_Discard()):
        for source in cells:
            exec(compile(source, "<cell>", "exec"), space)
        if recipe.prepare:
            recipe.prepare(space, seed)
        error = run_answer(answer, space)
        try:
            return recipe.run(space, seed)
        except (NameError, KeyError) as missing:
            raise error or missing from None


def run_answer(answer: str, space: Space) -> Exception | None:
    """Run a student's cell in a namespace; return the first error of an expression statement.

    Such a statement, `print(...)` or `image`, only shows something. It may use names of the
    notebook that the recipe does not have, so its error is none of the answer's. Raises what other
    statements raise.
    """
    first = None
    future = compile(answer, ANSWER, "exec", dont_inherit=True).co_flags & FUTURE
    for statement in ast.parse(answer, ANSWER).body:
        module = ast.Module([statement], type_ignores=[])
        code = compile(module, ANSWER, "exec", flags=future, dont_inherit=True)
        try:
            exec(code, space)
        except Exception as error:
            if not isinstance(statement, ast.Expr):
                raise
            first = first or error
    return first


class Inputs:
    """Random inputs of a recipe, in the order in which it asks for them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)

    def restart(self, name: str) -> None:
        """Begin again, with the random numbers of the part `name`."""
        self.generator.manual_seed(self.seed ^ zlib.crc32(name.encode()))

    def normal(self, *shape: int) -> torch.Tensor:
        """Return normal numbers of a shape."""
        return torch.randn(shape, generator=self.generator)

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """Return numbers between two others; without a shape a scalar tensor."""
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def integer(self, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))


def array(value: Any, constant: bool = False) -> np.ndarray:
    """Return a tensor, array or number as an array: floats in double precision.

    constant: whether a gradient may not flow into it; where one does, all values are NaN.
    Raises TypeError for anything else, such as a list or `...`.
    """
    if isinstance(value, torch.Tensor):
        if constant and value.requires_grad:
            value = torch.full(value.shape, torch.nan)
        value = value.detach().cpu()
        value = value.double() if value.is_floating_point() else value
        return np.array(value.numpy())
    if not isinstance(value, np.ndarray | np.number | int | float):
        raise TypeError(f"This has to be a tensor or a number, not a {type(value).__name__}.")
    result = np.asarray(value)
    return result.astype(np.float64) if result.dtype.kind == "f" else result


def second(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a second call: another one if the first changed its arguments."""
    function(*arguments)
    return function(*arguments)


def parts(functions: Mapping[str, Callable[[], Any]], inputs: Inputs | None = None) -> Arrays:
    """Return what each function returns, as `array`, by its name; those that raise are left out.

    So a mistake in one part of an answer leaves the others. If all raise, so does this.
    inputs: restarted before each function, so that one that raises early does not change what the
    next one gets.
    """
    arrays: Arrays = {}
    first: Exception | None = None
    for name, function in functions.items():
        if inputs:
            inputs.restart(name)
        try:
            arrays[name] = array(function())
        except Exception as error:
            first = first or error
    if first and not arrays:
        raise first
    return arrays


def numbers(*values: Any) -> np.ndarray:
    """Return values of several shapes as one row (n,) of float64.

    Each value is a tensor, array or number, a list or tuple of values, or None. Values of one size
    belong in a row: the grader's tolerance is relative to the norm of all its numbers. Of arguments
    that have to stay as they are, give the difference.
    """
    row: list[np.ndarray] = []
    for value in values:
        if value is None:
            row.append(np.array([-1.0]))
        elif isinstance(value, list | tuple):
            row += [_unary(len(value)), numbers(*value)]
        else:
            result = array(value)
            row += [_unary(result.ndim, *result.shape), result.ravel()]
    return np.concatenate([np.zeros(0), *row]).astype(np.float64)


def _unary(*lengths: int) -> np.ndarray:
    """Return lengths as numbers whose norm is small: for each, as many zeros and a 1."""
    return np.concatenate([np.append(np.zeros(length), 1.0) for length in lengths])


def run_cells(lesson: str, ids: Sequence[str]) -> Space:
    """Return the names after cells of a lesson, without exercises, in the repository's folder.

    lesson: the notebook's path in the repository. Raises KeyError for the id of no cell.
    """
    notebook = json.loads((ROOT / lesson).read_text(encoding="utf-8"))
    sources = {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"]}
    space: Space = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.chdir(ROOT):
        for id in ids:
            exec(compile(sources[id], f"<{id}>", "exec"), space)
    return space
