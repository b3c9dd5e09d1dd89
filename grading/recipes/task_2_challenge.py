"""The recipe of the challenge of lesson 2: an acceleration of one's own.

With a real model the three panoramas that are compared take a minute. So the denoiser here is that
of a toy: each window is a color out of eight, with texture, and its best denoiser has a formula.
MultiDiffusion's windows choose their colors for themselves, and synchronized ones choose one.
Time is counted in calls of the networks, so it is the same on every machine.
"""

import copy
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from course.diffusion import predict_x0
from course.diffusion.joint import Defaults, JointSampler, Sync
from course.images import panorama
from course.models import Model
from grading.recipe import Arrays, Inputs, Recipes, Space, run_cells
from grading.small_model import make_scheduler, make_text_encoder, make_tokenizer

LESSON = "task_2_Joint_Diffusion.ipynb"
SPREAD = 0.35  # of the texture around a color
UNET_COST, DECODER_COST = 1.0, 3.0  # of one image, in proportion as in pocket
PANORAMAS = 8
SMALL = dict(width=48, stride=4, num_sampling_steps=8)
MAX_COST, MIN_GAIN = 0.5, 0.3


class ToyModel(Model):
    """A model with windows of 8 x 8 latent pixels; a latent pixel covers 2 x 2 pixels."""

    scale_factor, image_size, text_length = 2, 16, 26

    def config(self, file: str) -> dict[str, Any]:
        return dict(make_scheduler().config) if "scheduler" in file else {}

    @cached_property
    def tokenizer(self) -> Any:
        return make_tokenizer()


class Costs:
    """The cost of all calls of the networks, forward and backward."""

    def __init__(self) -> None:
        self.total = 0.0

    def count(self, output: Tensor, cost: float) -> Tensor:
        """Return the output of a network, whose cost counts again when a gradient goes through."""
        self.total += cost
        if output.requires_grad:
            output.register_hook(lambda _: self.add(cost))
        return output

    def add(self, cost: float) -> None:
        self.total += cost


class ToyUNet(torch.nn.Module):
    """The noise in windows of one color each, with texture: formula (6) of lesson 3, softened."""

    dtype, config = torch.float32, SimpleNamespace(in_channels=4)

    def __init__(self, inputs: Inputs, alphas: Tensor, costs: Costs) -> None:
        super().__init__()
        axes = torch.linalg.qr(inputs.normal(4, 4)).Q
        self.colors = 1.2 * torch.cat([axes, -axes])  # (8, 4)
        self.alphas, self.costs = alphas, costs

    def forward(self, x: Tensor, t: Any, encoder_hidden_states: Tensor) -> SimpleNamespace:
        a = self.alphas[int(torch.as_tensor(t).flatten()[0])]
        offsets = x.mean((2, 3))[:, None] - a.sqrt() * self.colors  # (B, K, 4)
        shares = (-6 * offsets.square().sum(2) / (1 - a + 0.05)).softmax(1)  # (B, K)
        color = (shares @ self.colors)[:, :, None, None]
        gain = a.sqrt() * SPREAD**2 / (a * SPREAD**2 + 1 - a)
        x_0 = color + gain * (x - a.sqrt() * color)
        noise = (x - a.sqrt() * x_0) / (1 - a).sqrt()
        return SimpleNamespace(sample=self.costs.count(noise, UNET_COST * len(x)))


class ToyVae(torch.nn.Module):
    """A decoder of latents (B, 4, h, w) to images (B, 3, 2h, 2w)."""

    dtype, use_tiling = torch.float32, False
    config = SimpleNamespace(scaling_factor=1.0)

    def __init__(self, inputs: Inputs, costs: Costs) -> None:
        super().__init__()
        colors = torch.nn.Conv2d(4, 3, 1, bias=False).requires_grad_(False)
        larger = torch.nn.Upsample(scale_factor=2)
        self.decoder = torch.nn.Sequential(colors, larger, torch.nn.Tanh())
        weight = torch.linalg.qr(inputs.normal(4, 3)).Q.T  # (3, 4)
        colors.weight.copy_(weight[..., None, None])
        self.costs = costs

    def forward(self, latents: Tensor) -> Tensor:
        cost = DECODER_COST * latents.numel() / (4 * 8 * 8)
        return self.costs.count(self.decoder(latents), cost)

    def decode(self, latents: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=self(latents))


class ToyDistance(torch.nn.Module):
    """The distance of random features, (N, 1, 1, 1), of images (N, 3, H, W)."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.kernel = inputs.normal(16, 3, 1, 1)

    def forward(self, in0: Tensor, in1: Tensor) -> Tensor:
        x, y = (F.conv2d(F.avg_pool2d(image, 2), self.kernel).tanh() for image in (in0, in1))
        return 0.2 * (x - y).square().sum(1).mean(dim=(1, 2)).view(-1, 1, 1, 1)


class JointDiffusion(JointSampler):
    """The lesson's class with a toy; the cells of the lesson add its methods."""

    def __init__(self, seed: int) -> None:
        inputs = Inputs(seed)
        self.model: Any = ToyModel("toy", Path("toy"))
        self.scheduler, self.tokenizer = make_scheduler(), self.model.tokenizer
        self.text_encoder = make_text_encoder(self.tokenizer).requires_grad_(False)
        self.costs = Costs()
        self.unet: Any = ToyUNet(inputs, self.scheduler.alphas_cumprod, self.costs)
        self.vae: Any = ToyVae(inputs, self.costs)
        self.decoder = self.vae
        self.distance_name, self.distance = "a distance of random features", ToyDistance(inputs)
        self.window, self.window_batch, self.gradient_batch = 8, 16, 16
        self.x0_histories: deque[list[Tensor]] = deque(maxlen=2)
        self.skipped: list[Tensor] = []
        self.defaults = Defaults("a forest", 8, 7.5, seed, 3)


def setup() -> Space:
    """Return the names that the lesson has at the challenge, with a toy in the place of a model."""
    names = dict(torch=torch, F=F, itertools=itertools, copy=copy, predict_x0=predict_x0, Sync=Sync)
    of_panoramas = ("check_windows", "closed_convolutions", "decode_closed_tiles")
    names |= {name: getattr(panorama, name) for name in of_panoramas}
    names |= dict(JointDiffusion=JointDiffusion, sd=JointDiffusion(0))
    return run_cells(LESSON, ["c04", "c05"]) | names


RECIPES = Recipes(LESSON, setup)
FUNCTIONS = ("c11", "x04", "c19", "c24", "c31", "c35", "c48", "c51", "c56", "c58", "b56", "c78")


def add_methods(space: Space, seed: int) -> None:
    """Give the class the two methods that the lesson's own definition of it has."""
    JointDiffusion.window_views = staticmethod(space["window_views"])
    JointDiffusion.joint_step = space["joint_step"]


@dataclass
class Measured:
    """Sums over panoramas: the cost, the distance of squares, and the contrast."""

    cost: float = 0.0
    distance: float = 0.0
    contrast: float = 0.0

    def add(self, sd: Any, sample: Callable[..., Tensor], **settings: Any) -> None:
        """Add the panorama that a function samples."""
        sd.costs.total = 0.0
        image = sample(**SMALL, **settings)
        if image.shape != (3, 16, SMALL["width"]):
            raise ValueError(f"The panorama has the shape {tuple(image.shape)}.")
        self.cost += sd.costs.total
        colors = [square.mean(dim=(1, 2)) for square in image.split(16, dim=-1)]
        self.distance += sum(float((a - b).norm()) for a, b in itertools.combinations(colors, 2))
        self.contrast += float(image.std())


@RECIPES.add("2 challenge 1", (*FUNCTIONS, "c73"), add_methods)
def acceleration(space: Space, seed: int) -> Arrays:
    """Cost, gain and contrast of panoramas, as far as they are worse than what is asked for.

    The cost is a share of that of the paper's setting, and so is the gain in coherence. It has to
    be MIN_GAIN at least, less than with pocket, because settings are chosen for pocket.
    """
    multi, paper, own = Measured(), Measured(), Measured()
    for i in range(PANORAMAS):
        sd: Any = JointDiffusion(seed + i)
        space["sd"] = sd
        multi.add(sd, sd.sample)
        paper.add(sd, sd.sample, use_syncdiffusion=True, sync=sd.paper())
        own.add(sd, partial(space["my_sample"], sd))
    gain = (multi.distance - own.distance) / (multi.distance - paper.distance)
    cost = max(own.cost / paper.cost, MAX_COST)
    contrast = max(abs(np.log2(own.contrast / multi.contrast)), 1.0)  # of a factor of 2
    values = np.array([cost, min(gain, MIN_GAIN), contrast])
    return {"cost, gain and contrast": values * Inputs(seed).uniform(1, 2, 3).numpy()}
