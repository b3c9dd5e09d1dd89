"""Noise from seeds, and a check for values that are not finite.

Noise is drawn on the CPU in float32 and then moved: one seed, one image, on every machine.
"""

from collections.abc import Sequence
from typing import Any

import torch

from course.arguments import check_integer
from course.errors import CourseError


def make_generator(seed: Any) -> torch.Generator:
    """Return a random generator on the CPU for an integer seed. Raises RequestError."""
    seed = check_integer("seed", seed, minimum=0, maximum=2**63 - 1)
    return torch.Generator("cpu").manual_seed(seed)


def draw_noise(
    generators: Sequence[torch.Generator], shape: Sequence[int], device: torch.device | str
) -> torch.Tensor:
    """Return Gaussian noise (B, *shape), one part from each of the B generators."""
    parts = [torch.randn((1, *shape), generator=generator) for generator in generators]
    return torch.cat(parts).to(device)


def check_finite(values: torch.Tensor, name: str) -> None:
    """Raise CourseError if `values` are not all finite; `name` says what they are."""
    finite = values.isfinite()
    if not finite.all():
        raise CourseError(
            f"{name} must be finite, but {(~finite).sum():,} of {values.numel():,} values are NaN "
            "or infinite. The model's weights may be damaged: download or save it again. Or a "
            "number grew too large: lower settings such as guidance_scale, or use float32 in place "
            "of half precision."
        )
