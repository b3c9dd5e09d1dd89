"""The noise schedule: which timesteps sampling visits, and how much noise there is at each."""

from typing import Any

import numpy as np
import torch

END = -1  # the "timestep" after the last one, where the scheduler's final alpha holds


def timesteps(config: Any, count: int) -> list[int]:
    """Return the `count` timesteps of a scheduler's configuration, from noise to image.

    `config.timestep_spacing` is "trailing", "leading" or "linspace" (Lin et al. 2024,
    arXiv:2305.08891, Table 2).
    """
    total = config.num_train_timesteps
    if config.timestep_spacing == "trailing":
        # Rounding may add an entry, just above 0: it is cut off.
        falling = np.arange(total, 0, -total / count)[:count]
        return [int(t) - 1 for t in falling.round()]
    if config.timestep_spacing == "leading":
        return [(count - 1 - i) * (total // count) + config.steps_offset for i in range(count)]
    return [int(t) for t in np.linspace(0, total - 1, count).round()[::-1]]


def alpha_bar_at(scheduler: Any, t: int) -> torch.Tensor:
    """Return the share of the image in the variance of x_t, a scalar from 0 to 1.

    `t` is a timestep, or END for the scheduler's final alpha.
    """
    alpha_bar: torch.Tensor = scheduler.final_alpha_cumprod
    return alpha_bar if t == END else scheduler.alphas_cumprod[t]
