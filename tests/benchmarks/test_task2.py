"""The benchmark of task 2: a wrong lesson fails, and toy runs are not stored."""

import json

import pytest
import torch

from benchmarks import task2, task2_lesson
from course import notebooks
from course.models import find_model


@pytest.fixture
def tiny(tiny_folder, monkeypatch):
    """The tiny model in the place of pocket, with panoramas of its size."""
    sd = task2.lesson().JointDiffusion(find_model(tiny_folder))
    monkeypatch.setattr(task2, "pocket", lambda: sd)
    monkeypatch.setattr(task2, "WIDE", (64, 192))
    monkeypatch.setattr(task2, "STRIDES", (1, 2, 4))
    return sd


def with_change(monkeypatch, right: str, wrong: str):
    """The lesson with a line of it changed."""
    notebook = notebooks.read(task2_lesson.LESSON)
    cells = [cell for cell in notebook.cells if right in cell.source]
    assert len(cells) == 1
    cells[0].source = cells[0].source.replace(right, wrong)
    module = notebooks.definitions(notebook, {"STEPS": 2})
    monkeypatch.setattr(task2, "lesson", lambda: module)


def test_the_average_of_the_lesson_passes():
    [row] = task2.averaging_rows(reduced=True)
    assert row.holds and 0 < row.value <= 1e-6


@pytest.mark.parametrize(
    "wrong", ["return (value / (total + 1e-5))", "return (value / total.round(decimals=3))"]
)
def test_an_average_that_is_slightly_off_does_not(monkeypatch, wrong):
    with_change(monkeypatch, "return (value / total)", wrong)
    [row] = task2.averaging_rows(reduced=True)
    assert row.holds is False


def test_windows_that_leave_gaps_are_counted(monkeypatch):
    [row] = task2.coverage_rows(reduced=True)
    assert row.holds and row.value == 0
    with_change(monkeypatch, "starts.append(size - window)", "pass")
    [row] = task2.coverage_rows(reduced=True)
    assert row.holds is False and row.value > 100
    with_change(monkeypatch, "if starts[-1] + window <= size:", "if False:")
    [row] = task2.coverage_rows(reduced=True)
    assert row.holds is False


def test_landscapes_are_those_that_the_model_knows():
    tests = task2.landscapes(40)
    assert (
        len({prompt for prompt, _, _ in tests}) == 40 and len({seed for _, _, seed in tests}) == 40
    )
    model = find_model("pocket")
    for prompt, _, _ in tests:
        assert set(prompt.split()) <= model.vocabulary
    known = json.loads((model.folder.parent / "vocabulary.json").read_text())["landscapes"]
    assert {place for _, place, _ in tests} == set(known)
    assert tests[:24] == task2.landscapes(24)


def test_panoramas_of_different_places_are_told_from_one_place(tiny):
    networks, judge = task2.metrics.load_networks(), task2.Judge()
    generator = torch.Generator().manual_seed(0)
    piece = torch.rand((3, 64, 64), generator=generator) * 2 - 1
    same, other = (
        torch.cat([piece] * 3, dim=2),
        torch.cat([piece, -piece, piece.mean() + 0 * piece], dim=2),
    )
    tests = [("a beach", "beach", 1)]
    one, many = (task2.panorama_scores([image], tests, networks, judge) for image in (same, other))
    assert one["intra_lpips"] == pytest.approx(0, abs=1e-6) and many["intra_lpips"] > 0.1
    assert many["intra_style"] > one["intra_style"]


def test_a_wrap_that_shows_is_counted(tiny, monkeypatch):
    rows = task2.closure_rows(reduced=True)
    assert [row.unit for row in rows] == ["of 3", "x", *["of 1"] * 3] and "strides 1, 2, 4" in rows[
        0
    ].figure
    assert rows[0].value == sum(row.value for row in rows[2:])
    ramp = torch.linspace(-1, 1, 192).expand(3, 64, 192)
    monkeypatch.setattr(tiny, "sample", lambda *a, **k: ramp)
    within, worst, *_ = task2.closure_rows(reduced=True)
    assert within.value == 0 and not within.holds and worst.value > 100 and not worst.holds


@pytest.mark.slow
def test_both_methods_side_by_side(tiny):
    rows = {row.id: row for row in task2.coherence_rows(reduced=True)}
    for method in ("multi", "sync"):
        assert {f"task2.coherence.{method}.{key}" for key in task2.METRICS} <= set(rows)
    ratio = rows["task2.coherence.intra_lpips_ratio"]
    sync, multi = (rows[f"task2.coherence.{name}.intra_lpips"] for name in ("sync", "multi"))
    assert ratio.value == pytest.approx(sync.value / multi.value) and ratio.bar == 0.8


@pytest.mark.weekly
def test_every_way_to_save_time_is_measured(tiny, monkeypatch):
    rows = task2.tradeoff_rows(reduced=True)
    named = {row.id: row for row in rows}
    for name in task2.choices(tiny):
        key = f"task2.tradeoff.{name.lower().replace(' ', '_')}"
        assert {f"{key}.time", f"{key}.intra_lpips"} <= set(named)
    assert named["task2.tradeoff.multi.time"].value == 1


@pytest.mark.slow
@pytest.mark.parametrize("group", ["large", "memory"])
@pytest.mark.weekly
def test_groups_for_a_gpu_rehearse_without_one(group, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(task2, "RESULTS", tmp_path / "results")
    if task2.DEVICE.type == "cuda":
        pytest.skip("there is a GPU: the full form would run")
    rows = task2.main([group])
    assert rows and all(row.value > 0 for row in rows)
    assert "reduced, not stored" in capsys.readouterr().out and not task2.RESULTS.exists()


def test_rows_are_stored_unless_reduced(tmp_path, monkeypatch):
    monkeypatch.setattr(task2, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(
        task2,
        "GROUPS",
        {"one": lambda reduced: [task2.Row("task2.one.a", "a", 0.123456, "", "<=", 1e-5)]},
    )
    task2.main(["one", "--reduced"])
    assert not task2.RESULTS.exists()
    task2.main(["one"])
    [row] = json.loads((task2.RESULTS / "task2.json").read_text())["rows"]
    assert (
        row["command"] == "python -m benchmarks.task2 one"
        and row["holds"] is False
        and row["value"] == 0.123456
    )
    with pytest.raises(SystemExit):
        task2.main(["two"])
