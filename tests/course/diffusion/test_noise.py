"""Random generators, and the check for values that are not finite."""

import numpy as np
import pytest
import torch

from course.diffusion import check_finite, make_generator
from course.errors import CourseError, RequestError

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    "seed", [7, np.int64(7), np.uint8(7), torch.tensor(7), np.array(7), torch.tensor([7])]
)
def test_a_seed_behaves_like_an_integer(seed):
    expected = torch.randn(4, generator=torch.Generator().manual_seed(7))
    assert torch.equal(torch.randn(4, generator=make_generator(seed)), expected)


def test_the_smallest_and_the_largest_seed():
    first, last = (torch.randn(4, generator=make_generator(seed)) for seed in (0, 2**63 - 1))
    assert not torch.equal(first, last)


@pytest.mark.parametrize(
    "seed", [-1, 2**63, 1.0, True, None, "1", np.float64(1), torch.tensor(1.5), [1, 2]]
)
def test_other_seeds_are_refused(seed):
    with pytest.raises(
        RequestError, match="^seed must be a whole number from 0 to 9,223,372,036,854,775,807, got"
    ):
        make_generator(seed)


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_numbers_that_are_not_finite_are_counted(value, dtype):
    values = torch.zeros(2, 3, 4, dtype=dtype)
    check_finite(values, "The latents after step 1 of 2")
    check_finite(values + torch.finfo(dtype).max, "The latents after step 1 of 2")
    values[0, 0, :2] = value
    with pytest.raises(
        CourseError, match="^The latents after step 1 of 2 must be finite, but 2 of 24 values are"
    ):
        check_finite(values, "The latents after step 1 of 2")
