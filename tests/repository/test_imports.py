"""Who may use whom, as CONTRIBUTING has it: course knows nothing of the project but itself."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN = {path.parent.name for path in ROOT.glob("*/*.py")} | {"pocket"}


def imported(path: Path) -> set[str]:
    """The first names of what a file imports from outside its own package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", ["course", "pocket", "task_3_DreamFusion"])
def test_a_package_imports_course_and_itself_alone(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files and {"course", "pocket", "benchmarks", "task_3_DreamFusion"} <= OWN
    strangers = {path: imported(path) & OWN - {"course", package} for path in files}
    assert {path: names for path, names in strangers.items() if names} == {}


def test_only_what_draws_conditions_needs_opencv():
    """Training, export and evaluation of the text-to-image model run without it."""
    users = {
        p.relative_to(ROOT).as_posix()
        for p in (ROOT / "pocket").rglob("*.py")
        if "cv2" in imported(p)
    }
    assert users == {"pocket/train/conditions.py"}
    for name in ("export", "denoiser", "latents", "common"):
        source = ast.parse((ROOT / "pocket" / "train" / f"{name}.py").read_text())
        names = {
            alias.name
            for node in ast.walk(source)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert not names & {"conditions", "controlnet", "estimators"}
