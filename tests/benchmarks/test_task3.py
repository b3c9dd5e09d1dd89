"""The benchmark of task 3: it counts what the judge sees, and toy runs are not stored."""

import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks import task3
from course.figures import Row
from course.images import to_pil
from course.metrics import Judge
from course.models import find_model
from pocket.world import heldout_compositions, render, sample_scene
from pocket.world.vocabulary import OBJECTS, VIEWS, view_word
from task_3_DreamFusion import command_line
from task_3_DreamFusion.nerf.guidance import StableDiffusion
from task_3_DreamFusion.nerf.options import TrainingError
from task_3_DreamFusion.nerf.utils import Trainer


def test_the_texts_are_known_and_six_are_new_to_the_model():
    assert len(task3.TEXTS) == 24 and set(task3.TEXTS.values()) <= set(OBJECTS)
    assert len(task3.HELD_OUT) == 6 and set(task3.HELD_OUT.values()) <= heldout_compositions()
    model = find_model("pocket")
    for text, thing in task3.TEXTS.items():
        assert set(text.split()) <= model.vocabulary
        assert thing in text or thing == "pancakes"
    held_things = {
        text
        for text in task3.TEXTS
        if text not in task3.HELD_OUT and text.split()[1] in ("red", "blue")
    }
    assert (
        not {(text.split()[2], "color", text.split()[1]) for text in held_things}
        & heldout_compositions()
    )


def test_what_the_judge_sees_is_counted():
    """Renders of an object from all sides: the judge recognizes most, and no side if rotated."""
    seed = next(s for s in range(10**4) if _is_plain_car(s))
    scene = sample_scene(seed, kind="object")
    image = render(scene.params, 256, 256).color[0].permute(2, 0, 1).float() / 255
    [reading] = Judge()([to_pil(2 * image - 1)])
    assert reading["object"] == "car"
    objects, views = task3.judge_sides(Judge(), [image] * task3.SIDES, "car")
    assert objects == [True] * 8
    word = view_word(float(scene.labels["azimuth"]), float(scene.labels["elevation"]))
    words = [
        view_word(azimuth, 15.0)
        for azimuth in task3.orbit(task3.SIDES, start=task3.FIRST).azimuth.tolist()
    ]
    assert {word: words.count(word) for word in VIEWS} == {
        "front": 2,
        "side": 4,
        "back": 2,
        "overhead": 0,
    }
    assert views == [readings == reading["view"] for readings in words] and reading["view"] == word
    assert task3.judge_sides(Judge(), [image] * task3.SIDES, "house")[0] == [False] * 8


def _is_plain_car(seed: int) -> bool:
    labels = sample_scene(seed, kind="object").labels
    return (
        OBJECTS[labels["object"]] == "car"
        and labels["object2"] < 0
        and labels["style"] == 0
        and labels["elevation"] < 40
    )


def test_a_run_that_gives_up_has_nothing_right(tiny_folder, monkeypatch):
    model = find_model(tiny_folder)
    monkeypatch.setattr(task3, "model_and_judge", lambda options: (StableDiffusion(model), Judge()))

    def give_up(self: Trainer) -> None:
        raise TrainingError("the field has become empty")

    monkeypatch.setattr(Trainer, "train_step", give_up)
    right, sides, images, gave_up = task3.train_object("a duck", reduced=True)
    assert gave_up and right == sides == [False] * 8 and len(images) == 8


def test_options_are_tried_on_some_texts(tiny_folder, monkeypatch, tmp_path, capsys):
    """And their rows are not stored, nor taken for those of the defaults."""
    guidance, given = (
        StableDiffusion(find_model(tiny_folder)),
        ("--widen", "0.4", "--lambda_opacity", "4"),
    )
    settings = task3.make_trainer("a duck", guidance, tmp_path / "run", given, iters=7).settings
    assert (settings.widen, settings.lambda_opacity, settings.iters) == (0.4, 4.0, 7)
    seen = []
    row = Row("task3.objects.object", "objects", 1.0, "%", ">=", 0.0)
    monkeypatch.setattr(task3, "object_rows", lambda *calls_: seen.append(calls_) or [row])
    monkeypatch.setattr(task3, "RESULTS", tmp_path / "results")
    task3.main(["objects", "--only", "a duck", "--options", "--widen 0.4 --lambda_opacity 4"])
    assert seen == [(False, ["a duck"], given)] and not (tmp_path / "results").exists()
    for wrong in (
        ["objects", "--only", "a whale"],
        ["objects", "--options", "--weight 3"],
        ["soak", "--only", "a duck"],
    ):
        with pytest.raises(SystemExit):
            task3.main(wrong)
    message = capsys.readouterr().err
    assert (
        "'a whale'" in message
        and "--weight" in message
        and "for objects or unseen alone" in message
    )


@pytest.mark.parametrize("group", ["objects", "frames", "soak"])
def test_a_rehearsal_stores_nothing(group, tiny_folder, tmp_path, monkeypatch, capsys):
    model = find_model(tiny_folder)
    monkeypatch.setattr(task3, "find_model", lambda name: model)
    monkeypatch.setattr(task3, "RESULTS", tmp_path)
    monkeypatch.setattr(task3, "IMAGES", tmp_path)
    rows = task3.main([group, "--reduced"])
    assert rows and all(row.value == row.value for row in rows) and rows[0].bar is not None
    assert (
        "reduced, not stored" in capsys.readouterr().out and not (tmp_path / "task3.json").exists()
    )


@pytest.mark.slow
def test_the_command_is_timed_and_a_failing_one_is_told(monkeypatch, tmp_path):
    rows = task3.command_rows(on_gpu=False, reduced=True)
    assert [row.unit for row in rows] == ["s", ""] and rows[0].value > 1 and 0 <= rows[1].value <= 8
    with pytest.raises(RuntimeError, match="--text is empty"):
        task3.time_command(" ", tmp_path / "run", on_gpu=False, reduced=True)


def test_two_gpus_are_asked_for(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert task3.main(["scaling"]) == [] and "needs two GPUs" in capsys.readouterr().out


@pytest.mark.parametrize(("reduced", "texts", "steps"), [(True, 2, 2), (False, 8, 300)])
def test_one_and_two_processes_do_the_same_work(reduced, texts, steps, monkeypatch):
    """The commands as they would run on two GPUs, understood by the programs that they name."""
    from accelerate.commands.launch import launch_command_parser

    calls = []

    def run(command, **_):
        launch = launch_command_parser().parse_args(
            command[command.index("accelerate.commands.launch") + 1 :]
        )
        request = command_line.parse(launch.training_script_args)
        assert Path(launch.training_script) == task3.PROGRAM and request.given["half"]
        lines = request.run.prompts.read_text().splitlines()
        calls.append((launch.num_processes, len(lines), request.given["iters"]))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(task3, "time_command", lambda *_, **__: calls.append("built"))
    monkeypatch.setattr(subprocess, "run", run)
    one, two, row = task3.scaling_rows(reduced)
    assert (
        calls == ["built", (1, texts, steps), (2, texts, steps)]
        and f"{texts} texts, {steps} steps" in row.figure
    )
    assert row.value == one.value / two.value
