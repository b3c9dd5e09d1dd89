"""The renderer on the GPU draws what the CPU draws."""

import numpy as np
import pytest
import torch

from pocket.world import render, sample_scene

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("kind", ["object", "landscape"])
def test_gpu_agrees_with_cpu(kind):
    """Colors within 2/255 for 99.9 % of the pixels."""
    params = np.stack([sample_scene(1000 + i, "all", kind).params for i in range(32)])
    cpu, gpu = render(params, device="cpu"), render(params, device="cuda")
    difference = (cpu.color.int() - gpu.color.cpu().int()).abs().amax(-1)
    assert (difference <= 2).float().mean() >= 0.999
    assert (cpu.mask != gpu.mask.cpu()).float().mean() < 1e-3
