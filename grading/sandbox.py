"""Runs a student's code in a process of its own that can read the course and nothing else.

What it protects against: code that reads, changes or removes files of the teacher or of other
students; that reads the grader's memory, environment or processes; that uses the network; that runs
for ever, forks, fills memory or disk, or prints without end; that leaves processes behind.

What it does not protect against: faults of the kernel that let a process leave its namespaces;
measuring what else runs on the machine; wrong values, which are the grader's to find.

The process runs in namespaces of its own by bubblewrap: no network, a private /proc, /tmp and /dev,
a read-only system, no capabilities. Nothing that it writes is executed or unpickled: its results
come back over one pipe as bytes, and it is dead with all its children before they are read.
"""

import os
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from course.errors import CourseError

SYSTEM = (
    *("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin"),
    *("/etc/alternatives", "/etc/ld.so.cache"),
)
NOBODY = "65534"
POLL = 0.05  # seconds between two looks at the processes
CHUNK = 1 << 16
RESULTS = "GRADING_RESULTS"  # the environment variable with the number of the results' pipe
# The same sums on every x86 machine: the number of threads and the instruction set are fixed.
REPEATABLE = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MKL_CBWR": "COMPATIBLE",
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "PYTHONHASHSEED": "0",
}


class SandboxError(CourseError):
    """There is no sandbox on this machine; the message says why and what helps."""


@dataclass(frozen=True)
class Limits:
    """What a process and its children may use, together."""

    seconds: float = 600.0
    memory: int = 6 << 30  # bytes, resident
    free_memory: int = 512 << 20  # bytes that have to stay free on the machine
    disk: int = 512 << 20  # bytes in /tmp
    file_size: int = 256 << 20  # bytes
    processes: int = 64
    output: int = 1 << 20  # bytes of stdout and stderr each
    results: int = 256 << 20  # bytes


@dataclass
class Outcome:
    """How a run ended. `stopped` says which limit stopped it, "" for none."""

    code: int
    stopped: str
    seconds: float
    peak_memory: int  # bytes
    stdout: bytes
    stderr: bytes
    results: bytes


@dataclass
class _Stream:
    """A pipe from the process, read up to a limit."""

    name: str
    limit: int
    data: bytearray = field(default_factory=bytearray)


Pipes = dict[Any, _Stream]  # by the file of each


def reason_against() -> str:
    """Return why bubblewrap does not work here and what helps, "" if it works."""
    if not sys.platform.startswith("linux"):
        return "bubblewrap needs Linux: grade in a Linux machine or container."
    if not shutil.which("bwrap"):
        return "bubblewrap is not installed: `sudo apt install bubblewrap` (or dnf, pacman)."
    command = [*_namespaces(Limits()), *_system(), "/bin/true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not run: {error}"
    if done.returncode == 0:
        return ""
    message = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return (
        f"bubblewrap does not run ({message}). Where the system forbids user namespaces, as Ubuntu "
        "24.04 does: `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`; in a container, "
        "start it with the right to create user namespaces."
    )


def check() -> None:
    """Raise SandboxError if there is no sandbox on this machine."""
    if reason := reason_against():
        raise SandboxError(f"There is no sandbox: {reason}")


def _namespaces(limits: Limits) -> list[str]:
    shm = 64 << 20
    return [
        *("bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"),
        *("--new-session", "--cap-drop", "ALL", "--uid", NOBODY, "--gid", NOBODY),
        *("--hostname", "sandbox", "--clearenv", "--proc", "/proc", "--dev", "/dev"),
        *("--size", str(shm), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),
        *("--size", str(limits.disk), "--tmpfs", "/tmp"),
    ]


def _system() -> list[str]:
    """Return the mounts of the system's programs and libraries, all read-only."""
    mounts = []
    for name in SYSTEM:
        path = Path(name)
        if path.is_symlink():
            mounts += ["--symlink", os.readlink(path), name]
        elif path.exists():
            mounts += ["--ro-bind", name, name]
    return mounts


def _read_only(paths: Sequence[Path]) -> list[str]:
    mounts = []
    for path in dict.fromkeys(path.resolve() for path in paths):
        mounts += ["--ro-bind", str(path), str(path)]
    return mounts


def python_folders() -> list[Path]:
    """Return the folders of this Python and of its environment."""
    return [Path(sys.prefix), Path(sys.base_prefix)]


def run(
    command: Sequence[str],
    readable: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    limits: Limits = Limits(),
) -> Outcome:
    """Run a command in the sandbox to its end, or until it exceeds a limit.

    It starts in /tmp, its only writable folder. Its results go to the file descriptor whose number
    is in the environment variable `RESULTS`.

    Args:
        command: program and arguments.
        readable: files and folders that it may read, at their own paths. Python's are among them.
        environment: variables, beside `REPEATABLE`; nothing is inherited.
    Raises:
        SandboxError: bubblewrap does not run.
    """
    check()
    read_end, write_end = os.pipe()
    variables = {
        **REPEATABLE,
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        RESULTS: str(write_end),
        **(environment or {}),
    }
    settings = [part for pair in variables.items() for part in ("--setenv", *pair)]
    mounts = [*_system(), *_read_only([*python_folders(), *readable])]
    wrapped = [*_namespaces(limits), *mounts, *settings]
    wrapped += ["--remount-ro", "/", "--chdir", "/tmp", "--", *command]
    # The kernel counts all processes of a user, and does not limit root's: `_supervise` counts too.
    users = (process.info["uids"] for process in psutil.process_iter(["uids"]))
    processes = 2 * limits.processes + sum(user.real == os.getuid() for user in users)
    start = time.monotonic()
    process = subprocess.Popen(
        wrapped,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=(write_end,),
        preexec_fn=lambda: _set_limits(limits, processes),
        start_new_session=True,
    )
    os.close(write_end)
    with os.fdopen(read_end, "rb", buffering=0) as results:
        pipes = {
            process.stdout: _Stream("stdout", limits.output),
            process.stderr: _Stream("stderr", limits.output),
            results: _Stream("results", limits.results),
        }
        stopped, peak = _supervise(process, pipes, limits, start)
    data = {stream.name: bytes(stream.data) for stream in pipes.values()}
    return Outcome(process.returncode, stopped, time.monotonic() - start, peak, **data)


def _set_limits(limits: Limits, processes: int) -> None:
    """Set what the kernel itself limits, in the new process; `processes` of all of this user."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_size, limits.file_size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))


def _supervise(
    process: subprocess.Popen[bytes], pipes: Pipes, limits: Limits, start: float
) -> tuple[str, int]:
    """Read the pipes until the process ends; return which limit stopped it, and its peak memory.

    Its whole tree is dead on return: when the first process of a PID namespace dies, the kernel
    kills all others in it.
    """
    peak, stopped = 0, ""
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ)
        while process.poll() is None and not stopped:
            stopped = _read(selector, pipes, POLL)
            used, count = _usage(process.pid)
            peak = max(peak, used)
            stopped = stopped or _exceeded(used, count, time.monotonic() - start, limits)
        _kill(process)
        while selector.get_map():
            if _read(selector, pipes, 0) or not selector.select(0):
                break
    return stopped, peak


def _read(selector: selectors.BaseSelector, pipes: Pipes, timeout: float) -> str:
    """Read what is there; return the name of a stream that exceeds its limit."""
    for key, _ in selector.select(timeout):
        stream = pipes[key.fileobj]
        chunk = os.read(key.fd, CHUNK)
        if not chunk:
            selector.unregister(key.fileobj)
        room = stream.limit - len(stream.data)
        stream.data += chunk[:room]
        if len(chunk) > room:
            return str(stream.name)
    return ""


def _usage(pid: int) -> tuple[int, int]:
    """Return the resident bytes and the number of the processes below one."""
    used = count = 0
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return 0, 0
    for child in children:
        try:
            used += child.memory_info().rss
            count += 1
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return used, count


def _exceeded(used: int, count: int, seconds: float, limits: Limits) -> str:
    """Return the limit that is exceeded, "" for none."""
    exceeded = {
        "time": seconds > limits.seconds,
        "memory": used > limits.memory or psutil.virtual_memory().available < limits.free_memory,
        "processes": count > limits.processes,
    }
    return next((name for name, is_true in exceeded.items() if is_true), "")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and everything that it started, and wait until they are gone."""
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        below = []
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(below, timeout=10)
