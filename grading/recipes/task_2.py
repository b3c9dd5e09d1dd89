"""Recipes of lesson 2: windows, their average, and a comparison of two methods."""

import itertools
import operator
import zlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course.diffusion import predict_x0
from course.diffusion.joint import Sync, View
from course.images.panorama import check_windows
from grading.recipe import Arrays, Inputs, Recipes, Space, parts, run_cells, second

LESSON = "task_2_Joint_Diffusion.ipynb"


def setup() -> Space:
    """Return the names that the lesson has at its exercises."""
    names = dict(torch=torch, itertools=itertools, predict_x0=predict_x0, Sync=Sync)
    return run_cells(LESSON, ["c04", "c05"]) | names | {"check_windows": check_windows}


RECIPES = Recipes(LESSON, setup)
WINDOWS = ("c11", "x04")  # cells of window_starts, window_views and crop_windows
FUSION = (*WINDOWS, "c19", "c24", "c31")


# --- Windows


def _sides(seed: int) -> dict[str, tuple[int, int, int, bool]]:
    """Return sizes, windows and strides of sides, and whether they are closed, by part."""
    inputs = Inputs(seed)
    window = 2 * inputs.integer(3, 8)
    stride = inputs.integer(2, window - 2)
    even, uneven = window + 5 * stride, window + 4 * stride + inputs.integer(1, stride - 1)
    return {
        "open, the stride leads to the border": (even, window, stride, False),
        "open, it does not": (uneven, window, stride, False),
        "open, one window": (window, window, stride, False),
        "open, a stride of one window": (3 * window + 1, window, window, False),
        "ring": (even, window, stride, True),
        "ring, a remainder": (uneven, window, stride, True),
        "ring, no window wraps by itself": (4 * window, window, window, True),
    }


def _coverage(starts: np.ndarray, side: tuple[int, int, int, bool], seed: int) -> np.ndarray:
    """Return random values of the columns that are covered, and what is too much or too far."""
    size, window, stride, closed = side
    covered = np.zeros(size)
    for start in starts:
        covered[(start + np.arange(window)) % size] = 1
    gap = max(np.diff(starts), default=0)
    needed = (size - 1) // stride + 2 if closed else (size - window - 1) // stride + 2
    repeated, across = len(starts) - len(set(starts)), starts[-1] + window > size
    excess = max(gap - stride, 0), max(len(starts) - needed, 0), repeated
    return np.array([*covered * Inputs(seed).uniform(1, 2, size).numpy(), *excess, across])


def measure_placement(arrays: Arrays, seed: int) -> Arrays:
    """Return the coverage of each side: more than one placement is right."""
    result = {}
    for name, side in _sides(seed).items():
        starts = np.sort(arrays.get(name, np.zeros(0)).ravel())
        last = side[0] - (1 if side[3] else side[1])
        is_whole = starts.dtype.kind in "iu" and 0 < len(starts) < 1000
        if is_whole and 0 <= starts[0] and starts[-1] <= last:
            result[name] = _coverage(starts, side, seed)
    return result


@RECIPES.add("2.1 (a)", measure=measure_placement)
def window_placement(space: Space, seed: int) -> Arrays:
    """The starts of windows along several sides."""
    place = lambda side: np.array([operator.index(i) for i in space["window_starts"](*side)])
    return parts({name: partial(place, side) for name, side in _sides(seed).items()})


def _sorted_views(views: Sequence[View]) -> Tensor:
    """Return rows and columns (N, k, 2) of views, from top to bottom and left to right."""
    ordered = sorted(views, key=lambda view: (int(view[0].flatten()[0]), int(view[1][0])))
    rows, columns = (torch.stack(list(part)) for part in zip(*ordered, strict=True))
    return torch.cat([rows, columns[:, :, None]], dim=2)


@RECIPES.add("2.1 (b)", WINDOWS[:1])
def views(space: Space, seed: int) -> Arrays:
    """Rows and columns of all windows, and windows at other views."""
    inputs = Inputs(seed)
    window = inputs.integer(4, 7)
    stride = inputs.integer(2, window - 1)
    size = window + inputs.integer(2, 6), 3 * window + inputs.integer(1, 5)
    place = lambda *sides, closed: _sorted_views(
        space["window_views"](*sides, window, stride, closed)
    )
    latents = inputs.normal(1, inputs.integer(2, 5), *size)
    rows, columns = torch.arange(size[0]), torch.arange(size[1])
    others = [
        (rows[top : top + window, None], columns.roll(-left)[:window])
        for top, left in ((2, 0), (0, size[1] - 2), (1, inputs.integer(1, 9)), (1, window))
    ]
    functions = {
        "open": lambda: place(*size, closed=False),
        "ring": lambda: place(*size, closed=True),
        "tall": lambda: place(2 * window + 1, window + 1, closed=False),
        "windows": lambda: second(space["crop_windows"], latents, others),
    }
    return parts(functions, inputs)


@RECIPES.add("2.1 (1)")
def denoised_windows(space: Space, seed: int) -> Arrays:
    """Steps between several noise levels."""
    inputs = Inputs(seed)

    def step(*levels: Tensor) -> Tensor:
        windows, noise = inputs.normal(2, 3, 5, 6, 6)
        return second(space["denoise_windows"], windows, noise, *levels)

    low, high = inputs.uniform(0.01, 0.4), inputs.uniform(0.5, 0.99)
    functions = {
        "a step": lambda: step(low, high),
        "the last step": lambda: step(high, torch.tensor(1.0)),
        "a step back": lambda: step(high, low),
    }
    return parts(functions, inputs)


def _weighted_views(
    space: Space, inputs: Inputs, closed: bool = True
) -> tuple[list[View], Tensor, tuple[int, int]]:
    """Return views that overlap unevenly, weights (N, 1, k, k) that differ, and the size."""
    window = inputs.integer(3, 5)
    size = window + 2, 3 * window + 2
    views = space["window_views"](*size, window, window - 1, closed)
    return views, inputs.uniform(0.1, 2, len(views), 1, window, window), size


@RECIPES.add("2.1 (2)", WINDOWS)
def weight_sum(space: Space, seed: int) -> Arrays:
    """Sums of weights on a ring and between borders."""
    inputs = Inputs(seed)

    def add(closed: bool) -> Any:
        views, weights, size = _weighted_views(space, inputs, closed)
        return second(space["weight_sum"], views, weights, *size)

    return parts({"open": lambda: add(False), "ring": lambda: add(True)}, inputs)


@RECIPES.add("2.1 (3)", (*WINDOWS, "c24"))
def fusion(space: Space, seed: int) -> Arrays:
    """Averages on a ring, between borders, and of windows in half precision."""
    inputs = Inputs(seed)

    def average(closed: bool, channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
        views, weights, size = _weighted_views(space, inputs, closed)
        windows = inputs.normal(len(views), channels, *weights.shape[2:]).to(dtype)
        total = space["weight_sum"](views, weights, *size)
        fused: Tensor = second(space["fuse"], windows, views, weights, total)
        return fused.to(dtype)

    functions = {
        "open": lambda: average(False, 3),
        "ring": lambda: average(True, 5),
        "half precision": lambda: average(True, 4, torch.float16),
    }
    return parts(functions, inputs)


@RECIPES.add("2.1 (c)", FUSION)
def joint_step(space: Space, seed: int) -> Arrays:
    """A step with an update that moves windows, and what the update gets."""
    inputs = Inputs(seed)
    views, weights, size = _weighted_views(space, inputs)
    latents = inputs.normal(1, 4, *size)
    factor, offset = inputs.uniform(0.4, 0.7), inputs.uniform(0.2, 0.4)
    levels = inputs.uniform(0.1, 0.4), inputs.uniform(0.5, 0.9)
    seen: list[Tensor] = []

    def update(windows: Tensor) -> tuple[Tensor, Tensor]:
        if len(windows) != len(views):
            raise ValueError(f"{len(windows)} windows for {len(views)} prompts.")
        seen.append(windows.clone())
        return factor * windows + offset, windows.flip(-1).tanh()

    def windows() -> Tensor:
        seen.clear()
        space["joint_step"](None, latents, views, weights, update, *levels)
        return torch.cat(seen)

    def result(i: int) -> Tensor:
        x_0, x_prev = second(space["joint_step"], None, latents, views, weights, update, *levels)
        return (x_0, x_prev)[i]

    functions = {"x_0": lambda: result(0), "x_prev": lambda: result(1), "windows": windows}
    return parts(functions, inputs)


# --- Comparisons


class SmallSampler:
    """A sampler whose panorama is random numbers that depend on the request alone."""

    def __init__(self, inputs: Inputs) -> None:
        self.seed = inputs.integer(0, 2**30)
        self.strength = float(inputs.uniform(5, 50))
        self.x0_histories: list[Any] = []

    def paper(self) -> Sync:
        return Sync(weight=self.strength)

    def sample(self, prompts: Any = None, closed: bool = False, **settings: Any) -> Tensor:
        sync = settings.pop("sync", None) or Sync(weight=0.1, through="decoder")
        used = sync if settings.pop("use_syncdiffusion", False) else None
        request = prompts, bool(closed), sorted(settings.items()), used
        self.x0_histories.append([])
        return Inputs(self.seed ^ zlib.crc32(repr(request).encode())).normal(3, 4, 16)


@RECIPES.add("2.2 (f)")
def comparison(space: Space, seed: int) -> Arrays:
    """Two panoramas of a sampler that tells all requests from each other."""
    inputs = Inputs(seed)
    sd = space["sd"] = SmallSampler(inputs)

    def panorama_of(i: int, prompt: str, **settings: Any) -> Tensor:
        multi, synced = space["compare"](sd, prompt, inputs.integer(5, 999), **settings)
        return (multi, synced)[i]

    functions = {
        "MultiDiffusion": lambda: panorama_of(0, "snow at night", stride=3),
        "SyncDiffusion": lambda: panorama_of(1, "snow at night", stride=3),
        "other settings": lambda: panorama_of(1, "a river", width=192, smooth=False),
    }
    return parts(functions, inputs)
