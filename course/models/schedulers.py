"""Schedulers of diffusers that sample with the noise schedule of a model."""

import inspect
from typing import Any

import torch

from course.errors import RequestError
from course.models.model import Model


def load_scheduler(model: Model, kind: Any, count: Any) -> Any:
    """Return diffusers' scheduler `kind` with the model's noise schedule, set to `count` steps.

    Raises RequestError if that scheduler cannot take over the schedule or the number of steps.
    """
    count = model.check_steps(count)
    config = model.config("scheduler/scheduler_config.json")
    try:  # as in Stable Diffusion; only PNDM knows skip_prk_steps
        scheduler = kind.from_config(config, clip_sample=False, skip_prk_steps=True)
        scheduler.set_timesteps(count)
    except (ImportError, ValueError) as error:  # it needs a package, or other settings
        raise RequestError(f"{kind.__name__} cannot sample in {count} steps: {error}") from error
    if not hasattr(scheduler, "alphas_cumprod"):
        problem = f"{kind.__name__} cannot take over the noise levels of {model.name}"
        advice = "choose a scheduler for Stable Diffusion, such as UniPCMultistepScheduler."
        raise RequestError(f"{problem}: {advice}")
    return scheduler


def step_options(scheduler: Any, generator: torch.Generator) -> dict[str, torch.Generator]:
    """Return the generator as an option of `scheduler.step`, if it takes one for fresh noise."""
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    return {"generator": generator} if takes_generator else {}
