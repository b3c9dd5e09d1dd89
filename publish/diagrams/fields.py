"""Diagrams of lesson 3 about the scene: volume rendering along a ray, and the hash grid."""

import numpy as np

from publish.diagrams.svg import Canvas, Point
from task_3_DreamFusion.gridencoder.reference import PRIMES
from task_3_DreamFusion.nerf.network_grid import GROWTH, MIN_RESOLUTION

ENTRIES = 16  # of a drawn table; those of the course have 2^17


def ray() -> Canvas:
    """A ray through a volume, and what its samples contribute to the pixel."""
    canvas = Canvas(
        450,
        "Volume rendering along a ray",
        "A ray starts at the camera, passes a pixel and a volume. Samples along it have a density "
        "and a color. Below, three curves: the density; the transmittance, the share of light that "
        "is not yet absorbed, which falls from 1; and the weight of each sample, which is largest "
        "at the front of the object. The pixel is the weighted sum of the samples' colors.",
    )
    left, right, middle = 220, 760, 92
    z = np.linspace(0, 1, 181)
    density = 16 * np.exp(-(((z - 0.5) / 0.1) ** 2)) + 5 * np.exp(-(((z - 0.78) / 0.05) ** 2))
    opacity = 1 - np.exp(-density * (z[1] - z[0]))
    transmittance = np.cumprod(np.concatenate([[1.0], 1 - opacity[:-1]]))
    weights = transmittance * opacity

    canvas.polygon([(40, 74), (40, 110), (78, 92)], "muted")
    canvas.text(52, 136, "camera", 14)
    canvas.line((150, 40), (150, 146), color="blue", width=3)
    canvas.text(150, 166, "image", 14)
    canvas.box(left, 24, right - left, 136, kind="note")
    canvas.text(right - 10, 44, "box around the scene", 13, "end", "muted")
    for index, value in enumerate(density):
        if index % 2 == 0 and value > 0.4:
            x = left + (right - left) * z[index]
            canvas.rectangle(x - 3.2, 50, 6.2, 84, "yellow", min(0.75, value / 22))
    canvas.arrow((78, middle), (right + 24, middle), width=1.6)
    canvas.circle(150, middle, 5, "blue")
    for share in np.linspace(0.06, 0.94, 16):
        canvas.circle(left + (right - left) * share, middle, 4, "red")
    canvas.text(left + 60, 116, "samples", 14, color="red")

    base, height = 350, 120
    canvas.line((left, base), (right, base), color="muted")
    canvas.line((left, base - height), (left, base), color="muted")
    canvas.text(right, base + 20, "distance along the ray", 13, "end", "muted")
    curves = [
        (density / density.max(), "yellow", "density $σ_i$", (540, 258)),
        (transmittance, "blue", "transmittance $T_i$", (250, 218)),
        (weights / weights.max() * 0.8, "red", "weight $W_i$", (310, 312)),
    ]
    for values, color, label, spot in curves:
        points = [
            (left + (right - left) * a, base - height * b)
            for a, b in zip(z[::2], values[::2], strict=True)
        ]
        canvas.curve(points, color, 2.6)
        canvas.text(*spot, label, 15, anchor="start", color=color)
    canvas.text(left - 12, base - height + 5, "1", 13, "end", "muted")
    canvas.text(left - 12, base + 4, "0", 13, "end", "muted")
    canvas.text(
        400, 406, "$W_i = T_i α_i$,  with the opacity of a step $Δ$:  $α_i = 1 −$ exp($−σ_i Δ$)", 15
    )
    canvas.text(
        400, 432, "color of the pixel: the sum of $W_i c_i$ over all samples, nearest first", 15
    )
    return canvas


def table_entry(corner: tuple[int, int], resolution: int, hashed: bool) -> int:
    """Return the table entry of a corner (Instant-NGP, section 3, in two dimensions)."""
    across, up = corner
    if hashed:
        return ((across * PRIMES[0]) ^ (up * PRIMES[1])) % ENTRIES
    return (across + (resolution + 1) * up) % ENTRIES


def hash_grid() -> Canvas:
    """A point in three levels of a hash grid, its table entries, and the network behind it."""
    canvas = Canvas(
        470,
        "The hash grid",
        "A point lies in a cell of three grids, from coarse to fine. At each level the corners of "
        "its cell have entries in a table of features; in fine grids several corners share an "
        "entry, chosen by a hash. The features are interpolated at the point and joined over all "
        "levels, and a small network returns density and color.",
    )
    point = (0.63, 0.42)
    levels = [0, 2, 5]
    colors = ("blue", "green", "purple")
    joined = canvas.box(560, 150, 96, 150, "features", "joined")
    network = canvas.box(686, 150, 92, 150, "network", "small", kind="trained")
    result = canvas.box(672, 352, 120, 44, "density, color")
    for row, (level, color) in enumerate(zip(levels, colors, strict=True)):
        resolution = round(MIN_RESOLUTION * GROWTH**level)
        left, top, side = 110, 24 + 148 * row, 130
        canvas.box(left, top, side, side, kind="tensor")
        lines = [side * i / resolution for i in range(1, resolution)]
        across = "".join(f"M{left} {top + y:.1f}h{side}" for y in lines)
        down = "".join(f"M{left + x:.1f} {top}v{side}" for x in lines)
        canvas.path(across + down, "faint", 1 if resolution < 20 else 0.6)
        corner = (int(point[0] * resolution), int(point[1] * resolution))
        cell = side / resolution
        x, y = left + cell * corner[0], top + side - cell * (corner[1] + 1)
        canvas.rectangle(x, y, cell, cell, color, 0.45)
        spot: Point = (left + side * point[0], top + side * (1 - point[1]))
        canvas.circle(*spot, 4, "red")
        canvas.text(left - 12, top + 58, f"level {level}", 14, "end")
        canvas.text(left - 12, top + 78, f"{resolution} cells", 13, "end", "muted")
        table_left, table_top = 306, top + 50
        corners = [(corner[0] + i, corner[1] + j) for i in (0, 1) for j in (0, 1)]
        hashed = (resolution + 1) ** 3 > 2**17  # more corners than entries
        hit = {table_entry(c, resolution, hashed) for c in corners}
        for index in range(ENTRIES):
            opacity = 0.85 if index in hit else 0.12
            canvas.rectangle(table_left + 13 * index, table_top, 11, 30, color, opacity)
        canvas.arrow((x + cell, y + cell / 2), (table_left - 6, table_top + 15), color=color)
        canvas.text(table_left + 104, table_top - 12, "table of features", 13, color="muted")
        canvas.text(274, table_top - 2, "hash" if hashed else "index", 13, color="muted")
        end = joined.point(0, 0.2 + 0.3 * row)
        start = (table_left + 210, table_top + 15)
        bends = [] if row == 1 else [(538.0, start[1]), (538.0, end[1])]
        canvas.arrow(start, *bends, end, color=color)
    canvas.arrow(joined.right, network.left)
    canvas.arrow(network.bottom, result.top)
    canvas.text(
        530,
        458,
        "highlighted entries: corners of the cell, interpolated at the point",
        13,
        color="muted",
    )
    return canvas
