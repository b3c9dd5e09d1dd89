"""Panoramas by networks of the size of Stable Diffusion 2.1: two groups of `benchmarks.task2`."""

import statistics
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPanoramaPipeline

from benchmarks.common import sd21_model
from benchmarks.task2_lesson import DEVICE, joint
from course.figures import Row, make_rows, peak_memory, timed
from course.models import Model, load_pipeline


@cache
def large(toy: bool) -> tuple[Any, Model]:
    """The lesson's class on such networks with random weights, and their model.

    toy: the same shapes of latents, with few channels.
    """
    model = sd21_model(Path(tempfile.mkdtemp(prefix="task2-")), toy)
    return joint(model), model


def panorama_pipeline(model: Model) -> Any:
    """Load diffusers' pipeline for panoramas on the same networks."""
    parts = load_pipeline(model).components | {"safety_checker": None, "feature_extractor": None}
    parts.pop("image_encoder", None)
    pipe = StableDiffusionPanoramaPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def large_rows(reduced: bool) -> list[Row]:
    """Times until the latents are there, as the pipeline returns them."""
    sd, model = large(reduced)
    steps, width = (1, 640) if reduced else (50, 2048)
    request = dict(height=512, width=width, num_sampling_steps=steps, smooth=False)
    about = f"random SD-2.1-size networks, 512 pixels high, {steps} steps, latents out"
    names = {
        "multi": "Multi, stride 8 of 64",
        "multi_compiled": "Multi, stride 8 of 64, compiled",
        "diffusers": "diffusers' panorama pipeline, views in batches of 8",
    }
    both = {"multi": sd, "multi_compiled": joint(model, compile=True)}
    times = multi_times(both, model, request, 1 if reduced else 3)
    bars = {"multi": 4.8, "multi_compiled": 4.8}
    figures: list[tuple[Any, ...]] = [
        (key, f"{names[key]}, {width} pixels wide", value, "s", "<=", bars.get(key))
        for key, value in times.items()
    ]
    ratio = times["diffusers"] / times["multi"]
    figures.append(("multi_ratio", "diffusers' time over ours", ratio, "x", ">=", 1.8))
    for other in () if reduced else (1024, 4096):
        times = multi_times({"multi": sd}, model, request | {"width": other}, 1)
        figures += [
            (f"{key}_{other}", f"{names[key]}, {other} pixels wide", value, "s", "<=")
            for key, value in times.items()
        ]
    few = steps if reduced else 5  # the time of a step is the same in all of them
    sync = request | {"stride": 16, "use_syncdiffusion": True, "sync": sd.paper()}
    seconds = {}
    alone = joint(model, window_batch=1, gradient_batch=1)
    ways = {"batched": ("windows in batches", sd), "sequential": ("one window at a time", alone)}
    for key, (name, one) in ways.items():
        if not reduced:
            one.sample_latents("a beach", **(sync | {"num_sampling_steps": 1}))
        sample = partial(one.sample_latents, "a beach", **(sync | {"num_sampling_steps": few}))
        seconds[key] = timed(sample)[0] / few
        figure = f"a step of Sync, paper's setting, {sd.distance_name}, {width} wide, {name}"
        figures.append((f"sync_step_{key}", figure, seconds[key], "s"))
    speedup = seconds["sequential"] / seconds["batched"]
    figure = "Sync, windows in batches beside one at a time"
    figures.append(("sync_speedup", figure, speedup, "x", ">=", 2.0))
    return make_rows("task2.large", about, *figures)


def multi_times(
    samplers: dict[str, Any], model: Model, request: dict[str, Any], rounds: int
) -> dict[str, float]:
    """Return the median seconds of MultiDiffusion by each sampler and by diffusers, in turn."""
    pipe = panorama_pipeline(model)
    size = {side: request[side] for side in ("height", "width")}
    steps = {"num_inference_steps": request["num_sampling_steps"]}
    calls: dict[str, Callable[[], Any]] = {
        key: partial(sd.sample_latents, "a beach", stride=8, **request)
        for key, sd in samplers.items()
    }
    calls["diffusers"] = partial(
        pipe, "a beach", **size, **steps, view_batch_size=8, output_type="latent"
    )
    seconds: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(1 + rounds):
        for key, call in calls.items():
            seconds[key].append(timed(call)[0])
    # The first call is slower than the others, and compiles.
    return {key: statistics.median(each[1:]) for key, each in seconds.items()}


def memory_rows(reduced: bool) -> list[Row]:
    """The peak while sampling, weights included."""
    sd, _ = large(reduced)
    # The later widths give a multiple of 16 windows, so each call of the denoiser has 16.
    widths = (640,) if reduced else (2048, 2496, 4544, 8640)
    methods: dict[str, dict[str, Any]] = {
        "Multi": {"stride": 8},
        "Sync": {"stride": 16, "use_syncdiffusion": True, "sync": sd.paper()},
    }
    request = dict(height=512, num_sampling_steps=1 if reduced else 2, smooth=False)
    figures: list[tuple[Any, ...]] = []
    growth: list[tuple[Any, ...]] = []
    first, last = widths[min(1, len(widths) - 1)], widths[-1]
    for name, method in methods.items():
        sample = partial(sd.sample_latents, "a beach", **request, **method)
        peaks = {width: peak(partial(sample, width=width)) for width in widths}
        for width, gigabytes in peaks.items():
            key = f"{name.lower()}_{width}"
            figures.append((key, f"{name}, 512x{width}", gigabytes, "GB", "<=", 16.0))
        figure = f"{name}, {last} beside {first} pixels wide"
        ratio = peaks[last] / peaks[first]
        growth.append((f"{name.lower()}_growth", figure, ratio, "x", "<=", 1.1))
    about = "random SD-2.1-size networks, peak memory"
    return make_rows("task2.memory", about, *figures, *growth)


def peak(work: Callable[[], Any]) -> float:
    """Return the peak memory of `work` in GB, of the GPU, or else of this process.

    On a GPU, CUDA graphs are captured before.
    """
    work()
    if DEVICE.type != "cuda":
        return peak_memory() / 1024
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e9
