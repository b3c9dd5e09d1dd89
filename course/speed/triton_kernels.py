"""The Triton kernels of `course.speed.fused_ops`, which chooses their sizes.

Images are (B, H W, C) in memory, channels last. Sums and norms are computed in float32.
"""

# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def group_moments(
    x, shift, moments, pixels, channels, size, shift_stride,
    CHUNK: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr, HAS_SHIFT: tl.constexpr,
):  # fmt: skip
    """Sum x + shift and its square over a chunk of pixels of one group of channels.

    Writes moments (B, groups, chunks, 2). Program: (chunk, group, image). CHUNK: pixels in each,
    ROWS of them at once. SIZE: `size`, the channels of a group, rounded up to a power of two.
    """
    index = tl.program_id(0)
    group = tl.program_id(1)
    image = tl.program_id(2)
    column = tl.arange(0, SIZE)[None, :]
    channel = group * size + column
    is_in_group = column < size
    offset = tl.zeros([1, SIZE], tl.float32)
    if HAS_SHIFT:
        offset = tl.load(shift + image * shift_stride + channel, is_in_group, 0.0).to(tl.float32)
    base = x + image.to(tl.int64) * pixels * channels + channel
    total = tl.zeros([ROWS, SIZE], tl.float32)
    squares = tl.zeros([ROWS, SIZE], tl.float32)
    for start in range(0, CHUNK, ROWS):
        row = index * CHUNK + start + tl.arange(0, ROWS)[:, None]
        mask = (row < pixels) & is_in_group
        value = tl.load(base + row * channels, mask, 0.0).to(tl.float32)
        value = tl.where(mask, value + offset, 0.0)
        total += value
        squares += value * value
    out = moments + ((image * tl.num_programs(1) + group) * tl.num_programs(0) + index) * 2
    tl.store(out, tl.sum(total))
    tl.store(out + 1, tl.sum(squares))


@triton.jit
def normalize_groups(
    x, shift, moments, weight, bias, y, pixels, channels, size, groups, eps, shift_stride,
    CHUNKS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    HAS_SHIFT: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Normalize x + shift by the moments of its groups. Program: (pixels, channels, image)."""
    image = tl.program_id(2)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    channel = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    is_channel = channel < channels
    total = tl.zeros([COLUMNS], tl.float32)
    squares = tl.zeros([COLUMNS], tl.float32)
    source = moments + (image * groups + channel // size) * CHUNKS * 2
    for index in range(0, CHUNKS):
        total += tl.load(source + 2 * index, is_channel, 0.0)
        squares += tl.load(source + 2 * index + 1, is_channel, 0.0)
    count = (pixels * size).to(tl.float32)
    mean = total / count
    variance = tl.maximum(squares / count - mean * mean, 0.0)
    scale = tl.load(weight + channel, is_channel, 0.0).to(tl.float32) / tl.sqrt(variance + eps)
    offset = -mean
    if HAS_SHIFT:
        offset += tl.load(shift + image * shift_stride + channel, is_channel, 0.0).to(tl.float32)
    offset = tl.load(bias + channel, is_channel, 0.0).to(tl.float32) + offset * scale
    place = image.to(tl.int64) * pixels * channels + row * channels + channel[None, :]
    mask = (row < pixels) & is_channel[None, :]
    value = tl.load(x + place, mask, 0.0).to(tl.float32) * scale[None, :] + offset[None, :]
    if SILU:
        value = value * tl.sigmoid(value)
    tl.store(y + place, value.to(y.dtype.element_ty), mask)


@triton.jit
def normalize_rows(
    x, shift, weight, bias, y, channels, eps, COLUMNS: tl.constexpr, HAS_SHIFT: tl.constexpr
):
    """Normalize a row of x + shift. Program: row. COLUMNS: `channels`, up to a power of two."""
    place = tl.program_id(0).to(tl.int64) * channels + tl.arange(0, COLUMNS)
    channel = tl.arange(0, COLUMNS)
    mask = channel < channels
    value = tl.load(x + place, mask, 0.0).to(tl.float32)
    if HAS_SHIFT:
        value += tl.load(shift + channel, mask, 0.0).to(tl.float32)
    mean = tl.sum(value) / channels
    centered = tl.where(mask, value - mean, 0.0)
    variance = tl.sum(centered * centered) / channels
    scale = tl.load(weight + channel, mask, 0.0).to(tl.float32) / tl.sqrt(variance + eps)
    result = centered * scale + tl.load(bias + channel, mask, 0.0).to(tl.float32)
    tl.store(y + place, result.to(y.dtype.element_ty), mask)


@triton.jit
def gate_by_gelu(x, y, channels, COLUMNS: tl.constexpr):
    """Multiply the first half of a row of x by GELU of the second. Program: (row, channels)."""
    row = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = channel < channels
    value = tl.load(x + row * 2 * channels + channel, mask, 0.0).to(tl.float32)
    gate = tl.load(x + row * 2 * channels + channels + channel, mask, 0.0).to(tl.float32)
    gelu = 0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476))
    tl.store(y + row * channels + channel, (value * gelu).to(y.dtype.element_ty), mask)


@triton.jit
def add_bias(x, y, bias, result, count, channels, BLOCK: tl.constexpr):
    """Add x, y and a bias of each channel. Program: BLOCK elements."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < count
    total = tl.load(x + place, mask, 0.0).to(tl.float32)
    total += tl.load(y + place, mask, 0.0).to(tl.float32)
    total += tl.load(bias + place % channels, mask, 0.0).to(tl.float32)
    tl.store(result + place, total.to(result.dtype.element_ty), mask)
