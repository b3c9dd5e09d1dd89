"""Checks of lesson 2."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from course.checks.common import call, close, expect, expect_tensor, made, passed


def denoised_windows(function: Callable[..., torch.Tensor]) -> None:
    """Task 2.1 (1): `denoise_windows` makes a step of DDIM of each window."""
    windows, noise = torch.randn((2, 3, 4, 5, 5), generator=torch.Generator().manual_seed(0))
    a, b = torch.tensor(0.4), torch.tensor(0.7)
    found = call(function, windows, noise, a, b)
    expect(
        isinstance(found, torch.Tensor),
        f"That is a {type(found).__name__}; the denoised windows are a tensor.",
    )
    expect(
        found.shape == windows.shape,
        f"The shape is {tuple(found.shape)}; denoised windows have the shape of the windows, {tuple(windows.shape)}.",
    )
    x_0 = (windows - (1 - a).sqrt() * noise) / a.sqrt()
    for wrong, advice in (
        (
            windows,
            "The windows come back as they were: mix x_0 with noise at the level of `alpha_bar_prev`, not of t.",
        ),
        (
            x_0,
            "That is x_0, the finished picture. Mix it with noise again, at the level of `alpha_bar_prev`.",
        ),
        (
            b * x_0 + (1 - b) * noise,
            "Formula (3) has roots: alpha_bar_prev.sqrt() and (1 - alpha_bar_prev).sqrt().",
        ),
        (
            b.sqrt() * windows + (1 - b).sqrt() * noise,
            "The noise is mixed with the windows as they are: it has to be mixed with x_0, from `foresee`.",
        ),
        (
            (1 - b).sqrt() * x_0 + b.sqrt() * noise,
            "The two roots are exchanged: the picture has alpha_bar_prev.",
        ),
        (b.sqrt() * x_0, "The noise is missing: + (1 - alpha_bar_prev).sqrt() * noise."),
    ):
        expect(not close(found, wrong), advice)
    right = b.sqrt() * x_0 + (1 - b).sqrt() * noise
    expect(close(found, right), "The windows are not those of formula (3): look at its two roots.")
    passed("each window is one level further")


def _some_views(
    window_views: Callable[..., Any],
) -> tuple[list[Any], torch.Tensor, tuple[int, int]]:
    """Views that overlap unevenly and go across the wrap, with weights (N, 1, 4, 4) that differ."""
    size = (6, 11)
    views = window_views(*size, 4, 3, True)
    weights = 0.1 + torch.rand((len(views), 1, 4, 4), generator=torch.Generator().manual_seed(1))
    return views, weights, size


def _brute_force(
    values: torch.Tensor, views: Sequence[Any], size: tuple[int, int], last: bool = False
) -> torch.Tensor:
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
    found = call(function, views, weights, *size)
    if isinstance(found, torch.Tensor) and not found.any():
        made(..., "What `overlaps` adds up")
    expect_tensor(found, (1, 1, *size), "the sum of the weights")
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
        expect(not close(found, wrong), advice)
    right = _brute_force(weights, views, size)
    expect(
        close(found, right),
        "Those are not the sums of the weights: add each where its view lies, [rows, columns].",
    )
    passed("the weights of all windows, each at its place, also across the wrap")


def fusion(function: Callable[..., torch.Tensor], window_views: Callable[..., Any]) -> None:
    """Task 2.1 (3): `fuse` is the weighted average, which is the least-squares solution."""
    views, weights, size = _some_views(window_views)
    windows = torch.randn((len(views), 3, 4, 4), generator=torch.Generator().manual_seed(2))
    total = _brute_force(weights, views, size)
    found = call(function, windows, views, weights, total.float())
    expect(
        isinstance(found, torch.Tensor) and tuple(found.shape) == (1, 3, *size),
        f"That is {tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__}; the panorama is a "
        f"tensor {(1, 3, *size)}.",
    )
    added = _brute_force(weights * windows, views, size)
    counts = _brute_force(torch.ones_like(weights), views, size)
    for wrong, advice in (
        (
            torch.zeros_like(added),
            "Nothing has been added up: every window goes to its place in `value`.",
        ),
        (added, "The windows are added up, but not averaged: divide by `total`."),
        (
            _brute_force(windows, views, size) / total,
            "The windows are not weighted: weight * window.",
        ),
        (
            _brute_force(windows, views, size) / counts,
            "All windows have the same say: multiply each by its weight.",
        ),
        (
            added / counts,
            "Divide by `total`, the sum of the weights, not by the number of windows.",
        ),
        (
            _brute_force(weights * windows, views, size, last=True) / total,
            "Where windows overlap, the last one alone counts: `+=`, not `=`.",
        ),
    ):
        expect(not close(found, wrong), advice)
    expect(close(found, added / total), "That is not the weighted average of formula (2).")
    passed("every latent pixel is the weighted average of the windows that see it")


def anchor_image(sd: Any) -> None:
    """Task 2.2 (4): `foresee_anchor` decodes what the anchor's window is foreseen to become."""
    window, noise = _some_windows(sd, 2).split(1)
    alpha_bar = torch.tensor(0.3, device=window.device)
    tolerance = 1e-3 if sd.vae.dtype == torch.float32 else 3e-2
    with torch.enable_grad():  # so that it shows whether a gradient would flow
        found = call(sd.foresee_anchor, window.clone().requires_grad_(), noise, alpha_bar, 0.5)
    expect(
        isinstance(found, torch.Tensor),
        f"That is a {type(found).__name__}; the picture is a tensor.",
    )
    x_0 = (window - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()
    expect(found.ndim == 4, f"The shape is {tuple(found.shape)}; it has to be (1, 3, H, W).")
    expect(
        found.shape[1] == 3, f"The shape is {tuple(found.shape)}: those are latents. Decode them."
    )
    with torch.no_grad():
        right, now, large = (
            sd.decode_small(x_0, 0.5),
            sd.decode_small(window, 0.5),
            sd.decode_small(x_0, 1),
        )
    expect(
        found.shape != large.shape,
        "`scale` makes no difference: self.decode_small(x_0, scale) makes smaller pictures.",
    )
    expect(
        not close(found, now, tolerance),
        "That is the anchor as it is now, noise and all: decode its x_0.",
    )
    expect(
        close(found, right, tolerance),
        "That is not the picture of x_0, as `foresee` has it for the anchor.",
    )
    expect(not found.requires_grad, "A gradient would flow into the anchor: keep @torch.no_grad().")
    passed("the anchor, as it will be")


def descent(sd: Any) -> None:
    """Task 2.2 (5): `descend` moves windows down the gradient of their distance to the anchor."""
    windows = _some_windows(sd, 3)
    look = lambda own: sd.decode_small(own, 0.5)
    with torch.no_grad():
        anchor = look(windows[:1])
    with torch.no_grad():  # as sampling calls it
        found = call(sd.descend, windows[1:], look, anchor, 1.0)
    expect_tensor(found, windows[1:].shape, "the moved windows")
    with torch.enable_grad():
        own = windows[1:].detach().requires_grad_()
        images = look(own)
        [gradient] = torch.autograd.grad(
            1024 * sd.distance(images, anchor.expand_as(images)).sum(), own
        )
    gradient, moved = gradient / 1024, found.detach() - windows[1:]
    expect(
        moved.abs().max() > 0,
        "The windows come back as they were: return windows - weight * gradient.",
    )
    tolerance = 2e-2 if sd.vae.dtype == torch.float32 else 0.2
    for factor, advice in (
        (1.0, "Uphill: the windows move away from the anchor. Subtract the gradient."),
        (-1024.0, "The gradient is still enlarged: divide it by `enlarged`."),
        (-1 / 1024, "The gradient is divided by `enlarged`, but the sum was not multiplied by it."),
        (
            -1 / len(moved),
            "Every window gets too little: take the .sum() of the distances, not their mean.",
        ),
    ):
        expect(not close(moved, factor * gradient, tolerance), advice)
    expect(
        not close(found, -gradient, tolerance),
        "That is the gradient alone: it is to be subtracted from the windows.",
    )
    expect(
        close(moved, -gradient, tolerance),
        "The windows do not move along the gradient of their distance to the anchor: look(own) beside anchor.",
    )
    with torch.no_grad():
        further = call(sd.descend, windows[1:], look, anchor, 4.0)
    expect(
        close(further - windows[1:], 4 * moved, tolerance),
        "`weight` makes no difference: multiply the gradient by it.",
    )
    expect(
        not found.requires_grad,
        "The moved windows drag a graph of gradients along: return windows, not own.",
    )
    passed("each window goes downhill, towards the look of the anchor")


def _some_windows(sd: Any, count: int) -> torch.Tensor:
    """Windows (count, C, 8, 8) of noise, small so that a check takes seconds, on the model's device."""
    shape = (count, sd.unet.config.in_channels, 8, 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(sd.model.device)
