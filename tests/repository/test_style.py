"""The code reads as one: lint and format by ruff, types by mypy; settings in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("check", ["ruff check", "ruff format --check", "mypy"])
def test_style(check):
    result = subprocess.run(
        [sys.executable, "-m", *check.split()], cwd=ROOT, capture_output=True, text=True
    )
    if result.returncode:
        pytest.fail(f"{check}:\n{result.stdout}{result.stderr}", pytrace=False)
