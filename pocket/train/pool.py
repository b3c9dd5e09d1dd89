"""The pool: the images that the data stage rendered, on the device."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from course.metrics.preprocess import resize

from .images import to_float
from .run import Run

MEMORY_FRACTION = 0.75  # of the free device memory, at most, for the images
TRAINING_MEMORY = 14 * 2**30  # bytes that a step of the autoencoder takes at most
LOAD_BATCH = 256  # images


def image_budget(free: int) -> float:
    """Return how many of `free` bytes the images may take, so that the rest suffices to train."""
    return min(MEMORY_FRACTION * free, max(free - TRAINING_MEMORY, 0.25 * free))


class Pool:
    """Rendered images on the device, each process its own part of them.

    Args:
        run: has the work folder of the data stage, and the device for the images. If its memory is
            too small, some of them are left out.
        heldout: whether to include scenes with held-out compositions (for the judge).
        size: side of the images; they are resized when they are loaded.
    Raises:
        FileNotFoundError: the data stage has not run.
        ValueError: the training shards contain a held-out composition.
    """

    def __init__(self, run: Run, heldout: bool = False, size: int = 256) -> None:
        work, device = run.work, run.device
        shards = find_shards(work, "train")
        if not shards:
            raise FileNotFoundError(
                f"no images in {work / 'data'}: run `python -m pocket.train data` first"
            )
        labels = [np.load(shard / "labels.npy") for shard in shards]
        if any(part["heldout"].any() for part in labels):
            raise ValueError(
                f"the training images in {work / 'data' / 'train'} contain a held-out composition"
            )
        if heldout:
            more = find_shards(work, "heldout")
            shards = shards + more
            labels = labels + [np.load(shard / "labels.npy") for shard in more]
        fraction = 1.0
        if device.type == "cuda":
            needed = sum(map(len, labels)) / run.processes * size * size * 3
            fraction = min(1.0, image_budget(torch.cuda.mem_get_info(device)[0]) / needed)
        rows = [_rows(len(part), run.rank, run.processes, fraction) for part in labels]

        def load(name: str) -> Tensor:
            files = [np.load(shard / name, mmap_mode="r") for shard in shards]
            parts = [file[s] for file, s in zip(files, rows, strict=True)]
            return torch.from_numpy(np.concatenate(parts)).to(device)

        kept = [part[s] for part, s in zip(labels, rows, strict=True)]
        self.labels: np.ndarray = np.concatenate(kept)
        self.tokens = load("tokens.npy")  # (N, CAPTIONS, LENGTH) int16
        self.negatives = load("opposites.npy")  # (N, CAPTIONS, LENGTH) int16
        self.images = torch.empty(len(self.labels), size, size, 3, dtype=torch.uint8, device=device)
        starts = np.cumsum([0, *map(len, kept[:-1])]).tolist()
        with ThreadPoolExecutor(8 if device.type == "cuda" else 1) as threads:
            parts = zip(shards, rows, starts, strict=True)
            jobs = [threads.submit(self._load_images, *part) for part in parts]
            for job in tqdm(jobs, desc="images", leave=False, disable=not run.is_main):
                job.result()

    def _load_images(self, shard: Path, rows: slice, start: int) -> None:
        """Load rows of a shard to the images from `start` on."""
        images = np.load(shard / "images.npy", mmap_mode="r")
        size = self.images.shape[1]
        for i in range(rows.start, rows.stop, LOAD_BATCH):
            block = torch.from_numpy(np.array(images[i : min(i + LOAD_BATCH, rows.stop)]))
            block = block.to(self.images.device)
            if block.shape[1] != size:
                resized = resize(to_float(block), (size, size))
                block = (resized * 255).round().byte().permute(0, 2, 3, 1)
            first = start + i - rows.start
            self.images[first : first + len(block)] = block

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Return images uint8 (B, size, size, 3) of int64 indices on the pool's device."""
        # Gathered eight bytes at a time: much faster than byte by byte.
        flat = self.images.view(len(self), -1).view(torch.int64).index_select(0, indices)
        return flat.view(torch.uint8).view(-1, *self.images.shape[1:])

    def sample(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return random images uint8 (B, size, size, 3), with replacement, and their indices."""
        indices = torch.randint(len(self), (batch,), generator=generator, device=self.images.device)
        return self[indices], indices

    def captions(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the ids (B, LENGTH) of a random caption of each image and its hard negative."""
        choice = torch.randint(
            self.tokens.shape[1], indices.shape, generator=generator, device=indices.device
        )
        return self.tokens[indices, choice].long(), self.negatives[indices, choice].long()


def find_shards(work: Path, split: str) -> list[Path]:
    """Return the folders of a split's shards."""
    return sorted((work / "data" / split).glob("[0-9]*[0-9]"))


def _rows(count: int, rank: int, world_size: int, fraction: float) -> slice:
    """Return the rows of a shard for one process, or the first `fraction` of these."""
    low, high = (count * k // world_size for k in (rank, rank + 1))
    length = max(1, int((high - low) * fraction)) if high > low else 0
    return slice(low, low + length)
