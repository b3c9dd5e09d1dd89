"""How coherent is a panorama? Metrics of the literature on crops, and the seam of a closed one.

networks = load_networks()  # the embedded judge, which guides nothing in the lessons
intra_distance(panorama, networks.distance, 256)  # crops of 256 x 256 that look alike: a low value
"""

import itertools
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from course.arguments import check_integer
from course.metrics.errors import MetricError, check_finite


def crops(image: Tensor, size: int) -> Tensor:
    """Return the non-overlapping centered squares of an image (3, H, W): (K, 3, size, size).

    As many rows and columns as fit. Raises MetricError if not one fits.
    """
    if image.dim() != 3 or image.shape[0] != 3:
        raise MetricError(f"An image must be a tensor (3, H, W), got {tuple(image.shape)}.")
    height, width = image.shape[-2:]
    size = check_integer("The size of a crop", size, 1, min(height, width), MetricError)
    rows, columns = height // size, width // size
    top, left = (height - rows * size) // 2, (width - columns * size) // 2
    whole = image[:, top : top + rows * size, left : left + columns * size]
    return whole.unfold(1, size, size).unfold(2, size, size).permute(1, 2, 0, 3, 4).flatten(0, 1)


def _pairs(image: Tensor, size: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return the crops of an image and the pairs of their indices."""
    squares = crops(image, size)
    if len(squares) < 2:
        raise MetricError(
            f"An image of {image.shape[-2]} x {image.shape[-1]} has one crop of {size} pixels, but "
            "a comparison needs two: use a smaller size or a larger image."
        )
    return squares, list(itertools.combinations(range(len(squares)), 2))


@torch.no_grad()
def intra_distance(image: Tensor, distance: Callable[[Tensor, Tensor], Tensor], size: int) -> float:
    """Return the mean perceptual distance of all pairs of crops.

    With LPIPS this is Intra-LPIPS of SyncDiffusion (Lee et al. 2023, arXiv:2306.05178).

    image: (3, H, W) in [-1, 1]; distance: two batches (N, 3, size, size) to N values, such as
    `lpips.LPIPS`. Raises MetricError if there are not two crops, or a value is not finite.
    """
    squares, pairs = _pairs(image.clamp(-1, 1), size)
    values = [float(distance(squares[i : i + 1], squares[j : j + 1])) for i, j in pairs]
    return check_finite(sum(values) / len(values), "The intra-distance")


@torch.no_grad()
def intra_style_loss(image: Tensor, features: Callable[[Tensor], list[Tensor]], size: int) -> float:
    """Return the mean style loss (Gatys et al. 2016) of all pairs of crops.

    It is the sum over layers of the mean squared difference of Gram matrices. Published tables give
    it times 100.
    image: (3, H, W) in [-1, 1]; features: (N, 3, size, size) to a list of (N, C, h, w).
    Raises MetricError as `intra_distance` does.
    """
    squares, pairs = _pairs(image.clamp(-1, 1), size)
    grams = [gram_matrix(layer) for layer in features(squares)]
    values = [sum(float((g[i] - g[j]).square().mean()) for g in grams) for i, j in pairs]
    return check_finite(sum(values) / len(values), "Intra-Style-L")


def gram_matrix(layer: Tensor) -> Tensor:
    """Return the channel correlations (N, C, C) of (N, C, h, w): mean over positions, over C."""
    flat = layer.flatten(2).float()  # (N, C, h w)
    return flat @ flat.transpose(1, 2) / flat[0].numel()


class Measurement(NamedTuple):
    """A panorama (3, H, W), the seconds it took, and the mean distance of its crops."""

    image: Tensor
    seconds: float
    distance: float


def measure_panorama(
    sample: Callable[[], Tensor], distance: Callable[[Tensor, Tensor], Tensor], size: int
) -> Measurement:
    """Return what `sample` generates, its time, and its `intra_distance` for crops of `size`."""
    start = time.perf_counter()
    image = sample()
    seconds = time.perf_counter() - start
    return Measurement(image, seconds, intra_distance(image, distance, size))


def plot_tradeoff(points: Mapping[str, Measurement]) -> None:
    """Plot the intra-distance of panoramas against their time; the time of the first one is 1."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(figsize=(9, 3.4), layout="tight")
    first = next(iter(points))
    for i, (name, point) in enumerate(points.items()):
        time = point.seconds / points[first].seconds
        label = f"{name}: time {time:.1f}, distance {point.distance:.2f}"
        axes.plot(time, point.distance, "o", color=f"C{i}", markersize=9, label=label)
    axes.set(xlabel=f"time, {first} = 1", ylabel="intra-distance")
    # Beside the points, where labels cannot overlap.
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    plt.show()


def wrap_rank(image: Tensor) -> float:
    """Return the share of the columns of (3, H, W) that differ less from the next than the last."""
    steps = column_differences(image)
    return float((steps[:-1] < steps[-1]).float().mean())


def column_differences(image: Tensor) -> Tensor:
    """Return how much each column of an image (3, H, W) differs from the next: (W,).

    The mean over rows and channels. The last number compares the last column with the first, where
    a closed panorama meets itself.
    """
    return (image.roll(-1, dims=-1) - image).abs().mean(dim=(0, 1))
