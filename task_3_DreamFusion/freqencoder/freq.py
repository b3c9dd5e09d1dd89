"""Frequency encoding of positions and directions (NeRF, equation 4), for the plain NeRF network.

The kernels compute the encoding, its derivative along a direction and the gradient of the
positions. Together these are all first and second derivatives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from task_3_DreamFusion import kernels
from task_3_DreamFusion.freqencoder import reference

MAX_LEVELS = 24  # one octave higher, neighboring float32 positions are half a period apart


def freq_encode(x: Tensor, levels: int) -> Tensor:
    """Return for every level l the sines, then the cosines, of 2^l pi x. NeRF, equation 4.

    Args:
        x: (N, D) float32 or float64, usually in [-1, 1].
        levels: L, 1 to 24.
    Returns:
        (N, 2 L D), twice differentiable in x.
    Raises:
        TypeError, ValueError: if x or levels does not fit.

    >>> freq_encode(torch.tensor([[0.25]]), 1)
    tensor([[0.7071, 0.7071]])
    """
    kernels.check_floats("x", x, "(N, D)")
    if not 1 <= levels <= MAX_LEVELS:
        raise ValueError(f"levels must be from 1 to {MAX_LEVELS}, got {levels}")
    if kernels.is_available("freqencoder", x.device):
        return torch.ops.dreamfusion.freq_encode(x, levels, None)
    return reference.freq_encode(x, levels)


class FreqEncoder(nn.Module):
    """freq_encode as a module, for positions of `input_dim` coordinates."""

    def __init__(self, input_dim: int = 3, levels: int = 6) -> None:
        super().__init__()
        self.input_dim, self.levels = input_dim, levels
        self.output_dim = 2 * levels * input_dim

    def forward(self, x: Tensor) -> Tensor:
        """Encode (..., input_dim) to (..., output_dim). Raises ValueError for another last axis."""
        if x.shape[-1] != self.input_dim:
            expected = f"(..., {self.input_dim})"
            raise ValueError(f"positions must have shape {expected}, got {tuple(x.shape)}")
        y = freq_encode(x.reshape(-1, self.input_dim), self.levels)
        return y.view(*x.shape[:-1], self.output_dim)


# --- The operators. With a direction v they return their derivative along v.


def _call(function: str, x: Tensor, *arguments: object) -> None:
    kernels.call("freqencoder", function, x.device, kernels.TYPE_CODES[x.dtype], *arguments)


def _encode(x: Tensor, levels: int, v: Tensor | None) -> Tensor:
    y = x.new_empty(len(x), 2 * levels * x.shape[1])
    v = None if v is None else v.contiguous()
    _call("freq_encode", x, x.contiguous(), v, y, *x.shape, levels)
    return y


def _input_grad(x: Tensor, dy: Tensor, levels: int, v: Tensor | None) -> Tensor:
    dx = x.new_empty(x.shape)
    v = None if v is None else v.contiguous()
    _call("freq_input_grad", x, x.contiguous(), dy.contiguous(), v, dx, *x.shape, levels)
    return dx


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.levels, v = inputs[-2:]
    ctx.is_second = v is not None
    ctx.save_for_backward(*inputs[:-2])


def _encode_backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    if ctx.is_second:
        kernels.no_third_derivative()
    [x] = ctx.saved_tensors
    return torch.ops.dreamfusion.freq_input_grad(x, dy, ctx.levels, None), None, None


def _input_grad_backward(ctx: Any, v: Tensor) -> tuple[Any, ...]:
    if ctx.is_second:
        kernels.no_third_derivative()
    x, dy = ctx.saved_tensors
    ops, needed = torch.ops.dreamfusion, ctx.needs_input_grad
    dx = ops.freq_input_grad(x, dy, ctx.levels, v) if needed[0] else None
    ddy = ops.freq_encode(x, ctx.levels, v) if needed[1] else None
    return dx, ddy, None, None


kernels.register(
    "freq_encode(Tensor x, int levels, Tensor? v) -> Tensor",
    _encode,
    lambda x, levels, v: x.new_empty(x.shape[0], 2 * levels * x.shape[1]),
    _encode_backward,
    _save,
)
kernels.register(
    "freq_input_grad(Tensor x, Tensor dy, int levels, Tensor? v) -> Tensor",
    _input_grad,
    lambda x, dy, levels, v: x.new_empty(x.shape),
    _input_grad_backward,
    _save,
)
