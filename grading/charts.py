"""What the charts of the class report show: counts, as positions and sizes for inline SVG."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from grading.scores import STATUSES, Score

BINS = 10  # of the histogram of all points


@dataclass(frozen=True)
class Segment:
    """A part of a bar: its label, how many it stands for, and its place in percent of the bar."""

    label: str
    count: int
    start: float
    size: float


def status_bar(scores: Sequence[Score]) -> list[Segment]:
    """Return the segments of a bar with the statuses of all students, in the order of STATUSES."""
    counts = Counter(score.status for score in scores)
    segments, start = [], 0.0
    for status in STATUSES:
        if counts[status]:
            size = 100 * counts[status] / len(scores)
            segments.append(Segment(status, counts[status], start, size))
            start += size
    return segments


def histogram(values: Sequence[float], largest: float) -> list[Segment]:
    """Return the bars of a histogram of values in [0, largest]; size is percent of the highest."""
    counts = Counter(min(int(BINS * value / largest), BINS - 1) for value in values)
    highest = max(counts.values(), default=1)
    width = largest / BINS
    return [
        Segment(
            f"{i * width:g} to {(i + 1) * width:g}",
            counts[i],
            100 * i / BINS,
            100 * counts[i] / highest,
        )
        for i in range(BINS)
    ]
