"""Whose files are whose, and attacks on the reading of notebooks and modules."""

import json
import os
import re
import string
import time

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import course
from grading import answers, submissions
from grading.answers import Cell, Notebook
from grading.reading import NotebookError, load
from grading.release import STAMP
from grading.submissions import StudentFiles, SubmissionError, file_name, find, read
from grading.unpack import File
from tests.grading import class_of_30
from tests.grading.class_of_30 import DETAILED, GUIDE, INTRODUCTION, notebook, replace_cell

GUIDED = "def guide(uncond, cond, w):\n    return uncond + w * (cond - uncond)\n"


def answered(source: str = GUIDED) -> bytes:
    """Return lesson 1.2 with an answer to 1.2 (d)."""
    return notebook(DETAILED, (), replace_cell(GUIDE, source))


def read_file(tmp_path, data: bytes, name: str = DETAILED):
    (tmp_path / name).write_bytes(data)
    return read(StudentFiles("anna", (tmp_path / name,)))


# --- Whose files


def students(folder) -> dict[str, list[str]]:
    return {each.student: [path.name for path in each.paths] for each in find(folder)}


def test_layouts_of_platforms(tmp_path):
    names = {
        f"doejane_12345_67890_{DETAILED}": "doejane",
        f"doejane_12345_67891_{INTRODUCTION}": "doejane",
        "doejane_12345_67892_sd-1.py": "doejane",
        f"roejohn_LATE_222_333_{DETAILED}": "roejohn",
        "leeann_777_888_work.zip": "leeann",
        f"Zoë Zed_4455_assignsubmission_file_{DETAILED}": "Zoë Zed",
        f"max_{DETAILED}": "max",
        "max-task_0_Introduction (1).ipynb": "max",
        "solo.ipynb": "solo",
        "pack.zip": "pack",
        "-rf.zip": "-rf",
        "--help.ipynb": "--help",
        "$(touch x).ipynb": "$(touch x)",
        "<b>bold<.ipynb": "<b>bold<",
        "grades.csv": None,
        ".DS_Store": None,
    }
    for name in names:
        (tmp_path / name).write_bytes(b"{}")
    for name in ("Mo Moe_6677_assignsubmission_file_", "plain", "submission_369"):
        (tmp_path / name).mkdir()
    by_student = students(tmp_path)
    wanted = {name for name in names.values() if name} | {"Mo Moe", "plain", "submission_369"}
    assert set(by_student) == wanted
    assert len(by_student["doejane"]) == 3 and len(by_student["max"]) == 2


def test_an_export_of_gradescope_names_its_students(tmp_path):
    for number in (1, 2, 3):
        (tmp_path / f"submission_{number}").mkdir()
    (tmp_path / "submission_metadata.yml").write_text(
        "submission_1:\n  :submitters:\n  - :name: Ann Lee\n    :sid: '7'\n  - :name: \"Bo <b>\"\n"
        "submission_2:\n  :submitters:\n  - :name: Ann Lee\n  :score: !ruby/object:Kernel {}\n"
    )
    assert list(students(tmp_path)) == ["Ann Lee", "Ann Lee, Bo <b>", "submission_3"]


def test_students_of_one_name_stay_apart(tmp_path):
    for number in (100, 200):
        (tmp_path / f"Jo Moe_{number}_assignsubmission_file_").mkdir()
    assert list(students(tmp_path)) == ["Jo Moe (100)", "Jo Moe (200)"]


def test_one_name_in_two_forms_of_unicode_is_one_student(tmp_path):
    (tmp_path / f"Zoe\u0308_{DETAILED}").write_bytes(b"{}")
    (tmp_path / "Zo\u00eb.zip").write_bytes(b"")
    assert {name: len(paths) for name, paths in students(tmp_path).items()} == {"Zo\u00eb": 2}


def test_names_have_no_control_characters(tmp_path):
    (tmp_path / "a\u202eb\x1b[31m\n.zip").write_bytes(b"")
    assert list(students(tmp_path)) == ["ab[31m"]


def test_a_folder_of_lessons_is_one_submission(tmp_path):
    class_of_30.plain(tmp_path, "anna", {DETAILED: answered(), "task_3_DreamFusion/x.txt": b""})
    assert students(tmp_path / "anna") == {"anna": ["anna"]}
    [files] = find(tmp_path / "anna" / DETAILED)
    assert files.student == "anna"


def test_files_in_a_submission_belong_to_no_one_else(tmp_path):
    inner = f"bob_12345_67890_{DETAILED}"
    (tmp_path / "mallory.zip").write_bytes(class_of_30.zipped({inner: answered()}))
    [files] = find(tmp_path)
    assert files.student == "mallory" and read(files).answers


def test_a_folder_without_submissions_is_an_error(tmp_path):
    with pytest.raises(SubmissionError, match="There are no submissions in"):
        find(tmp_path)
    with pytest.raises(SubmissionError, match="There is no folder"):
        find(tmp_path / "nowhere")


@given(st.lists(st.text(max_size=40), unique=True, max_size=5))
def test_names_of_files_are_safe_and_different(names):
    safe_names = [file_name(name) for name in names]
    assert len({name.casefold() for name in safe_names}) == len(names)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]{0,60}", name) for name in safe_names)


# --- Attacks by a notebook


def edited(edit) -> bytes:
    content = json.loads(answered())
    edit(content)
    return json.dumps(content).encode()


def guide_cell(content) -> dict:
    return next(cell for cell in content["cells"] if cell.get("id") == GUIDE)


def with_metadata(value):
    def edit(content):
        content["metadata"] = value
        for cell in content["cells"]:
            cell["metadata"] = value

    return edit


def put_twice(content):
    content["cells"].insert(0, guide_cell(content) | {"source": "def guide(*a):\n    return 0\n"})


def swap_ids(content):
    """Give the answer the id of another exercise, and a wrong one its own."""
    other = next(cell for cell in content["cells"] if cell.get("id") == "cell-23")
    guide_cell(content)["id"], other["id"] = "cell-23", GUIDE


READ = {  # changes of a notebook; the answer is there, and a part of the problems
    "ids twice": (put_twice, "2 cells have the id 'cell-20'"),
    "ids swapped": (swap_ids, ""),
    "all ids the same": (lambda n: [c.update(id=GUIDE) for c in n["cells"]], "cells have the id"),
    "ids of other types": (lambda n: [c.update(id=[{}]) for c in n["cells"]], ""),
    "long id": (lambda n: n["cells"][0].update(id="x" * 10**6), ""),
    "metadata no dictionary": (with_metadata(3), "does not name the version"),
    "metadata deep": (with_metadata({STAMP: {"version": {"a": [1] * 99}}}), "does not name"),
    "tags": (with_metadata({"tags": "parameters", STAMP: []}), "does not name the version"),
    "version with markup": (
        with_metadata({STAMP: {"version": "<script>\n" + "x" * 10**5}}),
        "Made with version <script> xxx",
    ),
    "cells that are no cells": (lambda n: n["cells"].extend([1, None, "x", [], {}]), ""),
    "cell types": (lambda n: n["cells"].append({"cell_type": {}, "source": 3}), ""),
    "source of lists": (lambda n: guide_cell(n).update(source=[GUIDED, 3, None, ["x"]]), ""),
    "outputs that are none": (lambda n: guide_cell(n).update(outputs={"a": 3}), ""),
    "odd outputs": (lambda n: guide_cell(n).update(outputs=[1, {"data": 3}, {"data": {1: 2}}]), ""),
    "huge output": (lambda n: guide_cell(n).update(outputs=[{"text": "x" * 10**7}]), ""),
    "many cells": (lambda n: n["cells"].extend([{"source": "x"}] * 6000), "more than 5,000 cells"),
    "format": (lambda n: n.update(nbformat="four", nbformat_minor={}), ""),
    "huge number": (lambda n: n.update(extra=10**4000), ""),
    "cells for modules": (
        lambda n: n["cells"].append({"cell_type": "code", "source": "import os; os._exit(1)"}),
        "",
    ),
}


@pytest.mark.parametrize("name", READ)
def test_attacks_after_which_the_answer_is_read(tmp_path, name):
    edit, problem = READ[name]
    submission = read_file(tmp_path, edited(edit))
    assert "return uncond + w" in submission.answers["1.2 (d)"]
    assert problem in "\n".join(submission.problems)
    assert all("\n" not in line and len(line) <= 300 for line in submission.problems)


UNREADABLE = {  # files that are no notebooks, and a part of the problems
    "deep": (b"[" * 100_000, "nested too deeply"),
    "deep cells": (b'{"cells": [' + b'{"a":' * 100_000, "is no notebook"),
    "list": (b"[1, 2]", "JSON of another kind"),
    "text": (b'"notebook"', "JSON of another kind"),
    "cells no list": (b'{"cells": {"a": 1}, "nbformat": 4}', "is no notebook"),
    "no cells": (b'{"nbformat": 4}', "is no notebook"),
    "no lesson": (b'{"cells": [{"cell_type": "code", "source": "x"}]}', "belongs to no lesson"),
    "empty": (b"", "it is empty"),
    "space": (b" \n", "it is empty"),
    "pickle": (b"\x80\x04cos\nsystem\n(S'touch x'\ntR.", "not valid JSON"),
    "html": (b"<html><script>alert(1)</script>", "not valid JSON"),
    "huge number": (b'{"cells": ' + b"9" * 5000 + b"}", "is no notebook"),
    "python": (b"import os; os._exit(0)", "not valid JSON"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_attacks_by_files_that_are_no_notebooks(tmp_path, name):
    data, problem = UNREADABLE[name]
    submission = read_file(tmp_path, data, "other.ipynb")
    assert submission.answers == {}
    assert problem in "\n".join(submission.problems)


ANSWERS = {  # sources of the answer's cell, and a part of the problems
    "huge": (GUIDED + "# " + "x" * 10**6, "has more than 100,000 characters", False),
    "deep": (GUIDED + "x = " + "(" * 5000 + ")" * 5000, "is no valid Python", True),
    "long sum": (GUIDED + "x = " + "+".join(["1"] * 9000), "", True),
    "minus signs": (GUIDED + "x = " + "-" * 90_000 + "1", "is no valid Python", True),
    "surrogates": (GUIDED + "x = '\ud800'", "", True),
    "nul": (GUIDED + "x = '\0'", "", True),
    "todos": (GUIDED + "# TODO 1.2 (e) " * 5000, "", True),
    "magics": ("%%time\n%matplotlib inline\n" + GUIDED + "!ls\n", "they are left out", True),
    "checks": (GUIDED + "checks.guidance(guide)\n", "they are left out", True),
    "line ends": (GUIDED.replace("\n", "\r\n"), "", True),
    "fences": (GUIDED.replace("    return", "    ### BEGIN SOLUTION\n    return"), "", True),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_attacks_by_an_answer(tmp_path, name):
    source, problem, is_there = ANSWERS[name]
    start = time.monotonic()
    submission = read_file(tmp_path, answered(source))
    assert time.monotonic() - start < submissions.SECONDS / 2
    assert ("1.2 (d)" in submission.answers) == is_there
    assert problem in "\n".join(submission.problems)
    answer = submission.answers.get("1.2 (d)", "")
    assert "\r" not in answer and "\0" not in answer and "\ud800" not in answer
    if name in ("magics", "checks", "line ends"):
        compile(answer, "<answer>", "exec")


def test_a_submission_that_ends_its_reader_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(submissions, "SECONDS", 0)
    submission = read_file(tmp_path, answered())
    assert submission.problems == ["The files could not be read: that took more than 0 seconds."]


def test_nothing_of_a_submission_is_imported(tmp_path):
    mark = tmp_path / "mark"
    code = f"open({str(mark)!r}, 'w')\n".encode()
    names = ("nbformat.py", "sitecustomize.py", "conftest.py", "course/__init__.py", "json.py")
    files = dict.fromkeys(names, code) | {DETAILED: answered(), "sd.py": code}
    class_of_30.plain(tmp_path, "anna", files)
    before = os.getcwd()
    os.chdir(tmp_path / "anna")
    try:
        submission = read(StudentFiles("anna", (tmp_path / "anna",)))
    finally:
        os.chdir(before)
    assert submission.answers and not mark.exists()


def test_of_several_notebooks_of_a_lesson_the_fullest_is_taken(tmp_path):
    files = {DETAILED: notebook(DETAILED), f"copy/{DETAILED}": answered()}
    class_of_30.plain(tmp_path, "anna", files)
    submission = read(StudentFiles("anna", (tmp_path / "anna",)))
    assert list(submission.answers) == ["1.2 (d)"]
    assert "are all of task_1_2_Stable_Diffusion_detailed" in "\n".join(submission.problems)


def test_helpers_in_other_cells_are_said(tmp_path):
    def edit(nb):
        replace_cell(GUIDE, "import math\ndef guide(u, c, w):\n    return mix(u, c, math.e)\n")(nb)
        nb.cells.insert(0, nbformat.v4.new_code_cell("def mix(a, b, w):\n    return a"))

    submission = read_file(tmp_path, notebook(DETAILED, (), edit))
    [problem] = submission.problems
    assert "the answer of 1.2 (d) uses mix of another cell" in problem


def test_versions_are_compared(tmp_path):
    assert read_file(tmp_path, answered()).version == course.__version__
    other = read_file(tmp_path, edited(with_metadata({STAMP: {"version": "0.1"}})))
    assert other.version == "0.1" and "Made with version 0.1" in other.problems[-1]


def test_written_answers_are_text(tmp_path):
    text = "*Your answer:* <img src=x onerror=alert(1)> $x$\ud800"

    def edit(nb):
        replace_cell("answer-w1", text)(nb)
        place = [cell.id for cell in nb.cells].index("answer-w1")
        nb.cells.insert(place + 1, nbformat.v4.new_markdown_cell("And more."))

    [written] = read_file(tmp_path, notebook(DETAILED, (), edit)).written.values()
    assert written == "<img src=x onerror=alert(1)> $x$?\n\nAnd more."


# --- A module of task 3


def test_functions_of_a_module_are_taken_by_name(tmp_path):
    source = class_of_30.module(class_of_30.EVERYTHING).decode()
    submission = read_file(tmp_path, source.encode(), "anna_sd-2.py")
    assert list(submission.answers) == ["3 (a)", "3 (b)", "3 (c)", "3 (d)"]
    assert submission.answers["3 (a)"].startswith("@torch.no_grad()\ndef embed_text(")
    broken = source.replace("def predict_noise(", "def predict_noise(((", 1)
    submission = read_file(tmp_path, broken.encode(), "sd.py")
    assert {"3 (a)", "3 (b)", "3 (d)"} <= set(submission.answers)
    assert "sd.py is no valid Python" in submission.problems[0]
    empty = read_file(tmp_path, class_of_30.module(), "sd.py")
    assert empty.answers == {}
    assert "more than 1 MiB" in read_file(tmp_path, b"#" * (2 << 20), "sd.py").problems[0]


# --- Any content


words = st.text(string.ascii_lowercase, min_size=1, max_size=6)
bodies = st.lists(st.tuples(words, st.integers(0, 99)), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_stub_and_lines_are_the_answer_in_any_order_of_cells(data):
    """Lines in the place of a stub are found again: cells in any order, with or without ids."""
    lesson = answers.lessons()[data.draw(st.integers(0, len(answers.lessons()) - 1))]
    numbers = st.integers(0, len(lesson.places) - 1)
    places = [lesson.places[i] for i in data.draw(st.sets(numbers, max_size=6))]
    cells = [Cell("", "markdown", source) for source in sorted(lesson.sources)]
    cells += [Cell(place.id, "code", place.stub) for place in lesson.places]
    written = {}
    for place in places:
        lines = [f"{name}_ = {number}" for name, number in data.draw(bodies)]
        indent = re.search(r"^( *)\.\.\.  # TODO", place.stub, re.MULTILINE)
        code = "\n".join(f"{indent[1] if indent else ''}{line}" for line in lines)
        source = re.sub(r"^ *\.\.\.  # TODO.*$", code, place.stub, count=1, flags=re.MULTILINE)
        [cell] = [cell for cell in cells if cell.id == place.id]
        cell.source = written[place.exercise] = source
    if data.draw(st.booleans()):
        for cell in cells:
            cell.id = ""
    data.draw(st.randoms(use_true_random=False)).shuffle(cells)
    student = Notebook("anna.ipynb", cells)
    assert answers.lesson_of(student) is lesson
    result = answers.from_notebook(student, lesson)
    assert result.answers == written


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["cells", "source", "id", "metadata", "outputs", "worksheets"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    ),
    st.integers(0, 200),
)
def test_json_of_any_kind_is_read_or_refused(tmp_path_factory, content, end):
    path = tmp_path_factory.mktemp("json") / "a.ipynb"
    for data in (json.dumps(content), json.dumps({"cells": [content] * 3, "nbformat": 4})):
        for text in (data, data[:end]):
            path.write_text(text)
            try:
                student = load(File("a.ipynb", path), [])
            except NotebookError:
                continue
            for lesson in answers.lessons()[:1]:
                answers.from_notebook(student, lesson)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200), st.text(max_size=20))
def test_sources_of_any_kind_are_no_error(source, name):
    source = answers.clean(source)
    answers.is_empty(source, GUIDED)
    answers.without_magics(source)
    answers.without_checks(source)
    answers.defined(source, imports=True)
    [places] = answers.module_functions().values()
    answers.from_module(name, f"def embed_text({source}", places)
