"""Plumbing of the lesson: predictors for its loops, DDIM sampling, and the trained field.

The mathematics is in the notebook and in nerf/sd.py; here are only the parts that bind it together.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from course import diffusion
from task_3_DreamFusion.nerf import sd
from task_3_DreamFusion.nerf.guidance import StableDiffusion
from task_3_DreamFusion.nerf.utils import Trainer

Predict = Callable[[Tensor, Tensor], Tensor]
# For each of front, side, back and overhead: two of the first three that are not visible.
HIDDEN = [[1, 2], [0, 2], [0, 1], [0, 2]]


def faint_noise(guidance: StableDiffusion, count: int, seed: int) -> Tensor:
    """Return `count` copies of the same latents to begin with, (count, C, h, w)."""
    shape = (1, guidance.unet.config.in_channels, *guidance.model.latent_size())
    noise = 0.1 * torch.randn(shape, generator=diffusion.make_generator(seed))
    return noise.expand(count, -1, -1, -1).to(guidance.device)


def prompt_predictor(
    guidance: StableDiffusion, prompt: str, w: float | Sequence[float], negative: str = ""
) -> Predict:
    """Return predict(x_t, timesteps): the noise predicted for a prompt by `sd.predict_noise`.

    w: the guidance scale, or one for each image of the batch.
    """
    pair = torch.stack([guidance.embed_text(text) for text in (negative, prompt)])  # (2, L, D)
    scales = torch.as_tensor(w, dtype=torch.float32, device=guidance.device).reshape(-1, 1, 1, 1)

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        embeddings = pair.to(guidance.dtype)[:, None].expand(-1, len(x_t), -1, -1)
        return _predict(guidance, x_t, t, embeddings, scales)

    return predict


def view_predictor(
    guidance: StableDiffusion,
    prompt: str,
    w: float,
    strength: float,
    perp_neg: Callable[..., Tensor],
) -> Predict:
    """Return predict(x_t, timesteps) for four images: front, side, back and overhead view.

    strength: with which `perp_neg`, as in the lesson, pushes away the hidden views; 0 for none.
    """
    prompts = guidance.view_prompts(prompt)
    embeddings = [prompts.negative.expand(4, -1, -1), prompts.views]
    if strength:
        embeddings += [prompts.views[views] for views in torch.tensor(HIDDEN).T]

    def combine(noise_preds: list[Tensor]) -> Tensor:
        uncond, cond, *negatives = noise_preds
        strengths = torch.full((len(negatives), 4), strength, device=cond.device)
        return perp_neg(uncond, cond, torch.stack(negatives), strengths, w)

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        return _predict(guidance, x_t, t, torch.stack(embeddings), w, combine if strength else None)

    return predict


def _predict(
    guidance: StableDiffusion,
    x_t: Tensor,
    t: Tensor,
    embeddings: Tensor,
    w: float | Tensor,
    combine: Callable[[list[Tensor]], Tensor] | None = None,
) -> Tensor:
    t = t.to(x_t.device)
    kind = guidance.model.prediction_type
    return sd.predict_noise(
        guidance.unet, x_t, t, embeddings, guidance.alpha_bar(t), kind, w, combine
    )


@torch.no_grad()
def ddim(x: Tensor, predict: Predict, alphas_cumprod: Tensor, steps: int) -> Tensor:
    """Return samples (B, C, h, w) by DDIM from noise x, as in lesson 1.2."""
    times = torch.linspace(len(alphas_cumprod) - 1, 0, steps + 1).long()
    for t, t_prev in pairwise(times):
        noise = predict(x, t.repeat(len(x)))
        x_0 = diffusion.predict_x0(x, noise, alphas_cumprod[t])
        x = diffusion.ddim_step(x_0, noise, alphas_cumprod[t], alphas_cumprod[t_prev])
    return x


def trained_field(trainer: Trainer) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return the field of a run as a function of points (..., 3), on the CPU, without gradient.

    It returns density (...) and color (..., 3); the density is zero outside the field's box. Use it
    within `trainer.averaged()` for the averaged field.
    """
    field = trainer.renderer.field

    @torch.no_grad()
    def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
        points = x.reshape(-1, 3).to(trainer.renderer.device)
        parts = [field(part) for part in points.split(2**18)]
        sigmas = torch.cat([part[0] for part in parts]).cpu().reshape(x.shape[:-1])
        colors = torch.cat([part[1] for part in parts]).cpu().reshape(x.shape)
        return sigmas * (x.abs() <= field.bound).all(-1), colors

    return evaluate
