"""Checks of task 3."""

from collections.abc import Callable
from typing import Any

import torch

from course.checks.common import (
    call,
    check,
    diagnose,
    expect,
    expect_tensor,
    expect_type,
    tolerance_of,
)
from course.models import Model


@check("3 (a)")
def prompt_embedding(
    function: Callable[[str], torch.Tensor], model: Model, text_encoder: Any
) -> str:
    """`embed_text` gives the text encoder's vectors (L, D) of a text, short or long."""
    text, length = "a red car", model.text_length
    result = call(function, text)
    advice = "the vectors are [0] of what the text encoder returns."
    expect_type(result, torch.Tensor, "That", advice)

    def encode(**options: Any) -> torch.Tensor:
        tokens = model.tokenizer(text, return_tensors="pt", **options)
        with torch.no_grad():
            return text_encoder(tokens.input_ids.to(text_encoder.device))[0]

    batch = encode(padding="max_length", max_length=length, truncation=True)  # (1, L, D)
    right, unpadded = batch[0], encode()[0]
    expect(result.is_floating_point(), "Those are the tokens: hand them to the text encoder.")
    expect(
        result.shape != batch.shape,
        "The result is a batch of one: leave out its first dimension, with [0].",
    )
    expect(
        result.shape != unpadded.shape or unpadded.shape == right.shape,
        f"The text encoder was trained on rows of {length} tokens: "
        'padding="max_length" and max_length.',
    )
    expect_tensor(result, right.shape, "The result")
    otherwise = "Those are not the text encoder's vectors of that text."
    diagnose(result, right, {}, otherwise, tolerance_of(model))
    long = call(function, "a red car " * length, allow=Exception)
    expect(
        isinstance(long, torch.Tensor) and long.shape == result.shape,
        "A long text gives an error or too many vectors: truncation=True cuts it.",
    )
    expect(not result.requires_grad, "A gradient reaches the text encoder: keep @torch.no_grad().")
    return "a text as vectors, always as many"


@check("3 (b)")
def sds_gradient(function: Callable[..., torch.Tensor]) -> str:
    """`sds_gradient` is w(t) times the predicted noise minus the noise."""
    noise_pred, noise = torch.randn((2, 3, 4, 5, 5), generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([0.2, 0.7, 0.9]).reshape(3, 1, 1, 1)
    result = call(function, noise_pred, noise, weight)
    expect_tensor(
        result,
        noise.shape,
        "The gradient",
        "It has the shape of the latents: nothing is summed up.",
    )
    error = noise_pred - noise
    mistakes = {
        "Uphill, the opposite sign: subtract the noise from the prediction.": -weight * error,
        "The weight w(t) is missing.": error,
        "The noise that was added is missing: subtract it.": weight * noise_pred,
        "That is the squared error; its gradient has no square.": weight * error.square(),
        "DreamFusion leaves the factor 2 to w(t).": 2 * weight * error,
        "The weight counts once.": weight**2 * error,
        "The weight is a factor.": error / weight,
    }
    otherwise = "That is not w(t) (predicted noise - noise)."
    diagnose(result, weight * error, mistakes, otherwise)
    return "the gradient of score distillation"


@check("3 (c)")
def sds_loss(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> str:
    """The gradient of `sds_loss(latents, gradient)` by the latents is `gradient` / B."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((3, 4, 5, 5), generator=generator).requires_grad_()
    # As if it came from the latents, through the denoiser: what leaves it attached shows.
    gradient = torch.randn((3, 4, 5, 5), generator=generator) + latents.detach() - latents
    value = gradient.detach().clone()
    result = call(function, latents, gradient)
    expect_tensor(result, (), "The loss", "backward() starts from one number: add them up.")
    expect(result.requires_grad, "No gradient reaches the latents: detach `gradient` alone.")
    [latents_gradient] = torch.autograd.grad(result, latents)
    right = value / len(value)
    mistakes = {
        "The sign is wrong: the latents would move away from the text.": -right,
        "Divide by the number of images, len(latents).": value,
        "The mean runs over all numbers, so larger images would learn less: "
        ".sum() / len(latents).": value / value.numel(),
        "The gradient is a constant here: .detach() it.": right - latents.detach() / len(value),
    }
    otherwise = (
        "The gradient by the latents is not the one handed in: (latents * gradient).sum(), divided "
        "by their number."
    )
    diagnose(latents_gradient, right, mistakes, otherwise)
    return "a scalar with that gradient"
