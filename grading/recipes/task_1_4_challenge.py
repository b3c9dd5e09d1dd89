"""The recipe of the challenge of the lesson on training: a better model in a third of the time.

The answer trains a small stand-in for the U-Net, which learns an image for each caption within a
few steps. What it generates is measured outside the sandbox, since any better model is right.
"""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from course.images import to_pil
from course.training import averaged_weights
from grading.recipe import Arrays, Recipes, Space, run_cells

LESSON = "task_1_4_Training.ipynb"
GIVEN = ("versions", "parameters", "components", "data", "encode-captions", "sampling-imports")
SOLUTIONS = (
    *("ex-a", "ex-b", "ex-loss", "ex-step", "ex-sample", "ex-batch", "ex-share", "ex-loss-at"),
    "ex-nearest",
)
CAPTIONS = 48
WIDTH, TOKENS = 24, 3  # of the text embeddings
SHAPE = (4, 8, 8)  # of the latents
GAIN = 4.0  # how fast the network learns
ENOUGH = 40  # images that belong to their captions; more are as good
LIMIT = 20.0  # seconds of training

RECIPES = Recipes(LESSON, lambda: run_cells(LESSON, GIVEN))


class CaptionNetwork(nn.Module):
    """A network whose x_0 is a linear function of the caption, 0 for the empty one."""

    def __init__(self, empty: Tensor, alpha_bar: Tensor, weight: Tensor) -> None:
        super().__init__()
        self.empty, self.alpha_bar = empty, alpha_bar
        self.weight = nn.Parameter(weight)

    def forward(
        self, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, return_dict: bool = True
    ) -> Any:
        a = self.alpha_bar[torch.as_tensor(timestep).expand(len(sample))].view(-1, 1, 1, 1)
        caption = encoder_hidden_states.mean(1) - self.empty.mean(1)
        x_0 = GAIN * (caption @ self.weight).view_as(sample)
        v = (a.sqrt() * sample - x_0) / (1 - a).clamp(min=0.05).sqrt()
        return UNet2DConditionOutput(sample=v) if return_dict else (v,)


def world(seed: int) -> dict[str, Tensor]:
    """Return text embeddings, the empty one, and weights: at the start, and of a perfect model."""
    g = torch.Generator().manual_seed(seed)
    states = torch.randn((CAPTIONS, TOKENS, WIDTH), generator=g)
    empty = torch.randn((1, TOKENS, WIDTH), generator=g)
    right, error = torch.randn((2, WIDTH, int(np.prod(SHAPE))), generator=g) / (GAIN * WIDTH**0.5)
    return {"states": states, "empty": empty, "right": right, "start": 0.3 * right + error}


def images_of(states: Tensor, empty: Tensor, weight: Tensor) -> Tensor:
    """Return x_0 (N, ...) of a network with these weights, for N captions."""
    return GAIN * ((states.mean(1) - empty.mean(1)) @ weight).view(-1, *SHAPE)


def decode(latents: Tensor) -> list[Any]:
    """Return latents (B, 4, h, w) as images: three of their channels, as bright as it goes."""
    colors = latents[:, :3] / latents[:, :3].abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-6)
    return [to_pil(each[None]) for each in colors]


def small_challenge(space: Space, seed: int) -> None:
    """Put a small training set and a half-trained network into the lesson."""
    tensors, alpha_bar = world(seed), space["alpha_bar"]
    states, empty = tensors["states"], tensors["empty"]
    g = torch.Generator().manual_seed(seed + 1)
    pairs = space["pairs"]
    index = torch.arange(CAPTIONS).repeat(4)
    latents = images_of(states, empty, tensors["right"])[index]
    latents = latents + 0.1 * torch.randn(latents.shape, generator=g)
    unet = CaptionNetwork(empty, alpha_bar, tensors["start"])
    x_T = torch.randn((CAPTIONS, *SHAPE), generator=g)
    data = SimpleNamespace(latents=latents, pairs=pairs * 4, all_pairs=pairs, unseen=pairs[::6])
    space.update(
        {"states": states, "empty": empty, "caption_index": index, "data": data, "unet": unet},
        x_T=x_T,
        every_image=torch.arange(len(latents)),
        generator=torch.Generator().manual_seed(seed + 2),
        optimizer=torch.optim.AdamW(unet.parameters(), lr=2e-3, betas=(0.9, 0.99)),
        ema=EMAModel(unet.parameters(), decay=0.995),
        build_unet=lambda width: CaptionNetwork(empty, alpha_bar, 0 * tensors["start"]),
        run=SimpleNamespace(seconds=1.0, step=100, losses=[1.0] * 100, previews={}),
        decode=decode,
        images=decode(images_of(states, empty, tensors["start"])),
        latents=images_of(states, empty, tensors["start"]),
    )
    space.update(TRAINING_STEPS=100, BATCH=32, DROPOUT=0.1, STEPS=10, copy=copy, EMAModel=EMAModel)
    space.update(averaged_weights=averaged_weights, generate=generator_of(space))


def generator_of(space: Space) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the lesson's `generate`."""

    def generate(states: Tensor, x_T: Tensor) -> Tensor:
        names = ("unet", "scheduler", "empty", "STEPS", "GUIDANCE_SCALE")
        given = {name: space[name] for name in names}
        with averaged_weights(space["ema"], given["unet"]):
            latents: Tensor = space["sample"](
                *(given["unet"], given["scheduler"], states, given["empty"], x_T),
                *(given["STEPS"], given["GUIDANCE_SCALE"]),
            )
        return latents

    return generate


def measure(arrays: Arrays, seed: int) -> Arrays:
    """Return how many images belong to their captions, if they are better than those before."""
    images = arrays["images"].astype(np.float64).reshape(len(arrays["images"]), -1)
    tensors = world(seed)
    right, start = (
        np.stack([np.asarray(each, np.float64).ravel() for each in decode(images_of(*weights))])
        for weights in (
            (tensors["states"], tensors["empty"], tensors["right"]),
            (tensors["states"], tensors["empty"], tensors["start"]),
        )
    )
    if images.shape != right.shape:
        return {}
    factor = 1 + seed % 97
    similar = cosines(images, right) + cosines(images, start)
    belong = int((similar.argmax(1) == np.arange(CAPTIONS)).sum())
    gain = cosines(images, right).trace() - cosines(start, right).trace()
    is_better = belong >= ENOUGH and gain > 0.01 * CAPTIONS
    seconds = float(arrays["seconds"])
    return {
        "better images": factor * np.array(is_better * min(belong, ENOUGH), np.float64),
        "better images, in time": factor * np.array(is_better and 0 < seconds <= LIMIT, np.float64),
    }


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return how similar rows (N, n) are to others, (N, N), from -1 to 1, around middle gray."""
    unit = [(each - 127.5) / np.linalg.norm(each - 127.5, axis=1, keepdims=True) for each in (a, b)]
    return np.asarray(unit[0] @ unit[1].T)


@RECIPES.add("1.4 challenge 1", SOLUTIONS, prepare=small_challenge, measure=measure)
def challenge(space: Space, seed: int) -> Arrays:
    images = np.stack([np.asarray(image.convert("RGB")) for image in space["better_images"]])
    return {"images": images, "seconds": np.array(float(space["seconds"]))}
