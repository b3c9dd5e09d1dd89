"""The latents stage: encode the pool once, and fresh scenes, for the denoiser to train on.

A latent takes 1/12 of the memory of its image, so the denoiser can train on far more scenes than
the pool holds. Fresh scenes are sampled, rendered and encoded, and never stored as images.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm

from course.files import write_text
from pocket.world import Rendered

from .autoencoder import moments
from .data import SHARD, own_shards, write_shard, write_shards
from .images import normalize, to_float
from .pool import Pool, find_shards
from .run import Run
from .scenes import Scenes

EXTRA = 500_000
EXTRA_SEED = 2**33  # of the first fresh scene: after the pool's, before the conditions stage's
# Scenes of each --seed, so that a run with --init and another seed trains on new ones.
EXTRA_SPAN = 2**28
ENCODE_BATCH = 128

Encoder = Callable[[Tensor], Tensor]


def fingerprint(folder: Path) -> str:
    """Return a SHA-256 over the files of a folder; latents and tokens depend on these."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def load_autoencoder(run: Run) -> AutoencoderKL:
    """Load the autoencoder, on the run's device, in channels-last memory, for evaluation."""
    vae = run.load(AutoencoderKL, "autoencoder")
    return vae.to(run.device, memory_format=torch.channels_last).eval()


@torch.no_grad()
def map_batches(
    run: Run, function: Callable[[Tensor], Tensor], batch: int, values: Tensor
) -> Tensor:
    """Return function(values) batch by batch, under autocast.

    On CUDA the last batch is filled up, so that a compiled function is compiled once.
    """
    results = []
    for part in values.split(batch):
        full = part
        if len(part) < batch and run.device.type == "cuda":
            full = part[torch.arange(batch, device=part.device) % len(part)]
        with run.autocast():
            results.append(function(full)[: len(part)])
    return torch.cat(results)


def make_encoder(run: Run) -> Encoder:
    """Return a function from images uint8 (N, 256, 256, 3) to moments float16 (N, 8, 32, 32)."""
    vae = load_autoencoder(run)
    compiled = torch.compile(moments, dynamic=False) if run.device.type == "cuda" else moments

    def encode(images: Tensor) -> Tensor:
        return torch.cat(compiled(vae, normalize(to_float(images))), dim=1).half()

    return partial(map_batches, run, encode, ENCODE_BATCH)


def encode_pool(run: Run, encode: Encoder) -> Iterator[int]:
    """Encode this process's part of the pool, if there is one; yield the images of each shard."""
    if not (run.work / "data" / "train").exists():
        return
    pool = Pool(run)
    starts = range(0, len(pool), SHARD)
    for low in tqdm(starts, desc="latents of the pool", unit=" shards", disable=not run.is_main):
        folder = run.folder / f"pool-{run.rank}-{low:08d}"
        rows = slice(low, low + SHARD)
        if not folder.exists():
            latents = encode(pool.images[rows]).cpu().numpy()
            write_shard(folder, {"moments": latents, "tokens": pool.tokens[rows].cpu().numpy()})
            yield len(latents)


def encode_extra(run: Run, encode: Encoder, count: int) -> Iterator[int]:
    """Encode this process's part of the fresh scenes; yield the images of each shard."""
    shards = [
        (run.folder / f"extra-{low:08d}", seeds)
        for low, seeds in own_shards(run, count, EXTRA_SEED + run.seed % 32 * EXTRA_SPAN)
    ]
    missing = [(folder, seeds) for folder, seeds in shards if not folder.exists()]

    def shard_arrays(scenes: Scenes, renders: Iterator[Rendered]) -> dict[str, np.ndarray]:
        return {"moments": torch.cat([encode(each.color) for each in renders]).cpu().numpy()}

    yield from write_shards(run, missing, shard_arrays)


def remove_stale_shards(run: Run, **source: object) -> None:
    """Remove the shards of another autoencoder, tokenizer or `source`; record this one."""
    source |= {name: fingerprint(run.weights_of(name)) for name in ("autoencoder", "tokenizer")}
    path = run.folder / "source.json"
    run.folder.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    if run.is_main and any(known.get(name) != value for name, value in source.items()):
        for folder in run.folder.glob("*-*"):
            shutil.rmtree(folder)
        (run.folder / "time.json").unlink(missing_ok=True)
        write_text(path, json.dumps(source))
    run.accelerator.wait_for_everyone()


def main(run: Run) -> None:
    """Fill WORK/latents with the shards that are missing."""
    start_time = time.perf_counter()
    labels = [(shard / "labels.npy").read_bytes() for shard in find_shards(run.work, "train")]
    pool = hashlib.sha256(b"".join(labels)).hexdigest()
    remove_stale_shards(run, pool=pool, processes=run.processes, seed=run.seed)
    encode = make_encoder(run)
    extra = 16 if run.smoke else EXTRA
    if run.extra is not None:
        extra = run.extra
    counts = chain(encode_pool(run, encode), encode_extra(run, encode, extra))
    run.count_images(counts, start_time, run.minutes)
