"""The ControlNets: a copy of the denoiser's encoder that reads a condition and steers the frozen denoiser by it.

Zhang et al. 2023: the copy starts from the denoiser's weights and speaks through convolutions that start at zero, so
training begins at the denoiser itself. One network a kind of condition, `python -m pocket.train controlnet
--condition canny`; the strip of images that it leaves shows how control sets in, all at once.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPModel

from pocket.world import caption, render, sample_scene

from . import conditions, denoiser, loop
from .data import RENDER_BATCH, TEST_SEED
from .run import Run
from .tokenizer import encode, load

# The condition, 256x256, comes down to the latents' 32x32 in three steps; wider ones (diffusers has 256) only cost.
EMBEDDING = (16, 32, 64, 128)
BATCH = 256
# The rate of what was copied, and of what starts at zero or at random and has further to go.
COPIED_RATE, NEW_RATE = 3e-4, 1e-3
OBJECTS_COUNT = 3.0  # times: they are a fifth of an image, and what people want to steer
MINUTES, MINUTES_OF_SEVERAL = 7.0, 4.5  # on one GPU and on more of them, compiling included
STRIP, STRIP_SIDE = "strip.jpg", 96  # its file, and the side of one of its images in pixels
STRIP_STEPS = (0, 50, 100, 150, 200, 300, 400, 600, 800, 1200, 1600, 2400, 3200, 4800, 6400, 9600)


class Controlled(denoiser.Latents):
    """The latents of this process's shards, their conditions of one kind, and where their objects are, on the device if
    they fit there."""

    maker = "conditions"

    def __init__(
        self, folder: Path, kind: str, device: torch.device, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(folder, device, rank, world_size)
        parts = self.stored(kind)
        first = next(parts)
        home = device
        needed = len(self) * first[0].nbytes
        if (
            device.type == "cuda"
            and needed > denoiser.MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]
        ):
            home = torch.device("cpu")
        self.conditions = torch.empty(len(self), *first.shape[1:], dtype=torch.uint8, device=home)
        start = 0
        for part in tqdm(chain([first], parts), desc=kind, leave=False, disable=rank > 0):
            self.conditions[start : start + len(part)] = part
            start += len(part)
        objects = np.concatenate([np.load(shard / "objects.npy") for shard in self.shards])
        self.objects = torch.from_numpy(objects).to(home)

    def stored(self, kind: str) -> Iterator[Tensor]:
        """The conditions of all scenes in order, as `to_input` takes them: lines as the shards have them, the others
        drawn anew."""
        for shard in self.shards:
            if (shard / f"{kind}.npy").exists():
                yield torch.from_numpy(np.load(shard / f"{kind}.npy"))
                continue
            params = np.load(shard / "params.npy")
            for i in range(0, len(params), RENDER_BATCH):
                part = params[i : i + RENDER_BATCH]
                yield conditions.of_kind(kind, render(part, samples=4, device=self.device), part)

    def sample(self, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Moments (B, 8, 32, 32) float16, tokens (B, L) int64, conditions (B, 3, 256, 256) float32 in [0, 1], and the
        objects' share of each latent pixel, (B, 1, 32, 32) float32."""
        i, j = self.draw(batch, generator)
        k = i.to(self.conditions.device)
        chosen, objects = self.conditions[k].to(self.device), self.objects[k].to(self.device)
        tokens = self.tokens[i, j].to(self.device).long()
        return (
            self.moments[i].to(self.device),
            tokens,
            to_input(chosen),
            objects[:, None].float() / 255,
        )


def to_input(stored: Tensor) -> Tensor:
    """Conditions as they are stored, uint8, to what a ControlNet reads: float32 (N, 3, H, W) in [0, 1].

    stored: (N, H, W, 3), (N, H, W), or (N, H, W / 8) packed to bits, told apart by the width.
    """
    if stored.dim() == 4:
        return stored.permute(0, 3, 1, 2).float() / 255
    if stored.shape[2] != stored.shape[1]:
        stored = conditions.unpack(stored)
    # Laid out as colours are, so that one compiled graph serves every kind.
    return (stored.float() / 255)[..., None].repeat(1, 1, 1, 3).permute(0, 3, 1, 2)


def emphasis(objects: Tensor) -> Tensor:
    """How much the error counts where, with mean 1 in each image, by the objects' share (B, 1, 32, 32)."""
    weight = 1 + (OBJECTS_COUNT - 1) * objects
    return weight / weight.mean((1, 2, 3), keepdim=True)


class Trainee(denoiser.Trainee):
    """ControlNet and frozen denoiser with the denoiser's own loss: one module, so one graph to compile."""

    # Half, as the paper has it (section 3.3): where no caption helps, the image has to come from the condition.
    caption_dropout = 0.5

    def timesteps(self, batch: int, device: torch.device) -> Tensor:
        """Noisy steps more often, by the cubic rule of T2I-Adapter (Mou et al. 2023): they settle the structure, and
        only of that can a condition tell the denoiser much."""
        steps = len(self.alphas_cumprod)
        place = (
            denoiser.stratified_timesteps(batch, steps, device) + torch.rand(batch, device=device)
        ) / steps
        return ((1 - place**3) * steps).long().clamp(max=steps - 1)

    def __init__(
        self,
        unet: UNet2DConditionModel,
        controlnet: ControlNetModel,
        text: nn.Module,
        scaling_factor: float,
        empty: Tensor,
    ) -> None:
        """empty: the tokens (L,) of the empty prompt."""
        super().__init__(unet.requires_grad_(False), text, scaling_factor, empty)
        self.controlnet = controlnet

    def predict(
        self, noisy: Tensor, t: Tensor, states: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """As the denoiser's, steered by the condition (B, 3, 256, 256) in [0, 1].

        The denoiser's encoder has no weight that trains and no input that needs a gradient, so autograd passes it
        over and goes back through the decoder alone, to where the residuals come in.
        """
        down, mid = self.controlnet(
            noisy, t, encoder_hidden_states=states, controlnet_cond=condition, return_dict=False
        )
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        return self.unet(noisy, t, states, return_dict=False, **residuals)[0]


def build(unet: UNet2DConditionModel, smoke: bool = False) -> ControlNetModel:
    """An untrained ControlNet for a denoiser: with it the denoiser's output is what it was without."""
    widths = (8, 8, 8, 8) if smoke else EMBEDDING
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=widths)
    # As diffusers starts it, the embedding passes on a four-hundredth of a condition's contrast and its last layer is
    # zero: thousands of steps go by before the copy sees anything. The zero convolutions behind the copy already keep
    # the first step at the denoiser, so the embedding may speak from the start (He et al. 2015, equation 10).
    embedding = controlnet.controlnet_cond_embedding
    for layer in (embedding.conv_in, *embedding.blocks, embedding.conv_out):
        gain = 0.5 if layer is embedding.conv_out else 2.0  # SiLU halves what is near zero
        nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
        nn.init.zeros_(layer.bias)
    return controlnet


class Strip:
    """How control sets in: the same test scenes from the same noise, a row of images for each step asked for.

    folder: gets condition.png, step-000000.png and so on, and strip.jpg, which shows them all, small, time from left to
    right, and which ships with the weights. Rows that lie there from before an interruption stay.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        pipe: StableDiffusionControlNetPipeline,
        count: int,
        steps: int,
    ):
        self.folder, self.pipe, self.steps = folder, pipe, steps
        folder.mkdir(parents=True, exist_ok=True)
        scenes = [sample_scene(TEST_SEED + 20_000 + i, "train", "object") for i in range(count)]
        self.prompts = [
            caption(scene.labels, np.random.default_rng(i))[0] for i, scene in enumerate(scenes)
        ]
        params = np.stack([scene.params for scene in scenes])
        drawn = render(params, samples=4, device=pipe.unet.device)
        stored = conditions.of_kind(kind, drawn, params)
        self.condition = to_input(stored).to(pipe.unet.device)
        self.save("condition", self.condition.permute(0, 2, 3, 1))

    def save(self, name: str, images: Tensor) -> None:
        """Writes images (N, H, W, 3) in [0, 1] side by side."""
        row = torch.cat(list(images.cpu()), dim=1)
        Image.fromarray((row * 255).round().byte().numpy()).save(self.folder / f"{name}.png")

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Draws the row of this step with the pipeline's present weights, and the whole strip anew."""
        device, size = self.pipe.unet.device, self.pipe.unet.config.sample_size
        noise = torch.randn(
            len(self.prompts), 4, size, size, generator=torch.Generator().manual_seed(0)
        )
        with torch.autocast(device.type, enabled=False):
            images = self.pipe(
                self.prompts,
                image=self.condition,
                latents=noise.to(device),
                num_inference_steps=self.steps,
                output_type="pt",
            ).images
        self.save(f"step-{step:06d}", images.permute(0, 2, 3, 1).float())
        rows = [self.folder / "condition.png", *sorted(self.folder.glob("step-*.png"))]
        columns = {
            path.stem.replace("step-", "").lstrip("0") or "step 0": Image.open(path)
            for path in rows
        }
        side_by_side(columns).save(self.folder / STRIP, quality=88)


def side_by_side(rows: Mapping[str, Image.Image], side: int = STRIP_SIDE) -> Image.Image:
    """Rows of square images, small and turned into columns, each below its name."""
    size, gap = side // 8, 2
    count = {row.width // row.height for row in rows.values()}.pop()
    sheet = Image.new(
        "RGB", (len(rows) * (side + gap) - gap, 2 * size + count * (side + gap) - gap), "white"
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size)
    for x, (name, row) in enumerate(rows.items()):
        left = x * (side + gap)
        draw.text((left + side / 2, size), name, "black", font, anchor="mm")
        for y in range(count):
            scene = row.crop((y * row.height, 0, (y + 1) * row.height, row.height))
            small = scene.resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(small, (left, 2 * size + y * (side + gap)))
    return sheet


def main(run: Run) -> None:
    """Trains the ControlNet of one kind on WORK/conditions and writes WORK/controlnet-KIND/weights and strip/."""
    conditions.ensure(run)
    began = time.perf_counter()
    data = Controlled(run.work / "conditions", run.stage.kind, run.device, run.rank, run.processes)
    tokenizer = load(run.weights_of("tokenizer"), run.weights_of("towers"))
    text = CLIPModel.from_pretrained(run.weights_of("towers"), dtype=torch.float32).text_model
    vae = AutoencoderKL.from_pretrained(run.weights_of("autoencoder"), torch_dtype=torch.float32)
    unet = UNet2DConditionModel.from_pretrained(
        run.weights_of("denoiser"), torch_dtype=torch.float32
    )
    torch.manual_seed(run.seed)
    controlnet = build(unet, run.smoke)
    if run.init:
        controlnet = ControlNetModel.from_pretrained(
            run.weights_of(run.stage), torch_dtype=torch.float32
        )
    empty = torch.from_numpy(encode(tokenizer, [""])[0]).long()
    trainee = Trainee(unet, controlnet, text, vae.config.scaling_factor, empty).to(run.device)
    unet.to(memory_format=torch.channels_last)
    controlnet.to(memory_format=torch.channels_last)
    batch = run.batch or (2 if run.smoke else BATCH)
    size = sum(p.numel() for p in controlnet.parameters()) / 1e6
    run.log(f"{len(data):,} scenes a process, {size:.1f} M parameters")

    strip: Strip | None = None
    if run.is_main:
        pipe = StableDiffusionControlNetPipeline(
            vae=vae.to(run.device).eval(),
            text_encoder=text,
            tokenizer=tokenizer,
            unet=unet,
            controlnet=controlnet,
            scheduler=DDIMScheduler(**denoiser.SCHEDULER),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        images, sampling = (1, 1) if run.smoke else (6, 20) if run.device.type == "cuda" else (2, 8)
        strip = Strip(run.folder / "strip", run.stage.kind, pipe, images, sampling)
    shown: Sequence[int] = (0,) if run.smoke else STRIP_STEPS

    def loss_fn(net: nn.Module, step: int, fraction: float) -> dict[str, Tensor]:
        if strip and step in shown:
            strip.add(step)
        *parts, objects = data.sample(batch, run.generator)
        return net(*parts, weight=emphasis(objects))

    is_new = lambda name: name.startswith("controlnet_")
    new, copied = (
        nn.ModuleList(part for name, part in controlnet.named_children() if is_new(name) == wanted)
        for wanted in (True, False)
    )
    optimizer = loop.adamw(copied, lr=COPIED_RATE)
    optimizer.add_param_group({"params": loop.trainable_parameters(new), "lr": NEW_RATE})
    longest = MINUTES if run.processes == 1 else MINUTES_OF_SEVERAL
    limits: dict[str, Any] = (
        {"steps": 2, "minutes": 1.0} if run.smoke else {"steps": 100_000, "minutes": longest}
    )
    warmup = min(200, (run.steps or limits["steps"]) // 10)  # a toy run has no time for more
    save = partial(loop.save_contiguous, controlnet)
    loop.train(
        run,
        trainee,
        optimizer,
        loss_fn,
        save,
        loop.Settings(warmup=warmup, **limits),
        start_time=began,
    )
    if strip:
        # With the averaged weights, which are those that ship.
        strip.add(json.loads((run.folder / "curve.json").read_text())["steps"])
    run.accelerator.wait_for_everyone()
