"""diffusers' own sampler, which the lessons' loops are compared with."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from course.diffusion import guide
from course.models import Model


@contextlib.contextmanager
def constant_stride(owner: Any) -> Iterator[None]:
    """Within this block diffusers and the lessons take the same steps of `owner.scheduler`.

    Leading timesteps are one stride apart: steps go from each to the next (lesson 1.2, section 3).
    """
    from diffusers import DDIMScheduler

    own = owner.scheduler
    owner.scheduler = DDIMScheduler.from_config(
        own.config, timestep_spacing="leading", clip_sample=False, thresholding=False
    )
    try:
        yield
    finally:
        owner.scheduler = own


@torch.no_grad()
def sample_with_diffusers(
    sd: Any,
    latents: torch.Tensor,
    embeddings: torch.Tensor,
    count: int,
    w: float,
    eta: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return the latents of one image after `count` steps of diffusers' DDIMScheduler."""
    with constant_stride(sd):
        scheduler = sd.scheduler
    scheduler.set_timesteps(count)
    for t in scheduler.timesteps:
        both = torch.cat([latents] * 2).to(sd.unet.dtype)
        uncond, cond = sd.unet(both, t, encoder_hidden_states=embeddings).sample.float().chunk(2)
        fresh = torch.randn(latents.shape, generator=generator).to(latents.device) if eta else None
        guided = guide(uncond, cond, w)
        latents = scheduler.step(guided, t, latents, eta=eta, variance_noise=fresh).prev_sample
    return latents


def sample_with_controlnets(
    pipe: Any, model: Model, controls: list[Any], seed: int, steps: int, settings: dict[str, Any]
) -> torch.Tensor:
    """Return the latents of StableDiffusionControlNetPipeline for the prompt "a duck"."""
    from diffusers import StableDiffusionControlNetPipeline

    options: dict[str, Any] = {
        "controlnet": [one.network for one in controls],
        "image": [one.condition for one in controls],
        "controlnet_conditioning_scale": [one.scale for one in controls],
        "control_guidance_start": [one.start for one in controls],
        "control_guidance_end": [one.end for one in controls],
    }
    if len(controls) == 1:
        options = {name: value for name, [value] in options.items()}
    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    reference = StableDiffusionControlNetPipeline(
        **parts, controlnet=options.pop("controlnet"), requires_safety_checker=False
    )
    reference.set_progress_bar_config(disable=True)
    sides = (side // model.scale_factor for side in controls[0].condition.shape[2:])
    shape = (1, pipe.unet.config.in_channels, *sides)
    noise = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))
    return reference(
        "a duck",
        num_inference_steps=steps,
        latents=noise.to(model.device, model.dtype),
        output_type="latent",
        **settings,
        **options,
    ).images.float()
