"""Ray marching through an occupancy grid (Instant-NGP) and compositing along rays (NeRF)."""

from task_3_DreamFusion.raymarching.march import (
    AliveRays,
    Occupancy,
    RayOutputs,
    Samples,
    composite_rays,
    march_rays,
    morton3d,
    morton3d_invert,
    packbits,
    ray_aabb_intersect,
)

__all__ = [
    "AliveRays",
    "Occupancy",
    "RayOutputs",
    "Samples",
    "composite_rays",
    "march_rays",
    "morton3d",
    "morton3d_invert",
    "packbits",
    "ray_aabb_intersect",
]
