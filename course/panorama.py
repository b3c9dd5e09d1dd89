"""Looking at a panorama: a camera that pans slowly across it, and a page that turns a closed one under the mouse."""

import base64
import html
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from course.errors import CourseError
from course.pictures import Picture, to_pil


class PanoramaError(CourseError, ValueError):
    """A panorama cannot be shown; the message says why."""


def pan(picture: Picture, width: int, frames: int, closed: bool = False) -> list[Image.Image]:
    """`frames` views of `width` pixels and full height, from left to right at an even pace.

    Of a `closed` panorama the views go once around, so that the clip can begin again after the last; of an open one
    they go from edge to edge. Raises PanoramaError if the view is wider than the panorama or there is no frame.
    """
    whole = to_pil(picture)
    if not 1 <= width <= whole.width:
        raise PanoramaError(f"A view of {width} pixels does not fit a panorama of {whole.width}.")
    if frames < 1:
        raise PanoramaError(f"{frames} frames make no clip; one is the least.")
    pixels = np.asarray(whole)
    lefts = np.linspace(0, whole.width if closed else whole.width - width, frames, endpoint=not closed)
    columns = [(round(left) + np.arange(width)) % whole.width for left in lefts.tolist()]
    return [Image.fromarray(pixels[:, column]) for column in columns]


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
html, body {{ margin: 0; height: 100%; background: #111; overflow: hidden; font: 16px/1.5 system-ui, sans-serif; }}
#view {{ width: 100%; height: 100%; background: url({source}) repeat-x 0 50% / auto min(100%, {height}px);
  cursor: grab; touch-action: none; user-select: none; }}
#view:active {{ cursor: grabbing; }}
p {{ position: fixed; left: 0; right: 0; bottom: 1.2rem; margin: 0; text-align: center; color: #fff;
  text-shadow: 0 1px 4px #000; pointer-events: none; }}
</style></head>
<body><div id="view" role="img" aria-label="{title}" tabindex="0"></div>
<p>{title}<br><small>drag to turn, arrow keys too; space stops and starts</small></p>
<script>
const view = document.getElementById("view"), still = matchMedia("(prefers-reduced-motion: reduce)").matches;
let place = 0, speed = still ? 0 : 24, held = null, before = performance.now();
function show() {{ view.style.backgroundPositionX = -place + "px"; }}
function turn(now) {{
  if (held === null) place += speed * (now - before) / 1000;
  before = now; show(); requestAnimationFrame(turn);
}}
view.addEventListener("pointerdown", e => {{ held = e.clientX + place; view.setPointerCapture(e.pointerId); }});
view.addEventListener("pointermove", e => {{ if (held !== null) place = held - e.clientX; }});
for (const end of ["pointerup", "pointercancel"]) view.addEventListener(end, () => {{ held = null; }});
addEventListener("keydown", e => {{
  if (e.key === "ArrowRight") place += 40;
  else if (e.key === "ArrowLeft") place -= 40;
  else if (e.key === " ") speed = speed ? 0 : 24;
}});
requestAnimationFrame(turn);
</script></body></html>
"""


def write_page(path: str | Path, picture: Picture, title: str) -> Path:
    """Write one HTML file that turns a closed panorama: by itself, by the mouse, a finger or the arrow keys.

    The picture is in the file, so it needs nothing else, and no network. Returns the path; raises PanoramaError for
    another ending or a path that cannot be written."""
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise PanoramaError(f"A page ends in .html, and {path.name!r} does not.")
    whole, file = to_pil(picture), BytesIO()
    whole.save(file, "PNG", optimize=True)  # not JPEG: its blocks would show where the ends meet
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = PAGE.format(title=html.escape(title), source=source, height=3 * whole.height)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PanoramaError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path
