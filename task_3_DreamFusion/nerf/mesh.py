"""Textured meshes of fields: marching cubes, simplification, UV atlas, baking; OBJ and GLB.

    mesh = extract_mesh(density, color, level=10.0)
    mesh.save(workspace)

Coordinates are those of the world: y up, the front along +z, as in glTF.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fast_simplification
import numpy as np
import torch
import trimesh
import xatlas
from PIL import Image
from scipy import ndimage
from skimage import measure
from torch import Tensor

from course.errors import CourseError
from course.files import replace_file, write_text

CHUNK = 2**18  # points evaluated at a time
# A texel's color is composited from samples inward of the surface: their number, and their distance
# in units of `bound`.
NUM_LAYERS, LAYER_STEP = 8, 0.015
MIN_PART = 0.02  # parts with less than this fraction of the largest part's area are dropped

PointFunction = Callable[[Tensor], Tensor]


class MeshError(CourseError):
    """The field has no surface; the message says why and what to change."""


@dataclass(frozen=True)
class Mesh:
    """A textured surface.

    vertices, normals: (V, 3) float32. faces: (F, 3) int64, counter-clockwise from outside. uv: (V,
    2) float32 in [0, 1], the origin at the lower left corner of the texture. texture: (H, W, 3)
    uint8, top row first.
    """

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    texture: np.ndarray

    def save(self, folder: Path, name: str = "mesh") -> list[Path]:
        """Write NAME.glb, and NAME.obj with NAME.mtl and NAME.png; return the paths."""
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(self.texture)
        # Rough and not metallic: viewers light it evenly, as the texture was baked.
        material = trimesh.visual.material.PBRMaterial(
            name=name, baseColorTexture=image, metallicFactor=0.0, roughnessFactor=1.0
        )
        mesh = trimesh.Trimesh(
            self.vertices,
            self.faces,
            vertex_normals=self.normals,
            process=False,
            visual=trimesh.visual.TextureVisuals(uv=self.uv, material=material),
        )
        paths = {kind: folder / f"{name}.{kind}" for kind in ("glb", "obj", "mtl", "png")}
        with replace_file(paths["glb"]) as new:
            mesh.export(new, include_normals=True)
        write_text(paths["obj"], self._obj(name))
        colors = "Ka 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1"
        write_text(paths["mtl"], f"newmtl {name}\n{colors}\nmap_Kd {name}.png\n")
        with replace_file(paths["png"]) as new:
            image.save(new)
        return list(paths.values())

    def _obj(self, name: str) -> str:
        lines = [f"mtllib {name}.mtl", f"o {name}"]
        lines += ["v {:.7g} {:.7g} {:.7g}".format(*vertex) for vertex in self.vertices]
        lines += ["vt {:.6f} {:.6f}".format(*uv) for uv in self.uv]
        lines += ["vn {:.4f} {:.4f} {:.4f}".format(*normal) for normal in self.normals]
        lines.append(f"usemtl {name}")
        lines += ["f " + " ".join(f"{i}/{i}/{i}" for i in face) for face in self.faces + 1]
        return "\n".join(lines) + "\n"


def extract_mesh(
    density: PointFunction,
    color: PointFunction,
    level: float = 10.0,
    resolution: int = 128,
    max_faces: int = 20_000,
    texture_size: int = 1024,
    bound: float = 1.0,
    device: torch.device | str = "cpu",
) -> Mesh:
    """Extract the surface where `density` crosses `level`, with the colors visible from outside.

    density: (N, 3) points in [-bound, bound] to (N,). color: (N, 3) to (N, 3) in [0, 1].
    resolution: points along each side of the grid. texture_size: side in pixels.

    Raises MeshError where the density never crosses the level.
    """
    # In a box of side 2 whatever the bound: libraries ignore lengths and areas below fixed limits.
    surface = marching_cubes(lambda x: density(bound * x), level, resolution, device)
    vertices, faces = remove_small_parts(*surface)
    if len(faces) > max_faces:
        vertices, faces = fast_simplification.simplify(vertices, faces, target_count=max_faces)
        vertices, faces = vertices.astype(np.float32), faces.astype(np.int64)
    normals = vertex_normals(vertices, faces)
    indices, faces, uv = unwrap(vertices, faces, texture_size)
    vertices, normals = vertices[indices], normals[indices]

    def surface_color(attributes: Tensor) -> Tensor:
        """Return colors (N, 3) under points with normals (N, 6), composited from outside.

        The outermost layer alone is thin, so training has not determined its color.
        """
        points, outward = attributes.split(3, 1)
        image, transmittance = torch.zeros_like(points), torch.ones_like(points[:, :1])
        for k in range(NUM_LAYERS):
            x = bound * (points - k * LAYER_STEP * outward)
            alpha = 1 - torch.exp(-density(x).float()[:, None] * LAYER_STEP * bound)
            image = image + transmittance * alpha * color(x).float()
            transmittance = transmittance * (1 - alpha)
        return image / (1 - transmittance).clamp(min=1e-6)

    attributes = np.concatenate([vertices, normals], 1)
    texture = bake(attributes, faces, uv, surface_color, texture_size, device)
    return Mesh((bound * vertices).astype(np.float32), normals, faces, uv, texture)


@torch.no_grad()
def evaluate(function: PointFunction, points: np.ndarray, device: torch.device | str) -> np.ndarray:
    """Evaluate a function at points (N, D), a chunk at a time."""
    chunks = torch.from_numpy(points.astype(np.float32)).split(CHUNK)
    return torch.cat([function(chunk.to(device)).float().cpu() for chunk in chunks]).numpy()


def marching_cubes(
    density: PointFunction, level: float, resolution: int, device: torch.device | str
) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices (V, 3) and faces (F, 3) of the surface at `level` (Lewiner et al. 2003).

    The grid fills [-1, 1]^3. It is padded with empty space, which closes surfaces at the box.
    Raises MeshError.
    """
    axis = np.linspace(-1, 1, resolution, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    values = evaluate(density, points, device).reshape(resolution, resolution, resolution)
    if not np.isfinite(values).all():
        raise MeshError("the field has NaN or infinite densities: train again with a smaller --lr")
    low, high = values.min(), values.max()
    if not low <= level < high:
        raise MeshError(
            f"the field has no surface at density {level:g}: its densities are from {low:.3g} to "
            f"{high:.3g}. Train longer, or set another level"
        )
    spacing = 2 / (resolution - 1)
    padded = np.pad(values, 1, constant_values=min(low, 0))
    # "ascent": the density is larger inside, and faces are counter-clockwise from outside.
    vertices, faces = measure.marching_cubes(padded, level, gradient_direction="ascent")[:2]
    return ((vertices - 1) * spacing - 1).astype(np.float32), faces.astype(np.int64)


def remove_small_parts(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Remove floating specks: parts with less than MIN_PART of the largest part's area."""
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    parts = trimesh.graph.connected_components(
        mesh.face_adjacency, nodes=np.arange(len(faces)), min_len=1
    )
    areas = [mesh.area_faces[part].sum() for part in parts]
    smallest = MIN_PART * max(areas)
    kept = [part for part, area in zip(parts, areas, strict=True) if area >= smallest]
    used, faces = np.unique(faces[np.sort(np.concatenate(kept))], return_inverse=True)
    return vertices[used], faces.reshape(-1, 3)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return unit normals (V, 3): means of the normals of adjacent faces, weighted by area."""
    corners = vertices[faces]  # (F, 3, 3)
    edges = corners[:, 1:] - corners[:, :1]
    face_normals = np.cross(edges[:, 0], edges[:, 1])  # length: twice the area
    normals = np.zeros_like(vertices)
    for i in range(3):
        np.add.at(normals, faces[:, i], face_normals)
    lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
    up = np.array([0, 1, 0], np.float32)  # arbitrary, where faces cancel out
    return np.where(lengths > 1e-12, normals / np.maximum(lengths, 1e-12), up).astype(np.float32)


def unwrap(
    vertices: np.ndarray, faces: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute a UV atlas for a texture with a side of `size` pixels.

    Returns for each new vertex the old one (V',), since vertices on seams are split, the faces (F,
    3) of new vertices, and their UV coordinates (V', 2).
    """
    charts, packing = xatlas.ChartOptions(), xatlas.PackOptions()
    charts.max_iterations = 1
    packing.resolution, packing.padding = size, 2
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices, faces.astype(np.uint32))
    atlas.generate(charts, packing)
    indices, faces, uv = atlas.get_mesh(0)
    return indices.astype(np.int64), faces.astype(np.int64), uv.astype(np.float32)


def bake(
    attributes: np.ndarray,
    faces: np.ndarray,
    uv: np.ndarray,
    color: PointFunction,
    size: int,
    device: torch.device | str,
) -> np.ndarray:
    """Return the texture (size, size, 3) uint8: `color` of the attributes of each texel.

    attributes: (V, D) of the vertices. Texels without a surface take the color of the nearest texel
    with one, so that no seam shows when a viewer interpolates.
    """
    rows, columns, values = texels(attributes, faces, uv, size)
    image = np.zeros((size, size, 3), np.float32)
    image[rows, columns] = evaluate(color, values, device)
    empty = np.ones((size, size), bool)
    empty[rows, columns] = False
    nearest = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    return (image[tuple(nearest)].clip(0, 1) * 255).round().astype(np.uint8)


def texels(
    attributes: np.ndarray, faces: np.ndarray, uv: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, columns (N,) and attributes (N, D) of all texels whose center lies in a face.

    attributes: (V, D) of the vertices. The texels of all faces' bounding boxes are tested at once,
    in one array.
    """
    pixels = np.stack([uv[..., 0] * size, (1 - uv[..., 1]) * size], -1)
    corners = pixels[faces].astype(np.float64)  # (F, 3, 2): x, y
    first = np.floor(corners.min(1) - 0.5).astype(np.int64).clip(0, size - 1)
    last = np.ceil(corners.max(1) - 0.5).astype(np.int64).clip(0, size - 1)
    widths, heights = (last - first + 1).T
    counts = widths * heights
    face = np.repeat(np.arange(len(faces)), counts)
    index = np.arange(len(face)) - np.repeat(np.cumsum(counts) - counts, counts)  # in the box
    columns = first[face, 0] + index % widths[face]
    rows = first[face, 1] + index // widths[face]

    a, b, c = (corners[face, i] for i in range(3))
    center = np.stack([columns + 0.5, rows + 0.5], -1)
    area = double_area(a, b, c)
    area = np.where(np.abs(area) < 1e-12, np.inf, area)  # a degenerate face contains no texel
    parts = double_area(center, b, c), double_area(a, center, c), double_area(a, b, center)
    weights = np.stack(parts, -1) / area[:, None]
    inside = (weights >= -1e-9).all(-1) & np.isfinite(area)
    values = np.einsum("nk,nkd->nd", weights[inside], attributes[faces[face[inside]]])
    return rows[inside], columns[inside], values.astype(np.float32)


def double_area(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return twice the signed area (N,) of triangles with corners (N, 2)."""
    return (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
