"""The field on a multi-resolution hash grid (Müller et al. 2022, arXiv:2201.05989): the default."""

from torch import Tensor

from task_3_DreamFusion.encoding import get_encoder
from task_3_DreamFusion.nerf.network import MLP, Field

GROWTH = 1.46  # of the resolution from one level to the next


class GridField(Field):
    """A hash grid and a small MLP.

    levels, features, min_resolution, log2_table_size: as in GridLayout.make. width, layers: of the
        MLP.
    """

    def __init__(
        self,
        bound: float = 1.0,
        levels: int = 12,
        features: int = 2,
        min_resolution: int = 8,
        log2_table_size: int = 17,
        width: int = 32,
        layers: int = 2,
    ) -> None:
        super().__init__(bound)
        self.levels = levels
        self.encoder, size = get_encoder(
            "hashgrid",
            3,
            bound,
            levels=levels,
            features=features,
            min_resolution=min_resolution,
            max_resolution=round(min_resolution * GROWTH ** (levels - 1)),
            log2_table_size=log2_table_size,
            interpolation="smoothstep",
        )
        self.mlp = MLP(size, 4, width, layers)

    def raw(self, x: Tensor) -> Tensor:
        return self.mlp(self._weight_levels(self.encoder(x).float()))
