"""Sample photographs for the lessons, drawn by the project: `python -m pocket.samples` writes them to assets/samples.

Scenes unlike each other, each with a caption in words that the embedded model knows; captions.json holds them by file.
The same command gives the same images.
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from pocket import arguments as options
from pocket.world import Scene, render
from pocket.world.labels import labels_from
from pocket.world.scene import build_scene

FOLDER = Path("assets/samples")
SIDE = 512  # pixels of the shorter side: more than the embedded model draws, as of a photograph; what real ones draw


@dataclass(frozen=True)
class Sample:
    """One photograph: what is said of it, its labels by name, the seed of everything else, and its shape."""

    caption: str
    labels: dict[str, str]
    seed: int
    azimuth: float = 0.0
    elevation: float = 12.0
    shape: tuple[int, int] = field(default=(1, 1))  # height to width


SAMPLES = {
    "squirrel": Sample(
        "a squirrel reading a book on grass",
        {"object": "squirrel", "relation": "reading", "object2": "book", "color2": "red", "ground": "grass"},
        seed=1, azimuth=25,
    ),
    "astronaut": Sample(
        "an astronaut riding a horse on mars",
        {"object": "astronaut", "relation": "riding", "object2": "horse", "ground": "mars"},
        seed=2, azimuth=-55, shape=(6, 5),
    ),
    "teapot": Sample(
        "a blue teapot on a wooden table",
        {"object": "teapot", "color": "blue", "ground": "wooden table"},
        seed=3, azimuth=20, elevation=18,
    ),
    "car": Sample(
        "a red car on sand at sunset",
        {"object": "car", "color": "red", "ground": "sand", "lighting": "sunset"},
        seed=4, azimuth=-40, elevation=10,
    ),
    "house": Sample(
        "a yellow house in the snow",
        {"object": "house", "color": "yellow", "ground": "snow"},
        seed=5, azimuth=35, elevation=15,
    ),
    "mountains": Sample(
        "mountains at dawn",
        {"landscape": "mountains", "time": "dawn", "weather": "clear"},
        seed=6, shape=(3, 4),
    ),
}  # fmt: skip


def scene(sample: Sample) -> Scene:
    """The scene of a sample. Raises ValueError if a label is not one of the world's."""
    usual = (
        {"style": "photo"}
        if "landscape" in sample.labels
        else {"style": "photo", "ground": "plain"}
    )
    labels = labels_from(
        usual | sample.labels, np.random.Generator(np.random.PCG64(sample.seed)), sample.seed
    )
    labels["azimuth"], labels["elevation"] = sample.azimuth, sample.elevation
    return Scene(labels, build_scene(labels, np.random.Generator(np.random.PCG64(sample.seed))))


def draw(sample: Sample) -> Image.Image:
    """The photograph, its shorter side SIDE pixels."""
    height, width = (SIDE * part // min(sample.shape) for part in sample.shape)
    return Image.fromarray(render(scene(sample).params, height, width, samples=16).color[0].numpy())


def main(arguments: list[str] | None = None) -> None:
    """Draws all samples and writes them with their captions."""
    parser = argparse.ArgumentParser(prog="python -m pocket.samples", description=__doc__)
    parser.add_argument("--folder", type=options.folder, default=FOLDER)
    folder = parser.parse_args(arguments).folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--folder cannot be created: {error}")
    for name, sample in SAMPLES.items():
        path = folder / f"{name}.png"
        draw(sample).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size:,} bytes")
    captions = {f"{name}.png": sample.caption for name, sample in SAMPLES.items()}
    (folder / "captions.json").write_text(json.dumps(captions, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
