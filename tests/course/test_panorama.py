"""Views of a panorama, and the page that turns it: whole, seamless, with nothing from elsewhere."""

import base64
import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from course.panorama import PanoramaError, pan, write_page

RAMP = np.broadcast_to(np.arange(40, dtype=np.uint8)[None, :, None], (8, 40, 3)).copy()


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


def test_a_pan_that_cannot_be():
    for width, frames, message in (
        (0, 3, "0 pixels"),
        (41, 3, "41 pixels does not fit a panorama of 40"),
        (8, 0, "0 fr"),
    ):
        with pytest.raises(PanoramaError, match=message):
            pan(RAMP, width, frames)


def test_the_page_holds_the_picture_and_needs_nothing_else(tmp_path):
    path = write_page(tmp_path / "new" / "turn.html", RAMP, 'a "beach" <at> night')
    text = path.read_text()
    [source] = re.findall(r"url\(data:image/png;base64,([\w+/=]+)\)", text)
    assert np.array_equal(np.asarray(Image.open(BytesIO(base64.b64decode(source)))), RAMP)
    assert "http" not in text and "src=" not in text
    assert "a &quot;beach&quot; &lt;at&gt; night" in text and "<at>" not in text


def test_a_page_that_cannot_be(tmp_path):
    with pytest.raises(PanoramaError, match="ends in .html"):
        write_page(tmp_path / "turn.png", RAMP, "a beach")
    (tmp_path / "file").write_text("")
    with pytest.raises(PanoramaError, match="cannot be written"):
        write_page(tmp_path / "file" / "turn.html", RAMP, "a beach")
