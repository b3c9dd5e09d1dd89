"""Running the lessons from the command line, as the demo, the tests and the authors do.

`python -m course.notebooks LESSON.ipynb ...` executes notebooks from top to bottom and stores the outputs in them.
"""

import argparse
import ast
import atexit
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from tqdm import tqdm
from traitlets import default

from course.errors import CourseError

ROOT = Path(__file__).resolve().parent.parent
WIDGET = "application/vnd.jupyter.widget-view+json"


class LessonError(CourseError):
    """A lesson cannot be read, run or stored; the message names the file or the cell."""


class CourseKernels(KernelSpecManager):
    """Kernels among which "python3" is this environment's own, also where another one is on the Jupyter path."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        if kernel_name == NATIVE_KERNEL_NAME:
            return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())
        return super().get_kernel_spec(kernel_name)


class CourseKernelManager(AsyncKernelManager):
    """Starts the kernels of `CourseKernels`."""

    @default("kernel_spec_manager")
    def _own_kernels(self) -> KernelSpecManager:
        return CourseKernels()


def lessons() -> list[Path]:
    """All lessons, in the order of the course; `make_video` joins the frames that 1.2 leaves."""
    paths = [*ROOT.glob("task_*.ipynb"), *ROOT.glob("make_video.ipynb")]
    return sorted(paths, key=lambda path: path.name.replace("make_video", "task_1_2~"))


def read(path: str | Path) -> nbformat.NotebookNode:
    """Return the notebook at `path`, in format 4. Raises LessonError if it cannot be read or is no notebook."""
    if not Path(path).is_file():
        raise LessonError(f"{path} is not a file.")
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except OSError as error:
        raise LessonError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # what nbformat raises depends on where its reading stops
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LessonError(f"{path} is not a valid Jupyter notebook: {reason}") from error
    return notebook


def store(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write an executed notebook to `path`. Raises LessonError if an output names a path of this machine."""
    if paths := machine_paths(notebook):
        raise LessonError(f"an output names {', '.join(paths)}; not stored")
    try:
        nbformat.write(notebook, path)
    except OSError as error:
        raise LessonError(f"it cannot be stored in {path}: {error.strerror}.") from error


def execute(
    notebook: nbformat.NotebookNode,
    parameters: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    progress: str | None = None,
) -> nbformat.NotebookNode:
    """Run every cell in a fresh kernel whose working directory is the repository, and return the notebook with its
    outputs; `notebook` itself stays as it is.

    `parameters` are set right after the cell tagged `parameters` (papermill's convention), `environment` variables
    for the kernel alone; `progress` names a progress bar. Raises LessonError with the cell and its error, or why the
    kernel does not run, and ValueError if there are parameters but no cell for them.
    """
    if os.path.expanduser("~") == "~":  # Jupyter needs one
        raise LessonError("There is no home folder: set HOME to a folder that you may write in.")
    notebook = nbformat.from_dict(notebook)
    injected = None
    if parameters:
        at = next(
            (i for i, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", [])),
            None,
        )
        if at is None:
            raise ValueError("the notebook has no cell tagged `parameters`")
        source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        injected = nbformat.v4.new_code_cell(source)
        notebook.cells.insert(at + 1, injected)

    count = sum(cell.cell_type == "code" for cell in notebook.cells)
    bar = tqdm(total=count, desc=progress, unit="cell", disable=progress is None)
    started: list[nbformat.NotebookNode] = []
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name=NATIVE_KERNEL_NAME,
        kernel_manager_class=CourseKernelManager,
        extra_arguments=[
            "--IPKernelApp.log_level=40"
        ],  # a local kernel need not warn of unencrypted sockets
        resources={"metadata": {"path": str(ROOT)}},
        on_cell_execute=lambda cell, cell_index: started.append(cell),
        on_cell_complete=lambda cell, cell_index: bar.update(),
    )
    try:
        with bar:
            client.execute(env={**os.environ, **(environment or {})})
    except CellExecutionError as error:
        raise LessonError(
            f"{error.ename}: {error.evalue}\nin the cell\n{_failed_source(notebook)}"
        ) from error
    except DeadKernelError as error:
        cell = started[-1].source if started else "(none was started)"
        raise LessonError(
            f"The kernel died (often: too little memory)\nin the cell\n{cell}"
        ) from error
    except (RuntimeError, OSError) as error:
        atexit.unregister(
            client._cleanup_kernel
        )  # nbclient forgets it, and it would fail for want of a kernel
        raise LessonError(
            f"The kernel {sys.executable} -m ipykernel_launcher does not run: {error}"
        ) from error
    if injected is not None:
        notebook.cells.remove(injected)
    tidy(notebook)
    return notebook


def definitions(
    notebook: nbformat.NotebookNode, parameters: Mapping[str, Any] | None = None
) -> ModuleType:
    """What a lesson defines, as a module, without running it: its parameters (or those given in their place), imports,
    functions, classes, and the methods hung on them (`Class.name = name`). For tests and benchmarks of the very code
    that stands in the lesson."""
    module = ModuleType("lesson")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            tagged = "parameters" in cell.metadata.get("tags", [])
            tree = ast.parse(cell.source)
            tree.body = [node for node in tree.body if tagged or _defines(node)]
            exec(compile(tree, "lesson", "exec"), module.__dict__)
            if tagged:
                module.__dict__.update(parameters or {})
    return module


def _defines(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Attribute) and isinstance(node.value, ast.Name)
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Leave in place what a reader wants to see: finished progress bars, second copies of images, times of execution
    and the names of this machine's kernel go."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [
                output for output in cell.outputs if WIDGET not in output.get("data", {})
            ]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data.pop("image/jpeg", None)  # PIL hands over both
    notebook.metadata.pop("widgets", None)
    notebook.metadata.kernelspec = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata.language_info = {"name": "python"}


def machine_paths(notebook: nbformat.NotebookNode) -> list[str]:
    """Paths of this machine (repository, home, temporary folder) that stand in the outputs."""
    folders = {str(ROOT), str(Path.home()), tempfile.gettempdir()}
    # The longest first: the repository may lie in one of the others.
    pattern = "|".join(
        re.escape(folder) for folder in sorted(folders, key=len, reverse=True) if len(folder) > 1
    )
    outputs = [str(output) for cell in notebook.cells for output in cell.get("outputs", [])]
    return sorted(
        {match[0] for text in outputs for match in re.finditer(rf"(?:{pattern})/[\w.-]+", text)}
    )


def _failed_source(notebook: nbformat.NotebookNode) -> str:
    for cell in notebook.cells:
        if any(output.output_type == "error" for output in cell.get("outputs", [])):
            return cell.source
    return "(a cell that left no output)"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m course.notebooks", description="Execute lessons and store them."
    )
    parser.add_argument("notebooks", nargs="+", type=Path)
    paths = parser.parse_args(arguments).notebooks
    name = ""
    try:
        lessons = [read(path) for path in paths]  # before the first one runs for minutes
        for path, lesson in zip(paths, lessons, strict=True):
            name = f"{path.name}: "
            store(execute(lesson, progress=path.stem), path)
    except LessonError as error:
        print(f"{name}{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
