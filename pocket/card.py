"""Writes the model card, pocket/weights/README.md, and its images: `python -m pocket.card`.

No number stands in the template: they come from the files beside the weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import jinja2
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from course.figures import load
from pocket.arguments import folder
from pocket.test_set import save_sheet
from pocket.train.run import CONDITIONS, ESTIMATED
from pocket.train.scenes import TEST_SEED
from pocket.world import caption, heldout_compositions, render, sample_scene

TEMPLATE = Path(__file__).with_name("card.md.j2")
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
    "samples/captions.jpg": "The first captions of the evaluation, unselected.",
    "samples/pairs.jpg": "Any two things in any two colors, unselected.",
    "samples/compositions.jpg": "Compositions that training never saw, unselected.",
    "samples/autoencoder.jpg": "Renders and their reconstructions by the autoencoder.",
    "samples/control.jpg": "Renders, conditions, images generated from them, conditions again.",
    "samples/world.jpg": "Training data: scenes of the pocket world and their captions.",
    **{
        f"controlnet/{kind}/strip.jpg": f"Control by {kind} after more and more training steps, "
        "same scenes and same noise."
        for kind in CONDITIONS
    },
}


def curves(record: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Plot the losses of each stage against the minutes of training, one panel a stage."""
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
    """Save a sheet of test scenes with their captions."""
    scenes = [sample_scene(TEST_SEED + 10_000 + i) for i in range(count)]
    texts = [caption(scene.labels, np.random.default_rng(i))[0] for i, scene in enumerate(scenes)]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = render(np.stack([scene.params for scene in scenes]), device=device).color.cpu()
    save_sheet(path, images, texts, columns=8)


def training_stages(record: dict[str, list[dict[str, Any]]]) -> list[dict[str, str]]:
    """Return what each stage cost, a row of the table each; several runs are joined by "+"."""
    return [
        {
            "name": stage,
            "steps": " + ".join(f"{run['steps']:,}" for run in runs if "steps" in run),
            "cost": " + ".join(f"{run['processes']} x {run['seconds'] / 60:.1f}" for run in runs),
            "devices": ", ".join(sorted({run["device"] for run in runs})),
        }
        for stage, runs in record.items()
    ]


def heldout_phrases(vocabulary: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the compositions that training never saw, of things that the weights know, by kind."""
    known = {name for part, names in vocabulary.items() if part != "words" for name in names}
    phrases: dict[str, list[str]] = {}
    for thing, kind, other in sorted(heldout_compositions()):
        if {thing, other} <= known:
            patterns = {"color": f"{other} {thing}", "ground": f"{thing} on {other}"}
            phrase = patterns.get(kind, f"{thing} {kind} {other}")
            phrases.setdefault(kind if kind in patterns else "relation", []).append(phrase)
    return phrases


def optional_parts(weights: Path) -> list[dict[str, str]]:
    """Return the ControlNets and estimators that are there, a row of the table of folders each."""
    parts = [("controlnet", k, f"steers images by {k}", "ControlNetModel") for k in CONDITIONS]
    parts += [("estimators", k, f"reads {k} from images", AUTO[k]) for k in ESTIMATED]
    return [
        {"folder": f"{stage}/{kind}", "purpose": purpose, "loader": loader}
        for stage, kind, purpose, loader in parts
        if (weights / stage / kind).exists()
    ]


def distance_table(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Return the rows of the group `distances` as a table: a head, then a line for each set.

    A cell has the Fréchet distance and, in brackets, the kernel distance times 1,000.
    """
    values = {tuple(row["id"].split(".")[2:]): row["value"] for row in rows}
    parts = list(dict.fromkeys(part for _, _, part, _ in values))
    lines = [["features", "images", *parts]]
    for network, name in dict.fromkeys((network, name) for network, name, _, _ in values):
        lines.append([network, name.replace("_", " ")])
        for part in parts:
            fid, kid = (values[network, name, part, metric] for metric in ("fid", "kid"))
            lines[-1].append(f"{fid:.2f} ({1000 * kid:.2f})")
    return lines


def card(weights: Path) -> str:
    """Return the text of the card: the template filled from the files beside the weights."""
    every = load(weights / "evaluation.json")
    distances = [row for row in every if row["id"].startswith("pocket.distances.")]
    rows = [row for row in every if row not in distances]
    record = json.loads((weights / "training.json").read_text())
    vocabulary = json.loads((weights / "vocabulary.json").read_text())
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.from_string(TEMPLATE.read_text()).render(
        parts=optional_parts(weights),
        images={name: text for name, text in IMAGES.items() if (weights / name).exists()},
        rows=rows,
        distances=distance_table(distances) if distances else [],
        missed=[row for row in rows if row["holds"] is False],
        vocabulary=vocabulary,
        heldout=heldout_phrases(vocabulary),
        stages=training_stages(record),
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pocket.card", description=__doc__)
    parser.add_argument("--weights", type=folder, default=Path("pocket/weights"))
    weights = parser.parse_args(arguments).weights
    for name in ("training.json", "evaluation.json"):
        if not (weights / name).is_file():
            commands = "`python -m pocket.train export`, then `python -m pocket.evaluate`"
            parser.error(f"{weights} has no {name}: run {commands}")
    (weights / "samples").mkdir(exist_ok=True)
    curves(json.loads((weights / "training.json").read_text()), weights / "samples" / "curves.png")
    world_sheet(weights / "samples" / "world.jpg")
    (weights / "README.md").write_text(card(weights))
    print(f"wrote {weights / 'README.md'}")


if __name__ == "__main__":
    main()
