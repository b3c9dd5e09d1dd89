"""Multi-resolution hash and tiled grid encoding (Müller et al., Instant-NGP, section 3), and penalties on its table.

Every level is a grid over the unit cube with a vector of features at each vertex; a position's encoding joins what the
levels give by interpolation between the corners of its cell. Levels that have more vertices than entries share them:
by a hash, or by a pattern that repeats (tiled).

The operations take a table in float16, float32 or float64 and positions in float32 (float64 with a float64 table);
they compute and sum in float32 (float64). The gradients of table and positions can be differentiated again.
`torch.use_deterministic_algorithms(True)` makes the table's gradient the same in every run on a GPU too; on the CPU it
always is, on any number of threads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from task_3_DreamFusion import kernels
from task_3_DreamFusion.gridencoder import reference

MOST_LEVELS, MOST_FEATURES, FINEST = (
    32,
    8,
    2**20,
)  # the arrays of src/grid.h; float32 still tells the cells apart


@dataclass(frozen=True)
class GridLayout:
    """How many cells the levels have along an axis, and where in the table their entries lie.

    dims: D, 2 to 4. features: F, 1 to 8. resolutions: cells along an axis, one a level.
    offsets: first entry of each level, and the number of all entries at the end.
    hashed: whether levels that have too few entries are hashed (else tiled). smoothstep: else linear.
    Raises ValueError where something is out of range.
    """

    dims: int
    features: int
    resolutions: tuple[int, ...]
    offsets: tuple[int, ...]
    hashed: bool = True
    smoothstep: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.dims <= 4:
            raise ValueError(f"dims is {self.dims}: a grid has 2 to 4 dimensions")
        if not 1 <= self.features <= MOST_FEATURES:
            raise ValueError(f"features is {self.features}: choose 1 to {MOST_FEATURES} a level")
        if not 1 <= len(self.resolutions) <= MOST_LEVELS:
            raise ValueError(f"there are {len(self.resolutions)} levels: choose 1 to {MOST_LEVELS}")
        if not all(1 <= r <= FINEST for r in self.resolutions):
            raise ValueError(
                f"resolutions are {self.resolutions}: choose 1 to {FINEST} cells along an axis"
            )
        if len(self.offsets) != len(self.resolutions) + 1 or any(
            n < 8 for n in map(self.size, range(self.levels))
        ):
            raise ValueError(
                f"offsets are {self.offsets}: give one more than levels, at least 8 entries apart"
            )
        if self.offsets[0] != 0 or self.offsets[-1] >= 2**32:
            raise ValueError(f"offsets are {self.offsets}: begin with 0, end below 2^32")
        if any(
            self.side(level) == -1 and self.size(level).bit_count() != 1
            for level in range(self.levels)
        ):
            raise ValueError(
                f"offsets are {self.offsets}: a hashed level needs a power of two as its size"
            )

    @classmethod
    def make(
        cls,
        dims: int = 3,
        levels: int = 16,
        features: int = 2,
        coarsest: int = 16,
        finest: int = 2048,
        log2_table_size: int = 19,
        kind: str = "hash",
        interpolation: str = "linear",
    ) -> GridLayout:
        """The layout of Instant-NGP, equations 2 and 3: resolutions grow by one factor from coarsest to finest.

        Args:
            log2_table_size: no level has more than two to this power entries; 3 to 24.
            kind: "hash" or "tiled". interpolation: "linear" or "smoothstep".
        """
        if kind not in ("hash", "tiled"):
            raise ValueError(f'kind is {kind!r}: choose "hash" or "tiled"')
        if interpolation not in ("linear", "smoothstep"):
            raise ValueError(f'interpolation is {interpolation!r}: choose "linear" or "smoothstep"')
        if not 3 <= log2_table_size <= 24:
            raise ValueError(f"log2_table_size is {log2_table_size}: choose 3 to 24")
        if not 1 <= coarsest <= finest:
            raise ValueError(
                f"coarsest is {coarsest} and finest {finest}: choose 1 <= coarsest <= finest"
            )
        growth = math.exp(math.log(finest / coarsest) / max(levels - 1, 1))
        # the small term keeps the last level at `finest` where the power is a hair below it
        resolutions = tuple(math.floor(coarsest * growth**level + 1e-6) for level in range(levels))
        offsets = [0]
        for resolution in resolutions:
            vertices = (
                -(-((resolution + 1) ** dims) // 8) * 8
            )  # in eights: every level begins on a cache sector
            offsets.append(offsets[-1] + min(vertices, 2**log2_table_size))
        return cls(
            dims,
            features,
            resolutions,
            tuple(offsets),
            kind == "hash",
            interpolation == "smoothstep",
        )

    @property
    def levels(self) -> int:
        return len(self.resolutions)

    @property
    def entries(self) -> int:
        return self.offsets[-1]

    def size(self, level: int) -> int:
        """Number of entries of a level."""
        return self.offsets[level + 1] - self.offsets[level]

    def side(self, level: int) -> int:
        """0 where every vertex has its own entry, -1 where they are hashed, else the vertices in a tile's side."""
        size = self.size(level)
        if (self.resolutions[level] + 1) ** self.dims <= size:
            return 0
        if self.hashed:
            return -1
        side = round(size ** (1 / self.dims))
        return side if side**self.dims <= size else side - 1

    @property
    def settings(self) -> tuple[list[int], list[int], bool, bool]:
        """As the operations take them."""
        return list(self.resolutions), list(self.offsets), self.hashed, self.smoothstep


def grid_encode(x: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    """The features of positions, interpolated at every level. Instant-NGP, section 3.

    To anneal the levels, weight the output: `y * weights.repeat_interleave(features)`.

    Args:
        x: (N, D) in the unit cube (outside counts as the nearest point inside); float32, with a float64 table float64.
        table: (layout.entries, F) float16, float32 or float64.
    Returns:
        (N, L * F) in the table's type, stored feature by feature (the transpose is contiguous). Twice differentiable.
    Raises:
        TypeError, ValueError: if a type or a shape does not fit.

    >>> layout = GridLayout.make(dims=2, levels=1, features=1, coarsest=2, finest=2)
    >>> table = torch.arange(float(layout.entries))[:, None]  # vertex (i, j) is entry i + 3 j
    >>> grid_encode(torch.tensor([[0.5, 0.25]]), table, layout)
    tensor([[2.5000]])
    """
    _check(x, table, layout)
    if kernels.ready("gridencoder", x.device):
        return torch.ops.dreamfusion.grid_encode(x, table, None, *layout.settings)
    return reference.grid_encode(x, table, layout)


def total_variation(table: Tensor, layout: GridLayout, x: Tensor | None = None) -> Tensor:
    """How much neighbouring vertices differ: squared differences, summed over axes and features.

    Args:
        table: (layout.entries, F).
        x: (N, D) samples. At each, and each level, the lowest corner of its cell counts with its next neighbours.
            Without samples every vertex counts, on the levels where each has an entry of its own.
    Returns:
        scalar: the mean over vertices of the sum, and the mean over levels.
    """
    if x is not None:
        return _penalties(x, table, layout, True).mean()
    own = [level for level in range(layout.levels) if layout.side(level) == 0]
    if not own:
        raise ValueError("no level has an entry for every vertex: give samples x")
    return torch.stack([_whole_variation(table, layout, level) for level in own]).mean()


def _whole_variation(table: Tensor, layout: GridLayout, level: int) -> Tensor:
    """Over the lowest corners of all cells of a level, as samples everywhere would give."""
    n, d = layout.resolutions[level] + 1, layout.dims
    values = table[layout.offsets[level] : layout.offsets[level] + n**d].view(
        *[n] * d, layout.features
    )
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    inner = [slice(0, n - 1)] * d
    here, total = values[tuple(inner)], torch.zeros((), dtype=values.dtype, device=values.device)
    for axis in range(d):
        following = values[tuple(slice(1, n) if a == axis else cut for a, cut in enumerate(inner))]
        total = total + (following - here).square().sum()
    return total / (n - 1) ** d


def weight_decay(table: Tensor, layout: GridLayout, x: Tensor | None = None) -> Tensor:
    """The mean squared length of the entries: of all, or of those in whose cells samples x (N, D) lie.

    Returns a scalar: the mean over entries of the sum over features, and the mean over levels.
    """
    if x is not None:
        return _penalties(x, table, layout, False).mean()
    squares = table.to(torch.promote_types(table.dtype, torch.float32)).square().sum(1)
    parts = squares.split([layout.size(level) for level in range(layout.levels)])
    return torch.stack([part.mean() for part in parts]).mean()


def _penalties(x: Tensor, table: Tensor, layout: GridLayout, variation: bool) -> Tensor:
    """(N, L), differentiable in the table alone."""
    _check(x, table, layout)
    x = x.detach()
    if kernels.ready("gridencoder", x.device):
        return torch.ops.dreamfusion.grid_penalty(x, table, variation, *layout.settings)
    return reference.penalties(x, table, layout, variation)


class GridEncoder(nn.Module):
    """grid_encode with a table of its own, drawn from U(-1e-4, 1e-4) (Instant-NGP, section 4).

    Args:
        layout: levels and their sizes.
        bound: positions are in [-bound, bound].
        dtype: of the table.
    """

    def __init__(
        self, layout: GridLayout, bound: float = 1.0, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        if not bound > 0:
            raise ValueError(f"bound is {bound}: choose a positive number")
        self.layout, self.bound = layout, bound
        self.output_dim = layout.levels * layout.features
        start = torch.empty(layout.entries, layout.features).uniform_(-1e-4, 1e-4)
        self.table = nn.Parameter(start.to(dtype))

    def unit(self, x: Tensor) -> Tensor:
        """From [-bound, bound] to [0, 1]."""
        return (x + self.bound) / (2 * self.bound)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., L * F)."""
        y = grid_encode(self.unit(x).reshape(-1, x.shape[-1]), self.table, self.layout)
        return y if x.ndim == 2 else y.reshape(*x.shape[:-1], self.output_dim)

    def extra_repr(self) -> str:
        kind = f"{'hash' if self.layout.hashed else 'tiled'}, {'smoothstep' if self.layout.smoothstep else 'linear'}"
        return f"resolutions={self.layout.resolutions}, entries={self.layout.entries}, {kind}, bound={self.bound}"


def _check(x: Tensor, table: Tensor, layout: GridLayout) -> None:
    kernels.check_floats("x", x, f"(N, {layout.dims})", layout.dims)
    if table.shape != (layout.entries, layout.features):
        raise ValueError(
            f"table has shape {tuple(table.shape)}, not {(layout.entries, layout.features)}"
        )
    if table.dtype not in kernels.TYPES or (x.dtype == torch.float64) != (
        table.dtype == torch.float64
    ):
        raise TypeError(
            f"x is {x.dtype} and table {table.dtype}: float32 with float16 or float32, or both float64"
        )
    if table.device != x.device:
        raise ValueError(f"x is on {x.device} and table on {table.device}: move one to the other")


# --- The operations. A direction v makes of each its derivative along v.


def _sizes(x: Tensor, features: int, settings: Sequence) -> tuple:
    """The last arguments of every function of src/grid.h."""
    resolutions, offsets, hashed, smooth = settings
    return (*x.shape, features, len(resolutions), resolutions, offsets, hashed, smooth)


def _aligned(table: Tensor) -> Tensor:
    """Contiguous, and on an address from which a GPU reads several features at once."""
    table = table.contiguous()
    return table if table.data_ptr() % 16 == 0 else table.clone()


def _by_feature(dy: Tensor) -> Tensor:
    """(N, M) to (M, N), contiguous, as the kernels read gradients. On a GPU torch's copy would take as long as they."""
    if dy.t().is_contiguous():
        return dy.t()
    dy, turned = dy.contiguous(), dy.new_empty(dy.shape[1], dy.shape[0])
    kernels.call(
        "gridencoder", "grid_transpose", dy.device, kernels.TYPES[dy.dtype], dy, turned, *dy.shape
    )
    return turned


def _encode(x: Tensor, table: Tensor, v: Tensor | None, *settings: Any) -> Tensor:
    features = table.shape[1]
    y = table.new_empty(len(settings[0]) * features, len(x))
    x, table, v = x.contiguous(), _aligned(table), None if v is None else v.contiguous()
    kind = kernels.TYPES[table.dtype]
    kernels.call(
        "gridencoder", "grid_encode", x.device, kind, x, table, v, y, *_sizes(x, features, settings)
    )
    return y.t()


def _input_grad(x: Tensor, table: Tensor, dy: Tensor, v: Tensor | None, *settings: Any) -> Tensor:
    dx = x.new_empty(x.shape)
    x, table, dy = x.contiguous(), _aligned(table), _by_feature(dy)  # (L * F, N)
    v = None if v is None else v.contiguous()
    kind, sizes = kernels.TYPES[table.dtype], _sizes(x, table.shape[1], settings)
    kernels.call("gridencoder", "grid_input_grad", x.device, kind, x, table, dy, v, dx, *sizes)
    return dx


def _table_grad(x: Tensor, dy: Tensor, v: Tensor | None, *settings: Any) -> Tensor:
    resolutions, offsets, _, smooth = settings
    features = dy.shape[1] // len(resolutions)
    reach = 1.0
    if (
        v is not None
    ):  # the largest sum of the weights' derivatives along v over the corners of a cell
        reach = 2 * x.shape[1] * max(resolutions) * (1.5 if smooth else 1) * v.abs().amax().double()
    sizes_of_levels = [end - begin for begin, end in itertools.pairwise(offsets)]
    copies = [_copies(size, len(x)) if x.is_cuda else 1 for size in sizes_of_levels]
    spare = sum((count - 1) * size for count, size in zip(copies, sizes_of_levels, strict=True))
    sum_ = _Sum(x, offsets[-1] + spare, features, len(x), lambda: dy.abs().amax().double() * reach)
    dtype = dy.dtype
    x, dy, v = x.contiguous(), _by_feature(dy), None if v is None else v.contiguous()
    sizes = _sizes(x, features, settings)
    function, kind = "grid_table_grad", kernels.TYPES[dtype]
    kernels.call(
        "gridencoder", function, x.device, kind, x, dy, v, sum_.out, sum_.scale, copies, *sizes
    )
    return sum_.value(dtype)[: offsets[-1]]


def _copies(size: int, positions: int) -> int:
    """How many sums a level of so many entries has on a GPU: a power of two, up to 16, so that in each about 64
    corners of cells or fewer meet in an entry."""
    wanted = min(16, positions // (8 * size))
    return 1 << max(0, wanted.bit_length() - 1)


def _penalty(x: Tensor, table: Tensor, variation: bool, *settings: Any) -> Tensor:
    out = x.new_empty(len(settings[0]), len(x))
    x, table = x.contiguous(), table.contiguous()
    kind, sizes = kernels.TYPES[table.dtype], _sizes(x, table.shape[1], settings)
    kernels.call("gridencoder", "grid_penalty", x.device, kind, x, table, out, variation, *sizes)
    return out.t()


def _penalty_grad(x: Tensor, table: Tensor, dy: Tensor, variation: bool, *settings: Any) -> Tensor:
    entries, features = table.shape
    sum_ = _Sum(
        x,
        entries,
        features,
        len(x),
        lambda: 8 * x.shape[1] * dy.abs().amax().double() * table.abs().amax(),
    )
    x, table, dy = x.contiguous(), table.contiguous(), dy.t().contiguous()  # (L, N)
    function, kind, sizes = (
        "grid_penalty_grad",
        kernels.TYPES[table.dtype],
        _sizes(x, features, settings),
    )
    kernels.call(
        "gridencoder",
        function,
        x.device,
        kind,
        x,
        table,
        dy,
        sum_.out,
        sum_.scale,
        variation,
        *sizes,
    )
    return sum_.value(table.dtype)


def integer_scale(largest: Tensor, terms: int) -> Tensor:
    """The units in which integers hold any sum of so many terms of at most that size: a power of two, 61 bits in all.

    A power of two loses no digit of a float. An infinite or NaN `largest` gives 0 or NaN, so that no sum divided by the
    scale is finite: an overflow of the gradients shows.

    Args:
        largest: scalar float64.
    Returns:
        scalar float64, on the same device.
    """
    return torch.exp2(torch.floor(61 - math.log2(terms) - torch.log2(largest.clamp(min=1e-280))))


class _Sum:
    """What the kernels add up into: floats; or on a GPU that is to repeat itself, integers in units of 1 / scale."""

    def __init__(
        self, x: Tensor, entries: int, features: int, terms: int, bound: Callable[[], Tensor]
    ) -> None:
        """bound() gives the largest absolute value that one position adds to an entry, a float64 scalar."""
        repeats = x.is_cuda and terms > 0 and torch.are_deterministic_algorithms_enabled()
        self.scale = integer_scale(bound(), terms) if repeats else None
        self.out = torch.zeros(
            entries, features, dtype=torch.int64 if repeats else x.dtype, device=x.device
        )

    def value(self, dtype: torch.dtype) -> Tensor:
        return (self.out if self.scale is None else self.out / self.scale).to(dtype)


def _save(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:
    *tensors, v, resolutions, offsets, hashed, smooth = inputs
    ctx.is_second, ctx.settings = v is not None, (resolutions, offsets, hashed, smooth)
    ctx.save_for_backward(*tensors)


def _encode_backward(ctx: torch.autograd.function.FunctionCtx, dy: Tensor) -> tuple:
    if ctx.is_second:
        kernels.third_order()
    x, table = ctx.saved_tensors
    needs_x, needs_table, *rest = ctx.needs_input_grad
    ops = torch.ops.dreamfusion
    dx = ops.grid_input_grad(x, table, dy, None, *ctx.settings) if needs_x else None
    dtable = ops.grid_table_grad(x, dy, None, *ctx.settings) if needs_table else None
    return dx, dtable, *[None] * len(rest)


def _input_grad_backward(ctx: torch.autograd.function.FunctionCtx, v: Tensor) -> tuple:
    if ctx.is_second:
        kernels.third_order()
    x, table, dy = ctx.saved_tensors
    needs_x, needs_table, needs_dy, *rest = ctx.needs_input_grad
    ops = torch.ops.dreamfusion
    dx = ops.grid_input_grad(x, table, dy, v, *ctx.settings) if needs_x else None
    dtable = ops.grid_table_grad(x, dy, v, *ctx.settings) if needs_table else None
    ddy = ops.grid_encode(x, table, v, *ctx.settings) if needs_dy else None
    return dx, dtable, ddy, *[None] * len(rest)


def _table_grad_backward(ctx: torch.autograd.function.FunctionCtx, t: Tensor) -> tuple:
    if ctx.is_second:
        kernels.third_order()
    x, dy = ctx.saved_tensors
    needs_x, needs_dy, *rest = ctx.needs_input_grad
    ops = torch.ops.dreamfusion
    dx = ops.grid_input_grad(x, t, dy, None, *ctx.settings) if needs_x else None
    ddy = ops.grid_encode(x, t, None, *ctx.settings) if needs_dy else None
    return dx, ddy, *[None] * len(rest)


def _save_penalty(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:
    x, table, ctx.variation, *ctx.settings = inputs
    ctx.save_for_backward(x, table)


def _penalty_backward(ctx: torch.autograd.function.FunctionCtx, dy: Tensor) -> tuple:
    dtable = torch.ops.dreamfusion.grid_penalty_grad(
        *ctx.saved_tensors, dy, ctx.variation, *ctx.settings
    )
    return None, dtable, None, *[None] * len(ctx.settings)


def _fake_table(
    x: Tensor, dy: Tensor, v: Tensor | None, resolutions: list, offsets: list, *_: object
) -> Tensor:
    return dy.new_empty(offsets[-1], dy.shape[1] // len(resolutions))


def _fake_values(
    x: Tensor, table: Tensor, v: Tensor | None, resolutions: list, *_: object
) -> Tensor:
    return table.new_empty(len(resolutions) * table.shape[1], x.shape[0]).t()


def _fake_penalty(
    x: Tensor, table: Tensor, variation: bool, resolutions: list, *_: object
) -> Tensor:
    return x.new_empty(len(resolutions), x.shape[0]).t()


_SETTINGS = "int[] resolutions, int[] offsets, bool hashed, bool smooth) -> Tensor"
kernels.register(
    f"grid_encode(Tensor x, Tensor table, Tensor? v, {_SETTINGS}",
    _encode,
    _fake_values,
    _encode_backward,
    _save,
)
kernels.register(
    f"grid_input_grad(Tensor x, Tensor table, Tensor dy, Tensor? v, {_SETTINGS}",
    _input_grad,
    lambda x, *_: x.new_empty(x.shape),
    _input_grad_backward,
    _save,
)
kernels.register(
    f"grid_table_grad(Tensor x, Tensor dy, Tensor? v, {_SETTINGS}",
    _table_grad,
    _fake_table,
    _table_grad_backward,
    _save,
)
kernels.register(
    f"grid_penalty(Tensor x, Tensor table, bool variation, {_SETTINGS}",
    _penalty,
    _fake_penalty,
    _penalty_backward,
    _save_penalty,
)
kernels.register(
    f"grid_penalty_grad(Tensor x, Tensor table, Tensor dy, bool variation, {_SETTINGS}",
    _penalty_grad,
    lambda x, table, *_: table.new_empty(table.shape),
    # one derivative is all that a penalty needs
    lambda ctx, t: kernels.third_order(),
    lambda ctx, inputs, output: None,
)
