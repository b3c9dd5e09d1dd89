"""Test scenes and their captions: fresh ones of today's world, and a stored set that stays when the world grows.

`test_sets/first.npz` holds 4,000 scenes of the world's first edition (28 objects, ten landscapes, 171 words), 2,000 of
all compositions and 2,000 that hold a held-out one: labels, captions, and what each caption names. Weights that were
trained before the world grew are asked nothing else, and newer ones can be compared with them on it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocket.train.data import TEST_SEED, Scenes, scenes_to_arrays, workers_here
from pocket.world import caption
from pocket.world.captions import words
from pocket.world.labels import upgrade
from pocket.world.scene import build_scene

FIRST = Path(__file__).parent / "test_sets" / "first.npz"


@dataclass
class Asked:
    """N scenes, with one caption of each and the labels that it names."""

    scenes: Scenes
    prompts: list[str]
    mentions: list[frozenset[str]]

    def __len__(self) -> int:
        return len(self.prompts)

    def pick(self, indices: Sequence[int]) -> "Asked":
        s = self.scenes
        lists = [[whole[i] for i in indices] for whole in (s.captions, s.opposites)]
        chosen = Scenes(s.labels[list(indices)], s.params[list(indices)], *lists)
        return Asked(
            chosen, [self.prompts[i] for i in indices], [self.mentions[i] for i in indices]
        )


def ask(count: int, split: str, first: int = TEST_SEED) -> Asked:
    """`count` test scenes, which nothing was trained on, and a caption of each from the full grammar."""
    scenes = scenes_to_arrays(range(first, first + count), split=split, workers=workers_here())
    said = [
        caption(record, np.random.default_rng([int(record["seed"]), 2])) for record in scenes.labels
    ]
    return Asked(scenes, [text for text, _ in said], [mentions for _, mentions in said])


def ask_first(count: int, split: str, first: int = 0, seed: int = 0) -> Asked:
    """Return scenes of the world's first edition, as today's world builds them, with their stored captions.

    Args:
        count: how many scenes.
        split: "all" (some hold a held-out composition) or "heldout" (each does).
        first: the position of the first one.
        seed: of all that the labels leave open (proportions, light, camera): another seed gives other images of the
            same captions.
    Raises:
        ValueError: the set has no such split, or not so many scenes.
    """
    with np.load(FIRST) as file:
        splits = sorted({name.partition("/")[0] for name in file.files})
        if split not in splits:
            raise ValueError(f"split must be one of {', '.join(splits)}, got {split!r}")
        arrays = {
            name.partition("/")[2]: file[name]
            for name in file.files
            if name.startswith(f"{split}/")
        }
    captions, mentions = (
        arrays.pop(name).tobytes().decode().split("\n") for name in ("captions", "mentions")
    )
    total = len(captions)
    if not 0 <= first < first + count <= total:
        raise ValueError(
            f"{FIRST.name} has {total} scenes in {split!r}, got a request for {first} to {first + count}"
        )
    records = np.zeros(total, [(name, array.dtype) for name, array in arrays.items()])
    for name, array in arrays.items():
        records[name] = array
    chosen = slice(first, first + count)
    labels, prompts = upgrade(records[chosen]), captions[chosen]
    rngs = [np.random.Generator(np.random.PCG64([int(record["seed"]), seed])) for record in labels]
    params = np.stack([build_scene(record, rng) for record, rng in zip(labels, rngs, strict=True)])
    scenes = Scenes(labels, params, [[prompt] for prompt in prompts], [[] for _ in prompts])
    return Asked(scenes, prompts, [frozenset(names.split()) for names in mentions[chosen]])


def ask_known(weights: Path, count: int, split: str, first: int = 0) -> Asked:
    """Return test scenes in words that the model in `weights` was trained on: fresh ones, or those of the first
    edition if its vocabulary lacks words of today's grammar. first: the position of the first one."""
    known = json.loads((weights / "vocabulary.json").read_text())["words"]
    if set(words()) <= set(known):
        return ask(count, split, TEST_SEED + first)
    return ask_first(count, split, first)
