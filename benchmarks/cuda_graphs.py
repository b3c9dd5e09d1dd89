"""CUDA graphs: `python -m benchmarks.cuda_graphs [GROUP ...]`, rows in results/task2.json.

graph      a guided denoising step of one image with the size of Stable Diffusion 2.1, float16,
           replayed from a CUDA graph and called directly
compiled   the same, compiled before the capture, which takes a minute
pocket     the embedded model's denoiser

Both kinds of calls alternate, and medians are compared. Without a GPU there is nothing to capture:
the groups run on a small network, as a rehearsal, and store nothing.
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from benchmarks.common import RESULTS, measure, sd21_unet
from course.figures import Row, make_rows, timed
from course.models import find_model, load_pipeline
from course.speed.cuda_graphs import CudaGraphModule

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
ROUNDS, CALLS = (30, 5) if CUDA else (2, 1)


def milliseconds(call: Callable[..., Any], inputs: tuple[Any, ...]) -> float:
    """Return the time of a call, over CALLS calls in a row, until the GPU has finished."""
    seconds, _ = timed(lambda: [call(*inputs) for _ in range(CALLS)])
    return 1000 * seconds / CALLS


def medians(
    plain: Callable[..., Any], graph: Callable[..., Any], inputs: tuple[Any, ...]
) -> list[float]:
    """Return the milliseconds of a call of either, measured in turns."""
    times = [[milliseconds(call, inputs) for call in (plain, graph)] for _ in range(ROUNDS)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


@torch.no_grad()
def compare(
    unet: UNet2DConditionModel, group: str, about: str, bar: float | None, compiled: bool = False
) -> list[Row]:
    """Speed, first call, error and memory of one denoiser on a guided batch of one."""
    side, width = unet.config.sample_size, unet.config.cross_attention_dim
    generator = torch.Generator().manual_seed(0)
    like = {"device": DEVICE, "dtype": unet.dtype}
    sample = torch.randn(2, unet.config.in_channels, side, side, generator=generator).to(**like)
    states = torch.randn(2, 77, width, generator=generator).to(**like)
    t = torch.tensor(500, device=DEVICE)
    plain = unet(sample, t, states).sample  # the libraries load
    before = torch.cuda.memory_allocated() if CUDA else 0

    graph = CudaGraphModule(unet, compile=compiled)
    first_call, output = timed(partial(graph, sample, t, states))
    result = output.sample
    del output
    error = ((result - plain).float().norm() / plain.float().norm()).item()
    plain_call, call = medians(unet, graph, (sample, t, states))
    del graph
    if CUDA:
        torch.cuda.empty_cache()
    left = ((torch.cuda.memory_allocated() if CUDA else 0) - before - result.nbytes) / 2**20
    name = f"{about}, guided batch of one"
    first_bar = None if compiled else 5.0
    figures: list[tuple[Any, ...]] = [
        (
            "speedup",
            "speed of replaying beside calling",
            round(plain_call / call, 2),
            "x",
            ">=",
            bar,
        ),
        ("call", "a replay", round(call, 2), "ms", "<="),
        ("plain_call", "a call", round(plain_call, 2), "ms", "<="),
        ("first_call", "the first call", round(first_call, 2), "s", "<=", first_bar),
        ("error", "norm of the difference over norm", round(error, 6), "", "<=", 0.01),
    ]
    if not compiled:  # compiled code stays with torch
        figure = "memory left when the graph is deleted"
        figures.append(("memory_left", figure, round(left, 2), "MiB", "<=", 1.0))
    return make_rows(f"cuda_graphs.{group}", f"CUDA graph, {name}", *figures)


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
    """Measure groups (default: all), print and store their rows, and return them."""
    results = RESULTS / "task2.json" if CUDA else None
    return measure("benchmarks.cuda_graphs", __doc__, GROUPS, results, arguments)


if __name__ == "__main__":
    main()
