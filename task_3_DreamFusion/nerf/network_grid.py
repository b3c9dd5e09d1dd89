"""The field on a multi-resolution hash grid (Müller et al. 2022, arXiv:2201.05989): the default."""

import torch
from torch import Tensor

from task_3_DreamFusion.encoding import get_encoder
from task_3_DreamFusion.nerf.network import MLP, Field

MIN_RESOLUTION, GROWTH = 8, 1.46  # of the first level, and from one level to the next
# Share of the levels that the density sees. Surfaces are smoother than their colors, and the fine
# levels would make grooves of the noise in the targets.
SHAPE_LEVELS = 0.5


class GridField(Field):
    """A hash grid and two small MLPs, for density and color.

    levels and log2_table_size as in GridLayout.make. The density depends on the coarse levels
    alone.
    """

    def __init__(self, bound: float = 1.0, levels: int = 12, log2_table_size: int = 17) -> None:
        super().__init__(bound)
        self.levels = levels
        self.encoder, size = get_encoder(
            "hashgrid",
            3,
            bound,
            levels=levels,
            min_resolution=MIN_RESOLUTION,
            max_resolution=round(MIN_RESOLUTION * GROWTH ** (levels - 1)),
            log2_table_size=log2_table_size,
            interpolation="smoothstep",
        )
        self.shape_features = size // levels * round(SHAPE_LEVELS * levels)
        self.density_mlp = MLP(self.shape_features, 1, width=32, layers=2)
        self.color_mlp = MLP(size, 3, width=32, layers=2)

    def raw(self, x: Tensor) -> Tensor:
        encoded = self._encode(x)
        shape = encoded[:, : self.shape_features]
        return torch.cat([self.density_mlp(shape), self.color_mlp(encoded)], dim=1)

    def raw_density(self, x: Tensor) -> Tensor:
        return self.density_mlp(self._encode(x)[:, : self.shape_features])[:, 0]

    def _encode(self, x: Tensor) -> Tensor:
        return self._weight_levels(self.encoder(x).float())
