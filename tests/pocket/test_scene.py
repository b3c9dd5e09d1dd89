"""Placement: pairs touch and are both visible, counted objects stay separate, sizes show."""

import numpy as np
import pytest
from scipy import ndimage

from pocket.world import placement, render, sample_labels
from pocket.world import vocabulary as v
from pocket.world.builder import Builder, Look, rotation
from pocket.world.labels import labels_from
from pocket.world.objects import RECIPES
from pocket.world.renderer import layout
from pocket.world.scene import build_scene

L = layout()
PAIRS = (
    ("astronaut", "riding", "duck"),
    ("squirrel", "riding", "cactus"),
    ("elephant", "on", "mug"),
    ("mushroom", "on", "elephant"),
    ("dog", "on", "bed"),
    ("pig", "riding", "bicycle"),
    ("castle", "on", "turtle"),
    ("cat", "on", "pizza"),
    ("robot", "riding", "lighthouse"),
    ("car", "on", "flower"),
)


def scene(
    seed: int = 0, azimuth: float = 40.0, elevation: float = 12.0, **names: str
) -> np.ndarray:
    """Parameters of a scene with these classes, of plain things on white."""
    labels = labels_from({"ground": "white", "style": "photo"} | names, np.random.default_rng(seed))
    labels["azimuth"], labels["elevation"] = azimuth, elevation
    return build_scene(labels, np.random.default_rng(seed))


def only(params: np.ndarray, thing: int) -> np.ndarray:
    """The scene without the other object."""
    rows = params[L["PRIMS"] :].reshape(-1, L["PRIM"])[: int(params[L["H_PRIMS"]])]
    kept, alone = rows[rows[:, L["P_THING"]] == thing], params.copy()
    alone[L["PRIMS"] :] = 0
    alone[L["PRIMS"] : L["PRIMS"] + kept.size] = kept.ravel()
    alone[L["H_PRIMS"]] = len(kept)
    return alone


def masks(params: np.ndarray, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """What is seen of the first object and of the second, bool (size, size) each."""
    out = render(np.stack([only(params, 0), only(params, 1)]), size, size, samples=1)
    mask, depth = out.mask.bool().numpy(), out.depth.numpy()
    nearer = depth[0] < depth[1]
    return mask[0] & ~(mask[1] & ~nearer), mask[1] & ~(mask[0] & nearer)


def extent(mask: np.ndarray) -> float:
    """The longer side of the box around a mask, as a share of the image."""
    rows, columns = np.nonzero(mask)
    return 0.0 if not len(rows) else float(max(np.ptp(rows), np.ptp(columns)) + 1) / len(mask)


@pytest.mark.parametrize("pair", PAIRS)
def test_both_of_a_pair_are_clearly_seen(pair: tuple[str, str, str]) -> None:
    name, relation, other = pair
    for seed in range(3):
        params = scene(seed, object=name, relation=relation, object2=other)
        assert min(map(extent, masks(params))) > 0.22


def test_both_of_nearly_any_pair_are_seen() -> None:
    """Held objects are smaller, and some are hidden by a holder who faces away from the camera."""
    rng, shares = np.random.default_rng(8), {"upon": [], "held": [], "beside": []}
    while sum(map(len, shares.values())) < 90:
        labels = sample_labels(rng, 0, "all", "object")
        relation = v.RELATIONS[labels["relation"]]
        if relation != "none":
            kind = {"next to": "beside", "reading": "held", "holding": "held"}.get(relation, "upon")
            shares[kind].append(min(map(extent, masks(build_scene(labels, rng), 64))))
    assert min(shares["upon"]) > 0.18 and np.mean(np.array(shares["upon"]) > 0.24) > 0.9
    assert min(shares["beside"]) > 0.18
    assert np.mean(np.array(shares["held"]) > 0.15) > 0.85


@pytest.mark.parametrize("pair", PAIRS)
def test_what_is_on_top_touches(pair: tuple[str, str, str]) -> None:
    """From the side no row of background separates the two, and neither is inside the other."""
    name, relation, other = pair
    for seed in range(3):
        params = scene(seed, 70.0, 0.0, object=name, relation=relation, object2=other)
        params[L["H_PLANE"]] = 0
        out = render(np.stack([only(params, 0), only(params, 1)]), 128, 128, samples=1)
        above, below = out.mask.bool().numpy()
        columns = above.any(0) & below.any(0)
        bottom = 127 - above[::-1].argmax(0)
        top = below.argmax(0)
        assert columns.any() and (top - bottom)[columns].min() <= 2
        middle = [np.nonzero(mask)[0].mean() for mask in (above, below)]
        assert middle[0] < middle[1] - 6
        assert (above & below).sum() < 0.5 * min(above.sum(), below.sum())


@pytest.mark.parametrize("name", ["mushroom", "cat", "horse", "pancakes", "bicycle", "cow"])
@pytest.mark.parametrize("count", ["two", "three"])
def test_counts_are_apart_and_alike(name: str, count: str) -> None:
    for seed, (azimuth, elevation) in enumerate([(0, 15), (80, 10), (200, 45), (30, 75)]):
        params = scene(seed, azimuth, elevation, object=name, count=count, color="red")
        mask = render(params, 192, 192, samples=1).mask[0].numpy()
        pieces, number = ndimage.label(mask, np.ones((3, 3)))
        sizes = np.sort(np.bincount(pieces.ravel())[1:])[::-1]
        if name != "bicycle":  # of thin parts
            assert (sizes > 0.25 * sizes[0]).sum() == v.COUNTS.index(count) + 1
            assert number == v.COUNTS.index(count) + 1
        prims = params[L["PRIMS"] :].reshape(-1, L["PRIM"])[: int(params[L["H_PRIMS"]])]
        single = int(scene(seed, azimuth, elevation, object=name, color="red")[L["H_PRIMS"]])
        assert len(prims) == (v.COUNTS.index(count) + 1) * single
        materials = prims[:, L["P_MATERIAL"]].reshape(-1, single)
        assert (materials == materials[0]).all()


@pytest.mark.parametrize("name", ["car", "cat", "tree", "pizza", "dinosaur"])
def test_sizes_show_as_a_share_of_the_frame(name: str) -> None:
    for seed in range(4):
        shares = {}
        for size in (None, *v.SIZES):
            given = {} if size is None else {"size": size}
            shares[size] = extent(
                render(scene(seed, object=name, **given), 128, 128, samples=1).mask[0].numpy()
            )
        assert 0.22 < shares["small"] < 0.40 < shares[None] < shares["big"]
        assert shares[None] < 0.83 and shares["big"] > 0.75


@pytest.mark.parametrize("relation", ["on", "riding", "next to", "holding"])
def test_sizes_of_a_pair_are_relative(relation: str) -> None:
    def ratio(**sizes: str) -> float:
        ratios = []
        for seed in range(5):
            params = scene(seed, object="bear", relation=relation, object2="cake", **sizes)
            first, second = (
                render(only(params, k), 96, 96, samples=1).mask[0].numpy() for k in (0, 1)
            )
            ratios.append(extent(first) / extent(second))
        return float(np.mean(ratios))

    usual = ratio()
    assert ratio(size="small") < 0.93 * usual and ratio(size2="big") < 0.93 * usual
    assert ratio(size="big") > 1.07 * usual and ratio(size2="small") > 1.07 * usual


@pytest.mark.parametrize("name", ["bear", "astronaut", "robot", "dog", "cow", "pig", "dinosaur"])
def test_poses_show(name: str) -> None:
    images = [
        render(scene(1, object=name, pose=pose), 96, 96, samples=1).color.float()
        for pose in v.POSES
    ]
    assert (images[0] - images[1]).abs().mean() > 2


def test_a_rider_has_a_saddle_and_one_that_sits_has_none() -> None:
    riding, sitting = (
        scene(object="cat", relation=relation, object2="car") for relation in ("riding", "on")
    )
    assert riding[L["H_PRIMS"]] > sitting[L["H_PRIMS"]]


@pytest.mark.parametrize("other", ["duck", "horse", "bear", "pig", "bunny", "cat"])
def test_a_rider_sits_on_the_seat_and_what_is_on_top_stands_on_the_top(monkeypatch, other) -> None:
    anchors = {}
    recipe, move = RECIPES[other], Builder.move

    def record_anchors(b: Builder, pose: str):
        anchors["below"] = recipe(b, pose)
        return anchors["below"]

    def record_place(b: Builder, group: int, place, *others) -> None:
        anchors["place"] = place
        move(b, group, place, *others)

    monkeypatch.setitem(RECIPES, other, record_anchors)
    monkeypatch.setattr(placement.Builder, "move", record_place)
    for relation, anchor in (("riding", "seat"), ("on", "top")):
        scene(object="squirrel", relation=relation, object2=other)
        x, _, z = getattr(anchors["below"], anchor)
        assert anchors["place"][::2] == (x, z), relation


@pytest.mark.parametrize("name", sorted(v.ANIMATE))
def test_all_that_live_read_hold_and_ride(name: str) -> None:
    for relation, other in (("reading", "book"), ("holding", "apple"), ("riding", "guitar")):
        for seed in range(2):
            params = scene(seed, object=name, relation=relation, object2=other)
            assert np.isfinite(params).all()
            assert (params[L["PRIMS"] :].reshape(-1, L["PRIM"])[:, L["P_THING"]] == 1).any()


def test_moving_and_copying_keep_a_shape() -> None:
    """A moved object looks the same to a camera that moves with it."""
    b = Builder(np.random.default_rng(0))
    b.place(Look(None, 1))
    RECIPES["teapot"](b, "stand")
    before, count = b.spans(np.eye(3)), len(b.prims)
    b.copy(range(count), (3.0, 0.0, 0.0), rotation(0, 180, 0), 2.0)
    assert len(b.prims) == 2 * count
    groups = np.array([prim[L["P_GROUP"]] for prim in b.prims])
    assert groups[count:].min() > groups[:count].max()
    copied = Builder(
        np.random.default_rng(0), b.prims[count:], b.materials, b.frames, b.extents[count:]
    )
    after = copied.spans(np.eye(3))
    assert after[0] == pytest.approx(3.0 - 2 * before[0, ::-1]) and after[1] == pytest.approx(
        2 * before[1]
    )
    b.move(0, (0.0, 1.0, 0.0), rotation(0, 90, 0), 0.5)
    assert b.frames[0][:3] == [0.0, 1.0, 0.0] and b.frames[0][12] == 2.0
