"""Measures how far right answers may be from the reference: `python -m grading.tolerances`.

The official solutions run with several numbers of threads and instruction sets; the harmless
variants and the wrong answers of the tests run once. All of them are ours, so no sandbox is needed.
A sandbox has no GPU, so none is measured.

The tolerance of an exercise is FACTOR times the largest difference among right answers, and has to
be below that of every wrong one. Writes grading/tolerances.json and a plot of all differences.
"""

import argparse
import contextlib
import datetime
import importlib
import importlib.metadata
import io
import json
import os
import pkgutil
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from course.files import write_text
from course.notebooks import ROOT
from grading import official
from grading.compare import IMAGE, TOLERANCES, ZERO
from grading.policy import violation
from grading.recipe import Arrays
from grading.sandbox.limits import REPEATABLE

FACTOR = 10.0  # tolerance / largest difference of right answers
LEAST = 3e-5  # of a tolerance: other machines round in other places
CHANCE = {"0 (d)": 0.05}  # least where right answers draw random numbers of their own
SEEDS = (1, 2)  # of the random inputs
PLOT = ROOT / "assets" / "grading_tolerances.png"
ANSWERS = "tests.grading.mutants"  # its modules have lists WRONG and HARMLESS
FAST = dict.fromkeys(("MKL_CBWR", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"), "")
CONDITIONS: Mapping[str, Mapping[str, str]] = {
    "as the grader": {},
    "2 threads": {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
    "4 threads": {"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "4"},
    "highest instruction set": FAST,
    "2 threads, highest instruction set": FAST | {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
}
COMMON = {
    "PYTHONPATH": str(ROOT),
    "TQDM_DISABLE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "CUDA_VISIBLE_DEVICES": "-1",
}
PACKAGES = ("torch", "numpy", "diffusers", "transformers")
Differences = dict[str, float]  # by part, relative; infinite where no tolerance helps


# --- Answers, in this process


class Runner:
    """Runs answers in this process, one after the other, and keeps the references."""

    def __init__(self) -> None:
        self.names: dict[str, dict[str, Any]] = {}  # by module, what its setup returned
        self.references: dict[tuple[str, int], Arrays] = {}

    def arrays(self, exercise: str, answer: str, seed: int) -> Arrays:
        """Return what is compared of an answer. Raises what it raises."""
        arrays = self.values(exercise, answer, seed)
        measure = official.all_recipes()[exercise][1].by_exercise[exercise].measure
        return measure(arrays, seed) if measure else arrays

    def values(self, exercise: str, answer: str, seed: int) -> Arrays:
        """Return what an answer gives, before it is measured. Raises what it raises."""
        from grading.recipe import evaluate

        task = official.task(exercise, answer)
        lesson = official.all_recipes()[exercise][1]
        if task.module not in self.names:
            self.names[task.module] = lesson.setup()
        torch.manual_seed(seed)
        recipe = lesson.by_exercise[exercise]
        modules = {name: importlib.import_module(name) for name in task.modules}
        before = {name: dict(vars(module)) for name, module in modules.items()}
        try:
            for name, source in task.modules.items():
                exec(compile(source, f"<{name}>", "exec"), vars(modules[name]))
            names = self.names[task.module]
            return evaluate(recipe, names, task.cells, task.answer, seed)
        finally:
            for name, module in modules.items():
                vars(module).clear()
                vars(module).update(before[name])

    def reference(self, exercise: str, seed: int) -> Arrays:
        """Return the arrays of the official solution."""
        key = exercise, seed
        if key not in self.references:
            self.references[key] = self.arrays(exercise, official.answers()[exercise], seed)
        return self.references[key]

    def differences(self, exercise: str, answer: str, seed: int) -> Differences:
        """Return the differences of an answer from the reference, by part."""
        right = self.reference(exercise, seed)
        if violation(exercise, answer):
            return dict.fromkeys(right, np.inf)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                arrays = self.arrays(exercise, answer, seed)
        except Exception:
            return dict.fromkeys(right, np.inf)
        return differences(arrays, right)


def differences(arrays: Arrays, reference: Arrays) -> Differences:
    """Return by part how far arrays are from those of a reference, relative to their norm."""
    return {
        name: difference(arrays[name], right) if name in arrays else np.inf
        for name, right in reference.items()
    }


def difference(array: np.ndarray, right: np.ndarray) -> float:
    """Return the norm of a difference relative to that of `right`.

    It is infinite for another shape, for whole numbers that differ, and beside a norm of 0.
    """
    is_image = right.dtype == np.uint8 and array.dtype == np.uint8
    if array.shape != right.shape or (array.dtype.kind == "b") != (right.dtype.kind == "b"):
        return np.inf
    if right.dtype.kind in "biu" and not is_image:
        return 0.0 if np.array_equal(array, right) else np.inf
    array, right = array.astype(np.float64), right.astype(np.float64)
    error, norm = float(np.linalg.norm(array - right)), float(np.linalg.norm(right))
    if not np.isfinite(error):
        return 0.0 if np.array_equal(array, right, equal_nan=True) else np.inf
    if norm <= ZERO:
        return 0.0 if error <= ZERO else np.inf
    return error / norm


def images_of(reference: Arrays) -> set[str]:
    """Return the names of the parts that are 8-bit images: their tolerance is IMAGE or more."""
    return {name for name, array in reference.items() if array.dtype == np.uint8}


# --- Conditions, each in a process of its own


def run_condition(name: str, folder: Path) -> dict[tuple[str, int], Arrays]:
    """Return the arrays of all official solutions under a condition, by exercise and seed."""
    path = folder / f"{name}.npz"
    settings = {**os.environ, **REPEATABLE, **COMMON, **CONDITIONS[name]}
    environment = {key: value for key, value in settings.items() if value}
    command = [sys.executable, "-m", "grading.tolerances", "--store", str(path)]
    subprocess.run(command, env=environment, cwd=ROOT, check=True)
    result: dict[tuple[str, int], Arrays] = {}
    with np.load(path) as stored:
        for key in stored.files:
            exercise, seed, part = key.split("|", 2)
            result.setdefault((exercise, int(seed)), {})[part] = stored[key]
    return result


def store_official(path: Path) -> None:
    """Write the arrays of all official solutions, in this process."""
    runner = Runner()
    stored = {
        f"{exercise}|{seed}|{part}": array
        for exercise in official.all_recipes()
        for seed in SEEDS
        for part, array in runner.reference(exercise, seed).items()
    }
    np.savez(path, allow_pickle=False, **stored)


# --- The measurement


class Measurement:
    """The largest difference of each right answer, and of each wrong one, by exercise.

    Of a wrong answer the largest part counts, and of all seeds the smallest. images: the same of
    right answers in parts that are 8-bit images.
    """

    def __init__(self) -> None:
        self.right: dict[str, dict[str, float]] = {}
        self.wrong: dict[str, dict[str, float]] = {}
        self.images: dict[str, float] = {}

    def add_right(self, exercise: str, name: str, parts: Differences, images: set[str]) -> None:
        """Add the differences of a right answer."""
        numbers = max((value for part, value in parts.items() if part not in images), default=0.0)
        others = max((value for part, value in parts.items() if part in images), default=0.0)
        row = self.right.setdefault(exercise, {})
        row[name] = max(row.get(name, 0.0), numbers)
        self.images[exercise] = max(self.images.get(exercise, 0.0), others)

    def add_wrong(self, exercise: str, name: str, parts: Differences, images: set[str]) -> None:
        """Add the differences of a wrong answer; images count by their own tolerance."""
        largest = max(
            value if part not in images or value > IMAGE else 0.0 for part, value in parts.items()
        )
        row = self.wrong.setdefault(exercise, {})
        row[name] = min(row.get(name, np.inf), largest)

    def tolerance(self, exercise: str) -> float:
        """Return the tolerance of an exercise, with two digits."""
        least = CHANCE.get(exercise, LEAST)
        return float(f"{max(least, FACTOR * max(self.right[exercise].values())):.1e}")

    def problems(self) -> list[str]:
        """Return the exercises whose right and wrong answers are too close, with the numbers."""
        lines = []
        for exercise in self.right:
            tolerance = self.tolerance(exercise)
            lines += [
                f"{exercise} {name}: a wrong answer differs by {value:.1e}, {tolerance:.1e} is "
                "allowed"
                for name, value in self.wrong.get(exercise, {}).items()
                if value <= tolerance
            ]
            if not np.isfinite(tolerance):
                names = [n for n, value in self.right[exercise].items() if not np.isfinite(value)]
                lines.append(f"{exercise}: right answers are wrong: {', '.join(names)}")
            if self.images[exercise] > IMAGE / 2:
                lines.append(f"{exercise}: images of right answers: {self.images[exercise]:.1e}")
        return lines


def answer_lists(package: str) -> tuple[list[Any], list[Any]]:
    """Return the harmless and the wrong answers that the modules of a package list."""
    path = importlib.import_module(package).__path__
    modules = [importlib.import_module(f"{package}.{info.name}") for info in iter_modules(path)]
    harmless = [answer for module in modules for answer in module.HARMLESS]
    return harmless, [answer for module in modules for answer in module.WRONG]


def iter_modules(path: Iterable[str]) -> list[pkgutil.ModuleInfo]:
    """Return the modules of a package in the order of their names."""
    return sorted(pkgutil.iter_modules(path), key=lambda info: info.name)


def measure(package: str) -> Measurement:
    """Return the differences of all answers."""
    measurement = Measurement()
    with tempfile.TemporaryDirectory() as folder:
        arrays = {name: run_condition(name, Path(folder)) for name in CONDITIONS}
    base, *others = arrays
    for (exercise, seed), reference in arrays[base].items():
        for name in others:
            parts = differences(arrays[name][exercise, seed], reference)
            measurement.add_right(exercise, name, parts, images_of(reference))
    runner = Runner()
    harmless, wrong = answer_lists(package)
    for answers, add in ((harmless, measurement.add_right), (wrong, measurement.add_wrong)):
        for answer in answers:
            for seed in SEEDS:
                parts = runner.differences(answer.exercise, answer.source, seed)
                images = images_of(runner.reference(answer.exercise, seed))
                add(answer.exercise, answer.name, parts, images)
    return measurement


# --- What is written


def to_json(measurement: Measurement) -> str:
    """Return tolerances.json: the tolerances, and how they were measured."""
    exercises = measurement.right
    rows = {
        exercise: {
            "right": float(f"{max(measurement.right[exercise].values()):.2g}"),
            "wrong": smallest(measurement.wrong.get(exercise, {})),
        }
        for exercise in exercises
    }
    document = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "conditions": list(CONDITIONS),
        "seeds": SEEDS,
        "factor": FACTOR,
        "least": LEAST,
        "tolerances": {exercise: measurement.tolerance(exercise) for exercise in exercises},
        "differences": rows,
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def smallest(row: Mapping[str, float]) -> float | None:
    """Return the smallest difference of wrong answers, None where all are infinite."""
    value = min(row.values(), default=np.inf)
    return float(f"{value:.2g}") if np.isfinite(value) else None


def plot(measurement: Measurement, path: Path) -> None:
    """Draw histograms of the differences of right and wrong answers, in units of the tolerance."""
    from matplotlib.figure import Figure

    low, high = 1e-4, 1e7
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    axes = figure.subplots()
    for label, rows, color in (
        ("right answers", measurement.right, "#0072b2"),
        ("wrong answers", measurement.wrong, "#d55e00"),
    ):
        ratios = [
            value / measurement.tolerance(exercise)
            for exercise, row in rows.items()
            for value in row.values()
        ]
        clipped = np.clip(ratios, 1.01 * low, 0.99 * high)
        bins = np.geomspace(low, high, 56).tolist()
        axes.hist(clipped, bins=bins, color=color, label=f"{len(ratios)} {label}")
    axes.axvline(1, color="black", linestyle="--", label="tolerance")
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylabel="answers")
    edges = "left edge: 0, right edge: an error"
    axes.set_xlabel(f"difference from the reference / tolerance ({edges})")
    axes.legend(loc="upper center", frameon=False)
    figure.savefig(path, dpi=160)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m grading.tolerances", description="Measure the tolerances of all exercises."
    )
    text = "package whose modules list WRONG and HARMLESS answers"
    parser.add_argument("--answers", default=ANSWERS, help=f"{text} (default: {ANSWERS})")
    text = "only store the arrays of the official solutions in this file, in this process"
    parser.add_argument("--store", type=Path, help=text)
    options = parser.parse_args(arguments)
    if options.store:
        store_official(options.store)
        return 0
    measurement = measure(options.answers)
    if problems := measurement.problems():
        print("\n".join(problems), file=sys.stderr)
    else:
        write_text(TOLERANCES, to_json(measurement))
        plot(measurement, PLOT)
        print(f"wrote {TOLERANCES} and {PLOT}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
