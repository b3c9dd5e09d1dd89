"""Arrow fields: positions on a grid, and averages of many vectors around each of them."""

import torch

EXTENT = 2.2  # a grid covers the square from -EXTENT to EXTENT


def grid(side: int = 15) -> torch.Tensor:
    """Return the positions of a square grid, row by row, (side^2, 2)."""
    axis = torch.linspace(-EXTENT, EXTENT, side)
    return torch.cartesian_prod(axis, axis)


def average_by_cell(
    points: torch.Tensor,  # (N, 2)
    vectors: torch.Tensor,  # (N, 2)
    side: int = 15,
    least: int = 40,
) -> torch.Tensor:
    """Return the average vector of the points around each position of `grid(side)`, (side^2, 2).

    Only points within a third of the grid's spacing count; 0 where they are fewer than `least`.
    """
    spacing = 2 * EXTENT / (side - 1)
    place = (points + EXTENT) / spacing  # in units of the grid
    nearest = place.round()
    inside = (nearest >= 0).all(1) & (nearest < side).all(1)
    inside &= (place - nearest).abs().amax(1) < 1 / 3
    cell = (nearest[inside] @ torch.tensor([float(side), 1.0])).long()
    sums = torch.zeros(side**2, 2).index_add(0, cell, vectors[inside])
    counts = torch.bincount(cell, minlength=side**2)[:, None]
    return torch.where(counts >= least, sums / counts.clamp_min(1), 0.0)
