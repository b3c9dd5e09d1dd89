"""The judge: reads from an image what is in it, and never takes part in making one.

One residual network (He et al. 2016) with one linear layer whose outputs are named "group:class" in the
configuration, trained on renders of all compositions. `read` turns its outputs into names and an angle.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification

from pocket.train.data import (
    TEST_SEED,
    Pool,
    augment,
    resize,
    scenes_to_arrays,
    to_float,
    to_input,
    workers_here,
    write_processor,
)
from pocket.world import render
from pocket.world import vocabulary as v

from . import loop
from .run import Run

SIZE = 192
BATCH = 512
BIN = 15  # degrees of azimuth
AZIMUTHS = tuple(range(-180, 180, BIN))  # centres of the bins
SMOOTHING = 8.0  # degrees: a view between two bins belongs to both
VIEW_TOLERANCE = 15.0  # degrees beyond the range of the view word that still count as right
SHOWS_NO_COLOR = ("wooden", "metallic")
# Labels of -1 are the class "none"; relation and style have a class for every scene.
GROUPS: dict[str, tuple[str, ...]] = {
    "object": ("none", *v.OBJECTS), "color": ("none", *v.COLORS), "pattern": ("none", *v.PATTERNS),
    "relation": v.RELATIONS, "object2": ("none", *v.OBJECTS), "color2": ("none", *v.COLORS),
    "ground": ("none", *v.GROUNDS), "lighting": ("none", *v.LIGHTINGS), "style": v.STYLES,
    "landscape": ("none", *v.LANDSCAPES), "time": ("none", *v.TIMES), "weather": ("none", *v.WEATHERS),
    "pattern2": ("none", *v.PATTERNS), "count": ("none", *v.COUNTS), "size": ("none", *v.SIZES),
    "size2": ("none", *v.SIZES), "pose": ("none", *v.POSES),
    "overhead": ("no", "yes"), "azimuth": tuple(map(str, AZIMUTHS)),
}  # fmt: skip
SKIP = -100  # a target that does not count, as cross_entropy has it


def build(smoke: bool = False) -> ResNetForImageClassification:
    """The network with random weights: 7 M parameters, less for a smoke test."""
    names = [f"{group}:{name}" for group, classes in GROUPS.items() for name in classes]
    config = ResNetConfig(
        embedding_size=8 if smoke else 32,
        hidden_sizes=[8, 8, 16, 16] if smoke else [48, 96, 192, 384],
        depths=[1, 1, 1, 1] if smoke else [2, 2, 3, 2],
        layer_type="basic",
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    return ResNetForImageClassification(config)


def color_shows(labels: np.ndarray, which: str = "") -> np.ndarray:
    """The published rule: whether a scene shows the color of the object (`which` is "") or the other one ("2"),
    bool (N,).

    By day, at sunset and at dawn, in every style but the pencil sketch, and not on wood or metal, which have their own.
    """
    pattern = np.isin(
        labels[f"pattern{which}"], [v.PATTERNS.index(name) for name in SHOWS_NO_COLOR]
    )
    lit = np.isin(
        labels["lighting"], [v.LIGHTINGS.index(name) for name in ("day", "sunset", "dawn")]
    )
    return lit & ~pattern & (labels["style"] != v.STYLES.index("pencil sketch"))


def has_front(labels: np.ndarray) -> np.ndarray:
    """Whether the main object has a front, bool (N,)."""
    return np.isin(labels["object"], [v.OBJECTS.index(name) for name in v.WITH_FRONT])


def targets(labels: np.ndarray) -> dict[str, np.ndarray]:
    """The right class of every group, int64 (N,), SKIP where it does not count; "azimuth" in degrees, NaN there."""
    found = {}
    for group, classes in GROUPS.items():
        if group in (labels.dtype.names or ()) and group != "azimuth":
            found[group] = labels[group].astype(np.int64) + (
                classes[0] == "none" and group != "relation"
            )
    for which in ("", "2"):
        # Natural colors do not count either: a natural duck looks like a yellow one.
        hidden = ~color_shows(labels, which) | (labels[f"color{which}"] < 0)
        found[f"color{which}"][(labels[f"object{which}"] >= 0) & hidden] = SKIP
    found["relation"] = np.maximum(found["relation"], 0)  # a landscape has none
    found["overhead"] = (labels["elevation"] >= 60).astype(np.int64)
    found["azimuth"] = np.where(has_front(labels), labels["azimuth"], np.nan).astype(np.float32)
    return found


def losses(logits: Tensor, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cross-entropy of every group and their sum as "loss".

    logits: (B, C). wanted: as `targets`, as tensors (B,). The azimuth's target is spread over the bins around it.
    """
    parts = dict(
        zip(GROUPS, logits.float().split([len(c) for c in GROUPS.values()], dim=1), strict=True)
    )
    found = {}
    for group, part in parts.items():
        if group == "azimuth":
            counts = ~wanted[group].isnan()  # (B,)
            turn = wanted[group].nan_to_num()[:, None] - torch.arange(
                -180, 180, BIN, device=logits.device
            )  # (B, 24)
            turn = (turn + 180) % 360 - 180
            soft = torch.softmax(-0.5 * (turn / SMOOTHING) ** 2, dim=1)
            found[group] = (
                F.cross_entropy(part, soft, reduction="none") * counts
            ).sum() / counts.sum().clamp(min=1)
        else:
            each = F.cross_entropy(part, wanted[group], ignore_index=SKIP, reduction="sum")
            found[group] = each / (wanted[group] != SKIP).sum().clamp(min=1)
    return {"loss": torch.stack(list(found.values())).sum(), **found}


def read(logits: Tensor, id2label: dict[int, str]) -> dict[str, np.ndarray]:
    """What the judge sees: for each group the likeliest class name, (N,) of str; "azimuth" in degrees, (N,) float.

    The angle is the circular mean of the probabilities of the best bin and the two on either side of it.
    """
    groups: dict[str, list[tuple[int, str]]] = {}
    for index, name in id2label.items():
        group, _, label = name.partition(":")
        groups.setdefault(group, []).append((int(index), label))
    found = {}
    for group, members in groups.items():
        part = logits.float().cpu()[:, [index for index, _ in members]]  # (N, classes)
        names = np.array([label for _, label in members])
        best = part.argmax(dim=1)
        if group == "azimuth":
            near = (best[:, None] + torch.arange(-2, 3)) % len(names)  # (N, 5)
            weight = part.softmax(dim=1).gather(1, near)
            angle = torch.deg2rad(torch.from_numpy(names.astype(np.float32)))[near]
            found[group] = torch.rad2deg(
                torch.atan2((weight * angle.sin()).sum(1), (weight * angle.cos()).sum(1))
            ).numpy()
        else:
            found[group] = names[best.numpy()]
    return found


def view_right(word: str, azimuth: float, overhead: bool) -> bool:
    """Whether a view as the judge reads it is what the word says, within VIEW_TOLERANCE of the word's range."""
    if word == "overhead" or overhead:
        return word == "overhead" and overhead
    turn = abs((azimuth + 180) % 360 - 180)
    low, high = {"front": (0, 45), "side": (45, 135), "back": (135, 180)}[word]
    return low - VIEW_TOLERANCE <= turn <= high + VIEW_TOLERANCE


def accuracy(labels: np.ndarray, seen: dict[str, np.ndarray]) -> dict[str, float]:
    """The share of readings that are right, for each group where it counts, and for "view".

    labels: (N,) of vocabulary.LABELS. seen: as `read` gives it. A colour counts where one was given and shows,
    a view where the object has a front. A group that counts nowhere is left out.
    """
    found = {}
    is_object, is_landscape = labels["object"] >= 0, labels["landscape"] >= 0
    counted = {
        "object": is_object, "color": color_shows(labels) & (labels["color"] >= 0), "pattern": is_object,
        "relation": is_object, "object2": labels["object2"] >= 0,
        "color2": color_shows(labels, "2") & (labels["color2"] >= 0), "ground": is_object, "lighting": is_object,
        "style": is_object | is_landscape, "landscape": is_landscape, "time": is_landscape,
        "weather": is_landscape, "pattern2": labels["object2"] >= 0, "count": is_object, "size": is_object,
        "size2": labels["object2"] >= 0, "pose": is_object,
    }  # fmt: skip
    right = targets(labels)
    for group, rows in counted.items():
        if rows.any():
            names = np.array(GROUPS[group])[right[group][rows]]
            found[group] = float((names == seen[group][rows]).mean())
    views = [
        view_right(v.view_word(a, e), seen["azimuth"][i], seen["overhead"][i] == "yes")
        for i, (a, e) in enumerate(zip(labels["azimuth"], labels["elevation"], strict=True))
        if has_front(labels)[i]
    ]
    return found | ({"view": float(np.mean(views))} if views else {})


@torch.no_grad()
def judge(model: nn.Module, images: Tensor, size: int = SIZE, batch: int = 256) -> Tensor:
    """The judge's outputs (N, C) for images uint8 (N, H, W, 3) on its device."""
    parts = [to_input(resize(to_float(part), size)) for part in images.split(batch)]
    # forward, not a call: a model that was compiled for training is not compiled again for this.
    return torch.cat([model.forward(pixel_values=part).logits.float() for part in parts])


def main(run: Run) -> None:
    """Trains the judge on WORK/data, held-out compositions included, and reads fresh renders at the end."""
    size, batch = (64, run.batch or 8) if run.smoke else (SIZE, run.batch or BATCH)
    pool = Pool(
        run.work, run.device, heldout=True, rank=run.rank, world_size=run.processes, size=size
    )
    wanted = {
        group: torch.from_numpy(value).to(run.device)
        for group, value in targets(pool.labels).items()
    }
    torch.manual_seed(run.seed)
    model = build(run.smoke)
    if run.init:
        model = ResNetForImageClassification.from_pretrained(
            run.weights_of("judge"), dtype=torch.float32
        )
    model.config.image_size = size
    model.to(run.device, memory_format=torch.channels_last)

    def loss_fn(net: nn.Module, step: int, fraction: float) -> dict[str, Tensor]:
        images, indices = pool.sample(batch, run.generator)
        pixels = to_input(augment(to_float(images), run.generator)).contiguous(
            memory_format=torch.channels_last
        )
        logits = net(pixel_values=pixels).logits
        return losses(logits, {group: value[indices] for group, value in wanted.items()})

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        write_processor(folder, size)

    optimizer = loop.adamw(model, lr=2e-3, weight_decay=0.05)
    limits: dict[str, Any] = (
        {"steps": 4, "minutes": 1.0} if run.smoke else {"steps": 12_000, "minutes": 5.0}
    )
    loop.train(
        run,
        model,
        optimizer,
        loss_fn,
        save,
        loop.Settings(warmup=1 if run.smoke else 300, **limits),
    )
    if run.is_main:
        found = measure(model, run.device, 4 if run.smoke else 2000, size)
        run.log(", ".join(f"{group} {100 * value:.1f} %" for group, value in found.items()))
        (run.folder / "accuracy.json").write_text(json.dumps(found, indent=2))
    run.accelerator.wait_for_everyone()


def measure(
    model: nn.Module, device: torch.device, scenes: int, size: int = SIZE
) -> dict[str, float]:
    """`accuracy` on fresh renders of all compositions that nothing was trained on."""
    fresh = scenes_to_arrays(
        range(TEST_SEED, TEST_SEED + scenes), split="all", workers=workers_here()
    )
    samples = 4 if scenes > 100 else 1
    logits = [
        judge(
            model.eval(),
            render(fresh.params[i : i + 256], samples=samples, device=device).color,
            size,
        )
        for i in range(0, scenes, 256)
    ]
    return accuracy(fresh.labels, read(torch.cat(logits), model.config.id2label))
