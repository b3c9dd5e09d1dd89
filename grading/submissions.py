"""What students hand in: their answers, taken out of notebooks and modules as text.

`find` sorts the files of a folder by student, as Canvas, Moodle, Gradescope and people name them;
`read` returns the answers of one. Nothing of a submission is imported, unpickled or executed, and
a process of its own reads it, with limits: whatever the files hold, the grader goes on.
"""

import contextlib
import hashlib
import json
import multiprocessing
import re
import resource
import signal
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

import course
from course.errors import CourseError
from course.notebooks import lesson_paths
from grading.media import Media
from grading.reading import Reading
from grading.unpack import WANTED, is_left_out, plain

CANVAS = re.compile(r"(?P<name>.+?)(?:_LATE)?_(?P<id>\d{2,})_\d{2,}_(?P<file>.+)")
MOODLE = re.compile(r"(?P<name>.+?)_(?P<id>\d+)_assignsubmission_[a-z]+(?:_(?P<file>.*))?")
GRADESCOPE = re.compile(r"submission_\d+")
GRADESCOPE_LIST = "submission_metadata.yml"
MAX_LIST = 10 << 20  # bytes of the file above
SECONDS = 120  # to read one submission
MEMORY = 2 << 30  # bytes beyond those of the grader
MAX_RESULT = 64 << 20  # bytes of answers as JSON
# Processes that begin without the grader's threads; their server has imported what they need.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["__main__", "grading.submissions"])


class SubmissionError(CourseError):
    """There are no submissions to read; the message says where."""


@dataclass(frozen=True)
class StudentFiles:
    """What one student handed in: files (notebooks, modules, zips) or folders, sorted."""

    student: str
    paths: tuple[Path, ...]


@dataclass
class Submission:
    """The answers of a student.

    student: the name, as the platform writes it. path: of what was handed in, the first of several.
    version: of the student copy, "" if no notebook names it. answers: by exercise, the source of
    the whole code cell, or of the function in a module of task 3; an exercise that is empty or
    missing has no entry. written: by exercise, the Markdown of a written answer, without entry if
    it is empty. problems: what was wrong with the files, one plain line each. media: by exercise,
    undecoded images and clips of the answer's outputs, and files that were handed in for it.
    """

    student: str
    path: Path
    version: str = ""
    answers: dict[str, str] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    media: dict[str, list[Media]] = field(default_factory=dict)


# --- Whose files


def find(folder: Path) -> list[StudentFiles]:
    """Return the files in a folder by student, sorted by name.

    A folder with the lessons themselves is one submission, and so is a single file. Raises
    SubmissionError for a folder that does not exist or has no submission.
    """
    if folder.is_file():
        return [StudentFiles(_student_of(folder), (folder,))]
    if not folder.is_dir():
        raise SubmissionError(f"There is no folder {folder}.")
    names = {f"{path.name}" for path in lesson_paths()}
    entries = sorted(path for path in folder.iterdir() if not is_left_out(path.name))
    if any(path.name in names for path in entries):
        return [StudentFiles(_readable(folder.resolve().name), (folder,))]
    gradescope = _gradescope_names(folder / GRADESCOPE_LIST)
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in entries:
        if path.is_dir() or path.suffix.lower() in WANTED:
            groups.setdefault(_owner(path, gradescope), []).append(path)
    if not groups:
        raise SubmissionError(
            f"There are no submissions in {folder}: notebooks, zips, or a folder for each student."
        )
    count = {name: sum(other == name for other, _ in groups) for name, _ in groups}
    return [
        StudentFiles(name if count[name] == 1 else f"{name} ({id})", tuple(paths))
        for (name, id), paths in sorted(groups.items())
    ]


def _owner(path: Path, gradescope: dict[str, str]) -> tuple[str, str]:
    """Return name and number of the student whose file or folder this is."""
    for pattern in (MOODLE, CANVAS):
        if match := pattern.fullmatch(path.name):
            return _readable(match["name"]), match["id"]
    if GRADESCOPE.fullmatch(path.name):
        name = gradescope.get(path.name, "")
        return (name, path.name) if name else (path.name, "")
    return _student_of(path), ""


def _student_of(path: Path) -> str:
    """Return the student that a plain name tells: "anna" of anna.zip or anna_task_1_1....ipynb."""
    if path.is_dir():
        return _readable(path.name)
    stem = re.sub(r"(-\d+| \(\d+\)|-Copy\d+)$", "", path.stem)
    for lesson in lesson_paths():
        position = stem.casefold().find(lesson.stem.casefold())
        if position >= 0:
            rest = stem[:position] + stem[position + len(lesson.stem) :]
            return _readable(rest.strip("-_ .") or path.resolve().parent.name)
    return _readable(re.sub(r"[-_ ]sd$", "", stem) if path.suffix == ".py" else stem)


def _readable(name: str) -> str:
    """Return a name in one form of Unicode, without control characters, never empty."""
    name = unicodedata.normalize("NFC", plain(name)).strip()
    name = "".join(c for c in name if unicodedata.category(c) != "Cf")
    return name or "unnamed"


def _gradescope_names(path: Path) -> dict[str, str]:
    """Return the students of each folder of a Gradescope export, {} without its list."""
    if not path.is_file() or path.is_symlink() or path.stat().st_size > MAX_LIST:
        return {}
    names: dict[str, list[str]] = {}
    folder = ""
    for line in path.read_text("utf-8", errors="replace").splitlines():
        if match := re.match(r"""["']?(submission_\d+)["']?:\s*$""", line):
            folder = match[1]
        elif match := re.match(r"\s*(?:- )?:name: *(.+?)\s*$", line):
            names.setdefault(folder, []).append(_readable(match[1].strip("\"'")))
    return {folder: ", ".join(students) for folder, students in names.items()}


def file_name(student: str) -> str:
    """Return a name for a student's files: safe on every system, other for each student."""
    letters = unicodedata.normalize("NFKD", student).encode("ascii", "ignore").decode()
    words = re.sub(r"[^A-Za-z0-9]+", "-", letters).strip("-")
    mark = hashlib.sha256(student.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{words[:40].lower() or 'student'}-{mark}"


# --- What is in them


@contextlib.contextmanager
def opened(files: StudentFiles) -> Iterator[Submission]:
    """Give a submission with its images and clips, which are there until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="submission-") as folder:
        yield read(files, Path(folder))


def read(files: StudentFiles, folder: Path | None = None) -> Submission:
    """Return the answers of a student; never fails, but says in `problems` what was wrong.

    folder: an empty one, for images and clips; without it there are none.
    """
    submission = Submission(files.student, files.paths[0])
    with tempfile.TemporaryDirectory(prefix="unpacked-") as unpacked:
        result, reason = _in_process(files.paths, Path(unpacked), folder)
    if reason:
        submission.problems.append(f"The files could not be read: {reason}.")
        return submission
    submission.answers = result["answers"]
    submission.written = result["written"]
    submission.problems = result["problems"]
    for exercise, items in result["media"].items():
        submission.media[exercise] = [Media(item["name"], Path(item["path"])) for item in items]
    submission.version = ", ".join(result["versions"])
    submission.problems += [
        plain(
            f"Made with version {version} of the student copy; this grader is of version "
            f"{course.__version__}."
        )
        for version in result["versions"]
        if version != course.__version__
    ]
    return submission


def _in_process(
    paths: tuple[Path, ...], unpacked: Path, media: Path | None
) -> tuple[dict[str, Any], str]:
    """Return what a process of its own reads, and why it could not, "" if it could."""
    ours, theirs = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_read_here, args=(theirs, paths, unpacked, media))
    process.start()
    theirs.close()
    reason = ""
    data = b"{}"
    try:
        if ours.poll(SECONDS):
            data = ours.recv_bytes(MAX_RESULT)
        else:
            reason = f"that took more than {SECONDS} seconds"
    except (EOFError, OSError):
        process.join(5)
        reason = _how_it_ended(process.exitcode)
    finally:
        ours.close()
        process.kill()
        process.join()
    return json.loads(data), reason


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the reader was ended by {signal.Signals(-code).name}"
    return "they need more memory, or are larger, than is allowed"


def _read_here(
    pipe: Connection, paths: tuple[Path, ...], unpacked: Path, media: Path | None
) -> None:
    """Read files and send the answers as JSON; in a process with limits."""
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    reading = Reading(media)
    reading.read(paths, unpacked)
    pipe.send_bytes(json.dumps(asdict(reading.result), default=str).encode())
    pipe.close()
