"""The judge: an attribute classifier of images, which generates nothing.

One ResNet (He et al. 2016) whose outputs are named "group:class" in its configuration, trained on
renders of all compositions. `course.metrics.judge` turns the outputs into classes and an azimuth.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification

from course.metrics.judge import Judge
from pocket.world import render
from pocket.world import vocabulary as v

from . import loop
from .images import augment, normalize, to_float, write_processor
from .pool import Pool
from .run import Run
from .scenes import TEST_SEED, sample_all, worker_count

SIZE = 192
BATCH = 512
BIN = 15  # degrees of azimuth
AZIMUTHS = tuple(range(-180, 180, BIN))  # centers of the bins
SMOOTHING = 8.0  # degrees: an azimuth between two bins is a target of both
VIEW_TOLERANCE = 15.0  # degrees beyond the range of the view word that still count as right
COLORED_PATTERNS = ("wooden", "metallic")  # with a color of their own
COLORED_LIGHTINGS = ("day", "sunset", "dawn")  # in which colors are visible
# The classes of each group: labels of -1 are "none"; relation and style have one for every scene.
GROUPS: dict[str, tuple[str, ...]] = {
    field: names if field in ("relation", "style") else ("none", *names)
    for field, names in v.CLASSES.items()
} | {"overhead": ("no", "yes"), "azimuth": tuple(map(str, AZIMUTHS))}
ATTRIBUTES = (  # in the order of the tables
    "object color ground view relation landscape object2 pattern lighting style time weather "
    "color2 pattern2 count size size2 pose"
).split()
IGNORE = -100  # a target that does not count, as in torch's cross_entropy


def build(smoke: bool = False) -> ResNetForImageClassification:
    """Return the untrained network: 7 M parameters, less for a smoke run."""
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


def is_color_visible(labels: np.ndarray, which: str = "") -> np.ndarray:
    """Return whether the color of the main object is visible, bool (N,).

    It is by day, at sunset and at dawn, in every style but the pencil sketch, and not on wood or
    metal, which have colors of their own. which: "2" for the other object.
    """
    patterns = [v.PATTERNS.index(name) for name in COLORED_PATTERNS]
    lightings = [v.LIGHTINGS.index(name) for name in COLORED_LIGHTINGS]
    is_lit = np.isin(labels["lighting"], lightings)
    is_sketch = labels["style"] == v.STYLES.index("pencil sketch")
    return is_lit & ~np.isin(labels[f"pattern{which}"], patterns) & ~is_sketch


def has_front(labels: np.ndarray) -> np.ndarray:
    """Return whether the main object has a front, bool (N,)."""
    return np.isin(labels["object"], [v.OBJECTS.index(name) for name in v.WITH_FRONT])


def targets(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the right class of each group, int64 (N,), IGNORE where it does not count.

    "azimuth" is in degrees, float32, NaN where it does not count.
    """
    classes = {}
    for group, names in GROUPS.items():
        if group in (labels.dtype.names or ()) and group != "azimuth":
            offset = int(names[0] == "none" and group != "relation")
            classes[group] = labels[group].astype(np.int64) + offset
    for which in ("", "2"):
        # Natural colors do not count either: a natural duck looks like a yellow one.
        is_hidden = ~is_color_visible(labels, which) | (labels[f"color{which}"] < 0)
        classes[f"color{which}"][(labels[f"object{which}"] >= 0) & is_hidden] = IGNORE
    classes["relation"] = np.maximum(classes["relation"], 0)  # a landscape has none
    classes["overhead"] = (labels["elevation"] >= 60).astype(np.int64)
    azimuth = np.where(has_front(labels), labels["azimuth"], np.nan)
    classes["azimuth"] = azimuth.astype(np.float32)
    return classes


def losses(logits: Tensor, target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the cross-entropy of each group, and their sum as "loss".

    logits: (B, C). target: tensors (B,) as from `targets`. The target of the azimuth is spread over
    the bins around it.
    """
    sizes = [len(names) for names in GROUPS.values()]
    parts = dict(zip(GROUPS, logits.float().split(sizes, dim=1), strict=True))
    terms = {}
    for group, part in parts.items():
        if group == "azimuth":
            terms[group] = azimuth_loss(part, target[group])
            continue
        total = F.cross_entropy(part, target[group], ignore_index=IGNORE, reduction="sum")
        terms[group] = total / (target[group] != IGNORE).sum().clamp(min=1)
    return {"loss": torch.stack(list(terms.values())).sum(), **terms}


def azimuth_loss(logits: Tensor, azimuth: Tensor) -> Tensor:
    """Return the cross-entropy of bins (B, 24) for azimuths (B,) in degrees; NaN does not count."""
    counts = ~azimuth.isnan()  # (B,)
    bins = torch.arange(-180, 180, BIN, device=logits.device)
    difference = (azimuth.nan_to_num()[:, None] - bins + 180) % 360 - 180  # (B, 24)
    target = torch.softmax(-0.5 * (difference / SMOOTHING) ** 2, dim=1)
    loss = F.cross_entropy(logits, target, reduction="none") * counts
    return loss.sum() / counts.sum().clamp(min=1)


def is_view_right(word: str, azimuth: float, overhead: bool) -> bool:
    """Return whether a predicted view fits the word, within VIEW_TOLERANCE of the word's range."""
    if word == "overhead" or overhead:
        return word == "overhead" and overhead
    angle = abs((azimuth + 180) % 360 - 180)
    low, high = {"front": (0, 45), "side": (45, 135), "back": (135, 180)}[word]
    return low - VIEW_TOLERANCE <= angle <= high + VIEW_TOLERANCE


def scored_masks(
    labels: np.ndarray, mentions: Sequence[frozenset[str]] | None = None
) -> dict[str, np.ndarray]:
    """Return which scenes count for which attribute, bool (N,) each: the published rule.

    An attribute counts where the scene has it and, for images generated from captions, the caption
    names it. A color counts only where it is not the object's natural one, and style, lighting and
    surface let it show (`is_color_visible`); a view only of objects that have a front.

    labels: (N,) of vocabulary.LABELS.
    mentions: what each caption names; None for renders, which show everything.
    """
    masks = {name: labels[name] >= 0 for name in ATTRIBUTES if name != "view"}
    for which in ("", "2"):
        masks[f"color{which}"] &= is_color_visible(labels, which)
    masks["count"] &= labels["relation"] == 0
    masks["view"] = has_front(labels)
    if mentions is None:
        return masks
    return {
        name: mask & np.array([name in names for names in mentions]) for name, mask in masks.items()
    }


def correct_masks(labels: np.ndarray, predicted: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return whether the predicted attributes are those of the scenes, bool (N,) each.

    A view is correct within 15 degrees of the range of its word (`is_view_right`). Attributes that
    are not predicted are left out. `scored_masks` returns where each counts.
    """
    right = targets(labels)
    words = map(v.view_word, labels["azimuth"], labels["elevation"])
    views = zip(words, predicted["azimuth"], predicted["overhead"] == "yes", strict=True)
    masks = {"view": np.array([is_view_right(*view) for view in views], bool)}
    for name in ATTRIBUTES:
        if name in predicted and name != "view":
            classes = np.array(GROUPS[name])
            # IGNORE is negative, and such a scene never counts.
            masks[name] = classes[right[name].clip(0)] == predicted[name]
    return masks


def accuracy(labels: np.ndarray, predicted: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the accuracy of each attribute; those that count for no scene are left out."""
    correct = correct_masks(labels, predicted)
    masks = scored_masks(labels)
    return {name: float(correct[name][masks[name]].mean()) for name in correct if masks[name].any()}


def measure(judge: Judge, count: int) -> dict[str, float]:
    """Return the accuracy on new renders of all compositions."""
    scenes = sample_all(range(TEST_SEED, TEST_SEED + count), "all", workers=worker_count())
    samples = 4 if count > 100 else 1
    images = [
        render(scenes.params[i : i + 256], samples=samples, device=judge.device).color
        for i in range(0, count, 256)
    ]
    return accuracy(scenes.labels, judge.classify(torch.cat(images)))


def main(run: Run) -> None:
    """Train the judge on WORK/data, held-out compositions included; measure it on new renders."""
    size, batch = (64, run.batch or 8) if run.smoke else (SIZE, run.batch or BATCH)
    pool = Pool(run, heldout=True, size=size)
    target = {
        group: torch.from_numpy(value).to(run.device)
        for group, value in targets(pool.labels).items()
    }
    torch.manual_seed(run.seed)
    model = run.load(ResNetForImageClassification) if run.init else build(run.smoke)
    model.config.image_size = size
    model.to(run.device, memory_format=torch.channels_last)

    def loss_fn(network: nn.Module, step: int, fraction: float) -> dict[str, Tensor]:
        images, indices = pool.sample(batch, run.generator)
        images = normalize(augment(to_float(images), run.generator))
        images = images.contiguous(memory_format=torch.channels_last)
        logits = network(pixel_values=images).logits
        return losses(logits, {group: value[indices] for group, value in target.items()})

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        write_processor(folder, size)

    settings = loop.Settings(12_000, minutes=5.0, warmup=300)
    optimizer = loop.adamw(model, lr=2e-3, weight_decay=0.05)
    loop.train(run, model, optimizer, loss_fn, save, settings)
    if run.is_main:
        judge = Judge(run.device, run.folder / "weights")
        result = measure(judge, 4 if run.smoke else 2000)
        run.log(", ".join(f"{group} {100 * value:.1f} %" for group, value in result.items()))
        (run.folder / "accuracy.json").write_text(json.dumps(result, indent=2))
