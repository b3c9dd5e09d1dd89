"""Frequency encoding in plain PyTorch: what the kernels have to give, and what runs where there are none."""

import torch
from torch import Tensor


def freq_encode(x: Tensor, levels: int) -> Tensor:
    """sin(2^l pi x), cos(2^l pi x) for every level l. NeRF, equation 4.

    Args:
        x: (N, D), float32 or float64.
        levels: L.
    Returns:
        (N, L * 2 * D): for each level D sines, then D cosines.
    """
    frequencies = torch.exp2(torch.arange(levels, device=x.device, dtype=x.dtype))
    p = frequencies[:, None] * x[:, None, :]  # (N, L, D)
    turns = torch.pi * (
        p - 2 * (p / 2).round().detach()
    )  # exact: without it high frequencies lose their digits
    return torch.stack([turns.sin(), turns.cos()], 2).flatten(1)
