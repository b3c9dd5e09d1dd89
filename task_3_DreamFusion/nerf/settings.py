"""Settings of a run and of its guidance: their defaults, what is allowed, and the errors for other values.

Nothing here needs PyTorch, so that the command line answers at once.
"""

from dataclasses import dataclass, fields
from typing import Any

from course.arguments import check_integer, check_number
from course.errors import CourseError

SPACES = ("pixels", "latents")
BACKGROUNDS = ("plain", "network", "random")
BACKBONES = ("grid", "vanilla")
OPTIMIZERS = ("adan", "adam")
WEIGHTINGS = ("sigma2", "uniform", "middle")
CELLS = (8, 16, 32, 64, 128, 256)  # along a side of the occupancy grid
SETTINGS = "settings.json"
# The lowest and the highest value of each option that is a number.
OPTION_RANGES = {
    "guidance_scale": (-1000, 1000),  # ten times what DreamFusion takes
    "t_end": (0, 1),
    "band": (0, 1),
    "lead": (0, 1),
    "blend": (0, 45),
    "perp_neg": (0, 1000),
}


class TrainingError(CourseError):
    """A run cannot go on; the message says why and what to change."""


class SettingError(TrainingError):
    """A setting is out of range. The message starts with its name in Settings."""


def check_unicode(name: str, text: object, error: type[CourseError]) -> None:
    """Raise `error`, whose message starts with `name`, unless this is text that can be written in UTF-8.

    A byte that is not UTF-8 on a command line reaches Python as a lone surrogate, which no tokenizer takes.
    """
    if not isinstance(text, str):
        raise error(f"{name} must be text, got {text!r:.60}.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as lone:
        raise error(
            f"{name} must be UTF-8, and character {lone.start + 1} of {text!r:.60} is not: type it again."
        ) from None


# Whole numbers: the smallest, the largest, and why nothing larger makes sense.
WHOLE_NUMBERS: dict[str, tuple[int, int, str]] = {
    "iters": (1, 10_000_000, "At a tenth of a second each, so many steps take eleven days."),
    "batch": (1, 1024, "The denoiser sees all views of a step at once."),
    "size": (
        1,
        2048,
        "The model sees images at its own size, which is 64 pixels for pocket and 512 for sd-1.5.",
    ),
    "reuse": (1, 10_000, "The targets stay as they are within a step."),
    "rays": (1, 1_000_000, "So many are all pixels of almost four images of 512 x 512."),
    "keep": (1, 100_000, "A run of the default length makes 1,600 targets."),
    "levels": (
        1,
        16,
        "Each has 1.46 times the cells of the one before: the last would be finer than any image.",
    ),
    "steps": (1, 10_000, "So many are more than 20 in each cell of the finest grid."),
    "seed": (0, 2**63 - 1, "The generator takes no larger one."),
}
# Numbers: the smallest and the largest.
NUMBERS: dict[str, tuple[float, float]] = {
    "lr": (1e-8, 10),
    "bound": (0.01, 100),
    **dict.fromkeys(("albedo", "shaded", "textureless", "fade_in", "widen", "ema"), (0, 1)),
    **dict.fromkeys(
        ("entropy", "sparsity", "orientation", "variation", "smoothness"), (0, 1_000_000)
    ),
}
CHOICES: dict[str, tuple[str | int, ...]] = {
    "space": SPACES,
    "background": BACKGROUNDS,
    "backbone": BACKBONES,
    "optimizer": OPTIMIZERS,
    "cells": CELLS,
}


def check_whole_number(
    name: str, value: Any, limits: tuple[int, int, str], error: type[CourseError]
) -> int:
    """Return `value` as an int if it is one within limits: the smallest, the largest, and why nothing larger makes
    sense. Raises `error`, whose message starts with `name`."""
    least, most, reason = limits
    number = check_integer(name, value, error=error)
    if not least <= number <= most:
        explanation = f" {reason}" if number > most else ""
        raise error(f"{name} must be from {least:,} to {most:,}, got {number:,}.{explanation}")
    return number


@dataclass(frozen=True)
class Settings:
    """What is made, and how. The defaults are those of the course's model on a GPU; main.py has others for a CPU, and
    for models of photographs.

    Raises SettingError for a value out of range; NumPy's numbers count as numbers.

    text, negative: what it shall be, and shall not. scene: words after the text that say where it is. seed: of
    everything that is drawn.
    iters: steps. batch: views a step. size: pixels of an image's side. space: one of SPACES. In that of pixels, reuse:
    how often the field learns in a step; rays: from how many rays each time; keep: of the last so many targets.
    lr: of the perceptrons; the grid's is ten times that. optimizer: one of OPTIMIZERS. ema: how much of the averaged
    field stays each time that it learns.
    backbone: one of BACKBONES. levels: of the encoding, from coarse to fine. bound: half the side of the box. steps:
    samples along its diagonal. cells: along a side of the occupancy grid. background: one of BACKGROUNDS.
    albedo: the share of the run without light; shaded: of the later steps, how many are lit; textureless: of these,
    how many have no colour. fade_in: the share of the run after which all levels count. widen: the share of the run
    after which views come from everywhere.
    entropy, sparsity, orientation, variation, smoothness: weights of the regularisers, see `regularise`.
    """

    text: str
    negative: str = ""
    scene: str = "on a plain background"
    seed: int = 0
    iters: int = 400
    batch: int = 4
    size: int = 96
    space: str = "pixels"
    reuse: int = 8
    rays: int = 4096
    keep: int = 64
    lr: float = 3e-3
    optimizer: str = "adam"
    ema: float = 0.95
    backbone: str = "grid"
    levels: int = 9
    bound: float = 1.0
    steps: int = 192
    cells: int = 64
    background: str = "plain"
    albedo: float = 1.0
    shaded: float = 0.6
    textureless: float = 0.2
    fade_in: float = 0.3
    widen: float = 0.4
    entropy: float = 50.0
    sparsity: float = 20.0
    orientation: float = 10.0
    variation: float = 0.0
    smoothness: float = 0.0

    def __post_init__(self) -> None:
        for name in ("text", "negative", "scene"):
            check_unicode(name, getattr(self, name), SettingError)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                listed = ", ".join(map(str, choices))
                raise SettingError(
                    f"{name} must be one of {listed}, got {getattr(self, name)!r:.60}."
                )
            object.__setattr__(
                self, name, choices[choices.index(getattr(self, name))]
            )  # not NumPy's
        for name, limits in WHOLE_NUMBERS.items():
            integer = check_whole_number(name, getattr(self, name), limits, SettingError)
            object.__setattr__(self, name, integer)
        for name, (lowest, highest) in NUMBERS.items():
            number = check_number(name, getattr(self, name), lowest, highest, SettingError)
            object.__setattr__(self, name, number)

    @property
    def prompt(self) -> str:
        """What the guidance is told, but for the words of the views."""
        return f"{self.text.strip()} {self.scene}".strip()


@dataclass(frozen=True)
class GuidanceOptions:
    """How the guidance works.

    guidance_scale: of classifier-free guidance. DreamFusion takes 100 for a model of photographs; a small model of
        few things is led by far less.
    weighting: w(t) of the gradient, a name in WEIGHTINGS.
    t_range: the share of the noise levels drawn from, as (lowest, highest) of 1. t_end: where the highest has gone by
        the end of the run, linearly: coarse form first, detail last. band: how far below the highest a level may lie;
        with a narrow band the run goes down the levels as sampling does, with 1 all below the highest are drawn.
    lead: by which share of the run the view from the very front is ahead on that way of those of sides and back; it
        falls linearly to 0 at 90 degrees. So the face shows where the front is while the sides can still turn either
        way: they, silhouettes at first, would decide it by chance.
    blend: half the width, in degrees, of the band about a border of two view words in which their prompts are mixed.
    perp_neg: how strongly the views that are not shown are pushed away at the beginning (Perp-Neg); it falls to 0 at
        FACED of the run. 0 leaves it out.
    """

    guidance_scale: float = 7.5
    weighting: str = "sigma2"
    t_range: tuple[float, float] = (0.02, 0.98)
    t_end: float = 0.45
    band: float = 0.15
    lead: float = 0.25
    blend: float = 15.0
    perp_neg: float = 0.5

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS:
            raise SettingError(
                f"weighting must be one of {', '.join(WEIGHTINGS)}, got {self.weighting!r}."
            )
        try:
            low, high = self.t_range
        except (TypeError, ValueError):
            raise SettingError(
                f"t_range must be two numbers from 0 to 1, got {self.t_range!r}."
            ) from None
        low, high = (check_number("t_range", value, 0, 1, SettingError) for value in (low, high))
        object.__setattr__(self, "t_range", (low, high))
        for name, (least, most) in OPTION_RANGES.items():
            value = check_number(name, getattr(self, name), least, most, SettingError)
            object.__setattr__(self, name, value)
        if low > min(high, self.t_end):
            raise SettingError(
                f"t_range must begin with its lower end, which t_end must not fall below, got t_range {low:g} "
                f"{high:g} and t_end {self.t_end:g}."
            )


def known_fields(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of `values` that are fields of a dataclass. Raises TypeError for what is no dictionary."""
    if not isinstance(values, dict):
        raise TypeError(f"a {type(values).__name__} where settings should be")
    return {field.name: values[field.name] for field in fields(kind) if field.name in values}
