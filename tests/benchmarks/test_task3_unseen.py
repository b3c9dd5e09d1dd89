"""The group `unseen` of benchmarks.task3: its texts, its measures, and a short run."""

import numpy as np
import pytest
import torch
import trimesh
from torch.nn import functional as F

from benchmarks import task3
from benchmarks.task3_unseen import (
    Measurement,
    bounding_share,
    is_mesh_whole,
    render_reference,
    sample_texts,
    surface_roughness,
)
from course.models import find_model
from course.models.prompts import unknown_words
from pocket.world import parse


def test_texts_are_of_the_grammar_and_of_the_seed():
    texts = sample_texts(200, seed=3)
    assert texts == sample_texts(200, seed=3) != sample_texts(200, seed=4)
    assert len(set(texts)) == 200
    named = [parse(text) for text in texts]
    assert all("object" in fields and "ground" not in fields for fields in named)
    assert {"none", "on", "riding", "next to", "reading", "holding"} == {
        fields.get("relation", "none") for fields in named
    }
    assert any("pattern" in fields for fields in named)
    assert any("color2" in fields for fields in named)


def test_texts_keep_to_a_vocabulary():
    vocabulary = frozenset("a an red blue cat car on top of".split())
    texts = sample_texts(5, 0, vocabulary)
    assert not any(unknown_words(text, vocabulary) for text in texts)


def sphere(noise: float = 0.0, side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normals (1, side, side, 3) of a sphere seen from the front, and its mask."""
    x = torch.linspace(-1.2, 1.2, side)
    x, y = torch.meshgrid(x, x, indexing="xy")
    mask = x**2 + y**2 < 0.9
    normals = torch.stack([x, y, (1 - x**2 - y**2).clamp(min=0).sqrt()], -1)
    random = torch.randn(normals.shape, generator=torch.Generator().manual_seed(0))
    return F.normalize(normals + noise * random, dim=-1)[None], mask[None]


def test_noise_makes_a_surface_rough():
    smooth = surface_roughness(*sphere())
    assert smooth < 1.5
    assert surface_roughness(*sphere(0.1)) > 3 * smooth
    assert surface_roughness(sphere()[0], torch.zeros(1, 64, 64, dtype=torch.bool)) == 0


def test_the_circle_around_an_object():
    opacity = torch.zeros(2, 100, 100)
    assert bounding_share(opacity) == 0
    opacity[0, 40:50, 30:70] = 1
    opacity[1, 45:50, 48:50] = 1
    assert bounding_share(opacity) == pytest.approx(0.40, abs=0.02)


def test_which_meshes_are_whole(tmp_path):
    ball = trimesh.creation.icosphere(3)

    def is_whole(mesh: trimesh.Trimesh) -> bool:
        mesh.export(tmp_path / "mesh.glb")
        return is_mesh_whole(tmp_path / "mesh.glb")

    assert not is_mesh_whole(tmp_path / "mesh.glb")
    assert is_whole(ball)
    seam = ball.copy()
    seam.unmerge_vertices()  # as a texture atlas does
    assert is_whole(seam)
    far = ball.copy()
    far.apply_scale(0.5)
    far.apply_translation([3, 0, 0])
    assert not is_whole(trimesh.util.concatenate([ball, far]))
    height = ball.triangles_center[:, 1]
    for cut, expected in ((0.985, True), (0.9, False)):
        opened = ball.copy()
        opened.update_faces(height < cut)
        assert not opened.is_watertight
        assert is_whole(opened) is expected


@pytest.fixture(scope="module")
def measure(tmp_path_factory):
    measurement = Measurement.__new__(Measurement)  # without the model that guides
    from course.metrics import Judge

    measurement.device = torch.device("cpu")
    measurement.judge = Judge()
    names = measurement.judge.names
    measurement.objects = [i for i, name in names.items() if name.startswith("object:")]
    return measurement


def test_empty_fog_lump_and_object(measure):
    renders = render_reference("a red car", torch.device("cpu"))[0]
    pixels = renders.permute(0, 3, 1, 2).float() / 127.5 - 1
    opacity = torch.zeros(8, 256, 256)
    assert measure.failure(opacity, pixels) == "empty"
    opacity[:, 60:200, 60:200] = 0.5
    assert measure.failure(opacity, pixels) == "fog"
    opacity[:, 60:200, 60:200] = 1
    assert measure.failure(opacity, pixels) == ""
    names = ("red car", "cat", "house", "rocket", "teapot", "horse", "robot", "turtle")
    others = [
        render_reference(f"a {name}", torch.device("cpu"))[0][i] for i, name in enumerate(names)
    ]
    mixed = torch.stack(others).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert measure.failure(opacity, mixed) == "lump"


def test_a_short_run_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(task3, "IMAGES", tmp_path)
    rows = {row.id: row for row in task3.main(["unseen", "--reduced"])}
    folder = tmp_path / "unseen_1_reduced"
    texts = sample_texts(2, 1, find_model("pocket").vocabulary)
    assert (folder / "texts.txt").read_text(encoding="utf-8").split("\n")[:2] == texts
    assert (folder / "unseen_1.png").exists()
    assert rows["task3.unseen.failed"].value == 100  # two steps make no object
    assert rows["task3.unseen.silent"].value == 2
    assert np.isfinite([row.value for row in rows.values()]).all()
