"""A run of task 3 on a random model: it learns, is repeatable, resumes, and fails clearly."""

import copy
import dataclasses
import inspect
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from course.errors import CourseError
from course.models import find_model
from task_3_DreamFusion.nerf import sd, utils
from task_3_DreamFusion.nerf.checkpoint import CheckpointError, latest, load, read_run, save
from task_3_DreamFusion.nerf.guidance import StableDiffusion
from task_3_DreamFusion.nerf.network import Background
from task_3_DreamFusion.nerf.options import TrainingError
from task_3_DreamFusion.nerf.provider import ViewRange, orbit
from task_3_DreamFusion.nerf.regularizers import MIN_WEIGHT, regularize
from task_3_DreamFusion.nerf.renderer import RenderOutput, Shading
from task_3_DreamFusion.nerf.settings import REASONS, RunOptions, Settings
from task_3_DreamFusion.nerf.targets import Target, TargetRays, wall_colors
from task_3_DreamFusion.nerf.utils import MAX_OPACITY, MIN_OPACITY, PATIENCE, Trainer
from task_3_DreamFusion.optimizer import Adan

SMALL = Settings(
    "a car",
    iters=8,
    batch_size=2,
    size=8,
    reuse=2,
    rays=64,
    keep=5,
    levels=4,
    max_steps=24,
    grid_size=16,
    albedo_iter_ratio=0.2,
    shaded_ratio=1.0,
)


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


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"backbone": "vanilla", "optim": "adan"},
        {"background": "random", "fade_in": 0},
        {"lambda_tv": 1.0, "widen": 0.5},
        {"background": "network"},
        {"space": "latents"},
        {"space": "latents", "background": "random"},
    ],
)
def test_a_run_changes_the_field_and_returns_its_terms(begin, changes):
    trainer = begin(**changes)
    before = parameters(trainer)
    terms: dict[str, float] = {}
    for _ in range(4):
        terms |= trainer.train_step()
    assert not torch.allclose(parameters(trainer), before, atol=1e-6)
    expected = {"noise_rmse", "opacity", "entropy", "sparsity", "orientation"}
    expected |= {"target_rmse"} if trainer.settings.space == "pixels" else set()
    assert set(terms) == expected | ({"variation"} if "lambda_tv" in changes else set())
    assert all(value == value and abs(value) < 1e6 for value in terms.values())
    assert torch.isfinite(parameters(trainer)).all()


@pytest.mark.parametrize("space", ["pixels", "latents"])
def test_one_seed_one_field(begin, space):
    results = []
    for seed in (1, 1, 2):
        trainer = begin(seed=seed, space=space)
        for _ in range(3):
            trainer.train_step()
        results.append(parameters(trainer))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


@pytest.mark.parametrize("changes", [{}, {"background": "random"}, {"space": "latents"}])
def test_a_resumed_run_equals_one_that_never_stopped(begin, changes):
    whole = begin(**changes)
    whole.train(save_every=4, preview_every=0)
    part = begin(**changes)
    part.resume(read_run(part.checkpoints / "000004.pt"))
    assert part.step == 4
    part.train(preview_every=0)
    assert torch.equal(parameters(part), parameters(whole))
    assert all(torch.equal(a, b) for a, b in zip(part.average, whole.average, strict=True))
    assert json.loads((whole.workspace / "settings.json").read_text())["text"] == "a car"


SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


@pytest.mark.parametrize("space", ["pixels", "latents"])
def test_the_sign_of_the_exercise_decides_the_run(begin, monkeypatch, space):
    """The same seed with the loss of nerf/sd.py negated ends in another field, in both spaces."""
    right = sd.sds_step

    def wrong_sign(*arguments):
        step = right(*arguments)
        return step._replace(loss=-step.loss)

    fields = []
    for function in (right, right, wrong_sign):
        monkeypatch.setattr(sd, "sds_step", function)
        trainer = begin(space=space)
        trainer.train_step()
        fields.append(parameters(trainer))
    assert torch.equal(fields[0], fields[1])
    assert not torch.equal(fields[0], fields[2])


@pytest.fixture
def signals() -> Iterator[None]:
    """The usual handlers: a process in the background may have begun with SIGINT ignored."""
    before = [signal.getsignal(number) for number in SIGNALS]
    for number in SIGNALS:
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


def raise_at(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, step: int, *numbers: int) -> None:
    """Have these signals arrive during a step of a trainer."""
    train_step = trainer.train_step

    def interrupted() -> dict[str, float]:
        if trainer.step == step:
            for number in numbers:
                signal.raise_signal(number)
        return train_step()

    monkeypatch.setattr(trainer, "train_step", interrupted)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_finishes_the_step_and_saves(signals, begin, monkeypatch, number):
    trainer = begin()
    raise_at(trainer, monkeypatch, 2, number)
    handlers = [signal.getsignal(number) for number in SIGNALS]
    assert trainer.train(preview_every=0) is False
    assert latest(trainer.checkpoints).name == "000003.pt" and trainer.interrupt.requested
    assert [signal.getsignal(number) for number in SIGNALS] == handlers


def raise_after(
    target: object, name: str, monkeypatch: pytest.MonkeyPatch, number: int, call: int = 1
) -> None:
    """Have a signal arrive at the end of a call of a method."""
    method, calls = getattr(target, name), []

    def interrupted(*args: object, **options: object) -> object:
        result = method(*args, **options)
        calls.append(result)
        if len(calls) == call:
            signal.raise_signal(number)
        return result

    monkeypatch.setattr(target, name, interrupted)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("method", "call", "last"),
    [
        ("_follow_schedules", 1, 1),  # in the first step
        ("_learn_targets", 2, 2),  # after the field has learned
        ("save", 1, 3),  # while a checkpoint is written
        ("preview", 1, 2),  # while a preview is rendered
        ("_check_opacity", 4, 4),  # at the end of the last step
    ],
)
def test_a_signal_at_any_moment_saves_the_step(
    signals, begin, monkeypatch, number, method, call, last
):
    """And a run goes on from there."""
    monkeypatch.setattr(Trainer, "images", lambda *_: [torch.zeros(5, 128, 128)] * 4)
    trainer = begin(iters=4)
    raise_after(trainer, method, monkeypatch, number, call)
    assert trainer.train(save_every=3, preview_every=2) is (last == 4)
    assert latest(trainer.checkpoints).name == f"{last:06d}.pt" and trainer.interrupt.requested
    resumed = begin(iters=4)
    resumed.resume(read_run(trainer.checkpoints / f"{last:06d}.pt"))
    assert resumed.step == last


def test_a_second_signal_stops_at_once_but_another_hang_up_does_not(signals, begin, monkeypatch):
    trainer = begin()
    raise_at(trainer, monkeypatch, 2, signal.SIGTERM, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(preview_every=0)
    assert latest(trainer.checkpoints) is None
    again = begin()
    raise_at(again, monkeypatch, 2, signal.SIGHUP, signal.SIGHUP, signal.SIGHUP)
    assert again.train(preview_every=0) is False and latest(again.checkpoints).name == "000003.pt"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_is_ignored_stays_ignored(signals, begin, monkeypatch, number):
    """As nohup asks for."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        trainer = begin(iters=4)
        raise_at(trainer, monkeypatch, 2, number)
        assert trainer.train(preview_every=0) is True and not trainer.interrupt.requested
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_step_is_saved_once(signals, begin, monkeypatch):
    """Also where it is the last before an interruption."""
    trainer = begin()
    raise_at(trainer, monkeypatch, 3, signal.SIGINT)
    saved = []
    save = trainer.save
    monkeypatch.setattr(trainer, "save", lambda: saved.append(trainer.step) or save())
    trainer.train(save_every=2, preview_every=0)
    assert saved == [2, 4]


def test_a_preview_is_made_before_the_checkpoint_of_its_step(begin, monkeypatch):
    """A run that is killed in between goes on before that step."""
    trainer = begin()
    monkeypatch.setattr(trainer, "save", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        trainer.train(save_every=2, preview_every=2)
    assert [path.name for path in (trainer.workspace / "previews").iterdir()] == ["000002.png"]


def test_a_non_finite_gradient_is_skipped(begin, monkeypatch, capsys):
    trainer = begin(space="latents")
    right = trainer.guidance.train_step

    def spoilt(*args: object) -> object:
        result = right(*args)
        return dataclasses.replace(result, loss=result.loss * float("nan"))

    trainer.train_step()
    before = parameters(trainer)
    monkeypatch.setattr(trainer.guidance, "train_step", spoilt)
    trainer.train_step()
    assert torch.equal(parameters(trainer), before) and "non-finite" in capsys.readouterr().out
    monkeypatch.setattr(trainer.guidance, "train_step", right)
    trainer.train_step()
    assert (
        not torch.equal(parameters(trainer), before) and torch.isfinite(parameters(trainer)).all()
    )
    monkeypatch.setattr(trainer.guidance, "train_step", spoilt)
    trainer.skipped = PATIENCE - 1
    with pytest.raises(TrainingError, match="--lr"):
        trainer.train_step()


def test_the_wall_of_a_target_is_the_median_where_the_field_is_empty():
    default = torch.tensor([0.1, 0.2, 0.3])
    images = torch.rand(3, 3, 4, 4)
    opacity = torch.ones(3, 4, 4)
    opacity[0, :2] = 0.0
    opacity[1, 3, 3] = 0.01
    colors = wall_colors(images, opacity.flatten(), default)
    expected = [images[0, :, :2].flatten(1).median(dim=1).values, images[1, :, 3, 3], default]
    assert torch.equal(colors, torch.stack(expected))


def test_the_field_does_not_show_the_wall_of_its_targets(begin, monkeypatch):
    """The model chooses another wall at each step; the field stays as empty as it was."""

    def walls(images, *_):
        colors = torch.rand(len(images), 3, 1, 1)
        return colors.expand_as(images), real(images, *_)[1]

    opacity = {}
    for default in (False, True):
        trainer = begin(size=16, iters=45, rays=256, reuse=4, lambda_opacity=0, albedo_iter_ratio=1)
        real = trainer.guidance.target_images
        with monkeypatch.context() as patch:
            patch.setattr(trainer.guidance, "target_images", walls)
            if default:
                patch.setattr(utils, "wall_colors", lambda x, _, color: color.expand(len(x), 3))
            for _ in range(45):
                figures = trainer.train_step()
        opacity[default] = figures["opacity"]
    assert opacity[False] < 0.5 * opacity[True]


@pytest.mark.parametrize(
    ("opacity", "message"), [(0.001, "become empty"), (0.999, "filled its box")]
)
def test_an_empty_or_full_field_ends_the_run(begin, opacity, message):
    trainer = begin()
    trainer.opacities.extend([opacity] * (PATIENCE - 1))
    trainer._check_opacity()
    trainer.opacities.append(opacity)
    with pytest.raises(TrainingError, match=message):
        trainer._check_opacity()


@pytest.mark.parametrize(
    ("density", "message"), [(-30.0, "has become empty"), (30.0, "has filled its box")]
)
def test_the_limits_of_opacity_fit_real_fields(begin, density, message, monkeypatch):
    """The images of such a field exceed the limits from all sides; those of a new one do not."""
    trainer = begin(widen=0, batch_size=4)
    trainer.train_step()
    assert MIN_OPACITY < trainer.opacities[-1] < MAX_OPACITY
    monkeypatch.setattr(
        trainer.renderer.field,
        "_activate",
        lambda raw, x: torch.nn.functional.softplus(raw + density),
    )
    trainer.renderer.density_grid.fill_(100.0)
    trainer.renderer.bits.fill_(255)
    trainer.opacities.clear()
    with pytest.raises(TrainingError, match=message):
        for _ in range(PATIENCE):
            trainer.train_step()
    assert trainer.step <= PATIENCE + 1


def test_half_precision_lowers_its_scale_until_nothing_overflows(begin, capsys):
    """As on a GPU, with half precision of the CPU: the scale is far too large at first."""
    trainer = begin(iters=60, space="latents")
    trainer.half, trainer.scaler = True, torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before, steps = parameters(trainer), 0
    while torch.equal(parameters(trainer), before):
        trainer.train_step()
        steps += 1
        assert steps < PATIENCE
    assert steps > 1 and trainer.scaler.get_scale() == 2.0 ** (40 - steps + 1)
    assert (
        capsys.readouterr().out.count("the step is skipped, and the gradient scale lowered to")
        == steps - 1
    )
    terms = trainer.train_step()
    assert torch.isfinite(parameters(trainer)).all() and all(
        value == value for value in terms.values()
    )


def test_tensorboard_reads_the_terms(begin):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = begin(iters=10)
    trainer.train(preview_every=0)
    events = EventAccumulator(str(trainer.workspace / "logs")).Reload()
    assert {"noise_rmse", "opacity", "entropy", "sparsity"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("noise_rmse")] == [10]


def test_images_are_of_the_average(begin):
    trainer = begin(ema=0.5)
    trainer.train_step()
    own = parameters(trainer)
    with trainer.averaged():
        assert not torch.equal(parameters(trainer), own)
    assert torch.equal(parameters(trainer), own)
    images = trainer.images(orbit(2), 12, "normals")
    assert len(images) == 2 and images[0].shape == (5, 12, 12)


def test_preview_is_an_image(begin):
    trainer = begin()
    trainer.train_step()
    path = trainer.preview()
    assert Image.open(path).width >= 4 * 128 and list(path.parent.iterdir()) == [path]


def interrupt_preview(trainer: Trainer, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `trainer.preview` end with KeyboardInterrupt at some point of its work."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def save_half(image: Image.Image, path: Path) -> None:
        path.write_bytes(b"half")
        stop()

    places = {
        "while it is rendered": (trainer, "images", stop),
        "while the grid is composed": (utils, "image_grid", stop),
        "before the first byte": (Image.Image, "save", stop),
        "within the file": (Image.Image, "save", save_half),
        "before it reaches the disk": (os, "fsync", stop),
        "before it gets its name": (Path, "replace", stop),
    }
    monkeypatch.setattr(*places[at])


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize(
    "at",
    [
        "while it is rendered",
        "while the grid is composed",
        "before the first byte",
        "within the file",
        "before it reaches the disk",
        "before it gets its name",
    ],
)
def test_an_interrupted_preview_is_the_old_one_or_none(begin, monkeypatch, at, is_there):
    trainer = begin()
    trainer.train_step()
    rendered = torch.rand(4, 5, 128, 128)  # what takes most of the time
    monkeypatch.setattr(trainer, "images", lambda *_: [*rendered])
    before = {}
    if is_there:
        path = trainer.preview()
        before = {path: path.read_bytes()}
    interrupt_preview(trainer, at, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        trainer.preview()
    files = (trainer.workspace / "previews").rglob("*")
    assert {path: path.read_bytes() for path in files} == before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError()])
def test_a_preview_that_cannot_be_saved_leaves_the_old_one(begin, monkeypatch, error):
    trainer = begin()
    trainer.train_step()
    path = trainer.preview()
    before = path.read_bytes()

    def fail(image: Image.Image, path: Path) -> None:
        path.write_bytes(before[:99])
        raise error

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(type(error)):
        trainer.preview()
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_preview_shows_the_field_from_four_sides_and_what_the_guidance_wants(begin, monkeypatch):
    trainer = begin()
    trainer.train_step()
    sheets: list[tuple[list, dict]] = []
    whole = utils.image_grid
    monkeypatch.setattr(
        utils,
        "image_grid",
        lambda images, **more: sheets.append((images, more)) or whole(images, **more),
    )
    trainer.preview()
    [(images, more)] = sheets
    assert more["columns"] == 4 and len(more["titles"]) == len(images) == 8
    angles = trainer.cameras.azimuth, trainer.cameras.elevation
    wanted = trainer.guidance.preview(trainer.guided, trainer.prompts, *angles, trainer.progress)
    expected = [rendered[:3] for rendered in trainer.images(orbit(4), 128)]
    expected += [
        batch[0] for batch in (trainer.guidance.decode_latents(trainer.guided.latents), *wanted)
    ]
    for image, rendered in zip(images, expected, strict=True):
        difference = np.asarray(image, float) / 255 - rendered.permute(1, 2, 0).numpy()
        assert abs(difference).max() < 0.003  # half a level of 255


@pytest.mark.parametrize("ema", [0.0, 0.3, 0.95, 1.0])
def test_the_average_keeps_its_share(begin, ema):
    trainer = begin(ema=ema, reuse=1)
    for _ in range(2):
        before = torch.cat([p.flatten() for p in trainer.average]).clone()
        trainer.train_step()
        after = torch.cat([p.flatten() for p in trainer.average])
        torch.testing.assert_close(
            after, ema * before + (1 - ema) * parameters(trainer), atol=1e-7, rtol=1e-5
        )


def test_weights_of_the_regularizers_change_during_the_run(begin):
    """The entropy's grows from zero; the sparsity's falls to a fifth in the first half."""
    trainer = begin()
    cameras = trainer.views.sample(2, trainer.generator)
    rendered = trainer.renderer(cameras, 8, 8, trainer.generator)
    terms = [
        regularize(rendered, trainer.renderer, trainer.settings, progress)
        for progress in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    entropy, sparsity = (
        torch.stack([term[name] for term in terms]).detach() for name in ("entropy", "sparsity")
    )
    assert entropy[0] == 0 < entropy[-1]
    torch.testing.assert_close(entropy / entropy[-1], torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    torch.testing.assert_close(sparsity / sparsity[0], torch.tensor([1.0, 0.6, 0.2, 0.2, 0.2]))
    opacity = rendered.opacity.clamp(1e-5, 1 - 1e-5)
    bits = -(opacity * opacity.log2() + (1 - opacity) * (1 - opacity).log2()).mean()
    torch.testing.assert_close(entropy[-1], trainer.settings.lambda_entropy * bits)
    torch.testing.assert_close(
        sparsity[0],
        trainer.settings.lambda_opacity * (opacity**2 + 0.01).sqrt().mean(),
        rtol=1e-3,
        atol=0,
    )


def test_the_field_learns_what_the_targets_show(begin, monkeypatch):
    """Of the last few images, from where each was seen, and lit as each was."""
    trainer = begin(albedo_iter_ratio=0.5, keep=5, textureless_ratio=0.0)
    shown = torch.rand(trainer.settings.batch_size, 3, 8, 8)
    step = trainer.guidance.target_images

    def targets(*args: object) -> tuple[torch.Tensor, object]:
        return shown.clone(), step(*args)[1]

    monkeypatch.setattr(trainer.guidance, "target_images", targets)
    for _ in range(6):
        trainer.train_step()
    assert len(trainer.targets) == 5 and {target.shading.mode for target in trainer.targets} == {
        "albedo",
        "lambertian",
    }
    marched: list[tuple[torch.Tensor, ...]] = []
    calls: list[tuple[torch.Tensor, ...]] = []
    march, render = trainer.renderer.march, trainer.renderer.render
    monkeypatch.setattr(
        trainer.renderer, "march", lambda *args: marched.append(args) or march(*args)
    )
    monkeypatch.setattr(
        trainer.renderer, "render", lambda *args: calls.append(args) or render(*args)
    )
    trainer._learn_targets()
    [(all_origins, all_directions, _)] = marched
    assert len(calls) == trainer.settings.reuse
    parts = (rays.split(trainer.settings.rays) for rays in (all_origins, all_directions))
    for origins, directions, (_, its_directions, owners, shading, _) in zip(
        *parts, calls, strict=True
    ):
        assert torch.equal(directions, its_directions)
        group = [target for target in trainer.targets if target.shading.mode == shading.mode]
        assert owners.max() < len(group)
        for origin, direction, owner in zip(origins, directions, owners, strict=True):
            eyes, rays = group[owner].camera.rays(8, 8)
            torch.testing.assert_close(origin, eyes[0, 0, 0])
            assert (rays - direction).abs().sum(-1).min() < 1e-5
        if shading.is_lit:
            lights = torch.cat([target.shading.lights for target in group])
            assert torch.equal(shading.lights, lights)


def test_a_field_learns_the_color_of_its_targets(begin, monkeypatch):
    """Red from everywhere: after some steps the field is red where it is seen."""
    trainer = begin(
        iters=40,
        background="random",
        albedo_iter_ratio=1.0,
        lr=1e-2,
        lambda_entropy=0.0,
        lambda_opacity=0.0,
        widen=0.0,
    )
    red = torch.tensor([0.9, 0.1, 0.1])[:, None, None].expand(2, 3, 8, 8)
    step = trainer.guidance.target_images
    monkeypatch.setattr(trainer.guidance, "target_images", lambda *args: (red, step(*args)[1]))
    terms = [trainer.train_step() for _ in range(40)]
    assert terms[-1]["target_rmse"] < 0.3 * terms[0]["target_rmse"]
    middle = trainer.images(orbit(1), 9)[0][:3, 4, 4]
    assert middle[0] > 0.7 and middle[1:].max() < 0.3


def lit(trainer: Trainer) -> RenderOutput:
    """An image that is lit, with normals."""
    cameras = trainer.views.sample(2, trainer.generator)
    shading = Shading("lambertian", cameras.poses()[:, :3, 3])
    return trainer.renderer(cameras, 8, 8, trainer.generator, shading)


def test_normals_that_face_away_are_penalized(begin):
    """Weighted by the visibility of each sample, per ray; no gradient reaches the weights."""
    trainer = begin(lambda_orient=3.0, bound=2.0)
    rendered = lit(trainer)
    terms = regularize(rendered, trainer.renderer, trainer.settings, 0.5)
    rays, seen = 2 * 8 * 8, rendered.weights.detach()
    away = (rendered.normals * rendered.directions).sum(-1).clamp(min=0)
    assert 0 < (away > 0).float().mean() < 1
    torch.testing.assert_close(terms["orientation"], 3 * (seen * away**2).sum() / rays)
    gradient = torch.autograd.grad(terms["orientation"], rendered.weights, allow_unused=True)[0]
    assert gradient is None


def test_normals_that_differ_from_those_of_the_targets_are_penalized(begin):
    """Of samples that are seen, on rays with a surface; the weight grows in the first half."""
    trainer = begin(lambda_normals=3.0)
    rendered = lit(trainer)
    renderer, settings = trainer.renderer, trainer.settings
    rays = rendered.ray_indices
    seen = rendered.weights.detach() * (rendered.weights > MIN_WEIGHT)
    up = torch.tensor([0.0, 1.0, 0.0]).repeat(2 * 8 * 8, 1)
    up[:40] = 0  # no surface
    differences = (rendered.normals - up[rays]).square().sum(-1) * (rays >= 40)
    expected = 3 * (seen * differences).sum() / len(up)
    assert expected > 0
    for progress, share in ((0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.9, 1.0)):
        terms = regularize(rendered, renderer, settings, progress, up)
        torch.testing.assert_close(terms["normals"], share * expected)
    assert "normals" not in regularize(rendered, renderer, settings, 0.5)


@pytest.fixture(scope="module")
def seeing(steered_folder) -> StableDiffusion:
    """A model with an estimator of normals beside it."""
    return StableDiffusion(find_model(steered_folder))


def test_targets_have_normals_if_the_model_has_an_estimator(begin, seeing, tmp_path):
    trainer = Trainer(SMALL, seeing, tmp_path / "seeing")
    terms = trainer.train_step() | trainer.train_step()
    assert "normals" in terms and "normals" not in begin().train_step()
    target = trainer.targets[0]
    assert target.normals.shape == target.image.shape
    other = Target.from_state(target.state(), SMALL, torch.device("cpu"))
    assert torch.equal(other.normals, target.normals)
    plain = [dataclasses.replace(target, normals=None)]
    assert TargetRays.from_targets(plain, SMALL.size, torch.device("cpu")).normals is None


@pytest.mark.parametrize("azimuth", [0.0, 90.0, 200.0])
def test_the_normals_of_rays_are_those_of_the_world(azimuth):
    """A wall that faces the camera has the normal that points to the camera."""
    camera = orbit(1, elevation=20.0, start=azimuth)
    image = torch.zeros(3, 4, 4)
    facing = torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand_as(image)
    target = Target(camera, image, Shading(), torch.zeros(3), facing)
    rays = TargetRays.from_targets([target], 4, torch.device("cpu"))
    towards = camera.poses()[0, :3, 3] - camera.target[0]
    torch.testing.assert_close(rays.normals, (towards / towards.norm()).expand(16, 3))


def test_the_gradient_is_that_of_the_loss_and_of_all_terms(begin, monkeypatch):
    trainer = begin(lambda_tv=1.0)
    rendered = lit(trainer)
    loss = rendered.image.square().mean()
    terms = regularize(rendered, trainer.renderer, trainer.settings, trainer.progress)
    parameters = list(trainer.renderer.parameters())
    expected = torch.autograd.grad(loss + sum(terms.values()), parameters, retain_graph=True)
    monkeypatch.setattr(trainer.optimizer, "step", lambda: None)
    assert set(trainer._learn(loss, rendered)) == set(terms)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_differences_of_neighbors_in_the_grid_are_penalized(begin):
    trainer = begin(lambda_tv=2.0)
    rendered = lit(trainer)
    encoder = trainer.renderer.field.encoder
    expected = 2 * encoder.total_variation(rendered.positions)
    terms = regularize(rendered, trainer.renderer, trainer.settings, 0.5)
    torch.testing.assert_close(terms["variation"], expected)
    plain = begin(lambda_tv=2.0, backbone="vanilla")
    assert "variation" not in regularize(lit(plain), plain.renderer, plain.settings, 0.5)


@pytest.mark.parametrize("name", ["entropy", "sparsity", "orientation", "variation"])
def test_a_weight_of_zero_turns_a_term_off(begin, name):
    trainer = begin(lambda_tv=1.0)
    rendered = lit(trainer)
    names = ("entropy", "sparsity", "orientation", "variation")
    whole = regularize(rendered, trainer.renderer, trainer.settings, 0.5)
    assert set(whole) == set(names)
    weights = dict(zip(names, ("entropy", "opacity", "orient", "tv"), strict=True))
    without = dataclasses.replace(trainer.settings, **{f"lambda_{weights[name]}": 0.0})
    assert set(regularize(rendered, trainer.renderer, without, 0.5)) == set(names) - {name}
    unlit = trainer.renderer(trainer.views.sample(2, trainer.generator), 8, 8, trainer.generator)
    terms = regularize(unlit, trainer.renderer, trainer.settings, 0.5)
    assert set(terms) == {"entropy", "sparsity", "variation"}


@pytest.mark.parametrize(
    ("step", "occupancy"),
    [(0, 1.0), (1, None), (16, 1.0), (40, None), (48, 1.0), (63, None), (64, 0.25), (96, 0.25)],
)
def test_schedules_of_a_run(begin, monkeypatch, step, occupancy):
    """Levels fade in over fade_in, views widen over widen; the grid is renewed every 16 steps."""
    trainer = begin(iters=100, fade_in=1.0, widen=0.4, space="latents")
    calls: dict[str, list] = {"levels": [], "share": [], "occupancy": []}
    fade_in, narrow = trainer.renderer.field.fade_in, trainer.views.narrow
    monkeypatch.setattr(
        trainer.renderer.field, "fade_in", lambda x: calls["levels"].append(x) or fade_in(x)
    )
    monkeypatch.setattr(
        trainer.renderer, "update_occupancy", lambda _, x: calls["occupancy"].append(x)
    )
    monkeypatch.setattr(ViewRange, "narrow", lambda self, x: calls["share"].append(x) or narrow(x))
    trainer.step = step
    trainer.train_step()
    assert calls["levels"] == [pytest.approx(0.4 + 0.006 * step)]
    assert calls["share"] == [pytest.approx(min(1, 0.5 + 0.5 * step / 40))]
    assert calls["occupancy"] == ([] if occupancy is None else [occupancy])
    assert trainer.step == step + 1


def test_light_comes_after_its_share_of_the_run_from_near_the_camera(begin):
    trainer = begin(iters=100, albedo_iter_ratio=0.3, shaded_ratio=0.7, textureless_ratio=0.25)
    cameras = trainer.views.sample(2, trainer.generator)
    for step in (0, 29):
        trainer.step = step
        assert {trainer.shading(cameras).mode for _ in range(50)} == {"albedo"}
    trainer.step = 30
    shadings = [trainer.shading(cameras) for _ in range(2000)]
    shares = {
        look: sum(s.mode == look for s in shadings) / len(shadings)
        for look in ("albedo", "lambertian", "textureless")
    }
    assert shares["albedo"] == pytest.approx(0.3, abs=0.03)
    assert shares["textureless"] == pytest.approx(0.7 * 0.25, abs=0.03)
    lights = torch.stack([s.lights for s in shadings if s.is_lit])  # (N, 2, 3)
    assert all(s.ambient == 0.1 for s in shadings if s.is_lit)
    eyes = cameras.poses()[:, :3, 3]
    torch.testing.assert_close(lights.mean(0), eyes, atol=0.2, rtol=0)
    spread = (0.8 * cameras.radius)[:, None].expand(2, 3)
    torch.testing.assert_close(lights.std(0), spread, rtol=0.1, atol=0)


def test_the_returned_terms_are_those_of_the_step(begin):
    trainer = begin(space="latents")
    terms = trainer.train_step()
    assert terms["opacity"] == trainer.opacities[-1] and 0 < terms["opacity"] < 1
    assert terms["noise_rmse"] == pytest.approx(trainer.guided.noise_rmse.item())
    assert trainer.progress == 1 / trainer.settings.iters


def test_the_progress_bar_shows_the_text_and_an_interruption_is_announced(
    signals, begin, monkeypatch, capsys
):
    text = "a car " + "x" * 60
    trainer = begin(text=text, iters=4)
    raise_at(trainer, monkeypatch, 1, signal.SIGINT)
    trainer.train(preview_every=0)
    printed = capsys.readouterr()
    assert f"{text[:40]}:" in printed.err and "stopping after this step ..." in printed.out


@pytest.mark.parametrize(
    ("background", "kind"), [("network", Background), ("plain", type(None)), ("random", type(None))]
)
def test_only_a_network_background_is_trained(begin, background, kind):
    assert isinstance(begin(background=background).renderer.background, kind)


def test_defaults_are_those_of_the_command_line():
    parameters = inspect.signature(Trainer.train).parameters
    for name in ("save_every", "preview_every"):
        assert parameters[name].default == getattr(RunOptions(), name)
    assert Settings("a car").prompt == "a car on a plain background"
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.lr = 1.0


@pytest.mark.parametrize(("space", "scale"), [("pixels", 1024), ("latents", 16)])
def test_the_scale_of_half_precision_begins_where_little_overflows(
    begin, monkeypatch, space, scale
):
    built = []
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(
        torch.amp, "GradScaler", lambda *args, **more: built.append(more) or scaler(*args, **more)
    )
    begin(space=space)
    assert built == [{"init_scale": scale, "enabled": False}]  # on a CPU


def test_optimizers_have_their_settings(begin):
    adam, adan = begin(lr=0.01).optimizer, begin(lr=0.01, optim="adan").optimizer
    assert isinstance(adam, torch.optim.Adam) and isinstance(adan, Adan)
    for optimizer in (adam, adan):
        sizes = [sum(p.numel() for p in group["params"]) for group in optimizer.param_groups]
        assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.1] and sizes[
            1
        ] > 10 * sizes[0]
    assert (adam.defaults["betas"], adam.defaults["eps"]) == ((0.9, 0.99), 1e-15)
    assert (adan.defaults["eps"], adan.defaults["weight_decay"]) == (1e-8, 2e-5)
    [plain] = begin(lr=0.01, backbone="vanilla").optimizer.param_groups
    assert plain["lr"] == 0.01


def test_another_runs_checkpoint_is_refused(begin):
    trainer = begin()
    trainer.train_step()
    path = trainer.save()
    other = {
        "backbone": "vanilla",
        "levels": 5,
        "bound": 2.0,
        "grid_size": 32,
        "background": "random",
        "optim": "adan",
        "space": "latents",
        "size": 16,
    }
    for name, value in other.items():
        with pytest.raises(
            CheckpointError, match=f"{name} {getattr(SMALL, name)!r}, this run has {value!r}"
        ):
            begin(**{name: value}).resume(read_run(path))


@pytest.mark.parametrize("optimizer", ["adam", "adan"])
def test_the_learning_rate_of_a_resumed_run_is_its_own(begin, optimizer):
    trainer = begin(optim=optimizer)
    trainer.train_step()
    path = trainer.save()
    for lr in (0.5, 1e-4, SMALL.lr):
        resumed = begin(optim=optimizer, lr=lr)
        resumed.resume(read_run(path))
        assert [group["lr"] for group in resumed.optimizer.param_groups] == pytest.approx(
            [lr, 10 * lr]
        )
        before = parameters(resumed)
        resumed.train_step()
        assert (parameters(resumed) - before).abs().max() > 0.1 * lr
        state = resumed.optimizer.state_dict()["state"]
        assert {int(values["step"]) for values in state.values()} == {
            2 * SMALL.reuse
        }  # the averages went on


def test_a_new_seed_starts_new_random_numbers_and_the_old_one_goes_on(begin):
    trainer = begin()
    trainer.train_step()
    path = trainer.save()
    numbers = []
    for seed in (0, 0, 5, 5, 6):
        resumed = begin(seed=seed)
        resumed.resume(read_run(path))
        numbers.append(torch.rand(4, generator=resumed.generator))
    assert torch.equal(numbers[0], numbers[1]) and torch.equal(
        numbers[0], torch.rand(4, generator=trainer.generator)
    )
    assert torch.equal(numbers[2], torch.rand(4, generator=torch.Generator().manual_seed(5)))
    assert torch.equal(numbers[2], numbers[3]) and not torch.equal(numbers[2], numbers[4])


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("now", [False, True])
def test_precision_may_change_on_resume(begin, before, now):
    """As on a GPU, with the half precision of the CPU."""

    def trainer(half: bool) -> Trainer:
        built = begin(space="latents", half=half)
        built.half, built.scaler = half, torch.amp.GradScaler("cpu", init_scale=16.0, enabled=half)
        return built

    first = trainer(before)
    first.train_step()
    if before:
        first.scaler.update(64.0)
    path = first.save()
    second = trainer(now)
    second.resume(read_run(path))
    second.train_step()
    assert second.describe()["settings"]["half"] is now and second.step == 2
    scales = {(False, False): 1.0, (True, False): 1.0, (False, True): 16.0, (True, True): 64.0}
    assert second.scaler.get_scale() == scales[before, now]


@pytest.mark.parametrize("name", ["tiny", "./tiny", "../{parent}/tiny", "{folder}", "{folder}/"])
def test_a_model_in_a_folder_is_described_by_its_whole_path(begin, guidance, monkeypatch, name):
    folder = guidance.model.folder
    monkeypatch.chdir(folder.parent)
    named = name.replace("tiny", folder.name).format(parent=folder.parent.name, folder=folder)
    monkeypatch.setattr(guidance, "model", find_model(named))
    assert begin().describe()["model"] == str(folder)
    for known in ("pocket", "sd-2.1-base", "owner/name"):
        monkeypatch.setattr(guidance, "model", dataclasses.replace(guidance.model, name=known))
        assert begin().describe()["model"] == known


# --- Checkpoints of other programs


def changed(value: object) -> Callable[[dict], None]:
    """A change of a state: `changed(7)("a", 0, "b")` puts 7 to state["a"][0]["b"]."""

    def at(*place: object) -> Callable[[dict], None]:
        def change(state: dict) -> None:
            for key in place[:-1]:
                state = state[key]
            state[place[-1]] = value

        return change

    return at


ONES = torch.ones(3)
FOREIGN = {
    "another program's": lambda state: state.clear(),
    "no settings": lambda state: state.pop("settings"),
    "settings a list": changed([1])("settings"),
    "settings null": changed(None)("settings"),
    "no text": lambda state: state["settings"].pop("text"),
    "text a number": changed(7)("settings", "text"),
    "text no Unicode": changed("\ud800")("settings", "text"),
    "iters a text": changed("many")("settings", "iters"),
    "iters of 0": changed(0)("settings", "iters"),
    "lr that is none": changed(float("nan"))("settings", "lr"),
    "size that is vast": changed(10**9)("settings", "size"),
    "backbone of others": changed("tree")("settings", "backbone"),
    "guidance null": changed(None)("guidance"),
    "guidance a tensor": changed(ONES)("guidance"),
    "t_range of one": changed([0.5])("guidance", "t_range"),
    "model null": changed(None)("model"),
    "model with a zero": changed("a\0b")("model"),
    "half a text": changed("yes")("settings", "half"),
    "renderer null": changed(None)("renderer"),
    "renderer empty": changed({})("renderer"),
    "renderer of another size": changed(ONES)("renderer", "density_grid"),
    "renderer with numbers": changed(7)("renderer", "density_grid"),
    "average short": lambda state: state["average"].pop(),
    "average of another shape": changed(ONES)("average", 0),
    "average of texts": changed("x")("average", 0),
    "average null": changed(None)("average"),
    "optimizer null": changed(None)("optimizer"),
    "optimizer without state": changed({})("optimizer"),
    "optimizer's state a list": changed([1])("optimizer", "state"),
    "optimizer's state of another shape": changed(ONES)("optimizer", "state", 0, "exp_avg"),
    "optimizer's state of a text": changed("x")("optimizer", "state", 0, "exp_avg"),
    "optimizer's state of another optimizer": changed({"mean": ONES})("optimizer", "state", 0),
    "optimizer's step negative": changed(-3.0)("optimizer", "state", 0, "step"),
    "optimizer's step a list": changed([1])("optimizer", "state", 0, "step"),
    "optimizer with a parameter more": changed({"step": 1.0})("optimizer", "state", 99),
    "generator null": changed(None)("generator"),
    "generator short": changed(torch.zeros(3, dtype=torch.uint8))("generator"),
    "generator of numbers": changed(torch.ones(5056))("generator"),
    "opacities a text": changed("abc")("opacities"),
    "opacities of texts": changed(["x"])("opacities"),
    "opacities null": changed(None)("opacities"),
    "targets null": changed(None)("targets"),
    "targets of numbers": changed([7])("targets"),
    "a target without a camera": lambda state: state["targets"][0].pop("camera"),
    "a target's camera of another shape": changed(ONES)("targets", 0, "camera", "radius"),
    "a target's camera with more": changed(ONES)("targets", 0, "camera", "roll"),
    "a target of another size": changed(torch.ones(3, 9, 9))("targets", 0, "image"),
    "a target's look": changed("shiny")("targets", 0, "mode"),
    "a target's lights": changed(ONES)("targets", 0, "lights"),
    "a target that is lit by nothing": changed("lambertian")("targets", 0, "mode"),
    "a target's ambient": changed("x")("targets", 0, "ambient"),
    "a target before nothing": changed(None)("targets", 0, "background_color"),
    "a target's wall": changed(torch.ones(1))("targets", 0, "background_color"),
}


@pytest.fixture(scope="module")
def trained_state(guidance, tmp_path_factory) -> dict:
    trainer = Trainer(SMALL, guidance, tmp_path_factory.mktemp("trained"))
    trainer.train_step()
    trainer.targets[0] = dataclasses.replace(trainer.targets[0], shading=Shading())
    return load(trainer.save())[1]


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_a_checkpoint_of_another_program_is_refused(begin, trained_state, tmp_path, change):
    """Whole, with the right checksums, but no run can have written it."""
    state = copy.deepcopy(trained_state)
    change(state)
    with pytest.raises(CheckpointError, match="holds something else than a run of task 3"):
        begin().resume(read_run(save(tmp_path / "other", 1, state)))


def test_the_unchanged_checkpoint_is_accepted(begin, trained_state, tmp_path):
    trainer = begin()
    trainer.resume(read_run(save(tmp_path / "other", 1, trained_state)))
    trainer.train_step()
    assert trainer.step == 2


@pytest.mark.parametrize("seed", range(40))
def test_a_checkpoint_with_any_change_is_refused_or_resumed(begin, trained_state, tmp_path, seed):
    """Some part of a real one, replaced by something else."""
    random = Random(seed)
    state = copy.deepcopy(trained_state)
    place: Any = state
    while True:
        key = random.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or random.random() < 0.2:
            break
        place = place[key]
    wrong = [
        None,
        7,
        -1,
        0.5,
        float("inf"),
        "x",
        [],
        {},
        [1, "x"],
        {"a": 1},
        ONES,
        torch.zeros(1),
        True,
        10**30,
    ]
    place[key] = random.choice(wrong)
    trainer = begin()
    try:
        trainer.resume(read_run(save(tmp_path / "other", 1, state)))
        trainer.train_step()
    except CourseError:
        pass


def test_full_memory_is_not_reported_as_a_foreign_checkpoint(
    begin, trained_state, tmp_path, monkeypatch
):
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    trainer = begin()
    monkeypatch.setattr(trainer.optimizer, "load_state_dict", full)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.resume(read_run(save(tmp_path / "other", 1, trained_state)))


# --- Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"backbone": "tree"},
        {"optim": "sgd"},
        {"iters": 0},
        {"batch_size": -1},
        {"lr": 0.0},
        {"seed": -5},
        {"albedo_iter_ratio": 1.5},
        {"lambda_opacity": -1.0},
        {"lr": float("nan")},
        {"bound": float("inf")},
        {"grid_size": 48},
        {"lambda_entropy": float("nan")},
        {"seed": 2**64},
        {"space": "colors"},
        {"background": "sky"},
        {"reuse": 0},
        {"rays": -1},
        {"keep": 0},
        {"levels": 17},
    ],
)
def test_settings_out_of_range(wrong):
    with pytest.raises(TrainingError, match=next(iter(wrong))):
        dataclasses.replace(SMALL, **wrong)


INTEGERS = {
    item.name: item
    for item in dataclasses.fields(Settings)
    if item.type is int and not item.metadata["choices"]
}
LIMITS = {
    "iters": (1, 10**7),
    "batch_size": (1, 1024),
    "size": (1, 2048),
    "reuse": (1, 10**4),
    "rays": (1, 10**6),
    "keep": (1, 10**5),
    "levels": (1, 16),
    "max_steps": (1, 10**4),
    "seed": (0, 2**63 - 1),
    "lr": (1e-8, 10),
    "bound": (0.01, 100),
    "albedo_iter_ratio": (0, 1),
    "shaded_ratio": (0, 1),
    "textureless_ratio": (0, 1),
    "fade_in": (0, 1),
    "widen": (0, 1),
    "ema": (0, 1),
    "lambda_entropy": (0, 10**6),
    "lambda_opacity": (0, 10**6),
    "lambda_orient": (0, 10**6),
    "lambda_tv": (0, 10**6),
    "lambda_normals": (0, 10**6),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_are_allowed_and_values_beyond_are_not(name):
    limited = {item.name for item in dataclasses.fields(Settings) if item.metadata["limits"]}
    assert limited == LIMITS.keys()
    least, most = LIMITS[name]
    for value in (least, most):
        assert getattr(dataclasses.replace(SMALL, **{name: value}), name) == value
    beyond = [least - 1, most + 1, None, "7", True, [7], float("nan"), float("inf"), 10**40]
    beyond += [least + 0.5] if name in INTEGERS else [least - 1e-9, most + 1e-3]
    for value in beyond:
        with pytest.raises(TrainingError, match=f"^{name} must be "):
            dataclasses.replace(SMALL, **{name: value})


def test_only_a_value_that_is_too_large_gets_a_reason():
    for name, item in INTEGERS.items():
        smallest, largest = item.metadata["limits"]
        message = f"{name} must be from {smallest:,} to {largest:,}, got "
        with pytest.raises(TrainingError) as raised:
            dataclasses.replace(SMALL, **{name: largest + 1})
        assert str(raised.value) == f"{message}{largest + 1:,}. {REASONS[name]}"
        with pytest.raises(TrainingError) as raised:
            dataclasses.replace(SMALL, **{name: smallest - 1})
        assert str(raised.value) == f"{message}{smallest - 1:,}."


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("space", ("pixels", "latents")),
        ("background", ("plain", "network", "random")),
        ("backbone", ("grid", "vanilla")),
        ("optim", ("adan", "adam")),
        ("grid_size", (8, 16, 32, 64, 128, 256)),
    ],
)
def test_choices_are_allowed_and_nothing_else_is(name, choices):
    for choice in choices:
        assert getattr(dataclasses.replace(SMALL, **{name: choice}), name) == choice
    for wrong in ("", None, [], {}, 257, 512, 4, "Grid", "pixel"):
        with pytest.raises(
            TrainingError, match=f"^{name} must be one of {', '.join(map(str, choices))}, got "
        ):
            dataclasses.replace(SMALL, **{name: wrong})


def test_numbers_of_numpy_and_pytorch_are_numbers():
    built = dataclasses.replace(
        SMALL, iters=np.int64(9), size=torch.tensor(8), lr=np.float32(0.5), grid_size=np.int32(16)
    )
    assert (built.iters, built.size, built.lr, built.grid_size) == (9, 8, 0.5, 16)
    assert json.loads(json.dumps(dataclasses.asdict(built))) == dataclasses.asdict(built)


@pytest.mark.parametrize("name", ["text", "negative", "scene"])
@pytest.mark.parametrize("value", ["\udcff", "a \ud83c car", 7, None, b"a car"])
def test_invalid_text_is_refused(name, value):
    with pytest.raises(TrainingError, match=f"^{name} must be (UTF-8, and character|text, got)"):
        dataclasses.replace(SMALL, **{name: value})
