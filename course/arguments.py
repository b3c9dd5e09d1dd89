"""Validation of arguments: whole and finite numbers in a range, also of NumPy and PyTorch."""

import math
import operator
from typing import Any

from course.errors import CourseError, RequestError, shorten


def check_integer(
    name: str,
    value: Any,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    error: type[CourseError] = RequestError,
) -> int:
    """Return `value` as an int if it is one and lies in [minimum, maximum].

    NumPy's and PyTorch's integers are accepted (`operator.index`), booleans are not. Raises
    `error`, whose message starts with `name`.

    Example:
        >>> check_integer("height", np.int64(64), minimum=8)
        64
    """
    try:
        if isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool"):
            raise TypeError
        number = operator.index(value)
        if minimum <= number <= maximum:
            return number
        shown = str(number)
    except TypeError:
        shown = shorten(repr(value), 60)
    raise error(f"{name} must be a whole number{_range(minimum, maximum)}, got {shown}.")


def check_number(
    name: str,
    value: Any,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    error: type[CourseError] = RequestError,
) -> float:
    """Return `value` as a float if it is a finite real number in [minimum, maximum].

    Booleans and text are refused. Raises `error`, whose message starts with `name`.
    """
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        number = float(value)
        if math.isfinite(number) and minimum <= number <= maximum:
            return number
        shown = f"{number:g}"
    except (TypeError, ValueError, OverflowError, RuntimeError):
        shown = shorten(repr(value), 60)
    raise error(f"{name} must be a number{_range(minimum, maximum)}, got {shown}.")


def _range(minimum: float, maximum: float) -> str:
    if math.isinf(maximum):
        return "" if math.isinf(minimum) else f" of at least {minimum:,}"
    return (
        f" of at most {maximum:,}" if math.isinf(minimum) else f" from {minimum:,} to {maximum:,}"
    )
