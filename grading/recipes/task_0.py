"""Recipes of lesson 0: functions on points, and networks that know the right output.

The functions of losses draw their own random numbers, in any order. So their networks know the
noise that is in the points, or err by a known amount, and the loss does not depend on the numbers.
"""

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import torch
from torch import Tensor

from course import plane
from course.metrics.points import sliced_wasserstein
from course.plane.network import LEVELS, NO_LABEL
from grading.recipe import Arrays, Inputs, Recipes, Space, array, numbers, parts, run_cells

LESSON = "task_0_Introduction.ipynb"
SCHEDULE, NOISE, SCORE = ("cell-07", "cell-09"), ("cell-11",), ("cell-17",)
BATCH = 3000  # points of a loss


def set_up() -> Space:
    """Return the names of the lesson's first cells, and of its data."""
    return run_cells(LESSON, ("cell-01", "cell-03", "cell-05")) | {
        "plots": SimpleNamespace(curves=lambda *_: None)
    }


RECIPES = Recipes(LESSON, set_up)


def schedule_of(count: int = LEVELS) -> Tensor:
    """Return alpha_bar of the lesson's data, (count + 1,), with another end for each count."""
    return torch.linspace(0.999, 0.01, count + 1)[: count + 1]


@RECIPES.add("0 (a)")
def noise_schedule(space: Space, seed: int) -> Arrays:
    inputs = Inputs(seed)
    sizes = {"short": inputs.integer(3, 9), "long": inputs.integer(60, 400), "full": LEVELS}
    values = {
        name: lambda count=count: array(space["noise_schedule"](count))
        for name, count in sizes.items()
    }
    # Near t = 0 alpha_bar is almost 1, and only 1 - alpha_bar shows differences.
    small = {
        f"{name}, 1 - alpha_bar": lambda count=count: 1 - array(space["noise_schedule"](count))
        for name, count in sizes.items()
    }
    return parts(values | small)


def formula(
    function: Callable[..., Any], inputs: Inputs, points: int, levels: int = 1
) -> Callable[[bool], np.ndarray]:
    """Return a call of a function of `points` tensors (B, 2) and `levels` values of alpha_bar.

    It takes whether there is a level for each point, or one for all.
    """

    def attempt(one_each: bool) -> np.ndarray:
        given = [inputs.normal(40, 2) for _ in range(points)]
        shape = (40, 1) if one_each else ()
        levels_ = [inputs.uniform(0.05 + 0.4 * i, 0.45 + 0.4 * i, *shape) for i in range(levels)]
        before = [value.clone() for value in given + levels_]
        result = function(*given, *levels_)
        changes = [now - old for now, old in zip(given + levels_, before, strict=True)]
        return numbers(result, *changes)

    return attempt


def both_shapes(attempt: Callable[[bool], np.ndarray]) -> Arrays:
    return parts(
        {
            "a level for each point": lambda: attempt(True),
            "one level for all points": lambda: attempt(False),
        }
    )


@RECIPES.add("0 (b)")
def add_noise(space: Space, seed: int) -> Arrays:
    return both_shapes(formula(space["add_noise"], Inputs(seed), 2))


@RECIPES.add("0 (c)")
def score_from_noise(space: Space, seed: int) -> Arrays:
    return both_shapes(formula(space["score_from_noise"], Inputs(seed), 1))


@RECIPES.add("0 (d)", cells=(*SCHEDULE, *NOISE, *SCORE))
def average_score(space: Space, seed: int) -> Arrays:
    """The averages of the lesson's own functions, for noise that is the same for every answer."""
    inputs = Inputs(seed)
    records: dict[str, list[Tensor]] = {"points": [], "vectors": []}

    def average_by_cell(points: Tensor, vectors: Tensor, *args: Any, **options: Any) -> Tensor:
        records["points"].append(points)
        records["vectors"].append(vectors)
        return plane.average_by_cell(points, vectors, *args, **options)

    space["plane"] = SimpleNamespace(**{**vars(plane), "average_by_cell": average_by_cell})

    def attempt(t: int) -> np.ndarray:
        """Return averages, and what was averaged; it belongs to the noise of the points."""
        for values in records.values():
            values.clear()
        center = inputs.uniform(-1, 1, 1, 2)
        result = space["average_score"](center.expand(20_000, 2), t)
        (points,), (vectors,) = records["points"], records["vectors"]
        a = space["alpha_bar"][t]
        noise = (points - a.sqrt() * center) / (1 - a).sqrt()
        again = plane.average_by_cell(points, -noise / (1 - a).sqrt())
        moments = (noise.mean(0) / 10).round(), noise.std(0).round(), noise.T.corrcoef().round()
        return numbers(
            (result - again).norm() / again.norm() < 1e-3,
            (vectors + noise / (1 - a).sqrt()).norm() / vectors.norm() < 1e-3,
            len(points),
            *moments,
            t / LEVELS,
        )

    times = [inputs.integer(*bounds) for bounds in ((60, 200), (300, 500))]
    return parts({f"timestep {i}": lambda t=t: attempt(t) for i, t in enumerate(times, 1)})
