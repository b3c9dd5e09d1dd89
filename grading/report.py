"""The pages of a graded class, and the files for other programs.

    OUT/index.html            the class: what to look at by eye, points, exercises, images
    OUT/similar.html          answers that are alike, side by side
    OUT/scores.csv            the points of all students
    OUT/NAME/index.html       one student's points, messages, images and written answers
    OUT/NAME/results.json     the same points for Gradescope

Everything that a student wrote is text here: templates escape it, and nothing executes it.
"""

import csv
import io
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import course
from course import pages
from course.checks import exercises
from course.checks.rubric import LESSONS, Exercise
from course.files import write_text
from grading import charts, gradescope
from grading.exhibits import Exhibit
from grading.gradescope import printable
from grading.review import FREE, PAGE, PAIRS, Graded, anchor, review_tasks
from grading.scores import REGRADES, STATUSES, Score
from grading.similarity import Pair, similar_pairs

TEMPLATES = Path(__file__).parent / "templates"
SCORES = "scores.csv"
MAX_REGRADES = 200  # lines of the page
MESSAGES = 3  # of an exercise: the most frequent ones
FORMULA = "=+-@\t"  # a spreadsheet computes a cell that starts with one of these


def write_page(path: Path, template: str, **values: object) -> None:
    """Write a page from a template of this package, whole or not at all. Raises OSError."""
    write_text(path, printable(pages.render(TEMPLATES / template, **values)))


def by_lesson(scores: Iterable[Score]) -> dict[str, list[Score]]:
    """Return scores by lesson, in the order of the rubric."""
    groups: dict[str, list[Score]] = {}
    for score in scores:
        groups.setdefault(exercises()[score.exercise].lesson, []).append(score)
    return groups


def write_student(out: Path, graded: Graded) -> None:
    """Write the page of a student, and results.json. Raises OSError."""
    folder = out / graded.folder
    folder.mkdir(parents=True, exist_ok=True)
    gradescope.write_results(folder / gradescope.RESULTS, graded.sheet)
    lessons = [
        {
            "title": f"{lesson} {LESSONS[lesson]}",
            "points": sum(score.points for score in scores),
            "max_points": sum(score.max_points for score in scores),
            "exercises": [student_item(graded, score) for score in scores],
        }
        for lesson, scores in by_lesson(graded.sheet.scores).items()
    ]
    write_page(
        folder / PAGE,
        "student.html",
        title=graded.sheet.student,
        sheet=graded.sheet,
        lessons=lessons,
        seconds=sum(score.seconds for score in graded.sheet.scores),
    )


def student_item(graded: Graded, score: Score) -> dict[str, Any]:
    """Return what a student's page shows of an exercise."""
    id = score.exercise
    return {
        "score": score,
        "exercise": exercises()[id],
        "anchor": anchor(id),
        "answer": graded.submission.answers.get(id, ""),
        "written": graded.submission.written.get(id, ""),
        "exhibits": exhibit_rows([e for e in graded.exhibits if e.exercise == id]),
    }


def exhibit_rows(exhibits: Sequence[Exhibit]) -> list[list[tuple[str, str]]]:
    """Return what stands in a row: those alone together, others with what belongs to them."""
    alone = [file for exhibit in exhibits if len(exhibit.files) == 1 for file in exhibit.files]
    others = [exhibit.files for exhibit in exhibits if len(exhibit.files) > 1]
    return [alone, *others] if alone else others


def csv_cell(text: str) -> str:
    """Return a text for a cell that no spreadsheet takes for a formula."""
    return f"'{printable(text)}" if text.startswith(tuple(FORMULA)) else printable(text)


def write_scores(path: Path, graded: Sequence[Graded]) -> None:
    """Write the points of all students and exercises as CSV. Raises OSError."""
    ids = list(exercises())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["student", "submission", "version", "points", *ids])
    for each in graded:
        sheet = each.sheet
        points = {score.exercise: f"{score.points:g}" for score in sheet.scores}
        head = [csv_cell(text) for text in (sheet.student, sheet.path, sheet.version)]
        writer.writerow([*head, f"{sheet.points:g}", *(points.get(id, "") for id in ids)])
    write_text(path, text.getvalue())


def exercise_row(exercise: Exercise, scores: Sequence[Score]) -> dict[str, Any]:
    """Return what the class's page shows of an exercise: `scores` of all students."""
    messages = Counter(score.message for score in scores if score.status != "right")
    return {
        "exercise": exercise,
        "bar": charts.status_bar(scores),
        "mean": statistics.fmean(score.points for score in scores),
        "messages": [pair for pair in messages.most_common(MESSAGES) if pair[0]],
    }


def lesson_rows(graded: Sequence[Graded]) -> list[dict[str, Any]]:
    """Return the distribution of each exercise, by lesson."""
    scores: dict[str, list[Score]] = {id: [] for id in exercises()}
    for each in graded:
        for score in each.sheet.scores:
            scores[score.exercise].append(score)
    groups: dict[str, list[dict[str, Any]]] = {}
    for id, of_exercise in scores.items():
        if of_exercise:
            row = exercise_row(exercises()[id], of_exercise)
            groups.setdefault(exercises()[id].lesson, []).append(row)
    return [
        {"name": lesson, "title": f"{lesson} {LESSONS[lesson]}", "rows": rows}
        for lesson, rows in groups.items()
    ]


def contact_sheets(graded: Sequence[Graded]) -> list[dict[str, Any]]:
    """Return the results of free choice of all students, one sheet an exercise."""
    sheets = []
    for id, title in FREE.items():
        entries = [
            {
                "address": f"{each.folder}/{exhibit.files[0][0]}",
                "name": each.sheet.student,
                "page": each.address(id),
            }
            for each in graded
            for exhibit in each.exhibits
            if exhibit.exercise == id
        ]
        if entries:
            sheet = {"id": anchor(id), "title": f"{title}, {id}", "entries": entries}
            sheets.append(sheet | {"is_wide": title == "Panoramas"})
    return sheets


def student_row(each: Graded, lessons: Sequence[str], remarks: int) -> dict[str, Any]:
    """Return the row of a student in the table of the class."""
    groups = by_lesson(each.sheet.scores)
    return {
        "name": each.sheet.student,
        "address": each.address(),
        "points": each.sheet.points,
        "by_lesson": [sum(s.points for s in groups.get(lesson, [])) for lesson in lessons],
        "remarks": remarks,
    }


def write_class(out: Path, graded: Sequence[Graded], pairs: Sequence[Pair]) -> None:
    """Write the page of the class. Raises OSError."""
    tasks = review_tasks(graded, pairs, course.__version__)
    remarks = Counter(entry.address.split("/")[0] for task in tasks for entry in task.entries)
    remarks.update(folder for pair in pairs for folder in (pair.first, pair.second))
    lessons = lesson_rows(graded)
    names = [lesson["name"] for lesson in lessons]
    totals = [each.sheet.points for each in graded]
    max_points = max((each.sheet.max_points for each in graded), default=100)
    write_page(
        out / PAGE,
        "class.html",
        title="Graded class",
        tasks=tasks,
        lessons=lessons,
        students=[student_row(each, names, remarks[each.folder]) for each in graded],
        sheets=contact_sheets(graded),
        regrades=regrades(out),
        statuses=STATUSES,
        bins=charts.histogram(totals, max_points),
        max_points=max_points,
        median=statistics.median(totals or [0]),
        mean=statistics.fmean(totals or [0]),
    )


def regrades(out: Path) -> list[dict[str, str]]:
    """Return the scores that later runs have changed, the newest first, at most MAX_REGRADES."""
    path = out / REGRADES
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))[: -MAX_REGRADES - 1 : -1]


def write_pairs(out: Path, graded: Sequence[Graded], pairs: Sequence[Pair]) -> None:
    """Write the page with similar answers, side by side. Raises OSError."""
    address = {each.folder: each for each in graded}
    entries = [
        {
            "first": address[pair.first],
            "second": address[pair.second],
            "matches": pair.matches,
        }
        for pair in pairs
    ]
    write_page(out / PAIRS, "pairs.html", title="Similar answers", pairs=entries)


def write_report(out: Path, graded: Sequence[Graded], official: Mapping[str, str]) -> None:
    """Write all pages and files of a class.

    Args:
        out: the folder with the scores of all submissions.
        graded: the class, in the order of its pages.
        official: the sources of the cells with the official solutions, by exercise.
    Raises OSError.
    """
    pairs = similar_pairs({each.folder: each.submission.answers for each in graded}, official)
    for each in graded:
        write_student(out, each)
    write_scores(out / SCORES, graded)
    write_pairs(out, graded, pairs)
    write_class(out, graded, pairs)
