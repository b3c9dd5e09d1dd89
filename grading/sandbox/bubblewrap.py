"""A sandbox by bubblewrap: namespaces of its own, which need no rights of the administrator."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from grading.sandbox.limits import NOBODY, SYSTEM, Job, Limits, Outcome
from grading.sandbox.supervise import run as supervise

NAME = "bubblewrap"


def reason_against() -> str:
    """Return why bubblewrap does not work here and what helps, "" if it works."""
    if not sys.platform.startswith("linux"):
        return "bubblewrap needs Linux: grade in a Linux machine or container."
    if not shutil.which("bwrap"):
        return "bubblewrap is not installed: `sudo apt install bubblewrap` (or dnf, pacman)."
    limits = Limits()
    command = [*_kernel_limits(limits, 1024), *_namespaces(limits), *_system(), "/bin/true"]
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


def run(job: Job) -> Outcome:
    """Run a job in namespaces of its own."""
    limits = job.limits
    # The kernel counts all processes of a user, and does not limit root's: the supervisor counts.
    users = (process.info["uids"] for process in psutil.process_iter(["uids"]))
    processes = 2 * limits.processes + sum(user.real == os.getuid() for user in users)

    def wrap(environment: Mapping[str, str]) -> list[str]:
        settings = [part for pair in environment.items() for part in ("--setenv", *pair)]
        mounts = [*_system(), *_read_only(job.paths())]
        # As the first process of its namespace: none in it can kill it, and when bubblewrap has
        # seen its end, the kernel has killed all others.
        inside = ["--as-pid-1", "--remount-ro", "/", "--chdir", "/tmp", "--", *job.command]
        outside = [*_kernel_limits(limits, processes), *_namespaces(limits)]
        return [*outside, *mounts, *settings, *inside]

    # bubblewrap is the first process of the namespace: the job can read its environment in /proc.
    path = {"PATH": os.environ.get("PATH", os.defpath)}
    return supervise(job, wrap, inherited=path)


def _kernel_limits(limits: Limits, processes: int) -> list[str]:
    """Return the command that sets what the kernel limits; `processes` of all of this user.

    Not by Popen's preexec_fn: it forks, and OpenBLAS ends its threads before a fork, for which a
    thread of the grader that computes then waits for ever.
    """
    return [
        *("prlimit", f"--fsize={limits.file_size}", "--core=0", "--nofile=1024"),
        *(f"--nproc={processes}", "--"),
    ]


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
    for path in paths:
        mounts += ["--ro-bind", str(path), str(path)]
    return mounts
