"""The views stage: latents of objects from several cameras each, for the multi-view denoiser."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from tqdm import tqdm
from transformers import CLIPTokenizer

from pocket.world import caption, render
from pocket.world import vocabulary as v
from pocket.world.views import sample_views

from .data import RENDER_BATCH, encode_all, own_shards, write_shard
from .latents import Encoder, make_encoder, remove_stale_shards
from .run import Run
from .scenes import CAPTIONS, Scenes, scene_batches, worker_count

SCENES = 30_000
SHARD = 1024  # scenes
FIRST_SEED = 2**35  # after the conditions stage's scenes, before the test scenes
SEED_SPAN = 2**28  # scenes of each --seed
VIEWS = 8  # of a scene


def sample_scenes(seeds: Sequence[int]) -> Scenes:
    """Return scenes whose params are (N, VIEWS, SCENE_FLOATS), and whose captions name no view."""
    sampled = [sample_views(seed, count=VIEWS) for seed in seeds]
    labels = np.array([each.labels for each in sampled], v.LABELS)
    params = np.stack([each.params for each in sampled])
    captions = []
    for record in labels:
        rng = np.random.default_rng([int(record["seed"]), 1])
        captions.append([caption(record, rng, view=False)[0] for _ in range(CAPTIONS)])
    cameras = np.stack([each.cameras for each in sampled])
    return Scenes(labels, params, captions, [], cameras)


def encode_views(run: Run, encode: Encoder, params: np.ndarray) -> np.ndarray:
    """Return the moments (N, VIEWS, 8, 32, 32) float16 of params (N, VIEWS, SCENE_FLOATS)."""
    rows = params.reshape(-1, params.shape[-1])
    samples = 1 if run.smoke else 4
    parts = [
        encode(render(rows[i : i + RENDER_BATCH], samples=samples, device=run.device).color)
        for i in range(0, len(rows), RENDER_BATCH)
    ]
    moments = torch.cat(parts)
    return moments.unflatten(0, params.shape[:2]).cpu().numpy()


def write_views(run: Run, count: int) -> Iterator[int]:
    """Write this process's shards that are missing; yield the number of images of each."""
    encode = make_encoder(run)
    tokenizer = CLIPTokenizer.from_pretrained(run.weights_of("tokenizer"))
    first = FIRST_SEED + run.seed % 32 * SEED_SPAN
    shards = [
        (run.folder / f"views-{low:08d}", seeds)
        for low, seeds in own_shards(run, count, first, SHARD)
    ]
    shards = [(folder, seeds) for folder, seeds in shards if not folder.exists()]
    batches = scene_batches([seeds for _, seeds in shards], sample_scenes, worker_count())
    pending: deque[Future] = deque()
    bar = tqdm(total=sum(len(s) for _, s in shards), desc="views", disable=not run.is_main)
    with bar, ThreadPoolExecutor(1) as writer:
        for (folder, _), scenes in zip(shards, batches, strict=True):
            assert scenes.cameras is not None
            arrays = {
                "moments": encode_views(run, encode, scenes.params),
                "cameras": scenes.cameras,
                "tokens": encode_all(tokenizer, scenes.captions),
            }
            while len(pending) > 1:
                pending.popleft().result()
            pending.append(writer.submit(partial(write_shard, folder, arrays)))
            bar.update(len(scenes))
            yield len(scenes) * VIEWS
        for job in pending:
            job.result()


def main(run: Run) -> None:
    """Fill WORK/views with the shards that are missing."""
    start_time = time.perf_counter()
    count = run.scenes or (8 if run.smoke else SCENES)
    remove_stale_shards(run, processes=run.processes, seed=run.seed)
    run.count_images(write_views(run, count), start_time)
