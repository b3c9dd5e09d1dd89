"""Ray marching through an occupancy grid (Instant-NGP, appendix E) and compositing along rays (NeRF, equation 3).

A ray's samples lie at start + k * step, k = 0, 1, ..., where they are before `far` and in an occupied cell. So the
layout depends on nothing but rays and grid: counted, placed by a prefix sum and written, it is the same in every run,
on CPU and GPU. Random starts, drawn by the caller, take the place of random steps.

The occupancy grid is a cube of cells over a box, one bit a cell in Morton order: bit `code & 7` of byte `code >> 3`.
Its cells may be flattened boxes; the number along an axis is a power of two from 4 to 1024.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from task_3_DreamFusion import kernels
from task_3_DreamFusion.raymarching import reference
from task_3_DreamFusion.raymarching.reference import LAST, resolution_of, spans_of

THRESHOLD = 1e-4  # Instant-NGP, appendix E: a ray ends when it lets less light through


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
            raise TypeError(f"bits are {self.bits.dtype}: pack them to uint8 by packbits")
        side = self.resolution
        if self.bits.shape != (side**3 // 8,) or not 4 <= side <= 1024 or side.bit_count() != 1:
            raise ValueError(
                f"bits have shape {tuple(self.bits.shape)}: give n^3 / 8 bytes for n = 4, 8, ..., 1024"
            )
        _check_box(self.box)

    @property
    def resolution(self) -> int:
        """Cells along an axis."""
        return resolution_of(self.bits)


class Samples(NamedTuple):
    """What a march found. Samples of a ray follow each other, nearest first; rays are in their order.

    positions: (M, 3). ts: (M,) distance along the ray. rays: (M,) int64, whose sample it is.
    spans: (N, 2) int64, first sample and number of samples of each ray.
    """

    positions: Tensor
    ts: Tensor
    rays: Tensor
    spans: Tensor

    def parts(self, count: int) -> list[Samples]:
        """What `march_rays` found along `count` rays at a time (of the last part fewer), each as if marched alone."""
        total = len(self.spans)
        last = torch.arange(
            count - 1, total + count - 1, count, device=self.spans.device
        ).clamp_max(total - 1)
        found = []
        for k, (begin, end) in enumerate(
            itertools.pairwise([0, *self.spans[last].sum(1).tolist()])
        ):
            spans = self.spans[k * count : (k + 1) * count]
            spans = torch.stack([spans[:, 0] - begin, spans[:, 1]], 1)
            rows = slice(begin, end)
            found.append(
                Samples(self.positions[rows], self.ts[rows], self.rays[rows] - k * count, spans)
            )
        return found


class Composited(NamedTuple):
    """Sums along rays: image (N, C), depths (N,) as sums of w t, opacities (N,), and the weights w (M,)."""

    image: Tensor
    depths: Tensor
    opacities: Tensor
    weights: Tensor


# --- Cells


def morton3d(cells: Tensor) -> Tensor:
    """Morton codes of cells: (N, 3) int32, each 0 to 1023, to (N,) int32; the bits of x, y, z in turns, x lowest.

    Raises TypeError or ValueError for another type or shape.

    >>> morton3d(torch.tensor([[1, 0, 0], [0, 1, 0], [3, 0, 0]], dtype=torch.int32))
    tensor([1, 2, 9], dtype=torch.int32)
    """
    _check_ints("cells", cells, "(N, 3)", cells.ndim == 2 and cells.shape[-1] == 3)
    return _operations(cells).morton3d(cells)


def morton3d_invert(codes: Tensor) -> Tensor:
    """The cells of Morton codes: (N,) int32 to (N, 3) int32. Raises TypeError or ValueError as morton3d."""
    _check_ints("codes", codes, "(N,)", codes.ndim == 1)
    return _operations(codes).morton3d_invert(codes)


def packbits(density: Tensor, threshold: float) -> Tensor:
    """One bit a cell: (8 n,) float to (n,) uint8, bit b of byte i for density[8 i + b] > threshold."""
    if density.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"density is {density.dtype}: give float32 or float64")
    if density.ndim != 1 or len(density) % 8:
        raise ValueError(f"density has shape {tuple(density.shape)}, not (8 n,)")
    return _operations(density).packbits(density.detach(), float(threshold))


# --- Rays


def near_far(
    origins: Tensor, directions: Tensor, box: tuple[float, ...], least: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave a box.

    Args:
        origins, directions: (N, 3) float32 or float64.
        box: x, y, z of its lowest, then of its highest corner.
        least: no ray begins nearer than that.
    Returns:
        nears, fars: (N,) in units of the direction's length; both `least` for a ray that misses the box.
    """
    _check_rays(origins, directions)
    _check_box(box)
    return _operations(origins).near_far(
        origins.detach(), directions.detach(), _numbers(box), float(least)
    )


def march_rays(
    origins: Tensor,
    directions: Tensor,
    starts: Tensor,
    fars: Tensor,
    occupancy: Occupancy,
    step: float,
    limit: int = 1024,
    capacity: int | None = None,
) -> Samples:
    """The samples of a training step: on each ray all in occupied cells, up to `limit`.

    Args:
        origins, directions: (N, 3) float32 or float64.
        starts: (N,) the first sample's distance: `nears + step * torch.rand(N)` makes an image's rays differ.
        fars: (N,) no sample beyond.
        step: distance between samples. Instant-NGP takes sqrt(3) / 1024 of the box's side.
        capacity: number of rows M whatever is found, so that nothing waits for the GPU to count. Rays lose the samples
            that find no room; rows that are left are zeros and in no span.
    Raises:
        TypeError, ValueError: if something does not fit.
    """
    _check_march(origins, directions, starts, fars, step, limit)
    if capacity is not None and capacity < 0:
        raise ValueError(
            f"capacity is {capacity}: give a number of samples, or None for as many as there are"
        )
    rays = [t.detach() for t in (origins, directions, starts, fars)]
    where = occupancy.bits, _numbers(occupancy.box), float(step)
    return Samples(*_operations(origins).march_rays(*rays, *where, limit, capacity))


def composite_rays(
    sigmas: Tensor, features: Tensor, deltas: Tensor, samples: Samples, threshold: float = THRESHOLD
) -> Composited:
    """Sums features along rays with w = T (1 - exp(-sigma delta)), T = exp(-sum of sigma delta). NeRF, equation 3.

    Computes in float32 (half and bfloat16 are converted), or in float64 if sigmas are.

    Args:
        sigmas: (M,) density. features: (M, C). deltas: (M,) length that each sample stands for.
        samples: from march_rays.
        threshold: samples count only as long as T is at least that; 0 to 1.
    Returns:
        Composited, differentiable once in sigmas and features.
    Raises:
        TypeError, ValueError: if something does not fit.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold is {threshold}: choose 0 (never stop) to 1")
    m = len(samples.ts)
    if sigmas.shape != (m,) or deltas.shape != (m,) or features.ndim != 2 or len(features) != m:
        shapes = [tuple(t.shape) for t in (sigmas, features, deltas)]
        raise ValueError(
            f"sigmas, features and deltas have shapes {shapes}: give ({m},), ({m}, C) and ({m},)"
        )
    dtype = torch.float64 if sigmas.dtype == torch.float64 else torch.float32
    values = [sigmas.to(dtype), features.to(dtype), deltas.to(dtype), samples.ts.to(dtype)]
    opaque = -math.log(threshold) if threshold else math.inf
    return Composited(*_operations(sigmas).composite_rays(*values, samples.spans, opaque))


class LivingRays:
    """An image in rounds: each takes some samples further along the rays that are still alive.

    A ray dies when it left the box or lets no more light through; the living move together on the device, so that the
    field is asked only where something is still to be seen.

        rays = LivingRays(origins, directions, starts, fars, occupancy, step)
        while (samples := rays.march(8)) is not None:
            rays.composite(samples, *field(samples.positions))
        rays.image, rays.depths, rays.opacities

    Args:
        origins, directions, starts, fars, occupancy, step, threshold: as march_rays and composite_rays have them.
        channels: C of the features.
    """

    def __init__(
        self,
        origins: Tensor,
        directions: Tensor,
        starts: Tensor,
        fars: Tensor,
        occupancy: Occupancy,
        step: float,
        channels: int = 3,
        threshold: float = THRESHOLD,
    ) -> None:
        _check_march(origins, directions, starts, fars, step, 1)
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold is {threshold}: choose 0 (never stop) to 1")
        self._rays = [t.detach().contiguous() for t in (origins, directions, starts, fars)]
        self.occupancy, self.step = occupancy, float(step)
        self._opaque = -math.log(threshold) if threshold else math.inf
        n, device = len(origins), origins.device
        self.living = torch.arange(n, device=device)  # (A,)
        self._steps = torch.zeros(n, dtype=torch.int32, device=device)  # (A,) where each goes on
        self.image = origins.new_zeros(n, channels)
        self.depths, self._spent = origins.new_zeros(n), origins.new_zeros(n)

    @property
    def opacities(self) -> Tensor:
        """(N,)"""
        return -torch.expm1(-self._spent)

    def march(self, limit: int) -> Samples | None:
        """Up to `limit` samples further on each living ray, or None if none is alive.

        spans are those of the rays in `living`, rays those of the whole image.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}: take at least one sample of a ray")
        where = self.occupancy.bits, _numbers(self.occupancy.box), self.step
        *found, self.living, self._steps = _operations(self.image).march_living(
            *self._rays, *where, limit, self.living, self._steps
        )
        return Samples(*found) if len(self.living) else None

    @torch.no_grad()
    def composite(self, samples: Samples, sigmas: Tensor, features: Tensor) -> None:
        """Adds the samples of the last march: sigmas (M,), features (M, C)."""
        if sigmas.shape != samples.ts.shape or features.shape != (len(sigmas), self.image.shape[1]):
            shapes = [tuple(t.shape) for t in (sigmas, features)]
            m = len(samples.ts)
            raise ValueError(
                f"sigmas and features have shapes {shapes}: give ({m},) and ({m}, {self.image.shape[1]})"
            )
        dtype, deltas = self.image.dtype, torch.full_like(samples.ts, self.step)
        values = sigmas.to(dtype), features.to(dtype), deltas, samples.ts
        state = self.depths, self.image, self._spent, self._steps
        _operations(self.image).accumulate(
            *values, self.living, samples.spans, *state, self._opaque
        )


# --- What comes in


def _operations(tensor: Tensor) -> Any:
    """The kernels for the device of a tensor, or their reference: functions of the same names and arguments."""
    return torch.ops.dreamfusion if kernels.ready("raymarching", tensor.device) else reference


def _numbers(box: tuple[float, ...]) -> list[float]:
    return [float(value) for value in box]


def _check_ints(name: str, value: Tensor, shape: str, fits: bool) -> None:
    if value.dtype != torch.int32:
        raise TypeError(f"{name} are {value.dtype}: give int32")
    if not fits:
        raise ValueError(f"{name} have shape {tuple(value.shape)}, not {shape}")


def _check_box(box: tuple[float, ...]) -> None:
    if len(box) != 6 or not all(
        0 < high - low < math.inf for low, high in zip(box[:3], box[3:], strict=True)
    ):
        raise ValueError(f"box is {box}: give x, y, z of the lowest, then of the highest corner")


def _check_rays(origins: Tensor, directions: Tensor) -> None:
    kernels.check_floats("origins", origins, "(N, 3)", 3)
    if directions.shape != origins.shape or directions.dtype != origins.dtype:
        said = f"{tuple(directions.shape)} {directions.dtype}, origins {tuple(origins.shape)} {origins.dtype}"
        raise ValueError(f"directions are {said}: give both alike")


def _check_march(
    origins: Tensor, directions: Tensor, starts: Tensor, fars: Tensor, step: float, limit: int
) -> None:  # fmt: skip
    _check_rays(origins, directions)
    for name, value in (("starts", starts), ("fars", fars)):
        if value.shape != origins.shape[:1] or value.dtype != origins.dtype:
            said = f"{tuple(value.shape)} {value.dtype}, origins {tuple(origins.shape)} {origins.dtype}"
            raise ValueError(f"{name} are {said}: give one number of that type a ray")
    if not (step > 0 and math.isfinite(step)):
        raise ValueError(f"step is {step}: choose a positive distance between samples")
    if not 1 <= limit < LAST:
        raise ValueError(f"limit is {limit}: choose 1 to {LAST - 1} samples a ray")


# --- The operations


def _call(function: str, first: Tensor, *arguments: object) -> None:
    kernels.call("raymarching", function, first.device, kernels.TYPES[first.dtype], *arguments)


def _morton3d(cells: Tensor) -> Tensor:
    codes = cells.new_empty(len(cells))
    kernels.call("raymarching", "morton3d", cells.device, cells.contiguous(), codes, len(cells))
    return codes


def _morton3d_invert(codes: Tensor) -> Tensor:
    cells = codes.new_empty(len(codes), 3)
    kernels.call(
        "raymarching", "morton3d_invert", codes.device, codes.contiguous(), cells, len(codes)
    )
    return cells


def _packbits(density: Tensor, threshold: float) -> Tensor:
    bits = torch.empty(len(density) // 8, dtype=torch.uint8, device=density.device)
    _call("packbits", density, density.contiguous(), bits, threshold, len(bits))
    return bits


def _near_far(
    origins: Tensor, directions: Tensor, box: list[float], least: float
) -> tuple[Tensor, Tensor]:
    nears, fars = origins.new_empty(len(origins)), origins.new_empty(len(origins))
    rays = origins.contiguous(), directions.contiguous()
    _call("near_far", origins, *rays, nears, fars, least, *box, len(origins))
    return nears, fars


def _count(scene: tuple, limit: int, rays: int) -> tuple[Tensor, Tensor]:
    origins = scene[0]
    counts, following = torch.empty(2, rays, dtype=torch.int32, device=origins.device)
    _call("march_count", origins, *scene, counts, following, limit, rays)
    return counts, following


def _write(scene: tuple, spans: Tensor, total: int) -> tuple[Tensor, Tensor, Tensor]:
    origins = scene[0]
    positions, ts = origins.new_zeros(total, 3), origins.new_zeros(total)
    owners = torch.zeros(total, dtype=torch.int64, device=origins.device)
    _call("march_write", origins, *scene, spans, positions, ts, owners, len(spans))
    return positions, ts, owners


def _scene(
    rays: tuple[Tensor, ...], bits: Tensor, box: list[float], step: float, *which: Tensor | None
) -> tuple:
    """The first arguments of march_count and march_write."""
    bits = bits.contiguous()
    bits = bits if bits.data_ptr() % 8 == 0 else bits.clone()  # eight bytes are read at once
    return (*(t.contiguous() for t in rays), bits, resolution_of(bits), step, *box, *which)


def _march_rays(
    origins: Tensor, directions: Tensor, starts: Tensor, fars: Tensor, bits: Tensor, box: list[float], step: float,
    limit: int, capacity: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    scene = _scene((origins, directions, starts, fars), bits, box, step, None, None)
    counts, _ = _count(scene, limit, len(origins))
    spans = spans_of(counts, capacity)
    total = int(spans[:, 1].sum().item()) if capacity is None else capacity
    return *_write(scene, spans, total), spans


def _march_living(
    origins: Tensor, directions: Tensor, starts: Tensor, fars: Tensor, bits: Tensor, box: list[float], step: float,
    limit: int, living: Tensor, steps: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    scene = _scene((origins, directions, starts, fars), bits, box, step, living, steps)
    counts, following = _count(scene, limit, len(living))
    ends, slots = torch.stack([counts.long(), (counts > 0).long()]).cumsum(1)  # (2, A)
    total, alive = (
        torch.stack([ends[-1], slots[-1]]).tolist() if len(living) else (0, 0)
    )  # the only wait
    spans = torch.stack([ends - counts, counts.long()], 1)
    found = _write(scene, spans, total)
    new_living, new_spans = living.new_empty(alive), living.new_empty(alive, 2)
    new_steps = steps.new_empty(alive)
    where = living.contiguous(), slots, counts, following, ends - counts
    kernels.call(
        "raymarching", "compact", origins.device, *where, new_living, new_spans, new_steps, len(living)
    )  # fmt: skip
    return *found, new_spans, new_living, new_steps


def _accumulate(
    sigmas: Tensor, features: Tensor, deltas: Tensor, ts: Tensor, living: Tensor, spans: Tensor, depths: Tensor,
    image: Tensor, spent: Tensor, steps: Tensor, opaque: float,
) -> None:  # fmt: skip
    values = [t.contiguous() for t in (sigmas, features, deltas, ts)]
    state = (living, spans, depths, image, spent, steps)
    _call("accumulate", sigmas, *values, *state, image.shape[1], opaque, len(living))


def _composite(
    sigmas: Tensor, features: Tensor, deltas: Tensor, ts: Tensor, spans: Tensor, opaque: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n, channels = len(spans), features.shape[1]
    image, depths, opacities = (
        sigmas.new_empty(n, channels),
        sigmas.new_empty(n),
        sigmas.new_empty(n),
    )
    weights = torch.zeros_like(sigmas, memory_format=torch.contiguous_format)
    values = [t.contiguous() for t in (sigmas, features, deltas, ts, spans)]
    _call("composite_rays", sigmas, *values, channels, opaque, image, depths, opacities, weights, n)
    return image, depths, opacities, weights


def _composite_grad(
    sigmas: Tensor, features: Tensor, deltas: Tensor, ts: Tensor, spans: Tensor, weights: Tensor, d_image: Tensor,
    d_depths: Tensor, d_opacities: Tensor, d_weights: Tensor, opaque: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    d_sigmas = torch.zeros_like(sigmas, memory_format=torch.contiguous_format)
    d_features = torch.zeros_like(features, memory_format=torch.contiguous_format)
    values = [t.contiguous() for t in (sigmas, features, deltas, ts, spans)]
    grads = [t.contiguous() for t in (weights, d_image, d_depths, d_opacities, d_weights)]
    _call(
        "composite_rays_grad", sigmas, *values, features.shape[1], opaque, *grads, d_sigmas, d_features, len(spans)
    )  # fmt: skip
    return d_sigmas, d_features


def _save(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: tuple[Tensor, ...]
) -> None:
    *tensors, ctx.opaque = inputs
    ctx.save_for_backward(*tensors, output[3])


def _composite_backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple:
    d_sigmas, d_features = torch.ops.dreamfusion.composite_rays_grad(
        *ctx.saved_tensors, *grads, ctx.opaque
    )
    return d_sigmas, d_features, None, None, None, None


def _fake_march(origins: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    capacity = rest[-1]
    m = torch.library.get_ctx().new_dynamic_size() if capacity is None else capacity
    long = dict(dtype=torch.int64, device=origins.device)
    n = origins.shape[0]
    return (
        origins.new_empty(m, 3),
        origins.new_empty(m),
        torch.empty(m, **long),
        torch.empty(n, 2, **long),
    )


def _fake_living(origins: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    m, a = (torch.library.get_ctx().new_dynamic_size() for _ in range(2))
    living, steps = rest[-2:]
    samples = origins.new_empty(m, 3), origins.new_empty(m), living.new_empty(m)
    return *samples, living.new_empty(a, 2), living.new_empty(a), steps.new_empty(a)


def _fake_composite(
    sigmas: Tensor, features: Tensor, deltas: Tensor, ts: Tensor, spans: Tensor, opaque: float
) -> tuple:
    n = spans.shape[0]
    one = sigmas.new_empty(n)
    return (
        sigmas.new_empty(n, features.shape[1]),
        one,
        torch.empty_like(one),
        sigmas.new_empty(sigmas.shape),
    )


_RAYS = "Tensor origins, Tensor directions, Tensor starts, Tensor fars, Tensor bits, float[] box, float step, int limit"
_VALUES = "Tensor sigmas, Tensor features, Tensor deltas, Tensor ts"
kernels.register(
    "morton3d(Tensor cells) -> Tensor", _morton3d, lambda cells: cells.new_empty(cells.shape[0])
)
kernels.register(
    "morton3d_invert(Tensor codes) -> Tensor",
    _morton3d_invert,
    lambda codes: codes.new_empty(codes.shape[0], 3),
)
kernels.register(
    "packbits(Tensor density, float threshold) -> Tensor",
    _packbits,
    lambda density, threshold: density.new_empty(density.shape[0] // 8, dtype=torch.uint8),
)
kernels.register(
    "near_far(Tensor origins, Tensor directions, float[] box, float least) -> (Tensor, Tensor)",
    _near_far,
    lambda origins, *_: (origins.new_empty(origins.shape[0]), origins.new_empty(origins.shape[0])),
)
kernels.register(
    f"march_rays({_RAYS}, SymInt? capacity) -> (Tensor, Tensor, Tensor, Tensor)",
    _march_rays,
    _fake_march,
)
kernels.register(
    f"march_living({_RAYS}, Tensor living, Tensor steps) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _march_living,
    _fake_living,
)
kernels.register(
    f"accumulate({_VALUES}, Tensor living, Tensor spans, Tensor(a!) depths, Tensor(b!) image, Tensor(c!) spent, "
    "Tensor(d!) steps, float opaque) -> ()",
    _accumulate,
    lambda *_: None,
)
kernels.register(
    f"composite_rays({_VALUES}, Tensor spans, float opaque) -> (Tensor, Tensor, Tensor, Tensor)",
    _composite,
    _fake_composite,
    _composite_backward,
    _save,
)
kernels.register(
    f"composite_rays_grad({_VALUES}, Tensor spans, Tensor weights, Tensor d_image, Tensor d_depths, "
    "Tensor d_opacities, Tensor d_weights, float opaque) -> (Tensor, Tensor)",
    _composite_grad,
    lambda sigmas, features, *_: (
        sigmas.new_empty(sigmas.shape),
        features.new_empty(features.shape),
    ),
    # an image is differentiated once
    lambda ctx, *grads: kernels.third_order(),
    lambda ctx, inputs, output: None,
)
