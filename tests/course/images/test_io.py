"""Pictures in, pictures out: conversions and grids keep what they are given."""

import re

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from course.images import io as pictures
from course.images.io import PictureError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def flat(color: tuple[int, int, int], width: int = 32, height: int = 32) -> Image.Image:
    return Image.new("RGB", (width, height), color)


@pytest.mark.parametrize(
    "picture",
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
def test_every_kind_of_picture_becomes_the_same(picture):
    assert np.array_equal(pictures.to_pil(picture), flat(RED))


def test_gray_values_are_rounded():
    assert pictures.to_pil(np.full((4, 4), 0.499)).getpixel((0, 0)) == (127,) * 3
    assert pictures.to_pil(torch.zeros(3, 4, 4)).getpixel((0, 0)) == (128,) * 3


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
def test_what_is_no_picture_is_refused_with_its_shape(wrong):
    with pytest.raises(PictureError, match=re.escape(str(tuple(wrong.shape)))):
        pictures.to_pil(wrong)


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
    assert gray(pictures.to_pil(np.full((4, 4), value, dtype))) == expected
    assert gray(pictures.to_pil(np.full((4, 4, 3), value, dtype))) == expected


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
    assert gray(pictures.to_pil(tensor)) == expected


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
        (np.array([["a"]]), "must be numbers, not <U1"),
        (np.array([[1j]]), "must be numbers, not complex128"),
        ("photo.png", "not str"),
        (None, "not NoneType"),
        ([[0, 1]], "not list"),
        (Image.new("RGB", (0, 4)), "no pixels: 0 x 4"),
    ],
)
def test_values_that_are_no_picture(values, message):
    with pytest.raises(PictureError, match=message):
        pictures.to_pil(values)


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
    assert gray(pictures.to_pil(build())) == expected
    with Image.open(tmp_path / f"a.{ending}") as opened:
        assert gray(pictures.to_pil(opened)) == expected
    assert gray(pictures.load_picture(tmp_path / f"a.{ending}")) == expected


@pytest.mark.parametrize(
    "mode", ["La", "RGBa", "PA", "CMYK", "YCbCr", "LAB", "HSV", "I;16B", "RGBX"]
)
def test_every_mode_of_pil(mode):
    assert pictures.to_pil(Image.new(mode, (4, 4))).mode == "RGB"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5, -1.0, 3.0, 1e6])
def test_a_float_file_that_is_no_picture_is_refused_with_its_name(tmp_path, value):
    values = np.full((20, 20), 0.5, np.float32)
    values[13, 7] = value
    Image.fromarray(values).save(tmp_path / "map.tiff")
    with pytest.raises(PictureError, match=r"map\.tiff: The (values|picture) .*\.$"):
        pictures.load_picture(tmp_path / "map.tiff")


def test_bands_join_without_a_seam(monkeypatch):
    """A large picture is converted a band of rows at a time; here, a band is one row, or a few."""
    rng = np.random.default_rng(0)
    for values in (
        rng.integers(0, 65_536, (37, 20)).astype(np.uint16),
        rng.random((37, 20)).astype(np.float32),
    ):
        whole = np.asarray(pictures.to_pil(values))
        for band in (1, 45, 200):
            monkeypatch.setattr(pictures, "BAND_PIXELS", band)
            assert np.array_equal(pictures.to_pil(Image.fromarray(values)), whole)


def test_grid_goes_left_to_right_then_down():
    sheet = pictures.grid([flat(RED), flat(BLUE), flat(BLUE), flat(RED)], columns=2)
    assert sheet.size == (68, 68)
    assert [sheet.getpixel(xy) for xy in ((16, 16), (52, 16), (16, 52), (52, 52))] == [
        RED,
        BLUE,
        BLUE,
        RED,
    ]


def test_labels_stand_outside_the_pictures():
    bare = pictures.grid([flat(RED)] * 4, columns=2)
    sheet = pictures.grid([flat(RED)] * 4, columns=2, titles=["a", "b"], rows=["upper", "lower"])
    assert sheet.width > bare.width and sheet.height > bare.height
    inside = np.asarray(sheet)[-bare.height :, -bare.width :]
    assert np.array_equal(inside, bare)
    margin = np.asarray(sheet)[: -bare.height]
    assert margin.min() < 128  # something is written there


def test_a_long_title_is_broken_into_lines():
    short = pictures.grid([flat(RED, 64, 64)], titles=["a"])
    long = pictures.grid([flat(RED, 64, 64)], titles=["a photo of a red car next to a tree"])
    assert long.width == short.width and long.height > short.height


def test_grid_scales_pictures_of_any_size_to_one_width():
    assert pictures.grid([flat(RED, 64, 32), flat(BLUE, 16, 8)], side=32).size == (68, 16)
    assert pictures.grid([flat(RED, 64, 32), flat(BLUE, 16, 16)]).size == (132, 64)  # the widest
    assert pictures.grid([flat(RED, 30, 20)] * 5, columns=2, side=45).size == (94, 98)
    smooth = pictures.grid([Image.linear_gradient("L").resize((64, 64))], side=16)
    assert len(np.unique(np.asarray(smooth)[:, 8, 0])) == 16  # not the nearest pixels


def sheet(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    page = Image.new("RGB", (width, height), (255, 255, 255))
    return page, ImageDraw.Draw(page)


@pytest.mark.parametrize("rows", [["upper", "the lower row"], [1, 22]])
def test_titles_above_columns_and_names_beside_rows(rows):
    """Composed once more by hand: 4 pixels between images 320 wide, letters of 20, lines of 26."""
    tiles = [flat(RED, 320, 160), flat(BLUE, 320, 150), flat(BLUE, 320, 160)]
    titles = ["a photo of a red car on the grass next to a tree", "pg"]
    font, small = ImageFont.load_default(20), (40, 40, 40)
    left = round(max(font.getlength(str(row)) for row in rows)) + 8
    page, draw = sheet(left + 2 * 320 + 4, 2 * 26 + 2 * 160 + 4)
    for tile, place in zip(tiles, ((left, 52), (left + 324, 52), (left, 216)), strict=True):
        page.paste(tile, place)
    broken = pictures.wrap(titles[0], font, 320)
    assert broken.count("\n") == 1
    for x, title in ((left + 160, broken), (left + 484, "pg")):
        draw.multiline_text((x, 50), title, small, font, anchor="md", align="center")
    for y, row in ((132, rows[0]), (296, rows[1])):
        draw.text((left - 4, y), str(row), small, font, anchor="rm")
    assert pictures.grid(tiles, columns=2, titles=titles, rows=rows) == page


@pytest.mark.parametrize("side", [None, 64])
def test_titles_above_every_image(side):
    """Images 64 wide, letters of 11, lines of 14."""
    tiles = [flat(RED, 64, 32), flat(BLUE, 64, 32), flat(RED, 64, 32), flat(BLUE, 64, 32)]
    page, draw = sheet(132, 14 + 32 + 4 + 14 + 32)
    for i, (x, y) in enumerate(((0, 14), (68, 14), (0, 64), (68, 64))):
        page.paste(tiles[i], (x, y))
        draw.text((x + 32, y - 2), f"n{i}", (40, 40, 40), ImageFont.load_default(11), anchor="md")
    assert pictures.grid(tiles, columns=2, titles=["n0", "n1", "n2", "n3"], side=side) == page


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("a bb ccc", 1000, ["a bb ccc"]),
        ("a bb ccc", 1, ["a", "bb", "ccc"]),
        ("aaaa b", "aaaa", ["aaaa", "b"]),
        ("b aaaa b", "b aaaa", ["b aaaa", "b"]),
        ("enormously a b", "a b", ["enormously", "a b"]),
        ("  a   b\nc ", 1000, ["a b c"]),
        ("", 10, [""]),
    ],
)
def test_text_is_broken_between_words(text, width, lines):
    """A width given as text is exactly as wide as that text."""
    font = ImageFont.load_default(20)
    pixels = font.getlength(width) if isinstance(width, str) else width
    assert pictures.wrap(text, font, pixels).split("\n") == lines


@pytest.mark.parametrize(
    "wrong",
    [
        {"pictures": []},
        {"pictures": [flat(RED)] * 3, "titles": ["a", "b"]},
        {"pictures": [flat(RED)] * 3, "columns": 2, "titles": ["a"]},
        {"pictures": [flat(RED)] * 3, "columns": 2, "rows": ["a"]},
        {"pictures": [flat(RED)] * 3, "columns": 2, "rows": ["a", "b", "c"]},
    ],
)
def test_labels_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="at least one|do not fit|fit neither"):
        pictures.grid(**wrong)


def test_heat_is_brightest_where_the_map_is_greatest():
    values = torch.zeros(4, 8)
    values[0, 7], values[3, 0] = 2, -2
    for found in (pictures.heat(values, side=64), pictures.heat(values, over=flat(RED, 64, 32))):
        assert found.size == (64, 32)
        light = np.asarray(found.convert("L"), np.int16)
        assert light[0, -1] > light[16, 32] > light[-1, 0]
    assert pictures.heat(torch.zeros(3, 3)).size == (3, 3)  # no greatest place, and no error
    through = [
        np.asarray(pictures.heat(values, over=flat(color, 64, 32)), np.int16)
        for color in (RED, BLUE)
    ]
    assert (through[0][..., 0] > through[1][..., 0]).all()  # the picture below is seen
    with pytest.raises(ValueError, match=r"\(h, w\)"):
        pictures.heat(torch.zeros(1, 3, 3))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 5), (0, 1e-6), (100, 101)])
def test_heat_goes_from_the_darkest_to_the_brightest_color(low, high):
    values = torch.tensor([[low, (low + high) / 2, high]], dtype=torch.float64)
    colors = np.asarray(pictures.heat(values))[0].tolist()
    expected = colormaps["inferno"]([0.0, 0.5, 1.0])[:, :3] * 255
    assert [colors[0], colors[2]] == np.floor(expected[[0, 2]]).tolist()
    np.testing.assert_allclose(colors[1], expected[1], atol=3)


def test_heat_lies_over_a_picture_in_a_known_mixture():
    values = torch.zeros(2, 4)
    dark = np.array(colormaps["inferno"](0.0)[:3]) * 255
    mixed = pictures.heat(values, over=flat(RED, 8, 4))
    assert mixed.size == (8, 4)
    np.testing.assert_allclose(mixed.getpixel((3, 2)), 0.4 * np.array(RED) + 0.6 * dark, atol=2)


@pytest.mark.parametrize(
    ("shape", "side", "size"),
    [((4, 8), None, (8, 4)), ((4, 8), 64, (64, 32)), ((3, 7), 10, (10, 4)), ((5, 2), 7, (7, 18))],
)
def test_heat_keeps_its_shape(shape, side, size):
    values = torch.arange(shape[0] * shape[1]).float().view(shape).requires_grad_()
    assert pictures.heat(values, side=side).size == size
