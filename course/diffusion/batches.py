"""Functions of many windows, computed in batches, and by several processes."""

from collections.abc import Callable

import torch
from accelerate import PartialState
from accelerate.utils import gather
from torch import Tensor

from course.arguments import check_integer

# From indices (n,) to a result (n, ...), each row of which depends on its own index alone.
Function = Callable[[Tensor], Tensor]


def in_batches(function: Function, indices: Tensor, max_size: int) -> Tensor:
    """Return `function(indices)`, computed in batches of one size, at most `max_size`.

    The last batch is filled up by repeating the last index, so that all calls have one shape.
    """
    max_size = check_integer("The number of windows in a batch", max_size, minimum=1)
    calls = -(-len(indices) // max_size)
    size = -(-len(indices) // calls)
    results = [function(part) for part in _fill_up(indices, calls * size).split(size)]
    return torch.cat(results)[: len(indices)]


def over_processes(function: Function, indices: Tensor) -> Tensor:
    """Return `function(indices)`; of several processes each computes a part, and all get it whole.

    `accelerate launch` or torchrun starts them. All must call this, with the same `indices`.
    """
    state = PartialState()
    if state.num_processes == 1:
        return function(indices)
    size = -(-len(indices) // state.num_processes)
    own = _fill_up(indices, size * state.num_processes).split(size)[state.process_index]
    results: Tensor = gather(function(own).contiguous())
    return results[: len(indices)]


def _fill_up(indices: Tensor, count: int) -> Tensor:
    places = torch.arange(count, device=indices.device)
    return indices[places.clamp_max(len(indices) - 1)]
