"""Random batches for training with the diffusion loss."""

from collections.abc import Iterator, Sequence

import torch


def training_batches(
    dataset: Sequence[torch.Tensor],
    steps: int,
    batch: int,
    num_train_timesteps: int,
    generator: torch.Generator,
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield `steps` batches: a random part of each tensor, timesteps (B,), and noise.

    dataset: tensors (N, ...) on one device, of which the first are the latents; the noise has their
    shape. Random numbers come from `generator`, on the CPU.
    """
    latents = dataset[0]
    for _ in range(steps):
        chosen = torch.randint(len(latents), (batch,), generator=generator)
        t = torch.randint(num_train_timesteps, (batch,), generator=generator)
        noise = torch.randn((batch, *latents.shape[1:]), generator=generator)
        parts = [part[chosen.to(part.device)] for part in dataset]
        yield (*parts, t.to(latents.device), noise.to(latents.device))
