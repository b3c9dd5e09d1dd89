"""Jobs: read from a file, done by one process each, and taken over from dead processes."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from course import notebooks
from course.errors import CourseError
from course.files import lock
from task_3_DreamFusion import main as program
from task_3_DreamFusion.jobs import (
    FAILED,
    FINISHED,
    LOCK,
    JobsError,
    folder_name,
    read_jobs,
    share,
)
from task_3_DreamFusion.nerf import checkpoint

MAIN = notebooks.ROOT / "task_3_DreamFusion" / "main.py"


# --- The file


def test_comments_and_empty_lines_are_skipped(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("\ufeff# animals\na bunny\n\n   a red car  \n#a cat\n", encoding="utf-8")
    assert read_jobs(file, tmp_path) == {
        "a bunny": tmp_path / "a_bunny",
        "a red car": tmp_path / "a_red_car",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"# nothing\n\n", "has no prompt"),
        (b"a car\na bunny\nA car!\n", "lines 1 and 3 share the folder a_car"),
        (b"a car\xff\n", "not text in UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, text, message, capsys):
    file = tmp_path / "list.txt"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(JobsError, match=message):
        read_jobs(file, tmp_path)
    assert program.main(["--prompts", str(file), "--workspace", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


# --- Sharing


def test_each_job_is_done_once_by_concurrent_workers(tmp_path):
    jobs = {f"thing {i}": tmp_path / f"thing_{i}" for i in range(12)}
    done: list[str] = []

    def work(text: str, folder: Path) -> bool:
        time.sleep(0.01)
        done.append(text)
        return True

    outcomes = []
    threads = [
        threading.Thread(
            target=lambda: outcomes.append(share(jobs, work, pause=0.01, log=lambda _: None))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (
        sorted(done)
        == sorted(jobs)
        == sorted(text for outcome in outcomes for text in outcome.generated)
    )
    again = share(jobs, work)
    assert again.generated == [] and again.skipped == list(jobs) and len(done) == 12


def test_a_failed_job_stops_no_other_and_is_tried_at_the_next_start(tmp_path):
    jobs = {name: tmp_path / name for name in ("a", "b", "c")}
    calls: list[str] = []

    def work(text: str, folder: Path) -> bool:
        calls.append(text)
        if text == "b" and len(calls) < 4:
            raise CourseError("the field has become empty")
        return True

    outcome = share(jobs, work)
    assert outcome.generated == ["a", "c"] and outcome.failed == {"b": "the field has become empty"}
    assert (tmp_path / "b" / FAILED).read_text() == "the field has become empty"
    outcome = share(jobs, work)
    assert (
        outcome.generated == ["b"]
        and outcome.skipped == ["a", "c"]
        and not (tmp_path / "b" / FAILED).exists()
    )


def test_an_interruption_ends_the_round_and_frees_the_job(tmp_path):
    jobs = {name: tmp_path / name for name in ("a", "b")}
    outcome = share(jobs, lambda *_: False)
    assert (
        outcome.interrupted
        and not (tmp_path / "a" / FINISHED).exists()
        and not (tmp_path / "b").exists()
    )
    assert share(jobs, lambda *_: True).generated == ["a", "b"]


def test_a_folder_of_another_text_is_not_taken_for_finished(tmp_path):
    share({"a car": tmp_path}, lambda *_: True)
    outcome = share({"a car!": tmp_path}, lambda *_: True)
    assert "holds 'a car'" in outcome.failed["a car!"] and outcome.generated == []


FOREIGN = ["", "{cut", "[]", "7", "null", '{"done": true}', "[" * 100_000, "\ud800"]


@pytest.mark.parametrize("content", FOREIGN, ids=[text[:10] for text in FOREIGN])
def test_a_foreign_file_in_the_folder_is_ignored(tmp_path, content):
    for name in (FINISHED, FAILED, LOCK):
        (tmp_path / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    outcome = share({"a car": tmp_path}, lambda *_: True)
    assert outcome.generated == ["a car"] and outcome.failed == {}
    assert json.loads((tmp_path / FINISHED).read_text())["text"] == "a car"


def test_emoji_alone_have_folders_of_their_own(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("🍔\n🍕\n🚗\n🚕 car\n🚗 car\n", encoding="utf-8")
    assert len(set(read_jobs(file, tmp_path).values())) == 5


def test_a_job_of_another_process_is_waited_for(tmp_path):
    """The others are done first. What it has finished is skipped, what it has left is done."""
    jobs = {name: tmp_path / name for name in ("a", "b", "c")}
    for name in ("a", "b"):
        jobs[name].mkdir()
    held = contextlib.ExitStack()
    for name in ("a", "b"):
        held.enter_context(lock(jobs[name] / LOCK))
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        (jobs["a"] / FINISHED).write_text(json.dumps({"text": "a"}))
        held.close()

    outcome = share(jobs, lambda *_: True, pause=0.01, log=log)
    assert lines == ["waiting for 2 of other processes: a, b"]
    assert outcome.generated == ["c", "b"] and outcome.skipped == ["a"]


HOLD = """
import sys, time
from pathlib import Path
from task_3_DreamFusion.jobs import share
def work(text, folder):
    (folder / "held").touch()
    time.sleep(100)
share({"a": Path(sys.argv[1])}, work)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_the_job_of_a_killed_process_is_taken_over(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "held").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    outcome = share({"a": tmp_path}, lambda *_: True, pause=0.01, log=lambda _: process.kill())
    process.wait()
    assert outcome.generated == ["a"]


# --- Two real processes


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_two_processes_and_one_is_killed(tiny_folder, tmp_path):
    texts = ["a car", "a bunny", "a tree"]
    (tmp_path / "list.txt").write_text("\n".join(texts))
    small = "--iters 20 --size 8 --max_steps 24 --frames 2 --video_size 16 --save_every 5"
    small += " --preview_every 0 --no-save_mesh"
    command = [
        sys.executable,
        str(MAIN),
        "--prompts",
        str(tmp_path / "list.txt"),
        "--model",
        str(tiny_folder),
    ]
    command += ["--workspace", str(tmp_path / "all"), *small.split()]
    folders = {text: tmp_path / "all" / folder_name(text) for text in texts}
    killed = start(command)
    wait_for_checkpoint([folders["a car"]], killed)
    killed.send_signal(signal.SIGSTOP)  # in the middle of its first job, whose lock it holds
    other = start(command)
    wait_for_checkpoint([folders[text] for text in texts[1:]], other)
    assert not (folders["a car"] / FINISHED).exists()
    killed.kill()
    killed.communicate()
    out, err = other.communicate(timeout=300)
    assert other.returncode == 0, err
    assert "3 generated, 0 already finished, 0 failed" in out
    assert "continuing from step" in out  # the other took over what the killed one had begun
    for folder in folders.values():
        assert (folder / FINISHED).exists() and (folder / "video.mp4").exists()
        assert checkpoint.latest(folder / "checkpoints").name == "000020.pt"
    page = (tmp_path / "all" / "index.html").read_text()
    assert "3 runs" in page and page.count("<video") == 3

    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "0 generated, 3 already finished, 0 failed" in done.stdout


def start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_checkpoint(folders: list[Path], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not any(checkpoint.latest(folder / "checkpoints") for folder in folders):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
