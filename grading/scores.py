"""Points: the score of each exercise, the teacher's overrides, and the log of regrades.

    OUT/NAME/scores.json   one submission's scores, as the grader computed them
    OUT/overrides.csv      a teacher's points: student, exercise, points, comment
    OUT/regrades.csv       every score that a later grading changed

The grader never writes overrides.csv. They are applied whenever scores are read for a report, so
they survive a regrade.
"""

import csv
import datetime
import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from course.checks import exercises
from course.errors import CourseError
from course.files import replace_file, write_text

STATUSES = (
    *("right", "partly", "wrong", "error", "empty", "stopped", "not allowed", "not graded"),
)
SCORES = "scores.json"
OVERRIDES = "overrides.csv"
REGRADES = "regrades.csv"
OVERRIDE_COLUMNS = ("student", "exercise", "points", "comment")
REGRADE_COLUMNS = ("date", "student", "exercise", "before", "after", "reason")


class ScoreError(CourseError):
    """A file of scores or overrides has an entry that is not allowed; the message names it."""


@dataclass(frozen=True)
class Score:
    """The points of an exercise.

    status: one of `STATUSES`. message: for the student. seconds: of CPU time. memory: peak, in
    bytes. comment: a teacher's, with an override; None without one.
    """

    exercise: str
    points: float
    max_points: float
    status: str
    message: str
    seconds: float = 0.0
    memory: int = 0
    comment: str | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ScoreError(
                f"{self.exercise}: status must be one of {', '.join(STATUSES)}, got "
                f"{self.status!r}."
            )


@dataclass(frozen=True)
class ScoreSheet:
    """The scores of one submission, in the order of the rubric.

    path: of the submission, relative to the folder of all. version: of its student copy. digest: of
    its answers. seed: of the grading run. problems: what is to be looked at by eye.
    """

    student: str
    path: str
    version: str
    digest: str
    seed: int
    problems: list[str] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)

    @property
    def points(self) -> float:
        """The sum of all points."""
        return sum(score.points for score in self.scores)

    @property
    def max_points(self) -> float:
        """The sum of all points that can be reached."""
        return sum(score.max_points for score in self.scores)


def score(
    exercise: str,
    status: str,
    message: str,
    share: float = 0.0,
    seconds: float = 0.0,
    memory: int = 0,
) -> Score:
    """Return the score of an exercise; `share` is the part of its points that is reached."""
    max_points = exercises()[exercise].points
    points = round(share * max_points, 4)
    return Score(exercise, points, max_points, status, message, seconds, memory)


def folder_name(student: str, path: str) -> str:
    """Return the name of a submission's folder below OUT: safe, readable, different for each."""
    plain = unicodedata.normalize("NFKD", student).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")[:40] or "student"
    unique = f"{student}/{path}".encode("utf-8", "surrogatepass")
    return f"{plain}-{hashlib.sha256(unique).hexdigest()[:8]}"


def digest(answers: Mapping[str, str]) -> str:
    """Return a digest of answers, which tells whether a submission has changed."""
    text = json.dumps(answers, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def write_sheet(folder: Path, sheet: ScoreSheet) -> None:
    """Write FOLDER/scores.json, whole or not at all. Creates the folder. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / SCORES, json.dumps(asdict(sheet), indent=1) + "\n")


def read_sheet(folder: Path) -> ScoreSheet | None:
    """Return what FOLDER/scores.json holds, None without that file. Raises ScoreError."""
    path = folder / SCORES
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text("utf-8"))
        scores = [Score(**value) for value in values.pop("scores")]
        return ScoreSheet(**values, scores=scores)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ScoreError(f"{path} cannot be read: {error}. Remove it to grade again.") from error


Overrides = dict[tuple[str, str], tuple[float, str]]  # (student, exercise) to points, comment


def read_overrides(path: Path) -> Overrides:
    """Return the overrides of a CSV file, none without the file. Raises ScoreError."""
    if not path.is_file():
        return {}
    overrides: Overrides = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not set(OVERRIDE_COLUMNS[:3]) <= set(reader.fieldnames or ()):
            columns = ", ".join(OVERRIDE_COLUMNS)
            raise ScoreError(f"{path} needs the columns {columns} in its first line.")
        for row in reader:
            student, exercise = (row["student"] or "").strip(), (row["exercise"] or "").strip()
            place = f"{path}, line {reader.line_num}"
            points = _points(row["points"], exercise, place)
            overrides[student, exercise] = (points, (row.get("comment") or "").strip())
    return overrides


def _points(text: str | None, exercise: str, place: str) -> float:
    """Return the points of an override. Raises ScoreError."""
    if exercise not in exercises():
        raise ScoreError(f"{place}: there is no exercise {exercise!r} in course/exercises.toml.")
    try:
        points = float(text or "")
    except ValueError:
        points = math.nan
    max_points = exercises()[exercise].points
    if not 0 <= points <= max_points:
        raise ScoreError(
            f"{place}: points of {exercise} must be between 0 and {max_points:g}, got {text!r}."
        )
    return points


def with_overrides(sheet: ScoreSheet, overrides: Overrides) -> ScoreSheet:
    """Return a sheet with the teacher's points in the place of the grader's."""
    scores = []
    for score in sheet.scores:
        if (sheet.student, score.exercise) in overrides:
            points, comment = overrides[sheet.student, score.exercise]
            score = replace(score, points=points, comment=comment)
        scores.append(score)
    return replace(sheet, scores=scores)


def log_regrade(
    out: Path, before: ScoreSheet | None, after: ScoreSheet, reason: str
) -> list[dict[str, str]]:
    """Add each score that differs to OUT/regrades.csv, and return those lines.

    Both sheets are without overrides. Raises OSError.
    """
    old = {score.exercise: score.points for score in before.scores} if before else {}
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    lines = [
        dict(
            zip(
                REGRADE_COLUMNS,
                (now, after.student, s.exercise, f"{old[s.exercise]:g}", f"{s.points:g}", reason),
                strict=True,
            )
        )
        for s in after.scores
        if s.exercise in old and old[s.exercise] != s.points
    ]
    if lines:
        append(out / REGRADES, REGRADE_COLUMNS, lines)
    return lines


def append(path: Path, columns: Iterable[str], lines: list[dict[str, str]]) -> None:
    """Add lines to a CSV file, which is written whole or not at all. Raises OSError."""
    old = path.read_text("utf-8") if path.is_file() else ""
    with replace_file(path) as new, new.open("w", encoding="utf-8", newline="") as file:
        file.write(old)
        writer = csv.DictWriter(file, list(columns))
        if not old:
            writer.writeheader()
        writer.writerows(lines)
