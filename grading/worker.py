"""The process in the sandbox that grades one submission: a child for each exercise.

It is code of the grader, and reads nothing of the student. It imports what the lessons import, and
forks for each task. The child reads the task from stdin, so that this process never holds a
solution; it runs the answer, and sends arrays over a pipe of its own. Then everything else is
killed and the writable folder emptied before the next task comes. So an answer cannot read the
solution of its own exercise, though it is among the cells of others, and leaves nothing behind.

What it does not protect against is the sandbox's: see `grading.sandbox`. A child may send any
values; they are only compared.
"""

import contextlib
import ctypes
import importlib.abc
import importlib.machinery
import importlib.util
import json
import linecache
import os
import random
import re
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from grading import lockdown, recipe
from grading.recipe import ANSWER

ERROR = "!error"  # the name of the array that holds a message
NEXT = b"\x05"  # asks for the next task: grading.sandbox.NEXT
RESULTS = "GRADING_RESULTS"
# Of one exercise. Tests set other limits.
CPU_SECONDS = int(os.environ.get("GRADING_CPU_SECONDS", "10"))
WALL_SECONDS = float(os.environ.get("GRADING_WALL_SECONDS", "60"))
PROCESSES = 32
MAX_RESULTS = 32 << 20  # bytes
MAX_MESSAGE = 2000  # characters
POLL = 0.05
PR_SET_CHILD_SUBREAPER = 36
OUT_OF_MEMORY = 77  # exit status of a child that reached its limit of memory
FOLDERS = ("/tmp", "/dev/shm")


class RecipeFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the recipes, whose sources came over the pipe."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self.sources = sources

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname not in self.sources:
            return None
        package = any(name.startswith(f"{fullname}.") for name in self.sources)
        return importlib.util.spec_from_loader(fullname, self, is_package=package)

    def exec_module(self, module: ModuleType) -> None:
        source = self.sources[module.__name__]
        exec(compile(source, f"<{module.__name__}>", "exec"), vars(module))


Names = Mapping[str, Any] | Exception  # what a lesson's setup returned or raised


@dataclass
class Ended:
    """How a child ended: its bytes, the limit that stopped it ("" for none), and what it used."""

    data: bytes
    stopped: str
    code: int
    seconds: float
    memory: int


class Worker:
    """The process with its imports, and the names of each lesson."""

    def __init__(self, sources: Mapping[str, str], results: int) -> None:
        sys.meta_path.insert(0, RecipeFinder(sources))
        self.results = results
        self.names: dict[str, Names] = {}

    def serve(self) -> None:
        """Run tasks until there are no more."""
        while True:
            os.write(2, NEXT)
            line = read_line(0)
            if not line:
                return
            header = json.loads(line)
            self.prepare(header["module"])
            ended = self.run(header)
            clean_up()
            report = {
                "exercise": header["exercise"],
                "stopped": ended.stopped,
                "code": ended.code,
                "seconds": ended.seconds,
                "memory": ended.memory,
                "size": len(ended.data),
            }
            write(self.results, json.dumps(report).encode() + b"\n" + ended.data)

    def prepare(self, module: str) -> None:
        """Import the recipes of a lesson and run its setup, unless that is done.

        An error there is raised in the children.
        """
        if module in self.names:
            return
        values = vars(importlib.import_module(module)).values()
        (recipes,) = (value for value in values if isinstance(value, recipe.Recipes))
        try:
            with contextlib.redirect_stdout(None):
                self.names[module] = recipes.setup()
        except Exception as error:
            self.names[module] = error

    def run(self, header: Mapping[str, Any]) -> Ended:
        """Run a task in a child to its end, or until it exceeds a limit."""
        read_end, write_end = os.pipe()
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            os.close(self.results)
            run_child(header, self.names[header["module"]], write_end)
        os.close(write_end)
        os.set_blocking(read_end, False)
        data = bytearray()
        stopped = ""
        counted = start
        with selectors.DefaultSelector() as selector:
            selector.register(read_end, selectors.EVENT_READ)
            while not stopped:
                if selector.select(POLL):
                    chunk = os.read(read_end, 1 << 16)
                    data += chunk
                    if not chunk:
                        selector.unregister(read_end)
                        time.sleep(0.001)
                if time.monotonic() - counted > POLL:
                    counted = time.monotonic()
                    stopped = exceeded(counted - start, header["memory"])
                if len(data) > MAX_RESULTS:
                    stopped = "results"
                done, status, usage = os.wait4(pid, os.WNOHANG)
                if done:
                    break
            else:
                os.kill(pid, signal.SIGKILL)
                _, status, usage = os.wait4(pid, 0)
        with contextlib.suppress(BlockingIOError):
            while len(data) <= MAX_RESULTS and (chunk := os.read(read_end, 1 << 16)):
                data += chunk
        os.close(read_end)
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGXCPU or usage.ru_utime + usage.ru_stime > CPU_SECONDS:
            stopped = stopped or "time"
        if code == OUT_OF_MEMORY:
            stopped = stopped or "memory"
        seconds = usage.ru_utime + usage.ru_stime
        return Ended(bytes(data), stopped, code, seconds, usage.ru_maxrss << 10)


def exceeded(seconds: float, memory: int) -> str:
    """Return a limit that the child exceeds, "" for none; memory: bytes beyond this process's."""
    pids = descendants()
    used = sum(map(resident, pids)) - resident(os.getpid())
    limits = {
        "time": seconds > WALL_SECONDS,
        "processes": len(pids) > PROCESSES,
        "memory": used > memory,
    }
    return next((name for name, is_true in limits.items() if is_true), "")


def descendants() -> list[int]:
    """Return all processes below this one: all others, where it is the first of its namespace."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    me = os.getpid()
    if me == 1:
        return [pid for pid in pids if pid != me]
    parents = {pid: parent(pid) for pid in pids}
    below = {me}
    size = 0
    while size < len(below):
        size = len(below)
        below |= {pid for pid, above in parents.items() if above in below}
    return [pid for pid in below if pid != me]


def parent(pid: int) -> int:
    """Return the parent of a process, 0 if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0
    return int(text.rsplit(")", 1)[1].split()[1])


def resident(pid: int) -> int:
    """Return the resident bytes of a process."""
    try:
        text = Path(f"/proc/{pid}/statm").read_text()
    except OSError:
        return 0
    return int(text.split()[1]) * resource.getpagesize()


def clean_up() -> None:
    """Kill all other processes, and remove their files. Exits if one stays."""
    if os.getpid() == 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # at once, before any of them can fork
    deadline = time.monotonic() + 10
    while pids := descendants():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if time.monotonic() > deadline:
            sys.exit("A process cannot be killed.")
    own = os.environ["TMPDIR"]
    for folder in dict.fromkeys((own, *FOLDERS) if os.getpid() == 1 else (own,)):
        empty(folder)


def empty(folder: str) -> None:
    """Remove everything in a folder, except what is mounted there. Exits if something stays."""
    mounted = [os.path.realpath(path) for path in (sys.path[0], sys.prefix, sys.base_prefix)]
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if path in mounted:
            continue
        if any(other.startswith(f"{path}/") for other in mounted):
            empty(path)
        elif not removed(path):
            sys.exit(f"{path} cannot be removed.")


def removed(path: str) -> bool:
    """Remove a file or a folder, and return whether it is gone."""
    with contextlib.suppress(OSError, RecursionError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    if os.path.lexists(path):  # without rights, or too deep for Python
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*command, "--", path], check=False, stderr=subprocess.DEVNULL)
    return not os.path.lexists(path)


# --- In the child


def run_child(header: Mapping[str, Any], names: Names, pipe: int) -> NoReturn:
    """Read the task, run the answer, and send its arrays or its error."""
    code = 1
    try:
        task = json.loads(read_exactly(0, header["size"]))
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        if isinstance(names, Exception):
            raise names
        limit(header["memory"])
        give_up_rights()
        enter_folder()
        send(evaluate(header["module"], task, names), pipe)
        code = 0
    except MemoryError:
        code = OUT_OF_MEMORY
    except BaseException as error:
        # A student's exception may do anything when it is shown.
        with contextlib.suppress(BaseException):
            send_error(describe(error), pipe)
    finally:
        os._exit(code)


def limit(memory: int) -> None:
    """Set what the kernel itself limits; memory: bytes that this process may allocate."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    match = re.search(r"VmData:\s*(\d+) kB", Path("/proc/self/status").read_text())
    data = (int(match[1]) << 10 if match else 0) + memory
    resource.setrlimit(resource.RLIMIT_DATA, (data, data))


def give_up_rights() -> None:
    """Give up what no answer needs: processes, signals, sockets, shared memory and more."""
    lockdown.die_with_parent()
    if lockdown.abi() >= lockdown.SIGNALS_ABI:
        lockdown.restrict_signals()
    lockdown.filter_calls(processes=False, signals=False)


def enter_folder() -> None:
    """Change to a new folder that shows the files of the course."""
    folder = Path(os.environ["TMPDIR"]) / "course"
    folder.mkdir()
    for path in Path(sys.path[0]).iterdir():
        if path.name != "grading":
            (folder / path.name).symlink_to(path)
    os.chdir(folder)


def evaluate(module: str, task: Mapping[str, Any], names: Mapping[str, Any]) -> Any:
    """Return the arrays of an answer. Raises what the answer raises."""
    import numpy as np
    import torch

    # Renews PyTorch's thread pool, for which threads that load weights would race after the fork.
    torch.set_num_threads(1)
    seed = task["seed"]
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    for name, source in task["modules"].items():
        remember(source)
        exec(compile(source, ANSWER, "exec"), vars(importlib.import_module(name)))
    remember(task["answer"])
    values = vars(importlib.import_module(module)).values()
    (recipes,) = (value for value in values if isinstance(value, recipe.Recipes))
    chosen = recipes.by_exercise[task["exercise"]]
    return recipe.evaluate(chosen, names, task["cells"], task["answer"], seed)


def remember(source: str) -> None:
    """Let tracebacks show the lines of a source."""
    linecache.cache[ANSWER] = (len(source), None, source.splitlines(True), ANSWER)


def send(arrays: Mapping[str, Any], pipe: int) -> None:
    from grading.pipe import send

    send(pipe, arrays)


def send_error(message: str, pipe: int) -> None:
    """Send a message as an array of bytes."""
    import numpy as np

    text = message[:MAX_MESSAGE].encode("utf-8", "replace")
    send({ERROR: np.frombuffer(text, np.uint8)}, pipe)


def describe(error: BaseException) -> str:
    """Return what the student's code raised, where, and the usual cause."""
    from course.checks.common import CheckFailed, explain

    if isinstance(error, CheckFailed):
        return str(error)
    name = type(error).__name__
    if isinstance(error, SyntaxError):
        return f"Your code is no valid Python: {error}."
    traceback = error.__traceback__
    while traceback and traceback.tb_frame.f_code.co_filename != ANSWER:
        traceback = traceback.tb_next
    if traceback is None:
        return f"What your code gives cannot be used. {name}: {error}"
    if isinstance(error, Exception):
        return explain(error.with_traceback(traceback))
    return f"Your code raised {name}: {error}".rstrip(": ")


# --- Pipes


def read_line(descriptor: int) -> bytes:
    """Return a line, byte by byte, so that nothing after it is read; b"" at the end."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            return b""
        line += byte
    return line


def read_exactly(descriptor: int, size: int) -> bytes:
    """Return a number of bytes. Raises EOFError."""
    data = bytearray()
    while len(data) < size:
        chunk = os.read(descriptor, min(size - len(data), 1 << 20))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)


def write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def protect() -> None:
    """Hide this process from its children, and take over those that their parents leave."""
    lockdown.hide_memory()
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        sys.exit("prctl failed.")
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def copy_fonts() -> None:
    """Give matplotlib its list of fonts in a folder that it may write to, or it searches anew."""
    folder = Path(os.environ["TMPDIR"]) / "matplotlib"
    folder.mkdir()
    for path in Path(sys.path[0], ".matplotlib").glob("*"):
        shutil.copyfile(path, folder / path.name)
    os.environ["MPLCONFIGDIR"] = str(folder)


def import_libraries() -> None:
    """Import what the lessons import, so that no child has to."""
    for name in ("matplotlib.pyplot", "course.checks.common", "grading.small_model"):
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    importlib.import_module("cv2").setNumThreads(0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Grade the tasks of stdin: a line with a size, the recipes, and tasks of this form."""
    protect()
    size = int(read_line(0))
    sources = json.loads(read_exactly(0, size))
    copy_fonts()
    import_libraries()
    Worker(sources, int(os.environ[RESULTS])).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
