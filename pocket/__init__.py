"""The embedded model: the world that it is trained on, training, evaluation and weights."""

import sys

# As in course/__init__.py: a character that the terminal or the pipe cannot show ends no program.
for _stream in (sys.stdout, sys.stderr):
    if getattr(_stream, "errors", None) == "strict" and hasattr(_stream, "reconfigure"):
        _stream.reconfigure(errors="backslashreplace")
