"""The checks of the video lesson: right work passes, mistakes get their advice."""

import itertools
import math

import numpy as np
import pytest

from course.checks import make_video as checks
from tests.course.checks.helpers import FILM, assert_advice, raises


def solve(p=0.5, numerator=None, divisor=None, sign=1):
    """Return a solution with a change in one of its parts; p: the exponent of the factors."""
    numerator = numerator or (lambda x, y, m, n: m * y - n * x)
    divisor = divisor or (lambda a, b, m, n: m * b**0.5 - n * a**0.5)

    def predicted_x_0(x_t, x_u, a, b):
        m, n = (1 - a) ** p, (1 - b) ** p
        return sign * numerator(x_t, x_u, m, n) / divisor(a, b, m, n)

    return predicted_x_0


def through_noise(x_t, x_u, a, b):
    """Right, by way of the noise."""
    noise = (b**0.5 * x_t - a**0.5 * x_u) / (b**0.5 * (1 - a) ** 0.5 - a**0.5 * (1 - b) ** 0.5)
    return (x_t - (1 - a) ** 0.5 * noise) / a**0.5


def by_matrix(x_t, x_u, a, b):
    """Right, by a linear system."""
    matrix = np.array([[a**0.5, (1 - a) ** 0.5], [b**0.5, (1 - b) ** 0.5]])
    first, second = np.linalg.inv(matrix)[0]
    return first * x_t + second * x_u


@pytest.mark.parametrize("right", [FILM.predicted_x_0, solve(), through_noise, by_matrix])
def test_predictions_that_are_right(right, capsys):
    checks.prediction(right)
    assert "✓" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (lambda *_: None, "returns None: is a `return` missing"),
        (lambda *_: ..., "still empty"),
        (
            lambda x, y, a, b: (
                (b**0.5 * x - a**0.5 * y) / (b**0.5 * (1 - a) ** 0.5 - a**0.5 * (1 - b) ** 0.5)
            ),
            "the predicted noise",
        ),
        (solve(sign=-1), "sign is wrong"),
        (solve(numerator=lambda x, y, m, n: n * y - m * x), "noise factors are exchanged"),
        (solve(divisor=lambda a, b, m, n: 1), "Divide by the factor"),
        (solve(divisor=lambda a, b, m, n: m * b - n * a), "roots of alpha_bar are missing"),
        (solve(p=1), "roots of the noise factors are missing"),
        (solve(divisor=lambda a, b, m, n: m * b**0.5 + n * a**0.5), "do not add"),
        (lambda x, y, a, b: x / a**0.5, "still holds noise"),
        (solve(sign=2), "put your result into both"),
        (lambda x, y, a, b: x[:1], "It has the shape of x_t"),
        (lambda x, y, a, b: x / (x - x), "not finite"),
        (lambda x, y, a, b: x.sqrt(a), "Your code raised TypeError"),
    ],
)
def test_predictions_that_are_wrong(wrong, advice):
    assert_advice(advice, checks.prediction, wrong)


def ends(frames, durations, fps, rounding=round):
    """Return what `timed` does, with the ends rounded in some way."""
    stops = [rounding(total * fps) for total in itertools.accumulate(durations)]
    starts = [0, *stops]
    return [f for f, i, j in zip(frames, starts, stops, strict=False) for _ in range(j - i)]


def alone(conversion):
    """Return a wrong `timed` that rounds each duration alone."""
    return lambda frames, durations, fps: [
        f for f, d in zip(frames, durations, strict=True) for _ in range(conversion(d * fps))
    ]


def by_time(frames, durations, fps):
    """Right: the frame in the middle of each tick."""
    stops = list(itertools.accumulate(durations))
    ticks = (np.arange(round(stops[-1] * fps)) + 0.5) / fps
    return [frames[int(np.searchsorted(np.array(stops), t - 1e-9))] for t in ticks]


@pytest.mark.parametrize("right", [FILM.timed, ends, by_time])
def test_timings_that_are_right(right, capsys):
    checks.timing(right)
    assert "✓" in capsys.readouterr().out


def extends(frames, durations, fps):
    frames.extend(frames)
    return ends(frames, durations, fps)


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (lambda *_: None, "returns None: is a `return` missing"),
        (lambda *_: ..., "still empty"),
        (lambda frames, durations, fps: tuple(frames), "return a list"),
        (lambda f, d, fps: ends(f, d, fps)[::-1], "in their order"),
        (lambda f, d, fps: ["z", *ends(f, d, fps)], "the frames, each repeated"),
        (alone(round), "rounded alone"),
        (alone(int), "cut to whole frames"),
        (alone(math.ceil), "rounded up"),
        (lambda f, d, fps: alone(round)(f, d, 1), "Multiply the seconds by fps"),
        (lambda f, d, fps: ends(f, d, fps, int), "ends are cut"),
        (lambda f, d, fps: ends(f, d, fps, math.ceil), "rounded up|the ends give"),
        (lambda f, d, fps: alone(round)(f, itertools.accumulate(d), fps), "those before it"),
        (lambda f, d, fps: ends(f, d, fps)[1:], "the ends give"),
        (lambda f, d, fps: [*f], "the ends give|Multiply"),
        (extends, "changes the list"),
        (raises(ValueError("no frame")), "Your code raised ValueError"),
        (raises(IndexError(3)), "Your code raised IndexError"),
    ],
)
def test_timings_that_are_wrong(wrong, advice):
    assert_advice(advice, checks.timing, wrong)
