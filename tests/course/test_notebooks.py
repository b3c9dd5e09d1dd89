"""The lessons as files: their form, their execution, and the messages that students see."""

import ast
import atexit
import json
import os
import pkgutil
import re
import runpy
import sys
from pathlib import Path

import imageio.v3 as iio
import nbformat
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

from course import notebooks
from course.errors import CourseError
from course.images import load_image, video
from course.models import find_model
from course.notebooks import (
    BEGIN_SOLUTION,
    END_SOLUTION,
    LessonError,
    code_cells,
)
from grading.release import StudentCopy

LESSONS = notebooks.lesson_paths()
QUICK = {"STEPS": 2, "TRAINING_STEPS": 2}
LONGEST = ("task_1_3_ControlNet", "task_2_Joint_Diffusion")


@pytest.fixture
def quick(tmp_path: Path) -> dict[str, object]:
    """Few steps, and own folders: tests that run side by side must not share frames."""
    return {**QUICK, "OUTPUTS": str(tmp_path / "outputs"), "FRAMES": str(tmp_path / "frames")}


def student_copy(path: Path) -> nbformat.NotebookNode:
    """The lesson as students get it."""
    return StudentCopy().preprocess(notebooks.read(path), {})[0]


def is_timed(cell: nbformat.NotebookNode) -> bool:
    """Tell whether a cell compares times, which mean nothing in two steps on a busy machine."""
    return "checks.acceleration" in cell.source


each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def test_there_are_lessons():
    assert "task_1_1_Stable_Diffusion_intro" in [path.stem for path in LESSONS]


@each_lesson
def test_opens_with_versions_and_parameters(path):
    notebook = notebooks.read(path)
    nbformat.validate(notebook)
    first, *others = code_cells(notebook)
    assert "show_versions()" in first.source
    assert ["parameters" in cell.metadata.get("tags", []) for cell in others].count(True) == 1
    assert "parameters" in others[0].metadata.tags


@each_lesson
def test_solutions_are_fenced_numbered_and_checked(path):
    cells = notebooks.read(path).cells
    exercises = [i for i, cell in enumerate(cells) if BEGIN_SOLUTION in cell.source]
    assert exercises
    for i in exercises:
        source = cells[i].source
        assert source.count(BEGIN_SOLUTION) == source.count(END_SOLUTION)
        assert source.index(BEGIN_SOLUTION) < source.index(END_SOLUTION)
        before = source + cells[i - 1].source
        assert re.search(r"TODO (\d|video)", before), f"no number: {source}"
        assert cells[i + 1].cell_type == "code" and "checks." in cells[i + 1].source, (
            f"no check after: {source}"
        )


@each_lesson
def test_student_cells_are_valid_python(path):
    for cell in code_cells(student_copy(path)):
        ast.parse(cell.source)


@each_lesson
def test_cells_are_short_and_most_of_it_is_prose(path):
    notebook = notebooks.read(path)
    code, prose = (
        [cell.source for cell in notebook.cells if cell.cell_type == kind]
        for kind in ("code", "markdown")
    )
    assert max(len(source.splitlines()) for source in code) <= 25
    words = [sum(len(source.split()) for source in sources) for sources in (code, prose)]
    assert words[1] >= 1.5 * words[0]


@each_lesson
def test_is_stored_as_executed(path):
    cells = [cell for cell in code_cells(notebooks.read(path)) if cell.source.strip()]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), (
        "run: python -m course.notebooks"
    )
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert notebooks.machine_paths(notebooks.read(path)) == []
    assert path.stat().st_size < 4 * 2**20


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        # The longest two also run on a tiny model, below, and with all steps in `make demo`.
        pytest.param(path, marks=[pytest.mark.weekly] if path.stem in LONGEST else [])
        for path in LESSONS
    ],
    ids=lambda path: path.stem,
)
def test_runs_from_top_to_bottom(path, quick):
    """On the embedded model, with few steps."""
    notebook = notebooks.read(path)
    notebook.cells = [cell for cell in notebook.cells if not is_timed(cell)]
    done = notebooks.execute(notebook, quick, {"COURSE_MODEL": "pocket"})
    assert not [o for cell in code_cells(done) for o in cell.outputs if o.output_type == "error"]


@each_lesson
@pytest.mark.weekly
def test_a_student_who_did_nothing_is_told_so(path, quick, steered_folder: Path):
    """The first missing result stops the notebook with advice, not with a NameError."""
    with pytest.raises(LessonError, match=r"CheckFailed: .*TODO"):
        notebooks.execute(student_copy(path), quick, {"COURSE_MODEL": str(steered_folder)})


@pytest.mark.slow
@each_lesson
def test_each_missing_solution_is_told_by_its_own_check(path, quick, steered_folder: Path):
    """With all others solved, the message names the missing result as the exercise does."""
    notebook = notebooks.read(path)
    stubs = {cell.id: cell for cell in student_copy(path).cells}
    cells, exercises = [], []
    for i, cell in enumerate(notebook.cells):
        if BEGIN_SOLUTION in cell.source:
            exercises.append(cell.source)
            check = "\n".join(f"    {line}" for line in notebook.cells[i + 1].source.splitlines())
            attempt = (
                "from course.checks import CheckFailed\n"
                f"try:\n{check}\nexcept CheckFailed as error:\n    print('TOLD', error)"
            )
            cells += [stubs[cell.id], nbformat.v4.new_code_cell(attempt)]
        if not is_timed(cell):
            cells.append(cell)
    notebook.cells = cells
    done = notebooks.execute(notebook, quick, {"COURSE_MODEL": str(steered_folder)})
    text = "".join(output.get("text", "") for cell in code_cells(done) for output in cell.outputs)
    messages = re.findall(r"^TOLD (.*)$", text, flags=re.MULTILINE)
    for source, message in zip(exercises, messages, strict=True):
        assert re.search("is still empty[:,] write the lines? of the TODO", message)
        assert [name for name in re.findall(r"`(\w+)`", message) if name not in source] == []


def test_1_1_runs_on_a_model_from_a_folder(tiny_folder: Path):
    path = notebooks.ROOT / "task_1_1_Stable_Diffusion_intro.ipynb"
    done = notebooks.execute(notebooks.read(path), QUICK, {"COURSE_MODEL": str(tiny_folder)})
    text = "".join(o.get("text", "") for cell in code_cells(done) for o in cell.outputs)
    assert text.count("✓") == 9
    assert "64 x 64 pixels" in text
    assert "has never seen: purple, giraffe" in text
    assert "Cut from its end" in text


def test_lessons_come_in_order():
    names = [path.stem for path in LESSONS]
    assert names.index("make_video") > names.index("task_1_1_Stable_Diffusion_intro")
    assert not any(
        name.startswith("task_1_3") or name[5:] > "2" for name in names[: names.index("make_video")]
    )


EARLY = (0.9, 1.8, 2.7)  # ends of the frames of make_video, in seconds
LATE = [2.7 + 0.4 * i for i in range(1, 9)]


def test_make_video_takes_the_frames_that_are_there(tmp_path: Path):
    """Of odd sizes, unpadded, more than ten. No model is loaded, so its name does not matter."""
    for side, size in (("x_t", (33, 21)), ("x_0", (50, 35))):
        (tmp_path / side).mkdir()
        for step in range(12):
            Image.new("RGB", size, (20 * step, 0, 0)).save(
                tmp_path / side / f"{step}_t{990 - step}.png"
            )
    path = notebooks.ROOT / "make_video.ipynb"
    settings = {
        "FRAMES": str(tmp_path),
        "OUTPUTS": str(tmp_path / "out"),
        "HEIGHT": None,
        "FPS": 10,
    }
    done = notebooks.execute(notebooks.read(path), settings, {"COURSE_MODEL": "there is none"})
    text = "".join(o.get("text", "") for cell in code_cells(done) for o in cell.outputs)
    assert text.count("✓") == 2 and "79 frames, 7.9 seconds" in text
    clip = iio.imread(tmp_path / "out" / "sampling.mp4")
    assert len(clip) == 79  # 3 x 0.9, 8 x 0.4 and 2 seconds
    reds = clip[:, 40, 20, 0].astype(int)  # inside the left image
    changes = np.flatnonzero(np.diff(reds) > 5) + 1
    assert changes.tolist() == [round(10 * end) for end in (*EARLY, *LATE)]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [2, 10, 50])
def test_make_video_works_out_the_prediction_of_ddim(kind, steps):
    """The lesson's own function, from two states, beside the prediction of the scheduler."""
    lesson = notebooks.definitions(notebooks.read(notebooks.ROOT / "make_video.ipynb"))
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", clip_sample=False, prediction_type=kind
    )
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(1, 4, 8, 8, generator=generator)
    alphas = [
        *scheduler.alphas_cumprod[scheduler.timesteps].tolist(),
        scheduler.final_alpha_cumprod.item(),
    ]
    for i, t in enumerate(scheduler.timesteps):
        step = scheduler.step(torch.randn(x_t.shape, generator=generator), t, x_t)
        predicted = lesson.predicted_x_0(x_t, step.prev_sample, *alphas[i : i + 2])
        largest = (
            step.pred_original_sample.abs().max()
        )  # divided by a small alpha at first: tens, for random noise
        assert (predicted - step.pred_original_sample).abs().max() <= 1e-4 * largest
        x_t = step.prev_sample


# --- notebooks.execute itself


def small(*sources: str, tagged: bool = True) -> nbformat.NotebookNode:
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in sources]
    )
    if tagged:
        notebook.cells[0].metadata["tags"] = ["parameters"]
    return notebook


def test_execute_sets_parameters_and_leaves_the_notebook_alone():
    notebook = small("STEPS = 25", "import os; print(STEPS, os.environ['COLOR'], os.getcwd())")
    done = notebooks.execute(notebook, {"STEPS": 3}, {"COLOR": "red"})
    assert done.cells[1].outputs[0].text == f"3 red {notebooks.ROOT}\n"
    assert [cell.source for cell in done.cells] == [cell.source for cell in notebook.cells]
    assert notebook.cells[1].outputs == []


def test_definitions_of_a_lesson_without_running_it():
    notebook = small(
        "STEPS = 25\nSIZE = STEPS * 2",
        "import math\nfrom pathlib import Path\n1 / 0\nx = 3\n"
        "def count(steps=STEPS):\n    return steps",
        "class A:\n    pass\n"
        "def area(self):\n    return math.pi * STEPS\n"
        "A.area = area\nA.other = A()",
    )
    lesson = notebooks.definitions(notebook, {"STEPS": 2})
    assert (lesson.STEPS, lesson.SIZE, lesson.Path) == (2, 50, Path)
    assert lesson.count() == 2
    assert lesson.A().area() == pytest.approx(6.2832, abs=1e-4)
    assert not hasattr(lesson, "x") and not hasattr(lesson.A, "other")
    assert notebooks.definitions(notebook).A().area() == pytest.approx(78.54, abs=1e-2)


def test_paths_of_this_machine_are_found_in_outputs():
    here = str(notebooks.ROOT / "README.md")
    done = notebooks.execute(small(f"print({here!r})\nf'assets and {Path.home()}/x'"))
    assert notebooks.machine_paths(done) == sorted([here, f"{Path.home()}/x"])
    assert notebooks.machine_paths(small(here)) == []  # in an output, not in what the author wrote


def test_execute_refuses_parameters_without_a_cell_for_them():
    with pytest.raises(LessonError, match="tagged `parameters`"):
        notebooks.execute(small("1", tagged=False), {"STEPS": 3})


def test_execute_names_the_cell_that_failed():
    with pytest.raises(
        LessonError, match=r"ZeroDivisionError: division by zero\nin the cell\n1 / 0"
    ):
        notebooks.execute(small("1", "1 / 0", "2"))


def test_finished_progress_bars_are_not_stored():
    done = notebooks.execute(
        small("from tqdm.auto import tqdm\nfor _ in tqdm(range(2), leave=False): pass\n'done'")
    )
    assert [output.output_type for output in done.cells[0].outputs] == ["execute_result"]
    assert "widgets" not in done.metadata


def test_storing_from_the_command_line(tmp_path, capsys):
    path = tmp_path / "lesson.ipynb"
    nbformat.write(small("print(6 * 7)"), path)
    assert notebooks.main([str(path)]) == 0
    assert notebooks.read(path).cells[0].outputs[0].text == "42\n"
    nbformat.write(small("import os; print(os.path.expanduser('~/secret'))"), path)
    assert notebooks.main([str(path)]) == 1
    assert "paths of this machine" in capsys.readouterr().err
    assert notebooks.read(path).cells[0].outputs == []


def test_lessons_come_in_the_order_of_the_course(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    for name in ("task_1_3_ControlNet", "make_video", "task_1_2_Stable_Diffusion_detailed"):
        nbformat.write(small("1"), tmp_path / f"{name}.ipynb")
    names = ["task_1_2_Stable_Diffusion_detailed", "make_video", "task_1_3_ControlNet"]
    assert [path.stem for path in notebooks.lesson_paths()] == names


# --- The kernel

FOREIGN = {
    "missing program": {
        "argv": ["/nowhere/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    },
    "program that ends": {"argv": ["true"]},
    "other Python": {
        "argv": ["/usr/bin/python3", "-c", "1", "{connection_file}"],
        "language": "python",
    },
    "other language": {
        "argv": ["sh", "-c", "sleep 9"],
        "language": "bash",
        "display_name": "Shell",
    },
    "unknown provisioner": {
        "argv": ["true"],
        "metadata": {"kernel_provisioner": {"provisioner_name": "ssh"}},
    },
    "no argv": {},
    "no JSON": "{",
    "a list": [],
}


def foreign_kernel(folder: Path, kind: str) -> None:
    """Put a kernel of that kind under the name "python3" into a folder of the Jupyter path."""
    kernel = folder / "kernels" / "python3"
    kernel.mkdir(parents=True)
    spec = FOREIGN[kind]
    (kernel / "kernel.json").write_text(spec if isinstance(spec, str) else json.dumps(spec))


@pytest.mark.parametrize("kind", FOREIGN)
def test_lessons_run_on_the_kernel_of_this_environment(kind, tmp_path, monkeypatch):
    foreign_kernel(tmp_path, kind)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    manager = notebooks.CourseKernelManager(kernel_name="python3")
    assert manager.kernel_spec.argv[:3] == [sys.executable, "-m", "ipykernel_launcher"]
    assert manager.kernel_spec.language == "python"


@pytest.mark.parametrize("place", ["JUPYTER_PATH", "HOME"])
def test_a_lesson_runs_beside_a_foreign_kernel(place, tmp_path, monkeypatch):
    folder = tmp_path if place == "JUPYTER_PATH" else tmp_path / ".local" / "share" / "jupyter"
    foreign_kernel(folder, "missing program")
    monkeypatch.setenv(place, str(tmp_path))
    done = notebooks.execute(small("import sys; print(sys.executable)"))
    assert done.cells[0].outputs[0].text.strip() == sys.executable


def test_other_kernels_stay_as_they_are(tmp_path, monkeypatch):
    foreign_kernel(tmp_path, "other language")
    (tmp_path / "kernels" / "python3").rename(tmp_path / "kernels" / "shell")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert notebooks.CourseKernels().get_kernel_spec("shell").argv[0] == "sh"


def test_jupyterlab_is_started_with_these_kernels():
    options = re.findall(
        r"-m jupyterlab --ServerApp.kernel_spec_manager_class=(\S+)",
        (notebooks.ROOT / "Makefile").read_text(),
    )
    assert [pkgutil.resolve_name(option) for option in options] == [notebooks.CourseKernels]


def test_a_kernel_that_does_not_start_is_named(monkeypatch):
    at_exit = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    monkeypatch.setattr(atexit, "unregister", at_exit.remove)
    for argv in (["/nowhere/python"], ["false"]):
        spec = {"argv": argv, "display_name": "", "language": "python"}
        monkeypatch.setattr(notebooks, "get_kernel_dict", lambda spec=spec: spec)
        with pytest.raises(
            LessonError, match=r"^The kernel .* -m ipykernel_launcher does not run: "
        ):
            notebooks.execute(small("1"))
    clients = [
        hook
        for hook in at_exit
        if isinstance(getattr(hook, "__self__", None), notebooks.NotebookClient)
    ]
    assert clients == []  # nothing is left that fails when the program ends


def test_a_kernel_that_dies_names_its_cell():
    """As by the system, for the memory it takes."""
    with pytest.raises(
        LessonError, match=r"(?s)^The kernel died .*in the cell\nimport os; os\._exit\(9\)$"
    ):
        notebooks.execute(small("1", "import os; os._exit(9)", "2"))


# --- Files that are no notebooks

CELL = {
    "cell_type": "code",
    "id": "a",
    "metadata": {},
    "outputs": [],
    "source": "1",
    "execution_count": None,
}
HEAD = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [CELL]}
BAD = {
    "nothing": "",
    "cut": json.dumps(HEAD)[:-9],
    "list": "[]",
    "null": "null",
    "number": "7",
    "braces": "{}",
    "bytes": b"\xff\xfe\0",
    "deep": "[" * 100_000,
    "cells a text": json.dumps(HEAD | {"cells": "x"}),
    "cells null": json.dumps(HEAD | {"cells": None}),
    "cell without source": json.dumps(HEAD | {"cells": [{"cell_type": "code"}]}),
    "cell of a kind that is none": json.dumps(HEAD | {"cells": [CELL | {"cell_type": "video"}]}),
    "outputs a text": json.dumps(HEAD | {"cells": [CELL | {"outputs": "x"}]}),
    "metadata a list": json.dumps(HEAD | {"metadata": []}),
    "tags a number": json.dumps(HEAD | {"cells": [CELL | {"metadata": {"tags": 3}}]}),
    "later format": json.dumps(HEAD | {"nbformat": 99}),
    "format a text": json.dumps(HEAD | {"nbformat": "4"}),
}


@pytest.mark.parametrize("kind", [*BAD, "missing", "folder", "pipe", "link loop"])
def test_a_file_that_is_no_notebook_ends_in_one_line(kind, tmp_path, monkeypatch, capsys):
    path = tmp_path / "lesson.ipynb"
    if kind in BAD:
        path.write_bytes(BAD[kind].encode() if isinstance(BAD[kind], str) else BAD[kind])
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link loop":
        path.symlink_to(path)
    good = tmp_path / "good.ipynb"
    nbformat.write(small("1"), good)
    monkeypatch.setattr(
        notebooks, "execute", lambda *_, **__: pytest.fail("run before all could be read")
    )
    assert notebooks.main([str(good), str(path)]) == 1
    [line] = capsys.readouterr().err.strip().splitlines()
    problem = "cannot be read as a Jupyter notebook: ." if kind in BAD else "is not a file"
    assert re.search(rf"{re.escape(str(path))} {problem}", line)


@pytest.mark.parametrize(
    ("module", "arguments", "status"),
    [
        ("course.notebooks", ["/nowhere/lesson.ipynb"], 1),
        ("publish.demo", ["--outputs", f"{__file__}/x"], 1),
        ("publish.regenerate", ["--from", "nothing"], 2),
        ("course.setup", ["--nothing"], 2),
    ],
)
def test_a_program_that_fails_says_so_to_the_shell(module, arguments, status, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit) as caught:
        runpy.run_module(module, run_name="__main__")
    assert caught.value.code == status and capsys.readouterr().err


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "lesson.ipynb"
    nbformat.write(small("1"), path)

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(nbformat, "read", refused)
    with pytest.raises(
        LessonError,
        match=r"lesson\.ipynb cannot be read as a Jupyter notebook: .*Permission denied",
    ):
        notebooks.read(path)


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(28, "No space left on device")]
)
def test_a_lesson_that_cannot_be_stored(error, tmp_path, monkeypatch, capsys):
    path = tmp_path / "lesson.ipynb"
    nbformat.write(small("1"), path)
    monkeypatch.setattr(notebooks, "execute", lambda notebook, progress: notebook)

    def fail(*_):
        raise error

    monkeypatch.setattr(nbformat, "write", fail)
    assert notebooks.main([str(path)]) == 1
    assert capsys.readouterr().err == f"lesson.ipynb: {path} cannot be written: {error.strerror}.\n"


@pytest.fixture
def no_home(monkeypatch):
    """As in a container whose user the system does not know."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(notebooks.os.path, "expanduser", lambda path: path)
    with pytest.raises(RuntimeError):
        Path.home()


def test_without_a_home_folder_the_remedy_is_named(no_home, tmp_path, capsys):
    remedy = "There is no home folder: set HOME to a folder that you may write to."
    with pytest.raises(LessonError, match=remedy):
        notebooks.execute(small("1"))
    nbformat.write(small("1"), tmp_path / "a.ipynb")
    assert notebooks.main([str(tmp_path / "a.ipynb")]) == 1
    assert capsys.readouterr().err == f"a.ipynb: {remedy}\n"


def test_without_a_home_folder_what_needs_none_works(no_home, tmp_path):
    lesson = small("1")
    notebooks.store(lesson, tmp_path / "a.ipynb")
    assert notebooks.read(tmp_path / "a.ipynb").cells[0].source == "1"
    lesson.cells[0].outputs = [nbformat.v4.new_output("stream", text=f"{notebooks.ROOT}/x")]
    assert notebooks.machine_paths(lesson) == [f"{notebooks.ROOT}/x"]
    with pytest.raises(LessonError, match="paths of this machine"):
        notebooks.store(lesson, tmp_path / "b.ipynb")
    assert find_model("pocket").name == "pocket"


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: load_image("~/a.png"), "^~/a.png begins with the home folder of a user that this"),
        (lambda: video.read_frames("~/frames"), "^~/frames begins with the home folder"),
        (lambda: video.write_video("~/a.gif", []), "^~/a.gif begins with the home folder"),
        (lambda: video.make_folder("~"), "^~ begins with the home folder"),
        (lambda: find_model("~/model"), 'There is no model "~/model"'),
    ],
)
def test_without_a_home_folder_a_path_in_it_is_one_error(no_home, read, message):
    with pytest.raises(CourseError, match=message):
        read()


@pytest.mark.parametrize("home", ["", "/dev/null/x", "/nowhere", "/dev/null", "/nowhere/one/two"])
def test_a_home_folder_that_is_not_there_does_no_harm(home, monkeypatch):
    monkeypatch.setenv("HOME", home)
    done = notebooks.execute(small("print(6 * 7)"))
    assert done.cells[0].outputs[0].text == "42\n"
