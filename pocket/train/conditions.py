"""The conditions stage: latents of scenes with the conditions of their images, for ControlNets.

Canny edges and scribbles come from the image, depth and normals from the renderer, which has them
exactly. `course.images.conditions` defines all of them, for any image.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from course.files import write_text
from course.images.conditions import (
    canny_mask,
    normalize_inverse_depth,
    normals_to_image,
    scribble_mask,
)
from pocket.world import Rendered
from pocket.world.landscape_header import slots
from pocket.world.renderer import layout

from .data import own_shards, write_shards
from .latents import Encoder, make_encoder, remove_stale_shards
from .run import ESTIMATED, Run, Stage
from .scenes import Scenes, worker_count

SCENES = 72_000  # a quarter of them landscapes, as `sample_scene` mixes them
FIRST_SEED = 2**34  # after the latents stage's scenes, before the test scenes
GOLDEN_RENDER = Path(__file__).parents[1] / "test_sets" / "render.npz"
LINES = ("canny", "scribble")  # conditions that are drawn from the image


# --- Conditions of renders


def inverse_depth(depth: Tensor) -> Tensor:
    """Return depth (N, H, W), 0 for sky, as inverse depth in [0, 1], 1 at each nearest point."""
    inverse = torch.where(depth > 0, 1 / depth.clamp(min=1e-6), 0.0)
    return normalize_inverse_depth(inverse)


def camera_normals(normal: Tensor, params: np.ndarray | Tensor) -> Tensor:
    """Return the renderer's normals (N, H, W, 3) in camera space; 0 for sky.

    x is to the right, y up, z toward the viewer. A landscape is rendered on a cylinder, so each of
    its columns has a camera of its own. params: (N, SCENE_FLOATS).
    """
    offsets = layout()
    height, width = normal.shape[1:3]
    scenes = torch.as_tensor(params, device=normal.device)
    names = ("H_RIGHT", "H_UP", "H_FORWARD")
    axes = [scenes[:, offsets[name] : offsets[name] + 3] for name in names]
    # landscape.h: x in image heights from the center, each height 60 degrees of the horizon
    x = (torch.arange(width, device=normal.device) + 0.5 - width / 2) / height
    heading = scenes[:, slots()["HEADING"], None] + x * torch.pi / 3  # (N, W)
    sin, cos = heading.sin(), heading.cos()
    zero, one = torch.zeros_like(sin), torch.ones_like(sin)
    rotation = torch.stack([cos, zero, -sin, zero, one, zero, sin, zero, cos], dim=2)
    is_landscape = (scenes[:, offsets["H_KIND"]] == 1)[:, None, None, None]
    # (N, W, 3, 3): right, up, forward
    camera = torch.where(
        is_landscape, rotation.unflatten(2, (3, 3)), torch.stack(axes, dim=1)[:, None]
    )
    flip = torch.tensor([1.0, 1.0, -1.0], device=normal.device)
    return torch.einsum("nhwc,nwac->nhwa", normal, camera) * flip


def exact_condition(kind: str, rendered: Rendered, params: np.ndarray) -> Tensor:
    """Return "depth" as uint8 (N, H, W), or "normals" as uint8 (N, H, W, 3)."""
    if kind == "depth":
        image = inverse_depth(rendered.depth)
    else:
        image = normals_to_image(camera_normals(rendered.normal, params))
    return (image * 255).round().byte()


def line_conditions(image: np.ndarray, seed: int | None = None) -> dict[str, np.ndarray]:
    """Return "canny" and "scribble" of an image uint8 (H, W, 3), each uint8 (H, W) of 0 and 255.

    With a seed the scribble is a random one.
    """
    rng = None if seed is None else np.random.default_rng([seed, 3])
    return {"canny": canny_mask(image), "scribble": scribble_mask(image, rng)}


def make_condition(kind: str, rendered: Rendered, params: np.ndarray) -> Tensor:
    """Return the conditions of rendered scenes, uint8 (N, H, W) or, for normals, (N, H, W, 3)."""
    if kind in ESTIMATED:
        return exact_condition(kind, rendered, params)
    lines = [line_conditions(image)[kind] for image in rendered.color.cpu().numpy()]
    return torch.from_numpy(np.stack(lines)).to(rendered.color.device)


def golden_digest(kind: str) -> str:
    """Return the SHA-256 of the conditions of a stored render.

    It is written beside each ControlNet: a test fails when a condition is no longer what the
    network was trained on.
    """
    with np.load(GOLDEN_RENDER) as file:
        arrays = dict(file)
    params = arrays.pop("params")
    rendered = Rendered(**{name: torch.from_numpy(array) for name, array in arrays.items()})
    return hashlib.sha256(make_condition(kind, rendered, params).numpy().tobytes()).hexdigest()


def to_control(conditions: Tensor) -> Tensor:
    """Return conditions as a ControlNet takes them: float32 (N, 3, H, W) in [0, 1].

    conditions: uint8 (N, H, W) or (N, H, W, 3).
    """
    if conditions.dim() == 3:
        # In the memory format of colors, so that one compiled graph serves every kind.
        conditions = conditions[..., None].repeat(1, 1, 1, 3)
    return conditions.permute(0, 3, 1, 2).float() / 255


def object_fraction(mask: Tensor) -> Tensor:
    """Return the part of each latent pixel that a mask (N, H, W) covers, uint8 (N, H/8, W/8)."""
    return (F.avg_pool2d(mask[:, None].float(), 8)[:, 0] * 255).round().byte()


def pack_bits(lines: np.ndarray) -> np.ndarray:
    """Return lines of 0 and 255, (N, H, W), as bits: uint8 (N, H, W / 8)."""
    return np.packbits(lines > 0, axis=2)


def unpack_bits(bits: Tensor) -> Tensor:
    """Return the lines of `pack_bits` from bits (N, H, W / 8), on their device."""
    shifts = torch.arange(7, -1, -1, device=bits.device, dtype=torch.uint8)
    return ((bits[..., None] >> shifts) & 1).flatten(2) * 255


# --- The stage


def shard_arrays(
    scenes: Scenes, renders: Iterator[Rendered], encode: Encoder, threads: ThreadPoolExecutor
) -> dict[str, np.ndarray]:
    """Return what a shard holds of n scenes besides the tokens.

    moments float16 (n, 8, 32, 32), as in the latents stage; canny and scribble as `pack_bits`
    returns them; objects uint8 (n, 32, 32); params float32 (n, SCENE_FLOATS), of which depth and
    normals are rendered again when they are needed: reading them from a disk would take longer.
    """
    moments: list[np.ndarray] = []
    objects: list[np.ndarray] = []
    pages: list[Iterator[dict[str, np.ndarray]]] = []  # of lines, batch by batch
    seeds = iter(scenes.labels["seed"].tolist())
    for rendered in renders:
        moments.append(encode(rendered.color).cpu().numpy())
        objects.append(object_fraction(rendered.mask).cpu().numpy())
        pages.append(threads.map(line_conditions, rendered.color.cpu().numpy(), seeds))
    lines = list(chain.from_iterable(pages))
    return {
        "moments": np.concatenate(moments),
        "params": scenes.params,
        "objects": np.concatenate(objects),
        **{kind: pack_bits(np.stack([line[kind] for line in lines])) for kind in LINES},
    }


def ensure(run: Run) -> None:
    """Write the conditions that another stage trains on, as many as the last time by default."""
    path = run.work / "conditions" / "source.json"
    last = json.loads(path.read_text())["scenes"] if path.exists() else None
    main(replace(run, stage=Stage("conditions"), scenes=run.scenes or last))


def missing_shards(run: Run, count: int) -> list[tuple[Path, range]]:
    """Return folder and seeds of this process's shards that are missing or too short."""
    missing = []
    for low, seeds in own_shards(run, count, FIRST_SEED):
        folder = run.folder / f"scenes-{low:08d}"
        tokens = folder / "tokens.npy"
        if not tokens.exists() or len(np.load(tokens, mmap_mode="r")) < len(seeds):
            missing.append((folder, seeds))
    return missing


def main(run: Run) -> None:
    """Fill WORK/conditions with the shards that are missing."""
    start_time = time.perf_counter()
    count = run.scenes or (16 if run.smoke else SCENES)
    remove_stale_shards(run)
    path = run.folder / "source.json"
    if run.is_main:
        write_text(path, json.dumps(json.loads(path.read_text()) | {"scenes": count}))
    missing = missing_shards(run, count)
    if not missing:
        run.accelerator.wait_for_everyone()
        return
    cv2.setNumThreads(1)  # images are processed in parallel
    # Threads suffice: OpenCV releases the interpreter's lock.
    with ThreadPoolExecutor(max(1, worker_count())) as threads:
        arrays = partial(shard_arrays, encode=make_encoder(run), threads=threads)
        run.count_images(write_shards(run, missing, arrays), start_time)
