"""One submission in the sandbox: official answers, empty ones, and those that attack the grader."""

from pathlib import Path

import numpy as np
import pytest

from grading import official, sandbox
from grading.compare import compare, tolerance_of
from grading.engine import Grader, References, Result, Runner, score_result
from grading.fences import without_solutions
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


def scores_of(grader: Grader, answers: dict[str, str]) -> dict[str, tuple[str, float, str]]:
    sheet = grader.grade(Submission("Ada", Path("ada"), "1.0.0", answers), "ada")
    return {s.exercise: (s.status, s.points / (s.max_points or 1), s.message) for s in sheet.scores}


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


@pytest.mark.slow
@pytest.mark.parametrize("exercise", official.all_recipes())
def test_the_official_answer_is_right_and_the_student_copy_is_not(results, exercise):
    answer, reference, stub = (each[exercise] for each in results)
    assert not reference.error and not reference.stopped
    assert score_result(answer, reference, SEED).status == "right"
    score = score_result(stub, reference, SEED)
    assert score.points == 0 and score.status in ("wrong", "error"), score


@pytest.mark.slow
def test_a_submission_takes_few_seconds(results):
    """At most 36 seconds of CPU time, so that two cores grade 100 in half an hour."""
    answers, _, _ = results
    slow = {id: result.seconds for id, result in answers.items() if result.seconds > 1.5}
    assert not slow
    assert sum(result.seconds for result in answers.values()) < 25


@pytest.mark.slow
def test_the_same_submission_has_the_same_score_ten_times(base, monkeypatch):
    """Also with other numbers of threads in the environment of the grader."""
    answers = official_answers("0 (e)", "0 (f)", "1.1 (c)", "1.2 (f)", "2.2 (5)", "3 (d)")
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


# --- Single answers


def test_each_exercise_is_graded_alone(grader):
    answers = official_answers(*FEW)
    answers["0 (h)"] = answers["0 (h)"].replace("- (1 - alpha_bar)", "+ (1 - alpha_bar)")
    answers["0 (e)"] = "def training_loss(network, x_0, label=None):\n    return undefined"
    answers["0 (c)"] = "def score_from_noise(noise, alpha_bar):\n    pass"
    answers["1.2 written 1"] = "no code"
    scores = scores_of(grader, answers)
    assert [scores[id][:2] for id in ("0 (b)", "video (a)", "3 (b)")] == [("right", 1)] * 3
    assert scores["0 (h)"][:2] == ("wrong", 0)
    assert scores["0 (e)"][0] == "error"
    assert "NameError" in scores["0 (e)"][2] and "return undefined" in scores["0 (e)"][2]
    assert scores["0 (c)"][:2] == ("wrong", 0)
    assert scores["0 (a)"] == ("empty", 0, "There is no answer.")
    assert scores["1.2 written 1"][:2] == ("empty", 0)


def test_part_of_an_exercise_gives_part_of_its_points(grader):
    answer = official.answers()["0 (b)"]
    answer += "\nright = add_noise\n"
    answer += "add_noise = lambda x, e, a: right(x, e, a) * (1 if a.dim() == 2 else -1)\n"
    status, share, message = scores_of(grader, {"0 (b)": answer})["0 (b)"]
    assert status == "partly" and share == pytest.approx(1 / 3, abs=0.01)
    assert "alpha_bar for all: the relative difference is 2" in message


def test_functions_of_a_module_are_swapped_by_name(grader):
    """The module of task 3 is official except for the function, also where others call it."""
    answers = official_answers("3 (b)", "3 (d)", "3 (e)")
    answers["3 (d)"] = answers["3 (d)"].replace("noise_pred - noise", "noise - noise_pred")
    scores = scores_of(grader, answers)
    assert scores["3 (b)"][0] == scores["3 (e)"][0] == "right"
    assert scores["3 (d)"][0] == "partly"


ATTACKS = {
    "loop": ("while True: pass", "stopped", "took too long"),
    "exit": ("raise SystemExit", "error", "SystemExit"),
    "hard exit": ("import os\nos._exit(0)", "not allowed", ""),
    "syntax": ("def add_noise(:", "error", "Your code is no valid Python"),
    "memory": ("x = []\nwhile True: x.append(bytearray(2**26))", "error", "MemoryError"),
    "results": (
        "add_noise = lambda *_: torch.zeros(2**28)",
        "error",
        "",
    ),
    "recursion": ("def f(): f()\nf()", "error", "RecursionError"),
}


def test_what_breaks_is_named_and_leaves_the_others(grader):
    for name, (source, status, message) in ATTACKS.items():
        answers = {"0 (b)": source, **official_answers("0 (c)")}
        scores = scores_of(grader, answers)
        assert scores["0 (b)"][:2] == (status, 0), (name, scores["0 (b)"])
        assert message in scores["0 (b)"][2], (name, scores["0 (b)"])
        assert scores["0 (c)"][0] == "right", name


def test_nothing_of_an_answer_reaches_the_next(grader):
    """Not in files, processes, modules or the worker's memory; no rule forbids it here."""
    leave = """
        import os, sys, torch
        for folder in ("/tmp", "/dev/shm", "."):
            with open(f"{folder}/left", "w") as file: file.write("left")
        os.makedirs("/tmp/" + "deep/" * 500)
        os.mkdir("/tmp/locked", 0o000)
        torch.Tensor.left = True
        sys.modules["left"] = sys
        if not os.fork():
            os.nice(5)
            while True: pass
        add_noise = lambda x_0, noise, a: x_0
    """
    look = """
        import os, sys, torch
        files = [name for folder in ("/tmp", "/dev/shm", ".") for name in os.listdir(folder)]
        processes = [name for name in os.listdir("/proc") if name.isdecimal()]
        traces = [name in files for name in ("left", "deep", "locked")]
        traces += ["left" in sys.modules, hasattr(torch.Tensor, "left"), len(processes) > 2]
        raise ValueError(f"traces: {sum(traces)}")
    """
    unindent = lambda text: "\n".join(line[8:] for line in text.split("\n"))
    results = grader.runner.run({"0 (b)": unindent(leave), "0 (c)": unindent(look)})
    assert set(results["0 (b)"].arrays) and "traces: 0" in results["0 (c)"].error, results


def test_a_child_cannot_stop_or_read_the_worker(grader):
    attack = """
        import os, signal
        done = []
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP):
            try:
                os.kill(1, number)
            except OSError as error:
                done.append(type(error).__name__)
        for name in ("mem", "environ", "fd", "maps"):
            try:
                path = f"/proc/1/{name}"
                os.listdir(path) if name == "fd" else open(path, "rb").read(1)
                done.append(name)
            except OSError:
                pass
        raise ValueError(f"reached: {done}")
    """
    source = "\n".join(line[8:] for line in attack.split("\n"))
    results = grader.runner.run({"0 (b)": source, **official_answers("0 (c)")})
    assert results["0 (b)"].error.count("PermissionError") == 3, results["0 (b)"]
    assert not any(f"'{name}'" in results["0 (b)"].error for name in ("mem", "environ", "fd"))
    assert results["0 (c)"].arrays


def test_no_task_holds_the_official_answer_of_its_exercise():
    for exercise in official.all_recipes():
        stub = without_solutions(official.answers()[exercise], exercise)
        task = official.task(exercise, stub)
        code = official.answers()[exercise].split("\n")
        fence = [i for i, line in enumerate(code) if "SOLUTION" in line]
        solution = "\n".join(code[fence[0] + 1 : fence[1]])
        for source in (*task.cells, *task.modules.values(), task.answer):
            assert solution not in source, exercise


def test_a_forged_report_of_a_child_is_no_result(grader):
    """A child may send what it likes; what is no message, or comes twice, is an error."""
    source = """
        import os
        for descriptor in range(3, 40):
            try:
                os.write(descriptor, b'{"name": "x", "dtype": "object", "shape": []}\\n')
            except OSError:
                pass
        os._exit(0)
    """
    source = "\n".join(line[8:] for line in source.split("\n"))
    result = grader.runner.run({"0 (b)": source})["0 (b)"]
    assert "damaged" in result.error and not result.arrays


def test_values_are_compared_after_measuring_them_outside(grader):
    far = "def fast_sample(predict, x):\n    predict(x, 999)\n    return x"
    near = official_answers("0 challenge 1")
    assert scores_of(grader, near)["0 challenge 1"][0] == "right"
    assert scores_of(grader, {"0 challenge 1": far})["0 challenge 1"][:2] == ("partly", 0.5)


def test_comparison_of_the_recipes_notices_another_seed(base):
    first = Runner(base, 1).run(official_answers(*FEW))
    second = Runner(base, 2).run(official_answers(*FEW))
    for id in FEW:
        compared = compare(second[id].arrays, first[id].arrays, tolerance_of(id))
        assert compared.share < 1, id
        assert all(np.isfinite(array).all() for array in first[id].arrays.values())
