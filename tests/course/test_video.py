"""Frames into clips: in order whatever their names, side by side whatever their sizes, and files that play."""

import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from course import video
from course.pictures import PAPER
from course.video import VideoError

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


@given(st.sets(st.integers(0, 99_999), min_size=1, max_size=12), st.data())
@settings(max_examples=25, deadline=None)
def test_frames_come_in_numeric_order_whatever_the_padding(steps, data):
    with tempfile.TemporaryDirectory() as folder:
        for step in data.draw(st.permutations(sorted(steps))):
            padded = str(step).zfill(data.draw(st.integers(1, 7)))
            timestep = data.draw(st.none() | st.integers(0, 999))
            prefix = data.draw(st.sampled_from(["", "x_t_", "sd2 frame", "x_0_"]))
            name = f"{prefix}{padded}" if timestep is None else f"{padded}_t{timestep:04d}"
            # The picture tells the step, so that a name and its picture cannot be exchanged unseen.
            flat((step >> 16, step >> 8 & 255, step & 255), 2, 2).save(f"{folder}/{name}.png")
        frames = video.read_frames(folder)
    assert [frame.step for frame in frames] == sorted(steps)
    for frame in frames:
        high, middle, low = frame.picture.getpixel((0, 0))
        assert high << 16 | middle << 8 | low == frame.step


@pytest.mark.parametrize(
    ("name", "step", "timestep"),
    [
        ("012_t0481", 12, 481),
        ("12_t1", 12, 1),
        ("x_t_12", 12, None),
        ("x_0_7", 7, None),
        ("12", 12, None),
        ("sd2-003", 3, None),
        ("final", None, None),
    ],
)
def test_what_a_name_tells(name, step, timestep):
    assert video.parse_name(name) == (step, timestep)


def test_other_files_are_left_out(tmp_path):
    fill(tmp_path, "2.png", "10.JPG", "._1.png")
    (tmp_path / "notes 3.txt").write_text("x")
    (tmp_path / "1").mkdir()
    assert [(str(frame), frame.step) for frame in video.read_frames(tmp_path)] == [
        (f"{tmp_path.name}/2.png", 2),
        (f"{tmp_path.name}/10.JPG", 10),
    ]


def test_every_kind_of_picture_reads_as_a_person_sees_it(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "1.png")  # nothing to see: paper
    Image.fromarray(np.full((4, 4), 32896, np.uint16)).save(tmp_path / "2.png")  # 16 bits, half way
    Image.new("L", (4, 4), 77).save(tmp_path / "3.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    Image.new("RGB", (6, 4)).save(tmp_path / "4.jpg", exif=exif)
    frames = [frame.picture for frame in video.read_frames(tmp_path)]
    assert [frame.mode for frame in frames] == ["RGB"] * 4
    assert [frame.getpixel((0, 0)) for frame in frames[:3]] == [PAPER, (128,) * 3, (77,) * 3]
    assert frames[3].size == (4, 6)


def test_folders_that_cannot_be_read(tmp_path):
    with pytest.raises(VideoError, match=r"There is no folder .*nowhere"):
        video.read_frames(tmp_path / "nowhere")
    with pytest.raises(VideoError, match=r"no pictures in .*empty"):
        video.read_frames(fill(tmp_path / "empty"))
    with pytest.raises(VideoError, match=r"final\.png has no number"):
        video.read_frames(fill(tmp_path / "a", "1.png", "final.png"))
    with pytest.raises(VideoError, match=r"01\.png and 1\.png in .* both are step 1\. .*earlier run"):
        video.read_frames(fill(tmp_path / "b", "1.png", "01.png"))
    noise(1, 32, 32)[0].save(fill(tmp_path / "c") / "2.png")
    whole = (tmp_path / "c" / "2.png").read_bytes()
    for content in (b"no picture", whole[: len(whole) // 2]):
        (tmp_path / "c" / "2.png").write_bytes(content)
        with pytest.raises(VideoError, match=r"2\.png is (not a picture|damaged)"):
            video.read_frames(tmp_path / "c")


# --- Side by side


@given(st.lists(SIZES, min_size=1, max_size=3), st.lists(SIZES, min_size=3, max_size=3), st.none() | SIDES)
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
            assert of_color(below[:, [0, -1]], PAPER)  # and not cut off


@pytest.mark.parametrize("side", [256, 1024])
def test_captions_grow_with_the_picture(side):
    [sheet] = video.side_by_side([flat(RED, side, side)], [flat(RED, side, side)], ["step 12, t = 481"])
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


def test_tensors_and_arrays_are_pictures_too():
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
    other = video.read_frames(fill(tmp_path / "other", "1_t981.png"))
    same = video.read_frames(fill(tmp_path / "same", "1_t961.png"))
    with pytest.raises(VideoError, match="of different timesteps"):
        video.side_by_side(other, same)
    assert len(video.side_by_side(other, a[:1])) == 1  # a name without a timestep says nothing against it


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([flat(RED)] * 2, [flat(RED)] * 3), "2 frames at the left and 3"),
        (([], [flat(RED)]), "at least one frame"),
        (([flat(RED)], []), "at least one frame"),
        (([flat(RED)], [flat(RED)], ["a", "b"]), "2 captions do not fit 1 frames"),
        (([flat(RED)], [flat(RED)], None, None, 0), "height of the pictures is 0"),
    ],
)
def test_series_that_do_not_fit(arguments, message):
    with pytest.raises(VideoError, match=message):
        video.side_by_side(*arguments)


# --- Writing


def noise(count: int, width: int, height: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for _ in range(count)]


@given(st.tuples(SIDES, SIDES), st.integers(1, 4), st.sampled_from([1, 2.5, 8, 12, 23.976, 60]), st.floats(0, 2))
@settings(max_examples=12, deadline=None)
def test_an_mp4_reads_back_with_its_size_rate_and_hold(size, count, fps, hold):
    with tempfile.TemporaryDirectory() as folder:
        path = video.write_video(Path(folder, "new", "a.mp4"), noise(count, *size), fps, hold)
        assert [file.name for file in path.parent.iterdir()] == ["a.mp4"]
        read, meta = iio.imread(path), iio.immeta(path)
    assert read.shape == (count + round(hold * fps), size[1] + size[1] % 2, size[0] + size[0] % 2, 3)
    assert meta["fps"] == pytest.approx(fps, abs=0.01)
    assert meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p(tv, bt709")


def test_an_mp4_keeps_order_colors_and_the_odd_edge(tmp_path):
    read = iio.imread(video.write_video(tmp_path / "A.MP4", [flat(c, 49, 33) for c in (RED, GREEN, BLUE)], 3, 0))
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
    if min(size) > 8:  # smaller ones may be alike in 256 colours, and then are one frame that stays longer
        assert len(times) == count
    assert sum(times) == pytest.approx(1000 * (count / fps + hold), abs=11)  # rounding does not add up
    assert times[-1] >= 1000 * hold


def test_a_gif_loops_and_does_not_crawl(tmp_path):
    """A sky that stays while something moves below: no pixel of it changes, and none is dotted."""
    sky = np.repeat(np.linspace(90, 200, 64, dtype=np.uint8)[:, None, None], 96, axis=1).repeat(3, axis=2)
    frames = []
    for i in range(6):
        frame = np.concatenate([sky, np.asarray(noise(1, 96, 32)[0])])
        frame[64:, i * 8 : i * 8 + 8] = RED
        frames.append(frame)
    with Image.open(video.write_video(tmp_path / "a.gif", frames, fps=10)) as gif:
        assert gif.info["loop"] == 0
        read = [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(gif)]
    skies = [frame[:64] for frame in read]
    assert all(np.array_equal(a, b) for a, b in itertools.pairwise(skies))
    assert (skies[0] == skies[0][:, :1]).all()
    assert np.abs(skies[0] - sky).max() < 24


def test_paper_stays_white_in_a_gif(tmp_path):
    frames = video.side_by_side(noise(4, 64, 64), noise(4, 64, 64), ["a"] * 4)
    with Image.open(video.write_video(tmp_path / "a.gif", frames)) as gif:
        for frame in ImageSequence.Iterator(gif):
            assert of_color(np.asarray(frame.convert("RGB"))[-2:], PAPER, tolerance=2)


@pytest.mark.parametrize(
    ("name", "frames", "fps", "hold", "message"),
    [
        ("a.avi", [flat(RED)], 8, 0, r"\.mp4 or \.gif, and 'a\.avi'"),
        ("a", [flat(RED)], 8, 0, r"'a' does not"),
        ("a.mp4", [flat(RED)], 0, 0, "fps is 0"),
        ("a.gif", [flat(RED)], -3, 0, "fps is -3"),
        ("a.mp4", [flat(RED)], float("nan"), 0, "fps is nan"),
        ("a.mp4", [flat(RED)], float("inf"), 0, "fps is inf"),
        ("a.gif", [flat(RED)], 51, 0, "no GIF faster than 50"),
        ("a.gif", [flat(RED)], 0.001, 0, "stay that long"),
        ("a.mp4", [flat(RED)], 8, -1, "hold is -1"),
        ("a.mp4", [flat(RED)], 8, float("nan"), "hold is nan"),
        ("a.mp4", [flat(RED)], 8, 1e9, "from 0 to 600 seconds"),
        ("a.mp4", [], 8, 0, "at least one frame"),
        ("a.gif", [flat(RED), flat(RED, 16, 8)], 8, 0, "16 x 8, 32 x 32"),
    ],
)
def test_clips_that_cannot_be(tmp_path, name, frames, fps, hold, message):
    with pytest.raises(VideoError, match=message):
        video.write_video(tmp_path / name, frames, fps, hold)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_places_that_cannot_be_written(tmp_path, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(VideoError, match=f"{name} cannot be written"):
        video.write_video(tmp_path / "file" / name, [flat(RED)])
    (tmp_path / name).mkdir()
    with pytest.raises(VideoError, match=f"{name} cannot be written"):
        video.write_video(tmp_path / name, [flat(RED)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "file"]


def test_without_ffmpeg_there_is_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "no-ffmpeg"))
    with pytest.raises(VideoError, match=r"No ffmpeg to write a\.mp4 .*pip install imageio-ffmpeg.*\.gif"):
        video.write_video(tmp_path / "a.mp4", [flat(RED)])
    assert video.write_video(tmp_path / "a.gif", [flat(RED)]).exists()


def test_an_ffmpeg_that_fails_leaves_the_old_clip(tmp_path, monkeypatch):
    path = video.write_video(tmp_path / "a.mp4", [flat(RED)])
    before = path.read_bytes()
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", sys.executable)  # a program that knows none of these arguments
    with pytest.raises(VideoError, match=r"ffmpeg could not write a\.mp4: .*\w"):
        video.write_video(path, [flat(BLUE)])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_an_interrupted_clip_leaves_nothing(tmp_path):
    source = (
        "import sys; from PIL import Image; from course import video\n"
        "frames = [Image.effect_noise((1200, 1200), 99).convert('RGB')] * 30\n"
        "print('begin', flush=True); video.write_video(sys.argv[1], frames)"
    )
    command = [sys.executable, "-c", source, str(tmp_path / "a.mp4")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begin\n"
        while not list(tmp_path.iterdir()):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
    assert list(tmp_path.iterdir()) == []


# --- The whole job


def test_two_folders_become_a_clip(tmp_path):
    steps = list(range(8, 12))
    random.Random(0).shuffle(steps)
    fill(tmp_path / "x_t", *(f"{step}_t{1000 - step}.png" for step in steps))
    fill(tmp_path / "x_0", *(f"{step:03d}.png" for step in steps), color=BLUE)
    path = video.join_folders(tmp_path / "x_t", tmp_path / "x_0", tmp_path / "a.mp4", height=65, fps=4, hold=0.5)
    frames = video.side_by_side(
        video.read_frames(tmp_path / "x_t"), video.read_frames(tmp_path / "x_0"), None, ("x_t", "x_0"), 65
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
