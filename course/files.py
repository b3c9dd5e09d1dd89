"""Files and folders that are written whole or not at all, and locks.

    with lock(folder / ".lock"):
        remove_partial(folder)
        with replace_file(folder / "mesh.png") as new:
            image.save(new)

Whoever reads while a file is written gets the old contents or the new ones. What a killed process
was writing stays beside the file in a folder whose name starts with `PARTIAL`.
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

PARTIAL = ".partial-"  # prefix of the folders in which unfinished files lie


class LockTimeout(CourseError):
    """Another process holds the lock; the message names it and says what to do."""


class LockWarning(CourseWarning):
    """The file system has no locks, so nothing protects the folder from a second process."""


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; move that file to `path` when the block ends.

    An error in the block leaves `path` as it was. Raises OSError if the folder of `path` does not
    exist or cannot be written.
    """
    with _partial(path) as new:
        yield new
        with new.open("rb+") as file:
            os.fsync(file.fileno())  # or else a power cut could leave the name without the contents
        new.replace(path)


@contextlib.contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield a new, empty folder to fill; move it to `folder` when the block ends.

    An error in the block leaves `folder` as it was. Creates the folders above it. Raises OSError
    if it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _partial(folder) as new:
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(new.with_name(".old"))  # removed with the temporary folder
        new.rename(folder)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all, in UTF-8. Raises OSError."""
    with replace_file(path) as new:
        new.write_bytes(text.encode("utf-8"))


def remove_partial(folder: Path, name: str = "") -> None:
    """Remove what killed processes were writing in `folder`, or only files that start with `name`.

    The caller makes sure that no other process writes there, for example by `lock`.
    """
    for path in folder.glob(f"{PARTIAL}*"):
        if path.name.startswith(PARTIAL + name):
            shutil.rmtree(path, ignore_errors=True)  # what cannot be removed does no harm


@contextlib.contextmanager
def lock(path: Path, timeout: float = 0) -> Iterator[None]:
    """Hold a lock file until the block or the process ends, however it ends; then remove the file.

    timeout: seconds to wait for another process. Raises LockTimeout after that. Warns with
    LockWarning on a file system without locks, and goes on.
    """
    file_lock = FileLock(path, fallback_to_soft=False)
    try:
        file_lock.acquire(timeout=timeout)
    except Timeout as error:
        raise LockTimeout(
            f"{path.parent} is in use by another process: wait until it ends, or choose another "
            "folder."
        ) from error
    except (OSError, NotImplementedError) as error:
        message = f"{path.parent} cannot be locked ({error}): start no second process in it."
        warnings.warn(message, LockWarning, stacklevel=3)
    try:
        yield
    finally:
        if file_lock.is_locked:
            # Removed before it is released: whoever waits for a removed file opens a new one.
            with contextlib.suppress(PermissionError):  # Windows, where filelock removes it itself
                path.unlink(missing_ok=True)
            file_lock.release()


@contextlib.contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder beside `path`."""
    with tempfile.TemporaryDirectory(prefix=f"{PARTIAL}{path.name}-", dir=path.parent) as private:
        yield Path(private) / path.name
