"""The header of a landscape: the numbers that src/landscape.h turns into an image.

Colors are linear, lengths in meters, y is up; azimuth grows clockwise from +z, as the image pans
right.
"""

from functools import cache
from pathlib import Path

import numpy as np

HEADER_FLOATS = 128

Color = tuple[float, float, float]

# The gray that fog and haze add to the colors of the sky.
HAZE: dict[str, Color] = {
    "day": (0.72, 0.75, 0.78),
    "sunset": (0.52, 0.33, 0.25),
    "night": (0.035, 0.045, 0.070),
    "dawn": (0.66, 0.60, 0.64),
}
# How dense the air is without fog, and how much of the haze's color it takes.
AIR = {"clear": (0.05, 0.0), "cloudy": (0.09, 0.0), "rain": (0.22, 0.5), "snow": (0.34, 0.5)}


@cache
def slots() -> dict[str, int]:
    """Return the position of each number, by its name in src/landforms.h without `L_`."""
    lines = (Path(__file__).parent / "src" / "landforms.h").read_text().splitlines()
    words = [line.split() for line in lines if line.startswith("#define L_")]
    return {name.removeprefix("L_"): int(position) for _, name, position, *_ in words}


class Header:
    """The header being filled: `header.put(EYE=2.0, SUN=(1, 1, 1))`."""

    def __init__(self) -> None:
        self.floats = np.zeros(HEADER_FLOATS, np.float32)

    def put(self, **values: float | Color | np.ndarray) -> None:
        for name, value in values.items():
            numbers = np.atleast_1d(np.asarray(value, np.float32))
            start = slots()[name]
            self.floats[start : start + len(numbers)] = numbers

    def number(self, name: str) -> float:
        return float(self.floats[slots()[name]])

    def color(self, name: str) -> np.ndarray:
        start = slots()[name]
        return self.floats[start : start + 3]


def direction(azimuth: float, elevation: float) -> np.ndarray:
    """Return the unit vector (3,) toward an azimuth and an elevation in radians."""
    flat = np.cos(elevation)
    return np.array([np.sin(azimuth) * flat, np.sin(elevation), np.cos(azimuth) * flat])


def vary(rng: np.random.Generator, color: Color | np.ndarray, amount: float = 0.12) -> np.ndarray:
    """Return a color whose brightness and channels are within about `amount` of the given one."""
    brightness = rng.uniform(1 - amount, 1 + amount)
    return np.asarray(color) * brightness * rng.uniform(1 - amount / 2, 1 + amount / 2, 3)


def choose(rng: np.random.Generator, *colors: Color, amount: float = 0.12) -> np.ndarray:
    """Return one of `colors`, varied."""
    return vary(rng, colors[rng.integers(len(colors))], amount)


def put_air(
    h: Header, rng: np.random.Generator, time: str, weather: str, sight: float, depth: float
) -> None:
    """Choose haze or fog.

    sight: how far one sees on a foggy day, in m. depth: height of the layer of air, in m.
    """
    if weather == "foggy":
        density = rng.uniform(0.9, 1.5) / sight
        tint = 0.6
    else:
        share, tint = AIR[weather]
        density = rng.uniform(0.7, 1.4) * share * (2.2 if time == "dawn" else 1.0) / sight
    glow = h.color("SUNWARD") * 0.4 + h.color("AWAY") * 0.6
    dim = 0.5 if weather == "rain" else 1.0
    color = 0.35 * glow + 0.65 * np.array(HAZE[time]) * dim
    h.put(FOG=density, FOG_HEIGHT=depth, FOG_TINT=tint, FOG_COLOR=color)


def put_aim(
    h: Header, rng: np.random.Generator, aside: float, distance: float, breadth: float
) -> None:
    """Place what the image shows within `aside` degrees of its middle, `distance` m away."""
    azimuth = h.number("HEADING") + np.radians(rng.uniform(-aside, aside))
    aim = np.array([np.sin(azimuth), np.cos(azimuth)])
    h.put(AIM=aim, DISTANCE=distance, BREADTH=breadth, BEND=rng.uniform(0, 2 * np.pi))
