"""A denoiser for sampling: Stable Diffusion's U-Net with fewer and faster kernels.

    unet = CudaGraphModule(optimize_frozen_unet(pipe.unet))

A denoiser at batch size 1 is limited by the number of its kernels and by the memory that they read
and write, not by arithmetic. What differs from diffusers:

- Images stay in channels-last memory format, as tensor cores read them.
- The biases of convolutions, the embedded timestep, SiLU and the residual connections are part of
  the kernels of norms, sums and matrix products (`fused_ops`).
- What depends on the prompt alone (keys and values of cross-attention), or on the timestep alone,
  is one matrix product for all layers.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from course.errors import CourseWarning

from . import fused_ops

# Of attention: the first that this device and the sizes of a call allow is used.
BACKENDS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


class FastUNetWarning(CourseWarning):
    """A denoiser stays as it is; the message says why."""


def optimize_frozen_unet(unet: UNet2DConditionModel) -> nn.Module:
    """Return a denoiser with the results of `unet`, faster, and called like it.

    Its weights and device must not change afterwards. `unet` itself is put into channels-last
    memory format. A network that is not like Stable Diffusion's (1, 2 or XL) is returned as it is,
    with a warning.
    """
    reason = find_unsupported(unet)
    if reason:
        warnings.warn(
            f"{type(unet).__name__} is not optimized: {reason}", FastUNetWarning, stacklevel=2
        )
        return unet
    return FastUNet(unet)


# Settings of a UNet2DConditionModel that `FastUNet` takes as given.
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu",),
    "addition_embed_type": (None, "text_time"),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "cross_attention_norm": (None,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim_type": (None,),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_out_scale_factor": (1.0,),
    "resnet_time_scale_shift": ("default",),
    "time_embedding_act_fn": (None,),
}
BLOCKS = {"DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"}


def find_unsupported(unet: nn.Module) -> str:
    """Return what `FastUNet` cannot compute in this network; "" if there is nothing."""
    if not isinstance(unet, UNet2DConditionModel):
        return f"it is a {type(unet).__name__}"
    for name, values in SUPPORTED.items():
        if unet.config[name] not in values:
            return f"{name} is {unet.config[name]!r}"
    others = {*unet.config.down_block_types, *unet.config.up_block_types} - BLOCKS
    if others:
        return f"it has blocks of another type ({', '.join(sorted(others))})"
    if any(type(each) is not AttnProcessor2_0 for each in unet.attn_processors.values()):
        return "it has attention processors of its own"
    if any("lora" in name for name, _ in unet.named_modules()):
        return "it has LoRA layers; call fuse_lora, then unload_lora_weights before"
    return ""


def as_linear(layer: nn.Linear | nn.Conv2d) -> Tensor:
    """Return the weight (O, I) of a linear layer, or of a convolution with a kernel of 1x1."""
    return layer.weight.flatten(1)


def rows(x: Tensor) -> Tensor:
    """View x (B, C, H, W) in channels-last memory format as (B H W, C)."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def convolve(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Return a convolution without its bias."""
    return F.conv2d(x, layer.weight, None, layer.stride, layer.padding)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v of (B, N, heads, d) each, as (B N, heads d)."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, heads, N, d)
    y = F.scaled_dot_product_attention(q, k, v)
    return y.transpose(1, 2).reshape(-1, q.shape[1] * q.shape[3])


class FastBlock:
    """A transformer block of the U-Net on tokens (B N, C).

    The matrix products add to the residual sum, but not their biases: each norm adds those that
    the sum lacks so far.

    Args:
        block: diffusers' block.
        missing: the sum of the biases (C,) that the input of the block lacks.
    """

    def __init__(self, block: BasicTransformerBlock, missing: Tensor) -> None:
        self.block = block
        attn1, attn2 = block.attn1, block.attn2
        self.heads = attn1.heads
        self.qkv = torch.cat([attn1.to_q.weight, attn1.to_k.weight, attn1.to_v.weight])  # (3 C, C)
        self.to_q = attn2.to_q.weight
        self.outs = [attn1.to_out[0], attn2.to_out[0], block.ff.net[2]]
        self.missing = [missing]  # before each of the three norms, and after the block
        for layer in self.outs:
            self.missing.append(self.missing[-1] + layer.bias)
        self.norms = [block.norm1, block.norm2, block.norm3]

    @property
    def key_value_weight(self) -> Tensor:
        """The weight (2 C, D) of cross-attention's keys and values."""
        attn = self.block.attn2
        return torch.cat([attn.to_k.weight, attn.to_v.weight])

    def __call__(self, x: Tensor, batch: int, keys_values: Tensor) -> Tensor:
        """Return x (B N, C) after the block, less `missing[-1]`; x is overwritten.

        keys_values: those of cross-attention, (B, L, 2 C).
        """
        heads = (self.heads, x.shape[1] // self.heads)
        y = fused_ops.layer_norm(x, self.norms[0], self.missing[0])
        q, k, v = (y @ self.qkv.T).view(batch, -1, 3, *heads).unbind(2)
        x.addmm_(attend(q, k, v), self.outs[0].weight.T)

        y = fused_ops.layer_norm(x, self.norms[1], self.missing[1])
        q = (y @ self.to_q.T).view(batch, -1, *heads)
        k, v = keys_values.unflatten(2, (2, *heads)).unbind(2)
        x.addmm_(attend(q, k, v), self.outs[1].weight.T)

        y = fused_ops.layer_norm(x, self.norms[2], self.missing[2])
        y = fused_ops.geglu(self.block.ff.net[0].proj(y))
        return x.addmm_(y, self.outs[2].weight.T)


class FastTransformer:
    """The transformer blocks of one place in the U-Net, between two projections."""

    def __init__(self, transformer: Transformer2DModel) -> None:
        self.norm, self.bias_in = transformer.norm, transformer.proj_in.bias
        self.weight_in = as_linear(transformer.proj_in)
        self.weight_out = as_linear(transformer.proj_out)
        self.blocks: list[FastBlock] = []
        missing = torch.zeros_like(self.bias_in)
        for block in transformer.transformer_blocks:
            self.blocks.append(FastBlock(block, missing))
            missing = self.blocks[-1].missing[-1]
        self.bias_out = transformer.proj_out.bias + self.weight_out @ missing

    def __call__(self, x: Tensor, keys_values: list[Tensor]) -> Tensor:
        """Return x (B, C, H, W) after the transformer. keys_values: of each block."""
        batch = len(x)
        tokens = rows(fused_ops.group_norm(x, self.norm, silu=False))
        tokens = torch.addmm(self.bias_in, tokens, self.weight_in.T)
        for block, each in zip(self.blocks, keys_values, strict=True):
            tokens = block(tokens, batch, each)
        y = (tokens @ self.weight_out.T).view(batch, *x.shape[2:], -1).permute(0, 3, 1, 2)
        return fused_ops.add(x, y, self.bias_out)


class FastResnet:
    """A residual block of two convolutions."""

    def __init__(self, resnet: ResnetBlock2D) -> None:
        self.resnet = resnet
        self.bias = resnet.conv2.bias
        if resnet.conv_shortcut is not None:
            self.bias = self.bias + resnet.conv_shortcut.bias

    def __call__(self, x: Tensor, shift: Tensor) -> Tensor:
        """Return x (B, C, H, W) after the block; shift (B, C'): embedded timestep and bias."""
        y = convolve(fused_ops.group_norm(x, self.resnet.norm1), self.resnet.conv1)
        y = convolve(fused_ops.group_norm(y, self.resnet.norm2, shift), self.resnet.conv2)
        shortcut = self.resnet.conv_shortcut
        if shortcut is not None:
            x = (rows(x) @ as_linear(shortcut).T).view(*y.permute(0, 2, 3, 1).shape)
            x = x.permute(0, 3, 1, 2)
        return fused_ops.add(x, y, self.bias)


class FastUNet(nn.Module):
    """A UNet2DConditionModel with the same results by other kernels.

    The network itself is kept as `unet`, runs where a gradient is needed, and has the attributes.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet.to(memory_format=torch.channels_last)
        self.eval()
        blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
        with torch.no_grad():
            self.resnets = [[FastResnet(each) for each in block.resnets] for block in blocks]
            self.transformers = [
                [FastTransformer(each) for each in getattr(block, "attentions", [])]
                for block in blocks
            ]
            resnets = [each.resnet for group in self.resnets for each in group]
            layers = [each.time_emb_proj for each in resnets]
            self.time_weight = torch.cat([layer.weight for layer in layers])  # (all C', T)
            self.time_bias = torch.cat(
                [layer.bias + each.conv1.bias for layer, each in zip(layers, resnets, strict=True)]
            )
            self.time_sizes = [len(layer.bias) for layer in layers]
            weights = [
                block.key_value_weight
                for group in self.transformers
                for transformer in group
                for block in transformer.blocks
            ]
            self.text_weight = torch.cat(weights)  # (all 2 C, D)
            self.text_sizes = [len(weight) for weight in weights]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("unet"), name)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        down_block_additional_residuals: Sequence[Tensor] | None = None,
        mid_block_additional_residual: Tensor | None = None,
        return_dict: bool = True,
        **options: Any,
    ) -> Any:
        """Return the prediction (B, 4, h, w) for noisy latents, as UNet2DConditionModel does.

        With other `options` than None, the network itself runs.
        """
        if self._needs_plain(sample, encoder_hidden_states, *options.values()):
            return self.unet(
                sample,
                timestep,
                encoder_hidden_states,
                added_cond_kwargs=added_cond_kwargs,
                down_block_additional_residuals=down_block_additional_residuals,
                mid_block_additional_residual=mid_block_additional_residual,
                return_dict=return_dict,
                **options,
            )
        with torch.no_grad(), sdpa_kernel(BACKENDS, set_priority=True):
            result = self._predict(
                sample,
                self._embed_time(sample, timestep, encoder_hidden_states, added_cond_kwargs),
                encoder_hidden_states,
                down_block_additional_residuals,
                mid_block_additional_residual,
            )
        return UNet2DConditionOutput(sample=result) if return_dict else (result,)

    def _needs_plain(self, sample: Tensor, states: Tensor, *options: Any) -> bool:
        if any(option is not None for option in options):
            return True
        if not torch.is_grad_enabled():
            return False
        return any(x.requires_grad for x in (sample, states, *self.unet.parameters()))

    def _embed_time(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        states: Tensor,
        added_cond_kwargs: dict[str, Tensor] | None,
    ) -> Tensor:
        """Return the embedded timestep (B, T)."""
        unet = self.unet
        embedding = unet.time_embedding(unet.get_time_embed(sample=sample, timestep=timestep))
        added = unet.get_aug_embed(
            emb=embedding, encoder_hidden_states=states, added_cond_kwargs=added_cond_kwargs
        )
        return embedding if added is None else embedding + added

    def _predict(
        self,
        sample: Tensor,
        time: Tensor,
        states: Tensor,
        down_residuals: Sequence[Tensor] | None,
        mid_residual: Tensor | None,
    ) -> Tensor:
        unet = self.unet
        shifts = torch.addmm(self.time_bias, F.silu(time), self.time_weight.T)
        shift = iter(shifts.split(self.time_sizes, dim=1))
        text = iter((states @ self.text_weight.T).split(self.text_sizes, dim=2))

        def run(place: int, k: int, x: Tensor) -> Tensor:
            """Apply a residual block and, if there is one, the transformer after it."""
            x = self.resnets[place][k](x, next(shift))
            if k < len(self.transformers[place]):
                x = transform(place, k, x)
            return x

        def transform(place: int, k: int, x: Tensor) -> Tensor:
            transformer = self.transformers[place][k]
            return transformer(x, [next(text) for _ in transformer.blocks])

        x = unet.conv_in(sample.to(memory_format=torch.channels_last))
        skips = [x]
        for place, block in enumerate(unet.down_blocks):
            for k in range(len(block.resnets)):
                x = run(place, k, x)
                skips.append(x)
            for downsampler in block.downsamplers or []:
                x = downsampler(x)
                skips.append(x)
        if down_residuals is not None:
            skips = [skip + each for skip, each in zip(skips, down_residuals, strict=True)]

        middle = len(unet.down_blocks)
        x = self.resnets[middle][0](x, next(shift))
        for k in range(len(self.transformers[middle])):
            x = self.resnets[middle][k + 1](transform(middle, k, x), next(shift))
        if mid_residual is not None:
            x = x + mid_residual

        for place, block in enumerate(unet.up_blocks, middle + 1):
            for k in range(len(block.resnets)):
                x = run(place, k, torch.cat([x, skips.pop()], dim=1))
            for upsampler in block.upsamplers or []:
                x = upsampler(x, skips[-1].shape[2:])
        x = fused_ops.group_norm(x, unet.conv_norm_out)
        return unet.conv_out(x).contiguous()
