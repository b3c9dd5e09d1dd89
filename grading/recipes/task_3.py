"""Recipes of lesson 3: the SDS step, its loop, a toy in two dimensions, cameras and rendering.

The functions of nerf/sd.py are answers as well. Where an exercise calls another one's function of
that file, a stand-in takes its place.
"""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from course import diffusion
from grading.recipe import Arrays, Inputs, Recipes, Space, array, parts, run_cells, second
from grading.small_model import TEXT_LENGTH, make_text_encoder, make_tokenizer
from task_3_DreamFusion.nerf.provider import orbit
from task_3_DreamFusion.nerf.renderer import PLAIN_COLOR
from task_3_DreamFusion.nerf.sd import SDSStep

LESSON = "task_3_DreamFusion/task_3_DreamFusion.ipynb"
RENDERING = ("d41", "d44", "d47")  # cells of pixel_rays, render_weights and composite


def setup() -> Space:
    """Return the names that the lesson and nerf/sd.py have at their exercises."""
    of_modules = dict(Tensor=Tensor, Any=Any, Callable=Callable, NamedTuple=NamedTuple)
    of_lesson = dict(torch=torch, tqdm=tqdm, diffusion=diffusion, orbit=orbit, SDSStep=SDSStep)
    others = dict(PLAIN_COLOR=PLAIN_COLOR, tokenizer=make_tokenizer(), sd=SimpleNamespace())
    return run_cells(LESSON, ["d04"]) | of_modules | of_lesson | others


RECIPES = Recipes(LESSON, setup)


class LossWithGradient(torch.autograd.Function):
    """A loss whose derivative with respect to latents is what it is given."""

    @staticmethod
    def forward(context: Any, latents: Tensor, derivative: Tensor) -> Tensor:
        context.save_for_backward(derivative)
        return derivative.abs().sum()

    @staticmethod
    def backward(context: Any, *factors: Tensor) -> tuple[Tensor, None]:
        [derivative] = context.saved_tensors
        return factors[0] * derivative, None


def levels(values: Tensor) -> Tensor:
    """Return numbers of images (B,) in the shape (B, 1, 1, 1)."""
    return values[:, None, None, None]


# --- Score distillation: the functions of nerf/sd.py


@RECIPES.add("3 (a)")
def prompt_embedding(space: Space, seed: int) -> Arrays:
    """Vectors of a short, a long and an empty text."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = make_text_encoder(space["tokenizer"])
    inputs = Inputs(seed)

    def embed(text: str, length: int) -> np.ndarray:
        word = "".join(chr(97 + inputs.integer(0, 25)) for _ in range(5))
        arguments = f"{text} {word}".strip(), space["tokenizer"], encoder, length
        return array(space["embed_text"](*arguments), constant=True)

    functions = {
        "short": lambda: embed("a bird", TEXT_LENGTH),
        "long": lambda: embed("a bird " * 9, TEXT_LENGTH),
        "another length": lambda: embed("", TEXT_LENGTH - 7),
    }
    return parts(functions, inputs)


IMAGES, BATCHES, MANY = 7, 200, 10**6  # of a batch, batches, timesteps


def _ranges(seed: int) -> tuple[Tensor, Tensor]:
    """Return the lowest share of the timesteps of each image, and the width of its range."""
    inputs = Inputs(seed)
    return inputs.uniform(0.1, 0.4, IMAGES), inputs.uniform(0.2, 0.5, IMAGES)


def measure_timesteps(arrays: Arrays, seed: int) -> Arrays:
    """Return what does not depend on the order in which random numbers are used."""
    low, width = (part.numpy() for part in _ranges(seed))
    shapes = {"batches": (BATCHES, IMAGES), "twice": (2, IMAGES), "single": (IMAGES,)}
    values = {
        name: array.astype(np.float64)
        for name, array in arrays.items()
        if array.dtype.kind in "iu" and array.shape == shapes.get(name, array.shape)
    }
    result = {}
    if "batches" in values:
        shares = IMAGES * (values["batches"] / (MANY - 1) - low) / width
        within = np.sort(shares, axis=1) - np.arange(IMAGES)  # from 0 to 1
        outside = np.abs(within - within.clip(-1e-2, 1.01)).sum()
        spread = np.round(4 * within.std())
        result["stratified"] = np.array([width.sum(), outside, spread * width.sum()])
        result["shuffled"] = low + width * np.round(2 * shares.mean(0) / IMAGES) / 2
    if "twice" in values and "single" in values:
        first, again = values["twice"]
        result["from the generator"] = np.concatenate([values["single"], first - again])
    if "no range" in values:
        result["no range"] = values["no range"]
    return result


@RECIPES.add("3 (b)", measure=measure_timesteps)
def timesteps(space: Space, seed: int) -> Arrays:
    """Timesteps of many batches, of one batch twice, of single images, and of no range."""
    low, width = _ranges(seed)

    def sample(low: Tensor, high: Tensor, number: int, seed: int) -> Tensor:
        source = torch.Generator().manual_seed(seed)
        t: Tensor = second(space["sample_timesteps"], low, high, number, source)
        if t.shape != low.shape:
            raise TypeError(f"The timesteps have the shape {tuple(t.shape)}.")
        return t

    def exact() -> Tensor:
        share = (torch.tensor([0, 17, 444, 998]) + 0.2) / 999
        last = sample(torch.ones(3), torch.ones(3), 50 + seed % 900, 0)
        return torch.cat([sample(share, share, 1000, seed), last])

    batch = lambda i: sample(low, low + width, MANY, seed + i)
    one = lambda i: sample(low[i, None], low[i, None] + width[i], MANY, seed + i)
    functions = {
        "batches": lambda: torch.stack([batch(i) for i in range(BATCHES)]),
        "twice": lambda: torch.stack([batch(0), batch(0)]),
        "single": lambda: torch.cat([one(i) for i in range(IMAGES)]),
        "no range": exact,
    }
    return parts(functions)


class SmallDenoiser:
    """A denoiser whose output depends on latents, timesteps and prompts; it counts its calls."""

    def __init__(self, inputs: Inputs, width: int) -> None:
        self.weight = inputs.normal(4, 4).requires_grad_()
        self.of_prompt = inputs.normal(width, 4)
        self.calls: list[int] = []

    def __call__(
        self, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, **options: Any
    ) -> SimpleNamespace:
        x, t = sample, timestep
        if not len(x) == len(t) == len(encoder_hidden_states):
            raise ValueError(f"Batches of {len(x)}, {len(t)} and {len(encoder_hidden_states)}.")
        if x.dtype != encoder_hidden_states.dtype:
            raise RuntimeError(f"Latents are {x.dtype}, and prompts not.")
        self.calls.append(len(x))
        prompt = encoder_hidden_states.float().mean(1) @ self.of_prompt + levels(t)[:, 0, 0] / 500
        mixed = torch.einsum("bchw,dc->bdhw", x.float(), self.weight)
        return SimpleNamespace(sample=(mixed + prompt[..., None, None]).tanh().to(x.dtype))


@RECIPES.add("3 (c)")
def noise_prediction(space: Space, seed: int) -> Arrays:
    """Guided noise of both kinds of models, in half precision, and of several prompts."""
    inputs = Inputs(seed)

    def predict(
        kind: str, w: Any = 6.0, prompts: int = 2, dtype: torch.dtype = torch.float32, **others: Any
    ) -> tuple[np.ndarray, list[int]]:
        count, width = 3, 5
        denoiser = SmallDenoiser(inputs, width)
        x_t, t = inputs.normal(count, 4, 4, 6), torch.tensor([30, 420, 800])
        embeddings = inputs.normal(prompts, count, 6, width).to(dtype)
        arguments = denoiser, x_t, t, embeddings, levels(inputs.uniform(0.1, 0.9, count)), kind, w
        noise = space["predict_noise"](*arguments, **others)
        return array(noise, constant=True), denoiser.calls

    def combine(noise_preds: list[Tensor]) -> Tensor:
        factors = 1 + torch.arange(len(noise_preds))
        return torch.einsum("k,kbchw->bchw", factors.float(), torch.stack(list(noise_preds)))

    each = levels(inputs.uniform(1, 9, 3))
    functions = {
        "noise": lambda: predict("epsilon")[0],
        "v": lambda: predict("v_prediction")[0],
        "a scale for each image": lambda: predict("epsilon", each)[0],
        "half precision": lambda: predict("v_prediction", 4.0, dtype=torch.float16)[0],
        "several prompts": lambda: predict("v_prediction", prompts=4, perp_neg=combine)[0],
        "one call": lambda: np.array(
            predict("epsilon", prompts=inputs.integer(2, 5), perp_neg=combine)[1]
        ),
    }
    return parts(functions, inputs)


@RECIPES.add("3 (d)")
def sds_step(space: Space, seed: int) -> Arrays:
    """What a step returns, and the derivative of its loss; the value of the loss is free."""
    inputs = Inputs(seed)
    latents = inputs.normal(3, 4, 4, 5).requires_grad_()
    alpha_bar, omega = levels(inputs.uniform(0.1, 0.9, 3)), levels(inputs.uniform(0.2, 1.5, 3))
    weight = inputs.normal(4, 4).requires_grad_()

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        return torch.einsum("bchw,dc->bdhw", x_t, weight).tanh() + levels(t) / 1000

    def step() -> Any:
        source = torch.Generator().manual_seed(seed)
        t = torch.tensor([70, 300, 650])
        return second(space["sds_step"], latents, t, alpha_bar, omega, predict, source)

    def derivative() -> Tensor:
        [result] = torch.autograd.grad(step().loss, latents)
        return result

    functions = {
        "noise": lambda: step().noise,
        "noisy latents": lambda: array(step().noisy_latents, constant=True),
        "predicted noise": lambda: step().noise_pred,
        "gradient": lambda: step().gradient,
        "derivative of the loss": derivative,
    }
    return parts(functions, inputs)


# --- Score distillation: the cells


@RECIPES.add("3 (e)")
def descent(space: Space, seed: int) -> Arrays:
    """Latents after some steps, and the ranges of timesteps; neither depends on random numbers."""
    inputs = Inputs(seed)
    count, steps, lr = 3, inputs.integer(6, 9), float(inputs.uniform(0.3, 0.9))
    alphas = torch.linspace(0.995, 0.01, 100_000)
    start, goal = inputs.normal(2, count, 4, 3, 4)
    mixture = inputs.uniform(0.2, 0.8, 50, count)
    ranges: list[Tensor] = []

    def sample_timesteps(lowest: Tensor, highest: Tensor, number: int, generator: Any) -> Tensor:
        ranges.append(torch.stack([lowest, highest]).double())
        share = torch.lerp(lowest, highest, mixture[len(ranges) % len(mixture)])
        return ((number - 1) * share).long()

    def step(
        latents: Tensor, t: Tensor, alpha_bar: Tensor, omega: Tensor, predict: Any, generator: Any
    ) -> SDSStep:
        x = latents.detach()
        noise = x.mean(dim=1, keepdim=True).tanh().expand_as(x)
        noise_pred = predict(x, t) - alpha_bar * x
        gradient = omega * (noise_pred - noise)
        loss = LossWithGradient.apply(latents, gradient / len(x))
        return SDSStep(loss, gradient, noise, x, noise_pred)

    def optimize() -> np.ndarray:
        ranges.clear()
        space["sd"] = SimpleNamespace(sample_timesteps=sample_timesteps, sds_step=step)
        predict = lambda x, t: x - goal * alphas[t][:, None, None, None]
        arguments = start, predict, alphas, steps, lr, torch.Generator(), step
        return array(second(space["optimize"], *arguments), constant=True)

    def sampled() -> Tensor:
        optimize()
        return torch.stack(ranges)

    return parts({"latents": optimize, "ranges of timesteps": sampled}, inputs)


@RECIPES.add("3 (f)")
def mixture_noise(space: Space, seed: int) -> Arrays:
    """Noise of mixtures of several sizes."""
    inputs = Inputs(seed)

    def noise(count: int, low: float, high: float) -> Any:
        x, means = inputs.normal(9, 2), inputs.normal(count, 2)
        alpha_bar, spread = inputs.uniform(0.05, 0.95, 9, 1), float(inputs.uniform(low, high))
        return second(space["mixture_noise"], x, alpha_bar, means, spread)

    functions = {
        "one Gaussian": lambda: noise(1, 0.2, 0.5),
        "four": lambda: noise(4, 0.2, 0.5),
        "wide ones": lambda: noise(6, 0.8, 1.5),
    }
    return parts(functions, inputs)


@RECIPES.add("3 (g)")
def mistakes(space: Space, seed: int) -> Arrays:
    """The derivatives of the losses of the three steps."""
    inputs = Inputs(seed)
    latents = inputs.normal(3, 4, 3, 4).requires_grad_()
    alpha_bar, omega = levels(inputs.uniform(0.1, 0.9, 3)), levels(inputs.uniform(0.2, 1.5, 3))
    noise = inputs.normal(*latents.shape)

    def right_step(
        latents: Tensor, t: Tensor, alpha_bar: Tensor, omega: Tensor, predict: Any, generator: Any
    ) -> SDSStep:
        noisy = latents.detach() + noise
        noise_pred = predict(noisy, t)
        gradient = omega * (noise_pred - noise)
        loss = LossWithGradient.apply(latents, gradient / len(latents))
        return SDSStep(loss, gradient, noise, noisy, noise_pred)

    def derivative(name: str) -> Tensor:
        predict = lambda x, t: x.tanh() + levels(t) / 1000
        arguments = latents, torch.tensor([70, 300, 650]), alpha_bar, omega, predict
        loss = space["MISTAKES"][name](*arguments, torch.Generator()).loss
        [result] = torch.autograd.grad(loss, latents)
        return result

    space["sd"] = SimpleNamespace(sds_step=right_step, SDSStep=SDSStep)
    names = ("wrong sign", "no weighting", "noise not subtracted")
    return parts({name: partial(derivative, name) for name in names}, inputs)


# --- Cameras, rendering and views


@RECIPES.add("3 (h)")
def pixel_rays(space: Space, seed: int) -> Arrays:
    """Rays of wide and tall images from a random pose."""
    inputs = Inputs(seed)

    def rays(height: int, width: int) -> Any:
        pose = torch.eye(4)
        pose[:3, :3] = torch.linalg.qr(inputs.normal(3, 3)).Q
        pose[:3, 3] = inputs.normal(3)
        return second(space["pixel_rays"], pose, inputs.uniform(20, 80), height, width)

    def part(i: int, *sides: int) -> Any:
        origins, directions = rays(*sides)
        return (origins, directions)[i]

    functions = {
        "origins": lambda: part(0, 3, 4),
        "directions": lambda: part(1, 4, 7),
        "directions of a tall image": lambda: part(1, 8, 5),
    }
    return parts(functions, inputs)


@RECIPES.add("3 (i)")
def render_weights(space: Space, seed: int) -> Arrays:
    """Weights along rays through fog, through little, and at a wall."""
    inputs = Inputs(seed)

    def weigh(highest: float, step: float, *shape: int) -> Any:
        sigmas = inputs.uniform(0, highest, *shape)
        sigmas[0] = 0
        return second(space["render_weights"], sigmas, step)

    def wall() -> Any:
        sigmas = inputs.uniform(0.1, 2, 4, 3)
        sigmas[1:3, 1:], sigmas[3] = 60, 1e4
        return second(space["render_weights"], sigmas, 0.3)

    functions = {
        "fog": lambda: weigh(9, float(inputs.uniform(0.1, 0.4)), 4, 7),
        "thin": lambda: weigh(0.5, 0.05, 5, 11),
        "a wall": wall,
    }
    return parts(functions, inputs)


@RECIPES.add("3 (j)")
def composite(space: Space, seed: int) -> Arrays:
    """Image, opacity and depth."""
    inputs = Inputs(seed)

    def part(i: int) -> Any:
        weights = inputs.uniform(0.01, 0.15, 5, 6)
        colors, background = inputs.uniform(0, 1, 5, 6, 3), inputs.uniform(0, 1, 3)
        distances = inputs.uniform(1, 3, 5, 6).sort(1).values
        image, opacity, depth = second(space["composite"], weights, colors, distances, background)
        return (image, opacity, depth)[i]

    names = ("image", "opacity", "depth")
    return parts({name: partial(part, i) for i, name in enumerate(names)}, inputs)


@RECIPES.add("3 (k)", RENDERING)
def render(space: Space, seed: int) -> Arrays:
    """Images of a field from random cameras, in front of the lesson's and another background."""
    inputs = Inputs(seed)
    matrix = inputs.normal(3, 3)

    def field(x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[-1] != 3:
            raise ValueError(f"Points of the shape {tuple(x.shape)}.")
        return (1.3 - x.norm(dim=-1)).relu() * (x[..., 1].sin() + 1.5), (x @ matrix).sigmoid()

    def image(size: int, **options: Any) -> Any:
        azimuth, elevation, fov = inputs.uniform(-170, 60, 3).tolist()
        camera = orbit(1, elevation / 4, 40 + fov / 10, start=azimuth)
        return second(lambda: space["render"](field, camera, size, **options))

    def in_front_of(color: Tensor) -> Any:
        plain, space["BACKGROUND"] = space["BACKGROUND"], color
        try:
            return image(4, factor=0.3, samples=15)
        finally:
            space["BACKGROUND"] = plain

    functions = {
        "defaults": lambda: image(3),
        "another density": lambda: image(5, factor=float(inputs.uniform(2, 5)), samples=22),
        "another background": lambda: in_front_of(inputs.uniform(0, 1, 3)),
    }
    return parts(functions, inputs)


@RECIPES.add("3 (l)")
def view_weights(space: Space, seed: int) -> Arrays:
    """Weights at the horizon, above it, and after several turns."""
    inputs = Inputs(seed)

    def weigh(turns: float, low: float, high: float) -> Any:
        azimuth = 180 * turns * inputs.uniform(-1, 1, 60)
        return second(space["view_weights"], azimuth, inputs.uniform(low, high, 60))

    functions = {
        "around": lambda: weigh(1, -20, 40),
        "from above": lambda: weigh(1, 40, 89),
        "several turns": lambda: weigh(5, -10, 80),
    }
    return parts(functions, inputs)


@RECIPES.add("3 (m)")
def perp_neg(space: Space, seed: int) -> Arrays:
    """Guided noise for several numbers of hidden views, also where p is zero."""
    inputs = Inputs(seed)

    def guide(views: int, same: int = 0) -> Any:
        uncond, cond, *others = inputs.normal(2 + views, 3, 4, 4, 5)
        cond[:same] = uncond[:same]
        negatives = torch.stack(others) + 0.6 * cond
        strengths = inputs.uniform(0, 1.5, views, 3)
        w = float(inputs.uniform(2, 9))
        return second(space["perp_neg"], uncond, cond, negatives, strengths, w)

    functions = {
        "one view": lambda: guide(1),
        "three views": lambda: guide(3),
        "p is zero": lambda: guide(2, same=1),
    }
    return parts(functions, inputs)
