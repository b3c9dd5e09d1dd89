"""The conditions stage: what a ControlNet is told of a scene, from the renderer's exact outputs, beside its latents.

Canny edges and scribbles come from the colour image, depth and normals from the renderer, which knows them.
What a condition is, is said here and once more, for a person's own images, in `course/images/conditions.py`: neither
may import the other, and `tests/pocket/test_conditions.py` holds the two equal.
"""

import json
import shutil
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTokenizer

from course.files import replace_folder, write_text
from pocket.world import Rendered, render
from pocket.world.landscape_header import slots
from pocket.world.renderer import layout

from .data import RENDER_BATCH, SHARD, encode_all, scene_batches, workers_here
from .latents import fingerprint, make_encoder
from .run import Run, Stage

SCENES = 72_000  # a quarter of them landscapes, as `sample_scene` mixes them
SEED = 2**34  # scene i has seed SEED + i: beyond the latents stage's scenes, below the test scenes
LOW, HIGH = 100, 200  # Canny's thresholds on the gradient of an 8-bit image
CANNY_BLUR = 1.4  # deviation in pixels
SCRIBBLE_BLUR, SCRIBBLE_LOW, SCRIBBLE_HIGH = 2.5, 40, 80
SCRIBBLE_SHORTEST, SCRIBBLE_STRAIGHTEN, SCRIBBLE_WIDTH = (
    40.0,
    1.5,
    3,
)  # pixels of an image 256 pixels wide


def canny(image: np.ndarray, low: float = LOW, high: float = HIGH) -> np.ndarray:
    """Edges of an image uint8 (H, W, 3): uint8 (H, W), 255 on an edge (Canny 1986).

    Smoothed first, as the paper has it and OpenCV leaves to the caller: the speckle of grass is no edge then.
    """
    return cv2.Canny(cv2.GaussianBlur(image, (0, 0), CANNY_BLUR), low, high)


def scribble(image: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """An image uint8 (H, W, 3) as somebody would sketch it with a thick pen: uint8 (H, W), 255 on a stroke.

    The outlines that outlast a strong blur, without the short ones, straightened (Douglas and Peucker 1973). With
    `rng` every hand draws otherwise: coarser or finer, thicker or thinner, a little beside, and not every line.
    """
    unit = min(image.shape[:2]) / 256
    vary = (lambda low, high: rng.uniform(low, high)) if rng else (lambda low, high: 1.0)
    soft = cv2.GaussianBlur(image, (0, 0), SCRIBBLE_BLUR * unit * vary(0.8, 1.4))
    edges = cv2.Canny(soft, SCRIBBLE_LOW, SCRIBBLE_HIGH)
    page = np.zeros(image.shape[:2], np.uint8)
    width, straighten = (
        SCRIBBLE_WIDTH * unit * vary(0.6, 1.6),
        SCRIBBLE_STRAIGHTEN * unit * vary(0.7, 2.0),
    )
    for line in cv2.findContours(edges, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]:
        # A contour runs along a stroke and back, so it is twice as long.
        if cv2.arcLength(line, True) < SCRIBBLE_SHORTEST * unit or (rng and rng.random() < 0.1):
            continue
        stroke = cv2.approxPolyDP(line, straighten, True)
        if rng:
            beside = rng.normal(0, unit, (1, 1, 2)) + rng.normal(0, 0.5 * unit, stroke.shape)
            stroke = (stroke + beside).astype(np.int32)
        cv2.polylines(page, [stroke], True, 255, max(1, round(width)))
    return page


def inverse_depth(depth: Tensor) -> Tensor:
    """Depth (N, H, W), 0 where there is nothing, as inverse depth in [0, 1]: 1 at an image's nearest point, 0 at its
    farthest; the sky is farther than everything. What the public depth estimators give, up to scale and shift."""
    inverse = torch.where(depth > 0, 1 / depth.clamp(min=1e-6), 0.0)
    low, high = inverse.amin((1, 2), keepdim=True), inverse.amax((1, 2), keepdim=True)
    return (inverse - low) / (high - low).clamp(min=1e-6)


def camera_normals(normal: Tensor, params: np.ndarray | Tensor) -> Tensor:
    """The renderer's normals (N, H, W, 3) in camera space: x to the right, y up, z towards the viewer; 0 for sky.

    params: (N, SCENE_FLOATS). A landscape is seen on a cylinder: each of its columns has a camera of its own.
    """
    at = layout()
    height, width = normal.shape[1], normal.shape[2]
    scenes = torch.as_tensor(params, device=normal.device)
    own = torch.stack(
        [scenes[:, at[name] : at[name] + 3] for name in ("H_RIGHT", "H_UP", "H_FORWARD")], dim=1
    )
    # landscape.h: x in heights of the image from its middle, each height 60 degrees of the horizon
    x = (torch.arange(width, device=normal.device) + 0.5 - width / 2) / height
    turn = scenes[:, slots()["HEADING"], None] + x * torch.pi / 3  # (N, W)
    sin, cos, zero = turn.sin(), turn.cos(), torch.zeros_like(turn)
    around = torch.stack([cos, zero, -sin, zero, zero + 1, zero, sin, zero, cos], dim=2).unflatten(
        2, (3, 3)
    )
    is_landscape = (scenes[:, at["H_KIND"]] == 1)[:, None, None, None]
    axes = torch.where(is_landscape, around, own[:, None])  # (N, W, 3, 3): right, up, forward
    return torch.einsum("nhwc,nwac->nhwa", normal, axes) * torch.tensor(
        [1.0, 1.0, -1.0], device=normal.device
    )


def normals_to_image(normals: Tensor) -> Tensor:
    """Camera-space normals (..., 3) as colours uint8: red is left, green is up, blue is towards the viewer.

    The convention of the public ControlNet for normals (Bae et al. 2021); gray where there is no surface.
    """
    flip = torch.tensor([-1.0, 1.0, 1.0], device=normals.device)
    return ((normals * flip + 1) * 127.5).round().clamp(0, 255).byte()


def image_to_normals(image: Tensor) -> Tensor:
    """The normals (..., 3) of length 1 that colours uint8 stand for, 0 where they say that there is no surface."""
    flip = torch.tensor([-1.0, 1.0, 1.0], device=image.device)
    normals = (image.float() / 127.5 - 1) * flip
    length = normals.norm(dim=-1, keepdim=True)
    return torch.where(length > 0.5, normals / length.clamp(min=1e-6), 0.0)


def exact(drawn: Rendered, params: np.ndarray) -> dict[str, Tensor]:
    """What the renderer knows: "depth" uint8 (N, H, W) and "normals" uint8 (N, H, W, 3), on its device."""
    return {
        "depth": (inverse_depth(drawn.depth) * 255).round().byte(),
        "normals": normals_to_image(camera_normals(drawn.normal, params)),
    }


def lines(image: np.ndarray, seed: int | None = None) -> dict[str, np.ndarray]:
    """ "canny" and "scribble" of one image, uint8 (H, W) of 0 and 255; with a seed the scribble is a random one."""
    rng = None if seed is None else np.random.default_rng([seed, 3])
    return {"canny": canny(image), "scribble": scribble(image, rng)}


def of_kind(kind: str, drawn: Rendered, params: np.ndarray) -> Tensor:
    """The conditions of one kind of scenes that were drawn, uint8 (N, H, W) or, of normals, (N, H, W, 3)."""
    if kind in ("depth", "normals"):
        return exact(drawn, params)[kind]
    pages = [lines(image)[kind] for image in drawn.color.cpu().numpy()]
    return torch.from_numpy(np.stack(pages)).to(drawn.color.device)


def objects_share(mask: Tensor) -> Tensor:
    """The objects' share of each latent pixel, uint8 (N, H / 8, W / 8), of their mask uint8 (N, H, W)."""
    return (F.avg_pool2d(mask[:, None].float(), 8)[:, 0] * 255).round().byte()


def pack(pages: list[np.ndarray]) -> np.ndarray:
    """Pages of 0 and 255, each (H, W), as bits: uint8 (N, H, W / 8)."""
    return np.packbits(np.stack(pages) > 0, axis=2)


def unpack(bits: Tensor) -> Tensor:
    """The other way: uint8 (N, H, W / 8) to 0 and 255, uint8 (N, H, W), on the device of the bits."""
    shifts = torch.arange(7, -1, -1, device=bits.device, dtype=torch.uint8)
    return ((bits[..., None] >> shifts) & 1).flatten(2) * 255


def shards(run: Run, lows: list[int], count: int) -> Iterator[int]:
    """Draws, encodes and writes this process's shards; yields the scenes of each.

    A shard holds moments.npy float16 (n, 8, 32, 32) and tokens.npy int16 (n, captions, length), as the latents do,
    canny.npy and scribble.npy as `pack` gives it, objects.npy uint8 (n, 32, 32), and params.npy float32 (n,
    SCENE_FLOATS), from which depth and normals are drawn anew where they are needed: a disk gives them back more slowly
    than a GPU draws them.
    """
    vae = AutoencoderKL.from_pretrained(run.weights_of("autoencoder"), torch_dtype=torch.float32)
    encode = make_encoder(vae.to(run.device, memory_format=torch.channels_last).eval(), run)
    tokenizer = CLIPTokenizer.from_pretrained(run.weights_of("tokenizer"))
    samples = 1 if run.smoke else 4
    batches = scene_batches(
        [range(SEED + low, SEED + min(low + SHARD, count)) for low in lows],
        "train",
        workers=workers_here(),
    )
    cv2.setNumThreads(1)  # a thread an image here
    pending: deque[Future] = deque()
    # OpenCV lets go of the interpreter's lock, so threads do, and no image travels between processes.
    with ThreadPoolExecutor(max(1, workers_here())) as pens, ThreadPoolExecutor(1) as writer:
        for low, scenes in zip(lows, batches, strict=True):
            if scenes.labels["heldout"].any():
                raise ValueError(
                    "a scene of the training split holds a composition that training must never see"
                )
            moments: list[np.ndarray] = []
            objects: list[np.ndarray] = []
            drawings: list[Future] = []
            for i in range(0, len(scenes), RENDER_BATCH):
                params = scenes.params[i : i + RENDER_BATCH]
                drawn = render(params, samples=samples, device=run.device)
                moments.append(encode(drawn.color).cpu().numpy())
                objects.append(objects_share(drawn.mask).cpu().numpy())
                seeds = scenes.labels["seed"][i : i + RENDER_BATCH].tolist()
                images = drawn.color.cpu().numpy()
                drawings += [pens.submit(lines, *each) for each in zip(images, seeds, strict=True)]
            arrays = {
                "moments": np.concatenate(moments),
                "params": scenes.params,
                "objects": np.concatenate(objects),
            }
            arrays |= {"tokens": encode_all(tokenizer, scenes.captions)}
            pages = [drawing.result() for drawing in drawings]
            arrays |= {name: pack([page[name] for page in pages]) for name in ("canny", "scribble")}
            while len(pending) > 1:
                pending.popleft().result()
            folder = run.folder / f"scenes-{low:08d}"
            pending.append(writer.submit(write_arrays, folder, arrays))
            yield len(scenes)
        for job in pending:
            job.result()


def write_arrays(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a folder with a file NAME.npy for each array."""
    with replace_folder(folder) as new:
        for name, array in arrays.items():
            np.save(new / f"{name}.npy", array)


def ensure(run: Run) -> None:
    """The conditions that another stage trains on: as many as it is asked for, or else as were asked for last; what is
    there already stays."""
    path = run.work / "conditions" / "source.json"
    last = json.loads(path.read_text())["scenes"] if path.exists() else None
    main(replace(run, stage=Stage("conditions"), scenes=run.scenes or last))


def main(run: Run) -> None:
    """Fills WORK/conditions; finished shards stay, unless another autoencoder or tokenizer made them."""
    began, made = time.perf_counter(), 0
    count = run.scenes or (16 if run.smoke else SCENES)
    source = {name: fingerprint(run.weights_of(name)) for name in ("autoencoder", "tokenizer")}
    path = run.folder / "source.json"
    run.folder.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    run.accelerator.wait_for_everyone()  # all have read it
    if run.is_main and known != source | {"scenes": count}:
        if {name: known.get(name) for name in source} != source:
            for folder in run.folder.glob("scenes-*"):
                shutil.rmtree(folder)
            (run.folder / "time.json").unlink(missing_ok=True)
        write_text(path, json.dumps(source | {"scenes": count}))
    run.accelerator.wait_for_everyone()

    def is_there(low: int) -> bool:
        tokens = run.folder / f"scenes-{low:08d}" / "tokens.npy"
        return tokens.exists() and len(np.load(tokens, mmap_mode="r")) >= min(SHARD, count - low)

    lows = [low for i, low in enumerate(range(0, count, SHARD)) if i % run.processes == run.rank]
    lows = [low for low in lows if not is_there(low)]
    try:
        if lows:
            with tqdm(
                desc="conditions", unit=" scenes", total=count, disable=not run.is_main
            ) as bar:
                for new in shards(run, lows, count):
                    made += new
                    bar.update(new * run.processes)
        run.accelerator.wait_for_everyone()
    finally:
        run.record_time(began, made * run.processes)
