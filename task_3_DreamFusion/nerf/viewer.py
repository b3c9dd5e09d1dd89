"""A page that turns a mesh: one HTML file with everything in it, for any browser, without a network."""

import base64
import html
import io
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from task_3_DreamFusion.nerf.mesh import Mesh

TEMPLATE = Path(__file__).with_name("viewer.html")


def page(mesh: Mesh, title: str, azimuth: float = 0.0, turning: bool = True) -> str:
    """The HTML of the page. azimuth: where the camera begins, in degrees. turning: whether it goes round by itself."""
    png = io.BytesIO()
    Image.fromarray(mesh.texture).save(png, "PNG")
    parts = {
        "place": mesh.vertices.astype("<f4").tobytes(),
        "normal": mesh.normals.astype("<f4").tobytes(),
        "uv": mesh.uv.astype("<f4").tobytes(),
        "faces": np.ascontiguousarray(mesh.faces).astype("<u4").tobytes(),
        "texture": png.getvalue(),
    }
    filled = {
        "title": html.escape(title),
        "azimuth": json.dumps(float(azimuth)),
        "turning": json.dumps(bool(turning)),
        "data": json.dumps(
            {name: base64.b64encode(data).decode("ascii") for name, data in parts.items()}
        ),
    }
    template = TEMPLATE.read_text(encoding="utf-8")
    # All at once: what is filled in is not searched, so a title may hold "{{data}}".
    return re.sub(r"\{\{(\w+)\}\}", lambda place: filled[place[1]], template)
