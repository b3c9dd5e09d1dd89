"""What a scene holds, before any geometry: draws the labels and keeps the held-out compositions apart."""

from __future__ import annotations

from functools import cache

import numpy as np

from pocket.world import vocabulary as v

READERS = ("squirrel", "bunny", "astronaut", "snowman", "duck", "cat", "robot", "bear", "penguin")
RIDERS = READERS
MOUNTS = ("horse", "elephant", "turtle", "car", "airplane")
BASES = ("pancakes", "book", "cake", "chair", "pumpkin", "hamburger", "mushroom")
TOPS = (*READERS, "turtle", "horse", "elephant", "car", "rocket", "house", "cactus", "teapot", "mug", "cake",
        "pumpkin", "hamburger", "mushroom")  # fmt: skip
# Asked for by name in the README: they have to be learnt, not composed.
NEVER_HELD_OUT = {
    ("astronaut", "riding", "horse"), ("squirrel", "reading", "book"), ("bunny", "on", "pancakes"),
    ("astronaut", "ground", "mars"), ("horse", "ground", "mars"),
}  # fmt: skip
HELD_OUT_SHARE = 0.05

P_LANDSCAPE = 0.25
P_RELATION = {"none": 0.56, "on": 0.15, "reading": 0.08, "riding": 0.10, "next to": 0.11}
P_GROUND = (0.15, 0.15, 0.10, 0.10, 0.10, 0.10, 0.10, 0.10, 0.10)
P_LIGHTING = (0.66, 0.13, 0.13, 0.08)
P_STYLE = (0.45, 0.25, 0.13, 0.17)
P_TIME = (0.4, 0.22, 0.2, 0.18)
P_WEATHER = (0.4, 0.18, 0.16, 0.13, 0.13)
STUDIO = {v.GROUNDS.index("white"), v.GROUNDS.index("plain")}


@cache
def triples() -> dict[str, tuple[tuple[str, str, str], ...]]:
    """All compositions (object, relation, object) that the world can show, by relation."""
    return {
        "on": tuple((a, "on", b) for a in TOPS for b in BASES if a != b),
        "reading": tuple((a, "reading", "book") for a in READERS),
        "riding": tuple((a, "riding", b) for a in RIDERS for b in MOUNTS),
        "next to": tuple((a, "next to", b) for a in v.OBJECTS for b in v.OBJECTS if a != b),
    }


@cache
def heldout_compositions() -> frozenset[tuple[str, str, str]]:
    """The fixed 5 % of the pairs object-color and object-ground and of the triples object-relation-object
    that training never sees. Drawn once, with a generator of a fixed seed, a family at a time."""
    rng = np.random.Generator(np.random.PCG64(479))
    families = [
        [(o, "color", c) for o in v.OBJECTS for c in v.COLORS],
        [(o, "ground", g) for o in v.OBJECTS for g in v.GROUNDS],
        *triples().values(),
    ]
    held: set[tuple[str, str, str]] = set()
    for family in families:
        free = [c for c in family if c not in NEVER_HELD_OUT]
        count = max(1, round(HELD_OUT_SHARE * len(family)))
        held.update(free[i] for i in rng.choice(len(free), count, replace=False))
    return frozenset(held)


def compositions(labels: np.void | np.ndarray) -> list[tuple[str, str, str]]:
    """The compositions that one scene shows: (object, "color", color), (object, "ground", ground) and
    (object, relation, object)."""
    if labels["object"] < 0:
        return []
    found: list[tuple[str, str, str]] = []
    for thing, color in (("object", "color"), ("object2", "color2")):
        if labels[thing] >= 0:
            name = v.OBJECTS[labels[thing]]
            found.append((name, "ground", v.GROUNDS[labels["ground"]]))
            if labels[color] >= 0:
                found.append((name, "color", v.COLORS[labels[color]]))
    if labels["object2"] >= 0:
        relation = v.RELATIONS[labels["relation"]]
        found.append((v.OBJECTS[labels["object"]], relation, v.OBJECTS[labels["object2"]]))
    return found


def is_heldout(labels: np.void | np.ndarray) -> bool:
    """Whether a scene shows a composition that training never sees."""
    return any(c in heldout_compositions() for c in compositions(labels))


def _pick(rng: np.random.Generator, probabilities: tuple[float, ...]) -> int:
    """An index with the given probabilities (much faster than Generator.choice)."""
    x = rng.random() * sum(probabilities)
    for i, p in enumerate(probabilities):
        x -= p
        if x < 0:
            return i
    return len(probabilities) - 1


def _draw(rng: np.random.Generator, kind: str | None) -> dict[str, float]:
    is_landscape = kind == "landscape" or (kind is None and rng.random() < P_LANDSCAPE)
    style = _pick(rng, P_STYLE)
    if is_landscape:
        landscape = int(rng.integers(len(v.LANDSCAPES)))
        time, weather = _pick(rng, P_TIME), _pick(rng, P_WEATHER)
        weather = 0 if v.LANDSCAPES[landscape] in v.NO_WEATHER else weather
        return {"landscape": landscape, "time": time, "weather": weather, "style": style}
    relation = v.RELATIONS[_pick(rng, tuple(P_RELATION.values()))]
    object2 = color2 = -1
    if relation == "none":
        name = v.OBJECTS[int(rng.integers(len(v.OBJECTS)))]
    else:
        choices = triples()[relation]
        name, _, other = choices[int(rng.integers(len(choices)))]
        object2 = v.OBJECTS.index(other)
        color2 = int(rng.integers(len(v.COLORS))) if rng.random() < 0.3 else -1
    pattern, color = 0, -1
    if rng.random() < 0.25:
        pattern = int(rng.integers(1, len(v.PATTERNS)))
    if v.PATTERNS[pattern] != "wooden" and rng.random() < (0.5 if relation == "none" else 0.4):
        color = int(rng.integers(len(v.COLORS)))  # wood has the color of wood
    ground = _pick(rng, P_GROUND)
    lighting = 0 if ground in STUDIO else _pick(rng, P_LIGHTING)
    if rng.random() < 0.13:
        elevation = rng.uniform(60, 85)
    else:
        low = -8 if v.GROUNDS[ground] == "plain" else 2
        elevation = low + (56 - low) * rng.beta(1.3, 2.6)
    return {
        "object": v.OBJECTS.index(name), "color": color, "pattern": pattern,
        "relation": v.RELATIONS.index(relation), "object2": object2, "color2": color2,
        "ground": ground, "lighting": lighting, "style": style,
        "azimuth": rng.uniform(-180, 180), "elevation": elevation,
    }  # fmt: skip


def sample_labels(rng: np.random.Generator, seed: int, split: str = "train", kind: str | None = None) -> np.ndarray:
    """Draws the labels of one scene.

    Args:
        rng: generator, advanced by the draw.
        seed: stored in the record.
        split: "train" (never a held-out composition), "heldout" (always one) or "all".
        kind: "object", "landscape" or None for a mixture with a quarter of landscapes.
    Returns:
        A 0-d array of dtype `vocabulary.LABELS`.
    Raises:
        ValueError: if split or kind is not one of these, or heldout landscapes are asked for.
    """
    if split not in ("train", "heldout", "all"):
        raise ValueError(f"split must be train, heldout or all, not {split!r}")
    if kind not in (None, "object", "landscape"):
        raise ValueError(f"kind must be object, landscape or None, not {kind!r}")
    if split == "heldout" and kind == "landscape":
        raise ValueError("held-out compositions are made of objects: there is no held-out landscape")
    labels = np.zeros((), v.LABELS)
    while True:
        for name in (v.LABELS.names or ())[2:-2]:
            labels[name] = -1
        labels["azimuth"] = labels["elevation"] = 0.0
        for name, value in _draw(rng, "object" if split == "heldout" else kind).items():
            labels[name] = value
        labels["seed"] = seed
        labels["heldout"] = is_heldout(labels)
        if split == "all" or labels["heldout"] == (split == "heldout"):
            return labels
