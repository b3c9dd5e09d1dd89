"""A sandbox by Landlock and seccomp, without namespaces; for root, as a user of its own.

It has no namespaces, so some things differ from bubblewrap. Command lines of other processes, and
names and sizes of files, can be seen; memory, environment and contents cannot: Landlock protects
processes outside, in /proc too. A file that is removed but open is not counted against the limit of
the disk, only against that of a file.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from grading import lockdown
from grading.sandbox.limits import SYSTEM, Job, Limits, Outcome
from grading.sandbox.supervise import Tree, resident
from grading.sandbox.supervise import run as supervise

NAME = "landlock"
READABLE = ("/dev/zero", "/dev/random", "/dev/urandom", "/proc", "/sys/devices/system/cpu")
FIRST_USER = 1 << 30  # numbers that no user has
FILES = 20_000  # in its folder, at most


def reason_against() -> str:
    """Return why Landlock does not work here and what helps, "" if it works."""
    if not sys.platform.startswith("linux"):
        return "Landlock needs Linux."
    if os.uname().machine not in lockdown.MACHINES:
        return f"Landlock is used on {' and '.join(lockdown.MACHINES)}, not {os.uname().machine}."
    if not lockdown.abi():
        return (
            "Landlock is not in this kernel: Linux 5.13 or newer has it, with `landlock` among the "
            "values of `lsm=` in the kernel's command line."
        )
    if lockdown.abi() < lockdown.SIGNALS_ABI and os.getuid():
        return (
            f"Landlock has ABI {lockdown.abi()} in this kernel; without root it needs "
            f"{lockdown.SIGNALS_ABI}: Linux 6.12 or newer."
        )
    outcome = run(Job((sys.executable, "-I", "-c", "pass"), (), {}, Limits(seconds=30), b""))
    if outcome.code == 0:
        return ""
    message = (outcome.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
    return (
        f"a process under Landlock does not run ({message}). If it may not read Python: move the "
        "course and its environment to a folder that every user may read, `chmod -R o+rX`."
    )


def run(job: Job, landlock: bool = True) -> Outcome:
    """Run a job with few rights, in a folder of its own.

    Args:
        job: what runs.
        landlock: False leaves out Landlock, and with it the protection of readable files.
    """
    folder = Path(tempfile.mkdtemp(prefix="grading-"))
    user = 0 if os.getuid() else FIRST_USER + secrets.randbelow(1 << 29)
    if user:
        os.chown(folder, user, user)

    def wrap(environment: Mapping[str, str]) -> list[str]:
        home = {"HOME": str(folder), "TMPDIR": str(folder)}
        settings = {
            "folder": str(folder),
            "user": user,
            "limits": _kernel_limits(job.limits, user),
            "environment": {**environment, **home},
            "read": [*SYSTEM, *READABLE, *map(str, job.paths())],
            "write": [str(folder), "/dev/null"],
            "landlock": landlock,
        }
        program = shutil.which(job.command[0], path=environment.get("PATH")) or job.command[0]
        launcher = [sys.executable, "-I", "-S", lockdown.__file__, json.dumps(settings)]
        return [*launcher, program, *job.command[1:]]

    return supervise(job, wrap, tree=lambda process: Group(process, folder), inherited={})


def _kernel_limits(limits: Limits, user: int) -> dict[str, int]:
    """Return the limits of the kernel; it counts the processes and threads of all of a user."""
    processes = 2 * limits.processes
    if not user:
        users = (process.info["uids"] for process in psutil.process_iter(["uids"]))
        processes += sum(ids.real == os.getuid() for ids in users)
    return {
        "RLIMIT_FSIZE": limits.file_size,
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": 1024,
        "RLIMIT_NPROC": processes,
    }


class Group(Tree):
    """The processes of a group, which none can leave: seccomp forbids it."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        super().__init__(process)
        self.folder = folder
        self.is_dead = False

    def members(self) -> list[psutil.Process]:
        """Return the processes of the group that still run."""
        members = []
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                is_member = os.getpgid(process.pid) == self.process.pid
                if is_member and process.status() != psutil.STATUS_ZOMBIE:
                    members.append(process)
        return members

    def usage(self) -> tuple[int, int]:
        """Return the resident bytes and the number of the processes."""
        return resident(self.members())

    def exceeded(self, limits: Limits) -> str:
        """Return "disk" if its folder is too large, has too many files, or cannot be counted."""
        size, count = 0, 0
        errors: list[OSError] = []
        for root, folders, files in os.walk(self.folder, onerror=errors.append):
            for name in [*folders, *files]:
                try:
                    size += os.lstat(os.path.join(root, name)).st_blocks * 512
                except OSError as error:
                    errors.append(error)
            count += len(folders) + len(files)
            is_hidden = any(not isinstance(error, FileNotFoundError) for error in errors)
            if size > limits.disk or count > FILES or is_hidden:
                return "disk"
        return ""

    def kill(self) -> None:
        """Kill all processes of the group, and wait until they are gone."""
        if self.is_dead:
            return
        deadline = time.monotonic() + 10
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        while self.members() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.is_dead = True

    def close(self) -> None:
        """Remove the folder: by programs, which any depth and any mode of a folder suits."""
        for command in (["/bin/chmod", "-R", "u+rwx"], ["/bin/rm", "-rf"]):
            subprocess.run([*command, "--", str(self.folder)], capture_output=True, check=False)
