"""How well do the ControlNets control: `python -m benchmarks.control` prints a table and writes its rows.

For test scenes that nothing was trained on: a condition is taken from the scene, an image is made by it and by a
caption (25 steps, guidance 3, as in lesson 1.3), and the condition is read from the image again. Beside it stand the
same prompts and seeds without control, and what can be reached at all: real renders, or where a render is the
condition's own source, the render after it went through the autoencoder.

- canny: F1 of edge pixels that lie within 2 pixels of an edge of the other; `canny` of
  `course.images.conditions` on both sides, with its defaults (thresholds 100 and 200 after a blur of 1.4 pixels).
  scribble: the same on strokes.
- depth: Spearman's correlation between the exact inverse depth and what the shipped estimator reads, inside the
  mask of the scene's objects: over the whole image the ground alone would flatter it.
- normals: the mean angle inside that mask.
- object: whether the judge reads the right object, where the caption names it.

The estimators and the judge took no part in making the images. Fewer images, or another guidance, print rows
and store none.

`cost` says what the networks weigh, and what training them took. `two_gpus` trains one for edges from scratch on two GPUs,
from the conditions in --work, and measures it as `canny` does; it is left out where there are no two.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
)
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.common import RESULTS, command_line
from course.figures import Row, report
from course.images import conditions as read
from course.images import image_grid
from course.metrics import Judge
from course.models.estimators import Estimator
from pocket.arguments import folder, integer, number, results_file
from pocket.test_set import (
    STEPS,
    CaptionedScenes,
    correct_masks,
    generate,
    load_test_set,
    scored_masks,
)
from pocket.train import conditions as given
from pocket.train.conditions import to_control
from pocket.train.export import BUDGETS, MIB, folder_size
from pocket.train.images import normalize, to_float
from pocket.train.latents import fingerprint
from pocket.train.run import CONDITIONS, Stage
from pocket.world import Rendered, render

IMAGES = 200
GUIDANCE = 3.0  # as lesson 1.3 has it; --guidance shows what more of it does to the outlines
WITHIN = 2  # pixels
FIGURE = {  # figure, unit, and which way it is good
    "canny": ("edges, F1 within 2 pixels", "", ">="),
    "depth": ("depth, Spearman inside the mask", "", ">="),
    "normals": ("normals, mean angle inside the mask", "degrees", "<="),
    "scribble": ("strokes, F1 within 2 pixels", "", ">="),
}
BARS = {"canny": 0.60, "depth": 0.85, "normals": 20.0}  # with control


def edge_f1(found: np.ndarray, wanted: np.ndarray, within: int = WITHIN) -> float:
    """F1 of two maps of lines (H, W), where a pixel is right if the other map has one within so many pixels.

    1 where both are empty, 0 where one is.
    """
    found, wanted = found > 0, wanted > 0
    if not found.any() or not wanted.any():
        return float(not found.any() and not wanted.any())
    reach = np.arange(-within, within + 1)
    disc = (reach[:, None] ** 2 + reach**2 <= within**2).astype(np.uint8)
    near = lambda lines: cv2.dilate(lines.astype(np.uint8), disc) > 0
    precision, recall = near(wanted)[found].mean(), near(found)[wanted].mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def spearman(found: np.ndarray, wanted: np.ndarray, mask: np.ndarray) -> float:
    """Spearman's rank correlation of two maps (H, W) inside a mask: 0 where what was found is flat there, NaN, since
    there is nothing to find, where the mask is empty or what was wanted is flat."""
    inside = mask > 0
    if not inside.any() or np.ptp(wanted[inside]) == 0:
        return float("nan")
    return (
        0.0
        if np.ptp(found[inside]) == 0
        else float(spearmanr(found[inside], wanted[inside]).statistic)
    )


def mean_angle(found: np.ndarray, wanted: np.ndarray, mask: np.ndarray) -> float:
    """Mean angle in degrees between two maps of normals (H, W, 3) inside a mask. A normal of length 0, where one sees
    no surface and the other does, counts as 90 degrees. NaN where the mask is empty."""
    inside = mask > 0
    if not inside.any():
        return float("nan")
    cosine = (found[inside] * wanted[inside]).sum(axis=1).clip(-1, 1)
    return float(np.rad2deg(np.arccos(cosine)).mean())


@dataclass
class Benchmark:
    """The test scenes, and what all kinds of control share."""

    weights: Path
    device: torch.device
    images: int = IMAGES
    guidance: float = GUIDANCE
    shown: dict[str, list[np.ndarray]] = field(default_factory=dict)

    @cached_property
    def asked(self) -> CaptionedScenes:
        """Scenes with objects, one caption of each."""
        asked = load_test_set(self.weights, 2 * self.images + 8, "all")
        return asked.pick(
            np.flatnonzero(asked.scenes.labels["object"] >= 0)[: self.images].tolist()
        )

    @cached_property
    def drawn(self) -> Rendered:
        """The scenes themselves, on the device."""
        parts = [
            render(part, device=self.device)
            for part in np.array_split(self.asked.scenes.params, -(-len(self.asked) // 100))
        ]
        return Rendered(
            *(
                torch.cat([getattr(part, name) for part in parts])
                for name in ("color", "depth", "normal", "mask")
            )
        )

    @cached_property
    def pipe(self) -> StableDiffusionPipeline:
        pipe = StableDiffusionPipeline.from_pretrained(self.weights / "stable-diffusion").to(
            self.device
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @cached_property
    def judge(self) -> Judge:
        return Judge(self.device, self.weights / "judge")

    def generate(self, pipe: StableDiffusionPipeline, conditions: Tensor | None = None) -> Tensor:
        """An image of each scene's caption, uint8 (N, 256, 256, 3) on the CPU, from the seed of the scene."""
        seeds = [int(seed) % 2**32 for seed in self.asked.scenes.labels["seed"]]
        batch = 100 if self.device.type == "cuda" else 4
        return generate(pipe, self.asked.prompts, seeds, STEPS, self.guidance, batch, conditions)

    @cached_property
    def free(self) -> Tensor:
        """Images without control."""
        return self.generate(self.pipe)

    @cached_property
    def rebuilt(self) -> Tensor:
        """The renders after they went through the autoencoder, uint8 (N, 256, 256, 3) on the CPU."""
        vae: AutoencoderKL = self.pipe.vae
        found = []
        with torch.no_grad():
            for part in self.drawn.color.split(20):
                images = vae.decode(
                    vae.encode(normalize(to_float(part))).latent_dist.mode()
                ).sample.clamp(-1, 1)
                found.append(((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu())
        return torch.cat(found)

    def steered(self, kind: str, folder: Path | None = None) -> Tensor:
        """Images with control, by the shipped network or that in a folder."""
        folder = folder or self.weights / "controlnet" / kind
        controlnet = ControlNetModel.from_pretrained(folder).to(self.device)
        pipe = StableDiffusionControlNetPipeline(
            **self.pipe.components, controlnet=controlnet, requires_safety_checker=False
        )
        pipe.set_progress_bar_config(disable=True)
        return self.generate(
            pipe, to_control(given.make_condition(kind, self.drawn, self.asked.scenes.params))
        )

    @cached_property
    def estimators(self) -> dict[str, Estimator]:
        return {
            kind: Estimator(kind, self.weights / "estimators" / kind, self.device)
            for kind in ("depth", "normals")
        }

    def extract(self, kind: str, images: Tensor) -> np.ndarray:
        """The condition that images uint8 (N, 256, 256, 3) show, as a person would take it from them: lines or
        inverse depth (N, H, W), or normals (N, H, W, 3)."""
        if kind in ("canny", "scribble"):
            by = read.canny if kind == "canny" else read.scribble
            return np.stack([by(image)[..., 0] for image in images.cpu().numpy()])
        parts = [
            self.estimators[kind](part.permute(0, 3, 1, 2).float() / 255)
            for part in images.split(20)
        ]
        return torch.cat(parts).cpu().numpy()

    def truth(self, kind: str) -> np.ndarray:
        """The condition of the scenes themselves, in the form of `extract`: exact."""
        params = self.asked.scenes.params
        if kind == "depth":
            return given.inverse_depth(self.drawn.depth).cpu().numpy()
        if kind == "normals":
            return given.camera_normals(self.drawn.normal, params).cpu().numpy()
        return given.make_condition(kind, self.drawn, params).cpu().numpy()

    def fit(self, kind: str, images: Tensor) -> float:
        """How well images keep to the condition: the kind's figure, its mean over the scenes where it can be told."""
        found, wanted, masks = (
            self.extract(kind, images),
            self.truth(kind),
            self.drawn.mask.cpu().numpy(),
        )
        if kind in ("canny", "scribble"):
            values = [edge_f1(a, b) for a, b in zip(found, wanted, strict=True)]
        else:
            by = spearman if kind == "depth" else mean_angle
            values = [by(a, b, mask) for a, b, mask in zip(found, wanted, masks, strict=True)]
        return float(np.nanmean(values))

    def object_right(self, images: Tensor) -> float:
        """In how many images, in percent, the judge sees the right object, where the caption names it."""
        labels = self.asked.scenes.labels
        counts = scored_masks(labels, self.asked.mentions)["object"]
        return 100 * float(
            correct_masks(labels, self.judge.classify(images))["object"][counts].mean()
        )


def kind_rows(kind: str, b: Benchmark) -> list[Row]:
    """Control by one kind of condition, beside no control and beside what can be reached."""
    name, unit, sense = FIGURE[kind]
    steered, best = b.steered(kind), b.rebuilt if kind in ("canny", "scribble") else b.drawn.color
    b.shown[kind] = sheet_line(kind, b, steered)
    value, free, most = (b.fit(kind, images) for images in (steered, b.free, best))
    key = f"control.{kind}"
    rows = [
        Row(f"{key}.score", f"{name}: with control", round(value, 3), unit, sense, BARS.get(kind)),
        Row(f"{key}.score_uncontrolled", f"{name}: no control", round(free, 3), unit, sense),
        Row(
            f"{key}.score_limit",
            f"{name}: {'renders through the autoencoder' if kind in ('canny', 'scribble') else 'real renders'}",
            round(most, 3), unit, sense,
        ),
    ]  # fmt: skip
    if kind == "canny":
        rows.append(
            Row(
                f"{key}.gain",
                f"{name}: with control against none",
                round(value / max(free, 1e-6), 2),
                "x",
                ">=",
                3,
            )
        )
    if kind == "depth":
        rows.append(
            Row(f"{key}.gain", f"{name}: gained by control", round(value - free, 3), "", ">=", 0.3)
        )
    percent = {
        "with control": ("object", steered, 90),
        "no control": ("object_uncontrolled", b.free, None),
        "real renders": ("object_limit", b.drawn.color, None),
    }
    rows += [
        Row(
            f"{key}.{end}",
            f"object right, {kind}: {which}",
            round(b.object_right(images), 2),
            "%",
            ">=",
            bar,
        )
        for which, (end, images, bar) in percent.items()
    ]
    return rows


def cost_rows(b: Benchmark) -> list[Row]:
    """What the ControlNets and estimators weigh, and what training them took, compiling included."""
    rows = [
        Row(
            f"control.cost.{part.replace('/', '_')}_size",
            f"size of {part}",
            round(folder_size(b.weights / part) / MIB, 2),
            "MiB",
            "<=",
            budget / MIB,
        )
        for part, budget in BUDGETS.items()
        if (b.weights / part).exists()
    ]
    record = json.loads((b.weights / "training.json").read_text())
    for stage, runs in record.items():
        if stage.startswith(("controlnet-", "estimators-")):
            processes = runs[-1]["processes"]
            bar = {1: 8.0, 2: 5.0}.get(processes) if stage.startswith("controlnet-") else None
            minutes = sum(run["seconds"] for run in runs) / 60
            where = f"{processes} x {runs[-1]['device']}"
            rows.append(
                Row(
                    f"control.cost.{stage.replace('-', '_')}_training",
                    f"training of {stage}",
                    round(minutes, 2),
                    "minutes",
                    "<=",
                    bar,
                    machine=where,
                )
            )
    return rows


def two_gpu_rows(b: Benchmark, conditions: Path, toy: bool = False) -> list[Row]:
    """A ControlNet for edges trained from scratch by two processes, with the stage's own settings: what that takes, and
    whether it controls as well. conditions: what the stage of this name left; if other weights made them, or nothing is
    there, they are drawn anew, elsewhere. toy: a rehearsal by one, with too few conditions to share out."""
    if torch.cuda.device_count() < 2 and not toy:
        print("two_gpus needs two GPUs: left out")
        return []
    with tempfile.TemporaryDirectory() as folder:
        work, source = Path(folder), conditions / "source.json"
        known = json.loads(source.read_text()) if source.exists() and not toy else {}
        ours = {
            name: fingerprint(b.weights / Stage(name).shipped_folder)
            for name in ("autoencoder", "tokenizer")
        }
        if ours.items() <= known.items():
            (work / "conditions").symlink_to(conditions.resolve())
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            f"--nproc_per_node={1 if toy else 2}",
            "--standalone",
        ]
        command += ["-m", "pocket.train", "controlnet", "--condition", "canny", "--work", str(work)]
        command += ["--smoke"] if toy else []
        subprocess.run([*command, "--weights", str(b.weights)], check=True)
        run = json.loads((work / "controlnet-canny" / "curve.json").read_text())
        steered = b.steered("canny", work / "controlnet-canny" / "weights")
    where = f"{run['processes']} x {run['device']}"
    value, free = (b.fit("canny", images) for images in (steered, b.free))
    about = "a ControlNet for edges, trained from scratch on two GPUs"
    return [
        Row(
            "control.two_gpus.time",
            f"{about}: time",
            round(run["seconds"] / 60, 2),
            "minutes",
            "<=",
            5.0,
            machine=where,
        ),
        Row(
            "control.two_gpus.score",
            f"{about}: F1 within {WITHIN} pixels",
            round(value, 3),
            "",
            ">=",
            BARS["canny"],
            machine=where,
        ),
        Row(
            "control.two_gpus.gain",
            f"{about}: against no control",
            round(value / max(free, 1e-6), 2),
            "x",
            ">=",
            3.0,
            machine=where,
        ),
        Row(
            "control.two_gpus.object",
            f"{about}: object right",
            round(b.object_right(steered), 2),
            "%",
            ">=",
            90.0,
            machine=where,
        ),
    ]


def sheet_line(kind: str, b: Benchmark, steered: Tensor, scenes: int = 2) -> list[np.ndarray]:
    """For some scenes: the render, its condition, the image made by it, and what is read from that image."""
    show: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "depth": read.depth_to_image,
        "normals": read.normals_to_image,
    }
    as_image = show.get(kind, lambda lines: (lines > 0).astype(np.float32))
    again, wanted = b.extract(kind, steered[:scenes]), b.truth(kind)
    line: list[np.ndarray] = []
    for i in range(min(scenes, len(steered))):
        line += [
            b.drawn.color[i].cpu().numpy(),
            as_image(wanted[i]),
            steered[i].numpy(),
            as_image(again[i]),
        ]
    return line


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measures what is asked for, prints and stores its rows and returns them."""
    groups = (*CONDITIONS, "cost", "two_gpus")
    parser = command_line("benchmarks.control", __doc__, groups)
    parser.add_argument(
        "--images",
        type=integer(2, 1_000_000),
        default=IMAGES,
        help="fewer give rows that are printed, but not stored",
    )
    parser.add_argument(
        "--guidance",
        type=number(0, 1000),
        default=GUIDANCE,
        help="another gives rows that are printed, but not stored",
    )
    parser.add_argument("--weights", type=folder, default=Path("pocket/weights"))
    parser.add_argument("--results", type=results_file, default=RESULTS / "task1.json")
    parser.add_argument(
        "--work", type=folder, default=Path("outputs/pocket"), help="two_gpus: holds the conditions"
    )
    args = parser.parse_args(arguments)
    asked = args.groups
    needed = [f"controlnet/{kind}" for kind in CONDITIONS if kind in asked]
    needed += [f"estimators/{kind}" for kind in ("depth", "normals") if kind in asked]
    if missing := [part for part in needed if not (args.weights / part / "config.json").exists()]:
        parser.error(
            f"{args.weights} has no {', '.join(missing)}: train them, then run `python -m pocket.train export`"
        )
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    b = Benchmark(args.weights, device, args.images, args.guidance)
    full, everything = args.images >= IMAGES and args.guidance == GUIDANCE, []
    others = {
        "cost": partial(cost_rows, b),
        "two_gpus": partial(two_gpu_rows, b, args.work / "conditions"),
    }
    for group in asked:
        work = others.get(group) or partial(kind_rows, group, b)
        results = args.results if full or group == "cost" else None
        everything += report(f"python -m benchmarks.control {group}", work, results)
    if full and set(CONDITIONS) <= set(asked):
        titles = ["render", "condition", "picture", "read again"] * 2
        images = [image for kind in CONDITIONS for image in b.shown[kind]]
        page = image_grid(images, columns=len(titles), titles=titles, rows=CONDITIONS, side=160)
        (args.weights / "samples").mkdir(exist_ok=True)
        page.save(args.weights / "samples" / "control.jpg", quality=88)
    return everything


if __name__ == "__main__":
    main()
