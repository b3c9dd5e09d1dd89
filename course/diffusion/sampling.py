"""What surrounds the sampling loop of lesson 1.2: the request before it and the steps after it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from course.arguments import check_number
from course.diffusion.noise import check_finite, make_generator
from course.errors import RequestError


class SamplingStep(NamedTuple):
    """What happened at timestep `t`. All tensors are (B, C, h, w)."""

    t: int
    x_t: torch.Tensor  # the latents before the step
    uncond: torch.Tensor  # the network's output for the negative prompts
    cond: torch.Tensor  # and for the prompts
    x_0: torch.Tensor  # the clean latents that the guided output predicts
    x_prev: torch.Tensor  # the latents after the step


class SamplingRequest(NamedTuple):
    """What B images are generated from; every value is valid for the model."""

    prompts: list[str]  # B
    negative_prompts: list[str]  # B
    num_sampling_steps: int
    guidance_scale: float
    eta: float
    generators: list[torch.Generator]  # B
    shape: tuple[int, int, int]  # of the latents of one image, (C, h, w)
    frames: dict[str, str]  # the folder of each series of frames to save: "x_t", "x_0"


def make_generators(seed: Any, count: int) -> list[torch.Generator]:
    """Return a random generator for each of `count` images, from one seed or a list of seeds."""
    seeds = [seed] * count if np.ndim(seed) == 0 else list(seed)
    if len(seeds) != count:
        problem = f"There are {len(seeds)} seeds for {count} prompts"
        raise RequestError(f"{problem}: give as many, or one for all.")
    return [make_generator(seed) for seed in seeds]


def check_request(
    model: Any,
    prompts: Any,
    negative_prompts: Any = "",
    num_sampling_steps: Any = 50,
    guidance_scale: Any = 7.5,
    save_dir: Any = None,
    save_x_t: Any = False,
    save_x_0: Any = False,
    seed: Any = 0,
    eta: Any = 0.0,
    height: Any = None,
    width: Any = None,
) -> SamplingRequest:
    """Return the arguments of a sampling loop as a request. Raises RequestError.

    `prompts` and `negative_prompts` are a text or a list of texts, `seed` an integer or one for
    each prompt, `height` and `width` in pixels, by default those of `model`. Frames need
    `save_dir`.
    """
    names = [name for name, saved in (("x_t", save_x_t), ("x_0", save_x_0)) if saved]
    if names and save_dir is None:
        raise RequestError("Frames need a folder: name it with save_dir.")
    frames = {name: str(Path(save_dir) / name) for name in names}
    steps = model.check_steps(num_sampling_steps)
    eta = check_number("eta", eta, 0, 1)
    guidance_scale = check_number("guidance_scale", guidance_scale)
    prompts, negative_prompts = model.pair_prompts(prompts, negative_prompts)
    generators = make_generators(seed, len(prompts))
    shape = (model.latent_channels, *model.latent_size(height, width))
    return SamplingRequest(
        prompts, negative_prompts, steps, guidance_scale, eta, generators, shape, frames
    )


def collect_steps(steps: Iterable[SamplingStep], count: int) -> list[SamplingStep]:
    """Return `count` steps as a list, with a progress bar.

    Raises CourseError as soon as the latents after a step are not finite.
    """
    collected = []
    for step in tqdm(steps, total=count, leave=False):
        collected.append(step)
        name = f"The latents after step {len(collected)} of {count} (t = {step.t})"
        check_finite(step.x_prev, name)
    return collected
