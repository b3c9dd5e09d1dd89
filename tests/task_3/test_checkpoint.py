"""Checkpoints load as they were saved, survive a kill, and are refused if damaged or foreign."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from task_3_DreamFusion.nerf.checkpoint import CheckpointError, latest, load, save
from task_3_DreamFusion.optimizer import Adan

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
STATES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
)


@given(STATES)
def test_any_state_is_restored(tmp_path_factory, state):
    folder = tmp_path_factory.mktemp("state")
    assert load(save(folder, 3, {"all": state})) == (3, {"all": state})


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]
)
def test_tensors_of_any_type_are_restored(tmp_path, dtype):
    shared = torch.arange(24).reshape(4, 6).to(dtype)
    state = {
        "a": shared,
        "b": shared.T,
        "c": [shared[1], torch.tensor(5).to(dtype), torch.zeros(0, 3).to(dtype)],
    }
    _, back = load(save(tmp_path, 1, state))
    assert torch.equal(back["a"], shared) and torch.equal(back["b"], shared.T)
    assert all(
        torch.equal(x, y) and x.dtype == dtype for x, y in zip(back["c"], state["c"], strict=True)
    )


@pytest.mark.parametrize("step", [0, 1, 50, 400, 999_999])
def test_a_checkpoint_reaches_the_disk_before_it_has_its_name(tmp_path, monkeypatch, step):
    flushed = []
    fsync = os.fsync

    def record_fsync(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record_fsync)
    path = save(tmp_path, step, {"a": torch.ones(2)})
    assert flushed == [path.stat().st_ino]


def test_a_resumed_run_equals_one_that_never_stopped(tmp_path):
    def begin() -> tuple[nn.Module, Adan, torch.Generator]:
        torch.manual_seed(0)
        field = nn.Linear(3, 2)
        return field, Adan(field.parameters(), 0.01), torch.Generator().manual_seed(1)

    def go(field: nn.Module, optimizer: Adan, generator: torch.Generator, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            field(torch.randn(4, 3, generator=generator)).square().sum().backward()
            optimizer.step()

    whole = begin()
    go(*whole, 20)
    field, optimizer, generator = begin()
    go(field, optimizer, generator, 9)
    state = {
        "field": field.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generator": generator.get_state(),
    }
    save(tmp_path, 9, state)

    step, state = load(latest(tmp_path))
    field, optimizer, generator = begin()
    field.load_state_dict(state["field"])
    optimizer.load_state_dict(state["optimizer"])
    generator.set_state(state["generator"])
    go(field, optimizer, generator, 20 - step)
    assert all(
        torch.equal(a, b) for a, b in zip(field.parameters(), whole[0].parameters(), strict=True)
    )


def test_the_last_two_are_kept(tmp_path):
    for step in (5, 100, 20, 1_000_000):
        save(tmp_path, step, {"x": step})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000100.pt", "1000000.pt"]
    assert load(latest(tmp_path)) == (1_000_000, {"x": 1_000_000})
    save(tmp_path, 1_000_000, {"x": "again"})
    assert load(latest(tmp_path))[1] == {"x": "again"}
    assert latest(tmp_path / "none") is None


@pytest.mark.parametrize("tensor", [torch.arange(100.0), torch.ones(300, 300)])
@pytest.mark.parametrize("harm", ["missing", "cut off", "empty", "edited", "text"])
def test_a_damaged_file_is_refused_by_name(tmp_path, harm, tensor):
    path = save(tmp_path, 7, {"x": tensor, "lr": 0.125})
    data = path.read_bytes()
    if harm == "missing":
        path.unlink()
    else:
        middle = len(data) // 2
        harmed = {
            "cut off": data[:middle],
            "empty": b"",
            "edited": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "text": b"{}",
        }
        path.write_bytes(harmed[harm])
    message = "is no checkpoint: No such file" if harm == "missing" else "is cut off or was changed"
    with pytest.raises(CheckpointError, match=rf"000007\.pt {message}"):
        load(path)


def test_equal_states_make_equal_files(tmp_path):
    """Whatever memory their tensors and texts share."""
    shared = torch.arange(6.0)
    state = {"a": shared[:3], "b": shared[3:], "c": ["x", "x"], "d": "x"}
    copies = {"a": torch.arange(3.0), "b": torch.arange(3.0, 6), "c": ["x", "".join(["", "x"])]}
    path = save(tmp_path / "1", 1, state)
    other = save(tmp_path / "2", 1, copies | {"d": load(path)[1]["d"]})
    again = save(tmp_path / "3", 1, load(path)[1])
    assert path.read_bytes() == other.read_bytes() == again.read_bytes()


def test_a_full_disk_leaves_the_last_one(tmp_path, monkeypatch):
    kept = save(tmp_path, 1, {"x": 1})

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CheckpointError, match=r"000002\.pt cannot be written: No space left"):
        save(tmp_path, 2, {"x": 2})
    assert list(tmp_path.iterdir()) == [kept] and load(kept) == (1, {"x": 1})


@pytest.mark.parametrize(
    "content",
    [
        None,
        7,
        "x",
        [],
        {},
        {"step": 1},
        {"state": {}},
        *({"step": step, "state": {}} for step in (None, "1", 1.5, -1, True, [], 10**40)),
        *({"step": 1, "state": state} for state in (None, 7, "x", [], torch.ones(3))),
    ],
    ids=str,
)
def test_what_another_program_saved_is_refused(tmp_path, content):
    path = tmp_path / "000001.pt"
    torch.save(content, path)
    with pytest.raises(
        CheckpointError, match="000001.pt holds something else than a run of task 3"
    ):
        load(path)


class Evil:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_executed(tmp_path):
    path, traces = tmp_path / "000001.pt", tmp_path / "traces"
    torch.save({"step": 1, "state": {"x": Evil(traces)}}, path)
    with pytest.raises(CheckpointError, match="something else"):
        load(path)
    assert not traces.exists()


@pytest.mark.parametrize("name", ["data.pkl", "archive/data.pkl", "x"])
@pytest.mark.parametrize("data", [b"", b"x" * 100, b"\x80\x04.", b"\x80\x02]q\x00."])
def test_another_zip_archive_is_refused(tmp_path, name, data):
    path = tmp_path / "000001.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, data)
    with pytest.raises(CheckpointError, match="something else than a run of task 3"):
        load(path)


@pytest.mark.parametrize("wrong", [object(), {1, 2}, b"bytes", Path("x")])
def test_what_cannot_be_saved(tmp_path, wrong):
    with pytest.raises(TypeError, match=type(wrong).__name__):
        save(tmp_path, 1, {"x": [wrong]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_at_any_moment_there_is_a_whole_one(tmp_path):
    script = textwrap.dedent(
        """
        import sys, torch
        from pathlib import Path
        from task_3_DreamFusion.nerf.checkpoint import save
        for step in range(1, 100000):
            save(Path(sys.argv[1]), step, {"x": torch.full((50_000,), step), "step": step})
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    deadline = time.monotonic() + 60
    while latest(tmp_path) is None:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    for pause in (0.05, 0.013, 0.101, 0.077):
        time.sleep(pause)
        os.kill(process.pid, signal.SIGSTOP)  # what is on the disk now is what a kill would leave
        copy = tmp_path.with_name("copy")
        shutil.copytree(tmp_path, copy)
        step, state = load(latest(copy))
        assert step == state["step"] == state["x"][-1]
        shutil.rmtree(copy)
        os.kill(process.pid, signal.SIGCONT)
    process.kill()
    process.wait()
    step = load(latest(tmp_path))[0]
    save(tmp_path, step + 1, {})
    assert not list(tmp_path.glob(".partial-*"))
