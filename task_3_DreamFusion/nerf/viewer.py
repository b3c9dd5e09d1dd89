"""A page that shows a mesh from all sides: one HTML file for any browser, without a network."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from course import pages
from task_3_DreamFusion.nerf.mesh import Mesh

TEMPLATE = Path(__file__).parent / "templates" / "viewer.html"


def page(mesh: Mesh, title: str, turning: bool = True) -> str:
    """Return the page as HTML. turning: whether the mesh rotates by itself."""
    png = io.BytesIO()
    Image.fromarray(mesh.texture).save(png, "PNG")
    parts = {
        "position": mesh.vertices.astype("<f4").tobytes(),
        "normal": mesh.normals.astype("<f4").tobytes(),
        "uv": mesh.uv.astype("<f4").tobytes(),
        "faces": np.ascontiguousarray(mesh.faces).astype("<u4").tobytes(),
        "texture": png.getvalue(),
    }
    data = {name: base64.b64encode(part).decode("ascii") for name, part in parts.items()}
    return pages.render(TEMPLATE, title=title, data=data, turning=turning)
