"""Checks of lesson 1.2, first part: components, text embeddings, a step, and the decoder."""

from typing import Any

import torch
from torch import Tensor

from course.checks.common import (
    ATTENTION_MASK,
    TOKENS,
    CheckFailed,
    Function,
    call,
    check,
    close,
    diagnose,
    expect,
    tolerance_of,
)
from course.checks.common import same as same
from course.checks.reference import guidance_mistakes
from course.checks.task_1_2_inside import attention as attention
from course.checks.task_1_2_inside import clip as clip
from course.checks.task_1_2_inside import inpainting as inpainting
from course.checks.task_1_2_inside import inversion as inversion
from course.checks.task_1_2_inside import sdedit as sdedit
from course.checks.task_1_2_inside import solver as solver
from course.checks.task_1_2_inside import strengths as strengths
from course.checks.task_1_2_loop import decoded_steps as decoded_steps
from course.checks.task_1_2_loop import loop as loop
from course.checks.task_1_2_loop import sampling as sampling
from course.checks.task_1_2_loop import schedule as schedule
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
        expect.value(part, f"`{name}`")
        advice = f"it has to be a {expected.__name__}, from its from_pretrained(...)."
        expect.is_a(part, expected, f"`{name}`", advice)
    expect.model_settings(sd.scheduler, model)
    for name in ("text_encoder", "unet", "vae"):
        expect.placed(getattr(sd, name), model, f"`{name}`")
    return f"the five components of {model.name} are loaded, each by itself"


@check("1.2 (b)")
def text_embeddings(sd: Any, model: Model) -> str:
    """`get_text_embeddings` returns the negative prompts' vectors, then those of the prompts."""
    prompts, negatives = ["a duck", "a red car on grass"], ["", "a tree"]
    result = call(sd.get_text_embeddings, prompts, negatives)
    advice = "the vectors are the first entry of what the text encoder returns: [0]."
    expect.is_a(result, Tensor, "That", advice)
    width = model.config("text_encoder/config.json")["hidden_size"]
    shape = (4, model.text_length, width)
    is_tokens = result.dim() == 2 and not result.is_floating_point()
    expect(not is_tokens, TOKENS)
    expect(result.dim() != 2, "Those are one vector a text, not one a token: the first entry, [0].")
    expect(
        result.dim() == 3 and result.shape[1] == shape[1],
        f"The shape is {tuple(result.shape)}, not {shape}: every text is padded to {shape[1]} "
        'tokens by padding="max_length", max_length=self.model.text_length.',
    )
    expect.tensor(result, shape, "The result", "Two prompts, two negative: all four in one batch.")
    tokens = sd.tokenizer(
        [*negatives, *prompts],
        padding="max_length",
        max_length=shape[1],
        truncation=True,
        return_tensors="pt",
    ).to(model.device)
    with torch.no_grad():
        right = sd.text_encoder(tokens.input_ids)[0]
        masked = sd.text_encoder(**tokens)[0]
    by_pairs = [0, 2, 1, 3]
    mistakes = {
        "The prompts come first, not last: negative_prompts + prompts.": torch.cat(
            [right[2:], right[:2]]
        ),
        "Prompts and negative prompts alternate; all negative prompts come first.": right[by_pairs],
        ATTENTION_MASK: masked,
    }
    otherwise = "The vectors are not those of the text encoder for these texts in this order."
    diagnose(result, right, mistakes, otherwise)
    # The text encoder fails in its own ways where positions run out.
    long = call(sd.get_text_embeddings, ["a red car " * shape[1]], [""], allow=Exception)
    expect(
        isinstance(long, Tensor) and long.shape == (2, *shape[1:]),
        "A prompt that is too long gives an error or too many vectors: cut it by truncation=True.",
    )
    return f"a vector of {width} numbers for each of {shape[1]} tokens; negative prompts first"


@check("1.2 (d)")
def guidance(function: Function) -> str:
    """Classifier-free guidance, uncond + w (cond - uncond)."""
    uncond, cond = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    mistakes = guidance_mistakes(uncond, cond, 3, "prompt") | {
        "`guidance_scale` makes no difference: the formula multiplies by it.": cond
    }
    right = guide(uncond, cond, 3.0)
    otherwise = "At w = 3 that is not uncond + 3 (cond - uncond)."
    diagnose(call(function, uncond, cond, 3.0), right, mistakes, otherwise)
    return "w = 0 ignores the prompt, w = 1 follows it, and a larger w exaggerates it"


@check("1.2 (e)")
def prediction(function: Function) -> str:
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
        "For v the signs are off: x_0 has minus sqrt(1 - alpha_bar) v.": (
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
            and all(isinstance(part, Tensor) for part in result),
            "`predict_x0_and_noise` returns two tensors: return x_0, noise.",
        )
        otherwise = f"For {prediction_type} x_0 is not right: solve the formulas above for it."
        diagnose(result[0], x_0, exchanged | mistakes, otherwise)
        advice = f"For {prediction_type} x_0 is right, but the noise is not"
        mistakes = {
            f"{advice}: that is v itself.": v,
            f"{advice}: the signs are off, both terms are added.": a.sqrt() * v
            - (1 - a).sqrt() * x_t,
            f"{advice}: the two roots are exchanged.": a.sqrt() * x_t + (1 - a).sqrt() * v,
        }
        diagnose(result[1], noise, mistakes if output is v else {}, f"{advice}.")
    expect(
        isinstance(call(function, x_t, noise, a, "sample", allow=ValueError), ValueError),
        "A third prediction type has to end in a ValueError: keep the first two lines, with "
        '"raise ValueError".',
    )
    return "x_0 and noise come out of epsilon and of v"


@check("1.2 (f)")
def ddim(function: Function) -> str:
    """One step of DDIM, with and without fresh noise."""
    x_0, noise, fresh = torch.randn(3, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    a, b = torch.tensor(0.3), torch.tensor(0.6)  # alpha_bar of t, and of the next timestep
    try:
        result = call(function, x_0, noise, a, b, 0.0, fresh)
    except CheckFailed as error:
        expect(
            "is not finite" not in str(error),
            "The result is NaN, the root of a negative number: in sigma the ratio is alpha_bar / "
            "alpha_bar_prev, which is below 1.",
        )
        raise
    expect.tensor(result, x_0.shape, "The result of the step")
    still, x_t = ddim_step(x_0, noise, a, b), add_noise(x_0, noise, a)
    image, rootless = b.sqrt() * x_0, b * x_0 + (1 - b) * noise
    old_noise, new_noise = (1 - a).sqrt() * noise, (1 - b).sqrt() * noise
    mistakes = {
        "That leads back to x_t: the new image mixes with alpha_bar_prev.": x_t,
        "The share of noise is sqrt(1 - alpha_bar_prev), not that of t.": image + old_noise,
        "The share of x_0 is sqrt(alpha_bar_prev), not that of t.": a.sqrt() * x_0 + new_noise,
        "The square roots are missing: sqrt(alpha_bar_prev), sqrt(1 - alpha_bar_prev).": rootless,
        "The noise term is missing: only the last step leaves none.": image,
        "`eta` is missing in sigma: at 0 no noise is fresh.": (
            ddim_step(x_0, noise, a, b, 1.0, fresh)
        ),
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
    result: Tensor, x_0: Tensor, noise: Tensor, fresh: Tensor, eta: float
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


SD_SCALING_FACTOR = 0.18215


@check("1.2 (h)")
def decoding(sd: Any, model: Model) -> str:
    """Latents become images, the scaling factor undone."""
    factor = sd.vae.config.scaling_factor
    shape = (1, sd.vae.config.latent_channels, 8, 8)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(model.device)
    result = call(sd.decode_latents, latents)
    side = 8 * model.scale_factor
    expect.tensor(result, (1, 3, side, side), "The result", "Images are the decoder's .sample.")

    def decoded(scale: float) -> Tensor:
        with torch.no_grad():
            return sd.vae.decode((latents * scale).to(sd.vae.dtype)).sample.float()

    right = decoded(1 / factor)
    use_own = "0.18215 is Stable Diffusion's scaling factor: use self.vae.config.scaling_factor."
    mistakes = {
        "The scaling factor was forgotten: decode latents / scaling_factor.": decoded(1),
        "Divide by the scaling factor; do not multiply.": decoded(factor),
        use_own: decoded(1 / SD_SCALING_FACTOR),
        "Leave the images in [-1, 1]: `to_pil` converts them later.": (right + 1) / 2,
    }
    otherwise = "Those are not the images that the decoder makes of these latents."
    diagnose(result, right, mistakes, otherwise, tolerance_of(model))
    expect(not result.requires_grad, "A gradient reaches the decoder: keep @torch.no_grad().")
    return f"latents divided by {factor:g}, the model's own scaling factor, and decoded"
