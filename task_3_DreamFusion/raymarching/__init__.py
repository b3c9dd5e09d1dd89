"""Ray marching through an occupancy grid (Instant-NGP) and compositing along rays (NeRF)."""

from task_3_DreamFusion.raymarching.march import (
    Composited,
    LivingRays,
    Occupancy,
    Samples,
    composite_rays,
    march_rays,
    morton3d,
    morton3d_invert,
    near_far,
    packbits,
)

__all__ = [
    "Composited",
    "LivingRays",
    "Occupancy",
    "Samples",
    "composite_rays",
    "march_rays",
    "morton3d",
    "morton3d_invert",
    "near_far",
    "packbits",
]
