"""What all lessons share and none of them teaches: which model, images and video, self-checks.

Nothing else is imported here, so that `course.setup` runs before anything is installed, on any Python 3.
"""

import sys

__version__ = "1.0.0"  # as in pyproject.toml and CITATION.cff

# A character that the terminal or the pipe cannot show ends no program: it appears as in "\u2713".
for _stream in (sys.stdout, sys.stderr):
    if getattr(_stream, "errors", None) == "strict" and hasattr(_stream, "reconfigure"):
        _stream.reconfigure(errors="backslashreplace")
