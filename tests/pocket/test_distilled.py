"""The distilled denoiser: its losses, and the few steps that it samples in."""

import shutil

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from course.diffusion import add_noise, guide, predict_x0
from course.models import ModelError, find_model, load_distilled
from pocket.train import denoiser, distilled
from tests.pocket.text import Text

BATCH = 4


@pytest.fixture
def model() -> distilled.DistillationLoss:
    torch.manual_seed(0)
    unet = denoiser.build(denoiser.SMOKE, 16)
    return distilled.DistillationLoss(unet, Text(), 1.0, torch.zeros(6).long())


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(BATCH, 8, 32, 32), torch.ones(BATCH, 6).long()


def gradients(network: torch.nn.Module) -> list[torch.Tensor]:
    return [p.grad for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize("regression", [True, False])
def test_each_network_has_its_own_loss(model, regression):
    losses = model(*batch(), regression)
    losses["student"].backward(retain_graph=True)
    assert gradients(model.student) and not gradients(model.fake)
    model.zero_grad()
    losses["fake"].backward()
    assert gradients(model.fake) and not gradients(model.student)
    assert not gradients(model.unet)


def test_a_copy_that_agrees_with_the_denoiser_gives_no_direction(model, monkeypatch):
    x0, states = torch.randn(BATCH, 4, 32, 32), torch.randn(BATCH, 6, 16)
    monkeypatch.setattr(distilled, "GUIDANCE", 1.0)
    direction = model.score_difference(x0, states, torch.zeros_like(states))
    assert direction.abs().max() < 1e-3


def test_the_direction_leads_to_the_guided_prediction(model, monkeypatch):
    x0, states = torch.randn(BATCH, 4, 32, 32), torch.randn(BATCH, 6, 16)
    uncond_states = torch.zeros_like(states)
    monkeypatch.setattr(distilled, "NOISE_RANGE", (400, 401))
    torch.manual_seed(1)
    direction = model.score_difference(x0, states, uncond_states)
    torch.manual_seed(1)
    torch.randint(400, 401, (BATCH,))
    alpha_bar = model.alphas_cumprod[400]
    noisy = add_noise(x0, model.draw_noise(x0), alpha_bar)

    def predict(*both: torch.Tensor) -> torch.Tensor:
        t = torch.full((BATCH,), 400)
        with torch.no_grad():
            outputs = [model.unet(noisy, t, each).sample for each in both]
        noise = outputs[0] if len(outputs) == 1 else guide(*outputs, distilled.GUIDANCE)
        return predict_x0(noisy, noise, alpha_bar)

    fake, real = predict(states), predict(uncond_states, states)
    scale = (x0 - real).abs().mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(direction, (fake - real) / scale, atol=1e-4, rtol=1e-3)


def test_the_student_predicts_from_its_own_timesteps_alone(model):
    assert model.own_timesteps(8).tolist() == [*distilled.TIMESTEPS] * 2


def test_it_learns_from_samples_of_ddim(model):
    """Its noisy latents and results are those of diffusers' scheduler with guidance."""
    noise, states = torch.randn(BATCH, 4, 32, 32), torch.randn(BATCH, 6, 16)
    uncond_states = torch.zeros_like(states)
    noisy, t, x0 = model.sample_teacher(noise, states, uncond_states)
    assert t.tolist() == list(distilled.TIMESTEPS)
    scheduler = DDIMScheduler(**denoiser.SCHEDULER)
    scheduler.set_timesteps(distilled.TEACHER_STEPS)
    assert set(distilled.TIMESTEPS) <= set(scheduler.timesteps.tolist())
    x = noise
    for step in scheduler.timesteps.tolist():
        if step in distilled.TIMESTEPS:
            i = distilled.TIMESTEPS.index(step)
            torch.testing.assert_close(noisy[i], x[i], atol=1e-4, rtol=1e-3)
        with torch.no_grad():
            pair = [model.unet(x, step, each).sample for each in (uncond_states, states)]
        x = scheduler.step(guide(*pair, distilled.GUIDANCE), step, x).prev_sample
    torch.testing.assert_close(x0, x, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_its_scheduler_visits_these_timesteps(steps):
    scheduler = distilled.scheduler()
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == list(distilled.TIMESTEPS[:: 4 // steps])


def test_it_loads_beside_a_model(tiny_folder, tmp_path):
    folder = tmp_path / "stable-diffusion"
    shutil.copytree(tiny_folder, folder)
    model = find_model(folder)
    with pytest.raises(ModelError, match="has no distilled denoiser"):
        load_distilled(model)
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    distilled.save(unet, tmp_path / "distilled")
    pipe = load_distilled(model)
    result = pipe("a cat", num_inference_steps=4, guidance_scale=1.0, output_type="pt")
    assert torch.isfinite(result.images).all()
    assert pipe.scheduler.timesteps.tolist() == list(distilled.TIMESTEPS)
