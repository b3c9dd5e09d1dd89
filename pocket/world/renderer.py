"""Calls the renderer: C++ for the CPU, CUDA for the GPU, from one source.

`course.speed.native` compiles the library at first use, in a few seconds, and keeps it in
`pocket/world/build`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from course.figures import cpu_cores
from course.speed import native

SOURCE = Path(__file__).parent / "src"
BUILD = Path(__file__).parent / "build"


@cache
def layout() -> dict[str, int]:
    """Return the numbers defined in src/layout.h, by name."""
    numbers: dict[str, int] = {}
    for line in (SOURCE / "layout.h").read_text().splitlines():
        words = line.split("//")[0].split(maxsplit=2)
        if len(words) == 3 and words[0] == "#define":
            # A value may be a sum of earlier names.
            numbers[words[1]] = int(eval(words[2], {"__builtins__": {}}, dict(numbers)))
    return numbers


@dataclass
class Rendered:
    """A batch of images, tensors on the device that rendered them.

    Depth is along the camera's forward axis, for landscapes the horizontal distance, and 0 for sky.
    """

    color: torch.Tensor  # (N, H, W, 3) uint8 sRGB
    depth: torch.Tensor  # (N, H, W) float32
    normal: torch.Tensor  # (N, H, W, 3) float32 unit vectors in world space, 0 for sky
    mask: torch.Tensor  # (N, H, W) uint8, 1 on objects


@cache
def _cpu_library() -> ctypes.CDLL:
    # contraction as nvcc does it: both builds round alike
    compiler = native.cpp_compiler("-O3", "-ffp-contract=fast")
    return native.load("pocket_world", compiler, SOURCE / "renderer.cpp", BUILD)


@cache
def _cuda_library(capability: tuple[int, int]) -> ctypes.CDLL:
    flags = ("-prec-div=false", "-prec-sqrt=false", "-ftz=true")
    compiler = native.cuda_compiler(capability, *flags)
    library = native.load("pocket_world", compiler, SOURCE / "renderer.cu", BUILD)
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
    """Render scenes.

    Args:
        params: (N, SCENE_FLOATS) or (SCENE_FLOATS,) float32, `Scene.params`.
        height, width: size in pixels; a landscape six times as wide as high goes once around.
        samples: samples a pixel, 1 to 16.
        device: "cpu" or a CUDA device; there the work is queued on the current stream.
        threads: CPU threads, all cores unless given.
    Raises:
        ValueError: params, a size or samples is out of range.
        NativeError: the renderer cannot be compiled.
        RuntimeError: a kernel failed.
    """
    scenes = torch.as_tensor(params, dtype=torch.float32)
    scenes = scenes.reshape(-1, scenes.shape[-1])
    if scenes.shape[1] != layout()["SCENE_FLOATS"]:
        raise ValueError(f"a scene has {layout()['SCENE_FLOATS']} floats, got {scenes.shape[1]}")
    if not (height > 0 and width > 0 and 1 <= samples <= layout()["MAX_SAMPLES"]):
        raise ValueError(
            f"height and width must be positive and samples from 1 to 16, "
            f"got {height}x{width} with {samples} samples"
        )
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
    params_pointer = ctypes.c_void_p(scenes.data_ptr())
    if device.type == "cuda":
        with torch.cuda.device(device):
            library = _cuda_library(torch.cuda.get_device_capability(device))
            stream = ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream)
            code = library.world_render_cuda(params_pointer, *sizes, *pointers, stream)
        if code:
            raise RuntimeError(
                f"the renderer failed on {device}: {library.world_error(code).decode()}"
            )
    else:
        count = threads or cpu_cores()
        _cpu_library().world_render(params_pointer, *sizes, *pointers, ctypes.c_int(count))
    return out
