"""Errors meant to be read: in a notebook they appear as their message alone, without a traceback."""


class CourseError(Exception):
    """Something the reader can put right; the message names the thing and the way out."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows these lines in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]
