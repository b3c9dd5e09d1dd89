"""Scenes to train on, sampled by CPU workers, with captions and hard negatives of these."""

import multiprocessing.pool
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from course.figures import cpu_cores
from pocket.world import caption, sample_scene
from pocket.world import vocabulary as v

CAPTIONS = 4  # a scene
CHUNK = 64  # scenes a worker's task
TEST_SEED = 2**40  # the first seed of test scenes: beyond those of all scenes to train on

OBJECT_FIELDS = ("object", "color", "pattern", "size")  # fields that both objects of a scene have
# The first class of these fields (day, plain, one, ...) is rarely named in a caption, so it makes
# no negative.
RARELY_NAMED = ("lighting", "time", "pattern", "pattern2", "relation", "weather", "count")
EXCHANGES = ("swap", "exchange")  # changes that concern both objects


@dataclass
class Scenes:
    """N scenes as arrays."""

    labels: np.ndarray  # (N,) of vocabulary.LABELS
    params: np.ndarray  # (N, SCENE_FLOATS) float32
    captions: list[list[str]]  # N x CAPTIONS
    negatives: list[list[str]]  # N x CAPTIONS, or empty: the hard negative of each caption
    cameras: np.ndarray | None = None  # (N, V, 2), if each scene is seen from V cameras

    def __len__(self) -> int:
        return len(self.labels)


def hard_negative(
    labels: np.void, mentions: frozenset[str], rng: np.random.Generator
) -> tuple[np.void, str]:
    """Return a copy of the labels with one mentioned field changed, and the name of the field.

    A caption of the copy is wrong but close to the right one, so that telling them apart takes
    colors, relations and views, not only objects (Yuksekgonul et al. 2023). With a relation the two
    objects may also change places ("swap"), or their colors, patterns and sizes ("exchange").
    """
    # In a list, because np.array of a single record is a view of it.
    negative = np.array([labels], v.LABELS)[0]
    choices = sorted(mentions)
    if labels["relation"] > 0:
        choices.append("swap")
        different = [field for field in OBJECT_FIELDS[1:] if labels[field] != labels[f"{field}2"]]
        if any(name in mentions for field in different for name in (field, f"{field}2")):
            choices.append("exchange")
    if "view" in mentions and v.OBJECTS[labels["object"]] not in v.WITH_FRONT:
        choices.remove("view")  # captions of such objects know only this view
    field = choices[int(rng.integers(len(choices)))]
    if field in EXCHANGES:
        for name in OBJECT_FIELDS if field == "swap" else OBJECT_FIELDS[1:]:
            negative[name], negative[f"{name}2"] = labels[f"{name}2"], labels[name]
    elif field == "view":
        view = v.view_word(float(labels["azimuth"]), float(labels["elevation"]))
        angles = {"front": (0, 20), "side": (90, 20), "back": (180, 20), "overhead": (0, 75)}
        others = [angles[word] for word in angles if word != view]
        negative["azimuth"], negative["elevation"] = others[int(rng.integers(len(others)))]
    else:
        negative[field] = _other_class(labels, field, rng)
    return negative, field


def _other_class(labels: np.void, field: str, rng: np.random.Generator) -> int:
    first = 1 if field in RARELY_NAMED else 0
    others = [i for i in range(first, len(v.CLASSES[field])) if i != labels[field]]
    if field == "object":  # a cactus that reads would be too easy
        is_animate = v.OBJECTS[labels["object"]] in v.ANIMATE
        others = [i for i in others if (v.OBJECTS[i] in v.ANIMATE) == is_animate]
    return others[int(rng.integers(len(others)))]


def caption_pair(labels: np.void, rng: np.random.Generator) -> tuple[str, str, str]:
    """Return a caption, its hard negative, and the field that was changed."""
    before = rng.bit_generator.state
    text, mentions = caption(labels, rng)
    negative, field = hard_negative(labels, mentions, rng)
    after = rng.bit_generator.state
    # The same wording first; if it does not name the changed field, others.
    rng.bit_generator.state = before
    wrong, wrong_mentions = caption(negative, rng)
    rng.bit_generator.state = after
    while (field not in EXCHANGES and field not in wrong_mentions) or wrong == text:
        wrong, wrong_mentions = caption(negative, rng)
    return text, wrong, field


def sample_scenes(seeds: Sequence[int], split: str = "train", negatives: bool = True) -> Scenes:
    """Sample the scenes of the seeds in this process.

    split: as in `sample_scene`. negatives: whether each caption gets a hard negative, which takes a
    fifth of the time.
    """
    scenes = [sample_scene(seed, split=split) for seed in seeds]
    labels = np.array([scene.labels for scene in scenes], v.LABELS)
    captions, wrong_captions = [], []
    for record in labels:
        rng = np.random.default_rng([int(record["seed"]), 1])
        if negatives:
            pairs = [caption_pair(record, rng) for _ in range(CAPTIONS)]
            captions.append([pair[0] for pair in pairs])
            wrong_captions.append([pair[1] for pair in pairs])
        else:
            captions.append([caption(record, rng)[0] for _ in range(CAPTIONS)])
    params = np.stack([scene.params for scene in scenes])
    return Scenes(labels, params, captions, wrong_captions)


def scene_batches(
    batches: Sequence[Sequence[int]],
    sample: Callable[[Sequence[int]], Scenes],
    workers: int = 0,
) -> Iterator[Scenes]:
    """Yield the scenes of each batch of seeds, in order.

    Workers are two batches ahead of the reader, so that a GPU that renders does not wait for them.

    Args:
        sample: returns the scenes of seeds.
        workers: number of processes; 0 samples in this one.
    """
    if workers == 0:
        yield from map(sample, batches)
        return
    with multiprocessing.get_context("fork").Pool(workers, _ignore_sigint) as pool:
        pending: deque[multiprocessing.pool.AsyncResult] = deque()
        for seeds in batches:
            chunks = [seeds[i : i + CHUNK] for i in range(0, len(seeds), CHUNK)]
            pending.append(pool.map_async(sample, chunks, chunksize=1))
            if len(pending) > 2:
                yield _concatenate(pending.popleft().get())
        while pending:
            yield _concatenate(pending.popleft().get())


def sample_all(seeds: Sequence[int], split: str = "train", workers: int = 0) -> Scenes:
    """Return the scenes of all seeds at once; split: as in `sample_scene`."""
    return next(scene_batches([seeds], partial(sample_scenes, split=split), workers))


def worker_count() -> int:
    """Return how many CPU workers this process may start, 0 where it samples faster by itself.

    Processes on one machine share its cores.
    """
    if sys.platform != "linux":  # workers are forked, which Windows cannot and macOS not safely
        return 0
    count = cpu_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1
    return count if count >= 3 else 0


def _concatenate(parts: list[Scenes]) -> Scenes:
    cameras = [part.cameras for part in parts if part.cameras is not None]
    return Scenes(
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.params for part in parts]),
        [texts for part in parts for texts in part.captions],
        [texts for part in parts for texts in part.negatives],
        np.concatenate(cameras) if cameras else None,
    )


def _ignore_sigint() -> None:
    """Leave Ctrl-C to the parent process; end on SIGTERM, whatever handler was inherited."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
