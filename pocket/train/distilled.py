"""The distilled denoiser: generates in one to four steps, without guidance.

The student predicts clean latents from one of four noise levels. In the first part of the run it
learns the results of the frozen denoiser's own sampling, with guidance, from the same noise. Their
mean is blurred where noise leaves a choice, so the second part matches distributions (Yin et al.
2023, arXiv:2311.18828; 2024, arXiv:2405.14867, without its discriminator): the frozen denoiser with
guidance knows the distribution that the predictions should have, a copy of it that is trained on
them the one that they have, and the student follows the difference.
"""

import copy
from functools import partial
from pathlib import Path

import torch
from diffusers import DDIMScheduler, LCMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from course.diffusion import add_noise, ddim_step, guide, predict_x0, timesteps

from . import loop
from .denoiser import (
    COMPILE_OPTIONS,
    SCHEDULER,
    DiffusionLoss,
    LatentDataset,
    load_frozen,
)
from .muon import Muon
from .run import Run

TIMESTEPS = (999, 749, 499, 249)  # of the student; sampling in four steps uses each once
GUIDANCE = 5.0  # of the frozen denoiser
NOISE_RANGE = (20, 980)  # timesteps at which the two denoisers compare predictions
# Of the frozen denoiser's DDIM; a multiple of four, so that it visits TIMESTEPS.
TEACHER_STEPS = 8
TEACHER_TIMESTEPS = timesteps(DDIMScheduler(**SCHEDULER).config, TEACHER_STEPS)
REGRESSION_PART = 0.3  # of the run
BATCH = 512


def scheduler() -> LCMScheduler:
    """Return the scheduler that samples with the student, in one, two or four steps."""
    return LCMScheduler(**SCHEDULER, original_inference_steps=len(TIMESTEPS))


def save(student: UNet2DConditionModel, folder: Path) -> None:
    """Save the student with its scheduler."""
    loop.save_contiguous(student, folder)
    scheduler().save_pretrained(folder)


class DistillationLoss(DiffusionLoss):
    """Student, copy and frozen denoiser with the losses of a batch, as one module to compile.

    unet: the trained denoiser; the student and the copy start from it.
    """

    timestep_choices: Tensor

    def __init__(
        self, unet: UNet2DConditionModel, text: nn.Module, scaling_factor: float, empty: Tensor
    ) -> None:
        super().__init__(unet.requires_grad_(False), text, scaling_factor, empty)
        self.student = copy.deepcopy(unet).requires_grad_(True)
        self.fake = copy.deepcopy(unet).requires_grad_(True)
        self.register_buffer("timestep_choices", torch.tensor(TIMESTEPS), persistent=False)

    def own_timesteps(self, count: int) -> Tensor:
        """Return the student's timesteps in turn, (count,)."""
        index = torch.arange(count, device=self.timestep_choices.device) % len(TIMESTEPS)
        return self.timestep_choices[index]

    def generate(self, noisy: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """Return the clean latents that the student predicts."""
        noise_pred = self.student(noisy, t, states, return_dict=False)[0].float()
        return predict_x0(noisy, noise_pred, self.alpha_bar(t))

    def predict_guided(
        self, noisy: Tensor, t: Tensor, states: Tensor, unconditional: Tensor
    ) -> Tensor:
        """Return the noise that the frozen denoiser predicts with guidance."""
        both = torch.cat([unconditional, states])
        uncond, cond = self.predict(noisy.repeat(2, 1, 1, 1), t.repeat(2), both).float().chunk(2)
        return guide(uncond, cond, GUIDANCE)

    @torch.no_grad()
    def sample_teacher(
        self, noise: Tensor, states: Tensor, unconditional: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sample by DDIM from noise (B, 4, h, w).

        Return the noisy latents of each image at one of TIMESTEPS in turn, these timesteps (B,),
        and the clean latents in the end.
        """
        own = self.own_timesteps(len(noise))
        x, noisy = noise, noise
        for value, following in zip(TEACHER_TIMESTEPS, [*TEACHER_TIMESTEPS[1:], None], strict=True):
            noisy = torch.where((own == value)[:, None, None, None], x, noisy)
            noise_pred = self.predict_guided(x, torch.full_like(own, value), states, unconditional)
            alpha_bar = self.alphas_cumprod[value]
            x0 = predict_x0(x, noise_pred, alpha_bar)
            if following is None:
                break
            x = ddim_step(x0, noise_pred, alpha_bar, self.alphas_cumprod[following])
        return noisy, own, x0

    @torch.no_grad()
    def score_difference(self, x0: Tensor, states: Tensor, unconditional: Tensor) -> Tensor:
        """Return the gradient (B, 4, h, w) of the student's predictions `x0`, of about unit scale.

        From the clean latents that the copy predicts to those that the frozen denoiser predicts
        with guidance, for the same noisy latents (equations 2 and 8 of Yin et al. 2023,
        arXiv:2311.18828).
        """
        low, high = NOISE_RANGE
        t = torch.randint(low, high, (len(x0),), device=x0.device)
        alpha_bar = self.alpha_bar(t)
        noisy = add_noise(x0, self.draw_noise(x0), alpha_bar)
        real = predict_x0(noisy, self.predict_guided(noisy, t, states, unconditional), alpha_bar)
        fake_noise = self.fake(noisy, t, states, return_dict=False)[0].float()
        fake = predict_x0(noisy, fake_noise, alpha_bar)
        scale = (x0 - real).abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-4)
        return (fake - real) / scale

    def forward(  # type: ignore[override]
        self, moments: Tensor, tokens: Tensor, regression: bool
    ) -> dict[str, Tensor]:
        """Return the losses of a batch: of the student, of the copy, and their sum.

        moments: (B, 8, 32, 32) of the latents. tokens: ids of the captions, int64 (B, L).
        regression: learn the results of the frozen denoiser's sampling.
        """
        mean, logvar = moments.float().chunk(2, dim=1)
        latents = self.sample_latents(mean, logvar, torch.randn_like(mean))
        with torch.no_grad():
            states = self.text(input_ids=tokens)[0]  # (B, L, C)
            unconditional = self.text(input_ids=self.empty.expand_as(tokens))[0]
        if regression:
            noise = torch.randn_like(latents)
            noisy, t, target = self.sample_teacher(noise, states, unconditional)
            x0 = self.generate(noisy, t, states)
        else:
            t = self.own_timesteps(len(latents))
            noisy = add_noise(latents, torch.randn_like(latents), self.alpha_bar(t))
            x0 = self.generate(noisy, t, states)
            target = x0.detach() - self.score_difference(x0.detach(), states, unconditional)
        student = 0.5 * (x0 - target).square().mean()

        t = self.timesteps(len(x0), x0.device)
        noise = self.draw_noise(latents)
        noisy = add_noise(x0.detach(), noise, self.alpha_bar(t))
        noise_pred = self.fake(noisy, t, states, return_dict=False)[0].float()
        fake = (noise_pred - noise).square().mean()
        return {"loss": student + fake, "student": student, "fake": fake}


def main(run: Run) -> None:
    """Distill the denoiser on WORK/latents; write WORK/distilled/weights."""
    data = LatentDataset(run.work / "latents", run.device, run.rank, run.processes)
    text, scaling_factor, empty = load_frozen(run)
    torch.manual_seed(run.seed)
    unet = run.load(UNet2DConditionModel, "denoiser")
    model = DistillationLoss(unet, text, scaling_factor, empty)
    if run.init:
        model.student.load_state_dict(run.load(UNet2DConditionModel).state_dict())
    model.to(run.device)
    for network in (model.unet, model.student, model.fake):
        network.to(memory_format=torch.channels_last)
    batch = run.batch or (4 if run.smoke else BATCH)

    def loss_fn(network: nn.Module, step: int, fraction: float) -> dict[str, Tensor]:
        regression = fraction < REGRESSION_PART
        return network(*data.sample(batch, run.generator), regression)

    settings = loop.Settings(100_000, minutes=24.0, warmup=200, compile_options=COMPILE_OPTIONS)
    save_student = partial(save, model.student)
    loop.train(run, model, Muon(model, lr=2e-4), loss_fn, save_student, settings)
