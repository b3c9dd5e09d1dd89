"""Pictures in, pictures out: conversions and grids keep what they are given."""

import numpy as np
import pytest
import torch
from PIL import Image

from course import pictures

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
        np.full((32, 32, 3), (1.7, -0.2, 0), np.float32),
        torch.tensor([1.0, -1, -1]).view(3, 1, 1).expand(3, 32, 32),
        torch.tensor([1.0, -1, -1], dtype=torch.bfloat16).view(1, 3, 1, 1).expand(1, 3, 32, 32),
    ],
    ids=["PIL", "RGBA", "uint8", "float", "clipped", "tensor", "bfloat16 batch"],
)
def test_every_kind_of_picture_becomes_the_same(picture):
    assert np.array_equal(pictures.to_pil(picture), flat(RED))


def test_gray_values_are_rounded():
    assert pictures.to_pil(np.full((4, 4), 0.499)).getpixel((0, 0)) == (127,) * 3
    assert pictures.to_pil(torch.zeros(3, 4, 4)).getpixel((0, 0)) == (128,) * 3


@pytest.mark.parametrize("wrong", [torch.zeros(2, 3, 4, 4), torch.zeros(4, 4), np.zeros((3, 4, 4)), np.zeros(4)])
def test_what_is_no_picture_is_refused_with_its_shape(wrong):
    with pytest.raises(ValueError, match=r"\("):
        pictures.to_pil(wrong)


def test_grid_goes_left_to_right_then_down():
    sheet = pictures.grid([flat(RED), flat(BLUE), flat(BLUE), flat(RED)], columns=2)
    assert sheet.size == (68, 68)
    assert [sheet.getpixel(xy) for xy in ((16, 16), (52, 16), (16, 52), (52, 52))] == [RED, BLUE, BLUE, RED]


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


@pytest.mark.parametrize(
    "wrong",
    [
        {"pictures": []},
        {"pictures": [flat(RED)] * 3, "titles": ["a", "b"]},
        {"pictures": [flat(RED)] * 3, "columns": 2, "rows": ["a"]},
    ],
)
def test_labels_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError):
        pictures.grid(**wrong)
