"""The training set of lesson "Train your own": `python -m pocket.training_set` makes it again.

Toys of the pocket world on white ground, each alone, large and seen from its left front: 128 x 128
renders, encoded by the embedded autoencoder into latents of 8 bits a number. One color of each toy
is left out: the lesson asks whether its model can compose what it has never seen together.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from course.files import replace_file
from course.models import embedded_folder
from course.training import TOYS, Pair, autoencoder_hash
from pocket import arguments as options
from pocket.world import Scene, render
from pocket.world.labels import labels_from
from pocket.world.scene import build_scene

SIDE = 128  # pixels of an image; the latents have an eighth of it
# The toys, each with the color in which it is never shown.
UNSEEN = {
    "duck": "purple",
    "car": "orange",
    "teapot": "green",
    "cat": "blue",
    "mushroom": "yellow",
    "house": "purple",
    "rocket": "green",
    "elephant": "red",
}
COLORS = ("red", "orange", "yellow", "green", "blue", "purple")
PAIRS = [(toy, color) for toy in UNSEEN for color in COLORS if color != UNSEEN[toy]]
IMAGES_PER_PAIR = 24
AZIMUTHS = (10.0, 70.0)  # degrees
ELEVATIONS = (8.0, 22.0)


def sample_scene(toy: str, color: str, seed: int) -> Scene:
    """Sample a scene of a toy. The same seed gives the same scene on every machine."""
    rng = np.random.Generator(np.random.PCG64(seed))
    named = {"object": toy, "color": color, "ground": "white", "style": "photo", "size": "big"}
    labels = labels_from(named, rng, seed)
    labels["azimuth"] = rng.uniform(*AZIMUTHS)
    labels["elevation"] = rng.uniform(*ELEVATIONS)
    return Scene(labels, build_scene(labels, rng))


def load_autoencoder() -> AutoencoderKL:
    """Load the embedded autoencoder."""
    vae = AutoencoderKL.from_pretrained(embedded_folder("stable-diffusion") / "vae")
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def encode(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Return the scaled latents (N, 4, h, w) of images uint8 (N, 8h, 8w, 3)."""
    pixels = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    latents: Tensor = vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor
    return latents


def quantize(latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return latents (N, C, h, w) as uint8, and the lowest value and the step of each channel.

    Latents are `low + step * numbers`, with low and step (C, 1, 1).
    """
    low, high = latents.amin((0, 2, 3)), latents.amax((0, 2, 3))
    step = (high - low) / 255
    numbers = ((latents - low[:, None, None]) / step[:, None, None]).round().byte()
    return numbers, low[:, None, None], step[:, None, None]


def image_latents(pairs: list[Pair], first_seed: int, batch: int = 20) -> Tensor:
    """Render a scene of each pair, with consecutive seeds; return the scaled latents."""
    vae = load_autoencoder()
    parts = []
    for start in tqdm(range(0, len(pairs), batch), desc="encode", unit_scale=batch):
        chunk = pairs[start : start + batch]
        scenes = [sample_scene(*pair, first_seed + start + i) for i, pair in enumerate(chunk)]
        params = np.stack([scene.params for scene in scenes])
        parts.append(encode(vae, render(params, SIDE, SIDE).color))
    return torch.cat(parts)


def main(arguments: list[str] | None = None) -> None:
    """Render, encode and write the training set."""
    parser = argparse.ArgumentParser(prog="python -m pocket.training_set", description=__doc__)
    text = "images of each toy in each color"
    options.add_option(parser, "--images", options.integer(1, 1000), IMAGES_PER_PAIR, text)
    options.add_option(parser, "--seed", options.integer(0), 0, "seed of the first image")
    options.add_option(parser, "--folder", options.folder, TOYS.parent, "folder to write to")
    chosen = parser.parse_args(arguments)
    start_time = time.perf_counter()
    pairs = [pair for _ in range(chosen.images) for pair in PAIRS]
    latents = image_latents(pairs, chosen.seed)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    path = chosen.folder / TOYS.name
    with replace_file(path) as new:
        write(new, latents, pairs)
    seconds = time.perf_counter() - start_time
    print(f"{path}: {len(pairs):,} images, {path.stat().st_size:,} bytes, {seconds:.0f} s")


def write(path: Path, latents: Tensor, pairs: list[Pair]) -> None:
    """Write scaled latents (N, 4, h, w) with their pairs, for `load_training_set`."""
    numbers, low, step = quantize(latents)
    toys = list(UNSEEN)
    tensors = {
        "latents": numbers.contiguous(),
        "low": low,
        "step": step,
        "toy": torch.tensor([toys.index(toy) for toy, _ in pairs], dtype=torch.uint8),
        "color": torch.tensor([COLORS.index(color) for _, color in pairs], dtype=torch.uint8),
    }
    metadata = {
        "toys": json.dumps(toys),
        "colors": json.dumps(COLORS),
        "autoencoder": autoencoder_hash(),
    }
    save_file(tensors, path, metadata)


if __name__ == "__main__":
    main()
