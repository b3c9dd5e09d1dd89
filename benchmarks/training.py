"""Which changes to the denoiser's training help? Short runs from random weights, equal samples.

    python -m pocket.train latents --extra 400000
    python -m benchmarks.training adamw muon ...

Each variant is measured with its averaged weights: the loss on unseen latents, the Frechet distance
of its images to renders of other seeds (judge's features), and the objects that the judge reads
right. Results lie in --out, a file a variant; a variant whose file is there is not trained again.
Fewer samples or images than the defaults print rows and store none.
"""

import argparse
import json
import time
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPModel, CLIPVisionModel

from benchmarks.common import RESULTS, command_line
from course.figures import Row, machine, make_rows, store, table, today, versions
from course.metrics import Judge, JudgeFeatures, fid
from course.metrics.preprocess import resize
from course.models import WEIGHTS
from pocket.arguments import add_option, folder, integer
from pocket.distances import embed
from pocket.test_set import (
    correct_masks,
    generate,
    load_first_edition,
    render_scenes,
    save_sheet,
    scored_masks,
)
from pocket.train import denoiser, loop
from pocket.train.muon import Muon
from pocket.train.tokenizer import encode, load

SAMPLES = 1_000_000
IMAGES = 2000
EMA_SHARE = 1 / 12  # length of the weights' average, as a share of the run
LOG_STEPS = 50


@dataclass(frozen=True)
class Variant:
    """One run: what it is called in the table, and its settings."""

    title: str
    lr: float = 1e-3
    muon: bool = False
    repa: float = 0.0  # weight of representation alignment
    config: dict[str, Any] = field(default_factory=dict)  # of the U-Net, over the baseline's
    batch: int = 1024


BASELINE = {"block_out_channels": (80, 144, 256), "attention_head_dim": (2, 3, 8)}
WIDER_16 = {"block_out_channels": (64, 160, 256), "attention_head_dim": (1, 4, 4)}
ATTENTION_32 = {
    "block_out_channels": (64, 128, 256),
    "attention_head_dim": (1, 2, 4),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3,
}
VARIANTS = {
    "adamw-5e-4": Variant("AdamW, rate 5e-4 (as pocket 1 was trained)", lr=5e-4),
    "adamw": Variant("AdamW, rate 1e-3"),
    "adamw-repa": Variant("AdamW, rate 1e-3, REPA 0.5", repa=0.5),
    "adamw-wider": Variant("AdamW, rate 1e-3, widths 64, 160, 256", config=WIDER_16),
    "muon": Variant("Muon, rate 1e-3", muon=True),
    "muon-2e-3": Variant("Muon, rate 2e-3", muon=True, lr=2e-3),
    "muon-repa": Variant("Muon, rate 1e-3, REPA 0.5", muon=True, repa=0.5),
    "muon-wider": Variant("Muon, rate 1e-3, widths 64, 160, 256", muon=True, config=WIDER_16),
    "muon-attention-32": Variant(
        "Muon, rate 1e-3, widths 64, 128, 256, attention at 32x32", muon=True, config=ATTENTION_32
    ),
}


class AlignedLoss(denoiser.DiffusionLoss):
    """The denoiser's loss with representation alignment (REPA, Yu et al. 2025, equation 8).

    A small head maps the middle block's features of a noisy latent to an image encoder's features
    of the clean image; the mean cosine of both is maximized.
    """

    def __init__(self, *args: Any, channels: int, weight: float) -> None:
        super().__init__(*args)
        self.weight = weight
        width = self.unet.config.block_out_channels[-1]
        first, second = nn.Conv2d(width, 512, 1), nn.Conv2d(512, 512, 1)
        last = nn.Conv2d(512, channels, 1)
        self.head = nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), last)
        self.middle: Tensor | None = None
        self.unet.mid_block.register_forward_hook(self._keep)

    def _keep(self, block: nn.Module, args: Any, output: Tensor) -> None:
        self.middle = output

    def forward(  # type: ignore[override]
        self, moments: Tensor, tokens: Tensor, features: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses; the moments and tokens are the denoiser's, features (B, C, 8, 8)."""
        losses = super().forward(moments, tokens)
        middle, self.middle = self.middle, None
        cosine = F.cosine_similarity(self.head(middle).float(), features.float(), dim=1)
        losses["align"] = -cosine.mean()
        losses["loss"] = losses["loss"] + self.weight * losses["align"]
        return losses


class Bench:
    """The latents, captions and test images that all variants share."""

    def __init__(self, device: torch.device, samples: int, images: int, work: Path) -> None:
        self.device, self.samples = device, samples
        self.data = denoiser.LatentDataset(work / "latents", device)
        self.tokenizer = load(WEIGHTS / "stable-diffusion" / "tokenizer", WEIGHTS / "clip")
        self.text = CLIPModel.from_pretrained(WEIGHTS / "clip", dtype=torch.float32).text_model
        self.vae = AutoencoderKL.from_pretrained(
            WEIGHTS / "stable-diffusion" / "vae", torch_dtype=torch.float32
        )
        self.judge = Judge(device, WEIGHTS / "judge")
        self.judge_features = JudgeFeatures(device)
        self.tests = load_first_edition(images, "all")
        others = load_first_edition(images, "all", seed=1)
        self.reference = self.embed(render_scenes(others, device))
        self.floor = fid(self.embed(render_scenes(self.tests, device)), self.reference)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def embed(self, images: Tensor) -> Tensor:
        """Return the judge's vectors (N, D) of images uint8 (N, H, W, 3)."""
        return embed(self.judge_features.pool, images, self.device)

    @cached_property
    @torch.no_grad()
    def features(self) -> Tensor:
        """The image tower's patch features of every latent, centered: half (N, C, 8, 8)."""
        tower = CLIPVisionModel.from_pretrained(WEIGHTS / "clip").to(self.device).eval()
        vae = self.vae.to(self.device)
        size, side = tower.config.image_size, tower.config.image_size // tower.config.patch_size
        parts = []
        for moments in tqdm(self.data.moments.split(256), desc="features", leave=False):
            with self.autocast():
                images = vae.decode(moments[:, :4].to(self.device).float()).sample
                pixels = resize(images.clamp(-1, 1), (size, size))
                # (B, side^2, C)
                states = tower(pixel_values=pixels).last_hidden_state[:, 1:].float()
            parts.append(F.avg_pool2d(states.mT.unflatten(2, (side, side)), side // 8).half())
        features = torch.cat(parts)
        return features - features[:20_000].float().mean((0, 2, 3), keepdim=True).half()

    def loss_module(self, variant: Variant) -> denoiser.DiffusionLoss:
        config = denoiser.CONFIG | BASELINE | variant.config
        unet = denoiser.build(config, self.text.config.hidden_size)
        empty = torch.from_numpy(encode(self.tokenizer, [""])[0]).long()
        parts = (unet, self.text, self.vae.config.scaling_factor, empty)
        if variant.repa:
            return AlignedLoss(*parts, channels=self.features.shape[1], weight=variant.repa)
        return denoiser.DiffusionLoss(*parts)

    def train(self, variant: Variant) -> tuple[denoiser.DiffusionLoss, dict[str, Any]]:
        """Return the loss module with averaged weights in its U-Net, and speed and curve."""
        torch.manual_seed(0)
        generator = torch.Generator(self.device).manual_seed(0)
        module = self.loss_module(variant).to(self.device)
        module.unet.to(memory_format=torch.channels_last)
        optimizer = Muon(module, variant.lr) if variant.muon else loop.adamw(module, variant.lr)
        steps = max(self.samples // variant.batch, 2)
        average = loop.build_ema(module.unet, 1 - 1 / max(EMA_SHARE * steps, 2))
        parameters = loop.trainable_parameters(module.unet)
        if self.device.type == "cuda":
            module.compile(dynamic=False)
        curve: list[dict[str, float]] = []
        start = start_step = 0.0
        for step in tqdm(range(steps), desc=variant.title, leave=False):
            for group in optimizer.param_groups:
                group["lr"] = variant.lr * loop.lr_factor(step, step / steps, steps // 20)
            scenes, captions = self.data.sample_indices(variant.batch, generator)
            batch = [self.data.moments[scenes], self.data.tokens[scenes, captions].long()]
            if variant.repa:
                batch.append(self.features[scenes])
            with self.autocast():
                losses = module(*(part.to(self.device) for part in batch))
            losses["loss"].backward()
            for group in optimizer.param_groups:
                nn.utils.clip_grad_norm_(group["params"], 1.0, foreach=True)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.step(parameters)
            if step % LOG_STEPS == 0 or step == steps - 1:
                values = {name: float(value.detach()) for name, value in losses.items()}
                curve.append({"step": step} | values)
                if step == 0:  # compiled by now
                    start, start_step = time.perf_counter(), step + 1
        rate = (steps - start_step) * variant.batch / max(time.perf_counter() - start, 1e-9)
        average.copy_to(parameters)
        return module.eval(), {"rate": rate, "curve": curve}

    def image_scores(self, unet: UNet2DConditionModel, sheet: Path) -> dict[str, float]:
        """Return FID and objects read right at two guidance scales.

        sheet: the file that shows the first images.
        """
        pipe = StableDiffusionPipeline.from_pretrained(WEIGHTS / "stable-diffusion", unet=unet)
        pipe.set_progress_bar_config(disable=True)
        pipe.to(self.device)
        labels = self.tests.labels
        prompts = self.tests.prompts
        counts = scored_masks(labels, self.tests.mentions)["object"]
        batch = 250 if self.device.type == "cuda" else 10
        scores = {}
        for guidance, key in ((3.0, "3"), (7.5, "7_5")):
            images = generate(pipe, prompts, self.tests.seeds, guidance=guidance, batch=batch)
            hits = correct_masks(labels, self.judge.classify(images))["object"]
            scores[f"fid_{key}"] = fid(self.embed(images), self.reference)
            scores[f"object_{key}"] = 100 * float(hits[counts].mean()) if counts.any() else 0.0
        save_sheet(sheet, images[:24], prompts[:24], columns=8)
        return scores


def variant_rows(key: str, variant: Variant, result: dict[str, Any]) -> list[Row]:
    """Return the rows of a variant's result file."""
    figures = [
        ("error", "error on unseen latents", "", "<="),
        ("fid_3", "Frechet distance, guidance 3", "", "<="),
        ("fid_7_5", "Frechet distance, guidance 7.5", "", "<="),
        ("object_7_5", "object read right, guidance 7.5", "%", ">="),
        ("rate", "training speed", "samples/s", ">="),
    ]
    rows = make_rows(
        f"training.{key.replace('-', '_')}",
        variant.title,
        *((name, figure, round(result[name], 4), *rest) for name, figure, *rest in figures),
        machine=result["machine"],
    )
    for row in rows:
        row.date = result["date"]
        row.versions = result["versions"]
        row.command = f"python -m benchmarks.training {key}"
    return rows


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line("benchmarks.training", __doc__, VARIANTS)
    add = partial(add_option, parser)
    add("--samples", integer(1), SAMPLES, "samples that each variant trains on")
    add("--images", integer(2, 1_000_000), IMAGES, "test images of each variant")
    add("--work", folder, Path("outputs/pocket"), "folder of the latents")
    add("--out", folder, Path("outputs/training"), "folder for results and sample sheets")
    args = parser.parse_args(arguments)
    all_there = all((args.out / f"{name}.json").exists() for name in args.groups)
    if not all_there and not (args.work / "latents").is_dir():
        parser.error(
            f"no latents in {args.work}: run `python -m pocket.train latents`, or name --work"
        )
    return args


def main(arguments: list[str] | None = None) -> list[Row]:
    """Train and measure variants (default: all), print and store their rows, and return them."""
    args = parse_arguments(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench = None
    rows: list[Row] = []
    for name in args.groups:
        path = args.out / f"{name}.json"
        if not path.exists():
            bench = bench or Bench(device, args.samples, args.images, args.work)
            module, result = bench.train(VARIANTS[name])
            torch.compiler.reset()
            result |= bench.image_scores(module.unet, args.out / f"{name}.png")
            error = denoiser.held_out_error(module, bench.data)
            result |= {"error": error, "floor": bench.floor}
            result |= {"machine": machine(), "date": today(), "versions": versions()}
            path.write_text(json.dumps(result))
            del module
            torch.cuda.empty_cache()
        rows += variant_rows(name, VARIANTS[name], json.loads(path.read_text()))
    print(table(rows))
    if args.samples >= SAMPLES and args.images >= IMAGES:
        store(RESULTS / "training.json", rows)
    return rows


if __name__ == "__main__":
    main()
