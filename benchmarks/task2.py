"""The figures of Task 2: `python -m benchmarks.task2 [GROUP ...]`, rows in results/task2.json.

averaging  the fused panorama of lesson 2 beside a least-squares solution in float64
coverage   random sizes, strides and wraps: is every latent in a window?
coherence  landscapes by both methods from the same seeds, and their crops beside single images
closure    closed panoramas: the step across the wrap among those between all columns
tradeoff   what each way to save time costs in coherence
cpu        a panorama on two cores, in a process of its own; needs an otherwise idle machine
large      networks of the size of Stable Diffusion 2.1 with random weights: time beside diffusers'
           panorama pipeline, and beside one window at a time; needs a GPU
memory     the same networks: peak memory, and how it grows with the width; needs a GPU
processes  the same networks: one wide panorama by two processes beside one; needs two GPUs

All code under test is that of the notebook. `--reduced` is a rehearsal with few images, few steps
and toy networks: its rows are printed and not stored. Without a GPU, large, memory and
processes are reduced.
"""

from collections.abc import Callable
from functools import partial
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common import RESULTS, command_line
from benchmarks.task2_large import large_rows, memory_rows
from benchmarks.task2_lesson import DEVICE, STEPS, lesson, pocket
from benchmarks.task2_processes import processes_rows
from course import metrics
from course.figures import Row, machine, make_rows, report, run_on_two_cores, timed
from course.metrics import Judge

PLACES = {  # prompt, and the judge's name
    "mountains": "mountains",
    "a beach": "beach",
    "a desert": "desert",
    "a forest": "forest",
    "a city skyline": "city skyline",
    "a meadow": "meadow",
    "an ocean with islands": "ocean",
    "snowy hills": "snowy hills",
    "a canyon": "canyon",
    "a landscape on mars": "mars",
}
TIMES = ("", " at sunset", " at night", " at dawn")
PANORAMAS = 24  # of coherence
CLOSED = 60  # panoramas of closure
TRADED = 4  # panoramas of tradeoff
WIDE = (256, 1024)  # pixels
STRIDES = (4, 8, 16)  # of windows of 32 latent pixels
METRICS = {  # of panoramas: end of the id, and name
    "intra_lpips": "intra-distance",
    "intra_style": "Intra-Style-L x 100",
    "clip_score": "CLIP score",
    "landscape": "crops in which the judge sees the landscape of the prompt, in percent",
    "fid": "FID of crops, judge's features",
    "kid": "KID of crops x 1000, judge's features",
}

Landscape = tuple[str, str, int]  # prompt, the judge's name, seed


def landscapes(count: int) -> list[Landscape]:
    """Return `count` landscapes: all places in turn, at changing times of day."""
    places = list(PLACES)
    chosen = [
        (i, places[i % len(places)], TIMES[(i + i // len(places)) % len(TIMES)])
        for i in range(count)
    ]
    return [(place + time, PLACES[place], 100 + i) for i, place, time in chosen]


# --- Exactness


def averaging_rows(reduced: bool) -> list[Row]:
    """The largest difference over random window sets, weights and sizes."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))
    worst = 0.0
    count = 10 if reduced else 200
    for _ in range(count):
        window = draw(2, 9)
        height, width = window + draw(0, 8), window + draw(0, 30)
        stride, closed = draw(1, window + 1), bool(draw(0, 2))
        views = lesson().window_views(height, width, window, stride, closed=closed)
        windows = torch.randn((len(views), 4, window, window), generator=generator)
        weights = 0.01 + torch.rand((len(views), 1, window, window), generator=generator)
        total = lesson().weight_sum(views, weights, height, width)
        fused = lesson().fuse(windows, views, weights, total).double()
        expected = least_squares(windows, views, weights, height, width)
        worst = max(worst, float((fused - expected).abs().max()))
    figure = f"fused panorama beside the float64 least-squares solution ({count} window sets)"
    return [Row("task2.averaging.error", figure, worst, "", "<=", 1e-6)]


def least_squares(
    windows: Tensor, views: list[Any], weights: Tensor, height: int, width: int
) -> Tensor:
    """Return argmin over J of the sum of W (F(J) - window)^2, (1, C, height, width), in float64.

    It is solved by its normal equations.
    """
    pixels = height * width
    places = torch.cat([(rows * width + columns).flatten() for rows, columns in views])
    w = weights.double().flatten()
    system = torch.zeros(len(places), pixels, dtype=torch.float64)
    system[torch.arange(len(places)), places] = 1
    target = windows.double().movedim(1, -1).reshape(len(places), -1)
    normal = system.T @ (w[:, None] * system)
    solution = torch.linalg.solve(normal, system.T @ (w[:, None] * target))  # (pixels, C)
    return solution.T.reshape(1, -1, height, width)


def coverage_rows(reduced: bool) -> list[Row]:
    generator = torch.Generator().manual_seed(1)
    draw = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))
    uncovered = 0
    count = 500
    for _ in range(count):
        window, closed = draw(2, 33), bool(draw(0, 2))
        height, width = window + draw(0, 64), window + draw(0, 256)
        views = lesson().window_views(height, width, window, draw(1, window + 1), closed)
        covered = torch.zeros(height, width)
        wraps = not closed
        for rows, columns in views:
            covered[rows, columns] = 1
            wraps = wraps or bool(((columns[:-1] == width - 1) & (columns[1:] == 0)).any())
        uncovered += not (bool(covered.all()) and wraps)
    figure = f"of {count} random sizes, strides and wraps: with a latent or a wrap in no window"
    return [Row("task2.coverage.uncovered", figure, uncovered, "", "<=", 0)]


# --- Images


def coherence_rows(reduced: bool) -> list[Row]:
    """Both methods from the same seeds, and single images of the same prompts for FID and KID."""
    sd, networks = pocket(), metrics.load_networks(device=DEVICE)
    judge = Judge(DEVICE)
    count, steps = (2, 6) if reduced else (PANORAMAS, STEPS)
    about = f"{count} landscapes {WIDE[0]}x{WIDE[1]}"
    singles = networks.embed(single_images(landscapes(count), 4, steps))
    rows = []
    values: dict[str, dict[str, float]] = {}
    request = dict(height=WIDE[0], width=WIDE[1], num_sampling_steps=steps)
    for name, synchronized in (("Multi", False), ("Sync", True)):
        panoramas = [
            sd.sample(prompt, use_syncdiffusion=synchronized, seed=seed, **request).to(DEVICE)
            for prompt, _, seed in tqdm(landscapes(count), desc=name, leave=False)
        ]
        values[name] = panorama_scores(panoramas, landscapes(count), networks, judge)
        crops = torch.cat([metrics.crops(image, WIDE[0]) for image in panoramas])
        values[name]["fid"] = metrics.fid(networks.embed(crops), singles)
        values[name]["kid"] = 1000 * metrics.kid(networks.embed(crops), singles)
        figures = [(key, METRICS[key], value) for key, value in values[name].items()]
        rows += make_rows(f"task2.coherence.{name.lower()}", f"{about}, {name}", *figures)
    bars = {"intra_lpips": ("<=", 0.80), "intra_style": ("<=", None), "clip_score": (">=", 0.98)}
    ratios = [
        (f"{key}_ratio", METRICS[key], values["Sync"][key] / values["Multi"][key], "", *bar)
        for key, bar in bars.items()
    ]
    return rows + make_rows("task2.coherence", f"{about}, Sync / Multi", *ratios)


def panorama_scores(
    images: list[Tensor], tests: list[Landscape], networks: metrics.MetricNetworks, judge: Judge
) -> dict[str, float]:
    """Return the metrics of panoramas (3, H, W): means over panoramas, or over their crops."""
    size = WIDE[0]
    crops = [metrics.crops(image, size) for image in images]
    prompts = [prompt for (prompt, _, _), own in zip(tests, crops, strict=True) for _ in own]
    places = [place for (_, place, _), own in zip(tests, crops, strict=True) for _ in own]
    readings = [reading["landscape"] for reading in judge(list(torch.cat(crops)))]
    correct = fmean(float(a == b) for a, b in zip(readings, places, strict=True))
    style_losses = [metrics.intra_style_loss(image, networks.features, size) for image in images]
    return {
        "intra_lpips": fmean(metrics.intra_distance(x, networks.distance, size) for x in images),
        "intra_style": 100 * fmean(style_losses),
        "clip_score": metrics.clip_score(torch.cat(crops), prompts, networks.clip),
        "landscape": 100 * correct,
    }


def single_images(tests: list[Landscape], each: int, steps: int) -> Tensor:
    """Return `each` images (N, 3, 256, 256) of every prompt, of one window, by the same code."""
    sd = pocket()
    size = sd.model.image_size
    request = dict(height=size, width=size, num_sampling_steps=steps)
    images = [
        sd.sample(prompt, seed=10_000 * (1 + k) + seed, **request).to(DEVICE)
        for prompt, _, seed in tqdm(tests, desc="single images", leave=False)
        for k in range(each)
    ]
    return torch.stack(images)


def closure_rows(reduced: bool) -> list[Row]:
    """How the step across the wrap ranks among those between all other columns."""
    sd = pocket()
    count, steps = (3, 4) if reduced else (CLOSED, STEPS)
    request = dict(height=WIDE[0], width=WIDE[1], closed=True, num_sampling_steps=steps)
    within: dict[int, list[bool]] = {stride: [] for stride in STRIDES}
    worst = 0.0
    for i, (prompt, _, seed) in enumerate(tqdm(landscapes(count), desc="closed", leave=False)):
        stride = STRIDES[i % len(STRIDES)]
        columns = metrics.column_differences(sd.sample(prompt, stride=stride, seed=seed, **request))
        within[stride].append(bool(columns[-1] <= columns[:-1].quantile(0.95)))
        worst = max(worst, float(columns[-1] / columns[:-1].max()))
    strides = ", ".join(map(str, STRIDES))
    about = f"{count} closed panoramas {WIDE[0]}x{WIDE[1]}, strides {strides}"
    about += ": step across the wrap"
    low = "within the 95th percentile of the others"
    high = "beside the largest of the others, worst"
    total = sum(map(sum, within.values()))
    key = "task2.closure"
    rows = [
        Row(f"{key}.within_95", f"{about}, {low}", total, f"of {count}", ">=", 54 * count // 60),
        Row(f"{key}.worst", f"{about}, {high}", worst, "x", "<=", 1.5),
    ]
    for stride, own in within.items():
        figure = f"{about}, {low}, stride {stride}"
        rows.append(Row(f"{key}.within_95_stride_{stride}", figure, sum(own), f"of {len(own)}"))
    return rows


def choices(sd: Any) -> dict[str, dict[str, Any]]:
    """The settings of section 5 of the lesson."""
    paper, recommended = sd.paper(), sd.recommended()
    named = {
        "full": paper,
        "first third": paper._replace(until=1 / 3),
        "every third": paper._replace(every=3),
        "half size": paper._replace(scale=0.5),
        "decoder alone": recommended._replace(weight=recommended.weight / 2, every=1, scale=1.0),
        "recommended": recommended,
    }
    return {"Multi": {}} | {
        name: {"use_syncdiffusion": True, "sync": sync} for name, sync in named.items()
    }


def tradeoff_rows(reduced: bool) -> list[Row]:
    """Each choice on the same prompts and seeds in turn: all see the machine in the same state."""
    sd, networks = pocket(), metrics.load_networks(device=DEVICE)
    count = 1 if reduced else TRADED
    request = {"num_sampling_steps": 2, "width": 512} if reduced else {"num_sampling_steps": STEPS}
    seconds: dict[str, list[float]] = {name: [] for name in choices(sd)}
    distances: dict[str, list[float]] = {name: [] for name in choices(sd)}
    for settings in choices(sd).values():  # the first call of a kind is slower than the others
        if DEVICE.type == "cuda":
            sd.sample("a beach", **settings, **(request | {"num_sampling_steps": 2}))
    for prompt, _, seed in tqdm(landscapes(count), desc="choices", leave=False):
        for name, settings in choices(sd).items():
            time, image = timed(partial(sd.sample, prompt, seed=seed, **settings, **request))
            seconds[name].append(time)
            distance = metrics.intra_distance(image.to(DEVICE), networks.distance, WIDE[0])
            distances[name].append(distance)
    times = {name: median(values) for name, values in seconds.items()}
    rows = []
    for name, time in times.items():
        bar = 1.5 if name == "recommended" and DEVICE.type == "cuda" else None
        rows += make_rows(
            f"task2.tradeoff.{name.lower().replace(' ', '_')}",
            f"{count} landscapes, {name}",
            ("time", "time beside Multi", time / times["Multi"], "x", "<=", bar),
            ("intra_lpips", "intra-distance", fmean(distances[name]), "", "<="),
        )
    gain = {name: fmean(distances["Multi"]) - fmean(distances[name]) for name in choices(sd)}
    if gain["full"] > 0:
        figure = "recommended: share of the gain of full synchronization"
        share = gain["recommended"] / gain["full"]
        rows.append(Row("task2.tradeoff.gain_share", figure, share, "", ">=", 0.8))
    return rows


# --- Two cores


def sample_on_cpu(steps: str) -> dict[str, float]:
    """Return the seconds of a panorama with two threads, by method."""
    torch.set_num_threads(2)
    sd = pocket()
    request = {"height": 256, "width": 1024, "stride": 8, "num_sampling_steps": int(steps)}
    seconds = {}
    for name, synchronized in (("multi", False), ("sync", True)):
        sd.sample("a beach", num_sampling_steps=1, use_syncdiffusion=synchronized)
        sample = partial(sd.sample, "a forest", use_syncdiffusion=synchronized, **request)
        seconds[name] = timed(sample)[0]
    return seconds


def cpu_rows(reduced: bool) -> list[Row]:
    steps = 1 if reduced else STEPS
    seconds = run_on_two_cores(sample_on_cpu, str(steps))
    return make_rows(
        "task2.cpu",
        f"two CPU cores, 256x1024, stride 8 of 32, {steps} steps",
        ("multi", "Multi", seconds["multi"], "s", "<=", 60.0),
        ("sync", "Sync", seconds["sync"], "s", "<=", 120.0),
        machine=machine(gpu=False),
    )


GROUPS: dict[str, Callable[[bool], list[Row]]] = {
    "averaging": averaging_rows,
    "coverage": coverage_rows,
    "coherence": coherence_rows,
    "closure": closure_rows,
    "tradeoff": tradeoff_rows,
    "cpu": cpu_rows,
    "large": large_rows,
    "memory": memory_rows,
    "processes": processes_rows,
}
ON_GPU = ("large", "memory", "processes")


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure groups (default: all), print their rows, store full ones, and return all."""
    parser = command_line("benchmarks.task2", __doc__, GROUPS)
    parser.add_argument("--reduced", action="store_true", help="rehearse, and store nothing")
    args = parser.parse_args(arguments)
    rows: list[Row] = []
    for name in args.groups:
        reduced = args.reduced or (name in ON_GPU and DEVICE.type != "cuda")
        results = None if reduced else RESULTS / "task2.json"
        work = partial(GROUPS[name], reduced)
        rows += report(f"python -m benchmarks.task2 {name}", work, results)
    return rows


if __name__ == "__main__":
    main()
