"""Layers of a frozen autoencoder: their results are those of the layers they replace."""

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models import attention_processor
from diffusers.models.attention_processor import Attention
from torch import nn

from course.models import find_model, load_pipeline
from course.speed.frozen_vae import (
    MAX_MATH_TOKENS,
    LatentDecoder,
    LatentEncoder,
    SingleHeadAttnProcessor,
    frozen_group_norm,
    replace_layers,
)


@pytest.mark.parametrize("silu", [False, True])
def test_a_frozen_norm_is_torchs_with_its_gradient(silu):
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 8).double().requires_grad_(False)
    norm.weight.normal_()
    norm.bias.normal_()
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64, requires_grad=True)
    expected = nn.functional.silu(norm(x)) if silu else norm(x)
    torch.testing.assert_close(frozen_group_norm(norm, x, silu), expected)
    assert torch.autograd.gradcheck(lambda y: frozen_group_norm(norm, y, silu), x)


def test_an_autoencoder_that_keeps_less_says_the_same():
    """Both ways, with its gradient, and though nothing but the norms' inputs is kept."""
    torch.manual_seed(0)
    blocks = {
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    }
    vae = (
        AutoencoderKL(block_out_channels=(32, 32), layers_per_block=1, **blocks)
        .double()
        .eval()
        .requires_grad_(False)
    )
    x, sent = (
        torch.rand(1, 3, 16, 16, dtype=torch.float64),
        torch.randn(1, 3, 16, 16, dtype=torch.float64),
    )

    def both_ways() -> tuple[list[torch.Tensor], int]:
        kept: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        own = x.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            result = vae.decode(vae.encode(own).latent_dist.mean).sample
        weights = {p.untyped_storage().data_ptr() for p in vae.parameters()}
        size = sum(storage.nbytes() for place, storage in kept.items() if place not in weights)
        result.backward(sent)
        assert own.grad is not None
        return [result.detach(), own.grad], size

    plain, before = both_ways()
    replace_layers(vae)
    result, after = both_ways()
    for a, b in zip(result, plain, strict=True):
        torch.testing.assert_close(a, b)
    assert after < before / 2


@pytest.mark.parametrize("side", [8, 80])
def test_a_single_head_gives_the_result_of_diffusers(side, monkeypatch):
    """On either side of MAX_MATH_TOKENS; and no warning is logged."""
    torch.manual_seed(0)
    attention = Attention(
        8, heads=1, dim_head=8, norm_num_groups=4, residual_connection=True, bias=True
    ).eval()
    x = torch.randn(1, 8, side, side)
    messages: list[str] = []
    monkeypatch.setattr(attention_processor.logger, "warning", messages.append)
    with torch.no_grad():
        expected = attention(x, temb=None)
        attention.set_processor(SingleHeadAttnProcessor())
        torch.testing.assert_close(attention(x, temb=None), expected)
    assert (side**2 > MAX_MATH_TOKENS) == (side == 80) and not messages


def test_twice_is_as_good_as_once():
    torch.manual_seed(0)
    vae = (
        AutoencoderKL(block_out_channels=(32,), norm_num_groups=4)
        .double()
        .eval()
        .requires_grad_(False)
    )
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    expected = vae(x).sample
    for _ in range(2):
        replace_layers(vae)
        torch.testing.assert_close(vae(x).sample, expected)


@torch.no_grad()
def test_encoder_and_decoder_by_themselves(tiny_folder):
    vae = load_pipeline(find_model(tiny_folder)).vae
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    latents = LatentEncoder(vae)(images)
    assert torch.equal(latents, vae.encode(images).latent_dist.mean)
    assert torch.equal(LatentDecoder(vae)(latents), vae.decode(latents).sample)
