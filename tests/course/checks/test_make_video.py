"""The checks of the video lesson: right work passes, mistakes get their advice."""

import math
import re

import pytest

from course.checks import CheckFailed
from course.checks import make_video as checks
from course.images import video
from tests.course.checks.helpers import (
    FILM,
    assert_advice,
    raises,
)

in_order, paired, held = FILM.in_order, FILM.pairs, FILM.held


def digits(place: int):
    """A wrong key: the first (0) or the last (-1) number of a name, whichever counts."""
    return lambda name: int(re.findall("[0-9]+", name)[place])


def test_frame_order(capsys):
    checks.frame_order(in_order)
    assert "✓" in capsys.readouterr().out
    for wrong, advice in [
        (lambda names: None, "returns None: is a `return` missing"),
        (sorted, "Compare numbers, not text"),
        (
            lambda names: sorted(names, key=lambda name: (len(name), name)),
            "Compare numbers, not text",
        ),
        (lambda names: in_order(names)[::-1], "by their numbers they are"),
        (lambda names: sorted(video.frame_numbers(names).values()), "return the same names"),
        (lambda names: in_order(names)[1:], "return the same names"),
        (lambda names: sorted(names, key=digits(0)), "x_0_.*those that video.frame_numbers"),
        (lambda names: sorted(names, key=digits(-1)), "009_t0641.*those that video.frame_numbers"),
    ]:
        with pytest.raises(CheckFailed, match=advice):
            checks.frame_order(wrong)


def test_frame_pairs(capsys):
    checks.frame_pairs(paired)
    assert "✓" in capsys.readouterr().out
    for wrong, advice in [
        (lambda left, right: None, "returns None: is a `return` missing"),
        (lambda left, right: list(zip(left, right, strict=True)), "Put both sides in order first"),
        (
            lambda left, right: list(zip(in_order(left), in_order(right), strict=False)),
            "have no partner",
        ),
        (
            lambda left, right: list(zip(in_order(left), in_order(right), strict=True)),
            "compare the steps",
        ),
    ]:
        with pytest.raises(CheckFailed, match=advice):
            checks.frame_pairs(wrong)


def test_hold(capsys):
    checks.hold(held)
    assert "✓" in capsys.readouterr().out
    for wrong, advice in [
        (lambda frames, fps, hold: None, "returns None: is a `return` missing"),
        (lambda frames, fps, hold: (*frames,), "return a list"),
        (lambda frames, fps, hold: frames * 3, "only the last frame"),
        (lambda frames, fps, hold: [frames[-1]] * round(hold * fps), "all frames come first"),
        (lambda frames, fps, hold: frames + [frames[-1]] * round(hold), "that takes 16"),
        (
            lambda frames, fps, hold: frames + [frames[-1]] * (round(hold * fps) - 1),
            "that takes 16",
        ),
        (
            lambda frames, fps, hold: frames + [frames[-1]] * int(hold * fps),
            "0.9 seconds.* takes 3.*nearest whole",
        ),
        (
            lambda frames, fps, hold: frames + [frames[-1]] * math.ceil(hold * fps),
            "0.3 seconds.* takes 2",
        ),
    ]:
        with pytest.raises(CheckFailed, match=advice):
            checks.hold(wrong)


@pytest.mark.parametrize(
    "error", [ValueError("no partner"), TypeError("not a list"), KeyError(3), StopIteration()]
)
def test_pairs_whose_own_error_is_raised_for_names_that_fit(error):
    assert_advice("Your code raised .*Error|Iteration", checks.frame_pairs, raises(error))
