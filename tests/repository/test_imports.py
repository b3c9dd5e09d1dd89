"""Who may import whom, as CONTRIBUTING.md shows it."""

from tests.repository import measure
from tests.repository.measure import Source


def test_no_package_imports_upward():
    assert measure.upward_imports() == []


def test_the_arrows_cover_every_package():
    folders = {source.folder for source in measure.all_sources()}
    assert {"course", "pocket", "publish", "benchmarks", "task_3_DreamFusion"} <= folders
    assert folders <= set(measure.ARROWS)


def test_every_form_of_import_counts():
    text = """
import course.errors
from course import setup
from course.images import io as images
from . import card
from .train.data import Pool
def late():
    from publish import demo
"""
    modules = measure.module_names()
    source = Source("pocket/evaluate.py", text)
    assert [name for _, name in measure.imported_modules(source, modules)] == [
        "course.errors",
        "course.setup",
        "course.images.io",
        "pocket.card",
        "pocket.train.data",
        "publish.demo",
    ]


def test_only_training_on_conditions_needs_opencv():
    """Training, export and evaluation of the text-to-image model run without it."""
    users = {
        source.name
        for source in measure.python_sources()
        if source.folder == "pocket" and "import cv2" in source.text
    }
    assert users <= {"pocket/train/conditions.py"}
    modules = measure.module_names()
    conditions = {f"pocket.train.{name}" for name in ("conditions", "controlnet", "estimators")}
    for source in measure.python_sources():
        if source.name.startswith("pocket/train/") and source.name.endswith(
            ("export.py", "denoiser.py", "latents.py", "common.py")
        ):
            imports = {name for _, name in measure.imported_modules(source, modules)}
            assert not imports & conditions, source.name
