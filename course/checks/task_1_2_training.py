"""Checks of the lesson on training."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

from course.checks.common import call, check, close, diagnose, expect, expect_tensor, expect_type
from course.diffusion import add_noise, alpha_bar_at, ddim_step, guide, predict_x0, timesteps

ALPHA_BAR = torch.linspace(0.95, 0.05, 10)  # of a schedule of ten timesteps


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


@check("1.2 training (a)")
def caption_dropout(function: Callable[..., Tensor]) -> str:
    """`drop_captions` replaces some captions of a batch by the empty one."""
    count, probability = 4000, 0.2
    states = 1 + torch.rand(count, 3, 2, generator=torch.Generator().manual_seed(0))
    original = states.clone()
    empty = torch.zeros(1, 3, 2)

    def attempt(p: float, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        result = call(function, states, empty, p, generator)
        expect_tensor(result, states.shape, "The result", "It has the states of every caption.")
        expect(
            bool((states == original).all()),
            "`states` itself was changed: return a new tensor, for example by torch.where.",
        )
        return result

    result = attempt(probability)
    dropped, kept = (result == empty).flatten(1), (result == states).flatten(1)
    expect(
        bool((dropped | kept).all()),
        "Some states are neither those of the caption nor those of the empty one.",
    )
    expect(
        bool((dropped.all(1) | kept.all(1)).all()),
        "Only a part of a caption was replaced: draw one random number for each caption, not for "
        "each token or number, in the shape (B, 1, 1).",
    )
    share = dropped.all(1).float().mean().item()
    expect(share > 0, "No caption was replaced: compare random numbers with `probability`.")
    expect(
        share < 1,
        "All captions were replaced at once: draw one random number for each of the B captions.",
    )
    expect(
        abs(share - (1 - probability)) > 0.03,
        f"{share:.0%} of the captions were replaced at probability {probability}: exchange the "
        "two, so that a random number below `probability` takes the empty caption.",
    )
    expect(
        abs(share - probability) < 0.03,
        f"{share:.0%} of the captions were replaced at probability {probability}.",
    )
    expect(close(attempt(0.0), states), "At probability 0 every caption has to stay.")
    expect(not attempt(1.0).any(), "At probability 1 every caption has to be the empty one.")
    expect(
        close(attempt(probability), result),
        "Two calls with generators of one seed differ: use torch.rand(..., generator=generator).",
    )
    expect(not close(attempt(probability, 1), result), "The choice does not depend on `generator`.")
    return "some captions are replaced by the empty one, each as a whole and by chance"


@check("1.2 training (b)")
def training_loss(function: Callable[..., Tensor]) -> str:
    """The loss at random timesteps: noise is mixed in and predicted."""
    unet = ProbeUNet()
    states = torch.randn(512, 3, 2, generator=torch.Generator().manual_seed(1))

    def attempt(x_0: Tensor, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss, x_t and t."""
        unet.calls.clear()
        generator = torch.Generator().manual_seed(seed)
        loss = call(function, unet, x_0, states, ALPHA_BAR, generator)
        _expect_call(unet, x_0, states)
        x_t, t, _ = unet.calls[-1]
        return loss, x_t, t

    shape = (512, 4, 4, 4)
    zeros, images = torch.zeros(shape), torch.full(shape, 1e4)
    _, only_noise, t = attempt(zeros)
    _expect_timesteps(t)
    _expect_mixture(only_noise, attempt(images), t)
    x_0 = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    loss, x_t, t = attempt(x_0)
    a = ALPHA_BAR[t][:, None, None, None]
    noise = (x_t - a.sqrt() * x_0) / (1 - a).sqrt()
    _expect_loss(loss, unet, x_t, t, states, x_0, noise)
    again, x_t_again, t_again = attempt(x_0)
    expect(
        close(x_t, x_t_again) and bool((t == t_again).all()),
        "Two calls with generators of one seed differ: hand `generator=generator` to torch.randint "
        "and torch.randn.",
    )
    expect(
        not close(x_t, attempt(x_0, 1)[1]) and not bool((t == attempt(x_0, 1)[2]).all()),
        "Another seed gives the same timesteps or the same noise: draw both anew in every call.",
    )
    del again
    return "noise of random strength is mixed in, and the loss is the squared error of the guess"


def _expect_call(unet: ProbeUNet, x_0: Tensor, states: Tensor) -> None:
    """Raise CheckFailed unless the network was called as training calls it."""
    expect(unet.calls, "The network was never called: predict the noise with `unet`.")
    x_t, t, passed = unet.calls[-1]
    expect(
        x_t.shape == x_0.shape,
        f"The network was given latents of shape {tuple(x_t.shape)}; x_t has that of x_0, "
        f"{tuple(x_0.shape)}. Give alpha_bar[t] the shape (B, 1, 1, 1).",
    )
    expect(
        t.shape == (len(x_0),),
        f"The timesteps have the shape {tuple(t.shape)}: draw one for each image of the batch, "
        f"({len(x_0)},).",
    )
    expect(not t.is_floating_point(), "The timesteps are no whole numbers: use torch.randint.")
    expect(
        isinstance(passed, Tensor) and passed.shape == states.shape and close(passed, states),
        "The network has to be given `states` as encoder_hidden_states, unchanged.",
    )


def _expect_timesteps(t: Tensor) -> None:
    """Raise CheckFailed unless all ten timesteps are equally likely."""
    last = len(ALPHA_BAR) - 1
    expect(
        t.min() != t.max(),
        "All images have the same timestep: draw one for each image of the batch.",
    )
    expect(
        (t.min(), t.max()) == (0, last),
        f"Of a schedule with {last + 1} timesteps you drew those from {t.min()} to {t.max()}: "
        f"they are 0 to {last}, which is torch.randint(0, len(alpha_bar), ...).",
    )
    share = torch.bincount(t, minlength=last + 1) / len(t)
    expect(share.max() < 0.25, "Some timesteps come far too often: they are equally likely.")


def _expect_mixture(only_noise: Tensor, images: tuple[Tensor, Tensor, Tensor], t: Tensor) -> None:
    """Raise CheckFailed unless x_t is the mixture of images and normal noise at each timestep."""
    _, x_t, t_images = images
    noise_scale = torch.stack([only_noise[t == k].std() for k in range(len(ALPHA_BAR))])
    scale = torch.stack([x_t[t_images == k].mean() for k in range(len(ALPHA_BAR))]) / 1e4
    a, b = ALPHA_BAR, 1 - ALPHA_BAR

    def alike(x: Tensor, y: Tensor) -> bool:
        return close(x, y, 0.1)

    expect(noise_scale.max() > 1e-3, "There is no noise in x_t.")
    expect(
        not (alike(scale, b.sqrt()) and alike(noise_scale, a.sqrt())),
        "Image and noise are exchanged: x_0 is multiplied by sqrt(alpha_bar).",
    )
    expect(
        not (alike(scale, a) or alike(noise_scale, b)),
        "The square roots are missing: sqrt(alpha_bar), sqrt(1 - alpha_bar).",
    )
    expect(
        not alike(noise_scale, b.sqrt() / 12**0.5),
        "That noise is uniform: torch.randn draws normal noise.",
    )
    expect(
        not alike(noise_scale, torch.ones(10)),
        "The noise is as strong at all timesteps: multiply it by sqrt(1 - alpha_bar).",
    )
    expect(
        not alike(scale, torch.ones(10)),
        "The image is as strong at all timesteps: multiply it by sqrt(alpha_bar).",
    )
    expect(
        alike(scale, a.sqrt()) and alike(noise_scale, b.sqrt()),
        "x_t is not sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise, with alpha_bar of each "
        "image's own timestep.",
    )
    noise = only_noise / b[t].sqrt()[:, None, None, None]
    expect(
        not close(noise[0], noise[1], 0.1) and noise[0].std() > 0.5,
        "All images have the same noise: draw it in the shape of x_0.",
    )


def _expect_loss(
    loss: Tensor,
    unet: ProbeUNet,
    x_t: Tensor,
    t: Tensor,
    states: Tensor,
    x_0: Tensor,
    noise: Tensor,
) -> None:
    """Raise CheckFailed unless the loss is the mean squared error of the predicted noise."""
    expect_type(loss, Tensor, "The loss", "it has to be a tensor with a gradient.")
    predicted = unet(x_t, t, states).sample.detach()
    error = predicted - noise
    expect(
        loss.dim() == 0,
        f"The loss has the shape {tuple(loss.shape)}: it is one number, the mean over everything.",
    )
    mistakes = {
        "That is the sum of the squared errors: take the mean.": error.square().sum(),
        "That is the mean over the images of a sum: take the mean over everything.": (
            error.square().flatten(1).sum(1).mean()
        ),
        "That is the absolute error: square it.": error.abs().mean(),
        "That is the root of the mean squared error: leave the root out.": (
            error.square().mean().sqrt()
        ),
        "The positive and negative errors cancel: square them before the mean.": error.mean(),
        "The output was compared with x_0: this network predicts the noise.": (
            (predicted - x_0).square().mean()
        ),
        "The output was compared with x_t: it has to be close to the noise alone.": (
            (predicted - x_t).square().mean()
        ),
    }
    otherwise = "The loss is not the mean of (predicted noise - noise) squared."
    diagnose(loss, error.square().mean(), mistakes, otherwise)
    expect(
        loss.requires_grad,
        "The loss has no gradient: training needs one, so use no torch.no_grad() and no .detach().",
    )


@check("1.2 training (c)")
def training_step(function: Callable[..., Any]) -> str:
    """`take_step` lowers the loss by one step of the optimizer and updates the running average."""
    from diffusers.training_utils import EMAModel

    network = nn.Linear(3, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    ema = EMAModel(network.parameters(), decay=0.5)
    slopes = torch.tensor([[0.0, 3.0, 4.0], [0.1, 0.2, 0.2]])
    weight, average = torch.ones(1, 3), torch.ones(1, 3)
    for number, slope in enumerate(slopes, 1):
        before = copy.deepcopy(network.weight.detach())
        loss = (network.weight * slope).sum()
        result = call(function, loss, network, optimizer, ema)
        expect(
            isinstance(result, float) and abs(result - loss.item()) < 1e-6,
            f"`take_step` returns {result}: return the loss as a number, loss.item().",
        )
        moved = network.weight.detach() - before
        clipped = slope / slope.norm().clamp_min(1)
        stale = slopes.sum(0) / slopes.sum(0).norm().clamp_min(1)
        mistakes = {
            "The weights do not change: compute gradients by loss.backward(), then call "
            "optimizer.step(); optimizer.zero_grad() comes before both.": torch.zeros(1, 3),
            "The gradients of the step before are still in there: call optimizer.zero_grad() "
            "first.": -0.1 * (stale if number == 2 else 7 * clipped)[None],
            "The gradient was not clipped: call clip_grad_norm_(unet.parameters(), 1.0) between "
            "loss.backward() and optimizer.step().": -0.1 * slope[None],
        }
        if number == 2:  # its gradient is short enough not to be clipped
            mistakes.popitem()
        otherwise = f"After step {number} the weights are not those of one step of the optimizer."
        diagnose(moved, -0.1 * clipped[None], mistakes, otherwise, 1e-3)
        weight = weight - 0.1 * clipped
        decay = ema.cur_decay_value if ema.optimization_step else 0.0
        average = decay * average + (1 - decay) * weight
        expect(
            ema.optimization_step == number,
            "The running average was not updated once: call ema.step(unet.parameters()) at the "
            "end.",
        )
        expect(
            close(ema.shadow_params[0], average, 1e-3),
            "The running average was updated before the weights: call ema.step last.",
        )
    return "gradients cleared, computed, clipped and applied; then the average is updated"


@check("1.2 training (d)")
def sampling(function: Callable[..., Tensor], scheduler: Any) -> str:
    """The whole sampling loop with the student's own network."""
    unet = ProbeUNet()
    generator = torch.Generator().manual_seed(0)
    x_T, states = (torch.randn(shape, generator=generator) for shape in ((2, 4, 4, 4), (2, 3, 2)))
    empty = torch.zeros(1, 3, 2)
    count, w = 7, 3.0
    start = x_T.clone()
    result = call(function, unet, scheduler, states, empty, x_T, count, w)
    expect_tensor(result, x_T.shape, "The result of `sample`")
    expect(close(start, x_T), "`x_T` itself was changed: give the result another name.")
    visited = [int(t.flatten()[0]) for _, t, _ in unet.calls]
    expect(visited, "The network was never called: predict the noise with `unet`.")
    chosen = timesteps(scheduler.config, count)
    expect(
        list(dict.fromkeys(visited)) == chosen,
        f"The network was called at the timesteps {list(dict.fromkeys(visited))}, not at {chosen}: "
        "take those of timesteps(scheduler.config, count), in this order.",
    )

    def reference(
        w: float = w, exchanged: bool = False, steps: int = count, still: bool = False
    ) -> Tensor:
        x = x_T
        pairs = list(zip(chosen, [*chosen[1:], -1], strict=True))
        for t, t_prev in pairs[:steps]:
            a, b = alpha_bar_at(scheduler, t), alpha_bar_at(scheduler, t if still else t_prev)
            outputs = [unet(x, t, s).sample.detach() for s in (empty.expand_as(states), states)]
            noise = guide(*(outputs[::-1] if exchanged else outputs), w)
            x = ddim_step(predict_x0(x, noise, a), noise, a, b)
        return x

    mistakes = {
        "Empty caption and prompt are exchanged: guide(uncond, cond, guidance_scale).": (
            reference(exchanged=True)
        ),
        "The output is unguided: hand both outputs to `guide`, with guidance_scale.": reference(1),
        "The prompt has no effect: hand both outputs to `guide`, with guidance_scale.": (
            reference(0)
        ),
        "The last step is missing: it leads from the last timestep to alpha_bar_at(scheduler, "
        "END).": reference(steps=count - 1),
        "The noise stays as strong as it was: mix again with alpha_bar of the next timestep.": (
            reference(still=True)
        ),
        "`x_T` came back: the loop has to continue with the result of each step.": x_T,
    }
    otherwise = (
        "The result is not that of DDIM with guidance: look at alpha_bar of t, and at that of the "
        "next timestep."
    )
    diagnose(result, reference(), mistakes, otherwise, 1e-3)
    expect(
        not result.requires_grad,
        "Sampling recorded gradients, which costs memory: keep @torch.no_grad().",
    )
    return f"{count} guided steps of DDIM, from noise to latents"


@check("1.2 training (e)")
def share_right(
    function: Callable[..., float], images: Sequence[Any], pairs: Sequence[tuple[str, str]]
) -> str:
    """The share of images in which the judge reads toy and color as asked for."""
    from course.metrics.judge import Judge

    wanted = [("duck", "red"), ("car", "blue"), ("cat", "red"), ("mug", "pink"), ("car", "red")]
    read = [
        {"object": "duck", "color": "red"},
        {"object": "car", "color": "red"},
        {"object": "dog", "color": "red"},
        {"object": "hat", "color": "blue"},
        {"object": "car", "color": "red"},
    ]
    result = call(function, read, wanted)
    expect_type(
        result, float | int, "The result", "it has to be a number from 0 to 1: count / len(pairs)."
    )
    mistakes = {
        "That counts toys alone: the color has to be right as well.": 3 / 5,
        "That counts colors alone: the toy has to be right as well.": 4 / 5,
        "That is the mean of both shares: count the images in which both are right.": 7 / 10,
        "One of the two is enough there: both have to be right (and, not or).": 1.0 - 1 / 5,
        "That is a number of images: divide it by how many there are.": 2,
        "That is in percent: return a share from 0 to 1.": 40,
        "That is the share read wrong.": 3 / 5,
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


@check("1.2 training (f)")
def nearest(function: Callable[..., Tensor]) -> str:
    """For each of the samples the index of the most similar training image."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(50, 4, 3, 3, generator=generator)
    latents[10] *= 0.01  # closest to all directions, largest in none
    indices = torch.tensor([7, 3, 42])
    samples = latents[indices] + 0.1 * torch.randn(3, 4, 3, 3, generator=generator)
    result = call(function, samples, latents)
    expect_type(result, Tensor, "The result", "it has to be a tensor of indices, (B,).")
    expect(
        result.shape == (3,),
        f"The result has the shape {tuple(result.shape)}, not (3,): one index for each sample. "
        "Flatten samples and latents to (B, n) and (N, n).",
    )
    expect(
        not result.is_floating_point(),
        "Those are distances: return where they are smallest, .argmin(dim=1).",
    )
    distances = torch.cdist(samples.flatten(1), latents.flatten(1))
    expect(not (result == distances.argmax(1)).all(), "Those are the farthest images: use argmin.")
    expect(
        bool((result == indices).all()),
        "Those are not the nearest images: compare the distances of all numbers, sample by sample.",
    )
    return "the nearest training image of each sample, by the distance of their latents"


@check("1.2 training challenge 1")
def challenge(
    images: Sequence[Any],
    baseline: Sequence[Any],
    pairs: Sequence[tuple[str, str]],
    seconds: float,
    limit: float,
) -> str:
    """More images read right than by the lesson's network, after no more seconds of training."""
    from course.metrics.judge import Judge

    expect_type(images, list, "`images`", "it has to be a list of images.")
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
        f"{scores}, but your training took {seconds:.0f} s, and {limit:.0f} s are allowed.",
    )
    # After a handful of steps nobody has anything right.
    expect(own > other or own == other == 0, f"{scores}: more have to be right.")
    return f"{scores}, after {seconds:.0f} s of training"
