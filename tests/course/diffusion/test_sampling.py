"""What the sampling loops share: a step that ends where it should, generators, and numbers that are not finite."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from course.diffusion.sampling import END, SamplingError, check_finite, ddim_step, make_generator
from course.models import RequestError

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize("to_one", [False, True])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("t_prev", [END, 0, 3, 400])
def test_a_step_ends_at_the_level_it_is_given(kind, to_one, t_prev):
    """The same image with the same noise, at the level of `t_prev` or at the scheduler's final alpha."""
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", prediction_type=kind, set_alpha_to_one=to_one
    )
    x_0, noise = torch.randn((2, 1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    a = scheduler.alphas_cumprod[500]
    b = scheduler.final_alpha_cumprod if t_prev == END else scheduler.alphas_cumprod[t_prev]
    v = a.sqrt() * noise - (1 - a).sqrt() * x_0
    output = noise if kind == "epsilon" else v
    found = ddim_step(scheduler, output, 500, t_prev, a.sqrt() * x_0 + (1 - a).sqrt() * noise)
    assert torch.allclose(found, b.sqrt() * x_0 + (1 - b).sqrt() * noise, atol=1e-4)
    assert to_one or scheduler.final_alpha_cumprod == scheduler.alphas_cumprod[0] < 1


def test_a_step_from_pure_noise_is_finite():
    """Where alpha_bar is 0, as in models with zero terminal signal-to-noise ratio that predict v."""
    scheduler = DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    assert scheduler.alphas_cumprod[999] == 0
    assert ddim_step(scheduler, torch.ones(1), 999, 900, torch.ones(1)).isfinite().all()


@pytest.mark.parametrize("kind", ["sample", "flow_prediction", "Epsilon", "", None])
def test_a_step_knows_two_kinds_of_prediction(kind):
    config = SimpleNamespace(prediction_type=kind)
    scheduler = SimpleNamespace(config=config, alphas_cumprod=torch.tensor([0.9, 0.5]))
    with pytest.raises(
        SamplingError, match=f"prediction_type must be epsilon or v_prediction, got {kind!r}"
    ):
        ddim_step(scheduler, torch.zeros(1), 1, 0, torch.zeros(1))


@pytest.mark.parametrize(
    "seed", [7, np.int64(7), np.uint8(7), torch.tensor(7), np.array(7), torch.tensor([7])]
)
def test_a_seed_behaves_like_an_integer(seed):
    expected = torch.randn(4, generator=torch.Generator().manual_seed(7))
    assert torch.equal(torch.randn(4, generator=make_generator(seed)), expected)


def test_the_smallest_and_the_largest_seed():
    first, last = (torch.randn(4, generator=make_generator(seed)) for seed in (0, 2**63 - 1))
    assert not torch.equal(first, last)


@pytest.mark.parametrize(
    "seed", [-1, 2**63, 1.0, True, None, "1", np.float64(1), torch.tensor(1.5), [1, 2]]
)
def test_other_seeds_are_refused(seed):
    with pytest.raises(
        RequestError, match="^seed must be a whole number from 0 to 9,223,372,036,854,775,807, got"
    ):
        make_generator(seed)


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_numbers_that_are_not_finite_are_counted(value, dtype):
    values = torch.zeros(2, 3, 4, dtype=dtype)
    check_finite(values, "The latents after step 1 of 2")
    check_finite(values + torch.finfo(dtype).max, "The latents after step 1 of 2")
    values[0, 0, :2] = value
    with pytest.raises(
        SamplingError, match="^The latents after step 1 of 2 must be finite, but 2 of 24 values are"
    ):
        check_finite(values, "The latents after step 1 of 2")
