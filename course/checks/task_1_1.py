"""Checks of lesson 1.1, and of the set-up before it."""

import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from course.checks.common import as_trained, call, expect, expect_function, made, passed, same
from course.models import Model


def token(value: Any, model: Model) -> None:
    """Task 0: a Hugging Face token, without which only public models can be had. Never prints the token."""
    expect(value is not ..., "`token` is still empty: write the line of the TODO above.")
    if value is None:
        passed(f"no token is stored here; {model.name} is on this disk and needs none")
        return
    expect(
        isinstance(value, str),
        f"`token` is a {type(value).__name__}; get_token() returns a text or None.",
    )
    expect(
        value.startswith("hf_"),
        'A Hugging Face token starts with "hf_". Copy it again from https://huggingface.co/settings/tokens',
    )
    passed("a Hugging Face token is stored on this machine")


def pipeline(pipe: Any, scheduler: Any, model: Model) -> None:
    """Task 1.1 (a): a StableDiffusionPipeline of `model` on its device that samples with DDIM."""
    from diffusers import DDIMScheduler, DiffusionPipeline, StableDiffusionPipeline

    made(scheduler, "`scheduler`")
    expect(
        not isinstance(scheduler, type) and not isinstance(pipe, type),
        "That is the class itself. Its from_pretrained(...) makes the object from the files of the model.",
    )
    expect(
        isinstance(scheduler, DDIMScheduler),
        f"`scheduler` is a {type(scheduler).__name__}; load it with DDIMScheduler.from_pretrained(...).",
    )
    as_trained(scheduler, model)
    made(pipe, "`pipe`")
    expect(
        isinstance(pipe, DiffusionPipeline),
        f"`pipe` is a {type(pipe).__name__}; load it with StableDiffusionPipeline.from_pretrained(...).",
    )
    expect(
        isinstance(pipe, StableDiffusionPipeline),
        f"`pipe` is a {type(pipe).__name__}, no StableDiffusionPipeline.",
    )
    expect(
        pipe.scheduler is scheduler,
        f"The pipeline samples with its own {type(pipe.scheduler).__name__}: hand yours over with scheduler=scheduler.",
    )
    expect(
        pipe.device.type == model.device.type,
        f"The pipeline is on {pipe.device.type}, but this machine has {model.device.type}: add .to(model.device).",
    )
    dtypes = {part.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder)}
    expect(
        dtypes == {model.dtype},
        f"The parts have the types {sorted(map(str, dtypes))}; on {model.device.type} {model.name} runs in "
        f"{model.dtype}: add dtype=model.dtype.",
    )
    passed(f"{model.name} is loaded on {pipe.device.type} and samples with DDIM")


def noise(function: Callable[[int], torch.Tensor], model: Model) -> None:
    """Task 1.1 (b): `starting_noise(seed)` draws the latents of one image, repeatably, on the CPU in float32."""
    latents = call(function, 1)
    expect(
        isinstance(latents, torch.Tensor),
        f"That is a {type(latents).__name__}; torch.randn makes a tensor.",
    )
    side = model.image_size // model.scale_factor
    shape = (1, model.config("unet/config.json")["in_channels"], side, side)
    expect(
        tuple(latents.shape) == shape,
        f"The noise has the shape {tuple(latents.shape)}; one picture of {model.name} starts from {shape}: "
        "(pictures, channels, height, width), with sides of model.image_size // model.scale_factor.",
    )
    expect(
        torch.equal(latents, call(function, 1)),
        "The same seed gave different noise. Draw from a generator of your own, made anew in every call: "
        'generator=torch.Generator("cpu").manual_seed(seed).',
    )
    expect(
        not torch.equal(latents, call(function, 2)),
        "Two seeds gave the same noise: hand `seed` to manual_seed(seed).",
    )
    expect(
        latents.device.type == model.device.type and latents.dtype == model.dtype,
        f"The noise is {latents.dtype} on {latents.device.type}, but the model works in {model.dtype} on "
        f"{model.device.type}: end with .to(model.device, model.dtype).",
    )
    expected = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(1))
    expect(
        torch.equal(latents.cpu(), expected.to(model.dtype)),
        "The noise is not that of torch.randn with a CPU generator in float32. Other machines would see another "
        "picture for the same seed: draw first, move and convert afterwards.",
    )
    passed(f"noise of shape {shape}: the same for the same seed, on every machine")


def generate(function: Callable[..., Image.Image], prompt: str, model: Model) -> None:
    """Task 1.1 (c): `generate` makes one image, the same for the same seed, and follows each of its arguments."""
    quick: dict[str, Any] = {"steps": 2, "seed": 1, "guidance_scale": 5.0, "negative_prompt": ""}
    expect_function(function)
    missing = quick.keys() - inspect.signature(function).parameters.keys()
    expect(
        not missing,
        f"`generate` lost its argument {', '.join(sorted(missing))}: keep its first line as it was.",
    )
    first = call(function, prompt, **quick)
    expect(
        isinstance(first, Image.Image),
        f"`generate` returns a {type(first).__name__}; a pipeline's result holds a list: return result.images[0].",
    )
    size = (model.image_size, model.image_size)
    expect(first.size == size, f"The picture has {first.size} pixels; {model.name} draws {size}.")
    expect(
        np.asarray(first).any(),
        "The picture is all black: a safety checker or not-a-number values emptied it.",
    )
    expect(
        same(first, call(function, prompt, **quick)),
        "The same seed gave two different pictures: hand the noise over with latents=starting_noise(seed).",
    )
    others = {"seed": 2, "steps": 3, "guidance_scale": 9.0, "negative_prompt": prompt}
    for argument, value in others.items():
        expect(
            not same(first, call(function, prompt, **{**quick, argument: value})),
            f"The picture does not change with {argument}: hand `{argument}` on.",
        )
    expect(
        not same(first, call(function, "", **quick)),
        "The picture does not change with the prompt: hand `prompt` on to the pipeline.",
    )
    passed(
        "one picture; the same seed gives it again; prompt, seed, steps, guidance and negative prompt all count"
    )


def series(
    function: Callable[..., Image.Image], images: Sequence[Image.Image], **settings: Any
) -> None:
    """Task 1.1 (d) to (g): images that `function` makes when the settings given as lists run through their values
    (the last one fastest) and the others are kept. One image is made anew and compared."""
    lists = {name: value for name, value in settings.items() if isinstance(value, list)}
    combinations = [
        dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())
    ]
    made(images, "The list of pictures")
    expect(
        isinstance(images, list),
        f"That is a {type(images).__name__}; make a list: [generate(...) for value in values].",
    )
    expect(
        len(images) == len(combinations),
        f"There are {len(images)} pictures for {len(combinations)} settings: one for each, in a flat list.",
    )
    for i, image in enumerate(images):
        expect(
            isinstance(image, Image.Image),
            f"Entry {i} of the list is a {type(image).__name__}, no picture.",
        )
    alike = [i for i in range(1, len(images)) if same(images[i - 1], images[i])]
    expect(
        not alike,
        f"Pictures {' and '.join(f'{i - 1}, {i}' for i in alike)} are the same: does {' or '.join(lists)} reach "
        "`generate`?",
    )
    probe = int(
        len(lists) > 1
    )  # of a grid the second, which also shows whether rows and columns were exchanged
    wanted = {**settings, **combinations[probe]}
    order = "their order" + (f" (all of {' for each of '.join(reversed(lists))})" if probe else "")
    expect(
        same(images[probe], call(function, **wanted)),
        f"Picture {probe} (counted from 0) is not what `generate` makes of "
        f"{', '.join(f'{k} = {v!r}' for k, v in wanted.items())}. Change only {' and '.join(lists)}, take the values "
        f"in {order}, and keep everything else.",
    )
    passed(f"{len(images)} pictures that differ in {' and '.join(lists)} only")
