"""Views of a panorama, and the page that turns it: whole, seamless, with nothing from elsewhere."""

import base64
import math
import re
from io import BytesIO
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from course.images.panorama import (
    PanoramaError,
    check_masks,
    check_sync,
    check_windows,
    pan,
    write_page,
)
from course.models import RequestError

RAMP = np.broadcast_to(np.arange(40, dtype=np.uint8)[None, :, None], (8, 40, 3)).copy()


# --- Requests


@pytest.mark.parametrize(
    ("height", "width", "window", "stride"),
    [(8, 8, 8, 1), (8, 24, 8, 8), (9, 8, 8, 4), (64, 256, 64, 16)],
)
def test_windows_that_cover(height, width, window, stride):
    check_windows(height, width, window, stride)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((7, 24, 8, 4), "height must be at least 8 latent pixels, one window, got 7"),
        ((8, 7, 8, 4), "width must be at least 8 latent pixels, one window, got 7"),
        ((8, 24, 8, 0), "got 0"),
        ((8, 24, 8, 9), "got 9"),
        ((8, 24, 8, -1), "got -1"),
        ((8, 24, 8, 2.5), "got 2.5"),
        ((8, 24, 8, True), "got True"),
    ],
)
def test_windows_that_cannot_cover(sizes, message):
    with pytest.raises(RequestError, match=message):
        check_windows(*sizes)


class Settings(NamedTuple):
    """As `Sync` of lesson 2."""

    weight: float = 20.0
    decay: float = 0.95
    until: float = 1.0
    every: int = 1
    scale: float = 1.0
    through: str = "denoiser"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weight": 1e-9},
        {"weight": 1e9},
        {"decay": 1},
        {"decay": 1e-9},
        {"until": 1e-9},
        {"every": 7},
        {"scale": 0.5},
        {"scale": 0.125},
        {"scale": 5 / 8},
        {"through": "decoder"},
    ],
)
def test_synchronization_that_can_be(settings):
    sync = Settings(**settings)
    assert check_sync(sync, 8) == sync


@pytest.mark.parametrize(
    "settings",
    [
        {"weight": 0},
        {"weight": -1e-9},
        {"weight": math.inf},
        {"decay": 0},
        {"decay": 1.0001},
        {"until": 0},
        {"until": 1.0001},
        {"every": 0},
        {"every": -1},
        {"scale": 0},
        {"scale": 1.125},
        {"scale": 1 / 16},
        {"scale": 0.6},
        {"through": "encoder"},
    ],
)
def test_synchronization_that_cannot_be(settings):
    [(name, value)] = settings.items()
    with pytest.raises(RequestError, match=f"{name}.* {re.escape(repr(value))}"):
        check_sync(Settings(**settings), 8)


def mask(*values: float) -> torch.Tensor:
    return torch.tensor(values).expand(2, -1)


@pytest.mark.parametrize(
    "values", [(0, 1), (0.0, 1.0), (0.25, 0.75), (1, 1), (0, 1e-6), (False, True)]
)
def test_masks_from_0_to_1(values):
    stacked = check_masks([("a car", mask(*values)), ("a tree", mask(1, 0))], 2, 2)
    assert stacked.shape == (2, 2, 2) and stacked.dtype == torch.float32
    torch.testing.assert_close(stacked[0], mask(*values).float())
    torch.testing.assert_close(stacked[1], mask(1.0, 0.0))


@pytest.mark.parametrize(
    "values",
    [
        (-1e-6, 1.0),
        (-1, 1),
        (-0.5, 0.5),
        (-2, -1),
        (0.0, 1.0001),
        (0, 2),
        (0, 0),
        (math.nan, 1.0),
        (0, math.inf),
    ],
)
def test_masks_beyond_0_and_1_are_refused(values):
    """The second region, so that a check of the first one alone does not pass."""
    with pytest.raises(RequestError, match='mask of "a tree".* from 0 to 1'):
        check_masks([("a car", mask(0.0, 1.0)), ("a tree", mask(*values))], 2, 2)


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (1, 2, 2), (4,), ()])
def test_masks_of_another_size_are_refused(shape):
    with pytest.raises(
        RequestError, match=rf"mask of \"a car\".*\(2, 2\), got {re.escape(str(shape))}"
    ):
        check_masks([("a car", torch.ones(shape))], 2, 2)


def test_no_region():
    with pytest.raises(RequestError, match="no region"):
        check_masks([], 2, 2)


# --- Views


def first_columns(frames):
    return [int(np.asarray(frame)[0, 0, 0]) for frame in frames]


def test_a_pan_goes_from_edge_to_edge():
    frames = pan(RAMP, 10, 4)
    assert [frame.size for frame in frames] == [(10, 8)] * 4
    assert first_columns(frames) == [0, 10, 20, 30]
    assert np.asarray(frames[-1])[0, -1, 0] == 39


def test_a_pan_around_begins_again_after_the_last():
    frames = pan(RAMP, 16, 4, closed=True)
    assert first_columns(frames) == [0, 10, 20, 30]
    assert np.asarray(frames[-1])[0, :, 0].tolist() == [*range(30, 40), *range(6)]


@pytest.mark.parametrize(
    ("width", "frames", "closed", "columns"),
    [
        (1, 3, False, [0, 20, 39]),
        (40, 2, False, [0, 0]),
        (10, 1, False, [0]),
        (10, 1, True, [0]),
        (40, 2, True, [0, 20]),
        (10, 3, True, [0, 13, 27]),  # to the nearest column: 13.3 and 26.7
        (7, 5, False, [0, 8, 16, 25, 33]),  # 8.25, 16.5 (to the even one) and 24.75
    ],
)
def test_a_pan_goes_at_an_even_pace(width, frames, closed, columns):
    views = pan(RAMP, width, frames, closed)
    assert first_columns(views) == columns
    assert [view.size for view in views] == [(width, 8)] * frames


@pytest.mark.parametrize(
    ("width", "frames", "message"),
    [
        (0, 3, "width of a view must be a whole number from 1 to 40, got 0"),
        (41, 3, "from 1 to 40, got 41"),
        (10.5, 3, "from 1 to 40, got 10.5"),
        (8, 0, "number of frames must be a whole number of at least 1, got 0"),
        (8, 2.5, "at least 1, got 2.5"),
        (8, True, "at least 1, got True"),
        (8, "3", "at least 1, got '3'"),
    ],
)
def test_a_pan_that_cannot_be(width, frames, message):
    with pytest.raises(PanoramaError, match=message):
        pan(RAMP, width, frames)


@pytest.mark.parametrize("number", [np.int64, np.int32, np.uint8, np.array, torch.tensor])
def test_whatever_behaves_like_an_integer_is_one(number):
    assert first_columns(pan(RAMP, number(10), number(4))) == [0, 10, 20, 30]
    stride = check_windows(number(16), number(24), number(8), number(4))
    assert stride == 4 and type(stride) is int
    sync = check_sync(Sync(1.0, every=number(2)), 8)
    assert sync.every == 2 and type(sync.every) is int


@pytest.mark.parametrize("stride", [0, -1, 9, 2.5, True, "4", None, np.float64(4)])
def test_strides_that_leave_gaps_or_are_no_integers_are_refused(stride):
    with pytest.raises(
        RequestError, match="stride between windows of 8 must be a whole number from 1 to 8, got"
    ):
        check_windows(16, 24, 8, stride)


class Sync(NamedTuple):
    """As lesson 2 has it."""

    weight: float
    decay: float = 0.95
    until: float = 1.0
    every: int = 1
    scale: float = 1.0
    through: str = "denoiser"


@pytest.mark.parametrize("number", [np.float64, np.float32, np.array, torch.tensor, float])
def test_numbers_of_any_kind_synchronize(number):
    sync = check_sync(Sync(number(0.5), number(0.5), number(0.25), 1, number(0.125), "decoder"), 8)
    assert sync == Sync(0.5, 0.5, 0.25, 1, 0.125, "decoder")
    assert all(type(getattr(sync, name)) is float for name in ("weight", "decay", "until", "scale"))


HALF = [[0.0, 0.5, 1.0]] * 2


@pytest.mark.parametrize(
    "mask",
    [
        HALF,
        np.array(HALF),
        np.array(HALF, np.float16),
        torch.tensor(HALF),
        torch.tensor(HALF, dtype=torch.bfloat16),
        np.array(HALF)[:, ::-1],
        torch.tensor(HALF, requires_grad=True),
        np.broadcast_to(np.array(HALF[0]), (2, 3)),
    ],
    ids=lambda mask: type(mask).__name__,
)
def test_masks_are_arrays_of_any_kind(mask):
    result = check_masks([("a car", mask), ("a duck", np.array(HALF) > 0.7)], 2, 3)
    assert result.dtype == torch.float32 and result.shape == (2, 2, 3) and not result.requires_grad
    assert sorted(result[0, 0].tolist()) == [0.0, 0.5, 1.0]
    assert result[1].tolist() == [[0.0, 0.0, 1.0]] * 2


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[0.0, 0.5]] * 2, r"the shape of the latents, \(2, 3\)"),
        (np.zeros((2, 3)), "from 0 to 1, and above 0 somewhere"),
        (np.array(HALF) - 0.5, "from 0 to 1"),
        (torch.tensor(HALF) - 1e-3, "from 0 to 1"),
        (np.array(HALF) * 255, "from 0 to 1"),
        (np.array(HALF) + np.nan, "from 0 to 1"),
        (np.array([[0, np.inf, 1]] * 2), "from 0 to 1"),
        ("a mask", "array of numbers"),
        ([[0, 1, 0], [1]], "array of numbers"),
        ({"a": 1}, "array of numbers"),
        (None, r"the shape of the latents, \(2, 3\)"),
    ],
)
def test_masks_that_cannot_be(mask, message):
    with pytest.raises(RequestError, match=f'The mask of "a car" .*must .*{message}'):
        check_masks([("a duck", np.array(HALF)), ("a car", mask)], 2, 3)


def test_the_page_holds_the_image_and_needs_nothing_else(tmp_path):
    path = write_page(tmp_path / "new" / "turn.html", RAMP, 'a "beach" <at> night')
    text = path.read_text()
    [source] = re.findall(r"url\(data:image/png;base64,([\w+/=]+)\)", text)
    assert np.array_equal(np.asarray(Image.open(BytesIO(base64.b64decode(source)))), RAMP)
    assert "http" not in text and "src=" not in text
    assert "a &#34;beach&#34; &lt;at&gt; night" in text and "<at>" not in text
    assert "min(100%, 24px)" in text  # at most three times its height


@pytest.mark.parametrize("name", ["a.html", "a.HTML", "deep/er/a.html", "a b.html"])
def test_a_page_goes_where_it_should(tmp_path, name):
    for title in ("a beach", "a forest"):  # again, over the first
        assert write_page(tmp_path / name, RAMP, title) == tmp_path / name
    assert "<title>a forest</title>" in (tmp_path / name).read_text(encoding="utf-8")


def test_a_page_that_cannot_be(tmp_path):
    with pytest.raises(PanoramaError, match="must end in .html"):
        write_page(tmp_path / "turn.png", RAMP, "a beach")
    (tmp_path / "file").write_text("")
    with pytest.raises(PanoramaError, match="cannot be written"):
        write_page(tmp_path / "file" / "turn.html", RAMP, "a beach")
