"""Generate 3D objects by the program of task 3, in a process of its own as a person runs it."""

import io
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from course import notebooks
from publish.page import Media, Section
from task_3_DreamFusion import command_line
from task_3_DreamFusion.jobs import folder_name
from task_3_DreamFusion.nerf import export

OBJECTS = Path("objects")  # below outputs/, one folder for each object


def object_folder(text: str) -> Path:
    """Return the folder of an object below outputs/, by task 3's own rule for names."""
    return OBJECTS / folder_name(text)


def task_3_command(*options: str) -> list[str]:
    """Return the command of task 3's program, whose own parser knows every option."""
    command_line.build_parser().parse_args(options)
    return [sys.executable, "-m", "task_3_DreamFusion.main", "--model", "pocket", *options]


def generate_object(outputs: Path, text: str, options: Sequence[str] = ()) -> Section:
    """Generate an object on the embedded model in `outputs`/objects, in place of an earlier one.

    options: further options of task 3's program. A run that fails gives a section with its error.
    """
    section = Section("3 DreamFusion: 3D objects from text")
    shutil.rmtree(outputs / OBJECTS, ignore_errors=True)  # task 3 never overwrites a run
    folder = outputs / object_folder(text)
    command = task_3_command("--text", text, "--workspace", str(folder), *options)
    start = time.perf_counter()
    status, errors = run_and_echo(command)
    if status:
        section.error = failure_reason(errors) or f"It ended with status {status}."
        return section
    seconds = time.perf_counter() - start
    shown = shlex.join(["python", "task_3_DreamFusion/main.py", "--text", text])
    section.summary = f"{shown} took {seconds:.0f} seconds."
    note = "A full turn: color, depth (near is bright) and normals."
    section.media.append(Media(folder / export.VIDEO, text, note))
    page = folder / f"{export.MESH}.html"
    if page.exists():  # a field may be too thin for a mesh
        section.links.append((page, "Rotate the mesh"))
    return section


def run_and_echo(command: Sequence[str]) -> tuple[int, str]:
    """Run a command in the repository; return its exit status and its stderr.

    Stderr is also shown at once, character by character, because a progress bar ends no line.
    """
    text = ""
    with subprocess.Popen(command, cwd=notebooks.ROOT, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        stream = io.TextIOWrapper(process.stderr, encoding="utf-8", errors="replace", newline="")
        while character := stream.read(1):
            text += character
            print(character, end="", file=sys.stderr, flush=True)
    return process.returncode, text


def failure_reason(errors: str) -> str:
    """Return why a program failed: its stderr from the error on, or else the last line."""
    match = re.search(r"^(error: |Traceback )(?s:.*)", errors, flags=re.MULTILINE)
    return match[0].strip() if match else errors.strip().split("\n")[-1]
