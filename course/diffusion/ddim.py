"""A step of DDIM (Song et al. 2021, arXiv:2010.02502), and the step back from image to noise."""

import torch

from course.diffusion.predictions import add_noise, predict_x0


def ddim_step(
    x_0: torch.Tensor,
    noise: torch.Tensor,
    alpha_bar: torch.Tensor,
    alpha_bar_prev: torch.Tensor,
    eta: float = 0.0,
    fresh_noise: torch.Tensor | float = 0.0,
) -> torch.Tensor:
    """Return the latents at the next timestep, where the schedule has `alpha_bar_prev`.

    Equations 12 and 16. `x_0` and `noise` are predictions at `alpha_bar`, of one shape; `eta` from
    0 to 1 is the share of the noise that `fresh_noise` replaces. diffusers' `DDIMScheduler.step`
    goes to t - T // N, which is often not where the next step begins.
    """
    if eta == 0:
        return add_noise(x_0, noise, alpha_bar_prev)
    sigma = eta * ((1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_prev)).sqrt()
    direction = (1 - alpha_bar_prev - sigma**2).sqrt() * noise
    return alpha_bar_prev.sqrt() * x_0 + direction + sigma * fresh_noise


def ddim_inversion_step(
    x_t: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor, alpha_bar_next: torch.Tensor
) -> torch.Tensor:
    """Return the latents one step closer to noise, at `alpha_bar_next` < `alpha_bar`.

    The inverse of `ddim_step` without fresh noise, exact for the same `noise` (Song et al. 2021,
    section 4.3; Dhariwal and Nichol 2021, arXiv:2105.05233, appendix F). Inversion uses the noise
    that the network predicts in `x_t`, a good approximation if steps are short.
    """
    return add_noise(predict_x0(x_t, noise, alpha_bar), noise, alpha_bar_next)
