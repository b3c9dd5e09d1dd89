"""Builds, finds and calls the compiled kernels of Task 3: the one back end of freqencoder, gridencoder and raymarching.

Each package has one source that becomes a library for the CPU (C++) or for a GPU (CUDA) when it is first used. Where
that cannot be, the package's reference in plain PyTorch runs, on the same device, and one line says why:

    a tensor on the GPU   CUDA kernel, else PyTorch on the GPU
    a tensor on the CPU   C++ kernel, else PyTorch on the CPU

Libraries are kept under a hash of everything that decides about them, appear in place complete or not at all, and are
checked before they are loaded. The lock around a build is held by the process itself, so it ends when the process does.
`python -m task_3_DreamFusion.kernels` builds what is missing and reports.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm import tqdm

from course.errors import CourseError

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
PACKAGES = {"freqencoder": "freq", "gridencoder": "grid", "raymarching": "march"}  # and the name of its source
TYPES = {torch.float16: 0, torch.float32: 1, torch.float64: 2}  # as in src/common.h
NAMESPACE = "dreamfusion"
_definitions = torch.library.Library(NAMESPACE, "FRAGMENT")


class Unavailable(CourseError):
    """There is no compiled kernel here; the message says why and what to do."""


@dataclass(frozen=True)
class Compiler:
    """What compiles for a device: a command with its flags, the version it gives, and what it compiles for."""

    command: tuple[str, ...]
    version: str
    target: str
    suffix: str

    @property
    def name(self) -> str:
        return Path(self.command[0]).name


# --- Compilers


def cpu_compiler() -> Compiler:
    """The C++ compiler: CXX if it is set, else g++, clang++ or c++. Raises Unavailable if there is none."""
    asked = os.environ.get("CXX")
    found = shutil.which(asked) if asked else next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    if found is None:
        said = f"CXX={asked} is no program here" if asked else "no C++ compiler (g++ or clang++): install one"
        raise Unavailable(said)
    arm = platform.machine().lower() in ("arm64", "aarch64")  # where clang may not know -march=native
    flags = ["-std=c++20", "-O2", "-mcpu=native" if arm else "-march=native", "-ffp-contract=off"]
    flags += ["-fPIC", "-shared", "-pthread", "-fvisibility=hidden"]
    return Compiler((found, *flags), _version(found), _processor(), "cpp")


def cuda_compiler(capability: tuple[int, int]) -> Compiler:
    """nvcc from CUDA_HOME, the path or its usual place, for one architecture. Raises Unavailable if there is none."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    found = next(filter(None, (shutil.which("nvcc", path=str(Path(home) / "bin")), shutil.which("nvcc"))), None)
    if found is None:
        raise Unavailable("no nvcc: install the CUDA toolkit, or name its folder in CUDA_HOME")
    arch = f"sm_{capability[0]}{capability[1]}"
    flags = ["-std=c++20", "-O3", "-fmad=false", f"-arch={arch}", "-shared", "-Xcompiler", "-fPIC,-fvisibility=hidden"]
    return Compiler((found, *flags), _version(found), arch, "cu")


@cache
def _version(program: str) -> str:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{program} does not run ({error})") from error
    if done.returncode:
        raise Unavailable(f"{program} --version fails: {_last_line(done.stderr)}")
    return done.stdout


def _processor() -> str:
    """Names this processor's instruction set: a library built with -march=native runs on no lesser one."""
    try:
        flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        flags = platform.processor()
    return platform.machine() + flags


# --- Building


def library_name(package: str, compiler: Compiler) -> str:
    """The file name of a library: it changes with sources, compiler, flags, torch, CUDA and architecture."""
    digest = hashlib.sha256()
    for part in (*compiler.command, compiler.version, compiler.target, torch.__version__, str(torch.version.cuda)):
        digest.update(part.encode() + b"\0")
    for path in sorted([*(HERE / "src").iterdir(), *(HERE / package / "src").iterdir()]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"{package}_{compiler.suffix}_{digest.hexdigest()[:16]}.so"


def build(package: str, compiler: Compiler) -> Path:
    """The library of a package, compiled unless an intact one is there. Raises Unavailable with the reason."""
    name = library_name(package, compiler)
    for folder in _folders():
        if _intact(folder / name):
            return folder / name
    for folder in _folders():
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        with _lock(folder / f"{name}.lock", package):
            if not _intact(folder / name):  # another process may have built it meanwhile
                _compile(package, compiler, folder / name)
        return folder / name
    raise Unavailable("no folder to compile into: none of " + ", ".join(map(str, _folders())) + " can be written")


def _folders() -> list[Path]:
    """Where libraries are: with the sources, or for a checkout that is read-only in a folder of this user alone."""
    user = os.getuid() if hasattr(os, "getuid") else "here"  # on Windows the folder is the user's own
    aside = Path(tempfile.gettempdir()) / f"dreamfusion_{user}"
    if aside.exists() and hasattr(os, "getuid"):
        found = aside.stat()
        if found.st_uid != os.getuid() or found.st_mode & 0o022:  # others could put a library there
            return [BUILD]
    return [BUILD, aside]


class _lock:
    """Held by this process while it builds: the system lets go of it when the process ends, however it ends."""

    def __init__(self, path: Path, package: str) -> None:
        self.lock, self.package = FileLock(path), package

    def __enter__(self) -> None:
        try:
            self.lock.acquire(timeout=1)
        except Timeout:
            _say(f"Another process compiles {self.package}: waiting for it ...")
            self.lock.acquire()
        except (OSError, NotImplementedError):
            pass  # a file system without locks: at worst two processes do the same work

    def __exit__(self, *error: object) -> None:
        self.lock.release()


def _checksum(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _intact(library: Path) -> bool:
    """Whether a library is there and is what its compiler wrote: a file cut off by a full disk can crash a process."""
    try:
        return _checksum(library).read_text() == hashlib.sha256(library.read_bytes()).hexdigest()
    except (OSError, UnicodeDecodeError):
        return False


def _compile(package: str, compiler: Compiler, library: Path) -> None:
    """Compiles in a folder of its own and moves what came out into place. The caller holds the lock."""
    for left in library.parent.glob(f"{library.stem}.partial-*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    source = HERE / package / "src" / f"{PACKAGES[package]}.{compiler.suffix}"
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=f"{library.stem}.partial-") as private:
        made, log = Path(private) / library.name, Path(private) / "log"
        command = [*compiler.command, "-I", str(HERE / "src"), str(source), "-o", str(made)]
        for_what = "the CPU" if compiler.suffix == "cpp" else compiler.target
        _run(command, log, f"Compiling {package} for {for_what} ({compiler.name}, only this once)")
        # The sum first: a library without its own sum is built again.
        made_sum = _checksum(made)
        made_sum.write_text(hashlib.sha256(made.read_bytes()).hexdigest())
        for path in (made_sum, made):
            with path.open("rb+") as written:
                os.fsync(written.fileno())
        os.replace(made_sum, _checksum(library))
        os.replace(made, library)


def _run(command: Sequence[str], log: Path, what: str) -> None:
    """Runs a compiler with a line that shows the time it has taken. Raises Unavailable if it fails."""
    with log.open("w") as said:
        try:
            process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        except OSError as error:
            raise Unavailable(f"{command[0]} does not run ({error})") from error
        try:
            with tqdm(desc=what, bar_format="{desc}: {elapsed}", mininterval=1, file=sys.stderr) as line:
                while process.poll() is None:
                    time.sleep(0.1)
                    line.update()
        finally:
            if process.poll() is None:  # Ctrl-C
                process.kill()
                process.wait()
    if process.returncode:
        text = log.read_text(errors="replace")
        first = next((line for line in text.splitlines() if "error" in line.lower()), _last_line(text))
        raise Unavailable(f"{Path(command[0]).name} failed with status {process.returncode}: {first.strip()}")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# --- Finding


@cache
def load(package: str, kind: str, capability: tuple[int, int] | None = None) -> ctypes.CDLL | Unavailable:
    """The library of a package, built if need be, or why there is none. Says so in one line, once a process.

    Args:
        package: one of PACKAGES.
        kind: type of the device, "cpu" or "cuda".
        capability: of the GPU that is the current device, as (9, 0); None on the CPU.
    """
    try:
        if kind == "cuda" and capability is not None:
            compiler = cuda_compiler(capability)
        elif kind == "cpu":
            compiler = cpu_compiler()
        else:
            raise Unavailable(f"kernels exist for the CPU and for CUDA, not for {kind}")
        library = ctypes.CDLL(str(build(package, compiler)))
        library.explain.restype = ctypes.c_char_p
        code = library.select_device(torch.cuda.current_device()) if kind == "cuda" else 0
        if code := code or library.probe():
            raise Unavailable(f"what {compiler.name} made does not run here: {library.explain(code).decode()}")
    except (Unavailable, OSError) as error:
        reason = error if isinstance(error, Unavailable) else Unavailable(str(error))
        _say(f"{package} runs on PyTorch for {kind}, which is slower: {reason}")
        return reason
    return library


def _library(package: str, device: torch.device) -> ctypes.CDLL | Unavailable:
    if device.type != "cuda":
        return load(package, device.type)
    with torch.cuda.device(device):
        return load(package, "cuda", torch.cuda.get_device_capability(device))


@torch.compiler.assume_constant_result
def _ready(package: str, device: str) -> bool:
    return not isinstance(_library(package, torch.device(device)), Unavailable)


def ready(package: str, device: torch.device) -> bool:
    """Whether a package has compiled kernels for a device; builds them at the first call. Traced as a constant."""
    return _ready(package, str(device))


# --- Calling


def call(package: str, function: str, device: torch.device, *arguments: object) -> None:
    """Calls a function of a library on a device, on the GPU on its current stream.

    Args:
        arguments: contiguous tensors of that device or None, ints, floats, and sequences of ints, in the C order.
    Raises:
        Unavailable: if there is no library.
        RuntimeError: if the function or a launch fails.
    """
    library = _library(package, device)
    if isinstance(library, Unavailable):
        raise library
    values = [_to_c(argument, device) for argument in arguments]
    if device.type == "cuda":
        with torch.cuda.device(device):  # a kernel starts on the current device, whatever its stream
            stream = torch.cuda.current_stream(device).cuda_stream
            index = torch.cuda.current_device()
            code = library.select_device(index) or library[function](*values, ctypes.c_void_p(stream))
    else:
        code = library[function](*values, ctypes.c_void_p(torch.get_num_threads()))
    if code:
        raise RuntimeError(f"{function} of {package} failed on {device}: {library.explain(code).decode()}")


def _to_c(value: object, device: torch.device) -> object:
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, Tensor):
        if value.device != device or not value.is_contiguous():
            raise ValueError(f"a kernel on {device} cannot read a tensor of {value.device}, strides {value.stride()}")
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, float):
        return ctypes.c_double(value)
    if isinstance(value, int):
        return ctypes.c_int64(value)
    if isinstance(value, list | tuple):
        return (ctypes.c_int64 * len(value))(*value)
    raise TypeError(f"a kernel takes no {type(value).__name__}")


# --- Registering


def register(
    schema: str,
    kernel: Callable[..., object],
    fake: Callable[..., object],
    backward: Callable[..., object] | None = None,
    setup_context: Callable[..., None] | None = None,
) -> None:
    """Registers an operation with torch.library under one name for CPU and CUDA, so that torch.compile traces it.

    Args:
        schema: as in "freq_encode(Tensor x, int levels) -> Tensor".
        kernel: makes the outputs by `call`; the device of its tensors decides which library that is.
        fake: shapes, types and strides of the outputs, without the work.
        backward, setup_context: as in torch.library.register_autograd; without them the outputs have no gradient.
    """
    name = schema.split("(")[0]
    _definitions.define(schema)
    for key in ("CPU", "CUDA"):
        _definitions.impl(name, kernel, key)
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake)
    if backward is not None:
        torch.library.register_autograd(f"{NAMESPACE}::{name}", backward, setup_context=setup_context)


def third_order(*_: object) -> None:
    """The backward of an operation that is itself a second derivative."""
    raise NotImplementedError("the kernels have no third derivative: use the package's reference module for that")


def check_floats(name: str, value: Tensor, shape: str, last: int | None = None) -> None:
    """Raises TypeError or ValueError unless `value` is float32 or float64 with two axes, the last of that size."""
    if value.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} is {value.dtype}: give float32 or float64 (half is too coarse for positions)")
    if value.ndim != 2 or (last is not None and value.shape[1] != last):
        raise ValueError(f"{name} has shape {tuple(value.shape)}, not {shape}")


# --- Reporting


def main() -> int:
    """Builds what is missing, prints which path each package takes on each device; 0 if all are compiled."""
    devices = [torch.device("cpu"), *(torch.device("cuda", i) for i in range(torch.cuda.device_count()))]
    missing = False
    for device in devices:
        for package in PACKAGES:
            found = _library(package, device)
            if isinstance(found, Unavailable):
                missing, what = True, f"PyTorch  {found}"
            else:
                what = f"{'C++' if device.type == 'cpu' else 'CUDA':<9}{Path(found._name).name}"
            print(f"{package:<13}{device!s:<8}{what}")
    return int(missing)


if __name__ == "__main__":
    sys.exit(main())
