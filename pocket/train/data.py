"""The data stage: the tokenizer, then images rendered on every device, in shards under WORK/data.

`train/` has no held-out composition, `heldout/` nothing else.
"""

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from tqdm import tqdm
from transformers import CLIPTokenizer

from course.files import replace_folder
from pocket.world import Rendered, caption, render, sample_labels
from pocket.world.phrases import words

from .run import Run
from .scenes import Scenes, sample_scenes, scene_batches, worker_count
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


def own_shards(run: Run, count: int, first_seed: int, size: int = SHARD) -> list[tuple[int, range]]:
    """Return the first scene and the seeds of each of this process's shards of `count` scenes.

    size: of a shard, in scenes.
    """
    lows = range(0, count, size)[run.rank :: run.processes]
    return [(low, range(first_seed + low, first_seed + min(low + size, count))) for low in lows]


def find_shards(folder: Path, stage: str, rank: int, processes: int) -> list[Path]:
    """Return the shards that the latents or the conditions stage has left for one process.

    Raises FileNotFoundError if there is none.
    """
    shards = sorted(path.parent for path in folder.glob("*-*[0-9]/moments.npy"))[rank::processes]
    if not shards:
        raise FileNotFoundError(
            f"no latents for process {rank} of {processes} in {folder}: "
            f"run `python -m pocket.train {stage}`"
        )
    return shards


def write_shards(
    run: Run,
    shards: list[tuple[Path, range]],
    make_arrays: Callable[[Scenes, Iterator[Rendered]], dict[str, np.ndarray]],
    split: str = "train",
    negatives: bool = False,
) -> Iterator[int]:
    """Write the shards with these folders and seeds; yield the number of scenes of each.

    make_arrays: of the scenes of a shard and their renders, batch by batch. The token ids of the
    captions are added to its arrays.
    """
    tokenizer = CLIPTokenizer.from_pretrained(run.weights_of("tokenizer"))
    seeds = [each for _, each in shards]
    sample = partial(sample_scenes, split=split, negatives=negatives)
    batches = scene_batches(seeds, sample, worker_count())
    bar = tqdm(total=sum(map(len, seeds)), desc=f"{run.stage} {split}", disable=not run.is_main)

    def renders(scenes: Scenes) -> Iterator[Rendered]:
        for i in range(0, len(scenes), RENDER_BATCH):
            params = scenes.params[i : i + RENDER_BATCH]
            yield render(params, samples=1 if run.smoke else 4, device=run.device)
            bar.update(len(params))

    def write(folder: Path, scenes: Scenes, arrays: dict[str, np.ndarray]) -> None:
        arrays["tokens"] = encode_all(tokenizer, scenes.captions)
        if negatives:
            arrays["opposites"] = encode_all(tokenizer, scenes.negatives)
        write_shard(folder, arrays)

    pending: deque[Future] = deque()
    # A shard is tokenized and written while the next one is rendered, which saves a third.
    with bar, ThreadPoolExecutor(1) as writer:
        for (folder, _), scenes in zip(shards, batches, strict=True):
            if split == "train" and scenes.labels["heldout"].any():
                raise ValueError("a scene of the training split has a composition that is held out")
            arrays = make_arrays(scenes, renders(scenes))
            while len(pending) > 1:
                pending.popleft().result()
            pending.append(writer.submit(write, folder, scenes, arrays))
            yield len(scenes)
        for job in pending:
            job.result()


def missing_shards(run: Run, split: str, count: int) -> list[tuple[Path, range]]:
    """Return folder and seeds of this process's shards of a split that do not exist.

    Raises OSError if they do not fit on the disk.
    """
    missing = []
    for low, seeds in own_shards(run, count, FIRST_SEED[split]):
        folder = run.folder / split / f"{low // SHARD:03d}"
        labels = folder / "labels.npy"
        if not (labels.exists() and np.load(labels)["seed"].tolist() == list(seeds)):
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


def shard_arrays(scenes: Scenes, renders: Iterator[Rendered]) -> dict[str, np.ndarray]:
    """Return what a shard holds: labels (N,), and images uint8 (N, 256, 256, 3)."""
    images = np.concatenate([rendered.color.cpu().numpy() for rendered in renders])
    return {"labels": scenes.labels, "images": images}


def render_split(run: Run, split: str, count: int) -> Iterator[int]:
    """Render the missing shards of a split; yield the number of images of each."""
    yield from write_shards(run, missing_shards(run, split, count), shard_arrays, split, True)


def main(run: Run) -> None:
    """Write the tokenizer to WORK/tokenizer, then the shards that are missing."""
    start_time = time.perf_counter()
    scenes = run.scenes or (64 if run.smoke else SCENES)
    if run.is_main and not (run.work / "tokenizer").exists():
        with replace_folder(run.work / "tokenizer") as new:
            make_tokenizer(300 if run.smoke else 25_000).save_pretrained(new)
    run.accelerator.wait_for_everyone()
    heldout = max(1, round(scenes * HELDOUT_FRACTION))
    counts = chain(render_split(run, "train", scenes), render_split(run, "heldout", heldout))
    run.count_images(counts, start_time)
