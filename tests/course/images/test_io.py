"""Images in, images out: conversions keep what they are given."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from course.images import ImageError, load_image, to_pil

RED, BLUE = (255, 0, 0), (0, 0, 255)


def flat(color: tuple[int, int, int], width: int = 32, height: int = 32) -> Image.Image:
    return Image.new("RGB", (width, height), color)


@pytest.mark.parametrize(
    "image",
    [
        flat(RED),
        flat(RED).convert("RGBA"),
        np.full((32, 32, 3), RED, np.uint8),
        np.full((32, 32, 3), (1.0, 0, 0)),
        np.full((32, 32, 3), (1.0005, -0.0005, 0), np.float32),
        torch.tensor([1.0, -1, -1]).view(3, 1, 1).expand(3, 32, 32),
        torch.tensor([2.5, -1.5, -1]).view(3, 1, 1).expand(3, 32, 32),
        torch.tensor([1.0, -1, -1], dtype=torch.bfloat16).view(1, 3, 1, 1).expand(1, 3, 32, 32),
    ],
    ids=[
        "PIL",
        "RGBA",
        "uint8",
        "float",
        "rounded",
        "tensor",
        "beyond the range of a decoder",
        "bfloat16 batch",
    ],
)
def test_every_kind_of_image_becomes_the_same(image):
    assert np.array_equal(to_pil(image), flat(RED))


def test_gray_values_are_rounded():
    assert to_pil(np.full((4, 4), 0.499)).getpixel((0, 0)) == (127,) * 3
    assert to_pil(torch.zeros(3, 4, 4)).getpixel((0, 0)) == (128,) * 3


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(2, 3, 4, 4),
        torch.zeros(4, 4),
        torch.zeros(1, 4, 4),
        torch.zeros(3, 0, 4),
        np.zeros((3, 4, 4)),
        np.zeros(4),
        np.zeros((1, 4, 4, 3)),
        np.zeros((0, 4, 3)),
    ],
)
def test_what_is_no_image_is_refused_with_its_shape(wrong):
    with pytest.raises(ImageError, match=re.escape(str(tuple(wrong.shape)))):
        to_pil(wrong)


# --- Every type of value, from a file and from memory


def gray(image: Image.Image) -> int:
    """The first pixel of a gray image."""
    red, green, blue = image.getpixel((0, 0))
    assert red == green == blue
    return red


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (200, np.uint8, 200),
        (True, bool, 255),
        (25_700, np.uint16, 100),
        (200, np.uint16, 1),  # dark, but of 16 bits
        (65_535, np.uint16, 255),
        (25_700, ">u2", 100),
        (200, np.int64, 200),
        (255, np.int32, 255),
        (0, np.int64, 0),
        (100, np.int8, 100),
        (65_535, np.int64, 255),
        (257, np.uint32, 1),
        (0.4, np.float32, 102),
        (1.0, np.float64, 255),
        (1.0019, np.float64, 255),
        (-0.00199, np.float64, 0),
        (255.5, np.float32, 255),
        (0.4, np.float16, 102),
        (200.0, np.float32, 200),
        (255.0, np.float64, 255),
        (16.0, np.float32, 16),
        (25_700.0, np.float32, 100),
        (65_535.0, np.float64, 255),
    ],
)
def test_white_is_what_the_type_says(value, dtype, expected):
    assert gray(to_pil(np.full((4, 4), value, dtype))) == expected
    assert gray(to_pil(np.full((4, 4, 3), value, dtype))) == expected


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.full((3, 4, 4), 200, dtype=torch.uint8), 200),
        (torch.full((3, 4, 4), 200), 200),
        (torch.full((3, 4, 4), True), 255),
        (torch.full((3, 4, 4), 0.6), 204),
        (torch.full((3, 4, 4), 0.6, dtype=torch.float64, requires_grad=True), 204),
        (torch.full((3, 4, 4), -15.0), 0),
        (torch.full((3, 4, 4), 15.9), 255),  # of a decoder with random weights
    ],
)
def test_tensors_of_any_type(tensor, expected):
    assert gray(to_pil(tensor)) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 4), np.nan), "NaN or infinite"),
        (np.array([[0.5, np.inf]]), "NaN or infinite"),
        (np.array([[0.5, -np.inf]], np.float32), "NaN or infinite"),
        (torch.full((3, 4, 4), float("nan")), "NaN or infinite"),
        (torch.full((3, 4, 4), float("inf")), "NaN or infinite"),
        (np.array([[-0.2, 1]]), r"\[0, 1\] \(floats\).*got -0\.2 to 1\. Clip or scale"),
        (np.array([[0.0, 1.7]]), "got 0 to 1.7"),
        (np.array([[0.0, 1.003]]), "got 0 to 1.003"),
        (np.array([[-0.003, 1.0]]), "got -0.003 to 1"),
        (np.array([[-0.6, 255.0]]), "got -0.6 to 255"),
        (np.array([[0.0, 65_700.0]]), "got 0 to 65700"),
        (np.array([[0.0, 15.9]]), "got 0 to 15.9"),
        (np.array([[-1.0, 200]]), "got -1 to 200"),
        (np.array([[0.0, 70_000]]), "got 0 to 70000"),
        (np.array([[-1, 200]]), "got -1 to 200"),
        (np.array([[0, 65_536]]), "got 0 to 65536"),
        (np.array([[-1, 0]], np.int8), "got -1 to 0"),
        (torch.full((3, 4, 4), -1), "got -1 to -1"),
        (torch.full((3, 4, 4), 16.0), r"in \[-1, 1\], got values up to 16\. Divide"),
        (np.array([["a"]]), "must be numbers, got <U1"),
        (np.array([[1j]]), "must be numbers, got complex128"),
        ("photo.png", "got str"),
        (None, "got NoneType"),
        ([[0, 1]], "got list"),
        (Image.new("RGB", (0, 4)), "no pixels: 0 x 4"),
    ],
)
def test_values_that_are_no_image(values, message):
    with pytest.raises(ImageError, match=message):
        to_pil(values)


FILES = {
    "16 bits": ("png", lambda: Image.fromarray(np.full((20, 20), 32_896, np.uint16)), 128),
    "16 bits in a TIFF": (
        "tiff",
        lambda: Image.fromarray(np.full((20, 20), 32_896, np.uint16)),
        128,
    ),
    "16 bits, big-endian": (
        "tiff",
        lambda: Image.frombytes("I;16B", (20, 20), bytes([128, 128] * 400)),
        128,
    ),
    "32 bits up to 255": ("tiff", lambda: Image.fromarray(np.full((20, 20), 90, np.int32)), 90),
    "32 bits up to 65535": (
        "tiff",
        lambda: Image.fromarray(np.full((20, 20), 32_896, np.int32)),
        128,
    ),
    "floats up to 1": ("tiff", lambda: Image.fromarray(np.full((20, 20), 0.4, np.float32)), 102),
    "floats up to 255": ("tiff", lambda: Image.fromarray(np.full((20, 20), 102, np.float32)), 102),
    "floats up to 65535": (
        "tiff",
        lambda: Image.fromarray(np.full((20, 20), 25_700, np.float32)),
        100,
    ),
    "hidden by alpha": ("png", lambda: Image.new("RGBA", (20, 20), (9, 9, 9, 0)), 255),
    "half hidden": ("webp", lambda: Image.new("RGBA", (20, 20), (0, 0, 0, 102)), 153),
    "gray hidden by alpha": ("png", lambda: Image.new("LA", (20, 20), (9, 0)), 255),
    "one bit": ("png", lambda: Image.new("1", (20, 20), 1), 255),
    "palette": ("gif", lambda: Image.new("L", (20, 20), 77).convert("P"), 77),
}


@pytest.mark.parametrize("kind", FILES)
def test_memory_and_file_read_the_same(tmp_path, kind):
    ending, build, expected = FILES[kind]
    build().save(tmp_path / f"a.{ending}", **({"lossless": True} if ending == "webp" else {}))
    assert gray(to_pil(build())) == expected
    with Image.open(tmp_path / f"a.{ending}") as opened:
        assert gray(to_pil(opened)) == expected
    assert gray(load_image(tmp_path / f"a.{ending}")) == expected


@pytest.mark.parametrize(
    "mode", ["La", "RGBa", "PA", "CMYK", "YCbCr", "LAB", "HSV", "I;16B", "RGBX"]
)
def test_every_mode_of_pil(mode):
    assert to_pil(Image.new(mode, (4, 4))).mode == "RGB"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5, -1.0, 3.0, 1e6])
def test_a_float_file_that_is_no_image_is_refused_with_its_name(tmp_path, value):
    values = np.full((20, 20), 0.5, np.float32)
    values[13, 7] = value
    Image.fromarray(values).save(tmp_path / "map.tiff")
    with pytest.raises(ImageError, match=r"map\.tiff: The (values|image) .*\.$"):
        load_image(tmp_path / "map.tiff")


def test_bands_join_without_a_seam(monkeypatch):
    """A large image is converted a band of rows at a time; here, a band is one row, or a few."""
    rng = np.random.default_rng(0)
    for values in (
        rng.integers(0, 65_536, (37, 20)).astype(np.uint16),
        rng.random((37, 20)).astype(np.float32),
    ):
        whole = np.asarray(to_pil(values))
        for band in (1, 45, 200):
            monkeypatch.setattr("course.images.io.BAND_PIXELS", band)
            assert np.array_equal(to_pil(Image.fromarray(values)), whole)
