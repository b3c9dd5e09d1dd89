"""Builds the renderer (C++ for the CPU, CUDA for the GPU, from one source) and calls it.

The library is compiled at first use, a few seconds, and kept in `pocket/world/build` under the hash of its
source, compiler, flags and processor. A half-written build is never seen: it is renamed into place when complete.
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
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

SOURCE = Path(__file__).parent / "src"
BUILD = Path(__file__).parent / "build"


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def layout() -> dict[str, int]:
    """The numbers defined in src/layout.h, by name."""
    found: dict[str, int] = {}
    for line in (SOURCE / "layout.h").read_text().splitlines():
        words = line.split("//")[0].split(maxsplit=2)
        if len(words) == 3 and words[0] == "#define":
            found[words[1]] = int(eval(words[2], {"__builtins__": {}}, dict(found)))  # sums of earlier names
    return found


@dataclass
class Rendered:
    """A batch of pictures, tensors on the device that drew them.

    color (N, H, W, 3) uint8 sRGB; depth (N, H, W) float32 along the camera's forward axis (for landscapes
    the horizontal distance), 0 where there is only sky; normal (N, H, W, 3) float32 unit vectors in world
    space, 0 for sky; mask (N, H, W) uint8, 1 on objects.
    """

    color: torch.Tensor
    depth: torch.Tensor
    normal: torch.Tensor
    mask: torch.Tensor


def _private(folder: Path) -> bool:
    """Whether nobody but this user can put a library into a folder outside the checkout."""
    if not folder.exists() or not hasattr(os, "getuid"):
        return True
    found = folder.stat()
    return found.st_uid == os.getuid() and not found.st_mode & 0o022


def _compile(command: list[str], source: str, processor: str = "") -> Path:
    digest = hashlib.sha256("\n".join([*command, processor]).encode())
    for path in sorted(SOURCE.iterdir()):
        digest.update(path.read_bytes())
    name = f"world_{source.split('.')[-1]}_{digest.hexdigest()[:16]}.so"
    user = os.getuid() if hasattr(os, "getuid") else "here"  # on Windows the folder is the user's own
    aside = Path(tempfile.gettempdir()) / f"pocket_world_{user}"  # for a checkout that is read-only
    folders = [BUILD, aside] if _private(aside) else [BUILD]
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    for folder in folders:
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            number, partial = tempfile.mkstemp(dir=folder, suffix=".so")
        except OSError:
            continue
        os.close(number)
        print(f"Compiling the renderer of the pocket world ({command[0]}) ...", file=sys.stderr, flush=True)
        done = subprocess.run([*command, "-o", partial, str(SOURCE / source)], capture_output=True, text=True)
        if done.returncode:
            os.unlink(partial)
            raise RuntimeError(f"{command[0]} could not compile {source}:\n{done.stderr[-4000:]}")
        os.chmod(partial, 0o755)
        os.replace(partial, folder / name)
        return folder / name
    raise RuntimeError(f"no folder to compile the renderer into: neither {BUILD} nor {aside} can be written")


def _processor() -> str:
    """Names this processor's instruction set: a library built with -march=native runs on no lesser one."""
    try:
        flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        flags = platform.processor()
    return platform.machine() + flags


@cache
def _cpu_library() -> ctypes.CDLL:
    compiler = os.environ.get("CXX") or next((c for c in ("g++", "clang++", "c++") if shutil.which(c)), None)
    if compiler is None:
        raise RuntimeError("drawing the pocket world needs a C++ compiler (g++ or clang++): install one, or set CXX")
    # contraction as nvcc does it: both builds round alike
    arm = platform.machine().lower() in ("arm64", "aarch64")  # where clang may not know -march=native
    flags = [
        "-std=c++20",
        "-O3",
        "-mcpu=native" if arm else "-march=native",
        "-ffp-contract=fast",
        "-fPIC",
        "-shared",
        "-pthread",
    ]
    return ctypes.CDLL(str(_compile([compiler, *flags], "renderer.cpp", _processor())))


@cache
def _cuda_library(capability: tuple[int, int]) -> ctypes.CDLL:
    nvcc = shutil.which("nvcc") or next((p for p in ("/usr/local/cuda/bin/nvcc",) if os.path.exists(p)), None)
    if nvcc is None:
        raise RuntimeError("drawing on the GPU needs nvcc (the CUDA toolkit); render(..., device='cpu') does without")
    arch = f"sm_{capability[0]}{capability[1]}"
    flags = [
        "-std=c++20",
        "-O3",
        "-prec-div=false",
        "-prec-sqrt=false",
        "-ftz=true",
        "-Xcompiler",
        "-fPIC",
        "-shared",
        f"-arch={arch}",
    ]
    library = ctypes.CDLL(str(_compile([nvcc, *flags], "renderer.cu")))
    library.world_error.restype = ctypes.c_char_p
    return library


def render(
    params: np.ndarray | torch.Tensor,
    height: int = 256,
    width: int = 256,
    samples: int = 4,
    device: str | torch.device = "cpu",
    threads: int | None = None,
) -> Rendered:
    """Draws scenes.

    Args:
        params: (N, SCENE_FLOATS) or (SCENE_FLOATS,) float32, `Scene.params`.
        height, width: size in pixels; a landscape six times as wide as high goes once around.
        samples: samples a pixel, 1 to 16.
        device: "cpu" or a CUDA device; there the work is queued on the current stream.
        threads: CPU threads, all cores unless given.
    Raises:
        ValueError: if params, a size or samples does not fit.
        RuntimeError: if the renderer cannot be compiled or a kernel fails.
    """
    scenes = torch.as_tensor(params, dtype=torch.float32).reshape(-1, torch.as_tensor(params).shape[-1])
    if scenes.shape[1] != layout()["SCENE_FLOATS"]:
        raise ValueError(f"a scene has {layout()['SCENE_FLOATS']} floats, not {scenes.shape[1]}")
    if not (height > 0 and width > 0 and 1 <= samples <= layout()["MAX_SAMPLES"]):
        raise ValueError(f"cannot draw {height}x{width} with {samples} samples a pixel (1 to 16)")
    device = torch.device(device)
    scenes = scenes.to(device).contiguous()
    n = scenes.shape[0]
    out = Rendered(
        color=torch.empty(n, height, width, 3, dtype=torch.uint8, device=device),
        depth=torch.empty(n, height, width, device=device),
        normal=torch.empty(n, height, width, 3, device=device),
        mask=torch.empty(n, height, width, dtype=torch.uint8, device=device),
    )
    display = torch.empty(n, height, width, 3, device=device)
    tensors = (display, out.depth, out.normal, out.mask, out.color)
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in tensors]
    sizes = [ctypes.c_int(k) for k in (n, height, width, samples)]
    if device.type == "cuda":
        with torch.cuda.device(device):
            library = _cuda_library(torch.cuda.get_device_capability(device))
            stream = ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream)
            code = library.world_render_cuda(ctypes.c_void_p(scenes.data_ptr()), *sizes, *pointers, stream)
        if code:
            raise RuntimeError(f"the renderer failed on {device}: {library.world_error(code).decode()}")
    else:
        count = threads or cores()
        _cpu_library().world_render(ctypes.c_void_p(scenes.data_ptr()), *sizes, *pointers, ctypes.c_int(count))
    return out
