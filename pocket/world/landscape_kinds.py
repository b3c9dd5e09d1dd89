"""The kinds of landscapes: each function samples the ground, water, things and air of one.

The numbers go into the header of `landscape_header.py`; src/landforms.h says what each means.
"""

from collections.abc import Callable

import numpy as np

from pocket.world.landscape_header import Header, choose, direction, put_aim, put_air, vary
from pocket.world.vocabulary import LANDSCAPES

Kind = Callable[[Header, np.random.Generator, str, str], None]

# Each is a table of numbers: shape and ground, then the water, then the things in their rings.
# fmt: off


def mountains(h: Header, rng: np.random.Generator, time: str, weather: str) -> None:
    lake = rng.random() < 0.55
    relief, floor = rng.uniform(620, 900), -7.0 if lake else 2.0
    h.put(
        EYE=rng.uniform(14, 26), HORIZON=rng.uniform(0.10, 0.20), SCALE=1 / rng.uniform(700, 1000),
        RELIEF=relief, NEAR=rng.uniform(180, 320), FAR=rng.uniform(1000, 1400), FLOOR=floor,
        CALM=floor + 0.02 * relief, TOP=1.1 * relief, REACH=2800, STEEP=2.2, SHADOW=600,
        LINE=rng.uniform(0.24, 0.55), PATCH=1 / 190,
        GROUND_A=choose(rng, (0.15, 0.23, 0.05), (0.22, 0.24, 0.07), (0.11, 0.20, 0.05)),
        GROUND_B=choose(rng, (0.22, 0.20, 0.19), (0.26, 0.22, 0.18), (0.18, 0.19, 0.22)),
        GROUND_C=(0.88, 0.90, 0.94), GROUND_D=choose(rng, (0.045, 0.10, 0.04), (0.06, 0.11, 0.035)),
        WATER=lake, WAVES=rng.uniform(0.05, 0.25),
        DEEP=choose(rng, (0.02, 0.07, 0.10), (0.02, 0.09, 0.09)),
        SHALLOW=choose(rng, (0.04, 0.16, 0.18), (0.05, 0.20, 0.20)),
        RINGS=9, RING_FIRST=70, RING_GROWTH=1.27, SPACING=rng.uniform(9, 16),
        SIZE=rng.uniform(13, 19), CROWD=rng.uniform(0.25, 0.8), MIXTURE=1,
        THING_A=choose(rng, (0.025, 0.07, 0.03), (0.05, 0.10, 0.035)), THING_C=(0.10, 0.06, 0.035),
    )
    put_air(h, rng, time, weather, sight=800, depth=260)


def beach(h: Header, rng: np.random.Generator, time: str, weather: str) -> None:
    near = rng.uniform(11, 16)
    h.put(
        EYE=rng.uniform(3.2, 4.4), HORIZON=rng.uniform(-0.02, 0.12), SCALE=1 / 5.0, RELIEF=0.3,
        NEAR=near, FAR=near + rng.uniform(8, 18), FLOOR=-2, CALM=0.9, TOP=0.9,
        SHAPE=rng.uniform(0.05, 0.08), REACH=60, STEEP=1.3,
        GROUND_A=choose(rng, (0.70, 0.56, 0.36), (0.76, 0.66, 0.48), (0.66, 0.50, 0.30)),
        GROUND_B=choose(rng, (0.62, 0.48, 0.29), (0.72, 0.60, 0.42)),
        GROUND_C=choose(rng, (0.34, 0.25, 0.15)), PATCH=0.3,
        WATER=1, WAVES=rng.uniform(0.35, 0.7),
        DEEP=choose(rng, (0.01, 0.12, 0.30), (0.01, 0.16, 0.26), (0.02, 0.10, 0.22)),
        SHALLOW=choose(rng, (0.08, 0.50, 0.48), (0.12, 0.46, 0.50), (0.06, 0.40, 0.46)),
        RINGS=4, RING_FIRST=rng.uniform(8.5, 10.5), RING_GROWTH=1.25, SPACING=rng.uniform(4.5, 6.0),
        SIZE=rng.uniform(5.5, 7.5), CROWD=rng.uniform(0.4, 0.75), MIXTURE=rng.uniform(0.7, 0.95),
        THING_A=choose(rng, (0.05, 0.16, 0.03), (0.08, 0.18, 0.03)),
        THING_B=choose(rng, (0.16, 0.30, 0.05), (0.12, 0.28, 0.06)),
        THING_C=choose(rng, (0.25, 0.17, 0.10)),
    )
    put_air(h, rng, time, weather, sight=90, depth=30)


def desert(h: Header, rng: np.random.Generator, time: str, weather: str) -> None:
    relief, wind = rng.uniform(20, 30), rng.uniform(0, 2 * np.pi)
    h.put(
        EYE=rng.uniform(8, 11), HORIZON=rng.uniform(0.0, 0.12), SCALE=1 / rng.uniform(80, 120),
        RELIEF=relief, SHAPE=np.cos(wind), SHAPE2=np.sin(wind), NEAR=15, FAR=rng.uniform(70, 120),
        FLOOR=0, CALM=0.22 * relief, TOP=1.5 * relief, REACH=500, STEEP=1.1, SHADOW=50,
        GROUND_A=choose(rng, (0.58, 0.33, 0.13), (0.62, 0.41, 0.20), (0.56, 0.28, 0.10)),
        GROUND_B=choose(rng, (0.66, 0.42, 0.19), (0.60, 0.37, 0.16)), PATCH=1 / 60,
        RINGS=6, RING_FIRST=rng.uniform(13, 18), RING_GROWTH=1.42, SPACING=rng.uniform(10, 16),
        SIZE=rng.uniform(4.0, 5.5),
        CROWD=rng.uniform(0.3, 0.65), THING_A=choose(rng, (0.06, 0.17, 0.06), (0.08, 0.19, 0.08)),
        THING_B=choose(rng, (0.12, 0.25, 0.09), (0.10, 0.22, 0.07)),
    )
    put_air(h, rng, time, weather, sight=130, depth=30)


def forest(h: Header, rng: np.random.Generator, time: str, weather: str) -> None:
    green = [(0.08, 0.22, 0.03), (0.11, 0.27, 0.04), (0.06, 0.18, 0.05)]
    autumn = [(0.52, 0.22, 0.03), (0.58, 0.34, 0.05), (0.46, 0.12, 0.035)]
    h.put(
        EYE=rng.uniform(2.6, 4.2), HORIZON=rng.uniform(0.08, 0.24), SCALE=1 / 50, RELIEF=7, NEAR=20,
        FAR=90, FLOOR=-1.5, CALM=-0.6, TOP=5.6, REACH=260, STEEP=0.9, PATCH=1 / 7,
        GROUND_A=choose(rng, (0.10, 0.17, 0.04), (0.16, 0.14, 0.05)),
        GROUND_B=choose(rng, (0.18, 0.14, 0.07), (0.14, 0.22, 0.05)),
        RINGS=12, RING_FIRST=rng.uniform(12, 16), RING_GROWTH=1.2, SPACING=rng.uniform(6.5, 8.0),
        SIZE=rng.uniform(10, 13),
        CROWD=rng.uniform(0.6, 0.85), MIXTURE=rng.choice([0.1, 0.5, 0.95]),
        THING_A=choose(rng, (0.04, 0.12, 0.04), (0.06, 0.15, 0.05), (0.035, 0.11, 0.065)),
        THING_B=choose(rng, *(autumn if rng.random() < 0.25 else green)),
        THING_C=choose(rng, (0.13, 0.08, 0.05), (0.17, 0.13, 0.095)),
    )
    put_air(h, rng, time, weather, sight=42, depth=22)


def city_skyline(h: Header, rng: np.random.Generator, time: str, weather: str) -> None:
    harbour = rng.random() < 0.75  # else a park lies before the towers
    near = rng.uniform(150, 190) if harbour else 5.0
    h.put(
        EYE=rng.uniform(14, 24), HORIZON=rng.uniform(0.10, 0.20), NEAR=near,
        FAR=near + (30 if harbour else 3), FLOOR=2.0, CALM=-1.9, TOP=2.1, REACH=900, STEEP=1.2,
        GROUND_A=choose(rng, (0.10, 0.19, 0.04), (0.13, 0.20, 0.05)),
        GROUND_B=choose(rng, (0.17, 0.26, 0.06), (0.20, 0.25, 0.09)),
        GROUND_D=choose(rng, (0.12, 0.20, 0.30), (0.06, 0.10, 0.14), (0.16, 0.23, 0.28)),
        PATCH=rng.uniform(5.6, 7.2),
        WATER=harbour, WAVES=rng.uniform(0.25, 0.5), DEEP=choose(rng, (0.02, 0.06, 0.09)),
        SHALLOW=choose(rng, (0.03, 0.09, 0.11)),
        RINGS=7, RING_FIRST=222, RING_GROWTH=1.15, SPACING=rng.uniform(30, 40),
        SIZE=rng.uniform(95, 135), CROWD=rng.uniform(0.8, 0.97),
        THING_A=choose(rng, (0.55, 0.50, 0.45), (0.42, 0.46, 0.52), (0.60, 0.52, 0.42)),
        THING_B=choose(rng, (0.28, 0.32, 0.38), (0.62, 0.60, 0.57), (0.46, 0.31, 0.23)),
        THING_C=choose(rng, (0.46, 0.21, 0.14), (0.16, 0.23, 0.32), (0.60, 0.48, 0.33)),
        LAMPS={"day": 0.0, "sunset": 0.45, "dawn": 0.2, "night": 1.0}[time] * rng.uniform(0.8, 1.2),
    )
    put_air(h, rng, time, weather, sight=300, depth=120)


def meadow(h: Header, rng: np.random.Generator, time: str, weather: str) -> None:
    red, yellow, white = (0.75, 0.06, 0.05), (0.80, 0.55, 0.04), (0.82, 0.80, 0.78)
    purple, pink, blue = (0.45, 0.12, 0.62), (0.80, 0.22, 0.42), (0.14, 0.20, 0.72)
    blooms = [red, yellow, white, purple, pink, blue]
    first, second, third = (vary(rng, color) for color in rng.permutation(blooms)[:3])
    relief, floor = rng.uniform(18, 30), -1.4
    h.put(
        EYE=rng.uniform(1.7, 2.3), HORIZON=rng.uniform(-0.06, 0.06), SCALE=1 / rng.uniform(80, 140),
        RELIEF=relief, NEAR=12, FAR=rng.uniform(160, 300), FLOOR=floor, CALM=0.13 * relief + floor,
        TOP=relief, REACH=800, STEEP=0.9,
        GROUND_A=choose(rng, (0.12, 0.27, 0.03), (0.17, 0.30, 0.04)),
        GROUND_B=choose(rng, (0.20, 0.36, 0.05), (0.10, 0.24, 0.04)), GROUND_C=first,
        GROUND_D=second, PATCH=1 / 18,
        RINGS=10, RING_FIRST=rng.uniform(2.2, 2.6), RING_GROWTH=1.2,
        SPACING=rng.uniform(0.26, 0.36), SIZE=rng.uniform(0.42, 0.56),
        CROWD=rng.uniform(0.55, 0.85), MIXTURE=rng.uniform(0.3, 0.8), THING_A=first, THING_B=second,
        THING_C=third,
    )
    put_air(h, rng, time, weather, sight=110, depth=25)


def ocean(h: Header, rng: np.random.Generator, time: str, weather: str) -> None:
    phase, relief = rng.uniform(0, 2 * np.pi), rng.uniform(200, 340)
    h.put(
        EYE=rng.uniform(16, 30), HORIZON=rng.uniform(-0.04, 0.10), SCALE=1 / rng.uniform(210, 300),
        RELIEF=relief, NEAR=rng.uniform(150, 210), FAR=rng.uniform(380, 520), FLOOR=-3, CALM=-2.9,
        TOP=0.5 * relief, REACH=1500, STEEP=2.0, SHAPE=np.cos(phase), SHAPE2=-np.sin(phase),
        LINE=rng.uniform(0.62, 0.68), SHADOW=90, PATCH=1 / 40,
        GROUND_A=choose(rng, (0.66, 0.56, 0.38)),
        GROUND_B=choose(rng, (0.08, 0.20, 0.04), (0.12, 0.22, 0.05)),
        GROUND_C=choose(rng, (0.25, 0.21, 0.17), (0.30, 0.27, 0.24)),
        GROUND_D=choose(rng, (0.05, 0.14, 0.035), (0.15, 0.25, 0.05)),
        WATER=1, WAVES=rng.uniform(0.45, 0.85),
        DEEP=choose(rng, (0.01, 0.09, 0.24), (0.01, 0.12, 0.22), (0.02, 0.08, 0.17)),
        SHALLOW=choose(rng, (0.02, 0.22, 0.34), (0.02, 0.24, 0.30)),
    )
    put_air(h, rng, time, weather, sight=330, depth=90)


def snowy_hills(h: Header, rng: np.random.Generator, time: str, weather: str) -> None:
    relief, floor = rng.uniform(50, 80), -1.5
    h.put(
        EYE=rng.uniform(7, 11), HORIZON=rng.uniform(0.0, 0.12), SCALE=1 / rng.uniform(100, 150),
        RELIEF=relief, NEAR=25, FAR=rng.uniform(140, 220), FLOOR=floor, CALM=0.13 * relief + floor,
        TOP=relief, REACH=900, STEEP=1.0, SHADOW=90, GROUND_A=vary(rng, (0.70, 0.73, 0.78), 0.04),
        GROUND_B=vary(rng, (0.62, 0.68, 0.78), 0.04), PATCH=1 / 40,
        RINGS=9, RING_FIRST=rng.uniform(17, 24), RING_GROWTH=1.35, SPACING=rng.uniform(6, 10),
        SIZE=rng.uniform(7, 10), CROWD=rng.uniform(0.3, 0.7), MIXTURE=1,
        THING_A=choose(rng, (0.03, 0.08, 0.05), (0.05, 0.11, 0.06)), THING_C=(0.10, 0.06, 0.04),
        SNOW=rng.uniform(0.6, 1.0),
    )
    put_air(h, rng, time, weather, sight=140, depth=45)


def canyon(h: Header, rng: np.random.Generator, time: str, weather: str) -> None:
    relief = rng.uniform(90, 140)
    h.put(
        EYE=rng.uniform(12, 24), HORIZON=rng.uniform(0.04, 0.16), SCALE=1 / rng.uniform(180, 260),
        RELIEF=relief, NEAR=rng.uniform(50, 90), FAR=rng.uniform(180, 300), FLOOR=0, CALM=0.1,
        TOP=relief * 1.02, REACH=1300, STEEP=2.6, SHAPE=int(rng.integers(2, 5)), SHADOW=170,
        LINE=rng.uniform(13, 21), PATCH=1 / 50,
        GROUND_A=choose(rng, (0.42, 0.13, 0.06), (0.36, 0.11, 0.06)),
        GROUND_B=choose(rng, (0.62, 0.26, 0.11), (0.56, 0.21, 0.09)),
        GROUND_C=choose(rng, (0.80, 0.54, 0.32), (0.76, 0.46, 0.25)),
        GROUND_D=choose(rng, (0.56, 0.32, 0.16), (0.40, 0.32, 0.14)),
        RINGS=6, RING_FIRST=28, RING_GROWTH=1.35, SPACING=rng.uniform(9, 14),
        SIZE=rng.uniform(1.4, 2.2), CROWD=rng.uniform(0.3, 0.7),
        THING_A=choose(rng, (0.10, 0.15, 0.05), (0.15, 0.17, 0.07)),
        THING_B=choose(rng, (0.16, 0.19, 0.08)),
    )
    put_air(h, rng, time, weather, sight=260, depth=120)


def mars(h: Header, rng: np.random.Generator, time: str, weather: str) -> None:
    relief = rng.uniform(22, 40)
    h.put(
        EYE=rng.uniform(4, 6.5), HORIZON=rng.uniform(-0.04, 0.10), SCALE=1 / rng.uniform(90, 150),
        RELIEF=relief, NEAR=rng.uniform(60, 120), FAR=rng.uniform(300, 420), FLOOR=-0.16 * relief,
        CALM=0.09 * relief + 4.5, TOP=1.25 * relief, REACH=800, STEEP=1.2, SHADOW=45,
        SHAPE=1 / rng.uniform(26, 42), PATCH=1 / 14,
        GROUND_A=choose(rng, (0.40, 0.13, 0.05), (0.46, 0.16, 0.06), (0.36, 0.12, 0.055)),
        GROUND_B=choose(rng, (0.55, 0.22, 0.09), (0.48, 0.18, 0.075)),
        GROUND_C=choose(rng, (0.22, 0.075, 0.04)),
        RINGS=8, RING_FIRST=rng.uniform(6, 8), RING_GROWTH=1.4, SPACING=rng.uniform(3, 4.5),
        SIZE=rng.uniform(0.55, 0.95), CROWD=rng.uniform(0.4, 0.7),
        THING_A=choose(rng, (0.26, 0.09, 0.045)), THING_B=choose(rng, (0.42, 0.17, 0.08)),
    )
    put_air(h, rng, time, weather, sight=120, depth=40)


def village(h: Header, rng: np.random.Generator, time: str, weather: str) -> None:
    put_aim(h, rng, aside=14, distance=0, breadth=4.2)
    h.put(
        EYE=rng.uniform(5.0, 8.0), HORIZON=rng.uniform(0.0, 0.10), SCALE=1 / rng.uniform(110, 160),
        RELIEF=rng.uniform(34, 60), NEAR=45, FAR=rng.uniform(220, 320), FLOOR=-2.0, CALM=4.0,
        TOP=62, REACH=900, STEEP=1.0, PATCH=1 / 16,
        GROUND_A=choose(rng, (0.13, 0.25, 0.04), (0.17, 0.27, 0.05)),
        GROUND_B=choose(rng, (0.22, 0.34, 0.06), (0.10, 0.22, 0.04)),
        GROUND_C=choose(rng, (0.52, 0.42, 0.12), (0.42, 0.36, 0.12), (0.30, 0.22, 0.12)),
        GROUND_D=choose(rng, (0.50, 0.42, 0.31), (0.44, 0.37, 0.29)),
        RINGS=9, RING_FIRST=rng.uniform(22, 27), RING_GROWTH=1.32, SPACING=rng.uniform(10.5, 13),
        SIZE=rng.uniform(7, 9), CROWD=rng.uniform(0.72, 0.92),
        MIXTURE=rng.choice([0.15, 0.75, 0.9]),
        THING_A=choose(rng, (0.78, 0.72, 0.60), (0.80, 0.78, 0.74)),
        THING_B=choose(rng, (0.72, 0.52, 0.34), (0.74, 0.60, 0.52), (0.50, 0.34, 0.26)),
        THING_C=choose(rng, (0.42, 0.12, 0.06), (0.46, 0.17, 0.07), (0.30, 0.15, 0.08)),
        LAMPS={"day": 0.0, "sunset": 0.6, "dawn": 0.4, "night": 1.3}[time] * rng.uniform(0.9, 1.2),
        ACCENT=choose(rng, (0.09, 0.22, 0.04), (0.06, 0.17, 0.045), (0.42, 0.24, 0.05)),
    )
    put_air(h, rng, time, weather, sight=140, depth=40)


def river(h: Header, rng: np.random.Generator, time: str, weather: str) -> None:
    relief = rng.uniform(60, 100)
    put_aim(h, rng, aside=8, distance=0, breadth=rng.uniform(15, 22))
    h.put(
        EYE=rng.uniform(10, 15), HORIZON=rng.uniform(-0.02, 0.10), SCALE=1 / rng.uniform(170, 240),
        RELIEF=relief, NEAR=70, FAR=rng.uniform(380, 500), FLOOR=1.5, CALM=1.7,
        SHAPE=rng.uniform(260, 420), TOP=440, REACH=2400, STEEP=2.0, PATCH=1 / 40,
        GROUND_A=choose(rng, (0.14, 0.26, 0.04), (0.18, 0.27, 0.06), (0.11, 0.22, 0.05)),
        GROUND_B=choose(rng, (0.24, 0.34, 0.07), (0.22, 0.28, 0.06)),
        GROUND_C=choose(rng, (0.46, 0.42, 0.34), (0.40, 0.37, 0.32)),
        GROUND_D=choose(rng, (0.20, 0.20, 0.22), (0.24, 0.21, 0.19)),
        WATER=1, WAVES=rng.uniform(0.15, 0.35),
        DEEP=choose(rng, (0.02, 0.14, 0.24), (0.02, 0.16, 0.20)),
        SHALLOW=choose(rng, (0.05, 0.26, 0.32), (0.06, 0.28, 0.28)),
        RINGS=12, RING_FIRST=rng.uniform(26, 32), RING_GROWTH=1.27, SPACING=rng.uniform(9, 13),
        SIZE=rng.uniform(9, 13), CROWD=rng.uniform(0.45, 0.75),
        MIXTURE=rng.choice([0.1, 0.55, 0.95]),
        THING_A=choose(rng, (0.035, 0.11, 0.04), (0.05, 0.13, 0.05)),
        THING_B=choose(rng, (0.10, 0.24, 0.04), (0.07, 0.19, 0.05), (0.48, 0.26, 0.05)),
        THING_C=choose(rng, (0.13, 0.08, 0.05)),
    )
    put_air(h, rng, time, weather, sight=300, depth=90)


def waterfall(h: Header, rng: np.random.Generator, time: str, weather: str) -> None:
    distance = rng.uniform(44, 58)
    put_aim(h, rng, aside=11, distance=distance, breadth=rng.uniform(4.0, 7.0))
    h.put(
        EYE=rng.uniform(5.5, 8.5), HORIZON=rng.uniform(0.10, 0.22), SCALE=1 / 45,
        RELIEF=rng.uniform(26, 38), NEAR=0, FAR=rng.uniform(14, 22), FLOOR=-1.6, CALM=0.0, TOP=80,
        REACH=260, STEEP=3.2, PATCH=1 / 8,
        GROUND_A=choose(rng, (0.20, 0.17, 0.14), (0.17, 0.16, 0.17), (0.26, 0.19, 0.13)),
        GROUND_B=choose(rng, (0.34, 0.30, 0.26), (0.30, 0.29, 0.30)),
        GROUND_C=choose(rng, (0.10, 0.22, 0.04), (0.14, 0.24, 0.05)),
        GROUND_D=choose(rng, (0.18, 0.30, 0.06), (0.08, 0.18, 0.04)),
        WATER=1, WAVES=rng.uniform(0.25, 0.45),
        DEEP=choose(rng, (0.01, 0.16, 0.20), (0.02, 0.20, 0.20)),
        SHALLOW=choose(rng, (0.05, 0.34, 0.34), (0.06, 0.38, 0.32)),
        RINGS=12, RING_FIRST=rng.uniform(25, 28), RING_GROWTH=1.15, SPACING=rng.uniform(5.5, 7.5),
        SIZE=rng.uniform(8, 11), CROWD=rng.uniform(0.55, 0.85),
        MIXTURE=rng.choice([0.1, 0.5, 0.95]),
        THING_A=choose(rng, (0.035, 0.11, 0.04), (0.05, 0.14, 0.05)),
        THING_B=choose(rng, (0.09, 0.24, 0.04), (0.07, 0.20, 0.04)),
        THING_C=choose(rng, (0.13, 0.08, 0.05)),
    )
    put_air(h, rng, time, weather, sight=60, depth=40)


def park(h: Header, rng: np.random.Generator, time: str, weather: str) -> None:
    blooms = [
        (0.78, 0.07, 0.06), (0.84, 0.60, 0.06), (0.80, 0.26, 0.46), (0.48, 0.16, 0.62),
        (0.85, 0.83, 0.80),
    ]
    first, second = (vary(rng, color) for color in rng.permutation(blooms)[:2])
    put_aim(h, rng, aside=9, distance=rng.uniform(22, 28), breadth=3.6)
    h.put(
        EYE=rng.uniform(3.0, 4.4), HORIZON=rng.uniform(0.02, 0.14), SCALE=1 / 70, RELIEF=9, NEAR=32,
        FAR=120, FLOOR=-0.4, CALM=1.2, TOP=10, REACH=320, STEEP=0.8, PATCH=1 / 10,
        GROUND_A=choose(rng, (0.12, 0.26, 0.03), (0.15, 0.28, 0.05)),
        GROUND_B=choose(rng, (0.22, 0.38, 0.06), (0.20, 0.34, 0.05)), GROUND_C=first, ACCENT=second,
        GROUND_D=choose(rng, (0.60, 0.52, 0.40), (0.54, 0.46, 0.36)),
        RINGS=10, RING_FIRST=rng.uniform(15, 19), RING_GROWTH=1.24, SPACING=rng.uniform(7, 9),
        SIZE=rng.uniform(8, 11), CROWD=rng.uniform(0.5, 0.8), MIXTURE=rng.uniform(0.0, 0.2),
        THING_A=choose(rng, (0.04, 0.12, 0.04), (0.06, 0.15, 0.05)),
        THING_B=choose(rng, (0.09, 0.24, 0.035), (0.13, 0.28, 0.05), (0.54, 0.28, 0.05)),
        THING_C=choose(rng, (0.14, 0.09, 0.055)),
        LAMPS={"day": 0.0, "sunset": 0.7, "dawn": 0.5, "night": 1.2}[time] * rng.uniform(0.9, 1.1),
    )
    put_air(h, rng, time, weather, sight=60, depth=25)


def volcano(h: Header, rng: np.random.Generator, time: str, weather: str) -> None:
    distance, relief = rng.uniform(620, 760), rng.uniform(250, 330)
    put_aim(h, rng, aside=11, distance=distance, breadth=rng.uniform(380, 470))
    h.put(
        EYE=rng.uniform(10, 16), HORIZON=rng.uniform(0.14, 0.24), SCALE=1 / rng.uniform(140, 200),
        RELIEF=relief, NEAR=50, FAR=rng.uniform(200, 300), FLOOR=-2.0, CALM=6.0,
        TOP=1.1 * relief + 14, REACH=1500, STEEP=2.0, SHADOW=150,
        SHAPE=rng.choice([-1, 1]) * rng.uniform(0.6, 1.3), PATCH=1 / 25,
        GROUND_A=choose(rng, (0.075, 0.065, 0.065), (0.095, 0.075, 0.065)),
        GROUND_B=choose(rng, (0.15, 0.12, 0.11), (0.17, 0.12, 0.10)),
        ACCENT=vary(rng, (1.50, 0.36, 0.05), 0.06),
        RINGS=8, RING_FIRST=rng.uniform(17, 22), RING_GROWTH=1.38, SPACING=rng.uniform(8, 12),
        SIZE=rng.uniform(1.5, 2.6), CROWD=rng.uniform(0.4, 0.7),
        THING_A=choose(rng, (0.06, 0.05, 0.05)), THING_B=choose(rng, (0.13, 0.10, 0.09)),
    )
    put_air(h, rng, time, weather, sight=320, depth=140)


def underwater(h: Header, rng: np.random.Generator, time: str, weather: str) -> None:
    corals = [
        (0.80, 0.16, 0.12), (0.85, 0.45, 0.08), (0.80, 0.25, 0.50), (0.50, 0.20, 0.66),
        (0.85, 0.70, 0.16),
    ]
    first, second, third = (vary(rng, color) for color in rng.permutation(corals)[:3])
    h.put(
        EYE=rng.uniform(1.8, 2.8), HORIZON=rng.uniform(0.04, 0.16), SCALE=1 / rng.uniform(14, 22),
        RELIEF=rng.uniform(3, 6), NEAR=7, FAR=rng.uniform(24, 36), FLOOR=-0.6, CALM=1.0, TOP=6,
        REACH=70, STEEP=1.2, PATCH=1 / 4, DISC=0, STARS=0, CLOUD_COVER=0,
        GROUND_A=choose(rng, (0.66, 0.58, 0.40), (0.60, 0.55, 0.44)),
        GROUND_B=choose(rng, (0.74, 0.66, 0.48)),
        RINGS=12, RING_FIRST=rng.uniform(3.6, 4.4), RING_GROWTH=1.22, SPACING=rng.uniform(1.2, 1.7),
        SIZE=rng.uniform(1.2, 1.7), CROWD=rng.uniform(0.65, 0.9), THING_A=first, THING_B=second,
        THING_C=third,
    )
    blue = 0.5 * (h.color("SUNWARD") + h.color("AWAY"))
    h.put(
        FOG=rng.uniform(0.034, 0.046), FOG_HEIGHT=400, FOG_TINT=0.5,
        FOG_COLOR=blue * np.array((0.9, 1.25, 1.25)),
    )


def space(h: Header, rng: np.random.Generator, time: str, weather: str) -> None:
    heading = h.number("HEADING")
    low = time in ("sunset", "dawn")
    side = rng.choice([-1, 1])
    aside = rng.uniform(20, 27) if low else rng.uniform(80, 150)
    rise = rng.uniform(8, 13) if low else rng.uniform(18, 42)
    put_aim(h, rng, aside=12, distance=0, breadth=rng.uniform(0.13, 0.20))
    h.put(
        SUN_DIR=direction(heading + side * np.radians(aside), np.radians(rise)), DISC=float(low),
        DISC_SIZE=0.03, STARS=rng.uniform(0.8, 1.1) * (0.8 if time == "night" else 1.0),
        CLOUD_COVER=0, ZENITH=(0.003, 0.004, 0.010), AWAY=(0.004, 0.005, 0.012),
        SUNWARD=(0.004, 0.005, 0.012), SHAPE2=rng.uniform(0.20, 0.36),
        ACCENT=(0.45 if time == "night" else 1.0) * choose(
            rng, (0.30, 0.08, 0.42), (0.06, 0.16, 0.44), (0.40, 0.10, 0.16), (0.05, 0.30, 0.32)
        ),
        THING_A=choose(
            rng, (0.72, 0.46, 0.24), (0.24, 0.42, 0.70), (0.66, 0.30, 0.22), (0.30, 0.58, 0.50)
        ),
        THING_B=choose(rng, (0.86, 0.74, 0.54), (0.55, 0.72, 0.86), (0.84, 0.56, 0.40)),
        THING_C=choose(rng, (0.78, 0.68, 0.54), (0.66, 0.68, 0.74)),
    )
    relief = rng.uniform(14, 26)
    h.put(
        EYE=rng.uniform(3.5, 5.5), HORIZON=rng.uniform(0.16, 0.26), SCALE=1 / rng.uniform(70, 120),
        RELIEF=relief, NEAR=40, FAR=rng.uniform(160, 240), FLOOR=-0.16 * relief,
        CALM=0.2 * relief + 3.5, TOP=1.1 * relief + 3, REACH=500, STEEP=1.2, SHADOW=35,
        SHAPE=1 / rng.uniform(18, 30), PATCH=1 / 9, FOG_HEIGHT=100,
        GROUND_A=choose(rng, (0.30, 0.30, 0.31), (0.34, 0.31, 0.28)),
        GROUND_B=choose(rng, (0.44, 0.43, 0.43)), GROUND_C=choose(rng, (0.17, 0.17, 0.18)),
    )
# fmt: on


KINDS: dict[str, Kind] = {name: globals()[name.replace(" ", "_")] for name in LANDSCAPES}
