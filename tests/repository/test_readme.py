"""What the documents promise is there: files, make targets, modules."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from course import notebooks

ROOT = Path(__file__).resolve().parents[2]
COMMENT = r"<!--.*?-->"
DOCUMENTS = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "task_3_DreamFusion/README.md")
]
MAKE = [name for name in DOCUMENTS if name.parent == ROOT]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(document):
    targets = re.findall(
        r'\]\(([^)#\s]+)|src="([^"]+)"', re.sub(COMMENT, "", document.read_text(), flags=re.DOTALL)
    )
    local = [a or b for a, b in targets if "://" not in (a or b)]
    assert local
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
        re.findall(r"python -m ((?:benchmarks|course|pocket|task_3_DreamFusion|tests)[\w.]*)", text)
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
    done = subprocess.run(command, cwd=ROOT, env=blind, capture_output=True, text=True)
    assert (
        done.returncode == 1
        and "there is no CUDA device here" in done.stderr
        and "passed" not in done.stdout
    )


def test_lessons_in_the_table_are_those_that_exist():
    text = re.sub(COMMENT, "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    here, to_come = text.split("Not here yet", 1)
    linked = re.findall(r"^\| \[(\d(?:\.\d)?) .*?\]\((\S+)\)", here, flags=re.MULTILINE)
    assert {file for _, file in linked} == {path.name for path in notebooks.lesson_paths()} | {
        "task_3_DreamFusion/README.md"
    }
    promised = re.findall(r"^\| (\d(?:\.\d)?) ", to_come, flags=re.MULTILINE)
    assert not set(promised) & {number for number, _ in linked}


def test_the_size_of_the_toy_world_is_told_right():
    words = json.loads((ROOT / "pocket" / "weights" / "vocabulary.json").read_text())
    objects, landscapes = len(words["objects"]), len(words["landscapes"])
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"{objects} objects in {len(words['colors'])} colours" in text
    assert (
        f"{len(words['grounds'])} grounds" in text
        and f"{landscapes} landscapes at four times of day" in text
    )
    assert len(words["times"]) == 4
    lesson = (ROOT / "task_1_1_Stable_Diffusion_intro.ipynb").read_text()
    assert f"{objects} objects and {landscapes} landscapes" in lesson


def test_images_load_quickly():
    images = [path for path in (ROOT / "assets").iterdir() if path.is_file()]
    most = {".png": 500_000, ".gif": 2_000_000}
    assert (
        images and [path.name for path in images if path.stat().st_size > most[path.suffix]] == []
    )
