"""Choosing a ControlNet and an estimator: every kind leads to one network or to one clear error."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file

from course.images.conditions import canny, to_control
from course.models import (
    Model,
    ModelError,
    RequestError,
    estimators,
    find_model,
    hub,
    load_pipeline,
)
from course.models import controlnet as control
from course.models import weights as course_weights
from course.models.controlnet import (
    available_kinds,
    find_controlnet,
    find_training_strip,
    latent_size_for,
    load_controlnet,
)
from tests.conftest import add_control, write_manifest


@pytest.fixture
def weights(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use the tiny weights with a ControlNet for edges and both estimators as pocket/weights."""
    weights = tmp_path / "pocket" / "weights"
    shutil.copytree(tiny_folder.parent, weights)
    add_control(weights, scale=0)
    for kind in ("depth", "normals", "scribble"):
        shutil.rmtree(weights / "controlnet" / kind)
    write_manifest(weights)
    monkeypatch.setattr(course_weights, "WEIGHTS", weights)
    estimators._load_estimator.cache_clear()
    yield weights
    estimators._load_estimator.cache_clear()


def real(name: str, folder: Path) -> Model:
    """A model called as a real one, on a tiny one's files."""
    return Model(name, folder)


def test_the_embedded_controlnet_draws_and_a_condition_steers(weights):
    model = find_model()
    controlnet = load_controlnet("canny", model)
    pipe = load_pipeline(model, controlnet)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))
    draw = lambda condition: np.asarray(
        pipe(
            "a duck",
            image=condition,
            num_inference_steps=1,
            generator=torch.Generator().manual_seed(0),
        ).images[0]
    )
    edges = to_control(canny(image, 20, 40))
    assert edges.shape == (1, 3, 64, 64) and edges.max() == 1
    assert np.array_equal(
        draw(edges), draw(torch.zeros_like(edges))
    )  # untrained: zero convolutions
    with torch.no_grad():
        for network in (
            controlnet.controlnet_cond_embedding.conv_out,
            *controlnet.controlnet_down_blocks,
        ):
            torch.nn.init.normal_(network.weight, std=0.5)
    assert not np.array_equal(draw(edges), draw(torch.zeros_like(edges)))


def test_a_controlnet_of_ones_own_is_named_by_its_folder(weights):
    model = find_model()
    assert (
        find_controlnet(weights / "controlnet" / "canny", model) == weights / "controlnet" / "canny"
    )
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        load_controlnet(weights, model)


def test_an_unknown_kind_lists_the_kinds_and_the_nearest(weights):
    with pytest.raises(
        ModelError, match=r'no kind of control "normal" \(did you mean normals\?\).*canny, depth'
    ):
        find_controlnet("normal", find_model())


def test_missing_and_damaged_parts_are_named(weights):
    model = find_model()
    with pytest.raises(ModelError, match=r"lists no file of controlnet/depth.*git checkout"):
        load_controlnet("depth", model)
    file = weights / "controlnet" / "canny" / "diffusion_pytorch_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"controlnet/canny/.*safetensors is damaged"):
        load_controlnet("canny", model)
    (weights / "estimators" / "depth" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"estimators/depth/config\.json is missing"):
        estimators.estimate_depth(np.zeros((64, 64, 3)), model)


def test_one_that_does_not_fit_is_refused(weights, tmp_path):
    other = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    ControlNetModel.from_unet(other, conditioning_embedding_out_channels=(4, 4)).save_pretrained(
        tmp_path / "other"
    )
    with pytest.raises(ModelError, match=r"does not fit pocket: its block_out_channels is .*8, 16"):
        load_controlnet(tmp_path / "other", find_model())
    (tmp_path / "other" / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(
        ModelError, match=r"diffusion_pytorch_model\.safetensors of .* is damaged or cut short"
    ):
        load_controlnet(tmp_path / "other", find_model())


def change(file: Path, **entries: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler", "."])
def test_a_folder_of_another_part_is_no_controlnet(steered_folder, part, tmp_path):
    folder, model = steered_folder / part, find_model(steered_folder)
    other = {
        "unet": "unet must hold a ControlNetModel, got a UNet2DConditionModel",
        "vae": "vae must hold a ControlNetModel, got a AutoencoderKL",
        "text_encoder": "config.json of ControlNet .* is incomplete: it has no in_channels",
    }
    with pytest.raises(
        ModelError,
        match=other.get(part, r"config\.json is missing"),
    ):
        load_controlnet(folder, model)
    if part == "unet":  # identified by its weights alone
        shutil.copytree(folder, tmp_path / "copy")
        change(tmp_path / "copy" / "config.json", _class_name="ControlNetModel")
        with pytest.raises(
            ModelError,
            match=r"The weights in copy .* do not fit config\.json: .*controlnet.* is missing",
        ):
            load_controlnet(tmp_path / "copy", model)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"block_out_channels": [10**9, 32]},
            "block_out_channels must be a whole number from 1 to 16,384, got",
        ),
        ({"block_out_channels": [16, 64]}, "do not fit config.json"),
        ({"layers_per_block": 10**9}, "layers_per_block must be a whole number from 1 to 8"),
        (
            {"conditioning_embedding_out_channels": ["x"]},
            "conditioning_embedding_out_channels must be a whole number",
        ),
        ({"down_block_types": None}, "cannot be loaded"),
        (
            {"_class_name": "FluxControlNetModel"},
            "must hold a ControlNetModel, got a FluxControlNetModel",
        ),
        ({"in_channels": None}, "in_channels must be a whole number"),
    ],
    ids=str,
)
def test_an_odd_configuration_is_refused(steered_folder, entries, message, tmp_path):
    folder = shutil.copytree(steered_folder.parent / "controlnet" / "canny", tmp_path / "own")
    change(folder / "config.json", **entries)
    with pytest.raises(ModelError, match=message):
        load_controlnet(folder, find_model(steered_folder))


@pytest.mark.parametrize("content", ["[]", "null", "{", "[" * 100_000, ""])
def test_a_configuration_that_is_none(steered_folder, content, tmp_path):
    folder = shutil.copytree(steered_folder.parent / "controlnet" / "canny", tmp_path / "own")
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"own/config\.json of ControlNet .* is damaged: "):
        load_controlnet(folder, find_model(steered_folder))


def test_a_pickle_is_not_loaded(steered_folder, tmp_path):
    folder = shutil.copytree(steered_folder.parent / "controlnet" / "canny", tmp_path / "own")
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.bin")
    with pytest.raises(
        ModelError, match=r"has no diffusion_pytorch_model\.safetensors, only .*\.bin\."
    ):
        load_controlnet(folder, find_model(steered_folder))


@pytest.mark.parametrize("kind", ["~nobody_at_all/canny", "a\0b", "x" * 5000, "\ud800", "canny2"])
def test_names_that_are_no_folder(steered_folder, kind):
    with pytest.raises(ModelError, match="There is no kind of control") as caught:
        load_controlnet(kind, find_model(steered_folder))
    assert len(str(caught.value)) < 400


def test_a_model_in_a_folder_brings_its_own(steered_folder, weights):
    """In a folder like that of the embedded weights, such as one trained with `--weights`."""
    model = find_model(steered_folder)
    assert not model.is_embedded and available_kinds(model) == list(control.KINDS)
    assert find_controlnet("scribble", model) == steered_folder.parent / "controlnet" / "scribble"
    assert (
        find_training_strip("depth", model)
        == steered_folder.parent / "controlnet" / "depth" / "strip.jpg"
    )
    assert estimators.estimate_depth(np.zeros((64, 64, 3)), model).shape == (64, 64)
    assert estimators.estimate_normals(np.zeros((64, 64, 3)), model).shape == (64, 64, 3)


def test_kinds_are_those_that_can_be_loaded(weights, tiny_folder):
    pocket = find_model()
    assert pocket.is_embedded and available_kinds(pocket) == ["canny"]
    assert available_kinds(real("sd-1.5", tiny_folder)) == list(control.KINDS)
    assert available_kinds(real("sd-2.1-base", tiny_folder)) == ["canny", "depth"]
    with pytest.raises(
        ModelError,
        match=r"No ControlNet is known for somebody/something\. Models with ControlNets are pocket",
    ):
        available_kinds(real("somebody/something", tiny_folder))


def test_embedded_weights_without_any_say_what_is_missing(weights):
    shutil.rmtree(weights / "controlnet")
    with pytest.raises(ModelError, match=r"controlnet/canny/config\.json is missing.*git checkout"):
        available_kinds(find_model())
    write_manifest(weights)
    with pytest.raises(ModelError, match=r"lists no file of controlnet/canny.*git checkout"):
        available_kinds(find_model())


def test_who_has_no_strip_sees_the_embedded_ones(weights, tiny_folder):
    assert (
        find_training_strip("canny", real("sd-1.5", tiny_folder))
        == weights / "controlnet" / "canny" / "strip.jpg"
    )


# --- the size of what is drawn


def test_the_condition_says_how_large_the_image_is(tiny_folder):
    model = find_model(tiny_folder)
    assert latent_size_for(model, []) == (8, 8)
    assert latent_size_for(model, [torch.zeros(1, 3, 40, 96)] * 2) == (5, 12)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (
            [torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 72)],
            "different sizes, 64 x 64 and 72 x 64",
        ),
        ([torch.zeros(1, 3, 64, 61)], "width must be a multiple of 8 .* got 61. The nearest is 64"),
        ([torch.zeros(3, 64, 64)], r"tensor \(1, 3, H, W\), got \(3, 64, 64\)"),
        ([torch.zeros(1, 1, 64, 64)], r"got \(1, 1, 64, 64\)"),
        ([Image.new("RGB", (64, 64))], "got Image"),
        ([np.zeros((64, 64, 3))], r"got \(64, 64, 3\)"),
        ([torch.full((1, 3, 64, 64), -1.0)], "from 0 to 1, got -1 to -1"),
        ([255 * torch.ones(1, 3, 64, 64)], "got 255 to 255"),
        ([torch.full((1, 3, 64, 64), float("nan"))], "got nan to nan"),
    ],
)
def test_invalid_conditions_are_refused(tiny_folder, conditions, message):
    with pytest.raises(RequestError, match=message):
        latent_size_for(find_model(tiny_folder), conditions)


# --- real Stable Diffusion


@pytest.mark.parametrize("kind", control.KINDS)
def test_public_controlnets_are_fetched_by_their_id(kind, weights, tiny_folder, monkeypatch):
    requests = []

    def download(repo, **patterns):
        requests.append((repo, patterns["allow_patterns"]))
        return str(weights / "controlnet" / "canny")

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert find_controlnet(kind, real("sd-1.5", tiny_folder)) == weights / "controlnet" / "canny"
    assert requests == [
        (hub.CONTROLNETS["sd-1.5"][kind], ["config.json", "diffusion_pytorch_model.safetensors"])
    ]


def test_a_kind_that_a_model_lacks_and_a_model_without_any(tiny_folder):
    with pytest.raises(
        ModelError, match=r'"scribble" is known for sd-2\.1-base, only canny, depth'
    ):
        find_controlnet("scribble", real("sd-2.1-base", tiny_folder))
    with pytest.raises(
        ModelError,
        match=r"is known for somebody/something\. Models with ControlNets are pocket, sd-1",
    ):
        find_controlnet("canny", real("somebody/something", tiny_folder))


def test_a_repository_without_safe_weights_is_refused(steered_folder, tmp_path, monkeypatch):
    shutil.copy(steered_folder.parent / "controlnet" / "canny" / "config.json", tmp_path)
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(
        ModelError, match=r'of ControlNet "canny" has no diffusion_pytorch_model\.safetensors'
    ):
        load_controlnet("canny", real("sd-1.5", steered_folder))


def test_unreachable_hub_for_real(tiny_folder, tmp_path, monkeypatch):
    """No stand-in: the Hub's own client, with its network switched off and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model, image = real("sd-1.5", tiny_folder), np.zeros((64, 64, 3))
    for ask, repo in (
        (lambda: load_controlnet("canny", model), hub.CONTROLNETS["sd-1.5"]["canny"]),
        (lambda: estimators.estimate_depth(image, model), hub.ESTIMATORS["depth"]),
        (lambda: estimators.estimate_normals(image, model), hub.ESTIMATORS["normals"]),
    ):
        with pytest.raises(
            ModelError, match=f'"{repo}" could not be downloaded: it is not on this disk yet'
        ):
            ask()


# --- estimators


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b"nothing"),
        ("model.safetensors", None),
        ("config.json", b"[]"),
        ("config.json", b'{"model_type": "nothing"}'),
        ("preprocessor_config.json", b"null"),
        ("preprocessor_config.json", b"{}"),
        ("preprocessor_config.json", b'{"size": {"height": "64"}}'),
        ("preprocessor_config.json", b'{"size": {"height": 1000000000}}'),
        (
            "preprocessor_config.json",
            b'{"size": {"height": 64}, "image_mean": "x", "image_std": [1]}',
        ),
    ],
)
@pytest.mark.parametrize("kind", ["depth", "normals"])
def test_a_damaged_estimator_in_a_folder_is_one_error(
    steered_folder, tmp_path, kind, file, content
):
    shutil.copytree(steered_folder.parent, tmp_path / "weights")
    path = tmp_path / "weights" / "estimators" / kind / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    model = find_model(tmp_path / "weights" / "stable-diffusion")
    estimate = {"depth": estimators.estimate_depth, "normals": estimators.estimate_normals}[kind]
    with pytest.raises(ModelError, match="estimator"):
        estimate(np.zeros((64, 64, 3)), model)


def test_an_estimator_without_some_weights_is_refused(steered_folder, tmp_path):
    """Transformers would fill the gap with random numbers and one line in a log."""
    folder = shutil.copytree(steered_folder.parent / "estimators" / "depth", tmp_path / "depth")
    tensors = load_file(folder / "model.safetensors")
    missing = sorted(tensors)[0]
    del tensors[missing]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ModelError, match=rf"estimator of depth is incomplete: {missing} is missing"
    ):
        estimators.Estimator("depth", folder)


@pytest.mark.parametrize("size", [(64, 64), (100, 150), (17, 300)], ids=str)
def test_depth_and_normals_of_any_image(weights, size):
    model = find_model()
    image = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    depth = estimators.estimate_depth(image, model)
    assert (
        depth.shape == size and depth.dtype == np.float32 and 0 <= depth.min() <= depth.max() <= 1
    )
    normals = estimators.estimate_normals(image, model)
    assert normals.shape == (*size, 3)
    length = np.linalg.norm(normals, axis=2)
    assert ((abs(length - 1) < 1e-4) | (length == 0)).all()


def test_normals_that_are_sure_have_length_one_and_others_none(weights):
    estimator = estimators.Estimator("normals")
    head = estimator.network.decode_head.classifier
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([0.0, 0.0, 0.8]))
    assert torch.allclose(estimator(torch.rand(2, 3, 64, 96))[..., 2], torch.ones(2, 64, 96))
    head.bias.copy_(torch.tensor([0.0, 0.3, 0.0]))
    assert not estimator(torch.rand(1, 3, 64, 64)).any()


def test_an_image_that_is_not_square_is_fitted_into_one(weights):
    """The network gets the whole image with its border repeated, which is cut off again."""
    estimator, seen = estimators.Estimator("depth"), []

    class Network:
        def __call__(self, pixel_values):
            seen.append(pixel_values)
            return SimpleNamespace(predicted_depth=pixel_values[:, 0])

    estimator.network = Network()
    image = torch.rand(1, 3, 32, 64)
    depth = estimator(image)
    assert seen[0].shape == (1, 3, 64, 64)
    torch.testing.assert_close(depth, (image[:, 0] - 0.5) / 0.5)
    assert (seen[0][:, :, :16] == seen[0][:, :, 16:17]).all() and (
        seen[0][:, :, 48:] == seen[0][:, :, 47:48]
    ).all()


def test_estimators_take_many_images_at_once(weights):
    estimator, images = estimators.Estimator("depth"), torch.rand(3, 3, 64, 64)
    together, alone = (
        estimator(images),
        torch.cat([estimator(image[None]) for image in images]),
    )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
