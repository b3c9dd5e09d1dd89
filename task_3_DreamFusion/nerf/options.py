"""Fields that become options: a default, limits and a meaning in one place, and checks of values.

settings.py declares dataclasses of such fields.
"""

from collections.abc import Mapping
from dataclasses import Field, field, fields
from typing import Any, TypeVar

from course.arguments import check_integer, check_number
from course.errors import CourseError

T = TypeVar("T")


class TrainingError(CourseError):
    """A run cannot go on; the message says why and what to change."""


class FailedRun(TrainingError):
    """A run that does not become an object; another seed may help."""


class SettingError(TrainingError):
    """A setting is not allowed. The message starts with its name."""


def option(
    default: Any,
    help: str,
    limits: tuple[float, float] | None = None,
    *,
    group: str = "",
    choices: tuple[str | int, ...] = (),
    metavar: str | tuple[str, ...] | None = None,
    flags: tuple[str, ...] = (),
    cpu: Any = None,
    photos: Any = None,
    multiview: Any = None,
) -> Any:
    """Return a field of a dataclass of settings.

    Args:
        default: the value with the model of the course on a GPU; MISSING for a required field.
        help: what the setting means, for `--help` and README.md.
        limits: the smallest and the largest value of a number.
        group: title of the group of options that begins with this one.
        flags: further names of the option.
        cpu: the default on a CPU, which overrides `photos`.
        photos: the default for models of photographs.
        multiview: the default with `--prior multiview`, which overrides both.
    """
    metadata = {
        "group": group,
        "help": help,
        "limits": limits,
        "choices": choices,
        "metavar": metavar,
        "flags": flags,
        "cpu": cpu,
        "photos": photos,
        "multiview": multiview,
    }
    return field(default=default, metadata=metadata)


def build(kind: type[T], *sources: Mapping[str, Any]) -> T:
    """Return a dataclass of settings from the values of `sources`, of which later ones override.

    Names that are no field of `kind` are ignored. Raises SettingError for a value that is not
    allowed, and TypeError for a missing one.
    """
    names = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    values = {name: value for source in sources for name, value in source.items() if name in names}
    return kind(**values)


def check_unicode(name: str, text: object, error: type[CourseError]) -> None:
    """Raise `error`, whose message starts with `name`, unless this is text that UTF-8 can encode.

    A byte of a command line that is not UTF-8 becomes a lone surrogate, which no tokenizer takes.
    """
    if not isinstance(text, str):
        raise error(f"{name} must be text, got {text!r:.60}.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as lone:
        raise error(
            f"{name} must be UTF-8, and character {lone.start + 1} of {text!r:.60} is not: type it "
            "again."
        ) from None


def check_fields(settings: Any, reasons: Mapping[str, str]) -> None:
    """Check all fields of a dataclass of settings, and replace their scalars by Python's.

    reasons: why a larger whole number makes no sense. Raises SettingError.
    """
    for item in fields(settings):
        value = _checked(item, getattr(settings, item.name), reasons.get(item.name, ""))
        object.__setattr__(settings, item.name, value)


def _checked(item: Field[Any], value: Any, reason: str) -> Any:
    """Return the value of a field as its type has it. Raises SettingError."""
    name, choices = item.name, item.metadata["choices"]
    if choices:
        if value not in choices:
            allowed = ", ".join(map(str, choices))
            raise SettingError(f"{name} must be one of {allowed}, got {value!r:.60}.")
        return choices[choices.index(value)]
    if item.type is int:
        return _check_integer(name, value, item.metadata["limits"], reason)
    if item.type is float:
        return _check_float(name, value, item.metadata["limits"])
    if item.type is str:
        check_unicode(name, value, SettingError)
    elif item.type is bool and not isinstance(value, bool):
        raise SettingError(f"{name} must be True or False, got {value!r:.60}.")
    elif item.metadata["limits"]:  # a pair of numbers
        try:
            low, high = value
        except (TypeError, ValueError):
            message = f"{name} must be two numbers from 0 to 1, got {value!r:.60}."
            raise SettingError(message) from None
        return tuple(_check_float(name, end, item.metadata["limits"]) for end in (low, high))
    return value


def _check_float(name: str, value: Any, limits: tuple[float, float]) -> float:
    return check_number(name, value, minimum=limits[0], maximum=limits[1], error=SettingError)


def _check_integer(name: str, value: Any, limits: tuple[int, int], reason: str) -> int:
    smallest, largest = limits
    number = check_integer(name, value, error=SettingError)
    if not smallest <= number <= largest:
        explanation = f" {reason}" if number > largest else ""
        raise SettingError(
            f"{name} must be from {smallest:,} to {largest:,}, got {number:,}.{explanation}"
        )
    return number
