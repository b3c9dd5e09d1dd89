"""Diagrams of lesson 0: the forward process, the noise schedule, the score, and training."""

import numpy as np

from publish.diagrams.numbers import alpha_bars, sample_image, to_png
from publish.diagrams.svg import Canvas


def noise_schedule() -> Canvas:
    """An image with more and more noise, above the curves of the schedule."""
    alpha_bar = alpha_bars()
    last = len(alpha_bar) - 1
    cross = int(np.argmax(alpha_bar < 0.5))
    canvas = Canvas(
        400,
        "The noise schedule",
        "Above, an image with more and more noise, from timestep 0 to the last. Below, the share "
        "of the image, the square root of alpha_bar_t, falls from 1 to nearly 0, and that of the "
        f"noise, the square root of 1 - alpha_bar_t, rises from nearly 0 to 1. They are equal at "
        f"t = {cross}.",
    )
    left, width, base, height = 80, 640, 346, 190
    image = sample_image("house.png", 64)
    noise = np.random.default_rng(0).standard_normal(image.shape)
    for t in np.linspace(0, last, 7).round().astype(int):
        x = left + width * t / last
        sigma = (1 - alpha_bar[t]) ** 0.5
        noisy = alpha_bar[t] ** 0.5 * image + sigma * noise
        canvas.image(x - 46, 16, 92, to_png(noisy / (1 + 0.8 * sigma)))  # most values in [-1, 1]
        canvas.line((x, 112), (x, base), color="faint", dashes="2 5", width=1.2)
        canvas.text(x, base + 20, f"{t}", 13, color="muted")
    canvas.line((left, base - height), (left, base), color="muted")
    canvas.line((left, base), (left + width, base), color="muted")
    canvas.text(left + width + 44, base + 20, "$t$", 16)
    for value in (0, 0.5, 1):
        canvas.text(left - 10, base - height * value + 5, f"{value:g}", 13, "end", "muted")
    curves = [
        ("blue", alpha_bar**0.5, "$√ᾱ_t$: image", (left + 150, base - 0.93 * height)),
        ("red", (1 - alpha_bar) ** 0.5, "$√(1 − ᾱ_t)$: noise", (left + 410, base - 1.02 * height)),
    ]
    for color, values, label, (x, y) in curves:
        ts = range(0, last + 1, 9)
        points = [(left + width * t / last, base - height * values[t]) for t in ts]
        canvas.curve(points, color, 2.6)
        canvas.text(x, y, label, 16, anchor="start", color=color)
    x, y = left + width * cross / last, base - height * 0.5**0.5
    canvas.circle(x, y, 5, "ink")
    canvas.text(x, y + 64, f"equal at $t$ = {cross}", 13.5)
    canvas.line((x, y + 50), (x, y + 8), color="muted", width=1.2)
    canvas.text(left + width / 2, base + 44, "$x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε$  with noise $ε$", 16)
    return canvas
