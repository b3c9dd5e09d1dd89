"""Runs that check themselves: which fields fail, and what a failed run does and leaves."""

import dataclasses
import json

import pytest
import torch

from course.models import embedded_folder, find_model
from task_3_DreamFusion import command_line, runs
from task_3_DreamFusion import main as program
from task_3_DreamFusion.nerf.appraisal import LIMITS, Appearance, Appraiser, find_problem
from task_3_DreamFusion.nerf.guidance import StableDiffusion
from task_3_DreamFusion.nerf.options import FailedRun
from task_3_DreamFusion.nerf.settings import Settings
from task_3_DreamFusion.nerf.utils import Trainer


@pytest.mark.parametrize(
    ("appearance", "problem"),
    [
        (Appearance(0.2, 0.05, 0.6), ""),
        (Appearance(0.001, 0.0, 0.6), "nothing is visible"),
        (Appearance(0.2, 0.95, 0.6), "95% of what is visible is fog"),
        (Appearance(0.2, 0.05, 0.1), "do not look like the text"),
    ],
)
def test_limits_at_the_end(appearance, problem):
    assert problem in find_problem(appearance, LIMITS[-1])
    assert bool(find_problem(appearance, LIMITS[-1])) == bool(problem)


def test_limits_become_stricter():
    shares, fogs, agreements = zip(*map(dataclasses.astuple, LIMITS), strict=True)
    assert list(shares) == sorted(shares) and shares[-1] == 1
    assert list(fogs) == sorted(fogs, reverse=True) and list(agreements) == sorted(agreements)


@pytest.fixture(scope="module")
def appraiser() -> Appraiser:
    return Appraiser(embedded_folder("clip"), torch.device("cpu"))


@pytest.fixture(scope="module")
def trainer(tmp_path_factory) -> Trainer:
    settings = Settings("a red car", iters=8, max_steps=48)
    return Trainer(settings, StableDiffusion(find_model("pocket")), tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize(("density", "problem"), [(0.0, "nothing is visible"), (0.5, "fog")])
def test_an_empty_field_and_fog_fail(appraiser, trainer, density, problem, monkeypatch):
    field = trainer.renderer.field
    monkeypatch.setattr(field, "_activate", lambda raw, x: torch.full_like(raw, density))
    trainer.step = 8
    with pytest.raises(FailedRun, match=f"step 8: .*{problem}"):
        appraiser.after_step(trainer, {})


def test_only_some_steps_are_checked(appraiser, trainer, monkeypatch):
    monkeypatch.setattr(Appraiser, "measure", lambda self, trainer: Appearance(0.0, 0.0, 0.0))
    failed = []
    for trainer.step in range(1, 9):
        try:
            appraiser.after_step(trainer, {})
        except FailedRun:
            failed.append(trainer.step)
    assert failed == [2, 4, 8]


def test_clip_prefers_the_text_of_an_image(appraiser):
    images = torch.zeros(1, 3, 64, 64)
    images[:, 0] = 1.0
    with torch.no_grad():
        red, blue = (appraiser._agreement(images, [f"a {c} car"]) for c in ("red", "blue"))
    assert red > blue


@pytest.fixture
def options(tiny_folder, tmp_path) -> list[str]:
    small = "--iters 3 --size 8 --rays 64 --max_steps 24 --frames 2 --video_size 32 --no-save_mesh"
    here = ["--model", str(tiny_folder), "--workspace", str(tmp_path / "run")]
    return ["--text", "a car", *here, "--seed", "5", "--save_every", "1", *small.split()]


def fail_until(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs with a seed below this one fail at step 2."""

    def check(trainer, figures):
        if trainer.step == 2 and trainer.settings.seed < seed:
            raise FailedRun("step 2: fog")

    monkeypatch.setattr(runs, "load_checks", lambda config: [check])


def test_a_run_that_fails_starts_again_with_the_next_seed(options, tmp_path, capsys, monkeypatch):
    fail_until(7, monkeypatch)
    assert program.main(options) == 0
    printed = capsys.readouterr().out
    for seed in (6, 7):
        assert f"step 2: fog; starting again with --seed {seed}\n" in printed
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["seed"] == 7
    # The files are those of a run that had this seed from the beginning.
    again = list(options)
    again[again.index("--seed") + 1] = "7"
    again[again.index("--workspace") + 1] = str(tmp_path / "again")
    assert program.main(again) == 0
    first, second = (tmp_path / name / "checkpoints/000003.pt" for name in ("run", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_a_run_that_fails_with_all_seeds_says_so(options, tmp_path, capsys, monkeypatch):
    fail_until(100, monkeypatch)
    assert program.main([*options, "--restarts", "1"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: step 2: fog (seeds 5 to 6): ") and "--no-check" in error
    run = tmp_path / "run"
    assert (run / "previews/000002.png").is_file()
    assert not (run / "video.mp4").exists() and not list((run / "checkpoints").iterdir())
    fail_until(0, monkeypatch)
    assert program.main(options) == 0  # nothing of the failed run is in the way


def test_a_failed_prompt_is_tried_again_by_the_next_start(options, tmp_path, capsys, monkeypatch):
    (tmp_path / "texts.txt").write_text("a car\n")
    shared = ["--prompts", str(tmp_path / "texts.txt"), *options[2:]]
    fail_until(100, monkeypatch)
    assert program.main([*shared, "--restarts", "0"]) == 1
    assert "step 2: fog (seed 5)" in (tmp_path / "run/a_car/failed.txt").read_text()
    fail_until(0, monkeypatch)
    assert program.main(shared) == 0
    assert (tmp_path / "run/a_car/video.mp4").is_file()


def test_only_models_with_clip_are_checked(options):
    request = command_line.parse(options)
    config = runs.resolve(request, runs.find_job(request), find_model(request.run.model))
    assert not runs.load_checks(config)
    for extra, count in (([], 1), (["--no-check"], 0)):
        request = command_line.parse([*options[:2], *extra])
        config = runs.resolve(request, runs.find_job(request), find_model("pocket"))
        assert len(runs.load_checks(config)) == count
