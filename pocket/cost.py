"""Groups of `pocket.evaluate` about cost: size, speed, memory, the renderer, and training."""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from course.figures import Row, machine, run_command, run_on_two_cores
from pocket.cpu_speed import sample_on_cpu
from pocket.test_set import STEPS
from pocket.train.export import (
    CORE_BUDGET,
    DEPENDENT_PARTS,
    FILE_BUDGET,
    MIB,
    TOTAL_BUDGET,
    folder_size,
)
from pocket.train.run import DEPENDENT_STAGES
from pocket.world.measure import agreement, images_per_second


def size_rows(weights: Path) -> list[Row]:
    """Bytes and parameters of what ships."""
    sizes = [path.stat().st_size for path in weights.rglob("*") if path.is_file()]
    rest = sum(sizes) - sum(folder_size(weights / part) for part in DEPENDENT_PARTS)
    unet = UNet2DConditionModel.from_pretrained(weights / "stable-diffusion" / "unet")
    millions = round(unet.num_parameters() / 1e6, 2)
    return [
        _mib("total", "weights in all", sum(sizes), TOTAL_BUDGET),
        _mib("text_to_image", "weights without ControlNets and estimators", rest, CORE_BUDGET),
        _mib("largest_file", "largest file", max(sizes), FILE_BUDGET),
        Row("pocket.sizes.denoiser", "parameters of the denoiser", millions, "M", "<=", 30),
    ]


def _mib(key: str, figure: str, size: int, bar: int) -> Row:
    return Row(f"pocket.sizes.{key}", figure, round(size / MIB, 2), "MiB", "<=", bar / MIB)


def speed_rows(weights: Path) -> list[Row]:
    """Seconds and memory of one image on two CPU cores in float32, in a process of its own."""
    start = time.time()
    result = run_on_two_cores(sample_on_cpu, str(weights / "stable-diffusion"), str(STEPS))
    image, step = round(result["image"], 2), round(result["step"], 3)
    cold_start = round(result["first_image_at"] - start, 2)
    figures: list[tuple[Any, ...]] = [
        ("image", f"one image, {STEPS} guided steps", image, "s", "<=", 6),
        ("step", "one guided step", step, "s", "<="),
        ("memory", "peak memory", round(result["memory"], 1), "MiB", "<=", 1536),
        ("cold_start", "from a cold start to the first image", cold_start, "s", "<=", 60),
    ]
    where = machine(gpu=False)
    return [
        Row(f"pocket.speed.{key}", f"CPU, two cores: {figure}", *rest, machine=where)
        for key, figure, *rest in figures
    ]


def renderer_rows(device: torch.device) -> list[Row]:
    """How fast the world is rendered, and how closely CPU and GPU agree."""
    rows = []
    for kind, bar in (("object", 3000), ("landscape", 1000)):
        key = f"pocket.renderer.{device.type}.{kind}"
        batch = 256 if device.type == "cuda" else 4
        rate = round(images_per_second(kind, device.type, batch, rounds=9), 1)
        if device.type != "cuda":
            rows.append(Row(f"{key}_rate", f"renderer, CPU: images of {kind}s", rate, "1/s"))
            continue
        share, equal = agreement(kind)
        percent = round(100 * share, 3)
        close = f"renderer: {kind}s within 2/255 on CPU and GPU"
        repeatable = f"renderer: {kind}s sampled twice are bit-equal"
        rows += [
            Row(f"{key}_rate", f"renderer, GPU: images of {kind}s", rate, "1/s", bar=bar),
            Row(f"{key}_agreement", close, percent, "%", bar=99.9),
            Row(f"{key}_repeatable", repeatable, float(equal), bar=1),
        ]
    return rows


def training_rows(weights: Path) -> list[Row]:
    """What the weights of the text-to-image model cost, from the record that `export` keeps.

    Those of the ControlNets and estimators are rows of `benchmarks.control`.
    """
    record = json.loads((weights / "training.json").read_text())
    for stage in (*map(str, DEPENDENT_STAGES), "conditions"):
        record.pop(stage, None)
    minutes = {
        stage: sum(run["seconds"] * run["processes"] for run in runs) / 60
        for stage, runs in record.items()
    }
    devices = ", ".join(sorted({run["device"] for runs in record.values() for run in runs}))
    figures = [("all", "all stages", sum(minutes.values()), 120)]
    figures += [(stage, stage, cost, 50) for stage, cost in minutes.items()]
    return [
        Row(
            f"pocket.training.{key}",
            f"training: {title}",
            *(round(cost, 1), "GPU-min", "<=", bar),
            machine=devices,
        )
        for key, title, cost, bar in figures
    ]


def scaling_rows(weights: Path, work: Path) -> list[Row]:
    """Training of the denoiser on two GPUs against one, in samples a second.

    Each process takes the same batch. work: the folder that holds the latents.
    """
    if torch.cuda.device_count() < 2:
        print("scaling needs two GPUs: left out")
        return []
    rates = [_training_rate(weights, work, processes) for processes in (1, 2)]
    speedup = round(rates[1] / rates[0], 3)
    figure = "training: two GPUs against one, denoiser"
    return [Row("pocket.scaling.two_gpus", figure, speedup, "x", bar=1.8)]


def _training_rate(weights: Path, work: Path, processes: int) -> float:
    """Return the batches a second that processes train on together."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "latents").symlink_to((work / "latents").resolve())
        stage = ["-m", "pocket.train", "denoiser", "--steps", "200", "--work", folder]
        run_command([sys.executable, *launch, *stage, "--weights", str(weights)])
        curve = json.loads((Path(folder) / "denoiser" / "curve.json").read_text())["rows"]
    late = [row for row in curve if row["step"] > 60]  # the first steps warm up
    seconds = late[-1]["seconds"] - late[0]["seconds"]
    return processes * (late[-1]["step"] - late[0]["step"]) / seconds
