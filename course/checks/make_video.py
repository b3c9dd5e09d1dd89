"""Checks of the video lesson."""

from collections.abc import Callable
from typing import Any

from course.checks.common import call, check, expect, expect_type


@check("video (a)")
def frame_order(function: Callable[[list[str]], list[str]]) -> str:
    """`in_order(names)` sorts names of frames by the number that counts up."""
    for expected in (
        ["8.png", "9.png", "10.png", "11.png", "100.png"],
        ["007.png", "8.png", "0010.png", "11.png"],
        ["frame_2.jpg", "frame_10.jpg"],
        ["009_t0641.png", "010_t0601.png"],
        ["x_0_9.png", "x_0_10.png", "x_0_11.png"],
        ["00009-77.png", "00010-4.png", "00011-1234567.png"],
    ):
        names = expected[1::2] + expected[::2]
        result = call(function, list(names))
        expect(
            isinstance(result, list | tuple) and sorted(map(str, result)) == sorted(expected),
            f"`in_order` makes {result} of {names}: return the same names, each once, in another "
            "order.",
        )
        expect(
            list(result) == expected,
            f"`in_order` sorts {names} into {list(result)}; by their numbers they are {expected}. "
            "Compare numbers, not text, and those that video.frame_numbers(...) returns.",
        )
    return "names in the order of the number that counts up, whatever the padding"


@check("video (b)")
def frame_pairs(function: Callable[[list[str], list[str]], list[tuple[str, str]]]) -> str:
    """`pairs(left, right)` matches names by their number, and refuses what has no partner."""
    left, right = ["10.png", "8.png", "9.png"], ["0009.jpg", "0010.jpg", "0008.jpg"]
    expected = [("8.png", "0008.jpg"), ("9.png", "0009.jpg"), ("10.png", "0010.jpg")]
    result = call(function, list(left), list(right))
    expect(
        isinstance(result, list | tuple)
        and [tuple(pair) if isinstance(pair, list) else pair for pair in result] == expected,
        f"`pairs` makes {result} of {left} and {right}, and not {expected}. Put both sides in "
        "order first.",
    )
    # Of unequal length, and of equal length with other steps: zip(...) would silently mismatch.
    for left, right in (
        (["1.png", "2.png", "3.png"], ["1.png", "3.png"]),
        (["1.png", "2.png"], ["2.png", "3.png"]),
    ):
        for sides in ((left, right), (right, left)):
            result = call(function, *(list(side) for side in sides), allow=ValueError)
            expect(
                isinstance(result, ValueError),
                f"`pairs` makes {result} of {sides[0]} and {sides[1]}, where some frames have no "
                "partner: compare the steps of both sides, and raise a ValueError.",
            )
    return "frames of the same step side by side; without a partner, an error"


@check("video (c)")
def hold(function: Callable[[list[Any], float, float], list[Any]]) -> str:
    """`held(frames, fps, hold)` keeps the last frame for `hold` more seconds."""
    frames = ["a", "b", "c"]
    # The last two are no whole number of frames: 2.7 and 2.4.
    for fps, seconds, copies in ((8, 2.0, 16), (4, 0.5, 2), (10, 0.0, 0), (3, 0.9, 3), (8, 0.3, 2)):
        result = call(function, list(frames), fps, seconds)
        expect_type(result, list, "The result of `held`", "return a list of frames.")
        start, extra = result[: len(frames)], result[len(frames) :]
        expect(start == frames, f"`held` begins with {start}: all frames come first, as they were.")
        expect(set(extra) <= {"c"}, f"`held` adds {extra}: only the last frame, 'c', stays.")
        expect(
            len(extra) == copies,
            f"`held` adds {len(extra)} copies for {seconds:g} seconds at {fps} frames a second; "
            f"that takes {copies}. Multiply, and round to the nearest whole number.",
        )
    return "the last frame stays as long as it should"
