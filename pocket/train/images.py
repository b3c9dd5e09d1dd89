"""Images as the networks take them: conversion, augmentation, and the file that describes them."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """Return images uint8 (B, H, W, 3) in [0, 1], float32 (B, 3, H, W), channels last in memory."""
    return images.permute(0, 3, 1, 2).float() / 255


def normalize(images: Tensor) -> Tensor:
    """Return images in [0, 1] in [-1, 1], as all networks take them."""
    return images * 2 - 1


def write_processor(folder: Path, size: int, kind: str = "CLIPImageProcessor") -> None:
    """Write preprocessor_config.json: resizing to size x size pixels, then `normalize`.

    kind: the class of transformers that loads it.
    """
    settings = {
        "image_processor_type": kind,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 2,  # bilinear
        "do_center_crop": False,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2))


@torch.no_grad()
def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return images (B, 3, H, W) in [0, 1], moved, scaled, and a little blurred, dimmed and noisy.

    No flips ("next to" has a left and a right) and no change of hue (colors are labels). Blur and
    noise prepare for decoded and generated images.
    """
    count, device = len(images), images.device
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0] = theta[:, 1, 1] = _uniform((count, 1), 0.88, 1.08, generator)[:, 0]
    theta[:, :, 2] = _uniform((count, 2), -0.08, 0.08, generator)
    with torch.autocast(device.type, enabled=False):  # bfloat16 is too coarse for coordinates
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    images = _random_blur(images, generator)
    images = _random_contrast(images, (0.9, 1.1), 0.05, generator)
    return _random_noise(images, 0.03, generator)


def color_jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return images (B, 3, H, W) in [0, 1] with another exposure, tint and contrast.

    Some of them are blurred and noisy.
    """
    count = len(images)
    images = _random_blur(images, generator)
    gamma = _uniform((count, 1, 1, 1), 0.7, 1.4, generator)
    tint = _uniform((count, 3, 1, 1), 0.85, 1.15, generator)
    images = images.clamp(min=1e-3) ** gamma * tint
    images = _random_contrast(images, (0.75, 1.2), 0.1, generator)
    return _random_noise(images, 0.05, generator)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    values = torch.rand(*shape, device=generator.device, generator=generator)
    return values * (high - low) + low


def _random_blur(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blur half of the images, each more or less."""
    blurred = images
    for _ in range(2):
        blurred = F.avg_pool2d(blurred, 3, 1, 1, count_include_pad=False)
    amount = _uniform((len(images), 1, 1, 1), -1.0, 1.0, generator).clamp(min=0)
    return torch.lerp(images, blurred, amount)


def _random_contrast(
    images: Tensor, contrast: tuple[float, float], brightness: float, generator: torch.Generator
) -> Tensor:
    shape = (len(images), 1, 1, 1)
    images = (images - 0.5) * _uniform(shape, *contrast, generator) + 0.5
    return images + _uniform(shape, -brightness, brightness, generator)


def _random_noise(images: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Add noise of up to this standard deviation to half of the images; clamp to [0, 1]."""
    noise = torch.randn(images.shape, device=images.device, generator=generator)
    amount = _uniform((len(images), 1, 1, 1), -deviation, deviation, generator).clamp(min=0)
    return (images + noise * amount).clamp(0, 1)
