"""The table of the lessons in README: their titles, times and memory, and where to open them.

It stands between `<!--lessons-->` and `<!---->`; `python -m publish.readme` writes it. Times and
memory are rows of `python -m benchmarks.task1 times`; what is not measured yet is a dash.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from course import notebooks
from course.figures import ROOT
from publish.lessons import lesson_title

TABLE = re.compile(r"<!--lessons-->\n.*?<!---->", flags=re.DOTALL)
HEAD = (
    "| lesson | you will | your time | computer | memory | open in |",
    "| --- | --- | --: | --: | --: | --- |",
)
# Beginnings of notebooks' names, longest first: the student's time, and what the lesson is about.
LESSONS = {
    "task_1_2_Stable_Diffusion_detailed": (
        "3 h",
        "write the sampling loop, then look inside: schedules, predictions, attention, inversion",
    ),
    "task_1_4": ("2 h", "train a small latent diffusion model from nothing, and sample from it"),
    "task_1_3": (
        "3 h",
        "control images by edges, depth, normals and scribbles; train a ControlNet",
    ),
    "task_1_1": ("1 h", "generate images, and learn what each setting does"),
    "make_video": ("30 min", "find the prediction behind each step, and show the run as a clip"),
    "task_0": (
        "1 h",
        "understand diffusion from zero, in two dimensions: noise, score, training, sampling",
    ),
    "task_2": (
        "3 h",
        "generate panoramas of any size: MultiDiffusion, SyncDiffusion, closed panoramas",
    ),
    "task_3": (
        "4 h",
        "optimize images and 3D objects for a prompt: score distillation, rays, fields",
    ),
}
COLAB = "https://colab.research.google.com/github/{repository}/blob/main/{path}"
KAGGLE = "https://kaggle.com/kernels/welcome?src=https://github.com/{repository}/blob/main/{path}"


def repository() -> str:
    """Return OWNER/NAME of this repository on GitHub, as pyproject.toml has it."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    address: str = tomllib.loads(text)["project"]["urls"]["Repository"]
    return "/".join(address.rstrip("/").split("/")[-2:])


def measured(values: Mapping[str, float], id: str, unit: str) -> str:
    """Return the figure of a row with its unit, or a dash where there is none."""
    return f"{values[id]:.1f} {unit}" if id in values else "–"


def lesson_row(path: Path, values: Mapping[str, float]) -> str:
    """Return the row of a lesson; `values` are the measured figures by id."""
    name = path.relative_to(ROOT).as_posix()
    time, about = next(LESSONS[start] for start in LESSONS if path.name.startswith(start))
    links = {"repository": repository(), "path": name}
    cells = (
        f"[{lesson_title(notebooks.read(path))}]({name})",
        about,
        time,
        measured(values, f"task1.times.{path.stem.lower()}", "min"),
        measured(values, f"task1.memory.{path.stem.lower()}", "GB"),
        f"[Colab]({COLAB.format(**links)}) · [Kaggle]({KAGGLE.format(**links)})",
    )
    return f"| {' | '.join(cells)} |"


def fill_table(text: str, values: Mapping[str, float]) -> str:
    """Return a document with the table of all lessons, and the repository's address, filled in."""
    rows = [lesson_row(path, values) for path in notebooks.lesson_paths()]
    table = "\n".join(["<!--lessons-->", "", *HEAD, *rows, "", "<!---->"])
    text = TABLE.sub(lambda match: table, text)
    return re.sub(
        r"(?<=git clone --depth 1 https://github\.com/)\S+", lambda match: repository(), text
    )
