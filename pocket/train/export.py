"""The export stage: put the trained parts together in the layout of diffusers and transformers.

All networks are float16 on disk, in files below 15 MB. The configurations of the transformers parts
say float32, so that loading without a dtype gives one type throughout (diffusers loads as float32).
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import (
    AutoModelForDepthEstimation,
    AutoModelForImageClassification,
    AutoModelForSemanticSegmentation,
    CLIPModel,
    PreTrainedModel,
)

from course.files import replace_folder, write_text
from pocket.world import vocabulary as v
from pocket.world.phrases import words

from .denoiser import SCHEDULER
from .run import CONDITIONS, CORE_STAGES, DEPENDENT_STAGES, FURTHER, Run, Stage
from .tokenizer import load

SHARD_SIZE = "15MB"
MIB = 2**20
CORE_BUDGET = 104 * MIB  # of the text-to-image model and the networks that evaluate it
BUDGETS = {f"controlnet/{kind}": 24 * MIB for kind in CONDITIONS}
BUDGETS |= {"estimators": 8 * MIB, "multiview": 60 * MIB, "distilled": 60 * MIB}
TOTAL_BUDGET = 280 * MIB  # of all weights of the repository
FILE_BUDGET = 16 * MIB  # of one file
CORE_PARTS = ("stable-diffusion", "clip", "judge", "perceptual")
DEPENDENT_PARTS = ("controlnet", "estimators", "multiview", "distilled")  # not required
TRANSFORMERS: dict[Stage, Any] = {  # stages with a model of transformers, and its class
    Stage("towers"): CLIPModel,
    Stage("judge"): AutoModelForImageClassification,
    Stage("estimators", "depth"): AutoModelForDepthEstimation,
    Stage("estimators", "normals"): AutoModelForSemanticSegmentation,
}


def default_to_float32(folder: Path) -> None:
    """Let a transformers model that is stored in float16 load as float32 by default."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for part in (config, config.get("text_config", {}), config.get("vision_config", {})):
        if "dtype" in part:
            part["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2) + "\n")


def remove_source_paths(folder: Path) -> None:
    """Remove the path that a part was loaded from from diffusers' configurations in `folder`."""
    for path in folder.rglob("*.json"):
        config = json.loads(path.read_text())
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n")


def save_transformer(model: PreTrainedModel, source: Path, folder: Path) -> None:
    """Save a transformers model in float16, with the tokenizer and image processor of `source`."""
    model.half().save_pretrained(folder, max_shard_size=SHARD_SIZE)
    default_to_float32(folder)
    for path in source.iterdir():
        is_setting = path.suffix in (".json", ".txt") and "index" not in path.name
        if is_setting and not (folder / path.name).exists():
            shutil.copy(path, folder / path.name)


def assemble(run: Run) -> StableDiffusionPipeline:
    """Return the text-to-image pipeline in float16 from the stages' weights."""
    pipe = StableDiffusionPipeline(
        vae=run.load(AutoencoderKL, "autoencoder"),
        unet=run.load(UNet2DConditionModel, "denoiser"),
        text_encoder=run.load(CLIPModel, "towers").text_model,
        tokenizer=load(run.weights_of("tokenizer"), run.weights_of("towers")),
        scheduler=DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return pipe.to(torch.float16)


def vocabulary() -> dict[str, list[str]]:
    """Return every word of the captions, and the classes of the world."""
    tuples = (
        "objects colors patterns grounds lightings styles relations landscapes times weathers "
        "views counts sizes poses"
    ).split()
    return {"words": words()} | {name: list(getattr(v, name.upper())) for name in tuples}


def manifest(folder: Path) -> dict[str, dict[str, dict[str, int | str]]]:
    """Return the size in bytes and the SHA-256 of every file of the weights in `folder`, by path.

    The model card, its images, training.json and evaluation.json change without the weights, so
    they are not listed.
    """
    files: dict[str, dict[str, int | str]] = {}
    parts = CORE_PARTS + DEPENDENT_PARTS
    paths = [p for part in parts for p in (folder / part).rglob("*") if p.is_file()]
    for path in sorted([*paths, folder / "vocabulary.json"]):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": digest}
    return {"files": files}


def check_sizes(folder: Path) -> int:
    """Return the bytes of all files in `folder`.

    Raises ValueError if a file, a part or the total is over its budget.
    """
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    dependent = {part: folder_size(folder / part) for part in BUDGETS}
    total = sum(sizes.values())
    core = total - sum(dependent.values())
    everything = "the files in all"
    checks = [(str(path), "a file", size, FILE_BUDGET) for path, size in sizes.items()]
    checks += [(str(folder / p), everything, size, BUDGETS[p]) for p, size in dependent.items()]
    core_name = f"{folder} without {' and '.join(DEPENDENT_PARTS)}"
    checks.append((core_name, everything, core, CORE_BUDGET))
    checks.append((str(folder), everything, total, TOTAL_BUDGET))
    for name, what, size, budget in checks:
        if size > budget:
            raise ValueError(f"{name} has {size / MIB:.1f} MiB; {what} may have {budget / MIB:.0f}")
    return total


def folder_size(folder: Path) -> int:
    """Return the bytes of all files in a folder; 0 if it does not exist."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def downsample(rows: list[dict[str, float]], maximum: int = 150) -> list[dict[str, float]]:
    """Return at most `maximum` rows of a curve, evenly spaced up to the last; four digits each."""
    stride = -(-len(rows) // maximum) if rows else 1
    return [
        {name: value if name == "step" else float(f"{value:.4g}") for name, value in row.items()}
        for row in rows[::-1][::stride][::-1]
    ]


def training_record(work: Path, known: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """Return what the weights of each stage cost, run by run: `known` and the runs in `work`.

    A run with --init is added to the stage's runs; one from scratch replaces them.
    """
    record = {stage: list(runs) for stage, runs in known.items()}
    for name in ("curve.json", "time.json"):
        for path in sorted(work.glob(f"*/{name}")):
            run = json.loads(path.read_text())
            run["rows"] = downsample(run.get("rows", []))
            stage = run.pop("stage")
            runs = record.get(stage, []) if run.get("continued") else []
            if run not in record.get(stage, []):
                record[stage] = [*runs, run]
    return record


def find_weights(run: Run) -> dict[Stage, Path]:
    """Return the folders of the stages' weights; stages that are not required may be missing."""
    sources = {stage: run.weights_of(stage) for stage in CORE_STAGES}
    for stage in DEPENDENT_STAGES:
        try:
            sources[stage] = run.weights_of(stage)
        except FileNotFoundError:
            run.log(f"without {stage}, which is not trained yet")
    return sources


def save_controlnet(source: Path, folder: Path) -> None:
    """Save a ControlNet in float16, with the strip of images from its training."""
    controlnet = ControlNetModel.from_pretrained(source, torch_dtype=torch.float16)
    controlnet.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    remove_source_paths(folder)
    # The strip is beside the stage's weights, or in those of an earlier export.
    strips = (source.parent / "strip" / "strip.jpg", source / "strip.jpg")
    for path in (source / "condition.json", *strips):
        if path.exists():
            shutil.copy(path, folder)


def write_weights(run: Run, folder: Path) -> None:
    """Write the weights of all stages and the vocabulary to a folder."""
    sources = find_weights(run)
    assemble(run).save_pretrained(folder / "stable-diffusion", max_shard_size=SHARD_SIZE)
    remove_source_paths(folder / "stable-diffusion")
    default_to_float32(folder / "stable-diffusion" / "text_encoder")
    shutil.copytree(sources[Stage("perceptual")], folder / "perceptual")
    for stage, source in sources.items():
        if stage in TRANSFORMERS:
            model = TRANSFORMERS[stage].from_pretrained(source, dtype=torch.float32)
            save_transformer(model, source, folder / stage.shipped_folder)
        elif stage.name == "controlnet":
            save_controlnet(source, folder / stage.shipped_folder)
        elif stage.name in FURTHER:
            unet = UNet2DConditionModel.from_pretrained(source, torch_dtype=torch.float16)
            unet.save_pretrained(folder / stage.shipped_folder, max_shard_size=SHARD_SIZE)
            remove_source_paths(folder / stage.shipped_folder)
            for path in source.glob("scheduler_config.json"):
                shutil.copy(path, folder / stage.shipped_folder)
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary(), indent=1) + "\n")


def main(run: Run) -> None:
    """Write the shipped folder from the newest weights of each stage.

    Where a stage was not run here, its shipped weights stay.
    """
    if not run.is_main:
        return
    weights = run.work / "export" / "weights"
    with replace_folder(weights) as new:  # a source may be the very folder that ships
        write_weights(run, new)
    check_sizes(weights)
    run.weights.mkdir(parents=True, exist_ok=True)
    for part in CORE_PARTS + DEPENDENT_PARTS:
        if (weights / part).exists():
            with replace_folder(run.weights / part) as new:
                shutil.copytree(weights / part, new, dirs_exist_ok=True)
    shutil.copy(weights / "vocabulary.json", run.weights)
    path = run.weights / "training.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    write_text(path, json.dumps(training_record(run.work, known)) + "\n")
    write_text(run.weights / "manifest.json", json.dumps(manifest(run.weights), indent=1) + "\n")
    run.log(f"{check_sizes(run.weights) / MIB:.1f} MiB in {run.weights}")
