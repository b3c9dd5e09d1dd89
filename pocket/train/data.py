"""The images the stages train on: sampled on CPU workers, rendered on every device, kept on the device.

The data stage writes shards under WORK/data: `train/` never holds a held-out composition, `heldout/` only such.
`Pool` loads them; `scene_batches` samples fresh scenes for whoever renders as it goes.
"""

import json
import multiprocessing.pool
import os
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTokenizer

from course.figures import cpu_cores
from pocket.train.common import Run, record_time, replace_folder
from pocket.train.tokenizer import encode, train_tokenizer
from pocket.world import caption, render, sample_labels, sample_scene
from pocket.world import vocabulary as v
from pocket.world.phrases import words

CAPTIONS = 4  # a scene
SCENES = 300_000
HELDOUT_SHARE = 0.06  # extra scenes with a held-out composition: for the judge alone
SHARD = 4096  # scenes a shard
CHUNK = 64  # scenes a worker's task
RENDER_BATCH = 256
MEMORY_SHARE = 0.75  # of the free device memory, at most, for the images
TRAINING_ROOM = 14 * 2**30  # bytes left beside them: what a step of the autoencoder takes at most
# Scene i of a split has seed i + the split's offset. Test scenes start at 2**40, beyond all of these.
SEED_OFFSET = {"train": 0, "heldout": 2**32}
TEST_SEED = 2**40


@dataclass
class Scenes:
    """N scenes as arrays."""

    labels: np.ndarray  # (N,) of vocabulary.LABELS
    params: np.ndarray  # (N, SCENE_FLOATS) float32
    captions: list[list[str]]  # N x CAPTIONS
    opposites: list[
        list[str]
    ]  # N x CAPTIONS, or none: each caption with one thing wrong; see `opposite`

    def __len__(self) -> int:
        return len(self.labels)


def workers_here() -> int:
    """CPU workers for one process: the cores it may use, shared with its sibling processes; 0 if there are only a few.

    With 0 the scenes are sampled in the process itself, which a small machine does sooner than it starts workers.
    """
    if (
        sys.platform != "linux"
    ):  # workers are forked: not to be had on Windows, and not safe on macOS
        return 0
    mine = cpu_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1
    return mine if mine >= 3 else 0


OF_THINGS = ("object", "color", "pattern", "size")  # fields that both objects of a scene have
# Of day, plain surfaces and single things little is said: the change goes to something that is.
SELDOM_NAMED = ("lighting", "time", "pattern", "pattern2", "relation", "weather", "count")
EXCHANGES = ("swap", "exchange")  # changes that concern both objects


def opposite(
    labels: np.void, mentions: frozenset[str], rng: np.random.Generator
) -> tuple[np.void, str]:
    """A copy of the labels with one of the mentioned things changed, and that thing's name.

    The caption of the copy is wrong about the image but close to the right one, so telling the two apart
    takes colors, relations and views, not only objects ("hard negatives", Yuksekgonul et al. 2023).
    With a relation the two objects may also change places ("swap"), or their colors, patterns and sizes may
    ("exchange").
    """
    other = np.array([labels], v.LABELS)[
        0
    ]  # in a list, because np.array of a single record is a view of it
    choices = sorted(mentions)
    if labels["relation"] > 0:
        choices.append("swap")
        looks = [field for field in OF_THINGS[1:] if labels[field] != labels[f"{field}2"]]
        if any(name in mentions for field in looks for name in (field, f"{field}2")):
            choices.append("exchange")
    if "view" in mentions and v.OBJECTS[labels["object"]] not in v.WITH_FRONT:
        choices.remove("view")  # no other view word would be said of it
    field = choices[int(rng.integers(len(choices)))]
    if field in EXCHANGES:
        for name in OF_THINGS if field == "swap" else OF_THINGS[1:]:
            other[name], other[f"{name}2"] = labels[f"{name}2"], labels[name]
    elif field == "view":
        now = v.view_word(float(labels["azimuth"]), float(labels["elevation"]))
        views = {"front": (0, 20), "side": (90, 20), "back": (180, 20), "overhead": (0, 75)}
        del views[now]
        other["azimuth"], other["elevation"] = list(views.values())[int(rng.integers(len(views)))]
    else:
        first = 1 if field in SELDOM_NAMED else 0
        others = [i for i in range(first, len(v.CLASSES[field])) if i != labels[field]]
        if field == "object":  # a cactus that reads would be told apart too easily
            alive = v.OBJECTS[labels["object"]] in v.ANIMATE
            others = [i for i in others if (v.OBJECTS[i] in v.ANIMATE) == alive]
        other[field] = others[int(rng.integers(len(others)))]
    return other, field


def contrast(labels: np.void, rng: np.random.Generator) -> tuple[str, str, str]:
    """A caption, the same with one thing wrong, and which thing (see `opposite`)."""
    before = rng.bit_generator.state
    text, mentions = caption(labels, rng)
    other, field = opposite(labels, mentions, rng)
    after = rng.bit_generator.state
    rng.bit_generator.state = (
        before  # the same wording first; if that leaves the changed thing unsaid, others
    )
    wrong, named = caption(other, rng)
    rng.bit_generator.state = after
    while (field not in EXCHANGES and field not in named) or wrong == text:
        wrong, named = caption(other, rng)
    return text, wrong, field


def _sample(seeds: Sequence[int], split: str, kind: str | None, opposites: bool) -> Scenes:
    scenes = [sample_scene(seed, split=split, kind=kind) for seed in seeds]
    labels = np.array([scene.labels for scene in scenes], v.LABELS)
    params = np.stack([scene.params for scene in scenes])
    captions, wrong_captions = [], []
    for record in labels:
        rng = np.random.default_rng([int(record["seed"]), 1])
        if opposites:
            pairs = [contrast(record, rng) for _ in range(CAPTIONS)]
            captions.append([pair[0] for pair in pairs])
            wrong_captions.append([pair[1] for pair in pairs])
        else:
            captions.append([caption(record, rng)[0] for _ in range(CAPTIONS)])
    return Scenes(labels, params, captions, wrong_captions)


def _join(parts: list[Scenes]) -> Scenes:
    return Scenes(
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.params for part in parts]),
        [texts for part in parts for texts in part.captions],
        [texts for part in parts for texts in part.opposites],
    )


def scene_batches(
    batches: Sequence[Sequence[int]],
    split: str = "train",
    kind: str | None = None,
    workers: int = 0,
    opposites: bool = True,
) -> Iterator[Scenes]:
    """Samples the scenes of each batch of seeds, in order.

    Workers run ahead of the reader by two batches, so that a GPU that renders never waits for them.
    split, kind: as `sample_scene`. workers: processes; 0 samples in this one. opposites: whether each caption gets a
    wrong one, which takes a fifth of the time.
    """
    sample = partial(_sample, split=split, kind=kind, opposites=opposites)
    if workers == 0:
        yield from map(sample, batches)
        return
    with multiprocessing.get_context("fork").Pool(workers, _quiet) as pool:
        ahead: deque[multiprocessing.pool.AsyncResult] = deque()
        for seeds in batches:
            tasks = [seeds[i : i + CHUNK] for i in range(0, len(seeds), CHUNK)]
            ahead.append(pool.map_async(sample, tasks, chunksize=1))
            if len(ahead) > 2:
                yield _join(ahead.popleft().get())
        while ahead:
            yield _join(ahead.popleft().get())


def scenes_to_arrays(
    seeds: Sequence[int], split: str = "train", kind: str | None = None, workers: int = 0
) -> Scenes:
    """All scenes of the seeds at once, as `scene_batches` samples them."""
    return next(scene_batches([seeds], split, kind, workers))


def _quiet() -> None:
    """A worker leaves Ctrl-C to its parent, and ends when told to, whatever handlers it inherited."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def to_float(images: Tensor) -> Tensor:
    """Images uint8 (B, H, W, 3) as float32 (B, 3, H, W) in [0, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).float() / 255


def resize(images: Tensor, size: int) -> Tensor:
    """Images (B, 3, H, W) at size x size: bilinear, averaging where it shrinks (as PIL does); differentiable."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)


def to_input(images: Tensor) -> Tensor:
    """Images in [0, 1] as the judge and the image tower read them: in [-1, 1]."""
    return images * 2 - 1


def write_processor(folder: Path, size: int, kind: str = "CLIPImageProcessor") -> None:
    """Writes `resize` and `to_input` in the form that transformers' image processors load; kind: their class."""
    settings = {
        "image_processor_type": kind,
        "do_convert_rgb": True,
        "do_resize": True, "size": {"height": size, "width": size}, "resample": 2,  # bilinear
        "do_center_crop": False, "crop_size": {"height": size, "width": size},
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2))


@torch.no_grad()
def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shifts, scales, dims, blurs and roughens each image a little; (B, 3, H, W) in [0, 1].

    No flips (next-to is left and right) and no change of hue (colours are read). Blur and noise are there
    because the networks will look at decoded and generated images too.
    """
    count, device = len(images), images.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (
            torch.rand(count, *(shape or (1, 1, 1)), device=device, generator=generator)
            * (high - low)
            + low
        )

    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0] = theta[:, 1, 1] = uniform(0.88, 1.08, 1)[:, 0]
    theta[:, :, 2] = uniform(-0.08, 0.08, 2)
    with torch.autocast(device.type, enabled=False):  # bfloat16 cannot hold coordinates
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    blurred = F.avg_pool2d(
        F.avg_pool2d(images, 3, 1, 1, count_include_pad=False), 3, 1, 1, count_include_pad=False
    )
    images = torch.lerp(images, blurred, uniform(-1.0, 1.0).clamp(min=0))
    images = (images - 0.5) * uniform(0.9, 1.1) + 0.5 + uniform(-0.05, 0.05)
    noise = torch.randn(images.shape, device=device, generator=generator)
    return (images + noise * uniform(-0.03, 0.03).clamp(min=0)).clamp(0, 1)


def room_for_images(free: int) -> float:
    """Bytes of the pool where so many are free: a share, less on a GPU whose rest would be too small to train in."""
    return min(MEMORY_SHARE * free, max(free - TRAINING_ROOM, 0.25 * free))


class Pool:
    """Rendered images on the device, each process its own part of them.

    Args:
        work: the work folder that the data stage filled.
        device: where the images stay. If its memory cannot hold them all, a share of them stays out.
        heldout: whether scenes with held-out compositions are among them (for the judge).
        rank, world_size: this process and how many there are.
        size: side of the images; they are shrunk once, while they load.
    Raises:
        FileNotFoundError: the data stage has not run.
        ValueError: the training shards hold a held-out composition.
    """

    def __init__(
        self,
        work: Path,
        device: torch.device | str,
        heldout: bool = False,
        rank: int = 0,
        world_size: int = 1,
        size: int = 256,
    ) -> None:
        device = torch.device(device)
        shards = sorted((work / "data" / "train").glob("[0-9]*[0-9]"))
        if not shards:
            raise FileNotFoundError(
                f"no pictures in {work / 'data'}: run `python -m pocket.train data` first"
            )
        labels = [np.load(shard / "labels.npy") for shard in shards]
        if any(part["heldout"].any() for part in labels):
            raise ValueError(
                f"a held-out composition lies among the training pictures in {work / 'data' / 'train'}"
            )
        if heldout:
            more = sorted((work / "data" / "heldout").glob("[0-9]*[0-9]"))
            shards, labels = (
                shards + more,
                labels + [np.load(shard / "labels.npy") for shard in more],
            )
        share = 1.0
        if device.type == "cuda":
            wanted = sum(map(len, labels)) / world_size * size * size * 3
            share = min(1.0, room_for_images(torch.cuda.mem_get_info(device)[0]) / wanted)
        rows = []
        for part in labels:
            low, high = (len(part) * k // world_size for k in (rank, rank + 1))
            rows.append(slice(low, low + max(1, int((high - low) * share)) if high > low else low))
        ends = np.cumsum([s.stop - s.start for s in rows]).tolist()

        def part_of(name: str) -> Tensor:
            arrays = [
                np.load(shard / name, mmap_mode="r")[s]
                for shard, s in zip(shards, rows, strict=True)
            ]
            return torch.from_numpy(np.concatenate(arrays)).to(device)

        self.labels: np.ndarray = np.concatenate(
            [part[s] for part, s in zip(labels, rows, strict=True)]
        )
        self.tokens = part_of("tokens.npy")  # (N, CAPTIONS, LENGTH) int16
        self.opposites = part_of("opposites.npy")  # (N, CAPTIONS, LENGTH) int16
        self.images = torch.empty(len(self.labels), size, size, 3, dtype=torch.uint8, device=device)

        def load(shard: Path, s: slice, end: int) -> None:
            images = np.load(shard / "images.npy", mmap_mode="r")
            start = end - (s.stop - s.start)
            for i in range(s.start, s.stop, 256):
                block = torch.from_numpy(np.array(images[i : min(i + 256, s.stop)])).to(device)
                if block.shape[1] != size:
                    block = (resize(to_float(block), size) * 255).round().byte().permute(0, 2, 3, 1)
                at = start + i - s.start
                self.images[at : at + len(block)] = block

        with ThreadPoolExecutor(8 if device.type == "cuda" else 1) as threads:
            jobs = [threads.submit(load, *job) for job in zip(shards, rows, ends, strict=True)]
            for job in tqdm(jobs, desc="pictures", leave=False, disable=rank > 0):
                job.result()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Images uint8 (B, size, size, 3) of int64 indices on the pool's device."""
        # Gathered eight bytes at a time: much faster than byte by byte.
        flat = self.images.view(len(self), -1).view(torch.int64).index_select(0, indices)
        return flat.view(torch.uint8).view(-1, *self.images.shape[1:])

    def sample(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random images, with replacement: uint8 (batch, size, size, 3) and their indices (batch,)."""
        indices = torch.randint(len(self), (batch,), generator=generator, device=self.images.device)
        return self[indices], indices

    def captions(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """For each image the ids of one of its captions, and of that caption with one thing wrong.

        Both int64 (B, LENGTH).
        """
        choice = torch.randint(
            self.tokens.shape[1], indices.shape, generator=generator, device=indices.device
        )
        return self.tokens[indices, choice].long(), self.opposites[indices, choice].long()


def make_tokenizer(scenes: int, seed: int = 0) -> CLIPTokenizer:
    """The tokenizer that the captions of so many scenes give, and every word of the grammar besides."""
    rng = np.random.default_rng(seed)
    texts = [caption(sample_labels(rng, i)[()], rng)[0] for i in range(scenes) for _ in range(2)]
    return train_tokenizer([*texts, *words(), *words()])


def main(run: Run) -> None:
    """The data stage: the tokenizer under WORK/tokenizer, then shards of images; finished shards stay."""
    began, scenes = time.perf_counter(), run.scenes or (64 if run.smoke else SCENES)
    if run.is_main and not (run.work / "tokenizer").exists():
        replace_folder(
            run.work / "tokenizer", make_tokenizer(300 if run.smoke else 25_000).save_pretrained
        )
    run.accelerator.wait_for_everyone()
    tokenizer, made = CLIPTokenizer.from_pretrained(run.work / "tokenizer"), 0
    try:
        for split, count in (("train", scenes), ("heldout", max(1, round(scenes * HELDOUT_SHARE)))):
            for new in render_split(run, tokenizer, split, count):
                made += new
        run.accelerator.wait_for_everyone()
    finally:
        record_time(run, began, made * run.processes)


def render_split(run: Run, tokenizer: CLIPTokenizer, split: str, count: int) -> Iterator[int]:
    """Renders this process's shards of a split that are not there yet; yields the images of each.

    Raises OSError if they will not fit on the disk.
    """
    jobs = []
    for number, low in enumerate(range(0, count, SHARD)):
        seeds = range(SEED_OFFSET[split] + low, SEED_OFFSET[split] + min(low + SHARD, count))
        folder = run.folder / split / f"{number:03d}"
        there = (folder / "labels.npy").exists() and np.load(folder / "labels.npy")[
            "seed"
        ].tolist() == list(seeds)
        if number % run.processes == run.rank and not there:
            jobs.append((folder, seeds))
    needed = sum(len(seeds) for _, seeds in jobs) * run.processes * 256 * 256 * 3 / 2**30
    free = shutil.disk_usage(run.folder).free / 2**30
    if needed > free:
        raise OSError(
            f"the pictures take {needed:.1f} GiB in {run.folder}, where {free:.1f} are free: "
            "make room, name another folder with --work, or draw fewer with --scenes"
        )
    batches = scene_batches([seeds for _, seeds in jobs], split, workers=workers_here())
    bar = tqdm(
        total=sum(len(seeds) for _, seeds in jobs), desc=f"data {split}", disable=not run.is_main
    )
    samples = 1 if run.smoke else 4
    pending: deque[Future] = deque()
    with ThreadPoolExecutor(1) as writer:  # one shard is written while the next is rendered
        for (folder, _), batch in zip(jobs, batches, strict=True):
            arrays = {
                "labels": batch.labels,
                "tokens": encode_all(tokenizer, batch.captions),
                "opposites": encode_all(tokenizer, batch.opposites),
                "images": np.empty((len(batch), 256, 256, 3), np.uint8),
            }
            for i in range(0, len(batch), RENDER_BATCH):
                rendered = render(
                    batch.params[i : i + RENDER_BATCH], samples=samples, device=run.device
                ).color
                arrays["images"][i : i + RENDER_BATCH] = rendered.cpu().numpy()
                bar.update(len(rendered))
            while len(pending) > 1:
                pending.popleft().result()
            pending.append(writer.submit(replace_folder, folder, partial(_write, arrays=arrays)))
            yield len(batch)
        for job in pending:
            job.result()
    bar.close()


def encode_all(tokenizer: CLIPTokenizer, captions: list[list[str]]) -> np.ndarray:
    """Token ids int16 (N, CAPTIONS, LENGTH) of N scenes' captions."""
    ids = encode(tokenizer, [text for texts in captions for text in texts])
    return ids.reshape(len(captions), -1, ids.shape[1])


def _write(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
