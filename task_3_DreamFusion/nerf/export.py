"""The results of a run: a clip of one full turn, and a mesh with a page that shows it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from course.files import write_text
from course.images import heat_map
from course.images.video import write_video
from task_3_DreamFusion.nerf import checkpoint
from task_3_DreamFusion.nerf.provider import Cameras, orbit
from task_3_DreamFusion.nerf.utils import Trainer

VIDEO, MESH = "video.mp4", "mesh"
MESH_FILES = tuple(f"{MESH}.{ending}" for ending in ("glb", "obj", "mtl", "png", "html"))
FPS = 30
VISIBLE = 0.01  # opacity from which a pixel has a normal
MAX_STEP = 0.1  # largest difference in depth within one surface, in units of the scene
SURFACE_DENSITY = 5.0  # where the surface of a mesh lies


def frames(trainer: Trainer, count: int, size: int, elevation: float) -> Iterator[np.ndarray]:
    """Yield images (size, 3 * size, 3) uint8 of the averaged field, for one full turn.

    Color, depth and normals stand side by side.
    """
    cameras = orbit(count, elevation)
    radius = float(cameras.radius[0])
    with trainer.averaged():
        images = trainer.renderer.render_eval(cameras, size, size)
        for i, image in enumerate(tqdm(images, total=count, desc="video", unit="frame")):
            normals = normal_map(cameras[i : i + 1], image)
            parts = [as_bytes(image[:3]), depth_map(image, radius), as_bytes(normals)]
            yield np.concatenate(parts, axis=1)


def normal_map(camera: Cameras, image: Tensor) -> Tensor:
    """Return normals (3, H, W) as colors, white where nothing is, of a rendered image (5, H, W).

    They are normals of the surface that the depth describes. The slopes of the field itself are
    noise where it is dense and zero where it is empty, and a mean depth may lie in either. Along
    each axis a pixel takes the difference to the nearer neighbor, so that outlines bend no surface.
    """
    opacity = image[3]
    rays = camera.to(image.device).rays(*opacity.shape)
    origins, directions = (part[0] for part in rays)  # (H, W, 3)
    is_visible = opacity > VISIBLE
    depth = smooth_depth(image[4], opacity * is_visible)
    points = origins + depth[..., None] * directions

    def slope(axis: int) -> Tensor:
        steps = torch.stack([points.roll(-1, axis) - points, points - points.roll(1, axis)])
        is_surface = torch.stack([is_visible.roll(-1, axis), is_visible.roll(1, axis)])
        lengths = torch.where(is_surface, steps.norm(dim=-1), torch.inf)  # (2, H, W)
        return torch.where((lengths[0] <= lengths[1])[..., None], steps[0], steps[1])

    normals = torch.nn.functional.normalize(torch.linalg.cross(slope(1), slope(0)), dim=-1)
    faces_away = (normals * directions).sum(-1, keepdim=True) > 0
    normals = torch.where(faces_away, -normals, normals)
    colors = torch.where(is_visible[..., None], 0.5 + 0.5 * normals, 1.0)
    return (opacity * colors.permute(2, 0, 1) + (1 - opacity)).clamp(0, 1)


def smooth_depth(depth: Tensor, weight: Tensor) -> Tensor:
    """Return depth (H, W) as a weighted mean over 5 x 5 pixels that differ by up to MAX_STEP.

    weight: (H, W), multiplied by a Gaussian of one pixel. Slopes would magnify the noise.
    """
    gaussian = torch.exp(-torch.arange(-2.0, 3.0).square() / 2).to(depth)
    depths, weights = (
        torch.nn.functional.unfold(x[None, None], 5, padding=2)[0] for x in (depth, weight)
    )  # (25, H * W)
    is_near = (depths - depth.flatten()).abs() <= MAX_STEP
    weights = (gaussian[:, None] * gaussian).flatten()[:, None] * weights * is_near
    return ((depths * weights).sum(0) / weights.sum(0).clamp(min=1e-6)).view_as(depth)


def as_bytes(image: Tensor) -> np.ndarray:
    """Return an image (3, H, W) in [0, 1] as (H, W, 3) uint8."""
    return (image.permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def depth_map(image: Tensor, radius: float) -> np.ndarray:
    """Return the depth of a rendered image (5, H, W) in false colors, (H, W, 3) uint8.

    Near is bright, over the range of the box; white is where nothing is.
    """
    nearness = ((radius + 1 - image[4]) / 2).clamp(0, 1)
    ends = nearness.new_tensor([0.0, 1.0]).expand(len(nearness), 2)  # one scale for all frames
    scaled = torch.cat([nearness, ends], 1)
    colors = np.asarray(heat_map(scaled, side=scaled.shape[1]))[:, :-2].astype(np.float32)
    opacity = image[3, ..., None].cpu().numpy()
    return (opacity * colors + (1 - opacity) * 255).round().astype(np.uint8)


def save_video(trainer: Trainer, count: int = 90, size: int = 256, elevation: float = 15.0) -> Path:
    """Write WORKSPACE/video.mp4, one full turn in `count` frames; return its path."""
    images = frames(trainer, count, size, elevation)
    return write_video(trainer.workspace / VIDEO, images, fps=FPS, hold=0)


def save_mesh(trainer: Trainer, resolution: int = 128, texture: int = 1024) -> list[Path]:
    """Write the surface of the averaged field; return the paths.

    They are WORKSPACE/mesh.glb, .obj, .mtl and .png, and the page mesh.html. Raises MeshError if
    there is no surface.
    """
    from task_3_DreamFusion.nerf.mesh import extract_mesh  # these two are slow to import
    from task_3_DreamFusion.nerf.viewer import page

    field = trainer.renderer.field
    with trainer.averaged(), torch.no_grad():
        mesh = extract_mesh(
            field.density,
            field.albedo,
            SURFACE_DENSITY,
            resolution,
            texture_size=texture,
            bound=field.bound,
            device=trainer.guidance.device,
        )
    paths = mesh.save(trainer.workspace, MESH)
    viewer = trainer.workspace / f"{MESH}.html"
    write_text(viewer, page(mesh, trainer.settings.text))
    return [*paths, viewer]


def remove_stale_mesh(workspace: Path) -> None:
    """Remove files of a mesh that are older than the last checkpoint: it is of an earlier step."""
    last = checkpoint.latest(workspace / "checkpoints")
    for path in (workspace / name for name in MESH_FILES):
        if last and path.exists() and path.stat().st_mtime_ns < last.stat().st_mtime_ns:
            path.unlink()
