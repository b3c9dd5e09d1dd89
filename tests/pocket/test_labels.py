"""What scenes hold: all pairs, the held-out compositions, records of earlier editions."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocket.world import heldout_compositions, sample_labels
from pocket.world import vocabulary as v
from pocket.world.labels import (
    FIRST_COLORS,
    FIRST_GROUNDS,
    FIRST_OBJECTS,
    HELD_OUT_SHARE,
    NEVER_HELD_OUT,
    compositions,
    familiar_triples,
    labels_from,
    triples,
    upgrade,
)

# SHA-256 of the held-out compositions of the world's first edition, as sorted JSON.
FIRST_HELD_OUT = "ed5563ffc0a088ad4513ba5148a620d364d5ba37d6bd4aada5e19af5045d2b79"


def records(
    count: int, split: str = "all", kind: str | None = "object", seed: int = 0
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([sample_labels(rng, i, split, kind) for i in range(count)], v.LABELS)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**62), split=st.sampled_from(["train", "heldout", "all"]))
def test_splits_keep_held_out_compositions_apart(seed, split):
    labels = sample_labels(np.random.Generator(np.random.PCG64(seed)), seed, split)
    held = [c for c in compositions(labels) if c in heldout_compositions()]
    assert bool(held) == bool(labels["heldout"])
    if split != "all":
        assert bool(held) == (split == "heldout")


def first_compositions() -> set[tuple[str, str, str]]:
    first = {(o, "color", c) for o in FIRST_OBJECTS for c in FIRST_COLORS}
    first |= {(o, "ground", g) for o in FIRST_OBJECTS for g in FIRST_GROUNDS}
    return first | {triple for family in familiar_triples().values() for triple in family}


def test_what_was_held_out_stays_held_out_and_nothing_old_joins_it():
    first = sorted(heldout_compositions() & first_compositions())
    assert len(first) == 79
    assert hashlib.sha256(json.dumps(first).encode()).hexdigest() == FIRST_HELD_OUT


@pytest.mark.parametrize("kind", ["color", "ground", *v.RELATIONS[1:]])
def test_held_out_share_of_each_kind(kind):
    every = {
        "color": {(o, "color", c) for o in v.OBJECTS for c in v.COLORS},
        "ground": {(o, "ground", g) for o in v.OBJECTS for g in v.GROUNDS},
    } | {relation: set(family) for relation, family in triples().items()}
    held = {c for c in heldout_compositions() if c[1] == kind}
    assert held <= every[kind]
    assert len(held) == pytest.approx(HELD_OUT_SHARE * len(every[kind]), abs=2)


def test_exceptions_are_never_held_out():
    assert not heldout_compositions() & NEVER_HELD_OUT
    assert ("squirrel", "riding", "cactus") not in heldout_compositions()
    assert {c for family in familiar_triples().values() for c in family} <= {
        c for f in triples().values() for c in f
    }


@pytest.mark.parametrize(
    "triple",
    [
        ("astronaut", "riding", "duck"),
        ("squirrel", "riding", "cactus"),
        ("elephant", "on", "mug"),
        ("tree", "on", "butterfly"),
        ("cow", "reading", "book"),
        ("fish", "holding", "umbrella"),
        ("bed", "next to", "sword"),
    ],
)
def test_any_pair_is_possible(triple):
    assert triple in triples()[triple[1]]


@pytest.mark.parametrize(
    "triple",
    [
        ("cup", "riding", "duck"),
        ("cake", "riding", "car"),
        ("car", "reading", "book"),
        ("cat", "reading", "mug"),
        ("cat", "holding", "castle"),
        ("cat", "on", "cat"),
    ],
)
def test_only_the_animate_ride_read_and_hold(triple):
    assert triple not in triples()[triple[1]]


def test_familiar_and_new_pairs_both_are_frequent():
    samples = records(3000)
    pairs = [c for labels in samples for c in compositions(labels) if c[1] in v.RELATIONS]
    familiar = {triple for family in familiar_triples().values() for triple in family}
    share = np.mean([pair in familiar for pair in pairs])
    assert 0.4 < share < 0.65
    assert len(set(pairs) - familiar) > 400


def test_fields_go_together():
    for labels in records(3000):
        related = v.RELATIONS[labels["relation"]] != "none"
        animate = v.OBJECTS[labels["object"]] in v.ANIMATE
        assert (labels["object2"] >= 0) == related == (labels["pattern2"] >= 0)
        assert related or (labels["color2"] < 0 and labels["size2"] < 0)
        assert labels["count"] == 0 or (not related and labels["count"] > 0)
        assert labels["size"] < 0 or labels["size"] != labels["size2"]
        assert labels["pose"] < 0 or animate
        for which in ("", "2"):
            if labels[f"pattern{which}"] == v.PATTERNS.index("wooden"):
                assert labels[f"color{which}"] < 0


@pytest.mark.parametrize("name", ["cat", "duck", "bear", "fish", "mug"])
def test_poses_are_those_that_an_object_knows(name):
    poses = {
        int(labels_from({"object": name}, np.random.default_rng(seed))["pose"])
        for seed in range(30)
    }
    standing, sitting = map(v.POSES.index, ("standing", "sitting"))
    assert poses == {"cat": {sitting}, "duck": {standing}, "bear": {standing, sitting}}.get(
        name, {-1}
    )


def earlier(**values: float) -> np.ndarray:
    """A record with the fields of the world's first edition."""
    names = (
        "object",
        "color",
        "pattern",
        "relation",
        "object2",
        "color2",
        "ground",
        "lighting",
        "style",
        "landscape",
        "time",
        "weather",
    )
    fields = [("seed", np.int64), ("heldout", np.bool_), *((name, np.int8) for name in names)]
    record = np.full(1, -1, [*fields, ("azimuth", np.float32), ("elevation", np.float32)])
    for name, value in values.items():
        record[name] = value
    return record


def test_records_of_the_first_edition_are_read():
    single = upgrade(earlier(object=3, pattern=0, relation=0, ground=2, seed=7, azimuth=30))[0]
    assert single["seed"] == 7 and single["azimuth"] == 30 and single["object"] == 3
    assert (
        single["count"] == 0
        and single["pattern2"] == single["size"] == single["size2"] == single["pose"] == -1
    )
    pair = upgrade(earlier(object=3, pattern=0, relation=1, object2=4))[0]
    assert pair["count"] == 0 and pair["pattern2"] == 0
    landscape = upgrade(earlier(landscape=2, time=0, weather=0, style=0))[0]
    assert landscape["count"] == landscape["pattern2"] == -1
    today = records(20)
    assert np.array_equal(upgrade(today), today)


def test_records_of_another_world_are_refused():
    with pytest.raises(ValueError, match="no field wings"):
        upgrade(np.zeros(2, [("object", np.int8), ("wings", np.int8)]))
