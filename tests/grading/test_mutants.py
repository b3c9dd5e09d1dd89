"""Wrong answers lose points at their exercise, harmless variants and official solutions lose none.

All in one process, without the sandbox.
"""

import functools
import importlib
import pkgutil
from collections.abc import Callable

import pytest
import torch

from course.checks.common import close
from grading import recipes
from grading.fences import without_solutions
from grading.policy import violation
from grading.recipe import Arrays, Recipes, Space, evaluate
from tests.grading import mutants
from tests.grading.mutants import Answer, lesson_cells, official_answers

SEED = 20
MODULES = [
    importlib.import_module(f"grading.recipes.{info.name}")
    for info in pkgutil.iter_modules(recipes.__path__)
]
RECIPES: list[Recipes] = [module.RECIPES for module in MODULES if hasattr(module, "RECIPES")]
BY_EXERCISE = {exercise: each for each in RECIPES for exercise in each.by_exercise}
MUTANTS = [
    importlib.import_module(f"tests.grading.mutants.{info.name}")
    for info in pkgutil.iter_modules(mutants.__path__)
]
WRONG: list[Answer] = [answer for module in MUTANTS for answer in module.WRONG]
HARMLESS: list[Answer] = [answer for module in MUTANTS for answer in module.HARMLESS]


@functools.cache
def names_of(setup: Callable[[], Space]) -> Space:
    """Return what all recipes of a module start with."""
    return setup()


def arrays_of(exercise: str, source: str, seed: int = SEED) -> Arrays:
    """Return the arrays of an answer. Raises what it raises."""
    lesson = BY_EXERCISE[exercise]
    recipe = lesson.by_exercise[exercise]
    cells = [lesson_cells(lesson.lesson)[id] for id in recipe.cells]
    arrays = evaluate(recipe, names_of(lesson.setup), cells, source, seed)
    return recipe.measure(arrays, seed) if recipe.measure else arrays


@functools.cache
def reference(exercise: str, seed: int = SEED) -> Arrays:
    return arrays_of(exercise, official_answers()[exercise], seed)


def share_right(exercise: str, source: str, seed: int = SEED) -> float:
    """Return the share of the parts that are right; 0 after an error, or if it is not allowed."""
    right = reference(exercise, seed)
    if violation(exercise, source):
        return 0.0
    try:
        arrays = arrays_of(exercise, source, seed)
    except Exception:
        return 0.0
    agree = [
        name in arrays and close(torch.as_tensor(arrays[name]), torch.as_tensor(right[name]))
        for name in right
    ]
    return sum(agree) / len(agree)


@pytest.mark.parametrize("answer", WRONG, ids=str)
def test_a_wrong_answer_loses_points(answer: Answer) -> None:
    assert share_right(answer.exercise, answer.source) < 1


@pytest.mark.parametrize("answer", HARMLESS, ids=str)
def test_a_harmless_variant_gets_all_points(answer: Answer) -> None:
    assert share_right(answer.exercise, answer.source) == 1


@pytest.mark.parametrize("exercise", BY_EXERCISE)
def test_the_official_solution_is_right_and_its_stub_is_not(exercise: str) -> None:
    official = official_answers()[exercise]
    for seed in (SEED, 1):
        assert share_right(exercise, official, seed) == 1
    assert share_right(exercise, without_solutions(official, exercise)) == 0


@pytest.mark.parametrize("exercise", BY_EXERCISE)
def test_each_grading_run_compares_other_values(exercise: str) -> None:
    official = official_answers()[exercise]
    first, second = (arrays_of(exercise, official, seed) for seed in (SEED, 1))
    assert any(not close(torch.as_tensor(first[n]), torch.as_tensor(second[n])) for n in first)


def test_no_answer_is_there_twice() -> None:
    for answers in (WRONG, HARMLESS):
        names = [str(answer) for answer in answers]
        assert len(set(names)) == len(names)
    official = set(official_answers().values())
    assert not official & {answer.source for answer in [*WRONG, *HARMLESS]}
