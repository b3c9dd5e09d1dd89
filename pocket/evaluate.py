"""How good is the embedded model: `python -m pocket.evaluate` prints one table and writes evaluation.json.

The judge that reads the generated images took no part in making them, and its readings of real renders of
the same captions stand beside. The full run needs a GPU; `--images 100` fits a CPU and stores no row that
it measured on less than the full number of images.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image, ImageDraw
from skimage.color import deltaE_ciede2000, rgb2lab
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModelForImageClassification

from course.figures import Row, machine, run_on_two_cores, store, table
from pocket import arguments as options
from pocket.cpu_speed import sample_on_cpu
from pocket.test_set import Asked, ask_known
from pocket.train import judge as judging
from pocket.train.autoencoder import to_input
from pocket.train.data import resize
from pocket.train.export import (
    CORE_BUDGET,
    DEPENDENT_PARTS,
    FILE_BUDGET,
    MIB,
    TOTAL_BUDGET,
    folder_size,
)
from pocket.train.perceptual import DISTORTIONS, PerceptualDistance, order
from pocket.train.run import DEPENDENT_STAGES
from pocket.world import render
from pocket.world import vocabulary as v
from pocket.world.measure import agreement, images_per_second

IMAGES = 2000
STEPS = 25
DISTORTED = 32  # images that try the perceptual distance
GUIDANCE = 7.5  # the pipeline's own default: what a plain call does
# Attributes with the figures that the project has set itself, in percent: judge on renders, images by the model.
BARS: dict[str, tuple[float | None, float | None]] = {
    "object": (98, 95), "color": (97, 93), "ground": (98, 95), "view": (95, 90), "relation": (95, 85),
    "landscape": (98, 95), "object2": (None, None), "pattern": (None, None), "lighting": (None, None),
    "style": (None, None), "time": (None, None), "weather": (None, None), "color2": (None, None),
    "pattern2": (None, None), "count": (None, None), "size": (None, None), "size2": (None, None), "pose": (None, None),
}  # fmt: skip
PROMPTS = (
    "a photo of an astronaut riding a horse on mars",
    "a hamburger",
    "a squirrel reading a book",
    "a bunny sitting on top of a stack of pancakes",
    "a city skyline at night",
)
# What the judge sees of what is asked for


def draw(asked: Asked, device: torch.device, samples: int = 4) -> Tensor:
    """Renders of the scenes themselves: uint8 (N, 256, 256, 3) on the CPU."""
    parts = [asked.scenes.params[i : i + 250] for i in range(0, len(asked), 250)]
    return torch.cat([render(part, samples=samples, device=device).color.cpu() for part in parts])


def scored(
    labels: np.ndarray, mentions: Sequence[frozenset[str]] | None = None
) -> dict[str, np.ndarray]:
    """Which scenes count for which attribute, bool (N,) each: the published rule of the scores.

    An attribute counts where the scene has it and, for images made from captions, the caption names it. A
    colour counts only where it was given, and style, lighting and surface let it show (`judge.color_shows`);
    a view only of objects that have a front.

    labels: (N,) of vocabulary.LABELS; mentions: what each caption names, None for renders, which show all.
    """
    rows = {name: labels[name] >= 0 for name in BARS if name != "view"}
    for which in ("", "2"):
        rows[f"color{which}"] &= judging.color_shows(labels, which)
    rows["count"] &= labels["relation"] == 0
    rows["view"] = judging.has_front(labels)
    if mentions is None:
        return rows
    return {
        name: row & np.array([name in named for named in mentions]) for name, row in rows.items()
    }


def right(labels: np.ndarray, seen: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Whether the judge's reading of each attribute is the scene's, bool (N,) each; see `scored` for where it counts.

    A view is right within 15 degrees of the range of its word (`judge.view_right`). What the judge was not trained to
    read is left out.
    """
    wanted = judging.targets(labels)
    found = {}
    for name in ("view", *(name for name in BARS if name in seen)):
        if name == "view":
            words = [
                v.view_word(a, e)
                for a, e in zip(labels["azimuth"], labels["elevation"], strict=True)
            ]
            readings = zip(words, seen["azimuth"], seen["overhead"] == "yes", strict=True)
            found[name] = np.array([judging.view_right(*reading) for reading in readings], bool)
        else:
            classes = np.array(judging.GROUPS[name])
            found[name] = (
                classes[wanted[name].clip(0)] == seen[name]
            )  # SKIP is negative, and never scored
    return found


class Judge:
    """The shipped judge on a device."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.model = AutoModelForImageClassification.from_pretrained(folder).to(device).eval()
        self.device = device

    def read(self, images: Tensor) -> dict[str, np.ndarray]:
        """What it sees in images uint8 (N, H, W, 3): `judge.read`."""
        parts = images.split(250)
        size = self.model.config.image_size
        logits = torch.cat(
            [judging.judge(self.model, part.to(self.device), size).cpu() for part in parts]
        )
        return judging.read(logits, self.model.config.id2label)


def percent_rows(
    group: str,
    title: str,
    rows: dict[str, np.ndarray],
    hits: dict[str, np.ndarray],
    bars: dict[str, float | None],
) -> list[Row]:
    """A row for each attribute that is read and counts somewhere: the share of right readings in percent."""
    return [
        Row(
            f"pocket.{group}.{name}",
            f"{title}: {name}",
            round(100 * float(hits[name][rows[name]].mean()), 2),
            "%",
            bar=bars.get(name),
        )
        for name in BARS
        if name in hits and rows[name].any()
    ]


# Images


@torch.no_grad()
def generate(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    batch: int = 10,
    conditions: Tensor | None = None,
) -> Tensor:
    """Images of prompts, uint8 (N, 256, 256, 3) on the CPU; each seed gives its noise, drawn on the CPU.

    conditions: float (N, 3, 256, 256) in [0, 1] for a pipeline with a ControlNet.
    """
    size = pipe.unet.config.sample_size
    found = []
    for i in tqdm(range(0, len(prompts), batch), desc="images", unit_scale=batch, leave=False):
        noise = [
            torch.randn(1, 4, size, size, generator=torch.Generator().manual_seed(s))
            for s in seeds[i : i + batch]
        ]
        given = {} if conditions is None else {"image": conditions[i : i + batch].to(pipe.device)}
        images = pipe(
            list(prompts[i : i + batch]),
            **given,
            latents=torch.cat(noise).to(pipe.device, pipe.dtype),
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="pt",
        ).images
        found.append((images.permute(0, 2, 3, 1) * 255).round().byte().cpu())
    return torch.cat(found)


def sheet(images: Tensor, captions: Sequence[str], columns: int, size: int = 192) -> Image.Image:
    """Images uint8 (N, H, W, 3) in a grid, each with its caption below."""
    lines, rows = 3, -(-len(images) // columns)
    page = Image.new("RGB", (columns * (size + 8) + 8, rows * (size + 12 * lines + 8) + 8), "white")
    pen = ImageDraw.Draw(page)
    for i, (image, text) in enumerate(zip(images, captions, strict=True)):
        x, y = 8 + i % columns * (size + 8), 8 + i // columns * (size + 12 * lines + 8)
        page.paste(
            Image.fromarray(image.numpy()).resize((size, size), Image.Resampling.LANCZOS), (x, y)
        )
        said, line = [], ""
        for word in text.split():
            if pen.textlength(f"{line} {word}") > size:
                said.append(line)
                line = ""
            line = f"{line} {word}".strip()
        for k, part in enumerate([*said, line][:lines]):
            pen.text((x, y + size + 1 + 12 * k), part, fill="black")
    return page


def save_sheet(path: Path, images: Tensor, captions: Sequence[str], columns: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet(images, captions, columns).save(path, quality=88)


# The groups of figures


@dataclass
class Evaluation:
    """What every group of figures needs."""

    weights: Path
    device: torch.device
    images: int = IMAGES
    guidance: float = GUIDANCE
    samples: Path | None = None  # the folder of the sample sheets
    work: Path = Path("outputs/pocket")  # where training left its latents
    _pipe: StableDiffusionPipeline | None = None

    @property
    def pipe(self) -> StableDiffusionPipeline:
        """The pipeline as a plain call loads it, on the device."""
        if self._pipe is None:
            self._pipe = StableDiffusionPipeline.from_pretrained(
                self.weights / "stable-diffusion"
            ).to(self.device)
            self._pipe.set_progress_bar_config(disable=True)
        return self._pipe

    @property
    def batch(self) -> int:
        """Images made at a time: decoding 250 in float32 wants some 30 GB."""
        if self.device.type != "cuda":
            return 10
        return 250 if torch.cuda.get_device_properties(self.device).total_memory > 40e9 else 32

    def share(self, part: float) -> int:
        """That part of the number of images, at least two."""
        return max(2, round(part * self.images))

    def ask(self, count: int, split: str, first: int = 0) -> Asked:
        """Test scenes in words that the weights know: `test_set.ask_known`."""
        return ask_known(self.weights, count, split, first)

    def generate(self, asked: Asked) -> Tensor:
        seeds = [int(seed) % 2**32 for seed in asked.scenes.labels["seed"]]
        return generate(self.pipe, asked.prompts, seeds, guidance=self.guidance, batch=self.batch)

    def show(self, name: str, images: Tensor, captions: Sequence[str], columns: int) -> None:
        if self.samples:
            save_sheet(self.samples / f"{name}.jpg", images, captions, columns)


def mean_colors(images: Tensor, mask: Tensor) -> Tensor:
    """Mean sRGB colour in [0, 1], float64 (N, 3), of images uint8 (N, H, W, 3) where mask (N, H, W) is set."""
    weight = mask.double()[..., None]
    return (images.double() * weight).sum((1, 2)) / weight.sum((1, 2)) / 255


def color_errors(a: Tensor, b: Tensor) -> np.ndarray:
    """CIEDE2000 differences (N,) of sRGB colours (N, 3) in [0, 1]."""
    return deltaE_ciede2000(*(rgb2lab(x.cpu().numpy()[:, None])[:, 0] for x in (a, b)))


@torch.no_grad()
def autoencoder_rows(e: Evaluation) -> list[Row]:
    """PSNR and the error of the mean object colour on held-out renders, as many as half the images."""
    vae = AutoencoderKL.from_pretrained(e.weights / "stable-diffusion" / "vae").to(e.device).eval()
    asked = e.ask(e.share(0.5), "all")
    psnr, errors, first = [], [], []
    for i in range(0, len(asked), 50):
        drawn = render(asked.scenes.params[i : i + 50], device=e.device)
        x = to_input(drawn.color)
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
        back = ((y + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
        difference = (back.double() - drawn.color.double()) / 255
        psnr.append(-10 * difference.square().mean((1, 2, 3)).clamp_min(1e-10).log10().cpu())
        has = drawn.mask.flatten(1).any(1)
        pair = [mean_colors(images[has], drawn.mask[has]) for images in (drawn.color, back)]
        errors.append(color_errors(*pair))
        first.append(torch.stack([drawn.color, back], dim=1).flatten(0, 1).cpu())
    both = torch.cat(first)[:32]
    e.show("autoencoder", both, ["render", "reconstruction"] * (len(both) // 2), columns=8)
    return [
        Row(
            "pocket.autoencoder.psnr",
            "autoencoder: PSNR on held-out renders",
            round(float(torch.cat(psnr).mean()), 2),
            "dB",
            bar=31,
        ),
        Row(
            "pocket.autoencoder.color_error",
            "autoencoder: mean error of the object's color",
            round(float(np.concatenate(errors).mean()), 2),
            "dE2000",
            "<=",
            3,
        ),
    ]


def judge_rows(e: Evaluation) -> list[Row]:
    """The judge on real renders of all compositions, everything that they show."""
    asked = e.ask(e.images, "all")
    seen = Judge(e.weights / "judge", e.device).read(draw(asked, e.device))
    bars = {name: bar for name, (bar, _) in BARS.items()}
    return percent_rows(
        "judge",
        "judge on renders",
        scored(asked.scenes.labels),
        right(asked.scenes.labels, seen),
        bars,
    )


def image_rows(e: Evaluation) -> list[Row]:
    """Images made from captions of the full grammar, as the judge reads them, beside renders of the same scenes."""
    asked = e.ask(e.images, "all")
    labels, judge = asked.scenes.labels, Judge(e.weights / "judge", e.device)
    counts = scored(labels, asked.mentions)
    images = e.generate(asked)
    e.show("captions", images[:40], asked.prompts[:40], columns=8)
    seeds = list(range(4)) * len(PROMPTS)
    prompts = [prompt for prompt in PROMPTS for _ in range(4)]
    e.show(
        "prompts",
        generate(e.pipe, prompts, seeds, guidance=e.guidance, batch=e.batch),
        prompts,
        columns=4,
    )
    bars = {name: bar for name, (_, bar) in BARS.items()}
    made = percent_rows("images", "images", counts, right(labels, judge.read(images)), bars)
    real = percent_rows(
        "images.renders",
        "renders of the same captions",
        counts,
        right(labels, judge.read(draw(asked, e.device))),
        {},
    )
    return made + real


def composition_rows(e: Evaluation) -> list[Row]:
    """Compositions that training never saw: object and colour both right, where the caption asks for a colour."""
    wanted, first = e.share(0.25), 0
    found: list[Asked] = []
    while (missing := wanted - sum(len(asked) for asked in found)) > 0:
        asked = e.ask(2 * wanted, "heldout", first)
        counts = scored(asked.scenes.labels, asked.mentions)
        chosen = np.flatnonzero(counts["object"] & counts["color"])[:missing].tolist()
        if chosen:  # about a third of the captions name a colour that shows; of a few, perhaps none
            found.append(asked.pick(chosen))
        first += 2 * wanted
    judge = Judge(e.weights / "judge", e.device)
    both: list[np.ndarray] = []
    real: list[np.ndarray] = []
    for k, asked in enumerate(found):
        images, labels = e.generate(asked), asked.scenes.labels
        if k == 0:
            e.show("compositions", images[:24], asked.prompts[:24], columns=8)
        for hits, shown in ((both, images), (real, draw(asked, e.device))):
            seen = right(labels, judge.read(shown))
            hits.append(seen["object"] & seen["color"])
    rates = [round(100 * float(np.concatenate(hits).mean()), 2) for hits in (both, real)]
    return [
        Row(
            "pocket.compositions.images",
            "compositions never trained on: object and color both right",
            rates[0],
            "%",
            bar=85,
        ),
        Row(
            "pocket.compositions.renders",
            "renders of the same compositions: object and color both right",
            rates[1],
            "%",
        ),
    ]


@torch.no_grad()
def perceptual_rows(e: Evaluation) -> list[Row]:
    """Whether the perceptual distance grows with the strength of a distortion: in the mean, and image by image."""
    distance = (
        PerceptualDistance.load(e.weights / "clip", e.weights / "perceptual").to(e.device).eval()
    )
    drawn = render(e.ask(DISTORTED, "all").scenes.params, device=e.device).color
    x = resize(to_input(drawn), distance.image_size).contiguous()
    rows, each = [], order(distance, x)
    for name, distort in DISTORTIONS.items():
        strengths = torch.linspace(0, 1, 7, device=e.device)[:, None].expand(-1, len(x))
        torch.manual_seed(0)
        means = torch.stack(
            [distance(x, distort(x, strength)).mean() for strength in strengths[1:]]
        )
        grown = 100 * float((means.diff() > 0).float().mean())
        bar = 100 if name in ("blur", "noise", "shift", "hue") else None
        rows.append(
            Row(
                f"pocket.perceptual.{name}",
                f"perceptual distance: mean grows with {name}",
                round(grown, 2),
                "%",
                bar=bar,
            )
        )
        rows.append(
            Row(
                f"pocket.perceptual.{name}_each",
                f"perceptual distance: grows with {name}, each image",
                round(100 * each[name], 2),
                "%",
            )
        )
    return rows


def speed_rows(e: Evaluation) -> list[Row]:
    """Seconds and memory of one image on two CPU cores in float32, in a process of its own."""
    start = time.time()
    result = run_on_two_cores(sample_on_cpu, str(e.weights / "stable-diffusion"), str(STEPS))
    cold_start = result["first_image_at"] - start
    where = machine(gpu=False)
    about = "CPU, two cores"
    rows = [
        Row(
            "pocket.speed.image",
            f"{about}: one image, {STEPS} guided steps",
            round(result["image"], 2),
            "s",
            "<=",
            6,
        ),
        Row("pocket.speed.step", f"{about}: one guided step", round(result["step"], 3), "s", "<="),
        Row(
            "pocket.speed.memory",
            f"{about}: peak memory",
            round(result["memory"], 1),
            "MiB",
            "<=",
            1536,
        ),
        Row(
            "pocket.speed.cold_start",
            f"{about}: from a cold start to the first image",
            round(cold_start, 2),
            "s",
            "<=",
            60,
        ),
    ]
    for row in rows:
        row.machine = where
    return rows


def size_rows(e: Evaluation) -> list[Row]:
    """Bytes and parameters of what ships."""
    sizes = [path.stat().st_size for path in e.weights.rglob("*") if path.is_file()]
    following = sum(folder_size(e.weights / part) for part in DEPENDENT_PARTS)
    parameters = sum(p.numel() for p in e.pipe.unet.parameters())
    return [
        Row(
            "pocket.sizes.total",
            "weights in all",
            round(sum(sizes) / MIB, 2),
            "MiB",
            "<=",
            TOTAL_BUDGET / MIB,
        ),
        Row(
            "pocket.sizes.text_to_image",
            "weights without ControlNets and estimators",
            round((sum(sizes) - following) / MIB, 2),
            "MiB",
            "<=",
            CORE_BUDGET / MIB,
        ),
        Row(
            "pocket.sizes.largest_file",
            "largest file",
            round(max(sizes) / MIB, 2),
            "MiB",
            "<=",
            FILE_BUDGET / MIB,
        ),
        Row(
            "pocket.sizes.denoiser",
            "parameters of the denoiser",
            round(parameters / 1e6, 2),
            "M",
            "<=",
            30,
        ),
    ]


def renderer_rows(e: Evaluation) -> list[Row]:
    """How fast the world is drawn, and how closely CPU and GPU agree."""
    where = e.device.type
    rows = []
    for kind, bar in (("object", 3000), ("landscape", 1000)):
        rate = round(
            images_per_second(kind, where, batch=256 if where == "cuda" else 4, rounds=9), 1
        )
        if where == "cuda":
            share, equal = agreement(kind)
            rows += [
                Row(
                    f"pocket.renderer.cuda.{kind}_rate",
                    f"renderer, GPU: images of {kind}s",
                    rate,
                    "1/s",
                    bar=bar,
                ),
                Row(
                    f"pocket.renderer.cuda.{kind}_agreement",
                    f"renderer: {kind}s within 2/255 on CPU and GPU",
                    round(100 * share, 3),
                    "%",
                    bar=99.9,
                ),
                Row(
                    f"pocket.renderer.cuda.{kind}_repeatable",
                    f"renderer: {kind}s sampled twice are bit-equal",
                    float(equal),
                    "",
                    bar=1,
                ),
            ]
        else:
            rows.append(
                Row(
                    f"pocket.renderer.cpu.{kind}_rate",
                    f"renderer, CPU: images of {kind}s",
                    rate,
                    "1/s",
                )
            )
    return rows


def training_rows(e: Evaluation) -> list[Row]:
    """What the weights of the text-to-image model have cost, from the record that the export stage keeps beside them.

    Those of the ControlNets and estimators are rows of `python -m benchmarks.control`.
    """
    record = json.loads((e.weights / "training.json").read_text())
    record = {
        stage: runs
        for stage, runs in record.items()
        if stage not in (*map(str, DEPENDENT_STAGES), "conditions")
    }
    minutes = {
        stage: sum(run["seconds"] * run["processes"] for run in runs) / 60
        for stage, runs in record.items()
    }
    where = ", ".join(sorted({run["device"] for runs in record.values() for run in runs}))
    rows = [
        Row(
            f"pocket.training.{stage}",
            f"training: {stage}",
            round(cost, 1),
            "GPU-min",
            "<=",
            50,
            machine=where,
        )
        for stage, cost in minutes.items()
    ]
    return [
        Row(
            "pocket.training.all",
            "training: all stages",
            round(sum(minutes.values()), 1),
            "GPU-min",
            "<=",
            120,
            machine=where,
        ),
        *rows,
    ]


def scaling_rows(e: Evaluation) -> list[Row]:
    """Training steps of the denoiser on two GPUs against one: samples a second, each process with the same batch."""
    if torch.cuda.device_count() < 2:
        print("scaling needs two GPUs: left out")
        return []
    rates = []
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as work:
            (Path(work) / "latents").symlink_to((e.work / "latents").resolve())
            command = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                f"--nproc_per_node={processes}",
            ]
            command += [
                "-m",
                "pocket.train",
                "denoiser",
                "--steps",
                "200",
                "--work",
                work,
                "--weights",
                str(e.weights),
            ]
            subprocess.run(
                command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            rows = json.loads((Path(work) / "denoiser" / "curve.json").read_text())["rows"]
        late = [row for row in rows if row["step"] > 60]  # the first steps warm up
        rates.append(
            processes
            * (late[-1]["step"] - late[0]["step"])
            / (late[-1]["seconds"] - late[0]["seconds"])
        )
    return [
        Row(
            "pocket.scaling.two_gpus",
            "training: two GPUs against one, denoiser",
            round(rates[1] / rates[0], 3),
            "x",
            bar=1.8,
        )
    ]


@dataclass(frozen=True)
class Group:
    """A group of figures; `counts` where they depend on the number of images."""

    rows: Callable[[Evaluation], list[Row]]
    counts: bool = True


GROUPS: dict[str, Group] = {
    "sizes": Group(size_rows, counts=False),
    "autoencoder": Group(autoencoder_rows),
    "judge": Group(judge_rows),
    "images": Group(image_rows),
    "compositions": Group(composition_rows),
    "perceptual": Group(perceptual_rows, counts=False),
    "speed": Group(speed_rows, counts=False),
    "renderer": Group(renderer_rows, counts=False),
    "training": Group(training_rows, counts=False),
    "scaling": Group(scaling_rows, counts=False),
}


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measures the groups asked for, prints their table, stores it and returns its rows."""
    parser = argparse.ArgumentParser(prog="python -m pocket.evaluate", description=__doc__)
    parser.add_argument("groups", nargs="*", help=f"any of {', '.join(GROUPS)} (default: all)")
    parser.add_argument(
        "--images",
        type=options.integer(2, 1_000_000),
        default=IMAGES,
        help="fewer give figures that are printed, but not stored",
    )
    parser.add_argument("--guidance", type=options.number(0, 1000), default=GUIDANCE)
    parser.add_argument("--weights", type=options.folder, default=Path("pocket/weights"))
    parser.add_argument(
        "--work",
        type=options.folder,
        default=Path("outputs/pocket"),
        help="scaling: holds the latents",
    )
    args = parser.parse_args(arguments)
    unknown = set(args.groups) - set(GROUPS)
    if unknown:
        parser.error(f"no group {', '.join(sorted(unknown))}: choose from {', '.join(GROUPS)}")
    if not (args.weights / "manifest.json").is_file():
        parser.error(
            f"no weights in {args.weights}: run `python -m pocket.train all`, or name their folder by --weights"
        )
    try:
        results = options.results_file(str(args.weights / "evaluation.json"))
    except argparse.ArgumentTypeError as error:
        parser.error(f"--weights: {error}")
    torch.set_float32_matmul_precision("high")
    full = args.images >= IMAGES and args.guidance == GUIDANCE
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    samples = args.weights / "samples" if full else None
    e = Evaluation(args.weights, device, args.images, args.guidance, samples, args.work)
    everything: list[Row] = []
    for name in args.groups or GROUPS:
        began = time.perf_counter()
        try:
            rows = GROUPS[name].rows(e)
        except OSError as error:  # a missing file, a folder that may not be written, a full disk
            parser.error(f"{name}: {error}")
        for row in (
            rows
        ):  # whatever folders and other groups this run was given: this is what measures it again
            row.command = f"python -m pocket.evaluate {name}"
        print(f"\n{name} ({time.perf_counter() - began:.0f} s)\n{table(rows)}", flush=True)
        if full or not GROUPS[name].counts:
            store(results, rows)
        everything += rows
    return everything


if __name__ == "__main__":
    main()
