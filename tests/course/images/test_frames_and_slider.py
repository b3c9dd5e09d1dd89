"""Frames as numbered files, sliders over images, and the plots of lesson 1.2."""

import io
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

from course.images import plots, video
from course.images.frames import save_frames
from course.images.slider import image_slider, show_slider

matplotlib.use("Agg")


def gray(value: float, count: int = 1) -> torch.Tensor:
    return torch.full((count, 3, 16, 24), value)


def test_frames_are_named_by_step_and_timestep(tmp_path):
    folder = tmp_path / "new" / "x_t"
    paths = save_frames(folder, [gray(-1.0), gray(0.0), gray(1.0)], [999, 40, 0])
    assert [path.name for path in paths] == ["000_t0999.png", "001_t0040.png", "002_t0000.png"]
    frames = video.read_frames(folder)
    assert [frame.timestep for frame in frames] == [999, 40, 0]
    assert [np.asarray(frame.image)[0, 0, 0] for frame in frames] == [0, 128, 255]


def test_a_batch_is_one_wide_frame_and_old_frames_are_removed(tmp_path):
    save_frames(tmp_path, [gray(0.0)] * 5, [4, 3, 2, 1, 0])
    (tmp_path / "notes.txt").write_text("mine")
    [path] = save_frames(tmp_path, iter([gray(0.0, count=2)]), [0])
    assert Image.open(path).width >= 48
    assert sorted(file.name for file in tmp_path.iterdir()) == ["000_t0000.png", "notes.txt"]


def test_every_image_needs_a_timestep(tmp_path):
    with pytest.raises(ValueError):
        save_frames(tmp_path, [gray(0.0)], [1, 0])


def test_a_slider_shows_the_chosen_image(monkeypatch):
    images = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(5)]
    slider, shown = show_slider(images, [0, 1.0, 2.5, "x", 4], "t").children
    assert slider.description == "t"
    assert slider.options == (("0", 0), ("1", 1), ("2.5", 2), ("x", 3), ("4", 4))
    for i in (0, 3, 1):
        slider.value = i
        assert np.array_equal(Image.open(io.BytesIO(shown.value)), images[i])


def test_the_grid_beside_a_slider_has_seven_images():
    images = [Image.new("RGB", (32, 32), (i, 0, 0)) for i in range(20)]
    assert image_slider(images, range(20), "t", side=32).width < 8 * 36
    assert image_slider(images[:2], [1.0, 2.5], "w").width >= 64


@pytest.mark.parametrize(("count", "values"), [(2, [1]), (0, []), (1, [1, 2])])
def test_a_slider_needs_a_value_for_each_image(count, values):
    with pytest.raises(ValueError, match="do not fit"):
        image_slider([Image.new("RGB", (8, 8))] * count, values, "t")


def test_plots_show_what_they_are_given(monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: None)
    plots.plot_schedule(DDIMScheduler(), [900, 500, 100])
    [axes] = plt.gcf().axes
    assert list(axes.lines[2].get_xdata()) == [900, 500, 100]
    tensors = torch.randn(3, 2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    steps = [SimpleNamespace(t=9 - i, uncond=u, cond=c) for i, (u, c) in enumerate(tensors)]
    plots.plot_guidance(steps, [0.1, 0.2, 0.3])
    left, right = plt.gcf().axes
    assert list(left.lines[0].get_ydata()) == [0.1, 0.2, 0.3]
    assert len(right.lines[0].get_ydata()) == 2
    plt.close("all")
