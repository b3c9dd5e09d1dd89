"""A class of 30 submissions to grade: right, partial, empty, broken, hostile, in several layouts.

python -m tests.grading.class_of_30 FOLDER
"""

import copy
import functools
import io
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import nbformat
import numpy as np
from nbformat import NotebookNode
from PIL import Image

from course.checks import exercises
from course.images.video import write_video
from course.notebooks import BEGIN_SOLUTION, END_SOLUTION, ROOT, lesson_paths, read
from grading.fences import cells_with_exercise, solutions
from grading.release import STAMP, StudentCopy, fenced_modules

Files = dict[str, bytes]  # by their names in a submission
Edit = Callable[[NotebookNode], None]
INTRODUCTION = "task_0_Introduction.ipynb"
DETAILED = "task_1_2_Stable_Diffusion_detailed.ipynb"
CONTROLNET = "task_1_3_ControlNet.ipynb"
GUIDE = "cell-20"  # the cell of 1.2 (d) in DETAILED
EVERYTHING = frozenset(exercises())
MARKUP = "<script>alert(1)</script> & \"Bobby' Tables"
HOSTILE = {  # by what it tries: the body of `guide`, the answer of 1.2 (d)
    "endless loop": "while True: pass",
    "fork bomb": "import os\n    while True: os.fork()",
    "os._exit": "import os\n    os._exit(0)",
    "reads files": 'return print(open("/etc/passwd").read(), __import__("os").environ)',
    "network": 'import socket\n    return socket.create_connection(("127.0.0.1", 9), 1)',
    "500 MB of output": "for _ in range(500): print('x' * 1_000_000)",
    "fills memory": "return [bytearray(1 << 28) for _ in range(1000)]",
    "always equal": "return type('T', (), {'__eq__': lambda *a: True, '__array__': id})()",
}


@dataclass(frozen=True)
class Student:
    """A submission of the class.

    name: as `submissions.find` gives it. kind: "right", "partial", "empty", "broken", "hostile" or
    "version". solved: the exercises for which it has the official solution.
    """

    name: str
    kind: str
    solved: frozenset[str] = frozenset()


# --- What students write


@functools.cache
def _full(name: str) -> NotebookNode:
    [path] = [path for path in lesson_paths() if path.name == name]
    return read(path)


@functools.cache
def _copy(name: str) -> NotebookNode:
    notebook, _ = StudentCopy().preprocess(_full(name), {})
    return notebook


def without_fence_lines(source: str) -> str:
    """Return a source with its solutions, without the lines that fence them."""
    lines = source.splitlines(keepends=True)
    return "".join(line for line in lines if line.strip() not in (BEGIN_SOLUTION, END_SOLUTION))


def lesson_exercises(name: str) -> frozenset[str]:
    """Return the exercises with code in a lesson's notebook."""
    cells = cells_with_exercise(_full(name))
    return frozenset(
        exercise for cell, exercise in cells if exercise and BEGIN_SOLUTION in cell.source
    )


@functools.cache
def notebook(name: str, solved: Collection[str] = (), edit: Edit | None = None) -> bytes:
    """Return a lesson as a student hands it in, with the official solutions of some exercises.

    Their cells have the outputs of the executed lesson. edit: changes the notebook.
    """
    result = copy.deepcopy(_copy(name))
    by_id = {cell.id: cell for cell in result.cells}
    for cell, exercise in cells_with_exercise(_full(name)):
        if cell.cell_type == "code" and exercise in solved:
            by_id[cell.id].source = without_fence_lines(cell.source)
            by_id[cell.id].outputs = cell.outputs
    if edit:
        edit(result)
    return json.dumps(result, indent=1).encode()


def module(solved: Collection[str] = ()) -> bytes:
    """Return task 3's nerf/sd.py as a student hands it in, with some official solutions."""
    [path] = fenced_modules()
    source = path.read_text("utf-8")
    for solution in solutions(source):
        lines = solution.code if solution.exercise in solved else solution.stub
        source = source.replace(solution.source, lines.rstrip("\n"), 1)
    return source.encode()


@functools.cache
def turntables() -> Files:
    """Return clips of three objects: those of README, mirrored and darker."""
    files = {}
    folder = Path("turntables")
    for name in ("hamburger", "squirrel", "bunny"):
        frames = iio.imread(ROOT / "assets" / f"{name}.gif")[..., :3]
        turn = frames[np.arange(60) * len(frames) // 60][::-1, :, ::-1] * 0.9
        images = [Image.fromarray(frame) for frame in turn.astype(np.uint8)]
        files[str(folder / f"a_{name}" / "video.mp4")] = _clip(images)
    return files


def _clip(images: list[Image.Image]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_video(Path(folder) / "video.mp4", images, 30, hold=0).read_bytes()


def everything(solved: frozenset[str] = EVERYTHING) -> Files:
    """Return all files of a submission with the solutions of some exercises."""
    files = {path.name: notebook(path.name, solved) for path in lesson_paths()}
    files["sd.py"] = module(solved)
    if "3 (n)" in solved:
        files |= turntables()
        files["task_3_DreamFusion.ipynb"] = notebook(
            "task_3_DreamFusion.ipynb", solved, _with_own_turntables
        )
    return files


def _with_own_turntables(nb: NotebookNode) -> None:
    [cell] = [cell for cell in nb.cells if cell.id == "d80"]
    cell.source = (
        "TURNTABLES = {"
        + "".join(
            f'"{Path(name).parent.name.replace("_", " ")}": "{name}", ' for name in turntables()
        )
        + "}"
    )
    [cell] = [cell for cell in nb.cells if cell.id == "d85"]
    cell.source = 'BEST = "a squirrel", "turntables/a_squirrel/video.mp4"'


def replace_cell(id: str, source: str) -> Edit:
    """Return an edit that gives a cell another source."""

    def edit(nb: NotebookNode) -> None:
        [cell] = [cell for cell in nb.cells if cell.id == id]
        cell.source = source

    return edit


def _guide(body: str) -> Edit:
    return replace_cell(GUIDE, f"def guide(uncond, cond, guidance_scale):\n    {body}\n")


def _without_ids(nb: NotebookNode) -> None:
    for cell in nb.cells:
        cell.pop("id", None)
    nb.nbformat_minor = 4


def _reversed(nb: NotebookNode) -> None:
    nb.cells.reverse()


def _duplicate_ids(nb: NotebookNode) -> None:
    [cell] = [cell for cell in nb.cells if cell.id == GUIDE]
    other = copy.deepcopy(cell)
    other.source = "def guide(uncond, cond, guidance_scale):\n    return cond\n"
    nb.cells.append(other)


def _other_version(nb: NotebookNode) -> None:
    nb.metadata[STAMP]["version"] = "0.9.0"


def _written(nb: NotebookNode) -> None:
    [cell] = [cell for cell in nb.cells if cell.id == "answer-w1"]
    cell.source = f"*Your answer:* the object is cut. {MARKUP}"


# --- How platforms name files


def canvas(folder: Path, name: str, number: int, files: Files, late: str = "") -> None:
    """Write files side by side, as Canvas names them."""
    for i, (file, data) in enumerate(files.items()):
        path = folder / f"{name}{late}_{number}_{90000 + i}_{Path(file).name}"
        path.write_bytes(data)


def moodle(folder: Path, name: str, number: int, files: Files) -> None:
    """Write files into a folder, as Moodle names it."""
    plain(folder, f"{name}_{number}_assignsubmission_file_", files)


def plain(folder: Path, name: str, files: Files) -> None:
    """Write files into a folder with the student's name."""
    for file, data in files.items():
        path = folder / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of files."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def _old_format(nb: NotebookNode) -> bytes:
    old = nbformat.convert(copy.deepcopy(nb), 3)
    return json.dumps(old).encode()


# --- The class


def build(folder: Path) -> list[Student]:
    """Write the class to a folder, and return what is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    return [*_right(folder), *_partial(folder), *_empty_or_broken(folder), *_hostile(folder)]


def _right(folder: Path) -> list[Student]:
    canvas(folder, "andersonada", 10001, everything())
    moodle(folder, "Ben Baker", 10002, everything())
    (folder / "clara.zip").write_bytes(zipped(everything()))
    plain(folder, "Dörte Дарья 大", {f"course/{k}": v for k, v in everything().items()})
    names = ("andersonada", "Ben Baker", "clara", "Dörte Дарья 大")
    return [Student(name, "right", EVERYTHING) for name in names]


def _partial(folder: Path) -> list[Student]:
    introduction, detailed = lesson_exercises(INTRODUCTION), lesson_exercises(DETAILED)
    half = frozenset(list(exercises())[::2])
    canvas(folder, "evanseva", 10005, {INTRODUCTION: notebook(INTRODUCTION, introduction)}, "_LATE")
    moodle(folder, "Finn Fox", 10006, everything(half))
    (folder / f"gita_{DETAILED}").write_bytes(notebook(DETAILED, detailed))
    plain(folder, "hugo", {"nerf/sd.py": module(EVERYTHING)})
    wrong = {DETAILED: notebook(DETAILED, detailed, _guide("return cond"))}
    canvas(folder, "ivanovaida", 10009, wrong)
    moodle(folder, "Jo Jones", 10010, {DETAILED: notebook(DETAILED, (), _written)})
    variant = "return torch.lerp(uncond.double(), cond.double(), guidance_scale).to(cond.dtype)"
    plain(folder, "kim", {DETAILED: notebook(DETAILED, detailed, _guide(variant))})
    return [
        Student("evanseva", "partial", introduction),
        Student("Finn Fox", "partial", half),
        Student("gita", "partial", detailed),
        Student("hugo", "partial", frozenset({"3 (a)", "3 (b)", "3 (c)", "3 (d)"})),
        Student("ivanovaida", "partial", detailed - {"1.2 (d)"}),
        Student("Jo Jones", "partial"),
        Student("kim", "partial", detailed - {"1.2 (d)"}),
    ]


def _empty_or_broken(folder: Path) -> list[Student]:
    introduction = lesson_exercises(INTRODUCTION)
    full = notebook(INTRODUCTION, introduction)
    canvas(folder, "larsonlea", 10012, everything(frozenset()))
    (folder / "mia.zip").write_bytes(zipped({"readme.txt": b"sorry"}))
    canvas(folder, "nilsnoa", 10014, {INTRODUCTION: full[: len(full) // 2]})
    moodle(folder, "Olga Orlova", 10015, {INTRODUCTION: b"not a notebook", DETAILED: b""})
    data = zipped({INTRODUCTION: full})
    (folder / "pia.zip").write_bytes(data[: len(data) // 2])
    solved = notebook(INTRODUCTION, introduction, _without_ids)
    canvas(folder, "quinnqi", 10017, {INTRODUCTION: solved})
    old = _old_format(nbformat.reads(full.decode(), as_version=4))
    plain(folder, "rosa", {INTRODUCTION: old})
    plain(folder, "sam", {INTRODUCTION: notebook(INTRODUCTION, introduction, _reversed)})
    broken = _guide("return (uncond +")
    moodle(folder, "Tom Ton", 10020, {DETAILED: notebook(DETAILED, (), broken)})
    versions = notebook(INTRODUCTION, introduction, _other_version)
    canvas(folder, "ulrichuma", 10021, {INTRODUCTION: versions})
    return [
        *(Student(name, "empty") for name in ("larsonlea", "mia")),
        *(Student(name, "broken") for name in ("nilsnoa", "Olga Orlova", "pia", "Tom Ton")),
        *(Student(name, "broken", introduction) for name in ("quinnqi", "rosa", "sam")),
        Student("ulrichuma", "version", introduction),
    ]


def _hostile(folder: Path) -> list[Student]:
    names = []
    for i, (what, body) in enumerate(HOSTILE.items()):
        files = {DETAILED: notebook(DETAILED, (), _guide(body))}
        names.append(f"eve {what}")
        if i % 2:
            moodle(folder, names[-1], 10100 + i, files)
        else:
            plain(folder, names[-1], files)
    names.append("--help")
    (folder / "--help.zip").write_bytes(
        zipped({f"../../{DETAILED}": b"{}", DETAILED: notebook(DETAILED, (), _duplicate_ids)})
    )
    return [Student(name, "hostile") for name in names]


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    for student in build(Path(arguments[0])):
        print(f"{student.kind:8} {len(student.solved):3} solved  {student.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
