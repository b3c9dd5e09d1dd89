"""Files appear whole, a folder belongs to one run, and what a killed run was writing goes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from task_3_DreamFusion.nerf import files
from task_3_DreamFusion.nerf.files import FolderInUse, lock, remove_leftovers, replacing, write_text


@pytest.mark.parametrize(
    "content", ["", "a hamburger\n", "a crêpe 🍔", "x" * 100_000, "two\r\nlines"]
)
def test_a_file_is_the_old_one_until_it_is_whole(tmp_path, content):
    path = tmp_path / "settings.json"
    path.write_text("before")
    with replacing(path) as new:
        new.write_bytes(content.encode())
        assert (
            path.read_text() == "before" and new.name == path.name and new.parent.parent == tmp_path
        )
    assert path.read_bytes() == content.encode() and list(tmp_path.iterdir()) == [path]
    write_text(path, content + "!")
    assert path.read_bytes() == (content + "!").encode()


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt, MemoryError, SystemExit])
def test_an_error_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "image.png"
    path.write_text("before")
    with pytest.raises(error), replacing(path) as new:
        new.write_text("half")
        raise error
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "name", ["settings.json", "finished.json", "index.html", "mesh.obj", "a b.txt"]
)
def test_the_contents_reach_the_disk_before_the_name(tmp_path, monkeypatch, name):
    events: list[tuple[str, object]] = []
    fsync, replace = os.fsync, Path.replace

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


# --- The lock of a folder

HOLD = """
import sys, time
from pathlib import Path
from task_3_DreamFusion.nerf.files import lock
with lock(Path(sys.argv[1])):
    Path(sys.argv[1], "held").touch()
    time.sleep(100)
"""


def test_a_folder_is_locked_for_others_and_free_afterwards(tmp_path):
    with lock(tmp_path):
        for seconds in (0, 0.05):
            with (
                pytest.raises(FolderInUse, match="in use by another run: wait until it ends"),
                lock(tmp_path, seconds=seconds),
            ):
                pass
        with lock(tmp_path, ".index.html.lock"):  # another name is another lock
            pass
    assert list(tmp_path.iterdir()) == []
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), lock(tmp_path):
            raise error
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_the_lock_of_a_killed_process_is_free(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "held").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    with pytest.raises(FolderInUse), lock(tmp_path):
        pass
    process.kill()
    process.wait()
    with lock(tmp_path, seconds=5):
        pass
    assert not (tmp_path / files.LOCK).exists()


@pytest.mark.parametrize("error", [OSError(37, "No locks available"), NotImplementedError("none")])
def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, error):
    asked = []

    def acquire(self: object, timeout: float) -> None:
        asked.append(timeout)
        raise error

    monkeypatch.setattr(files.FileLock, "acquire", acquire)
    (tmp_path / files.LOCK).touch()  # of another program: it stays
    message = "cannot be locked .*do not start a second run in it"
    with pytest.warns(files.LockWarning, match=message), lock(tmp_path):
        (tmp_path / "work").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [files.LOCK, "work"]
    assert asked == [0]  # nobody waits unless it is asked for


# --- Leftovers


def test_what_a_killed_run_was_writing_goes_and_nothing_else(tmp_path):
    left = [
        ".partial-x",
        ".partial-settings.json-ab",
        ".clip-q",
        "previews/.partial-000200.png-z",
        "claims/.partial-1",
    ]
    left += ["checkpoints/partial-abc"]
    kept = [
        "video.mp4",
        "previews/000200.png",
        "checkpoints/000200/state.json",
        "partial.txt",
        ".partials",
        "logs/x",
    ]
    kept += ["mine/.partial-x/file", ".clip"]
    for name in left:
        (tmp_path / name / "inside").mkdir(parents=True)
    for name in kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert [name for name in left if (tmp_path / name).exists()] == []
    assert [name for name in kept if not (tmp_path / name).exists()] == []
    remove_leftovers(tmp_path / "nowhere")
