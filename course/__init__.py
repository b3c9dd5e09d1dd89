"""What the lessons share: diffusion, models, images, metrics, self-checks.

Nothing is imported here: `course.setup` runs before anything is installed, on any Python 3.
"""

import sys

__version__ = "1.0.0"  # as in pyproject.toml and CITATION.cff

# A character that the terminal cannot show must not end a program: it appears as "\u2713".
for _stream in (sys.stdout, sys.stderr):
    if getattr(_stream, "errors", None) == "strict" and hasattr(_stream, "reconfigure"):
        _stream.reconfigure(errors="backslashreplace")
