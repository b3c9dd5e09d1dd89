"""Checks of the losses and of the training loop of lesson 0."""

import torch
from torch import Tensor

from course.checks.common import Function, call, check, close, diagnose, expect
from course.checks.stand_ins import (
    CENTER,
    Oracle,
    TrainingRecord,
    expect_loss,
    expect_random,
    expect_steps,
    full_schedule,
    noise_at,
)
from course.diffusion import velocity
from course.plane.network import LEVELS, NO_LABEL


@check("0 (e)")
def loss(function: Function) -> str:
    """The training loss, for a network that knows the noise, and for one that errs by 2."""
    network, value = expect_loss(function, noise_at)
    x_t, t, _ = network.calls[0]
    a = full_schedule()[t.long()].reshape(-1, 1)
    noise = noise_at(x_t, t)
    expect(
        not close(x_t, CENTER.expand_as(x_t), 1e-3),
        "The network gets the clean points: give it x_t.",
    )
    expect_random(x_t, t, noise, LEVELS - 1)
    expect(
        abs(float(noise.std()) - 1) < 0.1 and abs(float(noise.mean())) < 0.1,
        "x_t does not hold standard normal noise at the timestep that the network is given: use "
        "add_noise with alpha_bar[t, None], and the same t for the network.",
    )
    size = noise.numel()
    error = network.answer(x_t, t) + 2 - noise
    mistakes = {
        "That is the sum of the squares: take the mean.": torch.tensor(4.0 * size),
        "That is the mean of absolute values: square the differences.": torch.tensor(2.0),
        "That is the sum over the coordinates: take the mean over all numbers.": torch.tensor(8.0),
        "That is the root of the mean: leave out the square root.": error.square().mean().sqrt(),
        "The output is compared with x_0, not the noise.": (noise + 2 - CENTER).square().mean(),
        "The output is compared with x_t, not the noise.": (noise + 2 - x_t).square().mean(),
        "The target has the wrong sign: output minus noise.": (2 * noise + 2).square().mean(),
        "The target is the noise itself, not sqrt(1 - alpha_bar) times it.": (
            (noise + 2 - (1 - a).sqrt() * noise).square().mean()
        ),
        "Half of the mean of the squares: leave out the factor.": torch.tensor(2.0),
    }
    otherwise = (
        "The target is not the noise of this x_t: draw the noise once, and use it for x_t and for "
        "the loss."
    )
    diagnose(torch.tensor(value), torch.tensor(4.0), mistakes, otherwise, tolerance=1e-3)
    return "the loss of a network that knows the noise is 0, and it grows with the square"


@check("0 (f)")
def training(function: Function) -> str:
    """The training loop, with a loss whose gradient is known."""
    record = TrainingRecord()
    state = torch.get_rng_state()
    result = call(function, record, 6)
    expect(
        isinstance(result, tuple) and len(result) == 2, "Return two things: return network, losses."
    )
    network, losses = result
    expect.is_a(network, torch.nn.Module, "The first result", "it has to be the network.")
    expect_steps(record, 6)
    expect(network is record.network, "The network that is returned is not the trained one.")
    expect(
        isinstance(losses, list) and len(losses) == 6,
        "The losses have to be a list with one number a step.",
    )
    expect(
        all(isinstance(value, float) for value in losses),
        "Keep the losses as numbers: loss.item().",
    )
    again = TrainingRecord()
    torch.manual_seed(12345)
    call(function, again, 6)
    torch.set_rng_state(state)
    expect(
        torch.equal(again.weights[0], record.weights[0])
        and torch.equal(again.batches[0][0], record.batches[0][0]),
        "Two runs differ: call torch.manual_seed(SEED) before the network is created.",
    )
    return "new data in each step, and weights that go down the gradient"


@check("0 (j)")
def hidden_labels(function: Function) -> str:
    """The training loss with one in five labels hidden."""
    torch.manual_seed(0)
    x_0, label = CENTER.expand(5000, 2), torch.arange(5000) % 2
    network = Oracle(noise_at, weight=2.0)
    result = call(function, network, x_0, label)
    expect.tensor(result, (), "The loss", "Return what training_loss returns.")
    expect(torch.equal(label, torch.arange(5000) % 2), "The labels were changed in place.")
    expect(network.calls, "The network was not called: return training_loss(network, x_0, ...).")
    seen = network.calls[0][2]
    expect(
        isinstance(seen, Tensor) and seen.shape == label.shape,
        "The network does not get a label for each point: hand them to training_loss.",
    )
    hidden = seen == NO_LABEL
    share = float(hidden.float().mean())
    expect(share > 0, f"No label is hidden: put NO_LABEL, which is {NO_LABEL}, in their place.")
    expect(share < 1, "All labels are hidden: decide for each point, with torch.rand(len(label)).")
    expect(
        abs(share - 0.8) > 0.03,
        "Four in five labels are hidden: torch.where takes that for True first.",
    )
    expect(
        abs(share - 0.2) < 0.03,
        f"{share:.0%} of the labels are hidden, not 20%: torch.rand(...) < 0.2.",
    )
    expect(torch.equal(seen[~hidden], label[~hidden]), "The labels that stay have changed.")
    expect(
        abs(float(hidden[label == 0].float().mean()) - 0.2) < 0.04,
        "Labels of one class are hidden more often.",
    )
    call(function, network, x_0, label)
    expect(not torch.equal(network.calls[-1][2], seen), "The same labels are hidden in each call.")
    expect(
        close(result.detach(), torch.tensor(4.0), 1e-3), "The loss is not that of training_loss."
    )
    return "one network for two tasks: the noise for a class, and for any"


@check("0 (l)")
def v_loss(function: Function) -> str:
    """The loss of v-prediction, for a network that errs by 2."""

    def v_at(x_t: Tensor, t: Tensor) -> Tensor:
        a = full_schedule()[t.long()].reshape(-1, 1)
        return velocity(CENTER.expand_as(x_t), noise_at(x_t, t), a)

    network, value = expect_loss(function, v_at)
    x_t, t, _ = network.calls[0]
    noise, v = noise_at(x_t, t), v_at(x_t, t)
    expect_random(x_t, t, noise, LEVELS - 1)
    a = full_schedule()[t.long()].reshape(-1, 1)
    expect(abs(float(noise.std()) - 1) < 0.1, "x_t is not the noisy point of (b) at this timestep.")
    targets = {
        "The target is still the noise: take sqrt(alpha_bar) noise - "
        "sqrt(1 - alpha_bar) x_0.": noise,
        "The target is x_0: it is sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x_0.": (
            CENTER.expand_as(v)
        ),
        "The sign of v is off: sqrt(alpha_bar) noise minus sqrt(1 - alpha_bar) x_0.": -v,
        "The target has a plus: v has a minus.": (a.sqrt() * noise + (1 - a).sqrt() * CENTER),
        "The factors are exchanged: sqrt(alpha_bar) belongs to the noise.": (
            (1 - a).sqrt() * noise - a.sqrt() * CENTER
        ),
        "The square roots are missing.": a * noise - (1 - a) * CENTER,
        "The second term has x_t: it has x_0.": a.sqrt() * noise - (1 - a).sqrt() * x_t,
    }
    mistakes = {advice: (v + 2 - target).square().mean() for advice, target in targets.items()}
    otherwise = "The target is not v, or the loss is not the mean of the squares."
    diagnose(torch.tensor(value), torch.tensor(4.0), mistakes, otherwise, tolerance=1e-3)
    return "the network learns v; x_0 and noise follow from it"


@check("0 (n)")
def flow_loss(function: Function) -> str:
    """The loss of flow matching, for a network that errs by 2."""

    def noise_of(x_t: Tensor, t: Tensor) -> Tensor:
        tau = (t / LEVELS).reshape(-1, 1)
        return (x_t - (1 - tau) * CENTER) / tau.clamp_min(1e-6)

    network, value = expect_loss(function, lambda x_t, t: noise_of(x_t, t) - CENTER)
    x_t, t, _ = network.calls[0]
    expect(
        float(t.max()) > 2 or t.dim() == 0,
        "The network is given tau from 0 to 1: it takes timesteps, T * tau.",
    )
    noise = noise_of(x_t, t)
    expect_random(x_t, t, noise, LEVELS)
    inner = t > 50  # where a wrong mixture is not divided by a small tau
    expect(
        abs(float(noise[inner].std()) - 1) < 0.1 and abs(float(noise[inner].mean())) < 0.1,
        "x_t is not (1 - tau) x_0 + tau noise at the tau that the network is given.",
    )
    u = noise - CENTER
    tau = (t / LEVELS).reshape(-1, 1)
    targets = {
        "The target is the noise: flow matching learns noise - x_0.": noise,
        "The sign is off: the target is noise - x_0, from the data to the noise.": -u,
        "The target is x_0: flow matching learns noise - x_0.": CENTER.expand_as(u),
        "The target is noise - x_t: it is noise - x_0.": noise - x_t,
        "The target is x_t - x_0: it is noise - x_0, not multiplied by tau.": tau * u,
        "The target is a sum: it is noise - x_0.": noise + CENTER,
    }
    mistakes = {advice: (u + 2 - target).square().mean() for advice, target in targets.items()}
    otherwise = "The target is not noise - x_0, or the loss is not the mean of the squares."
    diagnose(torch.tensor(value), torch.tensor(4.0), mistakes, otherwise, tolerance=1e-2)
    return "straight lines from data to noise, and their direction as the target"
