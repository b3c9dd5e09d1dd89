"""The lessons as files: reading, executing and storing notebooks, and the fences of solutions.

`python -m course.notebooks LESSON.ipynb ...` executes notebooks and stores the outputs in them.
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
from traitlets import Instance

from course.errors import CourseError

ROOT = Path(__file__).resolve().parent.parent
BEGIN_SOLUTION, END_SOLUTION = "### BEGIN SOLUTION", "### END SOLUTION"
WIDGET = "application/vnd.jupyter.widget-view+json"


class LessonError(CourseError):
    """A lesson cannot be read, executed or stored; the message names the file or the cell."""


class CourseKernels(KernelSpecManager):
    """The installed kernels, with "python3" always that of this environment."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        if kernel_name == NATIVE_KERNEL_NAME:
            return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())
        return super().get_kernel_spec(kernel_name)


class CourseKernelManager(AsyncKernelManager):
    """A kernel manager that starts the kernels of `CourseKernels`."""

    kernel_spec_manager = Instance(CourseKernels, ())


def lesson_paths() -> list[Path]:
    """Return all lessons in the order of the course."""
    patterns = ("task_*.ipynb", "make_video.ipynb", "task_3_DreamFusion/*.ipynb")
    paths = [path for pattern in patterns for path in ROOT.glob(pattern)]
    # make_video.ipynb joins the frames that lesson 1.2 saves.
    return sorted(paths, key=lambda path: path.name.replace("make_video", "task_1_2~"))


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Return the code cells of a notebook."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def read(path: str | Path) -> nbformat.NotebookNode:
    """Return the notebook at `path`, in format 4. Raises LessonError."""
    if not Path(path).is_file():
        raise LessonError(f"{path} is not a file.")
    try:
        notebook: nbformat.NotebookNode = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # what nbformat raises depends on where its reading stops
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LessonError(f"{path} cannot be read as a Jupyter notebook: {reason}") from error
    return notebook


def store(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write an executed notebook to `path`. Raises LessonError, also for paths of this machine."""
    if paths := machine_paths(notebook):
        raise LessonError(f"The outputs contain paths of this machine: {', '.join(paths)}.")
    try:
        nbformat.write(notebook, path)
    except OSError as error:
        raise LessonError(f"{path} cannot be written: {error.strerror}.") from error


def execute(
    notebook: nbformat.NotebookNode,
    parameters: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    progress: str | None = None,
) -> nbformat.NotebookNode:
    """Execute a copy of a notebook in a new kernel, in the repository's folder, and return it.

    `parameters` are set right after the cell tagged `parameters` (papermill's convention),
    `environment` variables in the kernel only; `progress` is the label of a progress bar. Raises
    LessonError with the cell and its error, or with the reason why the kernel does not run.
    """
    if os.path.expanduser("~") == "~":  # Jupyter needs one
        raise LessonError("There is no home folder: set HOME to a folder that you may write to.")
    notebook = nbformat.from_dict(notebook)
    inserted = _insert_parameters(notebook, parameters or {})
    bar = tqdm(
        total=len(code_cells(notebook)), desc=progress, unit="cell", disable=progress is None
    )
    started: list[nbformat.NotebookNode] = []
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name=NATIVE_KERNEL_NAME,
        kernel_manager_class=CourseKernelManager,
        # A local kernel does not need to warn of unencrypted sockets.
        extra_arguments=["--IPKernelApp.log_level=40"],
        resources={"metadata": {"path": str(ROOT)}},
        on_cell_execute=lambda cell, cell_index: started.append(cell),
        on_cell_complete=lambda cell, cell_index: bar.update(),
    )
    try:
        with bar:
            client.execute(env={**os.environ, **(environment or {})})
    except CellExecutionError as error:
        reason = f"{error.ename}: {error.evalue}"
        raise LessonError(f"{reason}\nin the cell\n{started[-1].source}") from error
    except DeadKernelError as error:
        reason = "The kernel died (often: too little memory)"
        source = started[-1].source if started else "(none was started)"
        raise LessonError(f"{reason}\nin the cell\n{source}") from error
    except (RuntimeError, OSError) as error:
        # nbclient leaves this hook behind; without a kernel it would fail at exit.
        atexit.unregister(client._cleanup_kernel)
        command = f"{sys.executable} -m ipykernel_launcher"
        raise LessonError(f"The kernel {command} does not run: {error}") from error
    notebook.cells = [cell for cell in notebook.cells if cell is not inserted]
    clean_outputs(notebook)
    return notebook


def _insert_parameters(
    notebook: nbformat.NotebookNode, parameters: Mapping[str, Any]
) -> nbformat.NotebookNode:
    """Insert a cell that sets the parameters, if there are any, and return it."""
    source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    inserted: nbformat.NotebookNode = nbformat.v4.new_code_cell(source)
    tagged = [i for i, cell in enumerate(notebook.cells) if _has_parameters(cell)]
    if parameters and not tagged:
        raise LessonError("The notebook has no cell tagged `parameters`.")
    if parameters:
        notebook.cells.insert(tagged[0] + 1, inserted)
    return inserted


def _has_parameters(cell: nbformat.NotebookNode) -> bool:
    return "parameters" in cell.metadata.get("tags", [])


def definitions(
    notebook: nbformat.NotebookNode, parameters: Mapping[str, Any] | None = None
) -> ModuleType:
    """Return what a lesson defines as a module, without running its other code.

    That is its parameters (or those given instead), imports, functions, classes, and methods that
    are added to classes (`Class.name = name`). For tests and benchmarks of the lesson's own code.
    """
    module = ModuleType("lesson")
    for cell in code_cells(notebook):
        tree = ast.parse(cell.source)
        if not _has_parameters(cell):
            tree.body = [node for node in tree.body if _defines(node)]
        exec(compile(tree, "lesson", "exec"), module.__dict__)
        if _has_parameters(cell):
            module.__dict__.update(parameters or {})
    return module


def _defines(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Attribute) and isinstance(node.value, ast.Name)
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)


def clean_outputs(notebook: nbformat.NotebookNode) -> None:
    """Remove what no reader needs from an executed notebook.

    That is progress bars, second copies of images, times of execution, and the kernel's name.
    """
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    for cell in code_cells(notebook):
        cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                output.data.pop("image/jpeg", None)  # PIL images have both
    notebook.metadata.pop("widgets", None)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata.kernelspec = kernel
    notebook.metadata.language_info = {"name": "python"}


def machine_paths(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the paths in the outputs that belong to this machine.

    They lie in the repository, in the home folder or in the temporary folder.
    """
    folders = {str(ROOT), os.path.expanduser("~"), tempfile.gettempdir()} - {"/", "~"}
    # The longest first: the repository may lie in one of the others.
    longest_first = sorted(folders, key=len, reverse=True)
    pattern = rf"(?:{'|'.join(map(re.escape, longest_first))})/[\w.-]+"
    outputs = [str(output) for cell in code_cells(notebook) for output in cell.outputs]
    return sorted({path for output in outputs for path in re.findall(pattern, output)})


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m course.notebooks", description="Execute lessons and store the outputs."
    )
    parser.add_argument("notebooks", nargs="+", type=Path, help="notebook files")
    paths = parser.parse_args(arguments).notebooks
    label = ""
    try:
        notebooks = [read(path) for path in paths]  # before the first one runs for minutes
        for path, notebook in zip(paths, notebooks, strict=True):
            label = f"{path.name}: "
            store(execute(notebook, progress=path.stem), path)
    except LessonError as error:
        print(f"{label}{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
