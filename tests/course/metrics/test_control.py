"""The metrics of control: cases computed by hand."""

import numpy as np
import pytest

from course.metrics import control


def lines(*columns: int, size: int = 32) -> np.ndarray:
    """A map with vertical lines at these columns."""
    page = np.zeros((size, size), np.uint8)
    page[:, list(columns)] = 255
    return page


@pytest.mark.parametrize(
    ("lines_", "expected", "f1"),
    [
        (lines(10), lines(10), 1),
        (lines(12), lines(10), 1),  # two pixels away still counts
        (lines(13), lines(10), 0),  # three do not
        (lines(10, 20), lines(10), 2 / 3),  # precision 1/2, recall 1
        (lines(10), lines(10, 20), 2 / 3),  # precision 1, recall 1/2
        (lines(10, 20), lines(10, 28), 0.5),
        (lines(), lines(10), 0),
        (lines(10), lines(), 0),
        (lines(), lines(), 1),
    ],
)
def test_f1_within_two_pixels(lines_, expected, f1):
    assert control.edge_f1(lines_, expected) == pytest.approx(f1)


def test_the_reach_is_round():
    """(2, 2) is farther than two pixels, (0, 2) is not."""
    dot = lambda row, column: (
        np.eye(32, dtype=np.uint8)[row][:, None] * np.eye(32, dtype=np.uint8)[column]
    )
    assert (
        control.edge_f1(dot(12, 12), dot(10, 10)) == 0
        and control.edge_f1(dot(10, 12), dot(10, 10)) == 1
    )


def test_spearman_asks_for_the_order_inside_the_mask_alone():
    wanted = np.arange(16.0).reshape(4, 4)
    mask = np.zeros((4, 4), np.uint8)
    mask[1:3] = 1
    assert control.spearman(wanted**3, wanted, mask) == pytest.approx(1)
    assert control.spearman(-wanted, wanted, mask) == pytest.approx(-1)
    noisy = np.where(mask > 0, wanted, -wanted)
    assert control.spearman(noisy, wanted, mask) == pytest.approx(1)
    swapped = wanted.copy()
    swapped[1, 0], swapped[1, 1] = wanted[1, 1], wanted[1, 0]
    assert control.spearman(swapped, wanted, mask) == pytest.approx(
        1 - 6 * 2 / (8 * 63)
    )  # 1 - 6 sum d^2 / n(n^2 - 1)


def test_a_flat_guess_earns_nothing_and_a_flat_truth_asks_nothing():
    wanted, mask = np.arange(16.0).reshape(4, 4), np.ones((4, 4))
    assert control.spearman(np.ones((4, 4)), wanted, mask) == 0
    assert np.isnan(control.spearman(wanted, np.ones((4, 4)), mask))
    assert np.isnan(control.spearman(wanted, wanted, np.zeros((4, 4))))


def test_mean_angle_in_degrees():
    up, front = np.tile([0.0, 1, 0], (4, 4, 1)), np.tile([0.0, 0, 1], (4, 4, 1))
    everywhere, half = np.ones((4, 4)), np.repeat([1, 0], 8).reshape(4, 4)
    assert control.mean_angle(up, up, everywhere) == pytest.approx(0)
    assert control.mean_angle(up, front, everywhere) == pytest.approx(90)
    mixed = np.where(half[..., None] > 0, up, front)
    assert control.mean_angle(mixed, front, everywhere) == pytest.approx(45)
    assert control.mean_angle(mixed, front, 1 - half) == pytest.approx(0)
    assert control.mean_angle(np.zeros((4, 4, 3)), front, everywhere) == pytest.approx(90)
    assert np.isnan(control.mean_angle(up, front, np.zeros((4, 4))))
