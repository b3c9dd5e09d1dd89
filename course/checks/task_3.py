"""Checks of task 3."""

from collections.abc import Callable
from typing import Any

import torch

from course.checks.common import call, close, expect, passed, tolerance_of
from course.models import Model


def prompt_embedding(
    function: Callable[[str], torch.Tensor], model: Model, text_encoder: Any
) -> None:
    """Task 3 (a): `embed_text` gives the text encoder's vectors (L, D) of a text, short or long."""
    text, length = "a red car", model.text_length
    found = call(function, text)
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
    expect(
        found.shape != right.shape,
        "The result is a batch of one: leave out its first dimension, with [0].",
    )
    short = encode()[0]
    expect(
        found.shape != short.shape or short.shape == right[0].shape,
        f'The text encoder was trained on rows of {length} tokens: padding="max_length" and max_length.',
    )
    expect(
        found.shape == right[0].shape,
        f"The shape is {tuple(found.shape)}; it has to be {tuple(right[0].shape)}.",
    )
    expect(
        close(found, right[0], tolerance_of(model)),
        "Those are not the text encoder's vectors of that text.",
    )
    long = call(function, "a red car " * length, allow=Exception)
    expect(
        not isinstance(long, Exception),
        f"A long text ends in an error ({long}): truncation=True cuts it.",
    )
    expect(
        long.shape == found.shape,
        f"A long text gives {tuple(long.shape)}: truncation=True cuts it.",
    )
    expect(
        not found.requires_grad,
        "A gradient would flow into the text encoder: keep @torch.no_grad().",
    )
    passed("a text as vectors, always as many")


def sds_gradient(function: Callable[..., torch.Tensor]) -> None:
    """Task 3 (b): `sds_gradient` is w(t) times the predicted noise less the noise."""
    noise_pred, noise = torch.randn((2, 3, 4, 5, 5), generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([0.2, 0.7, 0.9]).reshape(3, 1, 1, 1)
    found = call(function, noise_pred, noise, weight)
    expect(
        isinstance(found, torch.Tensor),
        f"That is a {type(found).__name__}; the gradient is a tensor.",
    )
    expect(
        found.shape == noise.shape,
        f"The shape is {tuple(found.shape)}; the gradient has the shape of the latents, {tuple(noise.shape)}: "
        "nothing is summed up.",
    )
    apart = noise_pred - noise
    for wrong, advice in (
        (
            -weight * apart,
            "Uphill: that is the gradient with its sign turned round. Predicted noise less noise.",
        ),
        (apart, "The weight w(t) is missing."),
        (
            weight * noise_pred,
            "The noise that was added is missing: without it, all noise would be blamed on you.",
        ),
        (weight * apart.square(), "That is the squared error; its gradient has no square."),
        (2 * weight * apart, "DreamFusion leaves the factor 2 to w(t)."),
        (weight**2 * apart, "The weight counts once."),
        (apart / weight, "The weight is a factor."),
    ):
        expect(not close(found, wrong), advice)
    expect(close(found, weight * apart), "That is not w(t) (predicted noise - noise).")
    passed("the gradient of score distillation")


def sds_loss(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    """Task 3 (c): the gradient of `sds_loss(latents, gradient)` by the latents is `gradient` / B."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((3, 4, 5, 5), generator=generator).requires_grad_()
    # As if it came from the latents, through the denoiser: what leaves it attached would show.
    gradient = torch.randn((3, 4, 5, 5), generator=generator) + latents.detach() - latents
    value = gradient.detach().clone()
    found = call(function, latents, gradient)
    expect(
        isinstance(found, torch.Tensor), f"That is a {type(found).__name__}; the loss is a tensor."
    )
    expect(
        found.ndim == 0,
        f"The shape is {tuple(found.shape)}; backward() starts from one number: add them up, .sum().",
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
        expect(not close(reached, wrong), advice)
    expect(
        close(reached, right),
        "The gradient by the latents is not the one handed in: (latents * gradient).sum(), divided by their number.",
    )
    passed("a scalar with that gradient")
