"""`python -m tests.repository`: the figures of the house as one table, with their bars.

`--places` lists what breaks a bar, `--places course/images` only what lies there.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.repository import measure

LINES_BEFORE = 26_473  # outside tests, at the commit "Format at 100 characters a line"
TOKENS_BEFORE = 206_345
LINES_BEFORE_FORMATTING = 23_844  # the same code at 120 characters a line


@dataclass(frozen=True)
class Figure:
    """A measured figure, its bar, and the places that count against it."""

    what: str
    value: float
    bar: str  # such as "0", "<= 5" or "< 20"
    places: Sequence[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        limit = float(self.bar.split()[-1])
        return self.value < limit if self.bar.startswith("< ") else self.value <= limit


def counted(what: str, bar: str, function: Callable[[], list[str]]) -> Callable[[], Figure]:
    """Return a measurement that counts the places that a function returns."""

    def measured() -> Figure:
        places = function()
        return Figure(what, len(places), bar, places)

    return measured


def wide_assignments() -> Figure:
    rate = measure.wide_assignments_per_thousand_lines()
    what = "assignments to more than 2 targets per 1,000 lines"
    return Figure(what, rate, "<= 3", measure.wide_assignments())


# What the tests hold.
FIGURES = {
    "functions": counted("functions over 60 lines", "0", measure.long_functions),
    "files": counted("Python files over 450 lines", "0", measure.long_files),
    "circles": counted("circles of imports", "0", measure.import_circles),
    "arrows": counted("imports upward", "0", measure.upward_imports),
    "duplicates": counted(
        "duplicate pairs across top-level folders", "<= 5", measure.duplicate_pairs
    ),
    "settings": counted("settings of task 3 with differing names", "0", measure.differing_settings),
    "names": counted("banned identifiers", "0", measure.banned_names),
    "assignments": wide_assignments,
    "conditionals": counted("nested or called conditionals", "0", measure.nested_conditionals),
    "line length": counted("lines over 100 characters", "0", measure.long_lines),
    "fmt": counted("`fmt: skip`", "< 20", measure.unformatted_blocks),
    "words": counted("banned words in code", "0", measure.banned_words),
    "spelling": counted("misspelled or British words", "0", measure.misspellings),
    "README": counted("figures in README not filled from a row", "0", measure.unfilled_figures),
}


def help_seconds() -> float:
    """Return the time from `main.py --help` to its end, the best of three; no test asserts it."""
    command = [sys.executable, "task_3_DreamFusion/main.py", "--help"]
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(command, cwd=measure.ROOT, capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.repository", description=__doc__)
    parser.add_argument(
        "--places", nargs="?", const="", metavar="FOLDER", help="list what breaks each bar"
    )
    options = parser.parse_args()
    rows = [measured() for measured in FIGURES.values()]
    if options.places is None:
        rows.append(Figure("seconds of main.py --help", help_seconds(), "<= 2.5"))
    width = max(len(row.what) for row in rows)
    print(f"{'what':<{width}}  {'value':>8}  {'bar':>8}  holds")
    for row in rows:
        value = f"{row.value:,.2f}" if isinstance(row.value, float) else f"{row.value:,}"
        print(f"{row.what:<{width}}  {value:>8}  {row.bar:>8}  {'yes' if row.holds else 'NO'}")
    print(
        f"Lines of Python outside tests: {measure.lines_outside_tests():,}; before lesson 0 and "
        f"the diagrams {LINES_BEFORE:,}, or {LINES_BEFORE_FORMATTING:,} at 120 characters a line.\n"
        f"Tokens of Python, which the layout hardly changes: {measure.tokens_outside_tests():,}, "
        f"before {TOKENS_BEFORE:,}."
    )
    if options.places is not None:
        for row in rows:
            places = [place for place in row.places if options.places in place]
            if places:
                print(f"\n{row.what} ({len(places)}):", *places, sep="\n  ")
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
