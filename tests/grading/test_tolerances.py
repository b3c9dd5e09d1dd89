"""The measurement of tolerances, and the tolerances themselves."""

import json

import numpy as np
import pytest

from grading import official
from grading.compare import TOLERANCES, compare, tolerance_of
from grading.tolerances import FACTOR, LEAST, PLOT, Measurement, difference, differences

RIGHT = np.array([3.0, 4.0])


@pytest.mark.parametrize(
    ("array", "right", "expected"),
    [
        (RIGHT, RIGHT, 0.0),
        (np.array([3.0, 4.5]), RIGHT, 0.1),
        (np.array([3.0, np.nan]), RIGHT, np.inf),
        (np.array([3.0, np.nan]), np.array([3.0, np.nan]), 0.0),
        (np.array([[3.0, 4.0]]), RIGHT, np.inf),
        (np.array([1, 2]), np.array([1, 2]), 0.0),
        (np.array([1, 3]), np.array([1, 2]), np.inf),
        (np.array([True]), np.array([1.0]), np.inf),
        (np.zeros(2), np.zeros(2), 0.0),
        (np.ones(2), np.zeros(2), np.inf),
        (np.array([30, 45], np.uint8), np.array([30, 40], np.uint8), 0.1),
    ],
)
def test_differences_are_relative_to_the_norm(array, right, expected):
    assert difference(array, right) == pytest.approx(expected)


@pytest.mark.parametrize("error", [0.0, 0.9, 1.1, 1e6])
def test_the_grader_allows_what_is_measured(error):
    """A difference as large as the tolerance is where the grader draws the line."""
    array = RIGHT * (1 + error * 1e-3)
    measured = differences({"a": array}, {"a": RIGHT})["a"]
    assert (measured <= 1e-3) == (compare({"a": array}, {"a": RIGHT}, 1e-3).share == 1)


def test_a_missing_part_is_infinitely_far():
    assert differences({}, {"a": RIGHT}) == {"a": np.inf}


def test_a_wrong_answer_below_the_tolerance_is_a_problem():
    measurement = Measurement()
    measurement.add_right("1.2 (d)", "2 threads", {"a": 1e-5, "b": 2e-5}, set())
    measurement.add_wrong("1.2 (d)", "far", {"a": 1e-6, "b": 0.5}, set())
    assert measurement.tolerance("1.2 (d)") == pytest.approx(FACTOR * 2e-5)
    assert measurement.problems() == []
    measurement.add_wrong("1.2 (d)", "near", {"a": 1e-4, "b": 0.0}, set())
    [problem] = measurement.problems()
    assert problem.startswith("1.2 (d) near: a wrong answer differs by 1.0e-04")


def test_right_answers_that_no_tolerance_covers_are_a_problem():
    measurement = Measurement()
    measurement.add_right("1.2 (d)", "4 threads", {"a": np.inf}, set())
    assert measurement.problems() == ["1.2 (d): right answers are wrong: 4 threads"]
    measurement = Measurement()
    measurement.add_right("1.1 (c)", "4 threads", {"a": 0.5}, {"a"})
    assert measurement.tolerance("1.1 (c)") == LEAST
    assert measurement.problems() == ["1.1 (c): images of right answers: 5.0e-01"]


def test_each_tolerance_lies_between_right_and_wrong_answers():
    document = json.loads(TOLERANCES.read_text("utf-8"))
    assert {"date", "machine", "versions", "conditions", "factor"} <= set(document)
    assert set(document["tolerances"]) <= set(official.all_recipes())
    for exercise, row in document["differences"].items():
        tolerance = tolerance_of(exercise)
        assert tolerance >= 0.95 * document["factor"] * row["right"]
        assert row["wrong"] is None or tolerance < row["wrong"]
    assert PLOT.is_file()
