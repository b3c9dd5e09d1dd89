"""The export stage: puts the trained parts together in the layout that diffusers and transformers load.

All networks are float16 on disk in files below 15 MB; the configurations of the transformers parts say float32,
so that the plain call with no dtype gives one type throughout (diffusers' parts load as float32 anyway).
"""

import hashlib
import json
import shutil
from functools import partial
from pathlib import Path

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

from pocket.world import vocabulary as v
from pocket.world.captions import words

from . import common
from .denoiser import SCHEDULER
from .tokenizer import load

SHARD_SIZE = "15MB"
MIB = 2**20
BUDGET = 96 * MIB  # the text-to-image model and what measures it, as the project has set itself
BUDGETS = {f"controlnet/{kind}": 24 * MIB for kind in common.CONDITIONS} | {"estimators": 8 * MIB}
EVERYTHING = 200 * MIB  # all weights of the repository
LARGEST = 16 * MIB  # a file
PARTS = ("stable-diffusion", "clip", "judge", "perceptual")
FOLLOWING = ("controlnet", "estimators")  # parts that need not be there


def load_as_float32(folder: Path) -> None:
    """Makes a transformers model that is stored in float16 load as float32 by default."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for part in (config, config.get("text_config", {}), config.get("vision_config", {})):
        if "dtype" in part:
            part["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2) + "\n")


def forget_paths(folder: Path) -> None:
    """Removes from diffusers' configurations below `folder` the path that a part was loaded from."""
    for path in folder.rglob("*.json"):
        config = json.loads(path.read_text())
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n")


def save_transformer(model: PreTrainedModel, source: Path, folder: Path) -> None:
    """Saves a transformers model in float16, with the tokenizer's and the image processor's files of its source."""
    model.half().save_pretrained(folder, max_shard_size=SHARD_SIZE)
    load_as_float32(folder)
    for path in source.iterdir():
        if (
            path.suffix in (".json", ".txt")
            and not (folder / path.name).exists()
            and "index" not in path.name
        ):
            shutil.copy(path, folder / path.name)


def assemble(run: common.Run) -> StableDiffusionPipeline:
    """The text-to-image pipeline in float16 from the stages' weights."""
    unet = UNet2DConditionModel.from_pretrained(
        run.weights_of("denoiser"), torch_dtype=torch.float16
    )
    vae = AutoencoderKL.from_pretrained(run.weights_of("autoencoder"), torch_dtype=torch.float16)
    return StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=CLIPModel.from_pretrained(
            run.weights_of("towers"), dtype=torch.float16
        ).text_model,
        tokenizer=load(run.weights_of("tokenizer"), run.weights_of("towers")),
        scheduler=DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def vocabulary() -> dict[str, list[str]]:
    """What the model was taught: every word of its captions, and the classes of the world."""
    classes = {
        "objects": v.OBJECTS, "colors": v.COLORS, "patterns": v.PATTERNS, "grounds": v.GROUNDS,
        "lightings": v.LIGHTINGS, "styles": v.STYLES, "relations": v.RELATIONS, "landscapes": v.LANDSCAPES,
        "times": v.TIMES, "weathers": v.WEATHERS, "views": v.VIEWS, "counts": v.COUNTS, "sizes": v.SIZES,
        "poses": v.POSES,
    }  # fmt: skip
    return {"words": words()} | {name: list(members) for name, members in classes.items()}


def manifest(folder: Path) -> dict[str, dict[str, dict[str, int | str]]]:
    """Size in bytes and SHA-256 of every file that loads from `folder`, by its path with forward slashes.

    The model card, its images, training.json and evaluation.json change without the weights, so they are not listed.
    """
    files: dict[str, dict[str, int | str]] = {}
    listed = [p for part in PARTS + FOLLOWING for p in (folder / part).rglob("*") if p.is_file()]
    for path in sorted([*listed, folder / "vocabulary.json"]):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": digest}
    return {"files": files}


def check_sizes(folder: Path) -> int:
    """Bytes of all files below `folder`. Raises ValueError if a file, a part or the sum is over its budget."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    for path, size in sizes.items():
        if size > LARGEST:
            raise ValueError(
                f"{path} has {size / MIB:.1f} MiB; a file may have {LARGEST / MIB:.0f}"
            )
    following = {part: size_of(folder / part) for part in BUDGETS}
    known, everything = sum(following.values()), sum(sizes.values())
    for name, size, budget in (
        *((f"{folder / part}", size, BUDGETS[part]) for part, size in following.items()),
        (f"{folder} without {' and '.join(FOLLOWING)}", everything - known, BUDGET),
        (f"{folder}", everything, EVERYTHING),
    ):
        if size > budget:
            raise ValueError(
                f"{name} has {size / MIB:.1f} MiB in all; the budget is {budget / MIB:.0f}"
            )
    return everything


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; 0 if there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def thinned(rows: list[dict[str, float]], most: int = 150) -> list[dict[str, float]]:
    """At most so many of a curve's rows, evenly spread, the last one among them; numbers to four digits."""
    step = -(-len(rows) // most) if rows else 1
    kept = rows[::-1][::step][::-1]
    return [
        {name: float(f"{value:.4g}") if name != "step" else value for name, value in row.items()}
        for row in kept
    ]


def training_record(work: Path, known: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """What each stage's weights have cost, run by run: `known` and what the stages left in `work`.

    A stage that went on from its weights (--init) adds a run; one that began anew replaces what was known.
    """
    found = {stage: list(runs) for stage, runs in known.items()}
    for name in ("curve.json", "time.json"):
        for path in sorted(work.glob(f"*/{name}")):
            run = json.loads(path.read_text())
            run["rows"] = thinned(run.get("rows", []))
            stage = run.pop("stage")
            runs = found.get(stage, []) if run.get("continued") else []
            if run not in found.get(stage, []):
                found[stage] = [*runs, run]
    return found


def find(run: common.Run) -> dict[str, Path]:
    """Where the weights of each stage lie: of those that follow the text-to-image model only the ones that exist."""
    sources = {stage: run.weights_of(stage) for stage in common.SHIPPED}
    for stage in common.FOLLOWING:
        try:
            sources[stage] = run.weights_of(stage)
        except FileNotFoundError:
            run.say(f"without {stage}, which was not trained yet")
    return sources


def save_following(stage: str, source: Path, folder: Path) -> None:
    """Saves a ControlNet in float16, with the strip that shows how it learnt, or an estimator."""
    maker, _, kind = stage.partition("-")
    if maker == "controlnet":
        controlnet = ControlNetModel.from_pretrained(source, torch_dtype=torch.float16)
        controlnet.save_pretrained(folder, max_shard_size=SHARD_SIZE)
        forget_paths(folder)
        # The stage leaves it beside its weights, an earlier export among them.
        for strip in (source.parent / "strip" / "strip.jpg", source / "strip.jpg"):
            if strip.exists():
                shutil.copy(strip, folder)
                break
    else:
        auto = AutoModelForDepthEstimation if kind == "depth" else AutoModelForSemanticSegmentation
        save_transformer(auto.from_pretrained(source, dtype=torch.float32), source, folder)


def main(run: common.Run) -> None:
    """Writes the folder that ships from the newest weights of each stage (its own, where a stage was not run)."""
    if not run.is_main:
        return
    sources = find(run)
    new = run.work / "export" / "weights"

    def write(folder: Path) -> None:
        assemble(run).save_pretrained(folder / "stable-diffusion", max_shard_size=SHARD_SIZE)
        forget_paths(folder / "stable-diffusion")
        load_as_float32(folder / "stable-diffusion" / "text_encoder")
        clip = CLIPModel.from_pretrained(sources["towers"], dtype=torch.float32)
        save_transformer(clip, sources["towers"], folder / "clip")
        judge = AutoModelForImageClassification.from_pretrained(
            sources["judge"], dtype=torch.float32
        )
        save_transformer(judge, sources["judge"], folder / "judge")
        shutil.copytree(sources["perceptual"], folder / "perceptual")
        for stage, part in common.FOLLOWING.items():
            if stage in sources:
                save_following(stage, sources[stage], folder / part)
        (folder / "vocabulary.json").write_text(json.dumps(vocabulary(), indent=1) + "\n")

    common.replace_folder(new, write)  # aside first: a source may be the very folder that ships
    check_sizes(new)
    run.weights.mkdir(parents=True, exist_ok=True)
    for part in (*PARTS, *(part for part in FOLLOWING if (new / part).exists())):
        common.replace_folder(
            run.weights / part, partial(shutil.copytree, new / part, dirs_exist_ok=True)
        )
    shutil.copy(new / "vocabulary.json", run.weights)
    record = run.weights / "training.json"
    known = json.loads(record.read_text()) if record.exists() else {}
    record.write_text(json.dumps(training_record(run.work, known)) + "\n")
    (run.weights / "manifest.json").write_text(json.dumps(manifest(run.weights), indent=1) + "\n")
    run.say(f"{check_sizes(run.weights) / MIB:.1f} MiB in {run.weights}")
