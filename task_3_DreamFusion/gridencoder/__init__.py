"""Multi-resolution hash and tiled grid encoding (Instant-NGP)."""

from task_3_DreamFusion.gridencoder.grid import (
    GridEncoder,
    GridLayout,
    grid_encode,
    total_variation,
    weight_decay,
)

__all__ = ["GridEncoder", "GridLayout", "grid_encode", "total_variation", "weight_decay"]
