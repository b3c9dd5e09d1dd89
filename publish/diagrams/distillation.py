"""Diagrams of lesson 3 about score distillation."""

import math

from course.views import FRONT_SIDE, OVERHEAD, SIDE_BACK
from publish.diagrams.svg import Canvas, Point
from task_3_DreamFusion.nerf.views import BLEND


def sds_loop() -> Canvas:
    """The loop of score distillation: render, encode, add noise, denoise, gradient."""
    canvas = Canvas(
        350,
        "The loop of score distillation",
        "The field is rendered from a random camera, and the image encoded to latents. Noise is "
        "added, and the frozen U-Net predicts it for the prompt of this view. The predicted minus "
        "the added noise, weighted by omega of t, is the gradient of the latents: it skips the "
        "U-Net and goes back through encoder and renderer to the parameters of the field.",
    )
    scene = canvas.box(24, 86, 110, 70, "field", "parameters $φ$", kind="trained")
    render = canvas.box(176, 90, 104, 62, "render", kind="operation")
    encoder = canvas.box(330, 90, 104, 62, "encoder", "(VAE)", kind="network")
    noisy = canvas.box(494, 90, 112, 62, "add noise", kind="operation")
    unet = canvas.box(664, 86, 116, 70, "U-Net", "frozen", kind="network")
    gradient = canvas.box(540, 244, 190, 62, "$ω(t) (ε̂ − ε)$", kind="operation")
    camera = canvas.box(160, 20, 136, 38, "random camera")
    epsilon = canvas.box(482, 20, 136, 38, "random $t$ and $ε$")
    prompt = canvas.box(650, 20, 130, 38, "prompt, view")
    canvas.arrow(camera.bottom, render.top)
    canvas.arrow(epsilon.bottom, noisy.top)
    canvas.arrow(prompt.bottom, (715, 86))
    canvas.arrow(scene.right, render.left)
    canvas.arrow(render.right, encoder.left)
    canvas.text(305, 112, "image", 13)
    canvas.arrow(encoder.right, noisy.left)
    canvas.text(463, 110, "$x_0$", 16)
    canvas.arrow(noisy.right, unet.left)
    canvas.text(634, 110, "$x_t$", 16)
    canvas.arrow((700, 156), (700, 244))
    canvas.text(712, 204, "$ε̂$, guided", 15, anchor="start")
    canvas.arrow((570, 152), (570, 244), color="muted")
    canvas.text(560, 204, "$ε$", 16, anchor="end", color="muted")
    canvas.arrow(
        gradient.left, (79, 275), scene.bottom, color="red", dashes="7 4", width=2.4, head=11
    )
    canvas.text(312, 264, "gradient of $x_0$, backpropagated through", 14, color="red")
    canvas.text(312, 297, "encoder and renderer to $φ$, but not through the U-Net", 14, color="red")
    canvas.text(92, 214, "the optimizer updates $φ$", 14, anchor="start", color="muted")
    return canvas


def blend(angle: float, border: float) -> float:
    """Return the share of the view beyond a border, as in nerf/views.py."""
    return min(1.0, max(0.0, (angle - border) / (2 * BLEND) + 0.5))


def view_prompts() -> Canvas:
    """Words for views around an object seen from above, and how they blend."""
    canvas = Canvas(
        420,
        "View prompts",
        f"An object seen from above. Cameras within {FRONT_SIDE:g} degrees of its front get the "
        f"words front view, those beyond {SIDE_BACK:g} degrees back view, and side view in "
        f"between; from an elevation of {OVERHEAD:g} degrees, overhead view. On the right the "
        "weight of each word by azimuth: near a border, one changes into the next linearly.",
    )
    center: Point = (200, 200)
    sectors = [
        ("front view", "blue", -FRONT_SIDE, FRONT_SIDE, (0, 1)),
        ("side view", "green", FRONT_SIDE, SIDE_BACK, (1, 0)),
        ("back view", "red", SIDE_BACK, 360 - SIDE_BACK, (0, -1)),
        ("side view", "green", -SIDE_BACK, -FRONT_SIDE, (-1, 0)),
    ]

    def place(radius: float, azimuth: float) -> Point:
        """0 degrees is below, at the front; azimuth grows counter-clockwise, as seen from above."""
        angle = math.radians(azimuth)
        return center[0] + radius * math.sin(angle), center[1] + radius * math.cos(angle)

    for name, color, low, high, (x, y) in sectors:
        steps = [low + (high - low) * i / 20 for i in range(21)]
        canvas.polygon([center, *(place(150, step) for step in steps)], color, 0.22)
        canvas.text(center[0] + 104 * x, center[1] + 112 * y + 5, name, 14)
    canvas.circle(*center, 40, "muted")
    canvas.polygon([place(40, -20), place(40, 20), place(56, 0)], "muted")
    canvas.text(center[0], 392, "front of the object, azimuth 0", 13.5, color="muted")
    canvas.arc_arrow(place(166, 12), place(182, 30), place(166, 48))
    canvas.text(334, 346, "azimuth", 13.5)
    for azimuth, label in ((90, "90°"), (180, "180°"), (270, "−90°")):
        spot = place(172, azimuth)
        canvas.text(spot[0], spot[1] + 5, label, 13, color="muted")

    left, base, width, height = 450, 240, 310, 150
    canvas.line((left, base), (left + width, base), color="muted")
    canvas.line((left, base - height), (left, base), color="muted")
    curves = [
        ("front", "blue", lambda a: 1 - blend(a, FRONT_SIDE), 0.06),
        ("side", "green", lambda a: blend(a, FRONT_SIDE) - blend(a, SIDE_BACK), 0.5),
        ("back", "red", lambda a: blend(a, SIDE_BACK), 0.93),
    ]
    for name, color, weight, share in curves:
        points = [(left + width * a / 180, base - height * weight(a)) for a in range(181)]
        canvas.curve(points, color, 2.6)
        canvas.text(left + width * share, base - height - 12, name, 15, color=color)
    for angle in (0, 45, 90, 135, 180):
        canvas.text(left + width * angle / 180, base + 20, f"{angle}°", 13, color="muted")
    canvas.text(left + width / 2, base + 44, "azimuth, to either side", 13.5, color="muted")
    canvas.text(left - 8, base - height + 5, "1", 13, anchor="end", color="muted")
    canvas.text(left - 8, base + 4, "0", 13, anchor="end", color="muted")
    canvas.text(left + width / 2, 40, "weight of each view", 15)
    words = f"from an elevation of {OVERHEAD:g}°: overhead view"
    canvas.box(450, 326, 310, 60, "prompt: “a bunny, front view”", words)
    return canvas


def perp_neg() -> Canvas:
    """Perp-Neg: only the perpendicular part of a negative direction is subtracted."""
    canvas = Canvas(
        380,
        "Perp-Neg",
        "Arrows from the output without a prompt: to the output for the prompt, and to that for a "
        "negative prompt. The negative arrow is split into a part along the prompt's arrow and one "
        "perpendicular to it. Only the perpendicular part is subtracted, so what both prompts have "
        "in common stays.",
    )
    origin: Point = (90, 270)
    positive: Point = (370, 210)
    negative: Point = (230, 90)
    direction = (positive[0] - origin[0], positive[1] - origin[1])
    away = (negative[0] - origin[0], negative[1] - origin[1])
    share = (direction[0] * away[0] + direction[1] * away[1]) / math.hypot(*direction) ** 2
    foot = (origin[0] + share * direction[0], origin[1] + share * direction[1])
    perpendicular = (negative[0] - foot[0], negative[1] - foot[1])
    strength = 0.6
    result = (
        positive[0] - strength * perpendicular[0],
        positive[1] - strength * perpendicular[1],
    )
    canvas.line(negative, foot, color="faint", dashes="4 4")
    canvas.arrow(origin, negative, color="purple", width=2.6, head=12)
    canvas.arrow(foot, negative, color="yellow", width=2.6, head=12)
    canvas.arrow(origin, positive, color="blue", width=2.6, head=12)
    canvas.arrow(positive, result, color="yellow", width=2.6, head=12)
    canvas.arrow(origin, result, color="red", width=2.6, head=12)
    canvas.circle(*origin, 5, "ink")
    canvas.text(origin[0] - 14, origin[1] + 6, "$ε_∅$", 17, anchor="end")
    canvas.text(146, 168, "$n$", 18, anchor="end", color="purple")
    canvas.text(290, 212, "$p$", 18, color="blue")
    canvas.text(266, 150, "$n^⊥$", 18, anchor="start", color="yellow")
    canvas.text(270, 316, "$p − u n^⊥$", 17, color="red")
    rows = [
        ("$p = ε_y − ε_∅$", "blue", "to the prompt, “a bunny, side view”"),
        ("$n = ε_k − ε_∅$", "purple", "to a hidden view, “a bunny, front view”"),
        ("$n^⊥$", "yellow", "the part of $n$ perpendicular to $p$"),
        ("$p − u n^⊥$", "red", "direction of guidance; $u$ is a strength"),
        ("$ε̂ = ε_∅ + w (p − u n^⊥)$", "ink", "guided noise"),
    ]
    canvas.legend(480, 66, 60, rows)
    return canvas
