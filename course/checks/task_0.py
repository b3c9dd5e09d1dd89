"""Checks of lesson 0, diffusion in two dimensions."""

import itertools
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
)
from course.diffusion import END, add_noise, guide, velocity
from course.metrics.points import sliced_wasserstein
from course.plane import NO_LABEL, spirals
from course.plane.network import LEVELS

CALLS = 8  # of the challenge
GOAL = 0.05  # its sliced Wasserstein distance; DDIM on equal timesteps reaches about 0.10
CENTER = torch.tensor([0.7, -1.2])  # the one point of the data with which losses are checked


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _betas(count: int) -> torch.Tensor:
    return torch.linspace(0.00085**0.5, 0.012**0.5, count) ** 2


def _alpha_bar(count: int = LEVELS) -> torch.Tensor:
    """Return alpha_bar of all timesteps, and 1 as its last entry, at END."""
    return torch.cat([(1 - _betas(count)).cumprod(0), torch.ones(1)])


@check("0 (a)")
def schedule(function: Callable[[int], torch.Tensor]) -> str:
    """The scaled linear noise schedule of Stable Diffusion."""
    for count in (LEVELS, 50):
        result = call(function, count)
        expect_tensor(result, (count,), f"alpha_bar of {count} timesteps")
        betas = _betas(count)
        linear = torch.linspace(0.00085, 0.012, count)
        roots = torch.linspace(0.00085**0.5, 0.012**0.5, count)
        right = _alpha_bar(count)[:-1]
        mistakes = {
            "Those are the betas. alpha_bar is the product of all 1 - beta up to t.": betas,
            "Those are 1 - beta of each step: multiply them up with .cumprod(dim=0).": 1 - betas,
            "That is the product of the betas: multiply 1 - beta.": betas.cumprod(0),
            "Those are sums: a product of all steps is .cumprod(dim=0).": (1 - betas).cumsum(0),
            "That is 1 minus a sum; the steps multiply: .cumprod(dim=0).": 1 - betas.cumsum(0),
            "The betas are equally spaced, but their square roots have to be.": (
                (1 - linear).cumprod(0)
            ),
            "Square the equally spaced roots: ** 2 is missing.": (1 - roots).cumprod(0),
            "That is its square root: alpha_bar itself is wanted.": right.sqrt(),
            "That is 1 - alpha_bar, the share of the noise.": 1 - right,
            "The order is reversed: alpha_bar begins near 1 and falls.": right.flip(0),
        }
        otherwise = "alpha_bar is not the product of 1 - beta_s for all s up to t."
        diagnose(result, right, mistakes, otherwise, tolerance=2e-5)
    return "alpha_bar falls from 0.999 to 0.005: at the end hardly any of the data is left"


@check("0 (b)")
def noising(function: Callable[..., torch.Tensor]) -> str:
    """Noisy points in closed form."""
    x_0, noise = torch.randn(2, 64, 2, generator=_generator())
    a = torch.rand(64, 1, generator=_generator(1)) * 0.8 + 0.1
    result = call(function, x_0, noise, a)
    expect_tensor(result, x_0.shape, "x_t")
    expect(
        close(result, call(function, x_0, noise, a)),
        "Two calls differ: use the `noise` of the arguments, and draw none.",
    )
    mistakes = {
        "The square roots are missing: sqrt(alpha_bar) and sqrt(1 - alpha_bar).": (
            a * x_0 + (1 - a) * noise
        ),
        "The factors are exchanged: sqrt(alpha_bar) belongs to x_0.": add_noise(noise, x_0, a),
        "The factor of the noise is sqrt(1 - alpha_bar), not 1 - sqrt(alpha_bar).": (
            a.sqrt() * x_0 + (1 - a.sqrt()) * noise
        ),
        "The noise needs its square root: sqrt(1 - alpha_bar).": a.sqrt() * x_0 + (1 - a) * noise,
        "x_0 needs its square root: sqrt(alpha_bar).": a * x_0 + (1 - a).sqrt() * noise,
        "The noise is not scaled: its factor is sqrt(1 - alpha_bar).": a.sqrt() * x_0 + noise,
        "x_0 is not scaled: its factor is sqrt(alpha_bar).": x_0 + (1 - a).sqrt() * noise,
        "The noise is added, not subtracted.": a.sqrt() * x_0 - (1 - a).sqrt() * noise,
    }
    otherwise = "That is not sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise."
    diagnose(result, add_noise(x_0, noise, a), mistakes, otherwise)
    return "any timestep in one line; the squares of the two factors sum to 1"


@check("0 (c)")
def score(function: Callable[..., torch.Tensor]) -> str:
    """The score of noisy points, from the noise in them."""
    noise = torch.randn(64, 2, generator=_generator())
    a = torch.rand(64, 1, generator=_generator(1)) * 0.8 + 0.1
    result = call(function, noise, a)
    expect_tensor(result, noise.shape, "The score")
    right = -noise / (1 - a).sqrt()
    mistakes = {
        "The sign is off: the score points against the noise.": -right,
        "Divide by the square root of 1 - alpha_bar.": -noise / (1 - a),
        "Divide by sqrt(1 - alpha_bar), do not multiply.": -noise * (1 - a).sqrt(),
        "Divide by sqrt(1 - alpha_bar): 1 minus is missing.": -noise / a.sqrt(),
        "The division by sqrt(1 - alpha_bar) is missing.": -noise,
    }
    diagnose(result, right, mistakes, "That is not -noise / sqrt(1 - alpha_bar).")
    return "the score leads against the noise, and is long where there is little noise"


class _Oracle:
    """A network that knows x_0 = CENTER, and so the target of a loss; remembers what it is given.

    `answer(x_t, t)` is its output. Its one weight lets a gradient through.
    """

    def __init__(self, answer: Callable[..., torch.Tensor], weight: float = 0.0) -> None:
        self.answer = answer
        self.weight = torch.tensor(weight, requires_grad=True)
        self.calls: list[tuple[torch.Tensor, torch.Tensor, Any]] = []

    def __call__(self, x_t: Any, t: Any, label: Any = None) -> torch.Tensor:
        expect_type(x_t, torch.Tensor, "What the network is given first", "it has to be x_t.")
        times = torch.as_tensor(t)
        expect(
            times.dim() == 0 or times.shape == (len(x_t),),
            f"The network is given timesteps of the shape {tuple(times.shape)}: it takes one for "
            f"each point, ({len(x_t)},).",
        )
        self.calls.append((x_t.detach(), times.detach(), label))
        return self.answer(x_t, times) + self.weight


def _noise_at(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Return the noise in x_t if x_0 is CENTER."""
    a = _alpha_bar()[t.long()].reshape(-1, 1)
    return (x_t - a.sqrt() * CENTER) / (1 - a).sqrt()


def _expect_loss(
    function: Callable[..., torch.Tensor], answer: Callable[..., torch.Tensor]
) -> tuple[_Oracle, float]:
    """Return an oracle after one call of a loss, and the loss with an error of 2 in each number."""
    torch.manual_seed(0)
    x_0, label = CENTER.expand(4000, 2), torch.arange(4000) % 2
    network = _Oracle(answer, weight=2.0)
    loss = call(function, network, x_0, label)
    expect_tensor(loss, (), "The loss", "Average over all points and coordinates: .mean().")
    expect(network.calls, "The network was not called: the loss compares its output.")
    expect(
        len(network.calls) == 1, "The network is called several times: one call takes all points."
    )
    expect(
        loss.requires_grad,
        "The loss has no gradient: leave out no_grad, detach and item, which cut it off.",
    )
    seen = network.calls[0][2]
    expect(
        isinstance(seen, torch.Tensor) and torch.equal(seen, label),
        "The network does not get the labels: network(x_t, t, label).",
    )
    return network, float(loss.detach())


def _expect_random(x_t: torch.Tensor, t: torch.Tensor, noise: torch.Tensor, last: float) -> None:
    """Raise CheckFailed unless timesteps up to `last` and noise are as the loss needs them."""
    expect(t.dim() == 1, "All points have one timestep: draw one for each, len(x_0) of them.")
    expect(
        t.min() < 0.02 * last and t.max() > 0.98 * last,
        f"The timesteps lie between {t.min():g} and {t.max():g}: draw them from the whole range, "
        f"up to {last:g}.",
    )
    expect(t.unique().numel() > 500, "Many points share a timestep: draw one for each point.")
    expect(
        abs(float(t.double().mean()) / last - 0.5) < 0.05,
        "The timesteps are not uniform: each has to be equally likely.",
    )
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


@check("0 (d)")
def loss(function: Callable[..., torch.Tensor]) -> str:
    """The training loss, for a network that knows the noise, and for one that errs by 2."""
    network, value = _expect_loss(function, _noise_at)
    x_t, t, _ = network.calls[0]
    a = _alpha_bar()[t.long()].reshape(-1, 1)
    noise = _noise_at(x_t, t)
    expect(
        not close(x_t, CENTER.expand_as(x_t), 1e-3),
        "The network gets the clean points: give it x_t.",
    )
    _expect_random(x_t, t, noise, LEVELS - 1)
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
        "The output is compared with x_0: the target is the noise.": (
            (noise + 2 - CENTER).square().mean()
        ),
        "The output is compared with x_t: the target is the noise.": (
            (noise + 2 - x_t).square().mean()
        ),
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


class _TrainingRecord:
    """A loss that is a sum of all weights, so that its gradient is 1 for each; it keeps records."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []
        self.batches: list[tuple[Any, Any]] = []
        self.gradients: list[float] = []
        self.network: Any = None

    def __call__(self, network: Any, x_0: Any, label: Any = None) -> torch.Tensor:
        expect_type(network, torch.nn.Module, "What the loss is given first", "it is the network.")
        first = next(network.parameters())
        if self.network is None:
            self.network = network
            first.register_post_accumulate_grad_hook(
                lambda weight: self.gradients.append(float(weight.grad.mean()))
            )
        expect(
            network is self.network,
            "There is a new network in each step: create it once, before the loop.",
        )
        self.weights.append(first.detach().clone())
        self.batches.append((x_0, label))
        result: torch.Tensor = torch.stack([p.sum() for p in network.parameters()]).sum()
        return result


def _expect_steps(record: _TrainingRecord, steps: int) -> None:
    """Raise CheckFailed unless `steps` batches led to as many steps of the optimizer."""
    count = len(record.weights)
    expect(
        count == steps,
        f"For {steps} steps the loss was computed {count} times: once a step, in a loop.",
    )
    for x_0, label in record.batches:
        expect_tensor(x_0, (len(x_0), 2), "The batch", "data.sample returns points and labels.")
        expect(
            isinstance(label, torch.Tensor) and label.shape == (len(x_0),),
            "The loss does not get the labels: loss_function(network, x_0, label).",
        )
    first, second = (x_0 for x_0, _ in record.batches[:2])
    expect(not torch.equal(first, second), "Every step has the same batch: draw it in the loop.")
    expect(record.gradients, "No gradient was computed: call loss.backward().")
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(record.weights)]
    expect(any(moved), "The weights do not change: call optimizer.step() after loss.backward().")
    expect(all(moved), "The weights do not change in every step: call optimizer.step() each time.")
    expect(
        record.gradients[-1] < 1.5,
        "Gradients pile up from step to step: call optimizer.zero_grad() before loss.backward().",
    )
    expect(
        record.weights[-1].mean() < record.weights[0].mean(),
        "The loss grows: the optimizer has to go down.",
    )


@check("0 (e)")
def training(function: Callable[..., Any]) -> str:
    """The training loop, with a loss whose gradient is known."""
    record = _TrainingRecord()
    state = torch.get_rng_state()
    result = call(function, record, 6)
    expect(
        isinstance(result, tuple) and len(result) == 2,
        "`train` returns two things: return network, losses.",
    )
    network, losses = result
    expect_type(network, torch.nn.Module, "The first result", "it has to be the network.")
    _expect_steps(record, 6)
    expect(network is record.network, "The network that is returned is not the trained one.")
    expect(
        isinstance(losses, list) and len(losses) == 6,
        "The losses have to be a list with one number for each step.",
    )
    expect(
        all(isinstance(value, float) for value in losses),
        "Keep the losses as numbers: loss.item(). A tensor would keep its whole graph in memory.",
    )
    again = _TrainingRecord()
    torch.manual_seed(12345)
    call(function, again, 6)
    torch.set_rng_state(state)
    expect(
        torch.equal(again.weights[0], record.weights[0])
        and torch.equal(again.batches[0][0], record.batches[0][0]),
        "Two runs differ: call torch.manual_seed(SEED) before the network is created.",
    )
    return "new data in each step, and weights that go down the gradient"


def _ddpm(x_t: Any, noise: Any, a: Any, b: Any, fresh: Any) -> Any:
    """Return a step of DDPM from alpha_bar `a` to `b`."""
    alpha = a / b
    mean = (x_t - (1 - alpha) / (1 - a).sqrt() * noise) / alpha.sqrt()
    return mean + ((1 - b) / (1 - a) * (1 - alpha)).sqrt() * fresh


@check("0 (f)")
def ddpm(function: Callable[..., torch.Tensor]) -> str:
    """One step of DDPM, also over several timesteps, and the last one."""
    x_t, noise, fresh = torch.randn(3, 64, 2, generator=_generator())
    a, b, one = torch.tensor(0.3), torch.tensor(0.6), torch.tensor(1.0)
    result = call(function, x_t, noise, a, b, fresh)
    expect_tensor(result, x_t.shape, "The result of the step")
    alpha = a / b
    sigma = ((1 - b) / (1 - a) * (1 - alpha)).sqrt()
    factor = (1 - alpha) / (1 - a).sqrt()
    mean = (x_t - factor * noise) / alpha.sqrt()
    mistakes = {
        "The fresh noise is missing.": mean,
        "The fresh noise is not scaled: multiply it by sigma.": mean + fresh,
        "The fresh noise is scaled by sigma^2: take the square root.": mean + sigma**2 * fresh,
        "That sigma is sqrt(1 - alpha): here it has the factor (1 - alpha_bar_prev) / "
        "(1 - alpha_bar) under the root.": mean + (1 - alpha).sqrt() * fresh,
        "That scales the fresh noise by sqrt(1 - alpha_bar_prev): use sigma.": (
            mean + (1 - b).sqrt() * fresh
        ),
        "alpha is alpha_bar / alpha_bar_prev, the share of this one step, not alpha_bar.": (
            (x_t - (1 - a).sqrt() * noise) / a.sqrt() + (1 - b).sqrt() * fresh
        ),
        "The division by sqrt(alpha) is missing.": x_t - factor * noise + sigma * fresh,
        "Divide by the square root of alpha.": (x_t - factor * noise) / alpha + sigma * fresh,
        "The predicted noise is added: subtract it.": (
            (x_t + factor * noise) / alpha.sqrt() + sigma * fresh
        ),
        "The predicted noise is subtracted whole: its factor is (1 - alpha) / "
        "sqrt(1 - alpha_bar).": (x_t - noise) / alpha.sqrt() + sigma * fresh,
        "In (1 - alpha) / sqrt(1 - alpha_bar) the root is missing.": (
            (x_t - (1 - alpha) / (1 - a) * noise) / alpha.sqrt() + sigma * fresh
        ),
        "The factor is (1 - alpha) / sqrt(1 - alpha_bar), not sqrt(1 - alpha).": (
            (x_t - (1 - alpha).sqrt() * noise) / alpha.sqrt() + sigma * fresh
        ),
        "`noise` and `fresh_noise` are exchanged.": _ddpm(x_t, fresh, a, b, noise),
    }
    if not isinstance(result, torch.Tensor) or not close(result, _ddpm(x_t, noise, a, b, fresh)):
        expect(
            close(result, call(function, x_t, noise, a, b, fresh)),
            "Two calls differ: use `fresh_noise` of the arguments, and draw none.",
        )
    otherwise = "That is not mean + sigma fresh_noise: compare each factor with the formulas."
    diagnose(result, _ddpm(x_t, noise, a, b, fresh), mistakes, otherwise)
    last = call(function, x_t, noise, a, one, fresh)
    otherwise = "With alpha_bar_prev = 1, the last step, no noise may remain."
    diagnose(last, _ddpm(x_t, noise, a, one, fresh), {}, otherwise)
    return "the mean of all points that x_t may come from, and noise around it; none at the end"


@check("0 (g)")
def ddim(function: Callable[..., torch.Tensor]) -> str:
    """One step of DDIM without fresh noise, from the noisy points."""
    x_t, noise, fresh = torch.randn(3, 64, 2, generator=_generator())
    a, b = torch.tensor(0.3), torch.tensor(0.6)
    result = call(function, x_t, noise, a, b, fresh)
    expect_tensor(result, x_t.shape, "The result of the step")
    x_0 = (x_t - (1 - a).sqrt() * noise) / a.sqrt()
    right = add_noise(x_0, noise, b)
    mistakes = {
        "That is x_0: add the noise of the next timestep to it.": x_0,
        "That is only the part of x_0: add sqrt(1 - alpha_bar_prev) noise.": b.sqrt() * x_0,
        "That leads back to x_t: mix with alpha_bar_prev.": x_t,
        "The share of noise is sqrt(1 - alpha_bar_prev), not that of t.": (
            b.sqrt() * x_0 + (1 - a).sqrt() * noise
        ),
        "The share of x_0 is sqrt(alpha_bar_prev), not that of t.": (
            a.sqrt() * x_0 + (1 - b).sqrt() * noise
        ),
        "x_0 has the wrong sign in it: subtract the noise from x_t.": add_noise(
            (x_t + (1 - a).sqrt() * noise) / a.sqrt(), noise, b
        ),
        "For x_0 divide by sqrt(alpha_bar).": add_noise(x_t - (1 - a).sqrt() * noise, noise, b),
        "For x_0 divide by the square root of alpha_bar.": add_noise(
            (x_t - (1 - a).sqrt() * noise) / a, noise, b
        ),
        "The square roots are missing.": b * ((x_t - (1 - a) * noise) / a) + (1 - b) * noise,
        "The last line lacks the square roots: use add_noise.": b * x_0 + (1 - b) * noise,
        "There is fresh noise in it: DDIM adds back the predicted noise.": add_noise(x_0, fresh, b),
        "alpha_bar and alpha_bar_prev are exchanged.": add_noise(
            (x_t - (1 - b).sqrt() * noise) / b.sqrt(), noise, a
        ),
        "That is a step of DDPM: DDIM adds back the predicted noise, and no fresh one.": _ddpm(
            x_t, noise, a, b, fresh
        ),
    }
    otherwise = "That is not sqrt(alpha_bar_prev) x_0 + sqrt(1 - alpha_bar_prev) noise."
    diagnose(result, right, mistakes, otherwise)
    return "predict x_0, then go back to a smaller noise level along the same noise"


class _SamplingRecord:
    """A predictor and a step that remember their arguments; a step halves the points."""

    def __init__(self) -> None:
        self.weight = torch.tensor(1.0, requires_grad=True)
        self.inputs: list[tuple[torch.Tensor, int]] = []
        self.steps: list[Sequence[Any]] = []
        self.noises: list[torch.Tensor] = []
        self.results: list[torch.Tensor] = []

    def predict(self, x_t: Any, t: Any) -> torch.Tensor:
        expect_type(x_t, torch.Tensor, "What predict is given first", "it has to be x_t.")
        times = torch.as_tensor(t).flatten()
        expect(bool((times == times[0]).all()), "In one step all points have the same timestep.")
        self.inputs.append((x_t, int(times[0])))
        self.noises.append(torch.full_like(x_t, len(self.inputs)) * self.weight)
        return self.noises[-1]

    def step(
        self, x_t: Any, noise: Any, alpha_bar: Any, alpha_bar_prev: Any, fresh_noise: Any = None
    ) -> torch.Tensor:
        self.steps.append((x_t, noise, alpha_bar, alpha_bar_prev, fresh_noise))
        self.results.append(x_t / 2 + 0 * self.weight)
        return self.results[-1]


def _expect_loop(record: _SamplingRecord, x: torch.Tensor, times: list[int]) -> None:
    """Raise CheckFailed unless predictions and steps were those of `times`."""
    count = len(times)
    called = [t for _, t in record.inputs]
    expect(
        len(called) == count,
        f"For {count} steps predict was called {len(called)} times: once in each step.",
    )
    expect(called != times[::-1], "The timesteps rise: sampling begins at the noise, t = 999.")
    expect(
        called == times, f"predict gets the timesteps {called}, and timesteps(count) is {times}."
    )
    expect(
        len(record.steps) == count,
        f"For {count} steps `step` was called {len(record.steps)} times: once after each predict.",
    )
    alpha_bar = _alpha_bar()
    state = x
    for i, (t, t_prev) in enumerate(zip(times, [*times[1:], END], strict=True)):
        x_t, noise, a, b, fresh = record.steps[i]
        expect(
            close(record.inputs[i][0], state),
            "predict has to get the result of the step before, not the start.",
        )
        expect(close(x_t, state), "`step` gets other points than predict: both get x_t.")
        expect(noise is record.noises[i], "`step` does not get the noise that predict returned.")
        expect(
            close(torch.as_tensor(a), alpha_bar[t]),
            f"At t = {t} the third argument of `step` is not alpha_bar[{t}].",
        )
        expect(
            t_prev != END or close(torch.as_tensor(b), alpha_bar[END]),
            "The last step has to lead to alpha_bar[END] = 1, where there is no noise.",
        )
        expect(
            not close(torch.as_tensor(b), alpha_bar[t - 1]) or t - 1 == t_prev,
            f"The step from t = {t} leads to {t - 1}; the next timestep of the list is {t_prev}.",
        )
        expect(
            close(torch.as_tensor(b), alpha_bar[t_prev]),
            f"The step from t = {t} has to lead to alpha_bar[{t_prev}], the next timestep's.",
        )
        expect(fresh is not None, "`step` gets no fresh noise: torch.randn_like(x).")
        expect_tensor(fresh, x.shape, "The fresh noise", "torch.randn_like(x) draws it.")
        state = record.results[i]
    first, second = record.steps[0][-1], record.steps[1][-1]
    expect(not torch.equal(first, second), "The fresh noise is the same in each step: draw anew.")
    expect(
        abs(float(first.std()) - 1) < 0.1 and abs(float(first.mean())) < 0.1,
        "The fresh noise is not standard normal: torch.randn_like(x).",
    )


@check("0 (h)")
def loop(function: Callable[..., torch.Tensor]) -> str:
    """The sampling loop, with a predictor and a step that remember what they are given."""
    torch.manual_seed(0)
    x = torch.randn(500, 2)
    start = x.clone()
    for count in (4, 3):
        times = [LEVELS - 1 - i * LEVELS // count for i in range(count)]
        record = _SamplingRecord()
        states = call(function, record.predict, record.step, x, count)
        expect(torch.equal(x, start), "The starting points were changed in place.")
        _expect_loop(record, start, times)
        expect(
            not isinstance(states, list | tuple),
            "The states are a list: return torch.stack(states).",
        )
        expect(
            not isinstance(states, torch.Tensor) or states.shape != x.shape,
            "Only the last state is returned: keep all, and return torch.stack(states).",
        )
        hint = "The start, and the result of each step."
        expect_tensor(states, (count + 1, *x.shape), "The result", hint)
        expect(
            not states.requires_grad,
            "The loop records gradients, which costs time and memory: keep @torch.no_grad().",
        )
        right = torch.stack([start, *record.results])
        mistakes = {"The states are in reversed order: the start comes first.": right.flip(0)}
        diagnose(states, right, mistakes, "The states are not the start and each step's result.")
    return "from noise to data: predict, step, and the same again at the next timestep"


def _labeled(x_t: torch.Tensor, t: Any, label: Any = None) -> torch.Tensor:
    """Return the output of a stand-in for the network, which depends on all its arguments."""
    count = len(x_t)
    classes = torch.as_tensor(NO_LABEL if label is None else label).expand(count)
    times = torch.as_tensor(t).float().expand(count)
    table = torch.randn(NO_LABEL + 1, 2, generator=_generator(7))
    return x_t * times[:, None] / LEVELS + table[classes]


@check("0 (i)")
def guidance(function: Callable[..., torch.Tensor]) -> str:
    """Classifier-free guidance, with a network that depends on points, timestep and label."""
    x_t = torch.randn(64, 2, generator=_generator())
    label = torch.arange(64) % 2
    result = call(function, _labeled, x_t, 300, label, 3.0)
    expect_tensor(result, x_t.shape, "The result")
    uncond, cond = _labeled(x_t, 300), _labeled(x_t, 300, label)
    push = 3 * (cond - uncond)
    mistakes = {
        "The guidance is added to the wrong term: start from `uncond`, not `cond`. (The paper's w "
        "is ours minus 1.)": cond + push,
        "That leads away from the label: the difference is `cond` minus `uncond`.": uncond - push,
        "Scale the difference of the two, cond - uncond, not `cond` itself.": uncond + 3 * cond,
        "Only the scaled difference is left: add it to `uncond`.": push,
        "`w` makes no difference: the formula multiplies by it.": cond,
        "The label makes no difference: one of the two calls gets it.": uncond,
        "`uncond` and `cond` are exchanged: the call without a label is `uncond`.": cond - push,
        "That is scaled as a whole: w multiplies only the difference.": 3 * cond,
    }
    otherwise = "At w = 3 that is not uncond + 3 (cond - uncond)."
    diagnose(result, guide(uncond, cond, 3.0), mistakes, otherwise)
    diagnose(call(function, _labeled, x_t, 300, 1, 0.0), uncond, {}, "At w = 0 it is not uncond.")
    return "w = 0 ignores the label, w = 1 follows it, and a larger w exaggerates the difference"


@check("0 (j)")
def v_loss(function: Callable[..., torch.Tensor]) -> str:
    """The loss of v-prediction, for a network that errs by 2."""

    def v_at(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a = _alpha_bar()[t.long()].reshape(-1, 1)
        return velocity(CENTER.expand_as(x_t), _noise_at(x_t, t), a)

    network, value = _expect_loss(function, v_at)
    x_t, t, _ = network.calls[0]
    noise, v = _noise_at(x_t, t), v_at(x_t, t)
    _expect_random(x_t, t, noise, LEVELS - 1)
    a = _alpha_bar()[t.long()].reshape(-1, 1)
    expect(
        abs(float(noise.std()) - 1) < 0.1,
        "x_t is not the noisy point of (b) at the timestep that the network is given.",
    )
    targets = {
        "The target is still the noise: for v it is sqrt(alpha_bar) noise - "
        "sqrt(1 - alpha_bar) x_0.": noise,
        "The target is x_0: for v it is sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x_0.": (
            CENTER.expand_as(v)
        ),
        "The sign of v is off: sqrt(alpha_bar) noise minus sqrt(1 - alpha_bar) x_0.": -v,
        "The target has a plus: sqrt(alpha_bar) noise minus sqrt(1 - alpha_bar) x_0.": (
            a.sqrt() * noise + (1 - a).sqrt() * CENTER
        ),
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


@check("0 (k)")
def flow_loss(function: Callable[..., torch.Tensor]) -> str:
    """The loss of flow matching, for a network that errs by 2."""

    def noise_of(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        tau = (t / LEVELS).reshape(-1, 1)
        return (x_t - (1 - tau) * CENTER) / tau.clamp_min(1e-6)

    network, value = _expect_loss(function, lambda x_t, t: noise_of(x_t, t) - CENTER)
    x_t, t, _ = network.calls[0]
    expect(
        float(t.max()) > 2 or t.dim() == 0,
        "The network is given tau from 0 to 1: it takes timesteps from 0 to 1000, T * tau.",
    )
    noise = noise_of(x_t, t)
    _expect_random(x_t, t, noise, LEVELS)
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


@check("0 (l)")
def flow_sampling(function: Callable[..., torch.Tensor]) -> str:
    """Euler's method from tau = 1 to 0, with a field that depends on position and timestep."""
    seen: list[float] = []

    def network(x: Any, t: Any, label: Any = None) -> torch.Tensor:
        time = torch.as_tensor(t, dtype=torch.float32).flatten()
        seen.append(float(time[0]))
        return x + time[0] / LEVELS

    x, count = torch.randn(200, 2, generator=_generator()), 5
    start = x.clone()
    states = call(function, network, x, count)
    expect(torch.equal(x, start), "The starting points were changed in place.")
    expect(
        len(seen) == count, f"For {count} steps the network was called {len(seen)} times, not once."
    )
    falling = [LEVELS * (1 - i / count) for i in range(count)]
    expect(max(seen) > 2, "The network is given tau: it takes timesteps up to 1000, T * tau.")
    rising = all(a < b for a, b in itertools.pairwise(seen))
    expect(not rising, "tau rises: sampling begins at the noise, tau = 1.")
    expect(
        close(torch.tensor(seen), torch.tensor(falling), 1e-3),
        f"The network gets {[round(t) for t in seen]} where {[round(t) for t in falling]} are due: "
        "the i-th step begins at tau = 1 - i / count.",
    )
    if isinstance(states, list | tuple) or states.shape == x.shape:
        expect(False, "Return all states, the start included: torch.stack(states).")
    expect_tensor(states, (count + 1, *x.shape), "The result", "The start, and each step's result.")

    def euler(factor: float) -> torch.Tensor:
        steps = [start]
        for t in falling:
            steps.append(steps[-1] + factor * (steps[-1] + t / LEVELS))
        return torch.stack(steps)

    mistakes = {
        "The sign is off: tau falls, so each step subtracts.": euler(1 / count),
        "The steps are too long: each has the length 1 / count.": euler(-1.0),
    }
    otherwise = "A step is not x - output / count, or a state is missing."
    diagnose(states, euler(-1 / count), mistakes, otherwise)
    return "the same loop, with straight steps"


@check("0 challenge 1")
def challenge(function: Callable[..., torch.Tensor]) -> str:
    """Few calls of the best possible predictor; the distance to the data decides."""
    data, alpha_bar = spirals(), _alpha_bar()
    torch.manual_seed(0)
    start, reference = torch.randn(4000, 2), data.sample(20000)[0]
    calls: list[int] = []

    def predict(x_t: torch.Tensor, t: Any) -> torch.Tensor:
        level = int(torch.as_tensor(t).flatten()[0])
        expect(0 <= level < LEVELS, f"predict takes timesteps from 0 to {LEVELS - 1}, got {level}.")
        calls.append(level)
        expect(len(calls) <= CALLS, f"predict may be called {CALLS} times, and is called again.")
        a = alpha_bar[level]
        return -(1 - a).sqrt() * data.score(x_t, a)

    result = call(function, predict, start.clone())
    expect_tensor(result, start.shape, "The result", "The samples alone, one for each start.")
    expect(calls, "predict was not called: the samples have to come from the model.")
    distance = sliced_wasserstein(result, reference)
    expect(
        distance <= GOAL,
        f"The sliced Wasserstein distance to the data is {distance:.3f} after {len(calls)} calls; "
        f"the goal is {GOAL}. Where do the long steps go wrong?",
    )
    return f"a sliced Wasserstein distance of {distance:.3f} with {len(calls)} calls (at most 0.05)"


@check("0 (m)")
def token(value: Any) -> str:
    """A Hugging Face token, which only models that are not public need. Never prints the token."""
    expect(value is not ..., "`token` is still empty: write the line of the TODO above.")
    if value is None:
        return "no token is stored here; the embedded model, pocket, needs none"
    expect_type(value, str, "`token`", "get_token() returns a text or None.")
    expect(
        value.startswith("hf_"),
        'A Hugging Face token starts with "hf_". Copy it again from '
        "https://huggingface.co/settings/tokens",
    )
    return "a Hugging Face token is stored on this machine"
