"""The page over all runs of a folder: their clips, links and settings."""

import json
import os
from pathlib import Path
from typing import Any

from course import pages
from course.errors import CourseError
from course.files import lock, remove_partial, write_text
from task_3_DreamFusion.nerf.export import MESH, VIDEO
from task_3_DreamFusion.nerf.options import build
from task_3_DreamFusion.nerf.settings import SETTINGS, Settings

INDEX = "index.html"
MAX_SETTINGS = 2**20  # bytes of a settings.json: a larger file is of another program
PAGE = Path(__file__).parent / "templates" / "index.html"


def save_index(folder: Path) -> Path:
    """Write FOLDER/index.html over all runs in the folder and below; return its path.

    A settings.json that this program has not written is ignored. Raises OSError.
    """
    index = folder / INDEX
    with lock(folder / f".{INDEX}.lock", timeout=60):  # runs in folders of their own share it
        remove_partial(folder, INDEX)
        runs = {run: read_settings(run / SETTINGS) for run in workspaces(folder)}
        entries = [_entry(run, settings, folder) for run, settings in runs.items() if settings]
        title = f"Text to 3D: {len(entries)} {'run' if len(entries) == 1 else 'runs'}"
        write_text(index, pages.render(PAGE, title=title, runs=entries))
    return index


def workspaces(folder: Path) -> list[Path]:
    """Return the folders at and below `folder` that have a settings.json, except hidden ones."""
    paths = []
    for path, names, contents in os.walk(folder):  # skips what cannot be read, follows no link
        names[:] = [name for name in names if not name.startswith(".")]
        if SETTINGS in contents:
            paths.append(Path(path))
    return sorted(paths)


def read_settings(path: Path) -> Settings | None:
    """Return the settings in a file that a run has written; None for any other file."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_SETTINGS:
            return None
        values = json.loads(path.read_bytes())
        if not {"text", "guidance", "model", "half"} <= set(values):
            return None
        return build(Settings, values)
    except (OSError, AttributeError, ValueError, TypeError, RecursionError, CourseError):
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
