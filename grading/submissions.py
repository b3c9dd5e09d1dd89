"""What students hand in: their answers, taken out of notebooks and modules as text.

Nothing of a submission is imported, unpickled or executed here.
"""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class StudentFiles:
    """What one student handed in: files (notebooks, zips) or folders, sorted."""

    student: str
    paths: tuple[Path, ...]


@dataclass
class Submission:
    """The answers of a student.

    student: the name, as the platform writes it. path: of what was handed in, the first of several.
    version: of the student copy, "" if no notebook names it. answers: by exercise, the source of
    the whole code cell, or of the function in a module of task 3; an exercise that is empty or
    missing has no entry. written: by exercise, the Markdown of a written answer, without entry if
    it is empty. problems: what was wrong with the files, one plain line each.
    """

    student: str
    path: Path
    version: str = ""
    answers: dict[str, str] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
