"""From a field to a textured mesh: marching cubes, simplification, a UV atlas, a baked texture; OBJ and GLB.

    mesh = extract(density, colour, level=10.0)
    mesh.save(workspace)

Coordinates are those of the world: y up, the front along +z, as glTF has it too.
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
from task_3_DreamFusion.nerf.files import replacing, write_text

CHUNK = 2**18  # points asked of the field at a time
LAYERS, LAYER = (
    8,
    0.015,
)  # what is seen at the surface: so many samples inwards, so far apart, in units of `bound`
SPECKLE = 0.02  # parts with less than this share of the largest one's surface are dropped


class MeshError(CourseError):
    """There is no mesh to be had; the message says why and what to change."""


@dataclass(frozen=True)
class Mesh:
    """A textured surface.

    vertices, normals: (V, 3) float32. faces: (F, 3) int64, counter-clockwise from outside. uv: (V, 2) float32 in
    [0, 1], the origin at the texture's lower left corner. texture: (H, W, 3) uint8, its first row the upper edge.
    """

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    texture: np.ndarray

    def save(self, folder: Path, name: str = "mesh") -> list[Path]:
        """Writes NAME.glb, and NAME.obj with NAME.mtl and NAME.png, into `folder`; returns the four paths."""
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(self.texture)
        # A rough surface that is no metal: viewers light it evenly, as the texture was seen.
        material = trimesh.visual.material.PBRMaterial(
            name=name, baseColorTexture=image, metallicFactor=0.0, roughnessFactor=1.0
        )
        whole = trimesh.Trimesh(
            self.vertices, self.faces, vertex_normals=self.normals, process=False,
            visual=trimesh.visual.TextureVisuals(uv=self.uv, material=material),
        )  # fmt: skip
        paths = [folder / f"{name}.{ending}" for ending in ("glb", "obj", "mtl", "png")]
        with replacing(paths[0]) as new:
            whole.export(new, include_normals=True)
        write_text(paths[1], self._obj(name))
        write_text(
            paths[2], f"newmtl {name}\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {name}.png\n"
        )
        with replacing(paths[3]) as new:
            image.save(new)
        return paths

    def _obj(self, name: str) -> str:
        lines = [f"mtllib {name}.mtl", f"o {name}"]
        lines += ["v {:.7g} {:.7g} {:.7g}".format(*vertex) for vertex in self.vertices]
        lines += ["vt {:.6f} {:.6f}".format(*place) for place in self.uv]
        lines += ["vn {:.4f} {:.4f} {:.4f}".format(*normal) for normal in self.normals]
        lines.append(f"usemtl {name}")
        lines += ["f " + " ".join(f"{i}/{i}/{i}" for i in face) for face in self.faces + 1]
        return "\n".join(lines) + "\n"


Field = Callable[[Tensor], Tensor]


def extract(
    density: Field,
    colour: Field,
    level: float = 10.0,
    resolution: int = 128,
    faces: int = 20_000,
    texture: int = 1024,
    bound: float = 1.0,
    device: torch.device | str = "cpu",
) -> Mesh:
    """The surface where `density` crosses `level`, with the colours that are seen there from outside.

    density: (N, 3) points within [-bound, bound] to (N,). colour: (N, 3) to (N, 3) in [0, 1]. resolution: points
    along each side of the grid. faces: at most so many. texture: its side in pixels.

    Raises MeshError where the density never crosses the level.
    """
    # In a box of side 2 whatever the bound: libraries take lengths and areas below a limit of their own for nothing.
    surface = march(lambda x: density(bound * x), level, resolution, 1.0, device)
    vertices, triangles = largest_parts(*surface)
    if len(triangles) > faces:
        vertices, triangles = fast_simplification.simplify(vertices, triangles, target_count=faces)
        vertices, triangles = vertices.astype(np.float32), triangles.astype(np.int64)
    normals = vertex_normals(vertices, triangles)
    origin, triangles, uv = unwrap(vertices, triangles, texture)
    vertices, normals = vertices[origin], normals[origin]

    def seen(places: Tensor) -> Tensor:
        """Colours (N, 3) of the layers under points with their normals (N, 6), composited from outside: the outermost
        alone is thin, and nothing has taught it its colour."""
        points, outward = places.split(3, 1)
        image, left = torch.zeros_like(points), torch.ones_like(points[:, :1])
        for k in range(LAYERS):
            x = bound * (points - k * LAYER * outward)
            alpha = 1 - torch.exp(-density(x).float()[:, None] * LAYER * bound)
            image, left = image + left * alpha * colour(x).float(), left * (1 - alpha)
        return image / (1 - left).clamp(min=1e-6)

    attributes = np.concatenate([vertices, normals], 1)
    baked = bake(attributes, triangles, uv, seen, texture, device)
    return Mesh((bound * vertices).astype(np.float32), normals, triangles, uv, baked)


@torch.no_grad()
def ask(field: Field, points: np.ndarray, device: torch.device | str) -> np.ndarray:
    """What a field says at points (N, D), a chunk at a time."""
    chunks = torch.from_numpy(points.astype(np.float32)).split(CHUNK)
    return torch.cat([field(chunk.to(device)).float().cpu() for chunk in chunks]).numpy()


def march(
    density: Field, level: float, resolution: int, bound: float, device: torch.device | str
) -> tuple[np.ndarray, np.ndarray]:
    """Marching cubes (Lewiner et al. 2003): vertices (V, 3) float32 and faces (F, 3) of the surface at `level`.

    The grid has a rim of nothing, so that a form which touches the box is closed there. Raises MeshError.
    """
    axis = np.linspace(-bound, bound, resolution, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    values = ask(density, points, device).reshape(resolution, resolution, resolution)
    if not np.isfinite(values).all():
        raise MeshError(
            "the field has densities that are no numbers: train it again with a smaller --lr"
        )
    if values.max() <= level or values.min() > level:
        what = "nowhere as dense as" if values.max() <= level else "everywhere denser than"
        raise MeshError(
            f"no surface: the field is {what} {level:g} (its densities go from {values.min():.3g} to "
            f"{values.max():.3g}). Train longer, or set another level"
        )
    spacing = 2 * bound / (resolution - 1)
    # "ascent": inside is where the density is larger, and faces turn counter-clockwise seen from outside
    vertices, triangles, *_ = measure.marching_cubes(
        np.pad(values, 1, constant_values=min(values.min(), 0)), level, gradient_direction="ascent"
    )
    return ((vertices - 1) * spacing - bound).astype(np.float32), triangles.astype(np.int64)


def largest_parts(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without the specks that float around a form: parts with less than SPECKLE of the largest one's surface."""
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    groups = trimesh.graph.connected_components(
        mesh.face_adjacency, nodes=np.arange(len(faces)), min_len=1
    )
    areas = [mesh.area_faces[group].sum() for group in groups]
    kept = np.concatenate(
        [group for group, area in zip(groups, areas, strict=True) if area >= SPECKLE * max(areas)]
    )
    used, faces = np.unique(faces[np.sort(kept)], return_inverse=True)
    return vertices[used], faces.reshape(-1, 3)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals (V, 3): those of the faces around a vertex, by their areas."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    across = np.cross(b - a, c - a)  # its length is twice the area
    normals = np.zeros_like(vertices)
    for i in range(3):
        np.add.at(normals, faces[:, i], across)
    lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
    up = np.array([0, 1, 0], np.float32)  # where faces cancel out, any
    return np.where(lengths > 1e-12, normals / np.maximum(lengths, 1e-12), up).astype(np.float32)


def unwrap(
    vertices: np.ndarray, faces: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A UV atlas for a texture of so many pixels a side: which vertex (V',) each new one was, for one on a seam is
    several now, the faces (F, 3) between the new ones, and their places (V', 2)."""
    atlas, charts, packing = xatlas.Atlas(), xatlas.ChartOptions(), xatlas.PackOptions()
    charts.max_iterations = 1
    packing.resolution, packing.padding = side, 2
    atlas.add_mesh(vertices, faces.astype(np.uint32))
    atlas.generate(charts, packing)
    origin, indices, uv = atlas.get_mesh(0)
    return origin.astype(np.int64), indices.astype(np.int64), uv.astype(np.float32)


def bake(
    attributes: np.ndarray,
    faces: np.ndarray,
    uv: np.ndarray,
    colour: Field,
    side: int,
    device: torch.device | str,
) -> np.ndarray:
    """The texture (side, side, 3) uint8: what `colour` says of the attributes, (V, D) at the vertices, at the point of
    the surface that each texel shows.

    Texels without a surface take the colour of the nearest that has one, so that no seam shows when a viewer blends.
    """
    rows, columns, places = texels(attributes, faces, uv, side)
    image = np.zeros((side, side, 3), np.float32)
    image[rows, columns] = ask(colour, places, device)
    empty = np.ones((side, side), bool)
    empty[rows, columns] = False
    _, (near_rows, near_columns) = ndimage.distance_transform_edt(empty, return_indices=True)
    return (image[near_rows, near_columns].clip(0, 1) * 255).round().astype(np.uint8)


def texels(
    attributes: np.ndarray, faces: np.ndarray, uv: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns (N,) and attributes (N, D), from those of the vertices (V, D), of all texels whose centre lies in a
    face of the atlas.

    Every face looks at the texels of its bounding box: all boxes are laid end to end in one array.
    """
    corners = np.stack([uv[..., 0] * side, (1 - uv[..., 1]) * side], -1)[faces].astype(
        np.float64
    )  # (F, 3, 2): x, y
    first = np.floor(corners.min(1) - 0.5).astype(np.int64).clip(0, side - 1)
    last = np.ceil(corners.max(1) - 0.5).astype(np.int64).clip(0, side - 1)
    wide, high = (last - first + 1).T
    face = np.repeat(np.arange(len(faces)), wide * high)
    place = np.arange(len(face)) - np.repeat(np.cumsum(wide * high) - wide * high, wide * high)
    columns, rows = first[face, 0] + place % wide[face], first[face, 1] + place // wide[face]

    a, b, c = (corners[face, i] for i in range(3))
    centre = np.stack([columns + 0.5, rows + 0.5], -1)

    def double_area(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        return (q[:, 0] - p[:, 0]) * (r[:, 1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (r[:, 0] - p[:, 0])

    whole = double_area(a, b, c)
    whole = np.where(np.abs(whole) < 1e-12, np.inf, whole)  # a face without area holds no texel
    weights = np.stack(
        [double_area(centre, b, c), double_area(a, centre, c), double_area(a, b, centre)], -1
    )
    weights /= whole[:, None]
    inside = (weights >= -1e-9).all(-1) & np.isfinite(whole)
    places = np.einsum("nk,nkd->nd", weights[inside], attributes[faces[face[inside]]])
    return rows[inside], columns[inside], places.astype(np.float32)
