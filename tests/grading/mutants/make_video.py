"""Answers to the lesson on videos."""

from tests.grading.mutants import changed, rewritten

A, B = "video (a)", "video (b)"
NUMERATOR = "numerator = noise_t * x_u - noise_u * x_t"
DIVISOR = "(noise_t * alpha_bar_u**0.5 - noise_u * alpha_bar_t**0.5)"
REPEATS = "round(total * fps) - len(clip)"

WRONG = [
    changed(A, "wrong sign", "return numerator", "return -numerator"),
    changed(A, "factors exchanged", NUMERATOR, "numerator = noise_u * x_u - noise_t * x_t"),
    changed(A, "not divided", f"numerator / {DIVISOR}", "numerator"),
    changed(A, "no roots of alpha_bar", "alpha_bar_u**0.5", "alpha_bar_u"),
    changed(
        A,
        "no roots of the noise",
        "noise_t = (1 - alpha_bar_t) ** 0.5",
        "noise_t = 1 - alpha_bar_t",
    ),
    changed(A, "a sum in the divisor", "0.5 - noise_u", "0.5 + noise_u"),
    changed(A, "a sum above", NUMERATOR, NUMERATOR.replace(" - ", " + ")),
    changed(
        A, "the noise", NUMERATOR, "numerator = alpha_bar_u**0.5 * x_t - alpha_bar_t**0.5 * x_u"
    ),
    changed(A, "in place", NUMERATOR, "numerator = x_u.mul_(noise_t) - noise_u * x_t"),
    changed(A, "first image", "return numerator", "return numerator[:1]"),
    changed(
        A, "float16", f"return numerator / {DIVISOR}", f"return (numerator / {DIVISOR}).half()"
    ),
    rewritten(A, "x_t without its factor", "return x_t / alpha_bar_t**0.5"),
    rewritten(A, "the later state", "return x_u"),
    changed(B, "each rounded alone", REPEATS, "round(duration * fps)"),
    changed(B, "ends cut", "round(total", "int(total"),
    changed(B, "ends rounded up", REPEATS, "-int(-total * fps // 1) - len(clip)"),
    changed(B, "ends as lengths", " - len(clip)", ""),
    changed(B, "no frame rate", " * fps", ""),
    changed(B, "rate of the lesson", "fps) -", "10) -"),
    changed(B, "at least once", REPEATS, f"max(1, {REPEATS})"),
    changed(B, "first frame missing", "return clip", "return clip[1:]"),
    changed(B, "backwards", "return clip", "return clip[::-1]"),
    changed(B, "one frame more", "return clip", "return [*clip, frames[-1]]"),
    changed(B, "tuple", "return clip", "return tuple(clip)"),
    changed(B, "frames extended", "return clip", "frames += clip\n    return clip"),
    changed(B, "durations rounded", "total += duration", "total += round(duration, 1)"),
]

HARMLESS = [
    rewritten(
        A,
        "through the noise",
        """
p, q = alpha_bar_t**0.5, alpha_bar_u**0.5
m, n = (1 - alpha_bar_t) ** 0.5, (1 - alpha_bar_u) ** 0.5
noise = (q * x_t - p * x_u) / (q * m - p * n)
return (x_t - m * noise) / p
""",
    ),
    rewritten(
        A,
        "by a matrix",
        """
import numpy as np

rows = [[a**0.5, (1 - a) ** 0.5] for a in (alpha_bar_t, alpha_bar_u)]
first, second = np.linalg.inv(np.array(rows))[0].tolist()
return first * x_t + second * x_u
""",
    ),
    rewritten(
        A,
        "image by image",
        """
import math

import torch

if x_t is None or x_u is None:
    raise ValueError("two states are needed")
m, n = math.sqrt(1 - alpha_bar_t), math.sqrt(1 - alpha_bar_u)
divisor = n * math.sqrt(alpha_bar_t) - m * math.sqrt(alpha_bar_u)
return torch.stack([(n * a - m * b) / divisor for a, b in zip(x_t, x_u, strict=True)])
""",
    ),
    rewritten(
        B,
        "accumulate",
        """
import itertools

ends = [round(end * fps) for end in itertools.accumulate(durations)]
clip = []
for frame, start, end in zip(frames, [0, *ends], ends):
    print(f"{end - start} times")
    clip.extend(frame for _ in range(start, end))
return clip
""",
    ),
    rewritten(
        B,
        "cumulative sum",
        """
import numpy as np

ends = np.rint(np.cumsum(durations) * fps).astype(int)
counts = np.diff(ends, prepend=0)
return [frame for frame, count in zip(frames, counts) for _ in range(count)]
""",
    ),
    rewritten(
        B,
        "appended one by one",
        """
clip, seconds = list(), 0
for i in range(len(frames)):
    seconds = seconds + durations[i]
    while len(clip) < round(seconds * fps):
        clip.append(frames[i])
return clip
""",
    ),
]
