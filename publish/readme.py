"""`python -m publish.readme`: fill the figures of README and the docs, and the table of lessons.

A figure in a document stands between two comments that GitHub does not show:

    <!--figure task3.gpu.hamburger_seconds:.0f-->52<!---->
    <!--figure task3.cpu.hamburger_seconds/60:.1f-->4.6<!---->

The first comment names the id of the row, a divisor for another unit, and a Python format. Rows are
in pocket/weights/evaluation.json and benchmarks/results; `vocabulary.objects` and the like count
the words of the embedded model. lesson_table.py writes the table of the lessons.
"""

import json
import re
import sys
from pathlib import Path

from course import figures
from course.errors import CourseError
from publish.lesson_table import fill_table

ROOT = figures.ROOT
WEIGHTS = ROOT / "pocket" / "weights"
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "task_3_DreamFusion/README.md")
FIGURE = re.compile(
    r"(?P<start><!--figure (?P<id>[\w.]+)(?:/(?P<divisor>[\d.]+))?:(?P<format>[\w.,%]+)-->)"
    r"(?P<text>.*?)(?P<end><!---->)"
)


class FigureError(CourseError):
    """A document names a figure that no row has."""


def figure_values() -> dict[str, float]:
    """Return the value of every stored row by its id, and the sizes of the vocabulary."""
    paths = [WEIGHTS / "evaluation.json", *sorted((ROOT / "benchmarks" / "results").glob("*.json"))]
    values = {row["id"]: row["value"] for path in paths for row in figures.load(path)}
    vocabulary = json.loads((WEIGHTS / "vocabulary.json").read_text(encoding="utf-8"))
    return values | {f"vocabulary.{name}": len(words) for name, words in vocabulary.items()}


def fill_figures(text: str, values: dict[str, float]) -> str:
    """Return a document with its figures and its table of lessons filled.

    Raises FigureError for an id without a row.
    """

    def fill(match: re.Match[str]) -> str:
        if match["id"] not in values:
            raise FigureError(
                f"no row has the id {match['id']!r}: measure it, or remove the figure."
            )
        value = values[match["id"]]
        if match["divisor"]:
            value /= float(match["divisor"])
        return f"{match['start']}{value:{match['format']}}{match['end']}"

    return FIGURE.sub(fill, fill_table(text, values))


def main() -> int:
    values = figure_values()
    for name in DOCUMENTS:
        path: Path = ROOT / name
        text = path.read_text(encoding="utf-8")
        try:
            path.write_text(fill_figures(text, values), encoding="utf-8")
        except FigureError as error:
            print(f"readme: {name}: {error}", file=sys.stderr)
            return 1
        print(f"  {name}: {len(FIGURE.findall(text))} figures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
