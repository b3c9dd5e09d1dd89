"""Checkpoints of a run: one file each, written whole or not at all, and read without running code.

    path = save(folder, step, {"field": field.state_dict(), ...})
    step, state = load(latest(folder))

`read_run` also checks that the state is that of a run of task 3.
"""

import contextlib
import io
import re
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from course.arguments import check_integer
from course.errors import CourseError
from course.files import remove_partial, replace_file
from task_3_DreamFusion.nerf.options import SettingError, build, check_unicode
from task_3_DreamFusion.nerf.settings import GuidanceOptions, Settings

MAX_STEP = 10**12
KEEP = 2
# What the parameters and the targets consist of: a resumed run cannot change it.
FIXED_SETTINGS = tuple("backbone levels bound grid_size background optim space size".split())


class CheckpointError(CourseError):
    """A checkpoint cannot be written or read; the message names the file and says what to do."""


@dataclass(frozen=True)
class SavedRun:
    """A run as a checkpoint holds it. state: of `Trainer.save`. model: its name or folder."""

    path: Path
    step: int
    state: dict[str, Any]
    settings: Settings
    guidance: GuidanceOptions
    model: str

    def check_compatible(self, settings: Settings) -> None:
        """Raise CheckpointError if a run with these settings cannot continue from here."""
        for name in FIXED_SETTINGS:
            earlier, new = getattr(self.settings, name), getattr(settings, name)
            if earlier != new:
                raise CheckpointError(f"{self.path} has {name} {earlier!r}, this run has {new!r}")


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` as the checkpoint of `step` into `folder`, and keep only the last two.

    state: nested dictionaries, lists and tuples of tensors, numbers, text, booleans and None; equal
    states make equal files. Returns the path of the file. Raises CheckpointError if it cannot be
    written; earlier checkpoints stay as they are.
    """
    path = folder / f"{step:06d}.pt"
    buffer = io.BytesIO()
    torch.save({"step": step, "state": _plain(state)}, buffer)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as new:
            new.write_bytes(buffer.getvalue())
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f"the checkpoint {path} cannot be written: {reason}") from error
    prune(folder)
    return path


def prune(folder: Path) -> None:
    """Remove all checkpoints but the last two, and what a killed process was writing."""
    for old in _all(folder)[:-KEEP]:
        with contextlib.suppress(OSError):
            old.unlink()
    remove_partial(folder)


def remove_all(folder: Path) -> None:
    """Remove all checkpoints in `folder`. Raises OSError."""
    for path in _all(folder):
        path.unlink()


def latest(folder: Path) -> Path | None:
    """Return the checkpoint of the highest step in `folder`, or None if there is none."""
    paths = _all(folder)
    return paths[-1] if paths else None


def step_of(path: Path) -> int:
    """Return the step that the name of a checkpoint says."""
    return int(path.stem)


def load(path: Path) -> tuple[int, dict[str, Any]]:
    """Return the step and the state of a checkpoint, its tensors on the CPU.

    Raises CheckpointError for a file that is missing, cut off, changed, or of another program.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} is no checkpoint: {error.strerror or error}") from error
    if not _is_intact(data):
        raise CheckpointError(
            f"{path} is cut off or was changed: remove it, and --resume takes the one before"
        )
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        step = check_integer("step", content["step"], 0, MAX_STEP)
        state = content["state"]
        if not isinstance(state, dict):
            raise TypeError(f"the state is a {type(state).__name__}")
    except Exception as error:  # torch.load and foreign data raise errors of all kinds
        raise foreign(path, error) from error
    return step, state


def read_run(path: Path) -> SavedRun:
    """Return the run that a checkpoint holds. Raises CheckpointError like `load`."""
    step, state = load(path)
    try:
        settings = build(Settings, state["settings"])
        guidance = build(GuidanceOptions, state["guidance"])
        model = state["model"]
        check_unicode("model", model, SettingError)
        if "\0" in model:
            raise ValueError(f"model {model!r}")
    except (CourseError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise foreign(path, error) from error
    return SavedRun(path, step, state, settings, guidance, model)


def foreign(path: Path, error: Exception) -> CheckpointError:
    """Return the error for an intact file that no run of task 3 has written."""
    reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
    return CheckpointError(
        f"{path} holds something else than a run of task 3 ({reason[:200]}): name a checkpoint "
        "that main.py has written"
    )


def _all(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, by their steps."""
    paths = (path for path in folder.glob("*.pt") if re.fullmatch(r"\d{6,}", path.stem))
    return sorted(paths, key=step_of)


def _is_intact(data: bytes) -> bool:
    """Return whether the checksums of an archive of torch.save are right; torch reads none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.testzip() is None
    except Exception:  # a damaged archive raises errors of all kinds
        return False


def _plain(value: Any) -> Any:
    """Return a state without shared memory, whose file depends on nothing but its values."""
    if isinstance(value, Tensor):
        return value.detach().cpu().contiguous().clone()
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    if isinstance(value, str):
        return sys.intern(value)  # pickle writes the same object only once
    if value is None or isinstance(value, bool | int | float):
        return value
    raise TypeError(
        f"a checkpoint holds tensors, numbers, text and containers, not {type(value).__name__}"
    )
