"""One scene from several cameras around it: what a multi-view denoiser trains on.

The object floats before a plain wall, in light from above that does not move with the camera, so
that all views show one thing. All cameras see it at one size: the sphere around it fills FILL of
the image's height, at a vertical angle of FOV.
"""

import math
from dataclasses import dataclass

import numpy as np

from pocket.world import vocabulary as v
from pocket.world.builder import Builder
from pocket.world.labels import sample_labels
from pocket.world.placement import place_objects
from pocket.world.scene import SCENE_FLOATS, L, put, put_ground, put_light

FOV, FILL = 40.0, 0.75
ELEVATION = (-5.0, 70.0)
LIGHT_HEIGHT = 62.0  # degrees above the horizon, at the front
GLOSS = 0.3  # highlights move with the camera
DIRECTIONS = 96  # in which the sphere around an object is measured


@dataclass
class SceneViews:
    """A scene from V cameras.

    labels: a 0-d array of dtype `vocabulary.LABELS`. params: (V, SCENE_FLOATS) float32, one row per
    camera. cameras: (V, 2) float32, azimuth and elevation in degrees.
    """

    labels: np.ndarray
    params: np.ndarray
    cameras: np.ndarray


def sample_views(seed: int, split: str = "train", count: int = 8) -> SceneViews:
    """Sample a scene with an object, and cameras in equal sectors of azimuth around it.

    seed, split: as in `sample_scene`.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    labels = sample_labels(rng, seed, split, "object")
    offset = rng.random()
    azimuth = (360 * (np.arange(count) + offset) / count + 180) % 360 - 180
    low, high = np.sin(np.radians(ELEVATION))  # uniform over the sphere
    elevation = np.degrees(np.arcsin(rng.uniform(low, high, count)))
    cameras = np.stack([azimuth, elevation], axis=1).astype(np.float32)
    return SceneViews(labels, build_views(labels, rng, cameras), cameras)


def build_views(labels: np.ndarray, rng: np.random.Generator, cameras: np.ndarray) -> np.ndarray:
    """Return the renderer's parameters of a scene from cameras (V, 2), (V, SCENE_FLOATS) float32.

    labels: those of the ground, the light, the style and the view are overwritten.
    """
    chosen = {"ground": "plain", "lighting": "day", "style": "photo"}
    for name, word in chosen.items():
        labels[name] = v.CLASSES[name].index(word)
    labels["azimuth"], labels["elevation"] = 0.0, 0.0
    b = Builder(rng)
    place_objects(b, labels)
    params = np.zeros(SCENE_FLOATS, np.float32)
    b.pack(params)
    params[L["H_GROUND"]] = labels["ground"]
    params[L["H_STYLE"]] = labels["style"]
    params[L["H_SEED"]] = rng.integers(1 << 23)
    put_ground(params, b, "plain")
    put_light(params, b, labels)
    height = math.radians(LIGHT_HEIGHT)
    put(params, "H_LIGHT", (0.0, math.sin(height), math.cos(height)))
    put(params, "H_GLOSS", GLOSS)
    bounds = b.bounds()
    put(params, "H_CENTER", (*bounds[0], *bounds[1:]))
    center, radius = enclosing_sphere(b)
    views = np.repeat(params[None], len(cameras), axis=0)
    for row, (azimuth, elevation) in zip(views, np.radians(cameras).tolist(), strict=True):
        _put_orbit_camera(row, azimuth, elevation, center, radius)
    return views


def enclosing_sphere(b: Builder) -> tuple[np.ndarray, float]:
    """Return center and radius of a sphere around the objects, nearly as small as possible."""
    # A Fibonacci lattice: directions that are spread evenly.
    y = 1 - (2 * np.arange(DIRECTIONS) + 1) / DIRECTIONS
    turn = np.pi * (3 - math.sqrt(5)) * np.arange(DIRECTIONS)
    flat = np.sqrt(1 - y**2)
    directions = np.stack([flat * np.cos(turn), y, flat * np.sin(turn)], axis=1)
    center = b.spans(np.eye(3)).mean(axis=1)
    return center, float((b.spans(directions)[:, 1] - directions @ center).max())


def _put_orbit_camera(
    params: np.ndarray, azimuth: float, elevation: float, center: np.ndarray, radius: float
) -> None:
    """Place a camera, at angles in radians, that looks at the center of a sphere."""
    tangent = math.tan(math.radians(FOV) / 2)
    sin_a, cos_a = math.sin(azimuth), math.cos(azimuth)
    sin_e, cos_e = math.sin(elevation), math.cos(elevation)
    back = np.array((sin_a * cos_e, sin_e, cos_a * cos_e))
    put(params, "H_EYE", center + back * radius / (FILL * tangent))
    put(params, "H_RIGHT", (cos_a, 0.0, -sin_a))
    put(params, "H_UP", (-sin_a * sin_e, cos_e, -cos_a * sin_e))
    put(params, "H_FORWARD", -back)
    put(params, "H_TAN", tangent)
