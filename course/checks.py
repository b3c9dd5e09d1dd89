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
    tolerance = _tolerance(model)
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
    tolerance = _tolerance(model)

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


# --- Task 1.3


def edges(function: Callable[..., np.ndarray], picture: Image.Image) -> None:
    """Task 1.3 (a): Canny's edges of a smoothed picture, in three channels of 0 and 1."""
    import cv2

    from course import conditions

    array = np.array(picture)
    found = function(picture)
    made(found, "What `canny_edges` returns")
    expect(isinstance(found, np.ndarray), f"`canny_edges` returns a {type(found).__name__}, no array.")
    expect(found.ndim != 2, "The edges have one channel; a ControlNet wants three: np.stack([edges] * 3, axis=2).")
    shape = (*array.shape[:2], 3)
    expect(
        found.shape == shape,
        f"The edges have the shape {found.shape}, not {shape}: the channels are the last axis, axis=2.",
    )
    expect(found.max(initial=0) <= 1, "The edges are 255, and not 1: divide by 255.")
    expect(np.isin(found, (0, 1)).all(), "The edges are not all 0 or 1: is the picture divided in place of the edges?")
    soft = cv2.GaussianBlur(array, (0, 0), conditions.CANNY_BLUR)
    right = conditions.canny(picture)[..., 0]
    expect(right.any(), "This picture has no edges at 100 and 200. Choose another PICTURE for the exercise.")
    for wrong, advice in (
        (cv2.Canny(array, 100, 200) / 255, "The picture was not smoothed: hand `smooth` to cv2.Canny, not `array`."),
        (1 - right, "Black edges on white: a ControlNet knows white ones on black."),
    ):
        expect(np.array_equal(wrong, right) or not np.array_equal(found[..., 0], wrong), advice)
    expect(
        np.array_equal(found[..., 0], right),
        "Those are not Canny's edges of the picture after a blur of 1.4 pixels: cv2.Canny(smooth, low, high).",
    )
    for low, high in ((20, 40), (20, 200)):
        expect(
            np.array_equal(function(picture, low, high)[..., 0], cv2.Canny(soft, low, high) / 255),
            "With other thresholds the edges are not right: hand `low` and `high` on to cv2.Canny.",
        )
    passed(f"white edges on black; {right.mean():.1%} of the pixels are on one")


def condition(function: Callable[[np.ndarray], torch.Tensor], model: Model) -> None:
    """Task 1.3 (b): an array (H, W, 3) in [0, 1] as a ControlNet reads it, (1, 3, H, W), where the model is."""
    image = np.random.default_rng(0).random((16, 24, 3))
    found = function(image)
    made(found, "What `to_condition` returns")
    expect(
        isinstance(found, torch.Tensor), f"`to_condition` returns a {type(found).__name__}: torch.from_numpy(image)."
    )
    expect(tuple(found.shape) != (3, 16, 24), "The batch is missing: [None] puts it before the channels.")
    expect(
        tuple(found.shape) not in ((1, 16, 24, 3), (16, 24, 3)),
        "The channels come last: .permute(2, 0, 1) brings them to the front.",
    )
    expect(
        tuple(found.shape) != (1, 3, 24, 16),
        "Height and width are exchanged: .permute(2, 0, 1) keeps their order, .T or .permute(2, 1, 0) does not.",
    )
    expect(
        tuple(found.shape) == (1, 3, 16, 24), f"The shape is {tuple(found.shape)}; for 16 x 24 it is (1, 3, 16, 24)."
    )
    expect(
        found.dtype == model.dtype,
        f"The type is {found.dtype}, and the networks' {model.dtype}: .to(..., model.dtype).",
    )
    expect(found.device.type == model.device.type, f"It is on {found.device.type}: .to(model.device, ...).")
    right = torch.from_numpy(image).permute(2, 0, 1)[None].to(model.dtype)
    found = found.cpu()
    expect(not _close(found, right * 2 - 1, 1e-2), "The numbers go from -1 to 1; a condition goes from 0 to 1.")
    expect(not _close(found, right / 255, 1e-2), "The array is in [0, 1] already: do not divide by 255 once more.")
    expect(_close(found, right, 1e-2), "The numbers are not those of the array, in the order (channel, row, column).")
    passed("a tensor (1, 3, height, width) in [0, 1], where the networks are")


def residuals(function: Callable[..., Any], control: Any, pipe: Any, model: Model) -> None:
    """Task 1.3 (c): what several ControlNets add, each times its scale, in all."""
    x, embeddings = _step(pipe, model)
    other = control._replace(condition=control.condition.flip(3))
    quiet, loud = control._replace(scale=0.4), other._replace(scale=1.5)

    def answer(*controls: Any) -> list[torch.Tensor]:
        return [sum(parts) for parts in zip(*(_answer(each, x, embeddings) for each in controls), strict=True)]

    def attempt(*controls: Any) -> list[torch.Tensor]:
        with torch.no_grad():
            found = function(list(controls), x, 500, embeddings)
        expect(
            isinstance(found, tuple) and len(found) == 2,
            f"`control_residuals` returns a {type(found).__name__}; return down, mid.",
        )
        made(found[0], "`down`, the residuals of the skips,")
        made(found[1], "`mid`, the residual of the middle,")
        expect(isinstance(found[0], list | tuple), f"`down` is a {type(found[0]).__name__}; it is a list of tensors.")
        return [*found[0], found[1]]

    found, right = attempt(control), answer(control)
    expect(
        len(found) == len(right),
        f"There are {len(found) - 1} residuals for {len(right) - 1} skips: one for each, in the order of `down`.",
    )
    expect(
        _all_close(found, right), "With one control at scale 1 the residuals are not those that its network returns."
    )
    found, right = attempt(quiet, loud), answer(quiet, loud)
    plain = [control, other]
    scaled_mid = [*answer(*plain)[:-1], right[-1]]
    scaled_down = [*right[:-1], answer(*plain)[-1]]
    for wrong, advice in (
        (answer(*plain), "The scales make no difference: multiply the residuals by each control's scale."),
        (scaled_mid, "The residuals of the skips are not scaled: each of `down` is multiplied, as `mid` is."),
        (scaled_down, "The residual of the middle is not scaled: multiply `mid`, as each of `down`."),
        (answer(loud), "Only the last ControlNet is heard: add what it says to what the ones before said."),
        (answer(quiet), "Only the first ControlNet is heard: add up what all of them say."),
        ([part / 2 for part in right], "Add the residuals up; a mean makes each ControlNet quieter than its scale."),
    ):
        expect(_all_close(wrong, right) or not _all_close(found, wrong), advice)
    expect(_all_close(found, right), "For two controls the residuals are not the sum of scale times residual.")
    expect(function([], x, 500, embeddings) == (None, None), "Without any control return None, None.")
    passed(f"{len(right) - 1} residuals for the skips and one for the middle; two ControlNets add up")


def controlled(function: Callable[..., torch.Tensor], control: Any, pipe: Any, model: Model) -> None:
    """Task 1.3 (d): the guided answer of the denoiser with a ControlNet at its side."""
    both, embeddings = _step(pipe, model)
    latents, w = both[:1].float(), 3.0
    strong = control._replace(scale=1.5)

    @torch.no_grad()
    def ask(heard: tuple[int, ...]) -> torch.Tensor:
        """Both answers, where only the questions `heard` are controlled."""
        *down, mid = _answer(strong, both, embeddings)
        mask = torch.tensor([float(i in heard) for i in range(2)]).view(2, 1, 1, 1).to(mid)
        added = {
            "down_block_additional_residuals": [mask * part for part in down],
            "mid_block_additional_residual": mask * mid,
        }
        return pipe.unet(both, 500, encoder_hidden_states=embeddings, **added).sample.float()

    def guided(answers: torch.Tensor, w: float = w) -> torch.Tensor:
        uncond, cond = answers.chunk(2)
        return uncond + w * (cond - uncond)

    found = function(pipe.unet, latents, 500, embeddings, [strong], w)
    made(found, "What `guided_output` returns")
    expect(isinstance(found, torch.Tensor), f"That is a {type(found).__name__}; take the denoiser's .sample.")
    expect(
        tuple(found.shape) == tuple(latents.shape),
        f"The shape is {tuple(found.shape)}, not {tuple(latents.shape)}: cut the answer in two, and guide.",
    )
    answers = ask((0, 1))
    right = guided(answers)
    tolerance = _tolerance(model)
    for wrong, advice in (
        (guided(ask(())), "The control does not reach the denoiser: hand both residuals to unet(...)."),
        (guided(ask((1,))), "Only the question with the prompt is controlled: ask the ControlNet about `both`."),
        (guided(ask((0,))), "Only the question without the prompt is controlled: ask the ControlNet about `both`."),
        (guided(answers.flip(0)), "The two halves are exchanged: the first belongs to the negative prompt."),
        (guided(answers, 1), "The answer is unguided: uncond + guidance_scale * (cond - uncond)."),
        (guided(answers, w + 1), "Guidance starts from `uncond`, not from `cond`."),
    ):
        expect(_close(wrong, right, tolerance) or not _close(found, wrong, tolerance), advice)
    expect(
        _close(found, right, tolerance),
        "That is not the denoiser's answer with these residuals: `down` to the skips, `mid` to the middle?",
    )
    passed("the condition counts in both questions, with the prompt and without")


def active(function: Callable[..., list[Any]], control: Any) -> None:
    """Task 1.3 (e): which controls count in a step."""
    first, last = control._replace(start=0.0, end=0.5), control._replace(start=0.6, end=1.0)
    given = [control, first, last]
    for count in (10, 4):
        for i in range(count):
            found = function(list(given), i, count)
            made(found, "What `active_controls` returns")
            expect(isinstance(found, list), f"`active_controls` returns a {type(found).__name__}; return a list.")
            names = dict(zip(map(id, given), ("0 to 1", "0 to 0.5", "0.6 to 1"), strict=True))
            wanted = [each for each in given if each.start <= i / count and (i + 1) / count <= each.end]
            expect(
                [id(each) for each in found] == [id(each) for each in wanted],
                f"In step {i} of {count}, from {i / count:g} to {(i + 1) / count:g} of the way, those from "
                f"{', '.join(names.get(id(each), '?') for each in found) or 'nowhere'} are active, and not those from "
                f"{', '.join(names[id(each)] for each in wanted)}: the whole step has to lie between start and end.",
            )
    passed("a control counts in the steps that lie between its start and its end")


def control_loop(function: Callable[..., torch.Tensor], control: Any, pipe: Any, model: Model) -> None:
    """Task 1.3: `function(prompt, *controls, ...)` ends at the latents of diffusers' StableDiffusionControlNetPipeline,
    with one ControlNet and with two."""
    from diffusers import StableDiffusionControlNetPipeline

    prompt, negative, count, w = "a duck", "a tree", 4, 4.0
    other = control._replace(condition=control.condition.flip(3), scale=0.5, start=0.25, end=0.75)
    shape = (1, pipe.unet.config.in_channels, *(side // model.scale_factor for side in control.condition.shape[2:]))
    noise = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(3)).to(model.device)
    largest = 0.0
    for controls in ([control], [control._replace(end=0.5), other]):
        parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
        networks = [each.network for each in controls]
        reference = StableDiffusionControlNetPipeline(
            **parts, controlnet=networks if len(networks) > 1 else networks[0], requires_safety_checker=False
        )
        reference.set_progress_bar_config(disable=True)
        settings = {
            "image": [each.condition for each in controls],
            "controlnet_conditioning_scale": [each.scale for each in controls],
            "control_guidance_start": [each.start for each in controls],
            "control_guidance_end": [each.end for each in controls],
        }
        if len(controls) == 1:
            settings = {name: values[0] for name, values in settings.items()}
        expected = reference(
            prompt, negative_prompt=negative, num_inference_steps=count, guidance_scale=w,
            latents=noise.to(model.dtype), output_type="latent", **settings,
        ).images.float()  # fmt: skip
        found = function(prompt, *controls, seed=3, steps=count, guidance_scale=w, negative_prompt=negative)
        largest = max(largest, (found - expected).abs().max().item())
        expect(
            _close(found, expected, _tolerance(model)),
            f"With {len(controls)} ControlNet{'s' * (len(controls) > 1)} the latents are not those of "
            "StableDiffusionControlNetPipeline. Has the loop been changed?",
        )
    passed(f"the latents of StableDiffusionControlNetPipeline, with one and with two; off by {largest:.0e} at most")


def zero_convolution(function: Callable[[int], Any]) -> None:
    """Task 1.3 (g): a 1 x 1 convolution that says nothing yet, and can learn."""
    layer = function(6)
    made(layer, "What `zero_convolution` returns")
    expect(isinstance(layer, torch.nn.Conv2d), f"That is a {type(layer).__name__}; make an nn.Conv2d.")
    expect(tuple(layer.kernel_size) == (1, 1), f"The window is {tuple(layer.kernel_size)}: kernel_size=1.")
    expect(
        (layer.in_channels, layer.out_channels) == (6, 6),
        f"It makes {layer.out_channels} channels of {layer.in_channels}; both are `channels`.",
    )
    expect(not layer.weight.any(), "The weights are not zero: nn.init.zeros_(layer.weight).")
    expect(layer.bias is not None, "The bias is missing; it belongs to the layer, and begins at zero too.")
    expect(not layer.bias.any(), "The bias is not zero: nn.init.zeros_(layer.bias).")
    expect(
        layer.weight.requires_grad and layer.bias.requires_grad,
        "The layer cannot learn: its weights are cut off from the gradient.",
    )
    passed("it says nothing, whatever it is given, and it can learn to")


def control_loss(function: Callable[..., torch.Tensor], control: Any, pipe: Any, model: Model) -> None:
    """Task 1.3 (h): the loss of training, for a ControlNet that says something."""
    both, embeddings = _step(pipe, model)
    generator = torch.Generator().manual_seed(5)
    latents, noise = (torch.randn(both.shape, generator=generator).to(both) for _ in range(2))
    condition, t = control.condition.expand(2, -1, -1, -1), torch.tensor([300, 700], device=both.device)
    a = pipe.scheduler.alphas_cumprod.to(both)[t].view(-1, 1, 1, 1)

    @torch.no_grad()
    def loss(heard: float = 1.0, mixed: bool = True, target: str = model.prediction_type) -> torch.Tensor:
        x_t = a.sqrt() * latents + (1 - a).sqrt() * noise if mixed else latents
        targets = {"epsilon": noise, "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * latents, "sample": latents}
        *down, mid = _answer(control._replace(scale=heard), x_t, embeddings, t)
        added = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        output = pipe.unet(x_t, t, encoder_hidden_states=embeddings, **added).sample
        return (output.float() - targets[target].float()).square().mean()

    with torch.autocast(model.device.type, enabled=model.dtype != torch.float32):  # as training has it
        found = function(control.network, latents, condition, embeddings, t, noise)
    made(found, "What `control_loss` returns")
    expect(
        isinstance(found, torch.Tensor) and found.dim() == 0,
        "The loss is one number, a tensor without dimensions: F.mse_loss(output, target).",
    )
    expect(
        found.requires_grad,
        "No gradient can flow back from the loss: work out everything inside, without no_grad and without .item().",
    )
    found, right, tolerance = found.detach(), loss(), _tolerance(model)
    other = "epsilon" if model.prediction_type == "v_prediction" else "v_prediction"
    for wrong, advice in (
        (loss(heard=0), "The ControlNet has no say: hand both residuals to pipe.unet."),
        (loss(mixed=False), "The denoiser was shown the clean latents: mix them with the noise, formula (3)."),
        (loss(target="sample"), "The target is not the clean picture: compare with `target`."),
        (loss(target=other), f"{model.name} predicts {model.prediction_type}: compare with `target`."),
    ):
        expect(_close(wrong, right, tolerance) or not _close(found, wrong, tolerance), advice)
    expect(_close(found, right, tolerance), "The loss is not the mean square of the answer less the target.")
    passed("the denoiser's own loss, with the ControlNet at its side, and a gradient to learn by")


@torch.no_grad()
def _step(pipe: Any, model: Model) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (2, C, h, w), twice the same, and texts (2, L, D), as the denoiser is asked in a step."""
    shape = (1, pipe.unet.config.in_channels, *model.latent_size())
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(model.device, model.dtype)
    cond, uncond = pipe.encode_prompt("a duck", model.device, 1, True)
    return torch.cat([latents, latents]), torch.cat([uncond, cond])


@torch.no_grad()
def _answer(control: Any, x: torch.Tensor, embeddings: torch.Tensor, t: Any = 500) -> list[torch.Tensor]:
    """What one control adds to the skips and, last, to the middle, by diffusers' own scaling."""
    down, mid = control.network(
        x, t, encoder_hidden_states=embeddings, controlnet_cond=control.condition.expand(len(x), -1, -1, -1),
        conditioning_scale=control.scale, return_dict=False,
    )  # fmt: skip
    return [*down, mid]


def _all_close(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(_close(one, other, 1e-2) for one, other in zip(a, b, strict=True))


def _tolerance(model: Model) -> float:
    return 1e-3 if model.dtype == torch.float32 else 3e-2


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


# --- Task 3


def prompt_embedding(function: Callable[[str], torch.Tensor], model: Model, text_encoder: Any) -> None:
    """Task 3 (a): `embed_text` gives the text encoder's vectors (L, D) of a text, short or long."""
    text, length = "a red car", model.text_length
    found = function(text)
    made(found, "What `embed_text` returns")
    expect(
        isinstance(found, torch.Tensor),
        f"That is a {type(found).__name__}: the vectors are [0] of what the text encoder returns.",
    )

    def encode(**options: Any) -> torch.Tensor:
        tokens = model.tokenizer(text, return_tensors="pt", **options)
        with torch.no_grad():
            return text_encoder(tokens.input_ids.to(text_encoder.device))[0]

    right = encode(padding="max_length", max_length=length, truncation=True)  # (1, L, D)
    expect(found.is_floating_point(), "Those are the tokens: hand them to the text encoder.")
    expect(found.shape != right.shape, "The result is a batch of one: leave out its first dimension, with [0].")
    short = encode()[0]
    expect(
        found.shape != short.shape or short.shape == right[0].shape,
        f'The text encoder was trained on rows of {length} tokens: padding="max_length" and max_length.',
    )
    expect(found.shape == right[0].shape, f"The shape is {tuple(found.shape)}; it has to be {tuple(right[0].shape)}.")
    expect(_close(found, right[0], _tolerance(model)), "Those are not the text encoder's vectors of that text.")
    try:
        long = function("a red car " * length)
    except Exception as error:
        expect(False, f"A long text ends in an error ({error}): truncation=True cuts it.")
    expect(long.shape == found.shape, f"A long text gives {tuple(long.shape)}: truncation=True cuts it.")
    expect(not found.requires_grad, "A gradient would flow into the text encoder: keep @torch.no_grad().")
    passed("a text as vectors, always as many")


def sds_gradient(function: Callable[..., torch.Tensor]) -> None:
    """Task 3 (b): `sds_gradient` is w(t) times the predicted noise less the noise."""
    noise_pred, noise = torch.randn((2, 3, 4, 5, 5), generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([0.2, 0.7, 0.9]).reshape(3, 1, 1, 1)
    found = function(noise_pred, noise, weight)
    made(found, "What `sds_gradient` returns")
    expect(isinstance(found, torch.Tensor), f"That is a {type(found).__name__}; the gradient is a tensor.")
    expect(
        found.shape == noise.shape,
        f"The shape is {tuple(found.shape)}; the gradient has the shape of the latents, {tuple(noise.shape)}: "
        "nothing is summed up.",
    )
    apart = noise_pred - noise
    for wrong, advice in (
        (-weight * apart, "Uphill: that is the gradient with its sign turned round. Predicted noise less noise."),
        (apart, "The weight w(t) is missing."),
        (weight * noise_pred, "The noise that was added is missing: without it, all noise would be blamed on you."),
        (weight * apart.square(), "That is the squared error; its gradient has no square."),
        (2 * weight * apart, "DreamFusion leaves the factor 2 to w(t)."),
        (weight**2 * apart, "The weight counts once."),
        (apart / weight, "The weight is a factor."),
    ):
        expect(not _close(found, wrong), advice)
    expect(_close(found, weight * apart), "That is not w(t) (predicted noise - noise).")
    passed("the gradient of score distillation")


def sds_loss(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    """Task 3 (c): the gradient of `loss_of(latents, gradient)` by the latents is `gradient` / B."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((3, 4, 5, 5), generator=generator).requires_grad_()
    # As if it came from the latents, through the denoiser: what leaves it attached would show.
    gradient = torch.randn((3, 4, 5, 5), generator=generator) + latents.detach() - latents
    value = gradient.detach().clone()
    found = function(latents, gradient)
    made(found, "What `loss_of` returns")
    expect(isinstance(found, torch.Tensor), f"That is a {type(found).__name__}; the loss is a tensor.")
    expect(
        found.ndim == 0, f"The shape is {tuple(found.shape)}; backward() starts from one number: add them up, .sum()."
    )
    expect(
        found.requires_grad,
        "No gradient would reach the latents: .detach() the gradient alone, and keep @torch.no_grad() away.",
    )
    [reached] = torch.autograd.grad(found, latents)
    right = value / len(value)
    for wrong, advice in (
        (-right, "The sign is turned round: the latents would move away from the text."),
        (value, "Divide by the number of pictures, len(latents)."),
        (
            value / value.numel(),
            "The mean runs over all numbers, so larger pictures would learn less: .sum() / len(latents).",
        ),
        (right - latents.detach() / len(value), "The gradient is a constant here: .detach() it."),
    ):
        expect(not _close(reached, wrong), advice)
    expect(
        _close(reached, right),
        "The gradient by the latents is not the one handed in: (latents * gradient).sum(), divided by their number.",
    )
    passed("a scalar with that gradient")


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
