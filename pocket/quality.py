"""Groups of `pocket.evaluate` that look at images: how good are the autoencoder, the judge, the
generated images and the perceptual distance?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from skimage.color import deltaE_ciede2000, rgb2lab
from torch import Tensor

from course.figures import Row
from course.metrics import Judge, PerceptualDistance
from course.metrics.preprocess import resize
from pocket.test_set import (
    ATTRIBUTES,
    GUIDANCE,
    CaptionedScenes,
    correct_masks,
    generate,
    load_pipeline,
    load_test_set,
    render_scenes,
    save_sheet,
    scored_masks,
)
from pocket.train.distortions import distances_by_strength, monotonicity
from pocket.train.images import normalize, to_float
from pocket.world import render

IMAGES = 2000
DISTORTED = 32  # images that try the perceptual distance
# The project's goals in percent.
JUDGE_BARS = dict.fromkeys(("object", "color", "ground", "relation", "landscape", "count"), 98.5)
JUDGE_BARS |= {"view": 98, "pattern": 92}
IMAGE_BARS = {"object": 99, "color": 98.5, "ground": 98.5, "view": 96.5}
IMAGE_BARS |= {"relation": 99, "landscape": 99.5, "pattern": 90, "count": 90}
PROMPTS = (
    "a photo of an astronaut riding a horse on mars",
    "a hamburger",
    "a squirrel reading a book",
    "a bunny sitting on top of a stack of pancakes",
    "a city skyline at night",
)


@dataclass
class Evaluation:
    """The weights under test, the device, and what every group shares."""

    weights: Path
    device: torch.device
    images: int = IMAGES
    guidance: float = GUIDANCE
    samples: Path | None = None  # the folder of the sample sheets
    work: Path = Path("outputs/pocket")  # where training left its latents
    features: Path = Path("pocket/weights")  # the weights whose judge and CLIP look at images

    @cached_property
    def pipe(self) -> StableDiffusionPipeline:
        """The pipeline as a plain call loads it, on the device."""
        return load_pipeline(self.weights, self.device)

    @cached_property
    def judge(self) -> Judge:
        return Judge(self.device, self.features / "judge")

    @property
    def batch(self) -> int:
        """Images generated at a time: to decode 250 in float32 takes some 30 GB."""
        if self.device.type != "cuda":
            return 10
        return 250 if torch.cuda.get_device_properties(self.device).total_memory > 40e9 else 32

    def share(self, part: float) -> int:
        """Return that part of the number of images, at least two."""
        return max(2, round(part * self.images))

    def load(self, count: int, split: str, first: int = 0) -> CaptionedScenes:
        """Load test scenes in words that the weights know."""
        return load_test_set(self.weights, count, split, first)

    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        return generate(self.pipe, prompts, seeds, guidance=self.guidance, batch=self.batch)

    def save(self, name: str, images: Tensor, captions: Sequence[str], columns: int) -> None:
        """Save a sample sheet, if this run keeps any."""
        if self.samples:
            save_sheet(self.samples / f"{name}.jpg", images, captions, columns)


# --- The autoencoder


def mean_colors(images: Tensor, mask: Tensor) -> Tensor:
    """Return the mean sRGB color in [0, 1], float64 (N, 3), of the pixels where a mask is set.

    images: uint8 (N, H, W, 3). mask: (N, H, W).
    """
    weight = mask.double()[..., None]
    return (images.double() * weight).sum((1, 2)) / weight.sum((1, 2)) / 255


def color_errors(a: Tensor, b: Tensor) -> np.ndarray:
    """Return the CIEDE2000 differences (N,) of sRGB colors (N, 3) in [0, 1]."""
    return deltaE_ciede2000(*(rgb2lab(x.cpu().numpy()[:, None])[:, 0] for x in (a, b)))


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Return images uint8 (N, 256, 256, 3) through the autoencoder, on its device."""
    latents = vae.encode(normalize(to_float(images.to(vae.device)))).latent_dist.mode()
    decoded = vae.decode(latents).sample.clamp(-1, 1)
    return ((decoded + 1) * 127.5).round().byte().permute(0, 2, 3, 1)


@torch.no_grad()
def autoencoder_rows(e: Evaluation) -> list[Row]:
    """PSNR and the error of the object's mean color on held-out renders, half as many as images."""
    vae = AutoencoderKL.from_pretrained(e.weights / "stable-diffusion" / "vae").to(e.device).eval()
    params = e.load(e.share(0.5), "all").scenes.params
    psnr, errors, pairs = [], [], []
    for i in range(0, len(params), 50):
        rendered = render(params[i : i + 50], device=e.device)
        images = reconstruct(vae, rendered.color)
        difference = (images.double() - rendered.color.double()) / 255
        psnr.append(-10 * difference.square().mean((1, 2, 3)).clamp_min(1e-10).log10().cpu())
        has_object = rendered.mask.flatten(1).any(1)
        mask = rendered.mask[has_object]
        colors = [mean_colors(each[has_object], mask) for each in (rendered.color, images)]
        errors.append(color_errors(*colors))
        pairs.append(torch.stack([rendered.color, images], dim=1).flatten(0, 1).cpu())
    shown = torch.cat(pairs)[:32]
    e.save("autoencoder", shown, ["render", "reconstruction"] * (len(shown) // 2), columns=8)
    mean_psnr = round(float(torch.cat(psnr).mean()), 2)
    mean_error = round(float(np.concatenate(errors).mean()), 2)
    key, about = "pocket.autoencoder", "autoencoder"
    return [
        Row(f"{key}.psnr", f"{about}: PSNR on held-out renders", mean_psnr, "dB", bar=32.5),
        Row(
            f"{key}.color_error",
            f"{about}: mean error of the object's color",
            *(mean_error, "dE2000", "<=", 1),
        ),
    ]


# --- What the judge reads


def percent_rows(
    key: str,
    title: str,
    scored: dict[str, np.ndarray],
    correct: dict[str, np.ndarray],
    bars: dict[str, float] | None = None,
) -> list[Row]:
    """Return the share of correct readings in percent, a row for each attribute that counts."""
    rows = []
    for name in ATTRIBUTES:
        if name in correct and scored[name].any():
            percent = round(100 * float(correct[name][scored[name]].mean()), 2)
            bar = (bars or {}).get(name)
            rows.append(Row(f"pocket.{key}.{name}", f"{title}: {name}", percent, "%", bar=bar))
    return rows


def judge_rows(e: Evaluation) -> list[Row]:
    """The judge on real renders of all compositions, on everything that they show."""
    test = e.load(e.images, "all")
    correct = correct_masks(test.labels, e.judge.classify(render_scenes(test, e.device)))
    return percent_rows("judge", "judge on renders", scored_masks(test.labels), correct, JUDGE_BARS)


def image_rows(e: Evaluation) -> list[Row]:
    """Images of captions of the full grammar, as the judge reads them, and renders beside them."""
    test = e.load(e.images, "all")
    images = e.generate(test.prompts, test.seeds)
    e.save("captions", images[:48], test.prompts[:48], columns=8)
    prompts = [prompt for prompt in PROMPTS for _ in range(4)]
    e.save("prompts", e.generate(prompts, list(range(4)) * len(PROMPTS)), prompts, columns=4)
    scored = scored_masks(test.labels, test.mentions)
    renders = e.judge.classify(render_scenes(test, e.device))
    correct = correct_masks(test.labels, e.judge.classify(images))
    correct_renders = correct_masks(test.labels, renders)
    return [
        *percent_rows("images", "images", scored, correct, IMAGE_BARS),
        *percent_rows("images.renders", "renders of the same captions", scored, correct_renders),
    ]


def load_compositions(e: Evaluation, count: int) -> list[CaptionedScenes]:
    """Load scenes with a held-out composition whose captions name an object's color that shows."""
    parts: list[CaptionedScenes] = []
    first = 0
    while (missing := count - sum(map(len, parts))) > 0:
        test = e.load(2 * count, "heldout", first)
        scored = scored_masks(test.labels, test.mentions)
        chosen = np.flatnonzero(scored["object"] & scored["color"])[:missing].tolist()
        if chosen:  # about a third of the captions name such a color; of a few, perhaps none
            parts.append(test.pick(chosen))
        first += 2 * count
    return parts


def composition_rows(e: Evaluation) -> list[Row]:
    """Compositions that training never saw: are object and color both correct?"""
    hits: dict[str, list[np.ndarray]] = {"images": [], "renders": []}
    for k, test in enumerate(load_compositions(e, e.share(0.25))):
        images = e.generate(test.prompts, test.seeds)
        if k == 0:
            e.save("compositions", images[:24], test.prompts[:24], columns=8)
        for name, shown in (("images", images), ("renders", render_scenes(test, e.device))):
            correct = correct_masks(test.labels, e.judge.classify(shown))
            hits[name].append(correct["object"] & correct["color"])
    titles = {
        "images": "compositions never trained on",
        "renders": "renders of the same compositions",
    }
    rows = []
    for name, title in titles.items():
        percent = round(100 * float(np.concatenate(hits[name]).mean()), 2)
        key, figure = f"pocket.compositions.{name}", f"{title}: object and color both right"
        bar = 96.5 if name == "images" else None
        rows.append(Row(key, figure, percent, "%", bar=bar))
    return rows


# --- The perceptual distance


@torch.no_grad()
def perceptual_rows(e: Evaluation) -> list[Row]:
    """Does the distance grow with the strength of a distortion, on average and for each image?"""
    distance = PerceptualDistance(e.weights / "clip", e.weights / "perceptual").to(e.device)
    color = render(e.load(DISTORTED, "all").scenes.params, device=e.device).color
    images = resize(normalize(to_float(color)), distance.preprocess.size).contiguous()
    rows = []
    for name, distances in distances_by_strength(distance, images).items():
        key, about = f"pocket.perceptual.{name}", "perceptual distance"
        mean = round(monotonicity(distances.mean(dim=1)), 2)
        bar = 100 if name in ("blur", "noise", "shift", "hue") else None
        rows.append(Row(key, f"{about}: mean grows with {name}", mean, "%", bar=bar))
        each = round(monotonicity(distances), 2)
        rows.append(Row(f"{key}_each", f"{about}: grows with {name}, each image", each, "%"))
    return rows
