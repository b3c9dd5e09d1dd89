"""Parts that the sampling loops of the lessons share: generators, timesteps, a step of DDIM.

Lesson 1.2 writes the timesteps and the step by hand; the lessons after it import them from here.
"""

from typing import Any

import numpy as np
import torch

from course.arguments import check_integer
from course.errors import CourseError
from course.models import RequestError

END = -1  # the "timestep" after the last one, where the scheduler's final alpha holds


class SamplingError(CourseError):
    """Sampling cannot go on; the message names the step."""


def make_generator(seed: Any) -> torch.Generator:
    """Return a random generator on the CPU for an integer seed. Raises RequestError."""
    seed = check_integer("seed", seed, minimum=0, maximum=2**63 - 1, error=RequestError)
    return torch.Generator("cpu").manual_seed(seed)


def timesteps(settings: Any, count: int) -> list[int]:
    """Return the `count` timesteps of a scheduler's configuration, from noise to image.

    Spacings as in Table 2 of Lin et al. 2024 (arXiv:2305.08891).
    """
    levels = settings.num_train_timesteps
    if settings.timestep_spacing == "trailing":
        # Rounding may add an entry, just above 0: it is cut off.
        falling = np.arange(levels, 0, -levels / count)[:count]
        return (falling.round().astype(int) - 1).tolist()
    if settings.timestep_spacing == "leading":
        return [(count - 1 - i) * (levels // count) + settings.steps_offset for i in range(count)]
    return np.linspace(0, levels - 1, count).round()[::-1].astype(int).tolist()


def ddim_step(
    scheduler: Any,
    output: torch.Tensor,  # (B, C, h, w), what the network predicts
    t: int,
    t_prev: int,
    x_t: torch.Tensor,  # (B, C, h, w)
) -> torch.Tensor:
    """Return the latents (B, C, h, w) at `t_prev`, the next timestep of the list or END.

    No fresh noise: Song et al. 2021 (arXiv:2010.02502), equation 12 with sigma = 0. diffusers'
    `DDIMScheduler.step` goes to t - T // N instead, often not where the next step begins. Raises
    SamplingError for a prediction type other than "epsilon" and "v_prediction".
    """
    table = scheduler.alphas_cumprod
    alpha_bar = table[t]
    alpha_bar_prev = scheduler.final_alpha_cumprod if t_prev == END else table[t_prev]
    prediction_type = scheduler.config.prediction_type
    if prediction_type == "epsilon":
        noise = output
        x_0 = (x_t - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()
    elif prediction_type == "v_prediction":
        noise = (1 - alpha_bar).sqrt() * x_t + alpha_bar.sqrt() * output
        x_0 = alpha_bar.sqrt() * x_t - (1 - alpha_bar).sqrt() * output
    else:
        allowed = "epsilon or v_prediction"
        raise SamplingError(f"prediction_type must be {allowed}, got {prediction_type!r}.")
    return alpha_bar_prev.sqrt() * x_0 + (1 - alpha_bar_prev).sqrt() * noise


def check_finite(values: torch.Tensor, name: str) -> None:
    """Raise SamplingError if `values` are not all finite; `name` says what they are."""
    finite = values.isfinite()
    if not finite.all():
        raise SamplingError(
            f"{name} must be finite, but {(~finite).sum():,} of {values.numel():,} values are NaN "
            "or infinite. The model's weights may be damaged: download or save it again. Or a "
            "number grew too large: lower settings such as guidance_scale, or use float32 in place "
            "of half precision."
        )
