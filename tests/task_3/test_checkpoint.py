"""Checkpoints come back as they went, survive what kills the process, and are refused when they are not whole."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save as save_tensors
from torch import nn

from task_3_DreamFusion.nerf import checkpoint
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
def test_any_state_comes_back(tmp_path_factory, state):
    folder = tmp_path_factory.mktemp("state")
    assert load(save(folder, 3, {"all": state})) == (3, {"all": state})


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]
)
def test_tensors_of_any_kind_come_back(tmp_path, dtype):
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


def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path):
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


def test_the_last_ones_stay(tmp_path):
    for step in (5, 100, 20, 1_000_000):
        save(tmp_path, step, {"x": step})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000100", "1000000"]
    assert load(latest(tmp_path)) == (1_000_000, {"x": 1_000_000})
    save(tmp_path, 1_000_000, {"x": "again"})
    assert load(latest(tmp_path))[1] == {"x": "again"}
    assert latest(tmp_path / "none") is None


@pytest.mark.parametrize("name", [checkpoint.STATE, checkpoint.TENSORS])
@pytest.mark.parametrize("harm", ["missing", "cut off", "empty", "edited"])
def test_what_is_not_whole_is_refused_by_name(tmp_path, name, harm):
    path = save(tmp_path, 7, {"x": torch.arange(100.0), "lr": 0.125})
    file, data = path / name, (path / name).read_bytes()
    if harm == "missing":
        file.unlink()
    elif harm == "edited":
        changed = (
            data.replace(b"0.125", b"0.625") if name == checkpoint.STATE else data[:-3] + b"abc"
        )
        assert changed != data
        file.write_bytes(changed)
    else:
        file.write_bytes(b"" if harm == "empty" else data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=name):
        load(path)


def test_a_full_disk_leaves_the_last_one(tmp_path, monkeypatch):
    kept = save(tmp_path, 1, {"x": 1})

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(CheckpointError, match=r"000002 cannot be written: No space left"):
        save(tmp_path, 2, {"x": 2})
    assert list(tmp_path.iterdir()) == [kept] and load(kept) == (1, {"x": 1})


def test_the_contents_reach_the_disk_before_the_name(tmp_path, monkeypatch):
    """Or else there could be a checkpoint without contents after a power cut."""
    events: list[tuple[str, object]] = []
    fsync, rename = os.fsync, Path.rename

    def record_fsync(descriptor: int) -> None:
        events.append(("fsync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def record_rename(self: Path, target: Path) -> Path:
        events.append(("rename", target.name))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "rename", record_rename)
    for step in range(3):
        events.clear()
        path = save(tmp_path, step, {"x": torch.ones(3)})
        contents = [
            ("fsync", (path / name).stat().st_ino)
            for name in (checkpoint.TENSORS, checkpoint.STATE)
        ]
        assert events[:3] == [*contents, ("rename", path.name)]
    assert events[3:] == [("rename", "000000")]  # moved away as a whole before it is removed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001", "000002"]


def write(folder, content: object, tensors: bytes | None = None):
    """A checkpoint with this content, which need not be one of this program, and the right checksums."""
    path = folder / "000001"
    path.mkdir()
    binary = save_tensors({"t0": torch.ones(3)}) if tensors is None else tensors
    if isinstance(content, dict) and content.get("tensors_sha256", "") is None:
        content["tensors_sha256"] = hashlib.sha256(binary).hexdigest()
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (path / checkpoint.STATE).write_text(json.dumps({"content": content, "sha256": digest}))
    (path / checkpoint.TENSORS).write_bytes(binary)
    return path


EMPTY = {"dict": []}
NESTED: Any = {"list": []}
for _ in range(400):
    NESTED = {"list": [NESTED]}


@pytest.mark.parametrize("content", [
    None, 7, "x", [], {}, {"step": 1}, {"state": EMPTY, "tensors_sha256": None},
    *({"step": step, "state": EMPTY, "tensors_sha256": None} for step in (None, "1", 1.5, -1, True, [], 10**400)),
    {"step": 1, "state": EMPTY, "tensors_sha256": 7}, {"step": 1, "state": EMPTY, "tensors_sha256": []},
    *({"step": 1, "state": state, "tensors_sha256": None} for state in (
        None, 7, "x", [], {}, {"a": 1, "b": 2}, {"set": []}, {"tensor": "t9"}, {"tensor": []}, {"tensor": "t0"},
        {"list": [1]}, {"list": None}, {"dict": None}, {"dict": [7]}, {"dict": [[1, 2, 3]]}, {"dict": [[[], 1]]},
        {"dict": [["a", {"b": 1, "c": 2}]]},
    )),
], ids=lambda content: str(content)[:70])  # fmt: skip
def test_what_another_program_wrote_is_refused(tmp_path, content):
    """With right checksums; also where the tensors are of another kind."""
    with pytest.raises(
        CheckpointError, match="something else than a run of Task 3|cut off or was changed"
    ):
        load(write(tmp_path, content))


@pytest.mark.parametrize(
    "tensors", [b"", b"x" * 100, b"\x80\x04.", b"\xff" * 8, (2**40).to_bytes(8, "little") + b"{}"]
)
def test_tensors_in_another_format_are_refused(tmp_path, tensors):
    content = {"step": 1, "state": {"dict": []}, "tensors_sha256": None}
    with pytest.raises(CheckpointError, match="000001 holds something else than a run of Task 3"):
        load(write(tmp_path, content, tensors))


def test_a_state_that_is_nested_too_deep_is_refused(tmp_path):
    path = write(tmp_path, {"step": 1, "state": NESTED, "tensors_sha256": None})
    with pytest.raises(CheckpointError, match="something else"):
        load(path)
    (path / checkpoint.STATE).write_text('{"content": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(CheckpointError, match="cut off or was changed"):
        load(path)


@pytest.mark.parametrize("wrong", [{"x": object()}, {"x": {1.5: 2}}, {"x": {True: 1}}])
def test_what_cannot_be_kept(tmp_path, wrong):
    with pytest.raises(TypeError):
        save(tmp_path, 1, wrong)


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
    assert not list(tmp_path.glob("partial-*"))
