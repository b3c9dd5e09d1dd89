"""Files and folders appear whole, a lock belongs to one process, and leftovers can be removed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from course import files
from course.files import LockTimeout, lock, remove_partial, replace_file, replace_folder, write_text

ERRORS = [OSError, ValueError, KeyboardInterrupt, MemoryError, SystemExit]


@pytest.mark.parametrize(
    "content", ["", "a hamburger\n", "a crêpe 🍔", "x" * 100_000, "two\r\nlines"]
)
def test_a_file_has_its_old_contents_until_the_new_ones_are_complete(tmp_path, content):
    path = tmp_path / "settings.json"
    path.write_text("before")
    with replace_file(path) as new:
        new.write_bytes(content.encode())
        assert path.read_text() == "before"
        assert new.name == path.name and new.parent.parent == tmp_path
    assert path.read_bytes() == content.encode() and list(tmp_path.iterdir()) == [path]
    write_text(path, content + "!")
    assert path.read_bytes() == (content + "!").encode()


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "image.png"
    path.write_text("before")
    with pytest.raises(error), replace_file(path) as new:
        new.write_text("half")
        raise error
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_folder_has_its_old_contents_until_the_new_ones_are_complete(tmp_path):
    folder = tmp_path / "new" / "weights"
    for content in ("first", "second"):
        with replace_folder(folder) as new:
            (new / content).touch()
            assert not (folder / content).exists()
        assert [path.name for path in folder.iterdir()] == [content]
        assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_leaves_the_old_folder(tmp_path, error):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "a").write_text("before")
    with pytest.raises(error), replace_folder(folder) as new:
        (new / "a").write_text("half")
        raise error
    assert (folder / "a").read_text() == "before" and list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    "name", ["settings.json", "finished.json", "index.html", "mesh.obj", "a b.txt"]
)
def test_the_contents_reach_the_disk_before_the_name(tmp_path, monkeypatch, name):
    events: list[tuple[str, object]] = []
    fsync = os.fsync
    replace = Path.replace

    def record_fsync(descriptor: int) -> None:
        events.append(("fsync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def record_replace(self: Path, target: Path) -> Path:
        events.append(("replace", target.name))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    write_text(tmp_path / name, "contents")
    assert events == [("fsync", (tmp_path / name).stat().st_ino), ("replace", name)]


def test_what_a_killed_process_was_writing_is_removed_and_nothing_else(tmp_path):
    for name in (".partial-a.json-x", ".partial-b.png-y", "kept/.partial-a.json-z", ".partial"):
        (tmp_path / name / "inside").mkdir(parents=True)
    remove_partial(tmp_path, "a.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".partial",
        ".partial-b.png-y",
        "kept",
    ]
    remove_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".partial", "kept"]
    assert (tmp_path / "kept" / ".partial-a.json-z").exists()
    remove_partial(tmp_path / "nowhere")


# --- Locks

HOLD = """
import sys, time
from pathlib import Path
from course.files import lock
with lock(Path(sys.argv[1], ".lock")):
    Path(sys.argv[1], "held").touch()
    time.sleep(100)
"""


def test_a_locked_folder_is_refused_and_free_afterwards(tmp_path):
    with lock(tmp_path / ".lock"):
        for timeout in (0, 0.05):
            with (
                pytest.raises(LockTimeout, match="in use by another process: wait until it ends"),
                lock(tmp_path / ".lock", timeout=timeout),
            ):
                pass
        with lock(tmp_path / ".index.html.lock"):  # another name is another lock
            pass
    assert list(tmp_path.iterdir()) == []
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), lock(tmp_path / ".lock"):
            raise error
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_the_lock_of_a_killed_process_is_free(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "held").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    with pytest.raises(LockTimeout), lock(tmp_path / ".lock"):
        pass
    process.kill()
    process.wait()
    with lock(tmp_path / ".lock", timeout=5):
        pass
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("error", [OSError(37, "No locks available"), NotImplementedError("none")])
def test_a_file_system_without_locks_warns(tmp_path, monkeypatch, error):
    timeouts = []

    def acquire(self: object, timeout: float) -> None:
        timeouts.append(timeout)
        raise error

    monkeypatch.setattr(files.FileLock, "acquire", acquire)
    (tmp_path / ".lock").touch()  # of another program: it stays
    message = "cannot be locked .*start no second process in it"
    with pytest.warns(files.LockWarning, match=message), lock(tmp_path / ".lock"):
        (tmp_path / "work").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "work"]
    assert timeouts == [0]  # waiting has to be requested
