"""Attacks by zips, folders and names: nothing leaves the folder, and each is said in one line."""

import io
import os
import socket
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grading import unpack
from grading.unpack import Limits, Unpacking

SMALL = Limits(files=20, entries=50, file_size=100_000, total_size=300_000)
CONTENT = b'{"cells": []}'


def zipped(*entries: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, content in entries:
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return data.getvalue()


def entry(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def encrypted() -> bytes:
    """Return a zip whose entry says that it is encrypted."""
    data = bytearray(zipped(("secret.ipynb", CONTENT)))
    data[6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def with_method(method: int) -> bytes:
    """Return a zip whose entry is compressed in a way that nobody knows."""
    data = bytearray(zipped(("odd.ipynb", CONTENT)))
    struct.pack_into("<H", data, 8, method)
    struct.pack_into("<H", data, data.rindex(b"PK\x01\x02") + 10, method)
    return bytes(data)


def with_wrong_checksum() -> bytes:
    data = bytearray(zipped(("wrong.ipynb", CONTENT)))
    data[data.rindex(b"PK\x01\x02") + 16] ^= 255
    return bytes(data)


def overlapping() -> bytes:
    """Return a zip with 40 entries of the same bytes: a bomb without nesting."""
    data = zipped(("a.ipynb", bytes(90_000)))
    start = data.rindex(b"PK\x01\x02")
    end = data.rindex(b"PK\x05\x06")
    directory = data[start:end]
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 40, 40, 40 * len(directory), start, 0)
    return data[:start] + 40 * directory + tail


def claiming(count: int) -> bytes:
    """Return a zip whose end claims another number of entries."""
    data = bytearray(zipped(("a.ipynb", CONTENT)))
    struct.pack_into("<HH", data, len(data) - 14, count, count)
    return bytes(data)


def nested(depth: int) -> bytes:
    data = zipped(("a.ipynb", CONTENT))
    for _ in range(depth - 1):
        data = zipped(("inner.zip", data))
    return data


ZIPS = {  # a zip, a part of the problem, and how many files are read of it
    "absolute path": (zipped(("/etc/cron.d/x.ipynb", CONTENT)), "absolute path", 0),
    "drive": (zipped(("C:\\x.ipynb", CONTENT)), "absolute path", 0),
    "parent": (zipped(("a/../../../x.ipynb", CONTENT)), "a path with ..", 0),
    "backslashes": (zipped(("..\\..\\x.ipynb", CONTENT)), "a path with ..", 0),
    "link": (zipped((entry("x.ipynb", stat.S_IFLNK | 0o777), b"/etc/passwd")), "symbolic link", 0),
    "pipe": (zipped((entry("x.ipynb", stat.S_IFIFO | 0o777), b"")), "no regular file", 0),
    "device": (zipped((entry("x.ipynb", stat.S_IFCHR | 0o777), b"")), "no regular file", 0),
    "nested": (nested(3), "a zip in a zip in a zip", 0),
    "bomb": (zipped(("x.ipynb", bytes(10_000_000))), "has more than 0 MiB", 0),
    "many bombs": (zipped(*[(f"{i}.ipynb", bytes(90_000)) for i in range(9)]), "unpacked", 3),
    "nested bomb": (zipped(("a.zip", zipped(("x.ipynb", bytes(10**7))))), "more than 0 MiB", 0),
    "overlapping": (overlapping(), "", 3),
    "many entries": (zipped(*[(f"{i}.ipynb", b"") for i in range(51)]), "more than 50 entries", 0),
    "many files": (zipped(*[(f"{i}.ipynb", b"") for i in range(30)]), "more than 20 files", 20),
    "false count": (claiming(65_535), "more than 50 entries", 0),
    "encrypted": (encrypted(), "is encrypted", 0),
    "method": (with_method(99), "is damaged", 0),
    "checksum": (with_wrong_checksum(), "is damaged", 0),
    "cut off": (zipped(("x.ipynb", CONTENT))[:-30], "its end is missing", 0),
    "start cut off": (zipped(("x.ipynb", CONTENT))[20:], "cannot be unpacked", 0),
    "no zip": (b"GIF89a", "is no zip file", 0),
    "empty": (b"", "is no zip file", 0),
    "end alone": (b"PK\x05\x06" + bytes(18), "", 0),
    "case": (zipped(("a.ipynb", CONTENT), ("A.ipynb", CONTENT)), "if case does not count", 2),
    "other archive": (zipped(("a.tar.gz", CONTENT)), "have to be .zip files", 0),
    "long name": (zipped(("x" * 20_000 + ".ipynb", CONTENT)), "", 1),
    "very long name": (zipped(("x" * 60_000 + ".ipynb", CONTENT)), "very long names", 0),
    "control characters": (zipped(("\x1b[31m\n\u202egnp.ipynb", CONTENT)), "", 1),
    "markup": (zipped(("<script>alert(1)</script>.ipynb", CONTENT)), "", 1),
    "hidden": (zipped(("__MACOSX/._a.ipynb", b""), (".git/x.ipynb", b"")), "", 0),
    "programs": (zipped(("sitecustomize.pth", b"import os"), ("x.pkl", b"cos\n")), "", 0),
}


@pytest.mark.parametrize("name", ZIPS)
def test_attacks_by_a_zip(tmp_path, name):
    data, problem, count = ZIPS[name]
    path, folder = tmp_path / "in" / "anna.zip", tmp_path / "in" / "unpacked"
    folder.mkdir(parents=True)
    path.write_bytes(data)
    result = unpack.unpack((path,), folder, SMALL)
    assert problem in " ".join(result.problems)
    assert len(result.files) == count
    assert len(result.problems) <= SMALL.problems
    assert all(line == unpack.plain(line) and "\n" not in line for line in result.problems)
    written = [p for p in tmp_path.rglob("*") if p.is_file() and p != path]
    assert {p.parent for p in written} <= {folder}
    assert sum(p.stat().st_size for p in written) <= SMALL.total_size
    assert not any(p.is_symlink() for p in tmp_path.rglob("*"))


def test_attacks_by_a_folder(tmp_path):
    folder, outside = tmp_path / "anna", tmp_path / "outside"
    (folder / "loop").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.ipynb").write_bytes(CONTENT)
    (folder / "a.ipynb").write_bytes(CONTENT)
    (folder / "link.ipynb").symlink_to(outside / "secret.ipynb")
    (folder / "nowhere.ipynb").symlink_to(outside / "nothing")
    (folder / "outside").symlink_to(outside)
    (folder / "loop" / "loop").symlink_to(folder)
    (folder / "large.ipynb").write_bytes(bytes(SMALL.file_size + 1))
    (folder / "folder.ipynb").mkdir()
    os.mkfifo(folder / "pipe.ipynb")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket.ipynb"))
        result = unpack.unpack((folder,), tmp_path, SMALL)
    assert [file.name for file in result.files] == ["a.ipynb"]
    problems = "\n".join(result.problems)
    for name in ("link.ipynb", "nowhere.ipynb", "outside", "loop"):
        assert f"{name} is a symbolic link" in problems
    for name in ("pipe.ipynb", "socket.ipynb"):
        assert f"{name} is no regular file" in problems
    assert "large.ipynb has 0 MiB" in problems


def test_a_folder_with_too_many_files_is_read_in_part(tmp_path):
    for i in range(60):
        (tmp_path / f"{i:02d}.ipynb").write_bytes(CONTENT)
    result = unpack.unpack((tmp_path,), tmp_path / "unpacked", SMALL)
    assert len(result.files) == SMALL.files
    assert "more than 20 files" in " ".join(result.problems)


names = st.text(min_size=1, max_size=30).map(lambda name: name.replace("\0", "x"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(names, st.sampled_from([".ipynb", ".py", ".zip", ""])), max_size=5))
def test_names_of_any_kind_stay_in_the_folder(tmp_path_factory, entries):
    folder = tmp_path_factory.mktemp("names")
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, suffix in dict.fromkeys(entries):
            archive.writestr(name.encode("utf-8", "replace").decode() + suffix, CONTENT)
    (folder / "a.zip").write_bytes(data.getvalue())
    (folder / "unpacked").mkdir()
    unpack.unpack((folder / "a.zip",), folder / "unpacked", SMALL)
    assert {path.name for path in folder.iterdir()} == {"a.zip", "unpacked"}


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_no_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("bytes")
    whole = zipped(("a.ipynb", CONTENT))
    (folder / "a.zip").write_bytes(whole[:40] + data + whole[40:])
    (folder / "b.zip").write_bytes(data)
    result = unpack.unpack((folder / "a.zip", folder / "b.zip"), folder, SMALL)
    assert all(isinstance(line, str) for line in result.problems)


def test_problems_have_a_limit(tmp_path):
    unpacking = Unpacking(Path(tmp_path))
    for i in range(100):
        unpacking.complain(f"problem {i}" + "x" * 1000)
    assert len(unpacking.problems) == unpacking.limits.problems
    assert max(map(len, unpacking.problems)) == 300
