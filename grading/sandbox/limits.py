"""What all sandboxes share: what a run may use, how it ended, and what it may read."""

import sys
from dataclasses import dataclass
from pathlib import Path

from course.errors import CourseError

SYSTEM = (
    *("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin"),
    *("/etc/alternatives", "/etc/ld.so.cache"),
)
NOBODY = "65534"
RESULTS = "GRADING_RESULTS"  # the environment variable with the number of the results' pipe
NEXT = b"\x05"  # this byte in its stderr asks for the next of `Job.tasks`: ENQ, "enquiry" in ASCII
SHORT_OF_MEMORY = "free memory"  # `Outcome.stopped`, perhaps because of another process
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
    disk: int = 512 << 20  # bytes in its folder
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
    peak_memory: int  # bytes; 0 where a container counts it
    stdout: bytes
    stderr: bytes
    results: bytes


@dataclass(frozen=True)
class Job:
    """What is to run: see `grading.sandbox.run`."""

    command: tuple[str, ...]
    readable: tuple[Path, ...]
    environment: dict[str, str]
    limits: Limits
    data: bytes
    tasks: tuple[bytes, ...] = ()

    def paths(self) -> list[Path]:
        """Return what it may read, beside the system: Python, its environment and `readable`."""
        paths = [*python_folders(), *self.readable]
        return list(dict.fromkeys(path.resolve() for path in paths))


def python_folders() -> list[Path]:
    """Return the folders of this Python and of its environment."""
    return [Path(sys.prefix), Path(sys.base_prefix)]
