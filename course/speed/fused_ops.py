"""Operations of a denoiser that are several kernels in PyTorch and one or two here, in Triton.

Each has the same result in plain PyTorch, which a CPU uses, and a GPU without Triton. Forward only.
Images are in channels-last memory format: in PyTorch, group normalization would change it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

try:
    import triton

    from . import triton_kernels
except ImportError:  # Triton comes with torch for NVIDIA GPUs, on Linux
    triton = None

MOMENT_CHUNKS = 16  # thread blocks, at most, that share the pixels of a group of channels
ROWS = 64  # pixels, at most, that a thread block loads at once
ELEMENTS = 4096  # that it loads at once, at most


def use_triton(x: Tensor) -> bool:
    """Return whether the Triton kernels run for `x`."""
    return triton is not None and x.is_cuda


def group_norm(
    x: Tensor, norm: nn.GroupNorm, shift: Tensor | None = None, silu: bool = True
) -> Tensor:
    """Return norm(x + shift), then SiLU if `silu`.

    Args:
        x: (B, C, H, W), in channels-last memory format.
        shift: (B, C) with rows in contiguous memory, or None; the bias of the layer before, say,
            and the embedded timestep.
    """
    if use_triton(x):
        return _group_norm_triton(x, norm, shift, silu)
    y = norm(x if shift is None else x + shift[:, :, None, None])
    return F.silu(y) if silu else y


def _group_norm_triton(x: Tensor, norm: nn.GroupNorm, shift: Tensor | None, silu: bool) -> Tensor:
    batch, channels = x.shape[:2]
    pixels, groups = x[0, 0].numel(), norm.num_groups
    size = channels // groups
    padded_size = triton.next_power_of_2(size)
    rows = min(ROWS, ELEMENTS // padded_size, triton.next_power_of_2(pixels))
    chunks = min(MOMENT_CHUNKS, triton.cdiv(pixels, rows))
    chunk = triton.cdiv(triton.cdiv(pixels, chunks), rows) * rows  # pixels in each
    chunks = triton.cdiv(pixels, chunk)
    moments = x.new_empty(batch, groups, chunks, 2, dtype=torch.float32)
    y = torch.empty_like(x, memory_format=torch.channels_last)
    has_shift = shift is not None
    shift = x if shift is None else shift  # a pointer that is not read
    triton_kernels.group_moments[(chunks, groups, batch)](
        x, shift, moments, pixels, channels, size, shift.stride(0),
        chunk, padded_size, rows, has_shift,
    )  # fmt: skip
    columns = min(128, triton.next_power_of_2(channels))
    rows = min(ELEMENTS // columns, triton.next_power_of_2(pixels))
    grid = (triton.cdiv(pixels, rows), triton.cdiv(channels, columns), batch)
    triton_kernels.normalize_groups[grid](
        x, shift, moments, norm.weight, norm.bias, y,
        pixels, channels, size, groups, norm.eps, shift.stride(0),
        chunks, rows, columns, has_shift, silu,
    )  # fmt: skip
    return y


def layer_norm(x: Tensor, norm: nn.LayerNorm, shift: Tensor | None = None) -> Tensor:
    """Return norm(x + shift) of x (M, C), in contiguous memory; shift: (C,) or None."""
    if not use_triton(x):
        return norm(x if shift is None else x + shift)
    rows, channels = x.shape
    y = torch.empty_like(x)
    shift_or_x = x if shift is None else shift
    columns = triton.next_power_of_2(channels)
    triton_kernels.normalize_rows[(rows,)](
        x, shift_or_x, norm.weight, norm.bias, y, channels, norm.eps, columns, shift is not None
    )
    return y


def geglu(x: Tensor) -> Tensor:
    """Return a * gelu(b) (M, C) for x = (a, b), (M, 2 C), in contiguous memory (Shazeer 2020)."""
    if not use_triton(x):
        a, b = x.chunk(2, dim=-1)
        return a * F.gelu(b)
    rows, channels = x.shape[0], x.shape[1] // 2
    y = x.new_empty(rows, channels)
    columns = min(1024, triton.next_power_of_2(channels))
    grid = (rows, triton.cdiv(channels, columns))
    triton_kernels.gate_by_gelu[grid](x, y, channels, columns)
    return y


def add(x: Tensor, y: Tensor, bias: Tensor) -> Tensor:
    """Return x + y + bias of x and y (B, C, H, W), in channels-last memory format; bias: (C,)."""
    if not use_triton(x):
        return x + y + bias[:, None, None]
    result = torch.empty_like(x, memory_format=torch.channels_last)
    block = 1024
    grid = (triton.cdiv(x.numel(), block),)
    triton_kernels.add_bias[grid](x, y, bias, result, x.numel(), len(bias), block)
    return result
