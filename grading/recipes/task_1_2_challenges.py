"""The recipes of the last exercises of lesson 1.2: inversion, and the challenges."""

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from grading.recipe import Arrays, Recipes, Space, numbers, parts
from grading.small_model import (
    CHANNELS,
    DETAILED,
    PROMPTS,
    TEXT_WIDTH,
    make_generator,
    make_sd,
    normal,
    pixels,
    set_up_detailed,
)

# The lesson's cells that define methods and functions, with their solutions.
FORMULAS = ("cell-07", "cell-13", "cell-16", "cell-20", "cell-23", "cell-26")
CHALLENGE = (*FORMULAS, "cell-31", "cell-35", "cell-94", "cell-97a")

RECIPES = Recipes(DETAILED, set_up_detailed)


def add_sd(space: Space, seed: int) -> None:
    space["sd"] = make_sd(space)


class TimelessUNet:
    """A U-Net that answers the same at all timesteps, and keeps the timesteps of its calls.

    At which end of a step inversion calls the network is a convention: both are in use.
    """

    def __init__(self, unet: Any) -> None:
        self.unet = unet
        self.visited: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unet, name)

    def __call__(self, sample: Tensor, timestep: Any, *args: Any, **options: Any) -> Any:
        self.visited.append(int(torch.as_tensor(timestep).flatten()[0]))
        return self.unet(sample, 500, *args, **options)


@RECIPES.add("1.2 (n)", cells=FORMULAS, prepare=add_sd)
def inversion(space: Space, seed: int) -> Arrays:
    latents = normal(space, seed, 1, CHANNELS, 6, 6)
    prompt = random.Random(seed).choice(PROMPTS)

    def invert(*count: int, kind: str = "epsilon") -> tuple[Tensor, list[int]]:
        sd = make_sd(space, kind)
        sd.unet = TimelessUNet(sd.unet)
        return sd.invert(latents, prompt, *count), sd.unet.visited

    def inner_timesteps() -> np.ndarray:
        result, visited = invert(5)
        # Both conventions agree, but for the first and the last.
        return numbers(result, [t / 1000 for t in dict.fromkeys(visited) if 0 < t < 999])

    return parts(
        {
            "one step": lambda: invert(1)[0],
            "several steps": lambda: invert(4)[0],
            "v_prediction": lambda: invert(3, kind="v_prediction")[0],
            "the lesson's steps": lambda: invert()[0],
            "timesteps": inner_timesteps,
        }
    )


# --- The challenges


def random_image(seed: int, side: int) -> Image.Image:
    """Return an image of colored squares, (side, side) pixels."""
    squares = torch.randint(0, 256, (6, 6, 3), generator=make_generator(seed), dtype=torch.uint8)
    return Image.fromarray(squares.numpy()).resize((side, side), Image.Resampling.NEAREST)


@RECIPES.add("1.2 challenge 1", cells=CHALLENGE, prepare=add_sd)
def sdedit(space: Space, seed: int) -> Arrays:
    function = space["sdedit"]
    drawing = random_image(seed, space["model"].image_size)
    prompt = random.Random(seed).choice(PROMPTS)
    # These shares of 15 and 5 steps are whole numbers.
    return parts(
        {
            "a little": lambda: pixels([function(drawing, prompt, 0.2)]),
            "more": lambda: pixels([function(drawing, prompt, 0.4)]),
            "another seed": lambda: pixels([function(drawing, prompt, 0.2, seed=2 + seed % 97)]),
            "fewer steps": lambda: pixels([function(drawing, prompt, 0.8, count=5)]),
        }
    )


def number_of(embeddings: Tensor) -> Tensor:
    """Return a number for each text, (B, 1, 1, 1)."""
    return embeddings[..., 0].mean(1).view(-1, 1, 1, 1)


class PointDenoiser:
    """A network that knows x_0 = number * target, as a U-Net is called; it keeps its inputs.

    number: of the text. So the result does not depend on the noise that sampling starts from.
    """

    dtype = torch.float32

    def __init__(self, target: Tensor, sd: Any) -> None:
        self.target, self.sd = target, sd
        self.config = sd.unet.config
        self.inputs: dict[int, Tensor] = {}

    def __call__(self, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor) -> Any:
        t = int(torch.as_tensor(timestep).flatten()[0])
        self.inputs.setdefault(t, sample[:1])
        a = self.sd.alpha_bar_at(t)
        x_0 = number_of(encoder_hidden_states) * self.target
        return SimpleNamespace(sample=(sample - a.sqrt() * x_0) / (1 - a).sqrt())


@RECIPES.add("1.2 challenge 2", cells=CHALLENGE, prepare=add_sd)
def inpainting(space: Space, seed: int) -> Arrays:
    function, sd, chance = space["inpaint"], space["sd"], random.Random(seed)
    vars(sd.model)["image_size"] = 96  # larger, so that the noise can be measured
    space["model"] = sd.model
    sd.scheduler.final_alpha_cumprod = torch.tensor(1.0)  # the end without noise
    image, other = random_image(seed, 96), random_image(seed + 1, 96)
    sd.unet = PointDenoiser(3 * normal(space, seed, 1, CHANNELS, 24, 24), sd)
    first, second = chance.sample(PROMPTS, 2)
    mask = torch.zeros(1, 1, 24, 24, device=sd.model.device)
    mask[..., chance.randint(2, 6) : 14, 5 : chance.randint(14, 20)] = 1

    def levels() -> np.ndarray:
        """Return the standard deviation of the noise outside of the mask, in quarters.

        It is 1 in the first step, and in each of the others if the level of the noise is right.
        """
        sd.unet.inputs.clear()
        function(image, mask, first)
        clean = sd.encode_image(image)
        deviations = []
        for t, x_t in list(sd.unet.inputs.items())[1:]:
            a = sd.alpha_bar_at(t)
            noise = ((x_t - a.sqrt() * clean) / (1 - a).sqrt())[(mask == 0).expand_as(clean)]
            deviations.append(round(4 * float(noise.std())) / 4)
        return np.array(deviations)

    return parts(
        {
            "image": lambda: pixels([function(image, mask, first)]),
            "another prompt": lambda: pixels([function(image, mask, second, seed=3)]),
            "another image and mask": lambda: pixels([function(other, 1 - mask, first)]),
            "noise in each step": levels,
        }
    )


class SmoothNetwork:
    """A smooth function of latents, timestep and text, as a U-Net is called."""

    dtype = torch.float32
    config = SimpleNamespace(in_channels=CHANNELS)

    def __call__(self, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor) -> Any:
        text = number_of(encoder_hidden_states)
        t = torch.as_tensor(timestep).flatten()[0] / 1000
        return SimpleNamespace(sample=0.8 * (sample + text).tanh() + 0.1 * t * text.cos())


@RECIPES.add("1.2 challenge 3", cells=CHALLENGE, prepare=add_sd)
def solver(space: Space, seed: int) -> Arrays:
    function = space["sample_dpm"]
    latents = normal(space, seed, 2, CHANNELS, 5, 3)
    embeddings = normal(space, seed + 1, 4, 3, TEXT_WIDTH)
    w = 1.5 + 2 * random.Random(seed).random()

    def sample(count: int, kind: str = "epsilon", w: float = w) -> Tensor:
        sd = make_sd(space, kind, set_alpha_to_one=True)
        sd.unet = SmoothNetwork()
        return function(sd, latents, embeddings, count, w)

    return parts(
        {
            "one step": lambda: sample(1),
            "five steps": lambda: sample(5),
            "many steps": lambda: sample(13),
            "v_prediction": lambda: sample(6, "v_prediction"),
            "no guidance": lambda: sample(7, w=1.0),
        }
    )
