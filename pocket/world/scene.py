"""From labels to a scene: objects placed, ground, light and camera chosen, all packed for the renderer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pocket.world import vocabulary as v
from pocket.world.builder import IDENTITY, RGB, Anchors, Builder, Look, rotation
from pocket.world.labels import sample_labels
from pocket.world.landscapes import sample_landscape
from pocket.world.objects import RECIPES, open_book
from pocket.world.renderer import layout

L = layout()
SCENE_FLOATS = L["SCENE_FLOATS"]

COLOR_RGB: dict[str, RGB] = {
    "red": (0.80, 0.10, 0.12), "orange": (0.96, 0.50, 0.08), "yellow": (0.97, 0.84, 0.13),
    "green": (0.17, 0.58, 0.20), "turquoise": (0.18, 0.78, 0.74), "blue": (0.13, 0.30, 0.80),
    "purple": (0.50, 0.18, 0.68), "pink": (0.97, 0.52, 0.73), "brown": (0.42, 0.25, 0.13),
    "black": (0.09, 0.09, 0.10), "white": (0.95, 0.95, 0.95), "gray": (0.50, 0.51, 0.53),
}  # fmt: skip


@dataclass
class Scene:
    """One scene: labels, a 0-d array of dtype `vocabulary.LABELS`, and params, (SCENE_FLOATS,) float32."""

    labels: np.ndarray
    params: np.ndarray


def _linear(color: RGB) -> np.ndarray:
    return np.asarray(color, np.float32) ** 2.2


def _look(b: Builder, color: int, pattern: int) -> Look:
    return Look(b.jitter(COLOR_RGB[v.COLORS[color]], 0.025) if color >= 0 else None, max(pattern, 0))


def _build(b: Builder, labels: np.ndarray, right: tuple[float, float]) -> None:
    """Places the object, and the second one by their relation. `right` is the camera's right, (x, z)."""
    name, relation = v.OBJECTS[labels["object"]], v.RELATIONS[labels["relation"]]
    look = _look(b, int(labels["color"]), int(labels["pattern"]))
    if relation == "none":
        b.place(look)
        RECIPES[name](b, "stand" if b.rng.random() < 0.7 else "sit")
        return
    other = v.OBJECTS[labels["object2"]]
    second = _look(b, int(labels["color2"]), 0)
    if relation == "reading":
        b.place(look)
        anchors = RECIPES[name](b, "stand" if b.rng.random() < 0.5 else "sit")
        x, y, z = anchors.lap or (0.0, 0.45, 0.36)
        b.place(second, (x, y, z), rotation(-b.vary(18, 38), 0, b.vary(-4, 4)))
        open_book(b, b.vary(0.24, 0.30))
    elif relation == "next to":
        b.place(look)  # measured first, then moved aside: the two must not touch
        state = b.rng.bit_generator.state
        reach = [_measure(state, look, name), _measure(state, second, other)]
        gap = sum(reach) + b.vary(0.03, 0.14)
        share = reach[1] / sum(reach)
        b.frames.clear()
        for at, (thing, look_, offset) in enumerate(((name, look, -gap * share), (other, second, gap * (1 - share)))):
            turn = rotation(0, b.vary(-20, 20), 0) if at else IDENTITY
            b.place(look_, (right[0] * offset, 0.0, right[1] * offset), turn)
            RECIPES[thing](b, "stand")
    else:  # the one below is built first, since it says where the upper one stands; the frames are swapped back
        b.frames.append([])
        b.place(second)
        if relation == "riding":
            below = RECIPES[other](b, "stand")
            x, y, z = below.seat or below.top
            size = b.vary(0.70, 0.80)
            b.place(look, (x, y - 0.03, z), IDENTITY, size)
            RECIPES[name](b, "ride")
        else:
            below = RECIPES[other](b, "base")
            x, y, z = below.top
            size = min(b.vary(0.66, 0.80), 1.0 if other != "chair" else 0.66)
            b.place(look, (x, y - 0.015, z), rotation(0, 0 if other == "chair" else b.vary(-25, 25), 0), size)
            if other == "chair":
                RECIPES[name](b, "sit")
            else:
                RECIPES[name](b, "stand" if b.rng.random() < 0.5 else "sit")
        frame_below, frame_above = b.frames[1], b.frames[2]
        b.frames[:] = [frame_above, frame_below]
        which = L["P_THING"]
        for prim in b.prims:
            prim[which] = 0.0 if prim[which] == 2.0 else 1.0


def _measure(state: Mapping[str, Any], look: Look, name: str) -> float:
    """Half the width that an object needs beside another one."""
    rng = np.random.Generator(np.random.PCG64(0))
    rng.bit_generator.state = state
    b = Builder(rng)
    b.place(look)
    anchors: Anchors = RECIPES[name](b, "stand")
    return max(anchors.radius, 0.7 * b.bounds()[1])


def _ground(params: np.ndarray, b: Builder, ground: str) -> None:
    """Colors and size of the ground's pattern."""
    light = b.vary(0.92, 1.06)
    a, c, scale = {
        "white": ((0.97, 0.97, 0.97), (0.97, 0.97, 0.97), 1.0),
        "plain": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1.0),
        "grass": ((0.22, 0.42, 0.12), (0.42, 0.60, 0.20), 1.0),
        "snow": ((0.86, 0.89, 0.95), (0.95, 0.96, 0.98), 1.0),
        "sand": ((0.80, 0.67, 0.45), (0.90, 0.80, 0.58), b.vary(2.2, 3.6)),
        "wooden table": ((0.62, 0.41, 0.23), (0.44, 0.27, 0.14), b.vary(0.45, 0.7)),
        "checkered floor": ((0.10, 0.10, 0.11), (0.90, 0.90, 0.88), b.vary(0.4, 0.65)),
        "mars": ((0.72, 0.33, 0.17), (0.56, 0.24, 0.13), 1.0),
        "moon": ((0.48, 0.48, 0.49), (0.62, 0.62, 0.62), 1.0),
    }[ground]
    if ground == "plain":  # any soft color but white
        hue, strength, value = b.rng.random(), b.vary(0.0, 0.45), b.vary(0.45, 0.9)
        wheel = [0.5 + 0.5 * math.cos(2 * math.pi * (hue - k / 3)) for k in range(3)]
        a = c = tuple(value * (1 - strength + strength * w) for w in wheel)  # type: ignore[assignment]
        light = 1.0
    elif ground != "white":
        a, c = b.jitter(a, 0.02), b.jitter(c, 0.02)
    else:
        light = 1.0
    params[L["H_GROUND_A"] : L["H_GROUND_A"] + 3] = _linear(a) * light
    params[L["H_GROUND_B"] : L["H_GROUND_B"] + 3] = _linear(c) * light
    params[L["H_GROUND_SCALE"]] = scale


def _light(params: np.ndarray, b: Builder, ground: str, lighting: str, azimuth: float, style: str) -> None:
    """The light, the sky and what they add to every surface."""
    indoor = ground in ("wooden table", "checkered floor")
    turn = math.radians(azimuth + b.vary(25, 95) * (1 if b.rng.random() < 0.5 else -1))
    height = {"day": b.vary(38, 66), "sunset": b.vary(14, 26), "night": b.vary(38, 60)}.get(lighting)
    if height is None:  # dawn
        height = b.vary(12, 22)
    up, flat = math.sin(math.radians(height)), math.cos(math.radians(height))
    params[L["H_LIGHT"] : L["H_LIGHT"] + 3] = (flat * math.sin(turn), up, flat * math.cos(turn))
    # light, its power, ambient light, its power, zenith, horizon
    colors: dict[str, tuple[RGB, float, RGB, float, RGB, RGB]] = {
        "day": ((1.0, 0.97, 0.90), 0.95, (0.80, 0.87, 1.0), 0.42, (0.30, 0.54, 0.87), (0.78, 0.88, 0.96)),
        "sunset": ((1.0, 0.60, 0.30), 1.10, (0.72, 0.62, 0.78), 0.34, (0.36, 0.34, 0.60), (0.99, 0.66, 0.38)),
        "night": ((0.70, 0.80, 1.0), 0.34, (0.50, 0.62, 0.95), 0.17, (0.03, 0.05, 0.14), (0.11, 0.16, 0.34)),
        "dawn": ((1.0, 0.76, 0.74), 0.88, (0.80, 0.76, 0.94), 0.40, (0.46, 0.58, 0.86), (1.0, 0.78, 0.80)),
    }
    light, power, ambient, ambient_power, zenith, horizon = colors[lighting]
    if indoor:
        wall = b.jitter(((0.86, 0.82, 0.74), (0.70, 0.76, 0.80), (0.80, 0.72, 0.66))[int(b.rng.integers(3))], 0.04)
        dim = {"day": 1.0, "sunset": 0.85, "night": 0.28, "dawn": 0.9}[lighting]
        tint = {
            "day": (1, 1, 1),
            "sunset": (1.08, 0.80, 0.60),
            "night": (0.55, 0.68, 1.0),
            "dawn": (1.04, 0.88, 0.93),
        }[lighting]
        horizon = tuple(min(w * t * dim, 1.0) for w, t in zip(wall, tint, strict=True))  # type: ignore[assignment]
        zenith = tuple(0.85 * w for w in horizon)  # type: ignore[assignment]
    elif ground == "mars":
        zenith, horizon = {
            "day": ((0.72, 0.52, 0.38), (0.90, 0.72, 0.54)),
            "sunset": ((0.42, 0.28, 0.26), (0.86, 0.55, 0.40)),
            "night": ((0.06, 0.03, 0.05), (0.20, 0.11, 0.10)),
            "dawn": ((0.52, 0.42, 0.44), (0.88, 0.68, 0.66)),
        }[lighting]
        ambient = (0.95, 0.78, 0.64) if lighting != "night" else ambient
    elif ground == "moon":
        zenith, horizon = (0.01, 0.01, 0.02), (0.03, 0.03, 0.05)
        ambient, ambient_power = (0.75, 0.80, 0.90), 0.16 if lighting != "night" else 0.09
    elif ground in ("white", "plain"):
        zenith = horizon = (0.96, 0.96, 0.97)
        ambient, ambient_power = (0.97, 0.98, 1.0), 0.52
    warm = b.vary(0.9, 1.1)
    params[L["H_LIGHT_COLOR"] : L["H_LIGHT_COLOR"] + 3] = np.asarray(light) ** 1.6 * power * warm
    params[L["H_AMBIENT"] : L["H_AMBIENT"] + 3] = np.asarray(ambient) ** 1.6 * ambient_power
    ground_mean = (params[L["H_GROUND_A"] : L["H_GROUND_A"] + 3] + params[L["H_GROUND_B"] : L["H_GROUND_B"] + 3]) / 2
    params[L["H_BOUNCE"] : L["H_BOUNCE"] + 3] = ambient_power * (0.25 + 0.75 * ground_mean) * np.asarray(light) ** 0.8
    params[L["H_ZENITH"] : L["H_ZENITH"] + 3] = _linear(zenith)
    params[L["H_HORIZON"] : L["H_HORIZON"] + 3] = _linear(horizon)
    outdoor = not indoor and ground not in ("white", "plain")
    params[L["H_STARS"]] = 0.7 if outdoor and (lighting == "night" or ground == "moon") else 0.0
    params[L["H_HAZE"]] = 0.0 if ground == "moon" else 0.07 if indoor else 0.06
    params[L["H_SOFTNESS"]] = b.vary(9, 18)
    params[L["H_SUN_GLOW"]] = {"sunset": 0.35, "dawn": 0.25}.get(lighting, 0.1) if outdoor and ground != "moon" else 0.0
    params[L["H_GLOSS"]] = 1.7 if style == "3d render" else 0.8
    if style == "3d render":  # a studio: more even light
        params[L["H_AMBIENT"] : L["H_AMBIENT"] + 3] *= 1.25


def _camera(params: np.ndarray, b: Builder, azimuth: float, elevation: float, relation: str) -> None:
    """A camera that sees all objects, at the azimuth and elevation given, in degrees."""
    center, radius, reach = b.bounds()
    params[L["H_CENTER"] : L["H_CENTER"] + 5] = (*center, radius, reach)
    half = math.radians(b.vary(14, 26))
    a, e = math.radians(azimuth), math.radians(elevation)
    back = np.array((math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)))
    right = np.array((math.cos(a), 0.0, -math.sin(a)))
    up = np.cross(back, right)
    (left, far_right), (low, high), (_, near) = b.span(right), b.span(up), b.span(back)
    size = max(far_right - left, high - low) / 2
    fill = b.vary(0.55, 0.85) if relation == "none" else b.vary(0.68, 0.88)
    distance = size / (math.tan(half) * fill)
    slack = size * (1 / fill - 1) * 0.45
    target = right * ((left + far_right) / 2 + b.vary(-slack, slack)) + up * ((low + high) / 2 + b.vary(-slack, slack))
    target = target + back * (float(np.dot(center, back)) * 0.5 + near * 0.5)  # perspective: what is near looks larger
    eye = target + back * distance
    if params[L["H_PLANE"]] > 0:
        eye[1] = max(eye[1], 0.05)
    for name, value in (("H_EYE", eye), ("H_RIGHT", right), ("H_UP", up), ("H_FORWARD", -back)):
        params[L[name] : L[name] + 3] = value
    params[L["H_TAN"]] = math.tan(half)


def sample_scene(seed: int, split: str = "train", kind: str | None = None) -> Scene:
    """Draws a scene. The same seed, split and kind give the same scene on every machine.

    Args:
        seed: any whole number >= 0.
        split: "train" (never a held-out composition), "heldout" (always one) or "all".
        kind: "object", "landscape" or None for a mixture with a quarter of landscapes.

    Example:
        >>> scene = sample_scene(7)
        >>> picture = render(scene.params).color[0]  # (256, 256, 3) uint8
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    labels = sample_labels(rng, seed, split, kind)
    return Scene(labels, build_scene(labels, rng))


def build_scene(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The renderer's parameters, (SCENE_FLOATS,) float32, of one of the scenes that have these labels."""
    params = np.zeros(SCENE_FLOATS, np.float32)
    if labels["landscape"] >= 0:
        params[: L["HEAD"]] = sample_landscape(
            rng, int(labels["landscape"]), int(labels["time"]), int(labels["weather"])
        )
        params[L["H_KIND"]] = 1
    else:
        b = Builder(rng)
        azimuth, elevation = float(labels["azimuth"]), float(labels["elevation"])
        _build(b, labels, (math.cos(math.radians(azimuth)), -math.sin(math.radians(azimuth))))
        b.pack(params)
        ground = v.GROUNDS[labels["ground"]]
        params[L["H_GROUND"]] = labels["ground"]
        # half of the plain backgrounds show an object that floats: no ground, no shadow, seen from below too
        params[L["H_PLANE"]] = 0.0 if ground == "plain" and (elevation < 3 or rng.random() < 0.5) else 1.0
        _ground(params, b, ground)
        _light(params, b, ground, v.LIGHTINGS[labels["lighting"]], azimuth, v.STYLES[labels["style"]])
        _camera(params, b, azimuth, elevation, v.RELATIONS[labels["relation"]])
    params[L["H_STYLE"]] = labels["style"]
    params[L["H_SEED"]] = rng.integers(1 << 23)
    return params
