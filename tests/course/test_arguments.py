"""Whole numbers and finite numbers, from Python, NumPy and PyTorch alike."""

import math

import numpy as np
import pytest
import torch

from course.arguments import check_integer, check_number
from course.errors import RequestError


@pytest.mark.parametrize(
    "value", [64, np.int64(64), np.uint8(64), np.array(64), torch.tensor(64), np.int32(64)]
)
def test_integers_of_any_kind_are_accepted(value):
    number = check_integer("height", value, 8, 1000)
    assert number == 64 and type(number) is int


@pytest.mark.parametrize(
    "value",
    [
        64.0,
        "64",
        None,
        True,
        np.True_,
        torch.tensor(True),
        math.nan,
        np.float32(64),
        [64],
        np.array([1, 2]),
    ],
)
def test_other_things_are_no_integers(value):
    with pytest.raises(RequestError, match="height must be a whole number from 8 to 1,000, got"):
        check_integer("height", value, 8, 1000)


@pytest.mark.parametrize("value", [7, 1001, -1, 10**30])
def test_integers_out_of_range(value):
    with pytest.raises(RequestError, match="from 8 to 1,000"):
        check_integer("height", value, 8, 1000)


@pytest.mark.parametrize(
    "value", [1, 1.0, np.float32(1), np.int64(1), np.array(1.0), torch.tensor(1.0)]
)
def test_numbers_of_any_kind_are_accepted(value):
    number = check_number("eta", value, 0, 1)
    assert number == 1 and type(number) is float


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        "1",
        b"1",
        None,
        True,
        [1.0, 2.0],
        np.array([1.0, 2.0]),
        1j,
        2,
        -0.1,
    ],
)
def test_other_things_are_no_numbers_in_range(value):
    with pytest.raises(RequestError, match="eta must be a "):
        check_number("eta", value, 0, 1)


def test_a_long_value_is_shortened_and_the_error_class_can_be_chosen():
    class Other(RequestError):
        pass

    with pytest.raises(Other) as caught:
        check_integer("seed", "x" * 1000, error=Other)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("check", [check_integer, check_number])
def test_both_ends_of_a_range_belong_to_it(check):
    assert [check("n", value, 1, 9) for value in (1, 9)] == [1, 9]
    for minimum, maximum, expected in (
        (2000, math.inf, " of at least 2,000, got 1000"),
        (-math.inf, 5, " of at most 5, got 1000"),
    ):
        with pytest.raises(RequestError, match=f"n must be a (whole )?number{expected}"):
            check("n", 1000, minimum, maximum)
    assert check("n", -(10**9)) == -(10**9)
    with pytest.raises(RequestError, match=r"n must be a (whole )?number, got 'x'\.$"):
        check("n", "x")
