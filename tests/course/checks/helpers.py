"""What the tests of several checks share."""

from inspect import isfunction
from types import MethodType

import numpy as np
import pytest
import torch
from PIL import Image

from course import notebooks
from course.checks import CheckFailed

DETAILED = notebooks.ROOT / "task_1_2_Stable_Diffusion_detailed.ipynb"
CONTROL_LESSON = notebooks.ROOT / "task_1_3_ControlNet.ipynb"
JOINT = notebooks.ROOT / "task_2_Joint_Diffusion.ipynb"
FILM = notebooks.definitions(notebooks.read(notebooks.ROOT / "make_video.ipynb"))


def assert_advice(advice, check, *arguments):
    with pytest.raises(CheckFailed, match=advice):
        check(*arguments)


def changed(sd, **parts):
    """A copy of `sd` in which some parts or methods are others."""
    other = object.__new__(type(sd))
    other.__dict__.update(
        sd.__dict__ | {n: MethodType(p, other) if isfunction(p) else p for n, p in parts.items()}
    )
    return other


def rewritten(lesson, name, *changes):
    """Lesson 1.3 with changes in the text of its function `name`: old, new, old, new, ..."""
    other = rewrite(CONTROL_LESSON, name, *changes)
    other.model, other.pipe = lesson.model, lesson.pipe
    return other


def rewrite(path, name, *changes):
    """Return what the lesson at `path` defines, with such changes in its function `name`."""
    notebook = notebooks.read(path)
    [cell] = [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and f"def {name}(" in cell.source
    ]
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in cell.source
        cell.source = cell.source.replace(old, new)
    return notebooks.definitions(notebook, {"STEPS": 3, "SEED": 2})


def mistaken(lesson, name, *changes):
    """That function of the lesson with these changes."""
    return getattr(rewritten(lesson, name, *changes), name)


def raises(error):
    """Return a function of any arguments that raises `error`."""

    def function(*_, **__):
        raise error

    return function


def right_noise(model):
    def starting_noise(seed):
        return torch.randn((1, 4, 8, 8), generator=torch.Generator("cpu").manual_seed(seed)).to(
            model.device
        )

    return starting_noise


def colored(prompt: str, seed: int = 0, steps: int = 0) -> Image.Image:
    """A stand-in for `generate`: one color for each setting."""
    return Image.fromarray(np.full((8, 8, 3), (len(prompt), seed * 10, steps * 10), np.uint8))
