"""What the checks of all lessons share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from course.errors import CourseError
from course.models import Model


class CheckFailed(CourseError, AssertionError):
    """An exercise is not right yet; the message says what to look at."""


def expect(condition: object, advice: str) -> None:
    """Raise CheckFailed with `advice` unless `condition` holds."""
    if not condition:
        raise CheckFailed(advice)


def passed(what: str) -> None:
    print(f"✓ {what}")


def made(value: object, what: str) -> None:
    """An exercise that was not begun leaves `...` or None in place of its result."""
    expect(value is not None and value is not ..., f"{what} is still empty: write the lines of the TODO above.")


def as_trained(scheduler: Any, model: Model) -> None:
    own = model.config("scheduler/scheduler_config.json")
    for key in ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type"):
        expect(
            key not in own or scheduler.config[key] == own[key],
            f"The scheduler has {key} = {scheduler.config[key]}, but {model.name} was trained with {own.get(key)}. "
            'Take the model\'s own settings: DDIMScheduler.from_pretrained(model.folder, subfolder="scheduler").',
        )


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-4) -> bool:
    """Whether two tensors agree in shape and, relative to their size, in value."""
    if not isinstance(a, torch.Tensor) or a.shape != b.shape:
        return False
    return bool((a.float() - b.float()).norm() <= tolerance * b.float().norm().clamp_min(1e-6))


def same(a: Image.Image, b: Image.Image) -> bool:
    """Whether two pictures agree in every pixel, up to rounding of the last bits on a GPU."""
    if a.size != b.size:
        return False
    return bool(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean() < 0.05)


def all_close(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(close(one, other, 1e-2) for one, other in zip(a, b, strict=True))


def tolerance_of(model: Model) -> float:
    return 1e-3 if model.dtype == torch.float32 else 3e-2
