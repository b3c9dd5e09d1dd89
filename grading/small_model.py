"""A complete text-to-image model with small random networks, for the recipes of several lessons.

Its sizes are in no lesson. It goes to the sandbox together with recipe.py.
"""

import copy
import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from course import diffusion
from course.models import Model, find_model, hide_loading_bars
from grading.recipe import Space, run_cells

CHANNELS, SIDE = 3, 6  # of the latents
TEXT_LENGTH, TEXT_WIDTH = 26, 12
LEVELS = (8, 8, 8)  # of the autoencoder: a latent pixel covers 4 x 4 pixels

# Prompts that are in no lesson, short enough for the small model; and parameters of lessons.
PROMPTS = ("a blue fish", "two green cups", "an old clock", "a tall red tower", "a gray cat")
PARAMETERS = {"SEED": 11, "STEPS": 3, "GUIDANCE_SCALE": 3.5}
DETAILED = "task_1_2_Stable_Diffusion_detailed.ipynb"
METHODS = ("get_text_embeddings", "denoise", "decode_latents", "decode_steps", "sample", "invert")


@dataclass(frozen=True)
class SmallModel(Model):
    """A model whose configurations are those of a pipeline; no file of it is needed.

    pipe: the networks. precision: the `dtype`. kind: the prediction type.
    """

    pipe: Any
    precision: torch.dtype = torch.float32
    kind: str = "epsilon"

    def config(self, file: str) -> dict[str, Any]:
        """Return the configuration of a component."""
        config = getattr(self.pipe, Path(file).parts[0]).config
        return dict(config.to_dict() if hasattr(config, "to_dict") else config)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the networks' weights."""
        return self.precision

    @property
    def prediction_type(self) -> str:
        """What the denoiser predicts: "epsilon" or "v_prediction"."""
        return self.kind

    @property
    def tokenizer(self) -> Any:
        """The pipeline's CLIPTokenizer; each of its tokens is a letter."""
        return self.pipe.tokenizer


def make_scheduler(seed: int = 0, **settings: Any) -> DDIMScheduler:
    """Return a DDIM scheduler with a noise schedule of its own, which `seed` decides."""
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.rand(2, generator=generator).tolist()
    defaults: dict[str, Any] = {
        "beta_start": 0.0005 + 0.0005 * low,
        "beta_end": 0.008 + 0.004 * high,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "timestep_spacing": "trailing",
    }
    return DDIMScheduler(**defaults | settings)


def make_tokenizer() -> CLIPTokenizer:
    """Return a tokenizer that knows letters alone."""
    letters = list(bytes_to_unicode().values())
    ends = [letter + "</w>" for letter in letters]
    symbols = [*letters, *ends, "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {symbol: i for i, symbol in enumerate(symbols)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TEXT_LENGTH)


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return a text encoder of one layer."""
    end = len(tokenizer) - 1
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
    )
    return CLIPTextModel(config).eval()


def make_unet() -> UNet2DConditionModel:
    """Return a U-Net of two levels whose output depends on the text as much as on the latents."""
    unet = UNet2DConditionModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        sample_size=SIDE,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=TEXT_WIDTH,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if "attn2.to_v" in name:
                weight.mul_(10)
            elif "conv_out" in name:
                weight.mul_(3)
    return unet.eval().requires_grad_(False)


def tiny_unet(seed: int, width: int) -> UNet2DConditionModel:
    """Return a U-Net with random weights, for text embeddings (B, L, width)."""
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=2,
        norm_num_groups=4,
    ).eval()


def make_vae() -> AutoencoderKL:
    """Return an autoencoder whose images have contrast."""
    vae = AutoencoderKL(
        block_out_channels=LEVELS,
        norm_num_groups=4,
        latent_channels=CHANNELS,
        sample_size=SIDE * 2 ** (len(LEVELS) - 1),
        scaling_factor=0.6,
        down_block_types=("DownEncoderBlock2D",) * len(LEVELS),
        up_block_types=("UpDecoderBlock2D",) * len(LEVELS),
    )
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(1.5)
    return vae.eval().requires_grad_(False)


def make_pipeline() -> StableDiffusionPipeline:
    """Return a pipeline with small networks; its weights are the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = make_tokenizer()
        pipe = StableDiffusionPipeline(
            vae=make_vae(),
            text_encoder=make_text_encoder(tokenizer),
            tokenizer=tokenizer,
            unet=make_unet(),
            scheduler=make_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save_variant(pipe: StableDiffusionPipeline, seed: int) -> SmallModel:
    """Save a pipeline with other weights and another noise schedule; return it as a model.

    The model is in bfloat16 and predicts v. Its folder is a new one for temporary files.
    """
    variant = copy.deepcopy(pipe)
    generator = torch.Generator().manual_seed(seed)
    for network in (variant.unet, variant.vae, variant.text_encoder):
        for parameter in network.parameters():
            change = 0.1 * torch.randn(parameter.shape, generator=generator)
            parameter.data += change.to(parameter.device)
    settings = {"prediction_type": "v_prediction", "set_alpha_to_one": True}
    variant.scheduler = make_scheduler(seed, **settings)
    folder = Path(tempfile.mkdtemp()) / "saved"
    variant.save_pretrained(folder)
    return SmallModel("saved", folder, variant, torch.bfloat16, "v_prediction")


def some_weights(network: Any) -> Tensor:
    """Return some numbers of each parameter of a network, (n,), as they are in its precision.

    Raises TypeError for anything but a network.
    """
    if not isinstance(network, torch.nn.Module):
        raise TypeError(f"This has to be a network, not a {type(network).__name__}.")
    return torch.cat([p.detach().flatten()[:20].float() for p in network.parameters()])


def a_step(scheduler: Any, seed: int) -> Tensor:
    """Return timesteps of a scheduler and the result of one of its steps with eta = 0.5, (n,)."""
    generator = torch.Generator().manual_seed(seed)
    latents, output, noise = torch.randn(3, 1, CHANNELS, 4, 4, generator=generator)
    scheduler.set_timesteps(7)
    t = scheduler.timesteps[2]
    result = scheduler.step(output, t, latents, eta=0.5, variance_noise=noise).prev_sample
    return torch.cat([scheduler.timesteps / 1000, result.flatten()])


# --- Lesson 1.2 with the small model


def set_up_detailed() -> Space:
    """Return the names of the cells before the first exercise, with a small model."""
    space = run_cells(DETAILED, ("cell-02", "cell-04")) | PARAMETERS
    hide_loading_bars()
    pipe = make_pipeline()
    model = SmallModel("small", Path("small-model"), pipe)
    pipe.to(model.device)
    names = (AutoencoderKL, DDIMScheduler, UNet2DConditionModel, CLIPTextModel, CLIPTokenizer)
    space |= {each.__name__: each for each in names}
    for name in ("END", "SamplingStep", "check_request", "collect_steps", "draw_noise"):
        space[name] = getattr(diffusion, name)
    for name in ("add_noise", "make_generator"):
        space[name] = getattr(diffusion, name)
    modules = {"torch": torch, "np": np, "itertools": itertools}
    return space | modules | {"find_model": find_model, "model": model, "pipe": pipe}


def make_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(space: Space, seed: int, *shape: int) -> Tensor:
    """Return random numbers of a shape, on the model's device."""
    return torch.randn(shape, generator=make_generator(seed)).to(space["model"].device)


def alpha_bar_at(self: Any, t: int) -> Tensor:
    return diffusion.alpha_bar_at(self.scheduler, t)


def make_sd(space: Space, kind: str = "epsilon", **settings: Any) -> Any:
    """Return an object of the lesson's class, with all methods that there are.

    kind: the prediction type. settings: of its scheduler.
    """
    cls, pipe = space["StableDiffusion"], space["pipe"]
    cls.alpha_bar_at = alpha_bar_at
    for name in METHODS:
        if name in space:
            setattr(cls, name, space[name])
    sd = object.__new__(cls)
    sd.model = SmallModel("small", Path("small-model"), pipe, kind=kind)
    sd.tokenizer, sd.text_encoder = pipe.tokenizer, pipe.text_encoder
    sd.unet, sd.vae = pipe.unet, pipe.vae
    sd.scheduler = make_scheduler(3, prediction_type=kind, **settings)
    return sd


def pixels(images: Sequence[Image.Image]) -> np.ndarray:
    """Return images (PIL) of one size as one array of uint8, (N, H, W, 3). Raises TypeError."""
    for image in images:
        if not isinstance(image, Image.Image):
            raise TypeError(f"This has to be an image (PIL), not a {type(image).__name__}.")
    return np.stack([np.asarray(image.convert("RGB")) for image in images])
