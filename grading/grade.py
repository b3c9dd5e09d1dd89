"""Grades a class: `make grade SUBMISSIONS=folder`.

Submissions are graded in parallel, each in a sandbox of its own. Each has one file of scores in the
folder OUT, written at its end, so a run that is killed goes on where it was: the same command
grades what is not graded yet, and what has changed since.
"""

import argparse
import functools
import json
import os
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

import course
from course.errors import CourseError
from course.files import lock, remove_partial, write_text
from grading import exhibits, official, outputs, report, sandbox, scores, submissions
from grading.engine import Grader, References, Runner
from grading.review import Graded
from grading.scores import ScoreSheet
from grading.submissions import StudentFiles, Submission

RUN = "run.json"  # the seed of OUT's scores
BASE = ".base"
MAX_SEED = 2**31


class Class:
    """The submissions of a folder, and the folder of their scores."""

    def __init__(self, folder: Path, out: Path, grader: Grader, check_only: bool) -> None:
        self.folder = folder
        self.out = out
        self.grader = grader
        self.check_only = check_only
        self.log_lock = threading.Lock()
        self.image_lock = threading.Lock()
        self.images: exhibits.References | None = None

    def lesson_images(self) -> exhibits.References:
        """Return the images of the official lessons, decoded when they are first needed."""
        with self.image_lock:
            if self.images is None:
                self.images = exhibits.lesson_images(self.out, self.grader.runner.sandbox)
            return self.images

    def grade(self, files: StudentFiles) -> Graded:
        """Return a submission with its scores: those in OUT, if it has not changed since."""
        with submissions.opened(files) as submission:
            if self.check_only:
                submission.media = {}
            path = _relative(submission.path, self.folder)
            folder = self.out / scores.folder_name(submission.student, path)
            before = _read(folder)
            if before and before.digest == self.grader.digest(submission):
                return Graded(before, _kept(submission), exhibits.read_exhibits(folder))
            sheet = self.grader.grade(submission, path)
            folder.mkdir(parents=True, exist_ok=True)
            shown = []
            if submission.media:
                images = self.lesson_images()
                name = self.grader.runner.sandbox
                shown = exhibits.collect(folder, submission.media, images, name)
        with self.log_lock:
            reason = f"graded by version {course.__version__} with seed {sheet.seed}"
            scores.log_regrade(self.out, before, sheet, reason)
        scores.write_sheet(folder, sheet)
        return Graded(sheet, _kept(submission), shown)

    def grade_all(self, everybody: Sequence[StudentFiles], jobs: int) -> list[Graded]:
        """Grade all submissions, and return them; one that fails is named and left out."""
        graded: list[Graded] = []
        with tqdm(total=len(everybody), desc="Grade", unit="submission") as bar:
            for files, future in _in_threads(self.grade, everybody, jobs):
                try:
                    graded.append(future.result())
                except Exception as error:  # one broken submission must not stop the others
                    bar.write(f"{files.student} is not graded: {type(error).__name__}: {error}")
                bar.update()
        return sorted(graded, key=lambda each: each.sheet.student)


def _in_threads(
    function: Callable[[StudentFiles], Graded], items: Sequence[StudentFiles], jobs: int
) -> Iterator[tuple[StudentFiles, Future[Graded]]]:
    """Yield each item with its future when it is done; no more than `jobs` run at a time."""
    with ThreadPoolExecutor(jobs) as executor:
        running: dict[Future[Graded], StudentFiles] = {}
        rest = iter(items)
        try:
            while True:
                for item in rest:
                    running[executor.submit(function, item)] = item
                    if len(running) >= jobs:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future
        finally:
            executor.shutdown(cancel_futures=True)


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _read(folder: Path) -> ScoreSheet | None:
    """Return the scores of an earlier run, None if there are none that can be read."""
    try:
        return scores.read_sheet(folder)
    except scores.ScoreError:
        return None


def _kept(submission: Submission) -> Submission:
    """Return what the report needs of a submission, whose files are removed."""
    return replace(submission, media={})


def seed_of(out: Path, seed: int | None) -> int:
    """Return the seed of a run, the one of the run before in this folder, or a fresh one."""
    path = out / RUN
    if seed is None and path.is_file():
        try:
            seed = int(json.loads(path.read_text("utf-8"))["seed"])
        except (ValueError, TypeError, KeyError):
            seed = None
    seed = secrets.randbelow(MAX_SEED) if seed is None else seed
    write_text(path, json.dumps({"seed": seed, "version": course.__version__}) + "\n")
    return seed


def run(options: argparse.Namespace) -> int:
    """Grade a class and write its report; return the number of submissions that failed.

    Raises CourseError, OSError.
    """
    everybody = submissions.find(options.submissions)
    name = sandbox.choose(sandbox.UNSAFE if options.unsafe else "")
    out = options.out or options.submissions.with_name(f"{options.submissions.name}-graded")
    out.mkdir(parents=True, exist_ok=True)
    with lock(out / ".lock"):
        remove_partial(out)
        official.write_base(out / BASE)
        scores.read_overrides(out / scores.OVERRIDES)  # a mistake in it is named before, not after
        runner = Runner((out / BASE).resolve(), seed_of(out, options.seed), name)
        grader = Grader(runner, References(runner))
        if not options.check_only:
            grader.outputs = functools.partial(outputs.grade, sandbox_name=name)
        group = Class(options.submissions, out, grader, options.check_only)
        graded = group.grade_all(everybody, options.jobs)
        overrides = scores.read_overrides(out / scores.OVERRIDES)
        for each in graded:
            each.sheet = scores.with_overrides(each.sheet, overrides)
        report.write_report(out, graded, official.answers())
    for each in graded:
        print(f"{each.sheet.points:6.1f} of {each.sheet.max_points:g}  {each.sheet.student}")
    print(f"wrote {out / report.PAGE}")
    return len(everybody) - len(graded)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(
        prog="python -m grading.grade", description="Grade the submissions of a class."
    )
    text = "folder with a zip, a notebook or a folder for each student; or one of them"
    result.add_argument("submissions", type=Path, help=text)
    text = "folder for scores and report (default: SUBMISSIONS-graded)"
    result.add_argument("--out", type=Path, help=text)
    text = "run the checks of the exercises alone, without images and clips"
    result.add_argument("--check-only", action="store_true", help=text)
    text = "random seed of all inputs (default: that of the folder, or a fresh one)"
    result.add_argument("--seed", type=int, help=text)
    text = "submissions to grade at a time (default: the number of processors)"
    result.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help=text)
    text = "grade without a sandbox: only on a machine with nothing of value"
    result.add_argument("--unsafe", action="store_true", help=text)
    return result


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.jobs < 1:
        parser().error(f"--jobs must be at least 1, got {options.jobs}.")
    try:
        return 1 if run(options) else 0
    except (CourseError, OSError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
