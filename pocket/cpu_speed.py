"""Time and memory of sampling with the embedded model on a CPU: what a first user waits for.

`pocket.evaluate` runs `sample_on_cpu` in a process of its own, so this module imports little.
"""

import statistics
import time
from itertools import pairwise
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from course.figures import peak_memory


def sample_on_cpu(folder: str, steps: str) -> dict[str, float]:
    """Load the pipeline in `folder` and generate three images with two threads in float32.

    Returns:
        image: median seconds of an image.
        step: median seconds between two guided steps of an image.
        memory: peak memory in MiB.
        first_image_at: when the first image was ready, in seconds since the epoch.
    """
    torch.set_num_threads(2)
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    image_seconds: list[float] = []
    step_seconds: list[float] = []
    first_image_at = 0.0
    for _ in range(3):
        times: list[float] = []

        def record(pipe: Any, i: int, t: int, values: dict[str, Any], times: Any = times) -> dict:
            times.append(time.perf_counter())
            return {}

        start = time.perf_counter()
        generator = torch.Generator().manual_seed(0)
        pipe(
            "a hamburger",
            num_inference_steps=int(steps),
            generator=generator,
            callback_on_step_end=record,
        )
        image_seconds.append(time.perf_counter() - start)
        step_seconds += [after - before for before, after in pairwise(times)]
        first_image_at = first_image_at or time.time()
    return {
        "image": statistics.median(image_seconds),
        "step": statistics.median(step_seconds),
        "memory": peak_memory(),
        "first_image_at": first_image_at,
    }
