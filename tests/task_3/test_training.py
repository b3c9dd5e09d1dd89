"""A run of Task 3 on a model with random weights: it moves, repeats itself, goes on where it stopped, and says when it
cannot."""

import dataclasses
import json
import signal

import pytest
import torch

from course.models import find_model
from task_3_DreamFusion.nerf.checkpoint import CheckpointError, latest, save
from task_3_DreamFusion.nerf.provider import orbit
from task_3_DreamFusion.nerf.sd import StableDiffusion
from task_3_DreamFusion.nerf.utils import EMPTY, FULL, RECENT, SPACES, Settings, Trainer, TrainingError

SMALL = Settings(
    "a car", iters=8, batch=2, size=8, reuse=2, rays=64, keep=5, levels=4, steps=24, cells=16, albedo=0.2, shaded=1.0,
    smoothness=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def guidance(tmp_path_factory) -> StableDiffusion:
    from tests.conftest import build_tiny_model

    return StableDiffusion(find_model(build_tiny_model(tmp_path_factory.mktemp("tiny"))))


@pytest.fixture
def begin(guidance, tmp_path):
    def make(**changes: object) -> Trainer:
        return Trainer(dataclasses.replace(SMALL, **changes), guidance, tmp_path / "run")

    return make


def parameters(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.renderer.parameters()])


@pytest.mark.parametrize("changes", [
    {}, {"backbone": "vanilla", "optimizer": "adan"}, {"background": "random", "fade_in": 0},
    {"variation": 1.0, "widen": 0.5}, {"background": "network"}, {"space": "latents"},
    {"space": "latents", "background": "random"},
])  # fmt: skip
def test_a_run_moves_the_field_and_names_its_terms(begin, changes):
    trainer = begin(**changes)
    before = parameters(trainer)
    terms: dict[str, float] = {}
    for _ in range(4):
        terms |= trainer.train_step()
    assert not torch.allclose(parameters(trainer), before, atol=1e-6)
    expected = {"error", "opacity", "entropy", "sparsity", "orientation", "smoothness"}
    expected |= {"difference"} if trainer.settings.space == "pixels" else set()
    assert set(terms) == expected | ({"variation"} if "variation" in changes else set())
    assert all(value == value and abs(value) < 1e6 for value in terms.values())
    assert torch.isfinite(parameters(trainer)).all()


@pytest.mark.parametrize("space", SPACES)
def test_one_seed_one_field(begin, space):
    found = []
    for seed in (1, 1, 2):
        trainer = begin(seed=seed, space=space)
        for _ in range(3):
            trainer.train_step()
        found.append(parameters(trainer))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize("changes", [{}, {"background": "random"}, {"space": "latents"}])
def test_a_run_that_stopped_goes_on_as_if_it_had_not(begin, changes):
    whole = begin(**changes)
    whole.train(save_every=4, preview_every=0)
    part = begin(**changes)
    part.resume(part.checkpoints / "000004")
    assert part.step == 4
    part.train(preview_every=0)
    assert torch.equal(parameters(part), parameters(whole))
    assert all(torch.equal(a, b) for a, b in zip(part.average, whole.average, strict=True))
    assert json.loads((whole.workspace / "settings.json").read_text())["text"] == "a car"


def test_ctrl_c_finishes_the_step_and_saves(begin, monkeypatch):
    trainer = begin()
    step = trainer.train_step

    def interrupted() -> dict[str, float]:
        if trainer.step == 2:
            signal.raise_signal(signal.SIGINT)
        return step()

    monkeypatch.setattr(trainer, "train_step", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    assert trainer.train(preview_every=0) is False
    assert latest(trainer.checkpoints).name == "000003" and signal.getsignal(signal.SIGINT) is handler


def test_a_gradient_that_is_no_number_is_left_out(begin, monkeypatch, capsys):
    trainer = begin(space="latents")
    right = trainer.guidance.train_step

    def spoilt(*args: object) -> object:
        result = right(*args)
        return dataclasses.replace(result, loss=result.loss * float("nan"))

    trainer.train_step()
    before = parameters(trainer)
    monkeypatch.setattr(trainer.guidance, "train_step", spoilt)
    trainer.train_step()
    assert torch.equal(parameters(trainer), before) and "not finite" in capsys.readouterr().out
    monkeypatch.setattr(trainer.guidance, "train_step", right)
    trainer.train_step()
    assert not torch.equal(parameters(trainer), before) and torch.isfinite(parameters(trainer)).all()
    monkeypatch.setattr(trainer.guidance, "train_step", spoilt)
    trainer.skipped = RECENT - 1
    with pytest.raises(TrainingError, match="--lr"):
        trainer.train_step()


@pytest.mark.parametrize(("opacity", "said"), [(0.001, "empty.*--lambda_opacity"), (0.999, "filled its box")])
def test_a_field_that_is_lost_is_noticed(begin, opacity, said):
    trainer = begin()
    trainer.opacities.extend([opacity] * (RECENT - 1))
    trainer._watch()
    trainer.opacities.append(opacity)
    with pytest.raises(TrainingError, match=said):
        trainer._watch()


@pytest.mark.parametrize(("density", "said"), [(-30.0, "has become empty"), (30.0, "has filled its box")])
def test_a_field_that_is_empty_or_full_to_the_rim_is_seen_as_that(begin, density, said, monkeypatch):
    """The pictures of such a field are beyond the limits, wherever the cameras stand; those of a new one are not."""
    trainer = begin(widen=0, batch=4)
    trainer.train_step()
    assert EMPTY < trainer.opacities[-1] < FULL
    monkeypatch.setattr(trainer.renderer.field, "_activate", lambda raw, x: torch.nn.functional.softplus(raw + density))
    trainer.renderer.density_grid.fill_(100.0)
    trainer.renderer.bits.fill_(255)
    trainer.opacities.clear()
    with pytest.raises(TrainingError, match=said):
        for _ in range(RECENT):
            trainer.train_step()
    assert trainer.step <= RECENT + 1


def test_half_precision_lowers_its_scale_until_nothing_overflows(begin, capsys):
    """As on a GPU, with the scaler and the half precision of the CPU: a scale far too large to begin with."""
    trainer = begin(iters=60, space="latents")
    trainer.half, trainer.scaler = True, torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before, steps = parameters(trainer), 0
    while torch.equal(parameters(trainer), before):
        trainer.train_step()
        steps += 1
        assert steps < RECENT
    assert steps > 1 and trainer.scaler.get_scale() == 2.0 ** (40 - steps + 1)
    assert capsys.readouterr().out.count("the step is left out, and the gradient's scale lowered to") == steps - 1
    terms = trainer.train_step()
    assert torch.isfinite(parameters(trainer)).all() and all(value == value for value in terms.values())


def test_tensorboard_reads_the_terms(begin):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = begin(iters=10)
    trainer.train(preview_every=0)
    events = EventAccumulator(str(trainer.workspace / "logs")).Reload()
    assert {"error", "opacity", "entropy", "sparsity"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("error")] == [10]


def test_pictures_are_of_the_average(begin):
    trainer = begin(ema=0.5)
    trainer.train_step()
    own = parameters(trainer)
    with trainer.averaged():
        assert not torch.equal(parameters(trainer), own)
    assert torch.equal(parameters(trainer), own)
    pictures = trainer.pictures(orbit(2), 12, "normals")
    assert len(pictures) == 2 and pictures[0].shape == (5, 12, 12)


def test_preview_is_a_picture(begin):
    from PIL import Image

    trainer = begin()
    trainer.train_step()
    assert Image.open(trainer.preview()).width >= 4 * 128


def test_the_field_learns_what_the_targets_show(begin, monkeypatch):
    """Of the last few pictures, from where each was seen, and lit as each was."""
    trainer = begin(albedo=0.5, keep=5, textureless=0.0)
    shown = torch.rand(trainer.settings.batch, 3, 8, 8)
    step = trainer.guidance.targets

    def targets(*args: object) -> tuple[torch.Tensor, object]:
        return shown.clone(), step(*args)[1]

    monkeypatch.setattr(trainer.guidance, "targets", targets)
    for _ in range(6):
        trainer.train_step()
    assert len(trainer.targets) == 5 and {target.shading.look for target in trainer.targets} == {"albedo", "lambertian"}
    marched: list[tuple[torch.Tensor, ...]] = []
    asked: list[tuple[torch.Tensor, ...]] = []
    march, render = trainer.renderer.march, trainer.renderer.render
    monkeypatch.setattr(trainer.renderer, "march", lambda *args: marched.append(args) or march(*args))
    monkeypatch.setattr(trainer.renderer, "render", lambda *args: asked.append(args) or render(*args))
    trainer._learn_targets()
    [(all_origins, all_directions, _)] = marched
    assert len(asked) == trainer.settings.reuse
    parts = (rays.split(trainer.settings.rays) for rays in (all_origins, all_directions))
    for origins, directions, (_, its_directions, owners, shading, _) in zip(*parts, asked, strict=True):
        assert torch.equal(directions, its_directions)
        group = [target for target in trainer.targets if target.shading.look == shading.look]
        assert owners.max() < len(group)
        for origin, direction, owner in zip(origins, directions, owners, strict=True):
            eyes, rays = group[owner].camera.rays(8, 8)
            torch.testing.assert_close(origin, eyes[0, 0, 0])
            assert (rays - direction).abs().sum(-1).min() < 1e-5
        if shading.is_lit:
            lights = torch.cat([target.shading.lights for target in group])
            assert torch.equal(shading.lights, lights)


def test_a_field_comes_to_look_like_its_targets(begin, monkeypatch):
    """Red from everywhere: after some steps the field is red where it is seen."""
    trainer = begin(iters=40, albedo=1.0, lr=1e-2, entropy=0.0, sparsity=0.0, widen=0.0)
    red = torch.tensor([0.9, 0.1, 0.1])[:, None, None].expand(2, 3, 8, 8)
    step = trainer.guidance.targets
    monkeypatch.setattr(trainer.guidance, "targets", lambda *args: (red, step(*args)[1]))
    terms = [trainer.train_step() for _ in range(40)]
    assert terms[-1]["difference"] < 0.3 * terms[0]["difference"]
    middle = trainer.pictures(orbit(1), 9)[0][:3, 4, 4]
    assert middle[0] > 0.7 and middle[1:].max() < 0.3


def test_another_runs_checkpoint_is_refused(begin):
    trainer = begin()
    trainer.train_step()
    path = trainer.save()
    with pytest.raises(CheckpointError, match="backbone 'grid', this run has 'vanilla'"):
        begin(backbone="vanilla").resume(path)
    with pytest.raises(CheckpointError, match="bound"):
        begin(bound=2.0).resume(path)


def test_what_is_no_run_is_refused(begin, tmp_path):
    """Whole, but of something else; or of a network of another size."""
    trainer = begin()
    state = trainer.described() | {"renderer": {}}
    for wrong in ({"x": 1}, {"settings": [1]}, state, state | {"renderer": trainer.renderer.state_dict()}):
        with pytest.raises(CheckpointError, match="another network|something else"):
            begin().resume(save(tmp_path / "other", 1, wrong))


@pytest.mark.parametrize("wrong", [
    {"backbone": "tree"}, {"optimizer": "sgd"}, {"iters": 0}, {"batch": -1}, {"lr": 0.0}, {"seed": -5}, {"albedo": 1.5},
    {"sparsity": -1.0}, {"lr": float("nan")}, {"bound": float("inf")}, {"cells": 48}, {"entropy": float("nan")},
    {"seed": 2**64}, {"space": "colours"}, {"background": "sky"}, {"reuse": 0}, {"rays": -1}, {"keep": 0},
    {"levels": 17},
])  # fmt: skip
def test_settings_out_of_range(wrong):
    with pytest.raises(TrainingError, match=next(iter(wrong))):
        dataclasses.replace(SMALL, **wrong)
