"""Random landscapes: their light, weather and relief, as numbers in the header of a scene.

Every choice is made here, so the renderer stays small and a scene is fixed by its floats alone.
"""

import numpy as np

from pocket.world.landscape_header import Color, Header, direction, vary
from pocket.world.landscape_kinds import KINDS
from pocket.world.vocabulary import LANDSCAPES, NO_WEATHER, TIMES, WEATHERS

# Light by time of day. Sunset is deep and warm, dawn pale and pink with a cool sky.
SKIES: dict[str, dict[str, Color]] = {
    "day": {
        **{"ZENITH": (0.09, 0.24, 0.62), "SUNWARD": (0.58, 0.74, 0.90), "AWAY": (0.50, 0.68, 0.88)},
        **{"SUN": (1.25, 1.16, 1.0), "AMBIENT": (0.30, 0.38, 0.50), "GLOW": (0.32, 0.30, 0.25)},
        **{"CLOUD_LIT": (0.95, 0.95, 0.96), "CLOUD_DARK": (0.50, 0.55, 0.64)},
    },
    "sunset": {
        **{"ZENITH": (0.085, 0.09, 0.26), "SUNWARD": (1.0, 0.34, 0.07), "AWAY": (0.38, 0.17, 0.24)},
        **{"SUN": (1.35, 0.56, 0.19), "AMBIENT": (0.25, 0.16, 0.22), "GLOW": (0.80, 0.36, 0.09)},
        **{"CLOUD_LIT": (1.0, 0.36, 0.14), "CLOUD_DARK": (0.20, 0.10, 0.17)},
    },
    "night": {
        **{"ZENITH": (0.004, 0.009, 0.034), "SUNWARD": (0.026, 0.048, 0.11)},
        **{"AWAY": (0.015, 0.030, 0.075), "SUN": (0.16, 0.205, 0.31)},
        **{"AMBIENT": (0.034, 0.048, 0.090), "GLOW": (0.055, 0.070, 0.095)},
        **{"CLOUD_LIT": (0.055, 0.070, 0.11), "CLOUD_DARK": (0.010, 0.015, 0.032)},
    },
    "dawn": {
        **{"ZENITH": (0.20, 0.34, 0.58), "SUNWARD": (1.0, 0.66, 0.56), "AWAY": (0.50, 0.47, 0.66)},
        **{"SUN": (0.78, 0.56, 0.47), "AMBIENT": (0.31, 0.33, 0.45), "GLOW": (0.42, 0.33, 0.22)},
        **{"CLOUD_LIT": (0.98, 0.70, 0.66), "CLOUD_DARK": (0.44, 0.42, 0.56)},
    },
}
# On Mars the sky is butterscotch by day and blue around the low sun.
MARS_SKIES: dict[str, dict[str, Color]] = {
    "day": {
        **{"ZENITH": (0.42, 0.25, 0.15), "SUNWARD": (0.82, 0.58, 0.38), "AWAY": (0.74, 0.50, 0.32)},
        **{"CLOUD_DARK": (0.48, 0.32, 0.22)},
    },
    "sunset": {
        **{"ZENITH": (0.13, 0.075, 0.06), "SUNWARD": (0.52, 0.34, 0.25)},
        **{"AWAY": (0.30, 0.15, 0.10), "GLOW": (0.22, 0.42, 0.62)},
    },
    "dawn": {
        **{"ZENITH": (0.36, 0.24, 0.22), "SUNWARD": (0.72, 0.62, 0.62), "AWAY": (0.52, 0.36, 0.32)},
        **{"GLOW": (0.22, 0.34, 0.44)},
    },
    "night": {
        **{"ZENITH": (0.012, 0.007, 0.012), "SUNWARD": (0.062, 0.034, 0.034)},
        **{"AWAY": (0.038, 0.020, 0.022)},
    },
}
# Under water the horizon is deep blue and the surface bright.
WATER_SKIES: dict[str, dict[str, Color]] = {
    "day": {
        **{"ZENITH": (0.14, 0.66, 0.76), "SUNWARD": (0.012, 0.19, 0.36)},
        **{"AWAY": (0.010, 0.15, 0.31), "SUN": (0.62, 1.00, 0.95), "AMBIENT": (0.16, 0.36, 0.44)},
        **{"GLOW": (0.30, 0.62, 0.60)},
    },
    "sunset": {
        **{"ZENITH": (0.80, 0.36, 0.12), "SUNWARD": (0.075, 0.075, 0.16)},
        **{"AWAY": (0.012, 0.055, 0.15), "SUN": (1.00, 0.56, 0.28), "AMBIENT": (0.16, 0.19, 0.26)},
        **{"GLOW": (0.70, 0.32, 0.10)},
    },
    "dawn": {
        **{"ZENITH": (0.66, 0.50, 0.60), "SUNWARD": (0.07, 0.13, 0.28), "AWAY": (0.02, 0.11, 0.26)},
        **{"SUN": (0.82, 0.62, 0.66), "AMBIENT": (0.17, 0.25, 0.37), "GLOW": (0.44, 0.30, 0.36)},
    },
    "night": {
        **{"ZENITH": (0.012, 0.060, 0.095), "SUNWARD": (0.003, 0.018, 0.048)},
        **{"AWAY": (0.002, 0.012, 0.036), "SUN": (0.07, 0.14, 0.17)},
        **{"AMBIENT": (0.018, 0.045, 0.070), "GLOW": (0.030, 0.070, 0.085)},
    },
}
# In space only the sun changes.
SPACE_SKIES: dict[str, dict[str, Color]] = {
    "day": {**{"SUN": (1.30, 1.24, 1.12), "AMBIENT": (0.13, 0.13, 0.17)}},
    "sunset": {**{"SUN": (1.30, 0.58, 0.24), "AMBIENT": (0.12, 0.08, 0.12)}},
    "dawn": {**{"SUN": (0.95, 0.66, 0.62), "AMBIENT": (0.11, 0.10, 0.15)}},
    "night": {**{"SUN": (0.14, 0.17, 0.26), "AMBIENT": (0.022, 0.026, 0.048)}},
}

OWN_SKIES = {"underwater": WATER_SKIES, "space": SPACE_SKIES}
ELEVATIONS = {"day": (22, 50), "sunset": (2.5, 8), "night": (12, 26), "dawn": (1.5, 6)}  # degrees
BARE = ("desert", "snowy hills", "canyon", "mars")  # slopes that need shadows
# Sun (1) or moon (2), size of its disc, and stars.
DISCS = {
    "day": (1, 0.035, 0.0),
    "sunset": (1, 0.05, 0.0),
    "night": (2, 0.045, 1.0),
    "dawn": (1, 0.036, 0.0),
}
# What rain and snow leave of the sky, the sun, the light of the sky, and bright and dark clouds.
FALLING = {"rain": (0.50, 0.16, 0.85, 0.34, 0.50), "snow": (0.95, 0.30, 1.30, 0.78, 1.15)}
SKY_COLORS = ("SUNWARD", "AWAY", "ZENITH")

Sky = dict[str, np.ndarray]


def sample_landscape(
    rng: np.random.Generator, landscape: int, time: int, weather: int
) -> np.ndarray:
    """Sample a landscape of these classes (positions in LANDSCAPES, TIMES, WEATHERS).

    Return the scene's header (128,) float32; the first 16 numbers are the caller's and stay 0.
    Raise ValueError for a class that does not exist, and for a weather in one of NO_WEATHER.
    """
    classes = (
        ("landscape", landscape, LANDSCAPES),
        ("time", time, TIMES),
        ("weather", weather, WEATHERS),
    )
    for name, index, names in classes:
        if not 0 <= index < len(names):
            raise ValueError(
                f"{name} {index} does not exist: there are {len(names)}, {', '.join(names)}"
            )
    kind = LANDSCAPES[landscape]
    if kind in NO_WEATHER and WEATHERS[weather] != "clear":
        raise ValueError(f"{kind} has no weather: it must be clear, not {WEATHERS[weather]}")
    h = Header()
    h.put(KIND=landscape, SEED=int(rng.integers(2**23)), HEADING=rng.uniform(0, 2 * np.pi))
    _put_light(h, rng, TIMES[time], WEATHERS[weather], kind)
    KINDS[kind](h, rng, TIMES[time], WEATHERS[weather])
    _put_weather(h, rng, WEATHERS[weather])
    return h.floats


def _put_light(h: Header, rng: np.random.Generator, time: str, weather: str, kind: str) -> None:
    """Choose sun or moon, sky, stars and clouds."""
    sky = _sample_sky(rng, time, kind)
    low, high = (15, 32) if time == "day" and kind in BARE else ELEVATIONS[time]
    elevation = np.radians(rng.uniform(low, high))
    # A low sun or the moon is what the image is about: mostly in view, seldom in its middle.
    in_view = time != "day" and rng.random() < 0.7
    aside = rng.uniform(4, 27) if in_view else rng.uniform(30, 170)
    azimuth = h.number("HEADING") + np.radians(aside) * rng.choice([-1, 1])
    disc, size, stars = DISCS[time]
    covers = {  # every weather draws the first three
        "clear": rng.choice([0.0, rng.uniform(0.12, 0.34)]),
        "cloudy": rng.uniform(0.72, 0.95),
        "foggy": rng.uniform(0, 0.5),
    }
    cover = rng.uniform(1.18, 1.26) if weather in FALLING else covers[weather]
    if weather == "cloudy":
        disc = 0 if time == "day" else disc
        stars = 0.5 if time == "night" else 0.0
    elif weather == "foggy":
        stars *= 0.25
    elif weather in FALLING:
        disc = 0
        stars = 0.0
    h.put(
        SUN_DIR=direction(azimuth, elevation),
        DISC=disc,
        DISC_SIZE=size * rng.uniform(0.85, 1.2),
        STARS=stars * rng.uniform(0.7, 1.1),
        CLOUD_COVER=cover,
        CLOUD_SCALE=rng.uniform(0.7, 1.2),
        **_adapt_sky(sky, weather),
    )


def _sample_sky(rng: np.random.Generator, time: str, kind: str) -> Sky:
    """Return the colors of a clear sky and its light, varied."""
    sky = {name: vary(rng, color, 0.08) for name, color in SKIES[time].items()}
    if kind == "mars":
        sky |= {name: vary(rng, color, 0.08) for name, color in MARS_SKIES[time].items()}
    if kind in OWN_SKIES:
        sky |= {name: vary(rng, color, 0.06) for name, color in OWN_SKIES[kind][time].items()}
    return sky


def _adapt_sky(sky: Sky, weather: str) -> Sky:
    """Return the colors of a sky in a weather: less sun, more even light, grayer colors."""
    sky = dict(sky)
    factors: dict[str, float] = {}
    if weather == "cloudy":
        for name in SKY_COLORS:
            sky[name] = 0.62 * sky[name] + 0.30 * sky[name].mean()
        factors = {
            "SUN": 0.42,
            "AMBIENT": 1.18,
            "GLOW": 0.35,
            "CLOUD_LIT": 0.78,
            "CLOUD_DARK": 0.72,
        }
    elif weather == "foggy":
        for name in SKY_COLORS:
            sky[name] = 0.5 * sky[name] + 0.45 * sky[name].mean() + 0.05 * sky["SUNWARD"]
        factors = {"SUN": 0.45, "AMBIENT": 1.15}
    elif weather in FALLING:
        level, sun, ambient, lit, dark = FALLING[weather]
        for name in SKY_COLORS:
            sky[name] = level * (0.35 * sky[name] + 0.55 * sky[name].mean())
        for name, share in (("CLOUD_LIT", lit), ("CLOUD_DARK", dark)):
            sky[name] = share * (0.4 * sky[name] + 0.6 * sky[name].mean())
        factors = {"SUN": sun, "AMBIENT": ambient, "GLOW": 0.1}
    return sky | {name: factor * sky[name] for name, factor in factors.items()}


def _put_weather(h: Header, rng: np.random.Generator, weather: str) -> None:
    """Choose rain with wet ground, or snow that has covered the ground for a while."""
    if weather == "rain":
        h.put(RAIN=rng.uniform(0.62, 0.9), WET=rng.uniform(0.8, 1.0))
    elif weather == "snow":
        h.put(FLAKES=rng.uniform(0.34, 0.6), WHITE=rng.uniform(0.82, 0.97))
        if h.number("SNOW") == 0:
            h.put(SNOW=rng.uniform(0.6, 1.0))
