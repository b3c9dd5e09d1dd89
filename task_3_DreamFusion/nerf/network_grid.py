"""The field on a multi-resolution hash grid (Müller et al. 2022, arXiv:2201.05989): the default."""

from torch import Tensor

from task_3_DreamFusion.encoding import get_encoder
from task_3_DreamFusion.nerf.network import MLP, Field

MIN_RESOLUTION, GROWTH = 8, 1.46  # of the first level, and from one level to the next


class GridField(Field):
    """A hash grid and a small MLP; levels and log2_table_size as in GridLayout.make."""

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
        self.mlp = MLP(size, 4, width=32, layers=2)

    def raw(self, x: Tensor) -> Tensor:
        return self.mlp(self._weight_levels(self.encoder(x).float()))
