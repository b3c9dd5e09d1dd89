"""Errors and warnings meant to be read: they appear as their message alone, without traceback or file names.

The set-up imports this module on any Python 3: its syntax and annotations are those of Python 3.5.
"""

import warnings
from typing import Any, List, Type, Union


class CourseError(Exception):
    """Something the reader can put right; the message names the thing and the way out."""

    def _render_traceback_(self) -> List[str]:
        """IPython shows these lines in place of a traceback."""
        return ["{}: {}".format(type(self).__name__, self)]


class RequestError(CourseError, ValueError):
    """A value that was passed in is invalid; the message names it and says what is allowed."""


class CourseWarning(UserWarning):
    """Something the reader should know; the work goes on."""


_format_others = warnings.formatwarning


def _format(message: Union[Warning, str], category: Type[Warning], *place: Any) -> str:
    if issubclass(category, CourseWarning):
        return "{}: {}\n".format(category.__name__, message)
    return _format_others(message, category, *place)


warnings.formatwarning = _format  # type: ignore[assignment]  # the place is handed on as it comes
warnings.simplefilter(
    "always", CourseWarning
)  # else a cell that runs again stays silent the second time


def shorten(text: str, length: int) -> str:
    """Return `text` for a message: cut after `length` characters, which "..." then shows."""
    return text if len(text) <= length else text[: length - 3] + "..."
