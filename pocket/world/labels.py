"""Labels of scenes: samples what a scene holds, and keeps held-out compositions out of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from pocket.world import vocabulary as v

Triple = tuple[str, str, str]

# The first edition of the world had these objects and only the pairs of `familiar_triples`. Its
# held-out compositions were sampled from them and stay held out.
FIRST_OBJECTS = v.OBJECTS[:28]
FIRST_COLORS = v.COLORS[:12]
FIRST_GROUNDS = v.GROUNDS[:9]
READERS = ("squirrel", "bunny", "astronaut", "snowman", "duck", "cat", "robot", "bear", "penguin")
RIDERS = READERS
MOUNTS = ("horse", "elephant", "turtle", "car", "airplane")
BASES = ("pancakes", "book", "cake", "chair", "pumpkin", "hamburger", "mushroom")
TOPS = (
    *READERS,
    *"turtle horse elephant car rocket house cactus teapot mug".split(),
    *"cake pumpkin hamburger mushroom".split(),
)
# The prompts of README and of the first issues: they have to be learned, not composed.
NEVER_HELD_OUT = {
    ("astronaut", "riding", "horse"),
    ("squirrel", "reading", "book"),
    ("bunny", "on", "pancakes"),
    ("astronaut", "ground", "mars"),
    ("horse", "ground", "mars"),
}
NEVER_HELD_OUT_LATER = NEVER_HELD_OUT | {
    ("astronaut", "riding", "duck"),
    ("squirrel", "riding", "cactus"),
}
HELD_OUT_SHARE = 0.05

P_LANDSCAPE = 0.25
P_RELATION = (0.49, 0.16, 0.07, 0.13, 0.09, 0.06)  # in the order of RELATIONS
P_FAMILIAR = 0.5  # of the pairs: from the familiar ones alone
P_COUNT = (0.70, 0.16, 0.14)  # of objects without a relation
P_SIZE = 0.2  # of single objects, and of pairs
P_GROUND = (0.15, 0.15, 0.10, 0.10, 0.10, 0.10, 0.10, 0.10, 0.10)
P_LIGHTING = (0.67, 0.13, 0.13, 0.07)
P_STYLE = (0.45, 0.25, 0.13, 0.17)
P_TIME = (0.4, 0.22, 0.2, 0.18)
P_WEATHER = {"clear": 0.42, "cloudy": 0.19, "foggy": 0.15, "rain": 0.12, "snow": 0.12}
# Weathers that are not sampled for a landscape.
UNLIKELY_WEATHER = {
    **dict.fromkeys(v.NO_WEATHER, v.WEATHERS[1:]),
    **dict.fromkeys(("mars", "snowy hills"), ("rain", "snow")),
    **dict.fromkeys(("volcano", "desert", "beach", "ocean", "canyon"), ("snow",)),
}
# What comes out worst is sampled more often: these landscapes so many times, the city mostly by
# night, people from overhead.
LANDSCAPE_WEIGHTS = tuple(
    1.3 if name in ("snowy hills", "city skyline") else 1.0 for name in v.LANDSCAPES
)
P_TIME_OF = {"city skyline": (0.3, 0.2, 0.35, 0.15), "space": (1.0, 0.0, 0.0, 0.0)}
LIT = ("city skyline", "village", "park", "volcano")  # shows by night, whatever the weather
NIGHT_WEATHER = {"foggy": 0.4, "rain": 0.15, "snow": 0.4}  # so many times as often in the dark
P_OVERHEAD = 0.14
P_OVERHEAD_FIGURE = 0.22
P_OVERHEAD_UPON = 0.06  # what is below is hardly seen
FIGURES = frozenset(("astronaut", "robot", "snowman"))
WITH_BACK = ("chair", "sofa", "bed")  # hides from behind what is on it
STUDIO = {v.GROUNDS.index("white"), v.GROUNDS.index("plain")}
# The sizes of a pair's objects: neither contradicts the other.
PAIR_SIZES = ((0, -1), (1, -1), (-1, 0), (-1, 1), (0, 1), (1, 0))


@cache
def familiar_triples() -> dict[str, tuple[Triple, ...]]:
    """Return the compositions (object, relation, object) that people try first, by relation."""
    return {
        "on": tuple((a, "on", b) for a in TOPS for b in BASES if a != b),
        "reading": tuple((a, "reading", "book") for a in READERS),
        "riding": tuple((a, "riding", b) for a in RIDERS for b in MOUNTS),
        "next to": tuple((a, "next to", b) for a in FIRST_OBJECTS for b in FIRST_OBJECTS if a != b),
    }


@cache
def triples() -> dict[str, tuple[Triple, ...]]:
    """Return all compositions (object, relation, object) that the world can show, by relation."""
    animate = [name for name in v.OBJECTS if name in v.ANIMATE]
    pairs = [(a, b) for a in v.OBJECTS for b in v.OBJECTS if a != b]
    return {
        "on": tuple((a, "on", b) for a, b in pairs),
        "reading": tuple((a, "reading", "book") for a in animate),
        "riding": tuple((a, "riding", b) for a, b in pairs if a in v.ANIMATE),
        "next to": tuple((a, "next to", b) for a, b in pairs),
        "holding": tuple((a, "holding", b) for a, b in pairs if a in v.ANIMATE and b in v.HOLDABLE),
    }


def _families(
    objects: tuple[str, ...], colors: tuple[str, ...], grounds: tuple[str, ...]
) -> list[Sequence[Triple]]:
    return [
        [(o, "color", c) for o in objects for c in colors],
        [(o, "ground", g) for o in objects for g in grounds],
    ]


def _hold_out(families: list[Sequence[Triple]], seed: int, exceptions: set[Triple]) -> set[Triple]:
    """Sample the held-out share of each family."""
    rng = np.random.Generator(np.random.PCG64(seed))
    held: set[Triple] = set()
    for family in families:
        free = [c for c in family if c not in exceptions]
        count = max(1, round(HELD_OUT_SHARE * len(family)))
        held.update(free[i] for i in rng.choice(len(free), count, replace=False))
    return held


@cache
def heldout_compositions() -> frozenset[Triple]:
    """Return the fixed 5 % of all compositions that training never sees.

    They are pairs object-color and object-ground and triples object-relation-object, sampled with
    fixed seeds, a family at a time: first those of the world's first edition, then the later ones.
    """
    first = _families(FIRST_OBJECTS, FIRST_COLORS, FIRST_GROUNDS)
    first += familiar_triples().values()
    known = {composition for family in first for composition in family}
    every = _families(v.OBJECTS, v.COLORS, v.GROUNDS)
    every += triples().values()
    new = [[c for c in family if c not in known] for family in every]
    later = _hold_out([family for family in new if family], 2026, NEVER_HELD_OUT_LATER)
    return frozenset(_hold_out(first, 479, NEVER_HELD_OUT) | later)


def compositions(labels: np.void | np.ndarray) -> list[Triple]:
    """Return the compositions that a scene shows.

    They are (object, "color", color), (object, "ground", ground) and (object, relation, object).
    """
    if labels["object"] < 0:
        return []
    shown: list[Triple] = []
    for thing, color in (("object", "color"), ("object2", "color2")):
        if labels[thing] >= 0:
            name = v.OBJECTS[labels[thing]]
            shown.append((name, "ground", v.GROUNDS[labels["ground"]]))
            if labels[color] >= 0:
                shown.append((name, "color", v.COLORS[labels[color]]))
    if labels["object2"] >= 0:
        relation = v.RELATIONS[labels["relation"]]
        shown.append((v.OBJECTS[labels["object"]], relation, v.OBJECTS[labels["object2"]]))
    return shown


def is_heldout(labels: np.void | np.ndarray) -> bool:
    """Return whether a scene shows a composition that training never sees."""
    return any(c in heldout_compositions() for c in compositions(labels))


def upgrade(records: np.ndarray) -> np.ndarray:
    """Return records of an earlier edition's fields, any shape, as records of `vocabulary.LABELS`.

    An object of an earlier edition is one, of no stated size, and its pose is open. Raises
    ValueError if a field is unknown.
    """
    names = records.dtype.names or ()
    unknown = set(names) - set(v.LABELS.names or ())
    if unknown:
        raise ValueError(
            f"labels have no field {', '.join(sorted(unknown))}: the records are not of this world"
        )
    upgraded = np.full(records.shape, v.empty_labels(), v.LABELS)
    if "count" not in names:
        upgraded["count"] = np.where(records["object"] >= 0, 0, -1)
    if "pattern2" not in names:
        upgraded["pattern2"] = np.where(records["object2"] >= 0, 0, -1)
    for name in names:
        upgraded[name] = records[name]
    return upgraded


def labels_from(named: Mapping[str, str], rng: np.random.Generator, seed: int = 0) -> np.ndarray:
    """Return a record, 0-d of `vocabulary.LABELS`, with these classes by field, "view" among them.

    What captions nearly always say is absent if it is not named: colors, patterns, sizes, more than
    one object, night, sketches. The rest (ground, pose, view, photo or 3d render) is sampled.
    """
    landscape = "landscape" in named
    sampled = _sample_landscape(rng) if landscape else _sample_object(rng)
    kept = () if landscape else ("ground", "azimuth", "elevation")
    labels = v.empty_labels()
    usual = {"count": "one", "pattern": "plain", "relation": "none", "lighting": "day"}
    if landscape:
        usual = {"time": "day", "weather": "clear"}
    if "object2" in named:
        usual["pattern2"] = "plain"
    if "object" in named and named.get("relation") != "riding":
        labels["pose"] = _sample_pose(rng, named["object"])
    photo = rng.random() < P_STYLE[0] / (P_STYLE[0] + P_STYLE[1])
    usual["style"] = "photo" if photo else "3d render"
    for field in kept:
        labels[field] = sampled[field]
    for field, value in (usual | dict(named)).items():
        if field != "view":
            labels[field] = v.CLASSES[field].index(value)
    if "view" in named:
        while v.view_word(float(labels["azimuth"]), float(labels["elevation"])) != named["view"]:
            sampled = _sample_object(rng)
            labels["azimuth"], labels["elevation"] = sampled["azimuth"], sampled["elevation"]
    labels["seed"] = seed
    labels["heldout"] = is_heldout(labels)
    return labels


def _pick(rng: np.random.Generator, probabilities: tuple[float, ...]) -> int:
    """Return an index with the given probabilities (much faster than Generator.choice)."""
    x = rng.random() * sum(probabilities)
    for i, p in enumerate(probabilities):
        x -= p
        if x < 0:
            return i
    return len(probabilities) - 1


@cache
def _weathers(landscape: str, dark: bool) -> tuple[float, ...]:
    """Return the probabilities of the weathers of a landscape.

    dark: by night, where nothing shines.
    """
    factors = NIGHT_WEATHER if dark else {}
    factors = factors | dict.fromkeys(UNLIKELY_WEATHER.get(landscape, ()), 0.0)
    return tuple(P_WEATHER[name] * factors.get(name, 1.0) for name in v.WEATHERS)


def _sample_landscape(rng: np.random.Generator) -> dict[str, float]:
    landscape = _pick(rng, LANDSCAPE_WEIGHTS)
    name = v.LANDSCAPES[landscape]
    time = _pick(rng, P_TIME_OF.get(name, P_TIME))
    dark = v.TIMES[time] == "night" and name not in LIT
    weather = _pick(rng, _weathers(name, dark))
    return {"landscape": landscape, "time": time, "weather": weather, "style": _pick(rng, P_STYLE)}


def _sample_surface(rng: np.random.Generator, p_pattern: float, p_color: float) -> tuple[int, int]:
    """Return a pattern and a color; wood has no other color."""
    pattern = int(rng.integers(1, len(v.PATTERNS))) if rng.random() < p_pattern else 0
    if v.PATTERNS[pattern] == "wooden" or rng.random() >= p_color:
        return pattern, -1
    return pattern, int(rng.integers(len(v.COLORS)))


def _sample_pose(rng: np.random.Generator, name: str) -> int:
    """Return one of the poses of an object; -1 if it has none."""
    poses = v.POSES_OF.get(name, v.POSES) if name in v.ANIMATE else ()
    return v.POSES.index(poses[int(rng.integers(len(poses)))]) if poses else -1


def _sample_things(rng: np.random.Generator) -> dict[str, float]:
    """Sample one or two objects and their relation."""
    relation = v.RELATIONS[_pick(rng, P_RELATION)]
    sampled: dict[str, float] = {"relation": v.RELATIONS.index(relation), "count": 0}
    if relation == "none":
        name = v.OBJECTS[int(rng.integers(len(v.OBJECTS)))]
        sampled["count"] = _pick(rng, P_COUNT)
        sampled["pattern"], sampled["color"] = _sample_surface(rng, 0.25, 0.5)
        if sampled["count"] == 0 and rng.random() < P_SIZE:
            sampled["size"] = int(rng.integers(len(v.SIZES)))
    else:
        familiar = familiar_triples().get(relation)
        choices = familiar if familiar and rng.random() < P_FAMILIAR else triples()[relation]
        name, _, other = choices[int(rng.integers(len(choices)))]
        sampled["object2"] = v.OBJECTS.index(other)
        sampled["pattern"], sampled["color"] = _sample_surface(rng, 0.25, 0.45)
        sampled["pattern2"], sampled["color2"] = _sample_surface(rng, 0.2, 0.5)
        if rng.random() < P_SIZE:
            sampled["size"], sampled["size2"] = PAIR_SIZES[int(rng.integers(len(PAIR_SIZES)))]
    sampled["object"] = v.OBJECTS.index(name)
    if relation != "riding":
        sampled["pose"] = _sample_pose(rng, name)
    return sampled


def _sample_azimuth(rng: np.random.Generator, things: Mapping[str, float]) -> float:
    """Return any azimuth, but seldom one from which an object hides the other."""
    relation = v.RELATIONS[int(things["relation"])]
    azimuth = rng.uniform(-180, 180)
    on_a_seat = relation in ("on", "riding") and v.OBJECTS[int(things["object2"])] in WITH_BACK
    hidden = (on_a_seat or relation in ("reading", "holding")) and abs(azimuth) > 125
    if hidden and rng.random() < 0.6:
        return rng.uniform(-125, 125)
    return azimuth


def _sample_object(rng: np.random.Generator) -> dict[str, float]:
    things = _sample_things(rng)
    ground = _pick(rng, P_GROUND)
    upon = v.RELATIONS[int(things["relation"])] in ("on", "riding")
    overhead = P_OVERHEAD_FIGURE if v.OBJECTS[int(things["object"])] in FIGURES else P_OVERHEAD
    if rng.random() < (P_OVERHEAD_UPON if upon else overhead):
        elevation = rng.uniform(60, 72 if upon else 85)
    else:
        low = -8 if v.GROUNDS[ground] == "plain" else 2
        elevation = low + (56 - low) * rng.beta(1.3, 2.6)
    return things | {
        "ground": ground,
        "lighting": 0 if ground in STUDIO else _pick(rng, P_LIGHTING),
        "style": _pick(rng, P_STYLE),
        "azimuth": _sample_azimuth(rng, things),
        "elevation": elevation,
    }


def _sample(rng: np.random.Generator, kind: str | None) -> dict[str, float]:
    is_landscape = kind == "landscape" or (kind is None and rng.random() < P_LANDSCAPE)
    return _sample_landscape(rng) if is_landscape else _sample_object(rng)


def sample_labels(
    rng: np.random.Generator, seed: int, split: str = "train", kind: str | None = None
) -> np.ndarray:
    """Sample the labels of a scene.

    Args:
        rng: the random generator.
        seed: stored in the record.
        split: "train" (never a held-out composition), "heldout" (always one) or "all".
        kind: "object", "landscape" or None for a mixture with a quarter of landscapes.
    Returns:
        A 0-d array of dtype `vocabulary.LABELS`.
    Raises:
        ValueError: split or kind is not one of these, or "heldout" comes with landscapes.
    """
    if split not in ("train", "heldout", "all"):
        raise ValueError(f"split must be train, heldout or all, got {split!r}")
    if kind not in (None, "object", "landscape"):
        raise ValueError(f"kind must be object, landscape or None, got {kind!r}")
    if split == "heldout" and kind == "landscape":
        raise ValueError(
            "split heldout has objects only: kind must be object or None, got 'landscape'"
        )
    while True:
        labels = v.empty_labels()
        for name, value in _sample(rng, "object" if split == "heldout" else kind).items():
            labels[name] = value
        labels["seed"] = seed
        labels["heldout"] = is_heldout(labels)
        if split == "all" or labels["heldout"] == (split == "heldout"):
            return labels
