"""A small network for points: from noisy points, timestep and label to an output for each point."""

import math

import torch
from torch import nn

NO_LABEL = 2  # the class of points whose label is hidden
LEVELS = 1000  # timesteps of the noise schedule


class PointNetwork(nn.Module):
    """Three layers on sines and cosines of position and timestep, and a vector for the label."""

    frequencies: torch.Tensor

    def __init__(self, width: int = 128, frequencies: int = 6) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.arange(1.0, frequencies + 1))
        self.label_vectors = nn.Embedding(NO_LABEL + 1, 16)
        size = 2 + 3 * 2 * frequencies + 16  # of what `forward` concatenates
        self.layers = nn.Sequential(
            nn.Linear(size, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 2),
        )

    def forward(
        self,
        x_t: torch.Tensor,  # (B, 2)
        t: torch.Tensor | float,  # (B,), or one for all, from 0 to 1000
        label: torch.Tensor | int | None = None,  # (B,), or one for all; None: no label
    ) -> torch.Tensor:
        """Return the output for each point, (B, 2)."""
        count = len(x_t)
        timestep = torch.as_tensor(t, dtype=torch.float32).expand(count)
        classes = torch.as_tensor(NO_LABEL if label is None else label).expand(count)
        # The square root: the output changes fastest with t where there is little noise.
        angle = math.pi * (timestep / LEVELS).clamp(0, 1).sqrt()[:, None]  # (B, 1)
        angles = (torch.cat([x_t, angle], dim=1)[..., None] * self.frequencies).flatten(1)
        features = [x_t, angles.sin(), angles.cos(), self.label_vectors(classes)]
        output: torch.Tensor = self.layers(torch.cat(features, dim=1))
        return output
