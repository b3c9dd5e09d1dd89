"""Files of a run: written whole or not at all, in a folder that one run uses at a time.

    with lock(workspace):
        remove_leftovers(workspace)
        with replacing(workspace / "mesh.png") as new:
            image.save(new)

Whoever reads a file while it is written finds the old contents or the new ones. What a killed run
was writing lies beside the files under names that start with a dot, and the next run removes it.
"""

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from course.errors import CourseError, CourseWarning

LOCK = ".lock"
PARTIAL = ".partial-"  # prefix of the folder that a file is written in
# What is left of a killed run: files of `replacing`, clips of course.images.video, checkpoints.
LEFTOVERS = (f"{PARTIAL}*", ".clip-*", "partial-*")
FOLDERS = ("", "checkpoints", "claims", "previews")  # of a workspace


class FolderInUse(CourseError):
    """Another run uses the folder; the message names it and says what to do."""


class LockWarning(CourseWarning):
    """The file system has no locks, so nothing protects the folder from a second run."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to, from which the file moves to `path` when the block ends.

    An error in the block leaves `path` as it was. Raises OSError where it cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix=f"{PARTIAL}{path.name}-", dir=path.parent) as private:
        new = Path(private) / path.name
        yield new
        with new.open("rb+") as file:
            os.fsync(file.fileno())  # or else a power cut could leave the name without the contents
        new.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all, in UTF-8. Raises OSError."""
    with replacing(path) as new:
        new.write_bytes(text.encode("utf-8"))


@contextlib.contextmanager
def lock(folder: Path, name: str = LOCK, seconds: float = 0) -> Iterator[None]:
    """Hold a folder for this process alone, until the block or the process ends, however it ends.

    seconds: how long to wait for another process. Raises FolderInUse after that.
    """
    path = folder / name
    held = FileLock(path)
    try:
        held.acquire(timeout=seconds)
    except Timeout as error:
        raise FolderInUse(
            f"--workspace {folder} is in use by another run: wait until it ends, or name another --workspace."
        ) from error
    except (OSError, NotImplementedError) as error:
        message = f"{folder} cannot be locked ({error}): do not start a second run in it."
        warnings.warn(message, LockWarning, stacklevel=2)
    try:
        yield
    finally:
        if held.is_locked and os.name != "nt":  # Windows removes the file with the lock
            path.unlink(missing_ok=True)
        held.release()


def remove_leftovers(workspace: Path) -> None:
    """Remove what a killed run was writing in a workspace, whose lock the caller holds."""
    for folder in FOLDERS:
        for pattern in LEFTOVERS:
            for left in (workspace / folder).glob(pattern):
                shutil.rmtree(left, ignore_errors=True)  # what cannot be removed does no harm
