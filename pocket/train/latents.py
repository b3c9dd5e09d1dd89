"""The latents stage: encode the pool once, and fresh scenes, for the denoiser to train on.

A latent takes 1/12 of the memory of its image, so the denoiser can train on far more scenes than
the pool holds. Fresh scenes are sampled, rendered and encoded, and never stored as images.
"""

import hashlib
import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTokenizer

from course.files import write_text
from pocket.world import render

from .autoencoder import moments
from .data import RENDER_BATCH, SHARD, encode_all, write_shard
from .images import normalize, to_float
from .pool import Pool, find_shards
from .run import Run
from .scenes import Scenes, check_training_split, scene_batches, worker_count

EXTRA = 500_000
EXTRA_SEED = 2**33  # of the first fresh scene: after the pool's, before the conditions stage's
# Scenes of each --seed, so that a run with --init and another seed trains on new ones.
EXTRA_SPAN = 2**28
ENCODE_BATCH = 128

Encoder = Callable[[Tensor], Tensor]


def fingerprint(*folders: Path) -> str:
    """Return a SHA-256 over the files of some folders; latents and tokens depend on these."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def load_autoencoder(run: Run) -> AutoencoderKL:
    """Load the autoencoder, on the run's device, in channels-last memory, for evaluation."""
    vae = AutoencoderKL.from_pretrained(run.weights_of("autoencoder"), torch_dtype=torch.float32)
    return vae.to(run.device, memory_format=torch.channels_last).eval()


def map_batches(
    function: Callable[[Tensor], Tensor], values: Tensor, batch: int, run: Run
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
    """Return a function from images uint8 (N, 256, 256, 3) on the device to their moments.

    Mean and log-variance, float16 (N, 8, 32, 32).
    """
    vae = load_autoencoder(run)
    compiled = torch.compile(moments, dynamic=False) if run.device.type == "cuda" else moments

    def encode_batch(images: Tensor) -> Tensor:
        return torch.cat(compiled(vae, normalize(to_float(images))), dim=1).half()

    @torch.no_grad()
    def encode(images: Tensor) -> Tensor:
        return map_batches(encode_batch, images, ENCODE_BATCH, run)

    return encode


def encode_pool(run: Run, encode: Encoder) -> Iterator[int]:
    """Encode this process's part of the pool, if there is one; yield the images of each shard."""
    if not (run.work / "data" / "train").exists():
        return
    pool = Pool.of_run(run)
    for low in range(0, len(pool), SHARD):
        folder = run.folder / f"pool-{run.rank}-{low:08d}"
        high = min(low + SHARD, len(pool))
        if not folder.exists():
            latents = encode(pool.images[low:high]).cpu().numpy()
            write_shard(folder, {"moments": latents, "tokens": pool.tokens[low:high].cpu().numpy()})
            yield high - low


def encode_extra(run: Run, encode: Encoder, tokenizer: CLIPTokenizer, count: int) -> Iterator[int]:
    """Encode this process's part of the fresh scenes; yield the images of each shard."""
    own = range(0, count, SHARD)[run.rank :: run.processes]
    lows = [low for low in own if not (run.folder / f"extra-{low:08d}").exists()]
    first = EXTRA_SEED + run.seed % 32 * EXTRA_SPAN
    ranges = [range(first + low, first + min(low + SHARD, count)) for low in lows]
    batches = scene_batches(ranges, workers=worker_count(), negatives=False)

    def write(low: int, latents: Tensor, scenes: Scenes) -> int:
        tokens = encode_all(tokenizer, scenes.captions)
        arrays = {"moments": latents.cpu().numpy(), "tokens": tokens}
        write_shard(run.folder / f"extra-{low:08d}", arrays)
        return len(scenes)

    # A shard is tokenized and written while the next one is rendered, which saves a third.
    pending: deque[Future[int]] = deque()
    with ThreadPoolExecutor(1) as writer:
        for low, scenes in zip(lows, batches, strict=True):
            check_training_split(scenes)
            parts = []
            for i in range(0, len(scenes), RENDER_BATCH):
                params = scenes.params[i : i + RENDER_BATCH]
                images = render(params, samples=1 if run.smoke else 4, device=run.device).color
                parts.append(encode(images))
            pending.append(writer.submit(write, low, torch.cat(parts), scenes))
            if len(pending) > 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def remove_stale_shards(run: Run) -> None:
    """Remove the shards of another autoencoder, tokenizer, pool or seed."""
    labels = [shard / "labels.npy" for shard in find_shards(run.work, "train")]
    source = {
        "autoencoder": fingerprint(run.weights_of("autoencoder")),
        "tokenizer": fingerprint(run.weights_of("tokenizer")),
        "pool": hashlib.sha256(b"".join(path.read_bytes() for path in labels)).hexdigest(),
        "processes": run.processes,
        "seed": run.seed,
    }
    path = run.folder / "source.json"
    if run.is_main and (not path.exists() or json.loads(path.read_text()) != source):
        for folder in run.folder.glob("*-*"):
            shutil.rmtree(folder)
        (run.folder / "time.json").unlink(missing_ok=True)
        write_text(path, json.dumps(source))
    run.accelerator.wait_for_everyone()


def main(run: Run) -> None:
    """Fill WORK/latents with the shards that are missing."""
    start_time = time.perf_counter()
    remove_stale_shards(run)
    tokenizer = CLIPTokenizer.from_pretrained(run.weights_of("tokenizer"))
    encode = make_encoder(run)
    extra = 16 if run.smoke else EXTRA
    if run.extra is not None:
        extra = run.extra
    bar = tqdm(desc="latents", unit=" images", disable=not run.is_main)
    images = 0
    try:
        for shards in (encode_pool(run, encode), encode_extra(run, encode, tokenizer, extra)):
            for count in shards:
                images += count
                bar.update(count)
                if run.minutes and time.perf_counter() - start_time > 60 * run.minutes:
                    break
        bar.close()
        run.accelerator.wait_for_everyone()
    finally:
        run.record_time(start_time, images * run.processes)
