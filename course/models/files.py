"""Reading the files of a model, with one ModelError for whatever is wrong with them."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from course.errors import CourseError, shorten

ROOT = Path(__file__).resolve().parents[2]
RELOAD = "Download or save the model again."


class ModelError(CourseError):
    """A model cannot be used; the message names it and says what to do."""


def short_path(path: Path) -> str:
    """Return a path for messages: relative to the repository if it lies inside."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def existing_path(name: str) -> Path | None:
    """Return the file or folder called `name`, or None if there is none."""
    try:
        path = Path(name).expanduser().resolve()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):
        return None  # not a valid path: too long, a null character, no such user


def suggest(name: str, names: Sequence[str]) -> str:
    """Return an unknown name for a message, in quotes, with the closest of `names` if one is."""
    close = get_close_matches(name, names, n=1)
    return f'"{shorten(name, 200)}"' + (f" (did you mean {close[0]}?)" if close else "")


def file_label(path: Path, name: str) -> str:
    """Return what messages call a file of the model `name`: "unet/config.json of sd-1.5"."""
    return f"{path.parent.name}/{path.name} of {name}"


def read_json(path: Path, name: str) -> dict[str, Any]:
    """Return the JSON object in a file of the model `name`. Raises ModelError."""
    label = file_label(path, name)
    if not path.is_file():
        raise ModelError(f"{name} is incomplete: {short_path(path)} is missing or not a file.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{label} is damaged: it is not JSON ({error}).") from error
    except OSError as error:
        raise ModelError(f"{label} cannot be read: {error.strerror}.") from error
    if not isinstance(content, dict):
        shown = shorten(json.dumps(content), 60)
        raise ModelError(f"{label} is damaged: it must hold an object {{...}}, got {shown}.")
    return content


def hide_loading_bars() -> None:
    """Turn off the progress bars of loading weights from the disk; those of downloads stay."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


@contextmanager
def loading(label: str) -> Iterator[None]:
    """Turn any exception of a library that loads the files called `label` into a ModelError.

    Hides the progress bars of loading.
    """
    hide_loading_bars()
    try:
        yield
    except CourseError:
        raise
    except Exception as error:  # damaged files make the libraries raise nearly every kind
        reason = shorten(" ".join(str(error).split()) or type(error).__name__, 300)
        raise ModelError(f"{label} cannot be loaded: {reason}") from error


def load_network(network_class: Any, folder: Path, label: str) -> Any:
    """Load a network of transformers in float32, only from safetensors and with all its weights.

    Raises ModelError, which calls the network `label`.
    """
    with loading(label):
        network, report = network_class.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    if missing := sorted(report["missing_keys"]):
        place = short_path(folder)
        raise ModelError(f"{label} is incomplete: {missing[0]} is missing in {place}. {RELOAD}")
    return network
