"""How fast the renderer draws, and how closely its CPU and CUDA builds agree: figures for `pocket.evaluate`."""

from __future__ import annotations

import time

import numpy as np
import torch

from pocket.world.renderer import render
from pocket.world.scene import sample_scene


def images_per_second(kind: str, device: str, batch: int = 256, rounds: int = 9) -> float:
    """Median rate of drawing 256x256 images at 4 samples a pixel; scenes are sampled beforehand.

    kind: "object" or "landscape".
    """
    params = np.stack([sample_scene(2**41 + i, "all", kind).params for i in range(batch)])
    scenes = torch.as_tensor(params).to(device)
    times = []
    for i in range(rounds + 1):
        if device != "cpu":
            torch.cuda.synchronize()
        start = time.perf_counter()
        render(scenes, device=device)
        if device != "cpu":
            torch.cuda.synchronize()
        if i:  # the first round compiles and warms up
            times.append(time.perf_counter() - start)
    return batch / float(np.median(times))


def agreement(kind: str, count: int = 64) -> tuple[float, bool]:
    """The share of pixels whose colors differ by at most 2/255 between CPU and GPU, and whether the scenes,
    sampled twice, are bit-equal."""
    params = np.stack([sample_scene(2**41 + i, "all", kind).params for i in range(count)])
    again = np.stack([sample_scene(2**41 + i, "all", kind).params for i in range(count)])
    cpu, gpu = render(params).color.int(), render(params, device="cuda").color.cpu().int()
    return (
        (cpu - gpu).abs().amax(-1) <= 2
    ).float().mean().item(), params.tobytes() == again.tobytes()
