"""The estimators: depth and normals from an image, so that a person's own image can condition a ControlNet offline.

Both are small DPT-hybrids (Ranftl et al. 2021), in transformers' own classes: a ResNet, a Transformer of two layers
over what it leaves of the image, and a decoder of convolutions that takes up the ResNet's finer maps again. They
learn from renders and from what the autoencoder makes of them, because generated images look like those, with
colours, blur and noise varied so that other images are not too strange to them.
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
from diffusers import AutoencoderKL
from torch import Tensor, nn
from tqdm import tqdm
from transformers import (
    AutoModelForDepthEstimation,
    AutoModelForSemanticSegmentation,
    DPTConfig,
    DPTForDepthEstimation,
    DPTForSemanticSegmentation,
    PreTrainedModel,
    ResNetConfig,
)

from pocket.world import render

from . import conditions, loop
from .data import RENDER_BATCH, to_float, to_input, write_processor
from .run import Run

SCENES = 54_000
BATCH = 96
DECODE_BATCH = 64
MEMORY_SHARE = (
    0.5  # of the free device memory, at most, for the images and what is to be read from them
)
AXES = ("right", "up", "towards the viewer")  # the normals' three outputs
SIDE = 256  # pixels, of the square images that both read
RESNET: dict[str, Any] = {"embedding_size": 32, "hidden_sizes": [48, 80, 128], "depths": [2, 2, 2]}
DPT: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "fusion_hidden_size": 48,
}
# Not narrower: going back through convolutions to 8 channels, laid out last, oneDNN of torch 2.13 spoils the memory.
SMOKE_RESNET = RESNET | {"embedding_size": 16, "hidden_sizes": [16, 16, 16], "depths": [1, 1, 1]}
SMOKE_DPT = DPT | {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "fusion_hidden_size": 8,
}


def build(kind: str, smoke: bool = False) -> PreTrainedModel:
    """An untrained estimator of "depth" or "normals".

    Both read images (B, 3, SIDE, SIDE) in [-1, 1]. Depth gives `predicted_depth` (B, SIDE, SIDE): inverse depth in
    [0, 1], larger is nearer, as the public estimators of relative depth have it. Normals give `logits`
    (B, 3, SIDE, SIDE): camera-space normals along AXES, shorter than 1/2 where there is no surface.
    """
    resnet, dpt = (SMOKE_RESNET, SMOKE_DPT) if smoke else (RESNET, DPT)
    backbone = ResNetConfig(
        layer_type="basic", out_features=["stage1", "stage2", "stage3"], **resnet
    )
    sizes, width = resnet["hidden_sizes"], dpt["hidden_size"]
    config = partial(
        DPTConfig,
        is_hybrid=True,
        backbone_config=backbone.to_dict(),
        image_size=SIDE,
        patch_size=16,  # of the ResNet's coarsest map, which is what the Transformer reads
        backbone_featmap_shape=[1, sizes[-1], SIDE // 16, SIDE // 16],
        backbone_out_indices=[
            0,
            1,
            0,
            1,
        ],  # two maps of the ResNet, and what both layers of the Transformer say
        neck_hidden_sizes=[*sizes[:2], width, width],
        reassemble_factors=[1, 1, 1, 0.5],
        use_auxiliary_head=False,
        semantic_classifier_dropout=0.0,  # far more images than so small a network could learn by heart
        **dpt,
    )
    if kind == "depth":
        network = DPTForDepthEstimation(config())
        # The last layer is cut off at 0. From below it would never come back: begin in the middle.
        nn.init.constant_(network.head.head[-2].bias, 0.5)
        return network
    labels = dict(enumerate(AXES))
    return DPTForSemanticSegmentation(
        config(id2label=labels, label2id={name: i for i, name in labels.items()})
    )


def estimate(kind: str, net: nn.Module, images: Tensor) -> Tensor:
    """Images (B, 3, SIDE, SIDE) in [-1, 1] to inverse depth (B, SIDE, SIDE), or to normals (B, 3, SIDE, SIDE) that
    are not yet of length 1."""
    found = net(pixel_values=images)
    return (found.predicted_depth if kind == "depth" else found.logits).float()


def relief(guess: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """What is wrong with the shape of objects: the difference of two maps (B, H, W), each less its mean inside the
    mask, in units of the target's mean deviation there; 0 outside.

    After the shift- and scale-invariant loss of Ranftl et al. 2022 (equations 5 and 6, with means for medians), whose
    point is that the ground's far greater range of depth would drown an object's. Here the scale is known. To
    divide the guess by its own deviation as well would blow up the gradient while that is still small, and the ground
    would not be learnt.
    """
    total = mask.sum((1, 2)).clamp(min=1.0)
    less_mean = lambda x: (x - ((x * mask).sum((1, 2)) / total)[:, None, None]) * mask
    deviation = (less_mean(target).abs().sum((1, 2)) / total).clamp(min=1e-2)
    return less_mean(guess - target) / deviation[:, None, None]


def slopes(difference: Tensor, scales: int = 4) -> Tensor:
    """Mean absolute slope of a difference of maps (B, H, W) over so many scales, each half the one before: edges must
    lie in the same places (Ranftl et al. 2022, equation 11)."""
    found = []
    for k in range(scales):
        x = difference[:, :: 2**k, :: 2**k]
        found.append(x.diff(dim=1).abs().mean() + x.diff(dim=2).abs().mean())
    return torch.stack(found).mean()


def depth_losses(guess: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """guess, target: inverse depth (B, H, W); mask: (B, H, W) float, 1 on objects."""
    shape = relief(guess, target, mask)
    losses = {
        "l1": (guess - target).abs().mean(),
        "object": shape.abs().sum() / mask.sum().clamp(min=1.0),
        "slopes": slopes(guess - target) + 2 * slopes(shape),
    }
    return {"loss": losses["l1"] + losses["object"] + losses["slopes"], **losses}


def normal_losses(guess: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """guess, target: normals (B, 3, H, W), the target of length 1, or 0 for sky; mask: (B, H, W) float, 1 on objects.

    The cosine on surfaces, objects counting five times, and a plain distance that also teaches the length; "angle" is
    the mean error on objects in degrees.
    """
    surface = (target.square().sum(1) > 0.5).float()  # (B, H, W)
    cosine = F.cosine_similarity(guess, target, dim=1, eps=1e-4)
    weight = surface * (1 + 4 * mask)
    losses = {
        "cosine": ((1 - cosine) * weight).sum() / weight.sum().clamp(min=1.0),
        "l1": (guess - target).abs().mean(),
    }
    angle = torch.rad2deg(cosine.detach().clamp(-1, 1).acos())
    there = mask * surface
    return {
        "loss": losses["cosine"] + losses["l1"],
        **losses,
        "angle": (angle * there).sum() / there.sum().clamp(min=1.0),
    }


def varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] with other exposure, contrast and tint, blurred and roughened here and there."""
    count, device = len(images), images.device

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        return (
            torch.rand(count, channels, 1, 1, device=device, generator=generator) * (high - low)
            + low
        )

    blurred = F.avg_pool2d(
        F.avg_pool2d(images, 3, 1, 1, count_include_pad=False), 3, 1, 1, count_include_pad=False
    )
    images = torch.lerp(images, blurred, uniform(-1.0, 1.0).clamp(min=0))
    images = images.clamp(min=1e-3) ** uniform(0.7, 1.4) * uniform(0.85, 1.15, 3)
    images = (images - 0.5) * uniform(0.75, 1.2) + 0.5 + uniform(-0.1, 0.1)
    noise = torch.randn(images.shape, device=device, generator=generator)
    return (images + noise * uniform(-0.05, 0.05).clamp(min=0)).clamp(0, 1)


class Views:
    """Scenes drawn again from the shards of the conditions stage, and decoded from their latents, on the device.

    images: uint8 (2, N, 256, 256, 3), renders and reconstructions; target: uint8 as `conditions.exact` gives it,
    (N, 256, 256) or (N, 256, 256, 3); mask: uint8 (N, 256, 256). N is `count`, or less where shards or memory end.
    """

    def __init__(self, run: Run, count: int) -> None:
        """Raises FileNotFoundError if the conditions stage has left this process no shard."""
        folders = sorted((run.work / "conditions").glob("scenes-*[0-9]"))[run.rank :: run.processes]
        if not folders:
            raise FileNotFoundError(
                f"process {run.rank} finds no scenes in {run.work / 'conditions'}: "
                "run `python -m pocket.train conditions`"
            )
        self.kind = run.stage.kind
        shape = (256, 256) if run.stage.kind == "depth" else (256, 256, 3)
        each = 2 * 256 * 256 * 3 + math.prod(shape) + 256 * 256
        if run.device.type == "cuda":
            count = min(count, int(MEMORY_SHARE * torch.cuda.mem_get_info(run.device)[0] / each))
        params = np.concatenate([np.load(folder / "params.npy") for folder in folders])[:count]
        count = len(params)
        moments = np.concatenate(
            [np.load(f / "moments.npy", mmap_mode="r")[:count] for f in folders]
        )[:count]
        self.images = torch.empty(2, count, 256, 256, 3, dtype=torch.uint8, device=run.device)
        self.mask = torch.empty(count, 256, 256, dtype=torch.uint8, device=run.device)
        self.target = torch.empty(count, *shape, dtype=torch.uint8, device=run.device)
        decode = decoder(run)
        for i in tqdm(
            range(0, count, RENDER_BATCH), desc="views", leave=False, disable=not run.is_main
        ):
            rows = slice(i, min(i + RENDER_BATCH, count))
            drawn = render(params[rows], samples=1 if run.smoke else 4, device=run.device)
            self.images[0, rows], self.mask[rows] = drawn.color, drawn.mask
            self.target[rows] = conditions.exact(drawn, params[rows])[run.stage.kind]
            self.images[1, rows] = decode(torch.from_numpy(moments[rows]).to(run.device))

    def __len__(self) -> int:
        return len(self.mask)

    def sample(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Random images (B, 3, 256, 256) in [0, 1], half of them mirrored; what to read from each: inverse depth (B,
        256, 256) or normals (B, 3, 256, 256); the objects' mask (B, 256, 256) float."""
        device = self.mask.device
        draw = lambda high: torch.randint(high, (batch,), generator=generator, device=device)
        i, which, mirrored = draw(len(self)), draw(2), draw(2).bool()
        turn = lambda x: torch.where(mirrored.view(-1, *[1] * (x.dim() - 1)), x.flip(-1), x)
        images, mask = turn(to_float(self.images[which, i])), turn(self.mask[i].float())
        if self.kind == "depth":
            return images, turn(self.target[i].float() / 255), mask
        normals = turn(conditions.image_to_normals(self.target[i]).permute(0, 3, 1, 2))
        normals[:, 0] *= torch.where(mirrored, -1.0, 1.0)[
            :, None, None
        ]  # what faced left faces right now
        return images, normals, mask


def decoder(run: Run) -> Callable[[Tensor], Tensor]:
    """A function from moments half (N, 8, 32, 32) to images uint8 (N, 256, 256, 3), decoded from their means."""
    vae = AutoencoderKL.from_pretrained(run.weights_of("autoencoder"), torch_dtype=torch.float32)
    vae = vae.to(run.device, memory_format=torch.channels_last).eval()

    def plain(latents: Tensor) -> Tensor:
        return vae.decoder(vae.post_quant_conv(latents))

    compiled = torch.compile(plain, dynamic=False) if run.device.type == "cuda" else plain

    @torch.no_grad()
    def decode(moments: Tensor) -> Tensor:
        found = []
        for part in moments.chunk(2, dim=1)[0].float().split(DECODE_BATCH):
            full = part
            if (
                len(part) < DECODE_BATCH and run.device.type == "cuda"
            ):  # one size, so that it compiles once
                full = part[torch.arange(DECODE_BATCH, device=part.device) % len(part)]
            with run.autocast():
                images = compiled(full)[: len(part)].float().clamp(-1, 1)
            found.append(((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1))
        return torch.cat(found)

    return decode


def load(kind: str, folder: Path) -> PreTrainedModel:
    """The estimator of a folder, in float32."""
    auto = AutoModelForDepthEstimation if kind == "depth" else AutoModelForSemanticSegmentation
    return auto.from_pretrained(folder, dtype=torch.float32)


def main(run: Run) -> None:
    """Trains the estimator of one kind on WORK/conditions and writes WORK/estimators-KIND/weights."""
    conditions.ensure(run)
    began = time.perf_counter()
    views = Views(run, 16 if run.smoke else SCENES)
    torch.manual_seed(run.seed)
    model = (
        load(run.stage.kind, run.weights_of(run.stage))
        if run.init
        else build(run.stage.kind, run.smoke)
    )
    model.to(run.device)
    with (
        torch.no_grad()
    ):  # transformers hangs hooks into the network at its first call, which would break the graph
        estimate(run.stage.kind, model.eval(), torch.zeros(1, 3, SIDE, SIDE, device=run.device))
    losses = depth_losses if run.stage.kind == "depth" else normal_losses
    batch = run.batch or (2 if run.smoke else BATCH)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    run.log(f"{len(views):,} scenes a process, {size:.2f} M parameters")

    def loss_fn(net: nn.Module, step: int, fraction: float) -> dict[str, Tensor]:
        images, target, mask = views.sample(batch, run.generator)
        images = to_input(varied(images, run.generator))
        guess = estimate(run.stage.kind, net, images)
        with torch.autocast(run.device.type, enabled=False):
            return losses(guess, target, mask)

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        write_processor(folder, SIDE, "DPTImageProcessor")

    optimizer = loop.adamw(model, lr=1e-3, weight_decay=0.02)
    limits: dict[str, Any] = (
        {"steps": 2, "minutes": 1.0} if run.smoke else {"steps": 100_000, "minutes": 5.0}
    )
    warmup = min(300, (run.steps or limits["steps"]) // 10)
    loop.train(
        run,
        model,
        optimizer,
        loss_fn,
        save,
        loop.Settings(warmup=warmup, **limits),
        start_time=began,
    )
    run.accelerator.wait_for_everyone()
