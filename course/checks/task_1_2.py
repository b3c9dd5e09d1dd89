"""Checks of lesson 1.2."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from course.checks.common import (
    as_trained,
    call,
    close,
    expect,
    expect_finite,
    expect_tensor,
    made,
    passed,
    same,
    tolerance_of,
)
from course.models import Model


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
        expect(
            not isinstance(part, type),
            f"`{name}` is the class itself; its from_pretrained(...) makes the object.",
        )
        expect(
            isinstance(part, kind),
            f"`{name}` is a {type(part).__name__}; it has to be a {kind.__name__}.",
        )
    as_trained(sd.scheduler, model)
    for name in ("text_encoder", "unet", "vae"):
        part = getattr(sd, name)
        expect(
            part.dtype == model.dtype,
            f"`{name}` has the type {part.dtype}: hand over dtype=model.dtype.",
        )
        expect(
            part.device.type == model.device.type,
            f"`{name}` is on {part.device.type}: add .to(model.device).",
        )
    passed(f"the five modules of {model.name} are loaded, each by itself")


def text_embeddings(sd: Any, model: Model) -> None:
    """Task 1.2 (b): `get_text_embeddings` returns the negative prompts' vectors, then those of the prompts."""
    prompts, negatives = ["a duck", "a red car on grass"], ["", "a tree"]
    found = call(sd.get_text_embeddings, prompts, negatives)
    expect(
        isinstance(found, torch.Tensor),
        f"That is a {type(found).__name__}; the vectors are the first entry of what the text encoder returns: [0].",
    )
    width = model.config("text_encoder/config.json")["hidden_size"]
    shape = (4, model.text_length, width)
    expect(
        found.dim() != 2,
        "Those are one vector a text. The denoiser wants one a token: the first entry, [0].",
    )
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
        [*negatives, *prompts],
        padding="max_length",
        max_length=shape[1],
        truncation=True,
        return_tensors="pt",
    ).input_ids
    with torch.no_grad():
        wanted = sd.text_encoder(ids.to(model.device))[0]
    expect(
        not close(found, torch.cat([wanted[2:], wanted[:2]])),
        "The prompts come first. The negative prompts have to: negative_prompts + prompts.",
    )
    expect(
        close(found, wanted),
        "The vectors are not those of the text encoder for these texts in this order.",
    )
    # The text encoder fails in its own ways where positions run out.
    long = call(sd.get_text_embeddings, ["a red car " * shape[1]], [""], allow=Exception)
    expect(
        not isinstance(long, Exception),
        "A prompt that is too long ends in an error: let the tokenizer cut it, truncation=True.",
    )
    expect(
        long.shape[1] == shape[1],
        "A prompt that is too long gave too many vectors: truncation=True cuts it.",
    )
    passed(f"a vector of {width} numbers for each of {shape[1]} tokens; negative prompts first")


def guidance(function: Callable[..., torch.Tensor]) -> None:
    """Task 1.2 (c): classifier-free guidance, uncond + w (cond - uncond)."""
    uncond, cond = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found = call(function, uncond, cond, 3.0)
    difference = cond - uncond
    for wrong, advice in (
        (
            cond + 3 * difference,
            "The guidance was added to the wrong term: start from `uncond`, not from `cond`.",
        ),
        (
            uncond - 3 * difference,
            "That leads away from the prompt: the difference is `cond` minus `uncond`.",
        ),
        (uncond + 3 * cond, "Scale the difference of the two, cond - uncond, not `cond` itself."),
        (3 * difference, "Only the scaled difference is left: add it to `uncond`."),
        (cond, "`guidance_scale` makes no difference: the formula multiplies by it."),
    ):
        expect(not close(found, wrong), advice)
    expect(
        close(found, uncond + 3 * difference), "At w = 3 that is not uncond + 3 (cond - uncond)."
    )
    passed("w = 0 ignores the prompt, w = 1 is the plain answer to it, and a larger w exaggerates")


def prediction(function: Callable[..., Any]) -> None:
    """Task 1.2 (d): x_0 and the noise from what the denoiser says, for both kinds of prediction."""
    x_0, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    a = torch.tensor(0.3)
    x_t = a.sqrt() * x_0 + (1 - a).sqrt() * noise
    v = a.sqrt() * noise - (1 - a).sqrt() * x_0
    for kind, output in (("epsilon", noise), ("v_prediction", v)):
        found = call(function, x_t, output, a, kind)
        expect(
            isinstance(found, tuple)
            and len(found) == 2
            and all(isinstance(part, torch.Tensor) for part in found),
            "`predict_x0_and_noise` returns two tensors: return x_0, noise.",
        )
        expect(not close(found[0], noise), "x_0 and the noise are exchanged: return x_0, noise.")
        known = (
            (
                (x_t - (1 - a) * output) / a,
                "The square roots are missing: the formula has sqrt(alpha_bar).",
            ),
            (
                x_t - (1 - a).sqrt() * output,
                "Divide by sqrt(alpha_bar): the picture was scaled down by it.",
            ),
            (
                (x_t - (1 - a).sqrt() * output) / a,
                "Divide by the square root of alpha_bar, not by alpha_bar.",
            ),
        )
        for wrong, advice in known if kind == "epsilon" else ():
            expect(not close(found[0], wrong), advice)
        if kind == "v_prediction":
            as_noise = (x_t - (1 - a).sqrt() * output) / a.sqrt()
            expect(
                not close(found[0], as_noise), "v was taken for the noise: look at prediction_type."
            )
            expect(
                not close(found[0], a.sqrt() * x_t + (1 - a).sqrt() * v),
                "For v the signs are off: x_0 = sqrt(alpha_bar) x_t minus sqrt(1 - alpha_bar) v.",
            )
        expect(
            close(found[0], x_0),
            f"For {kind} x_0 is not right: solve the formulas above for it once more.",
        )
        expect(close(found[1], noise), f"For {kind} x_0 is right, but the noise is not.")
    expect(
        isinstance(call(function, x_t, noise, a, "sample", allow=ValueError), ValueError),
        'A third kind of prediction has to end in a ValueError: keep the first lines, with "raise ValueError".',
    )
    passed("x_0 and noise come out of epsilon and of v")


def ddim(function: Callable[..., torch.Tensor]) -> None:
    """Task 1.2 (e): one step of DDIM, with and without fresh noise."""
    x_0, noise, fresh = torch.randn(3, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    a, b = torch.tensor(0.3), torch.tensor(0.6)  # alpha_bar of t, and of the step before
    still = call(function, x_0, noise, a, b, 0.0, fresh)
    expect_tensor(still, x_0.shape, "the result of the step")
    right = b.sqrt() * x_0 + (1 - b).sqrt() * noise
    for wrong, advice in (
        (
            a.sqrt() * x_0 + (1 - a).sqrt() * noise,
            "That leads back to x_t: the new picture mixes with alpha_bar_prev.",
        ),
        (
            b.sqrt() * x_0 + (1 - a).sqrt() * noise,
            "The share of noise is sqrt(1 - alpha_bar_prev), not that of t.",
        ),
        (
            a.sqrt() * x_0 + (1 - b).sqrt() * noise,
            "The share of x_0 is sqrt(alpha_bar_prev), not that of t.",
        ),
        (
            b * x_0 + (1 - b) * noise,
            "The square roots are missing: sqrt(alpha_bar_prev), sqrt(1 - alpha_bar_prev).",
        ),
        (b.sqrt() * x_0, "The noise term is missing: only the last step leaves none."),
    ):
        expect(not close(still, wrong), advice)
    expect(
        close(still, right) or not close(still - right, fresh * ((still - right) / fresh).mean()),
        "With eta = 0 there is fresh noise in the result: sigma is eta times the root.",
    )
    expect(
        close(still, right),
        "With eta = 0 that is not sqrt(alpha_bar_prev) x_0 + sqrt(1 - alpha_bar_prev) noise.",
    )

    for eta in (1.0, 0.5):
        found = call(function, x_0, noise, a, b, eta, fresh)
        expect(
            not close(found, right), "`eta` makes no difference: add sigma times the fresh noise."
        )
        sigma = eta * ((1 - b) / (1 - a) * (1 - a / b)).sqrt()
        direction = (1 - b - sigma**2).sqrt()
        mixed = b.sqrt() * x_0
        swapped = (1 - a) / (1 - b) * (1 - a / b)
        for wrong, advice in (
            (
                mixed + (1 - b).sqrt() * noise + sigma * fresh,
                "Make room for the fresh noise: 1 - alpha_bar_prev - sigma**2.",
            ),
            (
                mixed + (1 - b - sigma).clamp_min(0).sqrt() * noise + sigma * fresh,
                "Below the root sigma is squared.",
            ),
            (
                mixed + direction * noise,
                "sigma is right, but the fresh noise was not added: + sigma * fresh_noise.",
            ),
            (
                mixed + direction * noise + sigma**2 * fresh,
                "The fresh noise is multiplied by sigma, not by its square.",
            ),
        ):
            expect(not close(found, wrong), advice)
        for other in (sigma**2 / eta, eta * swapped.sqrt(), sigma / eta):
            room = (1 - b - other**2).clamp_min(0).sqrt()
            expect(
                other == sigma or not close(found, mixed + room * noise + other * fresh),
                "sigma is not that of the formula: eta * sqrt((1 - alpha_bar_prev) / (1 - alpha_bar)) * "
                "sqrt(1 - alpha_bar / alpha_bar_prev).",
            )
        expect(
            close(found, mixed + direction * noise + sigma * fresh),
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
        with constant_stride(sd):
            return call(
                sd.denoise, latents, embeddings, count, w, eta, [torch.Generator().manual_seed(2)]
            )

    def reference(eta: float, embeddings: torch.Tensor = embeddings, w: float = w) -> torch.Tensor:
        return _reference(sd, latents, embeddings, count, w, eta, torch.Generator().manual_seed(2))

    steps = attempt(0.0)
    made(steps[0].x_prev if steps else None, "`x_prev`, the result of a step,")
    expect(
        len(steps) == count, f"The loop made {len(steps)} steps of {count}: one for each timestep."
    )
    found = steps[-1].x_prev
    tolerance = tolerance_of(model)
    expect(
        all(
            close(later.x_t, earlier.x_prev, tolerance)
            for earlier, later in itertools.pairwise(steps)
        ),
        "A step does not go on from the result of the one before.",
    )
    for wrong, advice in (
        (
            reference(0.0, embeddings.flip(0)),
            "The two halves are exchanged: the first belongs to the negative prompt.",
        ),
        (
            reference(0.0, w=1.0),
            "The answer is unguided: hand both halves to `guide`, and use its result.",
        ),
        (
            reference(0.0, w=0.0),
            "Only the negative prompt was heard: hand both halves to `guide`, and use its result.",
        ),
    ):
        expect(not close(found, wrong, tolerance), advice)
    expect(
        close(found, reference(0.0), tolerance),
        "After three steps the latents are not those of diffusers' DDIM: is each step given alpha_bar of t, then that "
        "of the step before, and the prediction type of the model?",
    )
    lively = attempt(1.0)[-1].x_prev
    expect(
        not close(lively, found, tolerance), "`eta` makes no difference: hand it to `ddim_step`."
    )
    expect(
        close(lively, reference(1.0), tolerance),
        "With eta = 1 the latents are not diffusers': fresh noise comes from `draw_noise`, drawn anew in every step.",
    )
    passed(f"{count} steps end where diffusers' own DDIM ends, for eta = 0 and eta = 1")


def _with_constant_stride(scheduler: Any) -> Any:
    """Return diffusers' DDIM with the noise levels of `scheduler` and leading timesteps.

    They are one stride apart, so that its steps go from each to the next (lesson 1.2, section 3).
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(
        scheduler.config, timestep_spacing="leading", clip_sample=False, thresholding=False
    )


@contextlib.contextmanager
def constant_stride(owner: Any) -> Iterator[None]:
    """Within this block diffusers and the lessons take the same steps of `owner.scheduler`."""
    own = owner.scheduler
    owner.scheduler = _with_constant_stride(own)
    try:
        yield
    finally:
        owner.scheduler = own


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
    """The latents of one image after `count` steps of diffusers' DDIMScheduler."""
    scheduler = _with_constant_stride(sd.scheduler)
    scheduler.set_timesteps(count)
    for t in scheduler.timesteps:
        both = torch.cat([latents] * 2).to(sd.unet.dtype)
        uncond, cond = sd.unet(both, t, encoder_hidden_states=embeddings).sample.float().chunk(2)
        guided = uncond + w * (cond - uncond)
        fresh = torch.randn(latents.shape, generator=generator).to(latents.device) if eta else None
        latents = scheduler.step(guided, t, latents, eta=eta, variance_noise=fresh).prev_sample
    return latents


def decoding(sd: Any, model: Model) -> None:
    """Task 1.2 (g): latents become images, the scaling factor undone."""
    factor = sd.vae.config.scaling_factor
    shape = (1, sd.vae.config.latent_channels, 8, 8)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(model.device)
    found = call(sd.decode_latents, latents)
    expect(
        isinstance(found, torch.Tensor),
        f"That is a {type(found).__name__}; the pictures are its .sample.",
    )
    side = 8 * model.scale_factor
    expect(
        tuple(found.shape) == (1, 3, side, side),
        f"The shape is {tuple(found.shape)}, not {(1, 3, side, side)}.",
    )
    tolerance = tolerance_of(model)

    def decoded(scale: float) -> torch.Tensor:
        with torch.no_grad():
            return sd.vae.decode((latents * scale).to(sd.vae.dtype)).sample.float()

    if factor != 1:
        expect(
            not close(found, decoded(1), tolerance),
            "The scaling factor was forgotten: the decoder wants latents / scaling_factor.",
        )
        expect(
            not close(found, decoded(factor), tolerance),
            "Divide by the scaling factor; do not multiply.",
        )
    right = decoded(1 / factor)
    expect(
        not close(found, (right + 1) / 2, tolerance),
        "Leave the pictures in [-1, 1]: `pictures` converts them later.",
    )
    expect(
        close(found, right, tolerance),
        "Those are not the pictures that the decoder makes of these latents.",
    )
    expect(
        not found.requires_grad,
        "The pictures drag a graph of gradients along: keep @torch.no_grad().",
    )
    passed(f"latents divided by {factor:g}, the model's own scaling factor, and decoded")


def clip(frames: Sequence[Image.Image], left: str | Path, right: str | Path) -> None:
    """Task 1.2 (h): the images of two folders side by side, one frame for each step."""
    from course.images import video

    made(frames, "`clip`")
    expect(
        isinstance(frames, list) and frames,
        f"`clip` is a {type(frames).__name__}; it has to be a list of pictures.",
    )
    for i, frame in enumerate(frames):
        expect(
            isinstance(frame, Image.Image),
            f"Entry {i} of `clip` is a {type(frame).__name__}, no picture.",
        )
    a, b = video.read_frames(left), video.read_frames(right)
    expect(
        len(frames) == len(a),
        f"`clip` has {len(frames)} frames and the folder {len(a)}: one for each step.",
    )
    single = a[0].image.width / a[0].image.height
    expect(
        frames[0].width / frames[0].height
        > 1.15 * single,  # two, less what headings and captions take
        "A frame is not wide enough for two pictures: put x_t and x_0 side by side.",
    )
    exchanged, turned = (
        video.side_by_side(b[-2:], a[-2:]),
        video.side_by_side(a[::-1][:2], b[::-1][:2]),
    )
    expect(
        not same(_below(frames[-2]), _below(exchanged[0])),
        "The sides are exchanged: x_t belongs at the left.",
    )
    expect(
        not same(_below(frames[0]), _below(turned[1])),
        "The frames run backwards: noise comes first.",
    )
    passed(f"{len(frames)} frames, x_t at the left and what will become of it at the right")


def _below(frame: Image.Image) -> Image.Image:
    """The middle of a frame, without headings and captions, small."""
    width, height = frame.size
    return frame.crop((0, height // 4, width, 3 * height // 4)).resize((64, 16))


def attention(function: Callable[..., Any]) -> None:
    """Task 1.2 (i): scaled dot-product attention, and the weights it used."""
    query = torch.randn(2, 3, 5, 16, generator=torch.Generator().manual_seed(0))
    key, value = torch.randn(2, 2, 3, 7, 16, generator=torch.Generator().manual_seed(1))
    found = call(function, query, key, value)
    expect(
        isinstance(found, tuple) and len(found) == 2,
        "`attention` returns two tensors: return weights @ value, weights.",
    )
    out, weights = found
    expect(
        isinstance(weights, torch.Tensor),
        f"The weights are a {type(weights).__name__}, and not a tensor.",
    )
    expect(
        tuple(weights.shape) == (2, 3, 5, 7),
        f"The weights have the shape {tuple(weights.shape)}; 5 pixels that look at 7 tokens make (..., 5, 7).",
    )
    scores = query @ key.transpose(-1, -2)
    for wrong, advice in (
        (
            scores.softmax(-1),
            "The scores are not scaled: divide them by the square root of the width of a vector.",
        ),
        (
            (scores / 16).softmax(-1),
            "Divide the scores by the square root of the width, not by the width.",
        ),
        (
            (scores / 4).softmax(-2),
            "The softmax runs over the pixels; every pixel shares its attention among tokens: dim=-1.",
        ),
        (scores / 4, "Those are scores; a softmax over the tokens makes weights of them."),
    ):
        expect(not close(weights, wrong), advice)
    right = (scores / 4).softmax(-1)
    expect(close(weights, right), "The weights are not softmax(query key^T / sqrt(d)).")
    expect(
        close(out, right @ value),
        "The weights are right; the result is their product with the values.",
    )
    passed("every pixel shares its attention among all tokens, 100 % in all")


def strengths(values: Sequence[Any], steps: Sequence[Any]) -> None:
    """Task 1.2 (j): how long the push of guidance is, beside the unguided prediction, at every step."""
    made(values, "`strengths`")
    expect(
        isinstance(values, list),
        f"`strengths` is a {type(values).__name__}; it has to be a list of numbers.",
    )
    expect(
        len(values) == len(steps), f"`strengths` has {len(values)} numbers for {len(steps)} steps."
    )
    for i, value in enumerate(values):
        expect(
            isinstance(value, int | float) or getattr(value, "ndim", None) == 0,
            f"Entry {i} of `strengths` is a {type(value).__name__}; it has to be one number.",
        )
    found = torch.tensor([float(value) for value in values])
    expect_finite(found, "`strengths`")
    pushes = torch.stack([(step.cond - step.uncond).norm() for step in steps]).cpu()
    plain = torch.stack([step.uncond.norm() for step in steps]).cpu()
    expect(
        not close(found, pushes),
        "Divide by the norm of `uncond`: only the ratio tells how hard guidance pushes.",
    )
    expect(
        not close(found, (pushes / plain) ** 2),
        "Those are squares: the norm is the root of the sum of squares.",
    )
    expect(
        close(found, pushes / plain),
        "Those are not the norms of cond - uncond, each divided by the norm of uncond.",
    )
    passed(
        f"the push is between {found.min():.0%} and {found.max():.0%} of the unguided prediction"
    )
