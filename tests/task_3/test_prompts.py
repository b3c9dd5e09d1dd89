"""Many prompts: read, claimed by one process each, taken over from the dead, and made by two real processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from course import notebooks
from course.errors import CourseError
from task_3_DreamFusion import main as program
from task_3_DreamFusion import prompts
from task_3_DreamFusion.nerf import checkpoint, files
from task_3_DreamFusion.prompts import CLAIMS, FAILED, FINISHED, PromptsError, Watch, share

MAIN = notebooks.ROOT / "task_3_DreamFusion" / "main.py"


def folder_of(tmp_path: Path):
    return lambda text: tmp_path / program.slug(text)


# --- The file


def test_comments_and_empty_lines_are_skipped(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("\ufeff# animals\na bunny\n\n   a red car  \n#a cat\n", encoding="utf-8")
    assert prompts.read(file, folder_of(tmp_path)) == {
        "a bunny": tmp_path / "a_bunny",
        "a red car": tmp_path / "a_red_car",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"# nothing\n\n", "holds no prompt"),
        (b"a car\na bunny\nA car!\n", "lines 1 and 3 share the folder a_car"),
        (b"a car\xff\n", "not text in UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, text, said, capsys):
    file = tmp_path / "list.txt"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(PromptsError, match=said):
        prompts.read(file, folder_of(tmp_path))
    assert program.main(["--prompts", str(file), "--workspace", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


# --- Claims


def test_one_of_many_gets_the_claim(tmp_path):
    """Threads that all begin at the same moment."""
    for number in range(20):
        folder, gate, won = tmp_path / str(number), threading.Barrier(8), []

        def reach(folder=folder, gate=gate, won=won) -> None:
            watch = Watch()
            gate.wait()
            if claim := watch.take(folder):
                won.append(claim)

        threads = [threading.Thread(target=reach) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1


def test_a_claim_is_free_when_given_back_and_not_before(tmp_path):
    watch, other = Watch(), Watch(stale=0)
    with watch.take(tmp_path, beat=0.01) as claim:
        assert other.take(tmp_path) is None
        claim.check()
    second = other.take(tmp_path)
    assert second.path.name == "000002.json"
    with pytest.raises(prompts.ClaimLost, match="has taken over"):
        claim.check()


def put_claim(folder: Path, owner: object) -> Path:
    (folder / CLAIMS).mkdir(parents=True)
    path = folder / CLAIMS / "000001.json"
    path.write_text(owner if isinstance(owner, str) else json.dumps(owner))
    return path


def test_a_dead_process_of_this_machine_is_known_at_once(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = {"whereabouts": prompts.whereabouts()}
    put_claim(tmp_path / "dead", here | {"pid": gone.pid, "started": 0.0})
    put_claim(
        tmp_path / "again", here | {"pid": os.getpid(), "started": 12.0}
    )  # the number is used by another one
    assert Watch().take(tmp_path / "dead") and Watch().take(tmp_path / "again")


@pytest.mark.parametrize(
    "owner", [{"whereabouts": "elsewhere", "pid": os.getpid(), "started": 0.0}, "", "{cut"]
)
def test_a_silent_process_elsewhere_is_taken_for_dead(tmp_path, owner):
    """By whether its time changes while one looks: clocks of two machines differ."""
    path = put_claim(tmp_path, owner)
    os.utime(path, (10**9, 10**9))
    watch = Watch(stale=0.2)
    assert watch.take(tmp_path) is None
    for i in range(4):  # it lives
        time.sleep(0.1)
        os.utime(path, (10**9 + i + 1, 10**9 + i + 1))
        assert watch.take(tmp_path) is None
    time.sleep(0.25)
    assert watch.take(tmp_path).path.name == "000002.json"


def test_a_claim_that_is_held_shows_signs_of_life(tmp_path):
    with Watch().take(tmp_path, beat=0.02) as claim:
        os.utime(claim.path, (0, 0))
        deadline = time.monotonic() + 10
        while claim.path.stat().st_mtime < 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)


# --- Sharing


def test_each_is_made_once_by_workers_side_by_side(tmp_path):
    jobs = {f"thing {i}": tmp_path / f"thing_{i}" for i in range(12)}
    done: list[str] = []

    def work(text: str, folder: Path, claim: prompts.Claim) -> bool:
        time.sleep(0.01)
        done.append(text)
        return True

    outcomes = []
    threads = [
        threading.Thread(
            target=lambda: outcomes.append(
                share(jobs, work, beat=0.01, pause=0.01, say=lambda _: None)
            )
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
        == sorted(text for outcome in outcomes for text in outcome.made)
    )
    again = share(jobs, work)
    assert again.made == [] and again.skipped == list(jobs) and len(done) == 12


def test_one_that_fails_does_not_stop_the_others_and_is_tried_at_the_next_start(tmp_path):
    jobs = {name: tmp_path / name for name in ("a", "b", "c")}
    calls: list[str] = []

    def work(text: str, folder: Path, claim: prompts.Claim) -> bool:
        calls.append(text)
        if text == "b" and len(calls) < 4:
            raise CourseError("the field has become empty")
        return True

    outcome = share(jobs, work)
    assert outcome.made == ["a", "c"] and outcome.failed == {"b": "the field has become empty"}
    assert (tmp_path / "b" / FAILED).read_text() == "the field has become empty"
    outcome = share(jobs, work)
    assert (
        outcome.made == ["b"]
        and outcome.skipped == ["a", "c"]
        and not (tmp_path / "b" / FAILED).exists()
    )


def test_an_interruption_ends_the_round_and_frees_the_claim(tmp_path):
    jobs = {name: tmp_path / name for name in ("a", "b")}
    outcome = share(jobs, lambda *_: False)
    assert (
        outcome.interrupted
        and not (tmp_path / "a" / FINISHED).exists()
        and not (tmp_path / "b").exists()
    )
    assert share(jobs, lambda *_: True).made == ["a", "b"]


def test_a_folder_of_another_text_is_not_taken_for_finished(tmp_path):
    share({"a car": tmp_path}, lambda *_: True)
    outcome = share({"a car!": tmp_path}, lambda *_: True)
    assert "holds 'a car'" in outcome.failed["a car!"] and outcome.made == []


FOREIGN = ["", "{cut", "[]", "7", "null", '{"done": true}', "[" * 100_000, "\ud800"]


@pytest.mark.parametrize("content", FOREIGN, ids=[text[:10] for text in FOREIGN])
def test_a_foreign_file_in_the_folder_does_not_end_the_round(tmp_path, content):
    data = content.encode("utf-8", "surrogatepass")
    (tmp_path / CLAIMS).mkdir()
    for name in (
        FINISHED,
        FAILED,
        f"{CLAIMS}/notes.json",
        f"{CLAIMS}/1x.json",
        f"{CLAIMS}/12.json",
    ):
        (tmp_path / name).write_bytes(data)
    outcome = share({"a car": tmp_path}, lambda *_: True)
    assert outcome.made == ["a car"] and outcome.failed == {}
    assert json.loads((tmp_path / FINISHED).read_text())["text"] == "a car"
    assert (tmp_path / CLAIMS / "000001.json").exists()


OWNERS = [("x", 1.0), (10**30, 1.0), (-1, 1.0), (0, 1.0), (1, "x"), (None, None), ([], 1.0)]


@pytest.mark.parametrize(("pid", "started"), OWNERS)
def test_an_owner_that_cannot_be_is_taken_for_dead(tmp_path, pid, started):
    put_claim(tmp_path, {"whereabouts": prompts.whereabouts(), "pid": pid, "started": started})
    assert Watch().take(tmp_path).path.name == "000002.json"


@pytest.mark.parametrize("content", [b"[]", b"7", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_claim_that_is_no_claim_is_silent_and_then_free(tmp_path, content):
    put_claim(tmp_path, "").write_bytes(content)
    assert (
        Watch(stale=60).take(tmp_path) is None
        and Watch(stale=0).take(tmp_path).path.name == "000002.json"
    )


def test_emoji_alone_have_folders_of_their_own(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("🍔\n🍕\n🚗\n🚕 car\n🚗 car\n", encoding="utf-8")
    assert len(set(prompts.read(file, folder_of(tmp_path)).values())) == 5


def test_a_folder_that_another_run_uses_fails_alone(tiny_folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "list.txt").write_text("a car\na tree\n")
    (tmp_path / "all" / "a_car").mkdir(parents=True)
    monkeypatch.setattr(program, "LOCK_SECONDS", 0.05)
    small = "--iters 1 --size 8 --rays 8 --max_steps 24 --frames 1 --video_size 16 --no-save_mesh --preview_every 0"
    command = ["--prompts", str(tmp_path / "list.txt"), "--model", str(tiny_folder), *small.split()]
    with files.lock(tmp_path / "all" / "a_car"):
        assert program.main([*command, "--workspace", str(tmp_path / "all")]) == 1
    printed = capsys.readouterr()
    assert "1 made, 0 were finished, 1 failed" in printed.out
    assert "error: a car: --workspace" in printed.err and "is in use by another run" in printed.err
    assert program.main([*command, "--workspace", str(tmp_path / "all")]) == 0


def test_who_lost_the_claim_waits_for_the_other(tmp_path):
    told: list[str] = []

    def lose(text: str, folder: Path, claim: prompts.Claim) -> bool:
        if not told:
            other = put_other(folder)
            try:
                claim.check()
            finally:
                (folder / FINISHED).write_text(json.dumps({"text": text}))
                other.write_text('{"released": true}')
        return True

    outcome = share({"a": tmp_path}, lose, pause=0.01, say=told.append)
    assert (
        outcome.skipped == ["a"]
        and outcome.made == []
        and outcome.failed == {}
        and "has taken over" in told[0]
    )


def put_other(folder: Path) -> Path:
    path = folder / CLAIMS / "000002.json"
    path.write_text("{}")
    return path


# --- Two real processes


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_two_processes_and_one_is_killed(tiny_folder, tmp_path):
    texts = ["a car", "a bunny", "a tree", "a duck"]
    (tmp_path / "list.txt").write_text("\n".join(texts))
    small = "--iters 40 --size 8 --max_steps 24 --frames 2 --video_size 16 --save_every 5 --preview_every 0 --no-save_mesh"
    command = [
        sys.executable,
        str(MAIN),
        "--prompts",
        str(tmp_path / "list.txt"),
        "--model",
        str(tiny_folder),
    ]
    command += ["--workspace", str(tmp_path / "all"), *small.split()]
    killed, other = (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    begun: Path | None = None
    deadline = time.monotonic() + 120
    while begun is None:  # until the first process is in the middle of one
        assert time.monotonic() < deadline and killed.poll() is None, killed.communicate()[1]
        for claim in (tmp_path / "all").glob(f"*/{CLAIMS}/000001.json"):
            folder = claim.parent.parent
            if f'"pid": {killed.pid}' in claim.read_text() and checkpoint.latest(
                folder / "checkpoints"
            ):
                begun = folder
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert not (begun / FINISHED).exists()
    out, err = other.communicate(timeout=300)
    assert other.returncode == 0, err
    assert "4 made" in out or "were finished" in out
    for text in texts:
        folder = tmp_path / "all" / program.slug(text)
        assert (folder / FINISHED).exists() and (folder / "video.mp4").exists()
        assert checkpoint.latest(folder / "checkpoints").name == "000040"
    assert "goes on from step" in out  # the other took up what the killed one had begun
    assert [path.name for path in (begun / CLAIMS).glob("*.json")].__len__() == 2
    page = (tmp_path / "all" / "index.html").read_text()
    assert "4 runs" in page and page.count("<video") == 4

    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "0 made, 4 were finished, 0 failed" in done.stdout
