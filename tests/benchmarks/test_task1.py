"""The benchmark of Task 1 measures what it says, and a loop that is wrong does not pass."""

import json

import nbformat
import pytest

from benchmarks import task1
from course import notebooks
from course.models import find_model


def test_the_lessons_loop_passes(tiny_folder):
    rows = task1.compare(find_model(tiny_folder), "tiny", "tiny", steps=3)
    assert len(rows) == 4 and all(row.holds for row in rows)
    assert len({row.id for row in rows}) == 4


@pytest.mark.parametrize(
    ("right", "wrong", "row"),
    [
        (
            "return uncond + guidance_scale *",
            "return cond + guidance_scale *",
            0,
        ),  # guidance on the wrong term
        ("alpha_bar_prev.sqrt() * x_0 + direction", "alpha_bar.sqrt() * x_0 + direction", 0),
        (
            "x_0 = (x_t - (1 - alpha_bar).sqrt() * noise)",
            "x_0 = (x_t - (1 - alpha_bar) * noise)",
            1,
        ),
        ("+ sigma * fresh", "+ 0.99 * sigma * fresh", 2),
    ],
)
def test_a_wrong_loop_does_not(tiny_folder, tmp_path, monkeypatch, right, wrong, row):
    source = task1.LESSON.read_text()
    assert source.count(right) == 1
    (tmp_path / "lesson.ipynb").write_text(source.replace(right, wrong))
    monkeypatch.setattr(task1, "LESSON", tmp_path / "lesson.ipynb")
    rows = task1.compare(find_model(tiny_folder), "tiny", "tiny", steps=3)
    assert rows[row].holds is False


def test_a_random_model_that_predicts_v(tiny_folder, tmp_path):
    model = task1.random_v_model(find_model(tiny_folder), tmp_path / "v")
    assert model.prediction_type == "v_prediction"
    assert all(row.holds for row in task1.compare(model, "v", "v", steps=2))


def test_times_of_the_lessons(tmp_path, monkeypatch):
    for name, cell in (("quick", "import time; time.sleep(3)"), ("broken", "1 / 0")):
        nbformat.write(
            nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]),
            tmp_path / f"{name}.ipynb",
        )
    monkeypatch.setattr(task1, "MINUTES", {"quick": 2.0})
    monkeypatch.setattr(notebooks, "lesson_paths", lambda: [tmp_path / "quick.ipynb"])
    row, memory = task1.time_rows()
    assert 0.05 <= row.value < 1 and row.holds and row.figure.endswith("quick")
    assert 0.02 < memory.value < 8 and memory.id == "task1.memory.quick"
    with pytest.raises(RuntimeError, match=r"broken.ipynb failed:[\s\S]*ZeroDivisionError"):
        task1.run_lesson(tmp_path / "broken.ipynb")


def test_rows_are_stored_and_replaced(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(task1, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(
        task1, "GROUPS", {"one": lambda: [task1.Row("task1.one.a", "a", 2e-6, "", "<=", 1e-5)]}
    )
    for _ in range(2):
        task1.main(["one"])
    [row] = json.loads((task1.RESULTS / "task1.json").read_text())["rows"]
    assert row["command"] == "python -m benchmarks.task1 one" and row["holds"]
    assert "2.0e-06" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        task1.main(["two"])


def test_fewer_calls_are_measured_in_every_way(monkeypatch):
    """On pocket, with few images in few steps."""
    monkeypatch.setattr(task1, "STEPS", 4)
    monkeypatch.setattr(task1, "BATCH", 2)
    monkeypatch.setattr(task1, "run_on_two_cores", lambda function, name: 1.0)
    rows = {row.id: row.value for row in task1.fewer_rows(count=2)}
    distances = [rows[f"task1.fewer.{name}.fid"] for name in task1.WAYS]
    assert len(set(distances)) == len(distances)
    assert {f"task1.fewer.{name}.seconds" for name in task1.WAYS} <= set(rows)
