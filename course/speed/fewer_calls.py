"""Ways to save calls of a U-Net of diffusers, or parts of them, without training."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

from course.arguments import check_integer


@contextlib.contextmanager
def guidance_interval(unet: Any, low: int = 0, high: int = 1000) -> Iterator[None]:
    """Within this block, only calls at timesteps from `low` to `high` compute the whole batch.

    The other calls compute its second half, the one with the prompt, and return that for both
    halves: then guidance changes nothing (Kynkäänniemi et al. 2024).
    """

    def forward(
        sample: Any, timestep: Any, encoder_hidden_states: Any, **options: Any
    ) -> UNet2DConditionOutput | tuple[Any]:
        compute = functools.partial(type(unet).forward, unet)
        if low <= timestep <= high:
            output: Any = compute(sample, timestep, encoder_hidden_states, **options)
            return output
        half = len(sample) // 2
        own = compute(sample[half:], timestep, encoder_hidden_states[half:], **options)[0]
        both = torch.cat([own, own])
        is_tuple = options.get("return_dict") is False
        return (both,) if is_tuple else UNet2DConditionOutput(sample=both)

    unet.forward = forward
    try:
        yield
    finally:
        del unet.forward


@contextlib.contextmanager
def deep_cache(unet: Any, every: int = 3) -> Iterator[None]:
    """Within this block, one call in `every` computes all of the U-Net (DeepCache, Ma et al. 2023).

    The other calls compute the level of the highest resolution, and take the results of the inner
    blocks from the call before: these change slowly from step to step. Enter the block once for
    each run of a sampling loop.
    """
    every = check_integer("every", every, minimum=1)
    inner = [*unet.down_blocks[1:], unet.mid_block, *unet.up_blocks[:-1]]
    stored: dict[Any, Any] = {}
    calls = -1

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    def forward(block: Any, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        key = (block, hidden_states.shape)  # a batch of another size has results of its own
        if calls % every == 0 or key not in stored:
            stored[key] = type(block).forward(block, hidden_states, *args, **kwargs)
        return stored[key]

    for block in inner:
        block.forward = functools.partial(forward, block)
    hook = unet.register_forward_pre_hook(count)
    try:
        yield
    finally:
        hook.remove()
        for block in inner:
            del block.forward
