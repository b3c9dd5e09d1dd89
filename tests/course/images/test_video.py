"""Frames become clips: in order, side by side whatever their sizes, and files that play."""

import itertools
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import FrozenInstanceError
from fractions import Fraction
from pathlib import Path

import imageio.v3 as iio
import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nbconvert import HTMLExporter
from PIL import Image, ImageDraw, ImageFont, ImageSequence

from course.images import video
from course.images.grid import wrap
from course.images.io import BACKGROUND
from course.images.video import VideoError
from tests.task_3.browser import Browser

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
SIDES = st.integers(1, 70)
SIZES = st.tuples(SIDES, SIDES)


def flat(color: tuple[int, int, int], width: int = 32, height: int = 32) -> Image.Image:
    return Image.new("RGB", (width, height), color)


def fill(folder: Path, *names: str, color: tuple[int, int, int] = RED) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        flat(color, 8, 8).save(folder / name)
    return folder


def of_color(area: np.ndarray, color: tuple[int, int, int], tolerance: int = 0) -> bool:
    return bool(np.abs(area[..., :3].astype(int) - color).max() <= tolerance)


# --- Reading


@pytest.mark.parametrize(
    ("names", "steps", "timesteps"),
    [
        (["8.png", "009.jpg", "10.PNG", "0100.webp"], [8, 9, 10, 100], [None] * 4),
        (["000_t0999.png", "001_t0500.png", "2_t1.png"], [0, 1, 2], [999, 500, 1]),
        (["00000-77.png", "00001-4.png", "00002-1234567.png"], [0, 1, 2], [None] * 3),
        (["000012.2851726327.png", "000013.99.png", "000014.7.png"], [12, 13, 14], [None] * 3),
        (["IMG_20231231_235959.jpg", "IMG_20240101_000000.jpg"], [0, 1], [None] * 2),
        (
            ["Screenshot 2024-01-31 at 9.05.12 AM.png", "Screenshot 2024-01-31 at 1.00.00 PM.png"],
            [0, 1],
            [None] * 2,
        ),
    ],
)
def test_frames_come_in_the_order_of_their_names(tmp_path, names, steps, timesteps):
    places = list(enumerate(names))
    random.Random(1).shuffle(places)
    for place, name in places:
        fill(tmp_path, name, color=(50 * place, 0, 0))
    frames = video.read_frames(tmp_path)
    assert [frame.path.name for frame in frames] == names
    assert [frame.step for frame in frames] == steps
    assert [frame.timestep for frame in frames] == timesteps
    for place, frame in enumerate(frames):  # JPEG is not exact
        assert abs(frame.image.getpixel((0, 0))[0] - 50 * place) <= 3


def test_other_files_are_left_out(tmp_path):
    fill(tmp_path, "2.png", "10.JPG", "._1.png")
    (tmp_path / "notes 3.txt").write_text("x")
    (tmp_path / "1").mkdir()
    assert [(str(frame), frame.step) for frame in video.read_frames(tmp_path)] == [
        (f"{tmp_path.name}/2.png", 2),
        (f"{tmp_path.name}/10.JPG", 10),
    ]


def test_a_frame_stays_as_it_was_read(tmp_path):
    [frame] = video.read_frames(fill(tmp_path, "7.png"))
    with pytest.raises(FrozenInstanceError):
        frame.step = 8


def test_every_kind_of_image_reads_as_a_person_sees_it(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "1.png")  # nothing to see: paper
    Image.fromarray(np.full((4, 4), 32896, np.uint16)).save(tmp_path / "2.png")  # 16 bits, half way
    Image.new("L", (4, 4), 77).save(tmp_path / "3.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    Image.new("RGB", (6, 4)).save(tmp_path / "4.jpg", exif=exif)
    frames = [frame.image for frame in video.read_frames(tmp_path)]
    assert [frame.mode for frame in frames] == ["RGB"] * 4
    assert [frame.getpixel((0, 0)) for frame in frames[:3]] == [BACKGROUND, (128,) * 3, (77,) * 3]
    assert frames[3].size == (4, 6)


def test_folders_that_cannot_be_read(tmp_path):
    with pytest.raises(VideoError, match=r"There is no folder .*nowhere"):
        video.read_frames(tmp_path / "nowhere")
    with pytest.raises(VideoError, match=r"no images in .*empty"):
        video.read_frames(fill(tmp_path / "empty"))
    with pytest.raises(VideoError, match=r"final\.png has no number"):
        video.read_frames(fill(tmp_path / "a", "1.png", "final.png"))
    with pytest.raises(VideoError, match=r"b: 01\.png and 1\.png both are step 1\. .*earlier run"):
        video.read_frames(fill(tmp_path / "b", "1.png", "01.png"))
    with pytest.raises(VideoError, match=r"d: The order of 1-9\.png, 2-8\.png is not certain"):
        video.read_frames(fill(tmp_path / "d", "1-9.png", "2-8.png"))
    noise(1, 32, 32)[0].save(fill(tmp_path / "c") / "2.png")
    whole = (tmp_path / "c" / "2.png").read_bytes()
    for content in (b"not an image", whole[: len(whole) // 2]):
        (tmp_path / "c" / "2.png").write_bytes(content)
        with pytest.raises(VideoError, match=r"2\.png is (not an image|damaged)"):
            video.read_frames(tmp_path / "c")


@pytest.mark.parametrize("inside", ["", "/", "/.", "/x_t", "/x_t/1.png"])
def test_a_file_is_no_folder(tmp_path, inside):
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        VideoError, match=r"There is no folder .*file/x_t|file is a file, not a folder of frames"
    ):
        video.read_frames(f"{tmp_path}/file{inside}")


@pytest.mark.parametrize("folder", ["~no-such-user", "~no-such-user/x_t", None, 7])
def test_a_folder_that_has_no_place(folder):
    with pytest.raises(VideoError, match="does not know|A path must be text"):
        video.read_frames(folder)
    with pytest.raises(VideoError, match="does not know|A path must be text"):
        video.make_folder(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_pipe_among_the_frames_is_not_waited_for(tmp_path):
    fill(tmp_path, "1.png")
    os.mkfifo(tmp_path / "2.png")
    with pytest.raises(VideoError, match=r"2\.png is a pipe.* Make it again, or move it away"):
        video.read_frames(tmp_path)


# --- Side by side


@given(
    st.lists(SIZES, min_size=1, max_size=3),
    st.lists(SIZES, min_size=3, max_size=3),
    st.none() | SIDES,
)
@settings(max_examples=60, deadline=None)
def test_any_sizes_become_one_and_nothing_is_covered(left, right, height):
    right = right[: len(left)]
    a, b = [flat(RED, *size) for size in left], [flat(BLUE, *size) for size in right]
    joined = video.side_by_side(a, b, ["step 12, t = 481"] * len(a), ("x_t", "x_0"), height)
    expected = height or max(h for _, h in left + right)
    assert len(joined) == len(left) and len({sheet.size for sheet in joined}) == 1
    for sheet, *pair in zip(joined, left, right, strict=True):
        pixels = np.asarray(sheet)
        for color, (w, h) in zip((RED, BLUE), pair, strict=True):
            ys, xs = np.nonzero((pixels == color).all(-1))
            # A full rectangle: of the height asked for, in proportion, with no letter on it.
            assert ys.max() - ys.min() + 1 == expected
            assert xs.max() - xs.min() + 1 == max(1, round(w * expected / h))
            assert len(ys) == (ys.max() - ys.min() + 1) * (xs.max() - xs.min() + 1)
            above, below = pixels[: ys.min()], pixels[ys.max() + 1 :]
            assert above.min() < 128 and below.min() < 128  # heading and caption are written
            assert of_color(below[:, [0, -1]], BACKGROUND)  # and not cut off


def compose(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    page = Image.new("RGB", (width, height), (255, 255, 255))
    return page, ImageDraw.Draw(page)


def test_headings_and_captions_stand_where_they_should():
    """Composed once more by hand: images of 320 and 480 by 320, letters of 20, 5 pixels between."""
    ink, font, small = (40, 40, 40), ImageFont.load_default(20), ImageFont.load_default(14)
    left = [flat(RED, 320, 320), flat(RED, 200, 320)]
    right = [flat(BLUE, 480, 320), flat(BLUE, 480, 320)]
    captions = ["step 1", "a photo of a red car on the grass next to a tree under a cloud " * 2]
    sheets = video.side_by_side(left, right, captions, ("x_t", "guided"))
    broken = wrap(captions[1], font, 795)
    assert broken.count("\n") == 1
    widest = max(font.getlength(line) for line in broken.split("\n"))
    for i, caption in enumerate((captions[0], broken)):
        page, draw = compose(805, 32 + 320 + 32 + 26)
        page.paste(left[i], ((320 - left[i].width) // 2, 32))
        page.paste(right[i], (325, 32))
        start = 160 - (font.getlength("x") + small.getlength("t")) / 2
        draw.text((start, 21), "x", ink, font, anchor="ls")
        draw.text((start + font.getlength("x"), 25), "t", ink, small, anchor="ls")
        draw.text((565, 16), "guided", ink, font, anchor="mm")
        draw.multiline_text(
            ((805 - widest) / 2, 352 + 29), caption, ink, font, anchor="lm", spacing=6
        )
        assert sheets[i] == page


def test_an_index_is_smaller_by_three_tenths():
    """Images of 272 by 272: letters of 17, an index of 12 (11.9), lines of 27."""
    font, small = ImageFont.load_default(17), ImageFont.load_default(12)
    [page] = video.side_by_side([flat(RED, 272, 272)], [flat(BLUE, 272, 272)], [], ("x_0", ""))
    expected, draw = compose(2 * 272 + 4, 27 + 272)
    expected.paste(flat(RED, 272, 272), (0, 27))
    expected.paste(flat(BLUE, 272, 272), (276, 27))
    start = 136 - (font.getlength("x") + small.getlength("0")) / 2
    draw.text((start, 13.5 + 17 * 0.25), "x", (40, 40, 40), font, anchor="ls")
    draw.text(
        (start + font.getlength("x"), 13.5 + 17 * 0.45), "0", (40, 40, 40), small, anchor="ls"
    )
    assert page == expected


def test_words_wider_than_the_images_make_room():
    """Images of 8 x 8, letters of 12, 4 pixels between and on either side of a caption."""
    font = ImageFont.load_default(12)
    [page] = video.side_by_side([flat(RED, 8, 8)], [flat(BLUE, 8, 8)], ["an extraordinary caption"])
    width = math.ceil(font.getlength("extraordinary")) + 8
    start = (width - 20) // 2
    expected, draw = compose(width, 8 + 19 + 2 * 16)
    expected.paste(flat(RED, 8, 8), (start, 0))
    expected.paste(flat(BLUE, 8, 8), (start + 12, 0))
    broken = wrap("an extraordinary caption", font, width - 8)
    widest = max(font.getlength(line) for line in broken.split("\n"))
    draw.multiline_text(
        ((width - widest) / 2, 8 + 51 / 2), broken, (40, 40, 40), font, anchor="lm", spacing=3.6
    )
    assert page == expected


def test_headings_wider_than_the_images_make_room():
    font = ImageFont.load_default(12)
    [page] = video.side_by_side(
        [flat(RED, 8, 8)], [flat(BLUE, 8, 8)], [], ("before it", "after it")
    )
    widths = [math.ceil(font.getlength(text)) + 4 for text in ("before it", "after it")]
    expected, draw = compose(sum(widths) + 4, 19 + 8)
    expected.paste(flat(RED, 8, 8), ((widths[0] - 8) // 2, 19))
    expected.paste(flat(BLUE, 8, 8), (widths[0] + 4 + (widths[1] - 8) // 2, 19))
    draw.text((widths[0] / 2, 9.5), "before it", (40, 40, 40), font, anchor="mm")
    draw.text((widths[0] + 4 + widths[1] / 2, 9.5), "after it", (40, 40, 40), font, anchor="mm")
    assert page == expected


@pytest.mark.parametrize(
    ("heights", "height", "size"),
    [((10, 20), None, 12), ((100, 400), None, 25), ((100, 400), 320, 20), ((500, 500), 64, 12)],
)
def test_letters_are_a_sixteenth_of_the_smaller_side(heights, height, size):
    left, right = (flat(RED, h, h) for h in heights)
    [page] = video.side_by_side([left], [right], ["n"])
    side = height or max(heights)
    [page] = video.side_by_side([left], [right], ["n"], None, height)
    assert page.height == side + round(1.6 * size)
    assert page.width == 2 * side + max(4, size // 4)


@pytest.mark.parametrize("side", [256, 1024])
def test_captions_grow_with_the_image(side):
    [sheet] = video.side_by_side(
        [flat(RED, side, side)], [flat(RED, side, side)], ["step 12, t = 481"]
    )
    ink = np.nonzero((np.asarray(sheet)[side:] < 128).all(-1))
    assert np.ptp(ink[0]) + 1 >= side // 20  # the height of the letters
    assert np.ptp(ink[1]) < sheet.width


def test_captions_of_frames_begin_at_one_place_and_are_their_own(tmp_path):
    names = [f"{step}_t{timestep}.png" for step, timestep in ((0, 999), (9, 100), (10, 1))]
    a, b = (video.read_frames(fill(tmp_path / side, *names)) for side in ("x_t", "x_0"))
    given = video.side_by_side(a, b, ["step 0, t = 999", "step 9, t = 100", "step 10, t = 1"])
    assert video.side_by_side(a, b) == given
    starts = {int(np.nonzero((np.asarray(sheet)[8:] < 128).any((0, 2)))[0][0]) for sheet in given}
    assert len(starts) == 1
    assert [sheet.size for sheet in video.side_by_side(a, b, [])] == [(20, 8)] * 3


def test_a_long_caption_is_broken_into_lines():
    [short] = video.side_by_side([flat(RED)], [flat(RED)], ["a"])
    [long] = video.side_by_side([flat(RED)], [flat(RED)], ["a photo of a red car next to a tree"])
    assert long.height > short.height + 12


def test_tensors_and_arrays_are_images_too():
    [sheet] = video.side_by_side([torch.full((1, 3, 4, 4), -1.0)], [np.ones((4, 4))])
    assert sheet.getpixel((0, 0)) == (0, 0, 0) and sheet.getpixel((11, 3)) == (255, 255, 255)


def test_frames_without_a_partner_are_named(tmp_path):
    a = video.read_frames(fill(tmp_path / "x_t", "1.png", "2.png", "3.png"))
    b = video.read_frames(fill(tmp_path / "x_0", "01.png", "03.png", "04.png"))
    with pytest.raises(VideoError, match=r"other side: x_t/2\.png, x_0/04\.png\. "):
        video.side_by_side(a, b)
    many = video.read_frames(fill(tmp_path / "many", *(f"{i}.png" for i in range(1, 31))))
    with pytest.raises(VideoError, match=r"many/11\.png and 19 more"):
        video.side_by_side(a, many)
    nine = video.read_frames(fill(tmp_path / "nine", *(f"{i}.png" for i in range(1, 10))))
    with pytest.raises(
        VideoError, match=r"side: nine/2\.png, .*, nine/9\.png\. Make both"
    ):  # all eight
        video.side_by_side(a[:1], nine)
    other = video.read_frames(fill(tmp_path / "other", "1_t981.png"))
    same = video.read_frames(fill(tmp_path / "same", "1_t961.png"))
    with pytest.raises(VideoError, match="of different timesteps"):
        video.side_by_side(other, same)
    assert (
        len(video.side_by_side(other, a[:1])) == 1
    )  # a name without a timestep says nothing against it


@pytest.mark.parametrize(
    ("left", "right", "caption"),
    [
        ((3, None), (5, None), "step 3"),  # paired in order: the left one counts
        ((3, 900), (5, 800), "step 3, t = 900"),
        ((3, None), (5, 800), "step 3, t = 800"),
        (None, (5, 800), "step 5, t = 800"),
        ((3, 0), None, "step 3, t = 0"),
        (None, None, ""),
    ],
)
def test_captions_of_frames_among_other_images(left, right, caption):
    pair = []
    for place in (left, right):
        image = flat(RED)
        pair.append(
            [image if place is None else video.Frame(Path("1.png"), image, *place), flat(BLUE)]
        )
    plain = [flat(RED), flat(BLUE)]
    assert video.side_by_side(*pair) == video.side_by_side(plain, plain, [caption, ""])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([flat(RED)] * 2, [flat(RED)] * 3), "2 frames at the left and 3"),
        (([], [flat(RED)]), "at least one frame"),
        (([flat(RED)], []), "at least one frame"),
        (([flat(RED)], [flat(RED)], ["a", "b"]), "2 captions do not fit 1 frames"),
        (
            ([flat(RED)], [flat(RED)], None, None, 0),
            "height must be a whole number from 1 to 65,535, got 0",
        ),
        (([flat(RED)], [flat(RED)], None, None, 2.5), "height must be a whole number.*got 2.5"),
        (([flat(RED)], [flat(RED)], None, None, "64"), "height must be a whole number.*got '64'"),
    ],
)
def test_series_that_do_not_fit(arguments, message):
    with pytest.raises(VideoError, match=message):
        video.side_by_side(*arguments)


# --- Writing


def noise(count: int, width: int, height: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for _ in range(count)
    ]


@given(
    st.tuples(SIDES, SIDES),
    st.integers(1, 4),
    st.sampled_from([1, 2.5, 8, 12, 23.976, 60]),
    st.floats(0, 2),
)
@settings(max_examples=12, deadline=None)
def test_an_mp4_reads_back_with_its_size_rate_and_hold(size, count, fps, hold):
    with tempfile.TemporaryDirectory() as folder:
        path = video.write_video(Path(folder, "new", "a.mp4"), noise(count, *size), fps, hold)
        assert [file.name for file in path.parent.iterdir()] == ["a.mp4"]
        read, meta = iio.imread(path), iio.immeta(path)
    assert read.shape == (
        count + round(hold * fps),
        size[1] + size[1] % 2,
        size[0] + size[0] % 2,
        3,
    )
    assert meta["fps"] == pytest.approx(fps, abs=0.01)
    assert meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p(tv, bt709")


def test_an_mp4_keeps_order_colors_and_the_odd_edge(tmp_path):
    read = iio.imread(
        video.write_video(tmp_path / "A.MP4", [flat(c, 49, 33) for c in (RED, GREEN, BLUE)], 3, 0)
    )
    for frame, color in zip(read, (RED, GREEN, BLUE), strict=True):
        assert of_color(frame, color, tolerance=6)  # to the doubled edge


@given(SIZES, st.integers(1, 5), st.floats(0.5, 50), st.floats(0, 3))
@settings(max_examples=40, deadline=None)
def test_a_gif_reads_back_with_its_size_and_times(size, count, fps, hold):
    with tempfile.TemporaryDirectory() as folder:
        path = video.write_video(f"{folder}/a.gif", noise(count, *size), fps, hold)
        with Image.open(path) as gif:
            times = [frame.info.get("duration", 0) for frame in ImageSequence.Iterator(gif)]
            assert gif.size == size
    if (
        min(size) > 8
    ):  # smaller ones may be alike in 256 colors, and then are one frame that stays longer
        assert len(times) == count
    # Both parts end at the nearest hundredth of a second: rounding does not add up.
    assert sum(times) == 10 * (round(count / fps / 0.01) + round(hold / 0.01))
    assert times[-1] >= 1000 * hold


def test_a_gif_loops_and_does_not_crawl(tmp_path):
    """A sky that stays while something moves below: no pixel of it changes, and none is dotted."""
    sky = np.repeat(np.linspace(90, 200, 64, dtype=np.uint8)[:, None, None], 96, axis=1).repeat(
        3, axis=2
    )
    frames = []
    for i in range(6):
        frame = np.concatenate([sky, np.asarray(noise(1, 96, 32)[0])])
        frame[64:, i * 8 : i * 8 + 8] = RED
        frames.append(frame)
    with Image.open(video.write_video(tmp_path / "a.gif", frames, fps=10)) as gif:
        assert gif.info["loop"] == 0
        read = [
            np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(gif)
        ]
    skies = [frame[:64] for frame in read]
    assert all(np.array_equal(a, b) for a, b in itertools.pairwise(skies))
    assert (skies[0] == skies[0][:, :1]).all()
    assert np.abs(skies[0] - sky).max() < 24


def test_paper_stays_white_in_a_gif(tmp_path):
    frames = video.side_by_side(noise(4, 64, 64), noise(4, 64, 64), ["a"] * 4)
    with Image.open(video.write_video(tmp_path / "a.gif", frames)) as gif:
        for frame in ImageSequence.Iterator(gif):
            assert of_color(np.asarray(frame.convert("RGB"))[-2:], BACKGROUND, tolerance=2)


@pytest.mark.parametrize(
    ("name", "frames", "fps", "hold", "message"),
    [
        ("a.avi", [flat(RED)], 8, 0, r"\.mp4 or \.gif, got 'a\.avi'"),
        ("a", [flat(RED)], 8, 0, r"got 'a'"),
        ("a.mp4", [flat(RED)], 0, 0, "^fps must be a number from 0.02 to 1,000, got 0"),
        ("a.mp4", [flat(RED)], 1e9, 0, "^fps must be a number from 0.02 to 1,000, got 1e[+]09"),
        ("a.mp4", [flat(RED)], "8", 0, "^fps must be a number from 0.02 to 1,000, got '8'"),
        ("a.mp4", [flat(RED)], None, 0, "^fps must be a number .*got None"),
        ("a.mp4", [flat(RED)], [8], 0, r"^fps must be a number .*got \[8\]"),
        ("a.mp4", [flat(RED)], True, 0, "^fps must be a number .*got True"),
        ("a.mp4", [flat(RED)], float("nan"), 0, "^fps must be a number .*got nan"),
        ("a.mp4", [flat(RED)], float("inf"), 0, "^fps must be a number .*got inf"),
        ("a.mp4", [flat(RED)], 0.019, 0, "got 0.019"),
        ("a.mp4", [flat(RED)], 1001, 0, "got 1001"),
        (
            "a.gif",
            [flat(RED)],
            -3,
            0,
            "^fps of a GIF .an MP4 takes more. must be a number from 0.02 to 50, got -3",
        ),
        ("a.gif", [flat(RED)], 51, 0, "from 0.02 to 50, got 51"),
        ("a.GIF", [flat(RED)], 0.001, 0, "from 0.02 to 50, got 0.001"),
        ("a.mp4", [flat(RED)], 8, -1, "^hold must be a number from 0 to 600, got -1"),
        ("a.gif", [flat(RED)], 8, "2", "^hold must be a number from 0 to 600, got '2'"),
        ("a.gif", [flat(RED)], 8, None, "^hold must be a number from 0 to 600, got None"),
        ("a.mp4", [flat(RED)], 8, [], r"^hold must be a number from 0 to 600, got \[\]"),
        (
            "a.mp4",
            [flat(RED)],
            8,
            float("nan"),
            "^hold must be a number from 0 to 600, got nan",
        ),
        ("a.mp4", [flat(RED)], 8, 601, "^hold must be a number from 0 to 600, got 601"),
        ("a.mp4", [], 8, 0, "at least one frame"),
        ("a.gif", [flat(RED), flat(RED, 16, 8)], 8, 0, "16 x 8, 32 x 32"),
    ],
)
def test_clips_that_cannot_be(tmp_path, name, frames, fps, hold, message):
    with pytest.raises(VideoError, match=message):
        video.write_video(tmp_path / name, frames, fps, hold)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("width", "height"),
    [(16_385, 1), (16_386, 2), (2, 16_385), (32, 16_386), (70_000, 1), (1, 1_000_000)],
)
def test_an_mp4_too_large_names_the_limit_and_the_way_out(tmp_path, width, height):
    with pytest.raises(VideoError) as caught:
        video.write_video(tmp_path / "a.MP4", [flat(RED, width, height)])
    assert str(caught.value) == (
        "MP4 allows at most 16,384 pixels on a side; these frames have "
        f"{width:,} x {height:,}. Make them smaller, or write a .gif: up to 65,535."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("width", "height"), [(65_536, 1), (1, 65_536), (65_537, 3), (2, 100_000), (1_000_000, 1)]
)
def test_a_gif_too_large_names_the_limit(tmp_path, width, height):
    with pytest.raises(VideoError) as caught:
        video.write_video(tmp_path / "a.gif", [flat(RED, width, height)])
    assert str(caught.value) == (
        "GIF allows at most 65,535 pixels on a side; these frames have "
        f"{width:,} x {height:,}. Make them smaller."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.GIF", "x.Gif", "x.y.gif", "X.MP4", "x.Mp4", ".x.gif"])
def test_endings_in_any_case(tmp_path, name):
    path = video.write_video(tmp_path / name, [flat(RED), flat(BLUE)], np.int64(4), np.float32(0.5))
    assert path == tmp_path / name and [file.name for file in tmp_path.iterdir()] == [name]
    first = iio.imread(path, index=0)
    assert first.shape[:2] == (32, 32) and of_color(first, RED, tolerance=6)


@pytest.mark.parametrize("size", [(65_535, 1), (1, 65_535)])
def test_the_widest_gif(tmp_path, size):
    with Image.open(video.write_video(tmp_path / "a.gif", [flat(RED, *size)])) as gif:
        assert gif.size == size


@pytest.mark.parametrize("size", [(16_384, 2), (1, 16_383)])
def test_the_widest_mp4(tmp_path, size):
    [frame] = iio.imread(video.write_video(tmp_path / "a.mp4", [flat(RED, *size)], hold=0))
    assert frame.shape == (size[1] + size[1] % 2, size[0] + size[0] % 2, 3)


@pytest.mark.parametrize("fps", [0.02, 50])
def test_the_slowest_and_the_fastest_gif(tmp_path, fps):
    with Image.open(
        video.write_video(tmp_path / "a.gif", [flat(RED), flat(BLUE)], fps, 600)
    ) as gif:
        times = [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]
    assert times == [1000 / fps, 1000 / fps + 600_000]


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "sub/a.gif", "sub/sub/a.mp4", "a.MP4"])
def test_places_that_cannot_be_written(tmp_path, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        VideoError,
        match=r"folder .*file.* cannot be created: .*file is a file\. Name another place",
    ):
        video.write_video(tmp_path / "file" / name, [flat(RED)])
    (tmp_path / "taken" / name).mkdir(parents=True)
    with pytest.raises(
        VideoError,
        match=rf"{name} is a folder\. Name a file in it, such as .*{name}/clip\.(mp4|gif)",
    ):
        video.write_video(tmp_path / "taken" / name, [flat(RED)])
    assert not list((tmp_path / "taken").rglob(".partial-*"))


@pytest.mark.parametrize("path", ["~no-such-user/a.gif", "~no-such-user/a.mp4", None, 7, ["a.gif"]])
def test_paths_that_have_no_place(path):
    with pytest.raises(VideoError, match="does not know. Write the whole path|A path must be text"):
        video.write_video(path, [flat(RED)])


def test_a_clip_goes_to_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert video.write_video("~/new/er/a.gif", [flat(RED)]) == tmp_path / "new" / "er" / "a.gif"


def test_a_full_disk_has_a_reason(tmp_path, monkeypatch):
    def full(*others, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(video, "_write_gif", full)
    with pytest.raises(
        VideoError, match=r"a\.gif cannot be written: No space left on device\. Name another"
    ):
        video.write_video(tmp_path / "a.gif", [flat(RED)])
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(
        VideoError, match=r"folder .*new cannot be created: No space left on device\. Name another"
    ):
        video.make_folder(tmp_path / "new")


def program(path: Path, *lines: str) -> str:
    """A shell script in the place of ffmpeg."""
    path.write_text("\n".join(["#!/bin/sh", "cat > /dev/null", *lines]))
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("kind", ["missing", "a folder", "a text", "no program"])
def test_without_ffmpeg_there_is_a_way_out(tmp_path, monkeypatch, kind):
    path = tmp_path / "ffmpeg"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a text":
        path.write_text("no program")
    elif kind == "no program":
        path.write_bytes(b"\x7fELF")
        path.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))
    with pytest.raises(
        VideoError, match=r"No ffmpeg to write a\.mp4 .*pip install imageio-ffmpeg.*\.gif"
    ):
        video.write_video(tmp_path / "new" / "a.mp4", [flat(RED)])
    assert list((tmp_path / "new").iterdir()) == []
    assert video.write_video(tmp_path / "a.gif", [flat(RED)]).exists()


def test_an_ffmpeg_that_fails_leaves_the_old_clip(tmp_path, monkeypatch):
    path = video.write_video(tmp_path / "a.mp4", [flat(RED)])
    before = path.read_bytes()
    monkeypatch.setenv(
        "IMAGEIO_FFMPEG_EXE", sys.executable
    )  # a program that knows none of these arguments
    with pytest.raises(
        VideoError, match=r"could not write a\.mp4: it ended with status 2 and says: \w"
    ):
        video.write_video(path, [flat(BLUE)])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="the program is a shell script")
@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            ["echo \"[vost#0:0 @ 0x5581] Unknown encoder 'libx264'\" >&2", "exit 8"],
            "it has no encoder for H.264 (libx264)",
        ),
        (
            ["echo 'Error: 7' >&2", "echo \"Unknown encoder 'libx264'\" >&2", "exit 1"],
            "it has no encoder for H.264 (libx264)",
        ),
        (
            ["echo \"Unrecognized option 'crf'.\" >&2", "echo 'Option not found' >&2", "exit 1"],
            "it has no encoder for H.264 (libx264)",
        ),
        (
            ["echo 'Error opening output files: Encoder not found' >&2", "exit 8"],
            "it has no encoder for H.264 (libx264)",
        ),
        (
            ["printf \"Unknown encoder 'libx264'\\r\\n\" >&2", "exit 1"],
            "it has no encoder for H.264 (libx264)",
        ),
        (
            [
                "echo '[libx264 @ 0x55] [enc @ 0x5] out of memory' >&2",
                "echo 'Error 2' >&2",
                "echo Error 3 >&2",
                "exit 1",
            ],
            "it ended with status 1 and says: out of memory",
        ),
        (["exit 3"], "it ended with status 3 and says: nothing"),
        (["kill -9 $$"], "it ended with status -9 and says: nothing"),
        (["printf '\\377 bad' >&2", "exit 1"], "says: \ufffd bad"),
        (["printf 'x%.0s' $(seq 900) >&2", "exit 1"], "says: " + "x" * 200 + "."),
    ],
)
def test_what_ffmpeg_complains_of_is_one_line_with_a_way_out(tmp_path, monkeypatch, lines, reason):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", program(tmp_path / "ffmpeg", *lines))
    with pytest.raises(VideoError) as caught:
        video.write_video(tmp_path / "a.mp4", [flat(RED)])
    message = str(caught.value)
    assert reason in message and "\n" not in message
    assert "ffmpeg could not write a.mp4" in message
    assert (
        "`pip install imageio-ffmpeg`" in message and "or write a .gif, which needs none" in message
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_an_interrupted_clip_leaves_nothing(tmp_path):
    source = (
        "import sys; from PIL import Image; from course.images import video\n"
        "frames = [Image.effect_noise((1200, 1200), 99).convert('RGB')] * 30\n"
        "print('begin', flush=True); video.write_video(sys.argv[1], frames)"
    )
    command = [sys.executable, "-c", source, str(tmp_path / "a.mp4")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "begin\n"
        while not list(tmp_path.iterdir()):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
    assert list(tmp_path.iterdir()) == []


# --- The whole job


def test_eight_frames_a_second_and_the_last_one_a_second_longer(tmp_path):
    for side in ("left", "right"):
        fill(tmp_path / side, "1.png", "2.png")
    clips = [
        video.write_video(tmp_path / "a.mp4", [flat(RED), flat(BLUE)]),
        video.join_folders(tmp_path / "left", tmp_path / "right", tmp_path / "b.mp4"),
    ]
    for clip in clips:
        assert len(iio.imread(clip)) == 2 + 8 and iio.immeta(clip)["fps"] == 8


def test_two_folders_become_a_clip(tmp_path):
    steps = list(range(8, 12))
    random.Random(0).shuffle(steps)
    fill(tmp_path / "x_t", *(f"{step}_t{1000 - step}.png" for step in steps))
    fill(tmp_path / "x_0", *(f"{step:03d}.png" for step in steps), color=BLUE)
    path = video.join_folders(
        tmp_path / "x_t", tmp_path / "x_0", tmp_path / "a.mp4", height=65, fps=4, hold=0.5
    )
    frames = video.side_by_side(
        video.read_frames(tmp_path / "x_t"),
        video.read_frames(tmp_path / "x_0"),
        None,
        ("x_t", "x_0"),
        65,
    )
    read = iio.imread(path)
    assert len(read) == 4 + 2 and Fraction(iio.immeta(path)["fps"]) == 4
    for i, frame in enumerate(read):
        source = np.asarray(frames[min(i, 3)]).astype(int)
        assert np.abs(frame[: source.shape[0], : source.shape[1]] - source).mean() < 4


def test_an_uneven_folder_makes_no_clip(tmp_path):
    fill(tmp_path / "x_t", "1.png", "2.png")
    fill(tmp_path / "x_0", "1.png")
    with pytest.raises(VideoError, match=r"x_t/2\.png"):
        video.join_folders(tmp_path / "x_t", tmp_path / "x_0", tmp_path / "a.gif")
    assert not (tmp_path / "a.gif").exists()


# --- Showing


def test_a_clip_plays_in_the_html_of_a_notebook(tmp_path):
    """In Chromium, from the HTML alone: the clip is deleted before."""
    path = video.write_video(tmp_path / "clip.mp4", [flat(RED, 64, 64), flat(BLUE, 64, 64)] * 8)
    data = {"text/html": video.show_video(path, width=320).data}
    path.unlink()
    output = nbformat.v4.new_output("execute_result", data)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
    html, _ = HTMLExporter().from_notebook_node(notebook)
    assert html.count("<video") == 1 and "data:video/mp4;base64," in html
    page = tmp_path / "lesson.html"
    page.write_text(html, encoding="utf-8")
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(f"file://{page}")
        browser.until("!!document.querySelector('video')?.videoWidth")
        browser.until("document.querySelector('video').currentTime > 0.1")  # it plays by itself
        size = "[v.videoWidth, v.videoHeight, v.width, v.loop, v.muted, v.controls].join()"
        assert browser.evaluate(f"(v => {size})(document.querySelector('video'))") == (
            "64,64,320,true,true,true"
        )
    finally:
        browser.close()


def test_what_cannot_be_shown_as_a_clip(tmp_path):
    with pytest.raises(VideoError, match=r"must end in .mp4, got 'clip.gif'"):
        video.show_video(tmp_path / "clip.gif")
    with pytest.raises(VideoError, match="clip.mp4 cannot be read: No such file"):
        video.show_video(tmp_path / "clip.mp4")
    path = video.write_video(tmp_path / "clip.mp4", [flat(RED)])
    with pytest.raises(VideoError, match="width must be .* got 0"):
        video.show_video(path, width=0)
