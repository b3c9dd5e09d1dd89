"""The weights that come with the course, checked against their manifest before they are loaded."""

import hashlib
from collections.abc import Container
from pathlib import Path

from course.models.files import ROOT, ModelError, read_json, short_path

WEIGHTS = ROOT / "pocket" / "weights"
SYSTEM_FILES = {"Thumbs.db", "desktop.ini"}  # and hidden files: no library reads them


def embedded_folder(part: str) -> Path:
    """Return the folder of a part of the embedded weights, checked against the manifest.

    `part` is "stable-diffusion", "clip", "judge", "controlnet/canny" and so on. Raises ModelError,
    which names the first file that is missing, damaged or not in the manifest, and the remedy.
    """
    if problem := _first_problem(WEIGHTS, part):
        remedy = f"git checkout -- {short_path(WEIGHTS)} (or download the course again)"
        raise ModelError(f"{problem}. Restore it with: {remedy}.")
    return WEIGHTS / part


def _first_problem(root: Path, part: str) -> str | None:
    manifest = root / "manifest.json"
    if not manifest.exists():
        return f"{short_path(manifest)} is missing, so the embedded weights cannot be checked"
    try:
        files = read_json(manifest, "pocket")["files"]
        listed = {file: (int(entry["size"]), entry["sha256"]) for file, entry in files.items()}
    except (ModelError, LookupError, TypeError, ValueError, AttributeError) as error:
        return f"{short_path(manifest)} is damaged: it lists no size and sha256 of files ({error})"
    if not any(file.startswith(f"{part}/") for file in listed):
        return f"{short_path(manifest)} lists no file of {part}: the weights are incomplete"
    _refuse_other_files(root, part, listed)
    # The part's own files, and those beside all parts, such as the vocabulary.
    for file, (size, sha256) in listed.items():
        path = root / file
        if "/" in file and not file.startswith(f"{part}/"):
            continue
        if not path.is_file():
            return f"{short_path(path)} is missing"
        if path.stat().st_size != size:
            sizes = f"{path.stat().st_size:,} bytes where the manifest says {size:,}"
            return f"{short_path(path)} is damaged: {sizes}"
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != sha256:
            return f"{short_path(path)} is damaged: its SHA-256 is not the manifest's"
    return None


def _refuse_other_files(root: Path, part: str, listed: Container[str]) -> None:
    for path in sorted((root / part).rglob("*")):
        inside = path.relative_to(root)
        hidden = path.name in SYSTEM_FILES or any(name.startswith(".") for name in inside.parts)
        if inside.as_posix() not in listed and not hidden and not path.is_dir():
            raise ModelError(
                f"{short_path(path)} is not one of the embedded weights' files and might change "
                "their images. Move it to another folder; to change the model, copy the whole "
                "folder and name the copy instead of pocket."
            )
