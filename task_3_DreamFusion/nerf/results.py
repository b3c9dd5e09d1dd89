"""What comes out of a run: a clip that goes round it, a mesh with a page that turns it, and a page over all runs."""

import html
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from course.pictures import heat
from course.video import write_video
from task_3_DreamFusion.nerf import checkpoint
from task_3_DreamFusion.nerf.mesh import extract
from task_3_DreamFusion.nerf.provider import Cameras, orbit
from task_3_DreamFusion.nerf.renderer import Renderer
from task_3_DreamFusion.nerf.utils import SETTINGS, Trainer
from task_3_DreamFusion.nerf.viewer import page

VIDEO, MESH = "video.mp4", "mesh"
FPS = 30
SEEN = 0.01  # opacity from which a pixel has a normal
LEVEL = 5.0  # the density at which a mesh has its surface

STYLE = """body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; font: 16px/1.45 system-ui, sans-serif; color: #222;
  background: #f7f7f5; }
h1 { font-size: 1.4rem; } section { background: #fff; border: 1px solid #ddd; border-radius: 8px; padding: 1rem;
  margin: 1rem 0; } h2 { margin: 0 0 .6rem; font-size: 1.1rem; } video { width: 100%; border-radius: 4px; }
p { margin: .5rem 0 0; color: #555; font-size: .9rem; }"""


def frames(trainer: Trainer, count: int, size: int, elevation: float) -> Iterator[np.ndarray]:
    """Pictures (size, 3 * size, 3) uint8 once around the averaged field: colour, depth and normals side by side."""
    cameras = orbit(count, elevation)
    radius = float(cameras.radius[0])
    with trainer.averaged():
        pictures = trainer.renderer.finished(cameras, size, size)
        for i, colour in enumerate(tqdm(pictures, total=count, desc="video", unit="frame")):
            normals = normal_map(trainer.renderer, cameras[i : i + 1], colour)
            yield np.concatenate([as_bytes(colour[:3]), depth_map(colour, radius), as_bytes(normals)], axis=1)


@torch.no_grad()
def normal_map(renderer: Renderer, camera: Cameras, picture: Tensor) -> Tensor:
    """Normals (3, H, W) as colours of a finished picture (5, H, W), white where nothing is.

    They are those of the field at the depth that the picture has, once a pixel: at every sample of its ray they would
    cost several times as much as the colours.
    """
    opacity, depth = picture[3], picture[4]
    origins, directions = (part[0] for part in camera.to(renderer.device).rays(*opacity.shape))  # (H, W, 3)
    seen = opacity > SEEN
    places = (origins + depth[..., None] * directions)[seen]
    colours = torch.ones_like(origins)
    colours[seen] = 0.5 + 0.5 * renderer.field.normals(places, renderer.normal_step)
    return (opacity * colours.permute(2, 0, 1) + (1 - opacity)).clamp(0, 1)


def as_bytes(picture: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] as (H, W, 3) uint8."""
    return (picture.permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def depth_map(picture: Tensor, radius: float) -> np.ndarray:
    """The depth of a finished picture (5, H, W) in false colours, near is bright, over the range of the box; white
    where nothing is."""
    opacity, depth = picture[3].cpu(), picture[4].cpu()
    near = ((radius + 1 - depth) / 2).clamp(0, 1)
    ends = torch.cat([near, torch.tensor([0.0, 1.0]).expand(len(near), 2)], 1)  # the scale is that of all frames
    coloured = np.asarray(heat(ends, side=ends.shape[1]))[:, :-2].astype(np.float32)
    seen = opacity[..., None].numpy()
    return (seen * coloured + (1 - seen) * 255).round().astype(np.uint8)


def save_video(trainer: Trainer, count: int = 90, size: int = 256, elevation: float = 15.0) -> Path:
    """Writes WORKSPACE/video.mp4, once around in `count` frames."""
    return write_video(trainer.workspace / VIDEO, frames(trainer, count, size, elevation), fps=FPS, hold=0)


def save_mesh(trainer: Trainer, resolution: int = 128, texture: int = 1024) -> list[Path]:
    """Writes the averaged field's surface as WORKSPACE/mesh.glb, .obj, .mtl and .png, and the page mesh.html.

    Raises MeshError if there is none.
    """
    field = trainer.renderer.field
    with trainer.averaged(), torch.no_grad():
        mesh = extract(
            field.density, field.albedo, LEVEL, resolution, texture=texture, bound=field.bound,
            device=trainer.guidance.device,
        )  # fmt: skip
    paths = mesh.save(trainer.workspace, MESH)
    viewer = trainer.workspace / f"{MESH}.html"
    viewer.write_text(page(mesh, trainer.settings.text), encoding="utf-8")
    return [*paths, viewer]


def save_index(folder: Path) -> Path:
    """Writes FOLDER/index.html, which shows every run in the folder and below: clip, links and settings."""
    runs = sorted(path.parent for path in folder.rglob(SETTINGS))
    sections = "\n".join(_section(run, folder) for run in runs)
    index = folder / "index.html"
    checkpoint.write_text(
        index,
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>Text to 3D</title>'
        f"<style>{STYLE}</style></head><body><h1>Text to 3D: {len(runs)} "
        f"{'run' if len(runs) == 1 else 'runs'}</h1>\n{sections}\n</body></html>\n",
    )
    return index


def _section(run: Path, folder: Path) -> str:
    settings = json.loads((run / SETTINGS).read_text())
    links = [
        f'<a href="{_address(run / name, folder)}">{said}</a>'
        for name, said in ((f"{MESH}.html", "turn the mesh"), (f"{MESH}.glb", "GLB"), (f"{MESH}.obj", "OBJ"))
        if (run / name).exists()
    ]
    clip = ""
    if (run / VIDEO).exists():
        clip = f'<video src="{_address(run / VIDEO, folder)}" autoplay loop muted playsinline controls></video>'
    told = f"{settings['iters']} steps, seed {settings['seed']}, {settings['backbone']}"
    if settings["negative"]:
        told += f", without: {settings['negative']}"
    said = " · ".join([html.escape(told), *links])
    return f"<section><h2>{html.escape(settings['text'])}</h2>{clip}<p>{said}</p></section>"


def _address(path: Path, folder: Path) -> str:
    return html.escape(quote(path.relative_to(folder).as_posix()))
