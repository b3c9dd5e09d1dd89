"""A model as a pipeline of diffusers, and its text encoder and autoencoder as functions."""

from typing import Any

import torch
from PIL import Image

from course.diffusion import check_finite, draw_noise, make_generator
from course.images import to_pil
from course.images.conditions import to_control
from course.models.files import ModelError, loading, short_path
from course.models.model import Model


def load_pipeline(model: Model, controlnet: Any = None, dtype: torch.dtype | None = None) -> Any:
    """Return the model as a StableDiffusionPipeline with DDIM, on the model's device.

    With a ControlNet, or a list of several that steer together, it is a
    StableDiffusionControlNetPipeline. `dtype` is that of the weights, by default the model's. Shows
    no progress bar. Lesson 1.1 teaches these lines. Raises ModelError.
    """
    import diffusers

    parts = {} if controlnet is None else {"controlnet": controlnet}
    kind = "StableDiffusionControlNetPipeline" if parts else "StableDiffusionPipeline"
    with loading(model.name):
        parts["scheduler"] = diffusers.DDIMScheduler.from_pretrained(
            model.folder, subfolder="scheduler"
        )
        pipeline = getattr(diffusers, kind)
        pipe = pipeline.from_pretrained(model.folder, dtype=dtype or model.dtype, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(model.device)


def load_distilled(model: Model) -> Any:
    """Return the model as a pipeline with its distilled denoiser, for one, two or four steps.

    Call it with guidance_scale=1. Raises ModelError if the model has no such denoiser.
    """
    import diffusers

    folder = model.folder.parent / "distilled"
    if not folder.is_dir():
        raise ModelError(
            f"{model.name} has no distilled denoiser: {short_path(folder)} is missing."
        )
    pipe = load_pipeline(model)
    with loading(model.name):
        unet = diffusers.UNet2DConditionModel.from_pretrained(folder, torch_dtype=model.dtype)
        pipe.scheduler = diffusers.LCMScheduler.from_pretrained(folder)
    pipe.unet = unet.to(model.device)
    return pipe


@torch.no_grad()
def encode_prompts(pipe: Any, model: Model, prompt: str, negative_prompt: str = "") -> torch.Tensor:
    """Return text embeddings (2, L, D) of the negative prompt and of the prompt.

    Lesson 1.2 teaches these lines. Raises RequestError for a prompt that is not text.
    """
    [prompt], [negative_prompt] = model.pair_prompts([prompt], [negative_prompt])
    cond, uncond = pipe.encode_prompt(prompt, model.device, 1, True, negative_prompt)
    return torch.cat([uncond, cond])


def starting_noise(pipe: Any, seed: Any, size: tuple[int, int]) -> torch.Tensor:
    """Return the noise (1, C, h, w) of a seed, of size (h, w). Raises RequestError."""
    shape = (pipe.unet.config.in_channels, *size)
    return draw_noise([make_generator(seed)], shape, pipe.unet.device)


def record_latents(
    pipe: Any, prompt: str, noise: torch.Tensor, steps: int, guidance_scale: float
) -> tuple[list[int], list[torch.Tensor]]:
    """Return the timesteps of a run of a pipeline, and its latents: `noise`, then of each step."""
    timesteps: list[int] = []
    latents = [noise.to(pipe.unet.dtype)]  # (1, C, h, w)

    def keep(_: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        timesteps.append(int(timestep))
        latents.append(values["latents"])
        return values

    pipe(
        prompt,
        latents=latents[0],
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        output_type="latent",
        callback_on_step_end=keep,
    )
    return timesteps, latents


@torch.no_grad()
def encode_images(pipe: Any, images: list[Image.Image]) -> torch.Tensor:
    """Return the latents (B, C, h, w), in float32, of images of one size."""
    pixels = torch.cat([to_control(image) for image in images]) * 2 - 1
    latents = pipe.vae.encode(pixels.to(pipe.vae.device, pipe.vae.dtype)).latent_dist.mean
    return latents.float() * pipe.vae.config.scaling_factor


@torch.no_grad()
def decode_latents(pipe: Any, latents: torch.Tensor) -> Image.Image:
    """Return the image of latents (1, C, h, w). Raises CourseError if it is not finite."""
    latents = latents.to(pipe.vae.dtype) / pipe.vae.config.scaling_factor
    image = pipe.vae.decode(latents).sample.float()  # (1, 3, H, W) in [-1, 1]
    check_finite(image, "The decoded image")
    return to_pil(image)
