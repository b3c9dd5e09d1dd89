"""Checks of task 3: score distillation, rendering, and the clips that are handed in."""

from course.checks.task_3_clips import best_object, turntables
from course.checks.task_3_rendering import (
    composite,
    perp_neg,
    pixel_rays,
    render,
    render_weights,
    view_weights,
)
from course.checks.task_3_sds import (
    descent,
    noise_prediction,
    prompt_embedding,
    sds_step,
    timesteps,
)
from course.checks.task_3_toy import mistakes, mixture_noise

__all__ = [
    "best_object",
    "composite",
    "descent",
    "mistakes",
    "mixture_noise",
    "noise_prediction",
    "perp_neg",
    "pixel_rays",
    "prompt_embedding",
    "render",
    "render_weights",
    "sds_step",
    "timesteps",
    "turntables",
    "view_weights",
]
