"""Distances between two sets of images, by feature vectors of each: FID and KID.

fid(networks.embed(crops), networks.embed(images))
"""

import numpy as np
from torch import Tensor

from course.metrics.errors import MetricError


def fid(a: Tensor, b: Tensor) -> float:
    """Return the Fréchet distance of two sets of vectors (N, D) and (M, D) (Heusel et al. 2017).

    The squared distance of the means, plus tr(A + B - 2 (A B)^(1/2)) of the covariances; the root
    as in clean-fid (Parmar et al. 2022), by scipy in float64. Raises MetricError if the sets do not
    fit, have fewer than two vectors, or values that are not finite.
    """
    from scipy.linalg import sqrtm

    x, y = _to_arrays(a, b)
    cov_x, cov_y = (np.cov(s, rowvar=False).reshape(s.shape[1], s.shape[1]) for s in (x, y))
    root = np.asarray(sqrtm(cov_x @ cov_y))
    if not np.isfinite(root).all():  # nearly singular: with fewer images than dimensions
        offset = 1e-6 * np.eye(len(cov_x))
        root = np.asarray(sqrtm((cov_x + offset) @ (cov_y + offset)))
    distance = np.square(x.mean(axis=0) - y.mean(axis=0)).sum()
    return float(distance + np.trace(cov_x) + np.trace(cov_y) - 2 * np.trace(root.real))


def kid(a: Tensor, b: Tensor, subsets: int = 100, max_size: int = 1000, seed: int = 0) -> float:
    """Return the kernel distance of two sets of vectors (N, D), (M, D) (Binkowski et al. 2018).

    The unbiased squared maximum mean discrepancy with the kernel (x.y / D + 1)^3, the mean over
    random subsets of at most `max_size` vectors, as in clean-fid. For sets of one distribution it
    is zero on average, so slightly below at times. Raises MetricError as `fid` does.
    """
    x, y = _to_arrays(a, b)
    size, rng = min(len(x), len(y), max_size), np.random.default_rng(seed)
    if subsets < 1 or size < 2:
        raise MetricError(
            f"KID needs at least 1 subset of at least 2 vectors, got {subsets} subsets of {size}."
        )
    values = []
    for _ in range(subsets):
        u, v = (s[rng.choice(len(s), size, replace=False)] for s in (x, y))
        within = _kernel(u, u) + _kernel(v, v)
        unbiased = (within.sum() - np.trace(within)) / (size * (size - 1))
        values.append(unbiased - 2 * _kernel(u, v).mean())
    return float(np.mean(values))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _to_arrays(a: Tensor, b: Tensor) -> tuple[np.ndarray, np.ndarray]:
    x, y = (
        np.asarray(s.detach().cpu() if isinstance(s, Tensor) else s, np.float64) for s in (a, b)
    )
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise MetricError(
            "Two sets of vectors must be (N, D) and (M, D) with at least 2 vectors each, got "
            f"{x.shape} and {y.shape}."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise MetricError("A set has vectors that are not finite: check the images behind them.")
    return x, y
