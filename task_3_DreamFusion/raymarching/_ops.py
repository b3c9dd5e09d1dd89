"""The operators of ray marching: calls of the compiled kernels, registered with torch.library.

Their arguments and results are those of the functions in reference.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from task_3_DreamFusion import kernels
from task_3_DreamFusion.raymarching import reference
from task_3_DreamFusion.raymarching.reference import grid_resolution, packed_info_of


def _call(function: str, device: torch.device, *arguments: object) -> None:
    kernels.call("raymarching", function, device, *arguments)


def _call_typed(function: str, first: Tensor, *arguments: object) -> None:
    """Call a function that is compiled for several types; that of `first` counts."""
    _call(function, first.device, kernels.TYPE_CODES[first.dtype], *arguments)


# --- Cells and the box


def _morton3d(cells: Tensor) -> Tensor:
    codes = cells.new_empty(len(cells))
    _call("morton3d", cells.device, cells.contiguous(), codes, len(cells))
    return codes


def _morton3d_invert(codes: Tensor) -> Tensor:
    cells = codes.new_empty(len(codes), 3)
    _call("morton3d_invert", codes.device, codes.contiguous(), cells, len(codes))
    return cells


def _packbits(density: Tensor, threshold: float) -> Tensor:
    bits = torch.empty(len(density) // 8, dtype=torch.uint8, device=density.device)
    _call_typed("packbits", density, density.contiguous(), bits, threshold, len(bits))
    return bits


def _ray_aabb_intersect(
    origins: Tensor, directions: Tensor, box: list[float], near_plane: float
) -> tuple[Tensor, Tensor]:
    n = len(origins)
    nears, fars = origins.new_empty(n), origins.new_empty(n)
    rays = origins.contiguous(), directions.contiguous()
    _call_typed("ray_aabb_intersect", origins, *rays, nears, fars, near_plane, *box, n)
    return nears, fars


# --- Marching


def _march_arguments(
    rays: list[Tensor],
    bits: Tensor,
    box: list[float],
    step_size: float,
    alive: Tensor | None = None,
    steps: Tensor | None = None,
) -> tuple[Any, ...]:
    """Return the first arguments of march_count and march_write."""
    bits = bits.contiguous()
    if bits.data_ptr() % 8:
        bits = bits.clone()  # the kernels read eight bytes at once
    contiguous = [t.contiguous() for t in rays]
    return (*contiguous, bits, grid_resolution(bits), step_size, *box, alive, steps)


def _march_count(
    arguments: tuple[Any, ...], max_samples: int, num_rays: int
) -> tuple[Tensor, Tensor]:
    """Return the number of samples and the next step of each ray, (N,) int32."""
    origins = arguments[0]
    counts, next_steps = torch.empty(2, num_rays, dtype=torch.int32, device=origins.device)
    _call_typed("march_count", origins, *arguments, counts, next_steps, max_samples, num_rays)
    return counts, next_steps


def _march_write(
    arguments: tuple[Any, ...], packed_info: Tensor, num_samples: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return positions (M, 3), ts (M,) and ray_indices (M,)."""
    origins = arguments[0]
    positions, ts = origins.new_zeros(num_samples, 3), origins.new_zeros(num_samples)
    ray_indices = torch.zeros(num_samples, dtype=torch.int64, device=origins.device)
    outputs = positions, ts, ray_indices
    _call_typed("march_write", origins, *arguments, packed_info, *outputs, len(packed_info))
    return outputs


def _march_rays(
    rays: list[Tensor],
    bits: Tensor,
    box: list[float],
    step_size: float,
    max_samples: int,
    capacity: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    arguments = _march_arguments(rays, bits, box, step_size)
    counts, _ = _march_count(arguments, max_samples, len(rays[0]))
    info = packed_info_of(counts, capacity)
    num_samples = int(info[:, 1].sum().item()) if capacity is None else capacity
    return *_march_write(arguments, info, num_samples), info


def _march_alive(
    rays: list[Tensor],
    bits: Tensor,
    box: list[float],
    step_size: float,
    max_samples: int,
    alive: Tensor,
    steps: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    arguments = _march_arguments(rays, bits, box, step_size, alive, steps)
    counts, next_steps = _march_count(arguments, max_samples, len(alive))
    # Sample offsets, and the new place of each ray that has samples, both counted from 1: (2, A)
    ends, places = torch.stack([counts.long(), (counts > 0).long()]).cumsum(1)
    num_samples, num_alive = 0, 0
    if len(alive):
        num_samples, num_alive = torch.stack([ends[-1], places[-1]]).tolist()  # the only wait
    firsts = ends - counts
    samples = _march_write(arguments, torch.stack([firsts, counts.long()], 1), num_samples)
    new_alive, new_info = alive.new_empty(num_alive), alive.new_empty(num_alive, 2)
    new_steps = steps.new_empty(num_alive)
    inputs = alive.contiguous(), places, counts, next_steps, firsts
    _call("compact", alive.device, *inputs, new_alive, new_info, new_steps, len(alive))
    return *samples, new_info, new_alive, new_steps


# --- Compositing


def _accumulate(
    values: list[Tensor],
    alive: Tensor,
    packed_info: Tensor,
    depths: Tensor,
    image: Tensor,
    optical_depth: Tensor,
    steps: Tensor,
    max_optical_depth: float,
) -> None:
    values = [t.contiguous() for t in values]
    state = alive, packed_info, depths, image, optical_depth, steps
    channels = image.shape[1]
    _call_typed("accumulate", values[0], *values, *state, channels, max_optical_depth, len(alive))


def _composite_rays(
    sigmas: Tensor,
    features: Tensor,
    deltas: Tensor,
    ts: Tensor,
    packed_info: Tensor,
    max_optical_depth: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n, channels = len(packed_info), features.shape[1]
    image = sigmas.new_empty(n, channels)
    depths, opacities = sigmas.new_empty(n), sigmas.new_empty(n)
    weights = torch.zeros_like(sigmas, memory_format=torch.contiguous_format)
    inputs = [t.contiguous() for t in (sigmas, features, deltas, ts, packed_info)]
    outputs = image, depths, opacities, weights
    _call_typed("composite_rays", sigmas, *inputs, channels, max_optical_depth, *outputs, n)
    return outputs


def _composite_rays_grad(
    sigmas: Tensor,
    features: Tensor,
    deltas: Tensor,
    ts: Tensor,
    packed_info: Tensor,
    weights: Tensor,
    d_image: Tensor,
    d_depths: Tensor,
    d_opacities: Tensor,
    d_weights: Tensor,
    max_optical_depth: float,
) -> tuple[Tensor, Tensor]:
    n, channels = len(packed_info), features.shape[1]
    d_sigmas = torch.zeros_like(sigmas, memory_format=torch.contiguous_format)
    d_features = torch.zeros_like(features, memory_format=torch.contiguous_format)
    inputs = [t.contiguous() for t in (sigmas, features, deltas, ts, packed_info)]
    grads = [t.contiguous() for t in (weights, d_image, d_depths, d_opacities, d_weights)]
    arguments = *inputs, channels, max_optical_depth, *grads
    _call_typed("composite_rays_grad", sigmas, *arguments, d_sigmas, d_features, n)
    return d_sigmas, d_features


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.max_optical_depth = inputs
    ctx.save_for_backward(*tensors, output[3])


def _composite_backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    d_sigmas, d_features = torch.ops.dreamfusion.composite_rays_grad(
        *ctx.saved_tensors, *grads, ctx.max_optical_depth
    )
    return d_sigmas, d_features, None, None, None, None


# --- Shapes of the results, for tracing; of the simple operators the reference gives them


def _fake_march(rays: list[Tensor], *rest: Any) -> tuple[Tensor, ...]:
    origins, capacity = rays[0], rest[-1]
    m = torch.library.get_ctx().new_dynamic_size() if capacity is None else capacity
    ray_indices = torch.empty(m, dtype=torch.int64, device=origins.device)
    info = ray_indices.new_empty(origins.shape[0], 2)
    return origins.new_empty(m, 3), origins.new_empty(m), ray_indices, info


def _fake_alive(rays: list[Tensor], *rest: Any) -> tuple[Tensor, ...]:
    m, a = (torch.library.get_ctx().new_dynamic_size() for _ in range(2))
    alive, steps = rest[-2:]
    samples = rays[0].new_empty(m, 3), rays[0].new_empty(m), alive.new_empty(m)
    return *samples, alive.new_empty(a, 2), alive.new_empty(a), steps.new_empty(a)


def _fake_composite(
    sigmas: Tensor, features: Tensor, deltas: Tensor, ts: Tensor, packed_info: Tensor, *_: Any
) -> tuple[Tensor, ...]:
    n = packed_info.shape[0]
    image = sigmas.new_empty(n, features.shape[1])
    return image, sigmas.new_empty(n), sigmas.new_empty(n), sigmas.new_empty(sigmas.shape)


def _fake_grads(sigmas: Tensor, features: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return sigmas.new_empty(sigmas.shape), features.new_empty(features.shape)


# --- Registration

_RAYS = "Tensor[] rays, Tensor bits, float[] box, float step_size, int max_samples"
_VALUES = "Tensor sigmas, Tensor features, Tensor deltas, Tensor ts"
kernels.register("morton3d(Tensor cells) -> Tensor", _morton3d, reference.morton3d)
kernels.register(
    "morton3d_invert(Tensor codes) -> Tensor", _morton3d_invert, reference.morton3d_invert
)
kernels.register(
    "packbits(Tensor density, float threshold) -> Tensor", _packbits, reference.packbits
)
kernels.register(
    "ray_aabb_intersect(Tensor origins, Tensor directions, float[] box, float near_plane) "
    "-> (Tensor, Tensor)",
    _ray_aabb_intersect,
    reference.ray_aabb_intersect,
)
kernels.register(
    f"march_rays({_RAYS}, SymInt? capacity) -> (Tensor, Tensor, Tensor, Tensor)",
    _march_rays,
    _fake_march,
)
kernels.register(
    f"march_alive({_RAYS}, Tensor alive, Tensor steps) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _march_alive,
    _fake_alive,
)
kernels.register(
    "accumulate(Tensor[] values, Tensor alive, Tensor packed_info, Tensor(a!) depths, "
    "Tensor(b!) image, Tensor(c!) optical_depth, Tensor(d!) steps, float max_optical_depth) -> ()",
    _accumulate,
    lambda *_: None,
)
kernels.register(
    f"composite_rays({_VALUES}, Tensor packed_info, float max_optical_depth) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _composite_rays,
    _fake_composite,
    _composite_backward,
    _save,
)
kernels.register(
    f"composite_rays_grad({_VALUES}, Tensor packed_info, Tensor weights, Tensor d_image, "
    "Tensor d_depths, Tensor d_opacities, Tensor d_weights, float max_optical_depth) "
    "-> (Tensor, Tensor)",
    _composite_rays_grad,
    _fake_grads,
    kernels.no_third_derivative,
)
