"""The denoiser: predicts the noise in a latent from its caption (diffusers' UNet2DConditionModel).

Trained as Stable Diffusion is (Rombach et al. 2022): noise prediction on the scaled_linear schedule, the captions'
last hidden states of a frozen CLIP text tower as the condition, one caption in ten left out for guidance.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPModel

from . import common
from .muon import Muon
from .tokenizer import encode, load

# Attention from 16x16 down: at 32x32 it costs a seventh of a training step and gains little (benchmarks.training).
# attention_head_dim is, by an old slip of diffusers' naming, the number of heads: 40 and 64 channels each.
CONFIG: dict[str, Any] = {
    "block_out_channels": (64, 160, 256),
    "attention_head_dim": (1, 4, 4),
    "layers_per_block": 2,
    "norm_num_groups": 16,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
SMOKE: dict[str, Any] = CONFIG | {
    "block_out_channels": (16, 16, 32),
    "attention_head_dim": 1,
    "layers_per_block": 1,
}
SCHEDULER: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": True,  # the last step leaves no noise: 3 % of it decodes to a grain like that of snow
    "steps_offset": 1,
    "prediction_type": "epsilon",
    "timestep_spacing": "trailing",  # starts at the noisiest step that was trained (Lin et al. 2024)
}
CAPTION_DROPOUT = 0.1
# Deviation of a constant added to each channel of the noise (Guttenberg 2023). At the noisiest step of this schedule
# a latent's mean still shows through plain noise, and a denoiser that trusts it draws white and black as gray.
NOISE_OFFSET = 0.1
# Hang et al. take 5. The last step's error is what remains of the noise in an image, as a faint grain, and weighs too
# little by that.
SNR_LIMIT = 20.0
MEMORY_SHARE = 0.6  # of the free device memory, at most, for the latents
HELD_OUT = 8192  # latents of a process that measure its averages; no batch draws them
EMA_DECAYS = (0.998, 0.999, 0.9995)
BATCH = 1024


def build(config: dict[str, Any], text_width: int) -> UNet2DConditionModel:
    """An untrained denoiser of 4x32x32 latents for captions of `text_width` features a token."""
    return UNet2DConditionModel(sample_size=32, cross_attention_dim=text_width, **config)


class Latents:
    """The latents of this process's shards, on the device if they fit there."""

    maker = "latents"  # the stage that leaves such shards

    def __init__(
        self, folder: Path, device: torch.device, rank: int = 0, world_size: int = 1
    ) -> None:
        """Raises FileNotFoundError if the latents stage has left this process no shard."""
        shards = sorted(folder.glob("*-*[0-9]/moments.npy"))[rank::world_size]
        if not shards:
            raise FileNotFoundError(
                f"process {rank} of {world_size} finds no latents in {folder}: "
                f"run `python -m pocket.train {self.maker}`"
            )
        self.shards = [path.parent for path in shards]
        arrays = [np.load(path, mmap_mode="r") for path in shards]
        count = sum(map(len, arrays))
        home = device
        if (
            device.type == "cuda"
            and count * arrays[0][0].nbytes > MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]
        ):
            home = torch.device("cpu")
        self.device = device
        self.moments = torch.empty(count, *arrays[0].shape[1:], dtype=torch.float16, device=home)
        start = 0
        for array in arrays:
            self.moments[start : start + len(array)] = torch.from_numpy(np.array(array))
            start += len(array)
        tokens = [np.load(path.with_name("tokens.npy")) for path in shards]
        self.tokens = torch.from_numpy(np.concatenate(tokens)).to(home)

    def __len__(self) -> int:
        return len(self.moments)

    @property
    def held_out(self) -> Tensor:
        """Indices of the latents that `draw` leaves out: the last ones."""
        return torch.arange(
            len(self) - min(HELD_OUT, len(self) // 4), len(self), device=self.moments.device
        )

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random scenes, with replacement, and one caption of each: two (B,) of indices."""
        among = lambda high: torch.randint(
            high, (batch,), generator=generator, device=generator.device
        )
        count = len(self) - len(self.held_out)
        return among(count).to(self.moments.device), among(self.tokens.shape[1]).to(
            self.moments.device
        )

    def sample(self, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Random mean and log-variance, float16 (B, 8, 32, 32), and one caption of each, int64 (B, L)."""
        i, j = self.draw(batch, generator)
        return self.moments[i].to(self.device), self.tokens[i, j].to(self.device).long()


def stratified_timesteps(batch: int, steps: int, device: torch.device) -> Tensor:
    """One random timestep in each of `batch` equal parts of the schedule: (B,) int64, less noisy than free draws."""
    place = (torch.arange(batch, device=device) + torch.rand(batch, device=device)) / batch
    return (place * steps).long().clamp(max=steps - 1)


def min_snr_weight(alphas_cumprod: Tensor, limit: float = SNR_LIMIT) -> Tensor:
    """Weight of the noise-prediction loss, min(SNR, limit) / SNR (Hang et al. 2023, equation 7)."""
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.clamp(max=limit) / snr


class Trainee(nn.Module):
    """Denoiser and frozen text tower with the loss of one batch: one module, so one graph to compile."""

    caption_dropout = CAPTION_DROPOUT

    def __init__(
        self, unet: UNet2DConditionModel, text: nn.Module, scaling_factor: float, empty: Tensor
    ) -> None:
        """empty: the tokens (L,) of the empty prompt."""
        super().__init__()
        self.unet, self.text, self.scaling_factor = unet, text.requires_grad_(False), scaling_factor
        self.register_buffer(
            "alphas_cumprod", DDIMScheduler(**SCHEDULER).alphas_cumprod.clone(), persistent=False
        )
        self.register_buffer("empty", empty, persistent=False)

    def timesteps(self, batch: int, device: torch.device) -> Tensor:
        """The timesteps (B,) int64 of one batch."""
        return stratified_timesteps(batch, len(self.alphas_cumprod), device)

    def predict(self, noisy: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """The noise (B, 4, 32, 32) in noisy latents at timesteps t (B,), given the captions' states (B, L, C)."""
        return self.unet(noisy, t, states, return_dict=False)[0]

    def forward(
        self, moments: Tensor, tokens: Tensor, *condition: Tensor, weight: Tensor | float = 1.0
    ) -> dict[str, Tensor]:
        """moments (B, 8, 32, 32): mean and log-variance of the latents; tokens (B, L) int64; condition: what else
        `predict` takes; weight: how much the error counts where, (B, 1, 32, 32) of mean 1."""
        batch, device = len(moments), moments.device
        mean, logvar = moments.float().chunk(2, dim=1)
        latents = (mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)) * self.scaling_factor
        tokens = torch.where(
            torch.rand(batch, 1, device=device) < self.caption_dropout, self.empty, tokens
        )
        with torch.no_grad():
            states = self.text(input_ids=tokens)[0]  # (B, L, C)

        t = self.timesteps(batch, device)
        signal = self.alphas_cumprod[t][:, None, None, None]
        noise = torch.randn_like(latents) + NOISE_OFFSET * torch.randn_like(latents[:, :, :1, :1])
        noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise
        noise_pred = self.predict(noisy, t, states, *condition).float()
        errors = (weight * (noise_pred - noise).square()).mean((1, 2, 3))  # (B,)
        weights = min_snr_weight(self.alphas_cumprod[t])
        return {"loss": (weights * errors).mean(), "mse": errors.mean()}


@torch.no_grad()
def held_out_error(trainee: Trainee, data: Latents) -> float:
    """The mean squared error of the predicted noise on the held-out latents, over the whole noise schedule."""
    generator = torch.Generator(data.device).manual_seed(1)
    errors = []
    for rows in data.held_out.split(BATCH):
        mean, logvar = data.moments[rows].to(data.device).float().chunk(2, dim=1)
        spread, noise = torch.randn(2, *mean.shape, generator=generator, device=data.device)
        latents = (mean + torch.exp(0.5 * logvar) * spread) * trainee.scaling_factor
        states = trainee.text(input_ids=data.tokens[rows, 0].to(data.device).long())[0]
        t = torch.arange(len(rows), device=data.device) * len(trainee.alphas_cumprod) // len(rows)
        signal = trainee.alphas_cumprod[t][:, None, None, None]
        noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise
        with torch.autocast(data.device.type, torch.bfloat16, enabled=data.device.type == "cuda"):
            noise_pred = trainee.predict(noisy, t, states).float()
        errors.append((noise_pred - noise).square().mean((1, 2, 3)))
    return float(torch.cat(errors).mean())


def main(run: common.Run) -> None:
    """Trains the denoiser on WORK/latents and writes WORK/denoiser/weights."""
    data = Latents(run.work / "latents", run.device, run.rank, run.processes)
    tokenizer = load(run.weights_of("tokenizer"), run.weights_of("towers"))
    text = CLIPModel.from_pretrained(run.weights_of("towers"), dtype=torch.float32).text_model
    scaling_factor = AutoencoderKL.load_config(run.weights_of("autoencoder"))["scaling_factor"]
    torch.manual_seed(run.seed)
    unet = build(SMOKE if run.smoke else CONFIG, text.config.hidden_size)
    if run.init:
        unet = UNet2DConditionModel.from_pretrained(
            run.weights_of("denoiser"), torch_dtype=torch.float32
        )
    empty = torch.from_numpy(encode(tokenizer, [""])[0]).long()
    trainee = Trainee(unet, text, scaling_factor, empty).to(run.device)
    unet.to(memory_format=torch.channels_last)
    batch = run.batch or (4 if run.smoke else BATCH)
    run.say(
        f"{len(data):,} latents a process, {sum(p.numel() for p in unet.parameters()) / 1e6:.1f} M parameters"
    )

    def loss_fn(net: nn.Module, step: int, fraction: float) -> dict[str, Tensor]:
        return net(*data.sample(batch, run.generator))

    def validate() -> float:
        error = torch.tensor(held_out_error(trainee, data), device=run.device)
        return float(run.accelerator.reduce(error, reduction="mean"))

    limits: dict[str, Any] = (
        {"steps": 12, "minutes": 1.0} if run.smoke else {"steps": 100_000, "minutes": 24.0}
    )
    common.train(
        run, trainee, Muon(unet, lr=2e-3), loss_fn, partial(common.save_plain, unet),
        warmup=500, ema_decays=EMA_DECAYS, validate=validate, **limits,
    )  # fmt: skip
