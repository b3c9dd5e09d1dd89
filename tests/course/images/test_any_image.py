"""Any image file becomes RGB as a person sees it, or one clear error."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageOps

from course.images import ImageError, io, load_image

GRAY = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)  # 40 high, 60 wide
COLOR = np.stack([GRAY, 255 - GRAY, GRAY // 2], axis=2)


def test_gray_images(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "gray.png")
    image = load_image(tmp_path / "gray.png")
    assert image.mode == "RGB" and np.array_equal(
        np.asarray(image), np.repeat(GRAY[..., None], 3, 2)
    )


def test_16_bits_are_scaled_and_not_cut_off(tmp_path):
    deep = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(deep).save(tmp_path / "deep.tiff")
    for name in ("deep.png", "deep.tiff"):
        image = np.asarray(load_image(tmp_path / name))[..., 0]
        assert np.abs(image - deep / 257).max() <= 1
    dark = np.full((40, 60), 600, np.uint16)  # dark, but 16 bits
    Image.fromarray(dark).save(tmp_path / "dark.png")
    assert np.asarray(load_image(tmp_path / "dark.png")).max() == round(600 / 257)


def test_transparent_is_white(tmp_path):
    alpha = np.where(np.arange(60) < 30, 255, 0).astype(np.uint8)
    image = Image.fromarray(np.dstack([COLOR, np.tile(alpha, (40, 1))]))
    image.save(tmp_path / "alpha.png")
    image.convert("LA").save(tmp_path / "gray-alpha.png")
    image.convert("P").save(
        tmp_path / "palette.png", transparency=image.convert("P").getpixel((59, 39))
    )
    loaded = np.asarray(load_image(tmp_path / "alpha.png"))
    assert np.array_equal(loaded[:, :30], COLOR[:, :30]) and (loaded[:, 30:] == 255).all()
    assert (np.asarray(load_image(tmp_path / "gray-alpha.png"))[:, 30:] == 255).all()
    assert (np.asarray(load_image(tmp_path / "palette.png"))[39, 59] == 255).all()


@pytest.mark.parametrize(("orientation", "turned"), [(6, -1), (8, 1), (3, 2)])
def test_a_camera_held_sideways(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOR).save(tmp_path / "turned.png", exif=exif)
    image = load_image(tmp_path / "turned.png")
    assert np.array_equal(np.asarray(image), np.rot90(COLOR, turned))


def test_other_kinds(tmp_path):
    image = Image.fromarray(COLOR)
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.convert("1").save(tmp_path / "bits.png")
    image.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", image.size)])
    image.save(tmp_path / "image.webp", lossless=True)
    for name in ("cmyk.jpg", "bits.png", "moving.gif", "image.webp"):
        loaded = load_image(tmp_path / name)
        assert loaded.mode == "RGB" and loaded.size == (60, 40)
    assert (
        np.abs(np.asarray(load_image(tmp_path / "moving.gif")).astype(int) - COLOR).mean() < 8
    )  # the first frame
    assert np.array_equal(np.asarray(load_image(tmp_path / "image.webp")), COLOR)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tiff"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_upright_in_every_format(tmp_path, ending, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings = {"jpg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}.get(
        ending, {}
    )
    quarters = np.zeros((32, 64, 3), np.uint8)
    quarters[:16, :32, 0] = quarters[16:, :32, 1] = quarters[:16, 32:, 2] = 255
    Image.fromarray(quarters).save(tmp_path / f"a.{ending}", exif=exif, **settings)
    with Image.open(tmp_path / f"a.{ending}") as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert np.array_equal(load_image(tmp_path / f"a.{ending}"), expected)
    if orientation >= 5:
        assert load_image(tmp_path / f"a.{ending}", (16, 32)).size == (16, 32)


# --- Sizes


def test_a_size_cuts_about_the_middle(tmp_path):
    marked = np.zeros((40, 120, 3), np.uint8)
    marked[:, 40:80] = (0, 200, 0)
    Image.fromarray(marked).save(tmp_path / "wide.png")
    square = load_image(tmp_path / "wide.png", 32)
    assert square.size == (32, 32) and (np.asarray(square)[..., 1] > 190).all()
    assert load_image(tmp_path / "wide.png", (96, 64)).size == (96, 64)


def test_a_huge_photograph_is_read_without_a_word(tmp_path, recwarn):
    """100 million pixels: beyond where PIL begins to warn, and read at a fraction of it."""
    Image.new("L", (12_500, 8_000), 90).save(tmp_path / "huge.jpg")
    image = load_image(tmp_path / "huge.jpg", 256)
    assert image.size == (256, 256) and abs(image.getpixel((9, 9))[0] - 90) < 3
    assert not [w for w in recwarn if "Decompression" in str(w.category)]


@pytest.mark.parametrize("mode", ["I;16", "L", "RGB", "RGBA", "F"])
def test_a_large_image_is_decoded_no_finer_than_needed(tmp_path, mode):
    """NumPy's memory is measured; 16 bits took 24 bytes a pixel. PIL holds the file's pixels."""
    Image.linear_gradient("L").resize((2000, 1500)).convert("L" if mode == "I;16" else mode).save(
        tmp_path / "a.tiff"
    )
    if mode == "I;16":
        wide = np.asarray(Image.open(tmp_path / "a.tiff"), np.uint16) * 257
        Image.fromarray(wide).save(tmp_path / "a.tiff")
    tracemalloc.start()
    try:
        image = load_image(tmp_path / "a.tiff", 64)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * 2000 * 1500
    assert image.size == (64, 64)
    column = np.asarray(image)[:, 32, 0].astype(int)
    expected = np.linspace(0, 255, 64) if mode != "RGBA" else column
    assert np.abs(column - expected).max() <= 4


def resident(field: str) -> int:
    """Return a size of this process from Linux: VmRSS now, or VmHWM since it was reset."""
    [line] = [n for n in Path("/proc/self/status").read_text().splitlines() if field in n]
    return 1024 * int(line.split()[1])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("name", "mode", "size", "bytes_per_pixel"),
    [
        ("a.png", "I;16", (8000, 8000), 2),
        ("a.tiff", "I;16", (8000, 8000), 2),
        ("a.tiff", "I;16", (16_000, 4000), 2),
        ("a.tiff", "F", (4000, 8000), 4),
        ("a.jpg", "RGB", (8000, 8000), 1),  # which its decoder makes smaller
    ],
)
def test_the_memory_of_a_large_image_is_that_of_its_pixels(
    tmp_path, name, mode, size, bytes_per_pixel
):
    """All memory of the process: 64 million pixels of 16 bits took 2.5 GB."""
    column = np.linspace(0, 1, size[1])[:, None]
    levels = {"I;16": (65535, np.uint16), "F": (1, np.float32), "RGB": (255, np.uint8)}
    white, dtype = levels[mode]
    pixels = np.broadcast_to((white * column).astype(dtype), size[::-1])
    fast = {"compress_level": 1} if name.endswith("png") else {}
    Image.fromarray(np.ascontiguousarray(pixels)).convert(mode).save(tmp_path / name, **fast)
    del pixels
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    image = load_image(tmp_path / name, 256)
    taken = resident("VmHWM") - before
    assert taken < bytes_per_pixel * size[0] * size[1] + 2**25
    shown = np.asarray(image)[:, 128, 0].astype(int)
    shortest = min(size)
    cut = (size[1] - shortest) / 2 / size[1]  # the middle square is shown
    assert np.abs(shown - np.linspace(255 * cut, 255 * (1 - cut), 256)).max() <= 3


@pytest.mark.parametrize(
    ("ending", "size", "wanted", "decoded", "factor"),
    [
        ("jpg", (1000, 2000), 200, (500, 1000), 1),  # by half: the least that is twice the size
        ("jpg", (2000, 1000), 200, (1000, 500), 1),
        ("jpg", (1000, 3000), (100, 300), (1000, 3000), 1),
        ("jpg", (3000, 1000), (300, 100), (3000, 1000), 1),
        ("jpg", (700, 700), None, (700, 700), 1),
        ("png", (1200, 2400), 200, (1200, 2400), 2),
        ("png", (2400, 1200), (200, 100), (2400, 1200), 2),
        ("png", (1199, 1199), 200, (1199, 1199), 1),
        ("png", (100, 100), 200, (100, 100), 1),
        ("png", (1300, 1300), None, (1300, 1300), 1),
    ],
)
def test_how_much_detail_is_left_out(tmp_path, monkeypatch, ending, size, wanted, decoded, factor):
    calls = []

    def spy(image, by, own=io._to_rgb):
        calls.append((image.size, by))
        return own(image, by)

    monkeypatch.setattr(io, "_to_rgb", spy)
    Image.new("L", size).save(tmp_path / f"a.{ending}")
    load_image(tmp_path / f"a.{ending}", wanted)
    assert calls == [(decoded, factor)]


@pytest.mark.parametrize("size", [(500, 700), (701, 399), (64, 64), (1000, 31)])
def test_decoding_coarsely_looks_like_decoding_finely(tmp_path, size):
    rng = np.random.default_rng(0)
    blobs = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    blobs.save(tmp_path / "a.png")
    expected = ImageOps.fit(blobs, (40, 30), Image.Resampling.LANCZOS)
    coarse = np.asarray(load_image(tmp_path / "a.png", (40, 30)), np.int16)
    assert np.abs(coarse - np.asarray(expected, np.int16)).mean() < 2


@pytest.mark.parametrize("size", [16, np.int64(16), (16, 16), (np.int32(16), 16), [16, 16]])
def test_a_size_is_a_whole_number_or_two(tmp_path, size):
    Image.fromarray(COLOR).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png", size).size == (16, 16)


@pytest.mark.parametrize("size", [0, -4, 2.5, "64", (16, 0), (16, 16, 16), True, 16_385])
def test_a_size_that_cannot_be(tmp_path, size):
    Image.fromarray(COLOR).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="size must be a whole number from 1 to 16,384, got "):
        load_image(tmp_path / "a.png", size)


@pytest.mark.parametrize("size", [(16, 16), (16, 900), (900, 16)])
def test_the_smallest_image(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").size == size
    assert load_image(tmp_path / "a.png", 64).size == (64, 64)
    Image.new("RGB", (size[0] - 1, size[1] - 1)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="but each side must have at least 16"):
        load_image(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png", min_side=15).size == (size[0] - 1, size[1] - 1)


def test_the_largest_image(tmp_path, monkeypatch):
    Image.fromarray(COLOR).save(tmp_path / "a.png")
    monkeypatch.setattr("course.images.io.MAX_PIXELS", 60 * 40)
    assert load_image(tmp_path / "a.png").size == (60, 40)
    monkeypatch.setattr("course.images.io.MAX_PIXELS", 60 * 40 - 1)
    with pytest.raises(ImageError, match="60 x 40 pixels, more than"):
        load_image(tmp_path / "a.png")


# --- Files


@pytest.mark.parametrize("path", ["~no-such-user/a.png", "~no-such-user", "~no.such.user/b/c.jpg"])
@pytest.mark.parametrize("kind", [str, Path])
def test_the_home_of_nobody(path, kind):
    with pytest.raises(
        ImageError, match=r"~no.such.user.* does not know\. Write the whole path, or \./~no"
    ):
        load_image(kind(path))


def test_a_home_that_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    Image.fromarray(COLOR).save(tmp_path / "a.png")
    assert load_image("~/a.png").size == (60, 40)


@pytest.mark.parametrize("path", [None, 7, b"a.png", ["a.png"], 1.5])
def test_a_path_of_another_type(path):
    with pytest.raises(ImageError, match="A path must be text or a pathlib.Path, got "):
        load_image(path)


@pytest.mark.parametrize("path", ["", "a\0b.png", "x" * 300 + ".png", "none/a.png", "a.png/b.png"])
def test_paths_that_lead_nowhere(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(COLOR).save("a.png")
    with pytest.raises(ImageError, match="no file|folder|File name too long|cannot be read"):
        load_image(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
@pytest.mark.parametrize("name", ["pipe.png", "pipe.eps", "pipe", "link.png", "null.png"])
def test_a_pipe_or_a_device_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / "fifo")
    target = os.devnull if name == "null.png" else tmp_path / "fifo"
    if name.startswith("pipe"):
        (tmp_path / "fifo").rename(tmp_path / name)
    else:
        (tmp_path / name).symlink_to(target)
    with pytest.raises(ImageError, match=f"{name} is a pipe or a device"):
        load_image(tmp_path / name)


@pytest.mark.parametrize(
    "kind", ["EPS", "PPM", "TGA", "ICO", "PCX", "SGI", "IM", "DDS", "JPEG2000", "PDF"]
)
@pytest.mark.parametrize("ending", [None, "png"])
def test_only_the_listed_formats_are_read(tmp_path, monkeypatch, kind, ending):
    """By their content, whatever the name; EPS would start another program."""
    monkeypatch.setattr(
        EpsImagePlugin, "Ghostscript", lambda *words, **settings: pytest.fail("Ghostscript")
    )
    path = tmp_path / f"a.{ending or kind.lower()}"
    Image.fromarray(COLOR).save(path, kind)
    with pytest.raises(
        ImageError,
        match="not an image in a format that can be read: PNG, JPEG, WebP, GIF, BMP or TIFF",
    ):
        load_image(path)


def test_what_cannot_be_used_says_why(tmp_path, monkeypatch):
    with pytest.raises(ImageError, match=r"no file .*none\.png"):
        load_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path)
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ImageError, match=r"text\.png is not an image.*PNG, JPEG"):
        load_image(tmp_path / "text.png")
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"empty\.jpg is not an image"):
        load_image(tmp_path / "empty.jpg")
    Image.fromarray(COLOR).save(tmp_path / "cut.png")
    content = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match=r"cut\.png is damaged"):
        load_image(tmp_path / "cut.png")
    Image.new("RGB", (300, 8)).save(tmp_path / "tiny.png")
    with pytest.raises(ImageError, match="300 x 8 pixels, but each side"):
        load_image(tmp_path / "tiny.png")
    Image.new("1", (15_000, 15_000)).save(tmp_path / "vast.png")
    with pytest.raises(ImageError, match=r"vast\.png.*(too large|more than)"):
        load_image(tmp_path / "vast.png")
    monkeypatch.setattr("course.images.io.MAX_PIXELS", 2000)
    Image.fromarray(COLOR).save(tmp_path / "fair.png")
    with pytest.raises(ImageError, match="60 x 40 pixels, more than 0 million"):
        load_image(tmp_path / "fair.png")
