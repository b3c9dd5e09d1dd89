"""From labels to a scene: objects, ground, light and camera, packed for the renderer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pocket.world import vocabulary as v
from pocket.world.builder import RGB, Builder
from pocket.world.labels import sample_labels
from pocket.world.landscapes import sample_landscape
from pocket.world.placement import horizontal_axes, place_objects
from pocket.world.renderer import layout

L = layout()
SCENE_FLOATS = L["SCENE_FLOATS"]
# The share of the frame that an object fills: small, big, or without a size in its labels.
FILL = ((0.28, 0.36), (0.87, 0.93), (0.52, 0.78))
FILL_SEVERAL = (0.72, 0.90)


@dataclass
class Scene:
    """One scene.

    labels: a 0-d array of dtype `vocabulary.LABELS`. params: (SCENE_FLOATS,) float32.
    """

    labels: np.ndarray
    params: np.ndarray


def sample_scene(seed: int, split: str = "train", kind: str | None = None) -> Scene:
    """Sample a scene. The same seed, split and kind give the same scene on every machine.

    Args:
        seed: any whole number >= 0.
        split: "train" (never a held-out composition), "heldout" (always one) or "all".
        kind: "object", "landscape" or None for a mixture with a quarter of landscapes.

    Example:
        >>> scene = sample_scene(7)
        >>> image = render(scene.params).color[0]  # (256, 256, 3) uint8
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    labels = sample_labels(rng, seed, split, kind)
    return Scene(labels, build_scene(labels, rng))


def build_scene(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the renderer's parameters of a scene with these labels, (SCENE_FLOATS,) float32."""
    params = np.zeros(SCENE_FLOATS, np.float32)
    if labels["landscape"] >= 0:
        classes = [int(labels[field]) for field in ("landscape", "time", "weather")]
        params[: L["HEAD"]] = sample_landscape(rng, *classes)
        params[L["H_KIND"]] = 1
    else:
        _build_object_scene(params, labels, rng)
    params[L["H_STYLE"]] = labels["style"]
    params[L["H_SEED"]] = rng.integers(1 << 23)
    return params


def _build_object_scene(params: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> None:
    b = Builder(rng)
    place_objects(b, labels)
    b.pack(params)
    ground = v.GROUNDS[labels["ground"]]
    params[L["H_GROUND"]] = labels["ground"]
    # On half of the plain backgrounds the object floats, without ground and shadow.
    floats = ground == "plain" and (float(labels["elevation"]) < 3 or rng.random() < 0.5)
    params[L["H_PLANE"]] = 0.0 if floats else 1.0
    put_ground(params, b, ground)
    put_light(params, b, labels)
    _put_camera(params, b, labels)


def put(params: np.ndarray, name: str, values: object) -> None:
    """Write consecutive numbers from the place that src/layout.h names."""
    numbers = np.atleast_1d(np.asarray(values))
    params[L[name] : L[name] + len(numbers)] = numbers


def _linear(color: Sequence[float]) -> np.ndarray:
    return np.asarray(color, np.float32) ** 2.2


# --- The ground

GROUND_COLORS: dict[str, tuple[RGB, RGB]] = {  # both colors of its pattern
    "white": ((0.97, 0.97, 0.97), (0.97, 0.97, 0.97)),
    "grass": ((0.22, 0.42, 0.12), (0.42, 0.60, 0.20)),
    "snow": ((0.86, 0.89, 0.95), (0.95, 0.96, 0.98)),
    "sand": ((0.80, 0.67, 0.45), (0.90, 0.80, 0.58)),
    "wooden table": ((0.62, 0.41, 0.23), (0.44, 0.27, 0.14)),
    "checkered floor": ((0.10, 0.10, 0.11), (0.90, 0.90, 0.88)),
    "mars": ((0.72, 0.33, 0.17), (0.56, 0.24, 0.13)),
    "moon": ((0.48, 0.48, 0.49), (0.62, 0.62, 0.62)),
}


def put_ground(params: np.ndarray, b: Builder, ground: str) -> None:
    """Choose colors and size of the ground's pattern."""
    # Every ground draws all of these numbers, so that a seed gives the same light on each.
    brightness = b.vary(0.92, 1.06)
    scales = {
        "sand": b.vary(2.2, 3.6),
        "wooden table": b.vary(0.45, 0.7),
        "checkered floor": b.vary(0.4, 0.65),
    }
    if ground == "plain":  # any soft color but white
        hue = b.rng.random()
        strength = b.vary(0.0, 0.45)
        value = b.vary(0.45, 0.9)
        wheel = [0.5 + 0.5 * math.cos(2 * math.pi * (hue - k / 3)) for k in range(3)]
        first = second = tuple(value * (1 - strength + strength * w) for w in wheel)
        brightness = 1.0
    elif ground == "white":
        first, second = GROUND_COLORS[ground]
        brightness = 1.0
    else:
        first, second = (b.jitter(color, 0.02) for color in GROUND_COLORS[ground])
    put(params, "H_GROUND_A", _linear(first) * brightness)
    put(params, "H_GROUND_B", _linear(second) * brightness)
    put(params, "H_GROUND_SCALE", scales.get(ground, 1.0))


# --- Light and sky


LIGHTS: dict[str, tuple[RGB, float]] = {  # color and power
    "day": ((1.0, 0.97, 0.90), 0.95),
    "sunset": ((1.0, 0.60, 0.30), 1.10),
    "night": ((0.70, 0.80, 1.0), 0.34),
    "dawn": ((1.0, 0.76, 0.74), 0.88),
}
AMBIENT: dict[str, tuple[RGB, float]] = {  # color and power of the light of the sky
    "day": ((0.80, 0.87, 1.0), 0.42),
    "sunset": ((0.72, 0.62, 0.78), 0.34),
    "night": ((0.50, 0.62, 0.95), 0.17),
    "dawn": ((0.80, 0.76, 0.94), 0.40),
}
SKIES: dict[str, tuple[RGB, RGB]] = {  # zenith and horizon
    "day": ((0.30, 0.54, 0.87), (0.78, 0.88, 0.96)),
    "sunset": ((0.36, 0.34, 0.60), (0.99, 0.66, 0.38)),
    "night": ((0.03, 0.05, 0.14), (0.11, 0.16, 0.34)),
    "dawn": ((0.46, 0.58, 0.86), (1.0, 0.78, 0.80)),
}
MARS_SKIES: dict[str, tuple[RGB, RGB]] = {
    "day": ((0.72, 0.52, 0.38), (0.90, 0.72, 0.54)),
    "sunset": ((0.42, 0.28, 0.26), (0.86, 0.55, 0.40)),
    "night": ((0.06, 0.03, 0.05), (0.20, 0.11, 0.10)),
    "dawn": ((0.52, 0.42, 0.44), (0.88, 0.68, 0.66)),
}
ROOMS: dict[str, tuple[RGB, float]] = {  # tint and brightness of the walls
    "day": ((1, 1, 1), 1.0),
    "sunset": ((1.08, 0.80, 0.60), 0.85),
    "night": ((0.55, 0.68, 1.0), 0.28),
    "dawn": ((1.04, 0.88, 0.93), 0.9),
}
INDOOR = ("wooden table", "checkered floor")
STUDIO = ("white", "plain")
WALLS = ((0.86, 0.82, 0.74), (0.70, 0.76, 0.80), (0.80, 0.72, 0.66))


def _sun_direction(b: Builder, lighting: str, azimuth: float) -> tuple[float, float, float]:
    """Return the unit vector to the light, at one side of the camera."""
    turn = math.radians(azimuth + b.vary(25, 95) * (1 if b.rng.random() < 0.5 else -1))
    # As in `put_ground`: every lighting draws the first three.
    heights = {"day": b.vary(38, 66), "sunset": b.vary(14, 26), "night": b.vary(38, 60)}
    if lighting == "dawn":
        heights["dawn"] = b.vary(12, 22)
    height = math.radians(heights[lighting])
    flat = math.cos(height)
    return flat * math.sin(turn), math.sin(height), flat * math.cos(turn)


def _ambient(ground: str, lighting: str) -> tuple[RGB, float]:
    """Return color and power of the light that comes from all sides."""
    night = lighting == "night"
    if ground == "mars" and not night:
        return (0.95, 0.78, 0.64), AMBIENT[lighting][1]
    if ground == "moon":
        return (0.75, 0.80, 0.90), 0.09 if night else 0.16
    return ((0.97, 0.98, 1.0), 0.52) if ground in STUDIO else AMBIENT[lighting]


def _sky(b: Builder, ground: str, lighting: str) -> tuple[RGB, RGB]:
    """Return the colors of zenith and horizon; in a room those of its walls."""
    if ground in INDOOR:
        wall = b.jitter(WALLS[int(b.rng.integers(3))], 0.04)
        tint, brightness = ROOMS[lighting]
        horizon = tuple(min(w * t * brightness, 1.0) for w, t in zip(wall, tint, strict=True))
        return tuple(0.85 * w for w in horizon), horizon  # type: ignore[return-value]
    skies: dict[str, tuple[RGB, RGB]] = {
        "mars": MARS_SKIES[lighting],
        "moon": ((0.01, 0.01, 0.02), (0.03, 0.03, 0.05)),
        **dict.fromkeys(STUDIO, ((0.96, 0.96, 0.97), (0.96, 0.96, 0.97))),
    }
    return skies.get(ground, SKIES[lighting])


def put_light(params: np.ndarray, b: Builder, labels: np.ndarray) -> None:
    """Choose the light, the sky, and what they add to every surface."""
    ground = v.GROUNDS[labels["ground"]]
    lighting = v.LIGHTINGS[labels["lighting"]]
    studio_style = v.STYLES[labels["style"]] == "3d render"  # more even light
    put(params, "H_LIGHT", _sun_direction(b, lighting, float(labels["azimuth"])))
    zenith, horizon = _sky(b, ground, lighting)
    ambient, ambient_power = _ambient(ground, lighting)
    light = np.asarray(LIGHTS[lighting][0])
    put(params, "H_LIGHT_COLOR", light**1.6 * LIGHTS[lighting][1] * b.vary(0.9, 1.1))
    put(params, "H_AMBIENT", np.asarray(ambient) ** 1.6 * ambient_power)
    colors = [params[L[name] : L[name] + 3] for name in ("H_GROUND_A", "H_GROUND_B")]
    ground_mean = (colors[0] + colors[1]) / 2
    put(params, "H_BOUNCE", ambient_power * (0.25 + 0.75 * ground_mean) * light**0.8)
    put(params, "H_ZENITH", _linear(zenith))
    put(params, "H_HORIZON", _linear(horizon))
    outdoor = ground not in (*INDOOR, *STUDIO)
    starry = outdoor and (lighting == "night" or ground == "moon")
    put(params, "H_STARS", 0.7 if starry else 0.0)
    put(params, "H_HAZE", {"moon": 0.0, **dict.fromkeys(INDOOR, 0.07)}.get(ground, 0.06))
    put(params, "H_SOFTNESS", b.vary(9, 18))
    glow = {"sunset": 0.35, "dawn": 0.25}.get(lighting, 0.1)
    put(params, "H_SUN_GLOW", glow if outdoor and ground != "moon" else 0.0)
    put(params, "H_GLOSS", 1.7 if studio_style else 0.8)
    if studio_style:
        params[L["H_AMBIENT"] : L["H_AMBIENT"] + 3] *= 1.25


# --- The camera


def _put_camera(params: np.ndarray, b: Builder, labels: np.ndarray) -> None:
    """Place a camera that sees all objects, at the azimuth and elevation of the labels."""
    center, radius, farthest = b.bounds()
    put(params, "H_CENTER", (*center, radius, farthest))
    half = math.radians(b.vary(14, 26))
    a = math.radians(float(labels["azimuth"]))
    e = math.radians(float(labels["elevation"]))
    back = np.array((math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)))
    right = np.array(horizontal_axes(float(labels["azimuth"]))[0])
    up = np.array((-math.sin(a) * math.sin(e), math.cos(e), -math.cos(a) * math.sin(e)))
    axes = np.stack([right, up, back])
    several = labels["relation"] > 0 or labels["count"] > 0
    fill = b.vary(*(FILL_SEVERAL if several else FILL[labels["size"]]))
    middle, reach = b.reaches(axes)
    target = axes @ center  # in the camera's axes
    distance = 10.0 * radius
    for _ in range(3):  # near parts look larger, so the distance moves the middle of the image
        depth = distance + target[2] - middle[:, 2:] - 0.5 * reach[:, 2:]
        low = ((middle - reach - target)[:, :2] / depth).min(0)
        high = ((middle + reach - target)[:, :2] / depth).max(0)
        target[:2] += distance * (low + high) / 2
        size = float((high - low).max()) / 2
        distance = max(distance * size / (math.tan(half) * fill), 1.3 * radius)
    slack = distance * math.tan(half) * (1 - fill) * 0.45
    target[:2] += (b.vary(-slack, slack), b.vary(-slack, slack))
    eye = target @ axes + distance * back
    if params[L["H_PLANE"]] > 0:
        eye[1] = max(eye[1], 0.05)
    for name, value in (("H_EYE", eye), ("H_RIGHT", right), ("H_UP", up), ("H_FORWARD", -back)):
        put(params, name, value)
    put(params, "H_TAN", math.tan(half))
