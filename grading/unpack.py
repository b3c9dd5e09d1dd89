"""The files of a submission: folders, single files and zips, with limits on all of them.

An entry of a zip is never written under its own name, so no name can leave the folder. Only files
that the grader reads are unpacked. What is wrong is a line of `problems`, never an error.
"""

import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

MIB = 1 << 20
END_OF_ZIP = b"PK\x05\x06"
END_SIZE = 22  # bytes of the record at the end of a zip, without its comment
MAX_COMMENT = 0xFFFF
NOTEBOOKS = (".ipynb",)
MEDIA = (".png", ".jpg", ".jpeg", ".gif", ".mp4")
ARCHIVES = (".zip",)
OTHER_ARCHIVES = (".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst")
WANTED = (*NOTEBOOKS, *MEDIA, *ARCHIVES, ".py")
# Folders that tools leave behind.
LEFT_OUT = ("__MACOSX", "__pycache__", "node_modules", "site-packages")


@dataclass(frozen=True)
class Limits:
    """What a submission may have, all its zips together."""

    files: int = 1000  # that the grader reads
    entries: int = 50_000  # in a zip or a folder, of any kind
    file_size: int = 200 * MIB
    total_size: int = 1024 * MIB
    depth: int = 2  # of zips in zips
    problems: int = 30  # lines


@dataclass(frozen=True)
class File:
    """A regular file: its name in the submission, with "/", and where its bytes are."""

    name: str
    path: Path

    @property
    def suffix(self) -> str:
        """The end of its name in lower case, such as ".ipynb"."""
        return PurePosixPath(self.name).suffix.lower()


@dataclass
class Unpacking:
    """The files of one submission, and what was wrong with them.

    folder: empty, for files from zips.
    """

    folder: Path
    limits: Limits = Limits()
    files: list[File] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    size: int = 0  # bytes in the folder

    def complain(self, problem: str) -> None:
        """Add a line to the problems, unless it is there or there are too many."""
        problem = plain(problem)
        if problem not in self.problems and len(self.problems) < self.limits.problems:
            self.problems.append(problem)

    def add(self, path: Path, name: str, depth: int = 0) -> None:
        """Add a file, or the files of a zip."""
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in OTHER_ARCHIVES:
            self.complain(f"{name} is no zip: archives have to be .zip files.")
        if suffix not in WANTED:
            return
        if suffix in ARCHIVES:
            self._unpack(path, name, depth + 1)
        elif len(self.files) >= self.limits.files:
            self.complain(f"There are more than {self.limits.files} files: the rest is not read.")
        else:
            self.files.append(File(name, path))

    def _unpack(self, path: Path, name: str, depth: int) -> None:
        if depth > self.limits.depth:
            self.complain(f"{name} is a zip in a zip in a zip: it is not unpacked.")
            return
        if reason := _reason_against_zip(path, self.limits):
            self.complain(f"{name} {reason}")
            return
        try:
            with zipfile.ZipFile(path) as archive:
                names: set[str] = set()
                for entry in archive.infolist():
                    self._take(archive, entry, name, names, depth)
        except (zipfile.BadZipFile, OSError, ValueError, struct.error) as error:
            self.complain(f"{name} is damaged and cannot be unpacked: {error}.")

    def _take(
        self,
        archive: zipfile.ZipFile,
        entry: zipfile.ZipInfo,
        name: str,
        names: set[str],
        depth: int,
    ) -> None:
        """Unpack an entry of a zip, if the grader reads files of its kind."""
        inner = entry.filename.replace("\\", "/")
        if entry.is_dir() or is_left_out(inner):
            return
        if reason := _reason_against_entry(entry, inner):
            self.complain(f"{name}: the entry {inner!r} {reason}; it is not read.")
            return
        if PurePosixPath(inner).suffix.lower() not in (*WANTED, *OTHER_ARCHIVES):
            return
        if inner.casefold() in names:
            self.complain(f"{name} has several files {inner!r}, if case does not count.")
        names.add(inner.casefold())
        target = self.folder / f"{len(self.files):05d}-{self.size}{PurePosixPath(inner).suffix}"
        try:
            with archive.open(entry) as source:
                reason = self._copy(source.read, target)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            reason = f"is damaged: {error}"
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            reason = f"cannot be unpacked: {error}"
        if reason:
            self.complain(f"{name}: the entry {inner!r} {reason}; it is not read.")
            target.unlink(missing_ok=True)
        else:
            self.add(target, f"{PurePosixPath(name).stem}/{inner}", depth)

    def _copy(self, read: Callable[[int], bytes], target: Path) -> str:
        """Write a file; return which limit it exceeds, "" for none."""
        written = 0
        with target.open("wb") as file:
            while chunk := read(MIB):
                written += len(chunk)
                self.size += len(chunk)
                if written > self.limits.file_size:
                    return f"has more than {self.limits.file_size // MIB} MiB"
                if self.size > self.limits.total_size:
                    total = self.limits.total_size // MIB
                    return f"is beyond the {total} MiB that a submission may have unpacked"
                file.write(chunk)
        return ""


def plain(text: str) -> str:
    """Return a text as one line, without control characters and of at most 300 characters."""
    text = text.encode("utf-8", "replace").decode()
    text = "".join(" " if c in "\r\n\t" else c for c in text if c.isprintable() or c in "\r\n\t")
    return text if len(text) <= 300 else text[:299] + "…"


def is_left_out(name: str) -> bool:
    """Return whether a file belongs to a tool: hidden, or in one of its folders."""
    return any(
        part in LEFT_OUT or (part.startswith(".") and part not in (".", ".."))
        for part in PurePosixPath(name).parts
    )


def _reason_against_zip(path: Path, limits: Limits) -> str:
    """Return why a zip is not even opened, "" if it may be: its list of entries fills memory."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - END_SIZE - MAX_COMMENT))
            tail = file.read()
    except OSError as error:
        return f"cannot be read: {error.strerror}."
    if size > limits.total_size:
        return f"has {size // MIB} MiB; a zip may have {limits.total_size // MIB}."
    start = tail.rfind(END_OF_ZIP)
    if start < 0 or start + END_SIZE > len(tail):
        return "is no zip file, or its end is missing."
    count, directory = struct.unpack_from("<HI", tail, start + 10)
    # Each entry takes at least 46 bytes of the directory, whatever the count says.
    if count > limits.entries or directory > limits.entries * 500:
        return f"has more than {limits.entries:,} entries, or very long names; it is not unpacked."
    return ""


def _reason_against_entry(entry: zipfile.ZipInfo, name: str) -> str:
    """Return why an entry of a zip is refused, "" if it is not."""
    mode = entry.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "is a symbolic link"
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "is no regular file"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "has an absolute path"
    if ".." in name.split("/"):
        return "has a path with .."
    if entry.flag_bits & 1:
        return "is encrypted"
    return ""


def walk(folder: Path, unpacking: Unpacking) -> Iterator[tuple[Path, str]]:
    """Yield the regular files below a folder with their names; links are problems."""
    count = 0
    for place, folders, names in os.walk(folder, followlinks=False):
        for name in [name for name in folders if (Path(place) / name).is_symlink()]:
            unpacking.complain(f"{name} is a symbolic link; it is not followed.")
        folders[:] = sorted(name for name in folders if not is_left_out(name))
        for name in sorted(names):
            path = Path(place) / name
            count += 1
            if count > unpacking.limits.entries:
                unpacking.complain(
                    f"There are more than {unpacking.limits.entries:,} files: the rest is not read."
                )
                return
            if not is_left_out(name) and is_regular(path, unpacking):
                yield path, path.relative_to(folder).as_posix()


def is_regular(path: Path, unpacking: Unpacking) -> bool:
    """Return whether a path is a regular file of a size that may be read, and say why not."""
    information = path.lstat()
    if stat.S_ISLNK(information.st_mode):
        unpacking.complain(f"{path.name} is a symbolic link; it is not read.")
    elif not stat.S_ISREG(information.st_mode):
        unpacking.complain(f"{path.name} is no regular file; it is not read.")
    elif information.st_size > _largest(path.name, unpacking.limits):
        unpacking.complain(f"{path.name} has {information.st_size // MIB} MiB; it is not read.")
    else:
        return True
    return False


def _largest(name: str, limits: Limits) -> int:
    """Return how many bytes a file of this name may have."""
    is_zip = PurePosixPath(name).suffix.lower() in ARCHIVES
    return limits.total_size if is_zip else limits.file_size


def unpack(paths: tuple[Path, ...], folder: Path, limits: Limits = Limits()) -> Unpacking:
    """Return the files of a submission; those of zips are written to `folder`, which is empty."""
    unpacking = Unpacking(folder, limits)
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            for file, name in walk(path, unpacking):
                unpacking.add(file, name)
        elif is_regular(path, unpacking):
            unpacking.add(path, path.name)
    return unpacking
