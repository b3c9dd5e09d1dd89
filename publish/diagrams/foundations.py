"""Diagrams of lesson 0: the forward process, the noise schedule, the score, and training."""

import numpy as np

from publish.diagrams.data import alpha_bars, sample_image, to_png
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


def forward_process() -> Canvas:
    """Points of a spiral, with more and more noise from left to right."""
    alpha_bar = alpha_bars()
    canvas = Canvas(
        300,
        "The forward process in two dimensions",
        "Points on two arms of a spiral at five timesteps, with more noise at each: the arms blur "
        "and end as one round Gaussian cloud. Adding noise needs no network. The way back, from "
        "the cloud to the spiral, is what a network learns.",
    )
    random = np.random.default_rng(0)
    arm = np.arange(300) % 2
    radius = 0.25 + 1.75 * np.sqrt(random.uniform(size=300))
    angle = 3.4 * radius + np.pi * arm
    spiral = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    spiral /= spiral.std()
    noise = random.standard_normal(spiral.shape)
    side, top = 140, 84
    for index, t in enumerate((0, 100, 300, 600, len(alpha_bar) - 1)):
        left = 20 + 155 * index
        canvas.box(left, top, side, side, kind="tensor")
        points = alpha_bar[t] ** 0.5 * spiral + (1 - alpha_bar[t]) ** 0.5 * noise
        middle = np.array([left + side / 2, top + side / 2])
        places = middle + points * np.array([23, -23])
        inside = np.abs(points).max(1) < 2.9
        canvas.dots(places[inside & (arm == 0)].tolist(), "blue")
        canvas.dots(places[inside & (arm == 1)].tolist(), "red")
        canvas.text(left + side / 2, top - 10, f"$t$ = {t}", 14)
    canvas.arrow((30, 56), (770, 56), color="muted")
    canvas.text(400, 28, "add noise: $x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε$", 16)
    canvas.text(400, 46, "the forward process", 13, color="muted")
    canvas.arrow((770, 246), (30, 246), color="red", dashes="7 4")
    canvas.text(400, 270, "remove noise, step by step, with a network $ε_θ(x_t, t)$", 16)
    canvas.text(400, 290, "sampling", 13, color="muted")
    return canvas


MEANS = np.array([[-1.1, 0.7], [1.2, 0.9], [0.2, -1.2]])  # of a mixture of three Gaussians
SPREAD = 0.18


def mixture_noise(x: np.ndarray, alpha_bar: float) -> np.ndarray:
    """Return the mean noise in points `x` (N, 2) of the mixture: what a perfect network predicts.

    The score is minus this noise divided by the square root of 1 - alpha_bar.
    """
    variance = alpha_bar * SPREAD**2 + 1 - alpha_bar
    offsets = x[:, None] - alpha_bar**0.5 * MEANS  # (N, 3, 2)
    logits = -np.square(offsets).sum(-1) / (2 * variance)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    mean: np.ndarray = (weights[..., None] * offsets).sum(1) * (1 - alpha_bar) ** 0.5 / variance
    return mean


def score_field() -> Canvas:
    """The score of a mixture of Gaussians as arrows, at little and at much noise."""
    alpha_bar = alpha_bars()
    canvas = Canvas(
        460,
        "The score as a field of arrows",
        "Two squares with noisy points and arrows that point against the predicted noise. On the "
        "left, with little noise, every arrow points to the nearest of three clusters. On the "
        "right, with much noise, the clusters overlap and the arrows point to their middle.",
    )
    random = np.random.default_rng(1)
    clean = MEANS[np.arange(150) % 3] + SPREAD * random.standard_normal((150, 2))
    noise = random.standard_normal(clean.shape)
    side, top, half = 350, 46, 2.4
    scale = side / (2 * half)
    grid = np.linspace(-half + 0.2, half - 0.2, 12)
    positions = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    for left, t, words in ((30, 100, "little noise"), (420, 600, "much noise")):
        level = float(alpha_bar[t])
        canvas.box(left, top, side, side, kind="tensor")
        points = level**0.5 * clean + (1 - level) ** 0.5 * noise
        middle = np.array([left + side / 2, top + side / 2])
        flip = np.array([scale, -scale])
        shown = points[np.abs(points).max(1) < half - 0.05]
        canvas.dots((middle + shown * flip).tolist(), "yellow")
        steps = -mixture_noise(positions, level)
        lengths = np.linalg.norm(steps, axis=1, keepdims=True)
        steps *= 0.34 * np.tanh(lengths) / lengths.clip(1e-9)
        for start, end in zip(positions - steps / 2, positions + steps / 2, strict=True):
            tail, tip = middle + start * flip, middle + end * flip
            canvas.arrow(tuple(tail), tuple(tip), color="blue", width=1.5, head=7)
        canvas.text(left + side / 2, top - 14, f"{words}, $t$ = {t}", 15)
    canvas.text(400, 420, "arrows: the predicted noise with a minus sign, $−ε_θ(x_t, t)$", 15)
    score = "the score, $∇$ log $p_t(x_t) = −ε_θ(x_t, t) / √(1 − ᾱ_t)$, has the same direction"
    canvas.text(400, 443, score, 15)
    return canvas


def training_loop() -> Canvas:
    """One step of training a denoiser."""
    canvas = Canvas(
        330,
        "One step of training",
        "An image and its caption come from the data. The encoder turns the image into latents. "
        "Random noise at a random timestep is added, and the U-Net predicts v, a mixture of the "
        "noise and the latents. The loss is the squared difference of the prediction and the v of "
        "this noise and these latents; its gradient updates the U-Net.",
    )
    image = canvas.box(20, 96, 110, 62, "image", "of the data")
    encoder = canvas.box(174, 96, 110, 62, "encoder", "(VAE), frozen", kind="network")
    add = canvas.box(348, 96, 118, 62, "add noise", kind="operation")
    unet = canvas.box(530, 92, 130, 70, "U-Net", "$v_θ(x_t, t, y)$", kind="trained")
    random = canvas.box(332, 20, 150, 40, "random $t$ and $ε$")
    caption = canvas.box(530, 20, 130, 40, "caption $y$")
    loss = canvas.box(520, 226, 150, 62, "loss", "$‖v̂ − v‖^2$", kind="operation")
    canvas.arrow(image.right, encoder.left)
    canvas.arrow(encoder.right, add.left)
    canvas.text(316, 116, "$x_0$", 16)
    canvas.arrow(add.right, unet.left)
    canvas.text(498, 116, "$x_t$", 16)
    canvas.arrow(random.bottom, add.top)
    canvas.arrow(caption.bottom, unet.top)
    canvas.arrow(unet.bottom, loss.top)
    canvas.text(606, 202, "$v̂$", 17, anchor="start")
    canvas.arrow(add.bottom, (407, 257), loss.left, color="muted")
    canvas.text(464, 248, "target $v$", 14, color="muted")
    canvas.arrow(
        loss.right, (730, 257), (730, 127), unet.right, color="red", dashes="7 4", width=2.4
    )
    canvas.text(720, 196, "gradient", 14, anchor="end", color="red")
    canvas.text(20, 246, "$x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε$", 15, anchor="start")
    canvas.text(20, 276, "$v = √ᾱ_t ε − √(1 − ᾱ_t) x_0$", 15, anchor="start")
    return canvas
