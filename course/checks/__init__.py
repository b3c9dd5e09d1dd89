"""Self-checks behind the exercises: each says in one line that the work is right, or raises CheckFailed with what is
wrong and where to look. They test what the student made, never how it was written."""

from course.checks.common import CheckFailed, expect, made, passed, same
from course.checks.make_video import frame_order, frame_pairs, hold
from course.checks.task_1_1 import generate, noise, pipeline, series, token
from course.checks.task_1_2 import (
    attention,
    clip,
    ddim,
    decoding,
    guidance,
    loop,
    modules,
    prediction,
    strengths,
    text_embeddings,
)
from course.checks.task_1_3 import (
    active,
    condition,
    control_loop,
    control_loss,
    controlled,
    edges,
    residuals,
    zero_convolution,
)
from course.checks.task_2 import anchor_image, denoised_windows, descent, fusion, overlapping
from course.checks.task_3 import prompt_embedding, sds_gradient, sds_loss

__all__ = [
    "CheckFailed",
    "active",
    "anchor_image",
    "attention",
    "clip",
    "condition",
    "control_loop",
    "control_loss",
    "controlled",
    "ddim",
    "decoding",
    "denoised_windows",
    "descent",
    "edges",
    "expect",
    "frame_order",
    "frame_pairs",
    "fusion",
    "generate",
    "guidance",
    "hold",
    "loop",
    "made",
    "modules",
    "noise",
    "overlapping",
    "passed",
    "pipeline",
    "prediction",
    "prompt_embedding",
    "residuals",
    "same",
    "sds_gradient",
    "sds_loss",
    "series",
    "strengths",
    "text_embeddings",
    "token",
    "zero_convolution",
]
