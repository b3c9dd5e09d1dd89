"""Test scenes with captions, images of them, and how the judge's readings are scored.

`test_sets/first.npz` holds 4,000 scenes of the world's first edition (28 objects, ten landscapes,
171 words), 2,000 of all compositions and 2,000 that each hold a held-out one: labels, captions, and
what each caption names. Weights that were trained before the world grew are tested on these alone,
and newer ones can be compared with them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor
from tqdm import tqdm

from course.images import image_grid
from pocket.train.judge import ATTRIBUTES as ATTRIBUTES
from pocket.train.judge import correct_masks as correct_masks
from pocket.train.judge import scored_masks as scored_masks
from pocket.train.scenes import TEST_SEED, Scenes, sample_all, worker_count
from pocket.world import caption, render
from pocket.world.labels import upgrade
from pocket.world.phrases import words
from pocket.world.scene import build_scene

FIRST = Path(__file__).parent / "test_sets" / "first.npz"
STEPS = 25
GUIDANCE = 7.5  # the pipeline's own default


@dataclass
class CaptionedScenes:
    """N scenes, with one caption of each as prompt and the attributes that it names."""

    scenes: Scenes
    prompts: list[str]
    mentions: list[frozenset[str]]

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def labels(self) -> np.ndarray:
        """The labels of the scenes, (N,) of vocabulary.LABELS."""
        return self.scenes.labels

    @property
    def seeds(self) -> list[int]:
        """The seed of each scene as a seed of its image."""
        return [int(seed) % 2**32 for seed in self.labels["seed"]]

    def pick(self, indices: Sequence[int]) -> "CaptionedScenes":
        """Return the scenes at these positions."""
        s = self.scenes
        captions, negatives = ([each[i] for i in indices] for each in (s.captions, s.negatives))
        chosen = Scenes(s.labels[list(indices)], s.params[list(indices)], captions, negatives)
        prompts = [self.prompts[i] for i in indices]
        return CaptionedScenes(chosen, prompts, [self.mentions[i] for i in indices])


# --- Scenes


def sample_test_set(count: int, split: str, first: int = TEST_SEED) -> CaptionedScenes:
    """Return scenes that nothing was trained on, each with a caption from the full grammar."""
    scenes = sample_all(range(first, first + count), split=split, workers=worker_count())
    rngs = [np.random.default_rng([int(record["seed"]), 2]) for record in scenes.labels]
    pairs = [caption(record, rng) for record, rng in zip(scenes.labels, rngs, strict=True)]
    return CaptionedScenes(scenes, [text for text, _ in pairs], [names for _, names in pairs])


def load_first_edition(count: int, split: str, first: int = 0, seed: int = 0) -> CaptionedScenes:
    """Return scenes of the world's first edition, built by today's world, with their captions.

    Args:
        count: how many scenes.
        split: "all" (some hold a held-out composition) or "heldout" (each does).
        first: the position of the first one.
        seed: of all that the labels leave open (proportions, light, camera): another seed gives
            other images of the same captions.
    Raises:
        ValueError: the set has no such split, or not so many scenes.
    """
    with np.load(FIRST) as file:
        arrays = {
            name.removeprefix(f"{split}/"): file[name]
            for name in file.files
            if name.startswith(f"{split}/")
        }
    if not arrays:
        raise ValueError(f"split must be one of all, heldout, got {split!r}")
    captions, mentions = (
        arrays.pop(name).tobytes().decode().split("\n") for name in ("captions", "mentions")
    )
    total = len(captions)
    if not 0 <= first < first + count <= total:
        raise ValueError(
            f"{FIRST.name} has {total} scenes in {split!r}, "
            f"got a request for {first} to {first + count}"
        )
    records = np.zeros(total, [(name, array.dtype) for name, array in arrays.items()])
    for name, array in arrays.items():
        records[name] = array
    chosen = slice(first, first + count)
    labels = upgrade(records[chosen])
    prompts = captions[chosen]
    rngs = [np.random.Generator(np.random.PCG64([int(record["seed"]), seed])) for record in labels]
    params = np.stack([build_scene(record, rng) for record, rng in zip(labels, rngs, strict=True)])
    scenes = Scenes(labels, params, [[prompt] for prompt in prompts], [[] for _ in prompts])
    return CaptionedScenes(
        scenes, prompts, [frozenset(names.split()) for names in mentions[chosen]]
    )


def load_test_set(weights: Path, count: int, split: str, first: int = 0) -> CaptionedScenes:
    """Return test scenes in words that the model in `weights` was trained on.

    They are fresh ones, or those of the first edition if its vocabulary lacks words of today's
    grammar. first: the position of the first one.
    """
    known = json.loads((weights / "vocabulary.json").read_text())["words"]
    if set(words()) <= set(known):
        return sample_test_set(count, split, TEST_SEED + first)
    return load_first_edition(count, split, first)


# --- Images


def load_pipeline(weights: Path, device: torch.device) -> StableDiffusionPipeline:
    """Load the pipeline as a plain call loads it, on the device and without progress bars."""
    pipe = StableDiffusionPipeline.from_pretrained(weights / "stable-diffusion")
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def render_scenes(test: CaptionedScenes, device: torch.device, samples: int = 4) -> Tensor:
    """Render the scenes themselves: uint8 (N, 256, 256, 3) on the CPU."""
    parts = [test.scenes.params[i : i + 250] for i in range(0, len(test), 250)]
    return torch.cat([render(part, samples=samples, device=device).color.cpu() for part in parts])


@torch.no_grad()
def generate(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    batch: int = 10,
    conditions: Tensor | None = None,
) -> Tensor:
    """Generate images of prompts: uint8 (N, 256, 256, 3) on the CPU.

    seeds: of each image's noise, which is drawn on the CPU.
    conditions: float (N, 3, 256, 256) in [0, 1] for a pipeline with a ControlNet.
    """
    size = pipe.unet.config.sample_size
    parts = []
    for i in tqdm(range(0, len(prompts), batch), desc="images", unit_scale=batch, leave=False):
        noise = [
            torch.randn(1, 4, size, size, generator=torch.Generator().manual_seed(seed))
            for seed in seeds[i : i + batch]
        ]
        control = {} if conditions is None else {"image": conditions[i : i + batch].to(pipe.device)}
        images = pipe(
            list(prompts[i : i + batch]),
            **control,
            latents=torch.cat(noise).to(pipe.device, pipe.dtype),
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="pt",
        ).images
        parts.append((images.permute(0, 2, 3, 1) * 255).round().byte().cpu())
    return torch.cat(parts)


def save_sheet(path: Path, images: Tensor, captions: Sequence[str], columns: int) -> None:
    """Save images uint8 (N, H, W, 3) as a grid with a caption above each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = image_grid(list(images.numpy()), columns, titles=captions, side=192)
    sheet.save(path, quality=88)
