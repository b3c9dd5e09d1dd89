"""Checks of lesson 2."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from course.checks.common import (
    call,
    check,
    close,
    diagnose,
    expect,
    expect_tensor,
    expect_type,
    expect_value,
    tolerance_of,
)
from course.diffusion import add_noise, predict_x0


@check("2.1 (1)")
def denoised_windows(function: Callable[..., torch.Tensor]) -> str:
    """`denoise_windows` makes a step of DDIM of each window."""
    windows, noise = torch.randn((2, 3, 4, 5, 5), generator=torch.Generator().manual_seed(0))
    a, b = torch.tensor(0.4), torch.tensor(0.7)
    result = call(function, windows, noise, a, b)
    expect_tensor(result, windows.shape, "The result", "That is the shape of the windows.")
    x_0 = predict_x0(windows, noise, a)
    mistakes = {
        "The windows come back as they were: mix x_0 with noise at the level of "
        "`alpha_bar_prev`, not of t.": windows,
        "That is x_0, the finished image. Mix it with noise again, at the level of "
        "`alpha_bar_prev`.": x_0,
        "Formula (3) has roots: alpha_bar_prev.sqrt() and (1 - alpha_bar_prev).sqrt().": (
            b * x_0 + (1 - b) * noise
        ),
        "The noise is mixed with the windows as they are: it has to be mixed with x_0, from "
        "`predict_x0`.": add_noise(windows, noise, b),
        "The two roots are exchanged: the image has alpha_bar_prev.": add_noise(x_0, noise, 1 - b),
        "The noise is missing: + (1 - alpha_bar_prev).sqrt() * noise.": b.sqrt() * x_0,
    }
    otherwise = "The windows are not those of formula (3): look at its two roots."
    diagnose(result, add_noise(x_0, noise, b), mistakes, otherwise)
    return "each window is one level further"


Views = Sequence[Any]  # the rows and columns of each window


def _sample_views(
    window_views: Callable[..., Views],
) -> tuple[Views, torch.Tensor, tuple[int, int]]:
    """Return views that overlap unevenly and cross the wrap, their weights, and the size.

    The weights (N, 1, 4, 4) differ.
    """
    size = (6, 11)
    views = window_views(*size, 4, 3, True)
    weights = 0.1 + torch.rand((len(views), 1, 4, 4), generator=torch.Generator().manual_seed(1))
    return views, weights, size


def _scatter(
    values: torch.Tensor, views: Views, size: tuple[int, int], last: bool = False
) -> torch.Tensor:
    """Return the sum (1, C, h, w) of windows (N, C, w, w) at their places.

    last: the last window replaces the others instead.
    """
    total = torch.zeros((1, values.shape[1], *size), dtype=torch.float64)
    for value, (rows, columns) in zip(values.double(), views, strict=True):
        before = 0 if last else total[0, :, rows, columns]
        total[0, :, rows, columns] = before + value
    return total


@check("2.1 (2)")
def weight_sum(function: Callable[..., torch.Tensor], window_views: Callable[..., Views]) -> str:
    """`weight_sum` adds up the weights of all windows."""
    views, weights, size = _sample_views(window_views)
    result = call(function, views, weights, *size)
    if isinstance(result, torch.Tensor) and not result.any():
        expect_value(..., "What `weight_sum` adds up")
    expect_tensor(result, (1, 1, *size), "The sum of the weights")
    last = _scatter(weights, views, size, last=True)
    counts = _scatter(torch.ones_like(weights), views, size)
    mistakes = {
        "Where windows overlap, the last one alone counts: `+=`, not `=`.": last,
        "The windows are counted. Add up their weights: += weight, not += 1.": counts,
    }
    otherwise = "Those are not the sums of the weights: add each at its view, [rows, columns]."
    diagnose(result, _scatter(weights, views, size), mistakes, otherwise)
    return "the weights of all windows, each at its place, also across the wrap"


@check("2.1 (3)")
def fusion(function: Callable[..., torch.Tensor], window_views: Callable[..., Views]) -> str:
    """`fuse` is the weighted average, which is the least-squares solution."""
    views, weights, size = _sample_views(window_views)
    windows = torch.randn((len(views), 3, 4, 4), generator=torch.Generator().manual_seed(2))
    total = _scatter(weights, views, size)
    result = call(function, windows, views, weights, total.float())
    expect_tensor(result, (1, 3, *size), "The panorama")
    added = _scatter(weights * windows, views, size)
    counts = _scatter(torch.ones_like(weights), views, size)
    unweighted = _scatter(windows, views, size)
    last = _scatter(weights * windows, views, size, last=True)
    mistakes = {
        "Nothing has been added up: every window goes to its place in `value`.": 0 * added,
        "The windows are added up, but not averaged: divide by `total`.": added,
        "The windows are not weighted: weight * window.": unweighted / total,
        "All windows count the same: multiply each by its weight.": unweighted / counts,
        "Divide by `total`, the sum of the weights, not by the number of windows.": added / counts,
        "Where windows overlap, the last one alone counts: `+=`, not `=`.": last / total,
    }
    otherwise = "That is not the weighted average of formula (2)."
    diagnose(result, added / total, mistakes, otherwise)
    return "every latent pixel is the weighted average of the windows that see it"


@check("2.2 (4)")
def anchor_image(sd: Any) -> str:
    """`predict_anchor` decodes the predicted x_0 of the anchor's window."""
    window, noise = _sample_windows(sd, 2).split(1)
    alpha_bar = torch.tensor(0.3, device=window.device)
    with torch.enable_grad():  # so that it shows whether a gradient would flow
        result = call(sd.predict_anchor, window.clone().requires_grad_(), noise, alpha_bar, 0.5)
    expect_type(result, torch.Tensor, "That", "the image is a tensor.")
    shape = tuple(result.shape)
    expect(len(shape) == 4, f"The shape is {shape}; it has to be (1, 3, H, W).")
    expect(shape[1] == 3, f"The shape is {shape}: those are latents. Decode them.")
    with torch.no_grad():
        x_0 = predict_x0(window, noise, alpha_bar)
        right, now = sd.decode_small(x_0, 0.5), sd.decode_small(window, 0.5)
        large = sd.decode_small(x_0, 1)
    expect(
        shape != large.shape,
        "`scale` makes no difference: self.decode_small(x_0, scale) makes smaller images.",
    )
    mistakes = {"That is the anchor as it is now, noise and all: decode its x_0.": now}
    otherwise = "That is not the image of x_0, as `predict_x0` returns it for the anchor."
    diagnose(result, right, mistakes, otherwise, tolerance_of(sd.vae))
    expect(not result.requires_grad, "A gradient reaches the anchor: keep @torch.no_grad().")
    return "the anchor, as it will be"


@check("2.2 (5)")
def descent(sd: Any) -> str:
    """`descend` moves windows down the gradient of their distance to the anchor."""
    anchor_window, windows = _sample_windows(sd, 3).split([1, 2])
    to_images = lambda inputs: sd.decode_small(inputs, 0.5)
    with torch.no_grad():  # as sampling calls it
        anchor = to_images(anchor_window)
        result = call(sd.descend, windows, to_images, anchor, 1.0)
    expect_tensor(result, windows.shape, "The result, the moved windows,")
    with torch.enable_grad():
        inputs = windows.detach().requires_grad_()
        images = to_images(inputs)
        loss = 1024 * sd.distance(images, anchor.expand_as(images)).sum()
        gradient = torch.autograd.grad(loss, inputs)[0] / 1024
    moved = result.detach() - windows
    expect(moved.any(), "The windows come back as they were: return windows - weight * gradient.")
    tolerance = 2e-2 if sd.vae.dtype == torch.float32 else 0.2
    mistakes = {
        "Uphill: the windows move away from the anchor. Subtract the gradient.": gradient,
        "The gradient is still scaled up: divide it by `loss_scale`.": -1024 * gradient,
        "The sum was not multiplied by `loss_scale`, only divided by it.": -gradient / 1024,
        "Take the .sum() of the distances, not their mean.": -gradient / len(moved),
        "That is the gradient alone: subtract it from the windows.": -gradient - windows,
    }
    otherwise = (
        "The windows do not move along the gradient of their distance to the anchor: "
        "to_images(inputs) beside anchor."
    )
    diagnose(moved, -gradient, mistakes, otherwise, tolerance)
    with torch.no_grad():
        further = call(sd.descend, windows, to_images, anchor, 4.0)
    expect(
        close(further - windows, 4 * moved, tolerance),
        "`weight` makes no difference: multiply the gradient by it.",
    )
    expect(
        not result.requires_grad,
        "The moved windows keep a graph for gradients: subtract from windows, not from inputs.",
    )
    return "each window goes downhill, towards the look of the anchor"


def _sample_windows(sd: Any, count: int) -> torch.Tensor:
    """Return windows (count, C, 8, 8) of noise on the model's device, small so that it is quick."""
    shape = (count, sd.unet.config.in_channels, 8, 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(sd.model.device)
