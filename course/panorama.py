"""Panoramas around the lesson: wishes that cannot be, a camera that pans slowly, a page that turns a closed one."""

import base64
import html
import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from course.errors import CourseError
from course.models import RequestError
from course.pictures import Picture, to_pil


class PanoramaError(CourseError, ValueError):
    """A panorama cannot be shown; the message says why."""


# --- Wishes


def check_windows(height: int, width: int, window: int, stride: int) -> None:
    """Raise RequestError if windows cannot cover latents of height x width; all in latent pixels."""
    for name, side in (("height", height), ("width", width)):
        if side < window:
            raise RequestError(
                f"A {name} of {side} latent pixels is below one window of {window}: ask for {window} or more, "
                "or draw a smaller picture without windows, as in lesson 1.2."
            )
    if isinstance(stride, bool) or not isinstance(stride, int) or not 1 <= stride <= window:
        raise RequestError(
            f"A stride of {stride!r} leaves gaps between windows of {window}: it is a whole number from 1 to {window}."
        )


def check_sync(sync: Any, window: int) -> Any:
    """The settings of synchronization (lesson 2, `Sync`) if windows of `window` latent pixels can be synchronized so;
    else raises RequestError."""
    whole = isinstance(sync.every, int) and sync.every >= 1
    for name, fits, advice in (
        ("weight", math.isfinite(sync.weight) and sync.weight > 0, "above 0; use_syncdiffusion=False is without"),
        ("decay", 0 < sync.decay <= 1, "above 0 and at most 1"),
        ("until", 0 < sync.until <= 1, "a share of the steps, above 0 and at most 1"),
        ("every", whole, "a whole number from 1"),
        (
            "scale",
            0 < sync.scale <= 1 and window * sync.scale % 1 == 0,
            f"a part of 1, such as 0.5, of {window} pixels",
        ),
        ("through", sync.through in ("denoiser", "decoder"), "'denoiser' or 'decoder'"),
    ):
        if not fits:
            raise RequestError(f"Synchronization with {name} = {getattr(sync, name)!r} cannot be: it is {advice}.")
    return sync


def check_masks(regions: Sequence[tuple[str, torch.Tensor]], height: int, width: int) -> torch.Tensor:
    """The masks (R, height, width) of regions, each a prompt and a mask from 0 to 1, or RequestError."""
    if not regions:
        raise RequestError("There is no region: give one or more, each a prompt and a mask; or call `sample`.")
    for prompt, mask in regions:
        if tuple(mask.shape) != (height, width):
            raise RequestError(
                f'The mask of "{prompt}" is {tuple(mask.shape)}; the latents of this picture are {(height, width)}.'
            )
        if not (mask.min() >= 0 and 0 < mask.max() <= 1):
            raise RequestError(f'The mask of "{prompt}" has to be from 0 to 1, and above 0 somewhere.')
    return torch.stack([mask.float() for _, mask in regions])


# --- Looking at it


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
