"""Checks of the lesson on training, second part: what the trained network generates."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from PIL import Image
from torch import Tensor, nn

from course.checks.common import Function, call, check, close, diagnose, expect
from course.diffusion import (
    END,
    add_noise,
    alpha_bar_at,
    ddim_step,
    guide,
    predict_x0_and_noise,
    timesteps,
    velocity,
)


class ProbeUNet(nn.Module):
    """A stand-in for a U-Net that records what it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(
        self, sample: Tensor, timestep: Any, encoder_hidden_states: Any = None, **others: Any
    ) -> Any:
        t = torch.as_tensor(timestep)
        self.calls.append((sample.detach(), t, encoder_hidden_states))
        strength = encoder_hidden_states.mean((1, 2))[:, None, None, None]
        level = t.expand(len(sample))[:, None, None, None] / 1000
        output = self.weight * sample.tanh() + strength + level
        if not others.get("return_dict", True):
            return (output,)
        return UNet2DConditionOutput(sample=output)


@check("1.4 (e)")
def sampling(function: Function, scheduler: Any) -> str:
    """The whole sampling loop with the student's own network."""
    unet = ProbeUNet()
    generator = torch.Generator().manual_seed(0)
    x_T, states = (torch.randn(shape, generator=generator) for shape in ((2, 4, 4, 4), (2, 3, 2)))
    empty = torch.zeros(1, 3, 2)
    count, w = 7, 3.0
    start = x_T.clone()
    result = call(function, unet, scheduler, states, empty, x_T, count, w)
    expect.tensor(result, x_T.shape, "The result of `sample`")
    expect(close(start, x_T), "`x_T` itself was changed: give the result another name.")
    visited = [int(t.flatten()[0]) for _, t, _ in unet.calls]
    expect(visited, "The network was never called: predict the noise with `unet`.")
    chosen = timesteps(scheduler.config, count)
    expect(
        list(dict.fromkeys(visited)) == chosen,
        f"The network was called at the timesteps {list(dict.fromkeys(visited))}, not at {chosen}: "
        "take those of timesteps(scheduler.config, count), in this order.",
    )

    def reference(w: float = w, **changes: Any) -> Tensor:
        return _reference_sample(unet, scheduler, (states, empty, x_T), count, w, **changes)

    mistakes = {
        "Empty caption and prompt are exchanged: guide(uncond, cond, w).": (
            reference(exchanged=True)
        ),
        "The output is unguided: hand both outputs to `guide`, with guidance_scale.": reference(1),
        "The prompt has no effect: hand both outputs to `guide`.": reference(0),
        "The last step is missing, to alpha_bar_at(scheduler, END).": reference(steps=count - 1),
        "The noise stays as strong: mix with alpha_bar of the next timestep.": (
            reference(still=True)
        ),
        "The output was taken for the noise: this network predicts v.": reference(kind="epsilon"),
        "`x_T` came back: the loop has to continue with the result of each step.": x_T,
    }
    otherwise = (
        "The result is not that of DDIM with guidance: look at alpha_bar of t, and at that of the "
        "next timestep."
    )
    diagnose(result, reference(), mistakes, otherwise, 1e-3)
    expect(not result.requires_grad, "Sampling recorded gradients: keep @torch.no_grad().")
    return f"{count} guided steps of DDIM, from noise to latents"


def _reference_sample(
    unet: nn.Module,
    scheduler: Any,
    inputs: tuple[Tensor, Tensor, Tensor],
    count: int,
    w: float,
    exchanged: bool = False,
    steps: int | None = None,
    still: bool = False,
    kind: str = "v_prediction",
) -> Tensor:
    """Return the latents after DDIM; the last four arguments make the usual mistakes.

    inputs: states, empty and x_T of the student's function.
    """
    states, empty, x = inputs
    chosen = timesteps(scheduler.config, count)
    for t, t_prev in list(zip(chosen, [*chosen[1:], END], strict=True))[:steps]:
        a, b = alpha_bar_at(scheduler, t), alpha_bar_at(scheduler, t if still else t_prev)
        uncond, cond = (unet(x, t, s).sample.detach() for s in (empty.expand_as(states), states))
        output = guide(cond, uncond, w) if exchanged else guide(uncond, cond, w)
        x = ddim_step(*predict_x0_and_noise(x, output, a, kind), a, b)
    return x


@check("1.4 (g)")
def share_right(function: Function, images: Sequence[Any], pairs: Sequence[tuple[str, str]]) -> str:
    """The share of images in which the judge reads toy and color as asked for."""
    from course.metrics.judge import Judge

    wanted = [("duck", "red"), ("car", "blue"), ("cat", "red"), ("mug", "pink"), ("car", "red")]
    read = [
        {"object": "duck", "color": "red"},
        {"object": "car", "color": "red"},
        {"object": "dog", "color": "red"},
        {"object": "hat", "color": "pink"},
        {"object": "car", "color": "red"},
    ]
    result = call(function, read, wanted)
    expect.is_a(result, float | int, "The result", "it has to be a number: count / len(pairs).")
    mistakes = {
        "That counts toys alone: the color has to be right as well.": 3 / 5,
        "That counts colors alone: the toy has to be right as well.": 4 / 5,
        "That is the mean of both shares: count the images in which both are right.": 7 / 10,
        "One of the two is enough there: both have to be right (and, not or).": 1,
        "That is a number of images: divide it by how many there are.": 2,
        "That is in percent: return a share from 0 to 1.": 40,
    }
    expect(
        abs(result - 2 / 5) < 1e-6,
        next(
            (advice for advice, wrong in mistakes.items() if abs(result - wrong) < 1e-6),
            f"Of five images with two right the share is 0.4, not {result:g}.",
        ),
    )
    share = _share_right(Judge()(images), pairs)
    return f"the judge reads toy and color right in {share:.0%} of your {len(images)} images"


def _share_right(read: Sequence[Any], pairs: Sequence[tuple[str, str]]) -> float:
    right = [
        (attributes["object"], attributes["color"]) == tuple(pair)
        for attributes, pair in zip(read, pairs, strict=True)
    ]
    return sum(right) / len(right)


@check("1.4 (h)")
def loss_at_timestep(function: Function) -> str:
    """The loss at one timestep, for images and noise that are given."""
    generator = torch.Generator().manual_seed(0)
    x_0, noise = (torch.randn(3, 4, 4, 4, generator=generator) for _ in range(2))
    states = torch.randn(3, 3, 2, generator=generator)
    alpha_bar, t = torch.linspace(0.95, 0.05, 10), 6
    a = alpha_bar[t]
    unet = ProbeUNet()
    result = call(function, t, unet, x_0, states, noise, alpha_bar)
    expect(unet.calls, "The network was never called: it predicts v from x_t.")
    expect(
        isinstance(result, float),
        f"The result is a {type(result).__name__}: return a number, by .item().",
    )
    x_t, t_passed, passed = unet.calls[-1]
    expect(bool((t_passed == t).all()), f"The network was given the timestep {t_passed}, not {t}.")
    expect(passed is states or close(passed, states), "Hand `states` to the network.")
    expect(close(x_t, add_noise(x_0, noise, a)), "The network was not given x_t of formula (1).")
    output = unet(x_t, t, states).sample.detach()
    v = velocity(x_0, noise, a)
    mistakes = {
        "The output was compared with the noise: this network predicts v.": noise,
        "The output was compared with x_0: this network predicts v.": x_0,
        "The two roots are exchanged in v: noise has sqrt(alpha_bar).": (
            velocity(x_0, noise, 1 - a)
        ),
    }
    losses = {advice: (output - target).square().mean() for advice, target in mistakes.items()}
    losses["That is the sum of the squared errors: take the mean."] = (output - v).square().sum()
    right = (output - v).square().mean()
    otherwise = "That is not the mean of (output - v) squared."
    diagnose(torch.tensor(result), right, losses, otherwise, 1e-3)
    return "the loss at one timestep, on images and noise that stay the same"


@check("1.4 (i)")
def nearest(function: Function) -> str:
    """For each of the samples the index of the most similar training image."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(50, 4, 3, 3, generator=generator)
    latents[10] *= 0.01  # closest to all directions, largest in none
    indices = torch.tensor([7, 3, 42])
    samples = latents[indices] + 0.1 * torch.randn(3, 4, 3, 3, generator=generator)
    result = call(function, samples, latents)
    expect.is_a(result, Tensor, "The result", "it has to be a tensor of indices, (B,).")
    expect(
        result.shape == (3,),
        f"The result has the shape {tuple(result.shape)}, not (3,): one index for each sample. "
        "Flatten samples and latents to (B, n) and (N, n).",
    )
    expect(not result.is_floating_point(), "Those are distances: return their .argmin(dim=1).")
    distances = torch.cdist(samples.flatten(1), latents.flatten(1))
    expect(not (result == distances.argmax(1)).all(), "Those are the farthest images: use argmin.")
    expect(
        bool((result == indices).all()),
        "Those are not the nearest images: compare the distances of all numbers, sample by sample.",
    )
    return "the nearest training image of each sample, by the distance of their latents"


@check("1.4 challenge 1")
def challenge(
    images: Sequence[Any],
    baseline: Sequence[Any],
    pairs: Sequence[tuple[str, str]],
    seconds: float,
    limit: float,
) -> str:
    """More images read right than by the lesson's network, after no more seconds of training."""
    from course.metrics.judge import Judge

    expect.list_of(images, Image.Image, "`better_images`")
    expect.is_a(seconds, float | int, "`seconds`", "it has to be a number.")
    expect(
        len(images) == len(baseline) == len(pairs),
        f"There are {len(images)} images for {len(pairs)} captions: generate one for each, in "
        "the order of `pairs`.",
    )
    judge = Judge()
    own, other = (_share_right(judge(each), pairs) for each in (images, baseline))
    scores = f"{own:.0%} of your images are read right, {other:.0%} of the lesson's"
    expect(
        seconds <= 1.1 * limit,
        f"{scores}, but training took {seconds:.0f} s, and {limit:.0f} s are allowed.",
    )
    # After a handful of steps nobody has anything right.
    expect(own > other or own == other == 0, f"{scores}: more have to be right.")
    return f"{scores}, after {seconds:.0f} s of training"
