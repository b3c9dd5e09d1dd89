"""results.json is what Gradescope's specification allows, with the points of the sheet."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from course.checks import exercises
from grading import gradescope
from grading.scores import STATUSES, ScoreSheet, score

SCHEMA = json.loads(Path(__file__).with_name("gradescope.json").read_text("utf-8"))


def sheet(**changes: object) -> ScoreSheet:
    statuses = dict(zip(exercises(), [*STATUSES] * 20, strict=False))
    scores = [
        score(
            id, "not graded" if exercises()[id].tier == "written" else status, f"{status} <b>\ud800"
        )
        for id, status in statuses.items()
    ]
    scores = [replace(s, points=s.max_points) if s.status == "right" else s for s in scores]
    return replace(ScoreSheet("Ada", "ada.zip", "1.0.0", "d", 3, ["a\0 <i>"], scores), **changes)


@pytest.mark.parametrize("changes", [{}, {"scores": []}, {"problems": []}])
def test_the_file_fits_the_schema(changes: dict, tmp_path: Path):
    gradescope.write_results(tmp_path / "results.json", sheet(**changes))
    content = (tmp_path / "results.json").read_text("utf-8")
    jsonschema.validate(json.loads(content), SCHEMA)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"score": "1"},
        {"tests": [{}]},
        {"score": 1, "tests": [{"status": "right"}]},
        {"scores": 1},
    ],
)
def test_the_schema_refuses_other_contents(wrong: dict):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)


def test_points_agree_with_the_sheet():
    content = gradescope.results(sheet())
    assert content["score"] == sheet().points > 0
    assert sum(test.get("score", 0) for test in content["tests"]) == pytest.approx(sheet().points)
    assert [test["name"].split(" ")[0] for test in content["tests"]][:2] == ["0", "0"]
    assert len(content["tests"]) == len(exercises())


def test_what_a_teacher_has_to_grade_has_no_score_yet():
    written = [t for t in gradescope.results(sheet())["tests"] if "written" in t["tags"]]
    assert written
    assert not any("score" in test or "status" in test for test in written)


def test_an_override_counts_with_its_comment():
    written = next(id for id in exercises() if exercises()[id].tier == "written")
    given = replace(score(written, "not graded", ""), points=0.5, comment="A good reason.")
    (test,) = gradescope.results(sheet(scores=[given]))["tests"]
    assert test["score"] == 0.5
    assert test["output"] == "A good reason."


def test_no_text_has_what_a_database_refuses():
    """Gradescope stores texts in a database, which takes neither NUL nor half a character."""
    text = json.dumps(gradescope.results(sheet()))
    assert "\\u0000" not in text and "\\ud800" not in text
