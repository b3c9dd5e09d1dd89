"""Ray marching in plain PyTorch: what the kernels have to give, and what runs where there are none.

Samples and their order agree with the kernels' exactly, because each is one rounded operation after the other, here
and there; sums and exponentials agree up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

LAST = 2**24  # the step of a ray that is done


def spread(v: Tensor) -> Tensor:
    """Moves bit b of ten to bit 3 b."""
    return sum((((v >> b) & 1) << (3 * b) for b in range(10)), torch.zeros_like(v))


def morton3d(cells: Tensor) -> Tensor:
    """(N, 3) int32, each 0 to 1023, to (N,) int32: bits of x, y and z in turns, x lowest."""
    return spread(cells[:, 0]) | spread(cells[:, 1]) << 1 | spread(cells[:, 2]) << 2


def morton3d_invert(codes: Tensor) -> Tensor:
    """(N,) int32 to (N, 3) int32."""
    axes = [sum((((codes >> (3 * b + d)) & 1) << b for b in range(10)), torch.zeros_like(codes)) for d in range(3)]
    return torch.stack(axes, 1)


def packbits(density: Tensor, threshold: float) -> Tensor:
    """(8 n,) to (n,) uint8: bit b of byte i says whether density[8 i + b] > threshold."""
    powers = (2 ** torch.arange(8, device=density.device)).to(torch.uint8)
    return ((density > threshold).view(-1, 8) * powers).sum(1, dtype=torch.uint8)


def near_far(origins: Tensor, directions: Tensor, box: tuple[float, ...], least: float) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave a box, (N,) each; both `least` for a ray that misses it."""
    low, high = origins.new_tensor(box[:3]), origins.new_tensor(box[3:])
    a, b = (low - origins) / directions, (high - origins) / directions
    flat = directions == 0
    outside = (flat & ~((origins >= low) & (origins <= high))).any(1)
    near = torch.where(flat, -torch.inf, torch.minimum(a, b)).amax(1).clamp(min=least)
    far = torch.where(flat, torch.inf, torch.maximum(a, b)).amin(1)
    hit = (near < far) & (far < torch.inf) & ~outside
    return torch.where(hit, near, least), torch.where(hit, far, least)


def occupied(positions: Tensor, bits: Tensor, box: tuple[float, ...], resolution: int) -> Tensor:
    """Whether the cells of positions (..., 3) are occupied, (...,) bool; outside counts as the nearest cell."""
    low, high = positions.new_tensor(box[:3]), positions.new_tensor(box[3:])
    cells = ((positions - low) * (resolution / (high - low))).clamp(0, resolution - 1).int()
    codes = morton3d(cells.reshape(-1, 3)).view(cells.shape[:-1]).long()
    return (bits[codes >> 3].int() >> (codes & 7)) & 1 == 1


def march(
    origins: Tensor, directions: Tensor, starts: Tensor, fars: Tensor, bits: Tensor, box: tuple[float, ...],
    resolution: int, step: float, limit: int, steps: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The samples of rays from their `steps` on: all lattice points before `far` in occupied cells, up to `limit`.

    Returns positions (M, 3), ts (M,), the ray of each (M,) int64, counts (N,) and the next steps (N,), int32.
    """
    longest = ((fars - starts) / step).amax().clamp(0, LAST - 1) if len(starts) else torch.zeros(())
    k = torch.arange(int(longest.item()) + 2, device=origins.device, dtype=torch.int32)  # (K,)
    ts = starts[:, None] + k.to(starts.dtype) * step  # (N, K)
    positions = origins[:, None] + ts[..., None] * directions[:, None]  # (N, K, 3)
    found = (ts < fars[:, None]) & (k >= steps[:, None]) & occupied(positions, bits, box, resolution)
    rank = found.int().cumsum(1)
    kept = found & (rank <= limit)
    counts = kept.sum(1, dtype=torch.int32)
    last = torch.where(kept, k, -1).amax(1)
    following = torch.where(counts == limit, last + 1, LAST).int()
    return positions[kept], ts[kept], kept.nonzero()[:, 0], counts, following


def composite_rays(
    sigmas: Tensor, features: Tensor, deltas: Tensor, ts: Tensor, spans: Tensor, opaque: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image (N, C), depths (N,), opacities (N,) and weights (M,). NeRF, equation 3."""
    longest = int(spans[:, 1].amax().item()) if len(spans) else 0
    k = torch.arange(longest, device=sigmas.device)
    here = k < spans[:, 1:]  # (N, K): every ray's samples side by side, filled up at the end
    at = torch.where(here, spans[:, :1] + k, 0)
    s = torch.where(here, (sigmas * deltas)[at], 0) if longest else sigmas.new_zeros(at.shape)
    tau = s.cumsum(1) - s
    w = torch.where(here & (tau <= opaque), (-tau).exp() * -torch.expm1(-s), 0)  # (N, K)
    weights = torch.zeros_like(sigmas).index_put((at[here],), w[here])
    image = (w[..., None] * features[at]).sum(1) if longest else features.new_zeros(len(spans), features.shape[1])
    depths = (w * ts[at]).sum(1) if longest else sigmas.new_zeros(len(spans))
    return image, depths, w.sum(1), weights
