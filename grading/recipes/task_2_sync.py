"""Recipes of lesson 2: synchronization, the intra-distance, and a ring.

The networks are small, with random weights, in the place of a model's; the loop around is the
course's own `JointSampler`.
"""

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from course.diffusion import predict_x0
from course.diffusion.joint import JointSampler, Sync
from course.images import panorama
from course.models import Model
from grading.recipe import Arrays, Inputs, Recipes, Space, array, parts, run_cells, second

LESSON = "task_2_Joint_Diffusion.ipynb"


class SmallVae(torch.nn.Module):
    """A decoder of latents (B, 4, h, w) to images (B, 3, 2h, 2w), with random weights."""

    dtype = torch.float32
    use_tiling = False
    config = SimpleNamespace(scaling_factor=0.6)

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.decoder = torch.nn.Sequential(
            torch.nn.Conv2d(4, 6, 3, padding=1),
            torch.nn.Tanh(),
            torch.nn.Upsample(scale_factor=2),
            torch.nn.Conv2d(6, 3, 3, padding=1),
            torch.nn.Tanh(),
        ).requires_grad_(False)
        for parameter in self.decoder.parameters():
            parameter.copy_(0.3 * inputs.normal(*parameter.shape))

    def decode(self, latents: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=self.decoder(latents))


class SmallDistance(torch.nn.Module):
    """A distance of random features, (N, 1, 1, 1), of images (N, 3, H, W), times `factor`.

    underflow: gradients with respect to images that are smaller become zero, as in half precision.
    """

    def __init__(self, inputs: Inputs, factor: float = 1.0, underflow: float = 0.0) -> None:
        super().__init__()
        self.kernel = inputs.normal(5, 3, 3, 3)
        self.factor, self.underflow = factor, underflow

    def forward(self, in0: Tensor, in1: Tensor) -> Tensor:
        if in0.shape != in1.shape or in0.dim() != 4:
            raise ValueError(f"Two shapes: {tuple(in0.shape)} and {tuple(in1.shape)}.")
        for image in (in0, in1):
            if self.underflow and image.requires_grad:
                image.register_hook(lambda grad: torch.where(grad.abs() < self.underflow, 0, grad))
        x, y = (F.conv2d(image, self.kernel).tanh() for image in (in0, in1))
        return self.factor * (x - y).square().sum(dim=(1, 2, 3), keepdim=True)


class JointDiffusion(JointSampler):
    """The lesson's class, with small networks; the cells of the lesson add its methods."""

    def __init__(self, model: Model, inputs: Inputs, gradient_batch: int) -> None:
        self.model = model
        self.vae: Any = SmallVae(inputs)
        self.decoder = self.vae.decoder
        self.distance = SmallDistance(inputs)
        self.gradient_batch = gradient_batch
        self.skipped = []


def setup() -> Space:
    """Return the names that the lesson has at its exercises, with networks that are small."""
    names = dict(torch=torch, F=F, itertools=itertools, predict_x0=predict_x0, Sync=Sync)
    of_panoramas = ("check_windows", "closed_convolutions", "decode_closed_tiles")
    names |= {name: getattr(panorama, name) for name in of_panoramas}
    return run_cells(LESSON, ["c04", "c05"]) | names | {"JointDiffusion": JointDiffusion}


RECIPES = Recipes(LESSON, setup)
DESCENT = ("c48", "c51")


def joint(space: Space, inputs: Inputs, gradient_batch: int = 1) -> Any:
    """Return a sampler with random networks, which is `sd` in the lesson."""
    space["sd"] = space["JointDiffusion"](space["model"], inputs, gradient_batch)
    return space["sd"]


# --- Synchronization


@RECIPES.add("2.2 (4)", ("c35",))
def anchor_image(space: Space, seed: int) -> Arrays:
    """The image of the anchor at several sizes; no gradient may flow into it."""
    inputs = Inputs(seed)
    sd = joint(space, inputs)

    def image(side: int, scale: float) -> np.ndarray:
        window, noise = inputs.normal(2, 1, 4, side, side)
        alpha_bar = inputs.uniform(0.1, 0.6)
        window.requires_grad_()
        return array(second(sd.predict_anchor, window, noise, alpha_bar, scale), constant=True)

    functions = {
        "full size": lambda: image(5, 1),
        "half size": lambda: image(6, 0.5),
        "a third": lambda: image(9, 1 / 3),
    }
    return parts(functions, inputs)


@RECIPES.add("2.2 (5)")
def descent(space: Space, seed: int) -> Arrays:
    """Windows that moved, by several weights, also where small gradients become zero."""
    inputs = Inputs(seed)
    sd = joint(space, inputs)
    matrix = inputs.normal(4, 4)

    @torch.no_grad()
    def move(count: int, weight: float) -> np.ndarray:
        windows = inputs.normal(count, 4, 6, 6)
        to_images = lambda own: sd.decode_small(torch.einsum("bchw,dc->bdhw", own, matrix), 0.5)
        anchor = to_images(inputs.normal(1, 4, 6, 6))
        return array(second(sd.descend, windows, to_images, anchor, weight), constant=True)

    def move_in_half_precision() -> np.ndarray:
        sd.distance = SmallDistance(inputs, factor=1e-7, underflow=2e-6)
        return move(2, 1e7)

    functions = {
        "one window": lambda: move(1, 1.0),
        "three windows": lambda: move(3, float(inputs.uniform(0.3, 0.6))),
        "another weight": lambda: move(2, float(inputs.uniform(2, 4))),
        "half precision": move_in_half_precision,
    }
    return parts(functions, inputs)


@RECIPES.add("2.2 (e)", ("c35", *DESCENT))
def synchronization(space: Space, seed: int) -> Arrays:
    """Windows that moved, each with a denoiser of its own; the middle one is the anchor."""
    inputs = Inputs(seed)

    @torch.no_grad()
    def move(count: int, scale: float, weight: float, batch: int = 1) -> np.ndarray:
        sd = joint(space, inputs, batch)
        windows = inputs.normal(count, 4, 6, 6)
        factors = inputs.uniform(0.1, 1.5, count, 1, 1, 1)

        def predict(own: Tensor, part: Any = slice(None)) -> Tensor:
            if len(factors[part]) != len(own):
                raise ValueError(f"{len(own)} windows for {len(factors[part])} prompts.")
            return factors[part] * own.tanh()

        alpha_bar = inputs.uniform(0.2, 0.6)
        arguments = windows, predict, alpha_bar, weight, scale
        return array(second(sd.synchronize, *arguments), constant=True)

    functions = {
        "three windows": lambda: move(3, 1, 0.5),
        "half size": lambda: move(4, 0.5, 1.0),
        "another weight": lambda: move(3, 0.5, 4.0),
        "batches": lambda: move(6, 1 / 3, 1.0, batch=2),
    }
    return parts(functions, inputs)


@RECIPES.add("2.2 (h)", ("c35", *DESCENT))
def short_cut(space: Space, seed: int) -> Arrays:
    """Windows whose x_0 moved, by several weights."""
    inputs = Inputs(seed)

    @torch.no_grad()
    def move(count: int, scale: float, weight: float, batch: int = 1) -> np.ndarray:
        sd = joint(space, inputs, batch)
        windows, noise = inputs.normal(2, count, 4, 6, 6)
        arguments = windows, noise, inputs.uniform(0.2, 0.6), weight, scale
        return array(second(sd.synchronize_x0, *arguments), constant=True)

    functions = {
        "three windows": lambda: move(3, 1, 0.7),
        "half size": lambda: move(4, 0.5, 0.4),
        "another weight": lambda: move(3, 0.5, 2.5),
        "batches": lambda: move(5, 1 / 3, 1.2, batch=2),
    }
    return parts(functions, inputs)


@RECIPES.add("2.2 (g)")
def intra_distance(space: Space, seed: int) -> Arrays:
    """Mean distances of several numbers of squares, with and without a remainder."""
    inputs = Inputs(seed)
    distance = SmallDistance(inputs)

    def measure(count: int, remainder: int) -> Any:
        size = inputs.integer(5, 7)
        image = inputs.normal(3, size, count * size + remainder)
        value = second(space["intra_distance"], image, distance, size)
        return value.reshape(()) if isinstance(value, Tensor) else value

    functions = {
        "three squares": lambda: measure(3, 0),
        "five squares": lambda: measure(5, 0),
        "a remainder": lambda: measure(4, 3),
    }
    return parts(functions, inputs)


# --- A ring


@RECIPES.add("2 (i)")
def ring_convolution(space: Space, seed: int) -> Arrays:
    """Convolutions of several shapes, and a decoder that wraps around."""
    inputs = Inputs(seed)

    @torch.no_grad()
    def convolve(*sizes: int, **options: Any) -> Tensor:
        layer = torch.nn.Conv2d(sizes[0], sizes[1], (sizes[2], sizes[3]), **options)
        for parameter in layer.parameters():
            parameter.copy_(inputs.normal(*parameter.shape))
        return second(space["ring_convolution"], layer, inputs.normal(2, sizes[0], 7, 12))

    @torch.no_grad()
    def decode() -> Tensor:
        sd, latents = joint(space, inputs), inputs.normal(2, 4, 5, 8)
        return torch.cat([sd.decode_closed(latents), sd.decode_latents(latents)])

    functions = {
        "3 x 3": lambda: convolve(3, 5, 3, 3, padding=1),
        "3 x 5, groups": lambda: convolve(4, 6, 3, 5, padding=(1, 2), groups=2),
        "stride": lambda: convolve(3, 4, 3, 3, padding=1, stride=2),
        "dilation": lambda: convolve(2, 3, 3, 3, padding=2, dilation=2, bias=False),
        "1 x 1": lambda: convolve(4, 3, 1, 1),
        "decoder": decode,
    }
    return parts(functions, inputs)
