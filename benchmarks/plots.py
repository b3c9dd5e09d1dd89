"""Plots of the stored rows about speed: `python -m benchmarks.plots` writes docs/speed/*.svg."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

from benchmarks.common import RESULTS
from course.figures import load

FOLDER = RESULTS.parents[1] / "docs" / "speed"
EVALUATION = RESULTS.parents[1] / "pocket" / "weights" / "evaluation.json"
WAYS = {
    "eager": "diffusers",
    "recipe": "diffusers, compiled with CUDA graphs",
    "course": "this course",
    "compiled": "this course, compiled",
}
SIZES = {"sd15": "SD 1.5", "sd21": "SD 2.1", "sdxl": "SDXL"}


def values(paths: Iterable[Path]) -> dict[str, float]:
    """Return the value of each row in files, by its id."""
    return {row["id"]: row["value"] for path in paths if path.exists() for row in load(path)}


def plot_sizes(axes: Any, rows: dict[str, float]) -> None:
    """Draw the time of a guided call, by size and by way, as bars."""
    for i, (way, name) in enumerate(WAYS.items()):
        heights = [rows[f"speed.{size}.{way}"] for size in SIZES]
        places = [k + 0.2 * (i - 1.5) for k in range(len(SIZES))]
        axes.bar_label(axes.bar(places, heights, 0.2, label=name), fmt="%.3g", fontsize=7)
    axes.set(ylabel="milliseconds", title="A guided call of the denoiser")
    axes.set_xticks(range(len(SIZES)), list(SIZES.values()))


def plot_batches(axes: Any, rows: dict[str, float]) -> None:
    """Draw the time of a call against the batch."""
    keys = {2: "sd21", 4: "batch_4", 16: "batch_16"}
    for way, name in WAYS.items():
        times = [rows[f"speed.{key}.{way}"] / batch for batch, key in keys.items()]
        axes.plot(list(keys), times, "o-", label=name)
    axes.set(xlabel="batch", ylabel="milliseconds for each of the batch", title="SD 2.1")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(keys), list(map(str, keys)))
    axes.set_ylim(bottom=0)


def plot_widths(axes: Any, rows: dict[str, float]) -> None:
    """Draw the time of a panorama against its width."""
    keys = {1024: "_1024", 2048: "", 4096: "_4096"}
    for way, name in {"diffusers": "diffusers", "multi": "this course"}.items():
        axes.plot(
            list(keys), [rows[f"task2.large.{way}{key}"] for key in keys.values()], "o-", label=name
        )
    axes.set(
        xlabel="width in pixels",
        ylabel="seconds",
        title="MultiDiffusion, 512 pixels high, 50 steps",
    )
    axes.set_ylim(bottom=0)


def plot_gpus(axes: Any, rows: dict[str, float]) -> None:
    """Draw how many times as fast two GPUs are."""
    keys = {
        "training": "pocket.scaling.two_gpus",
        "texts of task 3": "task3.scaling.speedup",
        "a panorama": "task2.processes.speedup",
    }
    bars = axes.barh(list(keys), [rows[key] for key in keys.values()], 0.5)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(2, color="gray", linestyle=":")
    axes.set(xlim=(0, 2.2), title="Two GPUs, times as fast as one")


def plot_roofline(axes: Any, rows: dict[str, float]) -> None:
    """Draw each part of a denoiser below the roof."""
    peak, bandwidth = rows["roofline.peak.tflops"], rows["roofline.peak.bandwidth"] / 1000
    intensities = [0.3, peak / bandwidth, 5000]
    axes.plot(intensities, [min(peak, x * bandwidth) for x in intensities], color="gray")
    parts = [key.split(".")[1] for key in rows if key.endswith(".intensity")]
    for i, part in enumerate(parts):
        x, y = rows[f"roofline.{part}.intensity"], rows[f"roofline.{part}.tflops"]
        axes.plot(x, y, "os^"[i % 3], color=f"C{i % 10}", label=part.replace("_", " "))
    axes.set(xscale="log", yscale="log", xlabel="operations for each byte", ylabel="TFLOP/s")
    axes.set_title("Parts of SD 2.1's denoiser, float16")


PLOTS: dict[str, Callable[[Any, dict[str, float]], None]] = {
    "sizes": plot_sizes,
    "batches": plot_batches,
    "widths": plot_widths,
    "gpus": plot_gpus,
    "roofline": plot_roofline,
}


def main() -> list[Path]:
    """Write all plots whose rows are stored, and return their paths."""
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "plots"  # the same file from the same rows
    FOLDER.mkdir(parents=True, exist_ok=True)
    paths = []
    rows = values([*sorted(RESULTS.glob("*.json")), EVALUATION])
    for name, plot in PLOTS.items():
        figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
        try:
            plot(axes, rows)
        except KeyError as missing:
            print(f"{name}: no row {missing} is stored")
            continue
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        path = FOLDER / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
        paths.append(path)
        print(path)
    return paths


if __name__ == "__main__":
    main()
