"""The figures of Task 2: `python -m benchmarks.task2 [GROUP ...]` prints them and stores them in results/task2.json.

averaging  the fused panorama of lesson 2 beside a least-squares solution in float64
coverage   random sizes, strides and wraps: is every latent in a window?
coherence  landscapes by both methods from the same seeds; their pieces beside single images of the same model
closure    closed panoramas: the step across the wrap among those of all columns
tradeoff   what each way to save time costs in coherence
cpu        a panorama on two cores, in a process of its own; wants a machine with nothing else to do
large      networks of the size of Stable Diffusion 2.1 with random weights: time beside diffusers' panorama pipeline,
           and beside one window at a time; wants a GPU
memory     the same: the peak of memory, and how it grows with the width; wants a GPU

All code under test is that of the notebook. `--reduced` is a rehearsal, with few images, few steps and toy networks:
its rows are printed and not stored. Without a GPU the last two groups run in this form.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from diffusers import StableDiffusionPanoramaPipeline
from torch import Tensor
from tqdm import tqdm

from benchmarks.common import RESULTS, command_line, sd21_model
from course import metrics, notebooks
from course.figures import Row, machine, peak_memory, report, run_on_two_cores, timed
from course.metrics import Judge
from course.models import Model, find_model, load_pipeline
from course.speed.cuda_graphs import CudaGraphModule

LESSON = notebooks.ROOT / "task_2_Joint_Diffusion.ipynb"
STEPS = 25
PLACES = {  # what the prompt says, and what the judge calls it
    "mountains": "mountains", "a beach": "beach", "a desert": "desert", "a forest": "forest",
    "a city skyline": "city skyline", "a meadow": "meadow", "an ocean with islands": "ocean",
    "snowy hills": "snowy hills", "a canyon": "canyon", "a landscape on mars": "mars",
}  # fmt: skip
TIMES = ("", " at sunset", " at night", " at dawn")
PANORAMAS, CLOSED, TRADED = 24, 60, 4
WIDE, STRIDES = (256, 1024), (4, 8, 16)  # pixels; of windows of 32 latent pixels
METRICS = {  # of panoramas: id and name
    "intra_lpips": "Intra-LPIPS",
    "intra_style": "Intra-Style-L x 100",
    "clip_score": "CLIP score",
    "landscape": "crops in which the judge sees the landscape of the prompt, in percent",
    "fid": "FID of crops, judge's features",
    "kid": "KID of crops x 1000, judge's features",
}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@cache
def lesson() -> ModuleType:
    return notebooks.definitions(notebooks.read(LESSON), {"STEPS": STEPS})


@cache
def pocket() -> Any:
    """The lesson's class on the embedded model."""
    return joint(find_model("pocket"))


def joint(model: Model, compile: bool = False, **options: Any) -> Any:
    """The lesson's class on a model, on the fast path, as the lesson has it; or compiled, as it may be asked for."""
    sd = lesson().JointDiffusion(model, **options)
    sd.unet = CudaGraphModule(sd.unet, compile=compile)
    sd.decoder, sd.distance = (
        CudaGraphModule(sd.decoder, gradients=True),
        CudaGraphModule(sd.distance, gradients=True),
    )
    return sd


def landscapes(count: int) -> list[tuple[str, str, int]]:
    """Prompt, place and seed of `count` landscapes: all places in turn, at changing times of day."""
    places = list(PLACES)
    chosen = [
        (i, places[i % len(places)], TIMES[(i + i // len(places)) % len(TIMES)])
        for i in range(count)
    ]
    return [(place + when, PLACES[place], 100 + i) for i, place, when in chosen]


def mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


# --- Exactness


def averaging_rows(reduced: bool) -> list[Row]:
    """The largest difference over random window sets, weights and sizes."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))
    worst, count = 0.0, 10 if reduced else 200
    for _ in range(count):
        window = draw(2, 9)
        height, width = window + draw(0, 8), window + draw(0, 30)
        views = lesson().window_views(
            height, width, window, draw(1, window + 1), closed=bool(draw(0, 2))
        )
        windows = torch.randn((len(views), 4, window, window), generator=generator)
        weights = 0.01 + torch.rand((len(views), 1, window, window), generator=generator)
        total = lesson().weight_sum(views, weights, height, width)
        found = lesson().fuse(windows, views, weights, total)
        worst = max(
            worst,
            float(
                (found.double() - least_squares(windows, views, weights, height, width)).abs().max()
            ),
        )
    return [
        Row(
            "task2.averaging.error",
            f"fused panorama beside the float64 least-squares solution ({count} window sets)",
            worst,
            "",
            "<=",
            1e-6,
        )
    ]


def least_squares(
    windows: Tensor, views: list[Any], weights: Tensor, height: int, width: int
) -> Tensor:
    """argmin over J of the sum of W (F(J) - window)^2, (1, C, height, width), from its normal equations, float64."""
    pixels = height * width
    places = torch.cat([(rows * width + columns).flatten() for rows, columns in views])
    w = weights.double().flatten()
    system = torch.zeros(len(places), pixels, dtype=torch.float64)
    system[torch.arange(len(places)), places] = 1
    wanted = windows.double().movedim(1, -1).reshape(len(places), -1)
    normal = system.T @ (w[:, None] * system)
    solution = torch.linalg.solve(normal, system.T @ (w[:, None] * wanted))  # (pixels, C)
    return solution.T.reshape(1, -1, height, width)


def coverage_rows(reduced: bool) -> list[Row]:
    generator = torch.Generator().manual_seed(1)
    draw = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))
    bare, count = 0, 500
    for _ in range(count):
        window, closed = draw(2, 33), bool(draw(0, 2))
        height, width = window + draw(0, 64), window + draw(0, 256)
        views = lesson().window_views(height, width, window, draw(1, window + 1), closed)
        seen, wraps = torch.zeros(height, width), not closed
        for rows, columns in views:
            seen[rows, columns] = 1
            wraps = wraps or bool(((columns[:-1] == width - 1) & (columns[1:] == 0)).any())
        bare += not (bool(seen.all()) and wraps)
    return [
        Row(
            "task2.coverage.uncovered",
            f"of {count} random sizes, strides and wraps: with a latent or a wrap in no window",
            bare,
            "",
            "<=",
            0,
        )
    ]


# --- What the images look like


def coherence_rows(reduced: bool) -> list[Row]:
    """Both methods from the same seeds, and single images of the same prompts for FID and KID."""
    sd, networks, judge = pocket(), metrics.load_networks(device=DEVICE), Judge(DEVICE)
    count, steps = (2, 6) if reduced else (PANORAMAS, STEPS)
    rows, values, pieces = [], {}, {}
    singles = single_images(landscapes(count), 4, steps)
    for name, synchronized in (("Multi", False), ("Sync", True)):
        made = []
        for prompt, _, seed in tqdm(landscapes(count), desc=name, leave=False):
            request = dict(height=WIDE[0], width=WIDE[1], num_sampling_steps=steps, seed=seed)
            made.append(sd.sample(prompt, use_syncdiffusion=synchronized, **request).to(DEVICE))
        found = judged(made, landscapes(count), networks, judge)
        values[name], pieces[name] = (
            found,
            torch.cat([metrics.crops(image, WIDE[0]) for image in made]),
        )
        vectors = networks.embed(pieces[name])
        found["fid"] = metrics.fid(vectors, networks.embed(singles))
        found["kid"] = 1000 * metrics.kid(vectors, networks.embed(singles))
        rows += [
            Row(
                f"task2.coherence.{name.lower()}.{key}",
                f"{count} landscapes {WIDE[0]}x{WIDE[1]}, {name}: {METRICS[key]}",
                value,
            )
            for key, value in found.items()
        ]
    about = f"{count} landscapes {WIDE[0]}x{WIDE[1]}, Sync / Multi: "
    ratios = {"intra_lpips": ("<=", 0.80), "intra_style": ("<=", None), "clip_score": (">=", 0.98)}
    for key, (sense, bar) in ratios.items():
        ratio = values["Sync"][key] / values["Multi"][key]
        row_id = f"task2.coherence.{key}_ratio"
        rows.append(Row(row_id, about + METRICS[key], ratio, "", sense, bar))
    return rows


def judged(
    images: list[Tensor], asked: list[Any], networks: metrics.MetricNetworks, judge: Judge
) -> dict[str, float]:
    """The figures of panoramas (3, H, W): the mean over panoramas, or over their pieces."""
    size, pieces = WIDE[0], [metrics.crops(image, WIDE[0]) for image in images]
    texts = [prompt for (prompt, _, _), own in zip(asked, pieces, strict=True) for _ in own]
    places = [place for (_, place, _), own in zip(asked, pieces, strict=True) for _ in own]
    seen = [reading["landscape"] for reading in judge(list(torch.cat(pieces)))]
    right = mean(float(a == b) for a, b in zip(seen, places, strict=True))
    return {
        "intra_lpips": mean(
            metrics.intra_lpips(image, networks.distance, size) for image in images
        ),
        "intra_style": 100
        * mean(metrics.intra_style_loss(p, networks.features, size) for p in images),
        "clip_score": metrics.clip_score(torch.cat(pieces), texts, networks.clip),
        "landscape": 100 * right,
    }


def single_images(asked: list[Any], each: int, steps: int) -> Tensor:
    """`each` images (N, 3, 256, 256) of every prompt, of one window, by the same code."""
    sd, size = pocket(), pocket().model.image_size
    return torch.stack([
        sd.sample(prompt, height=size, width=size, num_sampling_steps=steps, seed=10_000 * (1 + k) + seed).to(DEVICE)
        for prompt, _, seed in tqdm(asked, desc="single pictures", leave=False) for k in range(each)
    ])  # fmt: skip


def closure_rows(reduced: bool) -> list[Row]:
    """How the step across the wrap ranks among the steps between all other columns, at three strides."""
    sd = pocket()
    count, steps = (3, 4) if reduced else (CLOSED, STEPS)
    calm: dict[int, list[bool]] = {stride: [] for stride in STRIDES}
    worst = 0.0
    for i, (prompt, _, seed) in enumerate(tqdm(landscapes(count), desc="closed", leave=False)):
        stride = STRIDES[i % len(STRIDES)]
        image = sd.sample(
            prompt,
            height=WIDE[0],
            width=WIDE[1],
            stride=stride,
            closed=True,
            num_sampling_steps=steps,
            seed=seed,
        )
        columns = metrics.column_differences(image)
        calm[stride].append(bool(columns[-1] <= columns[:-1].quantile(0.95)))
        worst = max(worst, float(columns[-1] / columns[:-1].max()))
    about = f"{count} closed panoramas {WIDE[0]}x{WIDE[1]}, strides {', '.join(map(str, STRIDES))}: step across the wrap"
    least, within = 54 * count // 60, "within the 95th percentile of the others"
    rows = [
        Row(
            "task2.closure.within_95",
            f"{about}, {within}",
            sum(map(sum, calm.values())),
            f"of {count}",
            ">=",
            least,
        ),
        Row(
            "task2.closure.worst",
            f"{about}, beside the largest of the others, worst",
            worst,
            "x",
            "<=",
            1.5,
        ),
    ]
    return rows + [
        Row(
            f"task2.closure.within_95_stride_{stride}",
            f"{about}, {within}, stride {stride}",
            sum(own),
            f"of {len(own)}",
            ">=",
        )
        for stride, own in calm.items()
    ]


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
    """Each choice on the same prompts and seeds, in turn, so that all see the machine in the same state."""
    sd, networks = pocket(), metrics.load_networks(device=DEVICE)
    count, request = (
        (1, {"num_sampling_steps": 2, "width": 512})
        if reduced
        else (TRADED, {"num_sampling_steps": STEPS})
    )
    seconds: dict[str, list[float]] = {name: [] for name in choices(sd)}
    apart: dict[str, list[float]] = {name: [] for name in choices(sd)}
    for settings in choices(sd).values():  # the first call of a kind is slower than the others
        if DEVICE.type == "cuda":
            sd.sample("a beach", **settings, **(request | {"num_sampling_steps": 2}))
    for prompt, _, seed in tqdm(landscapes(count), desc="choices", leave=False):
        for name, settings in choices(sd).items():
            took, image = timed(partial(sd.sample, prompt, seed=seed, **settings, **request))
            seconds[name].append(took)
            apart[name].append(metrics.intra_lpips(image.to(DEVICE), networks.distance, WIDE[0]))
    times = {name: statistics.median(values) for name, values in seconds.items()}
    rows = []
    for name in times:
        about = f"{count} landscapes, {name}"
        key = f"task2.tradeoff.{name.lower().replace(' ', '_')}"
        bar = 1.5 if name == "recommended" and DEVICE.type == "cuda" else None
        slower = times[name] / times["Multi"]
        rows.append(Row(f"{key}.time", f"{about}: time beside Multi", slower, "x", "<=", bar))
        rows.append(Row(f"{key}.intra_lpips", f"{about}: Intra-LPIPS", mean(apart[name]), "", "<="))
    gain = {name: mean(apart["Multi"]) - mean(apart[name]) for name in ("full", "recommended")}
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
    about = f"two CPU cores, 256x1024, stride 8 of 32, {steps} steps"
    here = machine(gpu=False)
    return [
        Row("task2.cpu.multi", f"{about}: Multi", seconds["multi"], "s", "<=", 60.0, machine=here),
        Row("task2.cpu.sync", f"{about}: Sync", seconds["sync"], "s", "<=", 120.0, machine=here),
    ]


# --- As large as Stable Diffusion 2.1


@cache
def large(toy: bool) -> tuple[Any, Any]:
    """The lesson's class on networks of the size of Stable Diffusion 2.1 with random weights, and their model; `toy`:
    the same shapes of latents, with few channels."""
    model = sd21_model(Path(tempfile.mkdtemp(prefix="task2-")), toy)
    return joint(model), model


def panorama_pipeline(model: Model) -> Any:
    """diffusers' own, on the same networks."""
    pipe = load_pipeline(model)
    pipe = StableDiffusionPanoramaPipeline(
        vae=pipe.vae, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer, unet=pipe.unet,
        scheduler=pipe.scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def large_rows(reduced: bool) -> list[Row]:
    """Latents out, as the pipeline gives them; medians of runs in turn."""
    sd, model = large(reduced)
    pipe = panorama_pipeline(model)
    steps, width, times = (1, 640, 1) if reduced else (50, 2048, 3)
    request = dict(height=512, width=width, num_sampling_steps=steps, smooth=False)
    multi = lambda those: those.sample_latents("a beach", stride=8, **request)
    compiled = joint(model, compile=True)
    theirs = lambda: pipe(
        "a beach",
        height=512,
        width=width,
        num_inference_steps=steps,
        view_batch_size=8,
        output_type="latent",
    )
    ways: dict[str, tuple[str, Callable[[], Any], float | None]] = {
        "multi": ("Multi, stride 8 of 64", partial(multi, sd), 6.0),
        "multi_compiled": ("Multi, stride 8 of 64, compiled", partial(multi, compiled), 6.0),
        "diffusers": ("diffusers' panorama pipeline, views in batches of 8", theirs, None),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(times + (not reduced)):
        for name, (_, work, _) in ways.items():
            seconds, _ = timed(work)
            if reduced or i:  # the first is slower than the others, and compiles
                took[name].append(seconds)
    about = f"random SD-2.1-size networks, 512x{width}, {steps} steps, latents out"
    rows = [
        Row(
            f"task2.large.{name}",
            f"{about}: {title}",
            statistics.median(took[name]),
            "s",
            "<=",
            bar,
        )
        for name, (title, _, bar) in ways.items()
    ]
    few = steps if reduced else 5  # the time of a step is the same in all of them
    sync = dict(
        stride=16,
        use_syncdiffusion=True,
        sync=sd.paper(),
        **(request | {"num_sampling_steps": few}),
    )
    one = joint(model, window_batch=1, gradient_batch=1)
    spent = {}
    for name, those in (("windows in batches", sd), ("one window at a time", one)):
        if not reduced:
            those.sample_latents("a beach", **(sync | {"num_sampling_steps": 1}))
        spent[name], _ = timed(partial(those.sample_latents, "a beach", **sync))
        rows.append(
            Row(
                f"task2.large.sync_step_{'batched' if those is sd else 'sequential'}",
                f"{about}: a step of Sync, paper's setting, {sd.distance_name}, {name}",
                spent[name] / few,
                "s",
            )
        )
    faster = spent["one window at a time"] / spent["windows in batches"]
    rows.append(
        Row(
            "task2.large.sync_speedup",
            f"{about}: Sync, windows in batches beside one at a time",
            faster,
            "x",
            ">=",
            2.0,
        )
    )
    return rows


def memory_rows(reduced: bool) -> list[Row]:
    """The peak while sampling, weights included."""
    sd, _ = large(reduced)
    # From the second on they are cut into a multiple of 16 windows, so that every call of the denoiser has 16.
    widths = (640,) if reduced else (2048, 2496, 4544, 8640)
    peaks: dict[tuple[str, int], float] = {}
    for width in widths:
        for name, more in (
            ("Multi", {}),
            ("Sync", {"use_syncdiffusion": True, "sync": sd.paper(), "stride": 16}),
        ):
            request = (
                dict(
                    height=512,
                    width=width,
                    num_sampling_steps=1 if reduced else 2,
                    smooth=False,
                    stride=8,
                )
                | more
            )
            peaks[name, width] = peak(partial(sd.sample_latents, "a beach", **request))
    about = "random SD-2.1-size networks, peak memory"
    rows = [
        Row(
            f"task2.memory.{name.lower()}_{width}",
            f"{about}: {name}, 512x{width}",
            value,
            "GB",
            "<=",
            16.0,
        )
        for (name, width), value in peaks.items()
    ]
    for name in ("Multi", "Sync"):
        first, last = widths[min(1, len(widths) - 1)], widths[-1]
        grown = peaks[name, last] / peaks[name, first]
        rows.append(
            Row(
                f"task2.memory.{name.lower()}_growth",
                f"{about}: {name}, {last} beside {first} pixels wide",
                grown,
                "x",
                "<=",
                1.1,
            )
        )
    return rows


def peak(work: Callable[[], Any]) -> float:
    """The most memory in use during `work`, in GB: of the GPU, where what is recorded the first time is there before;
    or without one of this process."""
    work()
    if DEVICE.type != "cuda":
        return peak_memory() / 1024
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e9


GROUPS: dict[str, Callable[[bool], list[Row]]] = {
    "averaging": averaging_rows, "coverage": coverage_rows, "coherence": coherence_rows, "closure": closure_rows,
    "tradeoff": tradeoff_rows, "cpu": cpu_rows, "large": large_rows, "memory": memory_rows,
}  # fmt: skip
ON_GPU = ("large", "memory")


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measures the groups asked for (default: all), prints their tables, stores full ones, and returns all rows."""
    parser = command_line("benchmarks.task2", __doc__, GROUPS)
    parser.add_argument(
        "--reduced", action="store_true", help="a rehearsal, of which nothing is stored"
    )
    args = parser.parse_args(arguments)
    everything: list[Row] = []
    for name in args.groups:
        reduced = args.reduced or (name in ON_GPU and DEVICE.type != "cuda")
        results = None if reduced else RESULTS / "task2.json"
        everything += report(
            f"python -m benchmarks.task2 {name}", partial(GROUPS[name], reduced), results
        )
    return everything


if __name__ == "__main__":
    main()
