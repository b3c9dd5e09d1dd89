"""Checks of lesson 1.1, and of the set-up before it."""

import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from course.checks.common import (
    call,
    check,
    expect,
    expect_function,
    expect_list,
    expect_model_settings,
    expect_placed,
    expect_tensor,
    expect_type,
    expect_value,
    same,
)
from course.models import Model


@check("0 (p)")
def token(value: Any, model: Model) -> str:
    """A Hugging Face token, which only models that are not public need. Never prints the token."""
    expect(value is not ..., "`token` is still empty: write the line of the TODO above.")
    if value is None:
        return f"no token is stored here; {model.name} is on this disk and needs none"
    expect_type(value, str, "`token`", "get_token() returns a text or None.")
    expect(
        value.startswith("hf_"),
        'A Hugging Face token starts with "hf_". Copy it again from '
        "https://huggingface.co/settings/tokens",
    )
    return "a Hugging Face token is stored on this machine"


@check("1.1 (a)")
def pipeline(pipe: Any, scheduler: Any, model: Model) -> str:
    """A StableDiffusionPipeline of `model` on its device that samples with DDIM."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    expect_value(scheduler, "`scheduler`")
    advice = "load it with DDIMScheduler.from_pretrained(...)."
    expect_type(scheduler, DDIMScheduler, "`scheduler`", advice)
    expect_model_settings(scheduler, model)
    expect_value(pipe, "`pipe`")
    advice = "it has to be a StableDiffusionPipeline, which its from_pretrained(...) loads."
    expect_type(pipe, StableDiffusionPipeline, "`pipe`", advice)
    expect(
        pipe.scheduler is scheduler,
        f"The pipeline samples with its own {type(pipe.scheduler).__name__}: hand yours over with "
        "scheduler=scheduler.",
    )
    for name in ("unet", "vae", "text_encoder"):
        expect_placed(getattr(pipe, name), model, f"`pipe.{name}`")
    return f"{model.name} is loaded on {pipe.device.type} and samples with DDIM"


@check("1.1 (b)")
def noise(function: Callable[[int], torch.Tensor], model: Model) -> str:
    """`starting_noise(seed)` draws the latents of one image, repeatably, on the CPU in float32."""
    latents = call(function, 1)
    side = model.image_size // model.scale_factor
    shape = (1, model.config("unet/config.json")["in_channels"], side, side)
    hint = "The sides are model.image_size // model.scale_factor."
    expect_tensor(latents, shape, "The noise of one image", hint)
    expect(
        torch.equal(latents, call(function, 1)),
        "The same seed gave different noise. Draw from a generator of your own, made anew in every "
        'call: generator=torch.Generator("cpu").manual_seed(seed).',
    )
    expect(
        not torch.equal(latents, call(function, 2)),
        "Two seeds gave the same noise: hand `seed` to manual_seed(seed).",
    )
    expect_placed(latents, model, "The noise")
    expected = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(1))
    expect(
        torch.equal(latents.cpu(), expected.to(model.dtype)),
        "The noise is not that of torch.randn with a CPU generator in float32. Other machines "
        "would see another image for the same seed: draw first, move and convert afterwards.",
    )
    return f"noise of shape {shape}: the same for the same seed, on every machine"


@check("1.1 (c)")
def generate(function: Callable[..., Image.Image], prompt: str, model: Model) -> str:
    """`generate` makes one image, the same for the same seed, and uses each of its arguments."""
    quick: dict[str, Any] = {"steps": 2, "seed": 1, "guidance_scale": 5.0}
    quick |= {"prompt": prompt, "negative_prompt": ""}
    expect_function(function)
    missing = quick.keys() - inspect.signature(function).parameters.keys()
    expect(
        not missing,
        f"`generate` lost its argument {', '.join(sorted(missing))}: keep its first line.",
    )
    first = call(function, **quick)
    advice = "a pipeline's result holds a list: return result.images[0]."
    expect_type(first, Image.Image, "The result of `generate`", advice)
    size = (model.image_size, model.image_size)
    expect(first.size == size, f"The image has {first.size} pixels; {model.name} makes {size}.")
    expect(
        np.asarray(first).any(),
        "The image is all black: a safety checker or not-a-number values emptied it.",
    )
    expect(
        same(first, call(function, **quick)),
        "The same seed gave two different images: hand the noise over with "
        "latents=starting_noise(seed).",
    )
    others = {"seed": 2, "steps": 3, "guidance_scale": 9.0, "negative_prompt": prompt, "prompt": ""}
    for argument, value in others.items():
        expect(
            not same(first, call(function, **{**quick, argument: value})),
            f"The image does not change with {argument}: hand `{argument}` on.",
        )
    return (
        "one image; the same seed gives it again; prompt, seed, steps, guidance and negative "
        "prompt all count"
    )


@check("1.1 (d) to (g)")
def series(
    function: Callable[..., Image.Image], images: Sequence[Image.Image], **settings: Any
) -> str:
    """Images that `function` makes as the settings given as lists run through their values.

    The last list changes fastest; other settings are kept. One image is generated again and
    compared.
    """
    lists = {name: value for name, value in settings.items() if isinstance(value, list)}
    combinations = [
        dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())
    ]
    expect_list(images, Image.Image, "The list of images")
    expect(
        len(images) == len(combinations),
        f"There are {len(images)} images for {len(combinations)} settings: one for each, in a flat "
        "list.",
    )
    equal = [i for i in range(1, len(images)) if same(images[i - 1], images[i])]
    expect(
        not equal,
        f"Images {' and '.join(f'{i - 1}, {i}' for i in equal)} are the same: does "
        f"{' or '.join(lists)} reach `generate`?",
    )
    # Of a grid the second image, which also shows whether rows and columns are exchanged.
    probe = int(len(lists) > 1)
    expected = {**settings, **combinations[probe]}
    order = f"their order (all of {' for each of '.join(reversed(lists))})"
    expect(
        same(images[probe], call(function, **expected)),
        f"Image {probe} (counted from 0) is not what `generate` makes of "
        f"{', '.join(f'{k} = {v!r}' for k, v in expected.items())}. Change only "
        f"{' and '.join(lists)}, take the values in {order if probe else 'their order'}, and keep "
        "everything else.",
    )
    return f"{len(images)} images that differ in {' and '.join(lists)} only"
