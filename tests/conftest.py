"""Shared fixtures: a Stable Diffusion small enough to build in a second, with random weights."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
# The tests run side by side, one process a core; what they start does as they do, and finds the project.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
os.environ.pop("COURSE_MODEL", None)  # the tests say themselves which model they mean

WORDS = (
    "a an at astronaut book bunny car city duck grass hamburger horse mars moon next night of on pancakes photo"
    " reading red riding sitting skyline squirrel stack to top tree"
)


def build_tiny_model(folder: Path) -> Path:
    """Save a StableDiffusionPipeline (64 x 64 pixels, f=8, 77 tokens, one a letter) under `folder`; returns it."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    torch.manual_seed(0)
    letters = list(bytes_to_unicode().values())
    symbols = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={s: i for i, s in enumerate(symbols)}, merges=[], model_max_length=77)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(symbols), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            bos_token_id=len(symbols) - 2, eos_token_id=len(symbols) - 1, pad_token_id=len(symbols) - 1,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4, attention_head_dim=2,
        cross_attention_dim=16, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, latent_channels=4, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    with torch.no_grad():  # at the usual initialisation a text hardly shows in the picture
        for name, weight in unet.named_parameters():
            if "attn2.to_v" in name or "conv_out" in name:
                weight.mul_(10)
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(folder)
    return folder


def write_manifest(weights: Path) -> None:
    """List every file under `weights` with its size and SHA-256, as the export of the real weights does."""
    files = {
        path.relative_to(weights).as_posix(): {
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(weights.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
    (weights / "manifest.json").write_text(json.dumps({"files": files}))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights laid out as pocket/weights, with the tiny model in them; read only. Returns stable-diffusion/."""
    weights = tmp_path_factory.mktemp("weights")
    build_tiny_model(weights / "stable-diffusion")
    (weights / "vocabulary.json").write_text(json.dumps({"words": WORDS.split()}))
    write_manifest(weights)
    return weights / "stable-diffusion"
