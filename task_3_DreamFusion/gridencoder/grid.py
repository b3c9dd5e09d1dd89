"""Multi-resolution hash and tiled grid encoding (Müller et al., Instant-NGP, section 3).

Every level is a grid over the unit cube with a feature vector at each vertex; a position's encoding
concatenates the levels' interpolations between the corners of its cell. Levels that have more
vertices than entries share them: by a hash, or by a pattern that repeats (tiled).

The operators take a table in float16, float32 or float64 and positions in float32 (float64 with a
float64 table), and compute in float32 (float64). The gradients of table and positions can be
differentiated again. With `torch.use_deterministic_algorithms(True)` the table's gradient is the
same in every run on a GPU; on the CPU it always is, with any number of threads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from task_3_DreamFusion import kernels
from task_3_DreamFusion.gridencoder import _ops as _ops  # registers the operators
from task_3_DreamFusion.gridencoder import reference
from task_3_DreamFusion.gridencoder.layout import GridLayout


def grid_encode(x: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    """Return the features of positions, interpolated at every level. Instant-NGP, section 3.

    Args:
        x: (N, D) in the unit cube (outside counts as the nearest point inside); float32, or float64
            with a float64 table.
        table: (layout.entries, F) float16, float32 or float64.
    Returns:
        (N, L * F) in the table's type, stored feature by feature (the transpose is contiguous).
        Twice differentiable.
    Raises:
        TypeError, ValueError: if a type or a shape does not fit.

    >>> from task_3_DreamFusion.gridencoder import GridLayout
    >>> layout = GridLayout.make(dims=2, levels=1, features=1, min_resolution=2, max_resolution=2)
    >>> table = torch.arange(float(layout.entries))[:, None]  # vertex (i, j) is entry i + 3 j
    >>> grid_encode(torch.tensor([[0.5, 0.25]]), table, layout)
    tensor([[2.5000]])
    """
    _check(x, table, layout)
    if kernels.is_available("gridencoder", x.device):
        return torch.ops.dreamfusion.grid_encode(x, table, None, *layout.arguments)
    return reference.grid_encode(x, table, layout)


def total_variation(x: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    """Return the mean over positions and levels of the squared differences of neighboring entries.

    At each level the lowest corner of a position's cell is compared with the next vertex along
    every axis; the squares are summed over axes and features. A scalar, differentiable in the table
    alone.

    Args:
        x: (N, D). table: (layout.entries, F).
    """
    return variations(x, table, layout).mean()


def variations(x: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    """Return the terms (N, L) of which `total_variation` is the mean."""
    _check(x, table, layout)
    x = x.detach()
    if kernels.is_available("gridencoder", x.device):
        return torch.ops.dreamfusion.grid_variation(x, table, *layout.arguments)
    return reference.variations(x, table, layout)


class GridEncoder(nn.Module):
    """grid_encode with its own table, initialized from U(-1e-4, 1e-4) (Instant-NGP, section 4).

    Positions are in [-bound, bound].
    """

    def __init__(self, layout: GridLayout, bound: float = 1.0) -> None:
        super().__init__()
        if not bound > 0:
            raise ValueError(f"bound must be positive, got {bound}")
        self.layout, self.bound = layout, bound
        self.output_dim = layout.levels * layout.features
        table = torch.empty(layout.entries, layout.features)
        self.table = nn.Parameter(table.uniform_(-1e-4, 1e-4))

    def to_unit_cube(self, x: Tensor) -> Tensor:
        """Map [-bound, bound] to [0, 1]."""
        return (x + self.bound) / (2 * self.bound)

    def total_variation(self, x: Tensor) -> Tensor:
        """Return the total variation of the table at positions x (N, D) in [-bound, bound]."""
        return total_variation(self.to_unit_cube(x.detach()), self.table, self.layout)

    def forward(self, x: Tensor) -> Tensor:
        """Encode (..., D) to (..., L * F)."""
        unit = self.to_unit_cube(x).reshape(-1, x.shape[-1])
        y = grid_encode(unit, self.table, self.layout)
        return y if x.ndim == 2 else y.reshape(*x.shape[:-1], self.output_dim)


def _check(x: Tensor, table: Tensor, layout: GridLayout) -> None:
    kernels.check_floats("x", x, f"(N, {layout.dims})", layout.dims)
    shape = (layout.entries, layout.features)
    if table.shape != shape:
        raise ValueError(f"table must have shape {shape}, got {tuple(table.shape)}")
    is_double = table.dtype == torch.float64
    if table.dtype not in kernels.TYPE_CODES or (x.dtype == torch.float64) != is_double:
        raise TypeError(
            "x and table must be float32 with float16 or float32, or both float64, "
            f"got {x.dtype} and {table.dtype}"
        )
    if table.device != x.device:
        raise ValueError(f"x and table must be on one device, got {x.device} and {table.device}")
