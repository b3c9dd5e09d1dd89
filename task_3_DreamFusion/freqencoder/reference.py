"""Frequency encoding in plain PyTorch: the kernels' definition, used where there are none."""

import torch
from torch import Tensor


def freq_encode(x: Tensor, levels: int) -> Tensor:
    """Return sin(2^l pi x), cos(2^l pi x) for each level l. NeRF, equation 4.

    Args:
        x: (N, D), float32 or float64.
        levels: L.
    Returns:
        (N, L * 2 * D): for each level D sines, then D cosines.
    """
    frequencies = torch.exp2(torch.arange(levels, device=x.device, dtype=x.dtype))
    p = frequencies[:, None] * x[:, None, :]  # (N, L, D)
    # The reduction to one period is exact; without it high frequencies would lose digits.
    phase = torch.pi * (p - 2 * (p / 2).round().detach())
    return torch.stack([phase.sin(), phase.cos()], 2).flatten(1)
