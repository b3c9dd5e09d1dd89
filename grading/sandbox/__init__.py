"""Runs a student's code in a process of its own that can read the course and nothing else.

What it protects against: code that reads, changes or removes files of the teacher or of other
students; that reads the grader's memory, environment or processes; that uses the network; that runs
for ever, forks, fills memory or disk, or prints without end; that leaves processes behind.

What it does not protect against: faults of the kernel that let a process leave its sandbox;
measuring what else runs on the machine; wrong values, which are the grader's to find; answers that
look at what a recipe hands them, such as the data behind the predictor of 0 challenge 1.

The first that works here is used: bubblewrap (namespaces: no network, a private /proc, /tmp and
/dev, a read-only system, no capabilities), a container of podman or docker, or Landlock with
seccomp and, for root, a user of its own. Nothing that the process writes is executed or unpickled:
its results come back over one pipe as bytes, and it is dead with all its children before they are
read.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from grading.sandbox import bubblewrap, container, landlock, unsafe
from grading.sandbox.limits import (
    NEXT,
    REPEATABLE,
    RESULTS,
    SHORT_OF_MEMORY,
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
    "SANDBOXES",
    "SHORT_OF_MEMORY",
    "UNSAFE",
    "Limits",
    "Outcome",
    "SandboxError",
    "check",
    "choose",
    "python_folders",
    "reason_against",
    "run",
]


UNSAFE = "unsafe"  # no sandbox
# In the order in which they are tried: why one does not work here ("" if it does), and how it runs.
SANDBOXES: dict[str, tuple[Callable[[], str], Callable[[Job], Outcome]]] = {
    bubblewrap.NAME: (bubblewrap.reason_against, bubblewrap.run),
    **{
        name: (
            functools.partial(container.reason_against, name),
            functools.partial(container.run, name),
        )
        for name in container.NAMES
    },
    landlock.NAME: (landlock.reason_against, landlock.run),
}


def reason_against(name: str = "") -> str:
    """Return why no sandbox works here and what helps, "" if one does; of one if it is named."""
    names = [name] if name else list(SANDBOXES)
    reasons = _reasons(tuple(names), os.environ.get("PATH", ""))
    return "" if len(reasons) < len(names) else "\n".join(reasons)


def choose(name: str = "") -> str:
    """Return the name of the first sandbox that works here, or the named one.

    Raises:
        SandboxError: none works; the message says why and what helps.
    """
    if name == UNSAFE:
        return name
    names = (name,) if name else tuple(SANDBOXES)
    reasons = _reasons(names, os.environ.get("PATH", ""))
    if len(reasons) == len(names):
        raise SandboxError("There is no sandbox on this machine.\n" + "\n".join(reasons))
    return names[len(reasons)]


@functools.cache
def _reasons(names: tuple[str, ...], path: str) -> list[str]:
    """Return why the sandboxes before the first that works do not; `path` is that of programs."""
    reasons: list[str] = []
    for name in names:
        reason = SANDBOXES[name][0]()
        if not reason:
            break
        reasons.append(reason)
    return reasons


def check() -> None:
    """Raise SandboxError if there is no sandbox on this machine."""
    choose()


def run(
    command: Sequence[str],
    readable: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    limits: Limits = DEFAULTS,
    data: bytes = b"",
    tasks: Sequence[bytes] = (),
    name: str = "",
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
        name: of the sandbox, one of `SANDBOXES` or `UNSAFE`; "" for the first that works.
    Raises:
        SandboxError: no sandbox works here.
    """
    chosen = choose(name)
    variables = {
        **REPEATABLE,
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        **(environment or {}),
    }
    job = Job(tuple(command), tuple(readable), variables, limits, data, tuple(tasks))
    return unsafe.run(job) if chosen == UNSAFE else SANDBOXES[chosen][1](job)
