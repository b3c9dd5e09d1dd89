"""Scores on disk, the teacher's overrides, and the log of regrades."""

import csv

import pytest

from grading import scores
from grading.scores import Score, ScoreError, ScoreSheet


def sheet(points: float = 0.5, student: str = "Ada") -> ScoreSheet:
    one = Score("0 (a)", points, 0.5, "right" if points else "wrong", "message", 0.1, 1000)
    return ScoreSheet(student, "ada.zip", "1.0.0", "d", 3, ["a problem"], [one])


def test_a_sheet_is_read_as_it_was_written(tmp_path):
    scores.write_sheet(tmp_path / "ada", sheet())
    assert scores.read_sheet(tmp_path / "ada") == sheet()
    assert scores.read_sheet(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"scores": [1]}', '{"scores": [{"a": 1}]}'])
def test_a_damaged_sheet_is_named(tmp_path, text):
    (tmp_path / scores.SCORES).write_text(text)
    with pytest.raises(ScoreError, match=r"scores.json cannot be read"):
        scores.read_sheet(tmp_path)


def test_a_share_gives_partial_credit():
    half = scores.score("0 (e)", "partly", "", 0.5)
    assert (half.points, half.max_points) == (0.5, 1)
    with pytest.raises(ScoreError, match="status must be one of"):
        scores.score("0 (e)", "good", "")


def test_overrides_replace_points_and_survive_a_regrade(tmp_path):
    (tmp_path / scores.OVERRIDES).write_text(
        "student,exercise,points,comment\nAda,0 (a),0.25,late\nBob,0 (a),0,\n", encoding="utf-8"
    )
    for points in (0.5, 0):
        scores.write_sheet(tmp_path / "ada", sheet(points))
        read = scores.read_sheet(tmp_path / "ada")
        assert read == sheet(points)
        corrected = scores.with_overrides(read, scores.read_overrides(tmp_path / scores.OVERRIDES))
        assert (corrected.points, corrected.max_points) == (0.25, 0.5)
        assert corrected.scores[0].comment == "late"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Ada,0 (z),1,", "line 2: there is no exercise '0 \\(z\\)'"),
        ("Ada,0 (a),many,", "between 0 and 0.5, got 'many'"),
        ("Ada,0 (a),0.6,", "between 0 and 0.5, got '0.6'"),
        ("Ada,0 (a),nan,", "between 0 and 0.5, got 'nan'"),
        ("Ada", "no exercise ''"),
    ],
)
def test_a_wrong_override_is_named_with_its_line(tmp_path, line, message):
    (tmp_path / "overrides.csv").write_text(f"student,exercise,points,comment\n{line}\n")
    with pytest.raises(ScoreError, match=message):
        scores.read_overrides(tmp_path / "overrides.csv")


def test_overrides_need_their_columns(tmp_path):
    (tmp_path / "overrides.csv").write_text("name;points\n")
    with pytest.raises(ScoreError, match="needs the columns student, exercise, points"):
        scores.read_overrides(tmp_path / "overrides.csv")


def test_a_regrade_is_logged_where_points_change(tmp_path):
    assert scores.log_regrade(tmp_path, None, sheet(), "first") == []
    assert scores.log_regrade(tmp_path, sheet(), sheet(), "same") == []
    scores.log_regrade(tmp_path, sheet(0.5), sheet(0), "version 1.0.1")
    scores.log_regrade(tmp_path, sheet(0), sheet(0.5), "version 1.0.2")
    with (tmp_path / scores.REGRADES).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["before"], row["after"]) for row in rows] == [("0.5", "0"), ("0", "0.5")]
    assert [row["reason"] for row in rows] == ["version 1.0.1", "version 1.0.2"]


def test_folders_of_odd_names_are_safe_and_differ():
    names = ["../../etc", "-rf", "", "Zoë", "Zoë ", "名前", "a" * 300, "a/b", "CON\0"]
    folders = [scores.folder_name(name, "x.zip") for name in names]
    assert len(set(folders)) == len(names)
    assert all(f[0].isalnum() and len(f) < 60 and "/" not in f and "." not in f for f in folders)
