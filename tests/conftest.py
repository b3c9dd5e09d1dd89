"""Shared fixtures: a Stable Diffusion small enough to build in a second, with random weights."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import hypothesis
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
# The tests run in one process per core. Commands that they start use one thread too, and can
# import the project.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
os.environ.pop("COURSE_MODEL", None)  # each test names its model
# Benchmarks measure time; a busy machine must not fail a test.
hypothesis.settings.register_profile("course", deadline=None)
hypothesis.settings.load_profile("course")

WORDS = (
    "a an at astronaut book bunny car city duck grass hamburger horse mars moon next night of on"
    " pancakes photo reading red riding sitting skyline squirrel stack to top tree"
)


def build_tiny_model(folder: Path) -> Path:
    """Save a StableDiffusionPipeline in `folder` and return the folder.

    Images have 64 x 64 pixels, f=8, and each of 77 tokens is a letter.
    """
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    torch.manual_seed(0)
    letters = list(bytes_to_unicode().values())
    symbols = [
        *letters,
        *(letter + "</w>" for letter in letters),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    tokenizer = CLIPTokenizer(
        vocab={s: i for i, s in enumerate(symbols)}, merges=[], model_max_length=77
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(symbols),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            bos_token_id=len(symbols) - 2,
            eos_token_id=len(symbols) - 1,
            pad_token_id=len(symbols) - 1,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    with torch.no_grad():  # with the default initialization a prompt hardly changes the image
        for name, weight in unet.named_parameters():
            if "attn2.to_v" in name or "conv_out" in name:
                weight.mul_(10)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder)
    return folder


def write_manifest(weights: Path) -> None:
    """List every file in `weights` with its size and SHA-256, as the export of the weights does."""
    files = {
        path.relative_to(weights).as_posix(): {
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(weights.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
    (weights / "manifest.json").write_text(json.dumps({"files": files}))


def add_control(weights: Path, scale: float = 0.5) -> None:
    """Add a ControlNet of each kind and both estimators to the tiny model in `weights`.

    Noise of standard deviation `scale` in the zero convolutions gives the ControlNets an effect.
    """
    from diffusers import ControlNetModel, UNet2DConditionModel
    from transformers import (
        GLPNConfig,
        GLPNForDepthEstimation,
        SegformerConfig,
        SegformerForSemanticSegmentation,
    )

    unet = UNet2DConditionModel.from_pretrained(weights / "stable-diffusion" / "unet")
    for seed, kind in enumerate(("canny", "depth", "normals", "scribble")):
        torch.manual_seed(seed)
        network = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 4, 4, 4))
        zero_layers = (network.controlnet_mid_block, *network.controlnet_down_blocks)
        for layer in (network.controlnet_cond_embedding.conv_out, *zero_layers) if scale else ():
            torch.nn.init.normal_(layer.weight, std=scale)
        network.save_pretrained(weights / "controlnet" / kind)
        Image.new("RGB", (60, 20), "red").save(weights / "controlnet" / kind / "strip.jpg")
    small = {
        "hidden_sizes": [8] * 4,
        "depths": [1] * 4,
        "num_attention_heads": [1] * 4,
        "decoder_hidden_size": 8,
    }
    settings = {
        "size": {"height": 64, "width": 64},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    GLPNForDepthEstimation(GLPNConfig(max_depth=1, **small)).save_pretrained(
        weights / "estimators" / "depth"
    )
    network = SegformerForSemanticSegmentation(SegformerConfig(num_labels=3, **small))
    network.save_pretrained(weights / "estimators" / "normals")
    for kind in ("depth", "normals"):
        (weights / "estimators" / kind / "preprocessor_config.json").write_text(
            json.dumps(settings)
        )


@pytest.fixture(scope="session")
def steered_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return `tiny_folder` with ControlNets and estimators beside it; read only."""
    weights = tmp_path_factory.mktemp("steered") / "weights"
    shutil.copytree(tiny_folder.parent, weights)
    add_control(weights)
    write_manifest(weights)
    return weights / "stable-diffusion"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return stable-diffusion/ of the tiny model, in a folder like pocket/weights; read only."""
    weights = tmp_path_factory.mktemp("weights")
    build_tiny_model(weights / "stable-diffusion")
    (weights / "vocabulary.json").write_text(json.dumps({"words": WORDS.split()}))
    write_manifest(weights)
    return weights / "stable-diffusion"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run slow tests first: a process that is done early can take fast tests from the other."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
