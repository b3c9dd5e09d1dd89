"""Runs a student's code in a process of its own that can read the course and nothing else.

What it protects against: code that reads, changes or removes files of the teacher or of other
students; that reads the grader's memory, environment or processes; that uses the network; that runs
for ever, forks, fills memory or disk, or prints without end; that leaves processes behind.

What it does not protect against: faults of the kernel that let a process leave its sandbox;
measuring what else runs on the machine; wrong values, which are the grader's to find.

The process runs in namespaces of its own by bubblewrap: no network, a private /proc, /tmp and /dev,
a read-only system, no capabilities. Nothing that it writes is executed or unpickled: its results
come back over one pipe as bytes, and it is dead with all its children before they are read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from grading.sandbox import bubblewrap
from grading.sandbox.limits import (
    NEXT,
    REPEATABLE,
    RESULTS,
    Job,
    Limits,
    Outcome,
    SandboxError,
    python_folders,
)

DEFAULTS = Limits()

__all__ = [
    "NEXT",
    "REPEATABLE",
    "RESULTS",
    "Limits",
    "Outcome",
    "SandboxError",
    "check",
    "python_folders",
    "reason_against",
    "run",
]


def reason_against() -> str:
    """Return why no sandbox works here and what helps, "" if one does."""
    return bubblewrap.reason_against()


def check() -> None:
    """Raise SandboxError if there is no sandbox on this machine."""
    if reason := reason_against():
        raise SandboxError(f"There is no sandbox: {reason}")


def run(
    command: Sequence[str],
    readable: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    limits: Limits = DEFAULTS,
    data: bytes = b"",
    tasks: Sequence[bytes] = (),
) -> Outcome:
    """Run a command in the sandbox to its end, or until it exceeds a limit.

    It starts in its only writable folder, whose path is in the environment variable `TMPDIR`. Its
    results go to the file descriptor whose number is in the environment variable `RESULTS`.

    Args:
        command: program and arguments.
        readable: files and folders that it may read, at their own paths. Python's are among them.
        environment: variables, beside `REPEATABLE`; nothing is inherited.
        data: what it reads from its stdin, a pipe.
        tasks: what follows there, one each time that it writes `NEXT` to its stderr. So it has one
            at a time, and none that it does not need yet.
    Raises:
        SandboxError: no sandbox works here.
    """
    check()
    variables = {
        **REPEATABLE,
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        **(environment or {}),
    }
    job = Job(tuple(command), tuple(readable), variables, limits, data, tuple(tasks))
    return bubblewrap.run(job)
