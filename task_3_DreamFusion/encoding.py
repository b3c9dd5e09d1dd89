"""Encodings of positions and directions by name, from freqencoder and gridencoder."""

from typing import Any

from torch import nn

from task_3_DreamFusion.freqencoder import FreqEncoder
from task_3_DreamFusion.gridencoder import GridEncoder, GridLayout

NAMES = ("frequency", "hashgrid")


def get_encoder(
    name: str, input_dim: int = 3, bound: float = 1.0, **options: Any
) -> tuple[nn.Module, int]:
    """Return the encoder called `name` and its number of features.

    "frequency": options of FreqEncoder (`levels`). "hashgrid": positions in [-bound, bound];
    options of GridLayout.make. Raises ValueError for another name, TypeError for an unknown option.
    """
    encoder: FreqEncoder | GridEncoder
    if name == "frequency":
        encoder = FreqEncoder(input_dim, **options)
    elif name == "hashgrid":
        encoder = GridEncoder(GridLayout.make(input_dim, **options), bound)
    else:
        raise ValueError(f"encoding must be one of {', '.join(NAMES)}, got {name!r}")
    return encoder, encoder.output_dim
