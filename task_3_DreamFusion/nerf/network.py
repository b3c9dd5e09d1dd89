"""Radiance fields: their common base class, and the plain MLP of NeRF.

A field maps points (M, 3) to density (M,) and albedo (M, 3). It starts as a blob at the center of
the box, so that something is visible from every side (DreamFusion, appendix A.1).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from task_3_DreamFusion.encoding import get_encoder

BLOB_DENSITY, BLOB_RADIUS = 10.0, 0.5  # Magic3D (Lin et al. 2022, arXiv:2211.10440), section A
NORMAL_STEP = 1e-2  # of the central differences of normals, in units of `bound`


class MLP(nn.Module):
    """Linear layers with ReLU between them; with `skip` the middle one also gets the input (NeRF).

    The result is float32, in mixed precision too, since exponentials and sums follow.
    """

    def __init__(
        self, inputs: int, outputs: int, width: int, layers: int, skip: bool = False
    ) -> None:
        super().__init__()
        self.skip = layers // 2 if skip else None
        sizes = [inputs, *[width] * (layers - 1), outputs]
        extra = [inputs if i == self.skip else 0 for i in range(layers)]
        self.layers = nn.ModuleList(
            nn.Linear(sizes[i] + extra[i], sizes[i + 1]) for i in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i, layer in enumerate(self.layers):
            y = torch.cat([y, x], -1) if i == self.skip else y
            y = layer(y if i == 0 else F.relu(y))
        return y.float()


class Field(nn.Module):
    """A field in the box [-bound, bound]^3; subclasses implement `raw`, before the activations.

    levels: number of levels of the encoding, which `fade_in` enables one after the other.
    """

    levels: int

    def __init__(self, bound: float = 1.0) -> None:
        super().__init__()
        if not bound > 0:
            raise ValueError(f"bound must be positive, got {bound}")
        self.bound = bound
        self.level_weights: Tensor | None = None

    def raw(self, x: Tensor) -> Tensor:
        """Return density and color before their activations: (M, 3) to (M, 4), float32."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return density (M,), 0 or more, and albedo (M, 3) in [0, 1], at points (M, 3)."""
        raw = self.raw(x)
        return self._activate(raw[:, 0], x), raw[:, 1:].sigmoid()

    def density(self, x: Tensor) -> Tensor:
        """Return the density (M,) at points (M, 3)."""
        return self._activate(self.raw(x)[:, 0], x)

    def albedo(self, x: Tensor) -> Tensor:
        """Return the albedo (M, 3) in [0, 1] at points (M, 3)."""
        return self.raw(x)[:, 1:].sigmoid()

    def _activate(self, raw: Tensor, x: Tensor) -> Tensor:
        blob = BLOB_DENSITY * (1 - x.norm(dim=-1) / (BLOB_RADIUS * self.bound))
        return F.softplus(raw + blob)

    def fade_in(self, fraction: float) -> None:
        """Use only a fraction of the encoding's levels, the coarse ones.

        The level at the border counts in part, as in the coarse-to-fine schedule of Nerfies (Park
        et al. 2021, arXiv:2011.12948).
        """
        if fraction >= 1:
            self.level_weights = None
            return
        device = next(self.parameters()).device
        levels = torch.arange(self.levels, device=device, dtype=torch.float32)
        enabled = (fraction * self.levels - levels).clamp(0, 1)
        self.level_weights = (1 - (torch.pi * enabled).cos()) / 2

    def _weight_levels(self, encoded: Tensor) -> Tensor:
        """Return the encoding (M, levels * n) times the weights of the levels."""
        if self.level_weights is None:
            return encoded
        features = encoded.shape[1] // self.levels
        return encoded * self.level_weights.repeat_interleave(features)

    def normals(self, x: Tensor) -> Tensor:
        """Return unit normals (M, 3), in the direction of falling density, differentiable."""
        step = NORMAL_STEP * self.bound
        offsets = step * torch.cat([torch.eye(3), -torch.eye(3)]).to(x)  # (6, 3)
        neighbors = (x[:, None] + offsets).clamp(-self.bound, self.bound)  # (M, 6, 3)
        density = self.density(neighbors.flatten(0, 1)).view(-1, 6)
        gradient = (density[:, :3] - density[:, 3:]) / (2 * step)
        # Not F.normalize: its gradient is not finite at 0, the gradient of empty space.
        return -gradient / (gradient.square().sum(-1, keepdim=True) + 1e-8).sqrt()


class FrequencyField(Field):
    """The plain network of NeRF: a frequency encoding and an MLP with a skip connection."""

    def __init__(
        self, bound: float = 1.0, levels: int = 6, width: int = 96, layers: int = 5
    ) -> None:
        super().__init__(bound)
        self.levels = levels
        self.encoder, size = get_encoder("frequency", 3, levels=levels)
        self.mlp = MLP(size + 3, 4, width, layers, skip=True)

    def raw(self, x: Tensor) -> Tensor:
        x = x / self.bound
        return self.mlp(torch.cat([x, self._weight_levels(self.encoder(x))], -1))


class Background(nn.Module):
    """A color for each direction, from a small MLP, for rays that miss everything."""

    def __init__(self, levels: int = 3, width: int = 32) -> None:
        super().__init__()
        self.encoder, size = get_encoder("frequency", 3, levels=levels)
        self.mlp = MLP(size, 3, width, 2)

    def forward(self, directions: Tensor) -> Tensor:
        """Return colors (N, 3) in [0, 1] for unit directions (N, 3)."""
        return self.mlp(self.encoder(directions)).sigmoid()
