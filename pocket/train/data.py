"""The data stage: the tokenizer, then images rendered on every device, in shards under WORK/data.

`train/` has no held-out composition, `heldout/` nothing else.
"""

import shutil
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm
from transformers import CLIPTokenizer

from course.files import replace_folder
from pocket.world import caption, render, sample_labels
from pocket.world.phrases import words

from .run import Run
from .scenes import scene_batches, worker_count
from .tokenizer import encode, train_tokenizer

SCENES = 300_000
HELDOUT_FRACTION = 0.06  # additional scenes with a held-out composition, for the judge alone
SHARD = 4096  # scenes
RENDER_BATCH = 256
# Scene i of a split has this seed + i.
FIRST_SEED = {"train": 0, "heldout": 2**32}


def make_tokenizer(scenes: int, seed: int = 0) -> CLIPTokenizer:
    """Train a tokenizer on captions of so many scenes, and on every word of the grammar."""
    rng = np.random.default_rng(seed)
    texts = [caption(sample_labels(rng, i)[()], rng)[0] for i in range(scenes) for _ in range(2)]
    return train_tokenizer([*texts, *words(), *words()])


def encode_all(tokenizer: CLIPTokenizer, captions: list[list[str]]) -> np.ndarray:
    """Return the token ids int16 (N, CAPTIONS, LENGTH) of the captions of N scenes."""
    ids = encode(tokenizer, [text for texts in captions for text in texts])
    return ids.reshape(len(captions), -1, ids.shape[1])


def write_shard(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a folder with a file NAME.npy for each array."""
    with replace_folder(folder) as new:
        for name, array in arrays.items():
            np.save(new / f"{name}.npy", array)


def main(run: Run) -> None:
    """Write the tokenizer to WORK/tokenizer, then the shards that are missing."""
    start_time = time.perf_counter()
    scenes = run.scenes or (64 if run.smoke else SCENES)
    if run.is_main and not (run.work / "tokenizer").exists():
        with replace_folder(run.work / "tokenizer") as new:
            make_tokenizer(300 if run.smoke else 25_000).save_pretrained(new)
    run.accelerator.wait_for_everyone()
    tokenizer = CLIPTokenizer.from_pretrained(run.work / "tokenizer")
    rendered = 0
    try:
        heldout = max(1, round(scenes * HELDOUT_FRACTION))
        for split, count in (("train", scenes), ("heldout", heldout)):
            for images in render_split(run, tokenizer, split, count):
                rendered += images
        run.accelerator.wait_for_everyone()
    finally:
        run.record_time(start_time, rendered * run.processes)


def missing_shards(run: Run, split: str, count: int) -> list[tuple[Path, range]]:
    """Return folder and seeds of this process's shards of a split that do not exist.

    Raises OSError if they do not fit on the disk.
    """
    missing = []
    for number, low in enumerate(range(0, count, SHARD)):
        first = FIRST_SEED[split]
        seeds = range(first + low, first + min(low + SHARD, count))
        folder = run.folder / split / f"{number:03d}"
        labels = folder / "labels.npy"
        exists = labels.exists() and np.load(labels)["seed"].tolist() == list(seeds)
        if number % run.processes == run.rank and not exists:
            missing.append((folder, seeds))
    images = sum(len(seeds) for _, seeds in missing) * run.processes
    needed = images * 256 * 256 * 3 / 2**30
    free = shutil.disk_usage(run.folder).free / 2**30
    if needed > free:
        raise OSError(
            f"the images take {needed:.1f} GiB in {run.folder}, where {free:.1f} GiB are free: "
            "make room, choose another folder with --work, or render fewer with --scenes"
        )
    return missing


def render_split(run: Run, tokenizer: CLIPTokenizer, split: str, count: int) -> Iterator[int]:
    """Render the missing shards of a split; yield the number of images of each."""
    shards = missing_shards(run, split, count)
    batches = scene_batches([seeds for _, seeds in shards], split, workers=worker_count())
    total = sum(len(seeds) for _, seeds in shards)
    bar = tqdm(total=total, desc=f"data {split}", disable=not run.is_main)
    samples = 1 if run.smoke else 4
    pending: deque[Future] = deque()
    with bar, ThreadPoolExecutor(1) as writer:  # one shard is written while the next is rendered
        for (folder, _), scenes in zip(shards, batches, strict=True):
            arrays = {
                "labels": scenes.labels,
                "tokens": encode_all(tokenizer, scenes.captions),
                "opposites": encode_all(tokenizer, scenes.negatives),
                "images": np.empty((len(scenes), 256, 256, 3), np.uint8),
            }
            for i in range(0, len(scenes), RENDER_BATCH):
                params = scenes.params[i : i + RENDER_BATCH]
                images = render(params, samples=samples, device=run.device).color
                arrays["images"][i : i + RENDER_BATCH] = images.cpu().numpy()
                bar.update(len(images))
            while len(pending) > 1:
                pending.popleft().result()
            pending.append(writer.submit(write_shard, folder, arrays))
            yield len(scenes)
        for job in pending:
            job.result()
