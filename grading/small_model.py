"""A complete text-to-image model with small random networks, for the recipes of several lessons.

Its sizes are in no lesson. It goes to the sandbox together with recipe.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from course.models import Model

CHANNELS, SIDE = 3, 6  # of the latents
TEXT_LENGTH, TEXT_WIDTH = 26, 12
LEVELS = (8, 8, 8)  # of the autoencoder: a latent pixel covers 4 x 4 pixels


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
    def prediction_type(self) -> str:  # type: ignore[override]
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
        "beta_start": 0.0005 + 0.001 * low,
        "beta_end": 0.01 + 0.01 * high,
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
