"""Data whose score is known at every noise level: mixtures of many small Gaussians."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians in the plane, all of one width and one weight.

    means: centers (K, 2). labels: class of each Gaussian (K,). std: standard deviation of each.
    """

    means: torch.Tensor
    labels: torch.Tensor
    std: float

    def sample(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return points (count, 2) and their labels (count,), from torch's global generator."""
        chosen = torch.randint(len(self.means), (count,))
        points = self.means[chosen] + self.std * torch.randn(count, 2)
        return points, self.labels[chosen]

    def score(
        self, x_t: torch.Tensor, alpha_bar: torch.Tensor, label: int | None = None
    ) -> torch.Tensor:
        """Return the gradient of log p_t at points (B, 2), exactly, (B, 2).

        p_t is the density of the data, or of one class, with noise: again a mixture of Gaussians,
        with means sqrt(alpha_bar) m and variance alpha_bar std^2 + 1 - alpha_bar. `alpha_bar` is a
        scalar.
        """
        means = self.means if label is None else self.means[self.labels == label]
        variance = alpha_bar * self.std**2 + 1 - alpha_bar
        offsets = alpha_bar.sqrt() * means - x_t[:, None]  # (B, K, 2)
        weights = (-offsets.square().sum(-1) / (2 * variance)).softmax(dim=1)  # (B, K)
        return torch.einsum("bk,bkd->bd", weights, offsets) / variance


def spirals(gaussians: int = 150, turn: float = 0.8, std: float = 0.05) -> Mixture:
    """Return two arms of a spiral, one the other turned by 180 degrees: classes 0 and 1.

    gaussians: number on each arm, at equal distances. turn: part of a full turn of each arm.
    """
    u = torch.linspace(0, 1, 4000)
    radius, angle = 0.3 + 1.6 * u, 2 * math.pi * (turn * u + 0.25)
    curve = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    length = (curve[1:] - curve[:-1]).norm(dim=1).cumsum(0)
    places = torch.searchsorted(length, torch.linspace(0, 1, gaussians) * length[-1])
    arm = curve[places.clamp(max=len(curve) - 1)]
    labels = torch.arange(2).repeat_interleave(gaussians)
    return Mixture(torch.cat([arm, -arm]), labels, std)
