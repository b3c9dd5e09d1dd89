"""The training loop: it learns, averages, saves, resumes after a kill, in several processes."""

import argparse
import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from pocket.train import export, loop
from pocket.train.__main__ import main as train_main
from pocket.train.run import Run, Stage, add_arguments, folders

TOY = textwrap.dedent(
    """
    import argparse, sys, time
    import torch
    from torch import nn
    from safetensors.torch import save_file
    from pocket.train import loop
    from pocket.train.run import Run, Stage, add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parser.add_argument("--pause", type=float, default=0.0)
    args = parser.parse_args()
    loop.SAVE_MINUTES = 0.0
    run = Run.from_args(Stage("toy"), args)
    torch.manual_seed(1)
    model = nn.Linear(4, 1)

    def loss_fn(net, step, fraction):
        time.sleep(args.pause)
        x = torch.randn(64, 4, generator=run.generator)
        # Each process has its own target, so only averaged gradients lead to their mean.
        return {"loss": (net(x).squeeze(1) - x.sum(1) - run.rank).square().mean()}

    save = lambda folder: save_file(dict(model.state_dict()), folder / "model.safetensors")
    settings = loop.Settings(steps=150, minutes=5, warmup=5, ema_decays=(0.9,))
    loop.train(run, model, loop.adamw(model, 0.05), loss_fn, save, settings)
    run.accelerator.end_training()
    """
)


def make_run(tmp_path, *options: str) -> Run:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return Run.from_args(Stage("toy"), parser.parse_args(["--work", str(tmp_path), *options]))


def toy(tmp_path, *options: str, launcher: tuple[str, ...] = (sys.executable,)) -> list[str]:
    script = tmp_path / "toy.py"
    script.write_text(TOY)
    return [*launcher, str(script), "--work", str(tmp_path), *options]


def run_toy(tmp_path, *options: str, launcher: tuple[str, ...] = (sys.executable,)) -> str:
    """Run the toy to its end; return what it printed."""
    command = toy(tmp_path, *options, launcher=launcher)
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.returncode == 0, process.stdout
    return process.stdout


def weights(tmp_path, name: str = "weight") -> torch.Tensor:
    from safetensors.torch import load_file

    return load_file(tmp_path / "toy" / "weights" / "model.safetensors")[name]


def test_schedule_warms_up_and_ends_at_zero():
    assert loop.lr_factor(0, 0.0, 10) == pytest.approx(0.1)
    assert loop.lr_factor(9, 0.0, 10) == 1
    assert loop.lr_factor(500, 0.5, 10) == pytest.approx(0.5)
    assert loop.lr_factor(500, 1.0, 10) == pytest.approx(0)


def test_the_average_warms_up_and_copies_back():
    model = nn.Linear(2, 2)
    ema = loop.build_ema(model, decay=0.5)
    start = model.weight.detach().clone()
    ema.step(model.parameters())
    with torch.no_grad():
        model.weight.add_(1)
    ema.step(model.parameters())  # the decay is still warming up: (1 + 1) / (10 + 1)
    ema.copy_to(model.parameters())
    torch.testing.assert_close(model.weight.detach(), start + 1 - 2 / 11)


def test_averaged_gives_the_own_weights_back():
    model = nn.Linear(2, 2)
    ema = loop.build_ema(model, 0.999)
    own = model.weight.detach().clone()
    ema.shadow_params[0].zero_()
    with loop.ema_weights(model, ema):
        assert model.weight.abs().sum() == 0
    torch.testing.assert_close(model.weight.detach(), own)


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_the_average_with_the_lowest_loss_is_kept(tmp_path, target):
    model = nn.Linear(4, 1, bias=False)
    nn.init.zeros_(model.weight)
    decays = (
        0.0,
        0.999,
    )  # the last weights, which reach 1, and an average that is still close to 0

    def validate() -> float:
        return float((model.weight.detach() - target).abs().mean())

    def loss_fn(net, step, fraction):
        return {"loss": (net.weight - 1).square().mean()}

    settings = loop.Settings(steps=12, minutes=5, warmup=1, ema_decays=decays)
    optimizer = torch.optim.SGD(model.parameters(), 4.0)
    run = make_run(tmp_path)
    loop.train(run, model, optimizer, loss_fn, lambda f: None, settings, validate)
    curve = json.loads((tmp_path / "toy" / "curve.json").read_text())
    best = min(curve["ema"], key=curve["ema"].get)
    assert best == ("0.999" if target == 0 else "0.0")
    assert validate() == pytest.approx(curve["ema"][best])


def test_training_learns_and_writes_its_curve(tmp_path):
    run_toy(tmp_path)
    torch.testing.assert_close(weights(tmp_path), torch.ones(1, 4), atol=0.05, rtol=0)
    curve = json.loads((tmp_path / "toy" / "curve.json").read_text())
    assert curve["steps"] == 150 and curve["rows"][-1]["loss"] < 0.01 < curve["rows"][0]["loss"]
    assert not (tmp_path / "toy" / "state.pt").exists()
    assert make_run(tmp_path).is_finished and not make_run(tmp_path, "--init").is_finished


def test_minutes_end_a_run(tmp_path):
    run_toy(tmp_path, "--minutes", "0.02", "--pause", "0.05")
    curve = json.loads((tmp_path / "toy" / "curve.json").read_text())
    assert curve["steps"] < 150 and curve["seconds"] >= 1.2


def stop(tmp_path, number: signal.Signals) -> int:
    """Start the toy, stop it by a signal after its first checkpoint; return its step."""
    process = subprocess.Popen(
        toy(tmp_path, "--pause", "0.05"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "toy" / "state.pt").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    assert process.wait(30) != 0
    state = torch.load(tmp_path / "toy" / "state.pt", weights_only=True)
    return state["progress"]["step"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_from_its_state(tmp_path, number):
    reached = stop(tmp_path, number)
    assert 0 < reached < 150
    assert f"resuming from step {reached}" in run_toy(tmp_path)
    rows = json.loads((tmp_path / "toy" / "curve.json").read_text())["rows"]
    assert [row["step"] for row in rows] == list(range(1, 151))
    torch.testing.assert_close(weights(tmp_path), torch.ones(1, 4), atol=0.05, rtol=0)


def test_two_processes_train_one_model(tmp_path):
    # If the connection breaks on a busy machine, they restart from their checkpoint.
    options = ("--standalone", "--nproc_per_node", "2", "--max_restarts", "2")
    run_toy(tmp_path, launcher=(sys.executable, "-m", "torch.distributed.run", *options))
    curve = json.loads((tmp_path / "toy" / "curve.json").read_text())
    assert curve["processes"] == 2 and curve["steps"] == 150
    torch.testing.assert_close(weights(tmp_path), torch.ones(1, 4), atol=0.05, rtol=0)
    torch.testing.assert_close(weights(tmp_path, "bias"), torch.tensor([0.5]), atol=0.05, rtol=0)


def test_an_interrupted_run_remembers_that_it_continued(tmp_path):
    (tmp_path / "toy").mkdir()
    process = subprocess.Popen(
        toy(tmp_path, "--init", "--pause", "0.05"), stderr=subprocess.DEVNULL
    )
    while not (tmp_path / "toy" / "state.pt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    run_toy(tmp_path)  # without --init
    assert json.loads((tmp_path / "toy" / "curve.json").read_text())["continued"] is True


def test_a_stopped_run_has_logged_all_its_steps(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reached = stop(tmp_path, signal.SIGINT)
    log = EventAccumulator(str(tmp_path / "logs" / "toy"))
    log.Reload()
    assert [event.step for event in log.Scalars("loss")] == list(range(1, reached + 1))


def test_a_toy_run_stays_away_from_what_ships():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    real, smoke = (folders(parser.parse_args(options)) for options in ([], ["--smoke"]))
    assert [path.as_posix() for path in real] == ["outputs/pocket", "pocket/weights"]
    assert not {*real} & {*smoke} and smoke[0] in smoke[1].parents


def test_time_adds_up_over_interruptions_and_finished_work_costs_nothing(tmp_path):
    run = make_run(tmp_path)
    for images in (10, 5, 0):
        run.record_time(time.perf_counter() - 60, images)
    spent = json.loads((run.folder / "time.json").read_text())
    assert 120 <= spent["seconds"] < 180 and spent["images"] == 15


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    run, model = make_run(tmp_path), nn.Linear(1, 1)

    def loss_fn(net, step, fraction):
        return {"loss": net(torch.ones(1, 1)).sum() * float("nan")}

    with pytest.raises(FloatingPointError, match="step 1"):
        settings = loop.Settings(steps=3, minutes=1)
        loop.train(run, model, loop.adamw(model, 0.1), loss_fn, lambda folder: None, settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "-1"], "--steps: must be a whole number of at least 1, got '-1'"),
        (["--steps", "0"], "--steps: must be a whole number"),
        (["--batch", "0"], "--batch: must be a whole number from 1 to 65,536, got '0'"),
        (["--batch", "1000000000"], "--batch: must be"),
        (["--minutes", "nan"], "--minutes: must be a number of at least 0.001, got 'nan'"),
        (["--minutes", "0"], "--minutes: must be"),
        (["--minutes", "inf"], "--minutes: must be"),
        (["--scenes", "-5"], "--scenes: must be"),
        (["--scenes", "0"], "--scenes: must be"),
        (["--extra", "-1"], "--extra: must be"),
        (["--seed", "-1"], "--seed: must be a whole number from 0 to 4,294,967,295"),
        (["--seed", "4294967296"], "--seed: must be"),
        (["--work", ""], "--work: must name a folder, got ''"),
        (["--work", __file__], "--work: must name a folder"),
        (["--weights", f"{__file__}/x"], "--weights: must name a folder"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_done(
    options, message, monkeypatch, capsys
):
    monkeypatch.setattr(Run, "from_args", lambda *_: pytest.fail("the stage started"))
    with pytest.raises(SystemExit, match="2"):
        train_main(["judge", *options])
    assert f"argument {message}" in capsys.readouterr().err


def test_options_at_the_ends_of_what_is_allowed(tmp_path):
    options = (
        "--steps 1 --batch 65536 --minutes 0.001 --seed 4294967295 --scenes 1 --extra 0".split()
    )
    run = make_run(tmp_path, *options)
    assert (run.steps, run.batch, run.minutes, run.scenes, run.extra) == (1, 65536, 0.001, 1, 0)
    assert run.seed == 2**32 - 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            FileNotFoundError("no weights of 'judge': run `python -m pocket.train judge` first"),
            "export: no weights of",
        ),
        (OSError(28, "No space left on device"), "No space left on device"),
        (FloatingPointError("the loss is not finite at step 3"), "export: the loss is not finite"),
        (torch.OutOfMemoryError("CUDA out of memory"), "try --batch with half of it"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "try --batch with half of it",
        ),
        (MemoryError(), "try --batch with half of it"),
    ],
)
def test_a_stage_that_cannot_go_on_says_why_in_a_line(error, message, tmp_path, monkeypatch):
    def fail(run):
        raise error

    monkeypatch.setattr(export, "main", fail)
    with pytest.raises(SystemExit, match=message):
        train_main(["export", "--smoke", "--work", str(tmp_path)])


def test_an_error_of_the_program_keeps_its_traceback(tmp_path, monkeypatch):
    def fail(run):
        raise RuntimeError("a fault")

    monkeypatch.setattr(export, "main", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        train_main(["export", "--smoke", "--work", str(tmp_path)])


def test_a_work_folder_that_cannot_be_created_is_named(monkeypatch, tmp_path):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path / "x"))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(SystemExit, match="judge: .*Permission denied"):
        train_main(["judge", "--work", str(tmp_path / "x")])


def test_missing_weights_name_the_command_that_makes_them(tmp_path):
    run = make_run(tmp_path, "--weights", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=r"pocket\.train towers"):
        run.weights_of("towers")
