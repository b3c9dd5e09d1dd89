"""Panoramas: a measurement, a plot of several, and the step at the wrap."""

import matplotlib.pyplot as plt
import pytest
import torch

from course import metrics
from course.images.panorama import crop_seam


def test_a_measurement_has_the_image_its_time_and_its_distance():
    image = torch.rand(3, 4, 12)
    distance = lambda a, b: (a - b).abs().mean()[None]
    result = metrics.measure_panorama(lambda: image, distance, 4)
    assert result.image is image and result.seconds >= 0
    assert result.distance == metrics.intra_distance(image, distance, 4) > 0


def test_the_plot_gives_times_relative_to_the_first(monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    points = {
        name: metrics.Measurement(torch.zeros(3, 1, 1), seconds, distance)
        for name, seconds, distance in (("Multi", 2.0, 3.0), ("Sync", 5.0, 1.25))
    }
    metrics.plot_tradeoff(points)
    [axes] = shown[0].axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["Multi: time 1.0, distance 3.00", "Sync: time 2.5, distance 1.25"]
    plt.close("all")


def test_the_rank_of_the_wrap():
    ramp = torch.arange(10.0).expand(3, 4, -1)
    assert metrics.wrap_rank(ramp) == 1  # the ends differ most
    angle = torch.arange(40) / 40 * 2 * torch.pi
    wave = torch.stack([angle.sin(), angle.cos(), angle.sin()])[:, None].repeat(1, 4, 1)
    assert metrics.wrap_rank(wave) < 1


@pytest.mark.parametrize("height", [8, 12])
def test_the_square_around_the_seam(height):
    image = torch.arange(40.0).expand(3, height, -1)
    square = crop_seam(image)
    side = height // 2
    assert square.shape == (3, side, side)
    columns = square[0, 0].tolist()
    assert columns == [*range(40 - side // 2, 40), *range(side - side // 2)]
