"""Ray marching through an occupancy grid (Instant-NGP) and compositing along rays (NeRF)."""

from task_3_DreamFusion.raymarching.march import AliveRays as AliveRays
from task_3_DreamFusion.raymarching.march import Occupancy as Occupancy
from task_3_DreamFusion.raymarching.march import RayOutputs as RayOutputs
from task_3_DreamFusion.raymarching.march import Samples as Samples
from task_3_DreamFusion.raymarching.march import composite_rays as composite_rays
from task_3_DreamFusion.raymarching.march import march_rays as march_rays
from task_3_DreamFusion.raymarching.march import morton3d as morton3d
from task_3_DreamFusion.raymarching.march import morton3d_invert as morton3d_invert
from task_3_DreamFusion.raymarching.march import packbits as packbits
from task_3_DreamFusion.raymarching.march import ray_aabb_intersect as ray_aabb_intersect
