"""Stand-ins for networks, losses and steps, which record what a function of lesson 0 gives them."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from course.checks.common import Function, call, close, expect
from course.diffusion import END
from course.plane.network import LEVELS, NO_LABEL

CENTER = torch.tensor([0.7, -1.2])  # the one point of the data with which losses are checked


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scaled_linear_betas(count: int) -> Tensor:
    return torch.linspace(0.00085**0.5, 0.012**0.5, count) ** 2


def full_schedule(count: int = LEVELS) -> Tensor:
    """Return alpha_bar of all timesteps, and 1 as its last entry, at END."""
    return torch.cat([(1 - scaled_linear_betas(count)).cumprod(0), torch.ones(1)])


class Oracle:
    """A network that knows x_0 = CENTER, and so the target of a loss; remembers what it is given.

    `answer(x_t, t)` is its output. Its one weight lets a gradient through.
    """

    def __init__(self, answer: Function, weight: float = 0.0) -> None:
        self.answer = answer
        self.weight = torch.tensor(weight, requires_grad=True)
        self.calls: list[tuple[Tensor, Tensor, Any]] = []

    def __call__(self, x_t: Any, t: Any, label: Any = None) -> Tensor:
        expect.is_a(x_t, Tensor, "What the network is given first", "it has to be x_t.")
        times = torch.as_tensor(t)
        expect(
            times.dim() == 0 or times.shape == (len(x_t),),
            f"The network is given timesteps of the shape {tuple(times.shape)}: it takes one for "
            f"each point, ({len(x_t)},).",
        )
        self.calls.append((x_t.detach(), times.detach(), label))
        return self.answer(x_t, times) + self.weight


def noise_at(x_t: Tensor, t: Tensor) -> Tensor:
    """Return the noise in x_t if x_0 is CENTER."""
    a = full_schedule()[t.long()].reshape(-1, 1)
    return (x_t - a.sqrt() * CENTER) / (1 - a).sqrt()


def expect_loss(function: Function, answer: Function) -> tuple[Oracle, float]:
    """Return an oracle after one call of a loss, and the loss with an error of 2 in each number."""
    torch.manual_seed(0)
    x_0, label = CENTER.expand(4000, 2), torch.arange(4000) % 2
    network = Oracle(answer, weight=2.0)
    loss = call(function, network, x_0, label)
    expect.tensor(loss, (), "The loss", "Average over all points and coordinates: .mean().")
    expect(network.calls, "The network was not called: the loss compares its output.")
    expect(len(network.calls) == 1, "The network is called several times, not once.")
    expect(loss.requires_grad, "The loss has no gradient: leave out no_grad, detach and item.")
    seen = network.calls[0][2]
    expect(
        isinstance(seen, Tensor) and torch.equal(seen, label),
        "The network does not get the labels.",
    )
    return network, float(loss.detach())


def expect_random(x_t: Tensor, t: Tensor, noise: Tensor, last: float) -> None:
    """Raise CheckFailed unless timesteps up to `last` and noise are as the loss needs them."""
    expect(t.dim() == 1, "All points have one timestep: draw one for each, len(x_0) of them.")
    expect(
        t.min() < 0.02 * last and t.max() > 0.98 * last,
        f"The timesteps lie between {t.min():g} and {t.max():g}: draw them from the whole range, "
        f"up to {last:g}.",
    )
    expect(t.unique().numel() > 500, "Many points share a timestep: draw one for each point.")
    expect(abs(float(t.double().mean()) / last - 0.5) < 0.05, "The timesteps are not uniform.")
    finite = noise[torch.isfinite(noise).all(1)]
    if abs(float(finite.mean()) - 0.5) < 0.1 and finite.min() > -0.01:
        expect(False, "The noise is uniform: torch.randn_like draws from a normal distribution.")
    expect(
        not close(finite[:, 0], finite[:, 1], 1e-2),
        "Both coordinates get the same noise: draw it in the shape of x_0.",
    )
    expect(
        not close(finite[1:], finite[:1].expand_as(finite[1:]), 1e-2),
        "All points get the same noise: draw it in the shape of x_0.",
    )


class TrainingRecord:
    """A loss that is a sum of all weights, so that its gradient is 1 for each; it keeps records."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.batches: list[tuple[Any, Any]] = []
        self.gradients: list[float] = []
        self.network: Any = None

    def __call__(self, network: Any, x_0: Any, label: Any = None) -> Tensor:
        expect.is_a(network, torch.nn.Module, "What the loss is given first", "it is the network.")
        first = next(network.parameters())
        if self.network is None:
            self.network = network
            first.register_post_accumulate_grad_hook(
                lambda weight: self.gradients.append(float(weight.grad.mean()))
            )
        expect(
            network is self.network,
            "There is a new network in each step: create it before the loop.",
        )
        self.weights.append(first.detach().clone())
        self.batches.append((x_0, label))
        result: Tensor = torch.stack([p.sum() for p in network.parameters()]).sum()
        return result


def expect_steps(record: TrainingRecord, steps: int) -> None:
    """Raise CheckFailed unless `steps` batches led to as many steps of the optimizer."""
    count = len(record.weights)
    expect(
        count == steps, f"For {steps} steps the loss was computed {count} times, not once a step."
    )
    for x_0, label in record.batches:
        expect.tensor(x_0, (len(x_0), 2), "The batch", "data.sample returns points and labels.")
        expect(
            isinstance(label, Tensor) and label.shape == (len(x_0),),
            "The loss does not get the labels.",
        )
    first, second = (x_0 for x_0, _ in record.batches[:2])
    expect(not torch.equal(first, second), "Every step has the same batch: draw it in the loop.")
    expect(record.gradients, "No gradient was computed: call loss.backward().")
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(record.weights)]
    expect(any(moved), "The weights do not change: call optimizer.step() after loss.backward().")
    expect(all(moved), "The weights do not change in every step: call optimizer.step() each time.")
    expect(
        record.gradients[-1] < 1.5,
        "Gradients pile up from step to step: call optimizer.zero_grad().",
    )
    expect(
        record.weights[-1].mean() < record.weights[0].mean(), "The loss grows instead of falling."
    )


class SamplingRecord:
    """A predictor and a step that remember their arguments; a step halves the points."""

    def __init__(self) -> None:
        self.weight = torch.tensor(1.0, requires_grad=True)
        self.inputs: list[tuple[Tensor, int]] = []
        self.steps: list[Sequence[Any]] = []
        self.noises: list[Tensor] = []
        self.results: list[Tensor] = []

    def predict(self, x_t: Any, t: Any) -> Tensor:
        expect.is_a(x_t, Tensor, "What predict is given first", "it has to be x_t.")
        times = torch.as_tensor(t).flatten()
        expect(bool((times == times[0]).all()), "In one step all points have the same timestep.")
        self.inputs.append((x_t, int(times[0])))
        self.noises.append(torch.full_like(x_t, len(self.inputs)) * self.weight)
        return self.noises[-1]

    def step(
        self, x_t: Any, noise: Any, alpha_bar: Any, alpha_bar_prev: Any, fresh_noise: Any = None
    ) -> Tensor:
        self.steps.append((x_t, noise, alpha_bar, alpha_bar_prev, fresh_noise))
        self.results.append(x_t / 2 + 0 * self.weight)
        return self.results[-1]


def expect_loop(record: SamplingRecord, x: Tensor, times: list[int]) -> None:
    """Raise CheckFailed unless predictions and steps were those of `times`."""
    count = len(times)
    called = [t for _, t in record.inputs]
    expect(len(called) == count, f"For {count} steps predict was called {len(called)} times.")
    expect(called != times[::-1], "The timesteps rise: sampling begins at the noise, t = 999.")
    expect(called == times, f"predict gets the timesteps {called}, not {times}.")
    expect(
        len(record.steps) == count,
        f"For {count} steps `step` was called {len(record.steps)} times.",
    )
    alpha_bar = full_schedule()
    state = x
    for i, (t, t_prev) in enumerate(zip(times, [*times[1:], END], strict=True)):
        x_t, noise, a, b, fresh = record.steps[i]
        expect(
            close(record.inputs[i][0], state), "predict has to get the result of the step before."
        )
        expect(close(x_t, state), "`step` gets other points than predict: both get x_t.")
        expect(noise is record.noises[i], "`step` does not get the noise that predict returned.")
        expect(
            close(torch.as_tensor(a), alpha_bar[t]),
            f"The third argument of `step` is not alpha_bar[{t}].",
        )
        expect(
            t_prev != END or close(torch.as_tensor(b), alpha_bar[END]),
            "The last step has to lead to alpha_bar[END] = 1.",
        )
        expect(
            not close(torch.as_tensor(b), alpha_bar[t - 1]) or t - 1 == t_prev,
            f"The step from t = {t} leads to {t - 1}; the next timestep of the list is {t_prev}.",
        )
        expect(
            close(torch.as_tensor(b), alpha_bar[t_prev]),
            f"The step from t = {t} has to lead to alpha_bar[{t_prev}].",
        )
        expect(fresh is not None, "`step` gets no fresh noise: torch.randn_like(x).")
        expect.tensor(fresh, x.shape, "The fresh noise", "torch.randn_like(x) draws it.")
        state = record.results[i]
    first, second = record.steps[0][-1], record.steps[1][-1]
    expect(not torch.equal(first, second), "The fresh noise is the same in each step: draw anew.")
    expect(
        abs(float(first.std()) - 1) < 0.1 and abs(float(first.mean())) < 0.1,
        "The fresh noise is not standard normal: torch.randn_like(x).",
    )


def labeled_output(x_t: Tensor, t: Any, label: Any = None) -> Tensor:
    """Return the output of a stand-in for the network, which depends on all its arguments."""
    count = len(x_t)
    classes = torch.as_tensor(NO_LABEL if label is None else label).expand(count)
    times = torch.as_tensor(t).float().expand(count)
    table = torch.randn(NO_LABEL + 1, 2, generator=generator(7))
    return x_t * times[:, None] / LEVELS + table[classes]
