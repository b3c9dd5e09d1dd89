"""Conversions between clean latents x_0, noise and v: what a network's output stands for."""

import torch

from course.errors import RequestError


def add_noise(x_0: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """Return the noisy latents x_t (Ho et al. 2020, arXiv:2006.11239, equation 4)."""
    return alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise


def velocity(x_0: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """Return v, a mixture of noise and image (Salimans and Ho 2022, arXiv:2202.00512)."""
    return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x_0


def predict_x0(x_t: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """Return the clean latents of `x_t` with this noise in them.

    Song et al. 2021 (DDIM, arXiv:2010.02502), equation 9.
    """
    return (x_t - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()


def predict_noise(
    x_t: torch.Tensor, output: torch.Tensor, alpha_bar: torch.Tensor, prediction_type: str
) -> torch.Tensor:
    """Return the noise in `x_t` according to a network's output of the same shape.

    `prediction_type` is "epsilon" or "v_prediction" (Salimans and Ho 2022, arXiv:2202.00512,
    appendix D); others raise RequestError.
    """
    if prediction_type == "epsilon":
        return output
    if prediction_type == "v_prediction":
        return alpha_bar.sqrt() * output + (1 - alpha_bar).sqrt() * x_t
    allowed = "epsilon or v_prediction"
    raise RequestError(f"prediction_type must be {allowed}, got {prediction_type!r}.")


def predict_x0_and_noise(
    x_t: torch.Tensor, output: torch.Tensor, alpha_bar: torch.Tensor, prediction_type: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the clean latents and the noise in `x_t` according to a network's output.

    Arguments and errors are those of `predict_noise`. With "v_prediction" both are finite even
    where `alpha_bar` is 0, as at the first timestep of a schedule with zero terminal SNR.
    """
    noise = predict_noise(x_t, output, alpha_bar, prediction_type)
    if prediction_type == "epsilon":
        return predict_x0(x_t, noise, alpha_bar), noise
    return alpha_bar.sqrt() * x_t - (1 - alpha_bar).sqrt() * output, noise
