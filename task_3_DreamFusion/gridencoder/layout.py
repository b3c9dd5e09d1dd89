"""The levels of a grid encoding: their resolutions, and where their entries lie in the table."""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_LEVELS, MAX_FEATURES = 32, 8  # as in src/grid.h
MAX_RESOLUTION = 2**20  # float32 still distinguishes the cells


@dataclass(frozen=True)
class GridLayout:
    """Resolutions of the levels, and the range of table entries of each.

    dims: D, 2 to 4. features: F per level, 1 to 8. resolutions: cells along an axis, one a level.
    offsets: first entry of each level, then the number of all entries.
    hashed: whether levels that have too few entries are hashed (else tiled). smoothstep: the
    interpolation, else linear.
    Raises ValueError for a value out of range.
    """

    dims: int
    features: int
    resolutions: tuple[int, ...]
    offsets: tuple[int, ...]
    hashed: bool = True
    smoothstep: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.dims <= 4:
            raise ValueError(f"dims must be from 2 to 4, got {self.dims}")
        if not 1 <= self.features <= MAX_FEATURES:
            raise ValueError(f"features must be from 1 to {MAX_FEATURES}, got {self.features}")
        if not 1 <= self.levels <= MAX_LEVELS:
            raise ValueError(f"levels must be from 1 to {MAX_LEVELS}, got {self.levels}")
        if not all(1 <= r <= MAX_RESOLUTION for r in self.resolutions):
            allowed = f"from 1 to {MAX_RESOLUTION}"
            raise ValueError(f"resolutions must be {allowed}, got {self.resolutions}")
        sizes = [self.size(level) for level in range(len(self.offsets) - 1)]
        if len(sizes) != self.levels or min(sizes) < 8:
            raise ValueError(
                "offsets must be one more than levels, at least 8 entries apart, "
                f"got {self.offsets}"
            )
        if self.offsets[0] != 0 or self.offsets[-1] >= 2**32:
            raise ValueError(f"offsets must begin with 0 and end below 2^32, got {self.offsets}")
        if any(self.tile(i) == -1 and n.bit_count() != 1 for i, n in enumerate(sizes)):
            raise ValueError(
                f"the size of a hashed level must be a power of two, got offsets {self.offsets}"
            )

    @classmethod
    def make(
        cls,
        dims: int = 3,
        levels: int = 16,
        features: int = 2,
        min_resolution: int = 16,
        max_resolution: int = 2048,
        log2_table_size: int = 19,
        grid_type: str = "hash",
        interpolation: str = "linear",
    ) -> GridLayout:
        """Return the layout of Instant-NGP, equations 2 and 3: resolutions grow by one factor.

        Args:
            log2_table_size: no level has more than two to this power entries; 3 to 24.
            grid_type: "hash" or "tiled". interpolation: "linear" or "smoothstep".
        """
        if grid_type not in ("hash", "tiled"):
            raise ValueError(f'grid_type must be "hash" or "tiled", got {grid_type!r}')
        if interpolation not in ("linear", "smoothstep"):
            raise ValueError(
                f'interpolation must be "linear" or "smoothstep", got {interpolation!r}'
            )
        if not 3 <= log2_table_size <= 24:
            raise ValueError(f"log2_table_size must be from 3 to 24, got {log2_table_size}")
        if not 1 <= min_resolution <= max_resolution:
            raise ValueError(
                "min_resolution must be from 1 to max_resolution, "
                f"got {min_resolution} and {max_resolution}"
            )
        growth = math.exp(math.log(max_resolution / min_resolution) / max(levels - 1, 1))
        # The small term keeps the last level at max_resolution where the power is a hair below it.
        resolutions = [math.floor(min_resolution * growth**i + 1e-6) for i in range(levels)]
        offsets = [0]
        for resolution in resolutions:
            # In eights, so that every level begins on a cache sector.
            vertices = -(-((resolution + 1) ** dims) // 8) * 8
            offsets.append(offsets[-1] + min(vertices, 2**log2_table_size))
        is_smooth = interpolation == "smoothstep"
        return cls(
            dims, features, tuple(resolutions), tuple(offsets), grid_type == "hash", is_smooth
        )

    @property
    def levels(self) -> int:
        return len(self.resolutions)

    @property
    def entries(self) -> int:
        return self.offsets[-1]

    def size(self, level: int) -> int:
        """Return the number of entries of a level."""
        return self.offsets[level + 1] - self.offsets[level]

    def tile(self, level: int) -> int:
        """Return the side of a level's tiles; 0 for one entry a vertex, -1 if hashed."""
        size = self.size(level)
        if (self.resolutions[level] + 1) ** self.dims <= size:
            return 0
        if self.hashed:
            return -1
        side = round(size ** (1 / self.dims))
        return side if side**self.dims <= size else side - 1

    @property
    def arguments(self) -> tuple[list[int], list[int], bool, bool]:
        """The layout as the operators take it."""
        return list(self.resolutions), list(self.offsets), self.hashed, self.smoothstep
