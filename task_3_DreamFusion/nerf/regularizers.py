"""The terms of the loss that keep a field tidy: entropy, sparsity, orientation, total variation, smoothness."""

import torch
from torch import Tensor

from task_3_DreamFusion.nerf.network_grid import GridField
from task_3_DreamFusion.nerf.renderer import Renderer, RenderOutput
from task_3_DreamFusion.nerf.settings import Settings


def regularise(
    rendered: RenderOutput,
    renderer: Renderer,
    settings: Settings,
    generator: torch.Generator,
    progress: float,
) -> dict[str, Tensor]:
    """The weighted terms that keep a field tidy, each a scalar. progress: how much of the run is done, of 1.

    entropy: rays should see all or nothing (binary entropy of their opacity); its weight grows with the run, for at
    first nothing is decided. sparsity: and rather nothing (DreamFusion, appendix A.2: sqrt(opacity^2 + 0.01)); its
    weight falls to a fifth in the first half, or the object would wane as the guidance grows timid. orientation: what
    is seen should not look away from the camera (Ref-NeRF, Verbin et al. 2021, arXiv:2112.03907, equation 11).
    variation: neighbouring entries of the table should be alike. smoothness: normals should be like those nearby.
    """
    terms: dict[str, Tensor] = {}
    opacity = rendered.opacity.clamp(1e-5, 1 - 1e-5)
    if settings.entropy:
        bits = -(opacity * opacity.log2() + (1 - opacity) * (1 - opacity).log2())
        terms["entropy"] = settings.entropy * progress * bits.mean()
    if settings.sparsity:
        weight = settings.sparsity * max(1 - 1.6 * progress, 0.2)
        terms["sparsity"] = weight * (rendered.opacity.square() + 0.01).sqrt().mean()
    rays = rendered.opacity.numel()
    if settings.orientation and rendered.normals is not None:
        away = (rendered.normals * rendered.directions).sum(-1).clamp(min=0).square()
        terms["orientation"] = (
            settings.orientation * (rendered.weights.detach() * away).sum() / rays
        )
    if settings.smoothness and rendered.normals is not None:
        offsets = torch.randn(rendered.positions.shape, generator=generator).to(
            rendered.positions, non_blocking=True
        )
        near = rendered.positions + 1e-2 * settings.bound * offsets
        others = renderer.field.normals(
            near.clamp(-settings.bound, settings.bound), renderer.normal_step
        )
        apart = (others - rendered.normals).abs().sum(-1)
        terms["smoothness"] = settings.smoothness * (rendered.weights.detach() * apart).sum() / rays
    if settings.variation and isinstance(renderer.field, GridField):
        variation = renderer.field.encoder.total_variation(rendered.positions)
        terms["variation"] = settings.variation * variation
    return terms
