"""Writes the student copy and the teacher's copy of the course: `make student`.

The lessons are complete and executed; the student copy is generated from them, never kept. In it
each solution is a stub, and from the first exercise on the outputs are gone: their images stay as
expected results. Folded answers go, too. The teacher's copy has the lessons as they are, all
solutions on one page, the rubric and the notes.

Students do get `course/diffusion`, the library that holds what lesson 1.2 teaches, because later
lessons import it.
"""

import argparse
import datetime
import json
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.preprocessors import Preprocessor

import course
from course.checks import exercises
from course.errors import CourseError
from course.files import replace_folder
from course.notebooks import ROOT, lesson_paths, read
from grading.fences import Solution, cells_with_exercise, solutions, without_solutions

STAMP = "course"  # the key of a notebook's metadata, and course.json beside the lessons
ANSWER = re.compile(r"\s*<details>\s*<summary>Answers?</summary>.*?</details>", re.DOTALL)
TEACHER_TAG = "teacher"  # of cells that students do not get
# What students get beside the lessons, and what is left out of these folders.
SHARED = (
    *("assets", "course", "pocket/weights", "publish", "task_3_DreamFusion"),
    *("LICENSE", "CITATION.cff", "README.md", "constraints.txt", "pyproject.toml"),
    "requirements.txt",
)
TEACHING = "docs/teaching"
UNSHARED = ("__pycache__", "build", "outputs", ".ipynb_checkpoints", "*.ipynb")
TARGETS = ("help", "environment", "demo", "lab")  # of the Makefile
SUFFIXES = {"image/png": "png", "image/jpeg": "jpg"}
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # so that one state gives one file


class StudentCopy(Preprocessor):
    """Turns a lesson into the student's: stubs, no outputs from the first exercise on."""

    def preprocess(
        self, nb: nbformat.NotebookNode, resources: dict[str, Any]
    ) -> tuple[nbformat.NotebookNode, dict[str, Any]]:
        """Return the student copy of a notebook; `resources` (of nbconvert) stay as they are."""
        nb = nbformat.from_dict(nb)
        started = False
        cells = []
        for cell, exercise in cells_with_exercise(nb):
            if TEACHER_TAG in cell.metadata.get("tags", []):
                continue
            if cell.cell_type == "markdown":
                cell.source = ANSWER.sub("", cell.source)
            cells.append(cell)
            if cell.cell_type != "code":
                continue
            source = without_solutions(cell.source, exercise)
            started = started or source != cell.source
            cell.source = source
            if started:
                cells += expected_result(cell)
                cell.outputs = []
                cell.execution_count = None
        nb.cells = cells
        nb.metadata[STAMP] = stamp()
        return nb, resources


def stamp() -> dict[str, str]:
    """Return version and date of a copy, which the grader compares with its own."""
    return {"version": course.__version__, "date": datetime.date.today().isoformat()}


def expected_result(cell: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Return a Markdown cell that shows the images of a cell's outputs; none without any."""
    images = [
        (kind, output.data[kind])
        for output in cell.outputs
        for kind in SUFFIXES
        if kind in output.get("data", {})
    ]
    if not images:
        return []
    lines = ["<details><summary>Expected result</summary>", ""]
    attachments = {}
    for i, (kind, data) in enumerate(images, 1):
        name = f"expected-{i}.{SUFFIXES[kind]}"
        attachments[name] = {kind: data.strip()}
        lines += [f"![expected result {i}](attachment:{name})", ""]
    expected = nbformat.v4.new_markdown_cell("\n".join([*lines, "</details>"]))
    expected.id = f"{cell.id[:55]}-expected"
    expected.attachments = attachments
    return [expected]


def fenced_modules() -> list[Path]:
    """Return the modules of task 3 that have an exercise."""
    paths = (ROOT / "task_3_DreamFusion").rglob("*.py")
    return sorted(path for path in paths if "### BEGIN SOLUTION" in path.read_text("utf-8"))


def copy_shared(folder: Path, names: tuple[str, ...]) -> None:
    """Copy files and folders of the repository, without what they leave behind and the lessons."""
    for name in names:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(*UNSHARED))
        else:
            shutil.copyfile(source, target)


def student_makefile() -> str:
    """Return the Makefile with the targets that students need."""
    head, *targets = re.split(r"(?m)^(?=[\w-]+:)", (ROOT / "Makefile").read_text("utf-8"))
    kept = [target for target in targets if target.split(":")[0] in TARGETS]
    phony = f".PHONY: {' '.join(TARGETS)}"
    return re.sub(r"(?m)^\.PHONY:.*$", phony, head) + "".join(kept)


def write_student(folder: Path) -> None:
    """Write the student copy to a new folder."""
    copy_shared(folder, SHARED)
    (folder / "Makefile").write_text(student_makefile(), encoding="utf-8")
    for path in lesson_paths():
        notebook, _ = StudentCopy().preprocess(read(path), {})
        nbformat.write(notebook, folder / path.relative_to(ROOT))
    for path in fenced_modules():
        source = without_solutions(path.read_text("utf-8"))
        (folder / path.relative_to(ROOT)).write_text(source, encoding="utf-8")
    (folder / "course.json").write_text(json.dumps(stamp()) + "\n", encoding="utf-8")


def lesson_solutions() -> list[Solution]:
    """Return the solutions of all lessons and modules, in the order of the rubric."""
    result = []
    for path in lesson_paths():
        for cell, exercise in cells_with_exercise(read(path)):
            if cell.cell_type == "code":
                result += solutions(cell.source, exercise)
    for path in fenced_modules():
        result += solutions(path.read_text("utf-8"))
    order = list(exercises())
    return sorted(result, key=lambda solution: order.index(solution.exercise))


def answer_key() -> str:
    """Return a page with the solution and the points of every exercise."""
    lines = ["# Solutions", ""]
    last = ""
    for solution in lesson_solutions():
        exercise = exercises()[solution.exercise]
        if exercise.id != last:
            lines += [f"## {exercise.id} {exercise.title}", ""]
            lines += [f"{exercise.label}, {exercise.points:g} points", ""]
        last = exercise.id
        lines += ["```python", solution.code.rstrip(), "```", ""]
    return "\n".join(lines)


def write_teacher(folder: Path) -> None:
    """Write the teacher's copy to a new folder: lessons, solutions, rubric and notes."""
    for path in lesson_paths():
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    shutil.copytree(ROOT / TEACHING, folder, dirs_exist_ok=True)
    shutil.copyfile(ROOT / "course" / "exercises.toml", folder / "exercises.toml")
    (folder / "solutions.md").write_text(answer_key(), encoding="utf-8")


def zip_folder(folder: Path, prefix: str | None = None) -> Path:
    """Write FOLDER.zip beside a folder; the same files give the same bytes.

    prefix: of the names in it (default: the folder's name and a slash).
    """
    prefix = f"{folder.name}/" if prefix is None else prefix
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = f"{prefix}{file.relative_to(folder).as_posix()}"
            info = zipfile.ZipInfo(name, ZIP_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, file.read_bytes())
    return path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m grading.release", description="Write the student and the teacher's copy."
    )
    text = "folder for student/, student.zip and teacher/ (default: dist)"
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help=text)
    out = parser.parse_args(arguments).out
    try:
        for name, write in (("student", write_student), ("teacher", write_teacher)):
            with replace_folder(out / name) as new:
                write(new)
            print(f"wrote {out / name}")
        path = zip_folder(out / "student")
        print(f"wrote {path}: {path.stat().st_size / 2**20:.0f} MiB")
    except (CourseError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
