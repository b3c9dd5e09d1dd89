"""Set up the environment: `.venv` in the repository, with the packages of requirements.txt.

`python3 -m course.setup` builds or updates it at the versions of constraints.txt, and is quick when
nothing changed; the Makefile calls it first. `python -m course.setup --repair` only checks the
environment that it runs in (your own, or Colab's).

This module and what it imports need only the standard library, because they run before anything is
installed, and the syntax of Python 3.5: any Python 3 can use an environment that is ready, or
report that it is too old.
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

from course import __version__
from course.errors import CourseError

ROOT = Path(__file__).resolve().parent.parent
MIN_PYTHON = (3, 11)
PACKAGE_LISTS = ("requirements.txt", "constraints.txt")
SHOWN_PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "huggingface_hub", "numpy")


class SetupError(CourseError):
    """The environment cannot be used; the message says why and what to do."""


def interpreter_path(folder: Path) -> Path:
    """Return the interpreter of the virtual environment `folder`."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint(folder: Path, root: Path = ROOT) -> str:
    """Return a SHA-256 over what decides whether `folder` is up to date.

    That is both package lists; the Python that made it; and the installed versions of torch and
    torchvision, because a torchvision added by hand can break everything else.
    """
    parts = [(root / name).read_bytes() for name in PACKAGE_LISTS]
    configuration = folder / "pyvenv.cfg"
    if configuration.is_file():
        parts.append(configuration.read_bytes())
    for packages in ("lib/python*/site-packages", "Lib/site-packages"):  # Unix, Windows
        parts += sorted(
            path.name.encode() for path in folder.glob("{}/torch*.dist-info".format(packages))
        )
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def interpreter_problem(folder: Path) -> Optional[str]:
    """Return why the interpreter of `folder` cannot be used, or None if it can."""
    probe = "import sys; print(ascii((sys.prefix, sys.version_info[:3])))"
    command = [str(interpreter_path(folder)), "-I", "-c", probe]
    try:
        output = subprocess.check_output(command, stderr=subprocess.STDOUT)
        prefix, version = ast.literal_eval(output.decode("ascii", "replace"))
    except (OSError, ValueError, SyntaxError, subprocess.CalledProcessError) as error:
        return "its interpreter does not start ({})".format(error)
    if not os.path.exists(prefix) or not os.path.samefile(prefix, str(folder)):
        return "its interpreter belongs to {}".format(prefix)
    if version < MIN_PYTHON:
        return "it was created by Python {}.{}.{}".format(*version)
    return None


def pip_problem(folder: Path) -> Optional[str]:
    """Return why pip cannot be used in `folder`, whose interpreter can, or None if it can."""
    command = [str(interpreter_path(folder)), "-m", "pip", "--version"]
    status = subprocess.call(
        command, env=pip_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return "it has no working pip" if status else None


def pip_environment() -> Dict[str, str]:
    """Return the environment variables for pip, which let it install nowhere but in `.venv`."""
    variables = dict(os.environ, PIP_USER="0")  # overrides `user = true` in a pip.conf
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"):
        variables.pop(name, None)
    return variables


def build(root: Path = ROOT) -> Path:
    """Make `root/.venv` ready and return its interpreter; do nothing if it is ready.

    An environment that cannot be used is built again. Raises SetupError if this Python is too old,
    has no `venv`, or pip fails (no network, full disk).
    """
    folder = root / ".venv"
    python = interpreter_path(folder)
    stamp = folder / "ready"
    problem = interpreter_problem(folder)
    if not problem and stamp.is_file() and stamp.read_bytes() == fingerprint(folder, root).encode():
        return python
    if sys.version_info < MIN_PYTHON:
        raise SetupError(
            "the course needs Python 3.11 or newer, this is {}. Name another one, for example: "
            "make demo PYTHON=python3.12, or without make: python3.12 -m course.setup".format(
                platform.python_version()
            )
        )
    problem = problem or pip_problem(folder)
    if problem:
        create(folder, problem)
    if stamp.exists():
        stamp.unlink()  # an interrupted installation must not look finished
    message = "Installing the packages of requirements.txt (2 GB, some minutes the first time) ..."
    print(message, flush=True)
    if install(python, root):
        raise SetupError(
            "pip could not install the packages; its message is above. Check the network and the "
            "free disk space ({:.1f} GB here; about 6 GB are needed), then run the same command "
            "again: what was downloaded is kept. If it fails once more, delete {} first.".format(
                shutil.disk_usage(str(root)).free / 1e9, folder
            )
        )
    # In its own process: the check has to import torch as the lessons will.
    if subprocess.call([str(python), "-m", "course.setup", "--repair"], cwd=str(root)):
        raise SetupError("the installed packages do not work together; the reason is above.")
    stamp.write_bytes(fingerprint(folder, root).encode())
    return python


def create(folder: Path, problem: str) -> None:
    """Create a virtual environment in `folder`; `problem` is why one that exists cannot be used."""
    if folder.exists():
        print(".venv cannot be used ({}); it is created again.".format(problem), flush=True)
    print("Creating .venv with Python {} ...".format(platform.python_version()), flush=True)
    try:
        venv.create(str(folder), clear=True, with_pip=True)
    except subprocess.CalledProcessError as error:
        raise SetupError(
            "Python could not install pip in {} ({}). On Debian and Ubuntu: "
            "sudo apt install python3-venv; then run this again.".format(folder, error)
        ) from error
    except (OSError, ValueError) as error:
        raise SetupError(
            "Python could not create a virtual environment in {} ({}). Delete it if it exists, "
            "check that you may write to its folder and that the disk is not full, then run this "
            "again.".format(folder, error)
        ) from error


def install(python: Path, root: Path) -> int:
    """Run pip on the package lists and return its exit status.

    A terminal shows progress in one line; pip's errors go to stderr as they come.
    """
    requirements, constraints = (str(root / name) for name in PACKAGE_LISTS)
    options = ["--disable-pip-version-check", "--progress-bar=off"]
    command = [str(python), "-m", "pip", "install", *options, "-r", requirements, "-c", constraints]
    process = subprocess.Popen(
        command, cwd=str(root), env=pip_environment(), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    count = 0
    for line in process.stdout:
        text = line.decode("utf-8", "replace").strip()
        count += text.startswith("Collecting ")
        if text.startswith(("Collecting ", "Installing ")) and sys.stdout.isatty():
            status = "{:4d} {}".format(count, text)
            print("\r{:<78}".format(status[:78]), end="", flush=True)
    if sys.stdout.isatty():
        print("\r" + " " * 78, end="\r", flush=True)
    return process.wait()


def torchvision_problem() -> Optional[str]:
    """Return in one line why the installed torchvision cannot be used with torch, or None.

    None means that it can, or that there is none. The usual reason: a torch built for the CPU
    beside a torchvision built for CUDA.
    """
    from importlib import metadata

    if importlib.util.find_spec("torchvision") is None:
        return None
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # a missing operator, symbol or library
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        versions = metadata.version("torchvision"), metadata.version("torch")
        return "torchvision {} does not fit torch {} ({})".format(*versions, reason)
    return None


def repair() -> None:
    """Remove a torchvision that does not fit torch from the running environment.

    Prints one line about it. Raises SetupError if diffusers and transformers still do not import.
    """
    problem = torchvision_problem()
    if problem:
        options = ["--quiet", "--disable-pip-version-check", "--yes"]
        command = [sys.executable, "-m", "pip", "uninstall", *options, "torchvision"]
        if subprocess.call(command, env=pip_environment()):
            by_hand = "Remove it by hand: pip uninstall torchvision"
            raise SetupError("{}, and pip could not remove it. {}".format(problem, by_hand))
        print("{}: removed it. The course does not need it.".format(problem), flush=True)
    # A new process: this one may hold the half-imported torchvision.
    probe = "from diffusers import StableDiffusionPipeline; from transformers import CLIPTextModel"
    command = [sys.executable, "-c", probe]
    result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = result.stderr.decode("utf-8", "replace").strip()
    if result.returncode:
        last_line = errors.splitlines()[-1] if errors else "no message"
        raise SetupError(
            "diffusers or transformers cannot be imported: {} -- install the tested versions: "
            "pip install -r requirements.txt -c constraints.txt".format(last_line)
        )


def show_versions() -> None:
    """Print what a lesson runs on: Python, packages, processor. The first cell of each notebook.

    Raises SetupError if the notebook runs on a Python that is not the course's, or if torchvision
    does not fit torch: the imports of the next cells would fail with a message that names neither.
    """
    from importlib import metadata

    missing = [name for name in SHOWN_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(
            "this notebook runs on {}, which has no {}. Start it by `make lab`, or choose the "
            "kernel of the course's .venv under Kernel > Change Kernel.".format(
                sys.executable, ", ".join(missing)
            )
        )
    problem = torchvision_problem()
    if problem:
        remedy = "Run this in a terminal, then restart the kernel"
        raise SetupError("{}. {}: python -m course.setup --repair".format(problem, remedy))
    import torch

    print("{:<16} {}".format("course", __version__))
    print("{:<16} {}".format("python", platform.python_version()))
    for name in SHOWN_PACKAGES:
        print("{:<16} {}".format(name, metadata.version(name)))
    cpu = "CPU, {} threads".format(torch.get_num_threads())
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    print("{:<16} {}".format("runs on", device))


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m course.setup", description="Build or update the environment of the course."
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="check the environment that this runs in, and remove a torchvision that does not fit",
    )
    options = parser.parse_args(arguments)
    try:
        if options.repair:
            repair()
        else:
            build()
    except SetupError as error:
        print("setup: {}".format(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
