"""The recipes of the lesson on videos."""

import numpy as np
import torch
from PIL import Image

from grading.recipe import Arrays, Recipes, Space, numbers, parts, run_cells

LESSON = "make_video.ipynb"

RECIPES = Recipes(LESSON, lambda: run_cells(LESSON, ("cell-02", "cell-04")))


@RECIPES.add("video (a)")
def prediction(space: Space, seed: int) -> Arrays:
    g = torch.Generator().manual_seed(seed)

    def attempt(a: float, b: float, *shape: int) -> np.ndarray:
        """Return the prediction behind a step from alpha_bar a to b, random latents at both."""
        x_t, x_u = torch.randn((2, *shape), generator=g, dtype=torch.float64)
        before = x_t.clone(), x_u.clone()
        result = space["predicted_x_0"](x_t, x_u, a, b)
        return numbers(result, x_t - before[0], x_u - before[1])

    shift = 0.05 * float(torch.rand((), generator=g))
    return parts(
        {
            "an early step": lambda: attempt(0.02 + shift, 0.2 + shift, 2, 4, 3, 5),
            "a step in the middle": lambda: attempt(0.35 + shift, 0.6 + shift, 1, 3, 6, 2),
            "the last step": lambda: attempt(0.9 + shift, 1.0, 3, 4, 2, 7),
        }
    )


@RECIPES.add("video (b)", cells=("cell-08",))
def timing(space: Space, seed: int) -> Arrays:
    random = np.random.default_rng(seed)

    def attempt(count: int, fps: float, longest: float) -> np.ndarray:
        """Return which frame stands at each place of the clip."""
        frames = [Image.new("L", (4, 2), 17 * i) for i in range(count)]
        durations = random.uniform(0.02, longest, count).tolist()
        given = list(frames)
        clip = space["timed"](given, list(durations), fps)
        if not isinstance(clip, list):
            raise TypeError(f"The clip has to be a list, not a {type(clip).__name__}.")
        return numbers([frame.getpixel((0, 0)) / 17 for frame in clip], len(given) - count)

    return parts(
        {
            "long durations": lambda: attempt(9, 12, 1.7),
            "durations of a few frames": lambda: attempt(13, 7, 0.5),
            "durations of less than a frame": lambda: attempt(12, 5, 0.15),
            "a frame rate that is not a whole number": lambda: attempt(8, 23.976, 0.4),
        }
    )
