"""The autoencoder: images of 256x256 pixels to latents of 4x32x32 and back (diffusers' AutoencoderKL).

Trained on random crops with an L1 loss over a pyramid, on gradients and on chroma, and in the second half
with a small critic (a PatchGAN) for crisp edges. Fully convolutional: no attention, so that an image of
any width decodes in memory that grows with its area, and crops teach what whole images need.
"""

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from . import loop
from .data import Pool
from .run import Run

# Widths where the time goes (full resolution) are small. Few norm groups: with 32 groups of one channel each
# every channel would lose its mean, and the image its colours.
CONFIG: dict[str, Any] = {
    "block_out_channels": (32, 64, 128, 160),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 256,
}
SMOKE: dict[str, Any] = CONFIG | {"block_out_channels": (8, 8, 16, 16), "layers_per_block": 1}
CROP = 192
KL_WEIGHT = 2e-4  # noise in the latents then costs about so much L1: free for the image, smooth for the denoiser
CRITIC_SHARE = 0.3  # the critic's gradient on the image, as a share of the L1 term's
CRITIC_RAMP = (0.5, 0.6)  # the part of the run over which the critic's share grows
MEASURED = 256  # images that measure the latents' mean and deviation


def build(config: dict[str, Any]) -> AutoencoderKL:
    """An untrained autoencoder: three channels in and out, a factor of 2 a block but the last."""
    blocks = len(config["block_out_channels"])
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        mid_block_add_attention=False,
        **config,
    )


def to_input(images: Tensor) -> Tensor:
    """uint8 images (B, H, W, 3) to network input (B, 3, H, W), float32 in [-1, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def moments(vae: AutoencoderKL, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance (B, 4, H/8, W/8), float32, of the posterior of images x (B, 3, H, W)."""
    mean, logvar = vae.quant_conv(vae.encoder(x)).float().chunk(2, dim=1)
    return mean, logvar.clamp(-30, 20)


def random_crops(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """One random crop an image, mirrored either way at random: (B, H, W, 3) to (B, size, size, 3)."""
    b, h, w, _ = images.shape
    draw = lambda high: torch.randint(high, (b, 1), generator=generator, device=images.device)
    rows, columns = torch.arange(size, device=images.device).expand(2, b, size)  # (B, size) each
    rows = torch.where(draw(2) > 0, rows, size - 1 - rows) + draw(h - size + 1)
    columns = torch.where(draw(2) > 0, columns, size - 1 - columns) + draw(w - size + 1)
    return images[
        torch.arange(b, device=images.device)[:, None, None], rows[:, :, None], columns[:, None, :]
    ]


class Critic(nn.Module):
    """Judges patches of 18 pixels as drawn or reconstructed (Isola et al. 2017, PatchGAN), without norms."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        shapes = [
            (3, width, 4, 2),
            (width, 2 * width, 4, 2),
            (2 * width, 4 * width, 3, 1),
            (4 * width, 1, 1, 1),
        ]
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, k, s, padding=(k - 1) // 2) for i, o, k, s in shapes
        )

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """x (B, 3, H, W) to a map (B, 1, H/4, W/4), high where it looks drawn; frozen: no gradient to the weights."""
        for i, conv in enumerate(self.convs):
            weight, bias = (
                (conv.weight.detach(), conv.bias.detach()) if frozen else (conv.weight, conv.bias)
            )
            x = F.conv2d(F.leaky_relu(x, 0.2) if i else x, weight, bias, conv.stride, conv.padding)
        return x


class ScaleGradient(torch.autograd.Function):
    """Identity whose gradient is rescaled to a given norm: weighs the critic against L1 whatever its size."""

    @staticmethod
    def forward(ctx, x: Tensor, norm: Tensor) -> Tensor:
        ctx.save_for_backward(norm)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (norm,) = ctx.saved_tensors
        return grad * (norm / grad.float().norm().clamp_min(1e-12)), None


def gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbours down and across."""
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def chroma(x: Tensor) -> Tensor:
    """Red against green and yellow against blue, (B, 3, H, W) to (B, 2, H, W)."""
    r, g, b = x.unbind(1)
    return torch.stack([r - g, (r + g) / 2 - b], dim=1)


def image_losses(y: Tensor, x: Tensor) -> dict[str, Tensor]:
    """How far reconstructions y are from images x (B, 3, H, W): L1, over a pyramid, of gradients, of chroma."""
    levels = [(F.avg_pool2d(y, k), F.avg_pool2d(x, k)) for k in (2, 4, 8)]
    return {
        "l1": F.l1_loss(y, x),
        "pyramid": sum(F.l1_loss(a, b) for a, b in levels) / len(levels),
        "edges": sum(F.l1_loss(a, b) for a, b in zip(gradients(y), gradients(x), strict=True)),
        "color": sum(F.l1_loss(chroma(a), chroma(b)) for a, b in levels[1:]),
    }


class Trainee(nn.Module):
    """Autoencoder and critic with all losses of one batch: one module, so one graph to compile and one backward."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae, self.critic = vae, Critic()

    def forward(self, x: Tensor, share: Tensor) -> dict[str, Tensor]:
        """x: images (B, 3, H, W) in [-1, 1]; share: 0-d, the critic's part; at 0 the critic does not learn."""
        mean, logvar = moments(self.vae, x)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        y = self.vae.decoder(self.vae.post_quant_conv(z)).float()
        losses = image_losses(y, x)
        losses["kl"] = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()

        # The L1 term's gradient is +-1/N an element, so of norm N^-1/2: the critic gets a share of that.
        shown = ScaleGradient.apply(y, share * x.numel() ** -0.5)
        persuade = -self.critic(shown, frozen=True).float().mean()
        drawn, made = self.critic(x).float(), self.critic(y.detach()).float()
        losses["critic"] = (
            F.relu(1 - drawn).mean() + F.relu(1 + made).mean()
        )  # hinge (Lim and Ye 2017)
        image = losses["l1"] + losses["pyramid"] + losses["edges"] + losses["color"]
        learn = (share > 0).float() * losses["critic"]
        losses["loss"] = image + KL_WEIGHT * losses["kl"] + persuade - persuade.detach() + learn
        return losses


@torch.no_grad()
def standardised(vae: AutoencoderKL, x: Tensor) -> AutoencoderKL:
    """A copy whose latents have mean 0 and the same deviation in each channel, scaling_factor 1 / deviation.

    The change is folded into quant_conv and post_quant_conv, so images come out as before. A denoiser
    starts from noise that is alike in all channels, so its latents had better be too.

    x: images (B, 3, H, W) in [-1, 1] that measure the latents.
    """
    vae = copy.deepcopy(vae)
    parts = [moments(vae, part) for part in x.split(32)]
    mean, variance = torch.cat([m for m, _ in parts]), torch.cat([v for _, v in parts]).exp()
    center = mean.mean((0, 2, 3))  # (4,)
    deviation = (mean.var((0, 2, 3)) + variance.mean((0, 2, 3))).sqrt()
    common_deviation = deviation.log().mean().exp()
    gain = common_deviation / deviation
    into, out = vae.quant_conv, vae.post_quant_conv
    # z' = (z - center) * gain, on the way out z = z' / gain + center
    out.bias.add_(out.weight[:, :, 0, 0] @ center)
    out.weight.div_(gain[None, :, None, None])
    into.weight.mul_(torch.cat([gain, torch.ones_like(gain)])[:, None, None, None])
    into.bias[:4].sub_(center).mul_(gain)
    into.bias[4:].add_(2 * gain.log())
    vae.register_to_config(scaling_factor=round(float(1 / common_deviation), 5))
    return vae.to(memory_format=torch.contiguous_format)  # as safetensors wants it


@torch.no_grad()
def psnr(vae: AutoencoderKL, x: Tensor) -> float:
    """Mean peak signal-to-noise ratio, in dB, of images x (B, 3, H, W) after encoding and decoding."""
    found = []
    for part in x.split(32):
        y = vae.decoder(vae.post_quant_conv(moments(vae, part)[0])).float().clamp(-1, 1)
        found.append(-10 * ((y - part) / 2).square().mean((1, 2, 3)).log10())
    return float(torch.cat(found).mean())


def main(run: Run) -> None:
    """Trains the autoencoder on WORK/data and writes WORK/autoencoder/weights."""
    pool = Pool(run.work, run.device, heldout=False, rank=run.rank, world_size=run.processes)
    torch.manual_seed(run.seed)
    vae = build(SMOKE if run.smoke else CONFIG)
    if run.init:
        vae = AutoencoderKL.from_pretrained(
            run.weights_of("autoencoder"), torch_dtype=torch.float32
        )
    trainee = Trainee(vae).to(run.device, memory_format=torch.channels_last)
    crop, batch = (64, run.batch or 4) if run.smoke else (CROP, run.batch or 64)
    probe = torch.Generator(run.device).manual_seed(0)
    fixed = to_input(pool.sample(8 if run.smoke else MEASURED, probe)[0])

    def loss_fn(net: nn.Module, step: int, fraction: float) -> dict[str, Tensor]:
        images, _ = pool.sample(batch, run.generator)
        begin, end = CRITIC_RAMP
        share = CRITIC_SHARE * min(max((fraction - begin) / (end - begin), 0.0), 1.0)
        share = torch.full(
            (), share, device=run.device
        )  # a fill, where torch.tensor would wait for the GPU
        return net(to_input(random_crops(images, crop, run.generator)), share)

    def save(folder: Path) -> None:
        with run.autocast():
            ready = standardised(vae, fixed)
        with (
            run.autocast()
        ):  # anew: the first block remembers the weights as they were before they changed
            run.log(
                f"PSNR {psnr(ready, fixed):.2f} dB, scaling factor {ready.config.scaling_factor}"
            )
        ready.save_pretrained(folder)

    optimizer = loop.adamw(trainee, lr=6e-4, weight_decay=1e-4)
    steps, minutes = (12, 1.0) if run.smoke else (30_000, 24.0)
    loop.train(run, trainee, optimizer, loss_fn, save, loop.Settings(steps=steps, minutes=minutes))
