"""Radiance fields: what is where, and of which colour. Here what all of them share, and the plain one of NeRF.

A field answers for points (M, 3) with a density (M,) and an albedo (M, 3). It begins as a cloud in the middle of the
box, so that there is something to look at from every side (DreamFusion, appendix A.1).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from task_3_DreamFusion.encoding import get_encoder

BLOB_DENSITY, BLOB_RADIUS = 10.0, 0.5  # Magic3D (Lin et al. 2022, arXiv:2211.10440), section A


class MLP(nn.Module):
    """Linear layers with ReLU between them; with `skip` the input joins again in the middle (NeRF, appendix A).

    The result is float32, in mixed precision too: what follows are exponentials and sums.
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
    """A field in the box [-bound, bound]^3. Subclasses give `raw`, their output before the activations.

    levels: how many levels the encoding has; `level_weights` fades them in one after the other.
    """

    bound: float
    levels: int

    def __init__(self, bound: float = 1.0) -> None:
        super().__init__()
        if not bound > 0:
            raise ValueError(f"bound is a positive number, not {bound}")
        self.bound = bound
        self.level_weights: Tensor | None = None

    def raw(self, x: Tensor) -> Tensor:
        """(M, 3) to (M, 4): the density and the colour before their activations, float32."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Density (M,), 0 or more, and albedo (M, 3) in [0, 1], at points (M, 3)."""
        raw = self.raw(x)
        return self._activate(raw[:, 0], x), raw[:, 1:].sigmoid()

    def density(self, x: Tensor) -> Tensor:
        """Density (M,) at points (M, 3)."""
        return self._activate(self.raw(x)[:, 0], x)

    def albedo(self, x: Tensor) -> Tensor:
        """Albedo (M, 3) in [0, 1] at points (M, 3)."""
        return self.raw(x)[:, 1:].sigmoid()

    def _activate(self, raw: Tensor, x: Tensor) -> Tensor:
        blob = BLOB_DENSITY * (1 - x.norm(dim=-1) / (BLOB_RADIUS * self.bound))
        return F.softplus(raw + blob)

    def fade_in(self, share: float) -> None:
        """Uses the coarse levels of the encoding first: the share of them that count, of 1. The level at the border
        counts in part, as in the coarse-to-fine schedule of Nerfies (Park et al. 2021, arXiv:2011.12948)."""
        if share >= 1:
            self.level_weights = None
            return
        place = next(self.parameters())
        levels = torch.arange(self.levels, device=place.device, dtype=torch.float32)
        inside = (share * self.levels - levels).clamp(0, 1)
        self.level_weights = (1 - (torch.pi * inside).cos()) / 2

    def _weigh(self, encoded: Tensor) -> Tensor:
        """The encoding (M, levels * n) with the levels that do not count yet taken back."""
        if self.level_weights is None:
            return encoded
        each = encoded.shape[1] // self.levels
        return encoded * self.level_weights.repeat_interleave(each)

    def normals(self, x: Tensor, step: float | None = None) -> Tensor:
        """Unit normals (M, 3) that point to where the density falls, with gradient where gradients are on.

        step: the width of central differences; None takes the analytic gradient, differentiable in its turn.
        """
        if step is not None:
            offsets = step * torch.cat([torch.eye(3), -torch.eye(3)]).to(x)  # (6, 3)
            around = self.density(
                (x[:, None] + offsets).clamp(-self.bound, self.bound).flatten(0, 1)
            ).view(-1, 6)
            slope = (around[:, :3] - around[:, 3:]) / (2 * step)
        else:
            training = torch.is_grad_enabled()
            with torch.enable_grad():
                places = x.detach().requires_grad_()
                [slope] = torch.autograd.grad(
                    self.density(places).sum(), places, create_graph=training
                )
        # Not F.normalize: its gradient at 0 is not finite, and in empty space the slope is 0.
        return -slope / (slope.square().sum(-1, keepdim=True) + 1e-8).sqrt()


class FrequencyField(Field):
    """The plain network of NeRF: a frequency encoding and a multilayer perceptron with a skip."""

    def __init__(
        self, bound: float = 1.0, levels: int = 6, width: int = 96, layers: int = 5
    ) -> None:
        super().__init__(bound)
        self.levels = levels
        self.encoder, size = get_encoder("frequency", 3, levels=levels)
        self.mlp = MLP(size + 3, 4, width, layers, skip=True)

    def raw(self, x: Tensor) -> Tensor:
        places = x / self.bound
        return self.mlp(torch.cat([places, self._weigh(self.encoder(places))], -1))


class Background(nn.Module):
    """What rays see that miss everything: a colour for each direction, smooth, from a small network."""

    def __init__(self, levels: int = 3, width: int = 32) -> None:
        super().__init__()
        self.encoder, size = get_encoder("frequency", 3, levels=levels)
        self.mlp = MLP(size, 3, width, 2)

    def forward(self, directions: Tensor) -> Tensor:
        """Colours (N, 3) in [0, 1] for unit directions (N, 3)."""
        return self.mlp(self.encoder(directions)).sigmoid()
