"""The denoiser for sampling: the results of diffusers' network, on every kind that it supports."""

from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import nn

from course.models import find_model, load_pipeline
from course.speed import fused_ops
from course.speed.fast_unet import FastUNet, FastUNetWarning, find_unsupported, optimize_frozen_unet

SMALL: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (16, 32, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 24,
}
KINDS: dict[str, dict[str, Any]] = {
    "1.5": {"attention_head_dim": 4},
    "2.1": {"attention_head_dim": (1, 2, 2), "use_linear_projection": True, "layers_per_block": 2},
    "XL": {
        "attention_head_dim": (1, 2, 2),
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2, 3),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 16 + 6 * 8,
    },
}


def build(kind: str = "2.1", **settings: Any) -> UNet2DConditionModel:
    """Return a small network in which every bias and norm counts."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**SMALL | KINDS[kind] | settings).double().eval()
    for parameter in unet.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn_like(parameter)
    return unet.requires_grad_(False)


def inputs(kind: str = "2.1", height: int = 16, width: int = 16) -> dict[str, Any]:
    options: dict[str, Any] = {
        "sample": torch.randn(2, 4, height, width).double(),
        "timestep": 321,
        "encoder_hidden_states": torch.randn(2, 5, 24).double(),
    }
    if kind == "XL":
        added = {"text_embeds": torch.randn(2, 16), "time_ids": torch.randn(2, 6)}
        options["added_cond_kwargs"] = {name: value.double() for name, value in added.items()}
    return options


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(16, 16), (8, 24), (9, 13)])
def test_results_are_those_of_diffusers(kind, size):
    unet, options = build(kind), inputs(kind, *size)
    expected = unet(**options).sample
    torch.testing.assert_close(FastUNet(unet)(**options).sample, expected)


def test_a_controlnet_adds_to_it():
    unet, options = build(), inputs()
    controlnet = ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(8, 8)
    ).double()
    for parameter in controlnet.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    image = torch.rand(2, 3, 32, 32).double()
    with torch.no_grad():
        down, mid = controlnet(**options, controlnet_cond=image, return_dict=False)
    residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
    [expected] = unet(**options, **residuals, return_dict=False)
    [result] = FastUNet(unet)(**options, **residuals, return_dict=False)
    torch.testing.assert_close(result, expected)
    assert not torch.allclose(unet(**options).sample, expected)


def test_a_pipeline_takes_it(tiny_folder):
    def generate() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        options = {"num_inference_steps": 2, "generator": generator, "output_type": "pt"}
        return pipe("a cat", **options).images

    pipe = load_pipeline(find_model(tiny_folder))
    expected = generate()
    pipe.unet = optimize_frozen_unet(pipe.unet)
    assert isinstance(pipe.unet, FastUNet)
    torch.testing.assert_close(generate(), expected, atol=1e-5, rtol=1e-4)


def test_a_gradient_is_that_of_the_network():
    unet, options = build(), inputs()
    options["sample"].requires_grad_()
    [expected] = torch.autograd.grad(unet(**options).sample.sum(), options["sample"])
    [gradient] = torch.autograd.grad(FastUNet(unet)(**options).sample.sum(), options["sample"])
    torch.testing.assert_close(gradient, expected)


def test_other_options_reach_the_network():
    unet, options = build(), inputs()
    mask = torch.tensor([[1, 1, 0, 0, 0]] * 2).bool()
    expected = unet(**options, encoder_attention_mask=mask).sample
    result = FastUNet(unet)(**options, encoder_attention_mask=mask, class_labels=None).sample
    torch.testing.assert_close(result, expected)


def test_attributes_are_the_networks():
    unet = build()
    fast = FastUNet(unet)
    assert fast.config is unet.config and fast.dtype == torch.float64
    assert not hasattr(fast, "nothing")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift is 'scale_shift'"),
        (
            {"down_block_types": ("AttnDownBlock2D", "DownBlock2D", "DownBlock2D")},
            "it has blocks of another type (AttnDownBlock2D)",
        ),
    ],
)
def test_other_networks_stay_as_they_are(settings, reason):
    unet = build(**settings)
    with pytest.warns(FastUNetWarning, match="is not optimized") as warned:
        assert optimize_frozen_unet(unet) is unet
    assert reason in str(warned[0].message)


def test_other_processors_and_modules_are_unsupported():
    unet = build()

    class Recorder:
        def __call__(self, attn: nn.Module, hidden_states: torch.Tensor, **_: Any) -> torch.Tensor:
            return hidden_states

    assert not find_unsupported(unet)
    unet.set_attn_processor(Recorder())
    assert find_unsupported(unet) == "it has attention processors of its own"
    assert find_unsupported(nn.Linear(3, 3)) == "it is a Linear"


def test_lora_layers_are_unsupported_until_they_are_merged():
    from peft import LoraConfig

    unet = build()
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    assert find_unsupported(unet).startswith("it has LoRA layers")
    unet.fuse_lora()
    unet.unload_lora()
    assert not find_unsupported(unet)


def test_operations_have_the_results_of_torchs_layers():
    x = torch.randn(2, 12, 3, 5).to(memory_format=torch.channels_last)
    norm = nn.GroupNorm(4, 12)
    shift = torch.randn(2, 12)
    expected = nn.functional.silu(norm(x + shift[:, :, None, None]))
    torch.testing.assert_close(fused_ops.group_norm(x, norm, shift), expected)
    torch.testing.assert_close(fused_ops.group_norm(x, norm, silu=False), norm(x))
    rows, layer = torch.randn(7, 12), nn.LayerNorm(12)
    torch.testing.assert_close(fused_ops.layer_norm(rows, layer, shift[0]), layer(rows + shift[0]))
    a, b = rows.chunk(2, dim=1)
    torch.testing.assert_close(fused_ops.geglu(rows), a * nn.functional.gelu(b))
    torch.testing.assert_close(fused_ops.add(x, x, shift[0]), 2 * x + shift[0][:, None, None])
