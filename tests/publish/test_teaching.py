"""The teaching material agrees with the lessons and their rubric."""

import re

import nbformat
import pytest

from course import notebooks
from course.checks import rubric
from publish import teaching
from publish.teaching import FOLDER, LESSONS

ID = r"[\d.]+ (?:training )?\((?:\w)\)|video \(\w\)|[\d.]+ (?:training )?(?:challenge|written) \d"


def read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["rubric.md", "answers.md"])
def test_what_is_filled_is_that_of_the_lessons(name):
    text = read(name)
    assert teaching.fill_parts(text) == text, "python -m publish.teaching writes it"
    assert teaching.fill_parts(teaching.fill_parts(text)) == text


def test_the_rubric_has_every_exercise():
    rows = re.findall(r"^\| ([^|*]+?) \|", teaching.rubric(), flags=re.MULTILINE)
    ids = [row for row in rows if row not in ("---", "")]
    assert sorted(ids) == sorted(rubric.exercises())
    total = sum(exercise.points for exercise in rubric.exercises().values())
    assert f"All lessons: **{total:g} points**" in teaching.rubric()


def test_each_lesson_has_five_objectives():
    sections = re.split(r"^## ", read("objectives.md"), flags=re.MULTILINE)[1:]
    assert len(sections) == len(LESSONS)
    for section in sections:
        rows = re.findall(r"^\| (?!after|---)(.*?) \| (.*?) \|$", section, flags=re.MULTILINE)
        assert len(rows) == 5, section
        assert all(re.fullmatch(rf"({ID})(, ({ID}))*", ids) for _, ids in rows), section


def test_objectives_name_exercises_of_the_rubric():
    named = re.findall(ID, "\n".join(re.findall(r"\| ([^|]*) \|$", read("objectives.md"), re.M)))
    assert set(named) <= set(rubric.exercises())


def test_every_lesson_has_notes():
    files = {path.stem for path in (FOLDER / "notes").glob("*.md")}
    numbers = {"lesson_" + name.replace(".", "_") for name in LESSONS if name[0].isdigit()}
    assert files == numbers | {"make_video"}
    for path in (FOLDER / "notes").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert "## Where students stop" in text and "## Exit ticket" in text, path.name


def test_the_self_test_has_ten_questions_with_folded_answers():
    text = read("prerequisites.md")
    parts = re.split(r"^\*\*\d+\.\*\*", text, flags=re.MULTILINE)[1:]
    assert len(parts) == 10
    assert all(len(teaching.ANSWER.findall(part)) == 1 for part in parts)


def test_answers_are_collected_with_their_questions():
    text = """## Noise

A sentence.

*Think about it: why?*

<details><summary>Answer</summary>

Because.

</details>

**Think about it.** 1. How? 2. When?

<details>
<summary>Answer</summary>
1. So. 2. Now.
</details>

<details><summary>Hint</summary>Not an answer.</details>

## Bugs

**TODO 7 written 1**

Explain one.

*Your answer here.*

<details><summary>Answer</summary>For example this.</details>

*Think about it:*

- *A?*
- *B?*

<details><summary>Answer</summary>C.</details>
"""
    assert teaching.lesson_answers(text) == [
        ("Noise", "Why?", "Because."),
        ("Noise", "1. How? 2. When?", "1. So. 2. Now."),
        ("Bugs", "**TODO 7 written 1** Explain one.", "For example this."),
        ("Bugs", "- *A?*\n- *B?*", "C."),
    ]


def test_answers_stand_below_their_lesson_and_section(tmp_path, monkeypatch):
    cells = [
        nbformat.v4.new_markdown_cell("# 7 A lesson"),
        nbformat.v4.new_markdown_cell("## Noise\n\nIntroduction."),
        nbformat.v4.new_markdown_cell(
            "*Think about it: why?*\n\n<details><summary>Answer</summary>\n\nA.\n\nB.\n\n</details>"
        ),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "task_7.ipynb")
    monkeypatch.setattr(notebooks, "lesson_paths", lambda: [tmp_path / "task_7.ipynb"])
    expected = "## 7 A lesson\n\n**Noise.** Why?\n\n> A.\n>\n> B.\n"
    assert teaching.answers() == expected


def test_messages_that_the_faq_quotes_are_those_of_the_checks():
    """Between asterisks in its first column, without the beginning or the end of the message."""
    rows = re.findall(r'^\| "(.*?)" \|', read("faq.md"), flags=re.MULTILINE)
    quoted = [message for row in rows for message in re.findall(r"\*([^*]+)\*", row)]
    sources = (notebooks.ROOT / "course" / "checks").glob("*.py")
    code = " ".join(path.read_text(encoding="utf-8") for path in sources)
    text = re.sub(r"\W+", " ", re.sub(r'"\s+f?"', "", code)).lower()
    stale = [m for m in quoted if re.sub(r"\W+", " ", m).strip().lower() not in text]
    assert len(quoted) > 15 and stale == []
