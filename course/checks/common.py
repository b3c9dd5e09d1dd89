"""What the checks of all lessons share: results, calls of a student's function, comparisons."""

import functools
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, ParamSpec

import numpy as np
import torch
from PIL import Image

from course.checks.rubric import points_of
from course.errors import CourseError
from course.models import Model

# Advice of more than one lesson.
TOKENS = "Those are the tokens: pass them to the text encoder."
ATTENTION_MASK = (
    "Do not pass on the attention mask: the model was trained with the padding in view. Use "
    ".input_ids only."
)
# Code in these folders is not the student's.
LIBRARIES = (
    Path(__file__).resolve().parent.parent,
    *(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")),
)
# What usually causes an error, by a pattern in its type and message. The first match is shown.
HINTS = {
    r"[Ee]llipsis": "`...` is still in the place of a value: write the lines of the TODO.",
    r"'NoneType'": "A value there is None: does the function that computes it end with `return`?",
    r"size of tensor|shapes cannot be multiplied|[Ss]izes of tensors|shape mismatch|must match the "
    r"existing size|is invalid for input|could not be broadcast|[Ss]ize mismatch|"
    r"expected .* channels|\(batched\) input": (
        "Two shapes do not fit: print the .shape of every tensor in that line. Is one left out, or "
        "another one in its place?"
    ),
    r"does not require grad": (
        "No gradient was recorded: compute inside `with torch.enable_grad():`, from a tensor that "
        "has .requires_grad_()."
    ),
    r"same dtype|dtypes? .*match|expected scalar type|Input type .* should be the same": (
        "Two dtypes do not fit: convert one of them with .to(other.dtype)."
    ),
    r"on the same device": "Two tensors are on different devices: use .to(model.device).",
    r"positional argument|keyword argument|multiple values for argument": (
        "A call does not fit the function it calls: compare the names, the number and the order of "
        "its arguments with the line that begins with `def`."
    ),
    r"^(Name|UnboundLocal)Error": "A name has no value there: is it spelled as in the lines above?",
}
SCHEDULE_KEYS = (
    "num_train_timesteps",
    "beta_schedule",
    "beta_start",
    "beta_end",
    "prediction_type",
)


Function = Callable[..., Any]  # of a student: its result may be anything


class CheckFailed(CourseError, AssertionError):
    """An exercise is not right yet; the message says what to look at."""


@dataclass(frozen=True)
class Result:
    """The outcome of a check.

    exercise: its id. ok: whether it is right. message: what is right, or what to look at.
    points: those of the exercise in the rubric if it is right, or else 0.
    """

    exercise: str
    ok: bool
    message: str
    points: float = 0


def print_result(result: Result) -> None:
    """Print that an exercise is right, with "OK" where the output's encoding has no check mark.

    What is wrong with an exercise stands in the error.
    """
    if result.ok:
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        mark = "✓" if "✓".encode(encoding, "ignore") else "OK"
        print(f"{mark} {result.message}")


listeners: list[Callable[[Result], None]] = [print_result]
P = ParamSpec("P")


def check(exercise: str) -> Callable[[Callable[P, str]], Callable[P, None]]:
    """Make a function the check of an exercise, such as "1.2 (d)".

    The function returns what is right about it, or raises CheckFailed. Each outcome goes to
    `listeners` as a `Result`; the error is raised as well. The check has the id as `.exercise`.
    """

    def decorate(function: Callable[P, str]) -> Callable[P, None]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                message = function(*args, **kwargs)
                result = Result(exercise, True, message, points_of(exercise))
            except CheckFailed as error:
                result = Result(exercise, False, str(error))
                raise
            finally:
                for listener in listeners:
                    listener(result)

        vars(run)["exercise"] = exercise
        return run

    return decorate


class Expectations:
    """Conditions on what a student wrote, which raise CheckFailed with advice unless they hold."""

    def __call__(self, condition: object, advice: str) -> None:
        """Require a condition, or else give this advice."""
        if not condition:
            raise CheckFailed(advice)

    def is_a(self, value: object, kind: type | UnionType, what: str, advice: str) -> None:
        """Require a value of a type; the advice begins with the type that it has."""
        actual = f"a {type(value).__name__}"
        if isinstance(value, type):
            actual = f"the class {value.__name__} itself"
        self(isinstance(value, kind), f"{what} is {actual}; {advice}")

    def value(self, value: object, what: str) -> None:
        """Require anything but `...`, which an empty exercise leaves, and None."""
        self(value is not ..., f"{what} is still empty: write the lines of the TODO above.")
        self(value is not None, f"{what} is None: the lines of the TODO have to give it a value.")

    def function(self, value: object) -> None:
        """Require a function."""
        self.value(value, "The function")
        self(
            callable(value) and not isinstance(value, type),
            f"A function is checked here, not a value of type {type(value).__name__}: run the cell "
            "that defines it, and use its name for nothing else.",
        )

    def finite(self, value: object, what: str) -> None:
        """Require finite numbers in `value`, also in lists and tuples."""
        self(
            _finite(value),
            f"{what} is not finite: it has NaN or infinite values. Is there a division by zero, or "
            "the square root of a negative number?",
        )

    def tensor(self, value: Any, shape: Sequence[int], what: str, hint: str = "") -> None:
        """Require a tensor of real numbers of this shape; `hint` ends the advice."""
        rule = f"it has to be a tensor of shape {tuple(shape)}. {hint}".strip()
        self.is_a(value, torch.Tensor, what, rule)
        self(value.shape == tuple(shape), f"{what} has the shape {tuple(value.shape)}; {rule}")
        rule = "it has to be a floating type."
        self(value.is_floating_point(), f"{what} has the type {value.dtype}; {rule}")

    def list_of(self, values: Any, kind: type, what: str) -> None:
        """Require a list whose entries are all of a type."""
        self.value(values, what)
        self.is_a(values, list, what, "it has to be a list.")
        for i, value in enumerate(values):
            self.is_a(value, kind, f"Entry {i} of the list", f"it has to be a {kind.__name__}.")

    def placed(self, value: Any, model: Model, what: str) -> None:
        """Require the dtype and the device of the model for a tensor or a network."""
        self(
            value.dtype == model.dtype,
            f"{what} has the type {value.dtype}, and the model {model.dtype}: load it with "
            "dtype=model.dtype, or end with .to(model.device, model.dtype).",
        )
        device = value.device.type
        self(device == model.device.type, f"{what} is on {device}: add .to(model.device).")

    def model_settings(self, scheduler: Any, model: Model) -> None:
        """Require the noise schedule that the model was trained with."""
        config = model.config("scheduler/scheduler_config.json")
        for key in SCHEDULE_KEYS:
            self(
                key not in config or scheduler.config[key] == config[key],
                f"The scheduler has {key} = {scheduler.config[key]}, but {model.name} was trained "
                f"with {config.get(key)}. Load the model's own settings: "
                'DDIMScheduler.from_pretrained(model.folder, subfolder="scheduler").',
            )


expect = Expectations()


def diagnose(
    result: Any, right: Any, mistakes: dict[str, Any], otherwise: str, tolerance: float = 1e-4
) -> None:
    """Raise CheckFailed unless `result` is close to `right`.

    The advice is that of the first of `mistakes` ({advice: wrong result}) to which it is close, or
    else `otherwise`.
    """
    if close(result, right, tolerance):
        return
    for advice, wrong in mistakes.items():
        expect(not close(result, wrong, tolerance), advice)
    raise CheckFailed(otherwise)


def call(
    function: Callable[..., Any],
    *arguments: Any,
    allow: type[Exception] | tuple[type[Exception], ...] = (),
    **options: Any,
) -> Any:
    """Call the student's `function` and return its result; a generator's values come as a list.

    An error of a type in `allow` is returned. Raises CheckFailed, with advice, if the function
    raises another error, or if its result is None, `...`, or not finite.
    """
    expect.function(function)
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
        f"{name[0].upper()}{name[1:]} returns None: is a `return` missing? If the function is "
        "still empty, write the lines of the TODO above.",
    )
    expect.value(result, f"What {name} returns")
    expect.finite(result, f"What {name} returns")
    return result


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function in backquotes, or "your function"."""
    name = getattr(function, "__name__", "")
    return f"`{name}`" if name.isidentifier() else "your function"


def explain(error: Exception) -> str:
    """Return what the student's code raised, in which of its lines, and the usual cause."""
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
    return not any(Path(file).resolve().is_relative_to(folder) for folder in LIBRARIES)


def _finite(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    if isinstance(value, torch.Tensor):
        return value.is_meta or bool(value.isfinite().all())
    if isinstance(value, float | np.floating | np.ndarray) and np.asarray(value).dtype.kind == "f":
        return bool(np.isfinite(value).all())
    return True


def close(a: Any, b: Any, tolerance: float = 1e-4) -> bool:
    """Return whether tensors agree in shape and, relative to their size, in value.

    Lists of tensors agree if each pair does.
    """
    if isinstance(b, list | tuple):
        if not isinstance(a, list | tuple) or len(a) != len(b):
            return False
        return all(close(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if not isinstance(a, torch.Tensor) or a.shape != b.shape:
        return False
    a, b = a.float(), b.float().to(a.device)
    return bool((a - b).norm() <= tolerance * b.norm().clamp_min(1e-6))


def same(a: Image.Image, b: Image.Image) -> bool:
    """Return whether two images agree in every pixel, up to rounding on a GPU."""
    if a.size != b.size:
        return False
    return bool(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean() < 0.05)


def tolerance_of(model: Model) -> float:
    """Return the relative difference up to which results in the model's precision are equal."""
    return 1e-3 if model.dtype == torch.float32 else 3e-2
