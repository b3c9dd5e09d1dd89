"""Wrong answers lose points at their exercise, harmless variants and official solutions lose none.

All in one process, without the sandbox. The first wrong answer and the first variant of each
exercise are tried every time, all others with `python -m tests -m weekly`.
"""

import importlib
import pkgutil
from typing import Any

import numpy as np
import pytest

from grading import official
from grading.compare import compare, tolerance_of
from grading.fences import without_solutions
from grading.policy import violation
from grading.tolerances import Runner
from tests.grading import mutants
from tests.grading.mutants import Answer

SEED = 20
RUNNER = Runner()
EXERCISES = list(official.all_recipes())
MUTANTS = [
    importlib.import_module(f"tests.grading.mutants.{info.name}")
    for info in pkgutil.iter_modules(mutants.__path__)
]
WRONG: list[Answer] = [answer for module in MUTANTS for answer in module.WRONG]
HARMLESS: list[Answer] = [answer for module in MUTANTS for answer in module.HARMLESS]


def sampled(answers: list[Answer]) -> list[Any]:
    """Return answers as parameters of a test; but for the first of each exercise marked weekly."""
    seen: set[str] = set()
    parameters = []
    for answer in answers:
        marks = [pytest.mark.weekly] if answer.exercise in seen else []
        parameters.append(pytest.param(answer, marks=marks, id=str(answer)))
        seen.add(answer.exercise)
    return parameters


def share_right(exercise: str, source: str, seed: int = SEED) -> float:
    """Return the share of the parts that are right; 0 after an error, or if it is not allowed."""
    right = RUNNER.reference(exercise, seed)
    if violation(exercise, source):
        return 0.0
    try:
        arrays = RUNNER.arrays(exercise, source, seed)
    except Exception:
        return 0.0
    return compare(arrays, right, tolerance_of(exercise)).share


@pytest.mark.parametrize("answer", sampled(WRONG))
def test_a_wrong_answer_loses_points(answer: Answer) -> None:
    assert share_right(answer.exercise, answer.source) < 1


@pytest.mark.parametrize("answer", sampled(HARMLESS))
def test_a_harmless_variant_gets_all_points(answer: Answer) -> None:
    assert share_right(answer.exercise, answer.source) == 1


@pytest.mark.parametrize("exercise", EXERCISES)
def test_the_official_solution_is_right_and_its_stub_is_not(exercise: str) -> None:
    answer = official.answers()[exercise]
    for seed in (SEED, 1):
        assert share_right(exercise, answer, seed) == 1
    assert share_right(exercise, without_solutions(answer, exercise)) == 0


@pytest.mark.weekly
@pytest.mark.parametrize("exercise", [e for e in EXERCISES if not official.function_place(e)])
def test_a_line_that_only_shows_something_may_fail(exercise: str) -> None:
    answer = official.answers()[exercise]
    assert share_right(exercise, f"{answer}\nprint(a_name_of_another_cell)\n") == 1


@pytest.mark.parametrize("exercise", EXERCISES)
def test_each_grading_run_compares_other_values(exercise: str) -> None:
    answer = official.answers()[exercise]
    first, second = (RUNNER.values(exercise, answer, seed) for seed in (SEED, 1))
    assert any(not np.array_equal(first[name], second[name]) for name in first)


def test_no_answer_is_there_twice() -> None:
    for answers in (WRONG, HARMLESS):
        names = [str(answer) for answer in answers]
        assert len(set(names)) == len(names)
    sources = set(official.answers().values())
    assert not sources & {answer.source for answer in [*WRONG, *HARMLESS]}
