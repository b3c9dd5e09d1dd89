"""Score distillation: view prompts, the paper's gradient, timesteps, targets and previews."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st

from course.diffusion import predict_x0
from course.models import Model, PromptWarning, find_model, load_pipeline
from course.models.multiview import add_cameras
from pocket.world.vocabulary import view_word
from task_3_DreamFusion.nerf import sd
from task_3_DreamFusion.nerf.guidance import (
    PERP_NEG_END,
    WEIGHTINGS,
    GuidanceError,
    StableDiffusion,
    fastest_dtype,
)
from task_3_DreamFusion.nerf.options import SettingError
from task_3_DreamFusion.nerf.settings import GuidanceOptions
from task_3_DreamFusion.nerf.views import VIEWS, negative_views, view_weights

CAMERA = (torch.zeros(2), torch.full((2,), 15.0))


@pytest.fixture
def guidance(tiny_folder) -> StableDiffusion:
    return StableDiffusion(find_model(tiny_folder))


@pytest.fixture
def multiview(tiny_folder, tmp_path) -> StableDiffusion:
    """Guidance by a denoiser of several views, whose cameras count."""
    folder = tmp_path / "models"
    shutil.copytree(tiny_folder, folder / "tiny")
    unet = add_cameras(UNet2DConditionModel.from_pretrained(folder / "tiny" / "unet"))
    torch.manual_seed(1)
    torch.nn.init.normal_(unet.class_embedding.linear_2.weight)
    unet.save_pretrained(folder / "multiview")
    return StableDiffusion(
        find_model(folder / "tiny"),
        GuidanceOptions(prior="multiview", perp_neg=0.0, front_lead=0.0),
    )


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


# --- Precision


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx2": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_bfloat16_on_a_cpu_that_multiplies_it(tiny_folder, monkeypatch, capabilities, dtype):
    monkeypatch.setattr(Model, "device", torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert fastest_dtype(find_model(tiny_folder)) == dtype


def test_without_known_capabilities_the_dtype_is_that_of_the_model(tiny_folder, monkeypatch):
    monkeypatch.setattr(Model, "device", torch.device("cpu"))
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert fastest_dtype(find_model(tiny_folder)) == torch.float32


def test_bfloat16_guides_like_float32(tiny_folder):
    outputs = []
    for dtype in (torch.float32, torch.bfloat16):
        guidance = StableDiffusion(find_model(tiny_folder), dtype=dtype)
        prompts = guidance.view_prompts("a red house")
        torch.manual_seed(0)
        images = torch.rand(2, 3, 64, 64, requires_grad=True)
        step = guidance.train_step(images, prompts, *CAMERA, generator(), 0.5)
        step.loss.backward()
        assert step.latents.dtype == step.gradient.dtype == images.grad.dtype == torch.float32
        outputs.append((step.gradient, images.grad, guidance.decode_latents(step.latents)))
    for exact, rounded in zip(*outputs, strict=True):
        assert (exact - rounded).norm() < 0.1 * exact.norm()


# --- Views


@given(st.floats(-400, 400), st.floats(-90, 90))
def test_weights_of_views_sum_to_one_and_favour_the_right_word(azimuth, elevation):
    [weights] = view_weights(torch.tensor([azimuth]), torch.tensor([elevation]))
    assert weights.sum().item() == pytest.approx(1, abs=1e-5) and weights.min() >= -1e-6
    turn = abs((azimuth + 180) % 360 - 180)
    if all(
        abs(angle - border) > 0.01 for angle, border in ((turn, 45), (turn, 135), (elevation, 60))
    ):
        top = weights.topk(2)
        if top.values[0] - top.values[1] > 1e-3:
            assert VIEWS[top.indices[0]] == view_word(azimuth, elevation) or elevation > 45


def test_views_cross_at_their_borders():
    azimuth = torch.tensor([0.0, 29.0, 45.0, 90.0, -135.0, 180.0, 10.0, 10.0])
    elevation = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 60.0, 80.0])
    expected = [
        [1, 0, 0, 0],
        [1, 0, 0, 0],
        [0.5, 0.5, 0, 0],
        [0, 1, 0, 0],
        [0, 0.5, 0.5, 0],
        [0, 0, 1, 0],
        [0.5, 0, 0, 0.5],
        [0, 0, 0, 1],
    ]
    torch.testing.assert_close(view_weights(azimuth, elevation), torch.tensor(expected))


def test_each_view_has_words_of_its_own(guidance):
    prompts = guidance.view_prompts(" a car ")
    assert (
        prompts.views.shape[0] == 4
        and len({tuple(view.flatten().tolist()) for view in prompts.views}) == 4
    )
    texts = ("a car, front view", "a car, overhead view")
    expected = torch.stack([guidance.embed_text(text) for text in texts])
    torch.testing.assert_close(prompts.at(torch.zeros(2), torch.tensor([0.0, 85.0])), expected)


def test_a_long_text_keeps_its_view(guidance):
    with pytest.warns(PromptWarning, match="too long") as caught:
        prompts = guidance.view_prompts("a bunny on top of a stack of pancakes " * 8)
    assert len([w for w in caught if "too long" in str(w.message)]) == 1  # not once for each view
    assert len({tuple(view.flatten().tolist()) for view in prompts.views}) == 4


def test_a_text_may_be_as_long_as_there_is_room_beside_its_view(guidance, recwarn):
    """In the tiny model a letter is a token; start, end and ", overhead view" use the others."""
    room = guidance.model.text_length - 2 - len("overheadview,")
    longest = "a" * room
    kept = guidance.view_prompts(longest)
    assert kept.text == longest
    assert torch.equal(kept.views[3], guidance.embed_text(f"{longest}, overhead view"))
    assert not [w for w in recwarn if "too long" in str(w.message)]
    with pytest.warns(PromptWarning, match="too long"):
        assert guidance.view_prompts(longest + "b").text == longest


def test_an_embedding_has_as_many_tokens_as_the_model_reads(guidance):
    width = guidance.model.config("text_encoder/config.json")["hidden_size"]
    for text in ("", "a car", "a" * 500):
        assert guidance.embed_text(text).shape == (guidance.model.text_length, width)


# --- The gradient


def test_gradient_is_the_papers_and_passes_no_jacobian(guidance):
    latents = torch.randn(2, 4, 8, 8, generator=generator()).requires_grad_()
    prompts = guidance.view_prompts("a car")
    step = guidance.train_step(
        latents, prompts, *CAMERA, generator(), PERP_NEG_END, as_latents=True
    )  # no view is pushed
    step.loss.backward()
    noise = (step.noisy_latents - guidance.alpha_bar(step.timesteps).sqrt() * step.latents) / (
        1 - guidance.alpha_bar(step.timesteps)
    ).sqrt()
    uncond, cond = (
        guidance.unet(step.noisy_latents, step.timesteps, encoder_hidden_states=states).sample
        for states in (prompts.negative.expand(2, -1, -1), prompts.views[:1].expand(2, -1, -1))
    )
    scale = guidance.options.guidance_scale
    expected = (1 - guidance.alpha_bar(step.timesteps)) * (uncond + scale * (cond - uncond) - noise)
    torch.testing.assert_close(step.gradient, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(latents.grad, step.gradient / 2)
    assert not step.noise_pred.requires_grad and all(
        p.grad is None for p in guidance.unet.parameters()
    )


def test_an_image_of_any_size_gets_a_gradient(guidance):
    prompts = guidance.view_prompts("a car")
    for height, width in ((16, 16), (64, 64), (33, 50)):
        rgb = torch.rand(2, 3, height, width, generator=generator()).requires_grad_()
        guidance.train_step(rgb, prompts, *CAMERA, generator()).loss.backward()
        assert rgb.grad.isfinite().all() and rgb.grad.abs().sum() > 0


def test_one_seed_one_step(guidance):
    prompts = guidance.view_prompts("a car")
    rgb = torch.rand(2, 3, 16, 16, generator=generator())
    steps = [guidance.train_step(rgb, prompts, *CAMERA, generator()) for _ in range(2)]
    assert torch.equal(steps[0].gradient, steps[1].gradient)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sigma2", [0.9, 0.5, 0.0]), ("uniform", [1, 1, 1]), ("middle", [0.28460499, 0.35355339, 0])],
)
def test_weightings_are_functions_of_alpha_bar(guidance, name, expected):
    weights = WEIGHTINGS[name](torch.tensor([0.1, 0.5, 1.0]))
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float32))
    other = StableDiffusion(guidance.model, GuidanceOptions(weighting=name, perp_neg=0.0))
    latents = torch.randn(2, 4, 8, 8, generator=generator())
    step = other.train_step(
        latents, other.view_prompts("a car"), *CAMERA, generator(), as_latents=True
    )
    alpha_bar = other.alpha_bar(step.timesteps)
    noise = (step.noisy_latents - alpha_bar.sqrt() * step.latents) / (1 - alpha_bar).sqrt()
    unweighted = step.noise_pred - noise
    torch.testing.assert_close(
        step.gradient, WEIGHTINGS[name](alpha_bar) * unweighted, atol=1e-4, rtol=1e-3
    )
    torch.testing.assert_close(
        step.noise_rmse, unweighted.square().mean().sqrt(), atol=1e-4, rtol=1e-3
    )


def test_a_step_is_one_of_the_beginning_unless_it_is_told(guidance):
    latents, prompts = (
        torch.randn(2, 4, 8, 8, generator=generator()),
        guidance.view_prompts("a car"),
    )
    at_first, at_last = (
        guidance.train_step(latents, prompts, *CAMERA, generator(), progress, as_latents=True)
        for progress in (0.0, 1.0)
    )
    step = guidance.train_step(latents, prompts, *CAMERA, generator(), as_latents=True)
    assert torch.equal(step.timesteps, at_first.timesteps) and torch.equal(
        step.gradient, at_first.gradient
    )
    assert (at_last.timesteps < at_first.timesteps).all()
    rgb = torch.rand(2, 3, 16, 16, generator=generator())
    result = [
        guidance.target_images(rgb, prompts, *CAMERA, generator(), *more)[0]
        for more in ((), (0.0,), (1.0,))
    ]
    assert torch.equal(result[0], result[1]) and not torch.equal(result[0], result[2])
    arguments = step.noisy_latents, step.timesteps, prompts, *CAMERA
    assert torch.equal(guidance.predict_noise(*arguments), guidance.predict_noise(*arguments, 0.0))
    at_start = guidance.predict_noise(*arguments)
    assert not torch.equal(at_start, guidance.predict_noise(*arguments, 0.5))


def test_images_and_latents_are_those_of_the_autoencoder(guidance):
    pipe = load_pipeline(guidance.model)
    rgb = torch.rand(2, 3, 64, 64, generator=generator())
    with torch.no_grad():
        latents = pipe.vae.encode(2 * rgb - 1).latent_dist.mean * pipe.vae.config.scaling_factor
        torch.testing.assert_close(guidance.encode_imgs(rgb), latents, atol=1e-4, rtol=1e-4)
        images = (pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample / 2 + 0.5).clamp(
            0, 1
        )
    torch.testing.assert_close(guidance.decode_latents(latents), images, atol=1e-4, rtol=1e-4)


def test_negative_views_are_the_two_that_a_camera_shows_least():
    views, weights = negative_views(torch.tensor([0.0, 90.0, -180.0, -90.0, 45.0, 54.0]))
    named = [
        {VIEWS[k]: w for k, w in zip(places, wrong, strict=True)}
        for places, wrong in zip(views.tolist(), weights.tolist(), strict=True)
    ]
    side = {"front": 1, "back": 1}
    assert named[:4] == [{"side": 1, "back": 1}, side, {"front": 1, "side": 1}, side]
    assert named[4]["back"] == 1 and sorted(named[4].values()) == [
        0,
        1,
    ]  # at a border its two views are no rivals
    assert named[5] == {"front": pytest.approx(0.6), "back": 1}


def test_perp_neg_pushes_away_from_the_other_views(tiny_folder):
    latents, (azimuth, elevation) = torch.randn(2, 4, 8, 8, generator=generator()), CAMERA
    guidance = StableDiffusion(find_model(tiny_folder), GuidanceOptions(perp_neg=1.0))
    prompts = guidance.view_prompts("a car")
    arguments = latents, torch.tensor([100, 500]), prompts, azimuth, elevation
    full, half, none = (
        guidance.predict_noise(*arguments, progress)
        for progress in (0.0, PERP_NEG_END / 2, PERP_NEG_END)
    )
    guidance = StableDiffusion(find_model(tiny_folder), GuidanceOptions(perp_neg=0.0))
    torch.testing.assert_close(guidance.predict_noise(*arguments), none)
    assert (full - none).abs().max() > 1e-3
    torch.testing.assert_close(full - none, 2 * (half - none), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("progress", [PERP_NEG_END, 0.95, 1.0, 1.5, 3.0])
def test_perp_neg_stays_away_after_its_end(tiny_folder, progress):
    """Neither for the front, which is ahead, nor in a run that is continued."""
    pushing, plain = (
        StableDiffusion(find_model(tiny_folder), GuidanceOptions(perp_neg=value))
        for value in (1.0, 0.0)
    )
    arguments = (
        torch.randn(2, 4, 8, 8, generator=generator()),
        torch.tensor([100, 500]),
        plain.view_prompts("a car"),
        *CAMERA,
    )
    calls = []
    unet = pushing.unet
    pushing.unet = lambda *args, **more: calls.append(len(args[0])) or unet(*args, **more)
    assert torch.equal(
        pushing.predict_noise(*arguments, progress), plain.predict_noise(*arguments, progress)
    )
    assert calls == [2 * 2]  # and asks for no other view


@pytest.mark.parametrize("window", [1.0, 0.15])
def test_timesteps_differ_stay_in_range_and_fall(tiny_folder, window):
    guidance = StableDiffusion(
        find_model(tiny_folder), GuidanceOptions(t_max_end=0.5, t_window=window)
    )
    last = len(guidance.alphas_cumprod) - 1
    for progress, high in ((0.0, 0.98), (0.5, 0.74), (1.0, 0.5)):
        low = max(0.02, high - window)
        generators = (torch.Generator().manual_seed(seed) for seed in range(200))
        timesteps = torch.stack(
            [
                guidance.sample_timesteps(torch.full((8,), progress), generator)
                for generator in generators
            ]
        )
        assert timesteps.min() >= round(low * last) and timesteps.max() <= round(high * last)
        assert timesteps.min() < (low + 0.02) * last and timesteps.max() > (high - 0.02) * last
        assert ((timesteps.sort(1).values.diff() > 0).float().mean()) > 0.99
        assert timesteps.float().mean(0).std() < 0.05 * last  # each view sees them all


def test_the_front_is_ahead(tiny_folder):
    guidance = StableDiffusion(
        find_model(tiny_folder), GuidanceOptions(t_max_end=0.5, t_window=0.0, front_lead=0.2)
    )
    progress = guidance.view_progress(0.9, torch.tensor([0.0, 45.0, -45.0, 90.0, -180.0, 360.0]))
    torch.testing.assert_close(progress, torch.tensor([1.1, 1.0, 1.0, 0.9, 0.9, 1.1]))
    timesteps = guidance.sample_timesteps(progress, generator()) / (
        len(guidance.alphas_cumprod) - 1
    )  # without a window the highest
    torch.testing.assert_close(
        timesteps, torch.tensor([0.5, 0.5, 0.5, 0.548, 0.548, 0.5]), atol=1e-3, rtol=0
    )
    rgb, prompts = torch.rand(2, 3, 16, 16), guidance.view_prompts("a car")
    step = guidance.train_step(
        rgb, prompts, torch.tensor([0.0, 180.0]), torch.zeros(2), generator(), 0.3
    )
    assert step.timesteps.tolist() == [
        round(level * 999) for level in (0.98 - 0.5 * 0.48, 0.98 - 0.3 * 0.48)
    ]


def test_targets_are_the_predicted_images(guidance):
    """One step against the SDS gradient gives x_0, whatever the weighting, in the images' size."""
    prompts, rgb = guidance.view_prompts("a car"), torch.rand(2, 3, 48, 48, requires_grad=True)
    images, step = guidance.target_images(rgb, prompts, *CAMERA, generator())
    assert images.shape == rgb.shape and not images.requires_grad and not step.loss.requires_grad
    x_0 = predict_x0(step.noisy_latents, step.noise_pred, guidance.alpha_bar(step.timesteps))
    expected = torch.nn.functional.interpolate(guidance.decode_latents(x_0), (48, 48), mode="area")
    torch.testing.assert_close(images, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("factor", "steps"), [(0.0, 0.0), (-1.0, -1.0), (0.5, 0.5)])
def test_targets_follow_the_loss_of_the_exercise(guidance, monkeypatch, factor, steps):
    """Without a gradient the images stay as they are; with the wrong sign they move away."""
    prompts, rgb = guidance.view_prompts("a car"), torch.rand(2, 3, 48, 48)
    right = sd.sds_step

    def wrong(*arguments):
        step = right(*arguments)
        return step._replace(loss=factor * step.loss)

    monkeypatch.setattr(sd, "sds_step", wrong)
    images, step = guidance.target_images(rgb, prompts, *CAMERA, generator())
    x_0 = predict_x0(step.noisy_latents, step.noise_pred, guidance.alpha_bar(step.timesteps))
    latents = step.latents + steps * (x_0 - step.latents)
    expected = torch.nn.functional.interpolate(
        guidance.decode_latents(latents), (48, 48), mode="area"
    )
    torch.testing.assert_close(images, expected, atol=1e-4, rtol=0)


# --- Memory, previews, bad input


def test_without_text_encoder(guidance):
    guidance.unload_text_encoder()
    with pytest.raises(GuidanceError, match="a boat, front view"):
        guidance.view_prompts("a boat")


def test_preview(guidance):
    prompts = guidance.view_prompts("a car")
    rgb = torch.rand(2, 3, 16, 16, generator=generator())
    step = guidance.train_step(rgb, prompts, *CAMERA, generator())
    images = guidance.preview(step, prompts, *CAMERA, steps=3)
    assert len(images) == 3
    side = guidance.model.image_size
    assert all(p.shape == (2, 3, side, side) and 0 <= p.min() and p.max() <= 1 for p in images)


def test_one_step_of_ddim_previews_the_one_step_x_0(guidance):
    prompts = guidance.view_prompts("a car")
    step = guidance.train_step(
        torch.rand(2, 3, 16, 16, generator=generator()), prompts, *CAMERA, generator()
    )
    _, one, also = guidance.preview(step, prompts, *CAMERA, steps=1)
    torch.testing.assert_close(one, also)


@pytest.mark.parametrize("steps", [2, 3, 10])
def test_the_preview_goes_down_to_the_image_by_ddim(guidance, steps):
    prompts = guidance.view_prompts("a car")
    step = guidance.train_step(torch.rand(2, 3, 16, 16), prompts, *CAMERA, generator(), 0.4)
    x, noise = step.noisy_latents, step.noise_pred
    for i in range(steps):
        t = (step.timesteps * (steps - i) / steps).round().long()
        if i:
            noise = guidance.predict_noise(x, t, prompts, *CAMERA, 0.4)
        x_0 = predict_x0(x, noise, guidance.alpha_bar(t))
        below = guidance.alpha_bar((step.timesteps * (steps - i - 1) / steps).round().long())
        x = below.sqrt() * x_0 + (1 - below).sqrt() * noise
    noisy, once, often = guidance.preview(step, prompts, *CAMERA, 0.4, steps)
    torch.testing.assert_close(often, guidance.decode_latents(x_0), atol=1e-4, rtol=0)
    torch.testing.assert_close(noisy, guidance.decode_latents(step.noisy_latents))
    first = predict_x0(step.noisy_latents, step.noise_pred, guidance.alpha_bar(step.timesteps))
    torch.testing.assert_close(once, guidance.decode_latents(first))
    if steps == 10:
        assert torch.equal(guidance.preview(step, prompts, *CAMERA, 0.4)[2], often)  # the default


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "text must not be empty"),
        ("  \n", "text must not be empty"),
        ("a \udcff car", "UTF-8, and character 3 of"),
        ("\ud83c", "UTF-8, and character 1 of"),
        (None, "text must be text, got None"),
        (7, "text must be text, got 7"),
    ],
)
def test_what_is_no_text(guidance, text, message):
    for prompts in (guidance.view_prompts, guidance.plain_prompts):
        with pytest.raises(GuidanceError, match=message):
            prompts(text)


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 4, 16, 16)])
def test_what_is_no_batch_of_images(guidance, shape):
    with pytest.raises(GuidanceError, match=r"\(B, 3, H, W\)"):
        guidance.encode_imgs(torch.zeros(shape))


LIMITS = {
    "guidance_scale": (-1000, 1000),
    "t_max_end": (0, 1),
    "t_window": (0, 1),
    "front_lead": (0, 1),
    "perp_neg": (0, 1000),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_of_options(name):
    limited = {f.name for f in dataclasses.fields(GuidanceOptions) if f.metadata["limits"]}
    assert limited == LIMITS.keys() | {"t_range"}
    least, most = LIMITS[name]
    within = {"t_range": (0.0, 0.98)} if name == "t_max_end" else {}
    for value in (least, most, torch.tensor(most), np.float32(most)):
        assert getattr(GuidanceOptions(**within, **{name: value}), name) == float(value)
    for value in (
        least - 1e-3,
        most + 1e-3,
        float("nan"),
        float("inf"),
        -float("inf"),
        1e400,
        None,
        "1",
        True,
        [1],
    ):
        with pytest.raises(SettingError, match=f"^{name} must be a "):
            GuidanceOptions(**within, **{name: value})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weighting": "none"}, "weighting must be one of sigma2, uniform, middle, got 'none'"),
        ({"weighting": ["sigma2"]}, "weighting must be one of"),
        (
            {"t_range": (0.5, 0.2)},
            "t_range must begin with its lower end, .*got t_range 0.5 0.2 and t_max_end 0.45",
        ),
        (
            {"t_range": (0.6, 0.9)},
            "t_max_end must not be below, got t_range 0.6 0.9 and t_max_end 0.45",
        ),
        ({"t_range": (float("nan"), 0.9)}, "t_range must be a number"),
        ({"t_range": (0.1, 2.0)}, "t_range must be a number from 0 to 1, got 2"),
        ({"t_range": (-0.1, 0.9)}, "t_range must be a number from 0 to 1, got -0.1"),
        ({"t_range": 0.5}, "t_range must be two numbers"),
        ({"t_range": (0.1, 0.2, 0.9)}, "t_range must be two numbers"),
        ({"t_range": None}, "t_range must be two numbers"),
    ],
)
def test_options_out_of_range(wrong, message):
    with pytest.raises(SettingError, match=message):
        GuidanceOptions(**wrong)


@pytest.mark.parametrize("t_range", [[0.1, 0.9], (0.45, 0.98), (0.02, 0.3), (0.0, 1.0), (0.2, 0.2)])
def test_ranges_of_noise_timesteps(t_range):
    assert GuidanceOptions(t_range=t_range).t_range == tuple(t_range)


# --- Several views at once


def test_views_of_one_object_share_their_timestep_and_prompt(multiview):
    t = multiview.sample_timesteps(torch.full((8,), 0.5), generator()).view(2, 4)
    assert (t == t[:, :1]).all() and t[0, 0] != t[1, 0]
    views = multiview.view_prompts("a cat").views
    assert (views == views[0]).all()


def test_cameras_and_the_other_views_count(multiview):
    prompts = multiview.view_prompts("a cat")
    x, t = torch.randn(4, 4, 8, 8, generator=generator()), torch.full((4,), 500)
    azimuth, elevation = torch.tensor([0.0, 90.0, 180.0, -90.0]), torch.full((4,), 15.0)

    def predict(x, azimuth):
        return multiview.predict_noise(x, t, prompts, azimuth, elevation)

    reference = predict(x, azimuth)
    assert not torch.allclose(predict(x, azimuth + 45), reference)
    other = x.clone()
    other[3] += 1
    assert not torch.allclose(predict(other, azimuth)[0], reference[0])


def test_targets_of_several_views_have_the_size_of_their_images(multiview):
    images = torch.rand(4, 3, 16, 16, generator=generator())
    azimuth, elevation = torch.tensor([0.0, 90.0, 180.0, -90.0]), torch.zeros(4)
    prompts = multiview.view_prompts("a cat")
    targets, output = multiview.target_images(images, prompts, azimuth, elevation, generator(), 0.5)
    assert targets.shape == images.shape and len(output.timesteps.unique()) == 1
