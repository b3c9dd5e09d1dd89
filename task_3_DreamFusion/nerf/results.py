"""What comes out of a run: a clip that goes round it, a mesh with a page that turns it, and a page over all runs."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from course import pages
from course.errors import CourseError
from course.images import heat_map
from course.images.video import write_video
from task_3_DreamFusion.nerf import checkpoint, files
from task_3_DreamFusion.nerf.provider import Cameras, orbit
from task_3_DreamFusion.nerf.settings import SETTINGS, Settings, known_fields
from task_3_DreamFusion.nerf.utils import Trainer

VIDEO, MESH = "video.mp4", "mesh"
MESH_FILES = tuple(f"{MESH}.{ending}" for ending in ("glb", "obj", "mtl", "png", "html"))
INDEX = "index.html"
MAX_SETTINGS = 2**20  # bytes of a settings.json: a larger file is of another program
FPS = 30
SEEN = 0.01  # opacity from which a pixel has a normal
JUMP = 0.1  # in units of the scene: what differs so much in depth is no one surface
LEVEL = 5.0  # the density at which a mesh has its surface
PAGE = Path(__file__).parent / "templates" / "index.html"


def frames(trainer: Trainer, count: int, size: int, elevation: float) -> Iterator[np.ndarray]:
    """Images (size, 3 * size, 3) uint8 once around the averaged field: colour, depth and normals side by side."""
    cameras = orbit(count, elevation)
    radius = float(cameras.radius[0])
    with trainer.averaged():
        images = trainer.renderer.render_eval(cameras, size, size)
        for i, colour in enumerate(tqdm(images, total=count, desc="video", unit="frame")):
            normals = normal_map(cameras[i : i + 1], colour)
            yield np.concatenate(
                [as_bytes(colour[:3]), depth_map(colour, radius), as_bytes(normals)], axis=1
            )


def normal_map(camera: Cameras, image: Tensor) -> Tensor:
    """Normals (3, H, W) as colours of a finished image (5, H, W) by one camera, white where nothing is.

    They are those of the surface that the depth describes. The field's own slopes would not do: they are noise where
    it is dense and nothing where it is empty, and a mean depth may lie in either. Along each axis a pixel looks to the
    neighbour that lies nearer to it in space, so that outlines bend no surface.
    """
    opacity = image[3]
    origins, directions = (
        part[0] for part in camera.to(image.device).rays(*opacity.shape)
    )  # (H, W, 3)
    seen = opacity > SEEN
    places = origins + softened(image[4], opacity * seen)[..., None] * directions

    def along(axis: int) -> Tensor:
        steps = torch.stack(
            [places.roll(-1, axis) - places, places - places.roll(1, axis)]
        )  # (2, H, W, 3)
        beside = torch.stack([seen.roll(-1, axis), seen.roll(1, axis)])
        lengths = torch.where(beside, steps.norm(dim=-1), torch.inf)
        return torch.where((lengths[0] <= lengths[1])[..., None], *steps)

    normals = torch.nn.functional.normalize(torch.linalg.cross(along(1), along(0)), dim=-1)
    away = (normals * directions).sum(-1, keepdim=True) > 0
    colours = torch.where(seen[..., None], 0.5 + 0.5 * torch.where(away, -normals, normals), 1.0)
    return (opacity * colours.permute(2, 0, 1) + (1 - opacity)).clamp(0, 1)


def softened(depth: Tensor, weight: Tensor) -> Tensor:
    """Depth (H, W) as a mean over those of 5 x 5 pixels that are no more than JUMP away, by a weight (H, W) and a bell
    of one pixel: slopes magnify noise."""
    bell = torch.exp(-torch.arange(-2.0, 3.0).square() / 2).to(depth)
    around, weights = (
        torch.nn.functional.unfold(x[None, None], 5, padding=2)[0] for x in (depth, weight)
    )  # (25, H * W)
    near = (around - depth.flatten()).abs() <= JUMP
    weights = (bell[:, None] * bell).flatten()[:, None] * weights * near
    return ((around * weights).sum(0) / weights.sum(0).clamp(min=1e-6)).view_as(depth)


def as_bytes(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] as (H, W, 3) uint8."""
    return (image.permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def depth_map(image: Tensor, radius: float) -> np.ndarray:
    """The depth of a finished image (5, H, W) in false colours, near is bright, over the range of the box; white
    where nothing is."""
    near = ((radius + 1 - image[4]) / 2).clamp(0, 1)
    ends = torch.cat(
        [near, near.new_tensor([0.0, 1.0]).expand(len(near), 2)], 1
    )  # the scale is that of all frames
    coloured = np.asarray(heat_map(ends, side=ends.shape[1]))[:, :-2].astype(np.float32)
    seen = image[3, ..., None].cpu().numpy()
    return (seen * coloured + (1 - seen) * 255).round().astype(np.uint8)


def save_video(trainer: Trainer, count: int = 90, size: int = 256, elevation: float = 15.0) -> Path:
    """Writes WORKSPACE/video.mp4, once around in `count` frames."""
    return write_video(
        trainer.workspace / VIDEO, frames(trainer, count, size, elevation), fps=FPS, hold=0
    )


def save_mesh(trainer: Trainer, resolution: int = 128, texture: int = 1024) -> list[Path]:
    """Writes the averaged field's surface as WORKSPACE/mesh.glb, .obj, .mtl and .png, and the page mesh.html.

    Raises MeshError if there is none.
    """
    from task_3_DreamFusion.nerf.mesh import extract_mesh  # these two are slow to import
    from task_3_DreamFusion.nerf.viewer import page

    field = trainer.renderer.field
    with trainer.averaged(), torch.no_grad():
        mesh = extract_mesh(
            field.density,
            field.albedo,
            LEVEL,
            resolution,
            texture_size=texture,
            bound=field.bound,
            device=trainer.guidance.device,
        )
    paths = mesh.save(trainer.workspace, MESH)
    viewer = trainer.workspace / f"{MESH}.html"
    files.write_text(viewer, page(mesh, trainer.settings.text))
    return [*paths, viewer]


def remove_stale_mesh(workspace: Path) -> None:
    """Remove a mesh that is older than the last checkpoint, and so of an earlier state of the run."""
    last = checkpoint.latest(workspace / "checkpoints")
    mesh = workspace / f"{MESH}.glb"
    if (
        last
        and mesh.exists()
        and mesh.stat().st_mtime_ns < (last / checkpoint.STATE).stat().st_mtime_ns
    ):
        for name in MESH_FILES:
            (workspace / name).unlink(missing_ok=True)


def save_index(folder: Path) -> Path:
    """Writes FOLDER/index.html, which shows every run in the folder and below: clip, links and settings.

    A settings.json that this program has not written counts for nothing. Raises OSError.
    """
    index = folder / INDEX
    with files.lock(
        folder, f".{INDEX}.lock", seconds=60
    ):  # runs in folders of their own share this page
        for left in folder.glob(f"{files.PARTIAL}{INDEX}-*"):
            shutil.rmtree(left, ignore_errors=True)
        runs = {
            run: settings
            for run in workspaces(folder)
            if (settings := read_settings(run / SETTINGS))
        }
        title = f"Text to 3D: {len(runs)} {'run' if len(runs) == 1 else 'runs'}"
        entries = [_entry(run, settings, folder) for run, settings in runs.items()]
        files.write_text(index, pages.render(PAGE, title=title, runs=entries))
    return index


def workspaces(folder: Path) -> list[Path]:
    """Return the folders at and below `folder` that have a settings.json, but hidden ones, in order."""
    places = []
    for place, names, contents in os.walk(
        folder
    ):  # which skips what it may not read, and follows no link
        names[:] = [name for name in names if not name.startswith(".")]
        if SETTINGS in contents:
            places.append(Path(place))
    return sorted(places)


def read_settings(path: Path) -> Settings | None:
    """Return the settings in a file that a run has written, or None for any other file of that name."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_SETTINGS:
            return None
        values = json.loads(path.read_bytes())
        if not {"text", "guidance", "model", "half"} <= set(values):
            return None
        return Settings(**known_fields(Settings, values))
    except (OSError, ValueError, TypeError, RecursionError, CourseError):
        return None


def _entry(run: Path, settings: Settings, folder: Path) -> dict[str, Any]:
    """Return what the page over all runs shows of one: text, summary, clip and links."""
    labels = {"html": "rotate the mesh", "glb": "GLB", "obj": "OBJ"}
    paths = {run / f"{MESH}.{ending}": label for ending, label in labels.items()}
    summary = f"{settings.iters} steps, seed {settings.seed}, {settings.backbone}"
    if settings.negative:
        summary += f", negative prompt: {settings.negative}"
    return {
        "text": settings.text,
        "summary": summary,
        "video": pages.link(run / VIDEO, folder) if (run / VIDEO).exists() else "",
        "links": [(pages.link(p, folder), label) for p, label in paths.items() if p.exists()],
    }
