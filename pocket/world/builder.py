"""Builds scenes of primitives: the small language in which the recipes in objects/ are written.

A recipe has its own frame: y up, the front toward +z, standing on y = 0 and about one unit tall.
The builder moves its primitives to their place in the scene and packs them for the renderer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pocket.world.renderer import layout

L = layout()
Vec = Sequence[float]
Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
RGB = tuple[float, float, float]  # sRGB, 0 to 1

BLACK = (0.07, 0.07, 0.08)
WHITE = (0.93, 0.93, 0.92)
DARK = (0.16, 0.15, 0.16)


def rotation(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Matrix:
    """Return Ry(y) Rx(x) Rz(z), angles in degrees: first roll, then pitch, then yaw."""
    cx, sx = math.cos(math.radians(x)), math.sin(math.radians(x))
    cy, sy = math.cos(math.radians(y)), math.sin(math.radians(y))
    cz, sz = math.cos(math.radians(z)), math.sin(math.radians(z))
    return (
        (cy * cz + sy * sx * sz, -cy * sz + sy * sx * cz, sy * cx),
        (cx * sz, cx * cz, -sx),
        (-sy * cz + cy * sx * sz, sy * sz + cy * sx * cz, cy * cx),
    )


def towards(d: Vec) -> Matrix:
    """Return a rotation that takes the y axis to the direction d."""
    n = math.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2) or 1.0
    y = (d[0] / n, d[1] / n, d[2] / n)
    a = (1.0, 0.0, 0.0) if abs(y[0]) < 0.9 else (0.0, 0.0, 1.0)
    x = _cross(a, y)
    m = math.sqrt(x[0] ** 2 + x[1] ** 2 + x[2] ** 2)
    x = (x[0] / m, x[1] / m, x[2] / m)
    return transpose((x, y, _cross(x, y)))


def _cross(a: Vec, b: Vec) -> tuple[float, float, float]:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def transpose(a: Matrix) -> Matrix:
    return tuple(zip(*a, strict=True))  # type: ignore[return-value]


def apply(a: Matrix, v: Vec) -> tuple[float, float, float]:
    return (
        a[0][0] * v[0] + a[0][1] * v[1] + a[0][2] * v[2],
        a[1][0] * v[0] + a[1][1] * v[1] + a[1][2] * v[2],
        a[2][0] * v[0] + a[2][1] * v[1] + a[2][2] * v[2],
    )


def _scaled(v: Vec, scale: float) -> tuple[float, float, float]:
    return tuple(scale * x for x in v)  # type: ignore[return-value]


IDENTITY = rotation()


@dataclass
class Anchors:
    """Where other things meet an object, in its own frame."""

    top: Vec  # something may stand here
    radius: float = 0.4  # of the footprint
    seat: Vec | None = None  # where a rider sits
    lap: Vec | None = None  # where a book is held
    wide: float = 0.15  # half width under a rider


@dataclass
class Look:
    """How the main parts of an object look: a color (None for natural ones), pattern and finish."""

    color: RGB | None = None
    pattern: int = 0  # position in vocabulary.PATTERNS


@dataclass
class Builder:
    """The primitives and materials of one scene."""

    rng: np.random.Generator
    prims: list[list[float]] = field(default_factory=list)
    materials: list[list[float]] = field(default_factory=list)
    # The frames of the first and the second object; half sizes of the primitives, for the camera.
    frames: list[list[float]] = field(default_factory=lambda: [[], []])
    extents: list[tuple[float, float, float]] = field(default_factory=list)
    look: Look = field(default_factory=Look)
    thing: int = 0  # the object that is being built, 0 or 1
    _group: int = 0

    # -- placing -------------------------------------------------------------------------------

    def place(self, look: Look, thing: int = 0) -> None:
        """Start an object at the origin: the first (0) or the second (1)."""
        self.look, self.thing = look, thing
        self.frames[thing] = [0.0, 0.0, 0.0, *(value for row in IDENTITY for value in row), 1.0]
        self.group()

    def move(self, thing: int, origin: Vec, turn: Matrix = IDENTITY, scale: float = 1.0) -> None:
        """Turn, scale and move an object that was built at the origin."""
        rows = [i for i, prim in enumerate(self.prims) if prim[L["P_THING"]] == thing]
        self.frames[thing] = [
            *origin,
            *(turn[j][i] for i in range(3) for j in range(3)),
            1.0 / scale,
        ]
        for i, prim in zip(rows, self._moved(rows, origin, turn, scale), strict=True):
            self.prims[i] = prim
            self.extents[i] = _scaled(self.extents[i], scale)

    def copy(
        self, rows: Sequence[int], origin: Vec, turn: Matrix = IDENTITY, scale: float = 1.0
    ) -> None:
        """Add a copy of primitives that were built at the origin, turned, scaled and moved."""
        self.group()
        first, groups = self._group, [int(self.prims[i][L["P_GROUP"]]) for i in rows]
        moved = self._moved(rows, origin, turn, scale)
        for i, prim, group in zip(rows, moved, groups, strict=True):
            prim[L["P_GROUP"]] = first + group - groups[0]
            self.prims.append(prim)
            self.extents.append(_scaled(self.extents[i], scale))
        self._group = first + groups[-1] - groups[0]

    def _moved(
        self, rows: Sequence[int], origin: Vec, turn: Matrix, scale: float
    ) -> list[list[float]]:
        p, r = np.array([self.prims[i] for i in rows]), np.array(turn)
        bound, position, rotation_, size = (
            L[f"P_{name}"] for name in ("BOUND", "POSITION", "ROTATION", "SIZE")
        )
        for at in (bound, position):
            p[:, at : at + 3] = scale * p[:, at : at + 3] @ r.T + np.array(origin)
        p[:, bound + 3] *= scale
        p[:, L["P_BLEND"]] *= np.where(p[:, L["P_BLEND"]] < 0, 1.0, scale)
        axes = p[:, rotation_ : rotation_ + 9].reshape(-1, 3, 3) @ r.T  # rows: the primitive's axes
        p[:, rotation_ : rotation_ + 9] = axes.reshape(-1, 9)
        counted = np.isin(p[:, L["P_TYPE"]], (L["FRILL"], L["RIBBED"]))
        p[:, size : size + 3] *= scale
        p[:, size + 3] *= np.where(counted, 1.0, scale)  # a count, not a length
        return p.tolist()

    def group(self) -> None:
        """Start a group: primitives blend only with those of their own group."""
        self._group += 1

    # -- materials -----------------------------------------------------------------------------

    def vary(self, low: float, high: float) -> float:
        return low + (high - low) * self.rng.random()

    def material(
        self,
        color: RGB,
        *,
        shine: float = 0.12,
        gloss: float = 24.0,
        metal: float = 0.0,
        glow: float = 0.0,
        pattern: int = 0,
        second: RGB | None = None,
        scale: float = 3.0,
    ) -> int:
        """Add a material and return its number.

        color: in sRGB. gloss: exponent of the highlight.
        """
        linear = [max(c, 0.0) ** 2.2 for c in (*color, *(second or color))]
        self.materials.append([*linear, float(pattern), scale, shine, gloss, metal, glow])
        return len(self.materials) - 1

    def jitter(self, color: RGB, amount: float = 0.03) -> RGB:
        """Return a color near the given one: a little lighter or darker, and off in hue."""
        light = 1.0 + (self.rng.random() - 0.5) * 3.0 * amount
        offsets = (self.rng.random(3) - 0.5) * 2.0 * amount
        return tuple(
            min(max(c * light + o, 0.0), 0.97) for c, o in zip(color, offsets, strict=True)
        )

    def main(self, natural: RGB, tint: float = 0.0, **extra: float) -> int:
        """Add the material that takes the color and pattern of the labels; return its number.

        tint: mixed toward white (positive) or black (negative), for lighter and darker parts.
        """
        color = self.look.color or self.jitter(natural)
        if tint:
            end = 0.97 if tint > 0 else 0.03
            color = tuple(c + (end - c) * abs(tint) for c in color)  # type: ignore[assignment]
        pattern = self.look.pattern
        if pattern == 4:  # wooden: the color of wood, whatever the natural one is
            wood = (0.72, 0.50, 0.29)
            return self.material(wood, second=(0.47, 0.29, 0.14), pattern=4, shine=0.10)
        if pattern == 5:
            return self.material(color, shine=0.9, gloss=50.0, metal=0.75)
        if sum(color) / 3 < 0.25:  # dark
            second = (0.55, 0.55, 0.57)
        elif sum(color) / 3 > 0.75:
            second = (0.42, 0.42, 0.46)
        else:
            second = tuple(c + (0.97 - c) * 0.82 for c in color)  # type: ignore[assignment]
        scale = {0: 1.0, 1: 3.6, 2: 5.0, 3: 5.5}[pattern]
        return self.material(color, pattern=pattern, second=second, scale=scale, **extra)

    # -- primitives ----------------------------------------------------------------------------

    def add(
        self,
        kind: str,
        center: Vec,
        sizes: Vec,
        material: int,
        turn: Matrix,
        blend: float,
        bound: float,
        extent: Vec | None = None,
        bound_center: Vec = (0.0, 0.0, 0.0),
        carve: bool = False,
    ) -> None:
        self.extents.append(_scaled((extent or sizes)[:3], 0.0 if carve else 1.0))
        shift = apply(turn, bound_center) if any(bound_center) else bound_center
        # A smooth union adds at most a quarter of its width, once for each side of the joint.
        radius = bound + 0.5 * blend + 0.004
        self.prims.append([  # the order of P_... in src/layout.h
            *(x + dx for x, dx in zip(center, shift, strict=True)), radius,
            L[kind], -1.0 if carve else blend, self._group, material,
            *center, *(row[axis] for axis in range(3) for row in turn),
            *sizes, *[0.0] * (4 - len(sizes)), float(self.thing), 0.0, 0.0, 0.0,
        ])  # fmt: skip

    def ellipsoid(
        self,
        center: Vec,
        radii: Vec,
        m: int,
        rot: Vec = (0, 0, 0),
        k: float = 0.0,
        carve: bool = False,
    ) -> None:
        self.add("ELLIPSOID", center, radii, m, rotation(*rot), k, max(radii), carve=carve)

    def lens(self, center: Vec, radii: Vec, m: int, rot: Vec = (0, 0, 0), k: float = 0.0) -> None:
        """Add a thin ellipsoid: a wing, a petal, an ear."""
        self.add("LENS", center, radii, m, rotation(*rot), k, max(radii))

    def disc(self, center: Vec, normal: Vec, radius: float, thick: float, m: int) -> None:
        """Add a flat ellipsoid that faces along `normal`: a spot on a surface."""
        self.add("LENS", center, (radius, thick, radius), m, towards(normal), 0.0, radius)

    def ball(self, center: Vec, radius: float, m: int, k: float = 0.0) -> None:
        self.add("ELLIPSOID", center, (radius,) * 3, m, IDENTITY, k, radius)

    def box(
        self,
        center: Vec,
        half: Vec,
        m: int,
        r: float = 0.02,
        rot: Vec = (0, 0, 0),
        k: float = 0.0,
        carve: bool = False,
    ) -> None:
        r = min(r, *half)
        self.add("BOX", center, (*half, r), m, rotation(*rot), k, math.hypot(*half), carve=carve)

    def cone(
        self,
        center: Vec,
        below: float,
        above: float,
        half: float,
        m: int,
        r: float = 0.01,
        rot: Vec = (0, 0, 0),
        k: float = 0.0,
        carve: bool = False,
    ) -> None:
        r = min(r, half * 0.99, max(min(below, above), 0.004) * 0.99)
        turn = rotation(*rot)
        wide = max(below, above)
        sizes, extent = (below, above, half, r), (wide, half, wide)
        self.add("CONE", center, sizes, m, turn, k, math.hypot(wide, half), extent, carve=carve)

    def cylinder(
        self,
        center: Vec,
        radius: float,
        half: float,
        m: int,
        r: float = 0.01,
        rot: Vec = (0, 0, 0),
        k: float = 0.0,
        carve: bool = False,
    ) -> None:
        self.cone(center, radius, radius, half, m, r, rot, k, carve)

    def capsule(self, a: Vec, b: Vec, ra: float, rb: float, m: int, k: float = 0.0) -> None:
        d = (b[0] - a[0], b[1] - a[1], b[2] - a[2])
        h = math.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2)
        if h <= abs(ra - rb) * 1.02:  # one end swallows the other
            return self.ball(a if ra > rb else b, max(ra, rb), m, k)
        r = max(ra, rb)
        extent, middle = (r, h / 2 + r, r), (0.0, h / 2, 0.0)
        self.add("CAPSULE", a, (ra, rb, h), m, towards(d), k, h / 2 + r, extent, middle)

    def limb(self, points: Sequence[Vec], radii: Vec, m: int, k: float = 0.03) -> None:
        """Add capsules from point to point: a tail, an arm with an elbow, a trunk."""
        for i in range(len(points) - 1):
            self.capsule(points[i], points[i + 1], radii[i], radii[i + 1], m, k)

    def torus(
        self, center: Vec, big: float, small: float, m: int, rot: Vec = (0, 0, 0), k: float = 0.0
    ) -> None:
        r = big + small
        self.add("TORUS", center, (big, small), m, rotation(*rot), k, r, (r, small, r))

    def dome(self, center: Vec, radii: Vec, m: int) -> None:
        """Add the upper half of an ellipsoid."""
        self.add("DOME", center, (*radii, 0.0), m, IDENTITY, 0.0, max(radii))

    def prism(
        self,
        center: Vec,
        width: float,
        height: float,
        half: float,
        m: int,
        rot: Vec = (0, 0, 0),
        r: float = 0.01,
        carve: bool = False,
    ) -> None:
        sizes, extent = (width, height, half, r), (width, height, half)
        bound = math.hypot(width, height, half) + r
        self.add("PRISM", center, sizes, m, rotation(*rot), 0.0, bound, extent, carve=carve)

    def frill(
        self,
        center: Vec,
        radius: float,
        thick: float,
        amplitude: float,
        waves: int,
        m: int,
        rot: Vec = (0, 0, 0),
    ) -> None:
        sizes, extent = (radius, thick, amplitude, waves), (radius, amplitude, radius)
        turn = rotation(*rot)
        self.add("FRILL", center, sizes, m, turn, 0.0, radius * 1.1 + amplitude, extent)

    def ribbed(self, center: Vec, radii: Vec, ribs: int, m: int, k: float = 0.0) -> None:
        self.add("RIBBED", center, (*radii, ribs), m, IDENTITY, k, max(radii) * 1.05)

    def eyes(self, y: float, z: float, offset: float, radius: float) -> None:
        """Add a pair of shining eyes at x = -offset and offset."""
        m = self.material(BLACK, shine=0.8, gloss=60.0)
        for side in (-1, 1):
            self.ball((side * offset, y, z), radius, m)

    # -- packing -------------------------------------------------------------------------------

    def bounds(self) -> tuple[tuple[float, float, float], float, float]:
        """Return the middle of everything, and the radii of spheres around most and all of it."""
        a = np.array([p[:4] for p in self.prims if p[L["P_BLEND"]] >= 0])
        r = a[:, 3:] * 0.9
        low, high = (a[:, :3] - r).min(0), (a[:, :3] + r).max(0)
        center = (low + high) / 2
        far = np.linalg.norm(a[:, :3] - center, axis=1)
        return tuple(center), float((far + r[:, 0]).max()), float((far + a[:, 3]).max())

    def reaches(
        self, axes: Sequence[Vec] | np.ndarray, thing: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the middle of each solid primitive along unit vectors, and its reach from there.

        thing: of this object alone. Two arrays (primitives, axes).
        """
        p, a = np.array(self.prims), np.asarray(axes)
        solid = p[:, L["P_BLEND"]] >= 0
        if thing is not None:
            solid &= p[:, L["P_THING"]] == thing
        p, extents = p[solid], np.array(self.extents)[solid]
        # Rows of a turn are the primitive's axes.
        turns = p[:, L["P_ROTATION"] : L["P_ROTATION"] + 9].reshape(-1, 3, 3)
        return p[:, :3] @ a.T, np.linalg.norm((turns @ a.T) * extents[:, :, None], axis=1)

    def spans(self, axes: Sequence[Vec] | np.ndarray, thing: int | None = None) -> np.ndarray:
        """Return how far the objects, or one, reach along unit vectors: (axes, 2), low and high."""
        middle, reach = self.reaches(axes, thing)
        return np.stack([(middle - reach).min(0), (middle + reach).max(0)], axis=1)

    def pack(self, params: np.ndarray) -> None:
        """Write frames, materials and primitives into a scene's block of floats."""
        if len(self.prims) > L["MAX_PRIMS"] or len(self.materials) > L["MAX_MATERIALS"]:
            raise ValueError(
                f"a scene holds {L['MAX_PRIMS']} primitives and {L['MAX_MATERIALS']} materials, "
                f"got {len(self.prims)} and {len(self.materials)}"
            )
        params[L["H_PRIMS"]] = len(self.prims)
        for offset, frame in zip((L["H_FRAME"], L["H_FRAME2"]), self.frames, strict=True):
            params[offset : offset + len(frame)] = frame
        m = np.asarray(self.materials, np.float32).ravel()
        params[L["MATERIALS"] : L["MATERIALS"] + m.size] = m
        p = np.asarray(self.prims, np.float32).ravel()
        params[L["PRIMS"] : L["PRIMS"] + p.size] = p
