"""The environment: `.venv` in the repository, filled from requirements.txt at the versions of constraints.txt.

`python3 -m course.setup` builds or updates it and is quick when nothing changed; the Makefile calls it first.
`python -m course.setup --mend` only checks the environment it runs in (one you made yourself, or Colab).

This module and what it imports need nothing but the standard library, because they run before anything is installed;
and the syntax of Python 3.5, so that any Python 3 can use an environment that is ready, or say that it is too old.
"""

import argparse
import ast
import hashlib
import importlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Dict, List, Optional

from course.errors import CourseError

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
LISTS = ("requirements.txt", "constraints.txt")
SHOWN = ("torch", "diffusers", "transformers", "accelerate", "huggingface_hub", "numpy")
# Variables that would send pip's packages elsewhere.
ELSEWHERE = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")


class SetupError(CourseError):
    """The environment cannot be used; the message says why and what to do."""


def python_of(folder: Path) -> Path:
    """Return the interpreter of the virtual environment `folder`."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint(folder: Path, root: Path = ROOT) -> str:
    """Return a SHA-256 over what decides whether `folder` is up to date.

    That is both package lists; the Python that made it; and the torch and torchvision that are installed, because a
    torchvision added by hand can break everything else.
    """
    parts = [(root / name).read_bytes() for name in LISTS]
    configuration = folder / "pyvenv.cfg"
    if configuration.is_file():
        parts.append(configuration.read_bytes())
    for packages in ("lib/python*/site-packages", "Lib/site-packages"):  # Unix, Windows
        parts += sorted(
            path.name.encode() for path in folder.glob("{}/torch*.dist-info".format(packages))
        )
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def interpreter_fault(folder: Path) -> Optional[str]:
    """Return why the interpreter of `folder` cannot be used, or None if it can."""
    python = python_of(folder)
    if not python.exists():
        if python.is_symlink():
            return "its interpreter, {}, is gone".format(os.readlink(str(python)))
        return "it has no {}".format(python.relative_to(folder).as_posix())
    probe = "import sys; print(ascii((sys.prefix, sys.version_info[:3])))"
    try:
        answer = subprocess.check_output([str(python), "-I", "-c", probe], stderr=subprocess.STDOUT)
        prefix, version = ast.literal_eval(answer.decode("ascii", "replace"))
    except (OSError, ValueError, SyntaxError, subprocess.CalledProcessError) as error:
        return "its interpreter does not start ({})".format(error)
    if not os.path.exists(prefix) or not os.path.samefile(prefix, str(folder)):
        return "its interpreter belongs to {}".format(prefix)
    if version < OLDEST_PYTHON:
        return "it was made by Python {}.{}.{}".format(*version)
    return None


def pip_fault(folder: Path) -> Optional[str]:
    """Return why pip cannot be used in `folder`, whose interpreter can, or None if it can."""
    command = [str(python_of(folder)), "-m", "pip", "--version"]
    status = subprocess.call(
        command, env=pip_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return "it has no working pip" if status else None


def pip_environment() -> Dict[str, str]:
    """Return the environment variables for pip, without those that have it install anywhere but in `.venv`."""
    kept = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    kept["PIP_USER"] = "0"  # also before `user = true` in a pip.conf
    return kept


def build(root: Path = ROOT) -> Path:
    """Make `root/.venv` ready and return its interpreter. Does nothing when it is ready already.

    An environment that cannot be used is built again. Raises SetupError if this Python is too old, has no `venv`, or
    pip fails (no network, full disk).
    """
    folder = root / ".venv"
    python = python_of(folder)
    stamp = folder / "ready"
    fault = interpreter_fault(folder)
    if not fault and stamp.is_file() and stamp.read_bytes() == fingerprint(folder, root).encode():
        return python
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(
            "the course needs Python 3.11 or newer, this is {}. Name another one, for example: "
            "make demo PYTHON=python3.12, or without make: python3.12 -m course.setup".format(
                platform.python_version()
            )
        )
    fault = fault or pip_fault(folder)
    if fault:
        create(folder, fault)
    if stamp.exists():
        stamp.unlink()  # an interrupted installation must not look finished
    print(
        "Installing the packages of requirements.txt (about 2 GB, a few minutes the first time) ...",
        flush=True,
    )
    if install(python, root):
        raise SetupError(
            "pip could not install the packages; its message is above. Check the network and the free disk space "
            "({:.1f} GB here; about 6 GB are needed), then run the same command again: what was downloaded is kept. "
            "If it fails once more, delete {} first.".format(
                shutil.disk_usage(str(root)).free / 1e9, folder
            )
        )
    # In its own process: the check has to import torch as the lessons will.
    if subprocess.call([str(python), "-m", "course.setup", "--mend"], cwd=str(root)):
        raise SetupError("the installed packages do not work together; the reason is above.")
    stamp.write_bytes(fingerprint(folder, root).encode())
    return python


def create(folder: Path, fault: str) -> None:
    """Make a virtual environment in `folder`, in the place of one that cannot be used because of `fault`."""
    if folder.exists():
        print(".venv cannot be used ({}); it is made again.".format(fault), flush=True)
    print("Making .venv with Python {} ...".format(platform.python_version()), flush=True)
    try:
        venv.create(str(folder), clear=True, with_pip=True)
    except subprocess.CalledProcessError as error:
        raise SetupError(
            "Python could not install pip in {} ({}). On Debian and Ubuntu: sudo apt install python3-venv; "
            "then run this again.".format(folder, error)
        ) from error
    except (OSError, ValueError) as error:
        raise SetupError(
            "Python could not make a virtual environment in {} ({}). Delete it if it is there, check that you may "
            "write in its folder and that the disk is not full, then run this again.".format(
                folder, error
            )
        ) from error


def install(python: Path, root: Path) -> int:
    """Run pip on the package lists, with one line on a terminal that says what it is at; return pip's exit status.

    What pip has to complain of goes to stderr as it comes.
    """
    lists = ["-r", str(root / LISTS[0]), "-c", str(root / LISTS[1])]
    pip = [
        str(python),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--progress-bar=off",
        *lists,
    ]
    process = subprocess.Popen(pip, cwd=str(root), env=pip_environment(), stdout=subprocess.PIPE)
    assert process.stdout is not None
    count = 0
    for line in process.stdout:
        words = line.decode("utf-8", "replace").split()
        if words[:1] == ["Collecting"]:
            count += 1
            now = "{:4d} {}".format(count, words[1])
        elif words[:2] == ["Installing", "collected"]:
            now = "     writing them to the disk"
        else:
            continue
        if sys.stdout.isatty():
            print("\r{:<78}".format(now[:78]), end="", flush=True)
    if sys.stdout.isatty():
        print("\r" + " " * 78, end="\r", flush=True)
    return process.wait()


def torchvision_fault() -> Optional[str]:
    """Return why the installed torchvision cannot be used with the installed torch, in one line, or None.

    None means that it can, or that there is none. The usual reason: a torch built for the CPU beside a torchvision
    built for CUDA.
    """
    from importlib import metadata

    try:
        version = metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        return None
    try:
        importlib.import_module("torchvision")
    except (
        Exception
    ) as error:  # a foreign build fails in many ways: missing operator, symbol or library
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return "torchvision {} does not fit torch {} ({})".format(
            version, metadata.version("torch"), reason
        )
    return None


def mend() -> None:
    """Take a torchvision that does not fit out of the running environment, say so in one line, and make sure that
    diffusers and transformers import. Raises SetupError if they still do not."""
    fault = torchvision_fault()
    if fault:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "uninstall",
            "--quiet",
            "--disable-pip-version-check",
            "--yes",
        ]
        if subprocess.call([*pip, "torchvision"], env=pip_environment()):
            raise SetupError(
                "{}, and pip could not remove it. Remove it by hand: pip uninstall torchvision".format(
                    fault
                )
            )
        print("{}: removed it. The course does not need it.".format(fault), flush=True)
    # A new process: this one may hold the half-imported torchvision.
    probe = "from diffusers import StableDiffusionPipeline; from transformers import CLIPTextModel"
    process = subprocess.Popen(
        [sys.executable, "-c", probe], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    said = process.communicate()[1].decode("utf-8", "replace")
    if process.returncode:
        last = (said.strip().splitlines() or ["no message"])[-1]
        raise SetupError(
            "diffusers or transformers does not import: {} -- install the tested set: "
            "pip install -r requirements.txt -c constraints.txt".format(last)
        )


def show_versions() -> None:
    """Print what a lesson runs on: Python, packages, processor. The first cell of each notebook.

    Raises SetupError if the notebook runs on a Python that is not the course's, or if torchvision does not fit torch:
    the imports of the next cells would fail with a message that names neither.
    """
    from importlib import metadata

    missing = [name for name in SHOWN if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(
            "this notebook runs on {}, which has no {}. Start it by `make lab`, or choose the kernel of the course's "
            ".venv under Kernel > Change Kernel.".format(sys.executable, ", ".join(missing))
        )
    fault = torchvision_fault()
    if fault:
        raise SetupError(
            "{}. Run this in a terminal, then restart the kernel: python -m course.setup --mend".format(
                fault
            )
        )
    import torch

    print("{:<16} {}".format("python", platform.python_version()))
    for name in SHOWN:
        print("{:<16} {}".format(name, metadata.version(name)))
    if torch.cuda.is_available():
        print("{:<16} {}".format("runs on", torch.cuda.get_device_name()))
    else:
        print("{:<16} CPU, {} threads".format("runs on", torch.get_num_threads()))


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m course.setup", description="Make the course's .venv ready."
    )
    parser.add_argument(
        "--mend", action="store_true", help="only check, and mend, the environment this runs in"
    )
    options = parser.parse_args(arguments)
    try:
        mend() if options.mend else build()
    except SetupError as error:
        print("set-up: {}".format(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
