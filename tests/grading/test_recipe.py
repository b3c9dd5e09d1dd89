"""How a student's cell runs for a recipe."""

import numpy as np
import pytest

from grading import recipe


def arrays(answer: str) -> recipe.Arrays:
    """The values of `double` in a cell."""
    one = recipe.Recipe("0 (a)", lambda space, seed: {"double": np.array(space["double"](seed))})
    return recipe.evaluate(one, {}, [], answer, 3)


DOUBLE = "def double(x):\n    return 2 * x\n"


@pytest.mark.parametrize(
    "answer",
    [
        DOUBLE + "print(image_of_another_cell)",
        "show(1)\n" + DOUBLE,
        "'a text'.nothing\n" + DOUBLE + "1 / 0",
        "from __future__ import annotations\n" + DOUBLE.replace("(x)", "(x: Unknown)"),
        "if True:\n    " + DOUBLE.replace("\n    ", "\n        "),
    ],
)
def test_what_only_shows_something_may_fail(answer):
    assert arrays(answer) == {"double": 6}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("value = image_of_another_cell\n" + DOUBLE, NameError),  # binds a name
        ("1 / 0", ZeroDivisionError),  # nothing is defined: the first error says why
        ("1 / 0\nnothing.at.all\n", ZeroDivisionError),
        ("pass", KeyError),
        (DOUBLE.replace("2 * x", "y"), NameError),
        (DOUBLE + "raise ValueError", ValueError),
        (DOUBLE + "exit(", SyntaxError),
        ("print(1)\n" + DOUBLE + "return 1", SyntaxError),
    ],
)
def test_other_errors_are_raised(answer, error):
    with pytest.raises(error):
        arrays(answer)


def test_an_exit_ends_the_answer():
    with pytest.raises(SystemExit):
        arrays(DOUBLE + "__import__('sys').exit()")


def test_a_traceback_names_the_line_of_the_cell():
    with pytest.raises(ZeroDivisionError) as caught:
        arrays("x = 1\n\ny = x / 0\n")
    assert caught.traceback[-1].lineno + 1 == 3
