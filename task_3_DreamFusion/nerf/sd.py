"""The exercise of task 3: score distillation sampling (SDS), in three functions.

DreamFusion (Poole et al. 2022, arXiv:2209.14988) renders the scene, adds noise to the image, lets
the denoiser predict the noise, and takes the difference as the gradient of the image. guidance.py
calls the three functions below with what it renders and predicts; ../README.md derives the
formulas.

TODO 3: fill in a function to compute the SDS loss, and generate 3D objects from text. It has three
parts, (a) to (c), each between BEGIN SOLUTION and END SOLUTION. Delete what stands there, write
your own, and let `python -m task_3_DreamFusion.sds_2d` check it.
"""

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def embed_text(text: str, tokenizer: Any, text_encoder: Any, length: int) -> Tensor:
    """Return the text encoder's embedding of a prompt: (L, D), one vector for each of L tokens.

    length: L, the number of tokens that the text encoder reads.
    """
    embedding: Any = ...
    # TODO 3 (a): call the tokenizer with padding="max_length", max_length=length, truncation=True
    # and return_tensors="pt". Pass its .input_ids, on text_encoder.device, to text_encoder. [0] of
    # the result are the vectors (1, L, D): remove their first dimension.
    ### BEGIN SOLUTION
    tokens = tokenizer(
        text, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    embedding = text_encoder(tokens.input_ids.to(text_encoder.device))[0][0]
    ### END SOLUTION
    return embedding


def sds_gradient(noise_pred: Tensor, noise: Tensor, weight: Tensor) -> Tensor:
    """Return the SDS gradient of the latents, (B, C, h, w), without the denoiser's Jacobian.

    DreamFusion, equation 3. noise_pred: (B, C, h, w), the predicted noise, with guidance. noise:
    (B, C, h, w), the noise that was added. weight: w(t), (B, 1, 1, 1).
    """
    gradient: Any = ...
    # TODO 3 (b): the predicted noise minus the added noise, weighted.
    ### BEGIN SOLUTION
    gradient = weight * (noise_pred - noise)
    ### END SOLUTION
    return gradient


def sds_loss(latents: Tensor, gradient: Tensor) -> Tensor:
    """Return a scalar with the gradient `gradient` / B in `latents`. Both are (B, C, h, w).

    Autograd starts from a scalar, and SDS gives a gradient only. But the derivative of `a * x` with
    respect to `x` is `a`. The division by B averages over the images of the batch.
    """
    loss: Any = ...
    # TODO 3 (c): the scalar. `gradient` is a constant in it: .detach() it, so that nothing is
    # backpropagated into the denoiser.
    ### BEGIN SOLUTION
    loss = (latents * gradient.detach()).sum() / len(latents)
    ### END SOLUTION
    return loss
