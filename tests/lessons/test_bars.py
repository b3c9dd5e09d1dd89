"""What each lesson has: enough code that the student writes, diagrams, sliders and hints."""

import re

import pytest

from course import notebooks
from course.notebooks import BEGIN_SOLUTION, END_SOLUTION, code_cells

PATHS = {path.stem: path for path in notebooks.lesson_paths()}
# The share of code lines that the student writes; that of lesson 3 includes nerf/sd.py.
SHARES = {
    "task_0_Introduction": 0.40,
    "task_1_1_Stable_Diffusion_intro": 0.30,
    "task_1_2_Stable_Diffusion_detailed": 0.30,
    "task_1_3_ControlNet": 0.25,
    "task_2_Joint_Diffusion": 0.25,
    "task_3_DreamFusion": 0.25,
}
DIAGRAM = re.compile(r"!\[([^]]+)\]\((?:\.\./)?assets/diagrams/(\w+)\.svg\)")


def code_lines(source: str) -> int:
    """Return the number of lines that are neither blank nor a comment."""
    return sum(bool(re.match(r"\s*[^\s#]", line)) for line in source.splitlines())


def sources(name: str) -> list[str]:
    """Return the code of a lesson."""
    codes = [cell.source for cell in code_cells(notebooks.read(PATHS[name]))]
    if name == "task_3_DreamFusion":
        codes.append((PATHS[name].parent / "nerf" / "sd.py").read_text(encoding="utf-8"))
    return codes


@pytest.mark.parametrize("name", SHARES)
def test_the_student_writes_a_good_part_of_the_code(name):
    text = "\n".join(sources(name))
    solutions = re.findall(f"{BEGIN_SOLUTION}(.*?){END_SOLUTION}", text, re.DOTALL)
    assert sum(map(code_lines, solutions)) >= SHARES[name] * code_lines(text)


@pytest.mark.parametrize("name", PATHS)
def test_a_lesson_is_stored_without_warnings(name):
    cells = code_cells(notebooks.read(PATHS[name]))
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []


def test_diagrams_exist_and_say_what_they_show():
    shown = set()
    for path in PATHS.values():
        for cell in notebooks.read(path).cells:
            for alt, name in DIAGRAM.findall(cell.source):
                assert len(alt.split()) >= 3, (path.name, alt)
                assert (notebooks.ROOT / "assets" / "diagrams" / f"{name}.svg").is_file(), name
                shown.add(name)
            # None is written in another way, which this test would not see.
            assert len(DIAGRAM.findall(cell.source)) == cell.source.count("assets/diagrams/")
    assert len(shown) >= 15, shown


def test_sliders():
    codes = [cell.source for path in PATHS.values() for cell in code_cells(notebooks.read(path))]
    assert sum(len(re.findall(r"\b(?:show|image)_slider\(", code)) for code in codes) >= 6


@pytest.mark.parametrize("name", PATHS)
def test_hints_and_answers_fold(name):
    """And have the summary by which the student copy knows them."""
    for cell in notebooks.read(PATHS[name]).cells:
        summaries = re.findall(r"<summary>(.*?)</summary>", cell.source)
        assert len(summaries) == cell.source.count("<details>") == cell.source.count("</details>")
        assert all(re.fullmatch(r"Hint( \d)?|Answer", each) for each in summaries), cell.id
