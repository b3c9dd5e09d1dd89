"""`python -m publish.teaching`: fill the rubric and the answer key of docs/teaching.

The rubric, between `<!--rubric-->` and `<!---->`, comes from course/exercises.toml; the answers,
between `<!--answers-->` and `<!---->`, are those that the lessons fold.
"""

import re
import sys
from collections.abc import Callable

from course import notebooks
from course.checks.rubric import LESSONS, Exercise, exercises
from course.figures import ROOT

FOLDER = ROOT / "docs" / "teaching"
HEAD = (
    "| | exercise | tier | minutes | points | check |",
    "| --- | --- | --- | --: | --: | --- |",
)
PART = re.compile(r"(?<=<!--)(rubric|answers)-->\n.*?(?=<!---->)", flags=re.DOTALL)
ANSWER = re.compile(
    r"<details>\s*<summary>\s*(?:<b>)?Answers?(?:</b>)?\s*</summary>(.*?)</details>",
    flags=re.DOTALL,
)
FOLDED = re.compile(r"<details>.*?</details>", flags=re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", flags=re.MULTILINE)


def lesson_name(exercise: Exercise) -> str:
    """Return the key of LESSONS to which an exercise belongs."""
    return next(
        name
        for name in sorted(LESSONS, key=len, reverse=True)
        if exercise.id.startswith(name) or exercise.lesson == name
    )


def rubric_rows(tasks: list[Exercise]) -> list[str]:
    """Return the rows of a table of exercises, and a last one with their sums."""
    rows = [
        f"| {task.id} | {task.title} | {task.tier} | {task.minutes} | {task.points:g} | "
        f"{f'`{task.check}`' if task.check else 'by hand'} |"
        for task in tasks
    ]
    minutes, points = sum(task.minutes for task in tasks), sum(task.points for task in tasks)
    return [*rows, f"| | **sum** | | **{minutes}** | **{points:g}** | |"]


def rubric() -> str:
    """Return the tables of all exercises in Markdown, one a lesson."""
    groups: dict[str, list[Exercise]] = {name: [] for name in LESSONS}
    for exercise in exercises().values():
        groups[lesson_name(exercise)].append(exercise)
    parts = []
    for name, tasks in groups.items():
        if tasks:
            parts.append("\n".join([f"### {name} {LESSONS[name]}\n", *HEAD, *rubric_rows(tasks)]))
    total = sum(exercise.points for exercise in exercises().values())
    return "\n\n".join(parts) + f"\n\nAll lessons: **{total:g} points**.\n"


def lesson_answers(text: str) -> list[tuple[str, str, str]]:
    """Return (heading, question, answer) for each answer folded in the texts of a lesson.

    The question is what follows the last "Think about it" above the answer; or the first two
    paragraphs of a written exercise.
    """
    triples = []
    for match in ANSWER.finditer(text):
        before = FOLDED.sub("", text[: match.start()])
        *_, heading = HEADING.findall(before) or [""]
        todo, think = before.rfind("**TODO"), before.rfind("Think about it")
        if todo > think:
            question = " ".join(before[todo:].split("\n\n")[:2])
        else:
            question = re.sub(r"^Think about it[:.*\s]*", "", before[think:]).strip()
            if question.count("*") % 2:  # the question was in italics
                question = question.removesuffix("*")
            question = question[:1].upper() + question[1:]
        triples.append((heading, question, match[1].strip()))
    return triples


def answers() -> str:
    """Return all questions of the lessons with the answers that they fold, in Markdown."""
    parts = []
    for path in notebooks.lesson_paths():
        cells = notebooks.read(path).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        if triples := lesson_answers(text):
            parts.append(f"## {HEADING.findall(text)[0]}")
            for place, question, answer in triples:
                gap = "\n\n" if question.startswith("- ") else " "
                parts.append(f"**{place}.**{gap}{question}\n\n> {quote(answer)}")
    return "\n\n".join(parts) + "\n"


def quote(text: str) -> str:
    return text.replace("\n", "\n> ").replace("> \n", ">\n")


PARTS: dict[str, Callable[[], str]] = {"rubric": rubric, "answers": answers}


def fill_parts(text: str) -> str:
    """Return a document with the rubric and the answers filled in."""
    return PART.sub(lambda match: f"{match[1]}-->\n\n{PARTS[match[1]]()}\n", text)


def main() -> int:
    for name in ("rubric.md", "answers.md"):
        path = FOLDER / name
        path.write_text(fill_parts(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"  docs/teaching/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
