"""Plots of the lesson: point clouds of the toy, and the weights of the view prompts."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from course.views import VIEWS


def clouds(
    points: Mapping[str, Tensor], means: Tensor, limits: tuple[float, float] = (-3, 2)
) -> None:
    """Plot point clouds (B, 2, 1, 1) by name, with the means (K, 2) of the data as crosses.

    The last of the means is black, the others red. limits: of the horizontal axis.
    """
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(
        1, len(points), figsize=(3 * len(points), 2.9), sharey=True, layout="tight", squeeze=False
    )
    for axis, (name, cloud) in zip(axes[0], points.items(), strict=True):
        x, y = cloud.detach().cpu().flatten(1).T
        axis.scatter(x, y, s=8, alpha=0.4, linewidths=0)
        colors = ["red"] * (len(means) - 1) + ["black"]
        axis.scatter(*means.T, c=colors, marker="x", s=70)
        axis.set(title=name, xlim=limits, ylim=(-2.2, 2.2), aspect="equal")
    plt.show()


def view_weights(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Plot the weights of the four view prompts over the azimuth, and over the elevation."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(1, 2, figsize=(9, 2.6), sharey=True, layout="tight")
    azimuth, elevation = torch.linspace(-180, 180, 361), torch.linspace(-5, 90, 191)
    cases = {
        "azimuth, at elevation 15": (azimuth, torch.full_like(azimuth, 15)),
        "elevation, at azimuth 0": (torch.zeros_like(elevation), elevation),
    }
    for axis, (label, angles) in zip(axes, cases.items(), strict=True):
        x = angles[0] if "azimuth," in label else angles[1]
        for name, weights in zip(VIEWS, function(*angles).T, strict=True):
            axis.plot(x, weights, label=name)
        axis.set(xlabel=f"{label} (degrees)", ylim=(-0.05, 1.05))
    axes[0].set(ylabel="weight", xticks=range(-180, 181, 90))
    axes[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    plt.show()
