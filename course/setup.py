"""The environment: `.venv` in the repository, filled from requirements.txt at the versions of constraints.txt.

`python3 -m course.setup` builds or updates it and is quick when nothing changed; the Makefile calls it first.
`python -m course.setup --mend` only checks the environment it runs in (one you made yourself, or Colab).
This module needs nothing but the standard library, because it runs before anything is installed.
"""

import argparse
import hashlib
import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import venv
from pathlib import Path

from course.errors import CourseError

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
LISTS = ("requirements.txt", "constraints.txt")
SHOWN = ("torch", "diffusers", "transformers", "accelerate", "huggingface_hub", "numpy")


class SetupError(CourseError):
    """The environment cannot be used; the message says why and what to do."""


def python_of(folder: Path) -> Path:
    """The interpreter of the virtual environment `folder`."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint(folder: Path, root: Path = ROOT) -> str:
    """SHA-256 over what decides whether `folder` is up to date: both package lists, and the torch and torchvision that
    are installed, because a torchvision added by hand can break everything else."""
    parts = [(root / name).read_bytes() for name in LISTS]
    for packages in ("lib/python*/site-packages", "Lib/site-packages"):  # Unix, Windows
        parts += sorted(path.name.encode() for path in folder.glob(f"{packages}/torch*.dist-info"))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def build(root: Path = ROOT) -> Path:
    """Make `root/.venv` ready and return its interpreter. Does nothing when it is ready already.

    Raises SetupError if this Python is too old, has no `venv`, or pip fails (no network, full disk).
    """
    folder, stamp = root / ".venv", root / ".venv" / "ready"
    python = python_of(folder)
    if stamp.exists() and stamp.read_text() == fingerprint(folder, root):
        return python
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(
            f"Python {platform.python_version()} is too old: the course needs 3.11 or newer. "
            "Name another one, for example: make demo PYTHON=python3.12"
        )
    if not python.exists():
        print(f"Making .venv with Python {platform.python_version()} ...", flush=True)
        try:
            venv.create(folder, with_pip=True)
        except (subprocess.CalledProcessError, OSError) as error:
            raise SetupError(
                f"Python could not make a virtual environment in {folder} ({error}). "
                "On Debian and Ubuntu: sudo apt install python3-venv; then run this again."
            ) from error
    stamp.unlink(missing_ok=True)  # an interrupted installation must not look finished
    print("Installing the packages of requirements.txt (about 2 GB, a few minutes the first time) ...", flush=True)
    if install(python, root):
        raise SetupError(
            "pip could not install the packages; its message is above. Check the network and the free disk space "
            "(about 6 GB), then run the same command again: what was downloaded is kept."
        )
    # In its own process: the check has to import torch as the lessons will.
    if subprocess.run([str(python), "-m", "course.setup", "--mend"], cwd=root).returncode:
        raise SetupError("the installed packages do not work together; the reason is above.")
    stamp.write_text(fingerprint(folder, root))
    return python


def install(python: Path, root: Path) -> int:
    """Run pip on the package lists, with one line on a terminal that says what it is at; returns pip's exit status.
    What pip has to complain of goes to stderr as it comes."""
    lists = ["-r", str(root / LISTS[0]), "-c", str(root / LISTS[1])]
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off", *lists]
    process = subprocess.Popen(pip, cwd=root, stdout=subprocess.PIPE, text=True, errors="replace")
    assert process.stdout is not None
    count = 0
    for line in process.stdout:
        words = line.split()
        if words[:1] == ["Collecting"]:
            count += 1
            now = f"{count:4d} {words[1]}"
        elif words[:2] == ["Installing", "collected"]:
            now = "     writing them to the disk"
        else:
            continue
        if sys.stdout.isatty():
            print(f"\r{now[:78]:<78}", end="", flush=True)
    if sys.stdout.isatty():
        print("\r" + " " * 78, end="\r", flush=True)
    return process.wait()


def torchvision_fault() -> str | None:
    """Why the installed torchvision cannot be used with the installed torch, in one line, or None if it can or
    if there is none. The usual reason: a torch built for the CPU beside a torchvision built for CUDA."""
    try:
        version = importlib.metadata.version("torchvision")
    except importlib.metadata.PackageNotFoundError:
        return None
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # a foreign build fails in many ways: missing operator, symbol or library
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return f"torchvision {version} does not fit torch {importlib.metadata.version('torch')} ({reason})"
    return None


def mend() -> None:
    """Take a torchvision that does not fit out of the running environment, say so in one line, and make sure that
    diffusers and transformers import. Raises SetupError if they still do not."""
    fault = torchvision_fault()
    if fault:
        pip = [sys.executable, "-m", "pip", "uninstall", "--quiet", "--disable-pip-version-check", "--yes"]
        if subprocess.run([*pip, "torchvision"]).returncode:
            raise SetupError(f"{fault}, and pip could not remove it. Remove it by hand: pip uninstall torchvision")
        print(f"{fault}: removed it. The course does not need it.", flush=True)
    # A new process: this one may hold the half-imported torchvision.
    probe = "from diffusers import StableDiffusionPipeline; from transformers import CLIPTextModel"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise SetupError(
            f"diffusers or transformers does not import: {last} -- "
            "install the tested set: pip install -r requirements.txt -c constraints.txt"
        )


def show_versions() -> None:
    """Print what a lesson runs on: Python, packages, processor. The first cell of each notebook.

    Raises SetupError, with the command that mends it, if torchvision does not fit torch: the imports of the next
    cells would fail with a message that names neither.
    """
    fault = torchvision_fault()
    if fault:
        raise SetupError(f"{fault}. Run this in a terminal, then restart the kernel: python -m course.setup --mend")
    import torch

    print(f"{'python':<16} {platform.python_version()}")
    for name in SHOWN:
        print(f"{name:<16} {importlib.metadata.version(name)}")
    if torch.cuda.is_available():
        print(f"{'runs on':<16} {torch.cuda.get_device_name()}")
    else:
        print(f"{'runs on':<16} CPU, {torch.get_num_threads()} threads")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m course.setup", description="Make the course's .venv ready.")
    parser.add_argument("--mend", action="store_true", help="only check, and mend, the environment this runs in")
    options = parser.parse_args(arguments)
    try:
        mend() if options.mend else build()
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
