"""DeepCache (Ma et al. 2023): most of a U-Net runs in a few steps only."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from course.arguments import check_integer


@contextlib.contextmanager
def deep_cache(unet: Any, every: int = 3) -> Iterator[None]:
    """Within this block, one call in `every` computes all of a U-Net of diffusers.

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
