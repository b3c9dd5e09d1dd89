"""Grid encoding in plain PyTorch: defines the kernels' results, and runs where there are none.

All derivatives are autograd's. Positions outside the unit cube count as the nearest one inside.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from task_3_DreamFusion.gridencoder.layout import GridLayout

PRIMES = (1, 2654435761, 805459861, 3674653429)


def cells(x: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Return the lowest corner of each position's cell, (N, D) int64, and the offset in it."""
    scaled = x.clamp(0, 1) * resolution
    corner = scaled.detach().nan_to_num().floor().long().clamp(0, resolution - 1)
    return corner, scaled - corner


def entries(vertices: Tensor, layout: GridLayout, level: int) -> Tensor:
    """Return the table entries (...,) int64 of vertices (..., D) int64. Instant-NGP, equation 4."""
    offset, size = layout.offsets[level], layout.size(level)
    tile = layout.tile(level)
    if tile == -1:
        hashed = torch.zeros_like(vertices[..., 0])
        for d in range(layout.dims):
            hashed ^= vertices[..., d] * PRIMES[d]
        return offset + (hashed & (size - 1))
    if tile:
        vertices = vertices % tile
    strides = [(tile or layout.resolutions[level] + 1) ** d for d in range(layout.dims)]
    return offset + (vertices * vertices.new_tensor(strides)).sum(-1)


def grid_encode(x: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    """Return the features (N, L * F) of positions (N, D); arguments as in `grid.grid_encode`."""
    values = table.to(x.dtype)
    corners = torch.tensor(list(product((0, 1), repeat=layout.dims)), device=x.device)  # (2^D, D)
    levels = []
    for level, resolution in enumerate(layout.resolutions):
        corner, t = cells(x, resolution)
        upper = t * t * (3 - 2 * t) if layout.smoothstep else t
        factors = torch.where(corners.bool(), upper[:, None], 1 - upper[:, None])  # (N, 2^D, D)
        features = values[entries(corner[:, None] + corners, layout, level)]  # (N, 2^D, F)
        levels.append((factors.prod(-1)[..., None] * features).sum(1))
    return torch.cat(levels, 1).to(table.dtype)


def variations(x: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    """Return the terms (N, L) of `grid.total_variation`, in the type of x."""
    values = table.to(x.dtype)
    axes = torch.eye(layout.dims, dtype=torch.long, device=x.device)
    levels = []
    for level, resolution in enumerate(layout.resolutions):
        corner, _ = cells(x, resolution)
        lowest = values[entries(corner, layout, level)]  # (N, F)
        neighbors = values[entries(corner[:, None] + axes, layout, level)]  # (N, D, F)
        levels.append((neighbors - lowest[:, None]).square().sum((1, 2)))
    return torch.stack(levels, 1)
