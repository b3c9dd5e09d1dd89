"""Errors and warnings for readers: notebooks show only their message, without a traceback.

`course.setup` imports this module on any Python 3: its syntax and annotations are those of
Python 3.5.
"""

import builtins
import sys
import warnings
from typing import Any, List, Type, Union


class CourseError(Exception):
    """Something that the reader can correct; the message says what is wrong and what to do."""

    def _render_traceback_(self) -> List[str]:
        """Return the lines that IPython shows in place of a traceback."""
        return ["{}: {}".format(type(self).__name__, self)]


class RequestError(CourseError, ValueError):
    """A value that was passed in is invalid; the message names it and says what is allowed."""


class CourseWarning(UserWarning):
    """Something that the reader should know; the work goes on."""


_format_other_warnings = warnings.formatwarning


def _format_warning(message: Union[Warning, str], category: Type[Warning], *place: Any) -> str:
    if issubclass(category, CourseWarning):
        return "{}: {}\n".format(category.__name__, message)
    return _format_other_warnings(message, category, *place)


_show_other_warnings = warnings.showwarning


def _show_warning(
    message: Union[Warning, str],
    category: Type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: Any = None,
) -> None:
    # In a notebook a warning for the reader is part of the output, not an error.
    if file is None and issubclass(category, CourseWarning) and hasattr(builtins, "get_ipython"):
        file = sys.stdout
    _show_other_warnings(message, category, filename, lineno, file, line)


warnings.showwarning = _show_warning
warnings.formatwarning = _format_warning  # type: ignore[assignment]  # `place` is passed on
# By default a cell that runs again would not warn a second time.
warnings.simplefilter("always", CourseWarning)


def shorten(text: str, length: int) -> str:
    """Return `text` for a message, cut to `length` characters, the last three "..."."""
    return text if len(text) <= length else text[: length - 3] + "..."
