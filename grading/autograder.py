"""The autograder for Gradescope: `make autograder` writes dist/autograder.zip.

Its container has no GPU, 768 MB and ten minutes, and seldom the rights that bubblewrap needs: there
answers run as a user of their own, under Landlock and seccomp where the kernel has them. Lessons
run one after the other, so that their networks are not in memory at the same time.

    python -m grading.autograder                    write the zip
    python -m grading.autograder --prepare FOLDER   in setup.sh, once
    python -m grading.autograder --grade FOLDER     in run_autograder; FOLDER is /autograder
"""

import argparse
import json
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from course.checks import exercises
from course.errors import CourseError
from course.notebooks import ROOT, lesson_paths
from grading import gradescope, official, sandbox, submissions
from grading.engine import Budget, Grader, References, Runner
from grading.grade import MAX_SEED
from grading.release import SHARED, UNSHARED, zip_folder
from grading.submissions import StudentFiles

BUDGET = Budget(seconds=240, memory=250 << 20, separate=True)  # for the student's and the official
SCRIPTS = Path(__file__).parent / "container_scripts"
BASE = "base"
# Lessons whose networks need more memory than there is.
TOO_LARGE: tuple[str, ...] = ("1.3",)


def left_out() -> dict[str, str]:
    """Return the exercises that the autograder does not grade, and why."""
    reasons = {}
    for id, exercise in exercises().items():
        if exercise.tier == "written":
            reasons[id] = "a written answer"
        elif official.recipe_of(id) is None:
            reasons[id] = "its result is an image or a clip of free choice"
        elif exercise.lesson in TOO_LARGE:
            reasons[id] = "its networks need more memory"
    return reasons


def note() -> str:
    """Return the text about exercises that are left out, one line a reason."""
    by_reason: dict[str, list[str]] = {}
    for id, reason in left_out().items():
        by_reason.setdefault(reason, []).append(id)
    points = sum(exercises()[id].points for id in left_out())
    lines = [f"{points:g} of the 100 points are not graded here:"]
    lines += [f"- {', '.join(ids)}: {reason}." for reason, ids in by_reason.items()]
    return "\n".join(lines)


# --- The zip


def files() -> Iterator[Path]:
    """Yield the files of the course and the grader that go into the zip."""
    yield from lesson_paths()
    yield ROOT / "Makefile"
    ignored = shutil.ignore_patterns(*UNSHARED)
    for name in (*SHARED, "grading"):
        path = ROOT / name
        if path.is_file():
            yield path
            continue
        for file in sorted(path.rglob("*")):
            parts = file.relative_to(ROOT).parts
            if file.is_file() and not any(ignored("", [part]) for part in parts):
                yield file


def write_zip(out: Path) -> Path:
    """Write OUT/autograder.zip, and return its path. Raises OSError."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "autograder"
        for path in dict.fromkeys(files()):
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        for script in SCRIPTS.iterdir():
            shutil.copyfile(script, folder / script.name)
        (folder / "LEFT_OUT.txt").write_text(note() + "\n", encoding="utf-8")
        path = zip_folder(folder, prefix="")
        return Path(shutil.move(path, out / path.name))


# --- In the container


def prepare(folder: Path) -> None:
    """Write what answers may read to FOLDER/base. Raises OSError."""
    official.write_base(folder / BASE)


def grade(folder: Path) -> None:
    """Grade FOLDER/submission and write FOLDER/results/results.json.

    Raises CourseError, OSError.
    """
    problems = []
    try:
        name = sandbox.choose()
    except sandbox.SandboxError:
        name = sandbox.UNSAFE
        problems.append("There is no sandbox in this container: answers ran without one.")
    runner = Runner(folder / BASE, secrets.randbelow(MAX_SEED), name, BUDGET)
    grader = Grader(runner, References(runner))
    submission = submissions.read(StudentFiles(student(folder), (folder / "submission",)))
    skipped = left_out()
    for id in skipped:
        submission.answers.pop(id, None)
    sheet = grader.grade(submission, "submission")
    for i, score in enumerate(sheet.scores):
        if reason := skipped.get(score.exercise):
            message = f"Not graded here: {reason}."
            sheet.scores[i] = replace(score, status="not graded", message=message)
    sheet.problems.extend([*problems, note()])
    (folder / "results").mkdir(exist_ok=True)
    gradescope.write_results(folder / "results" / "results.json", sheet)


def student(folder: Path) -> str:
    """Return the names in FOLDER/submission_metadata.json, "student" without them."""
    try:
        values = json.loads((folder / "submission_metadata.json").read_text("utf-8"))
        return ", ".join(str(user["name"]) for user in values["users"]) or "student"
    except (OSError, ValueError, TypeError, KeyError):
        return "student"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m grading.autograder", description="Write the autograder for Gradescope."
    )
    text = "folder for autograder.zip (default: dist)"
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help=text)
    text = "in the container: write what answers may read to a folder"
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help=text)
    text = "in the container: grade the submission in a folder"
    parser.add_argument("--grade", type=Path, metavar="FOLDER", help=text)
    options = parser.parse_args(arguments)
    try:
        if options.prepare:
            prepare(options.prepare)
        elif options.grade:
            grade(options.grade)
        else:
            path = write_zip(options.out)
            print(f"wrote {path}: {path.stat().st_size / 2**20:.0f} MiB")
            print(note())
    except (CourseError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
