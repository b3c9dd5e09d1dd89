"""Self-checks behind the exercises: each says in one line that the work is right, or raises CheckFailed with what is
wrong and where to look. They test what the student made, never how it was written."""

import inspect
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
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
    _as_trained(scheduler, model)
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


# --- Task 1.2


def modules(sd: Any, model: Model) -> None:
    """Task 1.2 (a): the five inner modules, of `model`, ready to work on its device."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    kinds = {
        "tokenizer": CLIPTokenizer,
        "text_encoder": CLIPTextModel,
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "scheduler": DDIMScheduler,
    }
    for name, kind in kinds.items():
        part = getattr(sd, name, ...)
        made(part, f"`{name}`")
        expect(not isinstance(part, type), f"`{name}` is the class itself; its from_pretrained(...) makes the object.")
        expect(isinstance(part, kind), f"`{name}` is a {type(part).__name__}; it has to be a {kind.__name__}.")
    _as_trained(sd.scheduler, model)
    for name in ("text_encoder", "unet", "vae"):
        part = getattr(sd, name)
        expect(part.dtype == model.dtype, f"`{name}` has the type {part.dtype}: hand over dtype=model.dtype.")
        expect(part.device.type == model.device.type, f"`{name}` is on {part.device.type}: add .to(model.device).")
    passed(f"the five modules of {model.name} are loaded, each by itself")


def _as_trained(scheduler: Any, model: Model) -> None:
    own = model.config("scheduler/scheduler_config.json")
    for key in ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type"):
        expect(
            key not in own or scheduler.config[key] == own[key],
            f"The scheduler has {key} = {scheduler.config[key]}, but {model.name} was trained with {own.get(key)}. "
            'Take the model\'s own settings: DDIMScheduler.from_pretrained(model.folder, subfolder="scheduler").',
        )


def text_embeddings(sd: Any, model: Model) -> None:
    """Task 1.2 (b): `get_text_embeddings` returns the negative prompts' vectors, then those of the prompts."""
    prompts, negatives = ["a duck", "a red car on grass"], ["", "a tree"]
    found = sd.get_text_embeddings(prompts, negatives)
    made(found, "What `get_text_embeddings` returns")
    expect(
        isinstance(found, torch.Tensor),
        f"That is a {type(found).__name__}; the vectors are the first entry of what the text encoder returns: [0].",
    )
    width = model.config("text_encoder/config.json")["hidden_size"]
    shape = (4, model.text_length, width)
    expect(found.dim() != 2, "Those are one vector a text. The denoiser wants one a token: the first entry, [0].")
    expect(
        found.dim() == 3 and found.shape[1] == shape[1],
        f"The shape is {tuple(found.shape)}, not {shape}: every text is filled up to {shape[1]} tokens by "
        'padding="max_length", max_length=self.model.text_length.',
    )
    expect(
        tuple(found.shape) == shape,
        f"The shape is {tuple(found.shape)}; two prompts and two negative prompts make {shape}: all four in one batch.",
    )
    ids = sd.tokenizer(
        [*negatives, *prompts], padding="max_length", max_length=shape[1], truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        wanted = sd.text_encoder(ids.to(model.device))[0]
    expect(
        not _close(found, torch.cat([wanted[2:], wanted[:2]])),
        "The prompts come first. The negative prompts have to: negative_prompts + prompts.",
    )
    expect(_close(found, wanted), "The vectors are not those of the text encoder for these texts in this order.")
    try:
        long = sd.get_text_embeddings(["a red car " * shape[1]], [""])
    except Exception as error:  # the text encoder fails in its own ways where positions run out
        raise CheckFailed(
            "A prompt that is too long ends in an error: let the tokenizer cut it, truncation=True."
        ) from error
    expect(long.shape[1] == shape[1], "A prompt that is too long gave too many vectors: truncation=True cuts it.")
    passed(f"a vector of {width} numbers for each of {shape[1]} tokens; negative prompts first")


def guidance(function: Callable[..., torch.Tensor]) -> None:
    """Task 1.2 (c): classifier-free guidance, uncond + w (cond - uncond)."""
    uncond, cond = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found = function(uncond, cond, 3.0)
    made(found, "What `guide` returns")
    difference = cond - uncond
    for wrong, advice in (
        (cond + 3 * difference, "The guidance was added to the wrong term: start from `uncond`, not from `cond`."),
        (uncond - 3 * difference, "That leads away from the prompt: the difference is `cond` minus `uncond`."),
        (uncond + 3 * cond, "Scale the difference of the two, cond - uncond, not `cond` itself."),
        (3 * difference, "Only the scaled difference is left: add it to `uncond`."),
        (cond, "`guidance_scale` makes no difference: the formula multiplies by it."),
    ):
        expect(not _close(found, wrong), advice)
    expect(_close(found, uncond + 3 * difference), "At w = 3 that is not uncond + 3 (cond - uncond).")
    passed("w = 0 ignores the prompt, w = 1 is the plain answer to it, and a larger w exaggerates")


def prediction(function: Callable[..., Any]) -> None:
    """Task 1.2 (d): x_0 and the noise from what the denoiser says, for both kinds of prediction."""
    x_0, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    a = torch.tensor(0.3)
    x_t = a.sqrt() * x_0 + (1 - a).sqrt() * noise
    v = a.sqrt() * noise - (1 - a).sqrt() * x_0
    for kind, output in (("epsilon", noise), ("v_prediction", v)):
        found = function(x_t, output, a, kind)
        made(found, "What `predict` returns")
        expect(
            isinstance(found, tuple) and len(found) == 2 and all(isinstance(part, torch.Tensor) for part in found),
            "`predict` returns two tensors: return x_0, noise.",
        )
        expect(not _close(found[0], noise), "x_0 and the noise are exchanged: return x_0, noise.")
        known = (
            ((x_t - (1 - a) * output) / a, "The square roots are missing: the formula has sqrt(alpha_bar)."),
            (x_t - (1 - a).sqrt() * output, "Divide by sqrt(alpha_bar): the picture was scaled down by it."),
            ((x_t - (1 - a).sqrt() * output) / a, "Divide by the square root of alpha_bar, not by alpha_bar."),
        )
        for wrong, advice in known if kind == "epsilon" else ():
            expect(not _close(found[0], wrong), advice)
        if kind == "v_prediction":
            as_noise = (x_t - (1 - a).sqrt() * output) / a.sqrt()
            expect(not _close(found[0], as_noise), "v was taken for the noise: look at prediction_type.")
            expect(
                not _close(found[0], a.sqrt() * x_t + (1 - a).sqrt() * v),
                "For v the signs are off: x_0 = sqrt(alpha_bar) x_t minus sqrt(1 - alpha_bar) v.",
            )
        expect(_close(found[0], x_0), f"For {kind} x_0 is not right: solve the formulas above for it once more.")
        expect(_close(found[1], noise), f"For {kind} x_0 is right, but the noise is not.")
    try:
        function(x_t, noise, a, "sample")
    except ValueError:
        passed("x_0 and noise come out of epsilon and of v")
        return
    raise CheckFailed('A third kind of prediction has to end in a ValueError: keep the last line, "raise ValueError".')


def ddim(function: Callable[..., torch.Tensor]) -> None:
    """Task 1.2 (e): one step of DDIM, with and without fresh noise."""
    x_0, noise, fresh = torch.randn(3, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    a, b = torch.tensor(0.3), torch.tensor(0.6)  # alpha_bar of t, and of the step before
    still = function(x_0, noise, a, b, 0.0, fresh)
    made(still, "What `ddim_step` returns")
    right = b.sqrt() * x_0 + (1 - b).sqrt() * noise
    for wrong, advice in (
        (a.sqrt() * x_0 + (1 - a).sqrt() * noise, "That leads back to x_t: the new picture mixes with alpha_bar_prev."),
        (b.sqrt() * x_0 + (1 - a).sqrt() * noise, "The share of noise is sqrt(1 - alpha_bar_prev), not that of t."),
        (a.sqrt() * x_0 + (1 - b).sqrt() * noise, "The share of x_0 is sqrt(alpha_bar_prev), not that of t."),
        (b * x_0 + (1 - b) * noise, "The square roots are missing: sqrt(alpha_bar_prev), sqrt(1 - alpha_bar_prev)."),
        (b.sqrt() * x_0, "The noise term is missing: only the last step leaves none."),
    ):
        expect(not _close(still, wrong), advice)
    expect(
        _close(still, right) or not _close(still - right, fresh * ((still - right) / fresh).mean()),
        "With eta = 0 there is fresh noise in the result: sigma is eta times the root.",
    )
    expect(_close(still, right), "With eta = 0 that is not sqrt(alpha_bar_prev) x_0 + sqrt(1 - alpha_bar_prev) noise.")

    for eta in (1.0, 0.5):
        found = function(x_0, noise, a, b, eta, fresh)
        expect(not _close(found, right), "`eta` makes no difference: add sigma times the fresh noise.")
        sigma = eta * ((1 - b) / (1 - a) * (1 - a / b)).sqrt()
        direction = (1 - b - sigma**2).sqrt()
        mixed = b.sqrt() * x_0
        swapped = (1 - a) / (1 - b) * (1 - a / b)
        for wrong, advice in (
            (
                mixed + (1 - b).sqrt() * noise + sigma * fresh,
                "Make room for the fresh noise: 1 - alpha_bar_prev - sigma**2.",
            ),
            (mixed + (1 - b - sigma).clamp_min(0).sqrt() * noise + sigma * fresh, "Below the root sigma is squared."),
            (mixed + direction * noise, "sigma is right, but the fresh noise was not added: + sigma * fresh."),
            (
                mixed + direction * noise + sigma**2 * fresh,
                "The fresh noise is multiplied by sigma, not by its square.",
            ),
        ):
            expect(not _close(found, wrong), advice)
        for other in (sigma**2 / eta, eta * swapped.sqrt(), sigma / eta):
            room = (1 - b - other**2).clamp_min(0).sqrt()
            expect(
                other == sigma or not _close(found, mixed + room * noise + other * fresh),
                "sigma is not that of the formula: eta * sqrt((1 - alpha_bar_prev) / (1 - alpha_bar)) * "
                "sqrt(1 - alpha_bar / alpha_bar_prev).",
            )
        expect(
            _close(found, mixed + direction * noise + sigma * fresh),
            f"With eta = {eta:g} the step is not right: look at sigma, and at the root that holds its square.",
        )
    passed("a DDIM step: without fresh noise at eta = 0, with the right amount of it beyond")


def loop(sd: Any, model: Model) -> None:
    """Task 1.2 (f): three steps of `sd.denoise` beside the same three by diffusers' scheduler."""
    shape = (1, sd.unet.config.in_channels, *model.latent_size())
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(model.device)
    embeddings = sd.get_text_embeddings(["a duck"], [""])
    count, w = 3, 4.0

    def attempt(eta: float) -> list[Any]:
        return list(sd.denoise(latents, embeddings, count, w, eta, [torch.Generator().manual_seed(2)]))

    def reference(eta: float, embeddings: torch.Tensor = embeddings, w: float = w) -> torch.Tensor:
        return _reference(sd, latents, embeddings, count, w, eta, torch.Generator().manual_seed(2))

    steps = attempt(0.0)
    made(steps[0].x_prev if steps else None, "`x_prev`, the result of a step,")
    expect(len(steps) == count, f"The loop made {len(steps)} steps of {count}: one for each timestep.")
    found = steps[-1].x_prev
    tolerance = 1e-3 if model.dtype == torch.float32 else 3e-2
    expect(
        all(_close(later.x_t, earlier.x_prev, tolerance) for earlier, later in itertools.pairwise(steps)),
        "A step does not go on from the result of the one before.",
    )
    for wrong, advice in (
        (reference(0.0, embeddings.flip(0)), "The two halves are exchanged: the first belongs to the negative prompt."),
        (reference(0.0, w=1.0), "The answer is unguided: hand both halves to `guide`, and use its result."),
        (reference(0.0, w=0.0), "Only the negative prompt was heard: hand both halves to `guide`, and use its result."),
    ):
        expect(not _close(found, wrong, tolerance), advice)
    expect(
        _close(found, reference(0.0), tolerance),
        "After three steps the latents are not those of diffusers' DDIM: is each step given alpha_bar of t, then that "
        "of the step before, and the prediction type of the model?",
    )
    lively = attempt(1.0)[-1].x_prev
    expect(not _close(lively, found, tolerance), "`eta` makes no difference: hand it to `ddim_step`.")
    expect(
        _close(lively, reference(1.0), tolerance),
        "With eta = 1 the latents are not diffusers': fresh noise comes from `noise_like`, drawn anew in every step.",
    )
    passed(f"{count} steps end where diffusers' own DDIM ends, for eta = 0 and eta = 1")


@torch.no_grad()
def _reference(
    sd: Any,
    latents: torch.Tensor,
    embeddings: torch.Tensor,
    count: int,
    w: float,
    eta: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """The latents of one picture after `count` steps of diffusers' DDIMScheduler."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_config(sd.scheduler.config, clip_sample=False, thresholding=False)
    scheduler.set_timesteps(count)
    for t in scheduler.timesteps:
        both = torch.cat([latents] * 2).to(sd.unet.dtype)
        uncond, cond = sd.unet(both, t, encoder_hidden_states=embeddings).sample.float().chunk(2)
        guided = uncond + w * (cond - uncond)
        fresh = torch.randn(latents.shape, generator=generator).to(latents.device) if eta else None
        latents = scheduler.step(guided, t, latents, eta=eta, variance_noise=fresh).prev_sample
    return latents


def decoding(sd: Any, model: Model) -> None:
    """Task 1.2 (g): latents become pictures, the scaling factor undone."""
    factor = sd.vae.config.scaling_factor
    shape = (1, sd.vae.config.latent_channels, 8, 8)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(model.device)
    found = sd.decode_latents(latents)
    made(found, "What `decode_latents` returns")
    expect(isinstance(found, torch.Tensor), f"That is a {type(found).__name__}; the pictures are its .sample.")
    side = 8 * model.scale_factor
    expect(tuple(found.shape) == (1, 3, side, side), f"The shape is {tuple(found.shape)}, not {(1, 3, side, side)}.")
    tolerance = 1e-3 if model.dtype == torch.float32 else 3e-2

    def decoded(scale: float) -> torch.Tensor:
        with torch.no_grad():
            return sd.vae.decode((latents * scale).to(sd.vae.dtype)).sample.float()

    if factor != 1:
        expect(
            not _close(found, decoded(1), tolerance),
            "The scaling factor was forgotten: the decoder wants latents / scaling_factor.",
        )
        expect(not _close(found, decoded(factor), tolerance), "Divide by the scaling factor; do not multiply.")
    right = decoded(1 / factor)
    expect(
        not _close(found, (right + 1) / 2, tolerance), "Leave the pictures in [-1, 1]: `pictures` converts them later."
    )
    expect(_close(found, right, tolerance), "Those are not the pictures that the decoder makes of these latents.")
    expect(not found.requires_grad, "The pictures drag a graph of gradients along: keep @torch.no_grad().")
    passed(f"latents divided by {factor:g}, the model's own scaling factor, and decoded")


def clip(frames: Sequence[Image.Image], left: str | Path, right: str | Path) -> None:
    """Task 1.2 (h): the pictures of two folders side by side, one frame for each step."""
    from course import video

    made(frames, "`clip`")
    expect(
        isinstance(frames, list) and frames, f"`clip` is a {type(frames).__name__}; it has to be a list of pictures."
    )
    for i, frame in enumerate(frames):
        expect(isinstance(frame, Image.Image), f"Entry {i} of `clip` is a {type(frame).__name__}, no picture.")
    a, b = video.read_frames(left), video.read_frames(right)
    expect(len(frames) == len(a), f"`clip` has {len(frames)} frames and the folder {len(a)}: one for each step.")
    single = a[0].picture.width / a[0].picture.height
    expect(
        frames[0].width / frames[0].height > 1.15 * single,  # two, less what headings and captions take
        "A frame is not wide enough for two pictures: put x_t and x_0 side by side.",
    )
    exchanged, turned = video.side_by_side(b[-2:], a[-2:]), video.side_by_side(a[::-1][:2], b[::-1][:2])
    expect(not same(_below(frames[-2]), _below(exchanged[0])), "The sides are exchanged: x_t belongs at the left.")
    expect(not same(_below(frames[0]), _below(turned[1])), "The frames run backwards: noise comes first.")
    passed(f"{len(frames)} frames, x_t at the left and what will become of it at the right")


def _below(frame: Image.Image) -> Image.Image:
    """The middle of a frame, without headings and captions, small."""
    width, height = frame.size
    return frame.crop((0, height // 4, width, 3 * height // 4)).resize((64, 16))


def attention(function: Callable[..., Any]) -> None:
    """Task 1.2 (i): scaled dot-product attention, and the weights it used."""
    query = torch.randn(2, 3, 5, 16, generator=torch.Generator().manual_seed(0))
    key, value = torch.randn(2, 2, 3, 7, 16, generator=torch.Generator().manual_seed(1))
    found = function(query, key, value)
    made(found, "What `attention` returns")
    expect(
        isinstance(found, tuple) and len(found) == 2,
        "`attention` returns two tensors: return weights @ value, weights.",
    )
    out, weights = found
    expect(
        tuple(weights.shape) == (2, 3, 5, 7),
        f"The weights have the shape {tuple(weights.shape)}; 5 pixels that look at 7 tokens make (..., 5, 7).",
    )
    scores = query @ key.transpose(-1, -2)
    for wrong, advice in (
        (scores.softmax(-1), "The scores are not scaled: divide them by the square root of the width of a vector."),
        ((scores / 16).softmax(-1), "Divide the scores by the square root of the width, not by the width."),
        (
            (scores / 4).softmax(-2),
            "The softmax runs over the pixels; every pixel shares its attention among tokens: dim=-1.",
        ),
        (scores / 4, "Those are scores; a softmax over the tokens makes weights of them."),
    ):
        expect(not _close(weights, wrong), advice)
    right = (scores / 4).softmax(-1)
    expect(_close(weights, right), "The weights are not softmax(query key^T / sqrt(d)).")
    expect(_close(out, right @ value), "The weights are right; the result is their product with the values.")
    passed("every pixel shares its attention among all tokens, 100 % in all")


def strengths(values: Sequence[float], steps: Sequence[Any]) -> None:
    """Task 1.2 (j): how long the push of guidance is, beside the unguided prediction, at every step."""
    made(values, "`strengths`")
    expect(isinstance(values, list), f"`strengths` is a {type(values).__name__}; it has to be a list of numbers.")
    expect(len(values) == len(steps), f"`strengths` has {len(values)} numbers for {len(steps)} steps.")
    found = torch.tensor([float(value) for value in values])
    pushes = torch.stack([(step.cond - step.uncond).norm() for step in steps]).cpu()
    plain = torch.stack([step.uncond.norm() for step in steps]).cpu()
    expect(not _close(found, pushes), "Divide by the norm of `uncond`: only the ratio tells how hard guidance pushes.")
    expect(not _close(found, (pushes / plain) ** 2), "Those are squares: the norm is the root of the sum of squares.")
    expect(
        _close(found, pushes / plain), "Those are not the norms of cond - uncond, each divided by the norm of uncond."
    )
    passed(f"the push is between {found.min():.0%} and {found.max():.0%} of the unguided prediction")


def _close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-4) -> bool:
    """Whether two tensors agree in shape and, relative to their size, in value."""
    if not isinstance(a, torch.Tensor) or a.shape != b.shape:
        return False
    return bool((a.float() - b.float()).norm() <= tolerance * b.float().norm().clamp_min(1e-6))


def same(a: Image.Image, b: Image.Image) -> bool:
    """Whether two pictures agree in every pixel, up to rounding of the last bits on a GPU."""
    if a.size != b.size:
        return False
    return bool(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean() < 0.05)


# --- Task 2


def denoised_windows(function: Callable[..., torch.Tensor]) -> None:
    """Task 2.1 (1): `denoise_windows` makes a step of DDIM of each window."""
    windows, noise = torch.randn((2, 3, 4, 5, 5), generator=torch.Generator().manual_seed(0))
    a, b = torch.tensor(0.4), torch.tensor(0.7)
    found = function(windows, noise, a, b)
    made(found, "What `denoise_windows` returns")
    expect(isinstance(found, torch.Tensor), f"That is a {type(found).__name__}; the denoised windows are a tensor.")
    expect(
        found.shape == windows.shape,
        f"The shape is {tuple(found.shape)}; denoised windows have the shape of the windows, {tuple(windows.shape)}.",
    )
    x_0 = (windows - (1 - a).sqrt() * noise) / a.sqrt()
    for wrong, advice in (
        (windows, "The windows come back as they were: return the denoised latents."),
        (x_0, "That is x_0, the finished picture. Mix it with noise again, at the level of `alpha_bar_prev`."),
        (
            a.sqrt() * x_0 + (1 - a).sqrt() * noise,
            "Mixed at the level of t, the windows stay where they are: mix with `alpha_bar_prev`.",
        ),
        (b * x_0 + (1 - b) * noise, "Formula (3) has roots: alpha_bar_prev.sqrt() and (1 - alpha_bar_prev).sqrt()."),
        (
            b.sqrt() * windows + (1 - b).sqrt() * noise,
            "The noise is mixed with the windows as they are: it has to be mixed with x_0, from `foresee`.",
        ),
        ((1 - b).sqrt() * x_0 + b.sqrt() * noise, "The two roots are exchanged: the picture has alpha_bar_prev."),
        (b.sqrt() * x_0, "The noise is missing: + (1 - alpha_bar_prev).sqrt() * noise."),
    ):
        expect(not _close(found, wrong), advice)
    right = b.sqrt() * x_0 + (1 - b).sqrt() * noise
    expect(_close(found, right), "The windows are not those of formula (3): look at its two roots.")
    passed("each window is one level further")


def _some_views(window_views: Callable[..., Any]) -> tuple[list[Any], torch.Tensor, tuple[int, int]]:
    """Views that overlap unevenly and go across the wrap, with weights (N, 1, 4, 4) that differ."""
    size = (6, 11)
    views = window_views(*size, 4, 3, True)
    weights = 0.1 + torch.rand((len(views), 1, 4, 4), generator=torch.Generator().manual_seed(1))
    return views, weights, size


def _brute_force(values: torch.Tensor, views: Sequence[Any], size: tuple[int, int], last: bool = False) -> torch.Tensor:
    """Each number of windows (N, C, w, w) put where it belongs, one by one: (1, C, h, w). `last`: the last one wins."""
    found = torch.zeros((1, values.shape[1], *size), dtype=torch.float64)
    for value, (rows, columns) in zip(values.double(), views, strict=True):
        for y, row in enumerate(rows.flatten().tolist()):
            for x, column in enumerate(columns.flatten().tolist()):
                before = 0 if last else found[0, :, row, column]
                found[0, :, row, column] = before + value[:, y, x]
    return found


def overlapping(function: Callable[..., torch.Tensor], window_views: Callable[..., Any]) -> None:
    """Task 2.1 (2): `overlaps` adds up the weights of all windows."""
    views, weights, size = _some_views(window_views)
    found = function(views, weights, *size)
    made(found, "What `overlaps` returns")
    if isinstance(found, torch.Tensor) and not found.any():
        made(None, "What `overlaps` adds up")
    expect(tuple(found.shape) == (1, 1, *size), f"The shape is {tuple(found.shape)}; it has to be {(1, 1, *size)}.")
    for wrong, advice in (
        (
            _brute_force(weights, views, size, last=True),
            "Where windows overlap, the last one alone counts: `+=`, not `=`.",
        ),
        (
            _brute_force(torch.ones_like(weights), views, size),
            "The windows are counted. Add up their weights: += weight, not += 1.",
        ),
    ):
        expect(not _close(found, wrong), advice)
    right = _brute_force(weights, views, size)
    expect(
        _close(found, right), "Those are not the sums of the weights: add each where its view lies, [rows, columns]."
    )
    passed("the weights of all windows, each at its place, also across the wrap")


def fusion(function: Callable[..., torch.Tensor], window_views: Callable[..., Any]) -> None:
    """Task 2.1 (3): `fuse` is the weighted average, which is the least-squares solution."""
    views, weights, size = _some_views(window_views)
    windows = torch.randn((len(views), 3, 4, 4), generator=torch.Generator().manual_seed(2))
    total = _brute_force(weights, views, size)
    found = function(windows, views, weights, total.float())
    made(found, "What `fuse` returns")
    expect(
        isinstance(found, torch.Tensor) and tuple(found.shape) == (1, 3, *size),
        f"That is {tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__}; the panorama is a "
        f"tensor {(1, 3, *size)}.",
    )
    added = _brute_force(weights * windows, views, size)
    counts = _brute_force(torch.ones_like(weights), views, size)
    for wrong, advice in (
        (torch.zeros_like(added), "Nothing has been added up: every window goes to its place in `value`."),
        (added, "The windows are added up, but not averaged: divide by `total`."),
        (_brute_force(windows, views, size) / total, "The windows are not weighted: weight * window."),
        (_brute_force(windows, views, size) / counts, "All windows have the same say: multiply each by its weight."),
        (added / counts, "Divide by `total`, the sum of the weights, not by the number of windows."),
        (
            _brute_force(weights * windows, views, size, last=True) / total,
            "Where windows overlap, the last one alone counts: `+=`, not `=`.",
        ),
    ):
        expect(not _close(found, wrong), advice)
    expect(_close(found, added / total), "That is not the weighted average of formula (2).")
    passed("every latent pixel is the weighted average of the windows that see it")


def anchor_picture(sd: Any) -> None:
    """Task 2.2 (4): `foresee_anchor` decodes what the anchor's window is foreseen to become."""
    window, noise = _some_windows(sd, 2).split(1)
    alpha_bar = torch.tensor(0.3, device=window.device)
    tolerance = 1e-3 if sd.vae.dtype == torch.float32 else 3e-2
    with torch.enable_grad():  # so that it shows whether a gradient would flow
        found = sd.foresee_anchor(window.clone().requires_grad_(), noise, alpha_bar, 0.5)
    made(found, "What `foresee_anchor` returns")
    expect(isinstance(found, torch.Tensor), f"That is a {type(found).__name__}; the picture is a tensor.")
    x_0 = (window - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()
    expect(found.shape[1] == 3, f"The shape is {tuple(found.shape)}: those are latents. Decode them.")
    with torch.no_grad():
        right, now, large = sd.decode_small(x_0, 0.5), sd.decode_small(window, 0.5), sd.decode_small(x_0, 1)
    expect(
        found.shape != large.shape, "`scale` makes no difference: self.decode_small(x_0, scale) makes smaller pictures."
    )
    expect(not _close(found, now, tolerance), "That is the anchor as it is now, noise and all: decode its x_0.")
    expect(_close(found, right, tolerance), "That is not the picture of x_0, as `foresee` has it for the anchor.")
    expect(not found.requires_grad, "A gradient would flow into the anchor: keep @torch.no_grad().")
    passed("the anchor, as it will be")


def descent(sd: Any) -> None:
    """Task 2.2 (5): `descend` moves windows down the gradient of their distance to the anchor."""
    windows = _some_windows(sd, 3)
    look = lambda own: sd.decode_small(own, 0.5)
    with torch.no_grad():
        anchor = look(windows[:1])
    found = sd.descend(windows[1:], look, anchor, 1.0)
    made(found, "What `descend` returns")
    expect(isinstance(found, torch.Tensor), f"That is a {type(found).__name__}; the moved windows are a tensor.")
    expect(found.shape == windows[1:].shape, f"The shape is {tuple(found.shape)}, not {tuple(windows[1:].shape)}.")
    with torch.enable_grad():
        own = windows[1:].detach().requires_grad_()
        images = look(own)
        [gradient] = torch.autograd.grad(1024 * sd.distance(images, anchor.expand_as(images)).sum(), own)
    gradient, moved = gradient / 1024, found.detach() - windows[1:]
    expect(moved.abs().max() > 0, "The windows come back as they were: return windows - weight * gradient.")
    tolerance = 2e-2 if sd.vae.dtype == torch.float32 else 0.2
    for factor, advice in (
        (1.0, "Uphill: the windows move away from the anchor. Subtract the gradient."),
        (-1024.0, "The gradient is still enlarged: divide it by `enlarged`."),
        (-1 / 1024, "The gradient is divided by `enlarged`, but the sum was not multiplied by it."),
        (-1 / len(moved), "Every window gets too little: take the .sum() of the distances, not their mean."),
    ):
        expect(not _close(moved, factor * gradient, tolerance), advice)
    expect(
        not _close(found, -gradient, tolerance), "That is the gradient alone: it is to be subtracted from the windows."
    )
    expect(
        _close(moved, -gradient, tolerance),
        "The windows do not move along the gradient of their distance to the anchor: look(own) beside anchor.",
    )
    further = sd.descend(windows[1:], look, anchor, 4.0) - windows[1:]
    expect(_close(further, 4 * moved, tolerance), "`weight` makes no difference: multiply the gradient by it.")
    expect(not found.requires_grad, "The moved windows drag a graph of gradients along: return windows, not own.")
    passed("each window goes downhill, towards the look of the anchor")


def _some_windows(sd: Any, count: int) -> torch.Tensor:
    """Windows (count, C, 8, 8) of noise, small so that a check takes seconds, on the model's device."""
    shape = (count, sd.unet.config.in_channels, 8, 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(sd.model.device)


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
