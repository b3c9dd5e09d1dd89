"""Encodings of positions and directions by name: the way in to freqencoder and gridencoder."""

from typing import Any

from torch import nn

from task_3_DreamFusion.freqencoder import FreqEncoder
from task_3_DreamFusion.gridencoder import GridEncoder, GridLayout

NAMES = ("none", "frequency", "hashgrid", "tiledgrid")


def get_encoder(
    name: str, input_dim: int = 3, bound: float = 1.0, **options: Any
) -> tuple[nn.Module, int]:
    """The encoder called `name` and how many features it gives.

    "none": the input itself. "frequency": options `levels` (FreqEncoder). "hashgrid", "tiledgrid": positions within
    [-bound, bound]; options of GridLayout.make, such as `levels`, `features`, `finest` and `log2_table_size`.

    Raises ValueError for another name, TypeError for an option that the encoder does not have.
    """
    if name == "none":
        if options:
            raise TypeError(f"the encoding 'none' has no options, such as {', '.join(options)}")
        return nn.Identity(), input_dim
    if name == "frequency":
        frequency = FreqEncoder(input_dim, **options)
        return frequency, frequency.output_dim
    if name in ("hashgrid", "tiledgrid"):
        grid = GridEncoder(
            GridLayout.make(input_dim, kind=name.removesuffix("grid"), **options), bound
        )
        return grid, grid.output_dim
    raise ValueError(f"no encoding {name!r}: choose from {', '.join(NAMES)}")
