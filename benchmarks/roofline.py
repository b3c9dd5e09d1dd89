"""The roofline: `python -m benchmarks.roofline`, rows in results/roofline.json.

Each part of a denoiser is timed alone, at the sizes of Stable Diffusion 2.1 (a guided call of
512x512 pixels in float16), in a CUDA graph of many calls. A part that does I operations for each
byte that it has to read or write can do at most min(P, I B) operations a second (Williams et al.
2009); P and B are what a large matrix product and a large copy reach in the same run. Parts whose
data stay in the cache can pass this roof. Without a GPU the parts are small, as a rehearsal, and
nothing is stored.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common import RESULTS, measure
from course.figures import Row, make_rows, timed
from course.speed import fused_ops

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
DTYPE = torch.float16 if CUDA else torch.float32
CALLS, ROUNDS = (100, 7) if CUDA else (1, 1)
SHRINK = 1 if CUDA else 16  # of channels and pixels


class Part(NamedTuple):
    """A part: its call, and the operations and the bytes that it needs at least."""

    call: Callable[[], Tensor]
    operations: float
    bytes: float


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, device=DEVICE, dtype=DTYPE)


def size(*tensors: Tensor) -> int:
    """Return the bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def convolution(channels: int, side: int) -> Part:
    """Return a 3x3 convolution, channels last."""
    channels = channels // SHRINK
    x = random(2, channels, side, side).to(memory_format=torch.channels_last)
    weight = random(channels, channels, 3, 3).to(memory_format=torch.channels_last)
    operations = 2 * 9 * channels * x.numel()
    return Part(partial(F.conv2d, x, weight, padding=1), operations, size(x, x, weight))


def linear(rows: int, inputs: int, outputs: int) -> Part:
    rows, inputs, outputs = rows // SHRINK, inputs // SHRINK, outputs // SHRINK
    x, weight = random(rows, inputs), random(outputs, inputs)
    y = random(rows, outputs)
    return Part(partial(F.linear, x, weight), 2 * rows * weight.numel(), size(x, weight, y))


def attention(queries: int, keys: int, heads: int) -> Part:
    """Return attention of heads of 64 channels."""
    queries = queries // SHRINK
    q, k, v = (random(2, heads, count, 64) for count in (queries, keys, keys))
    operations = 4 * q.numel() * keys
    call = partial(F.scaled_dot_product_attention, q, k, v)
    return Part(call, operations, size(q, k, v, q))


def group_norm(channels: int, side: int, fused: bool) -> Part:
    """Return group normalization with SiLU, by Triton or by PyTorch."""
    x = random(2, channels, side, side).to(memory_format=torch.channels_last)
    norm = nn.GroupNorm(32, channels).to(DEVICE, DTYPE)
    plain = lambda: F.silu(norm(x))
    call = partial(fused_ops.group_norm, x, norm) if fused else plain
    return Part(call, 8 * x.numel(), size(x, x))


def geglu(rows: int, channels: int, fused: bool) -> Part:
    """Return the gate of a feed-forward layer, by Triton or by PyTorch."""
    x = random(rows // SHRINK, 2 * channels)

    def plain() -> Tensor:
        a, b = x.chunk(2, dim=-1)
        return a * F.gelu(b)

    return Part(partial(fused_ops.geglu, x) if fused else plain, 5 * x.numel(), size(x) * 1.5)


PARTS: dict[str, Callable[[], Part]] = {
    "convolution, 320 channels, 64x64": partial(convolution, 320, 64),
    "convolution, 640 channels, 32x32": partial(convolution, 640, 32),
    "convolution, 1280 channels, 16x16": partial(convolution, 1280, 16),
    "convolution, 1280 channels, 8x8": partial(convolution, 1280, 8),
    "linear, 8192 x 320 x 2560": partial(linear, 8192, 320, 2560),
    "linear, 512 x 1280 x 10240": partial(linear, 512, 1280, 10240),
    "self-attention, 4096 pixels": partial(attention, 4096, 4096 // SHRINK, 5),
    "cross-attention, 4096 pixels": partial(attention, 4096, 77, 5),
    "group norm and SiLU, 320 channels, PyTorch": partial(group_norm, 320, 64, False),
    "group norm and SiLU, 320 channels, Triton": partial(group_norm, 320, 64, True),
    "group norm and SiLU, 1280 channels, Triton": partial(group_norm, 1280, 16, True),
    "GEGLU, 8192 x 1280, PyTorch": partial(geglu, 8192, 1280, False),
    "GEGLU, 8192 x 1280, Triton": partial(geglu, 8192, 1280, True),
}


@torch.no_grad()
def seconds_of(call: Callable[[], Tensor]) -> float:
    """Return the median seconds of a call, launches left out: many are replayed as a CUDA graph."""
    call()

    def repeat() -> None:
        for _ in range(CALLS):
            call()

    work = repeat
    if CUDA:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):  # libraries choose their kernels before the capture
            repeat()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            repeat()
        work = graph.replay
    return float(torch.tensor([timed(work)[0] for _ in range(ROUNDS)]).median()) / CALLS


def peak_rows() -> tuple[float, float, list[Row]]:
    """Return operations a second of a large product, bytes a second of a large copy, and rows."""
    side = 8192 // SHRINK
    a, b = random(side, side), random(side, side)
    product = 2 * side**3 / seconds_of(partial(torch.matmul, a, b))
    source = random(2**28 // SHRINK**2)
    copy = size(source, source) / seconds_of(source.clone)
    rows = make_rows(
        "roofline.peak",
        f"{str(DTYPE).removeprefix('torch.')}",
        ("tflops", f"matrix product, side {side}", product / 1e12, "TFLOP/s"),
        ("bandwidth", "copy, read and written", copy / 1e9, "GB/s"),
    )
    return product, copy, rows


def roofline_rows() -> list[Row]:
    """Return operations a second of each part, its intensity and its share of the roof."""
    product, copy, rows = peak_rows()
    for name, make in PARTS.items():
        part = make()
        rate = part.operations / seconds_of(part.call)
        intensity = part.operations / part.bytes
        roof = min(product, intensity * copy)
        key = "_".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
        rows += make_rows(
            f"roofline.{key}",
            name,
            ("tflops", "operations a second", rate / 1e12, "TFLOP/s"),
            ("intensity", "operations for each byte", intensity, ""),
            ("share", "share of what the roof allows", 100 * rate / roof, "%"),
        )
    return rows


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure, print and store the rows, and return them."""
    results = RESULTS / "roofline.json" if CUDA else None
    return measure("benchmarks.roofline", __doc__, {"parts": roofline_rows}, results, arguments)


if __name__ == "__main__":
    main()
