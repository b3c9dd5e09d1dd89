"""The Triton kernels: the results of PyTorch, for any size; and the denoiser that uses them."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks.common import TOY_UNET
from course.speed import fused_ops
from course.speed.cuda_graphs import CudaGraphModule
from course.speed.fast_unet import FastUNet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
sizes = st.integers(1, 40)


def image(channels: int, height: int, width: int) -> torch.Tensor:
    x = torch.randn(2, channels, height, width, device="cuda")
    return x.to(memory_format=torch.channels_last)


@settings(deadline=None, max_examples=40)
@given(sizes, st.sampled_from([1, 4, 10, 30, 80]), sizes, sizes, st.booleans(), st.booleans())
def test_group_norm(groups, size, height, width, has_shift, silu):
    x, norm = image(groups * size, height, width), nn.GroupNorm(groups, groups * size).cuda()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    # A part of a wider matrix, as embedded timesteps are.
    shift = torch.randn(2, 3 * groups * size, device="cuda")[:, : groups * size]
    y = x + shift[:, :, None, None] if has_shift else x
    expected = nn.functional.silu(norm(y)) if silu else norm(y)
    with torch.no_grad():
        result = fused_ops.group_norm(x, norm, shift if has_shift else None, silu)
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result, expected, **TOLERANCE)


@settings(deadline=None, max_examples=40)
@given(sizes, st.integers(1, 1500), st.booleans())
def test_rows(rows, channels, has_shift):
    x, norm = torch.randn(rows, channels, device="cuda"), nn.LayerNorm(channels).cuda()
    shift = torch.randn(channels, device="cuda") if has_shift else None
    expected = norm(x if shift is None else x + shift)
    with torch.no_grad():
        torch.testing.assert_close(fused_ops.layer_norm(x, norm, shift), expected, **TOLERANCE)
    x = torch.randn(rows, 2 * channels, device="cuda")
    a, b = x.chunk(2, dim=1)
    torch.testing.assert_close(fused_ops.geglu(x), a * nn.functional.gelu(b), **TOLERANCE)


@settings(deadline=None, max_examples=20)
@given(sizes, sizes, sizes)
def test_add(channels, height, width):
    x, y, bias = (
        image(2, channels, height, width),
        image(2, channels, height, width),
        image(channels),
    )
    torch.testing.assert_close(fused_ops.add(x, y, bias), x + y + bias[:, None, None], **TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("linear", [False, True])
def test_a_denoiser_captured_or_not(dtype, linear):
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**TOY_UNET | {"use_linear_projection": linear, "sample_size": 16})
    unet = unet.to("cuda").eval().requires_grad_(False)
    x, states = torch.randn(2, 4, 16, 24, device="cuda"), torch.randn(2, 9, 32, device="cuda")
    expected = unet(x, 500, states).sample
    plain = unet.to(dtype)(x.to(dtype), 500, states.to(dtype)).sample
    fast = FastUNet(unet)
    graphed = CudaGraphModule(fast)
    limit = 1e-4 if dtype == torch.float32 else 1.5 * (plain - expected).float().norm()
    for network in (fast, graphed, graphed):
        result = network(x.to(dtype), 500, states.to(dtype)).sample
        assert result.dtype == dtype
        assert (result - expected).float().norm() <= limit
