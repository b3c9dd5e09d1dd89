"""Checks of lesson 2, section 3: the anchor, the descent, and synchronization as in the paper."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from course.checks.common import Function, call, check, close, diagnose, expect, tolerance_of
from course.checks.reference import sample_windows
from course.diffusion import predict_x0

LOSS_SCALE = 1024


@check("2.2 (4)")
def anchor_image(sd: Any) -> str:
    """`predict_anchor` decodes the predicted x_0 of the anchor's window."""
    window, noise = sample_windows(sd, 2).split(1)
    alpha_bar = torch.tensor(0.3, device=window.device)
    with torch.enable_grad():  # so that it shows whether a gradient would flow
        result = call(sd.predict_anchor, window.clone().requires_grad_(), noise, alpha_bar, 0.5)
    expect.is_a(result, Tensor, "That", "the image is a tensor.")
    shape = tuple(result.shape)
    expect(len(shape) == 4, f"The shape is {shape}; it has to be (1, 3, H, W).")
    expect(shape[1] == 3, f"The shape is {shape}: those are latents. Decode them.")
    with torch.no_grad():
        x_0 = predict_x0(window, noise, alpha_bar)
        right, now = sd.decode_small(x_0, 0.5), sd.decode_small(window, 0.5)
        large = sd.decode_small(x_0, 1)
    expect(shape != large.shape, "`scale` makes no difference: self.decode_small(x_0, scale).")
    mistakes = {"That is the anchor as it is now, with its noise: decode its x_0.": now}
    otherwise = "That is not the image of x_0, as `predict_x0` returns it for the anchor."
    diagnose(result, right, mistakes, otherwise, tolerance_of(sd.vae))
    expect(not result.requires_grad, "A gradient reaches the anchor: keep @torch.no_grad().")
    return "the predicted image of the anchor"


@check("2.2 (5)")
def descent(sd: Any) -> str:
    """`descend` moves windows down the gradient of their distance to the anchor."""
    anchor_window, windows = sample_windows(sd, 3).split([1, 2])
    to_images = lambda inputs: sd.decode_small(inputs, 0.5)
    with torch.no_grad():  # as sampling calls it
        anchor = to_images(anchor_window)
        result = call(sd.descend, windows, to_images, anchor, 1.0)
    expect.tensor(result, windows.shape, "The result, the moved windows,")
    gradient = _distance_gradient(sd, windows, to_images, anchor)
    moved = result.detach() - windows
    expect(moved.any(), "The windows come back as they were: return windows - weight * gradient.")
    tolerance = 2e-2 if sd.vae.dtype == torch.float32 else 0.2
    mistakes = {
        "Uphill: the windows move away from the anchor. Subtract the gradient.": gradient,
        "The gradient is still scaled up: divide it by `loss_scale`.": -LOSS_SCALE * gradient,
        "The sum was not multiplied by `loss_scale`, only divided by it.": -gradient / LOSS_SCALE,
        "Take the .sum() of the distances, not their mean.": -gradient / len(moved),
        "That is the gradient alone: return windows - weight * gradient.": -gradient - windows,
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
        "`weight` makes no difference: multiply by it.",
    )
    expect(
        not result.requires_grad,
        "It keeps a graph for gradients: subtract from windows, not inputs.",
    )
    return "each window goes downhill, toward the look of the anchor"


@check("2.2 (e)")
def synchronization(sd: Any) -> str:
    """`synchronize` is formula (4): all windows but the anchor descend, through the denoiser."""
    windows = sample_windows(sd, 3)
    alpha_bar = torch.tensor(0.4, device=windows.device)
    factors = torch.tensor([0.2, 0.5, 0.9], device=windows.device)[:, None, None, None]

    def predict(inputs: Tensor, part: Any = slice(None)) -> Tensor:
        own = factors[part]
        expect(
            len(own) == len(inputs),
            f"`predict` gets {len(inputs)} windows for {len(own)} prompts: say which windows they "
            "are, predict(inputs, part), with a slice or their indices.",
        )
        return own * inputs.tanh()  # a denoiser that a gradient goes through

    synchronize = lambda weight, scale=0.5: call(
        sd.synchronize, windows, predict, alpha_bar, weight, scale
    )
    with torch.no_grad():
        result = synchronize(1.0)
    advice = "return the moved windows alone; the caller predicts their noise again."
    expect.is_a(result, Tensor, "The result", advice)
    expect.tensor(result, windows.shape, "The result, the moved windows,")
    moved = result.detach() - windows
    expect(moved.any(), "The windows come back as they were: return what they become.")
    right, mistakes = _synchronized_moves(sd, windows, predict, alpha_bar)
    otherwise = "The windows do not move as in formula (4)."
    tolerance = 2e-2 if sd.vae.dtype == torch.float32 else 0.2
    others = torch.tensor([1, 0, 1], device=windows.device)[:, None, None, None]
    mistakes = {advice: others * step for advice, step in mistakes.items()}
    diagnose(others * moved, right, mistakes, otherwise, tolerance)
    expect(close(moved, right, tolerance), "The anchor moves: it is the goal of the others.")
    with torch.no_grad():
        expect(
            close(synchronize(4.0) - windows, 4 * moved, tolerance),
            "`weight` makes no difference: pass it on.",
        )
    expect(not result.requires_grad, "The moved windows keep a graph for gradients: .detach().")
    return "all windows descend toward the anchor, through decoder and denoiser"


def _synchronized_moves(
    sd: Any, windows: Tensor, predict: Function, alpha_bar: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return how formula (4) moves three windows at half size, and how usual mistakes move them."""
    images = lambda own, part, scale=0.5: sd.decode_small(
        predict_x0(own, predict(own, part), alpha_bar), scale
    )

    def steps(to_images: Any, anchor_image: Tensor) -> Tensor:
        """Return the moves of all windows toward an anchor, each by its own gradient."""
        gradients = []
        for i in range(len(windows)):
            own = partial(to_images, part=slice(i, i + 1))
            gradients.append(_distance_gradient(sd, windows[i : i + 1], own, anchor_image))
        return -torch.cat(gradients)

    with torch.no_grad():
        anchors = [images(windows[i : i + 1], slice(i, i + 1)) for i in range(3)]
        now = sd.decode_small(windows[1:2], 0.5)
        large = images(windows[1:2], slice(1, 2), 1)
    right = steps(images, anchors[1])
    fixed = lambda own, part: sd.decode_small(
        predict_x0(own, predict(own.detach(), part), alpha_bar), 0.5
    )
    mistakes = {
        "Uphill: the windows move away from the anchor.": -right,
        "The first window is the anchor: take the middle one, windows[middle : middle + 1].": steps(
            images, anchors[0]
        ),
        "The last window is the anchor: take the middle one.": steps(images, anchors[2]),
        "The anchor is compared as it is now, with its noise: `predict_anchor` needs the noise "
        "that `predict` finds in it.": steps(images, now),
        "The windows are compared as they are now, with their noise: decode their x_0.": steps(
            lambda own, part: sd.decode_small(own, 0.5), anchors[1]
        ),
        "No gradient flows through the denoiser: predict the noise inside `to_images`, from its "
        "own argument.": steps(fixed, anchors[1]),
        "`scale` makes no difference: pass it to predict_anchor and decode_small.": steps(
            lambda own, part: images(own, part, 1), large
        ),
    }
    return right, mistakes


@check("2.2 (h)")
def short_cut(sd: Any) -> str:
    """`synchronize_x0` moves x_0 along the gradient, by a length of its own."""
    windows, noise = sample_windows(sd, 6).chunk(2)
    alpha_bar, weight = torch.tensor(0.4, device=windows.device), 0.5
    x_0 = predict_x0(windows, noise, alpha_bar)
    with torch.no_grad():
        result = call(sd.synchronize_x0, windows, noise, alpha_bar, weight, 0.5)
        again = call(sd.synchronize_x0, windows, noise, alpha_bar, 2 * weight, 0.5)
        anchor = sd.decode_small(x_0[1:2], 0.5)
    expect.is_a(result, Tensor, "The result", "return the moved windows alone.")
    expect.tensor(result, windows.shape, "The result, the moved windows,")
    moved = result.detach() - windows
    expect(moved.any(), "The windows come back as they were: return what they become.")
    gradient = _distance_gradient(sd, x_0, lambda own: sd.decode_small(own, 0.5), anchor)
    root = lambda values: values.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    step = -gradient * torch.tensor([1, 0, 1], device=windows.device)[:, None, None, None]
    direction = step / root(step).clamp_min(1e-12)
    right = weight * alpha_bar.sqrt() * direction
    from_x_0 = x_0 + right / alpha_bar.sqrt() - windows
    whole = step / step.square().mean().sqrt()
    first = _distance_gradient(
        sd, x_0, lambda own: sd.decode_small(own, 0.5), sd.decode_small(x_0[:1], 0.5).detach()
    )
    mistakes = {
        "Uphill: the windows move away from the anchor.": -right,
        "That is x_0, moved: add the move to the windows, which have noise in them.": from_x_0,
        "The move of x_0 is added whole: multiply it by alpha_bar.sqrt().": (
            right / alpha_bar.sqrt()
        ),
        "The move is multiplied by alpha_bar: take its root.": right * alpha_bar.sqrt(),
        "The move is not divided by its root mean square.": weight * alpha_bar.sqrt() * step,
        "The move is not rescaled: divide that of 1000 times the gradient by its root mean "
        "square.": weight * alpha_bar.sqrt() * 1000 * step,
        "The root mean square is that of all windows together: take it of each window, "
        "dim=(1, 2, 3).": weight * alpha_bar.sqrt() * whole,
        "`weight` makes no difference: it is the root mean square of the move.": right / weight,
        "The length is the norm, not the root mean square: take the mean of the squares.": (
            right / direction[0].numel() ** 0.5
        ),
        "The first window is the anchor: take the middle one.": (
            -weight * alpha_bar.sqrt() * first / root(first).clamp_min(1e-12)
        ),
    }
    otherwise = "The windows do not move along the gradient of the distance in x_0."
    tolerance = 2e-2 if sd.vae.dtype == torch.float32 else 0.2
    diagnose(moved, right, mistakes, otherwise, tolerance)
    expect(
        close(again - windows, 2 * moved, tolerance),
        "`weight` makes no difference: it is the root mean square of the move.",
    )
    return "x_0 moves toward the anchor by a length that you choose"


def _distance_gradient(sd: Any, windows: Tensor, to_images: Function, anchor: Tensor) -> Tensor:
    """Return the gradient by `windows` of the distances of their images to the anchor."""
    with torch.enable_grad():
        inputs = windows.detach().requires_grad_()
        images = to_images(inputs)
        loss = LOSS_SCALE * sd.distance(images, anchor.expand_as(images)).sum()
        gradient: Tensor = torch.autograd.grad(loss, inputs)[0] / LOSS_SCALE
    return gradient
