"""Ray marching through an occupancy grid (Instant-NGP, appendix E), and compositing (NeRF, eq. 3).

A ray's samples lie at start + k * step_size, k = 0, 1, ..., where that is before `far` and in an
occupied cell. So the layout depends on rays and grid alone: samples are counted, placed by a prefix
sum and written, the same in every run, on CPU and GPU. The caller jitters the starts, not the
steps.

The occupancy grid is a cube of cells over a box, one bit a cell in Morton order: bit `code & 7` of
byte `code >> 3`. The cells may be flattened; their number along an axis is a power of two, 4 to
1024.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from task_3_DreamFusion import kernels
from task_3_DreamFusion.raymarching import _ops as _ops  # registers the operators
from task_3_DreamFusion.raymarching import reference

MIN_TRANSMITTANCE = 1e-4  # Instant-NGP, appendix E: a ray ends when less light passes


@dataclass(frozen=True)
class Occupancy:
    """Which cells of a box may hold something.

    bits: (resolution^3 / 8,) uint8, from `packbits` over cells in Morton order.
    box: x, y, z of its lowest, then of its highest corner.
    Raises TypeError or ValueError if they do not fit.
    """

    bits: Tensor
    box: tuple[float, float, float, float, float, float] = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.bits.dtype != torch.uint8:
            raise TypeError(f"bits must be uint8, got {self.bits.dtype}: pack them by packbits")
        n = reference.grid_resolution(self.bits)
        if self.bits.shape != (n**3 // 8,) or not 4 <= n <= 1024 or n.bit_count() != 1:
            shape = tuple(self.bits.shape)
            raise ValueError(f"bits must be n^3 / 8 bytes for n = 4, 8, ..., 1024, got {shape}")
        _check_box(self.box)


class Samples(NamedTuple):
    """Samples along rays: those of a ray follow each other, nearest first; rays are in their order.

    positions: (M, 3). ts: (M,) distance along the ray. ray_indices: (M,) int64, the ray of each.
    packed_info: (N, 2) int64, index of the first sample and number of samples of each ray.
    """

    positions: Tensor
    ts: Tensor
    ray_indices: Tensor
    packed_info: Tensor

    def split(self, num_rays: int) -> list[Samples]:
        """Split into the samples of `num_rays` rays each, as if marched alone; the last has fewer.

        Not for samples of a march with a capacity.
        """
        total = len(self.packed_info)
        steps = torch.arange(num_rays - 1, total + num_rays - 1, num_rays)
        last_rays = steps.clamp_max(total - 1).to(self.packed_info.device)
        ends = self.packed_info[last_rays].sum(1).tolist()
        parts = []
        for k, (begin, end) in enumerate(itertools.pairwise([0, *ends])):
            first_ray = k * num_rays
            info = self.packed_info[first_ray : first_ray + num_rays].clone()
            info[:, 0] -= begin
            rows = slice(begin, end)
            ray_indices = self.ray_indices[rows] - first_ray
            parts.append(Samples(self.positions[rows], self.ts[rows], ray_indices, info))
        return parts


class RayOutputs(NamedTuple):
    """Sums along rays: image (N, C), depths (N,) sums of w t, opacities (N,), weights w (M,)."""

    image: Tensor
    depths: Tensor
    opacities: Tensor
    weights: Tensor


# --- Cells


def morton3d(cells: Tensor) -> Tensor:
    """Return the Morton codes (N,) of cells (N, 3), each 0 to 1023.

    Bits of x, y, z are interleaved, x lowest. Both are int32. Raises TypeError or ValueError for
    another type or shape.

    >>> morton3d(torch.tensor([[1, 0, 0], [0, 1, 0], [3, 0, 0]], dtype=torch.int32))
    tensor([1, 2, 9], dtype=torch.int32)
    """
    _check_ints("cells", cells, "(N, 3)", cells.ndim == 2 and cells.shape[-1] == 3)
    return _operators(cells).morton3d(cells)


def morton3d_invert(codes: Tensor) -> Tensor:
    """Return the cells (N, 3) of Morton codes (N,); types and errors as in morton3d."""
    _check_ints("codes", codes, "(N,)", codes.ndim == 1)
    return _operators(codes).morton3d_invert(codes)


def packbits(density: Tensor, threshold: float) -> Tensor:
    """Pack (8 n,) floats to (n,) uint8: bit b of byte i is density[8 i + b] > threshold."""
    if density.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"density must be float32 or float64, got {density.dtype}")
    if density.ndim != 1 or len(density) % 8:
        raise ValueError(f"density must have shape (8 n,), got {tuple(density.shape)}")
    return _operators(density).packbits(density.detach(), float(threshold))


# --- Rays


def ray_aabb_intersect(
    origins: Tensor, directions: Tensor, box: tuple[float, ...], near_plane: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Intersect rays with an axis-aligned box.

    Args:
        origins, directions: (N, 3) float32 or float64.
        box: x, y, z of its lowest, then of its highest corner.
        near_plane: smallest distance at which a ray begins.
    Returns:
        nears, fars: (N,) where rays enter and leave the box, in units of the direction's length;
        both are `near_plane` for a ray that misses it.
    """
    _check_rays(origins, directions)
    _check_box(box)
    rays = origins.detach(), directions.detach()
    return _operators(origins).ray_aabb_intersect(*rays, _floats(box), float(near_plane))


def march_rays(
    origins: Tensor,
    directions: Tensor,
    starts: Tensor,
    fars: Tensor,
    occupancy: Occupancy,
    step_size: float,
    max_samples: int = 1024,
    capacity: int | None = None,
) -> Samples:
    """Return the samples in occupied cells along rays, at most `max_samples` on each.

    Args:
        origins, directions: (N, 3) float32 or float64.
        starts: (N,) distance of the first sample; `nears + step_size * torch.rand(N)` jitters it.
        fars: (N,) no sample lies beyond.
        step_size: distance between samples. Instant-NGP: sqrt(3) / 1024 of the box's side.
        capacity: fixed number of rows M, for CUDA graphs: the host need not wait for the number of
            samples. Samples that do not fit are dropped; rows left over are zeros and in no ray.
    Raises:
        TypeError, ValueError: if an argument does not fit.
    """
    rays = [t.detach() for t in (origins, directions, starts, fars)]
    _check_march(rays, step_size, max_samples)
    if capacity is not None and capacity < 0:
        raise ValueError(f"capacity must be a number of samples or None, got {capacity}")
    grid = occupancy.bits, _floats(occupancy.box), float(step_size)
    return Samples(*_operators(origins).march_rays(rays, *grid, max_samples, capacity))


def composite_rays(
    sigmas: Tensor,
    features: Tensor,
    deltas: Tensor,
    samples: Samples,
    min_transmittance: float = MIN_TRANSMITTANCE,
) -> RayOutputs:
    """Sum features along rays with w = T (1 - exp(-sigma delta)), T = exp(-sum of sigma delta).

    NeRF, equation 3. Computes in float32 (half and bfloat16 are converted), or in float64 if sigmas
    are.

    Args:
        sigmas: (M,) density. features: (M, C). deltas: (M,) length that each sample stands for.
        samples: from march_rays.
        min_transmittance: samples behind a smaller T are ignored; from 0 (none) to below 1.
    Returns:
        RayOutputs, differentiable once in sigmas and features.
    Raises:
        TypeError, ValueError: if an argument does not fit.
    """
    m = len(samples.ts)
    if sigmas.shape != (m,) or deltas.shape != (m,) or features.ndim != 2 or len(features) != m:
        shapes = [tuple(t.shape) for t in (sigmas, features, deltas)]
        expected = f"({m},), ({m}, C) and ({m},)"
        raise ValueError(f"sigmas, features and deltas must have shapes {expected}, got {shapes}")
    dtype = torch.float64 if sigmas.dtype == torch.float64 else torch.float32
    values = [t.to(dtype) for t in (sigmas, features, deltas, samples.ts)]
    if not 0 <= min_transmittance < 1:
        raise ValueError(f"min_transmittance must be from 0 to below 1, got {min_transmittance}")
    max_depth = -math.log(min_transmittance) if min_transmittance else math.inf
    outputs = _operators(sigmas).composite_rays(*values, samples.packed_info, max_depth)
    return RayOutputs(*outputs)


class AliveRays:
    """Render without gradient in rounds: each takes a few more samples along the rays still alive.

    A ray ends when it leaves the box or its transmittance is below MIN_TRANSMITTANCE. Alive rays
    are compacted on the device, so the field is evaluated only where it is still visible.

        rays = AliveRays(origins, directions, starts, fars, occupancy, step_size)
        while (samples := rays.march(8)) is not None:
            rays.composite(samples, *field(samples.positions))
        rays.image, rays.depths, rays.opacities

    Arguments as in march_rays.
    """

    def __init__(
        self,
        origins: Tensor,
        directions: Tensor,
        starts: Tensor,
        fars: Tensor,
        occupancy: Occupancy,
        step_size: float,
    ) -> None:
        self._rays = [t.detach().contiguous() for t in (origins, directions, starts, fars)]
        _check_march(self._rays, step_size, 1)
        self.occupancy = occupancy
        self.step_size = float(step_size)
        n = len(origins)
        self.indices = torch.arange(n, device=origins.device)  # (A,) the rays still alive
        self._steps = torch.zeros_like(self.indices, dtype=torch.int32)  # (A,) next step of each
        self.image = origins.new_zeros(n, 3)
        self.depths = origins.new_zeros(n)
        self.optical_depth = origins.new_zeros(n)

    @property
    def opacities(self) -> Tensor:
        """(N,)"""
        return -torch.expm1(-self.optical_depth)

    def march(self, max_samples: int) -> Samples | None:
        """Return up to `max_samples` further samples of each alive ray, or None if no ray is alive.

        packed_info has a row for each of `indices`; ray_indices count all rays.
        """
        if max_samples < 1:
            raise ValueError(f"max_samples must be at least 1, got {max_samples}")
        grid = self.occupancy.bits, _floats(self.occupancy.box), self.step_size
        outputs = _operators(self.image).march_alive(
            self._rays, *grid, max_samples, self.indices, self._steps
        )
        self.indices, self._steps = outputs[4:]
        return Samples(*outputs[:4]) if len(self.indices) else None

    @torch.no_grad()
    def composite(self, samples: Samples, sigmas: Tensor, colors: Tensor) -> None:
        """Add the samples of the last march, with sigmas (M,) and colors (M, 3)."""
        m = len(samples.ts)
        if sigmas.shape != (m,) or colors.shape != (m, 3):
            shapes = [tuple(t.shape) for t in (sigmas, colors)]
            expected = f"({m},) and ({m}, 3)"
            raise ValueError(f"sigmas and colors must have shapes {expected}, got {shapes}")
        dtype = self.image.dtype
        deltas = torch.full_like(samples.ts, self.step_size)
        values = [sigmas.to(dtype), colors.to(dtype), deltas, samples.ts]
        state = self.depths, self.image, self.optical_depth, self._steps
        _operators(self.image).accumulate(
            values, self.indices, samples.packed_info, *state, -math.log(MIN_TRANSMITTANCE)
        )


# --- Arguments


def _operators(tensor: Tensor) -> Any:
    """Return the kernels for a tensor's device, or the reference, with the same functions."""
    if kernels.is_available("raymarching", tensor.device):
        return torch.ops.dreamfusion
    return reference


def _floats(box: tuple[float, ...]) -> list[float]:
    return [float(value) for value in box]


def _check_ints(name: str, value: Tensor, shape: str, fits: bool) -> None:
    if value.dtype != torch.int32:
        raise TypeError(f"{name} must be int32, got {value.dtype}")
    if not fits:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")


def _check_box(box: tuple[float, ...]) -> None:
    sides = [high - low for low, high in zip(box[:3], box[3:], strict=False)]
    if len(box) != 6 or not all(0 < side < math.inf for side in sides):
        raise ValueError(
            f"box must be x, y, z of its lowest, then of its highest corner, got {box}"
        )


def _check_rays(origins: Tensor, directions: Tensor) -> None:
    kernels.check_floats("origins", origins, "(N, 3)", 3)
    if directions.shape != origins.shape or directions.dtype != origins.dtype:
        expected = f"{tuple(origins.shape)} {origins.dtype} like origins"
        raise ValueError(
            f"directions must be {expected}, got {tuple(directions.shape)} {directions.dtype}"
        )


def _check_march(rays: list[Tensor], step_size: float, max_samples: int) -> None:
    origins = rays[0]
    _check_rays(origins, rays[1])
    for name, value in zip(("starts", "fars"), rays[2:], strict=True):
        if value.shape != origins.shape[:1] or value.dtype != origins.dtype:
            expected = f"({len(origins)},) {origins.dtype}, one number a ray"
            raise ValueError(f"{name} must be {expected}, got {tuple(value.shape)} {value.dtype}")
    if not 0 < step_size < math.inf:
        raise ValueError(f"step_size must be a positive finite number, got {step_size}")
    if not 1 <= max_samples < reference.MAX_STEPS:
        raise ValueError(
            f"max_samples must be from 1 to {reference.MAX_STEPS - 1}, got {max_samples}"
        )
