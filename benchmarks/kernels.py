"""The kernels of Task 3: `python -m benchmarks.kernels [GROUP ...]`, rows in results/task3.json.

accuracy   every kernel beside the float64 reference, and whether every run gives the same result
grid       time of 2^20 random points, 16 levels of 2 features, 2^19 entries, half precision
cache      that forward pass under Nsight Compute: traffic of the second-level cache
march      time of 64 x 64 rays of a training step, forward and backward, and of a 512 x 512 image
sanitizer  memory errors and races that compute-sanitizer reports under the kernels' GPU tests

They run on the GPU if there is one, else on the CPU (--device chooses). On the CPU, accuracy is the
whole measurement and stored; grid and march are smaller, and their rows are not stored. cache and
sanitizer need a GPU and the programs `ncu` and `compute-sanitizer` of CUDA; else they are left out.
"""

import csv
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import kernel_errors as errors
from benchmarks.common import RESULTS, command_line
from benchmarks.kernel_errors import STEP, field, sample_rays
from course.figures import ROOT, Row, machine, make_rows, median_seconds, report
from task_3_DreamFusion import kernels
from task_3_DreamFusion.gridencoder import GridLayout, grid_encode
from task_3_DreamFusion.raymarching import AliveRays, Samples, composite_rays, march_rays

BARS = {torch.float32: 1e-5, torch.float16: 5e-3}
GRID_RESULTS = {  # of kernel_errors.grid_errors: end of the id, and name
    "values": "values",
    "position_gradient": "gradient of positions",
    "table_gradient": "gradient of the table",
    "second_order": "second order",
}
POINTS = {"cuda": 2**20, "cpu": 2**16}
CALLS = 10  # that are timed together
COUNTERS = {  # of Nsight Compute
    "bytes": "lts__t_bytes.sum",
    "l2_share": "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    "l1_share": "l1tex__throughput.avg.pct_of_peak_sustained_elapsed",
}


def kernel_rows(device: torch.device, group: str, *figures: tuple[Any, ...]) -> list[Row]:
    """Return the rows of a group, with the ids kernels.DEVICE.GROUP.END."""
    on_gpu = device.type == "cuda"
    about = f"kernels, {'CUDA' if on_gpu else 'C++'}"
    key = f"kernels.{device.type}.{group}"
    return make_rows(key, about, *figures, machine=machine(gpu=on_gpu))


# --- Accuracy


def accuracy_rows(device: torch.device) -> list[Row]:
    torch.manual_seed(0)
    float_bar = BARS[torch.float32]
    about = "values and gradients, float32 beside float64"
    freq_error = errors.freq_error(device)
    composite_error = errors.composite_error(device)
    figures: list[tuple[Any, ...]] = [
        ("freq_encode", f"frequency encoding, {about}", freq_error, "", "<=", float_bar),
        ("composite", f"compositing, {about}", composite_error, "", "<=", float_bar),
    ]
    for dtype, bar in BARS.items():
        name = str(dtype).removeprefix("torch.")
        for interpolation in ("linear", "smoothstep"):
            values = errors.grid_errors(device, dtype, interpolation)
            for (key, result), error in zip(GRID_RESULTS.items(), values, strict=True):
                figure = f"hash grid, {interpolation}, {result}, {name} beside float64"
                figures.append((f"grid_{interpolation}_{name}_{key}", figure, error, "", "<=", bar))
    mismatches = errors.march_mismatches(device)
    passes = float(errors.gradcheck_passes(device))
    runs = errors.nondeterministic_runs(device)
    figures += [
        (
            "march_mismatches",
            "samples of a march that are not the reference's",
            mismatches,
            "",
            "<=",
            0,
        ),
        ("gradcheck", "gradcheck in float64 passes, twice over", passes, "", ">=", 1),
        ("nondeterministic_runs", "deterministic: runs that differ, of 10", runs, "", "<=", 0),
    ]
    return kernel_rows(device, "accuracy", *figures)


# --- Time


def milliseconds(work: Callable[[], object], device: torch.device, rounds: int = 50) -> float:
    """Return the median time of a call, after a warm-up.

    On a GPU that is the time of CALLS calls in a row, as they come in training, over CALLS: so the
    GPU is measured, and not the way to it.
    """
    if device.type != "cuda":
        return round(1000 * median_seconds(work, rounds=5), 3)
    times = []
    for _ in range(rounds // 5):
        work()
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(CALLS):
            work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / CALLS)
    return round(statistics.median(times), 3)


@dataclass(frozen=True)
class Encoding:
    """The hash grid that is timed."""

    layout: GridLayout
    x: Tensor  # (N, 3)
    table: Tensor  # (M, 2), requires a gradient
    about: str

    @classmethod
    def on(cls, device: torch.device) -> "Encoding":
        torch.manual_seed(0)
        n = POINTS[device.type]
        layout = GridLayout.make()
        x = torch.rand(n, 3).to(device)
        dtype = torch.float16 if device.type == "cuda" else torch.float32  # no faster on a CPU
        table = (1e-4 * torch.randn(layout.entries, 2)).to(device, dtype).requires_grad_()
        points = f"hash grid, 2^{n.bit_length() - 1} random points"
        name = str(dtype).removeprefix("torch.")
        return cls(layout, x, table, f"{points}, 16 x 2, 2^19 entries, {name}")

    def values(self, x: Tensor | None = None) -> Tensor:
        return grid_encode(self.x if x is None else x, self.table, self.layout)


def grid_rows(device: torch.device) -> list[Row]:
    on_gpu = device.type == "cuda"
    grid = Encoding.on(device)
    about = grid.about
    x = grid.x.clone().requires_grad_()
    dy = torch.randn(len(x), 32).to(grid.table)
    # In memory as the values are; the first layer of a network leaves it either way.
    by_feature = dy.t().contiguous().t()
    both = lambda dy: torch.autograd.grad(grid.values(), grid.table, dy)
    positions = lambda: torch.autograd.grad(grid.values(x), x, dy)
    with torch.no_grad():
        forward = milliseconds(grid.values, device)
    backward = milliseconds(lambda: both(dy), device)
    figures: list[tuple[Any, ...]] = [
        ("forward", f"{about}, forward", forward, "ms", "<=", 0.45 if on_gpu else None),
        (
            "forward_backward",
            f"{about}, forward and backward",
            *(backward, "ms", "<=", 1.5 if on_gpu else None),
        ),
    ]
    time = milliseconds(lambda: both(by_feature), device)
    figures.append(("gradient_by_feature", f"{about}, both, gradient by feature", time, "ms", "<="))
    if on_gpu:
        torch.use_deterministic_algorithms(True)
        time = milliseconds(lambda: both(dy), device)
        torch.use_deterministic_algorithms(False)
        figures.append(("deterministic", f"{about}, both, deterministic", time, "ms", "<="))
    time = milliseconds(positions, device)
    figures.append(
        ("position_gradient", f"{about}, forward and gradient of positions", time, "ms", "<=")
    )
    return kernel_rows(device, "grid", *figures)


def march_rows(device: torch.device) -> list[Row]:
    rays = sample_rays(device, 64)
    samples = march_rays(*rays, STEP)
    count = len(samples.ts)
    about = f"4,096 rays, {count} samples"
    march = milliseconds(lambda: march_rays(*rays, STEP), device)
    fixed = milliseconds(lambda: march_rays(*rays, STEP, capacity=count), device)
    forward, both = composite_times(device, samples)
    side = 512 if device.type == "cuda" else 64
    image_rays = sample_rays(device, side)

    def render() -> AliveRays:
        alive = AliveRays(*image_rays, STEP)
        while (samples := alive.march(8)) is not None:
            alive.composite(samples, *field(samples.positions))
        return alive

    image = f"image of {side} x {side} by rounds, a field that costs nothing"
    figures = [
        ("march", f"march, {about}", march),
        ("march_fixed", f"march into a fixed number of rows, {about}", fixed),
        ("composite", f"compositing, {about}, forward", forward),
        ("composite_backward", f"compositing, {about}, forward and backward", both),
        ("image", image, milliseconds(render, device)),
    ]
    return kernel_rows(device, "march", *((*figure, "ms", "<=") for figure in figures))


def composite_times(device: torch.device, samples: Samples) -> tuple[float, float]:
    """Return the times of compositing, forward and with its backward pass."""
    sigmas, colors = (t.detach().requires_grad_() for t in field(samples.positions))
    deltas = torch.full_like(samples.ts, STEP)
    forward = lambda: composite_rays(sigmas, colors, deltas, samples)
    both = lambda: torch.autograd.grad(forward().image.sum(), (sigmas, colors))
    with torch.no_grad():
        forward_time = milliseconds(forward, device)
    return forward_time, milliseconds(both, device)


# --- Nsight Compute and compute-sanitizer


def has_tool(name: str, device: torch.device) -> bool:
    if device.type == "cuda" and shutil.which(name):
        return True
    print(f"left out: needs a GPU and {name}")
    return False


def encode_repeatedly(times: str = "8") -> None:
    """Run the forward pass that Nsight Compute looks at."""
    grid = Encoding.on(torch.device("cuda", 0))
    with torch.no_grad():
        for _ in range(int(times)):
            grid.values()
    torch.cuda.synchronize()


def cache_rows(device: torch.device) -> list[Row]:
    if not has_tool("ncu", device):
        return []
    options = "--csv --print-units base --clock-control none --cache-control none"
    options += (
        f" --kernel-name regex:encode --launch-skip 3 --metrics {','.join(COUNTERS.values())}"
    )
    program = [sys.executable, "-m", "course.figures", "benchmarks.kernels", "encode_repeatedly"]
    command = ["ncu", *options.split(), *program]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if "ERR_NVGPUCTRPERM" in result.stdout + result.stderr:
        print("left out: ncu has no permission to read the GPU's counters; run it as root")
        return []
    values = read_counters(result.stdout)
    if result.returncode or set(values) != set(COUNTERS.values()):
        raise RuntimeError(f"ncu failed:\n{result.stdout[-2000:]}{result.stderr[-1000:]}")
    value = lambda key: values[COUNTERS[key]]
    about = f"{Encoding.on(device).about}, forward, second-level cache"
    first = f"{about}: share of what the first level can carry"
    return kernel_rows(
        device,
        "cache",
        ("bytes", f"{about}: bytes", round(value("bytes") / 1e9, 3), "GB", "<="),
        (
            "l2_share",
            f"{about}: share of what it can carry",
            round(value("l2_share"), 1),
            "%",
            ">=",
        ),
        ("l1_share", first, round(value("l1_share"), 1), "%", ">="),
    )


def read_counters(text: str) -> dict[str, float]:
    """Return the median over launches of each metric in the output of `ncu --csv`."""
    values: dict[str, list[float]] = {}
    for line in csv.DictReader(line for line in text.splitlines() if line.startswith('"')):
        value = float(line["Metric Value"].replace(",", ""))
        values.setdefault(line["Metric Name"], []).append(value)
    return {name: statistics.median(each) for name, each in values.items()}


def sanitizer_rows(device: torch.device) -> list[Row]:
    """Each tool over the GPU's tests of the kernels, without PyTorch's own kernels.

    Tests about streams and graphs are left out, because the tools change the order in time.
    """
    if not has_tool("compute-sanitizer", device):
        return []
    tests = [sys.executable, "-m", "pytest", "-q", "tests/gpu/test_kernels.py"]
    tests += ["-k", "not stream and not graph"]
    figures = []
    for tool in ("memcheck", "racecheck"):
        options = ["--tool", tool, "--kernel-name-exclude", "kns=N2at6native"]
        # A pool of memory would hide reads beyond the end of a tensor.
        pool = ["env", "PYTORCH_NO_CUDA_MEMORY_CACHING=1"]
        command = [*pool, "compute-sanitizer", *options, *tests]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        count = count_errors(result.stdout)
        figures.append((tool, f"{tool} over the tests of the kernels: errors", count, "", "<=", 0))
    return kernel_rows(device, "sanitizer", *figures)


def count_errors(text: str) -> int:
    """Return the number of errors and hazards in the summaries of compute-sanitizer.

    Raises RuntimeError if there is no summary, or if the tests under it did not pass.
    """
    counts = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)", text)
    passed = re.search(r"^\d+ passed(?!.*error)", text, re.MULTILINE)  # pytest puts failed first
    if not counts or not passed:
        raise RuntimeError(f"compute-sanitizer or the tests under it failed:\n{text[-3000:]}")
    return sum(map(int, counts))


GROUPS: dict[str, Callable[[torch.device], list[Row]]] = {
    "accuracy": accuracy_rows,
    "grid": grid_rows,
    "cache": cache_rows,
    "march": march_rows,
    "sanitizer": sanitizer_rows,
}


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure groups (default: all), print and store their rows, and return them."""
    parser = command_line("benchmarks.kernels", __doc__, GROUPS)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cuda", "cpu"), default=default)
    args = parser.parse_args(arguments)
    device = torch.device("cuda:0" if args.device == "cuda" else "cpu")
    for package in kernels.PACKAGES:
        if not kernels.is_available(package, device):
            parser.error(
                f"{package} has no compiled kernels for {device} here; the line above says why"
            )
    rows: list[Row] = []
    for name in args.groups:
        # The command names the device, so that one does not replace the rows of the other.
        command = f"python -m benchmarks.kernels {name} --device {args.device}"
        full = device.type == "cuda" or name == "accuracy"
        results = RESULTS / "task3.json" if full else None
        rows += report(command, partial(GROUPS[name], device), results)
    return rows


if __name__ == "__main__":
    main()
