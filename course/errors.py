"""Errors and warnings meant to be read: they appear as their message alone, without traceback or file names."""

import warnings
from typing import Any


class CourseError(Exception):
    """Something the reader can put right; the message names the thing and the way out."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows these lines in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class CourseWarning(UserWarning):
    """Something the reader should know; the work goes on."""


_format_others = warnings.formatwarning


def _format(message: Warning | str, category: type[Warning], *place: Any) -> str:
    if issubclass(category, CourseWarning):
        return f"{category.__name__}: {message}\n"
    return _format_others(message, category, *place)


warnings.formatwarning = _format  # type: ignore[assignment]  # the place is handed on as it comes
warnings.simplefilter("always", CourseWarning)  # else a cell that runs again stays silent the second time


def shorten(text: str, length: int) -> str:
    """Return `text` for a message: cut after `length` characters, which "..." then shows."""
    return text if len(text) <= length else f"{text[: length - 3]}..."
