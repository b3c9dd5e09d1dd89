"""The denoiser: predicts the noise in a latent, given its caption (a UNet2DConditionModel).

Trained like Stable Diffusion (Rombach et al. 2022): noise prediction on the scaled_linear schedule,
conditioned on the last hidden states of a frozen CLIP text tower; one caption in ten is left out,
for guidance.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPModel

from course.diffusion import add_noise

from . import loop
from .data import find_shards
from .muon import Muon
from .run import Run
from .tokenizer import encode, load

# Attention from 16x16 down: at 32x32 it costs a seventh of a step and gains little
# (benchmarks.training). attention_head_dim is, by a mistake in diffusers' naming, the number of
# heads: 40 and 64 channels each.
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
    "set_alpha_to_one": True,  # the last step leaves no noise: 3 % of it would decode to a grain
    "steps_offset": 1,
    "prediction_type": "epsilon",
    "timestep_spacing": "trailing",  # starts at the noisiest timestep (Lin et al. 2024)
}
CAPTION_DROPOUT = 0.1
# Standard deviation of a constant that is added to each channel of the noise (Guttenberg 2023). At
# the noisiest timestep of this schedule a latent's mean still shows through the noise, and a
# denoiser that relies on it renders white and black as gray.
NOISE_OFFSET = 0.1
# Hang et al. use 5, which gives too little weight to the last timesteps: their error is a faint
# grain in the image.
SNR_LIMIT = 20.0
MEMORY_FRACTION = 0.6  # of the free device memory, at most, for the latents
HELD_OUT = 8192  # latents of a process that select among averages of the weights
EMA_DECAYS = (0.998, 0.999, 0.9995)
BATCH = 1024
# Channels last throughout, which inductor does not choose for this network by itself, and CUDA
# graphs, because the GPU would wait for launches.
COMPILE_OPTIONS = {"force_layout_optimization": True, "triton.cudagraphs": True}


def build(config: dict[str, Any], text_width: int) -> UNet2DConditionModel:
    """Return an untrained denoiser of latents 4x32x32 for `text_width` features a token."""
    return UNet2DConditionModel(sample_size=32, cross_attention_dim=text_width, **config)


def storage_device(device: torch.device, size: int) -> torch.device:
    """Return `device` if `size` bytes fit into its free memory, else the CPU."""
    if device.type == "cuda" and size > MEMORY_FRACTION * torch.cuda.mem_get_info(device)[0]:
        return torch.device("cpu")
    return device


class LatentDataset:
    """The latents of this process's shards, on the device if its memory suffices.

    Raises FileNotFoundError if the stage that writes them has left no shard for this process.
    """

    stage = "latents"  # which writes the shards

    def __init__(
        self, folder: Path, device: torch.device, rank: int = 0, world_size: int = 1
    ) -> None:
        self.shards = find_shards(folder, self.stage, rank, world_size)
        arrays = [np.load(shard / "moments.npy", mmap_mode="r") for shard in self.shards]
        count = sum(map(len, arrays))
        storage = storage_device(device, count * arrays[0][0].nbytes)
        self.device = device
        self.moments = torch.empty(count, *arrays[0].shape[1:], dtype=torch.float16, device=storage)
        start = 0
        for array in arrays:
            self.moments[start : start + len(array)] = torch.from_numpy(np.array(array))
            start += len(array)
        tokens = [np.load(shard / "tokens.npy") for shard in self.shards]
        self.tokens = torch.from_numpy(np.concatenate(tokens)).to(storage)

    def __len__(self) -> int:
        return len(self.moments)

    @property
    def held_out(self) -> Tensor:
        """Indices of the latents that are not trained on: the last ones."""
        first = len(self) - min(HELD_OUT, len(self) // 4)
        return torch.arange(first, len(self), device=self.moments.device)

    def sample_indices(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the indices of random scenes, with replacement, and of a caption of each: (B,)."""
        count = len(self) - len(self.held_out)
        indices = [
            torch.randint(high, (batch,), generator=generator, device=generator.device)
            for high in (count, self.tokens.shape[1])
        ]
        scenes, captions = (index.to(self.moments.device) for index in indices)
        return scenes, captions

    def sample(self, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return random moments float16 (B, 8, 32, 32), and a caption of each, int64 (B, L)."""
        i, j = self.sample_indices(batch, generator)
        return self.moments[i].to(self.device), self.tokens[i, j].to(self.device).long()


def stratified_timesteps(batch: int, steps: int, device: torch.device) -> Tensor:
    """Return one random timestep in each of `batch` equal parts of the schedule, int64 (B,).

    The loss varies less than with independent timesteps.
    """
    position = (torch.arange(batch, device=device) + torch.rand(batch, device=device)) / batch
    return (position * steps).long().clamp(max=steps - 1)


def min_snr_weight(alphas_cumprod: Tensor, limit: float = SNR_LIMIT) -> Tensor:
    """Return min(SNR, limit) / SNR, a weight of the loss (Hang et al. 2023, equation 7)."""
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.clamp(max=limit) / snr


class DiffusionLoss(nn.Module):
    """Denoiser and frozen text tower with the loss of a batch, as one module to compile.

    empty: the token ids (L,) of the empty prompt.
    """

    caption_dropout = CAPTION_DROPOUT
    alphas_cumprod: Tensor
    empty: Tensor

    def __init__(
        self, unet: UNet2DConditionModel, text: nn.Module, scaling_factor: float, empty: Tensor
    ) -> None:
        super().__init__()
        self.unet = unet
        self.text = text.requires_grad_(False)
        self.scaling_factor = scaling_factor
        alphas_cumprod = DDIMScheduler(**SCHEDULER).alphas_cumprod.clone()
        self.register_buffer("alphas_cumprod", alphas_cumprod, persistent=False)
        self.register_buffer("empty", empty, persistent=False)

    def timesteps(self, batch: int, device: torch.device) -> Tensor:
        """Return the timesteps of a batch, int64 (B,)."""
        return stratified_timesteps(batch, len(self.alphas_cumprod), device)

    def drop_captions(self, batch: int, device: torch.device) -> Tensor:
        """Return which images of a batch are trained without their caption, bool (B, 1)."""
        return torch.rand(batch, 1, device=device) < self.caption_dropout

    def predict(self, noisy: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """Return the noise in noisy latents (B, 4, 32, 32).

        t: timesteps (B,). states: hidden states of the captions (B, L, C).
        """
        return self.unet(noisy, t, states, return_dict=False)[0]

    def sample_latents(self, mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
        """Return scaled latents for standard normal noise, all (B, 4, 32, 32)."""
        return (mean + torch.exp(0.5 * logvar) * noise) * self.scaling_factor

    def draw_noise(self, latents: Tensor) -> Tensor:
        """Return noise for latents (B, 4, h, w), a constant of each channel included."""
        noise = torch.randn_like(latents)
        return noise + NOISE_OFFSET * torch.randn_like(latents[:, :, :1, :1])

    def alpha_bar(self, t: Tensor) -> Tensor:
        """Return alpha_bar (B, 1, 1, 1) at timesteps (B,)."""
        return self.alphas_cumprod[t][:, None, None, None]

    def forward(
        self, moments: Tensor, tokens: Tensor, *condition: Tensor, weight: Tensor | float = 1.0
    ) -> dict[str, Tensor]:
        """Return "loss" and "mse" of a batch.

        Args:
            moments: mean and log-variance of the latents, (B, 8, 32, 32).
            tokens: token ids of the captions, int64 (B, L).
            condition: further arguments of `predict`.
            weight: weight of the error at each position, (B, 1, 32, 32) with mean 1.
        """
        batch, device = len(moments), moments.device
        mean, logvar = moments.float().chunk(2, dim=1)
        latents = self.sample_latents(mean, logvar, torch.randn_like(mean))
        dropped = self.drop_captions(batch, device)
        with torch.no_grad():
            tokens = torch.where(dropped, self.empty, tokens)
            states = self.text(input_ids=tokens)[0]  # (B, L, C)

        t = self.timesteps(batch, device)
        noise = self.draw_noise(latents)
        noisy = add_noise(latents, noise, self.alpha_bar(t))
        noise_pred = self.predict(noisy, t, states, *condition).float()
        errors = (weight * (noise_pred - noise).square()).mean((1, 2, 3))  # (B,)
        weights = min_snr_weight(self.alphas_cumprod[t])
        return {"loss": (weights * errors).mean(), "mse": errors.mean()}


@torch.no_grad()
def held_out_error(model: DiffusionLoss, data: LatentDataset) -> float:
    """Return the mean squared error of the predicted noise on the held-out latents.

    The timesteps are spread over the whole schedule.
    """
    generator = torch.Generator(data.device).manual_seed(1)
    steps = len(model.alphas_cumprod)
    errors = []
    for rows in data.held_out.split(BATCH):
        mean, logvar = data.moments[rows].to(data.device).float().chunk(2, dim=1)
        normal, noise = torch.randn(2, *mean.shape, generator=generator, device=data.device)
        latents = model.sample_latents(mean, logvar, normal)
        states = model.text(input_ids=data.tokens[rows, 0].to(data.device).long())[0]
        t = torch.arange(len(rows), device=data.device) * steps // len(rows)
        noisy = add_noise(latents, noise, model.alpha_bar(t))
        with torch.autocast(data.device.type, torch.bfloat16, enabled=data.device.type == "cuda"):
            noise_pred = model.predict(noisy, t, states).float()
        errors.append((noise_pred - noise).square().mean((1, 2, 3)))
    return float(torch.cat(errors).mean())


def load_frozen(run: Run) -> tuple[Any, float, Tensor]:
    """Return what a denoiser trains with: text tower, scaling factor, ids (L,) of no prompt."""
    tokenizer = load(run.weights_of("tokenizer"), run.weights_of("towers"))
    text = run.load(CLIPModel, "towers").text_model
    scaling_factor = AutoencoderKL.load_config(run.weights_of("autoencoder"))["scaling_factor"]
    return text, scaling_factor, torch.from_numpy(encode(tokenizer, [""])[0]).long()


def main(run: Run) -> None:
    """Train the denoiser on WORK/latents; write WORK/denoiser/weights."""
    data = LatentDataset(run.work / "latents", run.device, run.rank, run.processes)
    text, scaling_factor, empty = load_frozen(run)
    torch.manual_seed(run.seed)
    if run.init:
        unet = run.load(UNet2DConditionModel)
    else:
        unet = build(SMOKE if run.smoke else CONFIG, text.config.hidden_size)
    model = DiffusionLoss(unet, text, scaling_factor, empty).to(run.device)
    unet.to(memory_format=torch.channels_last)
    batch = run.batch or (4 if run.smoke else BATCH)
    size = sum(p.numel() for p in unet.parameters()) / 1e6
    run.log(f"{len(data):,} latents in each process, {size:.1f} M parameters")

    def loss_fn(network: nn.Module, step: int, fraction: float) -> dict[str, Tensor]:
        return network(*data.sample(batch, run.generator))

    def validate() -> float:
        error = torch.tensor(held_out_error(model, data), device=run.device)
        return float(run.accelerator.reduce(error, reduction="mean"))

    settings = loop.Settings(
        100_000,
        minutes=24.0,
        warmup=500,
        ema_decays=EMA_DECAYS,
        compile_options=COMPILE_OPTIONS,
    )
    save = partial(loop.save_contiguous, unet)
    loop.train(run, model, Muon(unet, lr=2e-3), loss_fn, save, settings, validate)
