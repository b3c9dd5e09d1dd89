"""The pocket world: labels, held-out compositions, geometry and images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course.speed import native
from pocket.world import SCENE_FLOATS, render, sample_scene
from pocket.world import renderer as world_renderer
from pocket.world import vocabulary as v
from pocket.world.builder import Builder, Look, apply, rotation, towards
from pocket.world.objects import LARGE, RECIPES, SIZES, SMALL
from pocket.world.renderer import layout
from pocket.world.scene import build_scene

L = layout()


def labels_of(**values: float) -> np.ndarray:
    """Labels of a plain gray object on white, with changes."""
    labels = v.empty_labels()
    for name in ("object", "pattern", "relation", "ground", "lighting", "count"):
        labels[name] = 0
    labels["style"] = v.STYLES.index("3d render")
    for name, value in values.items():
        labels[name] = value
    return labels


def image(labels: np.ndarray, size: int = 64, seed: int = 0):
    return render(build_scene(labels, np.random.default_rng(seed)), size, size)


def test_recipes_cover_the_vocabulary():
    assert set(RECIPES) == set(v.OBJECTS)
    assert v.WITH_FRONT <= set(v.OBJECTS) and v.ANIMATE <= set(v.OBJECTS)


def test_sizes_cover_the_vocabulary():
    assert set(SIZES) == set(v.OBJECTS) and set(SIZES.values()) == {"small", "medium", "large"}
    assert set(SMALL) | set(LARGE) <= set(v.OBJECTS) and not set(SMALL) & set(LARGE)
    assert (SIZES["apple"], SIZES["dog"], SIZES["castle"]) == ("small", "medium", "large")


def built(name: str, pose: str, seed: int, pattern: int = 0):
    b = Builder(np.random.default_rng(seed))
    b.place(Look((0.8, 0.2, 0.1) if pattern else None, pattern))
    return b, RECIPES[name](b, pose)


@pytest.mark.parametrize("name", v.OBJECTS)
def test_anything_can_be_ridden_and_stood_on(name):
    """Every object has a place for a rider and one to stand on, near its middle and not above it.

    Animals and figures also have one in front of them, where they hold things.
    """
    for seed, pose in enumerate(("stand", "sit", "ride", "base")):
        b, anchors = built(name, pose, seed)
        top = max(p[1] + p[3] for p in b.prims)
        for x, y, z in (anchors.top, anchors.seat):
            assert abs(x) < 0.2 and abs(z) < 0.45 and 0.08 < y < top
        assert 0.05 <= anchors.wide <= 0.65 and 0.2 <= anchors.radius <= 0.65
        if name in v.ANIMATE:
            assert anchors.lap[2] > 0.05 and 0 < anchors.lap[1] < 1


@pytest.mark.parametrize("name", v.OBJECTS)
def test_three_of_a_kind_and_any_two_fit_a_scene(name):
    for seed in range(12):
        for pose in ("stand", "sit", "ride", "base"):
            b, _ = built(name, pose, seed, seed % 6)
            assert len(b.prims) <= 32 and len(b.materials) <= 8


@pytest.mark.parametrize("name", ["ball", "pizza", "donut", "apple", "mug", "pumpkin", "cake"])
def test_round_things_are_not_cut_off(name):
    """The sphere in which rays look for objects holds all of them: a larger one changes nothing."""
    params = build_scene(
        labels_of(object=v.OBJECTS.index(name), azimuth=20, elevation=12), np.random.default_rng(1)
    )
    loose = params.copy()
    loose[L["H_REACH"]] *= 3
    assert torch.equal(render(params, 96, 96, 1).color, render(loose, 96, 96, 1).color)


def test_dawn_is_pink_and_between_night_and_day():
    means = {}
    for lighting, name in enumerate(v.LIGHTINGS):
        labels = labels_of(
            object=v.OBJECTS.index("castle"), ground=v.GROUNDS.index("snow"), lighting=lighting
        )
        means[name] = image(labels).color[0].float().mean((0, 1))
    assert means["night"].mean() < 0.7 * means["dawn"].mean() < means["day"].mean()
    red, green, blue = means["dawn"]
    assert red > 1.05 * green and blue > 0.98 * green  # at sunset there is less blue than green
    assert means["sunset"][2] < means["sunset"][1]


@pytest.mark.parametrize(
    "bad", [{"split": "test"}, {"kind": "portrait"}, {"split": "heldout", "kind": "landscape"}]
)
def test_wrong_split_or_kind_is_named(bad):
    with pytest.raises(ValueError, match="must be|held-out"):
        sample_scene(0, **bad)


def test_same_seed_same_scene_other_seed_another():
    a, b, c = sample_scene(5), sample_scene(5), sample_scene(6)
    assert a.params.tobytes() == b.params.tobytes() and a.labels == b.labels
    assert a.params.shape == (SCENE_FLOATS,) and a.params.dtype == np.float32
    assert a.params.tobytes() != c.params.tobytes()


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**40))
def test_scenes_are_finite_and_fit(seed):
    scene = sample_scene(seed, "all")
    assert np.isfinite(scene.params).all()
    assert scene.params[L["H_PRIMS"]] <= L["MAX_PRIMS"]


@pytest.mark.parametrize("name", v.OBJECTS)
def test_bounding_spheres_hold_their_primitives(name):
    """No part of an object lies outside its bounding spheres: ten times as large, same mask."""
    labels = labels_of(object=v.OBJECTS.index(name), azimuth=35, elevation=20)
    params = build_scene(labels, np.random.default_rng(3))
    loose = params.copy()
    prims = loose[L["PRIMS"] : L["PRIMS"] + L["PRIM"] * int(params[L["H_PRIMS"]])].reshape(
        -1, L["PRIM"]
    )
    prims[:, L["P_BOUND"] + 3] *= 10
    a, b = render(params, 96, 96, samples=1), render(loose, 96, 96, samples=1)
    share = a.mask.float().mean().item()
    assert 0.04 < share < 0.75, f"{name} covers {share:.0%} of the image"
    assert (a.mask != b.mask).float().mean() < 0.004


@pytest.mark.parametrize("name", sorted(v.WITH_FRONT))
def test_fronts_differ_from_backs(name):
    o = v.OBJECTS.index(name)
    front = image(labels_of(object=o, azimuth=0, elevation=15)).color.float()
    again = image(labels_of(object=o, azimuth=4, elevation=15)).color.float()
    back = image(labels_of(object=o, azimuth=180, elevation=15)).color.float()
    assert (front - back).abs().mean() > 0.8 * (front - again).abs().mean()
    assert (front - back).abs().mean() > 1.0


def test_azimuth_grows_counter_clockwise_seen_from_above():
    """At azimuth 90 the camera stands on +x, at 0 on +z: design decision 8."""
    for azimuth, axis in ((0, (0, 0, 1)), (90, (1, 0, 0)), (180, (0, 0, -1)), (-90, (-1, 0, 0))):
        params = build_scene(
            labels_of(object=0, azimuth=azimuth, elevation=10), np.random.default_rng(0)
        )
        forward = params[L["H_FORWARD"] : L["H_FORWARD"] + 3]
        assert np.dot(-forward, axis) == pytest.approx(np.cos(np.radians(10)), abs=1e-5)
        assert -forward[1] == pytest.approx(np.sin(np.radians(10)), abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.floats(-180, 180)] * 3))
def test_rotations_are_orthonormal(angles):
    r = np.array(rotation(*angles))
    assert np.allclose(r @ r.T, np.eye(3), atol=1e-9) and np.linalg.det(r) == pytest.approx(1)
    d = r @ np.array([0, 1, 0])
    t = np.array(towards(d))
    assert np.allclose(apply(towards(d), (0, 1, 0)), d, atol=1e-9) and np.linalg.det(
        t
    ) == pytest.approx(1)


def test_next_to_puts_the_first_object_left():
    for azimuth in (0, 100, -140):
        labels = labels_of(
            object=v.OBJECTS.index("pumpkin"),
            object2=v.OBJECTS.index("mug"),
            relation=v.RELATIONS.index("next to"),
            color=v.COLORS.index("red"),
            color2=v.COLORS.index("blue"),
            azimuth=azimuth,
            elevation=20,
        )
        color = image(labels, 96).color[0].float()
        red = (color[..., 0] > 1.6 * color[..., 2]).nonzero()[:, 1].float().mean()
        blue = (color[..., 2] > 1.6 * color[..., 0]).nonzero()[:, 1].float().mean()
        assert red + 10 < blue


def test_named_colors_show():
    """The pixels of a colored object are nearest to their own color's hue, for the vivid colors."""
    import colorsys

    from pocket.world.placement import COLOR_RGB

    for name in ("red", "yellow", "green", "blue", "purple"):
        out = image(
            labels_of(object=v.OBJECTS.index("pumpkin"), color=v.COLORS.index(name), elevation=20)
        )
        mean = out.color[0][out.mask[0].bool()].float().mean(0) / 255
        hue = colorsys.rgb_to_hsv(*mean.tolist())[0]
        wanted = colorsys.rgb_to_hsv(*COLOR_RGB[name])[0]
        assert abs((hue - wanted + 0.5) % 1 - 0.5) < 0.06, name


def test_depth_normals_and_mask_agree():
    out = image(
        labels_of(object=v.OBJECTS.index("snowman"), ground=v.GROUNDS.index("grass"), elevation=15),
        96,
    )
    mask, depth, normal = out.mask[0].bool(), out.depth[0], out.normal[0]
    assert depth[mask].min() > 0 and depth[mask].max() < depth[~mask].max()
    sky = depth == 0
    assert sky.any() and not mask[sky].any()
    assert torch.allclose(normal[mask].norm(dim=-1), torch.ones(int(mask.sum())), atol=1e-3)
    assert normal[sky].abs().max() == 0


def test_styles_change_the_image_as_they_should():
    labels = labels_of(
        object=v.OBJECTS.index("car"), ground=v.GROUNDS.index("grass"), azimuth=30, elevation=20
    )
    colors = {}
    for style, name in enumerate(v.STYLES):
        labels["style"] = style
        colors[name] = image(labels).color[0].float()
    saturation = {k: (c.max(-1).values - c.min(-1).values).mean() for k, c in colors.items()}
    assert saturation["pencil sketch"] < 15 < saturation["photo"] < saturation["cartoon"]


@pytest.mark.parametrize("bad", [dict(height=0), dict(samples=0), dict(samples=17)])
def test_impossible_images_are_refused(bad):
    with pytest.raises(ValueError, match="samples from 1 to 16"):
        render(sample_scene(0).params, **bad)


def test_wrong_parameters_are_refused():
    with pytest.raises(ValueError, match="floats"):
        render(np.zeros((2, 7), np.float32))


def test_too_many_primitives_are_refused():
    b = Builder(np.random.default_rng(0))
    b.place(Look())
    m = b.material((0.5, 0.5, 0.5))
    for i in range(L["MAX_PRIMS"] + 1):
        b.ball((0, i, 0), 0.5, m)
    with pytest.raises(ValueError, match=f"holds {L['MAX_PRIMS']} primitives"):
        b.pack(np.zeros(SCENE_FLOATS, np.float32))


def test_batches_equal_single_images():
    scenes = [sample_scene(i).params for i in range(4)]
    batch = render(np.stack(scenes), 48, 64, samples=2).color
    for one, many in zip(scenes, batch, strict=True):
        assert torch.equal(render(one, 48, 64, samples=2).color[0], many)


HARMS = {
    "truncated": lambda library: library.write_bytes(library.read_bytes()[:5000]),
    "empty": lambda library: library.write_bytes(b""),
    "zeros": lambda library: library.write_bytes(bytes(library.stat().st_size)),
    "gone": lambda library: library.unlink(),
    "without a checksum": lambda library: library.with_suffix(".sha256").unlink(),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_renderer_is_compiled_again(harm, tmp_path, monkeypatch):
    """A truncated one would end every process that loads it (SIGBUS)."""
    real = Path(world_renderer._cpu_library()._name)
    compiler = tmp_path / "c++"
    copy_it = f'for out; do :; done; [ "$out" = --version ] || cp {real} "$out"'
    compiler.write_text(f"#!/bin/sh\n{copy_it}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", f"{compiler} -O1")
    monkeypatch.setattr(world_renderer, "BUILD", tmp_path / "build")
    load = world_renderer._cpu_library.__wrapped__
    library = Path(load()._name)
    assert library.parent == tmp_path / "build"
    copy = tmp_path / "damaged" / library.name  # what is loaded stays whole
    copy.parent.mkdir(mode=0o755)
    for path in library.parent.iterdir():
        (copy.parent / path.name).write_bytes(path.read_bytes())
    HARMS[harm](copy)
    monkeypatch.setattr(world_renderer, "BUILD", copy.parent)
    monkeypatch.setattr(world_renderer, "_cpu_library", load)
    params = sample_scene(0).params
    assert render(params, 8, 8).color.shape == (1, 8, 8, 3)
    assert native.is_intact(copy)


def test_without_a_compiler_the_renderer_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(world_renderer, "_cpu_library", world_renderer._cpu_library.__wrapped__)
    monkeypatch.setenv("CXX", "/nowhere/c++")
    with pytest.raises(native.NativeError, match=r"CXX=/nowhere/c\+\+ names no program"):
        render(sample_scene(0).params, 8, 8)
