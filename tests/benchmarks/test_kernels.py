"""The benchmark of the kernels: wrong kernels fail, and times of a CPU are not stored."""

import json

import pytest
import torch

from benchmarks import kernel_errors
from benchmarks import kernels as benchmark
from task_3_DreamFusion import kernels

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def compiled():
    for package in kernels.PACKAGES:
        if not kernels.is_available(package, CPU):
            pytest.skip(f"NO COMPILED KERNELS: {kernels.load(package, 'cpu')}")


@pytest.mark.parametrize("function", ["grid_encode", "freq_encode", "composite_rays"])
def test_a_kernel_that_is_a_little_wrong_does_not_pass(monkeypatch, function):
    measure = {
        "grid_encode": lambda: kernel_errors.grid_errors(CPU, torch.float32, "linear")[0],
        "freq_encode": lambda: kernel_errors.freq_error(CPU),
        "composite_rays": lambda: kernel_errors.composite_error(CPU),
    }[function]
    assert measure() <= 1e-5
    right = getattr(kernel_errors, function)

    def wrong(*arguments):
        outputs = right(*arguments)
        return (
            outputs._replace(weights=outputs.weights * 1.0001)
            if isinstance(outputs, tuple)
            else outputs * 1.0001
        )

    monkeypatch.setattr(kernel_errors, function, wrong)
    assert measure() > 1e-5


def test_errors_are_the_largest_and_nan_is_one():
    one = torch.ones(4)
    assert kernel_errors.relative_error([one, one], [one, one * 2]) == 0.5
    assert kernel_errors.relative_error([one * float("nan")], [one]) == float("inf")


def test_what_the_tools_print_is_read():
    """As Nsight Compute and compute-sanitizer print it, lines of the program in between."""
    printed = """==PROF== Connected to process 1
"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","encode","lts__t_bytes.sum","byte","2,000"
"0","encode","lts__throughput.avg","%","80.5"
"1","encode","lts__t_bytes.sum","byte","4,000"
"1","encode","lts__throughput.avg","%","90.5"
"2","encode","lts__t_bytes.sum","byte","9,000"
"2","encode","lts__throughput.avg","%","20"
"""
    assert benchmark.read_counters(printed) == {
        "lts__t_bytes.sum": 4000,
        "lts__throughput.avg": 80.5,
    }
    clean = "....\n75 passed, 1 skipped in 9.00s\n========= ERROR SUMMARY: 0 errors\n"
    assert benchmark.count_errors(clean) == 0
    assert benchmark.count_errors(clean.replace(": 0", ": 3")) == 3
    races = (
        "2 passed in 9.00s\n========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)\n"
    )
    assert benchmark.count_errors(races) == 2
    for broken in ("", "75 passed in 9.00s\n", clean.replace("75 passed", "1 failed, 74 passed")):
        with pytest.raises(RuntimeError):
            benchmark.count_errors(broken)


def test_rows_of_a_cpu(tmp_path, monkeypatch, capsys):
    """Accuracy is stored under a command of its own; times are printed and not stored."""
    monkeypatch.setattr(benchmark, "RESULTS", tmp_path / "results")
    monkeypatch.setitem(benchmark.POINTS, "cpu", 2**8)
    monkeypatch.setitem(
        benchmark.GROUPS,
        "accuracy",
        lambda device: benchmark.kernel_rows(device, "accuracy", ("a", "a", 2e-6, "", "<=", 1e-5)),
    )
    benchmark.main(["accuracy", "grid", "--device", "cpu"])
    [row] = json.loads((benchmark.RESULTS / "task3.json").read_text())["rows"]
    assert row["command"] == "python -m benchmarks.kernels accuracy --device cpu" and row["holds"]
    message = capsys.readouterr().out
    assert "2.0e-06" in message and "2^8 random points" in message
    with pytest.raises(SystemExit):
        benchmark.main(["nothing", "--device", "cpu"])


def test_repeats():
    assert kernel_errors.nondeterministic_runs(CPU) == kernel_errors.march_mismatches(CPU) == 0
