"""The model card says what was measured, and where it falls short."""

import json

import pytest
from diffusers import StableDiffusionPipeline
from safetensors import safe_open

from pocket import card
from pocket.train.export import downsample, training_record, vocabulary
from tests.conftest import ROOT

STORED = ROOT / "pocket" / "weights"


def run_of(steps: int, **more) -> dict:
    rows = [
        {"step": i, "seconds": float(i), "loss": 1 / i, "mse": 2 / i} for i in range(1, steps + 1)
    ]
    return {
        "steps": steps,
        "seconds": 60.0,
        "processes": 2,
        "device": "a GPU",
        "rows": rows,
        **more,
    }


@pytest.fixture
def weights(tmp_path):
    common = {"unit": "%", "sense": ">=", "date": "", "machine": "", "versions": {}, "command": ""}
    rows = [
        {"id": "kept", "figure": "kept goal", "value": 97.0, "bar": 95, "holds": True, **common},
        {
            "id": "missed",
            "figure": "missed goal",
            "value": 12.5,
            "bar": 90,
            "holds": False,
            **common,
        },
    ]
    (tmp_path / "evaluation.json").write_text(json.dumps({"rows": rows}))
    (tmp_path / "training.json").write_text(json.dumps({"denoiser": [run_of(8), run_of(4)]}))
    (tmp_path / "vocabulary.json").write_text(json.dumps(vocabulary()))
    return tmp_path


def test_card_names_what_falls_short_before_the_table(weights):
    text = card.card(weights)
    assert text.index("- missed goal: 12.5 %") < text.index("| kept goal | 97 % |")
    assert "- kept goal" not in text
    assert "2 x 1.0 + 2 x 1.0" in text and "8 + 4" in text
    assert (
        "astronaut" in text and "samples/prompts.jpg" not in text
    )  # no link to an image that is not there


def test_distances_stand_in_a_table_of_their_own(weights):
    stored = json.loads((weights / "evaluation.json").read_text())
    for part, value in (("all", 7.25), ("objects", 9.5)):
        for metric, scale in (("fid", 1), ("kid", 0.001)):
            row = {"id": f"pocket.distances.judge.floor.{part}.{metric}", "value": value * scale}
            stored["rows"].append(row | {"figure": "distance of the floor", "holds": None})
    (weights / "evaluation.json").write_text(json.dumps(stored))
    lines = card.card(weights).splitlines()
    head = lines.index("| features | images | all | objects |")
    assert lines[head + 1] == "| --- | --- | --- | --- |"
    assert lines[head + 2] == "| judge | floor | 7.25 (7.25) | 9.50 (9.50) |"
    assert not any("distance of the floor" in line for line in lines)


@pytest.mark.parametrize("variant", ["fp16", "bf16", "fp32", "ema", "non_ema"])
def test_a_variant_is_refused_as_the_card_says(weights, variant):
    assert "there is no fp16 variant: leave `variant` out" in card.card(weights)
    with pytest.raises(ValueError, match="variant"):
        StableDiffusionPipeline.from_pretrained(STORED / "stable-diffusion", variant=variant)


def test_the_stored_weights_are_float16_as_the_card_says(weights):
    assert "stored in float16 already" in card.card(weights)
    files = sorted((STORED / "stable-diffusion").rglob("*.safetensors"))
    assert len(files) >= 5
    for path in files:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            assert {file.get_slice(name).get_dtype() for name in names} == {"F16"}


def test_the_stored_card_is_what_the_program_writes():
    assert (STORED / "README.md").read_text() == card.card(STORED)


def test_images_that_are_there_are_shown(weights):
    for name in ("samples/prompts.jpg", "controlnet/depth/strip.jpg"):
        (weights / name).parent.mkdir(parents=True, exist_ok=True)
        (weights / name).write_bytes(b"")
        assert f"]({name})" in card.card(weights)
    assert "controlnet/canny/strip.jpg" not in card.card(weights)


def test_curves_are_drawn(weights):
    card.curves(json.loads((weights / "training.json").read_text()), weights / "curves.png")
    assert (weights / "curves.png").stat().st_size > 5000


def test_downsample_keeps_the_last_row():
    rows = [{"step": i, "loss": 0.123456 * i} for i in range(1, 1001)]
    kept = downsample(rows, 100)
    assert len(kept) <= 100 and kept[-1]["step"] == 1000 and kept[-1]["loss"] == 123.5
    assert downsample([], 100) == []


def test_training_record_adds_continued_runs_and_replaces_restarted_ones(tmp_path):
    def leave(**more):
        (tmp_path / "denoiser").mkdir(exist_ok=True)
        (tmp_path / "denoiser" / "curve.json").write_text(
            json.dumps({"stage": "denoiser", **run_of(3, **more)})
        )

    leave(continued=False)
    first = training_record(tmp_path, {"judge": [run_of(2)]})
    assert set(first) == {"judge", "denoiser"} and len(first["denoiser"]) == 1
    assert training_record(tmp_path, first) == first  # exporting twice counts once
    leave(continued=True)
    assert len(training_record(tmp_path, first)["denoiser"]) == 2
    leave(continued=False, seed=1)
    assert len(training_record(tmp_path, first)["denoiser"]) == 1


@pytest.mark.parametrize("missing", ["training.json", "evaluation.json"])
def test_records_that_are_missing_are_named(weights, capsys, missing):
    (weights / missing).unlink()
    with pytest.raises(SystemExit, match="2"):
        card.main(["--weights", str(weights)])
    assert f"has no {missing}: run" in capsys.readouterr().err
    assert not (weights / "samples").exists()
