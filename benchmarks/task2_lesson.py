"""The code of lesson 2, for the benchmarks of Task 2."""

from functools import cache
from types import ModuleType
from typing import Any

import torch

from course import notebooks
from course.models import Model, find_model

LESSON = notebooks.ROOT / "task_2_Joint_Diffusion.ipynb"
STEPS = 25
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@cache
def lesson() -> ModuleType:
    return notebooks.definitions(notebooks.read(LESSON), {"STEPS": STEPS})


@cache
def pocket() -> Any:
    """The lesson's class on the embedded model."""
    return joint(find_model("pocket"))


def joint(model: Model, **options: Any) -> Any:
    """The lesson's class on a model; `options` as of `course.diffusion.joint.JointSampler`."""
    return lesson().JointDiffusion(model, **options)
