"""Figures of lesson 0 that need the data's score, and distances over numbers of steps."""

from collections.abc import Mapping

import torch
from PIL import Image

from course.metrics.points import sliced_wasserstein
from course.plane import plots
from course.plane.fields import grid
from course.plane.mixture import Mixture


def compare_scores(
    data: Mixture, alpha_bar: torch.Tensor, scores: Mapping[int, torch.Tensor], name: str
) -> Image.Image:
    """Return a panel for each timestep, with `scores` at `grid()` above the data's true score.

    scores: {timestep: vectors (M, 2)}; `name` says what they are. Gray: noisy points.
    """
    panels, clouds = {}, {}
    generator = torch.Generator().manual_seed(0)
    points = data.means[torch.randint(len(data.means), (2000,), generator=generator)]
    noise = torch.randn(len(points), 2, generator=generator)
    for t, vectors in scores.items():
        a = alpha_bar[t]
        panels[f"t = {t}"] = {"true score": data.score(grid(), a), name: vectors}
        spread = (1 - a + a * data.std**2).sqrt()  # of a Gaussian of the mixture, with noise
        clouds[f"t = {t}"] = a.sqrt() * points + spread * noise
    return plots.arrow_fields(panels, grid(), clouds)


def compare_with_data(
    samples: Mapping[str, torch.Tensor], data: Mixture, columns: int
) -> Image.Image:
    """Return a panel for each set of samples, its title with the distance to the data."""
    torch.manual_seed(0)
    reference = data.sample(20000)[0]
    panels = {
        f"{name}: {sliced_wasserstein(points, reference):.2f}": points
        for name, points in samples.items()
    }
    return plots.points(panels, columns=columns)
