"""The figures of control: cases computed by hand, and the benchmark on untrained networks."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from benchmarks import control
from course import notebooks
from pocket.train import controlnet, estimators
from pocket.train.images import write_processor
from pocket.train.run import CONDITIONS, ESTIMATED


def lines(*columns: int, size: int = 32) -> np.ndarray:
    """A map with vertical lines at these columns."""
    page = np.zeros((size, size), np.uint8)
    page[:, list(columns)] = 255
    return page


@pytest.mark.parametrize(
    ("lines_", "expected", "f1"),
    [
        (lines(10), lines(10), 1),
        (lines(12), lines(10), 1),  # two pixels away still counts
        (lines(13), lines(10), 0),  # three do not
        (lines(10, 20), lines(10), 2 / 3),  # precision 1/2, recall 1
        (lines(10), lines(10, 20), 2 / 3),  # precision 1, recall 1/2
        (lines(10, 20), lines(10, 28), 0.5),
        (lines(), lines(10), 0),
        (lines(10), lines(), 0),
        (lines(), lines(), 1),
    ],
)
def test_f1_within_two_pixels(lines_, expected, f1):
    assert control.edge_f1(lines_, expected) == pytest.approx(f1)


def test_the_reach_is_round():
    """(2, 2) is farther than two pixels, (0, 2) is not."""
    dot = lambda row, column: (
        np.eye(32, dtype=np.uint8)[row][:, None] * np.eye(32, dtype=np.uint8)[column]
    )
    assert (
        control.edge_f1(dot(12, 12), dot(10, 10)) == 0
        and control.edge_f1(dot(10, 12), dot(10, 10)) == 1
    )


def test_spearman_asks_for_the_order_inside_the_mask_alone():
    wanted = np.arange(16.0).reshape(4, 4)
    mask = np.zeros((4, 4), np.uint8)
    mask[1:3] = 1
    assert control.spearman(wanted**3, wanted, mask) == pytest.approx(1)
    assert control.spearman(-wanted, wanted, mask) == pytest.approx(-1)
    noisy = np.where(mask > 0, wanted, -wanted)
    assert control.spearman(noisy, wanted, mask) == pytest.approx(1)
    swapped = wanted.copy()
    swapped[1, 0], swapped[1, 1] = wanted[1, 1], wanted[1, 0]
    assert control.spearman(swapped, wanted, mask) == pytest.approx(
        1 - 6 * 2 / (8 * 63)
    )  # 1 - 6 sum d^2 / n(n^2 - 1)


def test_a_flat_guess_earns_nothing_and_a_flat_truth_asks_nothing():
    wanted, mask = np.arange(16.0).reshape(4, 4), np.ones((4, 4))
    assert control.spearman(np.ones((4, 4)), wanted, mask) == 0
    assert np.isnan(control.spearman(wanted, np.ones((4, 4)), mask))
    assert np.isnan(control.spearman(wanted, wanted, np.zeros((4, 4))))


def test_mean_angle_in_degrees():
    up, front = np.tile([0.0, 1, 0], (4, 4, 1)), np.tile([0.0, 0, 1], (4, 4, 1))
    everywhere, half = np.ones((4, 4)), np.repeat([1, 0], 8).reshape(4, 4)
    assert control.mean_angle(up, up, everywhere) == pytest.approx(0)
    assert control.mean_angle(up, front, everywhere) == pytest.approx(90)
    mixed = np.where(half[..., None] > 0, up, front)
    assert control.mean_angle(mixed, front, everywhere) == pytest.approx(45)
    assert control.mean_angle(mixed, front, 1 - half) == pytest.approx(0)
    assert control.mean_angle(np.zeros((4, 4, 3)), front, everywhere) == pytest.approx(90)
    assert np.isnan(control.mean_angle(up, front, np.zeros((4, 4))))


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
    "module", ["task1", "task2", "task3", "cuda_graphs", "kernels", "control", "training"]
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


@pytest.mark.slow
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
