"""Compares the arrays of an answer with those of the official solution.

Each array is a part of the exercise. Numbers agree up to a relative tolerance of their norm, whole
numbers and truth values exactly.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from grading.recipe import Arrays

TOLERANCES = Path(__file__).with_name("tolerances.json")
DEFAULT = 1e-4  # relative to the norm, as course.checks.common.close
IMAGE = 2e-3  # of 8-bit images, for which right answers may be rounded to the next value
ZERO = 1e-6  # a norm below counts as zero
MAX_NAMES = 6  # of wrong parts in a message


@dataclass(frozen=True)
class Comparison:
    """How an answer compares: the parts that are right, and what is wrong with the others."""

    right: tuple[str, ...]
    wrong: Mapping[str, str]

    @property
    def share(self) -> float:
        """The share of the parts that are right."""
        return len(self.right) / (len(self.right) + len(self.wrong))

    @property
    def message(self) -> str:
        """What a student reads: which parts are wrong, and how."""
        total = len(self.right) + len(self.wrong)
        if not self.wrong:
            return "All values agree with the reference."
        lines = [f"{name}: {reason}" for name, reason in self.wrong.items()]
        more = len(lines) - MAX_NAMES
        rest = [f"and {more} more."] if more > 0 else []
        head = f"{len(self.right)} of {total} parts are right. What differs from the reference:"
        return "\n".join([head, *lines[:MAX_NAMES], *rest])


@cache
def tolerances() -> Mapping[str, float]:
    """Return the relative tolerance of each exercise that has one of its own."""
    values = json.loads(TOLERANCES.read_text("utf-8")).get("tolerances", {})
    return {exercise: float(value) for exercise, value in values.items()}


def tolerance_of(exercise: str) -> float:
    """Return the relative tolerance of an exercise."""
    return tolerances().get(exercise, DEFAULT)


def compare(arrays: Arrays, reference: Arrays, tolerance: float = DEFAULT) -> Comparison:
    """Compare arrays with those of the reference, whose names are the parts.

    Arrays with other names do not count. Raises ValueError for a reference without parts.
    """
    if not reference:
        raise ValueError("A recipe has to return at least one array.")
    reasons = {
        name: difference(arrays[name], right, tolerance) if name in arrays else "there is no value."
        for name, right in reference.items()
    }
    right = tuple(name for name, reason in reasons.items() if not reason)
    return Comparison(right, {name: reason for name, reason in reasons.items() if reason})


def difference(array: np.ndarray, right: np.ndarray, tolerance: float) -> str:
    """Return how an array differs from the right one, "" if it agrees."""
    if array.shape != right.shape:
        return f"the shape is {_shape(array)}, not {_shape(right)}."
    if (array.dtype.kind == "b") != (right.dtype.kind == "b"):
        return f"the values are of type {array.dtype}, not {right.dtype}."
    if right.dtype == np.uint8 and array.dtype == np.uint8:
        tolerance = max(tolerance, IMAGE)
    elif right.dtype.kind in "biu":
        return "" if np.array_equal(array, right) else _count(array != right)
    return _distance(array.astype(np.float64), right.astype(np.float64), tolerance)


def _distance(array: np.ndarray, right: np.ndarray, tolerance: float) -> str:
    """Return how far real numbers are from the right ones, "" if near enough."""
    unusual = ~np.isfinite(right)
    if not np.array_equal(array[unusual], right[unusual], equal_nan=True):
        return _count(np.ones(int(unusual.sum())))
    array, right = array[~unusual], right[~unusual]
    if not np.isfinite(array).all():
        return f"{int((~np.isfinite(array)).sum())} values are not finite."
    norm = _norm(right)
    limit = tolerance * norm if norm > ZERO else ZERO
    error = _norm(array - right)
    if error <= limit:
        return ""
    if norm <= ZERO:
        return f"the values are up to {np.abs(array).max():.2g}, not 0."
    return f"the relative difference is {error / norm:.2g}; {tolerance:.2g} is allowed."


def _norm(array: np.ndarray) -> float:
    """Return the norm of an array, also where its squares are too large for a float."""
    largest = float(np.abs(array).max(initial=0.0))
    return largest * float(np.linalg.norm(array / largest)) if largest else 0.0


def _shape(array: np.ndarray) -> str:
    return f"({', '.join(map(str, array.shape))})"


def _count(wrong: np.ndarray) -> str:
    return f"{int(np.count_nonzero(wrong))} of {wrong.size} values are wrong."
