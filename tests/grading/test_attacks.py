"""Attacks through the real path of grading, all in one submission, with right answers in between.

None reaches anything, gets points or disturbs the answers after it, and each score says what it
was. `python -m tests -m weekly -k test_attacks` runs them in all sandboxes of this machine.
"""

import contextlib
import dataclasses
import html
import json
import re
import sys
import time
from pathlib import Path

import psutil
import pytest

from grading import engine, official, sandbox
from grading.engine import References, Runner, score_result
from grading.scores import Score
from tests.grading.attacks import ALL, EXERCISE, HARMLESS, RIGHT, SUCCEEDED, Attack

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the sandboxes need Linux"),
]
SEED = 7
EVERY = 4  # a right answer after so many attacks
SECONDS = {"GRADING_CPU_SECONDS": "2", "GRADING_WALL_SECONDS": "6"}


class Attacks(Runner):
    """Runs many answers to one exercise, each under a name of its own."""

    def _message(self, task: official.Task) -> bytes:
        header, body = (
            super()._message(dataclasses.replace(task, exercise=EXERCISE)).split(b"\n", 1)
        )
        return json.dumps(json.loads(header) | {"exercise": task.exercise}).encode() + b"\n" + body


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Return what the sandboxes may read."""
    folder = tmp_path_factory.mktemp("attacks") / "base"
    official.write_base(folder)
    return folder


@pytest.fixture(scope="module", params=sandbox.SANDBOXES)
def scores(request, base) -> dict[str, Score]:
    """Return the scores of all attacks, and of the right answers between them."""
    if reason := sandbox.reason_against(request.param):
        pytest.skip(reason)
    answers: dict[str, str] = {}
    for number, attack in enumerate(ALL):
        answers[attack.name] = attack.answer
        if number % EVERY == 0:
            answers[f"right {number}"] = RIGHT
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECONDS.items():
            patch.setitem(engine.ENVIRONMENT, name, value)
        patch.setenv("GRADER_SECRET", "hidden")
        task = official.task
        reference = References(Runner(base, SEED)).get([EXERCISE])[EXERCISE]
        patch.setattr(
            official,
            "task",
            lambda name, answer: dataclasses.replace(task(EXERCISE, answer), exercise=name),
        )
        results = Attacks(base, SEED, sandbox=request.param).run(answers)
    return {
        name: score_result(dataclasses.replace(result, exercise=EXERCISE), reference, SEED)
        for name, result in results.items()
    }


def problem(attack: Attack, score: Score) -> str:
    """Return what is wrong with the score of an attack, "" if nothing is."""
    expected = score.max_points if attack in HARMLESS else 0
    wrong = {
        "it succeeded": SUCCEEDED in score.message,
        "status": score.status not in attack.status.split("|"),
        "message": not re.search(attack.message, score.message) or len(score.message) > 3000,
        "points": score.points != expected,
    }
    json.dumps(dataclasses.asdict(score), ensure_ascii=False).encode("utf-8")
    html.escape(score.message).encode("utf-8")
    return ", ".join(name for name, is_true in wrong.items() if is_true)


@pytest.mark.weekly
def test_attacks_get_no_points_are_named_and_disturb_nothing(
    scores: dict[str, Score], base: Path
) -> None:
    """One test: with more, each process of pytest would run all the attacks."""
    problems = {each.name: problem(each, scores[each.name]) for each in ALL}
    assert {name: (text, scores[name]) for name, text in problems.items() if text} == {}
    others = {name: score for name, score in scores.items() if name.startswith("right ")}
    assert len(others) >= len(ALL) // EVERY
    assert {name: score for name, score in others.items() if score.status != "right"} == {}
    time.sleep(0.1)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            assert process.environ().get("PYTHONPATH") != str(base), process.cmdline()
    assert not Path("/tmp/evil").exists()
    assert not Path("/tmp/leak.py").exists()


def test_there_are_enough_attacks() -> None:
    assert len(ALL) - len(HARMLESS) >= 40
    assert len({attack.name for attack in ALL}) == len(ALL)
