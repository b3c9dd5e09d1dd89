"""Grid encoding in plain PyTorch: what the kernels have to give, and what runs where there are none.

All derivatives are autograd's own. Positions outside the unit cube count as the nearest one inside.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from task_3_DreamFusion.gridencoder.grid import GridLayout

PRIMES = (1, 2654435761, 805459861, 3674653429)


def cells(x: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """The lowest corner of each position's cell, (N, D) int64, and where in the cell it lies, (N, D) in [0, 1]."""
    scaled = x.clamp(0, 1) * resolution
    corner = scaled.detach().nan_to_num().floor().long().clamp(0, resolution - 1)
    return corner, scaled - corner


def entries(vertices: Tensor, layout: GridLayout, level: int) -> Tensor:
    """The entries of vertices (..., D) int64 in the whole table, (...,) int64. Instant-NGP, equation 4."""
    size, side = layout.size(level), layout.side(level)
    if side == -1:
        hashed = torch.zeros_like(vertices[..., 0])
        for d in range(layout.dims):
            hashed ^= vertices[..., d] * PRIMES[d]
        return layout.offsets[level] + (hashed & (size - 1))
    if side:
        vertices = vertices % side
    strides = [(side or layout.resolutions[level] + 1) ** d for d in range(layout.dims)]
    return layout.offsets[level] + (vertices * vertices.new_tensor(strides)).sum(-1)


def grid_encode(x: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    """The features of positions, interpolated at every level. Instant-NGP, section 3.

    Args:
        x: (N, D) float32 or float64. table: (entries, F).
    Returns:
        (N, L * F) in the type of the table.
    """
    values = table.to(x.dtype)
    corners = torch.tensor(list(product((0, 1), repeat=layout.dims)), device=x.device)  # (2^D, D)
    levels = []
    for level, resolution in enumerate(layout.resolutions):
        corner, t = cells(x, resolution)
        upper = t * t * (3 - 2 * t) if layout.smoothstep else t
        weights = torch.where(corners.bool(), upper[:, None], 1 - upper[:, None]).prod(
            -1
        )  # (N, 2^D)
        found = values[entries(corner[:, None] + corners, layout, level)]  # (N, 2^D, F)
        levels.append((weights[..., None] * found).sum(1))
    return torch.cat(levels, 1).to(table.dtype)


def penalties(x: Tensor, table: Tensor, layout: GridLayout, variation: bool) -> Tensor:
    """For each position and level the penalty of the lowest corner of its cell, (N, L) in the type of x.

    Total variation: the squared differences to the next vertex along each axis, summed. Else the squared entry.
    """
    values = table.to(x.dtype)
    axes = torch.eye(layout.dims, dtype=torch.long, device=x.device)
    levels = []
    for level, resolution in enumerate(layout.resolutions):
        corner, _ = cells(x, resolution)
        here = values[entries(corner, layout, level)]  # (N, F)
        if variation:
            following = values[entries(corner[:, None] + axes, layout, level)]  # (N, D, F)
            levels.append((following - here[:, None]).square().sum((1, 2)))
        else:
            levels.append(here.square().sum(1))
    return torch.stack(levels, 1)
