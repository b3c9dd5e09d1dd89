"""How well an image keeps to its condition: lines, depth and normals against those extracted again.

edge_f1(canny(image), canny(source))          # 1: every line at its place, 0: none
"""

import cv2
import numpy as np
from scipy.stats import spearmanr

WITHIN = 2  # pixels that a line may be displaced


def edge_f1(lines: np.ndarray, expected: np.ndarray, within: int = WITHIN) -> float:
    """Return the F1 of two maps of lines (H, W); 1 if both are empty, 0 if one is.

    A pixel is correct if the other map has one at most `within` pixels away.
    """
    lines, expected = lines > 0, expected > 0
    if not lines.any() or not expected.any():
        return float(not lines.any() and not expected.any())
    offsets = np.arange(-within, within + 1)
    disc = (offsets[:, None] ** 2 + offsets**2 <= within**2).astype(np.uint8)
    dilate = lambda mask: cv2.dilate(mask.astype(np.uint8), disc) > 0
    precision = dilate(expected)[lines].mean()
    recall = dilate(lines)[expected].mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def spearman(values: np.ndarray, expected: np.ndarray, mask: np.ndarray) -> float:
    """Return Spearman's rank correlation of two maps (H, W) inside a mask.

    It is 0 where `values` is flat, and NaN where the mask is empty or `expected` is flat.
    """
    inside = mask > 0
    if not inside.any() or np.ptp(expected[inside]) == 0:
        return float("nan")
    if np.ptp(values[inside]) == 0:
        return 0.0
    return float(spearmanr(values[inside], expected[inside]).statistic)


def rank_correlation(values: np.ndarray, expected: np.ndarray) -> float:
    """Return Spearman's rank correlation of two maps (H, W), over all pixels."""
    return spearman(values, expected, np.ones(expected.shape))


def mean_angle(normals: np.ndarray, expected: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean angle in degrees between two maps of normals (H, W, 3) inside a mask.

    A normal of length 0, where only one map has a surface, counts as 90 degrees. NaN where the
    mask is empty.
    """
    inside = mask > 0
    if not inside.any():
        return float("nan")
    cosine = (normals[inside] * expected[inside]).sum(axis=1).clip(-1, 1)
    return float(np.rad2deg(np.arccos(cosine)).mean())
