"""An autoencoder that is lighter on a GPU: the same results, sooner, and with less kept for a gradient.

    lighten(pipe.vae)

Three of its layers are replaced in place. None of this trains: only images and latents get gradients.
"""

import math
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from diffusers.models.autoencoders.vae import Decoder, Encoder
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

FEW = (
    64 * 64
)  # latent pixels for whose pairs there is room: 100 MB an image in half precision, with the gradient


def lighten(vae: AutoencoderKL) -> AutoencoderKL:
    """An autoencoder that does not train, changed in place: on a GPU it encodes and decodes faster, with and without
    gradient, and its convolutions and norms keep a third for the gradient. Its results agree within the noise of
    float16. On a CPU it stays as it is.

    Two layers stand out in a profile. Normalisation gives a block of threads to each group, 32 for one image: most
    of the GPU waits. Attention with one wide head goes back through a kernel made for many narrow ones: up to FEW
    latent pixels, plain products of matrices are faster. And of the three tensors that each convolution, with the norm
    and SiLU before it, keeps for the gradient, the first is enough.
    """
    if vae.device.type == "cuda":
        economise(vae)
        vae.set_attn_processor(WideHead())
    return vae


def economise(vae: AutoencoderKL) -> None:
    """Puts `SpreadNorm` in place of an autoencoder's norms and of the SiLU after them, and `FixedConv2d` in that of its
    convolutions.

    These get another class, not another `forward`: so whoever lends one a `forward` for a while, as lesson 2 does, can
    take it away again.
    """
    with_silu: list[nn.GroupNorm] = []
    for layer in vae.modules():
        if isinstance(layer, nn.GroupNorm) and "forward" not in vars(
            layer
        ):  # or else this has been done before
            layer.forward = partial(spread_norm, layer)
        elif isinstance(layer, nn.Conv2d):
            layer.__class__ = FixedConv2d
        elif isinstance(layer, ResnetBlock2D) and isinstance(layer.nonlinearity, nn.SiLU):
            with_silu += [
                layer.norm1,
                layer.norm2,
            ]  # for these alone: an autoencoder has no timestep
            layer.nonlinearity = nn.Identity()
        elif isinstance(layer, Encoder | Decoder) and isinstance(layer.conv_act, nn.SiLU):
            with_silu.append(layer.conv_norm_out)
            layer.conv_act = nn.Identity()
    for norm in with_silu:
        norm.forward = partial(spread_norm, norm, silu=True)


class WideHead:
    """The attention of an autoencoder, by products of matrices where its image is small enough."""

    def __init__(self) -> None:
        self.small, self.large = AttnProcessor(), AttnProcessor2_0()

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """As diffusers' processors are called; it looks at the names of their arguments."""
        chosen = self.small if math.prod(hidden_states.shape[2:]) <= FEW else self.large
        return chosen(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


def spread_norm(layer: nn.GroupNorm, x: Tensor, silu: bool = False) -> Tensor:
    """What `layer` makes of x (B, C, ...), its moments worked out by the whole GPU, and then SiLU if `silu`."""
    return SpreadNorm.apply(x, layer.weight, layer.bias, layer.num_groups, layer.eps, silu)


class SpreadNorm(torch.autograd.Function):
    """Group normalisation (Wu and He 2018) with torch's reductions, which split a sum over many blocks of threads; and
    SiLU, whose input is worked out again for the gradient. Only x gets one: for networks that do not train."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
    ) -> Tensor:
        x = x.contiguous()
        batch, channels = x.shape[:2]
        var, mean = torch.var_mean(x.view(batch, groups, -1), dim=2, correction=0)  # (B, G)
        wide = torch.promote_types(x.dtype, torch.float32)
        rstd = (var.to(wide) + eps).rsqrt()
        scale = rstd.repeat_interleave(channels // groups, dim=1) * weight  # (B, C)
        shift = bias - mean.repeat_interleave(channels // groups, dim=1) * scale
        shape = (batch, channels, *[1] * (x.dim() - 2))
        scale, shift = scale.to(x.dtype).view(shape), shift.to(x.dtype).view(shape)
        ctx.save_for_backward(x, mean, rstd.to(x.dtype), weight, scale, shift)
        ctx.groups, ctx.silu = groups, silu
        y = torch.addcmul(shift, x, scale)
        return nn.functional.silu(y, inplace=True) if silu else y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, mean, rstd, weight, scale, shift = ctx.saved_tensors
        if ctx.silu:
            gradient = torch.ops.aten.silu_backward(
                gradient.contiguous(), torch.addcmul(shift, x, scale)
            )
        batch, channels, *size = x.shape
        found = torch.ops.aten.native_group_norm_backward(
            gradient.contiguous(), x, mean, rstd, weight, batch, channels, math.prod(size), ctx.groups,
            (True, False, False),
        )  # fmt: skip
        return found[0], None, None, None, None, None


class FixedConv2d(nn.Conv2d):
    """A convolution whose weights do not train: for the gradient of its input it does not keep that input."""

    def forward(self, x: Tensor) -> Tensor:
        return FixedConvolution.apply(
            x, self.weight, self.bias, (self.stride, self.padding, self.dilation, self.groups)
        )


class FixedConvolution(torch.autograd.Function):
    """A convolution with a gradient of its input alone. Not for mixed precision: input and weights are of one type."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: tuple[Any, ...]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.how = x.shape, how
        return nn.functional.conv2d(x, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return (
            torch.nn.grad.conv2d_input(ctx.size, *ctx.saved_tensors, gradient, *ctx.how),
            None,
            None,
            None,
        )


class LatentEncoder(nn.Module):
    """An autoencoder's encoder as a network of its own, for a CUDA graph."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor) -> Tensor:
        """Return the means of the latents (B, C, h, w), not scaled, of images (B, 3, H, W)."""
        return self.vae.encode(images).latent_dist.mean


class LatentDecoder(nn.Module):
    """An autoencoder's decoder as a network of its own, for a CUDA graph."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        """Return images (B, 3, H, W), about in [-1, 1], of latents (B, C, h, w), not scaled."""
        return self.vae.decode(latents).sample
