"""The judge and the perceptual distance, on small networks with known or random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from course.metrics import PerceptualDistance
from course.metrics.judge import Judge, decode_logits
from course.metrics.preprocess import Preprocess
from course.models import ModelError
from course.models import weights as course_weights
from course.views import view_word
from tests.conftest import write_manifest

AZIMUTHS = range(-180, 180, 15)
NAMES = dict(
    enumerate(
        [
            "object:none",
            "object:cat",
            "object:duck",
            "overhead:no",
            "overhead:yes",
            *(f"azimuth:{a}" for a in AZIMUTHS),
        ]
    )
)


def logits_of(
    object_: str = "cat", overhead: str = "no", bins: tuple[int, ...] = (0,)
) -> torch.Tensor:
    """Outputs that say `object_` and put equal weight on the azimuth `bins`."""
    wanted = {f"object:{object_}", f"overhead:{overhead}", *(f"azimuth:{a}" for a in bins)}
    return torch.tensor([8.0 if NAMES[i] in wanted else 0.0 for i in range(len(NAMES))])


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A judge, an image tower and perceptual heads with random weights, as in pocket/weights."""
    from transformers import CLIPConfig, CLIPModel, ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    settings = {
        "size": {"height": 32, "width": 32},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    clip = CLIPModel(
        CLIPConfig(
            vision_config={**vision, "image_size": 32, "patch_size": 8},
            text_config={
                **vision,
                "vocab_size": 30,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "pad_token_id": 2,
            },
            projection_dim=8,
        )
    )
    judge = ResNetForImageClassification(
        ResNetConfig(
            embedding_size=8,
            hidden_sizes=[8],
            depths=[1],
            layer_type="basic",
            id2label=NAMES,
            label2id={name: i for i, name in NAMES.items()},
        )
    )
    for name, network in {"clip": clip, "judge": judge}.items():
        network.save_pretrained(tmp_path / name)
        (tmp_path / name / "preprocessor_config.json").write_text(json.dumps(settings))
    (tmp_path / "perceptual").mkdir()
    (tmp_path / "perceptual" / "config.json").write_text(
        json.dumps({"layers": [1, 2], "image_size": 32})
    )
    heads = {f"layer_{i}": torch.rand(16) for i in (1, 2)}
    save_file(heads, tmp_path / "perceptual" / "heads.safetensors")
    write_manifest(tmp_path)
    monkeypatch.setattr(course_weights, "WEIGHTS", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("bins", "azimuth", "view"),
    [
        ((0,), 0, "front"),
        ((30, 45), 37.5, "front"),
        ((-90,), -90, "side"),
        ((135, 150), 142.5, "back"),
        ((165, -180), 172.5, "back"),
        ((-180, -165), -172.5, "back"),
    ],
)
def test_azimuth_is_finer_than_a_bin_and_whole_around_the_back(bins, azimuth, view):
    attributes = decode_logits(logits_of(bins=bins)[None], NAMES)
    assert attributes["azimuth"] == pytest.approx([azimuth], abs=0.3)
    assert view_word(attributes["azimuth"][0]) == view


def test_reading_names_classes_and_overhead():
    both = torch.stack([logits_of("duck", overhead="yes"), logits_of("cat")])
    attributes = decode_logits(both, NAMES)
    assert set(attributes) == {"object", "overhead", "azimuth"}
    assert attributes["object"].tolist() == ["duck", "cat"]
    assert attributes["overhead"].tolist() == ["yes", "no"]


def test_judge_reads_images_of_any_kind_alike(weights):
    judge = Judge()
    array = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    tensor = torch.from_numpy(array).permute(2, 0, 1).float() / 127.5 - 1
    readings = judge([array, Image.fromarray(array), tensor])
    assert readings[0] == readings[1] == readings[2]
    assert judge.logits(tensor[None]).shape == (1, len(NAMES))


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (255, 128, 0)])
def test_judge_sees_images_in_the_range_of_its_network(weights, color):
    """A reading is that of the raw outputs for the same image in [-1, 1]."""
    judge = Judge()
    image = torch.tensor(color).view(1, 3, 1, 1).expand(1, 3, 40, 40) / 127.5 - 1
    expected = decode_logits(judge.logits(image), judge.names)
    [reading] = judge([Image.new("RGB", (40, 40), color)])
    assert reading["azimuth"] == pytest.approx(expected["azimuth"][0], abs=1e-3)
    assert all(reading[group] == expected[group][0] for group in ("object", "overhead"))


def test_judge_is_frozen_but_lets_gradients_through(weights):
    judge = Judge()
    assert not judge.network.training
    assert not any(parameter.requires_grad for parameter in judge.network.parameters())
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    judge.logits(image).sum().backward()
    assert image.grad.abs().max() > 0


def test_judge_works_on_its_device(weights):
    images = torch.zeros(2, 3, 48, 48, device="meta")
    assert Judge("meta").logits(images).device.type == "meta"


def test_preprocess_normalises_and_resizes(weights):
    preprocess = Preprocess(weights / "judge")
    assert torch.equal(preprocess(torch.full((2, 3, 32, 32), 0.5)), torch.full((2, 3, 32, 32), 0.5))
    assert preprocess(torch.zeros(1, 3, 90, 50)).shape == (1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"\(3, 32, 32\)"):
        preprocess(torch.zeros(3, 32, 32))


@pytest.mark.parametrize("size", [(90, 50), (12, 20), (24, 40)])
def test_preprocess_resizes_as_pillow_does_and_normalizes_each_channel(tmp_path, size):
    """Pillow's bilinear filter is the one of transformers' image processors."""
    mean, std = [0.1, 0.4, 0.7], [0.5, 0.25, 0.2]
    settings = {"size": {"height": 24, "width": 40}, "image_mean": mean, "image_std": std}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    [result] = Preprocess(tmp_path)(images)
    for i, channel in enumerate((images[0] + 1) / 2):
        resized = Image.fromarray(channel.numpy()).resize((40, 24), Image.Resampling.BILINEAR)
        expected = (np.asarray(resized) - mean[i]) / std[i]
        np.testing.assert_allclose(result[i].numpy(), expected, atol=1e-5)


def test_distance_is_the_formula(weights):
    distance = PerceptualDistance()
    x, y = torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 3, 32, 32) * 2 - 1
    expected = torch.zeros(2)
    for layer in (1, 2):
        states = [
            distance.tower(pixel_values=p, output_hidden_states=True).hidden_states[layer][:, 1:]
            for p in (x, y)
        ]
        f, g = (state / state.norm(dim=-1, keepdim=True) for state in states)
        expected += ((f - g) ** 2 * distance.get_buffer(f"layer_{layer}")).sum(-1).mean(1)
    assert torch.allclose(distance(x, y).flatten(), expected, atol=1e-6)


def test_distance_has_the_lpips_call(weights):
    distance = PerceptualDistance()
    x, y = torch.rand(2, 2, 3, 40, 40) * 2 - 1
    total = distance(x, y)
    assert total.shape == (2, 1, 1, 1)
    assert torch.equal(distance(x, x), torch.zeros(2, 1, 1, 1))
    assert (total > 0).all() and torch.allclose(total, distance(y, x))
    with pytest.raises(ValueError, match="one shape"):
        distance(x, y[:1])


def test_distance_guides_the_images_but_learns_nothing(weights):
    distance = PerceptualDistance()
    x = torch.zeros(1, 3, 40, 40).requires_grad_()
    y = F.interpolate(torch.rand(1, 3, 5, 5), 40)
    distance(x, y).sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in distance.parameters())


def test_damaged_weights_are_not_loaded(weights):
    (weights / "perceptual" / "heads.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError, match=r"heads\.safetensors is damaged"):
        PerceptualDistance()
