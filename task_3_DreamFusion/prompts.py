"""Many prompts, one a line of a file, spread over processes that share nothing but a folder.

Each process goes through the prompts, claims one that nobody has, makes it, and marks it as finished. There is no
message between processes: they may be the GPUs of a machine, several machines with a common disk, or come and go.

A claim is a numbered file in the prompt's folder, made by whoever comes first. Its owner touches it every few seconds.
If that stops, or the owner is seen to be dead, the next number is up for whoever makes it first. No claim is ever
removed: so two processes cannot both believe that they took over.
"""

import contextlib
import json
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from course.errors import CourseError
from task_3_DreamFusion.nerf.files import write_text

CLAIMS, FINISHED, FAILED = "claims", "finished.json", "failed.txt"
BEAT = 10.0  # seconds between the signs of life of a claim
STALE = 60.0  # seconds without one, after which a claim counts for nothing


class PromptsError(CourseError):
    """A file of prompts cannot be used; the message names it and the line."""


class ClaimLost(CourseError):
    """Another process took this one for dead and makes its prompt now."""


def read(path: Path, folder_of: Callable[[str], Path]) -> dict[str, Path]:
    """The prompts of a file, one a line, each with its folder; lines that are empty or begin with # are skipped.

    Raises PromptsError if the file cannot be read, has no prompt, or two prompts share a folder.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise PromptsError(f"--prompts {path} cannot be read: {reason}") from error
    jobs: dict[str, Path] = {}
    places: dict[Path, int] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        folder = folder_of(text)
        if folder in places:
            raise PromptsError(
                f"--prompts {path}: lines {places[folder]} and {number} share the folder {folder.name}: change one"
            )
        places[folder], jobs[text] = number, folder
    if not jobs:
        raise PromptsError(
            f"--prompts {path} holds no prompt: write one a line, such as: a hamburger"
        )
    return jobs


# --- Claims


def whereabouts() -> str:
    """Where this process's number means this process: the machine, since it was started, and the container."""
    parts = [platform.node()]
    for source in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        try:
            parts.append(source().strip())
        except OSError:  # not on Linux: the machine's name has to do
            continue
    return " ".join(parts)


@dataclass
class Claim:
    """This process's hold on a prompt. Within `with claim:` it is kept alive.

    path: its file. beat: seconds between signs of life.
    """

    path: Path
    beat: float = BEAT
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Claim":
        self._heart = threading.Thread(target=self._live, daemon=True)
        self._heart.start()
        return self

    def _live(self) -> None:
        while not self._over.wait(self.beat):
            try:
                os.utime(self.path)
            except (
                OSError
            ):  # a disk that is away for a moment; if it stays away, the others take over
                continue

    def __exit__(self, *_: object) -> None:
        """Gives the claim back: whoever looks may take over at once."""
        self._over.set()
        self._heart.join()
        with contextlib.suppress(OSError):  # else it goes stale
            write_text(self.path, json.dumps({"released": True}))

    def check(self) -> None:
        """Raises ClaimLost if another process has taken over."""
        if _last(self.path.parent) != self.path:
            raise ClaimLost(
                f"another process has taken over {self.path.parent.parent}: this one was silent for too long"
            )


class Watch:
    """Tells which claims are stale. A claim on another machine is judged by whether its time changes while this
    process looks, not by what the time is: clocks differ."""

    def __init__(self, stale: float = STALE) -> None:
        self.stale = stale
        self._seen: dict[Path, tuple[int, float]] = {}

    def is_free(self, claim: Path) -> bool:
        """Whether the owner of this claim is gone."""
        owner = _read_dict(
            claim
        )  # empty: just being written, or its owner was killed at that moment
        changed = claim.stat().st_mtime_ns
        if owner.get("released"):
            return True
        if owner.get("whereabouts") == whereabouts():
            return not _lives(owner.get("pid"), owner.get("started"))
        now = time.monotonic()
        if self._seen.get(claim, (None,))[0] != changed:
            self._seen[claim] = changed, now
        return now - self._seen[claim][1] >= self.stale

    def take(self, folder: Path, beat: float = BEAT) -> Claim | None:
        """Claims a prompt's folder, or None if somebody holds it. Raises OSError where nothing can be written."""
        claims = folder / CLAIMS
        claims.mkdir(parents=True, exist_ok=True)
        last = _last(claims)
        if last is not None and not self.is_free(last):
            return None
        number = 1 + (int(last.stem) if last else 0)
        me = psutil.Process()
        owner = {"whereabouts": whereabouts(), "pid": me.pid, "started": me.create_time()}
        path = claims / f"{number:06d}.json"
        try:
            with path.open("x") as file:  # one process alone can make it
                file.write(json.dumps(owner))
        except FileExistsError:
            return None
        return Claim(path, beat)


def _last(claims: Path) -> Path | None:
    return max(
        (path for path in claims.glob("*.json") if re.fullmatch(r"\d{6}", path.stem)), default=None
    )


def _read_dict(path: Path) -> dict[str, Any]:
    """Return what a JSON file says, or nothing if it is missing or holds something else."""
    try:
        content = json.loads(path.read_bytes()) if path.is_file() else None
    except (ValueError, RecursionError):
        content = None
    return content if isinstance(content, dict) else {}


def _lives(pid: Any, started: Any) -> bool:
    """Whether the process of this number is the one that was started then: numbers are used again."""
    if not isinstance(pid, int) or not 0 < pid < 2**31 or not isinstance(started, int | float):
        return False  # not written by this program
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


# --- The work


@dataclass
class Outcome:
    """What this process did. made, skipped: texts; skipped are those that were finished before it came to them.
    failed: text and reason. interrupted: whether it was asked to stop."""

    made: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


def share(
    jobs: Mapping[str, Path],
    work: Callable[[str, Path, Claim], bool],
    watch: Watch | None = None,
    beat: float = BEAT,
    pause: float = 0.5,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Makes what nobody else makes, until all are finished or have failed.

    jobs: texts and their folders. work: makes one, under its claim; False says that it was interrupted, and ends the
    round. A CourseError marks that prompt as failed, and the others go on; the next start tries it again. pause:
    seconds between looks at prompts that others hold.
    """
    watch, outcome = watch or Watch(), Outcome()
    before = {
        text for text, folder in jobs.items() if (folder / FAILED).is_file()
    }  # of an earlier start
    tried: set[str] = set()
    waits = False
    while True:
        held = []
        for text, folder in jobs.items():
            if text in tried:
                continue
            if _is_finished(text, folder, outcome):
                tried.add(text)
                continue
            if text not in before and (folder / FAILED).is_file():
                outcome.failed[text] = (folder / FAILED).read_text(
                    encoding="utf-8", errors="replace"
                )
                tried.add(text)
                continue
            claim = watch.take(folder, beat)
            if claim is None:
                held.append(text)
                continue
            tried.add(text)
            with claim:
                if _is_finished(text, folder, outcome):  # between the look and the claim
                    continue
                try:
                    if not _do(text, folder, claim, work, outcome):
                        return outcome
                except ClaimLost as error:
                    say(str(error))
                    tried.remove(text)
                    held.append(text)
        if not held:
            return outcome
        if not waits:
            say(f"waiting for {len(held)} that other processes make: {', '.join(held)}")
            waits = True
        time.sleep(pause)


def _do(
    text: str,
    folder: Path,
    claim: Claim,
    work: Callable[[str, Path, Claim], bool],
    outcome: Outcome,
) -> bool:
    """Makes one prompt and writes down how it went; False if it was interrupted."""
    (folder / FAILED).unlink(missing_ok=True)
    began = time.monotonic()
    try:
        if not work(text, folder, claim):
            outcome.interrupted = True
            return False
    except ClaimLost:
        raise
    except CourseError as error:
        outcome.failed[text] = str(error)
        write_text(folder / FAILED, str(error))
        return True
    outcome.made.append(text)
    write_text(
        folder / FINISHED,
        json.dumps({"text": text, "seconds": round(time.monotonic() - began, 1)}) + "\n",
    )
    return True


def _is_finished(text: str, folder: Path, outcome: Outcome) -> bool:
    """Whether the prompt needs no more work; says so in `outcome`."""
    made = _read_dict(folder / FINISHED).get("text")
    if made is None:  # not there, or not of this program
        return False
    if made == text:
        outcome.skipped.append(text)
    else:
        outcome.failed[text] = (
            f"{folder} holds {made!r}: change the text, or name another --workspace"
        )
    return True
