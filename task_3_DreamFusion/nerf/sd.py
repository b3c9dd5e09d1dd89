"""The exercise of task 3: a step of score distillation sampling (SDS), in four functions.

DreamFusion (Poole et al. 2022, arXiv:2209.14988) renders an image, adds noise, lets the denoiser
predict the noise, and takes the difference as the gradient of the image. The lesson,
../task_3_DreamFusion.ipynb, derives the formulas and checks each function. guidance.py calls them
in every run: with `--space latents` the field gets the gradient of your loss through the encoder,
with `--space pixels` (the default) a step against that gradient gives the target image.

TODO 3: fill in a function to compute the SDS loss, and generate 3D objects from text. Write the
lines between BEGIN SOLUTION and END SOLUTION yourself.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from course import diffusion


class SDSStep(NamedTuple):
    """What a step computes: loss, a scalar; the others have the shape of the latents."""

    loss: Tensor
    gradient: Tensor
    noise: Tensor
    noisy_latents: Tensor
    noise_pred: Tensor


# TODO 3 (a): ★☆☆ warm-up, 5 min
@torch.no_grad()
def embed_text(text: str, tokenizer: Any, text_encoder: Any, length: int) -> Tensor:
    """Return the embedding (L, D) of a prompt: one vector for each of L = `length` tokens.

    As in lesson 1.2: padding="max_length", max_length, truncation=True and return_tensors="pt".
    text_encoder(ids)[0] has the shape (1, L, D), with ids on text_encoder.device.
    """
    embedding: Any = ...
    ### BEGIN SOLUTION
    tokens = tokenizer(
        text, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    embedding = text_encoder(tokens.input_ids.to(text_encoder.device))[0][0]
    ### END SOLUTION
    return embedding


# TODO 3 (b): ★★☆ core, 10 min
def sample_timesteps(
    lowest: Tensor, highest: Tensor, num_timesteps: int, generator: torch.Generator
) -> Tensor:
    """Return a random timestep for each of B images, (B,) int64 from 0 to num_timesteps - 1.

    lowest, highest: (B,), the range of each image, as shares of the last timestep. Stratified: draw
    a number in each of B equal parts of [0, 1), shuffle the numbers, and let image i's decide how
    far its timestep is from lowest to highest. generator: on the CPU, for all random numbers.
    """
    timesteps: Any = ...
    ### BEGIN SOLUTION
    count = len(lowest)
    shares = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    shares = shares[torch.randperm(count, generator=generator)]
    share = lowest + (highest - lowest) * shares
    timesteps = ((num_timesteps - 1) * share).round().long()
    ### END SOLUTION
    return timesteps


# TODO 3 (c): ★★☆ core, 20 min
@torch.no_grad()
def predict_noise(
    unet: Callable[..., Any],
    noisy_latents: Tensor,  # (B, C, h, w), x_t
    timesteps: Tensor,  # (B,)
    embeddings: Tensor,  # (2, B, L, D): of the negative prompts, then of the prompts
    alpha_bar: Tensor,  # (B, 1, 1, 1), at the timesteps
    prediction_type: str,  # "epsilon" or "v_prediction"
    guidance_scale: float | Tensor,  # w
    perp_neg: Callable[[list[Tensor]], Tensor] | None = None,
) -> Tensor:
    """Return the noise that the denoiser predicts, (B, C, h, w) in float32, with guidance.

    Call unet(x, timesteps, encoder_hidden_states=...) once, with all prompts in one batch and x in
    the type of the embeddings; its `.sample` is the output. With "v_prediction" that is v: convert
    each output to noise first, eps = sqrt(alpha_bar) v + sqrt(1 - alpha_bar) x_t. Then guide:
    eps_uncond + w (eps_cond - eps_uncond). With `perp_neg` there are more than two prompts: return
    perp_neg(the list of their predicted noises) instead.
    """
    noise_pred: Any = ...
    ### BEGIN SOLUTION
    count = len(embeddings)
    output = unet(
        noisy_latents.to(embeddings.dtype).repeat(count, 1, 1, 1),
        timesteps.repeat(count),
        encoder_hidden_states=embeddings.flatten(0, 1),
    ).sample.float()
    noise_preds = [
        diffusion.predict_noise(noisy_latents, part, alpha_bar, prediction_type)
        for part in output.chunk(count)
    ]
    if perp_neg:
        return perp_neg(noise_preds)
    uncond, cond = noise_preds
    noise_pred = uncond + guidance_scale * (cond - uncond)
    ### END SOLUTION
    return noise_pred


# TODO 3 (d): ★★☆ core, 20 min
def sds_step(
    latents: Tensor,  # (B, C, h, w), x_0 of the rendered images, with gradient
    timesteps: Tensor,  # (B,)
    alpha_bar: Tensor,  # (B, 1, 1, 1), at the timesteps
    omega: Tensor,  # (B, 1, 1, 1), the weights omega(t)
    predict: Callable[[Tensor, Tensor], Tensor],  # predict(x_t, timesteps): the noise, as in (c)
    generator: torch.Generator,  # on the CPU
) -> SDSStep:
    """Return a step of SDS on B images: DreamFusion, equation 3, without the denoiser's Jacobian.

    1. Draw Gaussian noise eps from the generator, and move it to the latents' device.
    2. x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps, without gradient: .detach().
    3. gradient = omega(t) (predicted noise - eps), a constant.
    4. The loss: a scalar whose derivative with respect to `latents` is gradient / B. Autograd
       starts from a scalar, and the derivative of a * x with respect to x is a.
    """
    loss: Any = ...
    gradient: Any = ...
    noise: Any = ...
    noisy_latents: Any = ...
    noise_pred: Any = ...
    ### BEGIN SOLUTION
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    noisy_latents = diffusion.add_noise(latents.detach(), noise, alpha_bar)
    noise_pred = predict(noisy_latents, timesteps)
    gradient = (omega * (noise_pred - noise)).detach()
    loss = (latents * gradient).sum() / len(latents)
    ### END SOLUTION
    return SDSStep(loss, gradient, noise, noisy_latents, noise_pred)
