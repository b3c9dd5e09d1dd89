"""What results are compared with: diffusers' own sampler, and loops and guidance with mistakes."""

import contextlib
import copy
import inspect
import itertools
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor

from course.diffusion import END, alpha_bar_at, ddim_step, guide, predict_x0_and_noise, timesteps
from course.models import Model


def guidance_mistakes(uncond: Tensor, cond: Tensor, w: float, condition: str) -> dict[str, Tensor]:
    """Return the usual wrong results of guidance by their advice; condition: "prompt", "label"."""
    push = w * (cond - uncond)
    return {
        "The guidance was added to the wrong term: start from `uncond`, not `cond`. (Ho and "
        "Salimans write it so; their w is our w - 1.)": cond + push,
        f"That leads away from the {condition}: subtract `uncond` from `cond`.": uncond - push,
        "Scale the difference of the two, cond - uncond, not `cond` itself.": uncond + w * cond,
        "Only the scaled difference is left: add it to `uncond`.": push,
    }


@contextlib.contextmanager
def constant_stride(owner: Any) -> Iterator[None]:
    """Within this block diffusers and the lessons take the same steps of `owner.scheduler`.

    Leading timesteps have a constant stride: steps go from each to the next (lesson 1.2,
    section 3).
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
    latents: Tensor,
    embeddings: Tensor,
    count: int,
    w: float,
    eta: float,
    generator: torch.Generator,
) -> Tensor:
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


@torch.no_grad()
def sample_at_levels(
    sd: Any, latents: Tensor, embeddings: Tensor, count: int, w: float, predict: int, mix: int
) -> Tensor:
    """Return the latents after `count` DDIM steps with confused noise levels.

    x_0 is predicted at level `predict` and mixed at level `mix`: 0 for that of t, 1 for that of the
    next timestep. A right loop has 0 and 1.
    """
    with constant_stride(sd):
        scheduler = sd.scheduler
    visited = [*timesteps(scheduler.config, count), END]
    for t, t_prev in itertools.pairwise(visited):
        levels = alpha_bar_at(scheduler, t), alpha_bar_at(scheduler, t_prev)
        both = torch.cat([latents] * 2).to(sd.unet.dtype)
        uncond, cond = sd.unet(both, t, encoder_hidden_states=embeddings).sample.float().chunk(2)
        guided, kind = guide(uncond, cond, w), sd.model.prediction_type
        x_0, noise = predict_x0_and_noise(latents, guided, levels[predict], kind)
        latents = ddim_step(x_0, noise, levels[predict], levels[mix])
    return latents


def copy_of(owner: Any) -> Any:
    """Return a shallow copy of an object, whose own methods belong to the copy."""
    other = copy.copy(owner)
    for name, value in vars(owner).items():
        if inspect.ismethod(value) and value.__self__ is owner:
            setattr(other, name, MethodType(value.__func__, other))
    return other


def with_other_prediction(sd: Any) -> Any:
    """Return a copy of `sd` whose network is taken to predict v, or the noise if it predicts v."""
    from diffusers import DDIMScheduler

    other = copy_of(sd)
    other.model = copy.copy(sd.model)
    kind = "epsilon" if sd.model.prediction_type == "v_prediction" else "v_prediction"
    vars(other.model)["prediction_type"] = kind  # a cached property
    other.scheduler = DDIMScheduler.from_config(sd.scheduler.config, prediction_type=kind)
    return other


@torch.no_grad()
def invert(
    sd: Any,
    latents: Tensor,
    prompt: str,
    count: int,
    end: int = 1,
    first: int = 0,
    backwards: bool = False,
    exchange: bool = False,
) -> Tensor:
    """Return the latents after `count` steps of DDIM inversion, right or with a mistake.

    The network is called at the `end` of a step, or at its beginning (0). Mistakes: the first steps
    left out, steps taken `backwards`, and the noise levels of a step exchanged.
    """
    embeddings = sd.get_text_embeddings([prompt], [""])[1:]
    visited = [*timesteps(sd.scheduler.config, count), END][::-1][first:]
    for pair in itertools.pairwise(visited[::-1] if backwards else visited):
        t = max(pair[end], 0)
        output = sd.unet(latents.to(sd.unet.dtype), t, encoder_hidden_states=embeddings).sample
        levels = [alpha_bar_at(sd.scheduler, t) for t in pair]
        before, after = levels[::-1] if exchange else levels
        kind = sd.model.prediction_type
        x_0, noise = predict_x0_and_noise(latents, output.float(), before, kind)
        latents = ddim_step(x_0, noise, before, after)
    return latents


def sample_with_controlnets(
    pipe: Any, model: Model, controls: list[Any], seed: int, steps: int, settings: dict[str, Any]
) -> Tensor:
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


def sample_windows(sd: Any, count: int) -> Tensor:
    """Return windows (count, C, 8, 8) of noise on the model's device, small so that it is quick."""
    shape = (count, sd.unet.config.in_channels, 8, 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(sd.model.device)
