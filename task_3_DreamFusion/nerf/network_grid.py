"""The field on a multi-resolution hash grid (Müller et al. 2022, arXiv:2201.05989): the default, fast to train."""

from torch import Tensor

from task_3_DreamFusion.encoding import get_encoder
from task_3_DreamFusion.nerf.network import MLP, Field

GROWTH = 1.46


class GridField(Field):
    """A hash grid and a small perceptron.

    levels, features, coarsest, log2_table_size: as GridLayout.make takes them; each level has GROWTH times as many
    cells along a side as the one before. width, layers: of the perceptron.
    """

    def __init__(
        self,
        bound: float = 1.0,
        levels: int = 12,
        features: int = 2,
        coarsest: int = 8,
        log2_table_size: int = 17,
        width: int = 32,
        layers: int = 2,
    ) -> None:
        super().__init__(bound)
        self.levels = levels
        self.encoder, size = get_encoder(
            "hashgrid", 3, bound, levels=levels, features=features, coarsest=coarsest,
            finest=round(coarsest * GROWTH ** (levels - 1)),
            log2_table_size=log2_table_size, interpolation="smoothstep",
        )  # fmt: skip
        self.mlp = MLP(size, 4, width, layers)

    def raw(self, x: Tensor) -> Tensor:
        return self.mlp(self._weigh(self.encoder(x).float()))
