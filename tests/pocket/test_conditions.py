"""Conditions: the conventions of the public ControlNets, and shards that hold them.

`python -m tests.pocket.test_conditions` writes the render of `conditions.golden_digest` anew, and
the digests beside the ControlNets; do so only if these were trained on the conditions of today.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from course.images import conditions as lessons
from pocket.train import conditions, controlnet, export
from pocket.train.__main__ import expand
from pocket.train.__main__ import main as train_main
from pocket.train.run import CONDITIONS, Run, Stage, add_arguments
from pocket.world import render, sample_scene
from pocket.world.landscape_header import slots
from pocket.world.renderer import layout

WEIGHTS = Path(__file__).parents[2] / "pocket" / "weights"
SCENES = [
    sample_scene(2**40 + i, "all", kind).params
    for i, kind in enumerate(["object", "object", "landscape"])
]


@pytest.fixture(scope="module")
def rendered():
    return render(np.stack(SCENES), samples=1)


def square() -> np.ndarray:
    """A light square on a dark ground."""
    image = np.full((256, 256, 3), 40, np.uint8)
    image[64:192, 64:192] = 220
    return image


def test_conditions_are_those_that_the_controlnets_learned():
    """A change of a condition needs ControlNets that are trained on it."""
    for kind in CONDITIONS:
        path = WEIGHTS / "controlnet" / kind / "condition.json"
        recorded = json.loads(path.read_text())
        assert recorded == {"kind": kind, "sha256": conditions.golden_digest(kind)}


def test_training_and_lessons_make_the_same_conditions(rendered):
    params = np.stack(SCENES)
    expected = {kind: conditions.make_condition(kind, rendered, params) for kind in CONDITIONS}
    for i, image in enumerate(rendered.color.numpy()):
        assert np.array_equal(expected["canny"][i], lessons.canny(image)[..., 0] * 255)
        assert np.array_equal(expected["scribble"][i], lessons.scribble(image)[..., 0] * 255)
        inverse = np.where(rendered.depth[i] > 0, 1 / np.maximum(rendered.depth[i], 1e-6), 0)
        gray = lessons.depth_to_image(inverse)[..., 0] * 255
        np.testing.assert_allclose(expected["depth"][i], gray, atol=0.51)


def test_canny_finds_the_square_and_thresholds_matter():
    edges = lessons.canny(square())
    assert (
        edges.shape == (256, 256, 3)
        and edges.dtype == np.float32
        and set(np.unique(edges)) == {0, 1}
    )
    rows, columns = np.nonzero(edges[..., 0])
    assert 62 <= rows.min() <= 65 and 190 <= columns.max() <= 193 and 450 < len(rows) < 560
    faint = np.full((64, 64, 3), 100, np.uint8)
    faint[:, 32:] = 112
    assert not lessons.canny(faint).any() and lessons.canny(faint, 5, 10).any()
    with pytest.raises(ValueError, match="low 200 and high 100"):
        lessons.canny(square(), 200, 100)


def test_a_scribble_is_thick_and_varies_with_the_hand():
    plain = lessons.scribble_mask(square())
    assert 3 * 400 < (plain > 0).sum() < 8 * 512
    hands = [lessons.scribble_mask(square(), np.random.default_rng(seed)) for seed in range(8)]
    assert len({hand.tobytes() for hand in hands}) > 5
    again = lessons.scribble_mask(square(), np.random.default_rng(0))
    assert np.array_equal(hands[0], again)
    assert not lessons.scribble_mask(np.zeros((64, 96, 3), np.uint8)).any()


def test_near_is_bright_and_the_sky_is_black():
    depth = torch.tensor([[[1.0, 2.0], [4.0, 0.0]]])
    assert conditions.inverse_depth(depth)[0].tolist() == [[1, 0.5], [0.25, 0]]
    without_sky = torch.tensor([[[1.0, 2.0], [4.0, 4.0]]])
    assert conditions.inverse_depth(without_sky)[0].tolist() == [[1, pytest.approx(1 / 3)], [0, 0]]
    assert not conditions.inverse_depth(torch.zeros(1, 2, 2)).any()
    flat = lessons.depth_to_image(np.ones((4, 4)))
    assert flat.shape == (4, 4, 3) and not flat.any()
    with pytest.raises(ValueError, match="finite"):
        lessons.depth_to_image(np.full((4, 4), np.nan))
    image = lessons.depth_to_image(np.array([[0.0, 1], [2, 4]]))
    assert image[..., 0].tolist() == [[0, 0.25], [0.5, 1]]


@pytest.mark.parametrize(
    ("normal", "color"),
    [
        ((0, 0, 1), (128, 128, 255)),  # a plane that faces the viewer: blue
        ((-1, 0, 0), (255, 128, 128)),  # faces left: red
        ((0, 1, 0), (128, 255, 128)),  # faces up: green
        ((1, 0, 0), (0, 128, 128)),
        ((0, 0, 0), (128, 128, 128)),  # no surface: gray
    ],
)
def test_normals_have_the_public_colours(normal, color):
    got = (lessons.normals_to_image(torch.tensor([normal], dtype=torch.float32)) * 255).round()
    got = got.byte()
    assert got.tolist() == [list(color)]
    np.testing.assert_allclose(lessons.image_to_normals(got.float() / 255)[0], normal, atol=0.01)


def test_camera_normals_look_from_the_camera():
    """Vectors along the camera's axes become x, y and z, also for the columns of a landscape."""
    at = layout()
    scene = torch.from_numpy(SCENES[0])
    own = [scene[at[name] : at[name] + 3] for name in ("H_RIGHT", "H_UP", "H_FORWARD")]
    world = torch.stack([own[0], own[1], -own[2], torch.zeros(3)]).view(1, 1, 4, 3)
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    np.testing.assert_allclose(
        conditions.camera_normals(world, SCENES[0][None])[0, 0], expected, atol=1e-5
    )

    landscape = SCENES[2].copy()
    landscape[slots()["HEADING"]] = (
        0.0  # looks along +z in the middle, and 30 degrees to the right at the right edge
    )
    towards = torch.zeros(1, 200, 200, 3)
    towards[..., 2] = -1
    seen = conditions.camera_normals(towards, landscape[None])[0, 0]
    np.testing.assert_allclose(seen[100], [0, 0, 1], atol=0.01)
    np.testing.assert_allclose(seen[-1], [np.sin(np.pi / 6), 0, np.cos(np.pi / 6)], atol=0.01)


def test_what_is_seen_faces_the_viewer(rendered):
    """On average: a pixel at a silhouette may average normals that just turn away."""
    normals = conditions.camera_normals(rendered.normal, np.stack(SCENES))
    for scene, depth in zip(normals, rendered.depth, strict=True):
        facing = scene[..., 2][depth > 0]
        assert facing.mean() > 0.1 and (facing > -0.15).float().mean() > 0.99


def test_bits_come_back():
    pages = [
        np.random.default_rng(i).integers(0, 2, (16, 24)).astype(np.uint8) * 255 for i in range(3)
    ]
    packed = conditions.pack_bits(np.stack(pages))
    assert packed.shape == (3, 16, 3) and packed.dtype == np.uint8
    assert np.array_equal(conditions.unpack_bits(torch.from_numpy(packed)).numpy(), np.stack(pages))


def test_stages_with_kinds_have_a_run_each():
    assert expand("denoiser") == [Stage("denoiser")]
    assert expand("controlnet") == [Stage("controlnet", kind) for kind in CONDITIONS]
    assert list(map(str, expand("controlnet", "depth"))) == ["controlnet-depth"]
    names = set(map(str, expand("all")))
    assert {"data", "conditions", "controlnet-scribble", "estimators-normals", "export"} <= names
    with pytest.raises(SystemExit):
        train_main(["estimators", "--condition", "canny"])


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A work folder after the conditions stage: five scenes, an untrained autoencoder."""
    from pocket.train import autoencoder
    from pocket.train.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("conditions")
    torch.manual_seed(0)
    autoencoder.build(autoencoder.SMOKE).save_pretrained(folder / "autoencoder" / "weights")
    train_tokenizer(["a red cat on the grass", "a hamburger"] * 5).save_pretrained(
        folder / "tokenizer"
    )
    train_main(["conditions", "--smoke", "--scenes", "5", "--work", str(folder)])
    return folder


def test_a_shard_holds_what_the_renderer_knows(work):
    [shard] = (work / "conditions").glob("scenes-*")
    load = lambda name: np.load(shard / f"{name}.npy")
    shapes = {
        "moments": (5, 8, 32, 32),
        "canny": (5, 256, 32),
        "scribble": (5, 256, 32),
        "objects": (5, 32, 32),
    }
    assert {name: load(name).shape for name in shapes} == shapes
    assert load("moments").dtype == np.float16 and load("tokens").shape[:2] == (5, 4)
    again = render(load("params"), samples=1)  # the parameters draw the same scenes
    for kind in ("depth", "normals"):  # and are what the ControlNets are shown
        data = controlnet.ControlNetDataset(work / "conditions", kind, torch.device("cpu"))
        expected = conditions.make_condition(
            kind, render(load("params"), samples=4), load("params")
        )
        assert torch.equal(data.conditions, expected)
    edges = np.stack([lessons.canny_mask(image) for image in again.color.numpy()])
    assert np.array_equal(conditions.unpack_bits(torch.from_numpy(load("canny"))).numpy(), edges)
    share = again.mask.numpy().reshape(5, 32, 8, 32, 8).mean((2, 4))
    assert np.allclose(load("objects") / 255, share, atol=1 / 255) and load("objects").max() == 255
    note = json.loads((work / "conditions" / "time.json").read_text())
    assert note["stage"] == "conditions" and note["images"] == 5


def test_shards_stay_grow_and_go_with_their_autoencoder(work):
    [shard] = (work / "conditions").glob("scenes-*")
    before = (shard / "canny.npy").stat().st_mtime_ns
    train_main(["conditions", "--smoke", "--scenes", "5", "--work", str(work)])
    assert (shard / "canny.npy").stat().st_mtime_ns == before
    train_main(["conditions", "--smoke", "--scenes", "6", "--work", str(work)])
    assert len(np.load(shard / "tokens.npy")) == 6
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--smoke", "--work", str(work)])
    conditions.ensure(Run.from_args(Stage("controlnet", "canny"), args))
    assert len(np.load(shard / "tokens.npy")) == 6  # another stage takes what was asked for last
    (work / "autoencoder" / "weights" / "note.txt").write_text("another")
    train_main(["conditions", "--smoke", "--scenes", "4", "--work", str(work)])
    assert len(np.load(shard / "tokens.npy")) == 4


@pytest.mark.parametrize("kind", CONDITIONS)
def test_latents_keep_their_condition(work, kind):
    data = controlnet.ControlNetDataset(work / "conditions", kind, torch.device("cpu"))
    moments, _, condition, objects = data.sample(12, torch.Generator().manual_seed(0))
    assert condition.shape == (12, 3, 256, 256) and condition.dtype == torch.float32
    assert 0 <= condition.min() and condition.max() <= 1 and condition.max() > 0.5
    for latent, seen, where in zip(moments, condition, objects, strict=True):
        [i] = [i for i in range(len(data)) if torch.equal(data.moments[i], latent)]
        assert torch.equal(seen, data.control(torch.tensor([i]))[0])
        assert torch.equal(where, data.objects[i : i + 1].float() / 255)
    with pytest.raises(FileNotFoundError, match=r"pocket\.train conditions"):
        controlnet.ControlNetDataset(work / "nothing", kind, torch.device("cpu"))


def test_options_know_the_kinds():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--condition", "sketch"])


def write_golden_render() -> None:
    """Write a render, without the pixels whose depth or normal is close to a rounding border.

    Processors round differently, and the digests have to be the same on all of them.
    """
    params = np.stack(SCENES)
    arrays = vars(render(params, 96, 96, samples=4)) | {"params": params}
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    arrays["depth"] = arrays["depth"].astype(np.float16).astype(np.float32)
    arrays["normal"] = arrays["normal"].astype(np.float16).astype(np.float32)
    depth, normal = torch.from_numpy(arrays["depth"]), torch.from_numpy(arrays["normal"])
    for _ in range(5):  # less depth changes the range of the rest
        gray = conditions.inverse_depth(depth) * 255
        depth[(gray % 1 - 0.5).abs() < 0.01] = 0
        colors = lessons.normals_to_image(conditions.camera_normals(normal, params)) * 255
        normal[((colors % 1 - 0.5).abs() < 0.01).any(-1)] = 0
    np.savez_compressed(conditions.GOLDEN_RENDER, **arrays)


if __name__ == "__main__":
    write_golden_render()
    for each in CONDITIONS:
        record = {"kind": each, "sha256": conditions.golden_digest(each)}
        path = WEIGHTS / "controlnet" / each / "condition.json"
        path.write_text(json.dumps(record) + "\n")
    listed = json.dumps(export.manifest(WEIGHTS), indent=1)
    (WEIGHTS / "manifest.json").write_text(listed + "\n")
