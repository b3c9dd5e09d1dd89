"""The perceptual distance: formula, distortions, training signal, and loading it in course."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel

from course.metrics import PerceptualDistance
from pocket.train import distortions, perceptual
from pocket.train.distortions import DISTORTIONS
from pocket.train.images import write_processor
from pocket.train.perceptual import PerceptualModel


@pytest.fixture(scope="module")
def distance() -> PerceptualModel:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=8,
    )
    return PerceptualModel(CLIPVisionModel(config), [0, 1, 2]).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Colored blobs (4, 3, 64, 64) in [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 6, 6, generator=generator) * 1.6 - 0.8
    return torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(-1, 1)


def test_distance_of_an_image_to_itself_and_others(
    distance: PerceptualModel, images: torch.Tensor
) -> None:
    other = images.roll(1, dims=0)
    assert distance(images, images).abs().max() == 0
    assert distance(images, other).shape == (4, 1, 1, 1) and distance(images, other).min() > 0
    assert torch.allclose(distance(images, other), distance(other, images))


def test_formula(distance: PerceptualModel, images: torch.Tensor) -> None:
    x, y = images[:1], images[1:2]
    states = [
        distance.tower(pixel_values=part, output_hidden_states=True).hidden_states
        for part in (x, y)
    ]
    wanted = 0.0
    for layer, weight in zip(distance.layers, distance.weights(), strict=True):
        f, g = (
            part[layer][0, 1:] / part[layer][0, 1:].norm(dim=1, keepdim=True) for part in states
        )  # (64, 24)
        wanted += ((f - g) ** 2 * weight).sum(dim=1).mean().item()
    assert distance(x, y).item() == pytest.approx(wanted, rel=1e-4)


def test_other_sizes_and_gradients(distance: PerceptualModel) -> None:
    x = torch.rand(1, 3, 96, 128, requires_grad=True)
    distance(x, torch.zeros(1, 3, 96, 128)).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in distance.tower.parameters())
    assert not distance.train().tower.training


@pytest.mark.parametrize("name", DISTORTIONS)
def test_distortions_grow_from_nothing(name: str, images: torch.Tensor) -> None:
    change = []
    for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
        torch.manual_seed(0)
        changed = DISTORTIONS[name](images, torch.full((4,), strength))
        assert changed.shape == images.shape and changed.abs().max() <= 1.0001
        change.append((changed - images).square().mean().item())
    assert change[0] < 2e-3 < change[-1]
    assert change == sorted(change)


def test_shift_and_zoom_go_where_they_say(images: torch.Tensor) -> None:
    moved = distortions.shift(images, torch.full((4,), 4 / 64 / 0.12))
    assert torch.allclose(moved[..., 8:], images[..., 4:-4], atol=1e-4)
    larger = distortions.zoom(images, torch.ones(4))
    inner = torch.nn.functional.interpolate(images[..., 6:-6, 6:-6], (64, 64), mode="bilinear")
    assert (larger - inner).abs().mean() < 0.05


def test_hue_turns_red_to_green(images: torch.Tensor) -> None:
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    turned = distortions.hue(red, torch.tensor([2 / 3]))  # 120 degrees
    assert torch.allclose(turned[0, :, 0, 0], torch.tensor([0.0, 1.0, 0.0]), atol=1e-5)
    assert torch.allclose(distortions.hue(images, torch.ones(4)).mean(1), images.mean(1), atol=0.2)


def test_triplets_are_ordered_and_share_their_noise(images: torch.Tensor) -> None:
    for name in DISTORTIONS:
        weak, strong = distortions.triplets(images, name, torch.Generator().manual_seed(1))
        nearer = (weak - images).square().mean((1, 2, 3)) < (strong - images).square().mean(
            (1, 2, 3)
        )
        assert nearer.all(), name
    weak, strong = distortions.triplets(
        torch.zeros(1, 3, 32, 32), "noise", torch.Generator().manual_seed(1)
    )
    inside = strong.abs() < 1
    ratio = (weak / strong)[inside]
    assert ratio.std() < 1e-3


def test_ranking_loss_asks_for_the_order() -> None:
    near, far = torch.tensor([0.1, 0.2]), torch.tensor([0.3, 0.5])
    assert perceptual.ranking_loss(near, far) < 0.3 < perceptual.ranking_loss(far, near)
    assert perceptual.ranking_loss(10 * near, 10 * far) == pytest.approx(
        perceptual.ranking_loss(near, far).item()
    )


def test_weights_learn_to_rank(distance: PerceptualModel, images: torch.Tensor) -> None:
    """A hue turn is made nearer than a fade: the weights alone can move the order."""
    model = PerceptualModel(distance.tower, [0, 1, 2])
    near, far = (
        distortions.hue(images, torch.ones(4)),
        distortions.shift(images, torch.full((4,), 0.3)),
    )
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    history = []
    for _ in range(30):
        loss = perceptual.ranking_loss(model(images, near).flatten(), model(images, far).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < history[0] - 0.02
    assert all((weight > 0).all() for weight in model.weights())


def test_monotonicity_counts_what_grows(distance: PerceptualModel, images: torch.Tensor) -> None:
    result = distortions.distances_by_strength(distance, images)
    assert set(result) == set(DISTORTIONS) and result["noise"].shape == (6, 4)
    assert distortions.monotonicity(result["noise"]) > 70
    assert distortions.monotonicity(torch.tensor([[1.0, 1], [2, 3], [3, 2]])) == 75


def test_saved_distance_comes_back(tmp_path: Path, images: torch.Tensor) -> None:
    from pocket.train.tokenizer import train_tokenizer
    from pocket.train.towers import build
    from pocket.world.phrases import words

    clip = build(train_tokenizer(words()), smoke=True).eval()
    clip.save_pretrained(tmp_path / "clip")
    write_processor(tmp_path / "clip", clip.config.vision_config.image_size)
    own = PerceptualModel(clip.vision_model, [0, 2])
    for raw in own.raw:
        raw.data.uniform_(-3, 3)
    (tmp_path / "heads").mkdir()
    heads = {f"layer_{k}": w.detach() for k, w in zip(own.layers, own.weights(), strict=True)}
    save_file(heads, tmp_path / "heads" / "heads.safetensors")
    (tmp_path / "heads" / "config.json").write_text(
        json.dumps({"layers": own.layers, "image_size": own.image_size})
    )
    loaded = PerceptualDistance(tmp_path / "clip", tmp_path / "heads")
    other = images.roll(1, dims=0)
    assert torch.allclose(loaded(images, other), own(images, other), rtol=1e-4)
    assert not any(p.requires_grad for p in loaded.parameters())
    again = PerceptualModel(clip.vision_model, [0, 2])
    again.load_heads(tmp_path / "heads")
    assert torch.allclose(again(images, other), own(images, other), rtol=1e-4)
