"""The latents stage: encodes the pool once, and as many fresh scenes as asked for, for the denoiser to train on.

A latent takes 1/12 of its image's memory, so the denoiser can see far more scenes than the pool holds. Fresh
scenes are sampled, rendered and encoded in one go, and never stored as images.
"""

import hashlib
import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTokenizer

from pocket.world import render

from . import common
from .autoencoder import moments, to_input
from .data import RENDER_BATCH, SHARD, Pool, encode_all, scene_batches, workers_here

EXTRA = 500_000
EXTRA_SEED = (
    2**33
)  # fresh scenes have seeds from here: beyond the pool's, below those of the conditions stage
EXTRA_SPAN = (
    2**28
)  # each --seed has so many scenes of its own, so that training on goes on with new ones
ENCODE_BATCH = 128


def fingerprint(*folders: Path) -> str:
    """SHA-256 over the files of some folders: latents and tokens of another fingerprint are of no use."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def make_encoder(vae: AutoencoderKL, run: common.Run) -> Callable[[Tensor], Tensor]:
    """A function from images uint8 (N, 256, 256, 3) on the device to mean and log-variance, half (N, 8, 32, 32)."""
    compiled = torch.compile(moments, dynamic=False) if run.device.type == "cuda" else moments

    @torch.no_grad()
    def encode(images: Tensor) -> Tensor:
        found = []
        for part in images.split(ENCODE_BATCH):
            full = part
            if (
                len(part) < ENCODE_BATCH and run.device.type == "cuda"
            ):  # one size, so that it compiles once
                full = part[torch.arange(ENCODE_BATCH, device=part.device) % len(part)]
            with run.autocast():
                both = torch.cat(compiled(vae, to_input(full)), dim=1)
            found.append(both[: len(part)].half())
        return torch.cat(found)

    return encode


def write_shard(folder: Path, latents: Tensor, tokens: np.ndarray) -> None:
    """Writes moments.npy float16 (n, 8, 32, 32) and tokens.npy int16 (n, captions, length)."""

    def write(new: Path) -> None:
        np.save(new / "moments.npy", latents.cpu().numpy())
        np.save(new / "tokens.npy", tokens)

    common.replace_folder(folder, write)


def pool_shards(run: common.Run, encode: Callable[[Tensor], Tensor]) -> Iterator[int]:
    """Encodes this process's part of the pool, if there is one here; yields the images of each new shard."""
    if not (run.work / "data" / "train").exists():
        return
    pool = Pool(run.work, run.device, heldout=False, rank=run.rank, world_size=run.processes)
    for low in range(0, len(pool), SHARD):
        folder = run.folder / f"pool-{run.rank}-{low:08d}"
        high = min(low + SHARD, len(pool))
        if not folder.exists():
            write_shard(folder, encode(pool.images[low:high]), pool.tokens[low:high].cpu().numpy())
            yield high - low


def extra_shards(
    run: common.Run, encode: Callable[[Tensor], Tensor], tokenizer: CLIPTokenizer, count: int
) -> Iterator[int]:
    """Samples, renders and encodes this process's part of the fresh scenes; yields the images of each new shard."""
    lows = [low for i, low in enumerate(range(0, count, SHARD)) if i % run.processes == run.rank]
    lows = [low for low in lows if not (run.folder / f"extra-{low:08d}").exists()]
    first = EXTRA_SEED + run.seed % 32 * EXTRA_SPAN
    ranges = [range(first + low, first + min(low + SHARD, count)) for low in lows]
    samples = 1 if run.smoke else 4
    batches = scene_batches(ranges, "train", workers=workers_here(), opposites=False)

    def write(low: int, latents: Tensor, captions: list[list[str]]) -> int:
        write_shard(run.folder / f"extra-{low:08d}", latents, encode_all(tokenizer, captions))
        return len(captions)

    # One shard is tokenized and written while the next one is drawn: in turn they take a third of the time.
    pending: deque[Future[int]] = deque()
    with ThreadPoolExecutor(1) as writer:
        for low, scenes in zip(lows, batches, strict=True):
            if scenes.labels["heldout"].any():
                raise ValueError(
                    "a scene of the training split holds a composition that training must never see"
                )
            parts = [
                scenes.params[i : i + RENDER_BATCH] for i in range(0, len(scenes), RENDER_BATCH)
            ]
            latents = torch.cat(
                [encode(render(part, samples=samples, device=run.device).color) for part in parts]
            )
            pending.append(writer.submit(write, low, latents, scenes.captions))
            if len(pending) > 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def main(run: common.Run) -> None:
    """Fills WORK/latents; finished shards stay, unless another autoencoder, tokenizer, pool or seed made them."""
    began = time.perf_counter()
    labels = sorted((run.work / "data" / "train").glob("[0-9]*[0-9]/labels.npy"))
    source = {
        "autoencoder": fingerprint(run.weights_of("autoencoder")),
        "tokenizer": fingerprint(run.weights_of("tokenizer")),
        "pool": hashlib.sha256(b"".join(path.read_bytes() for path in labels)).hexdigest(),
        "processes": run.processes,
        "seed": run.seed,
    }
    known = run.folder / "source.json"
    if run.is_main and (not known.exists() or json.loads(known.read_text()) != source):
        for folder in run.folder.glob("*-*"):
            shutil.rmtree(folder)
        (run.folder / "time.json").unlink(missing_ok=True)
        common.replace_file(known, lambda path: path.write_text(json.dumps(source)))
    run.accelerator.wait_for_everyone()

    vae = AutoencoderKL.from_pretrained(run.weights_of("autoencoder"), torch_dtype=torch.float32)
    vae = vae.to(run.device, memory_format=torch.channels_last).eval()
    tokenizer = CLIPTokenizer.from_pretrained(run.weights_of("tokenizer"))
    encode, extra = (
        make_encoder(vae, run),
        run.extra if run.extra is not None else (16 if run.smoke else EXTRA),
    )
    bar = tqdm(desc="latents", unit=" pictures", disable=not run.is_main)
    try:
        for shards in (pool_shards(run, encode), extra_shards(run, encode, tokenizer, extra)):
            for count in shards:
                bar.update(count)
                if run.minutes and time.perf_counter() - began > 60 * run.minutes:
                    break
        bar.close()
        run.accelerator.wait_for_everyone()
    finally:
        common.record_time(run, began, bar.n * run.processes)
