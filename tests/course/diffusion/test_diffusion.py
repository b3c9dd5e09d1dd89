"""Each function of course.diffusion beside lesson 1.2's own definition and beside diffusers."""

import copy
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, StableDiffusionPipeline

from course import diffusion, notebooks
from course.diffusion import END
from course.errors import RequestError

SHAPE = (2, 4, 8, 8)
LESSON = notebooks.ROOT / "task_1_2_Stable_Diffusion_detailed.ipynb"


@pytest.fixture(scope="module")
def lesson():
    return notebooks.definitions(notebooks.read(LESSON))


@pytest.fixture(scope="module")
def tiny_pipe(tiny_folder):
    return StableDiffusionPipeline.from_pretrained(tiny_folder)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- Schedule


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("to_one", [False, True])
def test_timesteps_and_their_alphas(lesson, spacing, to_one):
    scheduler = DDIMScheduler(timestep_spacing=spacing, set_alpha_to_one=to_one)
    model = SimpleNamespace(scheduler=scheduler)
    for count in (1, 7, 25, 61, 1000):
        chosen = diffusion.timesteps(scheduler.config, count)
        scheduler.set_timesteps(count)
        assert chosen == scheduler.timesteps.tolist()[:count]
        assert chosen == lesson.timesteps(scheduler.config, count)
    for t in (END, 0, 500, 999):
        expected = scheduler.final_alpha_cumprod if t == END else scheduler.alphas_cumprod[t]
        assert diffusion.alpha_bar_at(scheduler, t) == expected == lesson.alpha_bar_at(model, t)


# --- Predictions


@pytest.mark.parametrize("t", [0, 400, 999])
def test_mixtures_of_image_and_noise(t):
    scheduler = DDIMScheduler()
    x_0, noise = normal(2, *SHAPE)
    alpha_bar, steps = scheduler.alphas_cumprod[t], torch.tensor([t, t])
    x_t = diffusion.add_noise(x_0, noise, alpha_bar)
    assert torch.equal(x_t, scheduler.add_noise(x_0, noise, steps))
    v = diffusion.velocity(x_0, noise, alpha_bar)
    assert torch.equal(v, scheduler.get_velocity(x_0, noise, steps))
    assert torch.allclose(diffusion.predict_x0(x_t, noise, alpha_bar), x_0, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("t", [0, 400, 999])
def test_predictions_of_both_kinds(lesson, kind, t):
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    x_0, noise = normal(2, *SHAPE)
    alpha_bar = scheduler.alphas_cumprod[t]
    x_t = diffusion.add_noise(x_0, noise, alpha_bar)
    output = noise if kind == "epsilon" else diffusion.velocity(x_0, noise, alpha_bar)
    predicted = diffusion.predict_x0_and_noise(x_t, output, alpha_bar, kind)
    assert torch.allclose(predicted[0], x_0, atol=1e-4)
    assert torch.allclose(predicted[1], noise, atol=1e-4)
    assert torch.equal(predicted[1], diffusion.predict_noise(x_t, output, alpha_bar, kind))
    for mine, theirs in zip(
        predicted, lesson.predict_x0_and_noise(x_t, output, alpha_bar, kind), strict=True
    ):
        assert torch.equal(mine, theirs)
    scheduler.set_timesteps(10)
    x_0_by_diffusers = scheduler.step(output, t, x_t).pred_original_sample
    assert torch.allclose(predicted[0], x_0_by_diffusers, atol=1e-6)


def test_a_v_prediction_from_pure_noise_is_finite():
    """With zero terminal signal-to-noise ratio alpha_bar is 0."""
    scheduler = DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    alpha_bar, ones = scheduler.alphas_cumprod[999], torch.ones(1)
    assert alpha_bar == 0
    x_0, noise = diffusion.predict_x0_and_noise(ones, ones, alpha_bar, "v_prediction")
    step = diffusion.ddim_step(x_0, noise, alpha_bar, scheduler.alphas_cumprod[900])
    assert step.isfinite().all()


@pytest.mark.parametrize("kind", ["sample", "flow_prediction", "Epsilon", "", None])
def test_other_kinds_of_prediction_are_refused(kind):
    message = f"prediction_type must be epsilon or v_prediction, got {kind!r}"
    for function in (diffusion.predict_noise, diffusion.predict_x0_and_noise):
        with pytest.raises(RequestError, match=message):
            function(torch.zeros(1), torch.zeros(1), torch.tensor(0.5), kind)


# --- Steps


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_step_is_that_of_diffusers_and_of_the_lesson(lesson, kind, eta):
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    scheduler.set_timesteps(10)
    x_t, output, fresh_noise = normal(3, *SHAPE)
    for t in (900, 400, 0):
        t_prev = t - 100 if t else END
        expected = scheduler.step(output, t, x_t, eta=eta, variance_noise=fresh_noise).prev_sample
        alpha_bar = diffusion.alpha_bar_at(scheduler, t)
        x_0, noise = diffusion.predict_x0_and_noise(x_t, output, alpha_bar, kind)
        given = (x_0, noise, alpha_bar, diffusion.alpha_bar_at(scheduler, t_prev), eta, fresh_noise)
        result = diffusion.ddim_step(*given)
        assert torch.allclose(result, expected, atol=1e-5, equal_nan=True)
        assert torch.allclose(result, lesson.ddim_step(*given), atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("t_prev", [END, 0, 3, 400])
def test_a_step_ends_at_the_level_it_is_given(t_prev):
    scheduler = DDIMScheduler()
    x_0, noise = normal(2, *SHAPE)
    a, b = scheduler.alphas_cumprod[500], diffusion.alpha_bar_at(scheduler, t_prev)
    assert torch.equal(diffusion.ddim_step(x_0, noise, a, b), diffusion.add_noise(x_0, noise, b))


def test_inversion_undoes_a_step():
    scheduler = DDIMScheduler()
    x_t, noise = normal(2, *SHAPE).double()
    alpha_bar, alpha_bar_prev = scheduler.alphas_cumprod[[600, 500]].double()
    x_0 = diffusion.predict_x0(x_t, noise, alpha_bar)
    x_prev = diffusion.ddim_step(x_0, noise, alpha_bar, alpha_bar_prev)
    back = diffusion.ddim_inversion_step(x_prev, noise, alpha_bar_prev, alpha_bar)
    assert torch.allclose(back, x_t, atol=1e-12)


def test_inversion_is_that_of_diffusers():
    scheduler = DDIMInverseScheduler(clip_sample=False)
    scheduler.set_timesteps(10)
    x_t, noise = normal(2, *SHAPE)
    for t, t_next in [(100, 200), (700, 800)]:
        expected = scheduler.step(noise, t_next, x_t).prev_sample
        alpha_bars = scheduler.alphas_cumprod[[t, t_next]]
        result = diffusion.ddim_inversion_step(x_t, noise, *alpha_bars)
        assert torch.allclose(result, expected, atol=1e-5)


# --- Guidance


def test_guidance_is_that_of_the_lesson(lesson):
    uncond, cond = normal(2, *SHAPE)
    for scale in (0.0, 1.0, 7.5):
        expected = uncond + scale * (cond - uncond)
        assert torch.equal(diffusion.guide(uncond, cond, scale), expected)
        assert torch.equal(lesson.guide(uncond, cond, scale), expected)


def test_perp_neg_leaves_what_the_prompt_shares():
    """A parallel negative direction changes nothing; a perpendicular one is subtracted."""
    uncond, cond, other = normal(3, *SHAPE).double()
    weights = torch.tensor([[0.5, 2.0]], dtype=torch.float64)
    plain = diffusion.guide(uncond, cond, 7.0)
    parallel = uncond + 3 * (cond - uncond)
    result = diffusion.perp_neg(uncond, cond, parallel[None], weights, 7.0)
    assert torch.allclose(result, plain)
    positive = (cond - uncond).flatten(1)
    share = ((other - uncond).flatten(1) * positive).sum(1) / positive.square().sum(1)
    perpendicular = other - uncond - share.view(-1, 1, 1, 1) * (cond - uncond)
    result = diffusion.perp_neg(uncond, cond, other[None], weights, 7.0)
    assert torch.allclose(result, plain - 7 * weights.view(-1, 1, 1, 1) * perpendicular)


# --- Attention


def test_attention_is_that_of_pytorch_and_of_the_lesson(lesson):
    query, key = normal(2, 3, 16, 8), normal(2, 3, 5, 8, seed=1)
    value = normal(2, 3, 5, 8, seed=2)
    result, weights = diffusion.attention(query, key, value)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    assert torch.allclose(result, expected, atol=1e-6)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 3, 16))
    for mine, theirs in zip((result, weights), lesson.attention(query, key, value), strict=True):
        assert torch.equal(mine, theirs)


def test_the_recorder_changes_nothing_with_the_attention_of_the_lesson(lesson, tiny_pipe):
    unet = copy.deepcopy(tiny_pipe.unet)
    x, text = normal(2, 4, 8, 12), normal(2, 77, unet.config.cross_attention_dim, seed=1)
    processors = unet.attn_processors

    @torch.no_grad()
    def output() -> torch.Tensor:
        return unet(x, 500, encoder_hidden_states=text).sample

    expected = output()
    with diffusion.record_attention(unet) as recorder:
        assert torch.allclose(output(), expected, atol=1e-5)
        recorded = output()
    with diffusion.record_attention(unet, lesson.attention) as own:
        assert torch.equal(output(), recorded)
    assert unet.attn_processors == processors and torch.equal(output(), expected)
    assert recorder.maps.keys() == own.maps.keys() and recorder.maps
    for pixels, weights in own.maps.items():
        assert torch.allclose(recorder.maps[pixels], 2 * weights)  # it recorded two passes
    assert diffusion.token_maps(own, 8, 12).shape == (1, 77, 8, 12)


def test_the_recorder_is_removed_after_an_error(tiny_pipe):
    unet = copy.deepcopy(tiny_pipe.unet)
    processors = unet.attn_processors
    with pytest.raises(KeyError), diffusion.record_attention(unet):
        raise KeyError
    assert unet.attn_processors == processors


@pytest.mark.parametrize("prompt", ["a red duck", "", "duck " * 40])
def test_words_and_the_indices_of_their_tokens(tiny_pipe, prompt):
    words = diffusion.word_token_indices(tiny_pipe.tokenizer, prompt, 77)
    indices = [index for _, of_word in words for index in of_word]
    assert indices == list(range(1, len(indices) + 1)) and len(indices) <= 75


# --- Noise


def test_noise_comes_from_one_generator_for_each_image():
    generators = [diffusion.make_generator(seed) for seed in (3, 4)]
    noise = diffusion.draw_noise(generators, (4, 8, 8), "cpu")
    assert torch.equal(noise[:1], normal(1, 4, 8, 8, seed=3))
    assert torch.equal(noise[1:], normal(1, 4, 8, 8, seed=4))
