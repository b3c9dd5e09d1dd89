"""The autoencoder: images of 256x256 pixels to latents of 4x32x32 and back (AutoencoderKL).

Trained on random crops with an L1 loss over a pyramid, on gradients and on chroma, and in the
second half of the run with a small PatchGAN discriminator for crisp edges. Fully convolutional,
without attention: images of any width decode in memory proportional to their area, and crops
suffice to train on.
"""

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from . import loop
from .images import normalize, to_float
from .muon import Muon
from .pool import Pool
from .run import Run

# Few channels where the time goes, at full resolution. Few norm groups: with 32 groups of one
# channel each, every channel would lose its mean, and the image its colors.
CONFIG: dict[str, Any] = {
    "block_out_channels": (32, 64, 128, 160),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 256,
}
SMOKE: dict[str, Any] = CONFIG | {"block_out_channels": (8, 8, 16, 16), "layers_per_block": 1}
CROP = 192
# The noise in the latents then costs about as much as the L1 loss gains: invisible in the image,
# smooth for the denoiser.
KL_WEIGHT = 2e-4
DISCRIMINATOR_WEIGHT = 0.3  # norm of its gradient on the image, relative to that of the L1 loss
DISCRIMINATOR_RAMP = (0.5, 0.6)  # fractions of the run between which the weight rises
STATISTICS_IMAGES = 256  # which measure mean and standard deviation of the latents


def build(config: dict[str, Any]) -> AutoencoderKL:
    """Return an untrained autoencoder; each block but the last halves the resolution."""
    blocks = len(config["block_out_channels"])
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        mid_block_add_attention=False,
        **config,
    )


def moments(vae: AutoencoderKL, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log-variance of the latents (B, 4, H/8, W/8), float32.

    images: (B, 3, H, W) in [-1, 1].
    """
    mean, logvar = vae.quant_conv(vae.encoder(images)).float().chunk(2, dim=1)
    return mean, logvar.clamp(-30, 20)


def random_crops(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return a random crop of each image, flipped at random along both axes.

    (B, H, W, 3) to (B, size, size, 3).
    """
    b, h, w, _ = images.shape

    def randint(high: int) -> Tensor:
        return torch.randint(high, (b, 1), generator=generator, device=images.device)

    rows, columns = torch.arange(size, device=images.device).expand(2, b, size)  # (B, size) each
    rows = torch.where(randint(2) > 0, rows, size - 1 - rows) + randint(h - size + 1)
    columns = torch.where(randint(2) > 0, columns, size - 1 - columns) + randint(w - size + 1)
    batch = torch.arange(b, device=images.device)[:, None, None]
    return images[batch, rows[:, :, None], columns[:, None, :]]


class PatchDiscriminator(nn.Module):
    """Scores patches of 18 pixels as real or reconstructed (Isola et al. 2017), without norms."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        shapes = [  # channels in and out, kernel size, stride
            (3, width, 4, 2),
            (width, 2 * width, 4, 2),
            (2 * width, 4 * width, 3, 1),
            (4 * width, 1, 1, 1),
        ]
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, k, s, padding=(k - 1) // 2) for i, o, k, s in shapes
        )

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """Return scores (B, 1, H/4, W/4) of images (B, 3, H, W), high where they look real.

        frozen: the weights get no gradient.
        """
        for i, conv in enumerate(self.convs):
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            weight: Tensor = conv.weight
            bias: Tensor = conv.bias
            if frozen:
                weight, bias = weight.detach(), bias.detach()
            if i:
                x = F.leaky_relu(x, 0.2)
            x = F.conv2d(x, weight, bias, conv.stride, conv.padding)
        return x


class RescaleGradient(torch.autograd.Function):
    """Identity whose gradient gets a given norm: weights the discriminator against the L1 loss."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Tensor) -> Tensor:
        ctx.save_for_backward(norm)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (norm,) = ctx.saved_tensors
        return grad * (norm / grad.float().norm().clamp_min(1e-12)), None


def gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the differences of vertical and of horizontal neighbors."""
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def chroma(x: Tensor) -> Tensor:
    """Return red less green and yellow less blue, (B, 3, H, W) to (B, 2, H, W)."""
    r, g, b = x.unbind(1)
    return torch.stack([r - g, (r + g) / 2 - b], dim=1)


def image_losses(y: Tensor, x: Tensor) -> dict[str, Tensor]:
    """Return the losses of reconstructions y of images x (B, 3, H, W)."""
    levels = [(F.avg_pool2d(y, k), F.avg_pool2d(x, k)) for k in (2, 4, 8)]
    losses: dict[str, Any] = {
        "l1": F.l1_loss(y, x),
        "pyramid": sum(F.l1_loss(a, b) for a, b in levels) / len(levels),
        "edges": sum(F.l1_loss(a, b) for a, b in zip(gradients(y), gradients(x), strict=True)),
        "color": sum(F.l1_loss(chroma(a), chroma(b)) for a, b in levels[1:]),
    }
    return losses


class AutoencoderLoss(nn.Module):
    """Autoencoder and discriminator with all losses of a batch, as one module to compile."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae
        self.critic = PatchDiscriminator()

    def forward(self, x: Tensor, critic_weight: Tensor) -> dict[str, Tensor]:
        """Return the losses of images (B, 3, H, W) in [-1, 1].

        critic_weight: of the discriminator, 0-d; at 0 it does not learn.
        """
        mean, logvar = moments(self.vae, x)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        y = self.vae.decoder(self.vae.post_quant_conv(z)).float()
        losses = image_losses(y, x)
        losses["kl"] = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()

        # The gradient of the L1 loss is +-1/N for each element, so its norm is N^-1/2.
        rescaled = RescaleGradient.apply(y, critic_weight * x.numel() ** -0.5)
        generator_loss = -self.critic(rescaled, frozen=True).float().mean()
        # Hinge loss (Lim and Ye 2017).
        real, fake = self.critic(x).float(), self.critic(y.detach()).float()
        losses["critic"] = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        reconstruction = losses["l1"] + losses["pyramid"] + losses["edges"] + losses["color"]
        # Only the gradient of the generator's loss counts, not its value.
        adversarial = generator_loss - generator_loss.detach()
        critic = (critic_weight > 0).float() * losses["critic"]
        losses["loss"] = reconstruction + KL_WEIGHT * losses["kl"] + adversarial + critic
        return losses


@torch.no_grad()
def standardize_latents(vae: AutoencoderKL, images: Tensor) -> AutoencoderKL:
    """Return a copy whose latents have mean 0 and the same standard deviation in each channel.

    Its scaling_factor is 1 / standard deviation. The change is folded into quant_conv and
    post_quant_conv, so that images decode as before. A denoiser starts from noise that is the same
    in all channels, so its latents should be, too.

    images: (B, 3, H, W) in [-1, 1], to measure the latents.
    """
    vae = copy.deepcopy(vae)
    parts = [moments(vae, part) for part in images.split(32)]
    mean = torch.cat([m for m, _ in parts])
    variance = torch.cat([logvar for _, logvar in parts]).exp()
    center = mean.mean((0, 2, 3))  # (4,)
    deviation = (mean.var((0, 2, 3)) + variance.mean((0, 2, 3))).sqrt()
    target_deviation = deviation.log().mean().exp()
    gain = target_deviation / deviation
    into, out = vae.quant_conv, vae.post_quant_conv
    # z' = (z - center) * gain, and back z = z' / gain + center
    out.bias.add_(out.weight[:, :, 0, 0] @ center)
    out.weight.div_(gain[None, :, None, None])
    into.weight.mul_(torch.cat([gain, torch.ones_like(gain)])[:, None, None, None])
    into.bias[:4].sub_(center).mul_(gain)
    into.bias[4:].add_(2 * gain.log())
    vae.register_to_config(scaling_factor=round(float(1 / target_deviation), 5))
    return vae.to(memory_format=torch.contiguous_format)  # which safetensors requires


@torch.no_grad()
def psnr(vae: AutoencoderKL, images: Tensor) -> float:
    """Return the mean peak signal-to-noise ratio of reconstructions in dB.

    images: (B, 3, H, W) in [-1, 1].
    """
    values = []
    for x in images.split(32):
        y = vae.decoder(vae.post_quant_conv(moments(vae, x)[0])).float().clamp(-1, 1)
        values.append(-10 * ((y - x) / 2).square().mean((1, 2, 3)).log10())
    return float(torch.cat(values).mean())


def main(run: Run) -> None:
    """Train the autoencoder on WORK/data; write WORK/autoencoder/weights."""
    pool = Pool(run)
    torch.manual_seed(run.seed)
    vae = run.load(AutoencoderKL) if run.init else build(SMOKE if run.smoke else CONFIG)
    model = AutoencoderLoss(vae).to(run.device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    crop, batch = (64, run.batch or 4) if run.smoke else (CROP, run.batch or 64)
    generator = torch.Generator(run.device).manual_seed(0)
    count = 8 if run.smoke else STATISTICS_IMAGES
    fixed_images = normalize(to_float(pool.sample(count, generator)[0]))

    def loss_fn(network: nn.Module, step: int, fraction: float) -> dict[str, Tensor]:
        images, _ = pool.sample(batch, run.generator)
        crops = normalize(to_float(random_crops(images, crop, run.generator)))
        start, end = DISCRIMINATOR_RAMP
        ramp = min(max((fraction - start) / (end - start), 0.0), 1.0)
        # torch.full, because torch.tensor would wait for the GPU.
        return network(crops, torch.full((), DISCRIMINATOR_WEIGHT * ramp, device=run.device))

    def save(folder: Path) -> None:
        with run.autocast():
            standardized = standardize_latents(vae, fixed_images)
        with run.autocast():  # again, because autocast caches the weights as they were before
            value = psnr(standardized, fixed_images)
        run.log(f"PSNR {value:.2f} dB, scaling factor {standardized.config.scaling_factor}")
        standardized.save_pretrained(folder)

    optimizer = Muon(model, lr=1e-3, weight_decay=1e-4)
    loop.train(run, model, optimizer, loss_fn, save, loop.Settings(30_000, minutes=24.0))
