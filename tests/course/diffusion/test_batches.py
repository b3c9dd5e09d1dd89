"""Batches of windows, and windows over processes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.task2_processes import processes_rows
from course.diffusion.batches import in_batches, over_processes
from course.errors import RequestError


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 5))
def test_batches_give_the_rows_of_one_call(count, max_size, first):
    indices, values, sizes = torch.arange(first, first + count), torch.randn(50, 2), set()

    def function(part):
        sizes.add(len(part))
        return values[part]

    assert torch.equal(in_batches(function, indices, max_size), values[indices])
    assert len(sizes) == 1 and sizes.pop() <= max_size
    assert torch.equal(over_processes(function, indices), values[indices])


@pytest.mark.parametrize("size", [0, -1, 1.5, "two"])
def test_a_wrong_size_of_a_batch_is_told(size):
    with pytest.raises(RequestError, match="The number of windows in a batch"):
        in_batches(lambda part: part, torch.arange(3), size)


@pytest.mark.slow
def test_two_processes_sample_the_panorama_of_one():
    rows = {row.id: row for row in processes_rows(reduced=True)}
    assert rows["task2.processes.difference"].value < 1e-4
