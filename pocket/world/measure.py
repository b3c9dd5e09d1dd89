"""Speed of the renderer and agreement of its CPU and CUDA builds, for `pocket.evaluate`."""

import numpy as np
import torch

from course.figures import median_seconds
from pocket.world.renderer import render
from pocket.world.scene import sample_scene


def images_per_second(kind: str, device: str, batch: int = 256, rounds: int = 9) -> float:
    """Return the median rate of rendering 256x256 images at 4 samples a pixel.

    kind: "object" or "landscape". Scenes are sampled beforehand.
    """
    scenes = torch.as_tensor(_sample_params(kind, batch)).to(device)
    return batch / median_seconds(lambda: render(scenes, device=device), rounds)


def agreement(kind: str, count: int = 64) -> tuple[float, bool]:
    """Return how well CPU and GPU agree, and whether scenes sampled twice are bit-equal.

    The first figure is the share of pixels whose colors differ by at most 2/255.
    """
    params = _sample_params(kind, count)
    cpu = render(params).color.int()
    gpu = render(params, device="cuda").color.cpu().int()
    share = ((cpu - gpu).abs().amax(-1) <= 2).float().mean().item()
    return share, params.tobytes() == _sample_params(kind, count).tobytes()


def _sample_params(kind: str, count: int) -> np.ndarray:
    return np.stack([sample_scene(2**41 + i, "all", kind).params for i in range(count)])
