"""Figures: their sizes, their colors, and labels that are large enough and do not overlap."""

import numpy as np
import pytest
import torch

from course.plane import plots


def colors(image) -> set[tuple[int, ...]]:
    return {tuple(color) for color in np.asarray(image).reshape(-1, 3)}


def rgb(name: str) -> tuple[int, ...]:
    return tuple(int(name[i : i + 2], 16) for i in (1, 3, 5))


@pytest.fixture
def texts(monkeypatch):
    """The texts in the figures: [(text, height and place in pixels)]."""
    drawn_texts = []

    def record(figure):
        from matplotlib.text import Text

        renderer = figure.canvas.get_renderer()
        for text in figure.findobj(Text):
            if text.get_text() and text.get_visible():
                box = text.get_window_extent(renderer)
                drawn_texts.append((text.get_text(), text.get_fontsize(), box))
        return draw(figure)

    draw = plots._image
    monkeypatch.setattr(plots, "_image", record)
    return drawn_texts


def test_points_in_a_row_and_in_rows(texts):
    sets = {f"t = {t}": torch.randn(50, 2) for t in range(5)}
    assert plots.points(sets).size == (960, 222)
    assert plots.points(sets, columns=3).size[0] == 900
    assert all(size * plots.DPI / 72 >= 12 for _, size, _ in texts)


def test_points_have_the_color_of_their_label():
    cloud = {"a": torch.zeros(40, 2) + torch.tensor([[1.0, 1.0]])}
    for labels, darkest in [(None, 0), (torch.ones(40, dtype=torch.long), 2)]:
        inside = np.asarray(plots.points(cloud, labels))[60:120, 180:240]  # without the frame
        assert inside.reshape(-1, 3).min(0).argmin() == darkest  # blue lacks red, orange blue


def test_points_outside_are_counted(texts):
    plots.points({"a": torch.tensor([[0.0, 0.0], [9.0, 0.0], [float("nan"), 0.0], [1.0, 1.0]])})
    assert "50% outside" in [text for text, _, _ in texts]


def test_paths_and_arrow_fields(texts):
    states = torch.randn(6, 30, 2)
    assert rgb(plots.BLUE) in colors(plots.paths({"DDIM": states}, count=1))
    positions = torch.cartesian_prod(torch.linspace(-2, 2, 5), torch.linspace(-2, 2, 5))
    fields = {"true score": -positions, "average": torch.zeros(25, 2)}
    image = plots.arrow_fields({"t = 1": fields}, positions, {"t = 1": states[0]})
    assert rgb("#F5B765") in colors(image)
    assert rgb("#003F66") not in colors(image.crop((0, 0, 300, 320)))  # zeros are left out
    assert {"true score", "average"} <= {text for text, _, _ in texts}


def test_names_of_curves_do_not_overlap(texts):
    image = plots.curves({"first": [0, 1], "second": [2, 1.001], "third": [1, 0.999]}, "x", "y")
    assert image.size == (640, 300)
    boxes = [box for text, _, box in texts if text in ("first", "second", "third")]
    assert len(boxes) == 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(0 <= box.x0 and box.x1 <= 640 and 0 <= box.y0 and box.y1 <= 300 for box in boxes)


def test_averages_of_many_values():
    assert plots._averages(range(10), 5).tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert plots._averages([1.0, 2.0], 100).tolist() == [1.0, 2.0]
    assert plots.curves({"loss": [3.0] * 1000}, "x", "y", averages=100).size == (640, 300)
