"""Grades one submission: its answers run in a sandbox, and their arrays are compared.

The grading process sees of a student's code nothing but arrays and messages, as bytes, once the
sandbox is dead. The official solutions run in a sandbox of their own, after that and once for all
students of a run.
"""

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from course.checks import exercises
from course.errors import CourseError
from grading import official, pipe, sandbox, scores
from grading.compare import compare, tolerance_of
from grading.official import Task
from grading.policy import violation
from grading.recipe import Arrays
from grading.sandbox import NEXT, SHORT_OF_MEMORY, Limits, Outcome
from grading.scores import Score, ScoreSheet
from grading.submissions import Submission
from grading.worker import ERROR, MAX_MESSAGE, MAX_RESULTS

LIMITS = Limits(memory=8 << 30, results=1 << 30, processes=200)
ENVIRONMENT = {
    "PYTHONSAFEPATH": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "MPLBACKEND": "agg",
    "HF_HUB_OFFLINE": "1",
    "TQDM_DISABLE": "1",
    "CXX": "/bin/false",  # no compiled kernels: the same sums everywhere, and no time to compile
}
MAX_LINE = 10_000  # bytes of a report's first line
STOPPED = {
    "time": "The answer was stopped: it took too long.",
    "memory": "The answer was stopped: it used too much memory.",
    SHORT_OF_MEMORY: "The answer was stopped twice: this machine had too little memory left.",
    "processes": "The answer was stopped: it started too many processes.",
    "disk": "The answer was stopped: it wrote too many files or too large ones.",
    "results": "The answer was stopped: its values are too large.",
    "stdout": "The answer was stopped: it wrote where only the grader writes.",
    "stderr": "The answer was stopped: it wrote where only the grader writes.",
}
ENDED = "The answer ended the process in which it ran"


class EngineError(CourseError):
    """Nothing can be graded here; the message says why."""


@dataclass(frozen=True)
class Result:
    """What came back of an answer: its arrays, or why there are none.

    error: what the code raised. stopped: the message of a limit.
    """

    exercise: str
    arrays: Arrays = field(default_factory=dict)
    error: str = ""
    stopped: str = ""
    seconds: float = 0.0
    memory: int = 0


@dataclass(frozen=True)
class Budget:
    """What the answers of a submission may use.

    seconds: of all. memory: bytes of each answer, beside the libraries. separate: whether each
    lesson has a sandbox of its own, which takes less memory and more time.
    """

    seconds: float = 1800.0
    memory: int = 2 << 30
    separate: bool = False


class Runner:
    """Runs answers in sandboxes.

    base: the folder of `official.write_base`, which they may read. seed: of all random inputs.
    sandbox: a name of `grading.sandbox`, "" for the first that works.
    """

    def __init__(
        self, base: Path, seed: int, sandbox: str = "", budget: Budget | None = None
    ) -> None:
        self.base = base
        self.seed = seed
        self.sandbox = sandbox
        self.budget = budget or Budget()
        self.recipes = json.dumps(dict(official.recipe_sources())).encode()

    def run(self, answers: Mapping[str, str]) -> dict[str, Result]:
        """Return the results of answers by exercise.

        An answer that ends the whole sandbox is stopped, and the others run in a new one.
        """
        rest = [official.task(exercise, answer) for exercise, answer in answers.items()]
        rest.sort(key=lambda task: task.module)  # so each lesson is set up once
        results: dict[str, Result] = {}
        repeated: set[str] = set()
        deadline = time.monotonic() + self.budget.seconds
        while rest and time.monotonic() < deadline:
            tasks = rest
            if self.budget.separate:
                tasks = [task for task in rest if task.module == rest[0].module]
            outcome = self._run_once(tasks, deadline - time.monotonic())
            if NEXT not in outcome.stderr:
                raise EngineError(f"The sandbox does not run: {_last_line(outcome)}")
            results |= read_reports(outcome.results)
            rest = [task for task in rest if task.exercise not in results]
            unfinished = [task.exercise for task in tasks if task.exercise not in results][:1]
            if unfinished and unfinished[0] in repeated:
                results[unfinished[0]] = _ended_all(unfinished[0], outcome)
                rest.pop(0)
            repeated.update(unfinished)  # perhaps not its fault, but too little memory for all
        for task in rest:
            results[task.exercise] = Result(task.exercise, stopped=STOPPED["time"])
        return results

    def _run_once(self, tasks: Sequence[Task], seconds: float) -> Outcome:
        """Run a sandbox with tasks to its end, or until one of them ends it."""
        command = [sys.executable, "-m", "grading.worker"]
        data = f"{len(self.recipes)}\n".encode() + self.recipes
        environment = ENVIRONMENT | {"PYTHONPATH": str(self.base)}
        messages = [self._message(task) for task in tasks]
        limits = replace(LIMITS, seconds=seconds)
        return sandbox.run(command, [self.base], environment, limits, data, messages, self.sandbox)

    def _message(self, task: Task) -> bytes:
        body = json.dumps(asdict(task) | {"seed": self.seed}).encode()
        header = {"exercise": task.exercise, "module": task.module, "size": len(body)}
        header["memory"] = self.budget.memory
        return json.dumps(header).encode() + b"\n" + body


def _ended_all(exercise: str, outcome: Outcome) -> Result:
    """Return the result of an answer during which the whole sandbox ended, twice."""
    message = STOPPED.get(outcome.stopped, f"{ENDED}, and all others.")
    return Result(exercise, stopped=message, seconds=outcome.seconds, memory=outcome.peak_memory)


def _last_line(outcome: Outcome) -> str:
    lines = outcome.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with the code {outcome.code}"


def read_reports(data: bytes) -> dict[str, Result]:
    """Return the results of all answers that were run; the worker wrote them."""
    results = {}
    position = 0
    while (end := data.find(b"\n", position, position + MAX_LINE)) >= 0:
        report = json.loads(data[position:end])
        position = end + 1 + report["size"]
        if position > len(data):
            break  # the sandbox was stopped here
        results[report["exercise"]] = read_report(report, data[end + 1 : position])
    return results


def read_report(report: Mapping[str, object], data: bytes) -> Result:
    """Return the result of one answer, from the worker's report and what the answer sent."""
    exercise = str(report["exercise"])
    seconds, memory = float(str(report["seconds"])), int(str(report["memory"]))
    if stopped := str(report["stopped"]):
        return Result(exercise, {}, "", STOPPED[stopped], seconds, memory)
    try:
        arrays = pipe.receive(data[:MAX_RESULTS])
    except pipe.PipeError as error:
        return Result(exercise, {}, f"What came back is damaged. {error}", "", seconds, memory)
    if ERROR in arrays:
        message = readable(arrays[ERROR].tobytes())
        return Result(exercise, {}, message, "", seconds, memory)
    if report["code"] != 0:
        message = f"{ENDED}, with the code {report['code']}."
        return Result(exercise, {}, message, "", seconds, memory)
    return Result(exercise, arrays, "", "", seconds, memory)


def readable(data: bytes) -> str:
    """Return text of at most `MAX_MESSAGE` characters, without those that cannot be printed."""
    text = data[: 4 * MAX_MESSAGE].decode("utf-8", "replace")[:MAX_MESSAGE]
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


class References:
    """The arrays of the official solutions, computed when they are first needed."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.results: dict[str, Result] = {}
        self.lock = threading.Lock()

    def get(self, exercises: Sequence[str]) -> Mapping[str, Result]:
        """Return the official results of exercises.

        The sandbox in which they are computed never sees a student's code.
        """
        with self.lock:
            if missing := [id for id in exercises if id not in self.results]:
                answers = official.answers()
                self.results |= self.runner.run({id: answers[id] for id in missing})
            return {id: self.results[id] for id in exercises}


@dataclass
class Grader:
    """Grades submissions of one run, in several threads.

    outputs: a submission to the scores of exercises that are graded by what they show; None for
    the checks of exercises alone.
    """

    runner: Runner
    references: References
    outputs: Callable[[Submission], list[Score]] | None = None

    def grade(self, submission: Submission, path: str) -> ScoreSheet:
        """Return the scores of a submission; path: how the sheet names it. Raises SandboxError."""
        refused = {id: violation(id, answer) for id, answer in submission.answers.items()}
        answers = {
            id: answer
            for id, answer in submission.answers.items()
            if official.recipe_of(id) and not refused[id]
        }
        results = self.runner.run(answers)
        references = self.references.get(list(results))
        shown = self.outputs(submission) if self.outputs else []
        graded = {score.exercise: score for score in shown}
        for id, exercise in exercises().items():
            if exercise.tier == "written":
                graded[id] = score_written(id, submission.written.get(id, ""))
            elif id not in submission.answers:
                graded[id] = scores.score(id, "empty", "There is no answer.")
            elif refused[id]:
                graded[id] = scores.score(id, "not allowed", refused[id])
            elif id in results:
                graded[id] = score_result(results[id], references[id], self.runner.seed)
            elif id not in graded:
                graded[id] = scores.score(id, "not graded", "There is no automatic check.")
        return ScoreSheet(
            student=submission.student,
            path=path,
            version=submission.version,
            digest=self.digest(submission),
            seed=self.runner.seed,
            problems=submission.problems,
            scores=[graded[id] for id in exercises()],
        )

    def digest(self, submission: Submission) -> str:
        """Return a digest of all that decides the scores of a submission."""
        media = {
            f"{id}/{number}": hashlib.sha256(item.path.read_bytes()).hexdigest()
            for id, items in submission.media.items()
            for number, item in enumerate(items)
        }
        parts = (submission.answers, submission.written, media, submission.problems)
        grader = [official.grader_digest(), self.runner.seed, self.outputs is not None]
        return scores.digest({"submission": json.dumps(parts), "grader": json.dumps(grader)})


def score_written(id: str, answer: str) -> Score:
    """Return the score of a written answer, whose points come from a teacher."""
    if not answer:
        return scores.score(id, "empty", "There is no answer.")
    return scores.score(id, "not graded", "Read by a teacher.")


def score_result(result: Result, reference: Result, seed: int) -> Score:
    """Return the score of a result beside the official one."""

    def score(status: str, message: str, share: float = 0.0) -> Score:
        seconds = round(result.seconds, 3)
        return scores.score(result.exercise, status, message, share, seconds, result.memory)

    if reason := reference.error or reference.stopped:
        return score("not graded", f"The official solution cannot be graded here: {reason}")
    if result.stopped:
        return score("stopped", result.stopped)
    if result.error:
        return score("error", result.error)
    arrays, right = result.arrays, reference.arrays
    recipe = official.recipe_of(result.exercise)
    if recipe and recipe.measure:
        # It takes long for other shapes, or for ever.
        if reason := other_form(arrays, right):
            return score("wrong", reason)
        right = recipe.measure(right, seed)
        try:
            arrays = recipe.measure(arrays, seed)
        except Exception as error:  # the arrays may have any values
            return score("wrong", f"The values do not fit: {readable(str(error).encode())}")
    comparison = compare(arrays, right, tolerance_of(result.exercise))
    if not comparison.wrong:
        return score("right", comparison.message, 1.0)
    return score("partly" if comparison.right else "wrong", comparison.message, comparison.share)


def other_form(arrays: Arrays, reference: Arrays) -> str:
    """Return which array has another shape or type than in the reference, "" if none has."""
    for name, right in reference.items():
        if name not in arrays:
            return f"{name}: there is no value."
        if (arrays[name].shape, arrays[name].dtype) != (right.shape, right.dtype):
            shapes = f"{arrays[name].shape} {arrays[name].dtype}, not {right.shape} {right.dtype}"
            return f"{name}: the values are {shapes}."
    return ""
