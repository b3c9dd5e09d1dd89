"""Load and call the compiled kernels of freqencoder, gridencoder and raymarching.

Each package has one source, which `course.speed.native` compiles for the CPU (C++) or for a GPU (CUDA)
when it is first used. Where that is not possible, the package's reference in plain PyTorch runs, on
the same device, and one line says why:

    a tensor on the GPU   CUDA kernel, else PyTorch on the GPU
    a tensor on the CPU   C++ kernel, else PyTorch on the CPU

`python -m task_3_DreamFusion.kernels` compiles what is missing and reports.
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
PACKAGES = {
    "freqencoder": "freq",
    "gridencoder": "grid",
    "raymarching": "march",
}  # and the name of its source
TYPES = {torch.float16: 0, torch.float32: 1, torch.float64: 2}  # as in src/common.h
NAMESPACE = "dreamfusion"
_definitions = torch.library.Library(NAMESPACE, "FRAGMENT")
# Nothing is contracted: fma stands in the sources where it is wanted, and CPU and GPU agree.
CPP_FLAGS = ("-O2", "-ffp-contract=off", "-fvisibility=hidden")
CUDA_FLAGS = ("-fmad=false", "-Xcompiler", "-fvisibility=hidden")


# --- Finding


@cache
def load(
    package: str,
    kind: str,
    capability: tuple[int, int] | None = None,
) -> ctypes.CDLL | NativeError:
    """Return the library of a package, compiled if need be, or why there is none.

    Prints the reason in one line, once a process.

    Args:
        package: one of PACKAGES.
        kind: type of the device, "cpu" or "cuda".
        capability: of the GPU that is the current device, as (9, 0); None on the CPU.
    """
    try:
        compiler = _compiler(kind, capability)
        library = native.load(
            package,
            compiler,
            HERE / package / "src" / f"{PACKAGES[package]}.{compiler.suffix}",
            BUILD,
            includes=[HERE / "src"],
            versions=[torch.__version__, str(torch.version.cuda)],
        )
        library.explain.restype = ctypes.c_char_p
        code = library.select_device(torch.cuda.current_device()) if kind == "cuda" else 0
        if code := code or library.probe():
            reason = library.explain(code).decode()
            raise NativeError(f"what {compiler.name} made does not run here: {reason}")
    except NativeError as error:
        line = f"{package} runs on PyTorch for {kind}, which is slower: {error}"
        print(line, file=sys.stderr)
        return error
    return library


def _compiler(kind: str, capability: tuple[int, int] | None) -> native.Compiler:
    if kind == "cpu":
        return native.cpp_compiler(*CPP_FLAGS)
    if kind == "cuda" and capability is not None:
        return native.cuda_compiler(capability, *CUDA_FLAGS)
    raise NativeError(f"kernels exist for the CPU and for CUDA, not for {kind}")


def _library(package: str, device: torch.device) -> ctypes.CDLL | NativeError:
    if device.type != "cuda":
        return load(package, device.type)
    with torch.cuda.device(device):
        return load(package, "cuda", torch.cuda.get_device_capability(device))


@torch.compiler.assume_constant_result
def _ready(package: str, device: str) -> bool:
    return not isinstance(_library(package, torch.device(device)), NativeError)


def ready(package: str, device: torch.device) -> bool:
    """Whether a package has compiled kernels for a device; builds them at the first call. Traced as a constant."""
    return _ready(package, str(device))


# --- Calling


def call(package: str, function: str, device: torch.device, *arguments: object) -> None:
    """Calls a function of a library on a device, on the GPU on its current stream.

    Args:
        arguments: contiguous tensors of that device or None, ints, floats, and sequences of ints, in the C order.
    Raises:
        NativeError: if there is no library.
        RuntimeError: if the function or a launch fails.
    """
    library = _library(package, device)
    if isinstance(library, NativeError):
        raise library
    values = [_to_c(argument, device) for argument in arguments]
    if device.type == "cuda":
        with torch.cuda.device(
            device
        ):  # a kernel starts on the current device, whatever its stream
            stream = torch.cuda.current_stream(device).cuda_stream
            index = torch.cuda.current_device()
            code = library.select_device(index) or library[function](
                *values, ctypes.c_void_p(stream)
            )
    else:
        code = library[function](*values, ctypes.c_void_p(torch.get_num_threads()))
    if code:
        raise RuntimeError(
            f"{function} of {package} failed on {device}: {library.explain(code).decode()}"
        )


def _to_c(value: object, device: torch.device) -> object:
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, Tensor):
        if value.device != device or not value.is_contiguous():
            raise ValueError(
                f"a kernel on {device} cannot read a tensor of {value.device}, strides {value.stride()}"
            )
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
        torch.library.register_autograd(
            f"{NAMESPACE}::{name}", backward, setup_context=setup_context
        )


def third_order(*_: object) -> None:
    """The backward of an operation that is itself a second derivative."""
    raise NotImplementedError(
        "the kernels have no third derivative: use the package's reference module for that"
    )


def check_floats(name: str, value: Tensor, shape: str, last: int | None = None) -> None:
    """Raises TypeError or ValueError unless `value` is float32 or float64 with two axes, the last of that size."""
    if value.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"{name} is {value.dtype}: give float32 or float64 (half is too coarse for positions)"
        )
    if value.ndim != 2 or (last is not None and value.shape[1] != last):
        raise ValueError(f"{name} has shape {tuple(value.shape)}, not {shape}")


# --- Reporting


def main() -> int:
    """Builds what is missing, prints which path each package takes on each device; 0 if all are compiled."""
    devices = [
        torch.device("cpu"),
        *(torch.device("cuda", i) for i in range(torch.cuda.device_count())),
    ]
    missing = False
    for device in devices:
        for package in PACKAGES:
            found = _library(package, device)
            if isinstance(found, NativeError):
                missing, what = True, f"PyTorch  {found}"
            else:
                what = f"{'C++' if device.type == 'cpu' else 'CUDA':<9}{Path(found._name).name}"
            print(f"{package:<13}{device!s:<8}{what}")
    return int(missing)


if __name__ == "__main__":
    sys.exit(main())
