"""The operators of the grid encoding: calls of the compiled kernels, registered with torch.library.

`layout` stands for GridLayout.arguments. With a direction v an operator returns its derivative
along v.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from task_3_DreamFusion import kernels


def _call(function: str, x: Tensor, type_of: Tensor, *arguments: object) -> None:
    kernels.call("gridencoder", function, x.device, kernels.TYPE_CODES[type_of.dtype], *arguments)


def _sizes(x: Tensor, features: int, layout: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the last arguments of every function of src/grid.h."""
    return *x.shape, features, len(layout[0]), *layout


def _contiguous(v: Tensor | None) -> Tensor | None:
    return None if v is None else v.contiguous()


def _aligned(table: Tensor) -> Tensor:
    """Return it contiguous, at an address from which a GPU reads several features at once."""
    table = table.contiguous()
    return table if table.data_ptr() % 16 == 0 else table.clone()


def _feature_major(dy: Tensor) -> Tensor:
    """Transpose (N, M) to (M, N), contiguous, as the kernels read gradients.

    On a GPU torch's copy would take as long as the kernels.
    """
    if dy.t().is_contiguous():
        return dy.t()
    transposed = dy.new_empty(dy.shape[1], dy.shape[0])
    _call("grid_transpose", dy, dy, dy.contiguous(), transposed, *dy.shape)
    return transposed


# --- Encoding


def _encode(x: Tensor, table: Tensor, v: Tensor | None, *layout: Any) -> Tensor:
    features = table.shape[1]
    y = table.new_empty(len(layout[0]) * features, len(x))
    inputs = x.contiguous(), _aligned(table), _contiguous(v)
    _call("grid_encode", x, table, *inputs, y, *_sizes(x, features, layout))
    return y.t()


def _input_grad(x: Tensor, table: Tensor, dy: Tensor, v: Tensor | None, *layout: Any) -> Tensor:
    dx = x.new_empty(x.shape)
    inputs = x.contiguous(), _aligned(table), _feature_major(dy), _contiguous(v)
    _call("grid_input_grad", x, table, *inputs, dx, *_sizes(x, table.shape[1], layout))
    return dx


def _table_grad(x: Tensor, dy: Tensor, v: Tensor | None, *layout: Any) -> Tensor:
    resolutions, offsets = layout[:2]
    features = dy.shape[1] // len(resolutions)
    sizes = [end - begin for begin, end in itertools.pairwise(offsets)]
    copies = [_num_copies(size, len(x)) if x.is_cuda else 1 for size in sizes]
    extra = sum((count - 1) * size for count, size in zip(copies, sizes, strict=True))

    def bound() -> Tensor:
        largest = dy.abs().amax().double()
        if v is None:
            return largest
        # The largest sum of the weights' derivatives along v over the corners of a cell.
        slope = 2 * x.shape[1] * max(resolutions) * (1.5 if layout[3] else 1)
        return largest * (slope * v.abs().amax().double())

    total = _Accumulator(x, offsets[-1] + extra, features, bound)
    inputs = x.contiguous(), _feature_major(dy), _contiguous(v)
    arguments = *inputs, total.out, total.scale, copies
    _call("grid_table_grad", x, dy, *arguments, *_sizes(x, features, layout))
    return total.value(dy.dtype)[: offsets[-1]]


def _num_copies(size: int, num_positions: int) -> int:
    """Return the number of partial sums of a level with so many entries on a GPU.

    A power of two, up to 16, so that about 64 corners of cells or fewer add to the same number.
    """
    copies = min(16, num_positions // (8 * size))
    return 1 << max(0, copies.bit_length() - 1)


# --- Total variation


def _variation(x: Tensor, table: Tensor, *layout: Any) -> Tensor:
    out = x.new_empty(len(layout[0]), len(x))
    inputs = x.contiguous(), table.contiguous()
    _call("grid_variation", x, table, *inputs, out, *_sizes(x, table.shape[1], layout))
    return out.t()


def _variation_grad(x: Tensor, table: Tensor, dy: Tensor, *layout: Any) -> Tensor:
    entries, features = table.shape

    def bound() -> Tensor:
        return 8 * x.shape[1] * dy.abs().amax().double() * table.abs().amax()

    total = _Accumulator(x, entries, features, bound)
    inputs = x.contiguous(), table.contiguous(), dy.t().contiguous()  # dy: (L, N)
    arguments = *inputs, total.out, total.scale
    _call("grid_variation_grad", x, table, *arguments, *_sizes(x, features, layout))
    return total.value(table.dtype)


# --- Sums


def fixed_point_scale(largest: Tensor, terms: int) -> Tensor:
    """Return the scale by which int64 holds any sum of so many terms of at most that size.

    A power of two, which loses no digit of a float; sums stay below 2^61. An infinite or NaN
    `largest` gives 0 or NaN, so that no sum divided by the scale is finite: overflowing gradients
    show.

    Args:
        largest: scalar float64.
    Returns:
        scalar float64, on the same device.
    """
    return torch.exp2(torch.floor(61 - math.log2(terms) - torch.log2(largest.clamp(min=1e-280))))


class _Accumulator:
    """What the kernels add to: floats; for a deterministic GPU integers in units of 1 / scale."""

    def __init__(self, x: Tensor, entries: int, features: int, bound: Callable[[], Tensor]) -> None:
        """bound() is the largest magnitude that a position adds to an entry, a float64 scalar."""
        deterministic = x.is_cuda and torch.are_deterministic_algorithms_enabled()
        use_integers = deterministic and len(x) > 0
        self.scale = fixed_point_scale(bound(), len(x)) if use_integers else None
        dtype = torch.int64 if use_integers else x.dtype
        self.out = torch.zeros(entries, features, dtype=dtype, device=x.device)

    def value(self, dtype: torch.dtype) -> Tensor:
        return (self.out if self.scale is None else self.out / self.scale).to(dtype)


# --- Derivatives


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.layout = inputs[-4:]
    *tensors, v = inputs[:-4]
    ctx.is_second = v is not None
    ctx.save_for_backward(*tensors)


def _encode_backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    if ctx.is_second:
        kernels.no_third_derivative()
    x, table = ctx.saved_tensors
    ops, needed = torch.ops.dreamfusion, ctx.needs_input_grad
    dx = ops.grid_input_grad(x, table, dy, None, *ctx.layout) if needed[0] else None
    dtable = ops.grid_table_grad(x, dy, None, *ctx.layout) if needed[1] else None
    return dx, dtable, *[None] * 5


def _input_grad_backward(ctx: Any, v: Tensor) -> tuple[Any, ...]:
    if ctx.is_second:
        kernels.no_third_derivative()
    x, table, dy = ctx.saved_tensors
    ops, needed = torch.ops.dreamfusion, ctx.needs_input_grad
    dx = ops.grid_input_grad(x, table, dy, v, *ctx.layout) if needed[0] else None
    dtable = ops.grid_table_grad(x, dy, v, *ctx.layout) if needed[1] else None
    ddy = ops.grid_encode(x, table, v, *ctx.layout) if needed[2] else None
    return dx, dtable, ddy, *[None] * 5


def _table_grad_backward(ctx: Any, dtable: Tensor) -> tuple[Any, ...]:
    if ctx.is_second:
        kernels.no_third_derivative()
    x, dy = ctx.saved_tensors
    ops, needed = torch.ops.dreamfusion, ctx.needs_input_grad
    dx = ops.grid_input_grad(x, dtable, dy, None, *ctx.layout) if needed[0] else None
    ddy = ops.grid_encode(x, dtable, None, *ctx.layout) if needed[1] else None
    return dx, ddy, *[None] * 5


def _save_variation(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.layout = inputs[2:]
    ctx.save_for_backward(*inputs[:2])


def _variation_backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    dtable = torch.ops.dreamfusion.grid_variation_grad(*ctx.saved_tensors, dy, *ctx.layout)
    return None, dtable, *[None] * 4


# --- Shapes of the results, for tracing


def _fake_values(x: Tensor, table: Tensor, v: Tensor | None, *layout: Any) -> Tensor:
    return table.new_empty(len(layout[0]) * table.shape[1], x.shape[0]).t()


def _fake_table(x: Tensor, dy: Tensor, v: Tensor | None, *layout: Any) -> Tensor:
    return dy.new_empty(layout[1][-1], dy.shape[1] // len(layout[0]))


def _fake_variation(x: Tensor, table: Tensor, *layout: Any) -> Tensor:
    return x.new_empty(len(layout[0]), x.shape[0]).t()


# --- Registration

_LAYOUT = "int[] resolutions, int[] offsets, bool hashed, bool smoothstep) -> Tensor"
kernels.register(
    f"grid_encode(Tensor x, Tensor table, Tensor? v, {_LAYOUT}",
    _encode,
    _fake_values,
    _encode_backward,
    _save,
)
kernels.register(
    f"grid_input_grad(Tensor x, Tensor table, Tensor dy, Tensor? v, {_LAYOUT}",
    _input_grad,
    lambda x, *_: x.new_empty(x.shape),
    _input_grad_backward,
    _save,
)
kernels.register(
    f"grid_table_grad(Tensor x, Tensor dy, Tensor? v, {_LAYOUT}",
    _table_grad,
    _fake_table,
    _table_grad_backward,
    _save,
)
kernels.register(
    f"grid_variation(Tensor x, Tensor table, {_LAYOUT}",
    _variation,
    _fake_variation,
    _variation_backward,
    _save_variation,
)
kernels.register(
    f"grid_variation_grad(Tensor x, Tensor table, Tensor dy, {_LAYOUT}",
    _variation_grad,
    lambda x, table, *_: table.new_empty(table.shape),
    kernels.no_third_derivative,  # a penalty is differentiated once
)
