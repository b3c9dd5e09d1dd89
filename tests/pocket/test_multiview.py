"""Scenes from several cameras, and the denoiser that sees all views of an object at once."""

import argparse

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from course.models.multiview import (
    CAMERA_FEATURES,
    VIEWS,
    add_cameras,
    camera_features,
    join_views,
)
from pocket.train import denoiser, export, multiview, views
from pocket.train.__main__ import main as train_main
from pocket.train.run import Run, Stage, add_arguments
from pocket.world import caption, render
from pocket.world import vocabulary as v
from pocket.world.phrases import VIEW_SUFFIXES
from pocket.world.views import sample_views
from tests.pocket.text import Text

SEEDS = range(2**36, 2**36 + 12)


@pytest.fixture
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return denoiser.build(denoiser.SMOKE, 16)


@pytest.fixture
def joined(unet) -> UNet2DConditionModel:
    copy = add_cameras(unet)
    join_views(copy)
    return copy


def inputs(count: int) -> dict[str, torch.Tensor]:
    angles = torch.rand(2, count) * 90
    return {
        "sample": torch.randn(count, 4, 32, 32),
        "timestep": torch.full((count,), 400),
        "encoder_hidden_states": torch.randn(count, 6, 16),
        "class_labels": camera_features(*angles),
    }


# --- Scenes


def test_every_view_holds_the_whole_object_in_its_middle():
    for seed in SEEDS:
        scene = sample_views(seed, count=3)
        mask = render(scene.params, 64, 64, samples=1).mask > 0
        assert not (mask[:, [0, -1]].any() or mask[:, :, [0, -1]].any())
        rows, columns = mask.any(2), mask.any(1)
        largest = max(int(rows.sum(1).max()), int(columns.sum(1).max()))
        assert 64 * 0.4 <= largest <= 64 * 0.9


def test_views_show_one_scene_from_other_sides():
    scene = sample_views(SEEDS[0], count=4)
    azimuth, elevation = scene.cameras.T
    steps = np.diff(azimuth) % 360
    assert np.allclose(steps, 90, atol=1e-3) and (np.abs(elevation - 32.5) <= 37.5).all()
    changed = (scene.params[0] != scene.params).any(0)
    assert 0 < changed.sum() <= 13  # eye, right, up and forward
    again = sample_views(SEEDS[0], count=4)
    assert np.array_equal(scene.params, again.params)
    assert scene.labels["ground"] == v.GROUNDS.index("plain")


def test_scenes_of_training_hold_no_held_out_composition():
    assert not any(
        sample_views(seed, count=1).labels["heldout"] for seed in range(2**36, 2**36 + 60)
    )


def test_a_caption_without_view_names_none():
    rng = np.random.default_rng(0)
    words = [phrase for phrases in VIEW_SUFFIXES.values() for phrase in phrases]
    labels = [sample_views(seed, count=1).labels for seed in SEEDS]
    texts = [caption(each, rng, view=False) for each in labels for _ in range(20)]
    assert not any("view" in named for _, named in texts)
    assert not any(word in text for text, _ in texts for word in words)
    assert any("view" in caption(labels[0], rng)[0] for _ in range(200))


# --- The denoiser


def test_without_training_cameras_change_nothing(unet, joined):
    given = inputs(VIEWS)
    plain = {name: value for name, value in given.items() if name != "class_labels"}
    with torch.no_grad():
        alone = add_cameras(unet)(**given).sample
        assert torch.equal(alone, unet(**plain).sample)
        assert not torch.allclose(joined(**given).sample, alone)  # attention joins the views


def test_views_of_one_object_see_each_other_alone(joined):
    given = inputs(2 * VIEWS)
    other = given | {"sample": given["sample"].clone()}
    other["sample"][0] += 1
    with torch.no_grad():
        change = (joined(**other).sample - joined(**given).sample).abs().flatten(1).amax(1)
    assert (change[:VIEWS] > 0).all() and (change[VIEWS:] == 0).all()


def test_the_order_of_views_does_not_matter(joined):
    given, order = inputs(VIEWS), [2, 0, 3, 1]
    turned = {name: value[order] for name, value in given.items()}
    with torch.no_grad():
        assert torch.allclose(joined(**turned).sample, joined(**given).sample[order], atol=1e-5)


def test_cameras_differ_in_their_features():
    azimuth = torch.arange(-180, 180, 15.0)
    features = camera_features(azimuth, torch.zeros(len(azimuth)))
    assert features.shape == (len(azimuth), CAMERA_FEATURES)
    distances = torch.cdist(features, features) + 10 * torch.eye(len(azimuth))
    assert distances.min() > 0.3
    turned = camera_features(azimuth + 360, torch.zeros(len(azimuth)))
    assert torch.allclose(features, turned, atol=1e-4)


def test_views_share_timestep_and_caption(joined):
    loss = multiview.MultiViewLoss(joined, Text(), 0.5, torch.zeros(6, dtype=torch.long))
    t = loss.timesteps(8 * VIEWS, torch.device("cpu")).view(8, VIEWS)
    assert (t == t[:, :1]).all() and len(t[:, 0].unique()) == 8
    dropped = loss.drop_captions(500 * VIEWS, torch.device("cpu")).view(500, VIEWS)
    assert (dropped == dropped[:, :1]).all() and 0 < dropped[:, 0].sum() < 200
    moments = torch.randn(VIEWS, 8, 32, 32).half()
    cameras = camera_features(torch.rand(VIEWS), torch.rand(VIEWS))
    loss(moments, torch.ones(VIEWS, 6, dtype=torch.long), cameras)["loss"].backward()
    assert joined.class_embedding.linear_2.weight.grad.abs().sum() > 0


def test_the_network_that_ships_fits_its_budget():
    network = add_cameras(denoiser.build(denoiser.CONFIG, 256))
    size = sum(p.numel() for p in network.parameters()) * 2
    assert size + 2**19 <= export.BUDGETS["multiview"]


# --- The stages


def test_both_stages_run(tmp_path, write_untrained):
    work = tmp_path / "work"
    write_untrained(work)
    for stage in ("views", "multiview"):
        train_main([stage, "--smoke", "--work", str(work)])
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    run = Run.from_args(Stage("multiview"), parser.parse_args(["--smoke", "--work", str(work)]))
    data = multiview.ViewDataset(work / "views", run.device)
    assert data.moments.shape[1:] == (views.VIEWS, 8, 32, 32)
    moments, tokens, cameras = data.sample(3, run.generator)
    assert moments.shape == (3 * VIEWS, 8, 32, 32) and len(cameras) == len(tokens) == 3 * VIEWS
    assert (tokens.view(3, VIEWS, -1) == tokens.view(3, VIEWS, -1)[:, :1]).all()
    angle = torch.atan2(cameras[:, 0], cameras[:, 1]).rad2deg().view(3, VIEWS)
    assert torch.allclose(angle.diff(dim=1) % 360, torch.tensor(360.0 / VIEWS), atol=0.01)
    unet = UNet2DConditionModel.from_pretrained(run.weights_of("multiview"))
    assert unet.config.projection_class_embeddings_input_dim == CAMERA_FEATURES
