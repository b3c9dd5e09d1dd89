"""Checks of the lesson on training."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from course.checks.common import Function, call, check, close, diagnose, expect
from course.checks.task_1_4_samples import ProbeUNet
from course.checks.task_1_4_samples import challenge as challenge
from course.checks.task_1_4_samples import loss_at_timestep as loss_at_timestep
from course.checks.task_1_4_samples import nearest as nearest
from course.checks.task_1_4_samples import sampling as sampling
from course.checks.task_1_4_samples import share_right as share_right
from course.diffusion import velocity

ALPHA_BAR = torch.linspace(0.95, 0.05, 10)  # of a schedule of ten timesteps


UNET: dict[str, Any] = {  # the network of the lesson, but for the width of its text embeddings
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (32, 64, 96),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
    "mid_block_type": None,
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
    "norm_num_groups": 16,
}


@check("1.4 (a)")
def caption_dropout(function: Function) -> str:
    """`drop_captions` replaces some captions of a batch by the empty one."""
    count, probability = 4000, 0.2
    states = 1 + torch.rand(count, 3, 2, generator=torch.Generator().manual_seed(0))
    original = states.clone()
    empty = torch.zeros(1, 3, 2)

    def attempt(p: float, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        result = call(function, states, empty, p, generator)
        expect.tensor(result, states.shape, "The result", "It has the states of every caption.")
        expect(bool((states == original).all()), "`states` itself was changed: use torch.where.")
        return result

    result = attempt(probability)
    dropped, kept = (result == empty).flatten(1), (result == states).flatten(1)
    expect(
        bool((dropped | kept).all()),
        "Some states are neither those of the caption nor of the empty.",
    )
    expect(
        bool((dropped.all(1) | kept.all(1)).all()),
        "Only a part of a caption was replaced: draw one random number for each caption, not for "
        "each token or number, in the shape (B, 1, 1).",
    )
    share = dropped.all(1).float().mean().item()
    expect(share > 0, "No caption was replaced: compare random numbers with `probability`.")
    expect(share < 1, "All captions were replaced at once: draw a random number for each.")
    expect(
        abs(share - (1 - probability)) > 0.03,
        f"{share:.0%} of the captions were replaced at probability {probability}: exchange the "
        "two, so that a random number below `probability` takes the empty caption.",
    )
    expect(
        abs(share - probability) < 0.03,
        f"{share:.0%} of the captions were replaced, not {probability}.",
    )
    expect(close(attempt(0.0), states), "At probability 0 every caption has to stay.")
    expect(not attempt(1.0).any(), "At probability 1 every caption has to be the empty one.")
    expect(
        close(attempt(probability), result),
        "Two calls with generators of one seed differ: use torch.rand(..., generator=generator).",
    )
    expect(not close(attempt(probability, 1), result), "The choice does not depend on `generator`.")
    return "some captions are replaced by the empty one, each as a whole and by chance"


@check("1.4 (b)")
def network(unet: Any, width: int) -> str:
    """The small U-Net of the lesson, for text embeddings of `width` numbers."""
    from diffusers import UNet2DConditionModel

    expect.value(... if unet is None else unet, "`build_unet`")
    advice = "`build_unet` has to return a UNet2DConditionModel(...)."
    expect.is_a(unet, UNet2DConditionModel, "`unet`", advice)
    expect(
        tuple(unet.config.up_block_types) != ("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
        "The blocks on the way up are in the wrong order: they begin at the smallest size, where "
        "attention is.",
    )
    for name, value in (UNET | {"cross_attention_dim": width}).items():
        actual = unet.config[name]
        actual = tuple(actual) if isinstance(actual, list) else actual
        expect(actual == value, f"{name} is {actual}; in the table it is {value}.")
    sides = (16, 16)
    with torch.no_grad():
        output = unet(torch.zeros(2, 4, *sides), 0, torch.zeros(2, 8, width)).sample
    expect.tensor(output, (2, 4, *sides), "The output of the network")
    count = sum(weight.numel() for weight in unet.parameters())
    return f"a U-Net with {count:,} parameters, attention to the caption at its smallest size"


@check("1.4 (c)")
def training_loss(function: Function) -> str:
    """The loss at random timesteps: noise is mixed in, and v is predicted."""
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
    _expect_loss(loss, x_0, unet, x_t, t)
    _, x_t_again, t_again = attempt(x_0)
    expect(
        close(x_t, x_t_again) and bool((t == t_again).all()),
        "Two calls with generators of one seed differ: hand `generator=generator` to torch.randint "
        "and torch.randn.",
    )
    expect(
        not close(x_t, attempt(x_0, 1)[1]) and not bool((t == attempt(x_0, 1)[2]).all()),
        "Another seed gives the same timesteps or the same noise: draw both anew in every call.",
    )
    return "noise of random strength is mixed in, and the loss is the mean squared error of v"


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
        f"The timesteps have the shape {tuple(t.shape)}: draw one for each image.",
    )
    expect(not t.is_floating_point(), "The timesteps are no whole numbers: use torch.randint.")
    expect(
        isinstance(passed, Tensor) and passed.shape == states.shape and close(passed, states),
        "The network has to be given `states` as encoder_hidden_states, unchanged.",
    )


def _expect_timesteps(t: Tensor) -> None:
    """Raise CheckFailed unless all ten timesteps are equally likely."""
    last = len(ALPHA_BAR) - 1
    expect(t.min() != t.max(), "All images have the same timestep: draw one for each image.")
    expect(
        int(t.min()) == 0 and int(t.max()) == last,
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
        "Image and noise are exchanged.",
    )
    expect(not (alike(scale, a) or alike(noise_scale, b)), "The square roots are missing.")
    expect(not alike(noise_scale, b.sqrt() / 12**0.5), "That noise is uniform: use torch.randn.")
    expect(
        not alike(noise_scale, torch.ones(10)),
        "The noise is as strong at all t: use sqrt(1 - alpha_bar).",
    )
    expect(
        not alike(scale, torch.ones(10)),
        "The image is as strong at all timesteps: use sqrt(alpha_bar).",
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


def _expect_loss(loss: Tensor, x_0: Tensor, unet: ProbeUNet, x_t: Tensor, t: Tensor) -> None:
    """Raise CheckFailed unless the loss is the mean squared error of the predicted v."""
    expect.is_a(loss, Tensor, "The loss", "it has to be a tensor with a gradient.")
    output = unet(*unet.calls[-1]).sample.detach()
    a = ALPHA_BAR[t][:, None, None, None]
    noise = (x_t - a.sqrt() * x_0) / (1 - a).sqrt()
    v = velocity(x_0, noise, a)
    error = output - v
    expect(
        loss.dim() == 0, f"The loss has the shape {tuple(loss.shape)}: it is one number, a mean."
    )

    def loss_for(target: Tensor) -> Tensor:
        return (output - target).square().mean()

    mistakes = {
        "That is the sum of the squared errors: take the mean.": error.square().sum(),
        "That is the mean over the images of a sum: use .mean().": (
            error.square().flatten(1).sum(1).mean()
        ),
        "That is the absolute error: square it.": error.abs().mean(),
        "That is the root of the mean squared error: leave the root out.": (
            error.square().mean().sqrt()
        ),
        "Positive and negative errors cancel: square them before the mean.": error.mean(),
        "The output was compared with the noise: this network predicts v.": loss_for(noise),
        "The output was compared with x_0: this network predicts v.": loss_for(x_0),
        "The output was compared with x_t: this network predicts v.": loss_for(x_t),
        "The sign of v is wrong: sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x_0.": loss_for(-v),
        "The two roots are exchanged in v.": (loss_for(velocity(x_0, noise, 1 - a))),
        "v has a minus sign before x_0: sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x_0.": (
            loss_for(velocity(-x_0, noise, a))
        ),
    }
    otherwise = "The loss is not the mean of (output - v) squared."
    diagnose(loss, loss_for(v), mistakes, otherwise)
    expect(loss.requires_grad, "The loss has no gradient: leave out no_grad() and .detach().")


@check("1.4 (d)")
def training_step(function: Function) -> str:
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
        mistakes = {
            "The weights do not change: compute gradients by loss.backward(), then call "
            "optimizer.step(); optimizer.zero_grad() comes before both.": torch.zeros(1, 3)
        }
        if number == 1:
            unclipped = "The gradient was not clipped: call clip_grad_norm_(unet.parameters(), 1.0)"
            unclipped += " between loss.backward() and optimizer.step()."
            mistakes[unclipped] = -0.1 * slope[None]
        else:  # the gradient of step 1 was clipped where it lies
            sum_of_both = slopes[0] / slopes[0].norm() + slope
            stale = (
                "The gradients of the step before are still in there: call optimizer.zero_grad()"
            )
            mistakes[f"{stale} first."] = -0.1 * (sum_of_both / sum_of_both.norm())[None]
        otherwise = f"After step {number} the weights are not those of one step of the optimizer."
        diagnose(moved, -0.1 * clipped[None], mistakes, otherwise, 1e-3)
        weight = weight - 0.1 * clipped
        decay = ema.cur_decay_value if ema.optimization_step else 0.0
        average = decay * average + (1 - decay) * weight
        expect(
            ema.optimization_step == number,
            "The running average was not updated once: call ema.step(unet.parameters()).",
        )
        expect(
            close(ema.shadow_params[0], average, 1e-3),
            "The running average was updated before the weights.",
        )
    return "gradients cleared, computed, clipped and applied; then the average is updated"


@check("1.4 (f)")
def training_batch(
    function: Function, latents: Tensor, states: Tensor, empty: Tensor, batch: int
) -> str:
    """`train_on` takes a step on a random batch of some of the images, with their captions.

    latents, states: of all images, (N, 4, h, w) and (N, L, D).
    """
    from diffusers.training_utils import EMAModel

    unet = ProbeUNet()
    optimizer = torch.optim.SGD(unet.parameters(), lr=0.01)
    ema = EMAModel(unet.parameters(), decay=0.5)
    last = len(latents) - 1
    indices = torch.tensor([1, last])
    kinds = {"empty": empty[0], "first": states[1], "second": states[last]}
    counts = dict.fromkeys(kinds, 0)
    for _ in range(4):
        result = call(function, indices, unet, optimizer, ema)
        expect(isinstance(result, float), "Return what `take_step` returns, a number.")
        expect(unet.calls, "The network was never called: compute the loss by `training_loss`.")
        x_t, _, given = unet.calls[-1]
        expect(
            x_t.shape == (batch, *latents.shape[1:]),
            f"The network was given latents of shape {tuple(x_t.shape)}: choose BATCH = {batch} "
            f"images, data.latents[chosen], {(batch, *latents.shape[1:])}.",
        )
        for row in given:
            name = next((name for name, right in kinds.items() if close(row, right)), "")
            expect(
                name,
                "Some captions are not those of the images at `indices`, nor the empty one: choose "
                "from `indices`, and take states[caption_index[chosen]].",
            )
            counts[name] += 1
    expect(
        counts["first"] and counts["second"],
        "Not all images at `indices` are chosen: torch.randint(len(indices), (BATCH,), ...) gives "
        "positions in `indices`.",
    )
    expect(counts["empty"], "No caption was dropped in 4 batches: call `drop_captions`.")
    share = counts["empty"] / sum(counts.values())
    expect(share < 0.5, f"{share:.0%} of the captions were dropped: the probability is DROPOUT.")
    expect(
        ema.optimization_step == 4 and unet.weight.item() != 0.5,
        "The weights did not change: call `take_step`.",
    )
    return "a random batch with its captions, some of them dropped, and a step on its loss"
