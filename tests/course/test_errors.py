"""Errors and warnings that readers see: the message alone, every time."""

import subprocess
import sys

import pytest

from course.errors import CourseError, CourseWarning

ROOT = __file__.rsplit("tests", 1)[0]


def stderr_of(code: str) -> list[str]:
    """Return what another process writes to stderr: pytest filters warnings by itself."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    ).stderr.splitlines()


def test_an_error_is_shown_as_its_message():
    class ImageError(CourseError):
        pass

    assert ImageError("too large")._render_traceback_() == ["ImageError: too large"]


def test_a_warning_is_shown_each_time_without_its_place():
    code = "import warnings\nfrom course.errors import CourseWarning\n"
    loop = "for _ in range(2):\n    warnings.warn('look', CourseWarning)\n"
    assert stderr_of(code + loop) == ["CourseWarning: look"] * 2


@pytest.mark.parametrize("category", ["UserWarning", "RuntimeWarning", "FutureWarning"])
def test_warnings_of_others_keep_their_place(category):
    lines = stderr_of(f"import warnings, course.errors\nwarnings.warn('look', {category})")
    assert lines[0].endswith(f":2: {category}: look")
    assert issubclass(CourseWarning, UserWarning)


@pytest.mark.parametrize(("category", "stream"), [("CourseWarning", 0), ("UserWarning", 1)])
def test_in_a_notebook_a_warning_for_the_reader_is_part_of_the_output(category, stream):
    code = (
        "import builtins, warnings\nbuiltins.get_ipython = None\n"
        f"from course.errors import CourseWarning\nwarnings.warn('look', {category})"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    streams = [process.stdout, process.stderr]
    assert "look" in streams[stream] and "look" not in streams[1 - stream]
