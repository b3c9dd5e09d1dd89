"""Meshes: the surface, its texture, the files, and the page that shows it."""

import base64
import json
import os
import re
import shutil
import subprocess
import time
import tracemalloc
import warnings
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from task_3_DreamFusion.nerf import mesh as meshes
from task_3_DreamFusion.nerf.mesh import Mesh, MeshError, extract_mesh
from task_3_DreamFusion.nerf.viewer import page
from tests.task_3.browser import Browser

LEVEL = 10.0


def ball(
    points: torch.Tensor, radius: float = 0.6, center: tuple[float, float, float] = (0, 0, 0)
) -> torch.Tensor:
    """A density that is LEVEL at the ball's surface."""
    return LEVEL + 100 * (radius - (points - torch.tensor(center)).norm(dim=-1))


def rainbow(points: torch.Tensor) -> torch.Tensor:
    """The same at every depth."""
    points = 0.6 * torch.nn.functional.normalize(points, dim=-1)
    return 0.5 + 0.4 * torch.stack([points[:, 0], torch.sin(3 * points[:, 1]), points[:, 2]], -1)


@pytest.fixture(scope="module")
def solid() -> Mesh:
    return extract_mesh(ball, rainbow, LEVEL, resolution=40, max_faces=1500, texture_size=256)


@pytest.mark.parametrize("corner", [(0.01, 0.98), (0.98, 0.01)])  # top left, bottom right
def test_a_small_face_costs_little_wherever_it_lies(corner):
    """An atlas has thousands of faces: only texels of a face's own bounding box are tested."""
    uv = np.array(corner, np.float32) + np.array([[0, 0], [0.01, 0], [0, 0.01]], np.float32)
    tracemalloc.start()
    try:
        rows, _, _ = meshes.texels(uv, np.array([[0, 1, 2]]), uv, 512)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 3 <= len(rows) <= 25 and peak < 100_000


def test_surface_lies_at_the_level_and_looks_outward(solid):
    radii = np.linalg.norm(solid.vertices, axis=-1)
    assert abs(radii - 0.6).max() < 0.02 and len(solid.faces) <= 1500
    assert (solid.normals * solid.vertices).sum(-1).min() > 0.95 * 0.6
    volume = trimesh.Trimesh(
        solid.vertices, solid.faces
    ).volume  # positive where faces turn counter-clockwise
    assert volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.03)


def test_texture_shows_what_lies_under_a_thin_skin():
    """The density is small at the surface and grows inward: transparent blue hardly counts."""

    def skin(points: torch.Tensor) -> torch.Tensor:
        outside = points.norm(dim=-1, keepdim=True) > 0.58
        return torch.where(outside, torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0]))

    dense = lambda points: ball(points) + 5000 * (0.58 - points.norm(dim=-1)).clamp(min=0)
    texture = extract_mesh(
        dense, skin, LEVEL, resolution=40, max_faces=1500, texture_size=128
    ).texture
    assert texture[..., 0].mean() > 0.65 * 255 and texture[..., 2].mean() < 0.35 * 255


def test_texture_shows_the_field(solid):
    """At the center of every face the texture has the color of the field."""
    middle, place = solid.vertices[solid.faces].mean(1), solid.uv[solid.faces].mean(1)
    side = len(solid.texture)
    columns, rows = (place[:, 0] * side).astype(int), ((1 - place[:, 1]) * side).astype(int)
    expected = rainbow(torch.from_numpy(middle)).numpy()
    assert abs(solid.texture[rows, columns] / 255 - expected).max() < 0.06
    assert 0 <= solid.uv.min() and solid.uv.max() <= 1


def test_no_hole_shows_at_a_seam(solid):
    """Half a texel outside of every face there is a color of the field too."""
    white = extract_mesh(
        ball,
        lambda points: torch.ones_like(points),
        LEVEL,
        resolution=24,
        max_faces=500,
        texture_size=64,
    )
    assert (white.texture == 255).all()


def accessor(glb: bytes, name: str) -> np.ndarray:
    """Return vectors (V, 3) of a GLB's only mesh: a header, a JSON chunk, a binary chunk."""
    length = int.from_bytes(glb[12:16], "little")
    head, binary = json.loads(glb[20 : 20 + length]), glb[28 + length :]
    [primitive] = head["meshes"][0]["primitives"]
    result = head["accessors"][primitive["attributes"][name]]
    view = head["bufferViews"][result["bufferView"]]
    start = view.get("byteOffset", 0) + result.get("byteOffset", 0)
    return np.frombuffer(binary, "<f4", 3 * result["count"], start).reshape(-1, 3)


def test_files_are_read_by_others(solid, tmp_path):
    paths = solid.save(tmp_path / "new" / "folder", "thing")
    assert [path.name for path in paths] == ["thing.glb", "thing.obj", "thing.mtl", "thing.png"]
    for path in paths[:2]:
        other = trimesh.load(path, force="mesh", process=False)
        assert len(other.faces) == len(solid.faces) and other.volume == pytest.approx(0.9, abs=0.03)
        assert np.array_equal(
            np.asarray(other.visual.to_color().vertex_colors).shape, (len(other.vertices), 4)
        )
        result = np.asarray(other.visual.to_color().vertex_colors)[:, :3] / 255
        expected = rainbow(torch.from_numpy(np.asarray(other.vertices, np.float32))).numpy()
        assert np.median(abs(result - expected)) < 0.02
    glb = trimesh.load(paths[0], force="mesh", process=False)
    np.testing.assert_allclose(glb.visual.uv, solid.uv, atol=1e-5)
    np.testing.assert_allclose(accessor(paths[0].read_bytes(), "NORMAL"), solid.normals, atol=1e-6)


def test_glb_keeps_to_the_schema_of_gltf(solid, tmp_path):
    """The JSON fits the schemas of the Khronos Group, and its sizes add up."""
    glb = solid.save(tmp_path)[0].read_bytes()
    magic, version, whole = (int.from_bytes(glb[i : i + 4], "little") for i in (0, 4, 8))
    length = int.from_bytes(glb[12:16], "little")
    head = json.loads(glb[20 : 20 + length])
    assert (magic, version, whole, length % 4) == (0x46546C67, 2, len(glb), 0)
    trimesh.exchange.gltf.validate(head)
    binary = int.from_bytes(glb[20 + length : 24 + length], "little")
    assert 28 + length + binary == len(glb) and head["buffers"][0]["byteLength"] <= binary
    for view in head["bufferViews"]:
        assert view.get("byteOffset", 0) + view["byteLength"] <= binary
    with pytest.raises(jsonschema.ValidationError):
        trimesh.exchange.gltf.validate(head | {"asset": {}})


VALIDATE = """
const bytes = new Uint8Array(require("fs").readFileSync(process.argv[1]));
require("gltf-validator").validateBytes(bytes).then(report =>
console.log(JSON.stringify(report.issues)));
"""


def validated(glb: Path) -> tuple[int, int]:
    """Return errors and warnings of the Khronos Group's validator. Skips, loudly, without it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    result = None
    if node and npm:
        installed = subprocess.run(
            [npm, "root", "--global"], capture_output=True, text=True
        ).stdout.strip()
        places = os.pathsep.join(filter(None, [os.environ.get("NODE_PATH"), installed]))
        command = [node, "-e", VALIDATE, str(glb)]
        result = subprocess.run(
            command, env=os.environ | {"NODE_PATH": places}, capture_output=True, text=True
        )
    if result is None or "Cannot find module 'gltf-validator'" in result.stderr:
        warnings.warn(
            "NO GLTF-VALIDATOR: GLB files were tested by their schema alone", stacklevel=2
        )
        pytest.skip("NO GLTF-VALIDATOR: npm install --global gltf-validator")
    issues = json.loads(result.stdout)
    return issues["numErrors"], issues["numWarnings"]


def test_glb_passes_the_validator_of_khronos(solid, tmp_path):
    """It reads the arrays too: a normal of length 2, put there afterwards, is found."""
    path = solid.save(tmp_path)[0]
    assert validated(path) == (0, 0)
    glb = path.read_bytes()
    at = glb.index(solid.normals[0].tobytes())
    path.write_bytes(glb[:at] + (2 * solid.normals[0]).tobytes() + glb[at + 12 :])
    assert validated(path)[0] > 0


@pytest.mark.slow
def test_a_browser_turns_the_page(solid, tmp_path):
    """In Chromium, by the colors of the ball: from the front, and after a drag from its right."""
    file = tmp_path / "page.html"
    file.write_text(page(solid, "a ball", turning=False))
    browser = Browser(tmp_path / "profile")

    def expected(*place: float) -> np.ndarray:
        return 255 * rainbow(torch.tensor([place]))[0].numpy()

    def middle() -> np.ndarray:
        image = browser.image()
        return image[image.shape[0] // 2, image.shape[1] // 2].astype(float)

    try:
        browser.open(file.as_uri())
        browser.until("typeof state !== 'undefined' && before > 0")
        browser.evaluate("state.elevation = 0")
        time.sleep(1)
        assert abs(middle() - expected(0, 0, 0.6)).max() < 8
        browser.drag(
            (450, 300), (225, 300)
        )  # 90 degrees: the right side of the image comes to the front
        time.sleep(1)
        assert abs(middle() - expected(0.6, 0, 0)).max() < 8
        browser.press("normals")
        time.sleep(1)
        assert abs(middle() - 255 * np.array([1.0, 0.5, 0.5])).max() < 10
    finally:
        browser.close()


def test_a_form_that_touches_the_box_is_closed_there():
    vertices, faces = meshes.marching_cubes(
        lambda p: 20 - 20 * p[:, 1].clamp(min=0), LEVEL, 20, "cpu"
    )
    half = trimesh.Trimesh(vertices, faces)
    assert half.is_watertight and half.volume == pytest.approx(2 * 2 * 1.5, rel=0.15)


def test_specks_are_dropped_and_parts_kept():
    def two_and_a_speck(p: torch.Tensor) -> torch.Tensor:
        parts = [ball(p, 0.4, (-0.5, 0, 0)), ball(p, 0.3, (0.5, 0, 0)), ball(p, 0.05, (0, 0.9, 0))]
        return torch.stack(parts).amax(0)

    vertices, _ = meshes.remove_small_parts(
        *meshes.marching_cubes(two_and_a_speck, LEVEL, 64, "cpu")
    )
    assert (
        vertices[:, 1].max() < 0.5 and vertices[:, 0].min() < -0.85 and vertices[:, 0].max() > 0.75
    )


@pytest.mark.parametrize("share", [0.001, 0.015, 0.019, 0.021, 0.03, 0.1, 0.2, 0.5])
def test_specks_have_less_than_a_fiftieth_of_the_largest_surface(share):
    large, small = trimesh.creation.box((1, 1, 1)), trimesh.creation.box((1, 1, 1))
    small.apply_scale(share**0.5)
    small.apply_translation((5, 0, 0))
    both = trimesh.util.concatenate([large, small])
    vertices, faces = meshes.remove_small_parts(np.asarray(both.vertices), np.asarray(both.faces))
    assert len(faces) == (24 if share >= 0.02 else 12) and (vertices[:, 0].max() > 4) == (
        share >= 0.02
    )
    assert len(vertices) == (16 if share >= 0.02 else 8)


@pytest.mark.parametrize("bound", [1e-4, 1e-3, 0.01, 0.3, 1.0, 100.0])
def test_a_mesh_does_not_depend_on_the_size_of_the_box(solid, bound, tmp_path):
    """Libraries ignore small lengths: with a bound of 0.01 no texel had a surface."""
    scaled = extract_mesh(
        lambda p: ball(p / bound),
        lambda p: rainbow(p / bound),
        LEVEL,
        resolution=40,
        max_faces=1500,
        texture_size=256,
        bound=bound,
    )
    np.testing.assert_allclose(
        scaled.vertices, bound * solid.vertices, rtol=1e-4, atol=1e-4 * bound
    )
    np.testing.assert_array_equal(scaled.faces, solid.faces)
    np.testing.assert_allclose(scaled.uv, solid.uv, atol=1e-4)
    np.testing.assert_allclose(scaled.normals, solid.normals, atol=1e-3)
    assert abs(scaled.texture.astype(int) - solid.texture).mean() < 0.5
    lines = scaled.save(tmp_path)[1].read_text().splitlines()
    written = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    np.testing.assert_allclose(written, scaled.vertices, atol=1e-6 * bound)


@pytest.mark.parametrize("failing", range(4))
def test_files_of_a_mesh_are_the_old_ones_until_they_are_whole(
    solid, tmp_path, monkeypatch, failing
):
    paths = solid.save(tmp_path)
    before = [path.read_bytes() for path in paths]
    calls = []
    fsync = os.fsync

    def interrupted(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > failing:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", interrupted)
    other = Mesh(2 * solid.vertices, solid.normals, solid.faces, solid.uv, 255 - solid.texture)
    with pytest.raises(OSError, match="No space left"):
        other.save(tmp_path)
    assert [path.read_bytes() for path in paths][failing:] == before[failing:]
    assert sorted(tmp_path.iterdir()) == sorted(paths)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (lambda p: torch.zeros(len(p)), "no surface at density 10: its densities are from 0 to 0"),
        (lambda p: torch.full((len(p),), 99.0), "its densities are from 99 to 99"),
        (lambda p: torch.full((len(p),), float("nan")), "NaN or infinite densities"),
    ],
)
def test_no_surface(field, message):
    with pytest.raises(MeshError, match=message):
        extract_mesh(field, rainbow, LEVEL, resolution=8)


@settings(max_examples=30)
@given(st.lists(st.floats(0.01, 0.99), min_size=6, max_size=6), st.integers(4, 40))
def test_texels_of_a_face_are_those_whose_center_it_holds(numbers, side):
    uv = np.array(numbers, np.float32).reshape(3, 2)
    vertices = np.concatenate(
        [uv, np.ones((3, 1), np.float32)], 1
    )  # the surface point is the place itself
    rows, columns, points = meshes.texels(vertices, np.array([[0, 1, 2]]), uv, side)
    centers = np.stack([(columns + 0.5) / side, 1 - (rows + 0.5) / side], -1)
    np.testing.assert_allclose(points[:, :2], centers, atol=1e-4)
    a, b, c = (np.append(corner, 1) for corner in uv.astype(np.float64))
    expected = 0
    for row in range(side):
        for column in range(side):
            p = np.array([(column + 0.5) / side, 1 - (row + 0.5) / side, 1])
            signs = [np.linalg.det([p, b, c]), np.linalg.det([a, p, c]), np.linalg.det([a, b, p])]
            expected += min(signs) > 1e-7 or max(signs) < -1e-7
    edge = 3 * side  # centers that lie on an edge may fall either way
    assert expected <= len(rows) <= expected + edge


def test_page_holds_all_and_asks_for_nothing(solid):
    text = page(solid, "a <b>bold</b> & 'plain' ball", turning=False)
    assert "{{" not in text and not re.search(
        r"(src|href)\s*=\s*[\"']?(http|//)|https?://|@import", text
    )
    assert (
        "<title>a &lt;b&gt;bold&lt;/b&gt; &amp;" in text
        and "azimuth: 0" in text
        and "turning: false" in text
    )
    data = json.loads(re.search(r"const data = (\{.*\});", text)[1])
    faces = np.frombuffer(base64.b64decode(data["faces"]), "<u4").reshape(-1, 3)
    assert np.array_equal(faces, solid.faces)
    assert np.array_equal(
        np.frombuffer(base64.b64decode(data["position"]), "<f4").reshape(-1, 3), solid.vertices
    )
    assert base64.b64decode(data["texture"]).startswith(b"\x89PNG")
