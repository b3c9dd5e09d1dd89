"""Landscapes: random but repeatable; images pan, close and follow time and weather."""

import numpy as np
import pytest

from pocket.world import SCENE_FLOATS, Rendered, render
from pocket.world.landscape_header import HEADER_FLOATS, Header, slots
from pocket.world.landscapes import sample_landscape
from pocket.world.renderer import layout
from pocket.world.vocabulary import LANDSCAPES, NO_WEATHER, STYLES, TIMES, WEATHERS

DAY, NIGHT = TIMES.index("day"), TIMES.index("night")
CLEAR, FOGGY = WEATHERS.index("clear"), WEATHERS.index("foggy")
RAIN, SNOW = WEATHERS.index("rain"), WEATHERS.index("snow")
every_landscape = pytest.mark.parametrize("landscape", range(len(LANDSCAPES)), ids=LANDSCAPES)
WITH_WEATHER = [i for i, name in enumerate(LANDSCAPES) if name not in NO_WEATHER]
every_weathered = pytest.mark.parametrize(
    "landscape", WITH_WEATHER, ids=[LANDSCAPES[i] for i in WITH_WEATHER]
)


def header(landscape: int, time: int = DAY, weather: int = CLEAR, seed: int = 0) -> np.ndarray:
    return sample_landscape(np.random.default_rng(seed), landscape, time, weather)


def draw(*headers: np.ndarray, height: int = 24, width: int = 24, samples: int = 1) -> Rendered:
    params = np.zeros((len(headers), SCENE_FLOATS), np.float32)
    params[:, :HEADER_FLOATS] = headers
    params[:, layout()["H_KIND"]] = 1
    params[:, layout()["H_STYLE"]] = STYLES.index(
        "3d render"
    )  # as drawn: a photo's corners are darker
    return render(params, height, width, samples)


def brightness(*headers: np.ndarray) -> float:
    return draw(*headers).color.float().mean().item()


@every_landscape
def test_sampling_is_repeatable_finite_and_varied(landscape):
    for time in range(len(TIMES)):
        for weather in range(len(WEATHERS)) if landscape in WITH_WEATHER else (CLEAR,):
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
    header(landscape, weather=SNOW if landscape in WITH_WEATHER else CLEAR)
    assert max(taken) < HEADER_FLOATS and min(taken) >= 16


@pytest.mark.parametrize(
    "classes", [(-1, 0, 0), (len(LANDSCAPES), 0, 0), (0, len(TIMES), 0), (0, 0, -1)]
)
def test_unknown_classes_are_named(classes):
    with pytest.raises(ValueError, match="does not exist"):
        sample_landscape(np.random.default_rng(0), *classes)


@every_landscape
def test_a_panorama_closes_and_every_image_is_a_part_of_it(landscape):
    here = header(landscape, seed=3)
    turned = here.copy()
    turned[slots()["HEADING"]] += np.pi / 3  # one image height to the right
    size = 24
    around, after, image = (
        draw(here, height=size, width=6 * size),
        draw(turned, height=size, width=6 * size),
        draw(here, height=size, width=size),
    )

    def alike(
        a, b
    ) -> float:  # share of equal pixels; rays that graze an edge may round to its other side
        return ((a.int() - b.int()).abs().amax(-1) <= 2).float().mean().item()

    assert alike(around.color.roll(-size, dims=2), after.color) > 0.97
    middle = slice(5 * size // 2, 7 * size // 2)
    assert alike(around.color[:, :, middle], image.color) > 0.99


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
    day, night = (
        brightness(*(header(landscape, time, CLEAR, seed) for seed in seeds))
        for time in (DAY, NIGHT)
    )
    assert (
        night < (0.70 if LANDSCAPES[landscape] == "space" else 0.55) * day
    )  # the sky of space is dark by day too


@every_weathered
def test_fog_takes_the_color_out(landscape):
    def saturation(weather: int) -> float:
        color = draw(*(header(landscape, DAY, weather, seed) for seed in range(4))).color.float()
        return ((color.amax(-1) - color.amin(-1)) / color.amax(-1)).mean().item()

    assert saturation(FOGGY) < 0.75 * saturation(CLEAR)


@pytest.mark.parametrize("landscape", sorted(NO_WEATHER))
@pytest.mark.parametrize("weather", WEATHERS[1:])
def test_weather_where_there_is_none_is_refused(landscape, weather):
    with pytest.raises(
        ValueError, match=f"{landscape} has no weather: it must be clear, not {weather}"
    ):
        header(LANDSCAPES.index(landscape), weather=WEATHERS.index(weather))


def sharpness(*headers: np.ndarray) -> float:
    """Mean difference of neighboring pixels in the upper third: of the sky, in most landscapes."""
    color = draw(*headers, height=96, width=96).color[:, :32].float()
    return color.diff(dim=2).abs().mean().item()


@every_weathered
def test_rain_is_gray_and_its_streaks_show(landscape):
    clear, rain = (
        [header(landscape, DAY, weather, seed) for seed in range(3)] for weather in (CLEAR, RAIN)
    )
    dry = [h.copy() for h in rain]
    for h in dry:
        h[slots()["RAIN"]] = 0
    assert sharpness(*rain) > sharpness(*dry) + 1.5
    assert (
        brightness(*rain) < brightness(*clear) or LANDSCAPES[landscape] == "volcano"
    )  # its ground is black


@every_weathered
def test_snow_whitens_the_ground_and_its_flakes_show(landscape):
    clear, snow = (
        [header(landscape, DAY, weather, seed) for seed in range(3)] for weather in (CLEAR, SNOW)
    )
    still = [h.copy() for h in snow]
    for h in still:
        h[slots()["FLAKES"]] = 0
    assert sharpness(*snow) > sharpness(*still) + 1.0

    def ground(headers):
        out = draw(*headers, height=48, width=48)
        up = (out.depth > 0) & (out.normal[..., 1] > 0.9)
        return out.color[up].float().mean().item() if up.any() else 0.0

    if not header(landscape)[slots()["WATER"]]:  # water does not turn white
        assert ground(still) > min(1.15 * ground(clear), 170)


@pytest.mark.parametrize("landscape", ["river", "waterfall", "park", "volcano", "village", "space"])
def test_what_the_image_is_about_is_in_view(landscape):
    """The river, fall, path, cone, road or planet lies within the 60 degrees around the heading."""
    for seed in range(20):
        h = header(LANDSCAPES.index(landscape), seed=seed)
        azimuth = np.arctan2(h[slots()["AIM"]], h[slots()["AIM"] + 1])
        off = (azimuth - h[slots()["HEADING"]] + np.pi) % (2 * np.pi) - np.pi
        assert abs(off) < np.radians(15)


@pytest.mark.parametrize("landscape", ["river", "waterfall"])
def test_rivers_and_falls_have_water(landscape):
    index = LANDSCAPES.index(landscape)
    out = draw(*(header(index, seed=seed) for seed in range(12)), height=48, width=48)
    water = (out.normal[..., 1] > 0.9999) & (out.depth > 0)
    assert (water.float().mean(dim=(1, 2)) > 0.03).float().mean() >= 0.9


def test_the_ocean_has_islands_almost_everywhere():
    ocean = LANDSCAPES.index("ocean")
    out = draw(*(header(ocean, seed=seed) for seed in range(20)), height=48, width=48)
    land = (out.depth > 0) & (out.normal[..., 1] < 0.999)
    assert (land.float().mean(dim=(1, 2)) > 0.01).float().mean() >= 0.9
