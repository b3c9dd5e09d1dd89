"""There are enough wrong solutions, each with its advice, and enough right ones that pass."""

import pytest

from tests.course.checks import count


@pytest.mark.slow
def test_wrong_and_right_solutions():
    counts = count.count()
    wrong, right = counts["wrong"], counts["right"]
    assert sum(wrong.values()) >= 250 and sum(right.values()) >= 40, counts
    assert min(wrong.values()) >= 10, wrong
