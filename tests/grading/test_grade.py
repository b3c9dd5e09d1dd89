"""Grading a class: in parallel, resumable, and no submission stops the rest."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from course.notebooks import ROOT
from grading import grade, official, sandbox
from grading.scores import OVERRIDES, REGRADES, SCORES
from tests.grading import class_of_30

reason = sandbox.reason_against("bubblewrap")
pytestmark = pytest.mark.skipif(bool(reason), reason=reason)
LESSON = "make_video.ipynb"
IDS = ("video (a)", "video (b)")


def hand_in(folder: Path, *right: str) -> None:
    """Write a student's notebook, in which these exercises are right and the others wrong."""
    notebook = nbformat.read(ROOT / LESSON, as_version=4)
    for cell in notebook.cells:
        for exercise in set(IDS) - set(right):
            if cell.source == official.answers()[exercise]:
                cell.source = cell.source.replace("return", "return -", 1)
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / LESSON)


@pytest.fixture
def students(tmp_path: Path) -> Path:
    folder = tmp_path / "class"
    hand_in(folder / "ada", *IDS)
    hand_in(folder / "bob")
    (folder / "eve").mkdir()
    (folder / "eve" / LESSON).write_bytes(b"\x00 no notebook")
    return folder


def points(out: Path) -> dict[str, float]:
    sheets = [json.loads(path.read_text()) for path in out.glob(f"*/{SCORES}")]
    return {s["student"]: sum(score["points"] for score in s["scores"]) for s in sheets}


@pytest.mark.weekly
def test_a_class_is_graded_again_only_where_something_changed(students, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [str(students), "--out", str(out), "--check-only", "--jobs", "2"]
    assert grade.main([*arguments, "--seed", "3"]) == 0
    assert points(out) == {"ada": 2, "bob": 0, "eve": 0}
    assert (out / "index.html").is_file() and (out / "scores.csv").is_file()
    times = {path: path.stat().st_mtime_ns for path in out.glob(f"*/{SCORES}")}
    assert len(times) == 3

    # The same command goes on with the same seed; a corrected submission is graded again.
    shutil.rmtree(students / "bob")
    hand_in(students / "bob", "video (a)")
    (out / OVERRIDES).write_text("student,exercise,points,comment\nada,video (b),0.5,late\n")
    capsys.readouterr()
    assert grade.main(arguments) == 0
    assert points(out) == {"ada": 2, "bob": 1, "eve": 0}
    unchanged = [path for path, changed in times.items() if path.stat().st_mtime_ns == changed]
    assert sorted(path.parent.name[:3] for path in unchanged) == ["ada", "eve"]
    assert "1.5 of 100  ada" in capsys.readouterr().out  # with the override
    lines = (out / REGRADES).read_text().splitlines()
    assert len(lines) == 2 and "bob,video (a),0,1" in lines[1]


def test_a_mistake_in_the_command_is_named(students, tmp_path, capsys):
    assert grade.main([str(tmp_path / "nothing")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        grade.main([str(students), "--jobs", "0"])
    assert "--jobs must be at least 1, got 0" in capsys.readouterr().err
    out = tmp_path / "out"
    out.mkdir()
    (out / OVERRIDES).write_text("student,exercise,points\nada,9 (z),1\n")
    assert grade.main([str(students), "--out", str(out)]) == 2
    assert "there is no exercise '9 (z)'" in capsys.readouterr().err
    assert not points(out)


@pytest.mark.weekly
def test_a_killed_run_goes_on_where_it_was(tmp_path):
    """kill -9 loses no more than the submission that was being graded, and leaves no process."""
    folder, out = tmp_path / "class", tmp_path / "out"
    for name in ("a", "b", "c", "d"):
        hand_in(folder / name, *IDS)
    command = [sys.executable, "-m", "grading.grade", str(folder), "--out", str(out)]
    command += ["--check-only", "--jobs", "1"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while len(points(out)) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    first = {path: path.read_bytes() for path in out.glob(f"*/{SCORES}")}
    seed = json.loads((out / grade.RUN).read_text())["seed"]
    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    assert points(out) == dict.fromkeys("abcd", 2)
    assert all(path.read_bytes() == data for path, data in first.items())
    sheets = [json.loads(path.read_text()) for path in out.glob(f"*/{SCORES}")]
    assert {sheet["seed"] for sheet in sheets} == {seed}
    assert not list(out.glob(".partial-*"))


@pytest.mark.weekly
def test_the_score_is_the_same_every_time(tmp_path):
    """Ten times, with 1, 2 and 4 threads outside the sandbox, and another seed each time."""
    for name, data in class_of_30.everything().items():
        path = tmp_path / "class" / "ada" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    results = []
    for number in range(10):
        out = tmp_path / f"out_{number}"
        command = [sys.executable, "-m", "grading.grade", str(tmp_path / "class")]
        threads = os.environ | {"OMP_NUM_THREADS": str((1, 2, 4)[number % 3])}
        subprocess.run([*command, "--out", str(out)], cwd=ROOT, check=True, env=threads)
        [path] = out.glob(f"*/{SCORES}")
        scores = json.loads(path.read_text())["scores"]
        results.append({score["exercise"]: score["points"] for score in scores})
    assert len(results[0]) == len(class_of_30.EVERYTHING)
    assert all(result == results[0] for result in results)


@pytest.mark.weekly
def test_one_that_fails_does_not_stop_the_rest(students, tmp_path, monkeypatch, capsys):
    """Even an error of the grader itself; the command says so by its exit status."""
    original = grade.submissions.opened

    def opened(files):
        if files.student == "bob":
            raise RuntimeError("broken")
        return original(files)

    monkeypatch.setattr(grade.submissions, "opened", opened)
    out = tmp_path / "out"
    assert grade.main([str(students), "--out", str(out), "--check-only"]) == 1
    assert set(points(out)) == {"ada", "eve"}
    assert "bob is not graded: RuntimeError: broken" in "".join(capsys.readouterr())


@pytest.mark.weekly
def test_the_grader_can_be_interrupted(students, tmp_path):
    """By Ctrl-C: it ends, and says so by its exit status."""
    command = [sys.executable, "-m", "grading.grade", str(students), "--check-only"]
    # A shell that starts the tests in the background lets them ignore SIGINT.
    with_ctrl_c = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, env=os.environ, preexec_fn=with_ctrl_c
    )
    base = tmp_path / "class-graded" / grade.BASE
    while not base.exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) != 0
