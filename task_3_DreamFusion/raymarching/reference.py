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
    axes = [
        sum((((codes >> (3 * b + d)) & 1) << b for b in range(10)), torch.zeros_like(codes))
        for d in range(3)
    ]
    return torch.stack(axes, 1)


def packbits(density: Tensor, threshold: float) -> Tensor:
    """(8 n,) to (n,) uint8: bit b of byte i says whether density[8 i + b] > threshold."""
    powers = (2 ** torch.arange(8, device=density.device)).to(torch.uint8)
    return ((density > threshold).view(-1, 8) * powers).sum(1, dtype=torch.uint8)


def near_far(
    origins: Tensor, directions: Tensor, box: list[float], least: float
) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave a box, (N,) each; both `least` for a ray that misses it."""
    low, high = origins.new_tensor(box[:3]), origins.new_tensor(box[3:])
    a, b = (low - origins) / directions, (high - origins) / directions
    flat = directions == 0
    outside = (flat & ~((origins >= low) & (origins <= high))).any(1)
    near = torch.where(flat, -torch.inf, torch.minimum(a, b)).amax(1).clamp(min=least)
    far = torch.where(flat, torch.inf, torch.maximum(a, b)).amin(1)
    hit = (near < far) & (far < torch.inf) & ~outside
    return torch.where(hit, near, least), torch.where(hit, far, least)


def resolution_of(bits: Tensor) -> int:
    """Cells along an axis of an occupancy grid of n^3 / 8 bytes."""
    return round((8 * bits.numel()) ** (1 / 3))


def occupied(positions: Tensor, bits: Tensor, box: list[float]) -> Tensor:
    """Whether the cells of positions (..., 3) are occupied, (...,) bool; outside counts as the nearest cell."""
    low, high, resolution = (
        positions.new_tensor(box[:3]),
        positions.new_tensor(box[3:]),
        resolution_of(bits),
    )
    cells = ((positions - low) * (resolution / (high - low))).clamp(0, resolution - 1).int()
    codes = morton3d(cells.reshape(-1, 3)).view(cells.shape[:-1]).long()
    return (bits[codes >> 3].int() >> (codes & 7)) & 1 == 1


def spans_of(counts: Tensor, capacity: int | None) -> Tensor:
    """First sample and number of samples of each ray, (N, 2) int64, by a prefix sum; no sample beyond the capacity."""
    counts = counts.long()
    firsts = counts.cumsum(0) - counts
    if capacity is not None:
        firsts = firsts.clamp(max=capacity)
        counts = torch.minimum(counts, capacity - firsts)
    return torch.stack([firsts, counts], 1)


def march(
    origins: Tensor, directions: Tensor, starts: Tensor, fars: Tensor, bits: Tensor, box: list[float], step: float,
    limit: int, steps: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The samples of rays from their `steps` on: all lattice points before `far` in occupied cells, up to `limit`.

    Returns positions (M, 3), ts (M,), the ray of each (M,) int64, counts (N,) and the next steps (N,), int32.
    """
    longest = (
        ((fars - starts) / step).amax().nan_to_num(0).clamp(0, LAST - 1).item()
        if len(starts)
        else 0
    )
    k = torch.arange(int(longest) + 2, device=origins.device, dtype=torch.int32)  # (K,)
    ts = starts[:, None] + k.to(starts.dtype) * step  # (N, K)
    positions = origins[:, None] + ts[..., None] * directions[:, None]  # (N, K, 3)
    found = (ts < fars[:, None]) & (k >= steps[:, None]) & occupied(positions, bits, box)
    kept = found & (found.cumsum(1) <= limit)
    counts = kept.sum(1, dtype=torch.int32)
    following = torch.where(counts == limit, torch.where(kept, k, -1).amax(1) + 1, LAST).int()
    return positions[kept], ts[kept], kept.nonzero()[:, 0], counts, following


def march_rays(
    origins: Tensor, directions: Tensor, starts: Tensor, fars: Tensor, bits: Tensor, box: list[float], step: float,
    limit: int, capacity: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Positions, ts, rays and spans, as march.Samples has them."""
    none = torch.zeros(len(origins), dtype=torch.int32, device=origins.device)
    positions, ts, rays, counts, _ = march(
        origins, directions, starts, fars, bits, box, step, limit, none
    )
    if capacity is not None:
        cut = [t[:capacity] for t in (positions, ts, rays)]
        positions, ts, rays = (
            torch.cat([t, t.new_zeros(capacity - len(t), *t.shape[1:])]) for t in cut
        )
    return positions, ts, rays, spans_of(counts, capacity)


def march_living(
    origins: Tensor, directions: Tensor, starts: Tensor, fars: Tensor, bits: Tensor, box: list[float], step: float,
    limit: int, living: Tensor, steps: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Some samples further: those of the rays in `living`, then which of these found any, and their next steps."""
    found = march(
        origins[living],
        directions[living],
        starts[living],
        fars[living],
        bits,
        box,
        step,
        limit,
        steps,
    )
    positions, ts, owners, counts, following = found
    alive = counts > 0
    return (
        positions,
        ts,
        living[owners],
        spans_of(counts, None)[alive],
        living[alive],
        following[alive],
    )


def side_by_side(values: Tensor, spans: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each ray's values in a row, filled up with 0: (N, K); which of them there are; and where they come from."""
    longest = int(spans[:, 1].amax().item()) if len(spans) else 0
    k = torch.arange(longest, device=values.device)
    here = k < spans[:, 1:]
    at = torch.where(here, spans[:, :1] + k, 0)
    return torch.where(here, values[at], 0) if longest else values.new_zeros(at.shape), here, at


def composite_rays(
    sigmas: Tensor, features: Tensor, deltas: Tensor, ts: Tensor, spans: Tensor, opaque: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image (N, C), depths (N,), opacities (N,) and weights (M,). NeRF, equation 3."""
    s, here, at = side_by_side(sigmas * deltas, spans)
    w = _weights(s, torch.zeros_like(s[:, :1]), opaque)
    weights = torch.zeros_like(sigmas).index_put((at[here],), w[here])
    return (w[..., None] * features[at]).sum(1), (w * ts[at]).sum(1), w.sum(1), weights


def accumulate(
    sigmas: Tensor, features: Tensor, deltas: Tensor, ts: Tensor, living: Tensor, spans: Tensor, depths: Tensor,
    image: Tensor, spent: Tensor, steps: Tensor, opaque: float,
) -> None:  # fmt: skip
    """Adds a batch of samples to the living rays' depths, image and spent optical depth; ends the opaque ones."""
    s, _, at = side_by_side(sigmas * deltas, spans)
    before = spent[living, None]
    w = _weights(s, before, opaque)
    image[living] += (w[..., None] * features[at]).sum(1)
    depths[living] += (w * ts[at]).sum(1)
    spent[living] += torch.where(before + before_each(s) <= opaque, s, 0).sum(1)
    steps[spent[living] > opaque] = LAST


def before_each(s: Tensor) -> Tensor:
    """The sum of what lies before each element of a row; not cumsum - s, which an infinite s would turn into NaN."""
    return torch.cat([torch.zeros_like(s[:, :1]), s.cumsum(1)[:, :-1]], 1)


def _weights(s: Tensor, before: Tensor, opaque: float) -> Tensor:
    """T (1 - exp(-s)) along rows of optical depths s (N, K), when (N, 1) lies before; 0 where T is too little."""
    tau = before + before_each(s)
    return torch.where(tau <= opaque, (-tau).exp() * -torch.expm1(-s), 0)
