"""The fast path beside the plain one: `python -m benchmarks.cuda_graphs [GROUP ...]`, rows in results/task2.json.

graph      a guided denoising step of one image with the size of Stable Diffusion 2.1, float16, replayed and plain
compiled   the same, compiled before it is recorded; takes a minute to get ready
pocket     the embedded model's denoiser

Plain and fast calls alternate, and medians are compared. Without a GPU there is nothing to record: the groups run on
a small network, as a rehearsal, and store nothing.
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from benchmarks.common import RESULTS, measure, sd21_unet
from course.figures import Row, timed
from course.models import find_model, load_pipeline
from course.speed.cuda_graphs import CudaGraphModule

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
ROUNDS, CALLS = (30, 5) if CUDA else (2, 1)


def milliseconds(call: Callable[..., Any], inputs: tuple[Any, ...]) -> float:
    """What one of CALLS calls in a row takes, the work on the GPU included."""
    seconds, _ = timed(lambda: [call(*inputs) for _ in range(CALLS)])
    return 1000 * seconds / CALLS


def medians(
    plain: Callable[..., Any], quick: Callable[..., Any], inputs: tuple[Any, ...]
) -> list[float]:
    """The milliseconds of a call of either, measured in turns."""
    times = [[milliseconds(call, inputs) for call in (plain, quick)] for _ in range(ROUNDS)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


@torch.no_grad()
def compare(
    unet: UNet2DConditionModel, group: str, about: str, bar: float | None, compiled: bool = False
) -> list[Row]:
    """Speed, readiness, agreement and memory of one denoiser on a guided batch of one."""
    side, width = unet.config.sample_size, unet.config.cross_attention_dim
    generator = torch.Generator().manual_seed(0)
    like = {"device": DEVICE, "dtype": unet.dtype}
    sample = torch.randn(2, unet.config.in_channels, side, side, generator=generator).to(**like)
    states = torch.randn(2, 77, width, generator=generator).to(**like)
    t = torch.tensor(500, device=DEVICE)
    plain = unet(sample, t, states).sample  # the libraries load
    before = torch.cuda.memory_allocated() if CUDA else 0

    quick = CudaGraphModule(unet, compile=compiled)
    ready, output = timed(partial(quick, sample, t, states))
    result = output.sample
    del output
    apart = ((result - plain).float().norm() / plain.float().norm()).item()
    slow, short = medians(unet, quick, (sample, t, states))
    del quick
    if CUDA:
        torch.cuda.empty_cache()
    left = ((torch.cuda.memory_allocated() if CUDA else 0) - before - result.nbytes) / 2**20
    name = f"{about}, guided batch of one"
    key = f"cuda_graphs.{group}"
    rows = [
        Row(
            f"{key}.speedup",
            f"fast path against the plain one, {name}",
            round(slow / short, 2),
            "x",
            ">=",
            bar,
        ),
        Row(f"{key}.call", f"fast path, {name}: a call", round(short, 2), "ms", "<="),
        Row(f"{key}.plain_call", f"plain path, {name}: a call", round(slow, 2), "ms", "<="),
        Row(
            f"{key}.first_call",
            f"fast path, {name}: first call",
            round(ready, 2),
            "s",
            "<=",
            None if compiled else 5.0,
        ),
        Row(
            f"{key}.error",
            f"fast path, {name}: norm of the difference over norm",
            round(apart, 6),
            "",
            "<=",
            0.01,
        ),
    ]
    if not compiled:  # compiled code stays with torch
        rows.append(
            Row(
                f"{key}.memory_left",
                f"fast path, {name}: memory left when it is gone",
                round(left, 2),
                "MiB",
                "<=",
                1.0,
            )
        )
    return rows


def denoiser() -> UNet2DConditionModel:
    with DEVICE:
        return sd21_unet(toy=not CUDA).to(torch.float16 if CUDA else torch.float32)


def pocket_rows() -> list[Row]:
    unet = load_pipeline(find_model("pocket")).unet.to(DEVICE)
    return compare(unet.half() if CUDA else unet, "pocket", "pocket's UNet", None)


NAME = "SD-2.1-size UNet, float16" if CUDA else "small UNet"
GROUPS: dict[str, Callable[[], list[Row]]] = {
    "graph": lambda: compare(denoiser(), "graph", NAME, 2.2 if CUDA else None),
    "compiled": lambda: compare(
        denoiser(), "compiled", f"{NAME}, compiled", 3.0 if CUDA else None, compiled=CUDA
    ),
    "pocket": pocket_rows,
}


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measures the groups asked for (default: all), prints their table, stores it and returns its rows."""
    return measure(
        "benchmarks.cuda_graphs",
        __doc__,
        GROUPS,
        RESULTS / "task2.json" if CUDA else None,
        arguments,
    )


if __name__ == "__main__":
    main()
