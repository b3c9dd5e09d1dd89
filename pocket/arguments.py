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


def integer(minimum: int, maximum: float = math.inf) -> Callable[[str], int]:
    """Return the type of a whole number in [minimum, maximum]."""
    return lambda text: int(_check(text, int, "whole number", minimum, maximum))


def number(minimum: float, maximum: float = math.inf) -> Callable[[str], float]:
    """Return the type of a finite number in [minimum, maximum]."""
    return lambda text: _check(text, float, "number", minimum, maximum)


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


def _check(
    text: str, convert: Callable[[str], float], kind: str, minimum: float, maximum: float
) -> float:
    try:
        value = convert(text)
    except ValueError:
        value = math.nan
    if not minimum <= value <= maximum or value == math.inf:
        limits = f"of at least {minimum:,}"
        if maximum < math.inf:
            limits = f"from {minimum:,} to {maximum:,}"
        raise ArgumentTypeError(f"must be a {kind} {limits}, got {text!r}")
    return value
