"""Sample photographs for the lessons: `python -m pocket.samples` renders them to assets/samples.

Different scenes, each with a caption in words that the embedded model knows; captions.json has the
captions by file name. The same command gives the same images.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pocket import arguments as options
from pocket.world import Scene, render
from pocket.world.labels import labels_from
from pocket.world.scene import build_scene

FOLDER = Path("assets/samples")
SIDE = 512  # pixels of the shorter side, as real models generate; the embedded one generates fewer


@dataclass(frozen=True)
class Sample:
    """A photograph: its caption, labels by name, the seed of everything else, camera and shape."""

    caption: str
    labels: dict[str, str]
    seed: int
    azimuth: float = 0.0
    elevation: float = 12.0
    shape: tuple[int, int] = (1, 1)  # height to width


SAMPLES = {
    "squirrel": Sample(
        "a squirrel reading a book on grass",
        {"object": "squirrel", "relation": "reading", "object2": "book", "color2": "red",
         "ground": "grass"},
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


def sample_scene(sample: Sample) -> Scene:
    """Return the scene of a sample. Raises ValueError if a label does not exist in the world."""
    defaults = {"style": "photo"}
    if "landscape" not in sample.labels:
        defaults["ground"] = "plain"
    rngs = [np.random.Generator(np.random.PCG64(sample.seed)) for _ in range(2)]
    labels = labels_from(defaults | sample.labels, rngs[0], sample.seed)
    labels["azimuth"] = sample.azimuth
    labels["elevation"] = sample.elevation
    return Scene(labels, build_scene(labels, rngs[1]))


def render_sample(sample: Sample) -> Image.Image:
    """Render a sample; its shorter side has SIDE pixels."""
    height, width = (SIDE * part // min(sample.shape) for part in sample.shape)
    rendered = render(sample_scene(sample).params, height, width, samples=16)
    return Image.fromarray(rendered.color[0].numpy())


def main(arguments: list[str] | None = None) -> None:
    """Render all samples and write them with their captions."""
    parser = argparse.ArgumentParser(prog="python -m pocket.samples", description=__doc__)
    help_ = "folder to write to (default: assets/samples)"
    parser.add_argument("--folder", type=options.folder, default=FOLDER, help=help_)
    folder = parser.parse_args(arguments).folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--folder cannot be created: {error}")
    for name, sample in SAMPLES.items():
        path = folder / f"{name}.png"
        render_sample(sample).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size:,} bytes")
    captions = {f"{name}.png": sample.caption for name, sample in SAMPLES.items()}
    (folder / "captions.json").write_text(json.dumps(captions, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
