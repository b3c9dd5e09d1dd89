"""Style and types: ruff, mypy and codespell, with their settings in pyproject.toml.

`python -m tests tests/repository/test_style.py` runs these checks alone, as pre-commit does.
"""

import subprocess
import sys
import tomllib

import pytest

import course
from tests.repository import measure


@pytest.mark.parametrize("check", ["ruff check", "ruff format --check", "mypy"])
def test_style(check):
    result = subprocess.run(
        [sys.executable, "-m", *check.split()], cwd=measure.ROOT, capture_output=True, text=True
    )
    if result.returncode:
        pytest.fail(f"{check}:\n{result.stdout}{result.stderr}", pytrace=False)


def test_spelling():
    assert measure.misspellings() == []


def test_one_version_everywhere():
    project = tomllib.loads((measure.ROOT / "pyproject.toml").read_text())["project"]
    citation = (measure.ROOT / "CITATION.cff").read_text()
    assert project["version"] == course.__version__
    assert f"version: {course.__version__}\n" in citation
    assert f"## {course.__version__}" in (measure.ROOT / "CHANGELOG.md").read_text()
