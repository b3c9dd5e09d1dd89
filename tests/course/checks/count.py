"""Count the wrong solutions in the tests of the checks, and those that are right but different.

    python -m tests.course.checks.count

It is a plugin for pytest that runs these tests once more, without the checks of wrong solutions
in `assert_advice`, which take most of the time. A wrong solution is a call of `assert_advice`, or
a check that fails elsewhere. A right one is a check that passes, without the first one of each
exercise: that is the lesson's own. Fails if they are fewer than the course promises.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from course import notebooks
from course.checks import Result, common
from tests.course.checks import helpers

FOLDER = Path(__file__).parent
TABLE = "COUNTED_SOLUTIONS"  # environment variable: the file that the plugin writes
WRONG, RIGHT, WRONG_EACH = 250, 40, 10  # at least: of all lessons, of each lesson
Counts = dict[str, dict[str, int]]  # "wrong" and "right", of each test module


class Plugin:
    """Counts during the tests and writes the table at their end."""

    def __init__(self) -> None:
        self.wrong = Counter[str]()
        self.right = Counter[tuple[str, str]]()

    @property
    def module(self) -> str:
        """The lesson of the test that runs, such as "task_1_3"."""
        name = os.environ["PYTEST_CURRENT_TEST"].split("::")[0]
        return re.sub(r".*test_|\.py$", "", name)

    def assert_advice(self, advice: str, check: object, *arguments: object) -> None:
        assert not re.search(advice, ""), f"{advice!r} matches any message"
        self.wrong[self.module] += 1

    def listen(self, result: Result) -> None:
        if result.ok:
            self.right[self.module, result.exercise] += 1
        else:
            self.wrong[self.module] += 1

    def pytest_sessionfinish(self) -> None:
        counts: Counts = {"wrong": dict(self.wrong), "right": Counter()}
        for (module, _), passed in self.right.items():
            counts["right"][module] += passed - 1
        Path(os.environ[TABLE]).write_text(json.dumps(counts), encoding="utf-8")


def pytest_configure(config: pytest.Config) -> None:
    plugin = Plugin()
    helpers.assert_advice = plugin.assert_advice  # before the tests import it
    common.listeners.append(plugin.listen)
    config.pluginmanager.register(plugin)


def count() -> Counts:
    """Return the number of wrong and of right solutions by test module. Raises AssertionError."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", __spec__.name, "-p", "no:cacheprovider"]
    for other in ("test_common.py", "test_odd_results.py", "test_rubric.py"):
        command += ["--ignore", str(FOLDER / other)]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "counts.json")
        done = subprocess.run(
            [*command, str(FOLDER)],
            cwd=notebooks.ROOT,
            env=own | {TABLE: str(table)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
        counts: Counts = json.loads(table.read_text(encoding="utf-8"))
    return counts


def main() -> int:
    counts = count()
    for module in sorted({*counts["wrong"], *counts["right"]}):
        wrong, right = (counts[kind].get(module, 0) for kind in ("wrong", "right"))
        print(f"{module:24}{wrong:6} wrong{right:6} right but different")
    wrong, right = (sum(counts[kind].values()) for kind in ("wrong", "right"))
    print(f"{'all':24}{wrong:6} wrong{right:6} right but different")
    enough = wrong >= WRONG and right >= RIGHT and min(counts["wrong"].values()) >= WRONG_EACH
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
