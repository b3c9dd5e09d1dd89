"""Checkpoints: all that a run needs to go on, as safetensors plus JSON, complete or not there at all.

    save(folder, step, {"field": field.state_dict(), "optimizer": optimizer.state_dict(), ...})
    step, state = load(latest(folder))

A checkpoint is a folder `000500` with tensors.safetensors and state.json. It is written under another name and moved
into place in one step, so whatever kills the process leaves whole checkpoints only. Nothing in it is executed.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from course.arguments import check_integer
from course.errors import CourseError

MAX_STEP = 10**12
TENSORS, STATE = "tensors.safetensors", "state.json"


class CheckpointError(CourseError):
    """A checkpoint cannot be written or read; the message names the file and says what to do."""


def save(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Writes `state` as the checkpoint of `step` into `folder`, and removes all but the last `keep`.

    state: nested dictionaries, lists and tuples of tensors, numbers, texts, truth values and None. Returns the
    checkpoint's folder. Raises CheckpointError where it cannot be written; earlier checkpoints are left as they are.
    """
    tensors: dict[str, Tensor] = {}
    content = {"step": step, "state": _encode(state, tensors)}
    binary = save_tensors(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    )
    content["tensors_sha256"] = hashlib.sha256(binary).hexdigest()
    place = folder / f"{step:06d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("partial-*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="partial-", dir=folder) as private:
            new = Path(private) / place.name
            new.mkdir()
            _write(new / TENSORS, binary)
            _write(
                new / STATE, json.dumps({"content": content, "sha256": _digest(content)}).encode()
            )
            if place.exists():
                place.rename(Path(private) / "old")
            new.rename(place)
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint {place} cannot be written: {error.strerror or error}"
        ) from error
    for old in _all(folder)[:-keep]:
        with (
            contextlib.suppress(OSError),
            tempfile.TemporaryDirectory(prefix="partial-", dir=folder) as private,
        ):
            old.rename(
                Path(private) / old.name
            )  # first, so that a process killed here leaves no half of it
    return place


def latest(folder: Path) -> Path | None:
    """The checkpoint of the highest step in `folder`, or None if there is none."""
    found = _all(folder)
    return found[-1] if found else None


def load(path: Path, device: torch.device | str = "cpu") -> tuple[int, dict[str, Any]]:
    """The step and the state of a checkpoint, its tensors on `device`.

    Raises CheckpointError for a file that is missing, cut off, was changed, or is of another program.
    """
    try:
        text, binary = (path / STATE).read_bytes(), (path / TENSORS).read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} is no checkpoint: {error.strerror or error} ({Path(error.filename).name})"
        ) from error
    spoilt = "is cut off or was changed: remove the checkpoint's folder, and --resume takes the one before"
    try:
        whole = json.loads(text)
        content = whole["content"]
        if whole["sha256"] != _digest(content):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path / STATE} {spoilt}") from error
    try:
        digest, encoded = content["tensors_sha256"], content["state"]
        step = check_integer("step", content["step"], 0, MAX_STEP)
    except (ValueError, KeyError, TypeError) as error:
        raise foreign(path, error) from error
    if hashlib.sha256(binary).hexdigest() != digest:
        raise CheckpointError(f"{path / TENSORS} {spoilt}")
    try:
        tensors = load_tensors(binary)
        state = _decode(encoded, {name: tensor.to(device) for name, tensor in tensors.items()})
        if not isinstance(state, dict):
            raise TypeError(f"the state is a {type(state).__name__}")
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise foreign(path, error) from error
    return step, state


def foreign(path: Path, error: object) -> CheckpointError:
    """Return the error of a checkpoint whose checksums are right, but which no run of Task 3 has written."""
    reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
    return CheckpointError(
        f"{path} holds something else than a run of Task 3 ({reason[:200]}): name a checkpoint that main.py has written"
    )


def _all(folder: Path) -> list[Path]:
    """The checkpoints in a folder, by their steps."""
    found = [
        path for path in folder.glob("*") if re.fullmatch(r"\d{6,}", path.name) and path.is_dir()
    ]
    return sorted(found, key=lambda path: int(path.name))


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(
            file.fileno()
        )  # or else the name could be there before the contents, after a power cut


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` in JSON's terms, its tensors put aside under names: dictionaries keep whole numbers as keys."""
    if isinstance(value, Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_key(key), _encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_encode(item, tensors) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"a checkpoint holds tensors, numbers, texts and containers, not {type(value).__name__}"
    )


def _key(key: Any) -> Any:
    if isinstance(key, bool) or not isinstance(key, int | str):
        raise TypeError(f"a key is a text or a whole number, not {key!r}")
    return key


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    [(kind, inner)] = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "dict":
        return {key: _decode(item, tensors) for key, item in inner}
    items = [_decode(item, tensors) for item in inner]
    return {"tuple": tuple, "list": list}[kind](items)
