"""What the benchmarks share: the command line of a topic with groups, and networks of Stable Diffusion's size."""

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from pocket.evaluate import Row, store, table

RESULTS = Path(__file__).resolve().parent / "results"
# Stable Diffusion 2.1's denoiser and autoencoder: their sizes are facts of diffusers' config.json; weights are random.
SD21_UNET = {
    "sample_size": 64,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
SD21_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 768,
}


def sd21_unet(device: torch.device, dtype: torch.dtype = torch.float16) -> UNet2DConditionModel:
    """A denoiser of the size of Stable Diffusion 2.1's, with random weights."""
    with torch.device(device):
        return UNet2DConditionModel(**SD21_UNET).to(dtype).eval()


def sd21_vae(device: torch.device, dtype: torch.dtype = torch.float16) -> AutoencoderKL:
    """An autoencoder of the size of Stable Diffusion 2.1's, with random weights."""
    with torch.device(device):
        return AutoencoderKL(**SD21_VAE).to(dtype).eval()


def measure(
    module: str,
    about: str | None,
    groups: Mapping[str, Callable[[], list[Row]]],
    results: Path,
    arguments: list[str] | None = None,
    full: bool = True,
) -> list[Row]:
    """The command line of `python -m MODULE [GROUP ...]`: measures groups, prints their rows and returns them.

    They are stored in the file `results`, unless this machine only does a reduced form of the work (`full` is False).
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", help=f"any of {', '.join(groups)} (default: all)")
    asked = parser.parse_args(arguments).groups
    if unknown := set(asked) - set(groups):
        parser.error(f"no group {', '.join(sorted(unknown))}: choose from {', '.join(groups)}")
    everything: list[Row] = []
    for name in asked or groups:
        began = time.perf_counter()
        rows = groups[name]()
        for row in rows:  # what measures it again
            row.command = f"python -m {module} {name}"
        print(f"\n{name} ({time.perf_counter() - began:.0f} s)\n{table(rows)}", flush=True)
        if full:
            results.parent.mkdir(parents=True, exist_ok=True)
            store(results, rows)
        everything += rows
    if not full:
        print("\nA reduced form, for want of a GPU: nothing was stored.")
    return everything
