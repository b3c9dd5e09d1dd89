"""Checks of lesson 1.2."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from course.checks.common import (
    call,
    check,
    close,
    diagnose,
    expect,
    expect_finite,
    expect_list,
    expect_model_settings,
    expect_placed,
    expect_tensor,
    expect_type,
    expect_value,
    same,
    tolerance_of,
)
from course.checks.reference import constant_stride, sample_with_diffusers
from course.diffusion import add_noise, ddim_step, guide, predict_x0, velocity
from course.models import Model


@check("1.2 (a)")
def modules(sd: Any, model: Model) -> str:
    """The five inner modules, of `model`, ready to work on its device."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    classes = {
        "tokenizer": CLIPTokenizer,
        "text_encoder": CLIPTextModel,
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "scheduler": DDIMScheduler,
    }
    for name, expected in classes.items():
        part = getattr(sd, name, ...)
        expect_value(part, f"`{name}`")
        advice = f"it has to be a {expected.__name__}, from its from_pretrained(...)."
        expect_type(part, expected, f"`{name}`", advice)
    expect_model_settings(sd.scheduler, model)
    for name in ("text_encoder", "unet", "vae"):
        expect_placed(getattr(sd, name), model, f"`{name}`")
    return f"the five modules of {model.name} are loaded, each by itself"


@check("1.2 (b)")
def text_embeddings(sd: Any, model: Model) -> str:
    """`get_text_embeddings` returns the negative prompts' vectors, then those of the prompts."""
    prompts, negatives = ["a duck", "a red car on grass"], ["", "a tree"]
    result = call(sd.get_text_embeddings, prompts, negatives)
    advice = "the vectors are the first entry of what the text encoder returns: [0]."
    expect_type(result, torch.Tensor, "That", advice)
    width = model.config("text_encoder/config.json")["hidden_size"]
    shape = (4, model.text_length, width)
    expect(
        result.dim() != 2,
        "Those are one vector a text. The denoiser needs one a token: the first entry, [0].",
    )
    expect(
        result.dim() == 3 and result.shape[1] == shape[1],
        f"The shape is {tuple(result.shape)}, not {shape}: every text is filled up to {shape[1]} "
        'tokens by padding="max_length", max_length=self.model.text_length.',
    )
    expect_tensor(result, shape, "The result", "Two prompts, two negative: all four in one batch.")
    ids = sd.tokenizer(
        [*negatives, *prompts],
        padding="max_length",
        max_length=shape[1],
        truncation=True,
        return_tensors="pt",
    ).input_ids
    with torch.no_grad():
        right = sd.text_encoder(ids.to(model.device))[0]
    prompts_first = "The prompts come first; put them last: negative_prompts + prompts."
    mistakes = {prompts_first: torch.cat([right[2:], right[:2]])}
    otherwise = "The vectors are not those of the text encoder for these texts in this order."
    diagnose(result, right, mistakes, otherwise)
    # The text encoder fails in its own ways where positions run out.
    long = call(sd.get_text_embeddings, ["a red car " * shape[1]], [""], allow=Exception)
    expect(
        isinstance(long, torch.Tensor) and long.shape == (2, *shape[1:]),
        "A prompt that is too long gives an error or too many vectors: cut it by truncation=True.",
    )
    return f"a vector of {width} numbers for each of {shape[1]} tokens; negative prompts first"


@check("1.2 (c)")
def guidance(function: Callable[..., torch.Tensor]) -> str:
    """Classifier-free guidance, uncond + w (cond - uncond)."""
    uncond, cond = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    push = 3 * (cond - uncond)
    mistakes = {
        "The guidance was added to the wrong term: start from `uncond`, not `cond`.": cond + push,
        "That leads away from the prompt: the difference is `cond` minus `uncond`.": uncond - push,
        "Scale the difference of the two, cond - uncond, not `cond` itself.": uncond + 3 * cond,
        "Only the scaled difference is left: add it to `uncond`.": push,
        "`guidance_scale` makes no difference: the formula multiplies by it.": cond,
    }
    right = guide(uncond, cond, 3.0)
    otherwise = "At w = 3 that is not uncond + 3 (cond - uncond)."
    diagnose(call(function, uncond, cond, 3.0), right, mistakes, otherwise)
    return "w = 0 ignores the prompt, w = 1 is the plain answer to it, and a larger w exaggerates"


@check("1.2 (d)")
def prediction(function: Callable[..., Any]) -> str:
    """x_0 and the noise from the denoiser's output, for both prediction types."""
    x_0, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    a = torch.tensor(0.3)
    x_t, v = add_noise(x_0, noise, a), velocity(x_0, noise, a)
    scaled_noise = (1 - a).sqrt() * noise
    exchanged = {"x_0 and the noise are exchanged: return x_0, noise.": noise}
    mistakes_epsilon = {
        "The square roots are missing: sqrt(alpha_bar).": (x_t - (1 - a) * noise) / a,
        "Divide by sqrt(alpha_bar): the image was scaled down by it.": x_t - scaled_noise,
        "Divide by the square root of alpha_bar, not by alpha_bar.": (x_t - scaled_noise) / a,
    }
    mistakes_v = {
        "v was taken for the noise: look at prediction_type.": predict_x0(x_t, v, a),
        "For v the signs are off: x_0 = sqrt(alpha_bar) x_t minus sqrt(1 - alpha_bar) v.": (
            a.sqrt() * x_t + (1 - a).sqrt() * v
        ),
    }
    for prediction_type, output, mistakes in (
        ("epsilon", noise, mistakes_epsilon),
        ("v_prediction", v, mistakes_v),
    ):
        result = call(function, x_t, output, a, prediction_type)
        expect(
            isinstance(result, tuple)
            and len(result) == 2
            and all(isinstance(part, torch.Tensor) for part in result),
            "`predict_x0_and_noise` returns two tensors: return x_0, noise.",
        )
        otherwise = f"For {prediction_type} x_0 is not right: solve the formulas above for it."
        diagnose(result[0], x_0, exchanged | mistakes, otherwise)
        expect(
            close(result[1], noise), f"For {prediction_type} x_0 is right, but the noise is not."
        )
    expect(
        isinstance(call(function, x_t, noise, a, "sample", allow=ValueError), ValueError),
        "A third prediction type has to end in a ValueError: keep the first lines, with "
        '"raise ValueError".',
    )
    return "x_0 and noise come out of epsilon and of v"


@check("1.2 (e)")
def ddim(function: Callable[..., torch.Tensor]) -> str:
    """One step of DDIM, with and without fresh noise."""
    x_0, noise, fresh = torch.randn(3, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    a, b = torch.tensor(0.3), torch.tensor(0.6)  # alpha_bar of t, and of the next timestep
    result = call(function, x_0, noise, a, b, 0.0, fresh)
    expect_tensor(result, x_0.shape, "The result of the step")
    still, x_t = ddim_step(x_0, noise, a, b), add_noise(x_0, noise, a)
    image, rootless = b.sqrt() * x_0, b * x_0 + (1 - b) * noise
    old_noise, new_noise = (1 - a).sqrt() * noise, (1 - b).sqrt() * noise
    mistakes = {
        "That leads back to x_t: the new image mixes with alpha_bar_prev.": x_t,
        "The share of noise is sqrt(1 - alpha_bar_prev), not that of t.": image + old_noise,
        "The share of x_0 is sqrt(alpha_bar_prev), not that of t.": a.sqrt() * x_0 + new_noise,
        "The square roots are missing: sqrt(alpha_bar_prev), sqrt(1 - alpha_bar_prev).": rootless,
        "The noise term is missing: only the last step leaves none.": image,
        "With eta = 0 there is fresh noise in the result: sigma is eta times the root.": (
            still + fresh * ((result - still) / fresh).mean()
        ),
    }
    otherwise = (
        "With eta = 0 that is not sqrt(alpha_bar_prev) x_0 + sqrt(1 - alpha_bar_prev) noise."
    )
    diagnose(result, still, mistakes, otherwise)
    # First 0.5: at 1 a root of 1 - alpha_bar_prev - sigma would be NaN.
    for eta in (0.5, 1.0):
        _expect_fresh_noise(call(function, x_0, noise, a, b, eta, fresh), x_0, noise, fresh, eta)
    return "a DDIM step: without fresh noise at eta = 0, with the right amount of it beyond"


def _expect_fresh_noise(
    result: torch.Tensor, x_0: torch.Tensor, noise: torch.Tensor, fresh: torch.Tensor, eta: float
) -> None:
    """Raise CheckFailed unless `result` is the step of `ddim` with `eta` > 0."""
    a, b = torch.tensor(0.3), torch.tensor(0.6)
    sigma = eta * ((1 - b) / (1 - a) * (1 - a / b)).sqrt()
    direction = (1 - b - sigma**2).sqrt() * noise
    image = b.sqrt() * x_0
    without, added = image + direction, image + sigma * fresh
    right = ddim_step(x_0, noise, a, b, eta, fresh)
    mistakes = {
        "`eta` makes no difference: add sigma times the fresh noise.": ddim_step(x_0, noise, a, b),
        "Make room for the fresh noise: subtract sigma**2.": added + (1 - b).sqrt() * noise,
        "Below the root sigma is squared.": added + (1 - b - sigma).sqrt() * noise,
        "sigma is right, but the fresh noise was not added: + sigma * fresh_noise.": without,
        "The fresh noise is multiplied by sigma, not by its square.": without + sigma**2 * fresh,
    }
    swapped = eta * ((1 - a) / (1 - b) * (1 - a / b)).sqrt()
    for wrong in (sigma**2 / eta, swapped, sigma / eta):
        rest = (1 - b - wrong**2).sqrt() * noise
        expect(
            close(result, right) or not close(result, image + rest + wrong * fresh),
            "sigma is not that of the formula: eta * sqrt((1 - alpha_bar_prev) / (1 - alpha_bar)) "
            "* sqrt(1 - alpha_bar / alpha_bar_prev).",
        )
    otherwise = (
        f"With eta = {eta:g} the step is not right: look at sigma, and at the root that holds its "
        "square."
    )
    diagnose(result, right, mistakes, otherwise)


@check("1.2 (f)")
def loop(sd: Any, model: Model) -> str:
    """Three steps of `sd.denoise` beside the same three by diffusers' scheduler."""
    shape = (1, sd.unet.config.in_channels, *model.latent_size())
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(model.device)
    embeddings = sd.get_text_embeddings(["a duck"], [""])
    count, w = 3, 4.0

    def attempt(eta: float) -> list[Any]:
        generators = [torch.Generator().manual_seed(2)]
        with constant_stride(sd):
            return call(sd.denoise, latents, embeddings, count, w, eta, generators)

    def reference(eta: float, embeddings: torch.Tensor = embeddings, w: float = w) -> torch.Tensor:
        generator = torch.Generator().manual_seed(2)
        return sample_with_diffusers(sd, latents, embeddings, count, w, eta, generator)

    steps = attempt(0.0)
    expect_value(steps[0].x_prev if steps else None, "`x_prev`, the result of a step,")
    expect(
        len(steps) == count,
        f"The loop took {len(steps)} steps, not {count}: one for each timestep.",
    )
    still, tolerance = steps[-1].x_prev, tolerance_of(model)
    expect(
        all(close(b.x_t, a.x_prev, tolerance) for a, b in itertools.pairwise(steps)),
        "A step does not continue from the result of the one before.",
    )
    mistakes = {
        "The two halves are exchanged: the first belongs to the negative prompt.": (
            reference(0.0, embeddings.flip(0))
        ),
        "The output is unguided: hand both halves to `guide`, and use its result.": (
            reference(0.0, w=1.0)
        ),
        "Only the negative prompt has an effect: hand both halves to `guide`, and use its "
        "result.": reference(0.0, w=0.0),
    }
    otherwise = (
        "After three steps the latents are not those of diffusers' DDIM: is each step given "
        "alpha_bar of t, then that of the next timestep, and the prediction type of the model?"
    )
    diagnose(still, reference(0.0), mistakes, otherwise, tolerance)
    noisy = attempt(1.0)[-1].x_prev
    mistakes = {"`eta` makes no difference: hand it to `ddim_step`.": still}
    otherwise = (
        "With eta = 1 the latents are not diffusers': fresh noise comes from `draw_noise`, drawn "
        "anew in every step."
    )
    diagnose(noisy, reference(1.0), mistakes, otherwise, tolerance)
    return f"{count} steps end where diffusers' own DDIM ends, for eta = 0 and eta = 1"


@check("1.2 (g)")
def decoding(sd: Any, model: Model) -> str:
    """Latents become images, the scaling factor undone."""
    factor = sd.vae.config.scaling_factor
    shape = (1, sd.vae.config.latent_channels, 8, 8)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(model.device)
    result = call(sd.decode_latents, latents)
    side = 8 * model.scale_factor
    expect_tensor(result, (1, 3, side, side), "The result", "Images are the decoder's .sample.")

    def decoded(scale: float) -> torch.Tensor:
        with torch.no_grad():
            return sd.vae.decode((latents * scale).to(sd.vae.dtype)).sample.float()

    right = decoded(1 / factor)
    mistakes = {
        "The scaling factor was forgotten: decode latents / scaling_factor.": decoded(1),
        "Divide by the scaling factor; do not multiply.": decoded(factor),
        "Leave the images in [-1, 1]: `to_pil` converts them later.": (right + 1) / 2,
    }
    otherwise = "Those are not the images that the decoder makes of these latents."
    diagnose(result, right, mistakes, otherwise, tolerance_of(model))
    expect(not result.requires_grad, "A gradient reaches the decoder: keep @torch.no_grad().")
    return f"latents divided by {factor:g}, the model's own scaling factor, and decoded"


@check("1.2 (h)")
def clip(frames: Sequence[Image.Image], left: str | Path, right: str | Path) -> str:
    """The images of two folders side by side, one frame for each step."""
    from course.images import video

    expect_list(frames, Image.Image, "`clip`")
    a, b = video.read_frames(left), video.read_frames(right)
    expect(
        len(frames) == len(a),
        f"`clip` has {len(frames)} frames and the folder {len(a)}: one for each step.",
    )
    single = a[0].image.width / a[0].image.height
    expect(
        # Two, less what headings and captions take.
        frames[0].width / frames[0].height > 1.15 * single,
        "A frame is not wide enough for two images: put x_t and x_0 side by side.",
    )
    exchanged = video.side_by_side(b[-2:], a[-2:])
    expect(
        not same(_middle(frames[-2]), _middle(exchanged[0])),
        "The sides are exchanged: x_t belongs at the left.",
    )
    turned = video.side_by_side(a[::-1][:2], b[::-1][:2])
    expect(
        not same(_middle(frames[0]), _middle(turned[1])),
        "The frames run backwards: noise comes first.",
    )
    return f"{len(frames)} frames, x_t at the left and what will become of it at the right"


def _middle(frame: Image.Image) -> Image.Image:
    """Return the middle of a frame, without headings and captions, small."""
    width, height = frame.size
    return frame.crop((0, height // 4, width, 3 * height // 4)).resize((64, 16))


@check("1.2 (i)")
def attention(function: Callable[..., Any]) -> str:
    """Scaled dot-product attention, and the weights it used."""
    query = torch.randn(2, 3, 5, 16, generator=torch.Generator().manual_seed(0))
    key, value = torch.randn(2, 2, 3, 7, 16, generator=torch.Generator().manual_seed(1))
    result = call(function, query, key, value)
    expect(
        isinstance(result, tuple) and len(result) == 2,
        "`attention` returns two tensors: return weights @ value, weights.",
    )
    out, weights = result
    hint = "5 pixels look at 7 tokens."
    expect_tensor(weights, (2, 3, 5, 7), "The second result, the weights,", hint)
    scores = query @ key.transpose(-1, -2)
    mistakes = {
        "The scores are not scaled: divide by the square root of the width.": scores.softmax(-1),
        "Divide by the square root of the width, not by the width.": (scores / 16).softmax(-1),
        "The softmax runs over the pixels; every pixel shares its attention among tokens: "
        "dim=-1.": (scores / 4).softmax(-2),
        "Those are scores; a softmax over the tokens makes weights of them.": scores / 4,
    }
    right = (scores / 4).softmax(-1)
    diagnose(weights, right, mistakes, "The weights are not softmax(query key^T / sqrt(d)).")
    expect(
        close(out, right @ value),
        "The weights are right; the result is their product with the values.",
    )
    return "every pixel shares its attention among all tokens, 100 % in all"


@check("1.2 (j)")
def strengths(values: Sequence[Any], steps: Sequence[Any]) -> str:
    """How long the push of guidance is, relative to the unguided prediction, at every step."""
    expect_value(values, "`strengths`")
    expect_type(values, list, "`strengths`", "it has to be a list of numbers.")
    expect(
        len(values) == len(steps), f"`strengths` has {len(values)} numbers for {len(steps)} steps."
    )
    for i, value in enumerate(values):
        expect(
            isinstance(value, int | float) or getattr(value, "ndim", None) == 0,
            f"Entry {i} of `strengths` is a {type(value).__name__}; it has to be one number.",
        )
    result = torch.tensor([float(value) for value in values])
    expect_finite(result, "`strengths`")
    pushes = torch.stack([(step.cond - step.uncond).norm() for step in steps]).cpu()
    plain = torch.stack([step.uncond.norm() for step in steps]).cpu()
    mistakes = {
        "Divide by the norm of `uncond`: only the ratio tells how hard guidance pushes.": pushes,
        "Those are squares: the norm is the root of the sum of squares.": (pushes / plain) ** 2,
    }
    otherwise = "Those are not the norms of cond - uncond, each divided by the norm of uncond."
    diagnose(result, pushes / plain, mistakes, otherwise)
    return (
        f"the push is between {result.min():.0%} and {result.max():.0%} of the unguided prediction"
    )
