"""The terms of the loss that regularize a field."""

from typing import Any

import torch
from torch import Tensor

from task_3_DreamFusion.nerf.network_grid import GridField
from task_3_DreamFusion.nerf.renderer import Renderer, RenderOutput
from task_3_DreamFusion.nerf.settings import Settings


def regularize(
    rendered: RenderOutput,
    renderer: Renderer,
    settings: Settings,
    generator: torch.Generator,
    progress: float,
) -> dict[str, Tensor]:
    """Return the weighted terms by name, each a scalar; a term of weight 0 is left out.

    entropy: pushes the opacity of rays to 0 or 1. Its weight grows with the run, because at first
        nothing is decided.
    sparsity: penalizes opacity. Its weight falls to a fifth in the first half, or the object would
        shrink as the guidance gets weaker.
    orientation, smoothness: of the normals, where the rendered image is lit.
    variation: of the hash grid.

    progress: share of the run that is done.
    """
    terms: dict[str, Tensor] = {}
    if settings.lambda_entropy:
        weight = settings.lambda_entropy * progress
        terms["entropy"] = weight * binary_entropy(rendered.opacity)
    if settings.lambda_opacity:
        weight = settings.lambda_opacity * max(1 - 1.6 * progress, 0.2)
        terms["sparsity"] = weight * sparsity(rendered.opacity)
    if settings.lambda_orient and rendered.normals is not None:
        terms["orientation"] = settings.lambda_orient * orientation(rendered)
    if settings.lambda_smooth and rendered.normals is not None:
        terms["smoothness"] = settings.lambda_smooth * smoothness(rendered, renderer, generator)
    if settings.lambda_tv and isinstance(renderer.field, GridField):
        encoder: Any = renderer.field.encoder
        variation = encoder.total_variation(rendered.positions)
        terms["variation"] = settings.lambda_tv * variation
    return terms


def binary_entropy(opacity: Tensor) -> Tensor:
    """Return the mean binary entropy of opacities, in bits."""
    p = opacity.clamp(1e-5, 1 - 1e-5)
    return -(p * p.log2() + (1 - p) * (1 - p).log2()).mean()


def sparsity(opacity: Tensor) -> Tensor:
    """Return the mean of sqrt(opacity^2 + 0.01) (DreamFusion, appendix A.2)."""
    return (opacity.square() + 0.01).sqrt().mean()


def orientation(rendered: RenderOutput) -> Tensor:
    """Penalize visible normals that face away from the camera.

    Ref-NeRF, Verbin et al. 2021, arXiv:2112.03907, equation 11; a mean over the rays.
    """
    assert rendered.normals is not None
    away = (rendered.normals * rendered.directions).sum(-1).clamp(min=0).square()
    return (rendered.weights.detach() * away).sum() / rendered.opacity.numel()


def smoothness(rendered: RenderOutput, renderer: Renderer, generator: torch.Generator) -> Tensor:
    """Penalize differences between visible normals and those near them; a mean over the rays."""
    assert rendered.normals is not None
    bound = renderer.field.bound
    noise = torch.randn(rendered.positions.shape, generator=generator)
    offsets = noise.to(rendered.positions, non_blocking=True)
    near = (rendered.positions + 1e-2 * bound * offsets).clamp(-bound, bound)
    others = renderer.field.normals(near)
    differences = (others - rendered.normals).abs().sum(-1)
    return (rendered.weights.detach() * differences).sum() / rendered.opacity.numel()
