"""Recipes of lesson 0: functions on points, and networks that know the right output.

The functions of losses draw their own random numbers, in any order. So their networks know the
points, and err by a known amount: then the loss does not depend on those numbers.
"""

import functools
import itertools
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course.metrics.points import sliced_wasserstein
from course.plane.mixture import Mixture, spirals
from course.plane.network import LEVELS, NO_LABEL
from grading.recipe import Arrays, Inputs, Recipes, Space, array, numbers, parts, run_cells

LESSON = "task_0_Introduction.ipynb"
SCHEDULE, NOISE, SCORE, LOSS = ("cell-07", "cell-09"), ("cell-11",), ("cell-17",), ("cell-26",)
STEPS = ("cell-37", "cell-40", "cell-43")
CALLS, GOAL = 8, 0.05  # of the challenge, as in the lesson
Output = Callable[[Tensor, Tensor, Tensor], Tensor]  # x_t, t and x_0 to the right output


def set_up() -> Space:
    """Return the names of the lesson's first cells, with no plots."""
    no_plots = SimpleNamespace(curves=lambda *_: None)
    return run_cells(LESSON, ("cell-01", "cell-03", "cell-05")) | {"plots": no_plots}


RECIPES = Recipes(LESSON, set_up)


# --- Formulas


@RECIPES.add("0 (a)")
def noise_schedule(space: Space, seed: int) -> Arrays:
    inputs = Inputs(seed)
    sizes = {"a few": inputs.integer(3, 9), "many": inputs.integer(60, 400), "all": LEVELS}

    def attempt(count: int) -> np.ndarray:
        """Return alpha_bar, and what is missing to 1, which is small at the start."""
        result = space["noise_schedule"](count)
        return numbers(result, 30 * (1 - result[: count // 4]))

    return parts({f"{name} timesteps": functools.partial(attempt, n) for name, n in sizes.items()})


def formula(function: Callable[..., Any], inputs: Inputs, points: int) -> Arrays:
    """Return results of a function of tensors (B, 2) and alpha_bar, and what it changed in them."""

    def attempt(*shape: int) -> np.ndarray:
        given = [inputs.normal(40, 2) for _ in range(points)]
        given.append(inputs.uniform(0.1, 0.9, *shape))
        before = [value.clone() for value in given]
        result = function(*given)
        return numbers(result, *(now - old for now, old in zip(given, before, strict=True)))

    cases = {
        "alpha_bar of each point": lambda: attempt(40, 1),
        "alpha_bar for all": attempt,
        "another one": attempt,
    }
    return parts(cases, inputs)


@RECIPES.add("0 (b)")
def add_noise(space: Space, seed: int) -> Arrays:
    return formula(space["add_noise"], Inputs(seed), 2)


@RECIPES.add("0 (c)")
def score_from_noise(space: Space, seed: int) -> Arrays:
    return formula(space["score_from_noise"], Inputs(seed), 1)


@RECIPES.add("0 (m)")
def noise_from_v(space: Space, seed: int) -> Arrays:
    return formula(space["noise_from_v"], Inputs(seed), 2)


@RECIPES.add("0 (d)", cells=(*SCHEDULE, *NOISE, *SCORE))
def average_score(space: Space, seed: int) -> Arrays:
    """Averages over so many points that chance hardly matters, where there are many."""
    inputs = Inputs(seed)

    def attempt(t: int) -> np.ndarray:
        center = inputs.uniform(-0.5, 0.5, 1, 2)
        points = center.expand(150_000, 2).clone()
        a = space["alpha_bar"][t]
        distance = (space["plane"].grid() - a.sqrt() * center).norm(dim=1, keepdim=True)
        many = distance < 1.3 * (1 - a).sqrt()
        result = space["average_score"](points, t)
        return array(torch.where(many, result, 0.0))

    times = [inputs.integer(*bounds) for bounds in ((150, 250), (400, 500), (600, 700))]
    cases = {"little noise": times[0], "more noise": times[1], "much noise": times[2]}
    return parts({name: functools.partial(attempt, t) for name, t in cases.items()}, inputs)


def step_cases(function: Callable[..., Any], inputs: Inputs) -> Arrays:
    """Return results of a step of a sampler, and what it changed in its arguments."""

    def attempt(a: float, b: float) -> np.ndarray:
        x_t, noise, fresh = (inputs.normal(50, 2) for _ in range(3))
        before = [value.clone() for value in (x_t, noise, fresh)]
        result = function(x_t, noise, torch.tensor(a), torch.tensor(b), fresh)
        changes = zip((x_t, noise, fresh), before, strict=True)
        return numbers(result, *(now - old for now, old in changes))

    shift = float(inputs.uniform(0, 0.1))
    cases = {
        "at the beginning": lambda: attempt(0.02 + shift, 0.1 + shift),
        "in the middle": lambda: attempt(0.3 + shift, 0.6 + shift),
        "a short step": lambda: attempt(0.7 + shift, 0.75 + shift),
        "the last step": lambda: attempt(0.85 + shift, 1.0),
    }
    return parts(cases, inputs)


@RECIPES.add("0 (g)")
def ddpm_step(space: Space, seed: int) -> Arrays:
    return step_cases(space["ddpm_step"], Inputs(seed))


@RECIPES.add("0 (h)", cells=NOISE)
def ddim_step(space: Space, seed: int) -> Arrays:
    return step_cases(space["ddim_step"], Inputs(seed))


@RECIPES.add("0 (k)")
def guided_noise(space: Space, seed: int) -> Arrays:
    inputs = Inputs(seed)
    weight, table = inputs.normal(2, 2), inputs.normal(NO_LABEL + 1, 2)

    def network(x_t: Tensor, t: Any, label: Any = None) -> Tensor:
        classes = torch.as_tensor(NO_LABEL if label is None else label).expand(len(x_t))
        times = torch.as_tensor(t, dtype=torch.float32).expand(len(x_t))
        return torch.tanh(x_t @ weight + times[:, None] / LEVELS) + table[classes]

    def attempt(label: Any, w: float) -> np.ndarray:
        x_t = inputs.normal(30, 2)
        return array(space["guided_noise"](network, x_t, inputs.integer(10, 900), label, w))

    labels = torch.arange(30) % 2
    cases = {
        "a label for each point": lambda: attempt(labels, 3.7),
        "one label": lambda: attempt(1, 1.6),
        "no guidance": lambda: attempt(labels, 0.0),
        "the opposite": lambda: attempt(0, -2.0),
    }
    return parts(cases, inputs)


# --- Losses


class Oracle:
    """A network that knows the points x_0 (B, 2), in their order, and so the right output.

    Its output errs by an amount for each number and for the label of each point, times a weight.
    It keeps the timesteps, noise and labels of each call.
    """

    def __init__(self, inputs: Inputs, output: Output, noise: Output, count: int) -> None:
        self.x_0 = 2 * inputs.normal(count, 2)
        self.output, self.noise = output, noise
        self.error = inputs.normal(count, 2)
        self.by_label = inputs.normal(NO_LABEL + 1, 2)
        self.weight = inputs.uniform(0.5, 1.5, 2).requires_grad_()
        self.calls: list[tuple[Tensor, Tensor, Any]] = []

    def __call__(self, x_t: Tensor, t: Any, label: Any = None) -> Tensor:
        times = torch.as_tensor(t).expand(len(x_t))
        with torch.no_grad():
            right = self.output(x_t, times, self.x_0)
            self.calls.append((times, self.noise(x_t, times, self.x_0), label))
        classes = torch.as_tensor(NO_LABEL if label is None else label).expand(len(x_t))
        errors = self.weight[0] * self.error + self.weight[1] * self.by_label[classes]
        return right + errors


def level(t: Tensor) -> Tensor:
    """Return alpha_bar (B, 1) of timesteps (B,)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, LEVELS) ** 2
    return (1 - betas).cumprod(0)[t.long()][:, None]


def noise_in(x_t: Tensor, t: Tensor, x_0: Tensor) -> Tensor:
    return (x_t - level(t).sqrt() * x_0) / (1 - level(t)).sqrt()


def v_in(x_t: Tensor, t: Tensor, x_0: Tensor) -> Tensor:
    return level(t).sqrt() * noise_in(x_t, t, x_0) - (1 - level(t)).sqrt() * x_0


def flow_noise_in(x_t: Tensor, t: Tensor, x_0: Tensor) -> Tensor:
    tau = t.float()[:, None] / LEVELS
    return (x_t - (1 - tau) * x_0) / tau.clamp_min(1e-6)


def loss_cases(
    function: Callable[..., Any], seed: int, output: Output, noise: Output
) -> dict[str, Callable[[], np.ndarray]]:
    """Return the cases of a loss: its value, its gradient, and what it draws at random."""
    inputs = Inputs(seed)

    def attempt(count: int) -> tuple[Tensor, Oracle]:
        torch.manual_seed(seed)
        network = Oracle(inputs, output, noise, count)
        return function(network, network.x_0.clone(), torch.arange(count) % 2), network

    def gradient() -> np.ndarray:
        loss, network = attempt(60)
        return numbers(*torch.autograd.grad(loss, [network.weight]))

    def random_numbers() -> np.ndarray:
        """Return figures of timesteps and noise, rounded so far that chance does not matter."""
        (t, noise, _), *_ = attempt(20_000)[1].calls
        inner = t > 0.05 * LEVELS  # where a small tau does not enlarge errors
        parts = torch.bincount((t.double() * 10 / (LEVELS + 1)).long(), minlength=10)
        noise = noise[inner]
        figures = [noise.mean(), noise.std(), noise.std(0).std(), noise.abs().mean() / 0.798]
        figures.append((noise[:, 0] - noise[:, 1]).std() / 2**0.5)
        rounded = [round(float(figure), 1) for figure in figures]
        return numbers((parts / len(t) * 10).round(), rounded, len(t.unique()) > 900)

    return {
        "the loss": lambda: array(attempt(80)[0]),
        "the loss of few points": lambda: array(attempt(3)[0]),
        "its gradient": gradient,
        "random timesteps and noise": random_numbers,
    }


@RECIPES.add("0 (e)", cells=(*SCHEDULE, *NOISE))
def training_loss(space: Space, seed: int) -> Arrays:
    return parts(loss_cases(space["training_loss"], seed, noise_in, noise_in))


@RECIPES.add("0 (l)", cells=(*SCHEDULE, *NOISE))
def v_loss(space: Space, seed: int) -> Arrays:
    return parts(loss_cases(space["v_loss"], seed, v_in, noise_in))


@RECIPES.add("0 (n)")
def flow_loss(space: Space, seed: int) -> Arrays:
    direction: Output = lambda x_t, t, x_0: flow_noise_in(x_t, t, x_0) - x_0
    return parts(loss_cases(space["flow_loss"], seed, direction, flow_noise_in))


@RECIPES.add("0 (j)", cells=(*SCHEDULE, *NOISE, *LOSS))
def loss_with_labels(space: Space, seed: int) -> Arrays:
    inputs = Inputs(seed)

    def attempt() -> tuple[Tensor, Oracle, Tensor, Tensor]:
        """Return the loss, the network, and the labels: given, and what the network got."""
        network = Oracle(inputs, noise_in, noise_in, 20_000)
        label = torch.randint(2, (20_000,), generator=inputs.generator)
        loss = space["loss_with_labels"](network, network.x_0, label)
        return loss, network, label, torch.as_tensor(network.calls[0][2])

    def hidden() -> np.ndarray:
        """Return shares of hidden labels, rounded, and how many of the others have changed."""
        _, _, label, seen = attempt()
        is_hidden = seen == NO_LABEL
        shares = [is_hidden[label == k].double().mean() for k in (0, 1)]
        changes = (seen - label)[~is_hidden].abs().sum()
        return numbers([round(20 * float(share)) for share in shares], changes)

    def values() -> np.ndarray:
        """Return the loss beside that of the labels that the network got."""
        loss, network, _, seen = attempt()
        error = network.weight[0] * network.error + network.weight[1] * network.by_label[seen]
        return numbers(10 + loss - error.square().mean(), network.error[:50])

    def anew() -> np.ndarray:
        """Return in how many of ten pairs of calls other labels are hidden, and the last labels."""
        pairs = [[attempt()[3] for _ in range(2)] for _ in range(3)]
        return numbers(sum(not torch.equal(*pair) for pair in pairs), inputs.normal(3))

    return parts({"the hidden labels": hidden, "the loss": values, "each call": anew}, inputs)


# --- Loops


def prepare_training(space: Space, seed: int) -> None:
    space["SEED"] = seed % 1000


@RECIPES.add("0 (f)", prepare=prepare_training)
def train(space: Space, seed: int) -> Arrays:
    """What does not depend on the schedule of the learning rate, which is free."""
    weight = Inputs(seed).normal(2, 2)
    data: dict[str, list[Any]] = {}

    def loss_function(network: nn.Module, x_0: Tensor, label: Tensor) -> Tensor:
        first = next(network.parameters())
        if not data["weights"]:
            first.register_post_accumulate_grad_hook(
                lambda value: data["gradients"].append(value.grad.clone())
            )
        data["weights"].append(first.detach().clone())
        data["batches"].append((x_0, label))
        loss = (network(x_0, 300 + 100 * label, label) - x_0 @ weight).square().mean()
        data["losses"].append(loss.detach())
        return loss

    def attempt(steps: int) -> tuple[nn.Module, list[float]]:
        for name in ("weights", "batches", "losses", "gradients"):
            data[name] = []
        network, losses = space["train"](loss_function, steps)
        data["weights"].append(next(network.parameters()).detach())
        return network, losses

    def batches() -> np.ndarray:
        attempt(2)
        return numbers(*data["batches"])

    def gradients() -> np.ndarray:
        attempt(2)
        return numbers(*(1000 * gradient for gradient in data["gradients"][:2]))

    def first_steps() -> np.ndarray:
        """Return the weights before the first step and after it."""
        attempt(3)
        return numbers(data["weights"][0], 100 * (data["weights"][1] - data["weights"][0]))

    def returned() -> np.ndarray:
        """Return the losses beside those of each step, and how often the weights moved."""
        _, losses = attempt(6)
        changes = [
            value - float(right) for value, right in zip(losses, data["losses"], strict=True)
        ]
        moved = [not torch.equal(a, b) for a, b in itertools.pairwise(data["weights"])]
        return numbers(data["losses"][:2], changes, len(losses), sum(moved))

    cases = {
        "new batches": batches,
        "gradients": gradients,
        "the first step": first_steps,
        "network and losses": returned,
    }
    return parts(cases)


@RECIPES.add("0 (i)", cells=SCHEDULE)
def sample(space: Space, seed: int) -> Arrays:
    inputs = Inputs(seed)
    weight = inputs.normal(2, 2).requires_grad_()

    def predict(x_t: Tensor, t: Any) -> Tensor:
        return torch.tanh(x_t @ weight) + torch.as_tensor(t) / LEVELS

    def step(x_t: Tensor, noise: Tensor, a: Tensor, b: Tensor, fresh: Tensor) -> Tensor:
        return 0.8 * x_t - 0.5 * noise + a - 2 * b + 0.3 * fresh

    def attempt(count: int) -> np.ndarray:
        x = inputs.normal(20, 2)
        before = x.clone()
        torch.manual_seed(inputs.integer(0, 10**6))
        result = array(space["sample"](predict, step, x, count), constant=True)
        return numbers(result, x - before)

    counts = {"few steps": inputs.integer(2, 4), "more steps": inputs.integer(6, 9)}
    counts |= {"a number that does not divide 1000": 7, "one step": 1}
    return parts({name: functools.partial(attempt, n) for name, n in counts.items()}, inputs)


@RECIPES.add("0 (o)")
def sample_flow(space: Space, seed: int) -> Arrays:
    inputs = Inputs(seed)
    weight = inputs.normal(2, 2).requires_grad_()

    def network(x: Tensor, t: Any, label: Any = None) -> Tensor:
        times = torch.as_tensor(t, dtype=torch.float32).expand(len(x))[:, None]
        return torch.tanh(x @ weight) + 3 * times / LEVELS

    def attempt(count: int) -> np.ndarray:
        x = inputs.normal(20, 2)
        before = x.clone()
        result = array(space["sample_flow"](network, x, count), constant=True)
        return numbers(result, x - before)

    counts = {"few steps": inputs.integer(2, 4), "more steps": inputs.integer(6, 9), "one step": 1}
    return parts({name: functools.partial(attempt, n) for name, n in counts.items()}, inputs)


# --- The challenge and the token


def turned_spirals(seed: int) -> Mixture:
    """Return the lesson's data, turned by an angle."""
    angle = Inputs(seed).uniform(0.5, 2.5)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    data = spirals()
    return Mixture(data.means @ turn, data.labels, data.std)


def distance_to_data(arrays: Arrays, seed: int) -> Arrays:
    """Return whether samples (N, 2) are as near to the data as the challenge asks for."""
    torch.manual_seed(seed)
    reference = turned_spirals(seed).sample(20_000)[0]
    distance = sliced_wasserstein(torch.from_numpy(arrays["samples"].copy()), reference)
    return {"distance": np.array(distance <= GOAL), "number": np.array(len(arrays["samples"]))}


@RECIPES.add("0 challenge 1", (*SCHEDULE, *NOISE, *SCORE, *STEPS), measure=distance_to_data)
def fast_sample(space: Space, seed: int) -> Arrays:
    data, alpha_bar = turned_spirals(seed), space["alpha_bar"]
    calls = 0

    def predict(x_t: Tensor, t: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > CALLS:
            raise ValueError(f"predict may be called {CALLS} times, and is called again.")
        a = alpha_bar[int(torch.as_tensor(t).flatten()[0])]
        return -(1 - a).sqrt() * data.score(x_t, a)

    return {"samples": array(space["fast_sample"](predict, Inputs(seed).normal(4000, 2)))}


def prepare_token(space: Space, seed: int) -> None:
    """Store a token where the library looks for it."""
    os.environ["HF_TOKEN"] = f"hf_{seed * 7919:020d}"


@RECIPES.add("0 (p)", prepare=prepare_token)
def token(space: Space, seed: int) -> Arrays:
    if not isinstance(space["token"], str):
        raise TypeError(f"`token` has to be a text, not a {type(space['token']).__name__}.")
    return {"token": np.frombuffer(space["token"].encode(), np.uint8).astype(np.int64)}
