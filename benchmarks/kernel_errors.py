"""Errors of the kernels of Task 3: float32 or half beside the float64 reference in PyTorch."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from task_3_DreamFusion.freqencoder import freq_encode
from task_3_DreamFusion.freqencoder import reference as freq_reference
from task_3_DreamFusion.gridencoder import GridLayout, grid_encode
from task_3_DreamFusion.gridencoder import reference as grid_reference
from task_3_DreamFusion.raymarching import (
    Occupancy,
    composite_rays,
    march_rays,
    packbits,
    ray_aabb_intersect,
)
from task_3_DreamFusion.raymarching import reference as march_reference

BOX = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)
STEP = 2 * math.sqrt(3) / 1024  # Instant-NGP, appendix E, for a box of side 2

Rays = tuple[Tensor, Tensor, Tensor, Tensor, Occupancy]


def relative_error(values: Iterable[Tensor], expected: Iterable[Tensor]) -> float:
    """Return the largest norm of a difference over the norm; infinite if there is a NaN."""
    errors = []
    for a, b in zip(values, expected, strict=True):
        exact = b.detach().cpu().double()
        errors.append(((a.detach().cpu().double() - exact).norm() / exact.norm()).item())
    return math.inf if any(map(math.isnan, errors)) else max(errors)


def sample_rays(device: torch.device, side: int, share: float = 0.05) -> Rays:
    """Return the first arguments of march_rays: side x side rays toward a ball.

    share: of the box that the ball fills.
    """
    h = torch.linspace(-0.4, 0.4, side)
    across = torch.cartesian_prod(h, h)  # (side^2, 2)
    forward = torch.cat([across, -torch.ones(len(across), 1)], 1)
    directions = torch.nn.functional.normalize(forward, dim=1).to(device)
    origins = torch.tensor([0.0, 0.0, 3.2]).expand(len(across), 3).contiguous().to(device)
    resolution = 128
    codes = torch.arange(resolution**3, dtype=torch.int32)
    cells = march_reference.morton3d_invert(codes)
    distance = ((cells + 0.5) / (resolution / 2) - 1).norm(dim=1)
    radius = (share * 8 * 3 / (4 * math.pi)) ** (1 / 3)
    occupancy = Occupancy(packbits((distance < radius).float(), 0.5).to(device), BOX)
    nears, fars = ray_aabb_intersect(origins, directions, BOX, 0.1)
    noise = torch.rand(len(origins), generator=torch.Generator().manual_seed(0)).to(device)
    return origins, directions, nears + STEP * noise, fars, occupancy


def field(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return density and color of a soft ball with stripes: cheap, so the march is measured."""
    radius = positions.square().sum(1)
    return 60 * torch.sigmoid(40 * (0.6 - radius)), torch.sigmoid(8 * positions)


def freq_error(device: torch.device) -> float:
    """Return the error of the frequency encoding, values and gradients."""
    x = (2 * torch.rand(100_000, 3) - 1).to(device).requires_grad_()
    x_exact = x.detach().double().cpu().requires_grad_()
    y = freq_encode(x, 10)
    y_exact = freq_reference.freq_encode(x_exact, 10)
    dy = torch.randn_like(y)
    dx = torch.autograd.grad(y, x, dy)
    dx_exact = torch.autograd.grad(y_exact, x_exact, dy.double().cpu())
    return relative_error([y, *dx], [y_exact, *dx_exact])


def grid_errors(device: torch.device, dtype: torch.dtype, interpolation: str) -> list[float]:
    """Return the errors of the hash grid.

    They are those of values, of the gradients of positions and of the table, and of the second
    order: derivatives of the gradient of positions, which train normals.
    """
    layout = GridLayout.make(interpolation=interpolation, log2_table_size=15)
    x = torch.rand(20_000, 3).to(device).requires_grad_()
    table = torch.randn(layout.entries, 2).to(device, dtype).requires_grad_()
    dy = torch.randn(len(x), layout.levels * 2).to(device, dtype)
    v = torch.randn(x.shape).to(device)

    def results(encode: Callable, x: Tensor, table: Tensor, dy: Tensor, v: Tensor) -> list[Tensor]:
        y = encode(x, table, layout)
        dx, dtable = torch.autograd.grad(y, (x, table), dy, create_graph=True)
        return [y, dx, dtable, *torch.autograd.grad(dx, table, v)]

    values = results(grid_encode, x, table, dy, v)
    exact = [t.detach().double().cpu() for t in (x, table, dy, v)]
    leaves = [t.requires_grad_() for t in exact[:2]]
    expected = results(grid_reference.grid_encode, *leaves, *exact[2:])
    return [relative_error([a], [b]) for a, b in zip(values, expected, strict=True)]


def composite_error(device: torch.device) -> float:
    """Return the error of compositing, values and gradients."""
    samples = march_rays(*sample_rays(device, 64), STEP)
    sigmas, colors = (t.detach().requires_grad_() for t in field(samples.positions))
    deltas = torch.full_like(samples.ts, STEP)
    values = composite_rays(sigmas, colors, deltas, samples, 0)
    grads = [torch.randn_like(t) for t in values]
    leaves = [t.detach().double().cpu().requires_grad_() for t in (sigmas, colors)]
    rest = (deltas.double().cpu(), samples.ts.double().cpu(), samples.packed_info.cpu())
    expected = march_reference.composite_rays(leaves[0], leaves[1], *rest, math.inf)
    d_values = torch.autograd.grad(values, (sigmas, colors), grads)
    d_expected = torch.autograd.grad(expected, leaves, [g.double().cpu() for g in grads])
    return relative_error([*values, *d_values], [*expected, *d_expected])


def march_mismatches(device: torch.device) -> int:
    """Return how many samples, counts and offsets of a march are not the reference's."""
    rays = sample_rays(device, 48)
    samples = march_rays(*rays, STEP)
    on_cpu = [t.cpu() for t in rays[:4]]
    bits = rays[4].bits.cpu()
    expected = march_reference.march_rays(on_cpu, bits, list(BOX), STEP, 1024, None)
    if len(samples.ts) != len(expected[1]):
        return max(len(samples.ts), len(expected[1]))
    return sum(int((a.cpu() != b).sum()) for a, b in zip(samples, expected, strict=True))


def gradcheck_passes(device: torch.device) -> bool:
    """Return whether gradcheck in float64 passes, for second derivatives too."""
    layout = GridLayout.make(3, 3, 2, 2, 9, 5, "hash", "smoothstep")
    x = torch.rand(3, 3, dtype=torch.float64).to(device).requires_grad_()
    table = torch.randn(layout.entries, 2, dtype=torch.float64).to(device).requires_grad_()
    samples = march_rays(*sample_rays(device, 4), 0.1)
    samples = samples._replace(ts=samples.ts.double())
    leaves = tuple(t.double().detach().requires_grad_() for t in field(samples.positions))
    deltas = torch.full_like(samples.ts, 0.1)
    settings: dict[str, Any] = {"raise_exception": False, "nondet_tol": 1e-12}
    frequencies = lambda x: freq_encode(x, 3)
    grid = lambda x, table: grid_encode(x, table, layout)
    composite = lambda sigmas, colors: tuple(composite_rays(sigmas, colors, deltas, samples, 0))
    return all(
        check(frequencies, x, **settings) and check(grid, (x, table), **settings)
        for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck)
    ) and torch.autograd.gradcheck(composite, leaves, **settings)


def nondeterministic_runs(device: torch.device) -> int:
    """Return how many of ten deterministic runs differ from the first in any bit.

    A run is grid, march and compositing with gradients.
    """
    layout = GridLayout.make(log2_table_size=12)
    table = torch.randn(layout.entries, 2).to(device).requires_grad_()
    rays = sample_rays(device, 64)

    def run() -> list[Tensor]:
        samples = march_rays(*rays, STEP)
        y = grid_encode((samples.positions + 1) / 2, table, layout).view(-1, 16, 2).sum(1)
        outputs = composite_rays(y[:, 0].exp(), y, torch.full_like(samples.ts, STEP), samples)
        return [*outputs, *torch.autograd.grad(outputs.image.square().sum(), table)]

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        first = run()
        return sum(not all(map(torch.equal, first, run())) for _ in range(10))
    finally:
        torch.use_deterministic_algorithms(before)
