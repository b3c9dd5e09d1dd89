"""Lesson 0: its functions beside diffusers' schedulers and course.diffusion, and its samples."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from course import diffusion, notebooks
from course.metrics.points import sliced_wasserstein
from course.plane import spirals
from tests.course.checks.test_task_0 import ALPHA_BAR, END, INTRODUCTION, T, introduction

SETTINGS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
}


@pytest.fixture(scope="module")
def lesson():
    return introduction()


@pytest.fixture(scope="module")
def exact():
    """The best predictor of the noise, from the true score."""
    data = spirals()
    return lambda x, t: -(1 - ALPHA_BAR[t]).sqrt() * data.score(x, ALPHA_BAR[t])


def test_schedule_is_that_of_stable_diffusion(lesson):
    assert torch.allclose(lesson.noise_schedule(T)[:-1], DDIMScheduler(**SETTINGS).alphas_cumprod)


def test_functions_are_those_that_later_lessons_import(lesson):
    x_0, noise, fresh = torch.randn(3, 16, 2, generator=torch.Generator().manual_seed(0))
    a, b = ALPHA_BAR[700], ALPHA_BAR[500]
    x_t = diffusion.add_noise(x_0, noise, a)
    assert torch.equal(lesson.add_noise(x_0, noise, a), x_t)
    step = diffusion.ddim_step(x_0, noise, a, b)
    assert torch.allclose(lesson.ddim_step(x_t, noise, a, b), step, atol=1e-5)
    step = diffusion.ddim_step(x_0, noise, a, b, 1.0, fresh)  # eta = 1 is DDPM
    assert torch.allclose(lesson.ddpm_step(x_t, noise, a, b, fresh), step, atol=1e-5)
    v = diffusion.velocity(x_0, noise, a)
    assert torch.allclose(lesson.noise_from_v(x_t, v, a), noise, atol=1e-5)


def test_sampling_with_ddim_is_that_of_diffusers(lesson, exact):
    """Where both visit the same timesteps: 50 divides 1,000."""
    scheduler = DDIMScheduler(**SETTINGS, timestep_spacing="trailing", set_alpha_to_one=True)
    scheduler.set_timesteps(50)
    torch.manual_seed(0)
    x = start = torch.randn(200, 2)
    for t in scheduler.timesteps.tolist():
        x = scheduler.step(exact(x, t), t, x).prev_sample
    assert torch.allclose(lesson.sample(exact, lesson.ddim_step, start, 50)[-1], x, atol=1e-4)


def test_a_step_of_ddpm_is_that_of_diffusers(lesson):
    """With its smaller variance, at consecutive timesteps; the mean alone at the last one."""
    scheduler = DDPMScheduler(**SETTINGS, variance_type="fixed_small")
    scheduler.set_timesteps(T)
    x_t, noise = torch.randn(2, 16, 2, generator=torch.Generator().manual_seed(0))
    for t in (999, 500, 1, 0):
        generator = torch.Generator().manual_seed(1)
        expected = scheduler.step(noise, t, x_t, generator=generator).prev_sample
        fresh = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1))
        step = lesson.ddpm_step(x_t, noise, ALPHA_BAR[t], ALPHA_BAR[t - 1 if t else END], fresh)
        assert torch.allclose(step, expected, atol=2e-4), t


@pytest.mark.parametrize(("name", "count"), [("ddpm_step", 200), ("ddim_step", 50)])
def test_the_best_predictor_leads_to_the_data(lesson, exact, name, count):
    torch.manual_seed(0)
    samples = lesson.sample(exact, getattr(lesson, name), torch.randn(4000, 2), count)
    assert samples.shape == (count + 1, 4000, 2)
    assert sliced_wasserstein(samples[-1], spirals().sample(20_000)[0]) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["noise", "v", "flow"])
def test_each_kind_of_network_learns_the_data(lesson, kind):
    """In a third of the lesson's training steps."""
    losses = {
        "noise": lambda network, x_0, label: lesson.training_loss(network, x_0),
        "v": lambda network, x_0, label: lesson.v_loss(network, x_0),
        "flow": lambda network, x_0, label: lesson.flow_loss(network, x_0),
    }
    network, values = lesson.train(losses[kind], 1000)
    torch.manual_seed(0)
    start, reference = torch.randn(4000, 2), spirals().sample(20_000)[0]

    def predict(x, t):
        output = network(x, t)
        return output if kind == "noise" else lesson.noise_from_v(x, output, ALPHA_BAR[t])

    if kind == "flow":
        states = lesson.sample_flow(network, start, 50)
    else:
        states = lesson.sample(predict, lesson.ddim_step, start, 50)
    assert sum(values[-100:]) < sum(values[:100])
    assert sliced_wasserstein(states[-1], reference) < 0.09


def test_the_lesson_uses_no_trained_model():
    source = "".join(cell.source for cell in notebooks.code_cells(notebooks.read(INTRODUCTION)))
    assert "diffusers" not in source and "find_model" not in source
