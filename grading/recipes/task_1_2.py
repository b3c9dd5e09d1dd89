"""The recipes of lesson 1.2: its class with small random networks in the place of pocket's."""

import copy
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor

from course.diffusion import SamplingStep
from grading.recipe import Arrays, Recipes, Space, numbers, parts
from grading.small_model import (
    CHANNELS,
    DETAILED,
    PROMPTS,
    TEXT_WIDTH,
    a_step,
    make_generator,
    make_sd,
    normal,
    pixels,
    save_variant,
    set_up_detailed,
    some_weights,
)

# The lesson's cells that define methods and functions, with their solutions.
CLASS, TEXT, TIMESTEPS, GUIDE, PREDICT = "cell-07", "cell-13", "cell-16", "cell-20", "cell-23"
STEP, LOOP, DECODE, DECODE_STEPS = "cell-26", "cell-31", "cell-35", "cell-38"


RECIPES = Recipes(DETAILED, set_up_detailed)


def add_sd(space: Space, seed: int) -> None:
    space["sd"] = make_sd(space)


# --- Components and text


def save_model(space: Space, seed: int) -> None:
    space["model"] = save_variant(space["pipe"], seed)


@RECIPES.add("1.2 (a)", prepare=save_model)
def components(space: Space, seed: int) -> Arrays:
    sd = space["StableDiffusion"](space["model"])
    text = random.Random(seed).choice(PROMPTS)
    return parts(
        {
            "tokenizer": lambda: numbers(sd.tokenizer(text).input_ids) * (1 + seed % 7),
            "text encoder": lambda: some_weights(sd.text_encoder),
            "unet": lambda: some_weights(sd.unet),
            "vae": lambda: some_weights(sd.vae),
            "scheduler": lambda: a_step(sd.scheduler, seed),
        }
    )


@RECIPES.add("1.2 (b)", cells=(CLASS,), prepare=add_sd)
def text_embeddings(space: Space, seed: int) -> Arrays:
    embed = make_sd(space).get_text_embeddings
    a, b, c, d = random.Random(seed).sample(PROMPTS, 4)
    return parts(
        {
            "one prompt": lambda: embed([a], [""]),
            "two prompts": lambda: embed([a, b], [c, d]),
            "a long prompt": lambda: embed([f"{a} and {b} and {c}"], [d]),
        }
    )


# --- Timesteps and one step


def is_clear(total: int, count: int) -> bool:
    """Return whether no timestep of trailing or linspace lies halfway between two integers."""
    steps = np.arange(count)
    exact = np.concatenate([steps * total / count, steps * (total - 1) / max(count - 1, 1)])
    return bool((np.abs(exact % 1 - 0.5) > 1e-6).all())


def one_too_many(total: int, count: int) -> bool:
    """Return whether a range with a step of total / count has an entry too many."""
    return len(np.arange(total, 0, -total / count)) > count


@RECIPES.add("1.2 (c)")
def timesteps(space: Space, seed: int) -> Arrays:
    function, chance = space["timesteps"], random.Random(seed)
    clear = [count for count in range(7, 130) if is_clear(1000, count)]
    awkward = [count for count in clear if one_too_many(1000, count)]
    others = [total for total in range(300, 900) if is_clear(total, 17) and total % 17]

    def visited(spacing: str, count: int, offset: int = 0, total: int = 1000) -> np.ndarray:
        config = DDIMScheduler(
            timestep_spacing=spacing, steps_offset=offset, num_train_timesteps=total
        ).config
        visited = [float(t) for t in function(config, count)]
        # Less what all spacings have in common, so that 1 is not little.
        return np.array([t - total + total * i / count for i, t in enumerate(visited)])

    # Their strides round up, and have to be rounded down.
    fractional = [count for count in clear if 1000 / count % 1 > 0.5]
    return parts(
        {
            "trailing": lambda: visited("trailing", chance.choice(clear)),
            "rounding": lambda: visited("trailing", chance.choice(awkward)),
            "leading": lambda: visited("leading", chance.choice(fractional)),
            "offset": lambda: visited("leading", chance.choice(fractional), 1 + seed % 5),
            "linspace": lambda: visited("linspace", chance.choice(clear)),
            "another T": lambda: visited("trailing", 17, 0, chance.choice(others)),
        }
    )


@RECIPES.add("1.2 (d)")
def guidance(space: Space, seed: int) -> Arrays:
    function = space["guide"]
    uncond, cond = normal(space, seed, 2, 3, 2, 5, 7)
    w = 2 + 7 * random.Random(seed).random()

    def twice() -> Any:
        function(uncond, cond, w)
        return function(uncond, cond, w)

    return parts(
        {
            "guided": lambda: function(uncond, cond, w),
            "weak guidance": lambda: function(cond[:1], uncond[:1], w / 20),
            "arguments stay": twice,
        }
    )


@RECIPES.add("1.2 (e)")
def prediction(space: Space, seed: int) -> Arrays:
    function = space["predict_x0_and_noise"]
    x_t, output = normal(space, seed, 2, 2, 3, 4, 5)
    a, b = (0.1 + 0.8 * torch.rand(2, generator=make_generator(seed))).to(x_t.device)

    def part(index: int, alpha_bar: Tensor, kind: str) -> Any:
        return function(x_t, output, alpha_bar, kind)[index]

    def twice() -> np.ndarray:
        function(x_t, output, b, "v_prediction")
        function(x_t, output, a, "epsilon")
        return numbers(*function(x_t, output, a, "v_prediction"))

    return parts(
        {
            "x_0 of epsilon": lambda: part(0, a, "epsilon"),
            "noise of epsilon": lambda: part(1, a, "epsilon"),
            "x_0 of v": lambda: part(0, b, "v_prediction"),
            "noise of v": lambda: part(1, b, "v_prediction"),
            "arguments stay": twice,
        }
    )


@RECIPES.add("1.2 (f)")
def ddim_step(space: Space, seed: int) -> Arrays:
    function = space["ddim_step"]
    x_0, noise, fresh = normal(space, seed, 3, 2, 3, 4, 5)
    low, high = torch.rand(2, generator=make_generator(seed))
    a, b = (0.1 + 0.3 * low).to(x_0.device), (0.5 + 0.3 * high).to(x_0.device)
    end = torch.ones_like(a)

    def twice() -> Any:
        function(x_0, noise, a, b, 0.4, fresh)
        return function(x_0, noise, a, b, 0.3, fresh)

    return parts(
        {
            "no fresh noise": lambda: function(x_0, noise, a, b, 0.0, fresh),
            "some fresh noise": lambda: function(x_0, noise, a, b, 0.6, fresh),
            "eta = 1": lambda: function(x_0, noise, a, b, 1.0, fresh),
            "last step": lambda: function(x_0, noise, b, end, 0.8, fresh),
            "arguments stay": twice,
        }
    )


# --- The loop, and what surrounds it


@RECIPES.add("1.2 (g)", cells=(CLASS, TIMESTEPS, GUIDE, PREDICT, STEP), prepare=add_sd)
def loop(space: Space, seed: int) -> Arrays:
    latents = normal(space, seed, 2, CHANNELS, 6, 4)
    embeddings = normal(space, seed + 1, 4, 5, TEXT_WIDTH)
    w = 1.5 + 2 * random.Random(seed).random()

    def steps(count: int, kind: str = "epsilon", **settings: Any) -> list[Any]:
        sd = make_sd(space, kind, **settings)
        return list(sd.denoise(latents, embeddings, count, w))

    def with_fresh_noise() -> Tensor:
        generators = [make_generator(seed + 3), make_generator(seed + 4)]
        *_, last = make_sd(space).denoise(latents, embeddings, 3, w, 0.6, generators)
        return last.x_prev

    def in_another_precision() -> Tensor:
        sd = make_sd(space)
        sd.unet = copy.deepcopy(sd.unet).double()
        *_, last = sd.denoise(latents[:1], embeddings[::2].double(), 2, w)
        return last.x_prev

    def kept() -> np.ndarray:
        row = []
        for step in steps(3):
            row += [step.t / 1000, step.x_t, step.uncond, step.cond, step.x_0]
        return numbers(*row)

    return parts(
        {
            "one step": lambda: steps(1)[-1].x_prev,
            # Here a constant stride meets the next timestep.
            "leading": lambda: steps(3, timestep_spacing="leading")[-1].x_prev,
            "linspace": lambda: steps(4, timestep_spacing="linspace")[-1].x_prev,
            "v_prediction": lambda: steps(3, "v_prediction")[-1].x_prev,
            "fresh noise": with_fresh_noise,
            "the network's precision": in_another_precision,
            "what the steps keep": kept,
        }
    )


@RECIPES.add("1.2 (h)", cells=(CLASS,), prepare=add_sd)
def decoding(space: Space, seed: int) -> Arrays:
    def decode(latents: Tensor, factor: float = 0.6, precision: torch.dtype = torch.float32) -> Any:
        sd = make_sd(space)
        sd.vae = copy.deepcopy(sd.vae)
        if precision == torch.float64:
            sd.vae = sd.vae.double()
        sd.vae.register_to_config(scaling_factor=factor)
        return sd.decode_latents(latents)

    latents = normal(space, seed, 2, CHANNELS, 5, 4)
    return parts(
        {
            "latents": lambda: decode(latents[:1]),
            "another factor": lambda: decode(latents[1:], 0.2 + seed % 13 / 10),
            "precision": lambda: decode(latents, precision=torch.float64),
        }
    )


@RECIPES.add("1.2 (i)", cells=(CLASS, DECODE), prepare=add_sd)
def decoded_steps(space: Space, seed: int) -> Arrays:
    sd = make_sd(space)
    tensors = normal(space, seed, 4, 5, 2, CHANNELS, 3, 4)
    sd.steps = [SamplingStep(90 - 9 * i, *each) for i, each in enumerate(tensors)]
    count = len(sd.steps)

    def images(name: str) -> Tensor:
        return torch.stack(list(sd.decode_steps(name))[:count])

    def result() -> Tensor:
        images = list(sd.decode_steps("x_t"))
        return torch.stack(images[count - 1 :])

    return parts({"x_t": lambda: images("x_t"), "x_0": lambda: images("x_0"), "result": result})


WHOLE = (CLASS, TEXT, TIMESTEPS, GUIDE, PREDICT, STEP, LOOP, DECODE, DECODE_STEPS)


@RECIPES.add("1.2 (j)", cells=WHOLE, prepare=add_sd)
def sampling(space: Space, seed: int) -> Arrays:
    sd = make_sd(space)
    sd.scheduler.final_alpha_cumprod = torch.tensor(0.7)  # so that the result is not x_0
    chance = random.Random(seed)
    prompts, negatives = chance.sample(PROMPTS, 2), chance.sample(PROMPTS, 2)
    settings: dict[str, Any] = {"num_sampling_steps": 2, "guidance_scale": 2.5, "eta": 0.5}
    settings |= {"seed": [seed % 99, 7], "height": 16, "width": 24}

    def frames() -> tuple[list[str], np.ndarray]:
        with tempfile.TemporaryDirectory() as folder:
            sd.sample(prompts[0], save_dir=folder, save_x_0=True, num_sampling_steps=2)
            paths = sorted(Path(folder).rglob("*.png"))
            names = [path.relative_to(folder).as_posix() for path in paths]
            return names, pixels([Image.open(path) for path in paths])

    def digits_of_names() -> np.ndarray:
        # Folder, number and timestep: "x_0/001_t0499.png".
        return np.array([int(digit) for digit in "".join(frames()[0]) if digit.isdigit()])

    def kept_steps() -> np.ndarray:
        sd.sample(prompts, negatives, **settings)
        return numbers(*(step.x_prev for step in sd.steps))

    return parts(
        {
            "defaults": lambda: pixels(sd.sample(prompts[0])),
            "settings": lambda: pixels(sd.sample(prompts, negatives, **settings)),
            "kept steps": kept_steps,
            "names of frames": digits_of_names,
            "frames": lambda: frames()[1],
        }
    )


# --- A look inside


@RECIPES.add("1.2 (l)")
def attention(space: Space, seed: int) -> Arrays:
    function = space["attention"]
    query = normal(space, seed, 2, 3, 5, 8)
    key, value = normal(space, seed + 1, 2, 2, 3, 6, 8)
    wide = normal(space, seed + 2, 3, 9, 20)
    return parts(
        {
            "result": lambda: function(query, key, value)[0],
            "weights": lambda: function(query, key, value)[1],
            "other sizes": lambda: numbers(*function(wide[0, :4], wide[1], wide[2])),
        }
    )


def add_steps(space: Space, seed: int) -> None:
    tensors = normal(space, seed, 7, 5, 1, CHANNELS, 5, 4)
    tensors[:, 2] = tensors[:, 1] + 0.2 * tensors[:, 2]  # cond is close to uncond
    space["steps"] = [SamplingStep(990 - 90 * i, *each) for i, each in enumerate(tensors)]


@RECIPES.add("1.2 (m)", prepare=add_steps)
def strengths(space: Space, seed: int) -> Arrays:
    return {"strengths": np.array([float(value) for value in space["strengths"]])}
