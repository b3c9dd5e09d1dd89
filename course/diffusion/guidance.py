"""Guidance: how a network's outputs for several prompts become one."""

import torch


def guide(uncond: torch.Tensor, cond: torch.Tensor, guidance_scale: float) -> torch.Tensor:
    """Return the guided output (Ho and Salimans 2022, arXiv:2207.12598, equation 6).

    `uncond` and `cond`, of one shape, are outputs for the negative prompt and for the prompt. With
    the paper's weight w, `guidance_scale` is 1 + w.
    """
    return uncond + guidance_scale * (cond - uncond)


def perp_neg(
    uncond: torch.Tensor,  # (B, C, h, w)
    cond: torch.Tensor,  # (B, C, h, w)
    negatives: torch.Tensor,  # (K, B, C, h, w)
    weights: torch.Tensor,  # (K, B), 0 or more
    guidance_scale: float,
) -> torch.Tensor:
    """Return the output guided to the prompt and away from K negative prompts, (B, C, h, w).

    Of each negative direction only the part perpendicular to the prompt's counts, so that what both
    have in common stays (Perp-Neg, Armandpour et al. 2023, arXiv:2304.04968, equation 6).
    """
    positive = cond - uncond
    flat = positive.flatten(1)  # (B, N)
    away = torch.zeros_like(positive)
    for negative, weight in zip(negatives - uncond, weights, strict=True):
        parallel = (negative.flatten(1) * flat).sum(1) / flat.square().sum(1).clamp(min=1e-12)
        perpendicular = negative - parallel[:, None, None, None] * positive
        away += weight[:, None, None, None] * perpendicular
    return uncond + guidance_scale * (positive - away)
