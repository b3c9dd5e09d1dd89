"""Rows of figures: what a results file keeps, how a table reads, and the helpers that measure."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from importlib import import_module

import numpy as np
import pytest

from course import figures
from course.figures import Row, store, table
from tests.conftest import ROOT

FILES = [ROOT / "pocket/weights/evaluation.json", *sorted(ROOT.glob("benchmarks/results/*.json"))]


def test_store_replaces_only_the_rows_of_the_same_command(tmp_path):
    path = tmp_path / "evaluation.json"
    earlier = [Row("t.a", "a", 1, "%", bar=2, command="one"), Row("t.b", "b", 1, command="two")]
    store(path, earlier)
    store(path, [Row("t.a", "a", 3, "%", bar=2, command="one")])
    rows = {row["id"]: row for row in figures.load(path)}
    assert rows["t.a"]["value"] == 3 and rows["t.a"]["holds"] is True
    assert rows["t.b"]["holds"] is None


def test_store_removes_rows_that_a_command_no_longer_prints(tmp_path):
    """Rows of other commands stay, and so does the order."""
    path = tmp_path / "new" / "results.json"
    store(path, [Row("t.a", "a", 1, command="one"), Row("t.gone", "gone", 2, command="one")])
    store(path, [Row("t.b", "b", 3, command="two")])
    store(path, [Row("t.a", "a", 4, command="one"), Row("t.new", "new", 5, command="one")])
    assert [(row["id"], row["value"]) for row in figures.load(path)] == [
        ("t.a", 4),
        ("t.new", 5),
        ("t.b", 3),
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_stored_rows_have_unique_ids_and_commands_that_exist(path):
    rows = figures.load(path)
    ids = [row["id"] for row in rows]
    assert len(ids) == len(set(ids)) > 0
    fields = list(Row.__dataclass_fields__)
    for row in rows:
        assert re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+){2,4}", row["id"]), row["id"]
        assert list(row) == fields and (row["bar"] is None) == (row["holds"] is None)
        _, _, module, *arguments = shlex.split(row["command"])
        known = import_module(module)
        groups = getattr(known, "GROUPS", None) or getattr(known, "VARIANTS", ())
        assert not arguments or arguments[0] in groups


def test_ids_are_unique_across_files():
    ids = [row["id"] for path in FILES for row in figures.load(path)]
    assert len(ids) == len(set(ids))


def test_a_row_holds_on_the_side_that_its_sense_names():
    assert Row("t.a", "a", 7, "s", "<=", 6).holds is False
    assert Row("t.a", "a", 6, "s", "<=", 6).holds is Row("t.a", "a", 6, bar=6).holds is True
    assert Row("t.a", "a", 6).holds is None
    with pytest.raises(ValueError, match="sense must be >= or <=, got '<'"):
        Row("t.a", "a", 6, "s", "<", 6)


def test_a_table_shows_what_fails_and_small_values():
    text = table([Row("t.a", "late", 7, "s", "<=", 6), Row("t.b", "error", 2e-6, "", "<=", 1e-5)])
    late, error = text.splitlines()
    assert late.endswith("NO") and "7.00 s" in late
    assert "2.0e-06" in error and error.endswith("yes")


def test_timed_returns_seconds_and_the_result():
    seconds, result = figures.timed(lambda: time.sleep(0.05) or "done")
    assert seconds >= 0.05 and result == "done"
    calls = []
    assert figures.median_seconds(lambda: calls.append(0), rounds=3, warmup=2) >= 0
    assert len(calls) == 5


def test_peak_memory_is_that_of_the_process_alone():
    """The kernel counts a parent's memory in its child's ru_maxrss."""
    ballast = np.ones(2**30, np.uint8)  # 1 GiB, all of it touched
    code = "from course.figures import peak_memory; print(peak_memory())"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert 0 < float(result.stdout) < 800 and ballast[-1]


def test_a_function_runs_on_two_cores_in_a_process_of_its_own():
    assert figures.run_on_two_cores(os.getenv, "OMP_NUM_THREADS") == "2"
    assert figures.run_on_two_cores(figures.cpu_cores) == min(2, figures.cpu_cores())


def test_a_command_that_fails_is_reported_with_its_last_words():
    with pytest.raises(RuntimeError, match=r"exit\('no luck'\) failed:\nno luck"):
        figures.run_command([sys.executable, "-c", "exit('no luck')"])
    seconds, output = figures.run_command(
        [sys.executable, "-c", "import os; print(os.environ['X'])"], environment={"X": "value"}
    )
    assert seconds > 0 and output == "value\n"


def test_a_results_file_is_valid_json(tmp_path):
    store(tmp_path / "r.json", [Row("t.a", "a", 1)])
    assert list(json.loads((tmp_path / "r.json").read_text())) == ["rows"]
