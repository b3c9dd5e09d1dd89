"""Checks of the video lesson."""

import itertools
import math

import torch

from course.checks.common import Function, call, check, diagnose, expect


@check("video (a)")
def prediction(function: Function) -> str:
    """`predicted_x_0(x_t, x_u, alpha_bar_t, alpha_bar_u)` solves the two equations of DDIM."""
    generator = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn((2, 2, 4, 6, 8), generator=generator, dtype=torch.float64)
    for a, b in ((0.1, 0.4), (0.7, 0.98), (0.3, 1.0)):
        p, q = math.sqrt(1 - a), math.sqrt(1 - b)
        x_t = math.sqrt(a) * x_0 + p * noise
        x_u = math.sqrt(b) * x_0 + q * noise
        result = call(function, x_t.clone(), x_u.clone(), a, b)
        expect.tensor(result, x_0.shape, "The predicted x_0", "It has the shape of x_t.")
        divisor = p * math.sqrt(b) - q * math.sqrt(a)
        mistakes = {
            "That is the predicted noise: eliminate the noise, and not x_0.": noise,
            "The sign is wrong: subtract both sides in the same order.": -x_0,
            "The noise factors are exchanged: take that of the other equation.": (
                (q * x_u - p * x_t) / divisor
            ),
            "Divide by the factor that x_0 has after the subtraction.": p * x_u - q * x_t,
            "The roots of alpha_bar are missing in the divisor.": (
                (p * x_u - q * x_t) / (p * b - q * a)
            ),
            "The roots of the noise factors are missing: they are sqrt(1 - alpha_bar).": (
                ((1 - a) * x_u - (1 - b) * x_t) / ((1 - a) * math.sqrt(b) - (1 - b) * math.sqrt(a))
            ),
            "Subtract in the divisor as well, and do not add.": (
                (p * x_u - q * x_t) / (p * math.sqrt(b) + q * math.sqrt(a))
            ),
            "That is x_t without its noise factor: it still holds noise.": x_t / math.sqrt(a),
        }
        otherwise = "That does not solve the two equations (1): put your result into both."
        diagnose(result, x_0, mistakes, otherwise)
    return "the prediction behind a step, from the states before and after it"


@check("video (b)")
def timing(function: Function) -> str:
    """`timed(frames, durations, fps)` repeats frames; the end of each is rounded."""
    for fps, durations, counts in (
        (10, [1.0, 0.5, 2.0], [10, 5, 20]),
        (8, [0.25, 0.25, 1.0], [2, 2, 8]),
        (10, [0.12, 0.52], [1, 5]),
        (10, [0.17, 0.17, 0.17], [2, 1, 2]),
        (10, [0.14] * 5, [1, 2, 1, 2, 1]),
        (4, [0.1, 0.1, 0.1, 0.1], [0, 1, 0, 1]),
    ):
        frames = "abcde"[: len(durations)]
        given = list(frames)
        result = call(function, given, list(durations), fps)
        expect.is_a(result, list, "The result of `timed`", "return a list of frames.")
        expect(given == list(frames), "`timed` changes the list that it gets: build a new one.")
        right = [frame for frame, count in zip(frames, counts, strict=True) for _ in range(count)]
        lengths = [result.count(frame) for frame in frames]
        task = f"for the durations {durations} at {fps} frames a second"
        if result == right:
            continue
        expect(
            sum(lengths) == len(result) and result == sorted(result),
            f"`timed` returns {result}: the frames, each repeated, in their order.",
        )
        for advice, wrong in _wrong_counts(durations, fps).items():
            expect(lengths != wrong, f"`timed` repeats the frames {lengths} times {task}. {advice}")
        expect(False, f"`timed` repeats the frames {lengths} times {task}; the ends give {counts}.")
    return "each frame is seen for its duration, and rounding errors do not add up"


def _wrong_counts(durations: list[float], fps: float) -> dict[str, list[int]]:
    """Return how often usual mistakes repeat each frame, by advice."""
    ends = [sum(durations[: i + 1]) * fps for i in range(len(durations))]
    cut = [0, *map(int, ends)]
    return {
        "Multiply the seconds by fps.": [round(d) for d in durations],
        "Each duration is rounded alone, errors add up: round the ends.": [
            round(d * fps) for d in durations
        ],
        "Each duration is cut to whole frames: round the ends.": [int(d * fps) for d in durations],
        "Each duration is rounded up: round the ends.": [math.ceil(d * fps) for d in durations],
        "Each frame is repeated up to its end, and those before it count once more: subtract what "
        "is in the clip already.": [round(end) for end in ends],
        "The ends are cut to whole numbers: round to the nearest one.": [
            end - start for start, end in itertools.pairwise(cut)
        ],
    }
