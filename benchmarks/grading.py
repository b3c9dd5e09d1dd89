"""How long does grading a class take? `python -m benchmarks.grading`, rows in results/grading.json.

A class of 100 submits all lessons with their outputs, every exercise solved, the code of each a
little different. It is graded on two CPU cores, in the sandbox that grading.grade finds.

checks   checks of the exercises alone (--check-only)
outputs  and the images and clips of the notebooks

Memory is that of the grading process without its sandboxes, which have limits of their own. Rows of
another number of submissions are not stored.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import nbformat
import numpy as np
import psutil

from benchmarks.common import RESULTS, command_line
from course.checks import exercises
from course.figures import Row, machine, make_rows, report
from course.notebooks import ROOT
from grading.media import FILES
from grading.scores import SCORES
from pocket.arguments import add_option, integer
from tests.grading import class_of_30

SUBMISSIONS = 100
GROUPS = {"checks": 30, "outputs": 90}  # minutes that a class of 100 may take
MEMORY_MIB = 1024
GROWTH_MIB = 50  # from the first quarter of the run to the last
SAMPLE_SECONDS = 0.5


def write_class(folder: Path, count: int) -> None:
    """Write a folder with the submissions of `count` students."""
    files = class_of_30.everything()
    for number in range(1, count + 1):
        name = f"Student {number:03}"
        for file, data in files.items():
            path = folder / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if file.endswith(".ipynb"):
                nb = nbformat.reads(data.decode(), as_version=4)
                for cell in nb.cells:
                    if cell.cell_type == "code":
                        cell.source += f"\n# {name}"
                data = nbformat.writes(nb).encode()
            path.write_bytes(data)


def grade(submissions: Path, out: Path, arguments: list[str]) -> tuple[float, list[float]]:
    """Grade a class; return the seconds it took and the memory in MiB, sampled regularly.

    Raises RuntimeError if a submission fails.
    """
    command = [sys.executable, "-m", "grading.grade", str(submissions), "--out", str(out)]
    cores = set(sorted(os.sched_getaffinity(0))[:2])
    start = time.perf_counter()
    with (out.parent / "log.txt").open("w+") as log:
        process = psutil.Popen(
            [*command, "--jobs", "2", *arguments],
            cwd=ROOT,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
            preexec_fn=partial(os.sched_setaffinity, 0, cores),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        memory = []
        while process.poll() is None:
            memory.append(process.memory_info().rss / 2**20)
            time.sleep(SAMPLE_SECONDS)
        seconds = time.perf_counter() - start
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{log.read()[-2000:]}")
    return seconds, memory


def right_share(out: Path, check_only: bool) -> float:
    """Return the percentage of right answers; all are, but for those that a teacher grades."""
    statuses = [
        score["status"]
        for path in out.glob(f"*/{SCORES}")
        for score in json.loads(path.read_text(encoding="utf-8"))["scores"]
        if exercises()[score["exercise"]].tier != "written"
        and not (check_only and score["exercise"] in FILES)
    ]
    return 100 * statuses.count("right") / len(statuses)


def rows_of(group: str, count: int) -> list[Row]:
    """Measure a group with a class of `count`."""
    check_only = group == "checks"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_class(folder / "class", count)
        arguments = ["--check-only"] if check_only else []
        seconds, memory = grade(folder / "class", folder / "graded", arguments)
        right = right_share(folder / "graded", check_only)
    quarters = [max(part) for part in np.array_split(memory, 4)]
    growth = quarters[3] - quarters[0]
    return make_rows(
        f"grading.{group}",
        f"{count} submissions, all lessons, two cores, {group}",
        ("minutes", "time", round(seconds / 60, 1), "min", "<=", GROUPS[group]),
        ("right", "right answers that are graded as right", round(right, 2), "%", ">=", 100),
        ("memory", "memory of the grading process", round(max(memory)), "MiB", "<=", MEMORY_MIB),
        ("growth", "memory growth over the run", round(growth), "MiB", "<=", GROWTH_MIB),
        machine=machine(gpu=False),
    )


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure groups (default: all), print and store their rows, and return them."""
    parser = command_line("benchmarks.grading", __doc__, GROUPS)
    text = "number of submissions; rows of another number are not stored"
    add_option(parser, "--submissions", integer(4, 10_000), SUBMISSIONS, text)
    args = parser.parse_args(arguments)
    results = RESULTS / "grading.json" if args.submissions == SUBMISSIONS else None
    rows: list[Row] = []
    for group in args.groups:
        work = partial(rows_of, group, args.submissions)
        rows += report(f"python -m benchmarks.grading {group}", work, results)
    return rows


if __name__ == "__main__":
    main()
