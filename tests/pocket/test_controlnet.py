"""ControlNets start at the denoiser, train alone, and load in diffusers; losses of estimators."""

import argparse
import json

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from PIL import Image
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoModelForDepthEstimation,
    AutoModelForSemanticSegmentation,
    pipeline,
)

from pocket.train import conditions, controlnet, denoiser, estimators, export
from pocket.train.__main__ import main as train_main
from pocket.train.images import color_jitter
from pocket.train.loop import trainable_parameters
from pocket.train.run import ESTIMATED, Run, Stage, add_arguments
from tests.pocket.text import Text


@pytest.fixture
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return denoiser.build(denoiser.SMOKE, 16)


@pytest.fixture
def trainee(unet) -> controlnet.ControlNetLoss:
    return controlnet.ControlNetLoss(
        unet, controlnet.build(unet, smoke=True), Text(), 0.5, torch.zeros(6, dtype=torch.long)
    )


def batch(count: int = 2) -> tuple[torch.Tensor, ...]:
    return (
        torch.randn(count, 8, 32, 32).half(),
        torch.ones(count, 6, dtype=torch.long),
        torch.rand(count, 3, 256, 256),
    )


def test_an_untrained_controlnet_changes_nothing(trainee):
    """Zero convolutions (Zhang et al. 2023, equation 3) leave exactly the denoiser."""
    noisy, t, states = torch.randn(2, 4, 32, 32), torch.tensor([10, 900]), torch.randn(2, 6, 16)
    with torch.no_grad():
        without = trainee.unet(noisy, t, states, return_dict=False)[0]
        assert torch.equal(trainee.predict(noisy, t, states, torch.rand(2, 3, 256, 256)), without)
        nn.init.ones_(trainee.controlnet.controlnet_mid_block.bias)
        assert not torch.equal(
            trainee.predict(noisy, t, states, torch.rand(2, 3, 256, 256)), without
        )


def test_it_starts_from_the_denoisers_encoder(unet, trainee):
    own, copied = unet.down_blocks.state_dict(), trainee.controlnet.down_blocks.state_dict()
    assert own and all(torch.equal(own[name], copied[name]) for name in own)


def test_the_network_that_ships_fits_its_budget():
    network = controlnet.build(denoiser.build(denoiser.CONFIG, 256))
    assert (
        sum(p.numel() for p in network.parameters()) * 2 + 2**19
        <= export.BUDGETS["controlnet/canny"]
    )
    for kind in ESTIMATED:
        estimator = estimators.build(kind)
        assert (
            sum(p.numel() for p in estimator.parameters()) * 2 <= export.BUDGETS["estimators"] / 2
        )
        result = estimators.estimate(
            kind, estimator, torch.zeros(2, 3, estimators.SIDE, estimators.SIDE)
        )
        assert result.shape == (
            2,
            *([3] if kind == "normals" else []),
            estimators.SIDE,
            estimators.SIDE,
        )


def test_only_the_controlnet_trains_and_the_condition_reaches_it(trainee):
    trainee(*batch())["loss"].backward()
    assert (
        all(p.grad is None for p in trainee.unet.parameters())
        and trainee.text.table.weight.grad is None
    )
    zeros = [
        p
        for name, p in trainee.controlnet.named_parameters()
        if name.startswith("controlnet_down_blocks")
    ]
    assert zeros and all(p.grad is not None and p.grad.abs().sum() > 0 for p in zeros)
    assert trainable_parameters(trainee) == trainable_parameters(trainee.controlnet)
    # A step later the zeros have grown, and what reads the condition learns too.
    torch.optim.SGD(trainable_parameters(trainee), 1.0).step()
    trainee.zero_grad()
    trainee(*batch())["loss"].backward()
    assert trainee.controlnet.controlnet_cond_embedding.conv_out.weight.grad.abs().sum() > 0


def test_an_error_on_an_object_counts_more(trainee, monkeypatch):
    objects = torch.zeros(1, 1, 4, 4)
    objects[..., :2] = 1
    weight = controlnet.object_weight(objects)
    assert weight.mean() == pytest.approx(1) and weight[..., 0] == pytest.approx(3 * weight[..., 3])
    assert torch.equal(
        controlnet.object_weight(torch.zeros(2, 1, 4, 4)), torch.ones(2, 1, 4, 4)
    )  # a landscape
    moments, tokens = torch.zeros(1, 8, 4, 4), torch.zeros(1, 6, dtype=torch.long)
    result = {}
    for name, half in {"on it": (..., slice(0, 2)), "beside it": (..., slice(2, 4))}.items():

        def predict(noisy, t, states, half=half):
            guess = (
                noisy.clone()
            )  # the noise and more than that in one half, and exactly the noise in the other
            guess[half] += 1
            return guess

        monkeypatch.setattr(trainee, "predict", predict)
        trainee.alphas_cumprod.zero_()  # nothing but noise
        torch.manual_seed(0)
        result[name] = float(trainee(moments, tokens, weight=weight)["mse"])
    assert result["on it"] == pytest.approx(3 * result["beside it"])


def test_half_of_the_captions_are_left_out(trainee, monkeypatch):
    seen = []

    def look(noisy, t, states, condition):
        seen.append(states)
        return noisy

    monkeypatch.setattr(trainee, "predict", look)
    torch.manual_seed(0)
    trainee(
        torch.zeros(1000, 8, 1, 1),
        torch.ones(1000, 6, dtype=torch.long),
        torch.zeros(1000, 3, 1, 1),
    )
    empty = trainee.text(torch.zeros(1, 6, dtype=torch.long))[0]
    assert (seen[0] == empty).all((1, 2)).float().mean() == pytest.approx(0.5, abs=0.05)


# --- the estimators' losses


def ramp() -> tuple[torch.Tensor, torch.Tensor]:
    """A slope (1, 32, 32) and a mask of its middle."""
    mask = torch.zeros(1, 32, 32)
    mask[:, 8:24, 8:24] = 1
    return torch.linspace(0, 1, 1024).view(1, 32, 32), mask


def test_an_objects_shape_counts_and_not_where_it_is():
    target, mask = ramp()
    off = lambda guess, target=target, mask=mask: (
        estimators.affine_residual(guess, target, mask).abs().sum() / mask.sum()
    )
    assert off(target + 0.2) == pytest.approx(0, abs=1e-5)
    assert off(torch.where(mask > 0, target, 9.0)) == pytest.approx(0, abs=1e-5)
    assert off(torch.full_like(target, 0.5)) == pytest.approx(
        1, abs=1e-3
    )  # a flat object is off by its deviation
    assert off(-target) == pytest.approx(2, abs=1e-3)
    assert off(3 * target, target=3 * target) == 0 and off(
        6 * target, target=3 * target
    ) == pytest.approx(1, abs=1e-3)
    assert not estimators.affine_residual(target + mask, target, torch.zeros_like(mask)).any()


def test_a_perfect_depth_has_no_loss_and_a_shifted_edge_has():
    target, mask = ramp()
    assert estimators.depth_losses(target, target, mask)["loss"] == pytest.approx(0, abs=1e-5)
    step = (torch.arange(32) > 15).float().expand(1, 32, 32)
    raised, moved = (
        estimators.depth_losses(step + 0.1, step, mask),
        estimators.depth_losses(step.roll(1, 2), step, mask),
    )
    assert raised["slopes"] < 1e-5 < 0.03 < moved["slopes"] and raised["l1"] == pytest.approx(0.1)


def test_normals_are_judged_by_their_angle_on_objects():
    target = torch.zeros(1, 3, 8, 8)
    target[:, 2, 4:] = 1  # a surface below, sky above
    mask = torch.zeros(1, 8, 8)
    mask[:, 5:7] = 1
    perfect = estimators.normal_losses(target, target, mask)
    assert perfect["loss"] == pytest.approx(0, abs=1e-5) and perfect["angle"] == pytest.approx(
        0, abs=0.1
    )
    tilted = target.clone()
    tilted[:, 0] = target[:, 2]
    assert estimators.normal_losses(tilted, target, mask)["angle"] == pytest.approx(45, abs=0.1)


def test_colours_vary_and_shapes_stay():
    images = torch.rand(32, 3, 16, 16)
    changed = color_jitter(images, torch.Generator().manual_seed(0))
    assert changed.shape == images.shape and 0 <= changed.min() and changed.max() <= 1
    assert (changed.mean((1, 2, 3)) - images.mean((1, 2, 3))).std() > 0.03
    flat = lambda x: (x - x.mean((1, 2, 3), keepdim=True)).flatten(1)
    assert torch.cosine_similarity(flat(changed), flat(images)).min() > 0.4


# --- the stages, and what they leave


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_untrained):
    """A work folder with untrained weights of the text-to-image model."""
    work = tmp_path_factory.mktemp("controlnet") / "work"
    write_untrained(work)
    (work / "perceptual" / "weights").mkdir(parents=True)
    (work / "perceptual" / "weights" / "config.json").write_text("{}")
    return work


def train(folder, *arguments: str) -> None:
    train_main(
        [*arguments, "--smoke", "--work", str(folder), "--weights", str(folder.parent / "weights")]
    )


def test_export_without_and_with_what_follows(folder):
    weights = folder.parent / "weights"
    train(folder, "export")
    assert not (weights / "controlnet").exists() and not (weights / "estimators").exists()
    train(folder, "controlnet", "--condition", "canny", "--scenes", "5")
    train(folder, "estimators", "--scenes", "5")
    (folder / "export" / "curve.json").unlink(missing_ok=True)
    train(folder, "export")

    listed = json.loads((weights / "manifest.json").read_text())["files"]
    assert (
        "controlnet/canny/config.json" in listed
        and "estimators/normals/preprocessor_config.json" in listed
    )
    assert not any(name.startswith("controlnet/depth") for name in listed)
    shipped = ControlNetModel.from_pretrained(weights / "controlnet" / "canny")
    trained = ControlNetModel.from_pretrained(folder / "controlnet-canny" / "weights")
    assert shipped.dtype == torch.float32
    assert "_name_or_path" not in (weights / "controlnet" / "canny" / "config.json").read_text()
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(shipped.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    pixels = torch.zeros(1, 3, 256, 256)
    depth = AutoModelForDepthEstimation.from_pretrained(weights / "estimators" / "depth").eval()
    assert depth.dtype == torch.float32 and depth(pixel_values=pixels).predicted_depth.shape == (
        1,
        256,
        256,
    )
    reader = pipeline("depth-estimation", str(weights / "estimators" / "depth"))
    assert reader(Image.new("RGB", (90, 60)))["depth"].size == (90, 60)
    processor = AutoImageProcessor.from_pretrained(weights / "estimators" / "normals")
    assert processor(Image.new("RGB", (90, 60)), return_tensors="pt").pixel_values.shape == (
        1,
        3,
        256,
        256,
    )
    assert processor(
        Image.new("RGB", (90, 60)), return_tensors="pt"
    ).pixel_values.unique().tolist() == [-1]
    normals = AutoModelForSemanticSegmentation.from_pretrained(
        weights / "estimators" / "normals"
    ).eval()
    assert normals(pixel_values=pixels).logits.shape == (1, 3, 256, 256)
    assert list(normals.config.id2label.values()) == list(estimators.AXES)
    record = json.loads((weights / "training.json").read_text())
    assert {"conditions", "controlnet-canny", "estimators-depth", "estimators-normals"} <= set(
        record
    )


def test_the_strip_shows_the_steps(folder):
    if not (folder / "controlnet-canny" / "curve.json").exists():
        train(folder, "controlnet", "--condition", "canny", "--scenes", "5")
    strip = folder / "controlnet-canny" / "strip"
    names = sorted(path.name for path in strip.glob("step-*.png"))
    assert names == ["step-000000.png", "step-000004.png"]
    assert set(np.unique(Image.open(strip / "condition.png"))) == {0, 255}
    page = np.asarray(Image.open(strip / "strip.jpg").convert("RGB"), np.float32)
    assert page.shape[1] == 3 * 100 - 4  # condition, step 0, step 4
    for i, name in enumerate(("condition", *names)):
        row = (
            Image.open((strip / name).with_suffix(".png"))
            .convert("RGB")
            .resize((96, 96), Image.Resampling.LANCZOS)
        )
        assert np.abs(page[-96:, 100 * i : 100 * i + 96] - np.asarray(row, np.float32)).mean() < 12


def test_the_strip_runs_from_left_to_right_and_a_scene_has_a_row():
    rows = {name: Image.new("RGB", (512, 256), "white") for name in ("condition", "step 0", "9600")}
    rows["9600"].paste("red", (256, 0, 512, 256))
    page = np.asarray(controlnet.strip(rows, side=96))
    assert page.shape[1] == 3 * 100 - 4
    assert (page[-196:-100, 200:] == 255).all() and (page[-96:, 200:] == (255, 0, 0)).all()
    assert all((page[:-196, 100 * i : 100 * i + 96] < 128).any() for i in range(3))  # names


def test_the_strip_ships_with_the_weights(folder, tmp_path):
    """From the stage's work folder, and again from the folder that ships."""
    if not (folder / "controlnet-canny" / "curve.json").exists():
        train(folder, "controlnet", "--condition", "canny", "--scenes", "5")
    strip = (folder / "controlnet-canny" / "strip" / "strip.jpg").read_bytes()
    export.save_controlnet(folder / "controlnet-canny" / "weights", tmp_path / "first")
    export.save_controlnet(tmp_path / "first", tmp_path / "again")
    assert (tmp_path / "again" / "strip.jpg").read_bytes() == strip
    digest = json.loads((tmp_path / "again" / "condition.json").read_text())
    assert digest == {"kind": "canny", "sha256": conditions.golden_digest("canny")}


def test_it_goes_on_where_it_was(folder, capsys):
    """An interrupted run is the same command again; --init trains on from the weights."""
    train(folder, "controlnet", "--condition", "scribble", "--scenes", "5")
    train(folder, "controlnet", "--condition", "scribble", "--scenes", "5")
    assert "controlnet-scribble: finished in" in capsys.readouterr().out
    train(
        folder, "controlnet", "--condition", "scribble", "--scenes", "5", "--init", "--steps", "2"
    )
    curve = json.loads((folder / "controlnet-scribble" / "curve.json").read_text())
    assert curve["steps"] == 2 and curve["continued"]


def test_budgets_are_kept_apart(tmp_path, monkeypatch):
    for name, size in {
        "unet": 50,
        "controlnet/canny": 40,
        "estimators/depth": 20,
        "estimators/normals": 20,
    }.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a").write_bytes(bytes(size))
    monkeypatch.setattr(export, "CORE_BUDGET", 50)
    monkeypatch.setattr(export, "BUDGETS", {"controlnet/canny": 40, "estimators": 40})
    monkeypatch.setattr(export, "TOTAL_BUDGET", 130)
    assert export.check_sizes(tmp_path) == 130
    for name, value, message in (
        ("CORE_BUDGET", 49, "without controlnet and estimators"),
        ("TOTAL_BUDGET", 129, "in all"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(export, name, value)
            with pytest.raises(ValueError, match=message):
                export.check_sizes(tmp_path)
    for part in ("controlnet/canny", "estimators"):
        with monkeypatch.context() as patch:
            patch.setitem(export.BUDGETS, part, 39)
            with pytest.raises(ValueError, match=part):
                export.check_sizes(tmp_path)


def test_missing_weights_name_the_command(tmp_path):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    run = Run.from_args(Stage("export"), parser.parse_args(["--smoke", "--work", str(tmp_path)]))
    with pytest.raises(FileNotFoundError, match=r"pocket\.train controlnet --condition depth"):
        run.weights_of(Stage("controlnet", "depth"))
