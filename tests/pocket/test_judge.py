"""The judge: targets, losses, reading, the rules of what counts, and that it can learn."""

import numpy as np
import pytest
import torch
from transformers import ResNetForImageClassification

from course.metrics.judge import Judge, decode_logits
from course.metrics.preprocess import resize
from pocket.train import judge
from pocket.train.images import normalize, to_float, write_processor
from pocket.world import sample_labels
from pocket.world import vocabulary as v


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([sample_labels(rng, seed, split="all") for seed in range(400)], v.LABELS)


def perfect_logits(labels: np.ndarray) -> torch.Tensor:
    """Outputs of a judge that is always right, and certain."""
    wanted = judge.targets(labels)
    rows = []
    for group, classes in judge.GROUPS.items():
        if group == "azimuth":
            turn = (labels["azimuth"][:, None] - np.array(judge.AZIMUTHS) + 180) % 360 - 180
            rows.append(torch.from_numpy(-0.5 * (turn / judge.SMOOTHING) ** 2))
        else:
            index = torch.from_numpy(wanted[group]).clamp(min=0)
            rows.append(20 * torch.nn.functional.one_hot(index, len(classes)))
    return torch.cat([row.float() for row in rows], dim=1)


def test_a_perfect_judge_is_right_about_everything(labels: np.ndarray) -> None:
    result = judge.accuracy(
        labels, decode_logits(perfect_logits(labels), judge.build(smoke=True).config.id2label)
    )
    assert set(result) == set(judge.GROUPS) - {"azimuth", "overhead"} | {"view"}
    assert set(result.values()) == {1.0}


def test_angles_come_back(labels: np.ndarray) -> None:
    seen = decode_logits(perfect_logits(labels), judge.build(smoke=True).config.id2label)
    turn = (seen["azimuth"] - labels["azimuth"] + 180) % 360 - 180
    rows = labels["object"] >= 0
    assert np.abs(turn[rows]).max() < 1.5


def test_natural_colors_have_no_gradient(labels: np.ndarray) -> None:
    """Natural colors are not trained on, so the prediction is the likeliest of the others."""
    record = labels[(labels["color"] >= 0) & judge.is_color_visible(labels)][:1].copy()
    logits = torch.zeros(1, perfect_logits(labels).shape[1], requires_grad=True)
    record["color"] = -1
    judge.losses(
        logits, {group: torch.from_numpy(x) for group, x in judge.targets(record).items()}
    )["loss"].backward()
    names = judge.build(smoke=True).config.id2label
    color = [i for i, name in names.items() if name.startswith("color:")]
    assert logits.grad is not None
    assert logits.grad[0, color].abs().max() == 0 < logits.grad[0].abs().max()


def test_loss_of_right_and_wrong(labels: np.ndarray) -> None:
    wanted = {group: torch.from_numpy(value) for group, value in judge.targets(labels).items()}
    logits = perfect_logits(labels)
    right, wrong = judge.losses(logits, wanted), judge.losses(logits.roll(1, dims=0), wanted)
    assert all(right[group] < 1e-3 for group in judge.GROUPS if group != "azimuth")
    assert all(wrong[group] > right[group] + 0.1 for group in judge.GROUPS)
    assert right["loss"] == pytest.approx(
        sum(float(right[group]) for group in judge.GROUPS), rel=1e-5
    )


def test_losses_without_anything_that_counts_are_finite(labels: np.ndarray) -> None:
    landscapes = labels[labels["landscape"] >= 0]
    wanted = {group: torch.from_numpy(value) for group, value in judge.targets(landscapes).items()}
    result = judge.losses(torch.zeros(len(landscapes), perfect_logits(labels).shape[1]), wanted)
    assert all(torch.isfinite(value) for value in result.values()) and result["azimuth"] == 0


def test_where_colors_show(labels: np.ndarray) -> None:
    shown = judge.is_color_visible(labels)
    for record, shows in zip(labels, shown, strict=True):
        if record["object"] < 0:
            assert not shows
            continue
        hidden = (
            v.STYLES[record["style"]] == "pencil sketch"
            or v.LIGHTINGS[record["lighting"]] == "night"
        )
        assert shows == (not hidden and v.PATTERNS[record["pattern"]] not in ("wooden", "metallic"))
    wanted = judge.targets(labels)
    objects = labels["object"] >= 0
    given = labels["color"] >= 0
    assert ((wanted["color"] == judge.IGNORE) == (objects & ~(shown & given))).all()
    assert (wanted["color2"][labels["object2"] < 0] == 0).all()
    assert (wanted["object"][objects] == labels["object"][objects] + 1).all()
    assert (wanted["relation"][~objects] == 0).all()


@pytest.mark.parametrize(
    "word,azimuth,overhead,right",
    [
        ("front", 59, False, True), ("front", -61, False, False), ("front", 0, True, False),
        ("side", 31, False, True), ("side", -149, False, True), ("side", 29, False, False),
        ("back", -121, False, True), ("back", 119, False, False), ("back", 180, False, True),
        ("overhead", 100, True, True), ("overhead", 0, False, False),
    ],
)  # fmt: skip
def test_view_tolerance(word: str, azimuth: float, overhead: bool, right: bool) -> None:
    assert judge.is_view_right(word, azimuth, overhead) is right


def test_accuracy_counts_mistakes(labels: np.ndarray) -> None:
    seen = decode_logits(perfect_logits(labels), judge.build(smoke=True).config.id2label)
    rows = np.flatnonzero(labels["object"] >= 0)
    for i in rows[: len(rows) // 2]:
        seen["object"][i] = "none"
    seen["azimuth"] = seen["azimuth"] + 90
    result = judge.accuracy(labels, seen)
    assert result["object"] == pytest.approx(1 - (len(rows) // 2) / len(rows))
    assert result["view"] < 0.7 and result["ground"] == 1.0


def test_network_fits_its_budget_and_keeps_its_names(tmp_path) -> None:
    model = judge.build()
    assert sum(p.numel() for p in model.parameters()) * 2 <= 14 * 2**20
    model.config.image_size = judge.SIZE
    model.eval().save_pretrained(tmp_path)
    loaded = ResNetForImageClassification.from_pretrained(tmp_path).eval()
    assert loaded.config.image_size == judge.SIZE
    write_processor(tmp_path, judge.SIZE)
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    pixels = normalize(resize(to_float(images), (judge.SIZE, judge.SIZE)))
    predicted = Judge(folder=tmp_path).classify(images)
    expected = decode_logits(model(pixel_values=pixels).logits, model.config.id2label)
    assert predicted["object"].tolist() == expected["object"].tolist()
    assert list(
        decode_logits(torch.zeros(1, len(loaded.config.id2label)), loaded.config.id2label)
    ) == list(judge.GROUPS)


def test_judge_learns(labels: np.ndarray) -> None:
    torch.manual_seed(0)
    few = labels[:16]
    wanted = {group: torch.from_numpy(value) for group, value in judge.targets(few).items()}
    images = torch.rand(16, 3, 64, 64)
    model = judge.build(smoke=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    history = []
    for _ in range(40):
        losses = judge.losses(model(pixel_values=images).logits, wanted)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        history.append(losses["object"].item())
    assert history[-1] < 0.5 * history[0]
