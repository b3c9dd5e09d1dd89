"""Diagrams of lesson 2: windows over a panorama, the closed panorama, and synchronization."""

import math

import numpy as np

from publish.diagrams.data import latent_size
from publish.diagrams.svg import Canvas, Point

WIDE = 4  # a panorama is so many times as wide as high


def windows() -> Canvas:
    """Overlapping windows over a panorama, and how many of them lie over each column."""
    side = latent_size()[1]
    width, stride = WIDE * side, side // 4
    starts = range(0, width - side + 1, stride)
    counts = [sum(s <= column < s + side for s in starts) for column in range(width)]
    canvas = Canvas(
        452,
        "Windows over a panorama",
        f"Latents {width} wide are covered by {len(starts)} windows {side} wide, one every "
        f"{stride} columns. Below it the number of windows over each column: one at the ends, "
        "rising in steps to four, which is constant in between. Each latent pixel is the weighted "
        "mean of all windows there; with weights of 1 their sum is this number.",
    )
    left, scale = 120, 640 / width
    canvas.box(left, 44, 640, side * scale / 2, kind="tensor")
    canvas.text(left + 320, 44 + side * scale / 4 + 5, "latents of the panorama, $J_t$")
    canvas.text(left + 320, 30, f"{width} latent pixels", 13.5, color="muted")
    canvas.text(left - 12, 89, "panorama", 14, anchor="end")
    rows, top = side // stride, 146
    colors = ("blue", "red", "green", "purple")
    for index, start in enumerate(starts):
        color = colors[index % rows]
        x, y = left + start * scale, top + 34 * (index % rows)
        canvas.rectangle(x + 2, y, side * scale - 4, 26, color, 0.25)
        canvas.text(x + side * scale / 2, y + 18, f"window {index + 1}", 13)
    canvas.text(left - 12, top + 60, f"{len(starts)} windows,", 14, anchor="end")
    canvas.text(left - 12, top + 80, f"$k$ = {side} wide,", 14, anchor="end")
    canvas.text(left - 12, top + 100, f"stride {stride}", 14, anchor="end")
    base, unit = 384, 19
    points: list[Point] = [(left, base)]
    for column, count in enumerate(counts):
        x = left + column * scale
        points += [(x, base - unit * count), (x + scale, base - unit * count)]
    points.append((left + width * scale, base))
    canvas.polygon(points, "muted", 0.3)
    canvas.line((left, base), (left + 640, base), color="muted")
    steps = [i for i in range(width) if i == 0 or counts[i] != counts[i - 1]]
    for first, last in zip(steps, [*steps[1:], width], strict=True):
        x = left + (first + last) / 2 * scale
        canvas.text(x, base - unit * counts[first] - 6, f"{counts[first]}", 14, bold=True)
    canvas.text(left - 12, base - 34, "windows over", 14, anchor="end")
    canvas.text(left - 12, base - 15, "a column", 14, anchor="end")
    formula = "$J_{prev}$ = (sum of weight · denoised window) ÷ (sum of the weights)"
    canvas.text(left + 320, 414, formula)
    note = "with weights of 1, the sum of the weights is the number of windows"
    canvas.text(left + 320, 438, note, 13.5, color="muted")
    return canvas


def ring() -> Canvas:
    """A closed panorama: windows around a circle, one of them across the place where ends meet."""
    side = latent_size()[1]
    width, stride = WIDE * side, side // 4
    count = width // stride
    canvas = Canvas(
        390,
        "A closed panorama",
        f"The {width} columns of the latents form a circle, covered by {count} windows, one every "
        f"{stride} columns. Windows that begin near the last column continue with the first: every "
        "column lies in four windows, and no end is left.",
    )
    center: Point = (190, 200)

    def place(radius: float, column: float) -> Point:
        angle = 2 * math.pi * column / width - math.pi / 2
        return center[0] + radius * math.cos(angle), center[1] + radius * math.sin(angle)

    canvas.circle(*center, 92, "muted", filled=False)
    colors = ("blue", "red", "green", "purple")
    for index in range(count):
        start = index * stride
        radius = 104 + 13 * (index % 4)
        columns = np.linspace(start + 0.9, start + side - 0.9, 24)
        wraps = start + side > width
        points = [place(radius, column) for column in columns]
        canvas.curve(points, colors[index % 4], 7 if wraps else 3.5)
    canvas.line(place(74, 0), place(158, 0), color="ink", dashes="3 3")
    canvas.text(center[0], 26, "column 0", 13)
    canvas.text(center[0], center[1] - 6, f"{count} windows")
    canvas.text(center[0], center[1] + 16, f"$k$ = {side}, stride {stride}", 13.5, color="muted")
    canvas.text(center[0], 374, "thick: windows across the ends", 13, color="muted")

    left, top, cell = 420, 150, 42
    start = width - side // 4 * 2
    labels = ["…", width - 3, width - 2, width - 1, 0, 1, 2, "…"]
    for index, column in enumerate(labels):
        canvas.box(left + cell * index, top, cell, 44, f"{column}")
    canvas.line((left + 4 * cell, top - 18), (left + 4 * cell, top + 62), dashes="3 3")
    canvas.text(left + 4 * cell, top - 28, "the last column is next to the first", 14)
    canvas.line((left - 4, top + 84), (left + 8 * cell + 4, top + 84), color="red", width=7)
    canvas.text(left + 4 * cell, top + 116, f"a window from column {start}", 15)
    formula = f"columns = ({start} + (0, 1, …, {side - 1})) mod {width}"
    canvas.text(left + 4 * cell, top + 144, formula, 15)
    return canvas


def sync() -> Canvas:
    """SyncDiffusion: a window moves toward the anchor before it is denoised."""
    canvas = Canvas(
        360,
        "Synchronization with an anchor",
        "For a window and for the anchor, the clean latents are predicted and decoded to images. A "
        "perceptual distance compares both images. Its gradient with respect to the noisy window, "
        "through decoder and U-Net, moves this window; the anchor gets no gradient.",
    )
    rows = []
    for y, index, name in ((92, "i", "window $i$"), (258, "anchor", "the anchor")):
        x_t = canvas.box(20, y, 116, 60, f"$x_t^{{{index}}}$", name)
        predict = canvas.box(184, y, 116, 60, "predict $x̂_0$", "U-Net", kind="network")
        decode = canvas.box(348, y, 100, 60, "decoder", "(VAE)", kind="network")
        image = canvas.box(496, y, 96, 60, "image")
        canvas.arrow(x_t.right, predict.left)
        canvas.arrow(predict.right, decode.left)
        canvas.arrow(decode.right, image.left)
        rows.append(image)
    canvas.box(640, 166, 140, 76, "perceptual", "distance $ℒ$", kind="operation")
    canvas.arrow(rows[0].right, (680, 122), (680, 166))
    canvas.arrow(rows[1].right, (680, 288), (680, 242))
    canvas.arrow(
        (750, 166),
        (750, 40),
        (78, 40),
        (78, 92),
        color="red",
        dashes="7 4",
        width=2.4,
        head=11,
    )
    label = "gradient $∇ℒ$ of the window, through decoder and U-Net"
    canvas.text(414, 30, label, 15, color="red")
    canvas.text(400, 206, "$x_t^i$ ← $x_t^i − λ ∇ℒ$,  then one step of MultiDiffusion", 17)
    canvas.text(544, 342, "no gradient goes into the anchor", 14, color="muted")
    return canvas
