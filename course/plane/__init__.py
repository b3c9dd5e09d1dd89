"""Diffusion of points in the plane, for lesson 0: data with known scores, and a small network.

data = spirals()
x_0, label = data.sample(512)
noise = PointNetwork()(x_0, 500, label)
"""

from course.plane.fields import average_by_cell, grid
from course.plane.figures import compare_scores, compare_with_data
from course.plane.mixture import Mixture, spirals
from course.plane.network import NO_LABEL, PointNetwork

__all__ = [
    "NO_LABEL",
    "Mixture",
    "PointNetwork",
    "average_by_cell",
    "compare_scores",
    "compare_with_data",
    "grid",
    "spirals",
]
