"""Starts the process of a sandbox, feeds it, reads what it writes, and stops it at a limit."""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import psutil

from grading.sandbox.limits import NEXT, RESULTS, SHORT_OF_MEMORY, Job, Limits, Outcome

POLL = 0.05  # seconds to wait for output
COUNT = 0.2  # seconds between two counts of the processes, which take time themselves
CHUNK = 1 << 16


@dataclass
class _Stream:
    """A pipe from the process, read up to a limit."""

    name: str
    limit: int
    data: bytearray = field(default_factory=bytearray)


Pipes = dict[Any, _Stream]  # by the file of each


class Tree:
    """A process and all that it starts, in the namespaces of bubblewrap.

    When the first process of a PID namespace dies, the kernel kills all others in it.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def usage(self) -> tuple[int, int]:
        """Return the resident bytes and the number of the processes below the first."""
        return resident(below(self.process.pid))

    def exceeded(self, limits: Limits) -> str:
        """Return a limit that is exceeded beside time, memory, processes and output."""
        return ""

    def kill(self) -> None:
        """Kill all processes, and wait until they are gone."""
        processes = below(self.process.pid)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        psutil.wait_procs(processes, timeout=10)

    def close(self) -> None:
        """Remove what the run has left. Its processes are dead."""


def below(pid: int) -> list[psutil.Process]:
    """Return the processes that a process has started, and those that they have."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def resident(processes: Sequence[psutil.Process]) -> tuple[int, int]:
    """Return the resident bytes and the number of those processes that still run."""
    used = count = 0
    for process in processes:
        try:
            used += process.memory_info().rss
            count += 1
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return used, count


def run(
    job: Job,
    wrap: Callable[[Mapping[str, str]], Sequence[str]],
    tree: Callable[[subprocess.Popen[bytes]], Tree] = Tree,
    results_on_stdout: bool = False,
    inherited: Mapping[str, str] | None = None,
) -> Outcome:
    """Run a job to its end, or until it exceeds a limit.

    Args:
        job: what runs.
        wrap: the environment of the job to the command line that runs it in a sandbox.
        tree: how its processes are counted and killed.
        results_on_stdout: the sandbox passes no other pipe on.
        inherited: the environment of that command line itself; None for that of the grader, which
            the job must not be able to read then.
    """
    read_end, write_end = os.pipe()
    command = wrap({RESULTS: "3" if results_on_stdout else str(write_end), **job.environment})
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=write_end if results_on_stdout else subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=() if results_on_stdout else (write_end,),
        env=inherited,
        start_new_session=True,
    )
    os.close(write_end)
    running = tree(process)
    with os.fdopen(read_end, "rb", buffering=0) as results:
        pipes: Pipes = {
            process.stderr: _Stream("stderr", job.limits.output),
            results: _Stream("results", job.limits.results),
        }
        if process.stdout:
            pipes[process.stdout] = _Stream("stdout", job.limits.output)
        try:
            stopped, peak = _supervise(running, pipes, job, start)
        finally:
            running.kill()
            running.close()
    data = {"stdout": b""} | {stream.name: bytes(stream.data) for stream in pipes.values()}
    return Outcome(process.returncode, stopped, time.monotonic() - start, peak, **data)


def _supervise(running: Tree, pipes: Pipes, job: Job, start: float) -> tuple[str, int]:
    """Feed the process and read its pipes until it ends; then its whole tree is dead.

    Return the limit that stopped it and its peak memory.
    """
    process, limits = running.process, job.limits
    peak, stopped, counted = 0, "", 0.0
    feed = _Feed(process.stdin, job.data, job.tasks)
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ)
        while process.poll() is None and not stopped:
            feed.write(pipes[process.stderr].data)
            stopped = _read(selector, pipes, POLL)
            now = time.monotonic()
            if now - counted < COUNT:
                continue
            counted = now
            used, count = running.usage()
            peak = max(peak, used)
            stopped = stopped or _exceeded(used, count, now - start, limits)
            stopped = stopped or running.exceeded(limits)
        feed.close()
        running.kill()
        stopped = stopped or running.exceeded(limits)
        while selector.get_map():
            if _read(selector, pipes, 0) or not selector.select(0):
                break
    return stopped, peak


class _Feed:
    """What the process reads from its stdin: data, and a task each time that it asks for one."""

    def __init__(self, file: IO[bytes] | None, data: bytes, tasks: Sequence[bytes]) -> None:
        self.file = file
        self.rest = memoryview(data)
        self.tasks = list(tasks)
        self.answered = 0
        if file:
            os.set_blocking(file.fileno(), False)

    def write(self, errors: bytearray) -> None:
        """Write as much as there is room for, and close the pipe after the last byte."""
        if self.tasks and not self.rest and errors.count(NEXT) > self.answered:
            self.rest = memoryview(self.tasks.pop(0))
            self.answered += 1
        try:
            while self.file and self.rest:
                self.rest = self.rest[os.write(self.file.fileno(), self.rest) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.tasks.clear()
        if not self.tasks:
            self.close()

    def close(self) -> None:
        """Close the pipe."""
        if self.file:
            self.file.close()
        self.file = None


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


def _exceeded(used: int, count: int, seconds: float, limits: Limits) -> str:
    """Return the limit that is exceeded, "" for none."""
    exceeded = {
        "time": seconds > limits.seconds,
        "memory": used > limits.memory,
        SHORT_OF_MEMORY: psutil.virtual_memory().available < limits.free_memory,
        "processes": count > limits.processes,
    }
    return next((name for name, is_true in exceeded.items() if is_true), "")
