"""Conditions of any image: OpenCV's own steps, at every size, and colors that go there and back."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from course.images import conditions
from pocket.train.conditions import line_conditions


def blobs(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An image with soft and hard edges of every strength."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    soft = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        color = tuple(int(c) for c in rng.integers(0, 256, 3))
        cv2.circle(soft, (x, y), int(rng.integers(2, max(3, height // 4))), color, -1)
    return soft


@pytest.mark.parametrize("size", [(256, 256), (128, 200), (512, 384), (64, 64), (40, 1000)])
def test_the_lessons_and_the_training_make_the_same_lines(size):
    image = blobs(*size)
    edges, sketch = conditions.canny(image), conditions.scribble(image)
    assert edges.shape == sketch.shape == (*size, 3)
    assert edges.dtype == sketch.dtype == np.float32
    lines = line_conditions(image)
    assert edges.any() and np.array_equal(edges[..., 0] * 255, lines["canny"])
    assert np.array_equal(sketch[..., 0] * 255, lines["scribble"])
    assert set(np.unique(edges)) | set(np.unique(sketch)) <= {0.0, 1.0}
    for page in (edges, sketch):
        assert (page == page[..., :1]).all()


def disk(diameter: int, side: int) -> np.ndarray:
    image = np.zeros((side, side, 3), np.uint8)
    cv2.circle(image, (side // 2, side // 2), diameter // 2, (255, 255, 255), -1)
    return image


@pytest.mark.parametrize(("side", "unit"), [(256, 1), (384, 1.5), (512, 2)])
def test_short_outlines_are_left_out_and_the_pen_grows_with_the_image(side, unit):
    assert not conditions.scribble(disk(round(6 * unit), side)).any()
    sketch = conditions.scribble(disk(round(100 * unit), side))[..., 0]
    middle = np.flatnonzero(sketch[side // 2])
    left = middle[middle < side // 2]
    assert (
        3 * unit - 1 <= left.max() - left.min() + 1 <= 5 * unit
    )  # a pen of 3 pixels on an edge of 1


def test_canny_smooths_before_it_looks():
    dots = np.zeros((64, 64, 3), np.uint8)
    dots[::8, ::8] = 255
    assert cv2.Canny(dots, 100, 200).any() and not conditions.canny(dots).any()


@pytest.mark.parametrize(("low", "high"), [(0, 0), (50, 50), (0, 300), (10.5, 20.5)])
def test_thresholds_that_can_be(low, high):
    image = blobs(64, 64)
    expected = cv2.Canny(cv2.GaussianBlur(image, (0, 0), 1.4), low, high) / 255
    assert np.array_equal(conditions.canny(image, low, high)[..., 1], expected.astype(np.float32))


@pytest.mark.parametrize(
    ("low", "high"), [(-1, 5), (6, 5), (-3, -2), (float("nan"), 5), (1, float("nan"))]
)
def test_thresholds_that_cannot_be(low, high):
    with pytest.raises(ValueError, match=f"low {low} and high {high}"):
        conditions.canny(blobs(16, 16), low, high)


@pytest.mark.parametrize(
    ("depth", "gray"),
    [
        ([[0.0, 1.0]], [[0.0, 1.0]]),
        ([[2.0, 4.0, 3.0]], [[0.0, 1.0, 0.5]]),
        ([[-1.0], [3.0], [0.0]], [[0.0], [1.0], [0.25]]),
        ([[5.0, 5.0]], [[0.0, 0.0]]),
        ([[0.0, 2e-6]], [[0.0, 1.0]]),
        ([[0.0, 5e-7]], [[0.0, 0.5]]),  # less than a millionth apart: noise stays dark
    ],
)
def test_depth_as_gray(depth, gray):
    image = conditions.depth_to_image(np.array(depth))
    assert image.shape == (*np.shape(depth), 3) and image.dtype == np.float32
    np.testing.assert_allclose(image[..., 2], gray, atol=1e-6)


@pytest.mark.parametrize(
    "depth", [np.ones(4), np.ones((4, 4, 1)), np.array([[1, np.inf]]), np.array([[np.nan, 1]])]
)
def test_depth_that_cannot_be(depth):
    with pytest.raises(ValueError, match=r"\(H, W\) of finite numbers"):
        conditions.depth_to_image(depth)


@pytest.mark.parametrize(
    ("normal", "color"),
    [
        ((1, 0, 0), (0, 0.5, 0.5)),
        ((-1, 0, 0), (1, 0.5, 0.5)),
        ((0, 1, 0), (0.5, 1, 0.5)),
        ((0, 0, 1), (0.5, 0.5, 1)),
        ((0.6, -0.8, 0), (0.2, 0.1, 0.5)),
        ((0, 0, 0), (0.5, 0.5, 0.5)),
    ],
)
def test_normals_as_colors_and_back(normal, color):
    image = conditions.normals_to_image(np.array([[normal]]))
    np.testing.assert_allclose(image, [[color]], atol=1e-6)
    np.testing.assert_allclose(conditions.image_to_normals(image), [[normal]], atol=1e-6)


def test_normals_are_clipped_and_made_of_length_1():
    assert conditions.normals_to_image(np.array([[[3.0, -3, 1.2]]])).tolist() == [[[0, 0, 1]]]
    np.testing.assert_allclose(
        conditions.image_to_normals(np.array([[[0.5, 0.5, 0.85]]])), [[[0, 0, 1]]], atol=1e-6
    )
    assert not conditions.image_to_normals(
        np.array([[[0.5, 0.5, 0.74]]])
    ).any()  # shorter than a half
    colors = np.array([[[0.1, 0.2, 0.9], [0.5, 0.5, 1.0]]])
    np.testing.assert_allclose(
        np.linalg.norm(conditions.image_to_normals(colors), axis=2), 1, rtol=1e-6
    )


@pytest.mark.parametrize("size", [(None, None), (6, 4), (12, 8), (3, 2), (6, None), (None, 8)])
def test_a_condition_as_pipelines_take_it(size):
    image = np.zeros((4, 6, 3), np.uint8)
    image[..., 0], image[..., 1], image[2:, :, 2] = 255, 51, 102
    tensor = conditions.to_control(image, *size)
    width, height = size if None not in size else (6, 4)
    assert tensor.shape == (1, 3, height, width) and tensor.dtype == torch.float32
    assert (tensor[0, 0] == 1).all()
    torch.testing.assert_close(tensor[0, 1], torch.full((height, width), 0.2))
    torch.testing.assert_close(tensor[0, 2, [0, -1], 0], torch.tensor([0, 0.4]), atol=0.05, rtol=0)


@pytest.mark.parametrize("kind", ["PIL", "16 bits", "floats", "tensor", "alpha"])
def test_any_kind_of_image_has_the_same_edges(kind):
    gray = blobs(48, 64).mean(axis=2).astype(np.uint8)
    image = {
        "PIL": Image.fromarray(gray),
        "16 bits": gray.astype(np.uint16) * 257,
        "floats": gray / 255,
        "tensor": torch.from_numpy(gray / 127.5 - 1).expand(3, -1, -1),
        "alpha": Image.fromarray(gray).convert("RGBA"),
    }[kind]
    assert np.array_equal(conditions.canny(image), conditions.canny(gray))
