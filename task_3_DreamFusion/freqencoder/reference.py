"""Frequency encoding in plain PyTorch: the kernels' definition, used where there are none."""

import torch
from torch import Tensor


def freq_encode(x: Tensor, levels: int) -> Tensor:
    """Return the encoding (N, 2 L D) of positions (N, D) as `freq.freq_encode` describes it."""
    frequencies = torch.exp2(torch.arange(levels, device=x.device, dtype=x.dtype))
    p = frequencies[:, None] * x[:, None, :]  # (N, L, D)
    # The reduction to one period is exact; without it high frequencies would lose digits.
    phase = torch.pi * (p - 2 * (p / 2).round().detach())
    return torch.stack([phase.sin(), phase.cos()], 2).flatten(1)
