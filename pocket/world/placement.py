"""Builds the objects of a scene and places them: one, several, or two in a relation.

Every object is built at the origin, about one unit tall, and then moved: what is upon another
thing touches it, and both of a pair are large enough to be seen.
"""

import math

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
from pocket.world.labels import WITH_BACK
from pocket.world.objects import RECIPES, SIZES, open_book

COLOR_RGB: dict[str, RGB] = {
    "red": (0.80, 0.10, 0.12),
    "orange": (0.96, 0.50, 0.08),
    "yellow": (0.97, 0.84, 0.13),
    "green": (0.17, 0.58, 0.20),
    "turquoise": (0.18, 0.78, 0.74),
    "blue": (0.13, 0.30, 0.80),
    "purple": (0.50, 0.18, 0.68),
    "pink": (0.97, 0.52, 0.73),
    "brown": (0.42, 0.25, 0.13),
    "black": (0.09, 0.09, 0.10),
    "white": (0.95, 0.95, 0.95),
    "gray": (0.50, 0.51, 0.53),
}
# In a pair, objects keep a little of their natural sizes, though all are built one unit tall.
SIZE_RANK = ("small", "medium", "large")
SIZE_STEP = 1.08
SIZE_FACTOR = (0.70, 1.40)  # of an object in a pair that is small or big by its label
HELD_FACTOR = (0.82, 1.22)
WITH_LEGS = ("astronaut", "robot", "bear")  # that hang down at both sides of what they ride
LEG_SPREAD = 0.25  # half the distance between the legs of a rider, as built
MIN_SHARE = 0.33  # of the longest axis of a pair that each object has to reach along its own


def place_objects(b: Builder, labels: np.ndarray) -> None:
    """Build the object, its copies, and the second object where their relation puts it."""
    relation = v.RELATIONS[labels["relation"]]
    if relation == "none":
        _place_copies(b, labels)
    elif relation == "next to":
        _place_side_by_side(b, labels)
    elif relation in ("reading", "holding"):
        _place_held(b, labels, relation)
    else:
        _place_on_top(b, labels, relation)


def horizontal_axes(azimuth: float) -> tuple[Vec, Vec]:
    """Return the horizontal unit vectors to the right of a camera and toward it."""
    a = math.radians(azimuth)
    return (math.cos(a), 0.0, -math.sin(a)), (math.sin(a), 0.0, math.cos(a))


# --- Looks, poses and sizes


def _look(b: Builder, labels: np.ndarray, which: str) -> Look:
    """Return the look of the object ("") or of the second one ("2")."""
    color = int(labels[f"color{which}"])
    pattern = max(int(labels[f"pattern{which}"]), 0)
    if color < 0:
        return Look(None, pattern)
    return Look(b.jitter(COLOR_RGB[v.COLORS[color]], 0.025), pattern)


def _pose(b: Builder, labels: np.ndarray) -> str:
    """Return the pose of the object as recipes name it; a random one if the labels have none."""
    if labels["pose"] >= 0:
        return ("stand", "sit")[labels["pose"]]
    return "stand" if b.rng.random() < 0.6 else "sit"


def _size_ratio(b: Builder, labels: np.ndarray, usual: float) -> float:
    """Return the size of the object over that of the second one, both as built.

    usual: the ratio of a relation. The kinds of both objects and the sizes in the labels change it.
    """
    kinds = [SIZE_RANK.index(SIZES[v.OBJECTS[labels[field]]]) for field in ("object", "object2")]
    ratio = usual * SIZE_STEP ** (kinds[0] - kinds[1]) * b.vary(0.93, 1.07)
    for field, sign in (("size", 1), ("size2", -1)):
        if labels[field] >= 0:
            ratio *= SIZE_FACTOR[labels[field]] ** sign
    return ratio


def _span_along(
    b: Builder, thing: int, axis: Vec, turn: Matrix = IDENTITY, scale: float = 1.0
) -> tuple[float, float]:
    """Return how far an object at the origin would reach along an axis if turned and scaled."""
    low, high = b.spans([apply(transpose(turn), axis)], thing)[0]
    return scale * float(low), scale * float(high)


# --- One object, or copies of it


def _place_copies(b: Builder, labels: np.ndarray) -> None:
    """Place up to three of an object in a row, or in a triangle if the camera is high above.

    They neither touch nor hide each other.
    """
    b.place(_look(b, labels, ""))
    RECIPES[v.OBJECTS[labels["object"]]](b, _pose(b, labels))
    rows = range(len(b.prims))
    count = int(labels["count"]) + 1
    if count < 2:
        return
    right, near = horizontal_axes(float(labels["azimuth"]))
    left_end, right_end = _span_along(b, 0, right)
    side = 1 if b.rng.random() < 0.5 else -1
    triangle = count == 3 and labels["elevation"] > 55
    gap = b.vary(0.06, 0.16)
    copies: list[tuple[float, float, Matrix, float]] = []
    for k in range(1, count):
        turn = rotation(0, b.vary(-14, 14), 0)
        scale = b.vary(0.94, 1.06)
        low, high = _span_along(b, 0, right, turn, scale)
        behind = b.vary(-0.15, 0.15)
        if triangle and k == 2:  # between the two, behind or in front of them
            aside = copies[0][0] / 2
            near_ends = _span_along(b, 0, near)
            copy_ends = _span_along(b, 0, near, turn, scale)
            if b.rng.random() < 0.5:
                behind = near_ends[0] - copy_ends[1] - gap
            else:
                behind = near_ends[1] - copy_ends[0] + gap
        elif side > 0:
            aside = right_end - low + gap
        else:
            aside = left_end - high - gap
        copies.append((aside, behind, turn, scale))
        side = -side
    for aside, behind, turn, scale in copies:
        origin = [aside * r + behind * n for r, n in zip(right, near, strict=True)]
        b.copy(rows, origin, turn, scale)


# --- Next to each other


def _place_side_by_side(b: Builder, labels: np.ndarray) -> None:
    """Place two objects side by side, the first one at the camera's left."""
    right, _ = horizontal_axes(float(labels["azimuth"]))
    ratio = min(max(_size_ratio(b, labels, 1.0), 0.42), 2.4)
    scales = (min(1.0, ratio), min(1.0, 1 / ratio))
    turns = (IDENTITY, rotation(0, b.vary(-20, 20), 0))
    b.place(_look(b, labels, ""), 0)
    RECIPES[v.OBJECTS[labels["object"]]](b, _pose(b, labels))
    b.place(_look(b, labels, "2"), 1)
    RECIPES[v.OBJECTS[labels["object2"]]](b, "stand")
    ends = [_span_along(b, thing, right, turns[thing], scales[thing]) for thing in (0, 1)]
    distance = ends[0][1] - ends[1][0] + b.vary(0.05, 0.16)  # between the origins
    for thing, aside in ((0, -distance / 2), (1, distance / 2)):
        b.move(thing, [aside * r for r in right], turns[thing], scales[thing])


# --- Reading and holding


def _place_held(b: Builder, labels: np.ndarray, relation: str) -> None:
    """Place the second object before the eyes of the first, in its hands or before its chest."""
    b.place(_look(b, labels, ""))
    anchors = RECIPES[v.OBJECTS[labels["object"]]](b, _pose(b, labels))
    lap = anchors.lap or (0.0, 0.45, float(b.spans(np.eye(3), 0)[2, 1]) + 0.05)
    factor = 1.0
    for field, sign in (("size", -1), ("size2", 1)):
        if labels[field] >= 0:
            factor *= HELD_FACTOR[labels[field]] ** sign
    b.place(_look(b, labels, "2"), 1)
    if relation == "reading":
        open_book(b, b.vary(0.25, 0.31))
        b.move(1, lap, rotation(-b.vary(18, 38), 0, b.vary(-4, 4)), factor)
    else:
        RECIPES[v.OBJECTS[labels["object2"]]](b, "base")
        _move_into_hand(b, lap, factor, float(labels["azimuth"]))


def _move_into_hand(b: Builder, lap: Vec, factor: float, azimuth: float) -> None:
    """Move the second object to the hand, or the side of the mouth, that the camera sees better."""
    holder = b.spans(np.eye(3), 0)
    spans = b.spans(np.eye(3), 1)
    sizes = np.ptp(holder, axis=1).max() / np.ptp(spans, axis=1).max()
    scale = factor * b.vary(0.42, 0.50) * float(sizes)
    width = scale * float(np.ptp(spans[0]))
    height = scale * float(np.ptp(spans[1]))
    side = math.copysign(1.0, math.sin(math.radians(azimuth)))
    x = lap[0] + side * (0.7 * float(np.abs(holder[0]).max()) + 0.2 * width)
    y = max(lap[1] - 0.45 * height, 0.0)
    x_window = (x - 0.45 * width, x + 0.45 * width)
    y_window = (y + 0.1 * height, y + 0.9 * height)
    front = _front(b, x_window, y_window, lap[2] - 0.1)
    origin = (x, y - scale * float(spans[1, 0]), front - 0.03 - scale * float(spans[2, 0]))
    b.move(1, origin, rotation(0, b.vary(-10, 40) * side, 0), scale)


def _front(
    b: Builder, x_window: tuple[float, float], y_window: tuple[float, float], default: float
) -> float:
    """Return how far the first object reaches to its front within a window of x and y.

    default: returned where nothing is.
    """
    middle, reach = b.reaches(np.eye(3), 0)
    low = middle - reach
    high = middle + reach
    inside_x = (low[:, 0] < x_window[1]) & (high[:, 0] > x_window[0])
    inside_y = (low[:, 1] < y_window[1]) & (high[:, 1] > y_window[0])
    inside = inside_x & inside_y
    return float(high[inside, 2].max()) if inside.any() else default


# --- On top, and riding


def _place_on_top(b: Builder, labels: np.ndarray, relation: str) -> None:
    """Place the object on top of the second one, or on a saddle on its back."""
    name = v.OBJECTS[labels["object"]]
    other = v.OBJECTS[labels["object2"]]
    riding = relation == "riding"
    b.place(_look(b, labels, "2"), 1)
    below = RECIPES[other](b, "stand" if other in v.ANIMATE else "base")
    ratio = _size_ratio(b, labels, 0.80 if riding else 0.74)
    pose = _pose(b, labels)
    point = below.seat if riding and below.seat else below.top
    if riding:
        turn = rotation(0, b.vary(-4, 4), 0)
        pose = "sit"
        astride = below.wide / LEG_SPREAD  # the ratio at which the legs just hang at both sides
        if name in WITH_LEGS and astride < 1.3 * ratio:
            pose = "ride"
            ratio = max(ratio, astride)
    else:
        turn = rotation(0, 0 if other in WITH_BACK else b.vary(-30, 30), 0)
    b.place(_look(b, labels, ""))
    RECIPES[name](b, pose)
    drop = 0.02
    if not riding:
        radius = _support_radius(b, point)
        feet, hollow = _underside(b, radius / ratio)
        if name in v.ANIMATE:  # no foot in the air
            ratio = min(ratio, max(1.2 * radius / feet, 0.5))
        else:  # what has wheels or legs around a narrow support comes down to it
            drop += ratio * hollow
    ratio = _visible_ratio(b, ratio, point, float(labels["elevation"]))
    b.move(0, (point[0], point[1] - drop, point[2]), turn, ratio)
    if riding:
        _add_saddle(b, point, 0.95 * ratio)


def _support_radius(b: Builder, point: Vec) -> float:
    """Return about how wide the top of the second object is around a point on it."""
    middle, reach = b.reaches(np.eye(3), 1)
    around = (np.abs(middle - point) <= reach + 0.04)[:, (0, 2)].all(1)
    high = (middle + reach)[:, 1] > point[1] - 0.1
    return float(reach[around & high][:, (0, 2)].min(1).max(initial=0.08))


def _underside(b: Builder, radius: float) -> tuple[float, float]:
    """Return how far out the first object touches the ground, and its height within a radius."""
    middle, reach = b.reaches(np.eye(3), 0)
    low = (middle - reach)[:, 1]
    outward = np.hypot(middle[:, 0], middle[:, 2])
    near = (np.abs(middle) <= reach + radius)[:, (0, 2)].all(1)
    feet = outward[low < 0.05].max(initial=0.1)
    return float(feet), float(np.clip(low[near].min(initial=0.2), 0.0, 0.2))


def _add_saddle(b: Builder, seat: Vec, size: float) -> None:
    """Add a saddle under a rider: it tells riding from sitting, and has neither object's color."""
    leather = b.material(b.jitter((0.34, 0.19, 0.10)), shine=0.4)
    metal = b.material((0.75, 0.66, 0.42), shine=0.7)
    x, y, z = seat
    pad = (0.26 * size, 0.055 * size, 0.30 * size)
    back = (0.19 * size, 0.11 * size, 0.05 * size)
    front = (x, y + 0.02 * size, z + 0.26 * size)
    horn = (x, y + 0.13 * size, z + 0.30 * size)
    b.thing = 1
    b.group()
    b.ellipsoid((x, y - 0.015, z), pad, leather, k=0.03)
    b.ellipsoid((x, y + 0.05 * size, z - 0.26 * size), back, leather, (-20, 0, 0), 0.03)
    b.capsule(front, horn, 0.035 * size, 0.03 * size, leather)
    b.group()
    b.ball((x, y + 0.15 * size, z + 0.31 * size), 0.045 * size, metal)


def _visible_ratio(b: Builder, ratio: float, support: Vec, elevation: float) -> float:
    """Return the size ratio nearest to the given one at which both objects are clearly seen.

    Each reaches along its longest axis at least MIN_SHARE of the longest axis of both, and from
    high above the object on top does not hide the one below.
    """
    upper_size, lower_size = (np.ptp(b.spans(np.eye(3), thing), axis=1) for thing in (0, 1))
    upper = float(upper_size.max())
    lower = float(lower_size.max())
    upper_width = float(max(upper_size[0], upper_size[2]))
    lower_width = float(max(lower_size[0], lower_size[2]))

    def longest(ratio: float) -> float:
        return max(lower, ratio * upper, support[1] + ratio * float(upper_size[1]))

    limit = lower_width / upper_width * float(np.interp(elevation, (15, 50), (1.1, 0.8)))
    ratio = min(ratio, max(limit, 0.3))
    for _ in range(20):
        if ratio * upper < MIN_SHARE * longest(ratio):
            ratio *= 1.05
        elif lower < MIN_SHARE * longest(ratio):
            ratio /= 1.05
    return ratio
