"""The jobs of `--prompts`: one text prompt per line, shared by processes that see the same folder.

A process holds the lock of a job's folder while it works on it. The system releases the lock when
the process ends, however it ends, so another process takes over what a dead one has begun.
"""

import contextlib
import hashlib
import json
import re
import string
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course.errors import CourseError
from course.files import LockTimeout, lock, write_text

OUTPUTS = Path(__file__).resolve().parent.parent / "outputs" / "task_3"
# Files in the folder of a job.
LOCK = ".lock"
FINISHED = "finished.json"
FAILED = "failed.txt"


class JobsError(CourseError):
    """A file of prompts cannot be used; the message names it and the line."""


@dataclass
class Outcome:
    """What became of the jobs of this process, by their texts. failed: with the reason.

    skipped: finished before this process came to them. interrupted: whether it was stopped.
    """

    generated: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


def read_jobs(path: Path, base: Path) -> dict[str, Path]:
    """Return the text prompts of a file, each with its folder in `base`.

    Empty lines and lines that begin with # are skipped. Raises JobsError if the file cannot be
    read or has no prompt, or if two prompts share a folder.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise JobsError(f"--prompts {path} cannot be read: {reason}") from error
    jobs: dict[str, Path] = {}
    numbers: dict[Path, int] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        folder = base / folder_name(text)
        first = numbers.setdefault(folder, number)
        if first != number:
            raise JobsError(
                f"--prompts {path}: lines {first} and {number} share the folder {folder.name}: "
                "change one of them"
            )
        jobs[text] = folder
    if not jobs:
        raise JobsError(f"--prompts {path} has no prompt: write one per line, such as: a hamburger")
    return jobs


def folder_name(text: str) -> str:
    """Return a text prompt as the name of a folder: letters, digits and _.

    Where something other than spaces and ASCII punctuation is left out, such as an emoji or the end
    of a long text, a few digits of a checksum make the name unique.
    """
    composed = unicodedata.normalize("NFC", text.lower())
    name = re.sub(r"[^\w]+", "_", composed).strip("_")
    is_whole = set(re.sub(r"[\w\s]", "", composed)) <= set(string.punctuation)
    if name and is_whole and len(name) <= 60:
        return name
    return f"{name[:51] or 'untitled'}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def share(
    jobs: Mapping[str, Path],
    work: Callable[[str, Path], bool],
    pause: float = 0.5,
    log: Callable[[str], None] = print,
) -> Outcome:
    """Work on the jobs that no other process has, until all are finished or have failed.

    Args:
        jobs: text prompts and their folders.
        work: does one; returns False if it was interrupted, which ends this process's part. A
            CourseError makes the job fail; the others go on, and the next start tries it again.
        pause: seconds between looks at jobs that other processes have.
    """
    outcome = Outcome()
    earlier = {text for text, folder in jobs.items() if (folder / FAILED).is_file()}
    remaining = dict(jobs)
    is_waiting = False
    while remaining:
        for text, folder in list(remaining.items()):
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(lock(folder / LOCK))
                except LockTimeout:
                    continue
                del remaining[text]
                if not _is_settled(text, folder, outcome, retry=text in earlier):
                    _do(text, folder, work, outcome)
            if outcome.interrupted:
                return outcome
        if remaining and not is_waiting:
            log(f"waiting for {len(remaining)} of other processes: {', '.join(remaining)}")
            is_waiting = True
        time.sleep(pause if remaining else 0)
    return outcome


def _is_settled(text: str, folder: Path, outcome: Outcome, retry: bool) -> bool:
    """Note in `outcome` that a job is finished or has failed; return whether it is."""
    finished = _read_dict(folder / FINISHED).get("text")
    if finished == text:
        outcome.skipped.append(text)
    elif finished is not None:
        outcome.failed[text] = (
            f"{folder} holds {finished!r}: change the text, or choose another --workspace"
        )
    elif (folder / FAILED).is_file() and not retry:  # by another process, since this one started
        outcome.failed[text] = (folder / FAILED).read_text(encoding="utf-8", errors="replace")
    else:
        return False
    return True


def _do(text: str, folder: Path, work: Callable[[str, Path], bool], outcome: Outcome) -> None:
    """Work on a job, and note in its folder and in `outcome` what became of it."""
    (folder / FAILED).unlink(missing_ok=True)
    start = time.monotonic()
    try:
        if not work(text, folder):
            outcome.interrupted = True
            return
    except CourseError as error:
        outcome.failed[text] = str(error)
        write_text(folder / FAILED, str(error))
        return
    outcome.generated.append(text)
    seconds = round(time.monotonic() - start, 1)
    write_text(folder / FINISHED, json.dumps({"text": text, "seconds": seconds}) + "\n")


def _read_dict(path: Path) -> dict[str, Any]:
    """Return the contents of a JSON file, or {} if it is missing or holds something else."""
    try:
        content = json.loads(path.read_bytes()) if path.is_file() else None
    except (ValueError, RecursionError):
        content = None
    return content if isinstance(content, dict) else {}
