"""The ControlNets: copies of the denoiser's encoder that read a condition and steer the denoiser.

Zhang et al. 2023: the copy starts from the denoiser's weights, and its output passes through
convolutions that start at zero, so training starts at the denoiser itself, which stays frozen. One
network for each kind of condition: `python -m pocket.train controlnet --condition canny`.
"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPModel, CLIPTokenizer

from course.images import image_grid
from pocket.world import caption, render, sample_scene

from . import conditions, denoiser, loop
from .conditions import to_control, unpack_bits
from .data import RENDER_BATCH
from .run import Run
from .scenes import TEST_SEED
from .tokenizer import encode, load

# Channels of the layers that reduce the condition from 256x256 to 32x32. diffusers goes up to 256,
# which only costs.
EMBEDDING = (16, 32, 64, 128)
BATCH = 256
# Learning rates of the copied layers, and of those that start at zero or at random.
COPIED_LR, NEW_LR = 3e-4, 1e-3
OBJECT_WEIGHT = 3.0  # of the error: objects are a fifth of an image, and what people want to steer
MINUTES, MINUTES_MULTI_GPU = 7.0, 4.5  # compilation included
STRIP_FILE, STRIP_SIDE = "strip.jpg", 96  # side of one of its images in pixels
STRIP_STEPS = (0, 50, 100, 150, 200, 300, 400, 600, 800, 1200, 1600, 2400, 3200, 4800, 6400, 9600)


class ControlNetDataset(denoiser.LatentDataset):
    """The latents of this process's shards, their conditions of one kind and their objects."""

    stage = "conditions"

    def __init__(
        self, folder: Path, kind: str, device: torch.device, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(folder, device, rank, world_size)
        self.kind = kind
        parts = self._load_conditions()
        first = next(parts)
        storage = denoiser.storage_device(device, len(self) * first[0].nbytes)
        # As bits for lines, else uint8.
        self.conditions = torch.empty(
            len(self), *first.shape[1:], dtype=torch.uint8, device=storage
        )
        start = 0
        for part in tqdm(chain([first], parts), desc=kind, leave=False, disable=rank > 0):
            self.conditions[start : start + len(part)] = part
            start += len(part)
        objects = np.concatenate([np.load(shard / "objects.npy") for shard in self.shards])
        self.objects = torch.from_numpy(objects).to(storage)

    def _load_conditions(self) -> Iterator[Tensor]:
        """Yield the conditions of all scenes: lines as the shards store them, others rendered."""
        for shard in self.shards:
            if self.kind in conditions.LINES:
                yield torch.from_numpy(np.load(shard / f"{self.kind}.npy"))
                continue
            params = np.load(shard / "params.npy")
            for i in range(0, len(params), RENDER_BATCH):
                part = params[i : i + RENDER_BATCH]
                rendered = render(part, samples=4, device=self.device)
                yield conditions.make_condition(self.kind, rendered, part)

    def control(self, indices: Tensor) -> Tensor:
        """Return the conditions of scenes as a ControlNet takes them, (B, 3, 256, 256) float32."""
        stored = self.conditions[indices.to(self.conditions.device)].to(self.device)
        return to_control(unpack_bits(stored) if self.kind in conditions.LINES else stored)

    def sample(self, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return a random batch.

        Moments float16 (B, 8, 32, 32), tokens int64 (B, L), conditions float32 (B, 3, 256, 256) in
        [0, 1], and the fraction of each latent pixel that objects cover, float32 (B, 1, 32, 32).
        """
        i, j = self.sample_indices(batch, generator)
        objects = self.objects[i.to(self.objects.device)].to(self.device)
        return (
            self.moments[i].to(self.device),
            self.tokens[i, j].to(self.device).long(),
            self.control(i),
            objects[:, None].float() / 255,
        )


def object_weight(objects: Tensor) -> Tensor:
    """Return the weight of the error at each latent pixel, with mean 1 in each image.

    objects: the fraction that they cover, (B, 1, 32, 32).
    """
    weight = 1 + (OBJECT_WEIGHT - 1) * objects
    return weight / weight.mean((1, 2, 3), keepdim=True)


class ControlNetLoss(denoiser.DiffusionLoss):
    """ControlNet and frozen denoiser with the denoiser's loss, as one module to compile.

    empty: the token ids (L,) of the empty prompt.
    """

    # Half, as in the paper (section 3.3): without a caption the condition has to suffice.
    caption_dropout = 0.5

    def __init__(
        self,
        unet: UNet2DConditionModel,
        controlnet: ControlNetModel,
        text: nn.Module,
        scaling_factor: float,
        empty: Tensor,
    ) -> None:
        super().__init__(unet.requires_grad_(False), text, scaling_factor, empty)
        self.controlnet = controlnet

    def timesteps(self, batch: int, device: torch.device) -> Tensor:
        """Return timesteps, noisy ones more often, by the cubic rule of Mou et al. 2023.

        They determine the structure of the image, and only there does a condition help.
        """
        steps = len(self.alphas_cumprod)
        position = denoiser.stratified_timesteps(batch, steps, device)
        position = (position + torch.rand(batch, device=device)) / steps
        return ((1 - position**3) * steps).long().clamp(max=steps - 1)

    def predict(
        self, noisy: Tensor, t: Tensor, states: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """Return the noise in `noisy`, given a condition (B, 3, 256, 256) in [0, 1].

        Nothing in the denoiser's encoder needs a gradient, so autograd goes back through its
        decoder only, to where the residuals are added.
        """
        down, mid = self.controlnet(
            noisy, t, encoder_hidden_states=states, controlnet_cond=condition, return_dict=False
        )
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        return self.unet(noisy, t, states, return_dict=False, **residuals)[0]


def build(unet: UNet2DConditionModel, smoke: bool = False) -> ControlNetModel:
    """Return an untrained ControlNet, with which the denoiser predicts what it did without."""
    widths = (8, 8, 8, 8) if smoke else EMBEDDING
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=widths)
    # diffusers initializes the embedding so that it passes on 1/400 of a condition's contrast, and
    # its last layer with zeros: the copy would not see the condition for thousands of steps. The
    # zero convolutions behind the copy suffice to start at the denoiser, so the embedding gets the
    # usual initialization (He et al. 2015, equation 10).
    embedding = controlnet.controlnet_cond_embedding
    for layer in (embedding.conv_in, *embedding.blocks, embedding.conv_out):
        gain = 0.5 if layer is embedding.conv_out else 2.0  # SiLU halves small values
        nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
        nn.init.zeros_(layer.bias)
    return controlnet


class Strip:
    """Images of the same test scenes from the same noise, after more and more training steps.

    The folder strip/ of the run gets condition.png, step-000000.png and so on, and strip.jpg, which
    has a column of small images for each step and ships with the weights. The images of an
    interrupted run stay.
    """

    def __init__(
        self, run: Run, model: ControlNetLoss, vae: AutoencoderKL, tokenizer: CLIPTokenizer
    ) -> None:
        self.folder = run.folder / "strip"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.pipe = StableDiffusionControlNetPipeline(
            vae=vae.to(run.device).eval(),
            text_encoder=model.text,
            tokenizer=tokenizer,
            unet=model.unet,
            controlnet=model.controlnet,
            scheduler=DDIMScheduler(**denoiser.SCHEDULER),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        self.pipe.set_progress_bar_config(disable=True)
        count, self.steps = (6, 20) if run.device.type == "cuda" else (2, 8)
        if run.smoke:
            count, self.steps = 1, 1
        scenes = [sample_scene(TEST_SEED + 20_000 + i, "train", "object") for i in range(count)]
        self.prompts = [
            caption(scene.labels, np.random.default_rng(i))[0] for i, scene in enumerate(scenes)
        ]
        params = np.stack([scene.params for scene in scenes])
        rendered = render(params, samples=4, device=run.device)
        self.condition = to_control(conditions.make_condition(run.stage.kind, rendered, params))
        self.save("condition", self.condition.permute(0, 2, 3, 1))

    def save(self, name: str, images: Tensor) -> None:
        """Write images (N, H, W, 3) in [0, 1] side by side."""
        row = torch.cat(list(images.cpu()), dim=1)
        Image.fromarray((row * 255).round().byte().numpy()).save(self.folder / f"{name}.png")

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Generate images with the pipeline's present weights, and write the strip."""
        device, size = self.pipe.unet.device, self.pipe.unet.config.sample_size
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(len(self.prompts), 4, size, size, generator=generator)
        with torch.autocast(device.type, enabled=False):
            images = self.pipe(
                self.prompts,
                image=self.condition,
                latents=noise.to(device),
                num_inference_steps=self.steps,
                output_type="pt",
            ).images
        self.save(f"step-{step:06d}", images.permute(0, 2, 3, 1).float())
        columns: dict[str, Image.Image] = {"condition": Image.open(self.folder / "condition.png")}
        for path in sorted(self.folder.glob("step-*.png")):
            number = int(path.stem.removeprefix("step-"))
            columns[str(number) if number else "step 0"] = Image.open(path)
        strip(columns).save(self.folder / STRIP_FILE, quality=88)


def strip(columns: dict[str, Image.Image], side: int = STRIP_SIDE) -> Image.Image:
    """Return a grid whose columns are rows of square images, each below its name."""
    count = {row.width // row.height for row in columns.values()}.pop()
    tiles = []
    for i in range(count):
        for row in columns.values():
            tiles.append(row.crop((i * row.height, 0, (i + 1) * row.height, row.height)))
    return image_grid(tiles, columns=len(columns), titles=list(columns), side=side)


def build_optimizer(controlnet: ControlNetModel) -> torch.optim.Optimizer:
    """Return AdamW with one learning rate for the copied layers and one for the new ones."""
    parts: dict[bool, list[nn.Module]] = {True: [], False: []}
    for name, part in controlnet.named_children():
        parts[name.startswith("controlnet_")].append(part)
    optimizer = loop.adamw(nn.ModuleList(parts[False]), lr=COPIED_LR)
    new = loop.trainable_parameters(nn.ModuleList(parts[True]))
    optimizer.add_param_group({"params": new, "lr": NEW_LR})
    return optimizer


def save_controlnet(kind: str, controlnet: ControlNetModel, folder: Path) -> None:
    """Save a ControlNet, with the digest of the conditions that it is trained on."""
    loop.save_contiguous(controlnet, folder)
    digest = {"kind": kind, "sha256": conditions.golden_digest(kind)}
    (folder / "condition.json").write_text(json.dumps(digest) + "\n")


def main(run: Run) -> None:
    """Train the ControlNet of one kind on WORK/conditions; write its weights/ and strip/."""
    conditions.ensure(run)
    start_time = time.perf_counter()
    kind = run.stage.kind
    data = ControlNetDataset(run.work / "conditions", kind, run.device, run.rank, run.processes)
    tokenizer = load(run.weights_of("tokenizer"), run.weights_of("towers"))
    text = run.load(CLIPModel, "towers").text_model
    vae = run.load(AutoencoderKL, "autoencoder")
    unet = run.load(UNet2DConditionModel, "denoiser")
    torch.manual_seed(run.seed)
    controlnet = run.load(ControlNetModel) if run.init else build(unet, run.smoke)
    empty = torch.from_numpy(encode(tokenizer, [""])[0]).long()
    model = ControlNetLoss(unet, controlnet, text, vae.config.scaling_factor, empty).to(run.device)
    unet.to(memory_format=torch.channels_last)
    controlnet.to(memory_format=torch.channels_last)
    batch = run.batch or (2 if run.smoke else BATCH)
    size = sum(p.numel() for p in controlnet.parameters()) / 1e6
    run.log(f"{len(data):,} scenes in each process, {size:.1f} M parameters")
    images = Strip(run, model, vae, tokenizer) if run.is_main else None
    image_steps: Sequence[int] = (0,) if run.smoke else STRIP_STEPS

    def loss_fn(network: nn.Module, step: int, fraction: float) -> dict[str, Tensor]:
        if images and step in image_steps:
            images.add(step)
        *parts, objects = data.sample(batch, run.generator)
        return network(*parts, weight=object_weight(objects))

    minutes = MINUTES if run.processes == 1 else MINUTES_MULTI_GPU
    settings = loop.Settings(100_000, minutes)
    save = partial(save_controlnet, kind, controlnet)
    optimizer = build_optimizer(controlnet)
    loop.train(run, model, optimizer, loss_fn, save, settings, start_time=start_time)
    if images:  # with the averaged weights, which ship
        images.add(json.loads((run.folder / "curve.json").read_text())["steps"])
