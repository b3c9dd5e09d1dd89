"""Compile C++ and CUDA sources into shared libraries when they are first used, and load them.

    library = load("pocket_world", cpp_compiler("-O3"), Path("src/renderer.cpp"), Path("build"))

A library is not loaded if it is incomplete, if it was built from other sources or for another
processor, or if other users of the machine can write to its folder. A compiler that hangs is
stopped, and none outlives the process that started it. The next build removes what a killed one
left. Nothing here protects against the owner of the sources: whoever can change them runs code.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tqdm import tqdm

from course.errors import CourseError
from course.files import (
    PARTIAL,
    LockTimeout,
    LockWarning,
    lock,
    remove_partial,
    replace_file,
    write_text,
)

COMPILE_LIMIT = 600.0  # seconds that one compilation may take
LOCK_LIMIT = 660.0  # seconds to wait for a process that compiles
VERSION_LIMIT = 60.0  # seconds that `--version` may take
LOCK = "build.lock"  # one process at a time compiles into a folder
CPP_FLAGS = ("-std=c++20", "-fPIC", "-shared", "-pthread")
CUDA_FLAGS = ("-std=c++20", "-O3", "-shared", "-Xcompiler", "-fPIC")

# Runs the command "$@", and kills its process group as soon as the pipe to the process that
# started it ends, which it does however that process ends.
SUPERVISOR = 'exec 3<&0; (read -r line <&3; kill -9 0) & "$@" </dev/null'


class NativeError(CourseError):
    """Native code cannot be compiled or loaded; the message says why and what to do."""


@dataclass(frozen=True)
class Compiler:
    """A compiler: command with its flags, output of `--version`, target, suffix of its sources."""

    command: tuple[str, ...]
    version: str
    target: str
    suffix: str

    @property
    def name(self) -> str:
        """The program and what precedes it, such as "ccache g++"."""
        words = itertools.takewhile(lambda word: not word.startswith("-"), self.command)
        return " ".join(Path(word).name for word in words)


# --- Compilers


def cpp_compiler(*flags: str) -> Compiler:
    """Return the C++ compiler for this processor: CXX if it is set, else g++, clang++ or c++.

    CXX may have arguments or a launcher, as in "g++ -O1" or "ccache g++"; `flags` override them.
    Raises NativeError if there is none, or if it does not run.
    """
    command = _cxx() or _first_program("g++", "clang++", "c++")
    if not command:
        raise NativeError("no C++ compiler (g++ or clang++): install one, or name it in CXX")
    # clang may not know -march=native on ARM
    is_arm = platform.machine().lower() in ("arm64", "aarch64")
    processor = "-mcpu=native" if is_arm else "-march=native"
    version = _version(command)
    return Compiler((*command, *CPP_FLAGS, processor, *flags), version, _processor(), "cpp")


def cuda_compiler(capability: tuple[int, int], *flags: str) -> Compiler:
    """Return nvcc for GPUs of a compute capability such as (9, 0).

    It is searched in the folder that CUDA_HOME or CUDA_PATH names, then in PATH; if neither is set,
    in PATH, then in /usr/local/cuda. Raises NativeError if there is none, or if it does not run.
    """
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    paths = (f"{home}/bin/nvcc", "nvcc") if home else ("nvcc", "/usr/local/cuda/bin/nvcc")
    command = _first_program(*paths)
    if not command:
        raise NativeError("no nvcc: install the CUDA toolkit, or name its folder in CUDA_HOME")
    arch = f"sm_{capability[0]}{capability[1]}"
    options = *CUDA_FLAGS, f"-arch={arch}", *flags
    return Compiler((*command, *options), _version(command), arch, "cu")


def _cxx() -> tuple[str, ...]:
    """Return the command in CXX; () if it is unset or blank."""
    value = os.environ.get("CXX", "").strip()
    if not value:
        return ()
    try:
        words = [value] if shutil.which(value) else shlex.split(value)
    except ValueError as error:
        raise NativeError(f"CXX={value} is no command ({error})") from error
    program = shutil.which(words[0]) if words else None
    if program is None:
        raise NativeError(f"CXX={value} names no program that can be run here")
    return (program, *words[1:])


def _first_program(*names: str) -> tuple[str, ...]:
    return tuple(filter(None, map(shutil.which, names)))[:1]


def _version(command: tuple[str, ...]) -> str:
    version = _ask_version(command)
    if isinstance(version, NativeError):
        raise version
    return version


@cache
def _ask_version(command: tuple[str, ...]) -> str | NativeError:
    """Return what `--version` prints, or why not: a compiler that hangs is waited for once."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            status, output = _run([*command, "--version"], Path(folder) / "log", VERSION_LIMIT)
    except NativeError as error:
        return error
    except OSError as error:
        return NativeError(f"{shlex.join(command)} --version cannot be run: {error}")
    if status:
        return NativeError(f"{shlex.join(command)} --version fails: {_last_line(output)}")
    return output


@cache
def _processor() -> str:
    """Name this processor's instruction set: code for -march=native runs on no lesser one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        flags = next(line for line in lines if line.startswith("flags"))
    except (OSError, StopIteration):
        flags = platform.processor()
    return platform.machine() + flags


# --- Libraries


def load(
    name: str,
    compiler: Compiler,
    source: Path,
    folder: Path,
    includes: Sequence[Path] = (),
    versions: Sequence[str] = (),
) -> ctypes.CDLL:
    """Load a library; compile it before unless it is there.

    Args:
        name: of the library, a word.
        source: the file to compile; its folder and `includes` hold everything that it includes.
        folder: where libraries are kept. Where it cannot be written, they are kept in a folder of
            this user in the system's folder for temporary files.
        versions: more that the library depends on.
    Raises:
        NativeError: if it cannot be compiled or loaded.
    """
    try:
        return ctypes.CDLL(str(build(name, compiler, source, folder, includes, versions)))
    except OSError as error:
        raise NativeError(f"{name} cannot be compiled or loaded here: {error}") from error


def build(
    name: str,
    compiler: Compiler,
    source: Path,
    folder: Path,
    includes: Sequence[Path] = (),
    versions: Sequence[str] = (),
) -> Path:
    """Return the path of a library, compiled unless it is there; arguments as in `load`."""
    file_name = library_name(name, compiler, [*includes, source.parent], versions)
    folders = [folder, fallback_folder()]
    for place in filter(is_private, folders):
        _clear(place)
        if is_intact(place / file_name):
            return place / file_name
    for place in folders:
        if _can_write(place):
            library = place / file_name
            with _lock(place):
                if not is_intact(library):  # another process may have built it meanwhile
                    _compile(name, compiler, source, includes, library)
            return library
    listed = " or ".join(map(str, folders))
    rule = "must be writable by you and by nobody else (chmod go-w)"
    raise NativeError(f"no folder to compile {name} into: {listed} {rule}")


def library_name(
    name: str, compiler: Compiler, sources: Sequence[Path], versions: Sequence[str] = ()
) -> str:
    """Return a file name that changes with the compiler, its flags and target, and all sources."""
    digest = hashlib.sha256()
    for part in (*compiler.command, compiler.version, compiler.target, *versions):
        digest.update(part.encode(errors="surrogateescape") + b"\0")
    for path in sorted(p for folder in sources for p in folder.iterdir() if p.is_file()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"{name}_{compiler.suffix}_{digest.hexdigest()[:16]}.so"


def fallback_folder() -> Path:
    """Return the folder for libraries of this user whose own folder cannot be written."""
    user = os.getuid() if hasattr(os, "getuid") else "user"  # Windows: the parent is the user's own
    return Path(tempfile.gettempdir()) / f"course_native_{user}"


def is_private(folder: Path) -> bool:
    """Return whether nobody but this user, root and the owner of the parent can write to it.

    False for a folder that does not exist, and for a link, which others may have put there.
    """
    try:
        status = folder.lstat()
        owners = (0, folder.parent.stat().st_uid)
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        return False
    if not hasattr(os, "getuid"):
        return True
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return not others_write and status.st_uid in (os.getuid(), *owners)


def is_intact(library: Path) -> bool:
    """Return whether a library has the checksum that was written beside it when it was built.

    A file that is cut off can end the process that loads it (SIGBUS).
    """
    try:
        expected = _checksum_file(library).read_bytes()
        return expected == hashlib.sha256(library.read_bytes()).hexdigest().encode()
    except OSError:
        return False


def _checksum_file(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _can_write(folder: Path) -> bool:
    with contextlib.suppress(OSError):  # then it is not there, and is not private
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    return is_private(folder) and os.access(folder, os.W_OK | os.X_OK)


def _compile(
    name: str, compiler: Compiler, source: Path, includes: Sequence[Path], library: Path
) -> None:
    """Compile a library beside its place and move it there. The caller holds the lock."""
    options = [word for folder in includes for word in ("-I", str(folder))]
    device = "the CPU" if compiler.suffix == "cpp" else compiler.target
    with replace_file(library) as new:
        status, output = _run(
            [*compiler.command, *options, str(source), "-o", str(new)],
            new.with_name("log"),
            COMPILE_LIMIT,
            f"Compiling {name} for {device} ({compiler.name}, only this once)",
        )
        if status:
            lines = output.splitlines()
            error = next((line for line in lines if "error" in line.lower()), _last_line(output))
            raise NativeError(f"{compiler.name} failed with status {status}: {error.strip()}")
        new.chmod(0o755)
        # The checksum first: a library without its own checksum is built again.
        checksum = _checksum_file(library)
        write_text(checksum, hashlib.sha256(new.read_bytes()).hexdigest())
        checksum.chmod(0o644)


# --- One process at a time, and what a killed one leaves


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; print a line before a wait.

    On a file system without locks at worst two processes do the same work.
    """
    path = folder / LOCK
    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", LockWarning)
        try:
            stack.enter_context(lock(path, timeout=1))
        except LockTimeout:
            print(f"Another process is compiling into {folder}: waiting ...", file=sys.stderr)
            try:
                stack.enter_context(lock(path, timeout=LOCK_LIMIT))
            except LockTimeout as error:
                message = f"another process has held {path} for {LOCK_LIMIT:g} seconds: end it"
                raise NativeError(message) from error
        yield


def _clear(folder: Path) -> None:
    """Remove what killed processes left in a folder, unless a process may be compiling into it."""
    if any(folder.glob(f"{PARTIAL}*")) or (folder / LOCK).exists():
        with contextlib.suppress(LockTimeout, LockWarning), warnings.catch_warnings():
            warnings.simplefilter("error", LockWarning)  # without locks nobody knows
            with lock(folder / LOCK):
                remove_partial(folder)


# --- Running a compiler


def _run(command: Sequence[str], log: Path, limit: float, what: str = "") -> tuple[int, str]:
    """Run a command of at most `limit` seconds; return its status and what it wrote.

    what: for a line with the time since the start. Raises NativeError if it takes longer.
    """
    is_posix = os.name == "posix"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            ["/bin/sh", "-c", SUPERVISOR, "sh", *command] if is_posix else command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
        _elapsed(what) as line,
    ):
        # The end of the block closes the pipe, and the supervisor kills what still runs.
        deadline = time.monotonic() + limit
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
            line.update()
        if process.poll() is None:
            if not is_posix:
                process.kill()
            raise NativeError(
                f"{Path(command[0]).name} did not finish within {limit:g} seconds and was "
                "stopped: try it by hand, or name another compiler in CXX"
            )
    return process.returncode, log.read_text(encoding="utf-8", errors="replace")


def _elapsed(what: str) -> tqdm:
    return tqdm(
        desc=what, bar_format="{desc}: {elapsed}", mininterval=1, file=sys.stderr, disable=not what
    )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
