"""The arithmetic of the evaluation: what counts, what is correct, and how rows are replaced."""

import argparse
import json
import re

import numpy as np
import pytest
import torch

from pocket import cost, evaluate, quality, test_set
from pocket.test_set import CaptionedScenes, sample_test_set
from pocket.train import judge as judging
from pocket.world import vocabulary as v


def scene(**labels: str | float) -> np.ndarray:
    """A record with the named classes; what is left out is the plainest scene."""
    record = v.empty_labels()
    if "landscape" not in labels:
        usual = {
            "pattern": "plain",
            "relation": "none",
            "ground": "grass",
            "lighting": "day",
            "count": "one",
        }
        labels = usual | labels
    for name, value in {"style": "photo", **labels}.items():
        record[name] = v.CLASSES[name].index(value) if isinstance(value, str) else value
    return record


def seen_as(labels: np.ndarray) -> dict[str, np.ndarray]:
    """The readings of a judge that is never wrong."""
    readings = {}
    for group, classes in judging.GROUPS.items():
        if group == "azimuth":
            readings[group] = labels["azimuth"]
        elif group == "overhead":
            readings[group] = np.where(labels["elevation"] >= 60, "yes", "no")
        else:
            skipped = classes[0] == "none" and group != "relation"
            names = classes[int(skipped) :]
            readings[group] = np.array(["none" if k < 0 else names[k] for k in labels[group]])
    return readings


SCENES = np.array(
    [
        scene(object="cat", color="red", azimuth=10.0, elevation=20.0),
        scene(object="cat", color="red", style="pencil sketch", azimuth=90.0),
        scene(object="mug", color="blue", lighting="night"),
        scene(object="bunny", relation="on", object2="pancakes", azimuth=170.0, elevation=70.0),
        scene(landscape="beach", time="sunset", weather="clear"),
    ]
)


def test_a_colour_counts_only_where_it_shows_and_a_view_only_of_a_front():
    rows = test_set.scored_masks(SCENES)
    assert rows["color"].tolist() == [True, False, False, False, False]
    assert rows["view"].tolist() == [True, True, False, True, False]
    assert rows["landscape"].tolist() == [False] * 4 + [True]
    assert rows["object"].tolist() == [True] * 4 + [False]


def test_only_what_the_caption_names_counts():
    mentions = [
        frozenset({"object"}),
        frozenset({"object", "view"}),
        frozenset(),
        frozenset({"relation"}),
        frozenset(),
    ]
    rows = test_set.scored_masks(SCENES, mentions)
    assert rows["object"].tolist() == [True, True, False, False, False]
    assert rows["view"].tolist() == [False, True, False, False, False]
    assert not rows["color"].any() and rows["relation"].tolist() == [
        False,
        False,
        False,
        True,
        False,
    ]


def test_a_perfect_judge_is_right_everywhere_and_a_wrong_one_where_it_errs():
    seen = seen_as(SCENES)
    counts, hits = test_set.scored_masks(SCENES), test_set.correct_masks(SCENES, seen)
    assert all(hits[name][counts[name]].all() for name in test_set.ATTRIBUTES)
    seen["object"] = seen["object"].copy()
    seen["object"][0] = "duck"
    assert test_set.correct_masks(SCENES, seen)["object"].tolist() == [
        False,
        True,
        True,
        True,
        True,
    ]
    rows = quality.percent_rows(
        "judge", "judge", counts, test_set.correct_masks(SCENES, seen), {"object": 98, "color": 97}
    )
    named = {row.id: row for row in rows}
    assert named["pocket.judge.object"].value == 75 and named["pocket.judge.object"].holds is False
    assert named["pocket.judge.color"].value == 100 and named["pocket.judge.color"].holds is True
    assert named["pocket.judge.style"].holds is None


@pytest.mark.parametrize(("azimuth", "right"), [(59, True), (-59, True), (61, False), (180, False)])
def test_a_view_may_be_15_degrees_beyond_its_word(azimuth, right):
    seen = seen_as(SCENES[:1]) | {
        "azimuth": np.array([azimuth], np.float32)
    }  # the scene's view is "front"
    assert test_set.correct_masks(SCENES[:1], seen)["view"].tolist() == [right]


def test_color_errors_are_ciede2000():
    """White and black differ by 100 by definition, gray from itself by 0, red and green by much."""
    a = torch.tensor([[1.0, 1.0, 1.0], [0.5, 0.5, 0.5], [1.0, 0.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.0, 1.0, 0.0]], dtype=torch.float64)
    assert quality.color_errors(a, b) == pytest.approx([100, 0, 86.61], abs=0.05)


def test_mean_colors_look_at_the_object_alone():
    images = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    images[0, :2, :, 0] = 255
    mask = torch.zeros(1, 4, 4, dtype=torch.uint8)
    mask[0, 1:3] = 1
    torch.testing.assert_close(
        quality.mean_colors(images, mask), torch.tensor([[0.5, 0, 0]], dtype=torch.float64)
    )


def test_test_scenes_are_ones_nothing_was_trained_on_and_repeat():
    tests, again = sample_test_set(6, "heldout"), sample_test_set(6, "heldout")
    assert tests.prompts == again.prompts and (tests.scenes.labels == again.scenes.labels).all()
    assert tests.scenes.labels["seed"].min() >= 2**40 and tests.scenes.labels["heldout"].all()
    picked = tests.pick([4, 1])
    assert picked.prompts == [tests.prompts[4], tests.prompts[1]]
    assert picked.scenes.labels["seed"].tolist() == tests.scenes.labels["seed"][[4, 1]].tolist()


def test_what_an_earlier_judge_does_not_read_gives_no_row():
    """The judge that was trained before counts and sizes were added has no answer for them."""
    scenes = np.array([scene(object="cat", count="two"), scene(object="mug", size="small")])
    seen = seen_as(scenes)
    every = quality.percent_rows(
        "judge", "judge", test_set.scored_masks(scenes), test_set.correct_masks(scenes, seen), {}
    )
    assert {"pocket.judge.count", "pocket.judge.size"} <= {row.id for row in every}
    fewer = {name: value for name, value in seen.items() if name not in ("count", "size")}
    rows = quality.percent_rows(
        "judge", "judge", test_set.scored_masks(scenes), test_set.correct_masks(scenes, fewer), {}
    )
    missing = {row.id for row in every} - {row.id for row in rows}
    assert missing == {"pocket.judge.count", "pocket.judge.size"}


def test_an_unknown_group_is_refused(capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["colors"])
    assert "GROUP: must be one of sizes, autoencoder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "0"], "--images: must be a whole number from 2 to 1,000,000, got '0'"),
        (["--images", "1"], "--images: must be"),
        (["--images", "-3"], "--images: must be"),
        (["--images", "1000000000"], "--images: must be"),
        (["--guidance", "nan"], "--guidance: must be a number from 0 to 1,000, got 'nan'"),
        (["--guidance", "-1"], "--guidance: must be"),
        (["--guidance", "inf"], "--guidance: must be"),
        (["--weights", ""], "--weights: must name a folder"),
        (["--weights", __file__], "--weights: must name a folder"),
        (["--work", f"{__file__}/x"], "--work: must name a folder"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(["sizes", *options])
    assert f"argument {message}" in capsys.readouterr().err


@pytest.mark.parametrize("results", ["{}", "[]", "null", "", '{"rows": 3}'])
def test_results_that_are_none_are_named_before_anything_is_measured(
    results, tmp_path, monkeypatch, capsys
):
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "evaluation.json").write_text(results)
    monkeypatch.setattr(evaluate, "Evaluation", lambda *_: pytest.fail("began"))
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(["sizes", "--weights", str(tmp_path)])
    assert "--weights: must name a file of results" in capsys.readouterr().err


def test_a_file_that_a_group_needs_is_named(tmp_path, capsys):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(["training", "--weights", str(tmp_path)])
    assert re.search(r"error: training: .*training\.json", capsys.readouterr().err)


def test_missing_weights_are_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["sizes", "--weights", str(tmp_path / "none")])
    assert "no weights in" in capsys.readouterr().err


def test_few_images_may_hold_no_composition_that_counts(tmp_path, monkeypatch):
    tests = sample_test_set(4, "heldout")
    nothing = CaptionedScenes(tests.scenes, tests.prompts, [frozenset()] * 4)
    answers = iter([nothing, tests])
    monkeypatch.setattr(quality, "load_test_set", lambda *_: next(answers, tests))
    monkeypatch.setattr(quality, "Judge", lambda *_: argparse.Namespace(classify=lambda images: {}))
    blank = lambda pipe, prompts, *_, **__: torch.cat(
        [torch.zeros(1, 8, 8, 3).byte() for _ in prompts]
    )
    monkeypatch.setattr(quality, "generate", blank)
    monkeypatch.setattr(quality.Evaluation, "pipe", None)
    monkeypatch.setattr(
        quality,
        "correct_masks",
        lambda labels, seen: {k: np.ones(len(labels), bool) for k in ("object", "color")},
    )
    rows = quality.composition_rows(quality.Evaluation(tmp_path, torch.device("cpu"), images=4))
    assert [row.value for row in rows] == [100, 100]


def test_renderer_rows_on_a_cpu_have_no_goal(monkeypatch):
    measure = cost.images_per_second
    monkeypatch.setattr(
        cost, "images_per_second", lambda kind, device, *_, **__: measure(kind, device, 1, 1)
    )
    rows = cost.renderer_rows(torch.device("cpu"))
    assert [row.bar for row in rows] == [None, None] and all(row.value > 0 for row in rows)


def test_training_rows_count_every_process(tmp_path):
    """Of the text-to-image model: those of ControlNets stand in benchmarks/control.py."""
    run = {"seconds": 600.0, "processes": 2, "device": "a GPU"}
    (tmp_path / "training.json").write_text(
        json.dumps({"towers": [run], "denoiser": [run, run], "controlnet-canny": [run]})
    )
    rows = cost.training_rows(tmp_path)
    assert {row.id: row.value for row in rows} == {
        "pocket.training.all": 60.0,
        "pocket.training.towers": 20.0,
        "pocket.training.denoiser": 40.0,
    }
