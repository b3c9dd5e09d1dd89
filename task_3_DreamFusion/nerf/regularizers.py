"""The terms of the loss that regularize a field."""

from typing import Any

from torch import Tensor

from task_3_DreamFusion.nerf.network_grid import GridField
from task_3_DreamFusion.nerf.renderer import Renderer, RenderOutput
from task_3_DreamFusion.nerf.settings import Settings

MIN_WEIGHT = 0.02  # of a sample in its ray, below which its normal is not compared
MIN_NORMAL = 0.7  # length of the normal of a pixel, of which several lie on an outline


def regularize(
    rendered: RenderOutput,
    renderer: Renderer,
    settings: Settings,
    progress: float,
    normals: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the weighted terms by name, each a scalar; a term of weight 0 is left out.

    entropy: pushes the opacity of rays to 0 or 1. Its weight grows with the run, because at first
        nothing is decided.
    sparsity: penalizes opacity. Its weight falls to a fifth in the first half, or the object would
        shrink as the guidance gets weaker.
    orientation: of the normals, where the rendered image is lit.
    variation: of the hash grid.
    normals: their difference to those of the targets. Its weight grows in the first half, because
        early targets have no surface yet.

    progress: share of the run that is done. normals: (N, 3) of the rays, as in `normal_agreement`.
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
    if settings.lambda_tv and isinstance(renderer.field, GridField):
        encoder: Any = renderer.field.encoder
        variation = encoder.total_variation(rendered.positions)
        terms["variation"] = settings.lambda_tv * variation
    if settings.lambda_normals and normals is not None:
        weight = settings.lambda_normals * min(2 * progress, 1)
        terms["normals"] = weight * normal_agreement(rendered, normals, renderer)
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


def normal_agreement(rendered: RenderOutput, normals: Tensor, renderer: Renderer) -> Tensor:
    """Penalize visible normals that differ from those of the targets; a mean over the rays.

    normals: (N, 3) of the rays, 0 where there is no surface.
    """
    weights, rays = rendered.weights.detach(), rendered.ray_indices
    kept = (weights > MIN_WEIGHT) & (normals.norm(dim=-1) > MIN_NORMAL)[rays]
    own = renderer.field.normals(rendered.positions[kept])
    differences = (own - normals[rays[kept]]).square().sum(-1)
    return (weights[kept] * differences).sum() / len(normals)
