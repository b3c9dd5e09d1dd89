"""Grids keep the images that they are given, and heat maps the order of their values."""

import math

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from course.images import heat_map, image_grid
from course.images.grid import wrap
from course.images.io import TEXT_COLOR

RED, BLUE = (255, 0, 0), (0, 0, 255)


def flat(color: tuple[int, int, int], width: int = 32, height: int = 32) -> Image.Image:
    return Image.new("RGB", (width, height), color)


def test_grid_goes_left_to_right_then_down():
    sheet = image_grid([flat(RED), flat(BLUE), flat(BLUE), flat(RED)], columns=2)
    assert sheet.size == (68, 68)
    assert [sheet.getpixel(xy) for xy in ((16, 16), (52, 16), (16, 52), (52, 52))] == [
        RED,
        BLUE,
        BLUE,
        RED,
    ]


def test_labels_stand_outside_the_images():
    bare = image_grid([flat(RED)] * 4, columns=2)
    sheet = image_grid([flat(RED)] * 4, columns=2, titles=["a", "b"], rows=["upper", "lower"])
    assert sheet.width > bare.width and sheet.height > bare.height
    inside = np.asarray(sheet)[-bare.height :, -bare.width :]
    assert np.array_equal(inside, bare)
    margin = np.asarray(sheet)[: -bare.height]
    assert margin.min() < 128  # something is written there


def test_a_long_title_is_broken_into_lines():
    short = image_grid([flat(RED, 64, 64)], titles=["a"])
    long = image_grid([flat(RED, 64, 64)], titles=["a photo of a red car next to a tree"])
    assert long.width == short.width and long.height > short.height


def test_grid_scales_images_of_any_size_to_one_width():
    assert image_grid([flat(RED, 64, 32), flat(BLUE, 16, 8)], side=32).size == (68, 16)
    assert image_grid([flat(RED, 64, 32), flat(BLUE, 16, 16)]).size == (132, 64)  # the widest
    assert image_grid([flat(RED, 30, 20)] * 5, columns=2, side=45).size == (94, 98)
    smooth = image_grid([Image.linear_gradient("L").resize((64, 64))], side=16)
    assert len(np.unique(np.asarray(smooth)[:, 8, 0])) == 16  # not the nearest pixels


def sheet(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    page = Image.new("RGB", (width, height), (255, 255, 255))
    return page, ImageDraw.Draw(page)


def ink(image: Image.Image) -> int:
    """The darkness of all text on a page, however it is laid out."""
    return int((255 - np.asarray(image.convert("L"), np.int64)).sum())


def written(text: str, size: int, width: int = 10_000) -> int:
    """The ink of a text on a page with room on all sides, in lines of at most `width` pixels."""
    font = ImageFont.load_default(size)
    page, draw = sheet(1000, 400)
    broken = wrap(text, font, width)
    draw.multiline_text((500, 200), broken, TEXT_COLOR, font, anchor="md", align="center")
    return ink(page)


TITLES = ["Apg, a bunny sitting on top of a stack of pancakes, jgy", "Qj", "an É over two lines"]


@pytest.mark.parametrize(("side", "size"), [(16, 12), (64, 12), (200, 12), (240, 15), (900, 16)])
@pytest.mark.parametrize("columns", [1, 2, 3])
def test_no_label_is_clipped_and_none_covers_another(side, size, columns):
    """All the ink of all labels is there, in letters of 12 to 16 pixels."""
    tiles = [flat((255, 255, 255), 64, 8)] * 3
    rows = ["pgÁ", "the second row", "Q"][: -(-3 // columns)]
    page = image_grid(tiles, columns=columns, titles=TITLES, rows=rows, side=side)
    font = ImageFont.load_default(size)
    longest = max(font.getlength(word) for title in TITLES for word in title.split())
    width = max(side, math.ceil(longest)) - 8
    expected = sum(written(title, size, width) for title in TITLES)
    expected += sum(written(row, size) for row in rows)
    assert ink(page) == pytest.approx(expected, rel=0.02)  # letters lie between pixels elsewhere


def test_titles_of_neighbors_keep_a_distance():
    """Between two columns there is a gap without ink, however long the words are."""
    page = image_grid([flat((255, 255, 255), 16, 16)] * 2, titles=["mmmmmmmmmm", "wwwwwwwwww"])
    columns = (np.asarray(page.convert("L")) < 200).any(axis=0)
    middle = page.width // 2
    assert columns.any() and not columns[middle - 1 : middle + 2].any()


def test_images_keep_their_size_beside_long_labels():
    tiles = [flat(RED, 16, 4), flat(BLUE, 16, 4)]
    page = np.asarray(image_grid(tiles, columns=1, titles=["extraordinarily"], rows=["a", "b"]))
    for color in (RED, BLUE):
        area = (page == color).all(axis=-1)
        assert area.sum() == 64 and area.any(axis=0).sum() == 16


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
    assert wrap(text, font, pixels).split("\n") == lines


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": []},
        {"images": [flat(RED)] * 3, "titles": ["a", "b"]},
        {"images": [flat(RED)] * 3, "columns": 2, "titles": ["a"]},
        {"images": [flat(RED)] * 3, "columns": 2, "rows": ["a"]},
        {"images": [flat(RED)] * 3, "columns": 2, "rows": ["a", "b", "c"]},
    ],
)
def test_labels_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="at least one|do not fit|fit neither"):
        image_grid(**wrong)


def test_heat_map_is_brightest_where_the_map_is_greatest():
    values = torch.zeros(4, 8)
    values[0, 7], values[3, 0] = 2, -2
    for result in (heat_map(values, side=64), heat_map(values, over=flat(RED, 64, 32))):
        assert result.size == (64, 32)
        light = np.asarray(result.convert("L"), np.int16)
        assert light[0, -1] > light[16, 32] > light[-1, 0]
    assert heat_map(torch.zeros(3, 3)).size == (3, 3)  # no greatest place, and no error
    through = [
        np.asarray(heat_map(values, over=flat(color, 64, 32)), np.int16) for color in (RED, BLUE)
    ]
    assert (through[0][..., 0] > through[1][..., 0]).all()  # the image below is seen
    with pytest.raises(ValueError, match=r"\(h, w\)"):
        heat_map(torch.zeros(1, 3, 3))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 5), (0, 1e-6), (100, 101)])
def test_heat_map_goes_from_the_darkest_to_the_brightest_color(low, high):
    values = torch.tensor([[low, (low + high) / 2, high]], dtype=torch.float64)
    colors = np.asarray(heat_map(values))[0].tolist()
    expected = colormaps["inferno"]([0.0, 0.5, 1.0])[:, :3] * 255
    assert [colors[0], colors[2]] == np.floor(expected[[0, 2]]).tolist()
    np.testing.assert_allclose(colors[1], expected[1], atol=3)


def test_heat_map_lies_over_an_image_in_a_known_mixture():
    values = torch.zeros(2, 4)
    dark = np.array(colormaps["inferno"](0.0)[:3]) * 255
    mixed = heat_map(values, over=flat(RED, 8, 4))
    assert mixed.size == (8, 4)
    np.testing.assert_allclose(mixed.getpixel((3, 2)), 0.4 * np.array(RED) + 0.6 * dark, atol=2)


@pytest.mark.parametrize(
    ("shape", "side", "size"),
    [((4, 8), None, (8, 4)), ((4, 8), 64, (64, 32)), ((3, 7), 10, (10, 4)), ((5, 2), 7, (7, 18))],
)
def test_heat_map_keeps_its_shape(shape, side, size):
    values = torch.arange(shape[0] * shape[1]).float().view(shape).requires_grad_()
    assert heat_map(values, side=side).size == size
