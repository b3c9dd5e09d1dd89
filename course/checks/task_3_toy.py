"""Checks of the toy of task 3 in two dimensions, and of the mistakes made on purpose."""

from typing import Any

import torch
from torch import Tensor

from course.checks.common import Function, call, check, diagnose, expect

NAMES = ("wrong sign", "no weighting", "noise not subtracted")


@check("3 (f)")
def mixture_noise(function: Function) -> str:
    """`mixture_noise` is the score of the noisy mixture, times -sqrt(1 - alpha_bar)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((6, 2), generator=generator)
    means = torch.tensor([[1.0, 0.5], [-1.0, 0.0], [0.2, -1.5]])
    alpha_bar = torch.tensor([0.95, 0.8, 0.6, 0.4, 0.2, 0.05])[:, None]
    spread = 0.3
    result = call(function, x, alpha_bar, means, spread)
    expect.tensor(result, x.shape, "The noise")

    def noise(
        variance: Tensor | None = None, root: float = 0.5, power: float = 2, factor: float = 0.5
    ) -> Tensor:
        v = alpha_bar * spread**2 + 1 - alpha_bar if variance is None else variance
        offsets = x[:, None] - (alpha_bar**root)[..., None] * means  # (B, K, 2)
        shares = (-(offsets.norm(dim=-1) ** power) / (power * v)).softmax(1)
        return (1 - alpha_bar) ** factor * (shares[..., None] * offsets).sum(1) / v

    right = noise()
    variance = alpha_bar * spread**2 + 1 - alpha_bar
    offsets = x[:, None] - alpha_bar.sqrt()[..., None] * means
    weights = (-offsets.square().sum(-1) / (2 * variance)).exp()
    squared = offsets.square().sum(-1)
    scale = (1 - alpha_bar).sqrt() / variance
    nearest = offsets[torch.arange(6), squared.argmin(1)]
    mistakes = {
        "That is the score times sqrt(1 - alpha_bar): the noise has the opposite sign.": -right,
        "That is minus the score: multiply it by sqrt(1 - alpha_bar).": noise(factor=0.0),
        "The factor is the root of 1 - alpha_bar.": noise(factor=1.0),
        "The means are not scaled by sqrt(alpha_bar).": noise(root=0.0),
        "The means are scaled by alpha_bar, not by its root.": noise(root=1.0),
        "The variance of noisy data is alpha_bar rho^2 + 1 - alpha_bar: the spread is left out.": (
            noise(1 - alpha_bar)
        ),
        "The variance of noisy data is alpha_bar rho^2 + 1 - alpha_bar, not rho^2 alone.": noise(
            torch.full_like(alpha_bar, spread**2)
        ),
        "The spread is a standard deviation: square it.": noise(alpha_bar * spread + 1 - alpha_bar),
        "The r_k are exponentials divided by their sum: softmax over the Gaussians.": scale
        * (weights[..., None] * offsets).sum(1),
        "All Gaussians count alike: weight them by r_k.": scale * offsets.mean(1),
        "The softmax runs over the points: over the Gaussians, dim=1.": scale
        * ((-squared / (2 * variance)).softmax(0)[..., None] * offsets).sum(1),
        "The exponent has a minus: the nearest Gaussian counts most.": scale
        * ((squared / (2 * variance)).softmax(1)[..., None] * offsets).sum(1),
        "The exponent is divided by 2 nu.": scale
        * ((-squared / variance).softmax(1)[..., None] * offsets).sum(1),
        "The distance in the exponent is squared.": scale
        * ((-squared.sqrt() / (2 * variance)).softmax(1)[..., None] * offsets).sum(1),
        "Only the nearest Gaussian counts: all do, weighted by r_k.": scale * nearest,
        "The sum is not divided by the variance.": right * variance,
    }
    otherwise = "That is not sqrt(1 - alpha_bar) sum_k r_k (x - sqrt(alpha_bar) mean_k) / nu."
    diagnose(result, right, mistakes, otherwise)
    return "mixture_noise: a perfect denoiser"


@check("3 (g)")
def mistakes(steps: Any, sds_step: Function) -> str:
    """Each of MISTAKES has the derivative that its mistake has, and no other."""
    expect.value(steps, "MISTAKES")
    rule = f"it has to be a dictionary with the steps {', '.join(map(repr, NAMES))}."
    expect.is_a(steps, dict, "MISTAKES", rule)
    missing = [name for name in NAMES if name not in steps]
    expect(not missing, f"MISTAKES has no {', '.join(map(repr, missing))}; {rule}")
    latents = torch.linspace(-1, 1, 2 * 4 * 3 * 3).reshape(2, 4, 3, 3).requires_grad_()
    alpha_bar, omega = (torch.tensor(v).reshape(2, 1, 1, 1) for v in ([0.8, 0.3], [0.5, 0.6]))

    def run(step: Function) -> Any:
        def predict(x_t: Tensor, t: Tensor) -> Tensor:
            return 0.3 * x_t + t[:, None, None, None] / 1000

        generator = torch.Generator().manual_seed(0)
        arguments = latents, torch.tensor([100, 700]), alpha_bar, omega, predict, generator
        return call(step, *arguments)

    right = run(sds_step)
    error, noise_pred = right.noise_pred - right.noise, right.noise_pred
    derivatives = {
        NAMES[0]: -omega * error / 2,
        NAMES[1]: error / 2,
        NAMES[2]: omega * noise_pred / 2,
    }
    for name, derivative in derivatives.items():
        loss: Any = getattr(run(steps[name]), "loss", None)
        expect.tensor(loss, (), f"The loss of {name!r}", "Return a step, as sds_step does.")
        expect(loss.requires_grad, f"No gradient reaches the latents from the loss of {name!r}.")
        [result] = torch.autograd.grad(loss, latents)
        cases = {
            f"The step {name!r} is right: it has to be wrong.": omega * error / 2,
            f"The loss of {name!r} is not divided by the number of images.": 2 * derivative,
            f"The step {name!r} has the opposite sign, too.": -derivative,
        }
        cases |= {
            f"The step {name!r} makes the mistake {other!r}.": wrong
            for other, wrong in derivatives.items()
            if other != name
        }
        otherwise = f"The derivative of the loss of {name!r} is another one: change only one thing."
        diagnose(result, derivative.detach(), cases, otherwise)
    return "three mistakes on purpose"
