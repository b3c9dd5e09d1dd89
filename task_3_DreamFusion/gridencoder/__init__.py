"""Multi-resolution hash and tiled grid encoding (Instant-NGP)."""

from task_3_DreamFusion.gridencoder.grid import GridEncoder, grid_encode, total_variation
from task_3_DreamFusion.gridencoder.layout import GridLayout

__all__ = ["GridEncoder", "GridLayout", "grid_encode", "total_variation"]
