"""From labels to a scene: objects placed, ground, light and camera chosen, all packed for the renderer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pocket.world import vocabulary as v
from pocket.world.builder import (
    IDENTITY,
    RGB,
    Builder,
    Look,
    Matrix,
    Vec,
    apply,
    rotation,
    transpose,
)
from pocket.world.labels import WITH_BACK, sample_labels
from pocket.world.landscapes import sample_landscape
from pocket.world.objects import RECIPES, SIZES, open_book
from pocket.world.renderer import layout

L = layout()
SCENE_FLOATS = L["SCENE_FLOATS"]

COLOR_RGB: dict[str, RGB] = {
    "red": (0.80, 0.10, 0.12), "orange": (0.96, 0.50, 0.08), "yellow": (0.97, 0.84, 0.13),
    "green": (0.17, 0.58, 0.20), "turquoise": (0.18, 0.78, 0.74), "blue": (0.13, 0.30, 0.80),
    "purple": (0.50, 0.18, 0.68), "pink": (0.97, 0.52, 0.73), "brown": (0.42, 0.25, 0.13),
    "black": (0.09, 0.09, 0.10), "white": (0.95, 0.95, 0.95), "gray": (0.50, 0.51, 0.53),
}  # fmt: skip
# Things keep a little of their size beside and upon each other, though all are built about one unit tall.
SIZE_RANK = ("small", "medium", "large")
SIZE_STEP = 1.08
SIZE_FACTOR = (0.70, 1.40)  # of one of a pair that is said to be small or big
HELD_FACTOR = (0.82, 1.22)
WITH_LEGS = ("astronaut", "robot", "bear")  # that hang down at both sides of what they ride
LEG_SPREAD = 0.25  # half the width between the legs of a rider, as built
LEAST_SHARE = 0.33
# The share of the frame that an object fills, by its size: small, big, not said.
FILL = ((0.28, 0.36), (0.87, 0.93), (0.52, 0.78))
FILL_SEVERAL = (0.72, 0.90)


@dataclass
class Scene:
    """One scene: labels, a 0-d array of dtype `vocabulary.LABELS`, and params, (SCENE_FLOATS,) float32."""

    labels: np.ndarray
    params: np.ndarray


def _linear(color: RGB) -> np.ndarray:
    return np.asarray(color, np.float32) ** 2.2


def _look(b: Builder, labels: np.ndarray, which: str) -> Look:
    """How the object ("") or the other one ("2") looks."""
    color, pattern = int(labels[f"color{which}"]), int(labels[f"pattern{which}"])
    return Look(
        b.jitter(COLOR_RGB[v.COLORS[color]], 0.025) if color >= 0 else None, max(pattern, 0)
    )


def _pose(b: Builder, labels: np.ndarray) -> str:
    """The pose of the object as recipes name it; drawn where the labels leave it open."""
    if labels["pose"] >= 0:
        return ("stand", "sit")[labels["pose"]]
    return "stand" if b.rng.random() < 0.6 else "sit"


def _ratio(b: Builder, labels: np.ndarray, usual: float) -> float:
    """The size of the object over that of the other one, both as built: the usual one of a relation, more or less by
    the kinds of both and by the sizes that are said."""
    kinds = [SIZE_RANK.index(SIZES[v.OBJECTS[labels[field]]]) for field in ("object", "object2")]
    ratio = usual * SIZE_STEP ** (kinds[0] - kinds[1]) * b.vary(0.93, 1.07)
    for field, sign in (("size", 1), ("size2", -1)):
        if labels[field] >= 0:
            ratio *= SIZE_FACTOR[labels[field]] ** sign
    return ratio


def _reach(
    b: Builder, thing: int, axis: Vec, turn: Matrix = IDENTITY, scale: float = 1.0
) -> tuple[float, float]:
    """How far an object, built at the origin, would reach along an axis if it were turned and scaled."""
    low, high = b.spans([apply(transpose(turn), axis)], thing)[0]
    return scale * float(low), scale * float(high)


def _build(b: Builder, labels: np.ndarray) -> None:
    """Places the object, and the second one by their relation."""
    relation = v.RELATIONS[labels["relation"]]
    if relation == "none":
        _build_group(b, labels)
    elif relation == "next to":
        _build_beside(b, labels)
    elif relation in ("reading", "holding"):
        _build_in_front(b, labels, relation)
    else:
        _build_upon(b, labels, relation)


def _build_group(b: Builder, labels: np.ndarray) -> None:
    """One object, or copies of it that neither touch nor hide each other: in a row, or seen from high up in a
    triangle."""
    b.place(_look(b, labels, ""))
    RECIPES[v.OBJECTS[labels["object"]]](b, _pose(b, labels))
    rows, count = range(len(b.prims)), int(labels["count"]) + 1
    if count < 2:
        return
    right, near = _horizontal(labels)
    left_end, right_end = _reach(b, 0, right)
    side = 1 if b.rng.random() < 0.5 else -1
    triangle = count == 3 and labels["elevation"] > 55
    gap = b.vary(0.06, 0.16)
    copies: list[tuple[float, float, Matrix, float]] = []
    for k in range(1, count):
        turn, scale = rotation(0, b.vary(-14, 14), 0), b.vary(0.94, 1.06)
        low, high = _reach(b, 0, right, turn, scale)
        behind = b.vary(-0.15, 0.15)
        if triangle and k == 2:  # in the middle, behind or in front of the two
            aside = copies[0][0] / 2
            ends, own = _reach(b, 0, near), _reach(b, 0, near, turn, scale)
            behind = ends[0] - own[1] - gap if b.rng.random() < 0.5 else ends[1] - own[0] + gap
        else:
            aside = right_end - low + gap if side > 0 else left_end - high - gap
        copies.append((aside, behind, turn, scale))
        side = -side
    for aside, behind, turn, scale in copies:
        origin = [aside * r + behind * n for r, n in zip(right, near, strict=True)]
        b.copy(rows, origin, turn, scale)


def _build_beside(b: Builder, labels: np.ndarray) -> None:
    """Two objects side by side, the first one left as the camera sees them."""
    right, _ = _horizontal(labels)
    ratio = min(max(_ratio(b, labels, 1.0), 0.42), 2.4)
    scales, turns = (
        (min(1.0, ratio), min(1.0, 1 / ratio)),
        (IDENTITY, rotation(0, b.vary(-20, 20), 0)),
    )
    for thing, (field, which) in enumerate((("object", ""), ("object2", "2"))):
        b.place(_look(b, labels, which), thing)
        RECIPES[v.OBJECTS[labels[field]]](b, "stand" if thing else _pose(b, labels))
    ends = [_reach(b, thing, right, turns[thing], scales[thing]) for thing in (0, 1)]
    gap = ends[0][1] - ends[1][0] + b.vary(0.05, 0.16)  # between the origins
    for thing, aside in ((0, -gap / 2), (1, gap / 2)):
        b.move(thing, [aside * r for r in right], turns[thing], scales[thing])


def _build_in_front(b: Builder, labels: np.ndarray, relation: str) -> None:
    """The object with a book to read before its eyes, or with another one in its hands or before its chest."""
    b.place(_look(b, labels, ""))
    anchors = RECIPES[v.OBJECTS[labels["object"]]](b, _pose(b, labels))
    own = b.spans(np.eye(3), 0)
    x, y, z = anchors.lap or (0.0, 0.45, float(own[2, 1]) + 0.05)
    size = 1.0
    for field, sign in (("size", -1), ("size2", 1)):
        if labels[field] >= 0:
            size *= HELD_FACTOR[labels[field]] ** sign
    b.place(_look(b, labels, "2"), 1)
    if relation == "reading":
        open_book(b, b.vary(0.25, 0.31))
        b.move(1, (x, y, z), rotation(-b.vary(18, 38), 0, b.vary(-4, 4)), size)
        return
    RECIPES[v.OBJECTS[labels["object2"]]](b, "base")
    spans = b.spans(np.eye(3), 1)
    scale = (
        size * b.vary(0.42, 0.50) * float(np.ptp(own, axis=1).max() / np.ptp(spans, axis=1).max())
    )
    wide, high = (scale * float(np.ptp(spans[axis])) for axis in (0, 1))
    # in the hand, or at the side of the mouth, that the camera sees better
    side = math.copysign(1.0, math.sin(math.radians(float(labels["azimuth"]))))
    x += side * (0.7 * float(np.abs(own[0]).max()) + 0.2 * wide)
    y = max(y - 0.45 * high, 0.0)
    front = _front(b, (x - 0.45 * wide, x + 0.45 * wide), (y + 0.1 * high, y + 0.9 * high), z - 0.1)
    origin = (x, y - scale * float(spans[1, 0]), front - 0.03 - scale * float(spans[2, 0]))
    b.move(1, origin, rotation(0, b.vary(-10, 40) * side, 0), scale)


def _front(
    b: Builder, across: tuple[float, float], up: tuple[float, float], otherwise: float
) -> float:
    """How far the first object reaches to its front within a window of x and y; `otherwise` where nothing is."""
    middle, reach = b.reaches(np.eye(3), 0)
    low, high = middle - reach, middle + reach
    inside = (
        (low[:, 0] < across[1])
        & (high[:, 0] > across[0])
        & (low[:, 1] < up[1])
        & (high[:, 1] > up[0])
    )
    return float(high[inside, 2].max()) if inside.any() else otherwise


def _build_upon(b: Builder, labels: np.ndarray, relation: str) -> None:
    """The object on top of the other one, or on a saddle on its back."""
    name, other = v.OBJECTS[labels["object"]], v.OBJECTS[labels["object2"]]
    b.place(_look(b, labels, "2"), 1)
    below = RECIPES[other](b, "stand" if other in v.ANIMATE else "base")
    riding = relation == "riding"
    ratio = _ratio(b, labels, 0.80 if riding else 0.74)
    pose = _pose(b, labels)
    x, y, z = (riding and below.seat) or below.top
    if riding:
        turn, pose = rotation(0, b.vary(-4, 4), 0), "sit"
        astride = (
            below.wide / LEG_SPREAD
        )  # the ratio at which the legs just hang down at both sides
        if name in WITH_LEGS and astride < 1.3 * ratio:
            pose, ratio = "ride", max(ratio, astride)
    else:
        turn = rotation(0, 0 if other in WITH_BACK else b.vary(-30, 30), 0)
    b.place(_look(b, labels, ""))
    RECIPES[name](b, pose)
    drop = 0.02
    if not riding:
        radius = _support_radius(b, (x, y, z))
        feet, hollow = _underside(b, radius / ratio)
        if name in v.ANIMATE:  # no foot in the air
            ratio = min(ratio, max(1.2 * radius / feet, 0.5))
        else:  # what has wheels or legs around a narrow support comes down to it
            drop += ratio * hollow
    ratio = _visible_ratio(b, ratio, (x, y, z), float(labels["elevation"]))
    b.move(0, (x, y - drop, z), turn, ratio)
    if riding:
        _saddle(b, (x, y, z), 0.95 * ratio)


def _support_radius(b: Builder, point: Vec) -> float:
    """About how wide the top of the second object is around a point on it."""
    middle, reach = b.reaches(np.eye(3), 1)
    over = (np.abs(middle - point) <= reach + 0.04)[:, (0, 2)].all(1) & (
        (middle + reach)[:, 1] > point[1] - 0.1
    )
    return float(reach[over][:, (0, 2)].min(1).max(initial=0.08))


def _underside(b: Builder, radius: float) -> tuple[float, float]:
    """How far out the first object touches the ground, and how high above the ground it is within a radius."""
    middle, reach = b.reaches(np.eye(3), 0)
    low, outward = (middle - reach)[:, 1], np.hypot(middle[:, 0], middle[:, 2])
    near = (np.abs(middle) <= reach + radius)[:, (0, 2)].all(1)
    feet = outward[low < 0.05].max(initial=0.1)
    return float(feet), float(np.clip(low[near].min(initial=0.2), 0.0, 0.2))


def _saddle(b: Builder, seat: Vec, size: float) -> None:
    """A saddle under a rider: what tells riding from sitting on something, and what belongs to neither color."""
    leather, metal = (
        b.material(b.jitter((0.34, 0.19, 0.10)), shine=0.4),
        b.material((0.75, 0.66, 0.42), shine=0.7),
    )
    x, y, z = seat
    pad, back = [
        (w * size, h * size, d * size) for w, h, d in ((0.26, 0.055, 0.30), (0.19, 0.11, 0.05))
    ]
    front, horn = (x, y + 0.02 * size, z + 0.26 * size), (x, y + 0.13 * size, z + 0.30 * size)
    b.thing = 1
    b.group()
    b.ellipsoid((x, y - 0.015, z), pad, leather, k=0.03)
    b.ellipsoid((x, y + 0.05 * size, z - 0.26 * size), back, leather, (-20, 0, 0), 0.03)
    b.capsule(front, horn, 0.035 * size, 0.03 * size, leather)
    b.group()
    b.ball((x, y + 0.15 * size, z + 0.31 * size), 0.045 * size, metal)


def _visible_ratio(b: Builder, ratio: float, support: Vec, elevation: float) -> float:
    """The ratio nearest to the one given with which both objects, the first on the support, are clearly seen: each
    reaches along its longest axis at least a share of the longest axis of both, and what is below is not hidden."""
    sizes = [np.ptp(b.spans(np.eye(3), thing), axis=1) for thing in (0, 1)]
    upper, lower = float(sizes[0].max()), float(sizes[1].max())
    flat_upper, flat_lower = (float(max(size[0], size[2])) for size in sizes)

    def longest(ratio: float) -> float:
        return max(lower, ratio * upper, support[1] + ratio * float(sizes[0][1]))

    # from high above what is on top hides what is below
    most = flat_lower / flat_upper * float(np.interp(elevation, (15, 50), (1.1, 0.8)))
    ratio = min(ratio, max(most, 0.3))
    for _ in range(20):
        if ratio * upper < LEAST_SHARE * longest(ratio):
            ratio *= 1.05
        elif lower < LEAST_SHARE * longest(ratio):
            ratio /= 1.05
    return ratio


def _horizontal(
    labels: np.ndarray,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """The horizontal unit vectors to the camera's right and towards it."""
    a = math.radians(float(labels["azimuth"]))
    return (math.cos(a), 0.0, -math.sin(a)), (math.sin(a), 0.0, math.cos(a))


def _ground(params: np.ndarray, b: Builder, ground: str) -> None:
    """Colors and size of the ground's pattern."""
    light = b.vary(0.92, 1.06)
    a, c, scale = {
        "white": ((0.97, 0.97, 0.97), (0.97, 0.97, 0.97), 1.0),
        "plain": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1.0),
        "grass": ((0.22, 0.42, 0.12), (0.42, 0.60, 0.20), 1.0),
        "snow": ((0.86, 0.89, 0.95), (0.95, 0.96, 0.98), 1.0),
        "sand": ((0.80, 0.67, 0.45), (0.90, 0.80, 0.58), b.vary(2.2, 3.6)),
        "wooden table": ((0.62, 0.41, 0.23), (0.44, 0.27, 0.14), b.vary(0.45, 0.7)),
        "checkered floor": ((0.10, 0.10, 0.11), (0.90, 0.90, 0.88), b.vary(0.4, 0.65)),
        "mars": ((0.72, 0.33, 0.17), (0.56, 0.24, 0.13), 1.0),
        "moon": ((0.48, 0.48, 0.49), (0.62, 0.62, 0.62), 1.0),
    }[ground]
    if ground == "plain":  # any soft color but white
        hue, strength, value = b.rng.random(), b.vary(0.0, 0.45), b.vary(0.45, 0.9)
        wheel = [0.5 + 0.5 * math.cos(2 * math.pi * (hue - k / 3)) for k in range(3)]
        a = c = tuple(value * (1 - strength + strength * w) for w in wheel)  # type: ignore[assignment]
        light = 1.0
    elif ground != "white":
        a, c = b.jitter(a, 0.02), b.jitter(c, 0.02)
    else:
        light = 1.0
    params[L["H_GROUND_A"] : L["H_GROUND_A"] + 3] = _linear(a) * light
    params[L["H_GROUND_B"] : L["H_GROUND_B"] + 3] = _linear(c) * light
    params[L["H_GROUND_SCALE"]] = scale


def _light(
    params: np.ndarray, b: Builder, ground: str, lighting: str, azimuth: float, style: str
) -> None:
    """The light, the sky and what they add to every surface."""
    indoor = ground in ("wooden table", "checkered floor")
    turn = math.radians(azimuth + b.vary(25, 95) * (1 if b.rng.random() < 0.5 else -1))
    height = {"day": b.vary(38, 66), "sunset": b.vary(14, 26), "night": b.vary(38, 60)}.get(
        lighting
    )
    if height is None:  # dawn
        height = b.vary(12, 22)
    up, flat = math.sin(math.radians(height)), math.cos(math.radians(height))
    params[L["H_LIGHT"] : L["H_LIGHT"] + 3] = (flat * math.sin(turn), up, flat * math.cos(turn))
    # light, its power, ambient light, its power, zenith, horizon
    colors: dict[str, tuple[RGB, float, RGB, float, RGB, RGB]] = {
        "day": (
            (1.0, 0.97, 0.90),
            0.95,
            (0.80, 0.87, 1.0),
            0.42,
            (0.30, 0.54, 0.87),
            (0.78, 0.88, 0.96),
        ),
        "sunset": (
            (1.0, 0.60, 0.30),
            1.10,
            (0.72, 0.62, 0.78),
            0.34,
            (0.36, 0.34, 0.60),
            (0.99, 0.66, 0.38),
        ),
        "night": (
            (0.70, 0.80, 1.0),
            0.34,
            (0.50, 0.62, 0.95),
            0.17,
            (0.03, 0.05, 0.14),
            (0.11, 0.16, 0.34),
        ),
        "dawn": (
            (1.0, 0.76, 0.74),
            0.88,
            (0.80, 0.76, 0.94),
            0.40,
            (0.46, 0.58, 0.86),
            (1.0, 0.78, 0.80),
        ),
    }
    light, power, ambient, ambient_power, zenith, horizon = colors[lighting]
    if indoor:
        wall = b.jitter(
            ((0.86, 0.82, 0.74), (0.70, 0.76, 0.80), (0.80, 0.72, 0.66))[int(b.rng.integers(3))],
            0.04,
        )
        dim = {"day": 1.0, "sunset": 0.85, "night": 0.28, "dawn": 0.9}[lighting]
        tint = {
            "day": (1, 1, 1),
            "sunset": (1.08, 0.80, 0.60),
            "night": (0.55, 0.68, 1.0),
            "dawn": (1.04, 0.88, 0.93),
        }[lighting]
        horizon = tuple(min(w * t * dim, 1.0) for w, t in zip(wall, tint, strict=True))  # type: ignore[assignment]
        zenith = tuple(0.85 * w for w in horizon)  # type: ignore[assignment]
    elif ground == "mars":
        zenith, horizon = {
            "day": ((0.72, 0.52, 0.38), (0.90, 0.72, 0.54)),
            "sunset": ((0.42, 0.28, 0.26), (0.86, 0.55, 0.40)),
            "night": ((0.06, 0.03, 0.05), (0.20, 0.11, 0.10)),
            "dawn": ((0.52, 0.42, 0.44), (0.88, 0.68, 0.66)),
        }[lighting]
        ambient = (0.95, 0.78, 0.64) if lighting != "night" else ambient
    elif ground == "moon":
        zenith, horizon = (0.01, 0.01, 0.02), (0.03, 0.03, 0.05)
        ambient, ambient_power = (0.75, 0.80, 0.90), 0.16 if lighting != "night" else 0.09
    elif ground in ("white", "plain"):
        zenith = horizon = (0.96, 0.96, 0.97)
        ambient, ambient_power = (0.97, 0.98, 1.0), 0.52
    warm = b.vary(0.9, 1.1)
    params[L["H_LIGHT_COLOR"] : L["H_LIGHT_COLOR"] + 3] = np.asarray(light) ** 1.6 * power * warm
    params[L["H_AMBIENT"] : L["H_AMBIENT"] + 3] = np.asarray(ambient) ** 1.6 * ambient_power
    ground_mean = (
        params[L["H_GROUND_A"] : L["H_GROUND_A"] + 3]
        + params[L["H_GROUND_B"] : L["H_GROUND_B"] + 3]
    ) / 2
    params[L["H_BOUNCE"] : L["H_BOUNCE"] + 3] = (
        ambient_power * (0.25 + 0.75 * ground_mean) * np.asarray(light) ** 0.8
    )
    params[L["H_ZENITH"] : L["H_ZENITH"] + 3] = _linear(zenith)
    params[L["H_HORIZON"] : L["H_HORIZON"] + 3] = _linear(horizon)
    outdoor = not indoor and ground not in ("white", "plain")
    params[L["H_STARS"]] = 0.7 if outdoor and (lighting == "night" or ground == "moon") else 0.0
    params[L["H_HAZE"]] = 0.0 if ground == "moon" else 0.07 if indoor else 0.06
    params[L["H_SOFTNESS"]] = b.vary(9, 18)
    params[L["H_SUN_GLOW"]] = (
        {"sunset": 0.35, "dawn": 0.25}.get(lighting, 0.1) if outdoor and ground != "moon" else 0.0
    )
    params[L["H_GLOSS"]] = 1.7 if style == "3d render" else 0.8
    if style == "3d render":  # a studio: more even light
        params[L["H_AMBIENT"] : L["H_AMBIENT"] + 3] *= 1.25


def _camera(params: np.ndarray, b: Builder, labels: np.ndarray) -> None:
    """A camera that sees all objects, at the azimuth and elevation of the labels."""
    center, radius, farthest = b.bounds()
    params[L["H_CENTER"] : L["H_CENTER"] + 5] = (*center, radius, farthest)
    half = math.radians(b.vary(14, 26))
    a, e = math.radians(float(labels["azimuth"])), math.radians(float(labels["elevation"]))
    back = np.array((math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)))
    right = np.array((math.cos(a), 0.0, -math.sin(a)))
    up = np.array((-math.sin(a) * math.sin(e), math.cos(e), -math.cos(a) * math.sin(e)))
    axes = np.stack([right, up, back])
    several = labels["relation"] > 0 or labels["count"] > 0
    fill = b.vary(*(FILL_SEVERAL if several else FILL[labels["size"]]))
    middle, reach = b.reaches(axes)
    target = axes @ center  # in the camera's axes
    distance = 10.0 * radius
    for _ in range(
        3
    ):  # what is near looks larger, so the middle of the image depends on the distance
        depth = distance + target[2] - middle[:, 2:] - 0.5 * reach[:, 2:]
        low = ((middle - reach - target)[:, :2] / depth).min(0)
        high = ((middle + reach - target)[:, :2] / depth).max(0)
        target[:2] += distance * (low + high) / 2
        size = float((high - low).max()) / 2
        distance = max(distance * size / (math.tan(half) * fill), 1.3 * radius)
    slack = distance * math.tan(half) * (1 - fill) * 0.45
    target[:2] += (b.vary(-slack, slack), b.vary(-slack, slack))
    eye = target @ axes + distance * back
    if params[L["H_PLANE"]] > 0:
        eye[1] = max(eye[1], 0.05)
    for name, value in (("H_EYE", eye), ("H_RIGHT", right), ("H_UP", up), ("H_FORWARD", -back)):
        params[L[name] : L[name] + 3] = value
    params[L["H_TAN"]] = math.tan(half)


def sample_scene(seed: int, split: str = "train", kind: str | None = None) -> Scene:
    """Draws a scene. The same seed, split and kind give the same scene on every machine.

    Args:
        seed: any whole number >= 0.
        split: "train" (never a held-out composition), "heldout" (always one) or "all".
        kind: "object", "landscape" or None for a mixture with a quarter of landscapes.

    Example:
        >>> scene = sample_scene(7)
        >>> image = render(scene.params).color[0]  # (256, 256, 3) uint8
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    labels = sample_labels(rng, seed, split, kind)
    return Scene(labels, build_scene(labels, rng))


def build_scene(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The renderer's parameters, (SCENE_FLOATS,) float32, of one of the scenes that have these labels."""
    params = np.zeros(SCENE_FLOATS, np.float32)
    if labels["landscape"] >= 0:
        params[: L["HEAD"]] = sample_landscape(
            rng, int(labels["landscape"]), int(labels["time"]), int(labels["weather"])
        )
        params[L["H_KIND"]] = 1
    else:
        b = Builder(rng)
        azimuth, elevation = float(labels["azimuth"]), float(labels["elevation"])
        _build(b, labels)
        b.pack(params)
        ground = v.GROUNDS[labels["ground"]]
        params[L["H_GROUND"]] = labels["ground"]
        # half of the plain backgrounds show an object that floats: no ground, no shadow, seen from below too
        params[L["H_PLANE"]] = (
            0.0 if ground == "plain" and (elevation < 3 or rng.random() < 0.5) else 1.0
        )
        _ground(params, b, ground)
        _light(
            params, b, ground, v.LIGHTINGS[labels["lighting"]], azimuth, v.STYLES[labels["style"]]
        )
        _camera(params, b, labels)
    params[L["H_STYLE"]] = labels["style"]
    params[L["H_SEED"]] = rng.integers(1 << 23)
    return params
