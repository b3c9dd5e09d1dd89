"""Self-checks behind the exercises: each says in one line that the work is right, or raises CheckFailed with what is
wrong and where to look. They test what the student made, never how it was written."""

import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from course.errors import CourseError
from course.models import Model


class CheckFailed(CourseError, AssertionError):
    """An exercise is not right yet; the message says what to look at."""


def expect(condition: object, advice: str) -> None:
    """Raise CheckFailed with `advice` unless `condition` holds."""
    if not condition:
        raise CheckFailed(advice)


def passed(what: str) -> None:
    print(f"✓ {what}")


def made(value: object, what: str) -> None:
    """An exercise that was not begun leaves `...` or None in place of its result."""
    expect(value is not None and value is not ..., f"{what} is still empty: write the lines of the TODO above.")


# --- Task 0


def token(value: str | None, model: Model) -> None:
    """Task 0: a Hugging Face token, without which only public models can be had. Never prints the token."""
    expect(value is not ..., "`token` is still empty: write the line of the TODO above.")
    if value is None:
        passed(f"no token is stored here; {model.name} is on this disk and needs none")
        return
    expect(isinstance(value, str), f"`token` is a {type(value).__name__}; get_token() returns a text or None.")
    expect(
        value.startswith("hf_"),
        'A Hugging Face token starts with "hf_". Copy it again from https://huggingface.co/settings/tokens',
    )
    passed("a Hugging Face token is stored on this machine")


# --- Task 1.1


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
    own = model.config("scheduler/scheduler_config.json")
    for key in ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type"):
        expect(
            key not in own or scheduler.config[key] == own[key],
            f"The scheduler has {key} = {scheduler.config[key]}, but {model.name} was trained with {own.get(key)}. "
            'Take the model\'s own settings: DDIMScheduler.from_pretrained(model.folder, subfolder="scheduler").',
        )
    made(pipe, "`pipe`")
    expect(
        isinstance(pipe, DiffusionPipeline),
        f"`pipe` is a {type(pipe).__name__}; load it with StableDiffusionPipeline.from_pretrained(...).",
    )
    expect(isinstance(pipe, StableDiffusionPipeline), f"`pipe` is a {type(pipe).__name__}, no StableDiffusionPipeline.")
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
    """Task 1.1 (b): `starting_noise(seed)` draws the latents of one picture, repeatably, on the CPU in float32."""
    latents = function(1)
    made(latents, "What `starting_noise` returns")
    expect(isinstance(latents, torch.Tensor), f"That is a {type(latents).__name__}; torch.randn makes a tensor.")
    side = model.image_size // model.scale_factor
    shape = (1, model.config("unet/config.json")["in_channels"], side, side)
    expect(
        tuple(latents.shape) == shape,
        f"The noise has the shape {tuple(latents.shape)}; one picture of {model.name} starts from {shape}: "
        "(pictures, channels, height, width), with sides of model.image_size // model.scale_factor.",
    )
    expect(
        torch.equal(latents, function(1)),
        "The same seed gave different noise. Draw from a generator of your own, made anew in every call: "
        'generator=torch.Generator("cpu").manual_seed(seed).',
    )
    expect(not torch.equal(latents, function(2)), "Two seeds gave the same noise: hand `seed` to manual_seed(seed).")
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
    """Task 1.1 (c): `generate` makes one picture, the same for the same seed, and follows each of its arguments."""
    quick: dict[str, Any] = {"steps": 2, "seed": 1, "guidance_scale": 5.0, "negative_prompt": ""}
    missing = quick.keys() - inspect.signature(function).parameters.keys()
    expect(not missing, f"`generate` lost its argument {', '.join(sorted(missing))}: keep its first line as it was.")
    first = function(prompt, **quick)
    made(first, "What `generate` returns")
    expect(
        isinstance(first, Image.Image),
        f"`generate` returns a {type(first).__name__}; a pipeline's result holds a list: return result.images[0].",
    )
    size = (model.image_size, model.image_size)
    expect(first.size == size, f"The picture has {first.size} pixels; {model.name} draws {size}.")
    expect(np.asarray(first).any(), "The picture is all black: a safety checker or not-a-number values emptied it.")
    expect(
        same(first, function(prompt, **quick)),
        "The same seed gave two different pictures: hand the noise over with latents=starting_noise(seed).",
    )
    others = {"seed": 2, "steps": 3, "guidance_scale": 9.0, "negative_prompt": prompt}
    for argument, value in others.items():
        expect(
            not same(first, function(prompt, **{**quick, argument: value})),
            f"The picture does not change with {argument}: hand `{argument}` on.",
        )
    expect(
        not same(first, function("", **quick)),
        "The picture does not change with the prompt: hand `prompt` on to the pipeline.",
    )
    passed("one picture; the same seed gives it again; prompt, seed, steps, guidance and negative prompt all count")


def series(function: Callable[..., Image.Image], pictures: Sequence[Image.Image], **settings: Any) -> None:
    """Task 1.1 (d) to (g): pictures that `function` makes when the settings given as lists run through their values
    (the last one fastest) and the others are kept. One picture is made anew and compared."""
    lists = {name: value for name, value in settings.items() if isinstance(value, list)}
    combinations = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    made(pictures, "The list of pictures")
    expect(
        isinstance(pictures, list),
        f"That is a {type(pictures).__name__}; make a list: [generate(...) for value in values].",
    )
    expect(
        len(pictures) == len(combinations),
        f"There are {len(pictures)} pictures for {len(combinations)} settings: one for each, in a flat list.",
    )
    for i, picture in enumerate(pictures):
        expect(isinstance(picture, Image.Image), f"Entry {i} of the list is a {type(picture).__name__}, no picture.")
    alike = [i for i in range(1, len(pictures)) if same(pictures[i - 1], pictures[i])]
    expect(
        not alike,
        f"Pictures {' and '.join(f'{i - 1}, {i}' for i in alike)} are the same: does {' or '.join(lists)} reach "
        "`generate`?",
    )
    probe = int(len(lists) > 1)  # of a grid the second, which also shows whether rows and columns were exchanged
    wanted = {**settings, **combinations[probe]}
    order = "their order" + (f" (all of {' for each of '.join(reversed(lists))})" if probe else "")
    expect(
        same(pictures[probe], function(**wanted)),
        f"Picture {probe} (counted from 0) is not what `generate` makes of "
        f"{', '.join(f'{k} = {v!r}' for k, v in wanted.items())}. Change only {' and '.join(lists)}, take the values "
        f"in {order}, and keep everything else.",
    )
    passed(f"{len(pictures)} pictures that differ in {' and '.join(lists)} only")


def same(a: Image.Image, b: Image.Image) -> bool:
    """Whether two pictures agree in every pixel, up to rounding of the last bits on a GPU."""
    if a.size != b.size:
        return False
    return bool(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean() < 0.05)


# --- make_video


def frame_order(function: Callable[[list[str]], list[str]]) -> None:
    """Task 1.2 video (a): `in_order(names)` sorts names of frames by their number."""
    for wanted in (
        ["8.png", "9.png", "10.png", "11.png", "100.png"],
        ["007.png", "8.png", "0010.png", "11.png"],
        ["frame_2.jpg", "frame_10.jpg"],
        ["009_t0641.png", "010_t0601.png"],
    ):
        given = wanted[1::2] + wanted[::2]
        found = function(list(given))
        made(found, "`in_order`")
        expect(
            found is not None and sorted(found) == sorted(wanted),
            f"`in_order` makes {found} of {given}: return the same names, each once, in another order.",
        )
        expect(
            list(found) == wanted,
            f"`in_order` sorts {given} into {list(found)}; by their numbers they are {wanted}. "
            "A number is more than its text: int(...) of the first digits.",
        )
    passed("names in numeric order, whatever the padding")


def frame_pairs(function: Callable[[list[str], list[str]], list[tuple[str, str]]]) -> None:
    """Task 1.2 video (b): `pairs(left, right)` matches names by their number, and refuses what has no partner."""
    left, right = ["10.png", "8.png", "9.png"], ["0009.jpg", "0010.jpg", "0008.jpg"]
    wanted = [("8.png", "0008.jpg"), ("9.png", "0009.jpg"), ("10.png", "0010.jpg")]
    found = function(list(left), list(right))
    made(found, "`pairs`")
    expect(
        [tuple(pair) for pair in found] == wanted,
        f"`pairs` makes {list(found)} of {left} and {right}, and not {wanted}. Put both sides in order first.",
    )
    # Uneven, and as long but of other steps: zip(...) would make wrong pairs of both, without a word.
    for left, right in ((["1.png", "2.png", "3.png"], ["1.png", "3.png"]), (["1.png", "2.png"], ["2.png", "3.png"])):
        for sides in ((left, right), (right, left)):
            try:
                found = function(*(list(side) for side in sides))
            except ValueError:
                continue
            expect(
                False,
                f"`pairs` makes {found} of {sides[0]} and {sides[1]}, where some frames have no partner: "
                "compare the steps of both sides, and raise a ValueError.",
            )
    passed("frames of the same step side by side; without a partner, an error")


def hold(function: Callable[[list[Any], float, float], list[Any]]) -> None:
    """Task 1.2 video (c): `held(frames, fps, hold)` keeps the last frame for `hold` seconds more."""
    frames = ["a", "b", "c"]
    for fps, seconds, copies in ((8, 2.0, 16), (4, 0.5, 2), (10, 0.0, 0), (12, 0.25, 3)):
        found = function(list(frames), fps, seconds)
        made(found, "`held`")
        expect(isinstance(found, list), f"`held` returns a {type(found).__name__}; return a list of frames.")
        expect(
            found[: len(frames)] == frames,
            f"`held` begins with {found[: len(frames)]}: all frames come first, as they were.",
        )
        extra = found[len(frames) :]
        expect(set(extra) <= {"c"}, f"`held` adds {extra}: only the last frame, 'c', stays.")
        expect(
            len(extra) == copies,
            f"`held` adds {len(extra)} copies for {seconds:g} seconds at {fps} frames a second; that takes {copies}.",
        )
    passed("the last frame stays as long as it should")
