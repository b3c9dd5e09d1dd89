"""The figures of control: cases computed by hand, and the benchmark on untrained networks."""

import importlib
import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from benchmarks import control
from course import notebooks
from pocket.train import controlnet, estimators
from pocket.train.images import write_processor
from pocket.train.run import CONDITIONS, ESTIMATED


def test_exact_conditions_are_a_perfect_answer(monkeypatch):
    """Scores of images that follow the condition exactly, by `extract`."""
    b = control.Benchmark(
        weights=control.Path("pocket/weights"), device=torch.device("cpu"), images=2
    )
    for kind, best in {"canny": 1, "scribble": 1, "depth": 1, "normals": 0}.items():
        monkeypatch.setattr(b, "extract", lambda kind, images: b.truth(kind), raising=False)
        assert b.score(kind, b.renders.color) == pytest.approx(best, abs=0.05)
    monkeypatch.undo()
    assert b.score("canny", b.renders.color) == 1  # the render is the condition's own source
    assert b.score("canny", b.renders.color.flip(0)) < 0.6
    labels = b.test.labels
    assert len(labels) == 2 and (labels["object"] >= 0).all() and labels["seed"].min() >= 2**40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "0"], "--images: must be a whole number from 2 to 1,000,000, got '0'"),
        (["--images", "many"], "--images: must be"),
        (["--guidance", "nan"], "--guidance: must be a number from 0 to 1,000, got 'nan'"),
        (["--guidance", "-1"], "--guidance: must be"),
        (["--weights", __file__], "--weights: must name a folder"),
        (["--results", str(Path(__file__).parent)], "--results: must name a file of results"),
        (["--results", __file__], "--results: must name a file of results"),
        (["--work", ""], "--work: must name a folder"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message, monkeypatch, capsys):
    monkeypatch.setattr(control, "Benchmark", lambda *_: pytest.fail("began"))
    with pytest.raises(SystemExit, match="2"):
        control.main(["canny", *options])
    assert f"argument {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "module", ["task1", "task2", "task3", "speed", "kernels", "control", "training"]
)
@pytest.mark.parametrize("group", ["", "nothing", "--images=x", "--device=tpu"])
def test_groups_and_options_that_are_none_are_refused(module, group, capsys):
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(f"benchmarks.{module}").main([group])
    assert re.search("error: (unrecognized arguments|argument )", capsys.readouterr().err)


def test_missing_parts_are_named(tmp_path, capsys):
    for arguments, message in (
        (["canny", "depth"], "has no controlnet/canny, controlnet/depth, estimators/depth"),
        (["edges"], "argument GROUP: must be one of canny"),
    ):
        with pytest.raises(SystemExit):
            control.main([*arguments, "--weights", str(tmp_path)])
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_benchmark_runs_and_a_reduced_one_stores_only_what_does_not_count_images(
    tmp_path, monkeypatch
):
    """With ControlNets and estimators that are untrained, control is as good as none."""
    shipped = control.Path("pocket/weights").resolve()
    for part in ("stable-diffusion", "judge", "vocabulary.json"):
        (tmp_path / part).symlink_to(shipped / part)
    unet = UNet2DConditionModel.from_pretrained(shipped / "stable-diffusion" / "unet")
    for kind in CONDITIONS:
        controlnet.build(unet).save_pretrained(tmp_path / "controlnet" / kind)
    for kind in ESTIMATED:
        estimators.build(kind, smoke=True).save_pretrained(tmp_path / "estimators" / kind)
        write_processor(tmp_path / "estimators" / kind, 256)
    run = {"seconds": 120.0, "processes": 1, "device": "a GPU"}
    (tmp_path / "training.json").write_text(
        json.dumps({"denoiser": [run], "controlnet-canny": [run, run]})
    )
    monkeypatch.setattr(control, "STEPS", 1)
    rows = control.main(
        ["--images", "2", "--weights", str(tmp_path), "--results", str(tmp_path / "task1.json")]
    )
    named = {row.id: row for row in rows}
    for kind, (_, unit, sense) in control.METRICS.items():
        steered, free = (named[f"control.{kind}.{key}"] for key in ("score", "score_uncontrolled"))
        assert steered.value == free.value and (steered.unit, steered.sense) == (unit, sense)
    assert named["control.canny.gain"].value == pytest.approx(1)
    assert named["control.canny.gain"].holds is False
    assert named["control.depth.gain"].holds is False
    assert (
        named["control.cost.controlnet_canny_training"].value == 4
        and named["control.cost.controlnet_canny_training"].bar == 8
    )
    assert "control.cost.denoiser_training" not in named
    stored = json.loads((tmp_path / "task1.json").read_text())["rows"]
    assert {row["command"] for row in stored} == {"python -m benchmarks.control cost"}
    assert {row["id"] for row in stored} >= {
        "control.cost.controlnet_canny_size",
        "control.cost.estimators_size",
    }


@pytest.mark.weekly
def test_a_network_that_several_train_is_measured(tmp_path, monkeypatch):
    """At toy size, by one process; conditions that other weights have made are left as they are."""
    monkeypatch.setattr(control, "STEPS", 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    b = control.Benchmark(control.Path("pocket/weights"), torch.device("cpu"), images=2)
    assert control.two_gpu_rows(b, tmp_path) == []  # wants two GPUs
    (tmp_path / "scenes-00000000").mkdir()
    (tmp_path / "source.json").write_text(
        json.dumps({"autoencoder": "another", "tokenizer": "one", "scenes": 16})
    )
    rows = control.two_gpu_rows(b, tmp_path, toy=True)
    assert [(row.bar, row.machine) for row in rows] == [
        (bar, "1 x cpu") for bar in (5.0, 0.6, 3.0, 90.0)
    ]
    assert 0 < rows[0].value < 5 and (tmp_path / "scenes-00000000").is_dir()


def test_guidance_is_the_lessons():
    lesson = notebooks.read(notebooks.ROOT / "task_1_3_ControlNet.ipynb")
    assert notebooks.definitions(lesson, {}).GUIDANCE_SCALE == control.GUIDANCE
