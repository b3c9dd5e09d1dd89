"""Checks of lesson 1.1."""

import inspect
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from course.checks.common import CheckFailed, Function, call, check, diagnose, expect, same
from course.models import Model

Generate = Function  # `generate` of the lesson


@check("1.1 (a)")
def pipeline(pipe: Any, scheduler: Any, model: Model) -> str:
    """A StableDiffusionPipeline of `model` on its device that samples with DDIM."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    expect.value(scheduler, "`scheduler`")
    advice = "load it with DDIMScheduler.from_pretrained(...)."
    expect.is_a(scheduler, DDIMScheduler, "`scheduler`", advice)
    expect.model_settings(scheduler, model)
    expect.value(pipe, "`pipe`")
    advice = "it has to be a StableDiffusionPipeline, which its from_pretrained(...) loads."
    expect.is_a(pipe, StableDiffusionPipeline, "`pipe`", advice)
    expect(
        pipe.scheduler is scheduler,
        f"The pipeline samples with its own {type(pipe.scheduler).__name__}: hand yours over with "
        "scheduler=scheduler.",
    )
    for name in ("unet", "vae", "text_encoder"):
        expect.placed(getattr(pipe, name), model, f"`pipe.{name}`")
    return f"{model.name} is loaded on {pipe.device.type} and samples with DDIM"


@check("1.1 (b)")
def noise(function: Function, model: Model) -> str:
    """`starting_noise(seed)` draws the latents of one image, repeatably, on the CPU in float32."""
    latents = call(function, 1)
    side = model.image_size // model.scale_factor
    shape = (1, model.config("unet/config.json")["in_channels"], side, side)
    hint = "The sides are model.image_size // model.scale_factor."
    expect.tensor(latents, shape, "The noise of one image", hint)
    again, state = call(function, 1), torch.get_rng_state()
    other = call(function, 2)
    expect(
        torch.equal(torch.get_rng_state(), state),
        "PyTorch's global generator was used: other code that uses it would change the image. "
        'Generate from one of your own: generator=torch.Generator("cpu").manual_seed(seed).',
    )
    expect(
        torch.equal(latents, again),
        "The same seed gave different noise. Use a generator of your own, created anew in every "
        'call: generator=torch.Generator("cpu").manual_seed(seed).',
    )
    expect(not torch.equal(latents, other), "Two seeds gave the same noise: manual_seed(seed).")
    expect.placed(latents, model, "The noise")
    expected = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(1))
    expect(
        torch.equal(latents.cpu(), expected.to(model.dtype)),
        "The noise is not that of torch.randn with a CPU generator in float32. Other machines "
        "would get another image for the same seed: generate first, move and convert afterwards.",
    )
    return f"noise of shape {shape}: the same for the same seed, on every machine"


@check("1.1 (c)")
def generate(function: Function, prompt: str, model: Model) -> str:
    """`generate` makes one image, the same for the same seed, and uses each of its arguments."""
    quick: dict[str, Any] = {"steps": 2, "seed": 1, "guidance_scale": 5.0}
    quick |= {"prompt": prompt, "negative_prompt": ""}
    expect.function(function)
    missing = quick.keys() - inspect.signature(function).parameters.keys()
    expect(
        not missing,
        f"`generate` lost its argument {', '.join(sorted(missing))}: keep its first line.",
    )
    first = call(function, **quick)
    advice = "a pipeline's result holds a list: return result.images[0]."
    expect.is_a(first, Image.Image, "The result of `generate`", advice)
    size = (model.image_size, model.image_size)
    expect(first.size == size, f"The image has {first.size} pixels; {model.name} makes {size}.")
    expect(np.asarray(first).any(), "The image is all black: a safety checker or NaN emptied it.")
    expect(
        same(first, call(function, **quick)),
        "The same seed gave two different images: latents=starting_noise(seed).",
    )
    others = {"seed": 2, "steps": 3, "guidance_scale": 9.0, "negative_prompt": prompt, "prompt": ""}
    for argument, value in others.items():
        expect(
            not same(first, call(function, **{**quick, argument: value})),
            f"The image does not change with {argument}.",
        )
    return (
        "one image; the same seed gives it again; prompt, seed, steps, guidance and negative "
        "prompt all count"
    )


@check("1.1 (d)")
def guidance_series(function: Generate, images: Any, prompt: str, scales: list[float]) -> str:
    """One image for each guidance scale."""
    _expect_series(function, images, prompt=prompt, guidance_scale=scales)
    return f"{len(images)} images that differ only in the guidance scale"


@check("1.1 (e)")
def steps_series(function: Generate, images: Any, prompt: str, counts: list[int]) -> str:
    """One image for each number of steps."""
    _expect_series(function, images, prompt=prompt, steps=counts)
    return f"{len(images)} images that differ only in the number of steps"


@check("1.1 (f)")
def crossed_series(function: Generate, images: Any, prompts: list[str], seeds: list[int]) -> str:
    """For each prompt one image for each seed, in a flat list."""
    _expect_series(function, images, prompt=prompts, seed=seeds)
    return f"{len(images)} images: for each prompt one for each seed"


@check("1.1 (g)")
def negative_series(
    function: Generate, images: Any, prompt: str, seeds: list[int], negative_prompt: str
) -> str:
    """For each seed one image of a prompt with a negative prompt."""
    images_without = images[:1] if isinstance(images, list) else []
    plain = call(function, prompt, seed=seeds[0])
    expect(
        not any(isinstance(x, Image.Image) and same(x, plain) for x in images_without),
        "Image 0 is the one without a negative prompt: pass it on as negative_prompt=....",
    )
    _expect_series(function, images, prompt=prompt, seed=seeds, negative_prompt=negative_prompt)
    return (
        f"{len(images)} images, one for each seed, each with the negative prompt "
        f"{negative_prompt!r}"
    )


def _expect_series(function: Generate, images: Any, **settings: Any) -> None:
    """Raise CheckFailed unless `images` are those of `function` for all of the settings.

    The settings given as lists run through their values, the last list fastest. The second and the
    last image are generated again and compared, or the first if there is only one.
    """
    lists = {name: value for name, value in settings.items() if isinstance(value, list)}
    values = list(itertools.product(*lists.values()))
    combinations = [settings | dict(zip(lists, row, strict=True)) for row in values]
    expect.list_of(images, Image.Image, "The list of images")
    expect(
        len(images) == len(combinations),
        f"There are {len(images)} images for {len(combinations)} settings: a flat list.",
    )
    equal = [i for i in range(1, len(images)) if same(images[i - 1], images[i])]
    expect(
        not equal,
        f"Images {' and '.join(f'{i - 1}, {i}' for i in equal)} are the same: does "
        f"{' or '.join(lists)} reach `generate`?",
    )
    # The second image of a grid also shows whether rows and columns are exchanged.
    for probe in sorted({min(1, len(images) - 1), len(images) - 1}):
        right = call(function, **combinations[probe])
        if not same(images[probe], right):
            _explain_series(images, right, probe, combinations[probe], list(lists))


def _explain_series(
    images: Sequence[Image.Image],
    right: Image.Image,
    probe: int,
    expected: dict[str, Any],
    lists: list[str],
) -> None:
    """Raise CheckFailed for image `probe`, which is not `right`, the one of the settings."""
    shown = ", ".join(f"{name} = {value!r}" for name, value in expected.items())
    elsewhere = [i for i, image in enumerate(images) if same(image, right)]
    order = f"all of {' for each of '.join(reversed(lists))}"
    expect(
        not elsewhere,
        f"The image of {shown} is image {elsewhere[:1]} of the list, counted from 0; it belongs at "
        f"{probe}: keep the order of the values ({order}).",
    )
    raise CheckFailed(
        f"Image {probe} (counted from 0) is not what `generate` returns for {shown}. Change only "
        f"{' and '.join(lists)}, and keep everything else as it is."
    )


@check("1.1 (h)")
def interpolation(function: Function) -> str:
    """Spherical interpolation between two noise tensors."""
    a, other = torch.randn(2, 1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    b = 0.6 * a + 0.8 * other  # far from perpendicular, so that every mistake shows
    result = call(function, a, b, 0.25)
    expect.tensor(result, a.shape, "The result", "Both noise tensors have that shape.")
    right = _slerp(a, b, 0.25)
    cosine = (a * b).sum() / (a.norm() * b.norm())
    angle = cosine.acos()
    lerp = torch.lerp(a, b, 0.25)
    mistakes = {
        "That is the straight line between both. Half way its variance is only half as large: use "
        "the two sines.": lerp,
        "The two weights are exchanged: at 0 the result is `a`.": _slerp(a, b, 0.75),
        "Divide by the sine of the whole angle.": right * angle.sin(),
        "The angle is missing its arccosine: use .acos().": _weights(a, b, 0.25, cosine),
        "The cosine of the angle is the dot product divided by both norms.": _weights(
            a, b, 0.25, (a * b).sum().clamp(-1, 1).acos()
        ),
        "Those weights are cosines; the formula has sines.": (
            (0.75 * angle).cos() * a + (0.25 * angle).cos() * b
        )
        / angle.sin(),
    }
    otherwise = "That is not the formula: two sines, each divided by the sine of the angle."
    diagnose(result, right, mistakes, otherwise)
    for amount, end, name in ((0.0, a, "a"), (1.0, b, "b")):
        message = f"At {amount:g} the result has to be `{name}`."
        diagnose(call(function, a, b, amount), end, {}, message)
    halfway = call(function, a, other, 0.5).std()
    return f"both ends are right, and halfway the standard deviation is {halfway:.2f}"


def _weights(a: Tensor, b: Tensor, amount: float, angle: Tensor) -> Tensor:
    weights = ((1 - amount) * angle).sin() / angle.sin(), (amount * angle).sin() / angle.sin()
    return weights[0] * a + weights[1] * b


def _slerp(a: Tensor, b: Tensor, amount: float) -> Tensor:
    """Return the spherical interpolation of two tensors (Shoemake 1985)."""
    cosine = (a * b).sum() / (a.norm() * b.norm())
    return _weights(a, b, amount, cosine.acos())


TASK = {"object": "car", "color": "red", "ground": "grass"}  # what the judge has to recognize
MIN_SHARE, MAX_STEPS = 0.9, 8


@check("1.1 challenge 1")
def budget(function: Generate, settings: Any, prompt: str, seeds: list[int], model: Model) -> str:
    """Settings with few steps at which the judge still recognizes what the prompt asks for."""
    expect.value(settings, "`settings`")
    expect.is_a(settings, dict, "`settings`", "it has to be a dictionary of arguments.")
    allowed = {"steps", "guidance_scale", "negative_prompt"}
    expect(
        settings.keys() <= allowed and "steps" in settings,
        f"`settings` has the keys {sorted(settings)}; give `steps`, and if you like "
        "`guidance_scale` and `negative_prompt`.",
    )
    images = [call(function, prompt, seed=seed, **settings) for seed in seeds]
    if not model.is_embedded:
        return f"{settings['steps']} steps; the judge knows pocket's world only: look yourself"
    from course.metrics.judge import Judge

    attributes = Judge()(images)
    right = [seen[name] == value for seen in attributes for name, value in TASK.items()]
    share = sum(right) / len(right)
    score = (
        f"the judge recognizes {sum(right)} of {len(right)} attributes at {settings['steps']} steps"
    )
    expect(
        share >= MIN_SHARE, f"Now {score}; {MIN_SHARE:.0%} are needed. Try more steps or guidance."
    )
    expect(
        settings["steps"] <= MAX_STEPS,
        f"All is well, but {settings['steps']} steps are more than {MAX_STEPS}.",
    )
    return score
