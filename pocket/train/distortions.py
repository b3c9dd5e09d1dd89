"""Distortions of several strengths, which a perceptual distance has to put in order.

All take images (N, 3, H, W) in [-1, 1] and strengths (N,) in [0, 1].
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def blur(images: Tensor, strength: Tensor) -> Tensor:
    """Blur by a Gaussian with a standard deviation of 0.3 to 4 % of the width."""
    sigma = (0.003 + 0.037 * strength) * images.shape[-1]  # (N,)
    radius = int(0.12 * images.shape[-1])
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    # (N, K), a normalized Gaussian
    kernel = torch.softmax(-0.5 * (offsets / sigma[:, None]) ** 2, dim=1)
    n, c, h, w = images.shape
    weight = kernel.repeat_interleave(c, dim=0)  # (N*C, K)
    flat = F.pad(images.reshape(1, n * c, h, w), (radius,) * 4, mode="reflect")
    flat = F.conv2d(flat, weight[:, None, None, :], groups=n * c)
    return F.conv2d(flat, weight[:, None, :, None], groups=n * c).view(n, c, h, w)


def noise(images: Tensor, strength: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Add white noise with a standard deviation of up to 0.3 of the range."""
    values = torch.randn(images.shape, device=images.device, generator=generator)
    return (images + 0.6 * strength.view(-1, 1, 1, 1) * values).clamp(-1, 1)


def shift(images: Tensor, strength: Tensor) -> Tensor:
    """Move the image to the right by up to 12 % of its width."""
    theta = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    theta[:, 0, 2] = -0.24 * strength
    return _warp(images, theta)


def zoom(images: Tensor, strength: Tensor) -> Tensor:
    """Enlarge the image about its center by up to 25 %."""
    theta = torch.eye(2, 3, device=images.device) * (1 - 0.2 * strength).view(-1, 1, 1)
    return _warp(images, theta)


def hue(images: Tensor, strength: Tensor) -> Tensor:
    """Rotate the colors about the gray axis by up to 180 degrees."""
    angle = math.pi * strength
    a = angle.cos() + (1 - angle.cos()) / 3
    b = (1 - angle.cos()) / 3 - angle.sin() / math.sqrt(3)
    c = (1 - angle.cos()) / 3 + angle.sin() / math.sqrt(3)
    # Rodrigues' formula about (1, 1, 1)
    rotation = torch.stack([a, b, c, c, a, b, b, c, a], dim=1).view(-1, 3, 3)
    return torch.einsum("nij,njhw->nihw", rotation, images).clamp(-1, 1)


def fade(images: Tensor, strength: Tensor) -> Tensor:
    """Remove the color, up to gray."""
    gray = images.mean(dim=1, keepdim=True).expand_as(images)
    return torch.lerp(images, gray, strength.view(-1, 1, 1, 1))


def darken(images: Tensor, strength: Tensor) -> Tensor:
    """Remove up to 70 % of the light."""
    return (images + 1) * (1 - 0.7 * strength).view(-1, 1, 1, 1) - 1


DISTORTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "blur": blur,
    "noise": noise,
    "shift": shift,
    "zoom": zoom,
    "hue": hue,
    "fade": fade,
    "darken": darken,
}


def _warp(images: Tensor, theta: Tensor) -> Tensor:
    """Sample images through affine maps (N, 2, 3)."""
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def triplets(images: Tensor, name: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return each image with a weak and with a stronger distortion, both (N, 3, H, W)."""
    strengths = torch.rand(2, len(images), device=images.device, generator=generator)
    weak, strong = strengths.sort(dim=0).values * 0.9
    strong = strong + 0.1
    if name == "noise":  # the same noise, only stronger
        state = generator.get_state()
        weakly_distorted = noise(images, weak, generator)
        generator.set_state(state)
        return weakly_distorted, noise(images, strong, generator)
    return DISTORTIONS[name](images, weak), DISTORTIONS[name](images, strong)


@torch.no_grad()
def distances_by_strength(
    distance: Callable[[Tensor, Tensor], Tensor], images: Tensor, steps: int = 6
) -> dict[str, Tensor]:
    """Return the distances (steps, N) of images to themselves distorted, by distortion.

    distance: of two batches. images: (N, 3, H, W) in [-1, 1]. steps: evenly spaced strengths.
    """
    result = {}
    for name, distort in DISTORTIONS.items():
        rows = []
        for k in range(1, steps + 1):
            torch.manual_seed(0)  # the same noise, only stronger
            strength = torch.full((len(images),), k / steps, device=images.device)
            rows.append(distance(images, distort(images, strength)).flatten())
        result[name] = torch.stack(rows)
    return result


def monotonicity(distances: Tensor) -> float:
    """Return how many neighboring strengths of `distances_by_strength` are in order, in percent."""
    return 100 * float((distances.diff(dim=0) > 0).float().mean())
