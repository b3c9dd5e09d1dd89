"""Landscapes: their parameters are random but repeatable; their pictures pan, close and obey time and weather."""

import numpy as np
import pytest

from pocket.world import SCENE_FLOATS, Rendered, render
from pocket.world.landscapes import HEADER_FLOATS, Header, sample_landscape, slots
from pocket.world.renderer import layout
from pocket.world.vocabulary import LANDSCAPES, STYLES, TIMES, WEATHERS

DAY, NIGHT = TIMES.index("day"), TIMES.index("night")
CLEAR, FOGGY = WEATHERS.index("clear"), WEATHERS.index("foggy")
every_landscape = pytest.mark.parametrize("landscape", range(len(LANDSCAPES)), ids=LANDSCAPES)


def header(landscape: int, time: int = DAY, weather: int = CLEAR, seed: int = 0) -> np.ndarray:
    return sample_landscape(np.random.default_rng(seed), landscape, time, weather)


def draw(*headers: np.ndarray, height: int = 24, width: int = 24, samples: int = 1) -> Rendered:
    params = np.zeros((len(headers), SCENE_FLOATS), np.float32)
    params[:, :HEADER_FLOATS] = headers
    params[:, layout()["H_KIND"]] = 1
    params[:, layout()["H_STYLE"]] = STYLES.index("3d render")  # as drawn: a photo's corners are darker
    return render(params, height, width, samples)


def brightness(*headers: np.ndarray) -> float:
    return draw(*headers).color.float().mean().item()


@every_landscape
def test_sampling_is_repeatable_finite_and_varied(landscape):
    for time in range(len(TIMES)):
        for weather in range(len(WEATHERS)):
            first, again, other = (header(landscape, time, weather, seed) for seed in (1, 1, 2))
            assert first.dtype == np.float32 and first.shape == (HEADER_FLOATS,)
            assert np.isfinite(first).all() and not first[:16].any()
            assert np.array_equal(first, again)
            assert np.count_nonzero(first != other) > 30


@every_landscape
def test_no_number_overwrites_another(landscape, monkeypatch):
    taken: dict[int, str] = {}
    put = Header.put

    def record(self, **values):
        for name, value in values.items():
            for i in range(slots()[name], slots()[name] + np.size(value)):
                assert taken.setdefault(i, name) == name
        put(self, **values)

    monkeypatch.setattr(Header, "put", record)
    header(landscape)
    assert max(taken) < HEADER_FLOATS and min(taken) >= 16


@pytest.mark.parametrize("classes", [(-1, 0, 0), (len(LANDSCAPES), 0, 0), (0, len(TIMES), 0), (0, 0, -1)])
def test_unknown_classes_are_named(classes):
    with pytest.raises(ValueError, match="does not exist"):
        sample_landscape(np.random.default_rng(0), *classes)


@every_landscape
def test_a_panorama_closes_and_every_picture_is_a_part_of_it(landscape):
    here = header(landscape, seed=3)
    turned = here.copy()
    turned[slots()["HEADING"]] += np.pi / 3  # one picture height to the right
    size = 24
    around, after, picture = (
        draw(here, height=size, width=6 * size),
        draw(turned, height=size, width=6 * size),
        draw(here, height=size, width=size),
    )

    def alike(a, b) -> float:  # share of equal pixels; rays that graze an edge may round to its other side
        return ((a.int() - b.int()).abs().amax(-1) <= 2).float().mean().item()

    assert alike(around.color.roll(-size, dims=2), after.color) > 0.97
    middle = slice(5 * size // 2, 7 * size // 2)
    assert alike(around.color[:, :, middle], picture.color) > 0.99


@every_landscape
def test_depth_and_normals_tell_ground_from_sky(landscape):
    out = draw(header(landscape), height=32, width=32)
    sky = out.depth == 0
    assert 0.02 < sky.float().mean() < 0.9 and not out.mask.any()
    lengths = out.normal.norm(dim=-1)
    assert (lengths[sky] == 0).all() and (lengths[~sky] - 1).abs().max() < 1e-3
    assert not sky[0, -1].any()  # one always stands on something


@every_landscape
def test_night_is_darker_than_day(landscape):
    seeds = range(4)
    day, night = (brightness(*(header(landscape, time, CLEAR, seed) for seed in seeds)) for time in (DAY, NIGHT))
    assert night < 0.55 * day


@every_landscape
def test_fog_takes_the_color_out(landscape):
    def saturation(weather: int) -> float:
        color = draw(*(header(landscape, DAY, weather, seed) for seed in range(4))).color.float()
        return ((color.amax(-1) - color.amin(-1)) / color.amax(-1)).mean().item()

    assert saturation(FOGGY) < 0.75 * saturation(CLEAR)


def test_the_ocean_has_islands_almost_everywhere():
    ocean = LANDSCAPES.index("ocean")
    out = draw(*(header(ocean, seed=seed) for seed in range(20)), height=48, width=48)
    land = (out.depth > 0) & (out.normal[..., 1] < 0.999)
    assert (land.float().mean(dim=(1, 2)) > 0.01).float().mean() >= 0.9
