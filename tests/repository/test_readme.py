"""README and the docs: links, commands and figures are right."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from course import notebooks
from publish import lesson_table, readme
from tests.repository import measure

ROOT = Path(__file__).resolve().parents[2]
COMMENT = r"<!--.*?-->"
DOCUMENTS = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "task_3_DreamFusion/README.md")
]
TEACHING = sorted((ROOT / "docs" / "teaching").rglob("*.md"))
MAKE = [name for name in DOCUMENTS if name.parent == ROOT]


@pytest.mark.parametrize(
    "document", [*DOCUMENTS, *TEACHING], ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_to_files_lead_somewhere(document):
    targets = re.findall(
        r'\]\(([^)#\s]+)|src="([^"]+)"', re.sub(COMMENT, "", document.read_text(), flags=re.DOTALL)
    )
    local = [a or b for a, b in targets if "://" not in (a or b)]
    assert local or document in TEACHING
    assert [target for target in local if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", MAKE, ids=lambda path: path.name)
def test_make_targets_exist(document):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    used = set(re.findall(r"(?:^|`|=\S+ )make ([\w-]+)", document.read_text(), flags=re.MULTILINE))
    assert used and used <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist(document):
    text = document.read_text()
    modules = set(
        re.findall(
            r"python -m ((?:benchmarks|course|pocket|publish|task_3_DreamFusion|tests)[\w.]*)", text
        )
    )
    assert (
        modules and [module for module in modules if importlib.util.find_spec(module) is None] == []
    )


def test_ci_runs_the_test_command_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    commands = [line for line in script.splitlines() if "make" in line]
    assert commands == ["exec make test"]
    assert "make test " in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("target", ["demo", "test", "test-gpu", "lab", "pocket", "regenerate"])
def test_each_make_target_is_one_line_to_python(target):
    """make -n prints what it would run: the set-up, then the entry point."""
    command = ["make", "--no-print-directory", "-n", target, "PYTHON=python3"]
    outside = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    result = subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True)
    setup, entry = result.stdout.splitlines()
    assert setup == "python3 -m course.setup"
    assert re.fullmatch(r"\S*\.venv\S+ -m [\w.]+( \S+)?", entry)


def test_the_gpu_tests_fail_loudly_without_a_gpu():
    blind = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.gpu"]
    result = subprocess.run(command, cwd=ROOT, env=blind, capture_output=True, text=True)
    assert result.returncode == 1 and "passed" not in result.stdout
    assert "there is no CUDA device" in result.stderr


def test_the_table_has_every_lesson():
    table = lesson_table.TABLE.search((ROOT / "README.md").read_text())
    assert table
    files = re.findall(r"^\| \[.*?\]\((\S+)\)", table[0], flags=re.MULTILINE)
    assert [ROOT / name for name in files] == notebooks.lesson_paths()


def test_the_address_of_the_repository_is_one_setting(monkeypatch):
    text = (ROOT / "README.md").read_text()
    addresses = set(re.findall(r"github(?:\.com)?/([\w.-]+/[\w.-]+)/blob", text))
    addresses |= set(re.findall(r"git clone \S+ \S+ https://github\.com/(\S+)", text))
    assert addresses == {lesson_table.repository()}
    monkeypatch.setattr(lesson_table, "repository", lambda: "somebody/course")
    moved = lesson_table.fill_table(text, {})
    assert lesson_table.repository() in moved and not any(a in moved for a in addresses)


def test_no_line_begins_with_a_figure():
    """Markdown would end the paragraph there: a comment at the start of a line is a block."""
    for name in readme.DOCUMENTS:
        assert not re.findall(r"^\s*<!--figure.*", (ROOT / name).read_text(), flags=re.MULTILINE)


def test_what_is_not_measured_is_a_dash():
    assert lesson_table.measured({}, "task1.times.a", "min") == "–"
    assert lesson_table.measured({"task1.times.a": 2.04}, "task1.times.a", "min") == "2.0 min"


def test_every_figure_is_that_of_its_row():
    values = readme.figure_values()
    for name in readme.DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert readme.fill_figures(text, values) == text, "python -m publish.readme fills them"


def test_every_number_in_readme_comes_from_a_row():
    assert measure.unfilled_figures() == []


def test_a_figure_is_scaled_and_formatted():
    text = (
        "<!--figure a.b/60:.1f-->?<!----> min, <!--figure a:d--><!---->, <!--figure a:.1f--><!---->"
    )
    filled = readme.fill_figures(text, {"a.b": 273.1, "a": 7})
    assert re.sub(r"<!--.*?-->", "", filled) == "4.6 min, 7, 7.0"
    assert readme.fill_figures(filled, {"a.b": 273.1, "a": 7}) == filled


def test_a_figure_without_a_row_is_an_error():
    with pytest.raises(readme.FigureError, match="no row has the id 'a.b'"):
        readme.fill_figures("<!--figure a.b:.1f-->4.6<!---->", {})


def test_lesson_1_1_counts_the_words_of_the_model():
    values = readme.figure_values()
    objects, landscapes = values["vocabulary.objects"], values["vocabulary.landscapes"]
    lesson = (ROOT / "task_1_1_Stable_Diffusion_intro.ipynb").read_text()
    assert f"{objects} objects and {landscapes} landscapes" in lesson


def test_images_load_quickly():
    images = [path for path in (ROOT / "assets").iterdir() if path.is_file()]
    most = {".png": 500_000, ".gif": 2_000_000}
    assert (
        images and [path.name for path in images if path.stat().st_size > most[path.suffix]] == []
    )


def tree_paths() -> set[str]:
    """Return the paths in the tree of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = re.search(r"```\n(\*\.ipynb .*?)```", text, flags=re.DOTALL)
    assert tree
    paths: set[str] = set()
    folders: list[str] = []
    for line in filter(str.strip, tree[1].splitlines()):
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders[depth:] = [name]
        paths.add("".join(folders))
    return paths


def test_the_tree_of_contributing_has_every_module():
    """Once each; of a folder that has one line in the tree, the modules are left out."""
    paths = tree_paths()
    assert [path for path in paths if "*" not in path and not (ROOT / path).exists()] == []
    listed = {path.rpartition("/")[0] for path in paths if path.endswith(".py")}
    for source in measure.python_sources():
        folder, _, name = source.name.rpartition("/")
        if folder in listed and name != "__init__.py":
            assert source.name in paths, f"{source.name} is missing in CONTRIBUTING.md"
