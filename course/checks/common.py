"""What the checks of all lessons share: how a student's function is called, and how results are compared."""

import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from course.errors import CourseError
from course.models import Model

# Code in these folders is not the student's.
OTHERS = (
    Path(__file__).resolve().parent.parent,
    *(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")),
)
# What usually causes an error, by a pattern in its type and message. The first match is shown.
HINTS = {
    r"[Ee]llipsis": "`...` is still in the place of a value: write the lines of the TODO.",
    r"'NoneType'": "A value there is None: does the function that computes it end with `return`?",
    r"size of tensor|shapes cannot be multiplied|[Ss]izes of tensors|shape mismatch|must match the "
    r"existing size|is invalid for input|could not be broadcast|[Ss]ize mismatch|expected .* channels|"
    r"\(batched\) input": (
        "Two shapes do not fit: print the .shape of every tensor in that line. Is one left out, or "
        "another one in its place?"
    ),
    r"does not require grad": (
        "No gradient was recorded: compute inside `with torch.enable_grad():`, from a tensor that "
        "has .requires_grad_()."
    ),
    r"same dtype|dtypes? .*match|expected scalar type|Input type .* should be the same": (
        "Two number types do not fit: convert one of them with .to(other.dtype)."
    ),
    r"on the same device": "Two tensors are on different devices: use .to(model.device).",
    r"positional argument|keyword argument|multiple values for argument": (
        "A call does not fit the function it calls: compare the names, the number and the order of "
        "its arguments with the line that begins with `def`."
    ),
    r"^(Name|UnboundLocal)Error": "A name has no value there: is it spelled as in the lines above?",
}


class CheckFailed(CourseError, AssertionError):
    """An exercise is not right yet; the message says what to look at."""


def expect(condition: object, advice: str) -> None:
    """Raise CheckFailed with `advice` unless `condition` holds."""
    if not condition:
        raise CheckFailed(advice)


def passed(what: str) -> None:
    """Print that an exercise is right; "OK" where the output's encoding has no check mark."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    mark = "✓" if "✓".encode(encoding, "ignore") else "OK"
    print(f"{mark} {what}")


def made(value: object, what: str) -> None:
    """Raise CheckFailed for `...`, which an exercise that was not begun leaves, and for None."""
    expect(value is not ..., f"{what} is still empty: write the lines of the TODO above.")
    expect(value is not None, f"{what} is None: the lines of the TODO have to give it a value.")


def call(
    function: Callable[..., Any],
    *arguments: Any,
    allow: type[Exception] | tuple[type[Exception], ...] = (),
    **options: Any,
) -> Any:
    """Call the student's `function` and return its result; a generator's values come as a list.

    An error of a type in `allow` is returned. Raises CheckFailed, with advice, if the function raises
    another error, or if its result is None, `...`, or not finite.
    """
    expect_function(function)
    name = name_of(function)
    try:
        result = function(*arguments, **options)
        if inspect.isgenerator(result):
            result = list(result)
    except allow as error:
        return error
    except CourseError:
        raise
    except Exception as error:
        raise CheckFailed(explain(error)) from error
    expect(
        result is not None,
        f"{name[0].upper()}{name[1:]} returns None: is a `return` missing? If the function is still "
        "empty, write the lines of the TODO above.",
    )
    made(result, f"What {name} returns")
    expect_finite(result, f"What {name} returns")
    return result


def expect_function(value: object) -> None:
    expect(
        callable(value) and not isinstance(value, type),
        f"A function is checked here, not a value of type {type(value).__name__}: run the cell that "
        "defines it, and use its name for nothing else.",
    )


def name_of(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "")
    return f"`{name}`" if name.isidentifier() else "your function"


def explain(error: Exception) -> str:
    """Return what the student's code raised, in which of its lines, and what usually causes that."""
    message = next(iter(str(error).strip().splitlines()), "")
    lines = [f"Your code raised {type(error).__name__}: {message}".rstrip(": ")]
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in frames if _is_students(frame.filename)), None)
    if frame:
        lines.append(f"in line {frame.lineno} of `{frame.name}`: {frame.line}".rstrip(": "))
    text = f"{type(error).__name__}: {error}"
    lines += [hint for pattern, hint in HINTS.items() if re.search(pattern, text)][:1]
    return "\n".join(lines)


def _is_students(file: str) -> bool:
    if file.startswith("<"):  # code without a file; a cell in older kernels is <ipython-input-...>
        return file.startswith("<ipython-input")
    return not any(Path(file).resolve().is_relative_to(folder) for folder in OTHERS)


def expect_finite(value: object, what: str) -> None:
    """Raise CheckFailed if a number in `value` (also in lists and tuples) is NaN or infinite."""
    expect(
        _finite(value),
        f"{what} is not finite: it has NaN or infinite values. Is there a division by zero, or the "
        "square root of a negative number?",
    )


def expect_tensor(value: object, shape: Sequence[int], what: str) -> None:
    """Raise CheckFailed unless `value` is a tensor of real numbers of that shape."""
    wanted = f"it has to be a tensor of shape {tuple(shape)}."
    expect(isinstance(value, torch.Tensor), f"{what} is a {type(value).__name__}; {wanted}")
    assert isinstance(value, torch.Tensor)
    expect(
        value.shape == torch.Size(shape),
        f"The shape is {tuple(value.shape)}: {what} is wrong; {wanted}",
    )
    expect(
        value.is_floating_point(),
        f"{what} has the type {value.dtype}; it has to be a floating type.",
    )


def _finite(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    if isinstance(value, torch.Tensor):
        return value.is_meta or bool(value.isfinite().all())
    if isinstance(value, float | np.floating | np.ndarray) and np.asarray(value).dtype.kind == "f":
        return bool(np.isfinite(value).all())
    return True


def as_trained(scheduler: Any, model: Model) -> None:
    own = model.config("scheduler/scheduler_config.json")
    for key in (
        "num_train_timesteps",
        "beta_schedule",
        "beta_start",
        "beta_end",
        "prediction_type",
    ):
        expect(
            key not in own or scheduler.config[key] == own[key],
            f"The scheduler has {key} = {scheduler.config[key]}, but {model.name} was trained with {own.get(key)}. "
            'Take the model\'s own settings: DDIMScheduler.from_pretrained(model.folder, subfolder="scheduler").',
        )


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-4) -> bool:
    """Whether two tensors agree in shape and, relative to their size, in value."""
    if not isinstance(a, torch.Tensor) or a.shape != b.shape:
        return False
    a, b = a.float(), b.float().to(a.device)
    return bool((a - b).norm() <= tolerance * b.norm().clamp_min(1e-6))


def same(a: Image.Image, b: Image.Image) -> bool:
    """Whether two images agree in every pixel, up to rounding of the last bits on a GPU."""
    if a.size != b.size:
        return False
    return bool(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean() < 0.05)


def all_close(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(
        close(one, other, 1e-2) for one, other in zip(a, b, strict=True)
    )


def tolerance_of(model: Model) -> float:
    return 1e-3 if model.dtype == torch.float32 else 3e-2
