"""The autograder for Gradescope: what is in its zip, and how it grades in a container."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from course.checks import exercises
from course.notebooks import ROOT
from grading import autograder, official, sandbox

reason = sandbox.reason_against("bubblewrap")


def test_the_zip_has_course_and_grader_but_no_leftovers():
    names = {path.relative_to(ROOT).as_posix() for path in autograder.files()}
    assert {"requirements.txt", "course/setup.py", "grading/worker.py", "Makefile"} <= names
    assert {"task_0_Introduction.ipynb", "task_3_DreamFusion/nerf/sd.py"} <= names
    assert {f"grading/recipes/{path.name}" for path in (ROOT / "grading/recipes").glob("*.py")} <= (
        names
    )
    assert not [name for name in names if "__pycache__" in name or "/build/" in name]
    assert not [name for name in names if name.startswith(("tests/", "docs/", "outputs/"))]


def test_the_exercises_that_are_left_out_are_named():
    left_out = autograder.left_out()
    assert {"1.2 written 1", "2.1 (d)"} <= set(left_out)
    assert "0 (a)" not in left_out and "3 (d)" not in left_out
    note = autograder.note()
    assert all(id in note for id in left_out)
    points = sum(exercises()[id].points for id in left_out)
    assert f"{points:g} of the 100 points" in note


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
@pytest.mark.parametrize("script", ["setup.sh", "run_autograder"])
def test_scripts_are_valid(script):
    path = autograder.SCRIPTS / script
    assert path.read_bytes().startswith(b"#!/usr/bin/env bash\n")
    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.skipif(bool(reason), reason=reason)
@pytest.mark.weekly
def test_a_submission_is_graded_as_in_the_container(tmp_path: Path):
    assert autograder.main(["--prepare", str(tmp_path)]) == 0
    (tmp_path / "submission").mkdir()
    shutil.copyfile(ROOT / "make_video.ipynb", tmp_path / "submission" / "make_video.ipynb")
    metadata = {"users": [{"name": "Ada"}]}
    (tmp_path / "submission_metadata.json").write_text(json.dumps(metadata))
    assert autograder.main(["--grade", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert results["score"] == 2
    tests = {test["name"].split(" ")[0]: test for test in results["tests"]}
    assert tests["video"]["score"] == 1
    by_name = {test["number"]: test for test in results["tests"]}
    assert "score" not in by_name["2.1 d"] and "free choice" in by_name["2.1 d"]["output"]
    assert len(results["tests"]) == len(exercises())
    assert autograder.note().splitlines()[0] in results["output"]


def test_exercises_with_a_recipe_are_graded_or_explained():
    graded = set(official.all_recipes()) - set(autograder.left_out())
    assert sum(exercises()[id].points for id in graded) > 60
