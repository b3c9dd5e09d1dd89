"""The student copy has no trace of a solution, and starts where it should."""

import ast
import json
import re
import zipfile
from pathlib import Path

import nbformat
import pytest

from course import notebooks
from course.checks import exercises
from grading import release

LIBRARY = "/course/diffusion/"


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> Path:
    """The folder with student/, student.zip and teacher/, without the weights."""
    out = tmp_path_factory.mktemp("dist")
    with pytest.MonkeyPatch.context() as patch:
        kept = tuple(name for name in release.SHARED if name != "pocket/weights")
        patch.setattr(release, "SHARED", kept)
        assert release.main(["--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def archive(copies) -> dict[str, bytes]:
    """The files of student.zip by their paths."""
    with zipfile.ZipFile(copies / "student.zip") as file:
        return {name: file.read(name) for name in file.namelist()}


def squeeze(text: str) -> str:
    return re.sub(r"\s+", "", text)


def code_of(name: str, data: bytes) -> str:
    """The code and text of a file, without spaces: a notebook's with outputs and metadata."""
    if name.endswith(".ipynb"):
        notebook = json.loads(data)
        parts = [
            json.dumps({k: v for k, v in c.items() if k != "source"}) for c in notebook["cells"]
        ]
        return squeeze("".join("".join(c["source"]) for c in notebook["cells"]) + "".join(parts))
    return squeeze(data.decode("utf-8", "ignore"))


def test_no_trace_of_a_solution_is_in_the_zip(archive):
    """But in course/diffusion, which later lessons import, and single lines in all of course."""
    texts = {name: code_of(name, data) for name, data in archive.items() if LIBRARY not in name}
    lessons = {name: text for name, text in texts.items() if "/course/" not in name}
    for solution in release.lesson_solutions():
        lines = [squeeze(line) for line in solution.code.splitlines() if line.strip()]
        searched = texts if len(lines) > 1 else lessons
        traces = [name for name, text in searched.items() if "".join(lines) in text]
        assert not traces or len("".join(lines)) < 12, (solution, traces)


def test_fences_and_answers_are_gone(archive):
    for name, data in archive.items():
        if name.endswith(".ipynb") or "/task_3_DreamFusion/" in name:
            text = data.decode("utf-8", "ignore")
            assert "### BEGIN SOLUTION" not in text, name
            assert "<summary>Answer" not in text, name


@pytest.mark.parametrize("path", notebooks.lesson_paths(), ids=lambda path: path.stem)
def test_outputs_end_at_the_first_exercise(path, copies):
    notebook = nbformat.read(copies / "student" / path.relative_to(notebooks.ROOT), 4)
    nbformat.validate(notebook)
    code = notebooks.code_cells(notebook)
    first = next(i for i, cell in enumerate(code) if re.search(r"\.\.\.  # TODO", cell.source))
    assert not any(cell.outputs or cell.execution_count for cell in code[first:])
    assert notebook.metadata[release.STAMP]["version"]
    for cell in code:
        ast.parse(cell.source)


def test_expected_results_are_images(copies):
    original = notebooks.lesson_paths()[0]
    student = nbformat.read(copies / "student" / original.name, 4)
    expected = [cell for cell in student.cells if cell.id.endswith("-expected")]
    assert expected
    for cell in expected:
        names = re.findall(r"\(attachment:([^)]+)\)", cell.source)
        assert names == list(cell.attachments)
        assert all(set(kinds) <= set(release.SUFFIXES) for kinds in cell.attachments.values())


def test_the_teacher_gets_solutions_rubric_and_notes(copies):
    key = (copies / "teacher" / "solutions.md").read_text()
    for exercise in exercises().values():
        assert not exercise.check or f"## {exercise.id} " in key
    assert (copies / "teacher" / "rubric.md").is_file()
    for path in notebooks.lesson_paths():
        copy = copies / "teacher" / path.relative_to(notebooks.ROOT)
        assert copy.read_bytes() == path.read_bytes()


def test_the_makefile_has_the_targets_of_students(copies):
    text = (copies / "student" / "Makefile").read_text()
    assert re.findall(r"^([\w-]+):", text, re.MULTILINE) == list(release.TARGETS)


def test_tests_and_grader_stay_with_the_teacher(archive):
    tops = {name.split("/")[1] for name in archive}
    assert not tops & {"tests", "grading", "docs", "benchmarks", ".github", ".git"}


def test_one_state_gives_one_zip(copies):
    first = (copies / "student.zip").read_bytes()
    assert release.zip_folder(copies / "student").read_bytes() == first


def test_an_answer_is_removed_and_a_hint_stays():
    source = (
        "Why?\n\n<details><summary>Hint</summary>\n\nLook.\n\n</details>\n\n"
        "<details>\n<summary>Answer</summary>\n\nBecause.\n\n</details>\n\nNext."
    )
    cell = nbformat.v4.new_markdown_cell(source)
    note = nbformat.v4.new_markdown_cell("For teachers", metadata={"tags": ["teacher"]})
    notebook = nbformat.v4.new_notebook(cells=[cell, note])
    copy, _ = release.StudentCopy().preprocess(notebook, {})
    text = "".join(cell.source for cell in copy.cells)
    assert "Look." in text and "Next." in text
    assert "Because" not in text and "For teachers" not in text
