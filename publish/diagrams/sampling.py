"""Diagrams of sampling: one step, guidance, the kinds of predictions, and inversion."""

import itertools
import math

import numpy as np

from publish.diagrams.data import alpha_bars
from publish.diagrams.svg import Canvas, Point


def sampling_loop() -> Canvas:
    """One step of DDIM with guidance, and the loop around it."""
    canvas = Canvas(
        420,
        "One step of the sampling loop",
        "The noisy latents x_t go through the U-Net twice, with the prompt and with the negative "
        "prompt. Guidance combines both outputs into the noise. From x_t and the noise follows the "
        "predicted clean latents x_0, which are mixed with less noise: x_prev. It is x_t of the "
        "next step.",
    )
    x_t = canvas.box(14, 112, 116, 60, "$x_t$", "noisy latents")
    top = canvas.box(172, 50, 136, 62, "U-Net, prompt", "$ε_θ(x_t, t, y)$", kind="network")
    low = canvas.box(172, 172, 136, 62, "U-Net, negative", "$ε_θ(x_t, t, ∅)$", kind="network")
    guide = canvas.box(350, 110, 110, 64, "1 guidance", kind="operation")
    x_0 = canvas.box(508, 110, 110, 64, "2 predict $x̂_0$", kind="operation")
    mix = canvas.box(664, 110, 120, 64, "3 less noise", kind="operation")
    canvas.arrow(x_t.point(1, 0.3), (151, 130), (151, 81), top.left)
    canvas.arrow(x_t.point(1, 0.7), (151, 154), (151, 203), low.left)
    canvas.arrow(top.right, (329, 81), (329, 129), guide.point(0, 0.3))
    canvas.arrow(low.right, (329, 203), (329, 155), guide.point(0, 0.7))
    canvas.arrow(guide.right, x_0.left)
    canvas.text(484, 132, "$ε̂$", 17)
    canvas.arrow(x_0.right, mix.left)
    canvas.text(641, 132, "$x̂_0$", 17)
    # The noise is used again in the mixture, and x_t in the prediction of x_0.
    canvas.arrow((484, 142), (484, 214), (700, 214), mix.point(0.3, 1), color="muted")
    canvas.text(592, 206, "the same $ε̂$", 13, color="muted")
    canvas.arrow(x_t.top, (72, 24), (563, 24), x_0.top, color="muted")
    canvas.text(430, 42, "$x_t$", color="muted")
    canvas.arrow(mix.point(0.75, 1), (754, 270), (72, 270), x_t.bottom)
    canvas.text(404, 261, "$x_{prev}$ is $x_t$ of the next step, where there is less noise")
    rows = [
        "1   $ε̂ = ε_∅ + w (ε_y − ε_∅)$,  with guidance scale $w$",
        "2   $x̂_0 = (x_t − √(1 − ᾱ_t) ε̂) / √ᾱ_t$,  the image in $x_t$ if this is its noise",
        "3   $x_{prev} = √ᾱ_{prev} x̂_0 + √(1 − ᾱ_{prev}) ε̂$,  a step of DDIM",
    ]
    for index, row in enumerate(rows):
        canvas.text(90, 314 + 32 * index, row, 16, anchor="start")
    return canvas


def guidance() -> Canvas:
    """Classifier-free guidance as arrows in a plane."""
    canvas = Canvas(
        320,
        "Classifier-free guidance as arrows",
        "From one point, x_t, start two arrows: the unconditional output of the network (without a "
        "label or prompt, or for a negative one) and the conditional one. Guidance goes w times "
        "along their difference: w = 0 is the unconditional output, w = 1 the conditional one, "
        "and w = 3 lies beyond both.",
    )
    origin: Point = (90, 260)
    unconditional: Point = (200, 90)
    conditional: Point = (310, 120)

    def guided(scale: float) -> Point:
        x0, y0 = unconditional
        return x0 + scale * (conditional[0] - x0), y0 + scale * (conditional[1] - y0)

    canvas.line(guided(-0.35), guided(3.3), color="faint", dashes="5 5")
    canvas.arrow(origin, unconditional, color="purple", width=2.6, head=12)
    canvas.arrow(origin, conditional, color="blue", width=2.6, head=12)
    canvas.arrow(origin, guided(3), color="red", width=2.6, head=12)
    canvas.arrow(unconditional, conditional, color="ink", width=2.0)
    canvas.circle(*guided(2), 4, "ink")
    for scale in (0, 1, 2, 3):
        x, y = guided(scale)
        canvas.text(x + 6, y - 12, f"$w$ = {scale}", 14, anchor="start")
    canvas.circle(*origin, 5, "ink")
    canvas.text(78, 286, "$x_t$", 17)
    canvas.text(134, 172, "unconditional", 15, anchor="end", color="purple")
    canvas.text(214, 208, "conditional", 15, anchor="start", color="blue")
    canvas.text(360, 242, "guided", 15, anchor="start", color="red")
    canvas.text(241, 129, "difference", 13)
    left = 586
    rows = [
        ("unconditional", "purple", "without label or prompt"),
        ("conditional", "blue", "for the label or prompt"),
        ("guided", "red", "unconditional + $w$ · difference"),
    ]
    canvas.legend(left, 84, 58, rows)
    return canvas


def predictions() -> Canvas:
    """What a network may predict: noise, v, x_0, and the velocity of flow matching."""
    canvas = Canvas(
        400,
        "Noise, v and x_0 on a quarter circle",
        "x_0 is the horizontal axis and the noise epsilon the vertical axis. The noisy data x_t "
        "lie on a quarter circle between them, at the angle psi whose cosine is the square root of "
        "alpha_bar_t. v is the direction in which x_t moves along the circle, perpendicular to "
        "x_t. The straight line from x_0 to epsilon is the path of flow matching.",
    )
    center: Point = (110, 340)
    radius = 250.0
    angle = math.radians(35)

    def polar(distance: float, phi: float) -> Point:
        return center[0] + distance * math.cos(phi), center[1] - distance * math.sin(phi)

    canvas.arrow(center, (center[0] + 300, center[1]), color="muted")
    canvas.arrow(center, (center[0], center[1] - 300), color="muted")
    points = [polar(radius, math.radians(d)) for d in range(0, 91, 3)]
    canvas.curve(points, color="faint", width=2.4)
    canvas.line(polar(radius, 0), polar(radius, math.pi / 2), color="yellow", dashes="6 5")
    x_t = polar(radius, angle)
    canvas.line(x_t, (x_t[0], center[1]), color="faint", dashes="3 4")
    canvas.line(x_t, (center[0], x_t[1]), color="faint", dashes="3 4")
    canvas.arrow(center, polar(radius, 0), color="blue", width=2.8, head=12)
    canvas.arrow(center, polar(radius, math.pi / 2), color="red", width=2.8, head=12)
    canvas.arrow(center, x_t, width=2.8, head=12)
    tangent = (x_t[0] - 120 * math.sin(angle), x_t[1] - 120 * math.cos(angle))
    canvas.arrow(x_t, tangent, color="green", width=2.8, head=12)
    canvas.curve([polar(58, math.radians(d)) for d in range(0, 36, 5)], "ink", 1.6)
    canvas.text(*polar(78, angle / 2 - 0.07), "$ψ$", 17)
    canvas.text(polar(radius, 0)[0], 365, "$x_0$", 18, color="blue")
    canvas.text(90, 96, "$ε$", 19, color="red")
    canvas.text(x_t[0] + 10, x_t[1] + 2, "$x_t$", 18, anchor="start")
    canvas.text(tangent[0] + 12, tangent[1] - 2, "$v$", 19, anchor="start", color="green")
    canvas.text((center[0] + x_t[0]) / 2 + 30, 360, "$√ᾱ_t$", 15, color="muted")
    canvas.text(102, x_t[1] + 5, "$√(1 − ᾱ_t)$", 14, anchor="end", color="muted")
    left = 470
    canvas.text(left, 56, "cos $ψ$ = $√ᾱ_t$,   sin $ψ$ = $√(1 − ᾱ_t)$", 16, anchor="start")
    rows = [
        ("$x_t$ = cos $ψ$ $x_0$ + sin $ψ$ $ε$", "ink", "noisy data, on the circle"),
        ("$v$ = cos $ψ$ $ε$ − sin $ψ$ $x_0$", "green", "perpendicular to $x_t$, along the circle"),
        ("$x_0$ = cos $ψ$ $x_t$ − sin $ψ$ $v$", "blue", "clean data, from $x_t$ and $v$"),
        ("$ε$ = sin $ψ$ $x_t$ + cos $ψ$ $v$", "red", "noise, from $x_t$ and $v$"),
        ("$u = ε − x_0$", "yellow", "flow matching: direction of the straight path"),
    ]
    canvas.legend(left, 106, 58, rows)
    return canvas


MODES = np.array([-1.3, 0.4, 1.5])  # of a mixture of Gaussians in one dimension
SPREAD = 0.15


def perfect_noise(x: float, alpha_bar: float) -> float:
    """Return the mean noise in `x` of the mixture: what a perfect network predicts."""
    variance = alpha_bar * SPREAD**2 + 1 - alpha_bar
    offsets = x - alpha_bar**0.5 * MODES
    squares = offsets**2 / (2 * variance)
    weights = np.exp(squares.min() - squares)
    return float((weights * offsets).sum() / weights.sum() * (1 - alpha_bar) ** 0.5 / variance)


def ddim_path(x: float, alpha_bars_on_way: list[float]) -> list[float]:
    """Return `x` after each step of DDIM through these values of alpha_bar, in any direction."""
    path = [x]
    for now, after in itertools.pairwise(alpha_bars_on_way):
        noise = perfect_noise(path[-1], now)
        x_0 = (path[-1] - (1 - now) ** 0.5 * noise) / now**0.5
        path.append(after**0.5 * x_0 + (1 - after) ** 0.5 * noise)
    return path


def ddim_inversion() -> Canvas:
    """Paths of DDIM inversion and of sampling back, with few steps and with many."""
    schedule = [1.0, *alpha_bars().tolist()]
    canvas = Canvas(
        430,
        "DDIM inversion",
        "Two plots of a single value over the timestep. From clean values on the left paths of "
        "DDIM steps lead to noise on the right, and sampling leads back. With 6 steps the way "
        "back ends at other values; with 50 steps it ends almost where it began.",
    )
    top, height, width = 60, 250, 330
    starts = (-1.5, 0.3, 1.62)
    for left, count in ((52, 6), (452, 50)):
        ts = [round(t) for t in np.linspace(0, len(schedule) - 1, count + 1)]
        levels = [schedule[t] for t in ts]
        canvas.line((left, top + height), (left + width, top + height), color="muted")
        canvas.line((left, top), (left, top + height), color="muted")
        canvas.text(left + width / 2, top - 22, f"{count} steps", 16, bold=True)
        for start in starts:
            there = ddim_path(start, levels)
            back = ddim_path(there[-1], levels[::-1])[::-1]
            for path, color, dashes in ((there, "blue", ""), (back, "red", "7 4")):
                places = [
                    (left + width * t / ts[-1], top + height * (0.5 - 0.23 * x))
                    for t, x in zip(ts, path, strict=True)
                ]
                canvas.curve(places, color, 2.4, dashes)
                canvas.circle(*places[0], 5, color)
                if count < 10:
                    canvas.dots(places, color, 7)
        canvas.text(left - 14, top + height / 2, "$x$", 16, "end")
        canvas.text(left, top + height + 20, "$t$ = 0", 13, color="muted")
        canvas.text(
            left + width, top + height + 20, f"$t$ = {len(schedule) - 2}", 13, "end", "muted"
        )
    canvas.line((120, 368), (160, 368), color="blue", width=2.4)
    canvas.text(
        170,
        373,
        "inversion, to noise: each step uses the noise predicted where it begins",
        14,
        "start",
    )
    canvas.line((120, 396), (160, 396), color="red", dashes="7 4", width=2.4)
    canvas.text(
        170,
        401,
        "sampling, back to the image: the predictions differ a little if steps are long",
        14,
        "start",
    )
    return canvas
