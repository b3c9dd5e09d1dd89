"""Types of command-line options for argparse: numbers in a range, folders, files of results."""

import json
import math
import os
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_option(
    parser: ArgumentParser, flag: str, type_: Callable[[str], Any], default: Any, text: str
) -> None:
    """Add an option whose help ends with its default."""
    parser.add_argument(flag, type=type_, default=default, help=f"{text} (default: {default})")


def integer(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Return the type of a whole number in [minimum, maximum]."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < minimum or (maximum is not None and value > maximum):
            raise ArgumentTypeError(
                f"must be a whole number {_range(minimum, maximum)}, got {text!r}"
            )
        return value

    return parse


def number(minimum: float, maximum: float | None = None) -> Callable[[str], float]:
    """Return the type of a finite number in [minimum, maximum]."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < minimum or (maximum is not None and value > maximum):
            raise ArgumentTypeError(f"must be a number {_range(minimum, maximum)}, got {text!r}")
        return value

    return parse


def folder(text: str) -> Path:
    """Return the path of a folder that exists or can be created."""
    path = Path(text)
    if not text.strip():
        raise ArgumentTypeError(f"must name a folder, got {text!r}")
    nearest = next(each for each in (path, *path.parents) if os.path.lexists(each))
    if not nearest.is_dir():
        raise ArgumentTypeError(f"must name a folder, got {text!r}: {nearest} is no folder")
    return path


def results_file(text: str) -> Path:
    """Return the path of a file of results of `course.figures` that exists or can be created."""
    path = Path(text)
    folder(str(path.parent))
    if os.path.lexists(path) or not path.name:
        try:
            rows = json.loads(path.read_text())["rows"]
        except (OSError, ValueError, TypeError, LookupError, RecursionError):
            rows = None
        if not isinstance(rows, list):
            raise ArgumentTypeError(f"must name a file of results or a new file, got {text!r}")
    return path


def _range(minimum: float, maximum: float | None) -> str:
    return f"of at least {minimum:,}" if maximum is None else f"from {minimum:,} to {maximum:,}"
