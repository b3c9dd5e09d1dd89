"""The command line of the benchmarks, and networks of the size of Stable Diffusion 2.1."""

import argparse
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from course.figures import Row, add_groups, report
from course.models import Model, find_model, load_pipeline

RESULTS = Path(__file__).resolve().parent / "results"
# Stable Diffusion 2.1's denoiser and autoencoder, as diffusers' config.json has them; the toys have
# the same shapes of latents and few channels.
SD21_UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "layers_per_block": 2,
    "use_linear_projection": True,
}
TOY_UNET: dict[str, Any] = {
    "block_out_channels": (32, 32, 64, 64),
    "attention_head_dim": (2, 2, 4, 4),
    "cross_attention_dim": 32,
    "layers_per_block": 1,
}
SD21_VAE: dict[str, Any] = {
    "sample_size": 512,
    "block_out_channels": (128, 256, 512, 512),
    "latent_channels": 4,
    "norm_num_groups": 32,
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
TOY_VAE: dict[str, Any] = {
    "block_out_channels": (8, 8, 8, 8),
    "norm_num_groups": 4,
    "layers_per_block": 1,
}


def sd21_unet(toy: bool = False) -> UNet2DConditionModel:
    """Return a denoiser with random weights, on torch's default device."""
    return UNet2DConditionModel(**SD21_UNET | (TOY_UNET if toy else {})).eval()


def sd21_vae(toy: bool = False) -> AutoencoderKL:
    """Return an autoencoder with random weights."""
    return AutoencoderKL(**SD21_VAE | (TOY_VAE if toy else {})).eval()


def sd21_model(folder: Path, toy: bool = False) -> Model:
    """Save a whole model with random weights in `folder`, in half precision if there is a GPU.

    Its tokenizer is pocket's.
    """
    pipe = load_pipeline(find_model("pocket"))
    torch.manual_seed(0)
    width = (SD21_UNET | (TOY_UNET if toy else {}))["cross_attention_dim"]
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "projection_dim": width}
    depth = {"num_hidden_layers": 2, "num_attention_heads": 4}
    config = CLIPTextConfig(**pipe.text_encoder.config.to_dict() | sizes | depth)
    pipe.text_encoder = CLIPTextModel(config)
    pipe.unet = sd21_unet(toy)
    pipe.vae = sd21_vae(toy)
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    pipe.scheduler = DDIMScheduler(**betas, clip_sample=False, steps_offset=1)
    if torch.cuda.is_available():
        pipe.to(torch.float16)
    pipe.save_pretrained(folder)
    return find_model(folder)


def command_line(
    module: str, description: str | None, groups: Collection[str]
) -> argparse.ArgumentParser:
    """Return the parser of `python -m MODULE [GROUP ...]`, to which a module may add options."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_groups(parser, groups)
    return parser


def measure(
    module: str,
    description: str | None,
    groups: Mapping[str, Callable[[], list[Row]]],
    results: Path | None,
    arguments: list[str] | None = None,
) -> list[Row]:
    """Run the whole program of a module that has no options but groups; return their rows."""
    args = command_line(module, description, groups).parse_args(arguments)
    rows: list[Row] = []
    for name in args.groups:
        rows += report(f"python -m {module} {name}", groups[name], results)
    return rows
