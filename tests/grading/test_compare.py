"""Comparing arrays: what is right up to a tolerance, and what is not."""

import numpy as np
import pytest

from grading.compare import compare, tolerance_of
from grading.official import all_recipes

RIGHT = np.random.default_rng(0).normal(size=(20, 30))


def share(array: np.ndarray, right: np.ndarray = RIGHT) -> float:
    return compare({"x": array}, {"x": right}).share


def test_small_differences_and_other_precisions_are_right():
    assert share(RIGHT) == share(RIGHT + 1e-6) == share(RIGHT.astype(np.float32)) == 1


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (RIGHT + 1e-3, "the relative difference is 0.001"),
        (-RIGHT, "the relative difference is 2"),
        (RIGHT.astype(np.float16), "the relative difference is 0.0002"),
        (RIGHT.T, r"the shape is (30, 20), not (20, 30)"),
        (RIGHT[None], r"the shape is (1, 20, 30), not (20, 30)"),
        (np.where(RIGHT > 2, np.nan, RIGHT), "values are not finite"),
        (np.where(RIGHT > 2, np.inf, RIGHT), "values are not finite"),
        (np.zeros_like(RIGHT), "the relative difference is 1"),
        (RIGHT > 0, "of type bool"),
    ],
)
def test_what_differs_is_said(array, message):
    comparison = compare({"x": array}, {"x": RIGHT})
    assert comparison.share == 0
    assert message in comparison.message


def test_values_that_are_not_finite_have_to_be_the_same():
    right = np.array([1.0, np.nan, np.inf, -np.inf])
    assert share(right.copy(), right) == 1
    assert share(np.array([1.0, np.nan, np.inf, np.inf]), right) == 0
    assert share(np.array([1.0, 2.0, np.inf, -np.inf]), right) == 0
    assert share(np.full(3, np.nan), np.full(3, np.nan)) == 1


def test_whole_numbers_are_exact_and_images_are_not():
    numbers = np.arange(100)
    assert share(numbers.copy(), numbers) == 1
    assert share(numbers.astype(np.float64), numbers) == 1
    assert share(numbers + (numbers == 7), numbers) == 0
    image = np.random.default_rng(1).integers(0, 250, (16, 16, 3), np.uint8)
    rounded = image + (np.arange(16) == 3)[:, None, None].astype(np.uint8) * (image % 7 == 0)
    assert share(rounded, image) == 1
    assert share(image + np.uint8(1), image) == 0


def test_zeros_and_huge_numbers_have_tolerances_too():
    assert share(np.full(4, 1e-8), np.zeros(4)) == 1
    assert share(np.full(4, 1e-3), np.zeros(4)) == 0
    assert share(np.full(4, 1e-12), np.full(4, 1e-9)) == 1  # both are zero
    assert share(np.full(4, 1e-5), np.full(4, 1.1e-5)) == 0
    assert share(np.full(4, 1e300), np.full(4, 1e300)) == 1
    assert share(np.full(4, -1e300), np.full(4, 1e300)) == 0


def test_each_array_is_a_part():
    right = {"a": RIGHT, "b": np.ones(3), "c": np.zeros(2)}
    comparison = compare({"a": RIGHT, "b": np.ones(4), "other": RIGHT}, right)
    assert comparison.right == ("a",)
    assert comparison.share == pytest.approx(1 / 3)
    assert "1 of 3 parts are right" in comparison.message
    assert "c: there is no value." in comparison.message
    with pytest.raises(ValueError, match="at least one array"):
        compare({}, {})


def test_tolerances_belong_to_exercises_with_a_recipe():
    assert 0 < min(map(tolerance_of, all_recipes())) <= max(map(tolerance_of, all_recipes())) < 0.1
