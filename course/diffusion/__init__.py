"""What lesson 1.2 teaches about diffusion, as small functions that later lessons import.

Throughout, `x_t` are noisy latents and `alpha_bar` is the scheduler's `alphas_cumprod` at their
timestep, a tensor that broadcasts against them. A test compares each function with the lesson.
"""

from course.diffusion.attention import (
    AttentionRecorder,
    attention,
    record_attention,
    token_maps,
    word_token_indices,
)
from course.diffusion.ddim import ddim_inversion_step, ddim_step
from course.diffusion.guidance import guide, perp_neg
from course.diffusion.noise import check_finite, draw_noise, make_generator
from course.diffusion.predictions import (
    add_noise,
    predict_noise,
    predict_x0,
    predict_x0_and_noise,
    velocity,
)
from course.diffusion.sampling import (
    SamplingRequest,
    SamplingStep,
    check_request,
    collect_steps,
    make_generators,
)
from course.diffusion.schedule import END, alpha_bar_at, timesteps

__all__ = [
    "END",
    "AttentionRecorder",
    "SamplingRequest",
    "SamplingStep",
    "add_noise",
    "alpha_bar_at",
    "attention",
    "check_finite",
    "check_request",
    "collect_steps",
    "ddim_inversion_step",
    "ddim_step",
    "draw_noise",
    "guide",
    "make_generator",
    "make_generators",
    "perp_neg",
    "predict_noise",
    "predict_x0",
    "predict_x0_and_noise",
    "record_attention",
    "timesteps",
    "token_maps",
    "velocity",
    "word_token_indices",
]
