"""Former names of `run` and `loop`, for the stages that still use them."""

from collections.abc import Callable
from pathlib import Path

from course import files

from .loop import Settings
from .loop import adamw as adamw
from .loop import build_ema as average
from .loop import ema_weights as averaged
from .loop import lr_factor as schedule
from .loop import save_contiguous as save_plain
from .loop import train as _train
from .loop import trainable_parameters as trainable
from .run import Run as Run

__all__ = ["Run", "adamw", "average", "averaged", "save_plain", "schedule", "trainable"]


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    with files.replace_folder(folder) as new:
        write(new)


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    with files.replace_file(path) as new:
        write(new)


def record_time(run: Run, began: float, images: int) -> None:
    run.record_time(began, images)


def train(run, model, optimizer, loss_fn, save, *, validate=None, began=None, **settings) -> None:
    _train(run, model, optimizer, loss_fn, save, Settings(**settings), validate, began)
