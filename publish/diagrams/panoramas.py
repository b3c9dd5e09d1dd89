"""Diagrams of lesson 2: windows over a panorama, the closed panorama, and synchronization."""

from publish.diagrams.numbers import latent_size
from publish.diagrams.svg import Canvas

WIDE = 4  # a panorama is so many times as wide as high


def windows() -> Canvas:
    """Overlapping windows over a panorama, and how many of them lie over each column."""
    side = latent_size()[1]
    width, stride = WIDE * side, side // 4
    starts = range(0, width - side + 1, stride)
    counts = [sum(s <= column < s + side for s in starts) for column in range(width)]
    canvas = Canvas(
        430,
        "Windows over a panorama",
        f"Latents {width} wide are covered by {len(starts)} windows {side} wide, one every "
        f"{stride} columns. Below it the number of windows over each column: one at the ends, "
        "rising in steps to four, which is constant in between. Each latent pixel is the sum of "
        "all windows there, divided by this number.",
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
    points = [(left, base)]
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
    canvas.text(
        left + 320, 414, "$J_{prev}$ = (sum of the denoised windows there) ÷ (their number there)"
    )
    return canvas
