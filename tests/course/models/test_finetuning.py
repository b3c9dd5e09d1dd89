"""What people try next on a model in diffusers' layout: LoRA, textual inversion, and saving in
half precision."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from course.models import Model, ModelError, find_model, load_pipeline
from course.models.controlnet import load_controlnet

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> Model:
    return find_model(tiny_folder)


def image(pipe: Any, prompt: str = "a red duck") -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    return pipe(prompt, num_inference_steps=2, generator=generator, output_type="np").images[0]


def train(pipe: Any, parameters: Iterable[torch.nn.Parameter], steps: int = 2) -> list[float]:
    """Train on one image with the loss of diffusers' examples; return the losses."""
    optimizer = torch.optim.AdamW(parameters, lr=0.05)
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=generator)
    tokens = pipe.tokenizer("a <toy> duck", padding="max_length", return_tensors="pt").input_ids
    losses = []
    for timestep in (torch.tensor([500]),) * steps:
        noisy = pipe.scheduler.add_noise(latents, noise, timestep)
        text = pipe.text_encoder(tokens).last_hidden_state
        loss = F.mse_loss(pipe.unet(noisy, timestep, text).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# --- LoRA


@pytest.mark.parametrize(
    ("rank", "modules"),
    [
        (1, ATTENTION),
        (4, ATTENTION),
        (2, ["to_v"]),
        (2, [*ATTENTION, "ff.net.0.proj"]),
        (2, ["conv1", "proj_in"]),
    ],
    ids=str,
)
def test_a_lora_is_trained_saved_and_loaded(model, tmp_path, rank, modules):
    plain = image(load_pipeline(model))
    pipe = load_pipeline(model)
    pipe.unet.requires_grad_(False)
    pipe.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=modules))
    trained = [parameter for parameter in pipe.unet.parameters() if parameter.requires_grad]
    assert np.array_equal(image(pipe), plain)  # a LoRA begins as nothing
    before, after = train(pipe, trained)
    assert after < before
    changed = image(pipe)
    assert not np.array_equal(changed, plain)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipe.unet))
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers)

    fresh = load_pipeline(model)
    fresh.load_lora_weights(tmp_path)
    np.testing.assert_allclose(image(fresh), changed, atol=1e-5)
    fresh.unload_lora_weights()
    np.testing.assert_allclose(image(fresh), plain, atol=1e-5)


def test_a_lora_of_the_text_encoder_is_merged_into_a_model_of_its_own(model, tmp_path):
    pipe = load_pipeline(model)
    pipe.text_encoder.requires_grad_(False)
    pipe.text_encoder.add_adapter(
        LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj", "v_proj"]),
    )
    train(
        pipe,
        [parameter for parameter in pipe.text_encoder.parameters() if parameter.requires_grad],
    )
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipe.text_encoder))
    StableDiffusionPipeline.save_lora_weights(tmp_path / "lora", text_encoder_lora_layers=layers)
    changed = image(pipe)

    merged = load_pipeline(model)
    merged.load_lora_weights(tmp_path / "lora")
    merged.fuse_lora(components=["text_encoder"])
    merged.unload_lora_weights()
    merged.save_pretrained(tmp_path / "model")
    np.testing.assert_allclose(
        image(load_pipeline(find_model(tmp_path / "model"))),
        changed,
        atol=1e-5,
    )
    assert not np.array_equal(changed, image(load_pipeline(model)))


# --- Textual inversion


def invert(model: Model, token: str) -> tuple[torch.Tensor, np.ndarray]:
    """Train the vector of a new token for two steps; return it and an image with it."""
    pipe = load_pipeline(model)
    pipe.tokenizer.add_tokens(token)
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer), mean_resizing=False)
    table = pipe.text_encoder.get_input_embeddings().weight
    pipe.unet.requires_grad_(False)
    train(pipe, [table])
    vector = table.detach()[pipe.tokenizer.convert_tokens_to_ids(token)].clone()
    fresh = load_pipeline(model)
    fresh.tokenizer.add_tokens(token)
    fresh.text_encoder.resize_token_embeddings(len(fresh.tokenizer), mean_resizing=False)
    fresh.text_encoder.get_input_embeddings().weight.data[-1] = vector
    return vector, image(fresh, f"a {token} duck")


@pytest.mark.parametrize("token", ["<toy>", "<cat-toy>", "<*>", "sks", "🦆"])
def test_a_new_word_is_trained_saved_and_loaded(model, token, tmp_path):
    vector, expected = invert(model, token)
    save_file({token: vector}, tmp_path / "learned_embeds.safetensors")
    pipe = load_pipeline(model)
    pipe.load_textual_inversion(tmp_path, weight_name="learned_embeds.safetensors")
    np.testing.assert_allclose(image(pipe, f"a {token} duck"), expected, atol=1e-5)

    weights = tmp_path / "weights"
    pipe.save_pretrained(weights / "stable-diffusion")
    (weights / "vocabulary.json").write_text((model.folder.parent / "vocabulary.json").read_text())
    own = find_model(weights / "stable-diffusion")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a word that was trained is no unknown one
        assert own.check_prompt(f"a {token} duck") == f"a {token} duck"
    np.testing.assert_allclose(image(load_pipeline(own), f"a {token} duck"), expected, atol=1e-5)


# --- Half precision


@pytest.mark.parametrize(
    ("dtype", "settings"),
    [
        (torch.float16, {}),
        (torch.bfloat16, {}),
        (torch.float16, {"max_shard_size": "30KB"}),
        (torch.float32, {"max_shard_size": "30KB"}),
        (torch.float64, {}),
    ],
    ids=str,
)
def test_a_model_saved_in_another_precision(model, dtype, settings, tmp_path):
    plain = image(load_pipeline(model))
    load_pipeline(model).to(dtype).save_pretrained(tmp_path / "half", **settings)
    file = next((tmp_path / "half" / "unet").glob("*.safetensors"))
    assert {tensor.dtype for tensor in load_file(file).values()} == {dtype}
    half = find_model(tmp_path / "half")
    pipe = load_pipeline(half)
    networks = (pipe.unet, pipe.vae, pipe.text_encoder)
    assert {half.dtype, *(network.dtype for network in networks)} == {torch.float32}
    np.testing.assert_allclose(image(pipe), plain, atol=0.2 if dtype == torch.bfloat16 else 0.03)


def test_a_variant_alone_is_refused(model, tmp_path):
    """Lessons load a model by its folder alone, without naming a variant."""
    load_pipeline(model).to(torch.float16).save_pretrained(tmp_path / "half", variant="fp16")
    with pytest.raises(
        ModelError,
        match=r"only diffusion_pytorch_model\.fp16\.safetensors.*without a variant",
    ):
        find_model(tmp_path / "half")


def test_a_controlnet_saved_in_half_precision(steered_folder, tmp_path):
    model = find_model(steered_folder)
    load_controlnet("canny", model).half().save_pretrained(tmp_path / "half")
    edges = torch.zeros(1, 3, 64, 64)
    edges[..., 20:40, 20:40] = 1
    images = []
    for kind in ("canny", tmp_path / "half"):
        controlnet = load_controlnet(kind, model)
        assert controlnet.dtype == torch.float32
        pipe = load_pipeline(model, controlnet)
        settings = dict(
            generator=torch.Generator().manual_seed(0),
            output_type="np",
            num_inference_steps=2,
        )
        images.append(pipe("a duck", image=edges, **settings).images[0])
    np.testing.assert_allclose(*images, atol=0.03)
