"""Any picture file becomes RGB as a person sees it, or one clear error."""

import numpy as np
import pytest
from PIL import Image

from course.pictures import PictureError, load_picture

GRAY = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)  # 40 high, 60 wide
COLOR = np.stack([GRAY, 255 - GRAY, GRAY // 2], axis=2)


def test_gray_pictures(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "gray.png")
    picture = load_picture(tmp_path / "gray.png")
    assert picture.mode == "RGB" and np.array_equal(np.asarray(picture), np.repeat(GRAY[..., None], 3, 2))


def test_16_bits_are_scaled_and_not_cut_off(tmp_path):
    deep = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(deep).save(tmp_path / "deep.tiff")
    for name in ("deep.png", "deep.tiff"):
        picture = np.asarray(load_picture(tmp_path / name))[..., 0]
        assert np.abs(picture - deep / 257).max() <= 1
    dark = np.full((40, 60), 600, np.uint16)  # dark, but 16 bits
    Image.fromarray(dark).save(tmp_path / "dark.png")
    assert np.asarray(load_picture(tmp_path / "dark.png")).max() == round(600 / 257)


def test_transparent_is_white(tmp_path):
    alpha = np.where(np.arange(60) < 30, 255, 0).astype(np.uint8)
    image = Image.fromarray(np.dstack([COLOR, np.tile(alpha, (40, 1))]))
    image.save(tmp_path / "alpha.png")
    image.convert("LA").save(tmp_path / "gray-alpha.png")
    image.convert("P").save(tmp_path / "palette.png", transparency=image.convert("P").getpixel((59, 39)))
    picture = np.asarray(load_picture(tmp_path / "alpha.png"))
    assert np.array_equal(picture[:, :30], COLOR[:, :30]) and (picture[:, 30:] == 255).all()
    assert (np.asarray(load_picture(tmp_path / "gray-alpha.png"))[:, 30:] == 255).all()
    assert (np.asarray(load_picture(tmp_path / "palette.png"))[39, 59] == 255).all()


@pytest.mark.parametrize(("orientation", "turned"), [(6, -1), (8, 1), (3, 2)])
def test_a_camera_held_sideways(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOR).save(tmp_path / "turned.png", exif=exif)
    picture = load_picture(tmp_path / "turned.png")
    assert np.array_equal(np.asarray(picture), np.rot90(COLOR, turned))


def test_other_kinds(tmp_path):
    image = Image.fromarray(COLOR)
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.convert("1").save(tmp_path / "bits.png")
    image.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", image.size)])
    image.save(tmp_path / "picture.webp", lossless=True)
    for name in ("cmyk.jpg", "bits.png", "moving.gif", "picture.webp"):
        picture = load_picture(tmp_path / name)
        assert picture.mode == "RGB" and picture.size == (60, 40)
    assert np.abs(np.asarray(load_picture(tmp_path / "moving.gif")).astype(int) - COLOR).mean() < 8  # the first frame
    assert np.array_equal(np.asarray(load_picture(tmp_path / "picture.webp")), COLOR)


def test_a_size_cuts_about_the_middle(tmp_path):
    marked = np.zeros((40, 120, 3), np.uint8)
    marked[:, 40:80] = (0, 200, 0)
    Image.fromarray(marked).save(tmp_path / "wide.png")
    square = load_picture(tmp_path / "wide.png", 32)
    assert square.size == (32, 32) and (np.asarray(square)[..., 1] > 190).all()
    assert load_picture(tmp_path / "wide.png", (96, 64)).size == (96, 64)


def test_a_huge_photograph_is_read_without_a_word(tmp_path, recwarn):
    """100 million pixels: beyond where PIL begins to warn, and read at a fraction of it."""
    Image.new("L", (12_500, 8_000), 90).save(tmp_path / "huge.jpg")
    picture = load_picture(tmp_path / "huge.jpg", 256)
    assert picture.size == (256, 256) and abs(picture.getpixel((9, 9))[0] - 90) < 3
    assert not [w for w in recwarn if "Decompression" in str(w.category)]


def test_what_cannot_be_used_says_why(tmp_path, monkeypatch):
    with pytest.raises(PictureError, match=r"no file .*none\.png"):
        load_picture(tmp_path / "none.png")
    with pytest.raises(PictureError, match="is a folder"):
        load_picture(tmp_path)
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(PictureError, match=r"text\.png is not a picture.*PNG, JPEG"):
        load_picture(tmp_path / "text.png")
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(PictureError, match=r"empty\.jpg is not a picture"):
        load_picture(tmp_path / "empty.jpg")
    Image.fromarray(COLOR).save(tmp_path / "cut.png")
    content = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(PictureError, match=r"cut\.png is damaged"):
        load_picture(tmp_path / "cut.png")
    Image.new("RGB", (300, 8)).save(tmp_path / "tiny.png")
    with pytest.raises(PictureError, match="300 x 8 pixels: too few"):
        load_picture(tmp_path / "tiny.png")
    Image.new("1", (15_000, 15_000)).save(tmp_path / "vast.png")
    with pytest.raises(PictureError, match=r"vast\.png.*(too large|more than)"):
        load_picture(tmp_path / "vast.png")
    monkeypatch.setattr("course.pictures.MOST_PIXELS", 2000)
    Image.fromarray(COLOR).save(tmp_path / "fair.png")
    with pytest.raises(PictureError, match="60 x 40 pixels, more than 0 million"):
        load_picture(tmp_path / "fair.png")
