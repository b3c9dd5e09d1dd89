"""A submission's scores in the format that Gradescope reads: results.json.

The format is described at https://gradescope-autograders.readthedocs.io/en/latest/specs/.
"""

import json
import re
from pathlib import Path
from typing import Any

from course.checks import exercises
from course.files import write_text
from grading.scores import Score, ScoreSheet

RESULTS = "results.json"
PROBLEMS = "What the grader noticed in the files:"
# Control characters, halves of a character, and characters that reorder a whole line.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return a text that every program can store and show, with U+FFFD for what it could not."""
    return UNPRINTABLE.sub("\ufffd", text)


def results(sheet: ScoreSheet) -> dict[str, Any]:
    """Return the contents of results.json: points are those after the teacher's overrides."""
    lines = [PROBLEMS, *(f"- {problem}" for problem in sheet.problems)] if sheet.problems else []
    return {
        "score": round(sheet.points, 4),
        "execution_time": round(sum(score.seconds for score in sheet.scores)),
        "output": printable("\n".join(lines)),
        "output_format": "text",
        "test_output_format": "text",
        "test_name_format": "text",
        "stdout_visibility": "hidden",
        "tests": [test(score) for score in sheet.scores],
        "extra_data": {
            "version": printable(sheet.version),
            "seed": sheet.seed,
            "digest": sheet.digest,
        },
    }


def test(score: Score) -> dict[str, Any]:
    """Return the entry of an exercise. One that a teacher has to grade has no score yet."""
    exercise = exercises()[score.exercise]
    entry: dict[str, Any] = {
        "name": f"{exercise.id} {exercise.title}",
        "number": exercise.id.replace("(", "").replace(")", ""),
        "output": printable("\n".join(filter(None, [score.message, score.comment]))),
        "tags": [f"lesson {exercise.lesson}", exercise.tier],
        "extra_data": {
            "status": score.status,
            "seconds": round(score.seconds, 3),
            "memory": score.memory,
        },
    }
    if score.status == "not graded" and score.comment is None:
        return entry
    return entry | {
        "score": score.points,
        "max_score": score.max_points,
        "status": "passed" if score.points >= score.max_points else "failed",
    }


def write_results(path: Path, sheet: ScoreSheet) -> None:
    """Write results.json, whole or not at all. Raises OSError."""
    write_text(path, json.dumps(results(sheet), indent=1, allow_nan=False) + "\n")
