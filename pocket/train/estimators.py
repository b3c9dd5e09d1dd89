"""The estimators: depth and normals of an image, so that any image can condition a ControlNet.

Both are small DPT hybrids (Ranftl et al. 2021) in transformers' own classes: a ResNet, a
Transformer of two layers on its coarsest map, and a convolutional decoder that uses the ResNet's
finer maps. They train on renders and on decoded latents of these, because generated images look
like the latter, with color jitter, blur and noise for other images.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm
from transformers import (
    DPTConfig,
    DPTForDepthEstimation,
    DPTForSemanticSegmentation,
    PreTrainedModel,
    ResNetConfig,
)

from course.images.conditions import image_to_normals
from pocket.world import render

from . import conditions, loop
from .data import RENDER_BATCH, find_shards
from .images import color_jitter, normalize, to_float, write_processor
from .latents import load_autoencoder, map_batches
from .run import Run

SCENES = 54_000
BATCH = 96
DECODE_BATCH = 64
MEMORY_FRACTION = 0.5  # of the free device memory, at most, for images and targets
AXES = ("right", "up", "towards the viewer")  # the outputs of the estimator of normals
NETWORKS = {"depth": DPTForDepthEstimation, "normals": DPTForSemanticSegmentation}
SIDE = 256  # pixels of the square images
RESNET: dict[str, Any] = {"embedding_size": 32, "hidden_sizes": [48, 80, 128], "depths": [2, 2, 2]}
DPT: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "fusion_hidden_size": 48,
}
# Not narrower: in the backward pass of channels-last convolutions with 8 channels, oneDNN of torch
# 2.13 corrupts memory.
SMOKE_RESNET = RESNET | {"embedding_size": 16, "hidden_sizes": [16, 16, 16], "depths": [1, 1, 1]}
SMOKE_DPT = DPT | {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "fusion_hidden_size": 8,
}


def build(kind: str, smoke: bool = False) -> PreTrainedModel:
    """Return an untrained estimator of "depth" or "normals".

    Images are (B, 3, SIDE, SIDE) in [-1, 1]. Depth gives `predicted_depth` (B, SIDE, SIDE): inverse
    depth in [0, 1], larger is nearer, like public estimators of relative depth. Normals give
    `logits` (B, 3, SIDE, SIDE): camera-space normals along AXES, shorter than 1/2 where there is no
    surface.
    """
    resnet, dpt = (SMOKE_RESNET, SMOKE_DPT) if smoke else (RESNET, DPT)
    stages = ["stage1", "stage2", "stage3"]
    backbone = ResNetConfig(layer_type="basic", out_features=stages, **resnet)
    sizes, width = resnet["hidden_sizes"], dpt["hidden_size"]
    config = partial(
        DPTConfig,
        is_hybrid=True,
        backbone_config=backbone.to_dict(),
        image_size=SIDE,
        patch_size=16,  # of the ResNet's coarsest map, the input of the Transformer
        backbone_featmap_shape=[1, sizes[-1], SIDE // 16, SIDE // 16],
        backbone_out_indices=[0, 1, 0, 1],  # two maps of the ResNet, two of the Transformer
        neck_hidden_sizes=[*sizes[:2], width, width],
        reassemble_factors=[1, 1, 1, 0.5],
        use_auxiliary_head=False,
        semantic_classifier_dropout=0.0,  # so small a network does not overfit so many images
        **dpt,
    )
    if kind == "depth":
        network = DPTForDepthEstimation(config())
        # A ReLU follows the last layer. Start in its middle: below 0 it would have no gradient.
        nn.init.constant_(network.head.head[-2].bias, 0.5)
        return network
    id2label = dict(enumerate(AXES))
    label2id = {name: i for i, name in id2label.items()}
    return DPTForSemanticSegmentation(config(id2label=id2label, label2id=label2id))


def estimate(kind: str, network: nn.Module, images: Tensor) -> Tensor:
    """Return inverse depth (B, SIDE, SIDE) or normals (B, 3, SIDE, SIDE), not yet of length 1.

    images: (B, 3, SIDE, SIDE) in [-1, 1].
    """
    output = network(pixel_values=images)
    return (output.predicted_depth if kind == "depth" else output.logits).float()


# --- Losses


def affine_residual(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the error of the shape of objects: the difference of two maps (B, H, W).

    Each map less its mean inside the mask, in units of the target's mean deviation there; 0 outside
    it.
    After the shift- and scale-invariant loss of Ranftl et al. 2022 (equations 5 and 6, with means
    instead of medians): without it, the far greater range of the ground's depth would dominate.
    Here the scale is known; dividing the prediction by its own deviation as well would make its
    gradient explode as long as that is small.
    """
    total = mask.sum((1, 2)).clamp(min=1.0)

    def centered(x: Tensor) -> Tensor:
        return (x - ((x * mask).sum((1, 2)) / total)[:, None, None]) * mask

    deviation = (centered(target).abs().sum((1, 2)) / total).clamp(min=1e-2)
    return centered(prediction - target) / deviation[:, None, None]


def gradient_loss(difference: Tensor, scales: int = 4) -> Tensor:
    """Return the mean absolute gradient of a difference of maps (B, H, W) over several scales.

    Edges then lie at the same places (Ranftl et al. 2022, equation 11).
    """
    losses = []
    for k in range(scales):
        x = difference[:, :: 2**k, :: 2**k]
        losses.append(x.diff(dim=1).abs().mean() + x.diff(dim=2).abs().mean())
    return torch.stack(losses).mean()


def depth_losses(prediction: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Return the losses of inverse depth (B, H, W); mask: (B, H, W) float, 1 on objects."""
    difference = prediction - target
    residual = affine_residual(prediction, target, mask)
    losses = {
        "l1": difference.abs().mean(),
        "object": residual.abs().sum() / mask.sum().clamp(min=1.0),
        "slopes": gradient_loss(difference) + 2 * gradient_loss(residual),
    }
    return {"loss": losses["l1"] + losses["object"] + losses["slopes"], **losses}


def normal_losses(prediction: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Return the losses of normals (B, 3, H, W), and "angle", the mean error on objects in degrees.

    The cosine on surfaces, with a weight of five on objects, and an L1 loss for the length. The
    target has length 1, or 0 for sky; mask: (B, H, W) float, 1 on objects.
    """
    surface = (target.square().sum(1) > 0.5).float()  # (B, H, W)
    cosine = F.cosine_similarity(prediction, target, dim=1, eps=1e-4)
    weight = surface * (1 + 4 * mask)
    losses = {
        "cosine": ((1 - cosine) * weight).sum() / weight.sum().clamp(min=1.0),
        "l1": (prediction - target).abs().mean(),
    }
    angle = torch.rad2deg(cosine.detach().clamp(-1, 1).acos())
    on_objects = mask * surface
    mean_angle = (angle * on_objects).sum() / on_objects.sum().clamp(min=1.0)
    return {"loss": losses["cosine"] + losses["l1"], **losses, "angle": mean_angle}


# --- Data


class EstimatorDataset:
    """Scenes of the conditions stage, rendered again and decoded from their latents, on the device.

    images: uint8 (2, N, 256, 256, 3), renders and reconstructions. target: uint8 (N, 256, 256) or
    (N, 256, 256, 3), as `conditions.exact_condition` returns it. mask: uint8 (N, 256, 256). N is
    `count`, or less if there are fewer scenes or the memory is too small.

    Raises FileNotFoundError if the conditions stage has left no shard for this process.
    """

    def __init__(self, run: Run, count: int) -> None:
        shards = find_shards(run.work / "conditions", "conditions", run.rank, run.processes)
        self.kind = run.stage.kind
        shape = (SIDE, SIDE) if self.kind == "depth" else (SIDE, SIDE, 3)
        scene_bytes = 2 * SIDE * SIDE * 3 + math.prod(shape) + SIDE * SIDE
        if run.device.type == "cuda":
            free = torch.cuda.mem_get_info(run.device)[0]
            count = min(count, int(MEMORY_FRACTION * free / scene_bytes))
        params = np.concatenate([np.load(shard / "params.npy") for shard in shards])[:count]
        count = len(params)
        files = [np.load(shard / "moments.npy", mmap_mode="r") for shard in shards]
        moments = np.concatenate([file[:count] for file in files])[:count]
        empty = partial(torch.empty, dtype=torch.uint8, device=run.device)
        self.images = empty(2, count, SIDE, SIDE, 3)
        self.mask = empty(count, SIDE, SIDE)
        self.target = empty(count, *shape)
        decode = make_decoder(run)
        starts = range(0, count, RENDER_BATCH)
        for i in tqdm(starts, desc="renders", leave=False, disable=not run.is_main):
            rows = slice(i, min(i + RENDER_BATCH, count))
            samples = 1 if run.smoke else 4
            rendered = render(params[rows], samples=samples, device=run.device)
            self.images[0, rows] = rendered.color
            self.images[1, rows] = decode(torch.from_numpy(moments[rows]).to(run.device))
            self.mask[rows] = rendered.mask
            self.target[rows] = conditions.exact_condition(self.kind, rendered, params[rows])

    def __len__(self) -> int:
        return len(self.mask)

    def sample(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return random images, half of them mirrored, with targets and masks of objects.

        Images (B, 3, 256, 256) in [0, 1]; inverse depth (B, 256, 256) or normals (B, 3, 256, 256);
        masks (B, 256, 256) float.
        """
        device = self.mask.device

        def randint(high: int) -> Tensor:
            return torch.randint(high, (batch,), generator=generator, device=device)

        i, version = randint(len(self)), randint(2)
        is_mirrored = randint(2).bool()

        def mirror(x: Tensor) -> Tensor:
            return torch.where(is_mirrored.view(-1, *[1] * (x.dim() - 1)), x.flip(-1), x)

        images = mirror(to_float(self.images[version, i]))
        mask = mirror(self.mask[i].float())
        if self.kind == "depth":
            return images, mirror(self.target[i].float() / 255), mask
        normals = mirror(image_to_normals(self.target[i].float() / 255).permute(0, 3, 1, 2))
        normals[:, 0] *= torch.where(is_mirrored, -1.0, 1.0)[:, None, None]  # x changes its sign
        return images, normals, mask


def make_decoder(run: Run) -> Callable[[Tensor], Tensor]:
    """Return a function that decodes the means of moments (N, 8, 32, 32) to (N, 256, 256, 3)."""
    vae = load_autoencoder(run)

    def decode_latents(latents: Tensor) -> Tensor:
        return vae.decoder(vae.post_quant_conv(latents))

    compiled = decode_latents
    if run.device.type == "cuda":
        compiled = torch.compile(decode_latents, dynamic=False)

    def decode(moments: Tensor) -> Tensor:
        images = compiled(moments.chunk(2, dim=1)[0].float()).float().clamp(-1, 1)
        return ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1)

    return partial(map_batches, run, decode, DECODE_BATCH)


def main(run: Run) -> None:
    """Train the estimator of one kind on WORK/conditions; write WORK/estimators-KIND/weights."""
    conditions.ensure(run)
    start_time = time.perf_counter()
    kind = run.stage.kind
    data = EstimatorDataset(run, 16 if run.smoke else SCENES)
    torch.manual_seed(run.seed)
    model = run.load(NETWORKS[kind]) if run.init else build(kind, run.smoke)
    model.to(run.device)
    with torch.no_grad():  # transformers adds hooks at the first call, which would break the graph
        estimate(kind, model.eval(), torch.zeros(1, 3, SIDE, SIDE, device=run.device))
    losses = depth_losses if kind == "depth" else normal_losses
    batch = run.batch or (2 if run.smoke else BATCH)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    run.log(f"{len(data):,} scenes in each process, {size:.2f} M parameters")

    def loss_fn(network: nn.Module, step: int, fraction: float) -> dict[str, Tensor]:
        images, target, mask = data.sample(batch, run.generator)
        images = normalize(color_jitter(images, run.generator))
        prediction = estimate(kind, network, images)
        with torch.autocast(run.device.type, enabled=False):
            return losses(prediction, target, mask)

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        write_processor(folder, SIDE, "DPTImageProcessor")

    settings = loop.Settings(100_000, minutes=5.0, warmup=300)
    optimizer = loop.adamw(model, lr=1e-3, weight_decay=0.02)
    loop.train(run, model, optimizer, loss_fn, save, settings, start_time=start_time)
