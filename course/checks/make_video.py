"""Checks of the video lesson."""

from collections.abc import Callable
from typing import Any

from course.checks.common import call, expect, passed


def frame_order(function: Callable[[list[str]], list[str]]) -> None:
    """Task 1.2 video (a): `in_order(names)` sorts names of frames by the number that counts up."""
    for wanted in (
        ["8.png", "9.png", "10.png", "11.png", "100.png"],
        ["007.png", "8.png", "0010.png", "11.png"],
        ["frame_2.jpg", "frame_10.jpg"],
        ["009_t0641.png", "010_t0601.png"],
        ["x_0_9.png", "x_0_10.png", "x_0_11.png"],
        ["00009-77.png", "00010-4.png", "00011-1234567.png"],
    ):
        given = wanted[1::2] + wanted[::2]
        found = call(function, list(given))
        expect(
            isinstance(found, list | tuple) and sorted(map(str, found)) == sorted(wanted),
            f"`in_order` makes {found} of {given}: return the same names, each once, in another order.",
        )
        expect(
            list(found) == wanted,
            f"`in_order` sorts {given} into {list(found)}; by their numbers they are {wanted}. "
            "Compare numbers, not text, and those that video.frame_numbers(...) returns.",
        )
    passed("names in the order of the number that counts up, whatever the padding")


def frame_pairs(function: Callable[[list[str], list[str]], list[tuple[str, str]]]) -> None:
    """Task 1.2 video (b): `pairs(left, right)` matches names by their number, and refuses what has no partner."""
    left, right = ["10.png", "8.png", "9.png"], ["0009.jpg", "0010.jpg", "0008.jpg"]
    wanted = [("8.png", "0008.jpg"), ("9.png", "0009.jpg"), ("10.png", "0010.jpg")]
    found = call(function, list(left), list(right))
    expect(
        isinstance(found, list | tuple)
        and [tuple(p) if isinstance(p, list) else p for p in found] == wanted,
        f"`pairs` makes {found} of {left} and {right}, and not {wanted}. Put both sides in order first.",
    )
    # Uneven, and as long but of other steps: zip(...) would make wrong pairs of both, without a word.
    for left, right in (
        (["1.png", "2.png", "3.png"], ["1.png", "3.png"]),
        (["1.png", "2.png"], ["2.png", "3.png"]),
    ):
        for sides in ((left, right), (right, left)):
            found = call(function, *(list(side) for side in sides), allow=ValueError)
            expect(
                isinstance(found, ValueError),
                f"`pairs` makes {found} of {sides[0]} and {sides[1]}, where some frames have no partner: "
                "compare the steps of both sides, and raise a ValueError.",
            )
    passed("frames of the same step side by side; without a partner, an error")


def hold(function: Callable[[list[Any], float, float], list[Any]]) -> None:
    """Task 1.2 video (c): `held(frames, fps, hold)` keeps the last frame for `hold` seconds more."""
    frames = ["a", "b", "c"]
    # The last two are no whole frames: 2.7 and 2.4.
    for fps, seconds, copies in ((8, 2.0, 16), (4, 0.5, 2), (10, 0.0, 0), (3, 0.9, 3), (8, 0.3, 2)):
        found = call(function, list(frames), fps, seconds)
        expect(
            isinstance(found, list),
            f"`held` returns a {type(found).__name__}; return a list of frames.",
        )
        expect(
            found[: len(frames)] == frames,
            f"`held` begins with {found[: len(frames)]}: all frames come first, as they were.",
        )
        extra = found[len(frames) :]
        expect(set(extra) <= {"c"}, f"`held` adds {extra}: only the last frame, 'c', stays.")
        expect(
            len(extra) == copies,
            f"`held` adds {len(extra)} copies for {seconds:g} seconds at {fps} frames a second; that takes {copies}. "
            "Multiply, and round to the nearest whole number.",
        )
    passed("the last frame stays as long as it should")
