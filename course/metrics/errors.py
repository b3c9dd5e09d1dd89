"""The error of all metrics."""

import numpy as np

from course.errors import CourseError


class MetricError(CourseError, ValueError):
    """A metric cannot be computed; the message says of what and why."""


def check_finite(value: float, name: str) -> float:
    """Return `value`; raise MetricError if it is NaN or infinite."""
    if not np.isfinite(value):
        raise MetricError(f"{name} is {value}: the image or the network's output is not finite.")
    return value
