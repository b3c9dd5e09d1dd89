"""Writes the model card, `pocket/weights/README.md`, and its images from what was measured: `python -m pocket.card`.

No number stands in this file: they come from evaluation.json, training.json and vocabulary.json beside the weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from pocket.arguments import folder
from pocket.evaluate import save_sheet
from pocket.train.data import TEST_SEED
from pocket.train.run import CONDITIONS, ESTIMATED
from pocket.world import caption, heldout_compositions, render, sample_scene

SHOWN = {  # stage: the losses that its curve shows
    "judge": ("object", "color", "ground", "relation"),
    "towers": ("loss",),
    "autoencoder": ("l1", "pyramid", "color"),
    "denoiser": ("loss", "mse"),
    **{f"controlnet-{kind}": ("loss", "mse") for kind in CONDITIONS},
    "estimators-depth": ("loss", "l1"),
    "estimators-normals": ("loss", "cosine"),
}
AUTO = {"depth": "AutoModelForDepthEstimation", "normals": "AutoModelForSemanticSegmentation"}
IMAGES = {
    "samples/prompts.jpg": "The five prompts that people try first, four seeds each.",
    "samples/captions.jpg": "Captions of the full grammar, unselected: the first forty of the evaluation.",
    "samples/compositions.jpg": "Compositions that training never saw, unselected.",
    "samples/autoencoder.jpg": "Renders and what the autoencoder makes of them.",
    "samples/control.jpg": "Renders, their conditions, pictures made by these, and what is read from those again.",
    "samples/world.jpg": "What the model was taught with: scenes of the pocket world and their captions.",
} | {
    f"controlnet/{kind}/strip.jpg": f"How control by {kind} set in: same scenes, same noise, after more and more steps."
    for kind in CONDITIONS
}


def curves(record: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draws each stage's losses against the minutes of training, one panel a stage, runs one after another."""
    stages = [stage for stage in SHOWN if stage in record]
    columns = min(4, len(stages))  # as wide as a page of text
    rows = -(-len(stages) // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(4 * columns, 3 * rows), layout="constrained", squeeze=False
    )
    for panel in panels.flat[len(stages) :]:
        panel.set_axis_off()
    for panel, stage in zip(panels.flat, stages, strict=False):
        for name in SHOWN[stage]:
            minutes, values, before = [], [], 0.0
            for run in record[stage]:
                minutes += [before + row["seconds"] / 60 for row in run["rows"]]
                values += [row[name] for row in run["rows"]]
                before = minutes[-1]
            panel.semilogy(minutes, values, label=name)
        panel.set(title=stage, xlabel="minutes of training", ylabel="loss")
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def world_sheet(path: Path, count: int = 32) -> None:
    """Draws test scenes with their captions."""
    scenes = [sample_scene(TEST_SEED + 10_000 + i) for i in range(count)]
    said = [caption(scene.labels, np.random.default_rng(i))[0] for i, scene in enumerate(scenes)]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    save_sheet(
        path,
        render(np.stack([scene.params for scene in scenes]), device=device).color.cpu(),
        said,
        columns=8,
    )


def figures_table(rows: list[dict[str, Any]]) -> list[str]:
    """The measured rows as a Markdown table."""
    lines = ["| figure | measured | goal | holds |", "| --- | --- | --- | --- |"]
    for row in rows:
        goal = "" if row["bar"] is None else f"{row['sense']} {row['bar']:g}"
        holds = {None: "", True: "yes", False: "**no**"}[row["holds"]]
        lines.append(f"| {row['figure']} | {row['value']:g} {row['unit']} | {goal} | {holds} |")
    return lines


def training_table(record: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What each stage cost, as a Markdown table."""
    lines = ["| stage | steps | processes x minutes | device |", "| --- | --- | --- | --- |"]
    for stage, runs in record.items():
        steps = " + ".join(f"{run['steps']:,}" for run in runs if "steps" in run)
        cost = " + ".join(f"{run['processes']} x {run['seconds'] / 60:.1f}" for run in runs)
        lines.append(
            f"| {stage} | {steps} | {cost} | {', '.join(sorted({run['device'] for run in runs}))} |"
        )
    return lines


def vocabulary_lines(vocabulary: dict[str, list[str]]) -> list[str]:
    """Everything the model knows by name, a line a kind, and every word of its captions."""
    lines = [
        f"- **{kind}**: {', '.join(names)}" for kind, names in vocabulary.items() if kind != "words"
    ]
    return [
        *lines,
        "",
        f"All {len(vocabulary['words'])} words of its captions: {', '.join(vocabulary['words'])}.",
    ]


def heldout_lines(vocabulary: dict[str, list[str]]) -> list[str]:
    """The compositions that training never saw, of things that the weights know by name."""
    names = {name for part, listed in vocabulary.items() if part != "words" for name in listed}
    kinds: dict[str, list[str]] = {}
    for thing, kind, other in sorted(heldout_compositions()):
        if not {thing, other} <= names:
            continue
        known = kind in ("color", "ground")
        said = (
            f"{other} {thing}"
            if kind == "color"
            else f"{thing} on {other}"
            if known
            else f"{thing} {kind} {other}"
        )
        kinds.setdefault(kind if known else "relation", []).append(said)
    return [f"- **{kind}** ({len(said)}): {'; '.join(said)}" for kind, said in kinds.items()]


def following_lines(weights: Path) -> list[str]:
    """Rows of the table of parts for the ControlNets and estimators that ship."""
    described = {
        **{
            f"controlnet/{kind}": (f"steers pictures by {kind}", "ControlNetModel")
            for kind in CONDITIONS
        },
        **{f"estimators/{kind}": (f"reads {kind} from pictures", AUTO[kind]) for kind in ESTIMATED},
    }
    there = {part: said for part, said in described.items() if (weights / part).exists()}
    return [f"| `{part}/` | {what} | `{name}` |" for part, (what, name) in there.items()]


def card(weights: Path) -> str:
    """The text of the card."""
    read = lambda name: json.loads((weights / name).read_text())
    rows, record, vocabulary = (
        read("evaluation.json")["rows"],
        read("training.json"),
        read("vocabulary.json"),
    )
    short = [row for row in rows if row["holds"] is False]
    images = [
        line
        for name, text in IMAGES.items()
        if (weights / name).exists()
        for line in (f"![{text}]({name})", "", text, "")
    ]
    missed = (
        [
            "Short of its goal at present:",
            *(f"- {r['figure']}: {r['value']:g} {r['unit']}" for r in short),
            "",
        ]
        if short
        else []
    )
    return "\n".join(
        [
            "# Pocket Diffusion: model card",
            "",
            "A latent diffusion model small enough to ship with the course: text to pictures of 256x256 pixels, on a",
            "laptop, with no network. It was trained from scratch by this project on scenes that the project draws",
            "itself (`pocket/world`), so no picture of anyone's took part, and everything can be made again.",
            "This page is written by `python -m pocket.card` from what was measured; do not edit it.",
            "",
            "```python",
            "from diffusers import StableDiffusionPipeline",
            "",
            'pipe = StableDiffusionPipeline.from_pretrained("pocket/weights/stable-diffusion")',
            'pipe("a squirrel reading a book", num_inference_steps=25).images[0].save("squirrel.png")',
            "```",
            "",
            "The weights are stored in float16 already, so there is no fp16 variant: leave `variant` out, which",
            "diffusers would answer with a ValueError. They are loaded in float32 unless `dtype=torch.float16` says",
            "otherwise; on a GPU that halves the memory.",
            "",
            "| folder | what | class |",
            "| --- | --- | --- |",
            "| `stable-diffusion/` | text encoder, denoiser, autoencoder, DDIM scheduler | `StableDiffusionPipeline` |",
            "| `clip/` | both towers: CLIP scores and the features of the perceptual distance | `CLIPModel` |",
            "| `perceptual/` | channel weights of the perceptual distance | `course.metrics.perceptual` |",
            "| `judge/` | reads objects, colors, views ... from pictures | `AutoModelForImageClassification` |",
            *following_lines(weights),
            "",
            "## Samples",
            "",
            *images,
            "## How good is it",
            "",
            "`python -m pocket.evaluate` measures these rows again. The judge reads the pictures; it was trained on",
            "renders alone and took no part in making them. Attributes are scored where the caption names them; a",
            "color only where style, lighting and surface show it (not in pencil sketches, at night, on wood or",
            "metal); a view only of objects that have a front, and it is right within 15 degrees of its word's range.",
            "",
            *missed,
            *figures_table(rows),
            "",
            "## What it cannot do",
            "",
            "- It knows the words below and nothing else. Other words pass through its tokenizer, but mean nothing.",
            "- Pictures are renders of simple shapes: no photographs, no people's faces, no writing.",
            "- Two objects at most, in the relations listed; counting, negation and sizes are not in its language.",
            "- Fine detail (eyes, windows, flowers) is at the limit of an autoencoder that shrinks 8 times.",
            "- It is made for 256x256 pixels; panoramas of landscapes go on sideways by joint diffusion.",
            "",
            "## Vocabulary",
            "",
            *vocabulary_lines(vocabulary),
            "",
            "## Never seen in training",
            "",
            "These compositions test whether the model combines what it knows:",
            "",
            *heldout_lines(vocabulary),
            "",
            "## Training",
            "",
            "![loss curves](samples/curves.png)",
            "",
            *training_table(record),
            "",
            "`make pocket` repeats all of it on one GPU, stage by stage; `accelerate launch -m pocket.train STAGE` (or",
            "torchrun) uses several. A stage that was interrupted goes on where it was; `--init` trains on from the",
            "weights; `python -m pocket.train all --smoke` walks through every stage at toy size on a CPU.",
            "",
            "1. `data` draws captioned scenes; `judge` learns to read them.",
            "2. `towers` trains a CLIP on them; its text tower conditions the denoiser.",
            "3. `perceptual` weighs the image tower's features into a distance; `autoencoder` learns to compress.",
            "4. `latents` encodes the scenes and many fresh ones; `denoiser` learns to make them from noise.",
            "5. `conditions` draws scenes with their edges, depth and normals; `controlnet --condition canny` and its",
            "   kin learn to steer the denoiser by them, `estimators` to read depth and normals from pictures.",
            "6. `export` writes this folder; then `python -m pocket.evaluate` and `python -m benchmarks.control`",
            "   measure it and `python -m pocket.card` describes it.",
            "",
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pocket.card", description=__doc__)
    parser.add_argument("--weights", type=folder, default=Path("pocket/weights"))
    weights = parser.parse_args(arguments).weights
    for name in ("training.json", "evaluation.json"):
        if not (weights / name).is_file():
            parser.error(
                f"{weights} has no {name}: run `python -m pocket.train export`, then pocket.evaluate"
            )
    (weights / "samples").mkdir(exist_ok=True)
    curves(json.loads((weights / "training.json").read_text()), weights / "samples" / "curves.png")
    world_sheet(weights / "samples" / "world.jpg")
    (weights / "README.md").write_text(card(weights))
    print(f"wrote {weights / 'README.md'}")


if __name__ == "__main__":
    main()
