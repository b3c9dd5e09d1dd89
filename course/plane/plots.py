"""Figures in one style, as images: points in the plane, paths, arrow fields and curves.

Colors are those of Okabe and Ito, which color-blind readers can tell apart. Panels are a mapping
{title: what it shows}. No text is smaller than 12 pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

BLUE, ORANGE, GREEN, PINK, GRAY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C8C8C"
COLORS = (BLUE, ORANGE, GREEN, PINK, "#E69F00", "#56B4E9")
DPI = 100
TITLE, LABEL = 11, 10  # points: 15 and 14 pixels
LIMIT = 2.6  # panels show the square from -LIMIT to LIMIT
WIDTH = 960  # of a full row, in pixels


def points(
    panels: Mapping[str, torch.Tensor],
    labels: torch.Tensor | None = None,
    columns: int | None = None,
    side: int | None = None,
) -> Image.Image:
    """Return a panel of points (N, 2) for each title, colored by their `labels` (N,).

    A panel says how many points lie outside, if that are more than 2 %.
    """
    figure, axes = _panels(panels, columns, side)
    for ax, values in zip(axes, panels.values(), strict=True):
        xy = values.detach().nan_to_num(1e6)
        classes = torch.zeros(len(xy)) if labels is None else labels
        for i, color in enumerate(COLORS[: int(classes.max()) + 1]):
            ax.plot(*xy[classes == i].T, ".", color=color, markersize=2.6, alpha=0.55, mew=0)
        outside = float((xy.abs() > LIMIT).any(1).float().mean())
        if outside > 0.02:
            ax.text(0, -0.9 * LIMIT, f"{outside:.0%} outside", ha="center", fontsize=LABEL)
    return _image(figure)


def paths(
    panels: Mapping[str, torch.Tensor], count: int = 8, columns: int | None = None
) -> Image.Image:
    """Return a panel for each series of states (S, N, 2), with the paths of `count` points.

    Gray: the last state of all points. A path leads from a ring to a disk.
    """
    figure, axes = _panels(panels, columns)
    for ax, states in zip(axes, panels.values(), strict=True):
        ax.plot(*states[-1].T, ".", color=GRAY, markersize=2.2, alpha=0.35, mew=0)
        for i in range(count):
            path, color = states[:, i], COLORS[i % len(COLORS)]
            ax.plot(*path.T, "-", color=color, linewidth=1.3)
            ax.plot(*path[0], "o", color=color, markerfacecolor="white", markersize=6)
            ax.plot(*path[-1], "o", color=color, markersize=6)
    return _image(figure)


def arrow_fields(
    panels: Mapping[str, Mapping[str, torch.Tensor]],
    positions: torch.Tensor,
    background: Mapping[str, torch.Tensor] | None = None,
) -> Image.Image:
    """Return a panel for each title with its fields {name: vectors (M, 2)} at `positions` (M, 2).

    The first field is drawn as broad light bars, the second as thin arrows above them. Long ones
    are shortened: a length L is drawn as L / (L + c), with c the length that a quarter of the first
    field is below. Vectors that are 0 are left out. Gray: the points of `background`.
    """
    figure, axes = _panels(panels, None, bottom=34)
    styles = [
        {"color": "#F5B765", "width": 0.018, "headwidth": 1, "headlength": 0, "headaxislength": 0},
        {"color": "#003F66", "width": 0.006},
    ]
    spacing = float(positions[1:].sub(positions[0]).norm(dim=1).min())
    for ax, (title, fields) in zip(axes, panels.items(), strict=True):
        if background and title in background:
            ax.plot(*background[title].T, ".", color=GRAY, markersize=3, alpha=0.45, mew=0)
        typical = next(iter(fields.values())).norm(dim=1).quantile(0.25)
        for style, (name, vectors) in zip(styles, fields.items(), strict=False):
            lengths = vectors.detach().norm(dim=1, keepdim=True)
            arrows = 1.2 * spacing * vectors.detach() / (lengths + typical)
            shown = lengths[:, 0] > 0
            ax.quiver(
                *positions[shown].T,
                *arrows[shown].T,
                angles="xy",
                scale_units="xy",
                scale=1,
                label=name,
                **style,
            )
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=2, frameon=False, fontsize=TITLE)
    return _image(figure)


def curves(
    series: Mapping[str, Sequence[float] | torch.Tensor],
    x_label: str,
    y_label: str,
    x: Sequence[float] | torch.Tensor | None = None,
    averages: int | None = None,
    size: tuple[int, int] = (640, 300),
) -> Image.Image:
    """Return one plot of all series, each with its name at the end of its line.

    x: positions of the values; by default their indices. averages: show this many averages over
    neighbors in the place of the values, if there are more.
    """
    if averages:
        x = _averages(range(max(map(len, series.values()))), averages)
        series = {name: _averages(values, averages) for name, values in series.items()}
    figure = _figure(*size)
    ax = figure.add_axes((80 / size[0], 58 / size[1], 1 - 250 / size[0], 1 - 76 / size[1]))
    ends = _spread([float(np.asarray(values)[-1]) for values in series.values()], series)
    for (name, values), end, color in zip(series.items(), ends, COLORS, strict=False):
        places = range(len(values)) if x is None else x
        ax.plot(places, np.asarray(values), color=color, linewidth=2)
        ax.annotate(
            name,
            (1.02, end),
            xycoords=("axes fraction", "data"),
            color=color,
            fontsize=TITLE,
            va="center",
            annotation_clip=False,
        )
    ax.set_xlabel(x_label, fontsize=TITLE)
    ax.set_ylabel(y_label, fontsize=TITLE)
    ax.tick_params(labelsize=LABEL)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#E5E5E5")
    return _image(figure)


def _averages(values: Sequence[float] | torch.Tensor, count: int) -> torch.Tensor:
    """Return at most `count` averages over equally many neighbors each."""
    numbers = torch.as_tensor(values, dtype=torch.float64)
    size = max(1, len(numbers) // count)
    return numbers.unfold(0, size, size).mean(dim=1)


def _spread(ends: list[float], series: Mapping[str, Any]) -> list[float]:
    """Return the heights of the names at the ends of lines, moved so that none overlap."""
    values = np.concatenate([np.asarray(values, float) for values in series.values()])
    gap = 0.085 * float(values.max() - values.min())
    heights = list(ends)
    previous = -np.inf
    for i in np.argsort(ends):
        heights[i] = max(ends[i], previous + gap)
        previous = heights[i]
    return heights


def _figure(width: float, height: float) -> Any:
    """Return an empty figure of a size in pixels, which no window shows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _panels(
    panels: Mapping[str, Any], columns: int | None, side: int | None = None, bottom: int = 4
) -> tuple[Any, list[Any]]:
    """Return a figure with a square of axes for each title, and the axes."""
    columns = columns or len(panels)
    rows = -(-len(panels) // columns)
    side = side or min(300, WIDTH // columns)
    above = 26 + 18 * max(title.count("\n") for title in panels)
    width, height = columns * side, rows * (side + above) + bottom
    figure = _figure(width, height)
    axes = []
    for i, title in enumerate(panels):
        row, column = divmod(i, columns)
        top = height - row * (side + above) - above
        frame = (column * side + 4, top - side + 8, side - 8, side - 8)
        ax = figure.add_axes(np.divide(frame, [width, height, width, height]))
        ax.set_title(title, fontsize=TITLE, pad=5)
        ax.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set_color("#CCCCCC")
        axes.append(ax)
    return figure, axes


def _image(figure: Any) -> Image.Image:
    """Return a figure as an image."""
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
