"""Validation of arguments: whole and finite numbers in a range, also of NumPy and PyTorch."""

import math
import operator
from typing import Any

from course.errors import CourseError, RequestError, shorten


def check_integer(
    name: str,
    value: Any,
    minimum: int | None = None,
    maximum: int | None = None,
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
    except TypeError:
        shown = shorten(repr(value), 60)
        raise error(
            f"{name} must be a whole number{_range(minimum, maximum)}, got {shown}."
        ) from None
    if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
        raise error(f"{name} must be a whole number{_range(minimum, maximum)}, got {number}.")
    return number


def check_number(
    name: str,
    value: Any,
    minimum: float | None = None,
    maximum: float | None = None,
    error: type[CourseError] = RequestError,
) -> float:
    """Return `value` as a float if it is a finite real number in [minimum, maximum].

    Booleans and text are refused. Raises `error`, whose message starts with `name`.
    """
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise error(
            f"{name} must be a number{_range(minimum, maximum)}, got {shorten(repr(value), 60)}."
        ) from None
    if not math.isfinite(number):
        raise error(f"{name} must be a finite number{_range(minimum, maximum)}, got {number}.")
    if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
        raise error(f"{name} must be a number{_range(minimum, maximum)}, got {number:g}.")
    return number


def _range(minimum: float | None, maximum: float | None) -> str:
    if minimum is not None and maximum is not None:
        return f" from {minimum:,} to {maximum:,}"
    if minimum is not None:
        return f" of at least {minimum:,}"
    return f" of at most {maximum:,}" if maximum is not None else ""
