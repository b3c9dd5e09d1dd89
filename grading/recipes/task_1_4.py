"""The recipes of the lesson on training.

Timesteps, noise and choices come from the student's function in an order of its own. So the values
that are compared do not depend on them: the network here knows the images, and errs by an amount
that is known.
"""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from grading.recipe import Arrays, Recipes, Space, array, numbers, parts, run_cells
from grading.small_model import make_generator, tiny_unet

LESSON = "task_1_4_Training.ipynb"
GIVEN = ("versions", "parameters", "components", "data", "encode-captions", "sampling-imports")
LOSS = ("ex-a", "ex-b", "ex-loss")

RECIPES = Recipes(LESSON, lambda: run_cells(LESSON, GIVEN))


class Oracle(nn.Module):
    """A network that knows the images (N, 4, h, w), and so v; its output errs by weight * error.

    In a batch of N the images are in their order; else the nearest is x_0, so they have to be far
    from each other. It keeps the numbers of the images, the timesteps, the noise and the text
    embeddings of each call.
    """

    def __init__(self, images: Tensor, alpha_bar: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        self.images, self.alpha_bar = images, alpha_bar
        self.weight = nn.Parameter(0.5 + torch.rand(2, generator=generator))
        self.error = torch.randn((2, *images.shape), generator=generator)
        self.calls: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def forward(
        self, sample: Tensor, timestep: Any, encoder_hidden_states: Any, return_dict: bool = True
    ) -> Any:
        t = torch.as_tensor(timestep).expand(len(sample))
        a = self.alpha_bar[t].view(-1, 1, 1, 1)
        index = torch.arange(len(sample))
        if len(sample) != len(self.images):
            x_0 = (sample.detach() / a.sqrt()).flatten(1)
            index = torch.cdist(x_0, self.images.flatten(1)).argmin(1)
        noise = (sample - a.sqrt() * self.images[index]) / (1 - a).sqrt()
        v = a.sqrt() * noise - (1 - a).sqrt() * self.images[index]
        self.calls.append((index, t, noise.detach(), encoder_hidden_states))
        error = torch.einsum("k,kbchw->bchw", self.weight, self.error[:, index])
        output = v + (1 + encoder_hidden_states.mean((1, 2)))[:, None, None, None] * error
        return UNet2DConditionOutput(sample=output) if return_dict else (output,)


@RECIPES.add("1.4 (a)")
def caption_dropout(space: Space, seed: int) -> Arrays:
    drop = space["drop_captions"]
    g = make_generator(seed)
    states, empty = torch.randn((6, 5, 3), generator=g), torch.randn((1, 5, 3), generator=g)

    def attempt(probability: float, number: int) -> Tensor:
        """Return the captions of a call, and what it changed in those that it got."""
        given = states.clone()
        result = drop(given, empty, probability, make_generator(seed + number))
        return torch.stack([result, given - states])  # (2, 6, 5, 3)

    def attempts() -> Tensor:
        """Return the captions of 80 calls, each with a random generator of its own."""
        return torch.cat([attempt(0.5, number)[0] for number in range(80)])  # (480, 5, 3)

    def captions() -> np.ndarray:
        """Return all different captions of many calls: each as it was, or the empty one."""
        rows = attempts().flatten(1).unique(dim=0)
        return numbers(rows, attempt(0.0, 0), attempt(1.0, 0), attempt(0.5, 0)[1])

    def shares() -> np.ndarray:
        """Return the share of empty captions, in tenths, and how many pairs of choices occur."""
        many = torch.randn((4000, 2, 3), generator=g)
        blank = torch.randn((1, 2, 3), generator=g)
        values: list[Any] = []
        for probability in (0.2, 0.4, 0.7):
            result = drop(many.clone(), blank, probability, make_generator(seed))
            dropped = (result == blank).all(2).all(1)
            values.append(round(float(dropped.double().mean()) * 10) * many[0, 0, 0])
            values.append(len(dropped.view(-1, 2).unique(dim=0)))
        return numbers(values)

    def repeated() -> np.ndarray:
        """Return the captions of calls with the same seeds, and their difference."""
        first = attempts()
        return numbers(first - attempts(), first.flatten(1).unique(dim=0))

    return parts(
        {
            "each caption is kept or replaced as a whole": captions,
            "how many are replaced": shares,
            "the choice comes from the generator": repeated,
        }
    )


@RECIPES.add("1.4 (b)", cells=("ex-a",))
def network(space: Space, seed: int) -> Arrays:
    g = make_generator(seed)
    width = 12 + 4 * int(torch.randint(1, 9, (1,), generator=g))
    unet = space["build_unet"](width).eval()
    weights = sorted(unet.named_parameters())
    with torch.no_grad():
        for _, weight in weights:
            weight.copy_(0.1 * torch.randn(weight.shape, generator=g))
    x_t, states = torch.randn((2, 4, 16, 16), generator=g), torch.randn((2, 5, width), generator=g)

    def output() -> np.ndarray:
        """Return the output, and the side of the latents as the length of a list."""
        with torch.no_grad():
            return numbers(unet(x_t, 300, states).sample, [0] * int(unet.config.sample_size))

    shapes = lambda: numbers(*(np.array(weight.shape) for _, weight in weights))
    return parts({"the weights of each layer": shapes, "the output": output})


@RECIPES.add("1.4 (c)", cells=("ex-a", "ex-b"))
def training_loss(space: Space, seed: int) -> Arrays:
    function = space["training_loss"]
    g = make_generator(seed)
    T = int(torch.randint(11, 20, (1,), generator=g))

    def attempt(count: int, alpha_bar: Tensor, call_seed: int) -> tuple[Tensor, Oracle]:
        """Return the loss of a batch of `count` images, and the network."""
        own = make_generator(seed + count)
        x_0 = 20 * torch.randn((count, 4, 3, 5), generator=own)
        states = torch.randn((count, 2, 3), generator=own)
        unet = Oracle(x_0, alpha_bar, own)
        return function(unet, x_0, states, alpha_bar, make_generator(call_seed)), unet

    def loss_of(count: int, alpha_bar: Tensor) -> np.ndarray:
        loss, _ = attempt(count, alpha_bar, seed)
        return numbers(loss)

    def gradient() -> np.ndarray:
        loss, unet = attempt(7, torch.linspace(0.9, 0.1, T), seed)
        return numbers(*torch.autograd.grad(loss, [unet.weight]))

    def random_numbers() -> np.ndarray:
        """Return figures of timesteps and noise, rounded so far that chance does not matter."""
        alpha_bar = torch.linspace(0.9, 0.1, T)
        calls = [
            attempt(3000, alpha_bar, call_seed)[1].calls for call_seed in (seed, seed, seed + 1)
        ]
        each = [[torch.cat(column) for column in zip(*one, strict=True)] for one in calls]
        t, noise = each[0][1], each[0][2]
        counts = torch.bincount(t, minlength=T) * T / len(t)
        figures = [noise.mean(), noise.std(), noise.std(0).mean(), noise.flatten(1).std(1).mean()]
        figures += [(noise - each[2][2]).std() / 2**0.5, noise.abs().mean() / 0.798]
        rounded = [round(float(figure), 1) * T for figure in figures]
        changes = [(t - each[1][1]).double().norm(), (noise - each[1][2]).norm()]
        return numbers(t.unique(), counts.round(), rounded, changes)

    return parts(
        {
            "the loss of a batch": lambda: loss_of(9, torch.linspace(0.97, 0.05, T)),
            "the loss with another noise schedule": lambda: loss_of(5, torch.full((3,), 0.3)),
            "its gradient": gradient,
            "random timesteps and noise": random_numbers,
        }
    )


def take_steps(step: Callable[..., float], seed: int) -> dict[str, list[Any]]:
    """Return loss, weights and averages after each of four steps of a small network."""
    g = make_generator(seed)
    unet = nn.Linear(5, 2)
    with torch.no_grad():
        for weight in unet.parameters():
            weight.copy_(torch.randn(weight.shape, generator=g))
    optimizer = torch.optim.SGD(unet.parameters(), lr=0.2)
    ema = EMAModel(unet.parameters(), decay=0.6)
    log: dict[str, list[Any]] = {"losses": [], "weights": [], "averages": []}
    for scale in (3.0, 0.1, 2.0, 0.05):  # some gradients are clipped, others are not
        slopes = [scale * torch.randn(w.shape, generator=g) for w in unet.parameters()]
        loss = sum((w * s).sum() for w, s in zip(unet.parameters(), slopes, strict=True))
        result = step(loss, unet, optimizer, ema)
        log["losses"] += [result, isinstance(result, float)]
        log["weights"] += [w.detach().clone() for w in unet.parameters()]
        log["averages"] += [w.clone() for w in ema.shadow_params]
    return log


@RECIPES.add("1.4 (d)", cells=LOSS)
def training_step(space: Space, seed: int) -> Arrays:
    log = take_steps(space["take_step"], seed)
    return parts({f"the {name}": functools.partial(numbers, *log[name]) for name in log})


def schedule(total: int, spacing: str, final_one: bool) -> DDIMScheduler:
    """Return a scheduler whose configuration says noise: the lesson's network predicts v."""
    return DDIMScheduler(
        num_train_timesteps=total,
        beta_start=0.002,
        beta_end=0.03,
        beta_schedule="scaled_linear",
        timestep_spacing=spacing,
        steps_offset=1,
        set_alpha_to_one=final_one,
        clip_sample=False,
    )


@RECIPES.add("1.4 (e)", cells=(*LOSS, "ex-step"))
def sampling(space: Space, seed: int) -> Arrays:
    g = make_generator(seed)
    unet = tiny_unet(seed, 6)

    def attempt(scheduler: DDIMScheduler, batch: int, count: int, w: float) -> np.ndarray:
        x_T = torch.randn((batch, 4, 6, 10), generator=g)
        states = torch.randn((batch, 3, 6), generator=g)
        empty = torch.randn((1, 3, 6), generator=g)
        start = x_T.clone()
        result = space["sample"](unet, scheduler, states, empty, x_T, count, w)
        return numbers(array(result, constant=w > 3), x_T - start)

    trailing, leading = schedule(300, "trailing", True), schedule(240, "leading", False)
    return parts(
        {
            "with guidance": lambda: attempt(trailing, 3, 4, 3.7),
            "with the empty caption alone": lambda: attempt(trailing, 2, 3, 0.0),
            "with the caption alone": lambda: attempt(trailing, 2, 3, 1.0),
            "with another noise schedule": lambda: attempt(leading, 1, 5, 2.3),
        }
    )


def small_training(space: Space, seed: int) -> None:
    """Put a small training set into the lesson, in the place of its own."""
    g = make_generator(seed)
    count, kinds = 24, 7
    latents = 20 * torch.randn((count, 4, 2, 3), generator=g)
    space["data"] = SimpleNamespace(
        latents=latents, pairs=[("toy", str(i)) for i in range(count)], all_pairs=[], unseen=[]
    )
    space["caption_index"] = torch.randint(kinds, (count,), generator=g)
    space["states"] = torch.randn((kinds, 3, 4), generator=g)
    space["empty"] = torch.randn((1, 3, 4), generator=g)
    space["alpha_bar"] = torch.linspace(0.95, 0.1, 13)
    space["every_image"] = torch.arange(count)
    space["generator"] = make_generator(seed + 1)
    space["BATCH"], space["DROPOUT"] = 45, 0.3
    space["unet"] = Oracle(latents, space["alpha_bar"], g)
    space["optimizer"] = torch.optim.SGD(space["unet"].parameters(), lr=0.02)
    space["ema"] = EMAModel(space["unet"].parameters(), decay=0.6)


@RECIPES.add("1.4 (f)", cells=(*LOSS, "ex-step", "ex-sample"), prepare=small_training)
def training_batch(space: Space, seed: int) -> Arrays:
    unet, ema = space["unet"], space["ema"]
    g = make_generator(seed)
    indices = torch.randperm(len(space["every_image"]), generator=g)[:5]

    def attempt() -> Tensor:
        """Return the images of 40 calls, each with the numbers of its caption."""
        unet.calls.clear()
        space["generator"].manual_seed(seed)
        optimizer = torch.optim.SGD(unet.parameters(), lr=0.02)
        for _ in range(40):
            space["train_on"](indices, unet, optimizer, ema)
        rows = [torch.cat([call[0][:, None], call[3].flatten(1)], 1) for call in unet.calls]
        return torch.stack(rows)  # (40, BATCH, 13)

    first, again = attempt(), attempt()
    empty = space["empty"].flatten()
    dropped = (first[..., 1:] == empty).all(-1).double()
    few = first.flatten(0, 1).unique(dim=0)  # each image with its caption, and with the empty one
    images = first[..., 0]  # (40, BATCH)
    neighbors = images[:, :44].reshape(-1, 2)  # each pair of images occurs in a batch
    followers = images.view(20, 2, -1).mT.reshape(-1, 2)  # and in batches that follow each other
    return parts(
        {
            "images with their captions": lambda: numbers(
                few, neighbors.unique(dim=0), followers.unique(dim=0)
            ),
            "how many captions are dropped": lambda: numbers(
                round(float(dropped.mean()) * 10) * empty[0], list(first.shape)
            ),
            "the choice comes from the generator": lambda: numbers(first - again, few),
            "the weights and their average": lambda: trained(space, indices, seed),
        }
    )


def trained(space: Space, indices: Tensor, seed: int) -> np.ndarray:
    """Return losses, weights and averages after three steps, on a single image.

    Then the loss does not depend on the choice; captions have no influence, as all are the same.
    """
    g = make_generator(seed + 2)
    space["states"] = space["empty"].expand_as(space["states"])
    unet = Oracle(space["data"].latents, space["alpha_bar"], g)
    optimizer = torch.optim.SGD(unet.parameters(), lr=0.02)
    ema = EMAModel(unet.parameters(), decay=0.6)
    values: list[Any] = []
    for _ in range(3):
        values.append(space["train_on"](indices[:1], unet, optimizer, ema))
        values += [w.detach().clone() for w in (*unet.parameters(), *ema.shadow_params)]
    return numbers(*values)


@RECIPES.add("1.4 (g)", cells=LOSS)
def share_right(space: Space, seed: int) -> Arrays:
    random = np.random.default_rng(seed)
    toys, colors = ["kite", "drum", "boat"], ["teal", "gray", "pink", "gold"]

    def attempt(count: int, same: tuple[str, ...]) -> np.ndarray:
        """Return the share of random readings, in which the attributes of `same` are right."""
        pairs = [(str(random.choice(toys)), str(random.choice(colors))) for _ in range(count)]
        read = [
            {"object": str(random.choice(toys)), "color": str(random.choice(colors)), "side": "x"}
            for _ in range(count)
        ]
        for attributes, (toy, color) in zip(read, pairs, strict=True):
            given = {"object": toy, "color": color}
            attributes |= {name: given[name] for name in same}
        return numbers(float(space["share_right"](read, pairs)))

    return parts(
        {
            "some toys and colors are right": lambda: attempt(257, ()),
            "all toys are right, some colors": lambda: attempt(131, ("object",)),
            "all colors are right, some toys": lambda: attempt(113, ("color",)),
        }
    )


@RECIPES.add("1.4 (i)", cells=LOSS)
def nearest(space: Space, seed: int) -> Arrays:
    g = make_generator(seed)

    def attempt(samples: int, count: int, shift: float) -> np.ndarray:
        """Return the indices for samples that are random (shift 1) or near training latents."""
        scale = 0.5 + torch.rand((count, 1, 1, 1), generator=g)
        latents = scale * torch.randn((count, 4, 3, 5), generator=g)
        own = latents[torch.randint(count, (samples,), generator=g)]
        own = (1 - shift) * own + shift * torch.randn(own.shape, generator=g)
        before = latents.clone()
        return numbers(space["nearest"](own, latents), latents - before)

    return parts(
        {
            "random latents": lambda: attempt(90, 70, 1.0),
            "latents near those of the training set": lambda: attempt(20, 35, 0.3),
            "a single sample": lambda: attempt(1, 50, 0.6),
        }
    )


@RECIPES.add("1.4 (h)", cells=LOSS)
def loss_at_timestep(space: Space, seed: int) -> Arrays:
    g = make_generator(seed)
    unet = tiny_unet(seed, 6)
    alpha_bar = (1 - torch.linspace(0.01, 0.3, 17)).cumprod(0)

    def loss(t: int, batch: int) -> Any:
        x_0, noise = torch.randn((2, batch, 4, 6, 4), generator=g)
        states = torch.randn((batch, 3, 6), generator=g)
        return space["loss_at"](t, unet, x_0, states, noise, alpha_bar)

    def losses(t: int) -> np.ndarray:
        return numbers(*(loss(t, batch) for batch in (3, 1, 4)))

    def as_number() -> np.ndarray:
        result = loss(4, 2)
        return numbers(result, isinstance(result, float))

    return parts(
        {
            "with little noise": lambda: losses(0),
            "with much noise": lambda: losses(16),
            "in between": lambda: losses(7),
            "as a number": as_number,
        }
    )
