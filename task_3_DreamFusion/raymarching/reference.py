"""Ray marching in plain PyTorch: defines the results of the kernels, and runs where there are none.

Samples and their order agree exactly, since each is computed by the same rounded operations; sums
and exponentials agree up to rounding. Arguments are those of the operators that `_ops` registers.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_STEPS = 2**24  # the next step of a ray that has ended; float32 counts to here


# --- Cells


def spread_bits(v: Tensor) -> Tensor:
    """Move bit b of ten to bit 3 b."""
    return sum((((v >> b) & 1) << (3 * b) for b in range(10)), torch.zeros_like(v))


def morton3d(cells: Tensor) -> Tensor:
    """Return the Morton codes (N,) int32 of cells (N, 3) int32, each 0 to 1023."""
    bits = spread_bits(cells)
    return bits[:, 0] | bits[:, 1] << 1 | bits[:, 2] << 2


def morton3d_invert(codes: Tensor) -> Tensor:
    """Return the cells (N, 3) int32 of Morton codes (N,) int32."""
    axes = [
        sum((((codes >> (3 * b + d)) & 1) << b for b in range(10)), torch.zeros_like(codes))
        for d in range(3)
    ]
    return torch.stack(axes, 1)


def packbits(density: Tensor, threshold: float) -> Tensor:
    """Pack (8 n,) to (n,) uint8: bit b of byte i is density[8 i + b] > threshold."""
    powers = (2 ** torch.arange(8, device=density.device)).to(torch.uint8)
    return ((density > threshold).view(-1, 8) * powers).sum(1, dtype=torch.uint8)


def grid_resolution(bits: Tensor) -> int:
    """Return the number of cells along an axis of an occupancy grid of n^3 / 8 bytes."""
    return round((8 * bits.numel()) ** (1 / 3))


def is_occupied(positions: Tensor, bits: Tensor, box: list[float]) -> Tensor:
    """Return whether the cells of positions (..., 3) are occupied, (...,) bool.

    Positions outside the box count as the nearest cell.
    """
    low, high = positions.new_tensor(box).split(3)
    resolution = grid_resolution(bits)
    cells = ((positions - low) * (resolution / (high - low))).clamp(0, resolution - 1).int()
    codes = morton3d(cells.reshape(-1, 3)).view(cells.shape[:-1]).long()
    return (bits[codes >> 3].int() >> (codes & 7)) & 1 == 1


# --- Rays


def ray_aabb_intersect(
    origins: Tensor, directions: Tensor, box: list[float], near_plane: float
) -> tuple[Tensor, Tensor]:
    """Return where rays enter and leave a box, (N,) each; both `near_plane` for a miss."""
    low, high = origins.new_tensor(box).split(3)
    t_low = (low - origins) / directions
    t_high = (high - origins) / directions
    parallel = directions == 0
    outside = (parallel & ~((origins >= low) & (origins <= high))).any(1)
    enter = torch.where(parallel, -torch.inf, torch.minimum(t_low, t_high))
    leave = torch.where(parallel, torch.inf, torch.maximum(t_low, t_high))
    near = enter.amax(1).clamp(min=near_plane)
    far = leave.amin(1)
    hit = (near < far) & (far < torch.inf) & ~outside
    return torch.where(hit, near, near_plane), torch.where(hit, far, near_plane)


def packed_info_of(counts: Tensor, capacity: int | None) -> Tensor:
    """Return first sample and number of samples of each ray, (N, 2) int64, within the capacity."""
    counts = counts.long()
    firsts = counts.cumsum(0) - counts
    if capacity is not None:
        firsts = firsts.clamp(max=capacity)
        counts = torch.minimum(counts, capacity - firsts)
    return torch.stack([firsts, counts], 1)


def march(
    rays: list[Tensor],
    bits: Tensor,
    box: list[float],
    step_size: float,
    max_samples: int,
    steps: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the next samples of rays, from step number `steps` (N,) int32 on.

    rays: origins and directions (N, 3), starts and fars (N,). Returns positions (M, 3), ts (M,),
    the ray of each (M,) int64, and the number of samples and the next step of each ray, (N,) int32.
    """
    origins, directions = rays[:2]
    starts, fars = rays[2:]
    last_step = 0
    if len(starts):
        longest = ((fars - starts) / step_size).amax().nan_to_num(0)
        last_step = int(longest.clamp(0, MAX_STEPS - 1).item())
    k = torch.arange(last_step + 2, device=origins.device, dtype=torch.int32)  # (K,)
    ts = starts[:, None] + k.to(starts.dtype) * step_size  # (N, K)
    positions = origins[:, None] + ts[..., None] * directions[:, None]  # (N, K, 3)
    is_sample = (ts < fars[:, None]) & (k >= steps[:, None]) & is_occupied(positions, bits, box)
    kept = is_sample & (is_sample.cumsum(1) <= max_samples)
    counts = kept.sum(1, dtype=torch.int32)
    after_last = torch.where(kept, k, -1).amax(1) + 1
    next_steps = torch.where(counts == max_samples, after_last, MAX_STEPS).int()
    return positions[kept], ts[kept], kept.nonzero()[:, 0], counts, next_steps


def march_rays(
    rays: list[Tensor],
    bits: Tensor,
    box: list[float],
    step_size: float,
    max_samples: int,
    capacity: int | None,
) -> tuple[Tensor, ...]:
    """Return positions, ts, ray_indices and packed_info of march.Samples."""
    steps = torch.zeros_like(rays[2], dtype=torch.int32)
    *samples, counts = march(rays, bits, box, step_size, max_samples, steps)[:4]
    if capacity is not None:
        samples = [_resize(t, capacity) for t in samples]
    return *samples, packed_info_of(counts, capacity)


def _resize(values: Tensor, rows: int) -> Tensor:
    """Cut to a number of rows, or fill up with zeros."""
    values = values[:rows]
    return torch.cat([values, values.new_zeros(rows - len(values), *values.shape[1:])])


def march_alive(
    rays: list[Tensor],
    bits: Tensor,
    box: list[float],
    step_size: float,
    max_samples: int,
    alive: Tensor,
    steps: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the next samples of rays `alive` (A,), the rays that have any, and their next steps.

    The samples are positions, ts, ray_indices and packed_info (a row for each ray still alive).
    """
    rays = [t[alive] for t in rays]
    positions, ts, ray_indices, counts, next_steps = march(
        rays, bits, box, step_size, max_samples, steps
    )
    has_samples = counts > 0
    info = packed_info_of(counts, None)[has_samples]
    return positions, ts, alive[ray_indices], info, alive[has_samples], next_steps[has_samples]


# --- Compositing


def pad_rays(values: Tensor, packed_info: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each ray's values (M,) in a row padded with 0: (N, K); a mask; indices in values."""
    longest = int(packed_info[:, 1].amax().item()) if len(packed_info) else 0
    k = torch.arange(longest, device=values.device)
    mask = k < packed_info[:, 1:]
    indices = torch.where(mask, packed_info[:, :1] + k, 0)
    if not longest:
        return values.new_zeros(indices.shape), mask, indices
    return torch.where(mask, values[indices], 0), mask, indices


def weighted_sum(w: Tensor, values: Tensor, mask: Tensor, indices: Tensor) -> Tensor:
    """Return each ray's sum (N, C) of values (M, C), with w, mask and indices (N, K) of its row.

    The padding counts for nothing, even where values[0], to which it points, is not finite.
    """
    return (w[..., None] * torch.where(mask[..., None], values[indices], 0)).sum(1)


def composite_rays(
    sigmas: Tensor,
    features: Tensor,
    deltas: Tensor,
    ts: Tensor,
    packed_info: Tensor,
    max_optical_depth: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return image (N, C), depths (N,), opacities (N,) and weights (M,). NeRF, equation 3."""
    s, mask, indices = pad_rays(sigmas * deltas, packed_info)
    w = _weights(s, torch.zeros_like(s[:, :1]), max_optical_depth)
    weights = torch.zeros_like(sigmas).index_put((indices[mask],), w[mask])
    image = weighted_sum(w, features, mask, indices)
    depths = weighted_sum(w, ts[:, None], mask, indices)[:, 0]
    return image, depths, w.sum(1), weights


def accumulate(
    values: list[Tensor],
    alive: Tensor,
    packed_info: Tensor,
    depths: Tensor,
    image: Tensor,
    optical_depth: Tensor,
    steps: Tensor,
    max_optical_depth: float,
) -> None:
    """Add samples to depths, image and optical depth of alive rays (A,); end the opaque ones.

    values: sigmas, features, deltas and ts, as in `composite_rays`.
    """
    sigmas, features = values[:2]
    deltas, ts = values[2:]
    s, mask, indices = pad_rays(sigmas * deltas, packed_info)
    before = optical_depth[alive, None]
    w = _weights(s, before, max_optical_depth)
    image[alive] += weighted_sum(w, features, mask, indices)
    depths[alive] += weighted_sum(w, ts[:, None], mask, indices)[:, 0]
    reached = before + exclusive_sum(s) <= max_optical_depth
    optical_depth[alive] += torch.where(reached, s, 0).sum(1)
    steps[optical_depth[alive] > max_optical_depth] = MAX_STEPS


def exclusive_sum(s: Tensor) -> Tensor:
    """Return the sum of a row before each element; cumsum - s would turn an infinite s into NaN."""
    return torch.cat([torch.zeros_like(s[:, :1]), s.cumsum(1)[:, :-1]], 1)


def _weights(s: Tensor, before: Tensor, max_optical_depth: float) -> Tensor:
    """Return T (1 - exp(-s)), s (N, K) behind optical depth `before` (N, 1); 0 for small T."""
    tau = before + exclusive_sum(s)
    return torch.where(tau <= max_optical_depth, (-tau).exp() * -torch.expm1(-s), 0)
