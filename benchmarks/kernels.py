"""The kernels of Task 3: `python -m benchmarks.kernels [GROUP ...]` prints their figures and stores them in
results/task3.json.

accuracy   every kernel beside the float64 reference: norm of the difference over norm; the same result in every run
grid       2^20 random points, 16 levels of 2 features, 2^19 entries, half: time
cache      that forward pass under Nsight Compute: what goes through the second-level cache, of what it can carry
march      64 x 64 rays of a training step, forward and backward, and the rounds of a 512 x 512 image
sanitizer  errors that compute-sanitizer finds while the GPU's tests of the kernels run: of memory, and races

They run on the GPU if there is one, else on the CPU (--device chooses). On the CPU accuracy is the whole measurement,
and stored as such; grid and march are smaller there, and print rows that are not stored. cache and sanitizer want a
GPU, and CUDA's tools `ncu` and `compute-sanitizer` on the PATH; where these are not, they are left out.
"""

import csv
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import RESULTS, command_line
from course import notebooks
from course.figures import Row, machine, median_seconds, report
from task_3_DreamFusion import kernels
from task_3_DreamFusion.freqencoder import freq_encode
from task_3_DreamFusion.freqencoder import reference as freq_reference
from task_3_DreamFusion.gridencoder import GridLayout, grid_encode
from task_3_DreamFusion.gridencoder import reference as grid_reference
from task_3_DreamFusion.raymarching import (
    AliveRays,
    Occupancy,
    Samples,
    composite_rays,
    march_rays,
    packbits,
    ray_aabb_intersect,
)
from task_3_DreamFusion.raymarching import reference as march_reference

BARS = {torch.float32: 1e-5, torch.float16: 5e-3}
POINTS = {"cuda": 2**20, "cpu": 2**16}
BOX = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)
STEP = 2 * math.sqrt(3) / 1024  # Instant-NGP, appendix E, for a box of side 2
GRID_KEYS = {
    "values": "values",
    "gradient of positions": "position_gradient",
    "gradient of the table": "table_gradient",
    "second order": "second_order",
}
ROW = 10  # calls that are timed together
COUNTERS = {  # of Nsight Compute
    "moved": "lts__t_bytes.sum",
    "share": "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    "first": "l1tex__throughput.avg.pct_of_peak_sustained_elapsed",
}


def named(device: torch.device) -> str:
    return "CUDA" if device.type == "cuda" else "C++"


def apart(found: Iterable[Tensor], exact: Iterable[Tensor]) -> float:
    """The largest of the norms of the differences over the norms; NaN counts as infinitely far."""
    pairs = [
        (a.detach().cpu().double(), b.detach().cpu().double())
        for a, b in zip(found, exact, strict=True)
    ]
    errors = [((a - b).norm() / b.norm()).item() for a, b in pairs]
    return math.inf if any(map(math.isnan, errors)) else max(errors)


# --- Accuracy


def accuracy_rows(device: torch.device) -> list[Row]:
    torch.manual_seed(0)
    rows = []
    errors = {
        "freq_encode": ("frequency encoding", freq_error(device)),
        "composite": ("compositing", composite_error(device)),
    }
    for key, (name, error) in errors.items():
        about = f"{name}, values and gradients, float32 beside float64"
        rows.append(row(device, f"accuracy.{key}", about, error, "", "<=", BARS[torch.float32]))
    for dtype, bar in BARS.items():
        for interpolation in ("linear", "smoothstep"):
            for name, error in grid_errors(device, dtype, interpolation).items():
                about = f"hash grid, {interpolation}, {name}, {str(dtype)[6:]} beside float64"
                dtype_name = str(dtype).removeprefix("torch.")
                key = f"accuracy.grid_{interpolation}_{dtype_name}_{GRID_KEYS[name]}"
                rows.append(row(device, key, about, error, "", "<=", bar))
    rows.append(
        row(
            device,
            "accuracy.march_mismatches",
            "samples of a march that are not the reference's",
            march_difference(device),
            "",
            "<=",
            0,
        )
    )
    rows.append(
        row(
            device,
            "accuracy.gradcheck",
            "gradcheck in float64 passes, twice over",
            float(gradients_hold(device)),
            "",
            ">=",
            1,
        )
    )
    rows.append(
        row(
            device,
            "accuracy.nondeterministic_runs",
            "deterministic: runs that differ, of 10",
            repeats(device),
            "",
            "<=",
            0,
        )
    )
    return rows


def row(
    device: torch.device,
    key: str,
    what: str,
    value: float,
    unit: str,
    sense: str = "<=",
    bar: float | None = None,
) -> Row:
    """Return the row with the id kernels.DEVICE.KEY."""
    return Row(
        f"kernels.{device.type}.{key}",
        f"kernels, {named(device)}: {what}",
        value,
        unit,
        sense,
        bar,
        machine=machine(gpu=device.type == "cuda"),
    )


def freq_error(device: torch.device) -> float:
    x = (2 * torch.rand(100_000, 3) - 1).to(device).requires_grad_()
    exact = x.detach().double().cpu().requires_grad_()
    y, y_exact = freq_encode(x, 10), freq_reference.freq_encode(exact, 10)
    dy = torch.randn_like(y)
    dx, dx_exact = (
        torch.autograd.grad(y, x, dy),
        torch.autograd.grad(y_exact, exact, dy.double().cpu()),
    )
    return apart([y, *dx], [y_exact, *dx_exact])


def grid_errors(device: torch.device, dtype: torch.dtype, interpolation: str) -> dict[str, float]:
    """Of values, first derivatives, and those of the gradient in the positions: what trains normals."""
    layout = GridLayout.make(interpolation=interpolation, log2_table_size=15)
    x = torch.rand(20_000, 3).to(device).requires_grad_()
    values = torch.randn(layout.entries, 2).to(device, dtype).requires_grad_()
    dy = torch.randn(len(x), layout.levels * 2).to(device, dtype)
    v = torch.randn(x.shape).to(device)

    def results(encode: Callable, x: Tensor, values: Tensor, dy: Tensor, v: Tensor) -> list[Tensor]:
        y = encode(x, values, layout)
        dx, dvalues = torch.autograd.grad(y, (x, values), dy, create_graph=True)
        return [y, dx, dvalues, *torch.autograd.grad(dx, values, v)]

    found = results(grid_encode, x, values, dy, v)
    exact = [t.detach().double().cpu() for t in (x, values, dy, v)]
    expected = results(
        grid_reference.grid_encode, *[t.requires_grad_() for t in exact[:2]], *exact[2:]
    )
    names = "values", "gradient of positions", "gradient of the table", "second order"
    return {name: apart([a], [b]) for name, a, b in zip(names, found, expected, strict=True)}


def scene(
    device: torch.device, side: int, share: float = 0.05
) -> tuple[Tensor, Tensor, Tensor, Tensor, Occupancy]:
    """Rays of side x side pixels towards a ball that fills that share of the box: the first arguments of march_rays."""
    h = torch.linspace(-0.4, 0.4, side)
    across = torch.cartesian_prod(h, h)  # (side^2, 2)
    directions = torch.nn.functional.normalize(
        torch.cat([across, -torch.ones(len(across), 1)], 1), dim=1
    )
    origins = torch.tensor([0.0, 0.0, 3.2]).expand_as(directions)
    resolution = 128
    codes = torch.arange(resolution**3, dtype=torch.int32)
    cells = march_reference.morton3d_invert(codes)
    radius = ((cells + 0.5) / (resolution / 2) - 1).norm(dim=1)
    reach = (share * 8 * 3 / (4 * math.pi)) ** (1 / 3)
    occupancy = Occupancy(packbits((radius < reach).float(), 0.5).to(device), BOX)
    origins, directions = origins.contiguous().to(device), directions.to(device)
    nears, fars = ray_aabb_intersect(origins, directions, BOX, 0.1)
    noise = torch.rand(len(origins), generator=torch.Generator().manual_seed(0)).to(device)
    return origins, directions, nears + STEP * noise, fars, occupancy


def field(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Density and color of a soft ball with stripes: cheap, so that it is the march that is measured."""
    radius = positions.square().sum(1)
    return 60 * torch.sigmoid(40 * (0.6 - radius)), torch.sigmoid(8 * positions)


def composite_error(device: torch.device) -> float:
    rays = scene(device, 64)
    samples = march_rays(*rays, STEP)
    sigmas, colors = (t.detach().requires_grad_() for t in field(samples.positions))
    deltas = torch.full_like(samples.ts, STEP)
    found = composite_rays(sigmas, colors, deltas, samples, 0)
    grads = [torch.randn_like(t) for t in found]
    exact = [t.detach().double().cpu().requires_grad_() for t in (sigmas, colors)]
    others = deltas.double().cpu(), samples.ts.double().cpu(), samples.packed_info.cpu()
    expected = march_reference.composite_rays(exact[0], exact[1], *others, math.inf)
    d_found = torch.autograd.grad(found, (sigmas, colors), grads)
    d_expected = torch.autograd.grad(expected, exact, [g.double().cpu() for g in grads])
    return apart([*found, *d_found], [*expected, *d_expected])


def march_difference(device: torch.device) -> int:
    """How many samples, counts and offsets of a march differ from the float32 reference on the CPU."""
    rays = scene(device, 48)
    found = march_rays(*rays, STEP)
    origins, directions, starts, fars, bits = (t.cpu() for t in (*rays[:4], rays[4].bits))
    on_cpu = [origins, directions, starts, fars]
    expected = march_reference.march_rays(on_cpu, bits, list(BOX), STEP, 1024, None)
    if len(found.ts) != len(expected[1]):
        return max(len(found.ts), len(expected[1]))
    return sum(int((a.cpu() != b).sum()) for a, b in zip(found, expected, strict=True))


def gradients_hold(device: torch.device) -> bool:
    layout = GridLayout.make(3, 3, 2, 2, 9, 5, "hash", "smoothstep")
    x = torch.rand(3, 3, dtype=torch.float64).to(device).requires_grad_()
    values = torch.randn(layout.entries, 2, dtype=torch.float64).to(device).requires_grad_()
    settings: dict[str, Any] = {"raise_exception": False, "nondet_tol": 1e-12}
    checks = torch.autograd.gradcheck, torch.autograd.gradgradcheck
    rays = scene(device, 4)
    samples = march_rays(*rays, 0.1)
    samples = samples._replace(ts=samples.ts.double())
    sigmas, colors = (t.double() for t in field(samples.positions))
    deltas = torch.full_like(samples.ts, 0.1)
    composite = lambda s, c: tuple(composite_rays(s, c, deltas, samples, 0))
    inputs = sigmas.detach().requires_grad_(), colors.detach().requires_grad_()
    return (
        all(check(lambda x: freq_encode(x, 3), x, **settings) for check in checks)
        and all(
            check(lambda x, t: grid_encode(x, t, layout), (x, values), **settings)
            for check in checks
        )
        and torch.autograd.gradcheck(composite, inputs, **settings)
    )


def repeats(device: torch.device) -> int:
    """How many of ten deterministic runs of grid, march and compositing differ from the first in any bit."""
    layout = GridLayout.make(log2_table_size=12)
    values = torch.randn(layout.entries, 2).to(device).requires_grad_()
    rays = scene(device, 64)

    def run() -> list[Tensor]:
        samples = march_rays(*rays, STEP)
        y = grid_encode((samples.positions + 1) / 2, values, layout).view(-1, 16, 2).sum(1)
        found = composite_rays(y[:, 0].exp(), y, torch.full_like(samples.ts, STEP), samples)
        return [*found, *torch.autograd.grad(found.image.square().sum(), values)]

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        first = run()
        return sum(not all(map(torch.equal, first, run())) for _ in range(10))
    finally:
        torch.use_deterministic_algorithms(before)


# --- Time


def milliseconds(work: Callable[[], object], device: torch.device, rounds: int = 50) -> float:
    """The median time of some work, after a warm-up. On a GPU the time of ROW calls, one after the other as they come
    in training, by ROW: so it is the GPU that is measured, and not the way to it."""
    if device.type != "cuda":
        return 1000 * median_seconds(work, rounds=5)
    times = []
    for _ in range(rounds // 5):
        work()
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(ROW):
            work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / ROW)
    return statistics.median(times)


@dataclass(frozen=True)
class Encoding:
    """The hash grid that is timed: positions (N, 3), a table (M, 2) that wants a gradient, and what they are called."""

    layout: GridLayout
    x: Tensor
    table: Tensor
    about: str

    @classmethod
    def on(cls, device: torch.device) -> "Encoding":
        torch.manual_seed(0)
        n, layout = POINTS[device.type], GridLayout.make()
        x = torch.rand(n, 3).to(device)
        dtype = (
            torch.float16 if device.type == "cuda" else torch.float32
        )  # half is no faster on a CPU
        table = (1e-4 * torch.randn(layout.entries, 2)).to(device, dtype).requires_grad_()
        about = f"hash grid, 2^{n.bit_length() - 1} random points, 16 x 2, 2^19 entries, {str(dtype)[6:]}"
        return cls(layout, x, table, about)

    def values(self, x: Tensor | None = None) -> Tensor:
        return grid_encode(self.x if x is None else x, self.table, self.layout)


def grid_rows(device: torch.device) -> list[Row]:
    full = device.type == "cuda"
    grid = Encoding.on(device)
    x, table, about = grid.x, grid.table, grid.about
    dy = torch.randn(len(x), 32).to(table)
    by_feature = (
        dy.t().contiguous().t()
    )  # in memory as the values are; a network's first layer leaves it either way

    def both(dy: Tensor) -> None:
        torch.autograd.grad(grid.values(), table, dy)

    with torch.no_grad():
        forward = milliseconds(grid.values, device)
    backward = milliseconds(lambda: both(dy), device)
    rows = [
        row(
            device,
            "grid.forward",
            f"{about}, forward",
            round(forward, 3),
            "ms",
            "<=",
            0.45 if full else None,
        ),
        row(
            device,
            "grid.forward_backward",
            f"{about}, forward and backward",
            round(backward, 3),
            "ms",
            "<=",
            1.5 if full else None,
        ),
        row(
            device,
            "grid.gradient_by_feature",
            f"{about}, both, gradient by feature",
            time_of(lambda: both(by_feature), device),
            "ms",
        ),
    ]
    if full:
        torch.use_deterministic_algorithms(True)
        rows.append(
            row(
                device,
                "grid.deterministic",
                f"{about}, both, deterministic",
                time_of(lambda: both(dy), device),
                "ms",
            )
        )
        torch.use_deterministic_algorithms(False)
    x_grad = x.clone().requires_grad_()
    positions = lambda: torch.autograd.grad(grid.values(x_grad), x_grad, dy)
    rows.append(
        row(
            device,
            "grid.position_gradient",
            f"{about}, forward and gradient of positions",
            time_of(positions, device),
            "ms",
        )
    )
    return rows


def encode_often(times: int = 8) -> None:
    """What Nsight Compute looks at."""
    grid = Encoding.on(torch.device("cuda", 0))
    with torch.no_grad():
        for _ in range(times):
            grid.values()
    torch.cuda.synchronize()


def cache_rows(device: torch.device) -> list[Row]:
    if not has_tool("ncu", device):
        return []
    command = [
        "ncu",
        "--csv",
        "--print-units",
        "base",
        "--clock-control",
        "none",
        "--cache-control",
        "none",
    ]
    command += [
        "--kernel-name",
        "regex:encode",
        "--launch-skip",
        "3",
        "--metrics",
        ",".join(COUNTERS.values()),
    ]
    done = subprocess.run(
        [*command, sys.executable, "-m", "course.figures", "benchmarks.kernels", "encode_often"],
        cwd=notebooks.ROOT,
        capture_output=True,
        text=True,
    )
    found = medians(done.stdout)
    if "ERR_NVGPUCTRPERM" in done.stdout + done.stderr:
        print(
            "left out: ncu may not read the GPU's counters; root may, or whom the driver's settings allow it"
        )
        return []
    if done.returncode or set(found) != set(COUNTERS.values()):
        raise RuntimeError(f"ncu said something else:\n{done.stdout[-2000:]}{done.stderr[-1000:]}")
    moved, share, first = (found[COUNTERS[name]] for name in ("moved", "share", "first"))
    about = f"{Encoding.on(device).about}, forward, second-level cache"
    return [
        row(device, "cache.bytes", f"{about}: bytes", round(moved / 1e9, 3), "GB"),
        row(
            device,
            "cache.l2_share",
            f"{about}: share of what it can carry",
            round(share, 1),
            "%",
            ">=",
        ),
        row(
            device,
            "cache.l1_share",
            f"{about}: share of what the first level can carry",
            round(first, 1),
            "%",
            ">=",
        ),
    ]


def medians(text: str) -> dict[str, float]:
    """The median over launches of each metric in what `ncu --csv` printed."""
    found: dict[str, list[float]] = {}
    for line in csv.DictReader(line for line in text.splitlines() if line.startswith('"')):
        found.setdefault(line["Metric Name"], []).append(
            float(line["Metric Value"].replace(",", ""))
        )
    return {name: statistics.median(values) for name, values in found.items()}


# --- Errors that a result may hide


def sanitizer_rows(device: torch.device) -> list[Row]:
    """Each tool over the GPU's tests of the kernels, but for those about streams and graphs, whose order in time it
    changes. torch's own kernels are not looked at."""
    if not has_tool("compute-sanitizer", device):
        return []
    rows = []
    tests = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "tests/gpu/test_kernels.py",
        "-k",
        "not stream and not graph",
    ]
    for tool in ("memcheck", "racecheck"):
        command = [
            "compute-sanitizer",
            "--tool",
            tool,
            "--kernel-name-exclude",
            "kns=N2at6native",
            *tests,
        ]
        # A pool of memory would hide what is read beyond the end of a tensor.
        environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        done = subprocess.run(
            command, cwd=notebooks.ROOT, env=environment, capture_output=True, text=True
        )
        rows.append(
            row(
                device,
                f"sanitizer.{tool}",
                f"{tool} over the tests of the kernels: errors",
                errors_found(done.stdout),
                "",
                "<=",
                0,
            )
        )
    return rows


def errors_found(text: str) -> int:
    """How many errors and hazards compute-sanitizer has summed up. Raises RuntimeError if it has not, or if the tests
    under it did not pass."""
    sums = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)", text)
    passed = re.search(
        r"^\d+ passed(?!.*error)", text, re.MULTILINE
    )  # of failed ones pytest speaks first
    if not sums or not passed:
        raise RuntimeError(f"compute-sanitizer or the tests under it failed:\n{text[-3000:]}")
    return sum(map(int, sums))


def has_tool(name: str, device: torch.device) -> bool:
    if device.type == "cuda" and shutil.which(name):
        return True
    print(f"left out: needs a GPU and {name}")
    return False


def march_rows(device: torch.device) -> list[Row]:
    rows = []
    rays = scene(device, 64)
    samples = march_rays(*rays, STEP)
    about = f"4,096 rays, {len(samples.ts)} samples"
    rows.append(
        row(
            device,
            "march.march",
            f"march, {about}",
            time_of(lambda: march_rays(*rays, STEP), device),
            "ms",
        )
    )
    room = len(samples.ts)
    fixed = lambda: march_rays(*rays, STEP, capacity=room)
    rows.append(
        row(
            device,
            "march.march_fixed",
            f"march into a fixed number of rows, {about}",
            time_of(fixed, device),
            "ms",
        )
    )
    rows += composite_times(device, samples, about)
    side = 512 if device.type == "cuda" else 64
    rays = scene(device, side)

    def image() -> AliveRays:
        alive = AliveRays(*rays, STEP)
        while (samples := alive.march(8)) is not None:
            alive.composite(samples, *field(samples.positions))
        return alive

    about = f"picture of {side} x {side} by rounds, a field that costs nothing"
    rows.append(row(device, "march.image", about, time_of(image, device), "ms"))
    return rows


def time_of(work: Callable[[], object], device: torch.device) -> float:
    return round(milliseconds(work, device), 3)


def composite_times(device: torch.device, samples: Samples, about: str) -> list[Row]:
    sigmas, colors = (t.detach().requires_grad_() for t in field(samples.positions))
    deltas = torch.full_like(samples.ts, STEP)

    def both() -> None:
        found = composite_rays(sigmas, colors, deltas, samples)
        torch.autograd.grad(found.image.sum(), (sigmas, colors))

    with torch.no_grad():
        forward = time_of(lambda: composite_rays(sigmas, colors, deltas, samples), device)
    return [
        row(device, "march.composite", f"compositing, {about}, forward", forward, "ms"),
        row(
            device,
            "march.composite_backward",
            f"compositing, {about}, forward and backward",
            time_of(both, device),
            "ms",
        ),
    ]


GROUPS: dict[str, Callable[[torch.device], list[Row]]] = {
    "accuracy": accuracy_rows,
    "grid": grid_rows,
    "cache": cache_rows,
    "march": march_rows,
    "sanitizer": sanitizer_rows,
}


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measures the groups asked for (default: all), prints their table and stores it; returns all rows."""
    parser = command_line("benchmarks.kernels", __doc__, GROUPS)
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu"
    )
    args = parser.parse_args(arguments)
    device = torch.device("cuda:0" if args.device == "cuda" else "cpu")
    for package in kernels.PACKAGES:
        if not kernels.is_available(package, device):
            parser.error(
                f"{package} has no compiled kernels for {device} here; the line above says why"
            )
    everything: list[Row] = []
    for name in args.groups:
        # A command of its own for each device: one does not replace the rows of the other.
        command = f"python -m benchmarks.kernels {name} --device {args.device}"
        full = device.type == "cuda" or name == "accuracy"
        everything += report(
            command, partial(GROUPS[name], device), RESULTS / "task3.json" if full else None
        )
    return everything


if __name__ == "__main__":
    main()
