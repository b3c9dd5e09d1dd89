"""Load and call the compiled kernels of freqencoder, gridencoder and raymarching.

Each package has one source, which `course.speed.native` compiles for the CPU (C++) or for a GPU
(CUDA) when it is first used. Where that fails, the package's reference in plain PyTorch runs on the
same device, and one line says why:

    a tensor on the GPU   CUDA kernel, else PyTorch on the GPU
    a tensor on the CPU   C++ kernel, else PyTorch on the CPU

`python -m task_3_DreamFusion.kernels` compiles what is missing and lists what runs where.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from course.speed import native
from course.speed.native import NativeError

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
# The name of each package's source.
PACKAGES = {"freqencoder": "freq", "gridencoder": "grid", "raymarching": "march"}
TYPE_CODES = {torch.float16: 0, torch.float32: 1, torch.float64: 2}  # as in src/common.h
NAMESPACE = "dreamfusion"
_definitions = torch.library.Library(NAMESPACE, "FRAGMENT")
# No contraction of a * b + c: the sources call fma where it is wanted, so CPU and GPU agree.
CPP_FLAGS = ("-O2", "-ffp-contract=off", "-fvisibility=hidden")
CUDA_FLAGS = ("-fmad=false", "-Xcompiler", "-fvisibility=hidden")


# --- Loading


@cache
def load(
    package: str, device_type: str, capability: tuple[int, int] | None = None
) -> ctypes.CDLL | NativeError:
    """Return the library of a package, compiled if need be, or the error if there is none.

    Prints the error in one line, once a process.

    Args:
        package: one of PACKAGES.
        device_type: "cpu" or "cuda".
        capability: of the GPU that is the current device, as (9, 0); None on the CPU.
    """
    try:
        compiler = _compiler(device_type, capability)
        library = native.load(
            package,
            compiler,
            HERE / package / "src" / f"{PACKAGES[package]}.{compiler.suffix}",
            BUILD,
            includes=[HERE / "src"],
            versions=[torch.__version__, str(torch.version.cuda)],
        )
        library.error_string.restype = ctypes.c_char_p
        code = 0
        if device_type == "cuda":
            code = library.select_device(torch.cuda.current_device())
        if code := code or library.probe():
            reason = library.error_string(code).decode()
            raise NativeError(f"the library by {compiler.name} does not run here: {reason}")
    except NativeError as error:
        line = f"{package} runs on PyTorch for {device_type}, which is slower: {error}"
        print(line, file=sys.stderr)
        return error
    return library


def _compiler(device_type: str, capability: tuple[int, int] | None) -> native.Compiler:
    if device_type == "cpu":
        return native.cpp_compiler(*CPP_FLAGS)
    if device_type == "cuda" and capability is not None:
        return native.cuda_compiler(capability, *CUDA_FLAGS)
    raise NativeError(f"there are kernels for cpu and cuda, not for {device_type}")


def _library(package: str, device: torch.device) -> ctypes.CDLL | NativeError:
    if device.type != "cuda":
        return load(package, device.type)
    with torch.cuda.device(device):
        return load(package, "cuda", torch.cuda.get_device_capability(device))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_available(package: str, device: str) -> bool:
    return not isinstance(_library(package, torch.device(device)), NativeError)


def is_available(package: str, device: torch.device) -> bool:
    """Return whether a package has kernels for a device, compiled at the first call.

    A constant for torch.compile.
    """
    return _is_available(package, str(device))


# --- Calling


def call(package: str, function: str, device: torch.device, *arguments: object) -> None:
    """Call a function of a library on a device, on the GPU on its current stream.

    Args:
        arguments: in the C order: contiguous tensors of that device or None, ints, floats, and
            sequences of ints.
    Raises:
        NativeError: if there is no library.
        RuntimeError: if the function or a launch fails.
    """
    library = _library(package, device)
    if isinstance(library, NativeError):
        raise library
    values = [_to_c(argument, device) for argument in arguments]
    if device.type == "cuda":
        # A kernel starts on the current device, whatever its stream.
        with torch.cuda.device(device):
            stream = ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream)
            code = library.select_device(torch.cuda.current_device())
            code = code or library[function](*values, stream)
    else:
        code = library[function](*values, ctypes.c_void_p(torch.get_num_threads()))
    if code:
        reason = library.error_string(code).decode()
        raise RuntimeError(f"{function} of {package} failed on {device}: {reason}")


def _to_c(value: object, device: torch.device) -> object:
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, Tensor):
        if value.device != device or not value.is_contiguous():
            kind = f"on {value.device} with strides {value.stride()}"
            raise ValueError(f"a kernel needs contiguous tensors on {device}, got one {kind}")
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, float):
        return ctypes.c_double(value)
    if isinstance(value, int):
        return ctypes.c_int64(value)
    if isinstance(value, list | tuple):
        return (ctypes.c_int64 * len(value))(*value)
    raise TypeError(f"a kernel cannot take a {type(value).__name__}")


# --- Registration


def register(
    schema: str,
    kernel: Callable[..., object],
    fake: Callable[..., object],
    backward: Callable[..., object] | None = None,
    setup_context: Callable[..., None] | None = None,
) -> None:
    """Register an operator with torch.library for CPU and CUDA, so that torch.compile traces it.

    Args:
        schema: such as "freq_encode(Tensor x, int levels) -> Tensor".
        kernel: computes the outputs by `call`; the device of its tensors selects the library.
        fake: returns outputs of the right shapes, types and strides, without the work.
        backward, setup_context: as in torch.library.register_autograd; without them the outputs
            have no gradient.
    """
    name = schema.split("(")[0]
    _definitions.define(schema)
    for key in ("CPU", "CUDA"):
        _definitions.impl(name, kernel, key)
    qualified = f"{NAMESPACE}::{name}"
    torch.library.register_fake(qualified, fake)
    if backward is not None:
        torch.library.register_autograd(qualified, backward, setup_context=setup_context)


def no_third_derivative(*_: object) -> None:
    """The backward of an operator that is itself a second derivative."""
    raise NotImplementedError(
        "the kernels have no third derivative: use the package's reference module for that"
    )


def check_floats(name: str, value: Tensor, shape: str, last: int | None = None) -> None:
    """Raise TypeError or ValueError unless `value` is float32 or float64 and (N, `last`)."""
    if value.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} must be float32 or float64, got {value.dtype}")
    if value.ndim != 2 or (last is not None and value.shape[1] != last):
        raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")


# --- Report


def main() -> int:
    """Compile what is missing and list what runs on each device; return 0 if all are compiled."""
    devices = [torch.device("cpu")]
    devices += [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    missing = False
    for device in devices:
        for package in PACKAGES:
            library = _library(package, device)
            if isinstance(library, NativeError):
                missing = True
                backend = f"PyTorch  {library}"
            else:
                language = "C++" if device.type == "cpu" else "CUDA"
                backend = f"{language:<9}{Path(library._name).name}"
            print(f"{package:<13}{device!s:<8}{backend}")
    return int(missing)


if __name__ == "__main__":
    sys.exit(main())
