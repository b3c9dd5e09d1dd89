"""The weights that come with the course, checked against their manifest before they are loaded."""

import hashlib
from pathlib import Path

from course.models.files import ROOT, ModelError, file_label, read_json, short_path

WEIGHTS = ROOT / "pocket" / "weights"
SYSTEM_FILES = {"Thumbs.db", "desktop.ini"}  # and hidden files: no library reads them


def embedded_folder(part: str) -> Path:
    """Return the folder of a part of the embedded weights, checked against the manifest.

    `part` is "stable-diffusion", "clip", "judge", "controlnet/canny" and so on. Raises ModelError
    if a file is missing, damaged or not in the manifest.
    """
    verify(WEIGHTS, part)
    return WEIGHTS / part


def verify(root: Path, part: str) -> None:
    """Check every file of `part`, a folder below `root`, against size and SHA-256 in the manifest.

    Raises ModelError, which names the first file that is missing, differs or is not in
    `root`/manifest.json, and the remedy.
    """

    remedy = f"Restore it with: git checkout -- {short_path(root)} (or download the course again)."
    manifest = root / "manifest.json"
    if not manifest.exists():
        problem = f"{short_path(manifest)} is missing, so the embedded weights cannot be checked"
        raise ModelError(f"{problem}. {remedy}")
    listed = _manifest_entries(manifest, remedy)
    if not any(file.startswith(f"{part}/") for file in listed):
        problem = f"{short_path(manifest)} lists no file of {part}: the weights are incomplete"
        raise ModelError(f"{problem}. {remedy}")
    for path in sorted((root / part).rglob("*")):
        inside = path.relative_to(root)
        hidden = path.name in SYSTEM_FILES or any(name.startswith(".") for name in inside.parts)
        if inside.as_posix() not in listed and not hidden and not path.is_dir():
            raise ModelError(
                f"{short_path(path)} is not one of the embedded weights' files and might change "
                "their images. Move it to another folder; to change the model, copy the whole "
                "folder and name the copy instead of pocket."
            )
    # The part's own files, and those beside all parts, such as the vocabulary.
    for file, (size, sha256) in listed.items():
        path = root / file
        if "/" in file and not file.startswith(f"{part}/"):
            continue
        if not path.is_file():
            raise ModelError(f"{short_path(path)} is missing. {remedy}")
        if path.stat().st_size != size:
            sizes = f"{path.stat().st_size:,} bytes where the manifest says {size:,}"
            raise ModelError(f"{short_path(path)} is damaged: {sizes}. {remedy}")
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != sha256:
            problem = f"{short_path(path)} is damaged: its SHA-256 is not the manifest's"
            raise ModelError(f"{problem}. {remedy}")


def _manifest_entries(manifest: Path, remedy: str) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 by file."""
    try:
        files = read_json(manifest, "pocket")["files"]
        return {file: (int(entry["size"]), str(entry["sha256"])) for file, entry in files.items()}
    except ModelError as error:
        raise ModelError(f"{error} {remedy}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"{file_label(manifest, 'pocket')} is damaged: it lists no size and sha256"
        raise ModelError(f"{problem} for each file. {remedy}") from error
