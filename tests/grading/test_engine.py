"""One submission in the sandbox: official answers, empty ones, and those that attack the grader."""

from pathlib import Path

import numpy as np
import pytest

from course.checks import exercises
from grading import official, sandbox
from grading.compare import compare, tolerance_of
from grading.engine import EngineError, Grader, References, Result, Runner, score_result
from grading.fences import without_solutions
from grading.scores import Score
from grading.submissions import Submission

reason = sandbox.reason_against("bubblewrap")
pytestmark = pytest.mark.skipif(bool(reason), reason=reason)
SEED = 7
FEW = ("0 (b)", "0 (h)", "video (a)", "3 (b)")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grading") / "base"
    official.write_base(folder)
    return folder


@pytest.fixture(scope="module")
def grader(base: Path) -> Grader:
    runner = Runner(base, SEED)
    return Grader(runner, References(runner))


def official_answers(*exercises: str) -> dict[str, str]:
    return {exercise: official.answers()[exercise] for exercise in exercises}


# --- All exercises


@pytest.fixture(scope="module")
def results(grader: Grader) -> tuple[dict[str, Result], dict[str, Result], dict[str, Result]]:
    """The results of official answers in two sandboxes, and those of the student copy."""
    answers = official_answers(*official.all_recipes())
    stubs = {exercise: without_solutions(answer, exercise) for exercise, answer in answers.items()}
    return (
        grader.runner.run(answers),
        dict(grader.references.get(list(answers))),
        (grader.runner.run(stubs)),
    )


@pytest.mark.weekly
@pytest.mark.parametrize("exercise", official.all_recipes())
def test_the_official_answer_is_right_and_the_student_copy_is_not(results, exercise):
    answer, reference, stub = (each[exercise] for each in results)
    assert not reference.error and not reference.stopped
    assert score_result(answer, reference, SEED).status == "right"
    score = score_result(stub, reference, SEED)
    assert score.points == 0 and score.status in ("wrong", "error"), score


@pytest.mark.weekly
def test_a_submission_takes_few_seconds(results):
    """At most 36 seconds of CPU time, so that two cores grade 100 in half an hour."""
    answers, _, _ = results
    slow = {id: result.seconds for id, result in answers.items() if result.seconds > 1.5}
    assert not slow
    assert sum(result.seconds for result in answers.values()) < 25


@pytest.mark.weekly
def test_the_same_submission_has_the_same_score_ten_times(base, monkeypatch):
    """Also with other numbers of threads in the environment of the grader."""
    answers = official_answers("0 (e)", "0 (f)", "1.1 (c)", "1.2 (g)", "2.2 (5)", "3 (d)")
    answers["0 (b)"] = "def add_noise(x_0, noise, a): return a.sqrt() * x_0 + (1 - a) * noise"
    seen = set()
    for i in range(10):
        monkeypatch.setenv("OMP_NUM_THREADS", str((1, 2, 4)[i % 3]))
        results = Runner(base, SEED).run(answers)
        seen.add(
            tuple(
                (id, name, array.tobytes())
                for id, result in sorted(results.items())
                for name, array in sorted(result.arrays.items())
            )
        )
    assert len(seen) == 1


# --- Single answers: all in one sandbox, without the static rules

LEAVE = """
import os, sys, torch
for folder in ("/tmp", "/dev/shm", "."):
    with open(f"{folder}/left", "w") as file:
        file.write("left")
os.makedirs("/tmp/" + "deep/" * 500)
os.mkdir("/tmp/locked", 0o000)
torch.Tensor.left = True
sys.modules["left"] = sys
raise ValueError("left all")
"""
LOOK = """
import os, sys, torch
files = [name for folder in ("/tmp", "/dev/shm", ".") for name in os.listdir(folder)]
processes = [name for name in os.listdir("/proc") if name.isdecimal()]
traces = [name in files for name in ("left", "deep", "locked")]
traces += ["left" in sys.modules, hasattr(torch.Tensor, "left"), len(processes) > 2]
raise ValueError(f"traces: {sum(traces)}")
"""
ATTACK = """
import os, signal
done = []
for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP):
    try:
        os.kill(1, number)
        done.append(number)
    except OSError:
        pass
for name in ("mem", "environ", "fd/0", "maps"):
    try:
        path = f"/proc/1/{name}"
        open(path, "rb").read(1)
        done.append(name)
    except OSError:
        pass
raise ValueError(f"reached: {done}")
"""
FORGE = """
import os
for descriptor in range(3, 40):
    try:
        os.write(descriptor, b'{"name": "x", "dtype": "object", "shape": []}\\n')
    except OSError:
        pass
os._exit(0)
"""
PARTLY = """
right = add_noise
add_noise = lambda x, e, a: right(x, e, a) * (1 if a.dim() == 2 else -1)
"""
BROKEN = {  # source, status, part of the message
    "0 (a)": ("while True: pass", "stopped", "took too long"),
    "0 (c)": ("raise SystemExit", "error", "SystemExit"),
    "0 (d)": ("x = []\nwhile True: x.append(bytearray(2**26))", "stopped", "too much memory"),
    "0 (e)": ("def training_loss(*_):\n    return undefined", "error", "return undefined"),
    "0 (f)": ("def train(:", "error", "no valid Python"),
    "0 (g)": ("def f(): f()\nf()", "error", "RecursionError"),
    "0 (h)": (LEAVE, "error", "left all"),
    "0 (i)": (LOOK, "error", "traces: 0"),
    "0 (j)": (ATTACK, "error", "reached: []"),
    "0 (k)": (FORGE, "error", "damaged"),
    "0 (l)": ("import os\nos._exit(3)", "error", "ended the process"),
    "0 (m)": ("def noise_from_v(x_t, v, alpha_bar):\n    pass", "wrong", "0 of 3 parts"),
    "0 (n)": ("import os\nos.kill(os.getpid(), 9)", "error", "code -9"),
    "0 challenge 1": ("def fast_sample(predict, x):\n    return x", "partly", "distance"),
    "0 (p)": ("token = 5", "error", "cannot be used"),
}
RIGHT = ("0 (o)", "video (a)", "3 (b)", "3 (e)")


@pytest.fixture(scope="module")
def scores(grader: Grader) -> dict[str, Score]:
    answers = {exercise: source for exercise, (source, _, _) in BROKEN.items()}
    answers |= official_answers("0 (b)", "3 (d)", *RIGHT)
    answers["0 (b)"] += PARTLY
    answers["3 (d)"] = answers["3 (d)"].replace("noise_pred - noise", "noise - noise_pred")
    results = grader.runner.run(answers)
    references = grader.references.get(list(answers))
    return {id: score_result(results[id], references[id], SEED) for id in answers}


@pytest.mark.parametrize("exercise", BROKEN)
def test_what_breaks_is_named(scores, exercise):
    _, status, message = BROKEN[exercise]
    assert scores[exercise].status == status, scores[exercise]
    assert message in scores[exercise].message


@pytest.mark.parametrize("exercise", RIGHT)
def test_what_breaks_leaves_the_others(scores, exercise):
    """Also the functions of a module beside one that is wrong."""
    assert scores[exercise].status == "right"
    assert scores[exercise].points == scores[exercise].max_points
    assert scores[exercise].seconds > 0 and scores[exercise].memory > 2**20


def test_part_of_an_exercise_gives_part_of_its_points(scores):
    score = scores["0 (b)"]
    assert score.status == "partly" and score.points == pytest.approx(
        score.max_points / 3, rel=0.01
    )
    assert "1 of 3 parts" in score.message and "alpha_bar for all: the rel" in score.message


def test_functions_of_a_module_are_swapped_by_name(scores):
    assert scores["3 (d)"].status == "partly"


def test_a_sheet_has_all_exercises(grader):
    """Without a sandbox: what is empty, written, or not allowed does not run."""
    answers = {"0 (b)": "import ctypes", "1.3 (i)": "pass"}
    submission = Submission("Ada", Path("ada"), "1.0.0", answers, {"2 written 1": "Because."})
    sheet = grader.grade(submission, "class/ada")
    assert [score.exercise for score in sheet.scores] == list(exercises())
    assert sheet.max_points == pytest.approx(100) and sheet.points == 0
    status = {score.exercise: score.status for score in sheet.scores}
    assert status["0 (a)"] == "empty" and status["0 (b)"] == "not allowed"
    assert status["1.2 written 1"] == "empty" and status["2 written 1"] == "not graded"
    assert status["1.3 (i)"] == "not graded"
    assert grader.digest(submission) == sheet.digest


def test_no_task_holds_the_official_answer_of_its_exercise():
    for exercise in official.all_recipes():
        stub = without_solutions(official.answers()[exercise], exercise)
        task = official.task(exercise, stub)
        code = official.answers()[exercise].split("\n")
        fence = [i for i, line in enumerate(code) if "SOLUTION" in line]
        solution = "\n".join(code[fence[0] + 1 : fence[1]])
        for source in (*task.cells, *task.modules.values(), task.answer):
            assert solution not in source, exercise


def test_a_worker_that_does_not_start_is_named(tmp_path):
    with pytest.raises(EngineError, match="The sandbox does not run: .*grading"):
        Runner(tmp_path, SEED).run(official_answers("0 (b)"))


@pytest.mark.weekly
def test_comparison_of_the_recipes_notices_another_seed(base):
    first = Runner(base, 1).run(official_answers(*FEW))
    second = Runner(base, 2).run(official_answers(*FEW))
    for id in FEW:
        compared = compare(second[id].arrays, first[id].arrays, tolerance_of(id))
        assert compared.share < 1, id
        assert all(np.isfinite(array).all() for array in first[id].arrays.values())
