"""Measured figures: each is a row with an id, stored in a results file, and printed as a table.

The benchmarks and `pocket.evaluate` measure with the helpers here: the time of a call, of a
command, and of a function in a process of its own on two cores. Such a process is `python -m
course.figures MODULE FUNCTION [ARGUMENT ...]`; it prints the function's result as JSON.
"""

import argparse
import datetime
import importlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from course.errors import CourseError
from course.files import write_text

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Row:
    """A measured figure.

    id: a dotted name that stays. sense: on which side of `bar` the goal lies. command: what
    measures it again.
    """

    id: str
    figure: str
    value: float
    unit: str = ""
    sense: str = ">="
    bar: float | None = None
    holds: bool | None = field(init=False)
    date: str = field(default_factory=lambda: today(), kw_only=True)
    machine: str = field(default_factory=lambda: machine(), kw_only=True)
    versions: dict[str, str] = field(default_factory=lambda: versions(), kw_only=True)
    command: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if self.sense not in (">=", "<="):
            raise ValueError(f"sense must be >= or <=, got {self.sense!r}")
        self.holds = None
        if self.bar is not None:
            self.holds = self.value >= self.bar if self.sense == ">=" else self.value <= self.bar


def make_rows(
    key: str, about: str, *figures: tuple[Any, ...], machine: str | None = None
) -> list[Row]:
    """Return rows whose ids start with `key` and whose names start with `about`.

    figures: the end of the id, the end of the name, and the other positional arguments of `Row`.
    """
    where: dict[str, Any] = {} if machine is None else {"machine": machine}
    return [Row(f"{key}.{end}", f"{about}: {name}", *rest, **where) for end, name, *rest in figures]


def today() -> str:
    """Return the date in UTC, as in 2026-11-28."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def cpu_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(gpu: bool = True) -> str:
    """Return the name of the GPU, or of the processor, and the number of cores.

    gpu: False if no GPU took part.
    """
    name = platform.processor() or platform.machine()
    if gpu and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    elif names := _proc("cpuinfo", "model name"):
        name = names[0]
    return f"{name}, {cpu_cores()} CPU cores"


def _proc(file: str, label: str) -> list[str]:
    """Return the values with a label in a file of Linux's /proc; none on other systems."""
    path = Path("/proc", file)
    text = path.read_text() if path.exists() else ""
    return re.findall(rf"^{label}\s*:\s*(.*)$", text, re.MULTILINE)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that figures depend on."""
    libraries = {"diffusers": version("diffusers"), "transformers": version("transformers")}
    return {"python": platform.python_version(), "torch": torch.__version__, **libraries}


# --- Results files


def load(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a results file, in its order; none if there is no file."""
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def store(path: Path, rows: Sequence[Row]) -> None:
    """Write rows to a results file in place of all earlier rows of the same commands."""
    stored = load(path)
    ids = {row.id for row in rows}
    commands = {row.command for row in rows}
    replaced = [i for i, row in enumerate(stored) if row["id"] in ids or row["command"] in commands]
    place = replaced[0] if replaced else len(stored)
    kept = [row for i, row in enumerate(stored) if i not in replaced]
    merged = [*kept[:place], *map(asdict, rows), *kept[place:]]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"rows": merged}, indent=1) + "\n")


def format_value(value: float) -> str:
    """Return a value with two decimals, or as a power of ten if these would be zeros."""
    return f"{value:.2f}" if value == 0 or abs(value) >= 0.005 else f"{value:.1e}"


def table(rows: Sequence[Row]) -> str:
    """Return rows as lines of text: figure, value, unit, bar, and whether it holds."""
    lines = []
    for row in rows:
        bar = "" if row.bar is None else f"{row.sense} {row.bar:g}"
        holds = {None: "", True: "yes", False: "NO"}[row.holds]
        value = format_value(row.value)
        lines.append(f"{row.figure:<72} {value:>9} {row.unit:<8} {bar:>9} {holds:>4}")
    return "\n".join(lines)


def add_groups(parser: argparse.ArgumentParser, groups: Collection[str]) -> None:
    """Add the arguments [GROUP ...] to a parser; without any, `groups` is all of them."""

    def group(name: str) -> str:
        if name not in groups:
            message = f"must be one of {', '.join(groups)}, got {name!r}"
            raise argparse.ArgumentTypeError(message)
        return name

    text = f"any of {', '.join(groups)} (default: all)"
    parser.add_argument(
        "groups", nargs="*", metavar="GROUP", type=group, default=list(groups), help=text
    )


def report(command: str, work: Callable[[], list[Row]], results: Path | None) -> list[Row]:
    """Measure rows, print them as a table, store them if there is a results file, and return them.

    command: what measures them again. Exits with a message on a CourseError.
    """
    start = time.perf_counter()
    try:
        rows = work()
    except CourseError as error:
        raise SystemExit(f"{command}: {error}") from error
    for row in rows:
        row.command = command
    note = "" if results else ", reduced, not stored"
    seconds = time.perf_counter() - start
    print(f"\n{command} ({seconds:.0f} s{note})\n{table(rows)}", flush=True)
    if results:
        store(results, rows)
    return rows


# --- Time and memory


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that `work` takes, the GPU's share included, and its result."""
    _synchronize()
    start = time.perf_counter()
    result = work()
    _synchronize()
    return time.perf_counter() - start, result


def median_seconds(work: Callable[[], Any], rounds: int, warmup: int = 1) -> float:
    """Return the median time of `work` over some rounds, after rounds that are not counted."""
    times = [timed(work)[0] for _ in range(warmup + rounds)]
    return statistics.median(times[warmup:])


def _synchronize() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peak_memory() -> float:
    """Return the most memory that this process has used so far, in MiB."""
    # getrusage would count the memory of the parent process.
    if peaks := _proc("self/status", "VmHWM"):
        return int(peaks[0].removesuffix("kB")) / 1024
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    unit = 1024 if sys.platform == "linux" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def run_command(
    command: Sequence[str], two_cores: bool = False, environment: Mapping[str, str] | None = None
) -> tuple[float, str]:
    """Run a command in the repository; return the seconds it took and what it printed.

    Args:
        command: program and arguments.
        two_cores: whether it runs on two CPU cores with two threads and without a GPU.
        environment: variables set beside those of this process.
    Raises:
        RuntimeError: it failed; the message ends with what it wrote to stderr.
    """
    variables = os.environ | dict(environment or {})
    pin = None
    if two_cores:
        variables |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"}
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))[:2]
            pin = lambda: os.sched_setaffinity(0, cores)
    start = time.perf_counter()
    result = subprocess.run(
        command, cwd=ROOT, env=variables, preexec_fn=pin, capture_output=True, text=True
    )
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr.strip()[-2000:]}")
    return time.perf_counter() - start, result.stdout


def run_on_two_cores(function: Callable[..., Any], *arguments: str) -> Any:
    """Call a module's function in a process of its own on two CPU cores; return its result.

    The result goes through JSON. Raises RuntimeError if the process fails.
    """
    module = function.__module__
    if module == "__main__":  # `python -m` runs the module under this name
        module = sys.modules["__main__"].__spec__.name  # type: ignore[union-attr]
    command = [sys.executable, "-m", "course.figures", module, function.__name__, *arguments]
    _, output = run_command(command, two_cores=True)
    return json.loads(output.splitlines()[-1])


if __name__ == "__main__":
    _module, _function, *_arguments = sys.argv[1:]
    print(json.dumps(getattr(importlib.import_module(_module), _function)(*_arguments)))
