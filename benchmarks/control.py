"""How well do the ControlNets control? `python -m benchmarks.control`, rows in results/task1.json.

For test scenes that nothing was trained on: a condition is computed from the scene, an image is
generated from it and a caption (25 steps, and guidance 3 as in lesson 1.3), and the condition is
extracted from the image again. The same prompts and seeds without control stand beside, and the
limit: real renders, or where a render is the condition's source, the render after it went through
the autoencoder.

canny      F1 of edge pixels within 2 pixels of an edge of the other; `course.images` extracts them
           on both sides, with its defaults (thresholds 100 and 200 after a blur of 1.4 pixels)
scribble   the same for strokes
depth      Spearman's correlation between the exact inverse depth and that of the shipped estimator,
           inside the mask of the objects: over the whole image, the ground alone would raise it
normals    the mean angle inside that mask
cost       size of the networks, and the time that their training took
two_gpus   trains a ControlNet for edges from scratch on two GPUs from the conditions in --work and
           measures it as `canny` does; left out without two GPUs

For each condition the judge also reads the object, where the caption names it. The estimators and
the judge took no part in generating the images. Fewer images, or another guidance scale, print rows
and store none.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
)
from torch import Tensor

from benchmarks.common import RESULTS, command_line
from course.figures import Row, make_rows, report, run_command
from course.images import conditions as extraction
from course.images import image_grid
from course.metrics import Judge
from course.metrics.control import WITHIN, edge_f1, mean_angle, spearman
from course.models.estimators import Estimator
from pocket.arguments import add_option, folder, integer, number, results_file
from pocket.test_set import (
    STEPS,
    CaptionedScenes,
    correct_masks,
    generate,
    load_pipeline,
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
METRICS = {  # name, unit, and which way it is good
    "canny": ("edges, F1 within 2 pixels", "", ">="),
    "depth": ("depth, Spearman inside the mask", "", ">="),
    "normals": ("normals, mean angle inside the mask", "degrees", "<="),
    "scribble": ("strokes, F1 within 2 pixels", "", ">="),
}
GROUPS = (*CONDITIONS, "cost", "two_gpus")
BARS = {"canny": 0.60, "depth": 0.85, "normals": 20.0}  # with control


@dataclass
class Benchmark:
    """The test scenes, and what all kinds of control share."""

    weights: Path
    device: torch.device
    images: int = IMAGES
    guidance: float = GUIDANCE
    shown: dict[str, list[np.ndarray]] = field(default_factory=dict)

    @cached_property
    def test(self) -> CaptionedScenes:
        """Scenes with objects, one caption of each."""
        test = load_test_set(self.weights, 2 * self.images + 8, "all")
        return test.pick(np.flatnonzero(test.labels["object"] >= 0)[: self.images].tolist())

    @cached_property
    def renders(self) -> Rendered:
        """The scenes themselves, on the device."""
        params = np.array_split(self.test.scenes.params, -(-len(self.test) // 100))
        parts = [vars(render(part, device=self.device)) for part in params]
        return Rendered(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})

    @cached_property
    def pipe(self) -> StableDiffusionPipeline:
        return load_pipeline(self.weights, self.device)

    @cached_property
    def judge(self) -> Judge:
        return Judge(self.device, self.weights / "judge")

    def generate(self, pipe: StableDiffusionPipeline, conditions: Tensor | None = None) -> Tensor:
        """Generate an image of each scene's caption, uint8 (N, 256, 256, 3) on the CPU."""
        batch = 100 if self.device.type == "cuda" else 4
        prompts, seeds = self.test.prompts, self.test.seeds
        return generate(pipe, prompts, seeds, STEPS, self.guidance, batch, conditions)

    @cached_property
    def uncontrolled(self) -> Tensor:
        """Images without control."""
        return self.generate(self.pipe)

    @cached_property
    def reconstructions(self) -> Tensor:
        """The renders after the autoencoder, uint8 (N, 256, 256, 3) on the CPU."""
        vae: AutoencoderKL = self.pipe.vae
        parts = []
        with torch.no_grad():
            for part in self.renders.color.split(20):
                latents = vae.encode(normalize(to_float(part))).latent_dist.mode()
                images = vae.decode(latents).sample.clamp(-1, 1)
                parts.append(((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu())
        return torch.cat(parts)

    def controlled(self, kind: str, folder: Path | None = None) -> Tensor:
        """Generate images with control by the shipped ControlNet, or by that in a folder."""
        folder = folder or self.weights / "controlnet" / kind
        controlnet = ControlNetModel.from_pretrained(folder).to(self.device)
        pipe = StableDiffusionControlNetPipeline(
            **self.pipe.components, controlnet=controlnet, requires_safety_checker=False
        )
        pipe.set_progress_bar_config(disable=True)
        condition = given.make_condition(kind, self.renders, self.test.scenes.params)
        return self.generate(pipe, to_control(condition))

    @cached_property
    def estimators(self) -> dict[str, Estimator]:
        return {
            kind: Estimator(kind, self.weights / "estimators" / kind, self.device)
            for kind in ("depth", "normals")
        }

    def extract(self, kind: str, images: Tensor) -> np.ndarray:
        """Extract the condition of images uint8 (N, 256, 256, 3), as lesson 1.3 does.

        Lines or inverse depth (N, H, W), or normals (N, H, W, 3).
        """
        if kind in ("canny", "scribble"):
            extract = extraction.canny if kind == "canny" else extraction.scribble
            return np.stack([extract(image)[..., 0] for image in images.cpu().numpy()])
        estimator = self.estimators[kind]
        pixels = images.permute(0, 3, 1, 2).split(20)
        return torch.cat([estimator(part.float() / 255) for part in pixels]).cpu().numpy()

    def truth(self, kind: str) -> np.ndarray:
        """Return the exact condition of the scenes, in the form of `extract`."""
        params = self.test.scenes.params
        if kind == "depth":
            return given.inverse_depth(self.renders.depth).cpu().numpy()
        if kind == "normals":
            return given.camera_normals(self.renders.normal, params).cpu().numpy()
        return given.make_condition(kind, self.renders, params).cpu().numpy()

    def score(self, kind: str, images: Tensor) -> float:
        """Return how well images keep to the condition: the mean of the kind's metric."""
        pairs = zip(self.extract(kind, images), self.truth(kind), strict=True)
        if kind in ("canny", "scribble"):
            return float(np.nanmean([edge_f1(*pair) for pair in pairs]))
        metric = spearman if kind == "depth" else mean_angle
        masks = self.renders.mask.cpu().numpy()
        values = [metric(*pair, mask) for pair, mask in zip(pairs, masks, strict=True)]
        return float(np.nanmean(values))

    def object_percent(self, images: Tensor) -> float:
        """Return the percentage of images whose object the judge reads right, if it is named."""
        labels = self.test.labels
        counts = scored_masks(labels, self.test.mentions)["object"]
        correct = correct_masks(labels, self.judge.classify(images))["object"]
        return 100 * float(correct[counts].mean())


def kind_rows(kind: str, b: Benchmark) -> list[Row]:
    """Control by one kind of condition, beside no control and beside the limit."""
    name, *unit_and_sense = METRICS[kind]
    lines = kind in ("canny", "scribble")
    images = b.controlled(kind)
    b.shown[kind] = sheet_line(kind, b, images)
    score, free = (b.score(kind, each) for each in (images, b.uncontrolled))
    limit = b.score(kind, b.reconstructions if lines else b.renders.color)
    limit_name = "renders through the autoencoder" if lines else "real renders"
    figures: list[tuple[Any, ...]] = [
        ("score", "with control", round(score, 3), *unit_and_sense, BARS.get(kind)),
        ("score_uncontrolled", "no control", round(free, 3), *unit_and_sense),
        ("score_limit", limit_name, round(limit, 3), *unit_and_sense),
    ]
    if kind == "canny":
        gain = round(score / max(free, 1e-6), 2)
        figures.append(("gain", "with control against none", gain, "x", ">=", 3))
    if kind == "depth":
        figures.append(("gain", "gained by control", round(score - free, 3), "", ">=", 0.3))
    objects = {
        "object": ("with control", images, 90),
        "object_uncontrolled": ("no control", b.uncontrolled, None),
        "object_limit": ("real renders", b.renders.color, None),
    }
    percents = [
        (key, which, round(b.object_percent(each), 2), "%", ">=", bar)
        for key, (which, each, bar) in objects.items()
    ]
    key = f"control.{kind}"
    return make_rows(key, name, *figures) + make_rows(key, f"object right, {kind}", *percents)


def cost_rows(b: Benchmark) -> list[Row]:
    """Size of the ControlNets and estimators, and the time of their training with compilation."""
    rows = []
    for part, budget in BUDGETS.items():
        if (b.weights / part).exists():
            size = round(folder_size(b.weights / part) / MIB, 2)
            key = f"control.cost.{part.replace('/', '_')}_size"
            rows.append(Row(key, f"size of {part}", size, "MiB", "<=", budget / MIB))
    record = json.loads((b.weights / "training.json").read_text())
    for stage, runs in record.items():
        if stage.startswith(("controlnet-", "estimators-")):
            processes = runs[-1]["processes"]
            bar = {1: 8.0, 2: 5.0}.get(processes) if stage.startswith("controlnet-") else None
            minutes = round(sum(run["seconds"] for run in runs) / 60, 2)
            key = f"control.cost.{stage.replace('-', '_')}_training"
            row = Row(key, f"training of {stage}", minutes, "minutes", "<=", bar)
            row.machine = f"{processes} x {runs[-1]['device']}"
            rows.append(row)
    return rows


def two_gpu_rows(b: Benchmark, conditions: Path, toy: bool = False) -> list[Row]:
    """A ControlNet for edges, trained from scratch by two processes with the stage's own settings.

    conditions: the folder of that stage; if other weights made them, or it is empty, they are made
    again elsewhere. toy: a rehearsal by one process, with few conditions.
    """
    if torch.cuda.device_count() < 2 and not toy:
        print("two_gpus needs two GPUs: left out")
        return []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        source = conditions / "source.json"
        known = json.loads(source.read_text()) if source.exists() and not toy else {}
        ours = {
            name: fingerprint(b.weights / Stage(name).shipped_folder)
            for name in ("autoencoder", "tokenizer")
        }
        if ours.items() <= known.items():
            (work / "conditions").symlink_to(conditions.resolve())
        launch = ["torch.distributed.run", f"--nproc_per_node={1 if toy else 2}", "--standalone"]
        stage = ["pocket.train", "controlnet", "--condition", "canny", "--work", str(work)]
        stage += ["--smoke"] if toy else []
        program = [sys.executable, "-m", *launch, "-m", *stage, "--weights", str(b.weights)]
        run_command(program)
        run = json.loads((work / "controlnet-canny" / "curve.json").read_text())
        images = b.controlled("canny", work / "controlnet-canny" / "weights")
    score, free = (b.score("canny", each) for each in (images, b.uncontrolled))
    return make_rows(
        "control.two_gpus",
        "a ControlNet for edges, trained from scratch on two GPUs",
        ("time", "time", round(run["seconds"] / 60, 2), "minutes", "<=", 5.0),
        ("score", f"F1 within {WITHIN} pixels", round(score, 3), "", ">=", BARS["canny"]),
        ("gain", "against no control", round(score / max(free, 1e-6), 2), "x", ">=", 3.0),
        ("object", "object right", round(b.object_percent(images), 2), "%", ">=", 90.0),
        machine=f"{run['processes']} x {run['device']}",
    )


def sheet_line(kind: str, b: Benchmark, images: Tensor, scenes: int = 2) -> list[np.ndarray]:
    """Return, for some scenes: render, condition, generated image, and extracted condition."""
    to_image: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "depth": extraction.depth_to_image,
        "normals": extraction.normals_to_image,
    }
    show = to_image.get(kind, lambda lines: (lines > 0).astype(np.float32))
    extracted = b.extract(kind, images[:scenes])
    exact = b.truth(kind)
    line: list[np.ndarray] = []
    for i in range(min(scenes, len(images))):
        render = b.renders.color[i].cpu().numpy()
        line += [render, show(exact[i]), images[i].numpy(), show(extracted[i])]
    return line


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options. Exits with a message if weights for a group are missing."""
    parser = command_line("benchmarks.control", __doc__, GROUPS)
    add = partial(add_option, parser)
    text = "number of test images; rows of fewer are not stored"
    add("--images", integer(2, 1_000_000), IMAGES, text)
    add("--guidance", number(0, 1000), GUIDANCE, "guidance scale; rows of another are not stored")
    add("--weights", folder, Path("pocket/weights"), "folder of the weights")
    add("--results", results_file, RESULTS / "task1.json", "results file")
    add("--work", folder, Path("outputs/pocket"), "folder of the conditions, for two_gpus")
    args = parser.parse_args(arguments)
    parts = [f"controlnet/{kind}" for kind in CONDITIONS if kind in args.groups]
    parts += [f"estimators/{kind}" for kind in ("depth", "normals") if kind in args.groups]
    if missing := [part for part in parts if not (args.weights / part / "config.json").exists()]:
        parser.error(
            f"{args.weights} has no {', '.join(missing)}: train them, then run "
            "`python -m pocket.train export`"
        )
    return args


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure groups (default: all), print and store their rows, and return them."""
    args = parse_arguments(arguments)
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    b = Benchmark(args.weights, device, args.images, args.guidance)
    full = args.images >= IMAGES and args.guidance == GUIDANCE
    others = {
        "cost": partial(cost_rows, b),
        "two_gpus": partial(two_gpu_rows, b, args.work / "conditions"),
    }
    rows: list[Row] = []
    for group in args.groups:
        work = others.get(group) or partial(kind_rows, group, b)
        results = args.results if full or group == "cost" else None
        rows += report(f"python -m benchmarks.control {group}", work, results)
    if full and set(CONDITIONS) <= set(args.groups):
        titles = ["render", "condition", "image", "extracted again"] * 2
        images = [image for kind in CONDITIONS for image in b.shown[kind]]
        page = image_grid(images, columns=len(titles), titles=titles, rows=CONDITIONS, side=160)
        (args.weights / "samples").mkdir(exist_ok=True)
        page.save(args.weights / "samples" / "control.jpg", quality=88)
    return rows


if __name__ == "__main__":
    main()
