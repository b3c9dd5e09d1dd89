"""Lesson 2: windows cover, averages are exact, synchronization descends, rings are closed."""

import copy
import itertools
import math
import re
import warnings

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from course import diffusion, metrics, notebooks
from course.diffusion import timesteps
from course.diffusion.joint import Sync, window_weights
from course.errors import CourseError, CourseWarning
from course.images.panorama import closed_convolutions
from course.models import RequestError, find_model
from tests.lessons.test_task_1_2 import (
    ODD_COUNTS,
    SPACINGS,
    Gaussian,
    by_euler,
    changed,
    with_settings,
)

PATH = notebooks.ROOT / "task_2_Joint_Diffusion.ipynb"


@pytest.fixture(scope="module")
def lesson():
    """The lesson's own functions and classes."""
    return notebooks.definitions(
        notebooks.read(PATH), {"STEPS": 3, "SEED": 2, "PROMPT": "a duck", "WIDE": 3}
    )


@pytest.fixture(scope="module")
def sd(lesson, tiny_folder):
    return lesson.JointDiffusion(find_model(tiny_folder))


@pytest.fixture(scope="module")
def sd_v(lesson, tiny_folder, tmp_path_factory):
    """On the tiny model taken for one that predicts v."""
    target = tmp_path_factory.mktemp("v") / "model"
    return lesson.JointDiffusion(
        find_model(with_settings(tiny_folder, target, prediction_type="v_prediction"))
    )


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- Windows


@settings(max_examples=500, deadline=None)
@given(
    height=st.integers(1, 30),
    width=st.integers(1, 90),
    window=st.integers(2, 16),
    stride=st.integers(-1, 20),
    closed=st.booleans(),
)
def test_every_latent_is_covered_or_an_error_says_what_to_change(
    height, width, window, stride, closed
):
    """Also across the wrap: in some window the first column follows the last."""
    lesson = _lesson_of_windows()
    if height < window or width < window or not 1 <= stride <= window:
        with pytest.raises(RequestError, match=r"one window, got|stride between windows"):
            lesson.window_views(height, width, window, stride, closed)
        return
    views = lesson.window_views(height, width, window, stride, closed)
    seen = torch.zeros(height, width, dtype=torch.int)
    for rows, columns in views:
        assert rows.shape == (window, 1) and columns.shape == (window,)
        assert len(set(columns.tolist())) == window  # `+=` at doubled places would count once
        seen[rows, columns] += 1
    assert seen.min() >= 1
    assert len({(int(r[0]), int(c[0])) for r, c in views}) == len(views)
    if closed:
        assert any((width - 1, 0) in itertools.pairwise(columns.tolist()) for _, columns in views)
    if not closed:
        assert all((columns[1:] == columns[:-1] + 1).all() for _, columns in views)


def _lesson_of_windows(result=[]):  # noqa: B006  # read once, as hypothesis has no module fixtures
    if not result:
        result.append(notebooks.definitions(notebooks.read(PATH), {}))
    return result[0]


@pytest.mark.parametrize("stride", [1, 3, 4, 7, 8])
def test_the_wrap_is_covered_as_often_as_elsewhere(lesson, stride):
    """At strides that divide the width, each column of a ring is seen equally often."""
    width = 8 * stride * 3
    views = lesson.window_views(8, width, 8, stride, closed=True)
    if stride < 8:
        counts = torch.zeros(width)
        for _, columns in views:
            counts[columns] += 1
        assert counts.max() - counts.min() <= (8 % stride > 0)


# --- The average


@settings(max_examples=40, deadline=None)
@given(
    st.integers(3, 14),
    st.integers(3, 30),
    st.integers(1, 8),
    st.integers(1, 8),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_the_average_is_the_least_squares_solution(height, width, window, stride, closed, seed):
    """Against the normal equations of formula (1) in float64, with random weights."""
    lesson = _lesson_of_windows()
    window = min(window, height, width)
    views = lesson.window_views(height, width, window, min(stride, window), closed)
    windows = noise(len(views), 2, window, window, seed=seed)
    weights = 0.01 + torch.rand(
        (len(views), 1, window, window), generator=torch.Generator().manual_seed(seed)
    )
    result = lesson.fuse(windows, views, weights, lesson.weight_sum(views, weights, height, width))
    assert (
        result.double() - least_squares(windows, views, weights, height, width)
    ).abs().max() <= 1e-6


def least_squares(windows, views, weights, height, width):
    """argmin_J of formula (1), by a dense solver: one row for each pixel of each window."""
    count, channels = len(views), windows.shape[1]
    side = windows.shape[-1]
    rows = torch.arange(count * side * side)
    places = torch.cat([(r * width + c).flatten() for r, c in views])
    root = weights.double().flatten().sqrt()
    system = torch.zeros(len(rows), height * width, dtype=torch.float64)
    system[rows, places] = root
    wanted = windows.double().movedim(1, -1).reshape(-1, channels) * root[:, None]
    solution = torch.linalg.lstsq(system, wanted).solution  # (height width, channels)
    return solution.T.reshape(1, channels, height, width)


def test_weights_fall_to_the_rim_but_not_to_zero(lesson):
    smooth = window_weights(2, 8)
    assert smooth.shape == (2, 1, 8, 8) and smooth.min() > 0
    assert torch.allclose(smooth, smooth.flip(-1)) and torch.allclose(
        smooth, smooth.transpose(-1, -2)
    )
    assert smooth[0, 0, 3, 3] == smooth.max() > 20 * smooth[0, 0, 0, 0]
    assert (window_weights(2, 8, smooth=False) == 1).all()


# --- The loop


def denoise(sd, latents, views, weights, embeddings, count):
    """The steps of MultiDiffusion."""
    return sd.denoise(latents, views, weights, count, sd.make_update(embeddings, 7.5, count))


def test_one_window_is_the_pipeline(lesson, tiny_folder):
    """At the model's own size there is one window, and the image is diffusers' own."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    model = find_model(tiny_folder)
    scheduler = DDIMScheduler.from_pretrained(model.folder, subfolder="scheduler")
    pipe = StableDiffusionPipeline.from_pretrained(model.folder, scheduler=scheduler).to(
        model.device
    )
    pipe.set_progress_bar_config(disable=True)
    latents = noise(1, 4, 8, 8, seed=2).to(model.device)
    expected = pipe(
        "a duck", num_inference_steps=3, guidance_scale=7.5, latents=latents, output_type="latent"
    ).images
    result = lesson.JointDiffusion(model).sample_latents("a duck", width=64, guidance_scale=7.5)
    assert (result - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_each_step_goes_to_the_next_timestep_at_any_count(lesson, sd, sd_v, spacing, kind):
    """Beside diffusers' Euler on the same timesteps. Where all windows agree, it is one image."""
    own = {"epsilon": sd, "v_prediction": sd_v}[kind]
    scheduler = DDIMScheduler.from_config(
        own.scheduler.config, timestep_spacing=spacing, set_alpha_to_one=True
    )
    other = changed(own, scheduler=scheduler, unet=Gaussian(scheduler))
    views = lesson.window_views(8, 12, 8, 4)
    weights, embeddings = window_weights(len(views), 8), torch.zeros(2, len(views), 1, 1)
    start = noise(1, 4, 8, 12)
    for count in ODD_COUNTS:
        steps = list(denoise(other, start, views, weights, embeddings, count))
        assert [step.t for step in steps] == timesteps(scheduler.config, count)
        expected = by_euler(scheduler, [step.t for step in steps], start, other.unet)
        assert (steps[-1].x_prev - expected).abs().max() <= 1e-3, count
        assert abs(steps[-1].x_prev.std() - Gaussian.std) < 0.15, count  # neither black nor grain


@pytest.mark.parametrize("to_one", [False, True])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_last_step_goes_to_the_final_alpha(lesson, sd, spacing, to_one):
    """With a denoiser that predicts no noise, a step scales the latents by a ratio of alphas."""
    scheduler = DDIMScheduler.from_config(
        sd.scheduler.config, timestep_spacing=spacing, set_alpha_to_one=to_one
    )
    other = changed(
        sd, scheduler=scheduler, predict_noise=lambda windows, *_: torch.zeros_like(windows)
    )
    views, zeros = lesson.window_views(8, 8, 8, 8), torch.zeros(2, 1, 1, 1)
    for count in (1, *ODD_COUNTS):
        *_, last = denoise(other, noise(1, 4, 8, 8), views, window_weights(1, 8), zeros, count)
        assert torch.allclose(
            last.x_prev, scheduler.final_alpha_cumprod.sqrt() * last.x_0, rtol=1e-4
        )


@pytest.mark.parametrize("number", [np.int64, np.int32, np.uint8, np.array, torch.tensor])
def test_whatever_behaves_like_an_integer_is_one(sd, number):
    """Height, width, stride, number of steps, seed, windows in a batch, `sync.every`."""
    settings = {"height": 64, "width": 72, "stride": 8, "num_sampling_steps": 1, "seed": 5}
    plain = sd.sample_latents(**settings, use_syncdiffusion=True)
    other = changed(sd, window_batch=number(3), gradient_batch=number(2))
    settings = {name: number(value) for name, value in settings.items()}
    sync = other.recommended()._replace(every=number(4))
    result = other.sample_latents(
        **settings, use_syncdiffusion=True, sync=sync, guidance_scale=np.float32(7.5)
    )
    assert torch.allclose(result, plain, atol=1e-4)


@pytest.mark.parametrize("batch", [-1, 1.5, True, "2", np.float64(2)])
def test_a_batch_of_windows_that_cannot_be(lesson, sd, batch):
    for name in ("window_batch", "gradient_batch"):
        with pytest.raises(
            RequestError, match="number of windows in a batch must be a whole number of at least 1"
        ):
            changed(sd, **{name: batch}).sample(width=72, stride=8, use_syncdiffusion=True)


@pytest.mark.parametrize(
    ("part", "value", "settings"),
    [
        ("unet", math.nan, {}),
        ("unet", math.inf, {}),
        ("unet", math.nan, {"use_syncdiffusion": True}),
        ("unet", math.nan, {"closed": True}),
        ("unet", math.nan, {"regions": [("a duck", np.eye(8, 9))]}),
        ("text_encoder", math.nan, {}),
        ("vae", math.nan, {}),
        ("vae", math.inf, {"closed": True}),
        ("vae", math.nan, {"regions": [("a duck", np.eye(8, 9))]}),
    ],
    ids=str,
)
def test_weights_that_are_not_finite_are_an_error(sd, part, value, settings, recwarn):
    """And no warning of skipped gradients comes before it."""
    network = copy.deepcopy(getattr(sd, part))
    [*_, last] = [
        weight
        for name, weight in network.named_parameters()
        if part != "vae" or "encoder." not in name
    ]
    last.view(-1)[0] = value
    message = {"vae": "The decoded images"}.get(part, r"The latents after step 1 of 2 \(t = 501\)")
    other = changed(sd, **{part: network})
    sample = other.sample_regions if "regions" in settings else other.sample
    with pytest.raises(
        CourseError, match=f"^{message} must be finite, but .* download or save it again"
    ):
        sample("a duck", **settings, width=72, stride=8, num_sampling_steps=2)
    assert not [warning for warning in recwarn if "gradient" in str(warning.message)]


@pytest.mark.parametrize("place", [1, 2, 5])
def test_the_step_that_is_not_finite_is_named(sd, place):
    calls = []

    def broken(windows, t, *_):
        calls.append(t)
        return windows * (float("nan") if len(calls) == place else 1.0)

    with pytest.raises(
        CourseError, match=rf"after step {place} of 5 \(t = .*but 768 of 768 values"
    ):
        changed(sd, predict_noise=broken).sample(num_sampling_steps=5)


@pytest.mark.parametrize("batch", [1, 3, 4, 64])
@pytest.mark.parametrize("closed", [False, True])
def test_batches_change_nothing_and_have_one_shape(lesson, tiny_folder, batch, closed, monkeypatch):
    shapes = set()
    one = lesson.JointDiffusion(find_model(tiny_folder), window_batch=1)
    some = lesson.JointDiffusion(find_model(tiny_folder), window_batch=batch)
    forward = some.unet.forward
    monkeypatch.setattr(
        some.unet, "forward", lambda x, *a, **k: shapes.add(x.shape) or forward(x, *a, **k)
    )
    request = dict(height=72, width=208, closed=closed)
    assert torch.allclose(one.sample_latents(**request), some.sample_latents(**request), atol=1e-4)
    assert len(shapes) == 1


def test_a_model_that_predicts_v(lesson, sd_v):
    """One window again: noise worked out of v makes the steps of diffusers' DDIM."""
    latents = sd_v.draw_noise(8, 8, 2)
    embeddings = sd_v.embed_window_prompts("a duck", "", 1)
    result = sd_v.sample_latents("a duck", width=64)
    sd_v.scheduler.set_timesteps(3)
    for t in sd_v.scheduler.timesteps:
        both = torch.cat([latents, latents])
        u, c = (
            sd_v.unet(both, t, encoder_hidden_states=embeddings.flatten(0, 1))
            .sample.detach()
            .chunk(2)
        )
        latents = sd_v.scheduler.step(u + 7.5 * (c - u), t, latents).prev_sample
    assert (result - latents).abs().max() <= 1e-4


def test_a_seed_gives_one_panorama(sd):
    first, again, other = sd.sample(), sd.sample(), sd.sample(seed=3)
    assert (
        first.shape == (3, 64, 192) and torch.equal(first, again) and not torch.equal(first, other)
    )
    assert len(sd.x0_histories[-1]) == 3


def test_a_prompt_for_each_window(sd):
    """One prompt for all as a list is the same panorama; another at an end changes that end."""
    count = len(sd.plan_windows()[1])
    same = sd.sample_latents(["a duck"] * count, num_sampling_steps=1)
    assert torch.allclose(same, sd.sample_latents("a duck", num_sampling_steps=1), atol=1e-5)
    other = sd.sample_latents(["a duck"] * (count - 1) + ["a car on mars"], num_sampling_steps=1)
    assert torch.allclose(same[..., :16], other[..., :16], atol=1e-5)
    assert not torch.allclose(same[..., 16:], other[..., 16:], atol=1e-3)


# --- Synchronization


@pytest.mark.parametrize("through", ["decoder", "denoiser"])
def test_synchronization_brings_windows_closer(sd, through):
    """By one small step of the first timestep: the mean distance of x_0 to the anchor falls."""
    _, views, _ = sd.plan_windows()
    windows = torch.cat([sd.draw_noise(8, 24, 5)[..., r, c] for r, c in views])
    embeddings = sd.embed_window_prompts("a duck", "", len(views))
    sync = sd.recommended()._replace(weight=1e-3, through=through, scale=1.0)
    t = 500
    moved, its_noise = sd.make_update(embeddings, 7.5, 10, sync)(windows, t, 0)
    assert moved.shape == windows.shape == its_noise.shape
    steps = moved - windows
    moves = steps.flatten(1).norm(dim=1) > 0
    assert not moves[len(views) // 2] and moves.sum() == len(views) - 1  # all but the anchor
    assert distances(sd, windows + 1e-2 * steps / steps.abs().max(), t, embeddings) < distances(
        sd, windows, t, embeddings
    )


@torch.no_grad()
def distances(sd, windows, t, embeddings) -> float:
    """The mean distance to the anchor, in double precision where it counts."""
    alpha_bar = diffusion.alpha_bar_at(sd.scheduler, t)
    x_0 = (
        windows - (1 - alpha_bar).sqrt() * sd.predict_noise(windows, t, embeddings, 7.5)
    ) / alpha_bar.sqrt()
    images = sd.decode_latents(x_0)
    middle = len(windows) // 2
    return float(sd.distance(images, images[middle : middle + 1].expand_as(images)).double().mean())


def test_the_weight_falls_and_steps_are_chosen(lesson, sd):
    sync = Sync(20.0, until=0.5, every=2)
    assert [i for i in range(10) if sync.is_active(i, 10)] == [0, 2, 4]
    assert [i for i in range(3) if sync._replace(until=0.01, every=5).is_active(i, 3)] == [0]
    assert all(Sync(20.0).is_active(i, 50) for i in range(50))


def test_without_acting_steps_nothing_changes_after_the_first(sd):
    plain = sd.sample_latents()
    tiny = sd.recommended()._replace(weight=1e-12, until=0.01)
    synced = sd.sample_latents(use_syncdiffusion=True, sync=tiny)
    assert torch.allclose(plain, synced, atol=1e-4)
    strong = sd.sample_latents(use_syncdiffusion=True, sync=tiny._replace(weight=1e5))
    assert not torch.allclose(plain, strong, atol=1e-3)


def test_the_short_cut_moves_x_0_down_its_gradient(sd, lesson):
    """Its direction is -dL/dx_0, by finite differences of the distance in x_0."""
    windows, its_noise = noise(3, 4, 8, 8, seed=7), noise(3, 4, 8, 8, seed=8)
    alpha_bar = torch.tensor(0.5)
    x_0 = lesson.predict_x0(windows, its_noise, alpha_bar)
    anchor = sd.predict_anchor(windows[1:2], its_noise[1:2], alpha_bar, 1.0)
    step = x_0 - sd.descend_windows(x_0, lambda own, part: sd.decode_small(own, 1.0), anchor, 1.0)
    along = step[2] / step[2].norm()
    with torch.no_grad():
        values = [
            sd.distance(sd.decode_small(x_0[2:] + s * along, 1.0), anchor).item()
            for s in (-0.5, 0.5)
        ]
    assert values[1] - values[0] == pytest.approx(step[2].norm().item(), rel=0.1)


def test_any_window_can_be_the_anchor(sd):
    windows, anchor = noise(4, 4, 8, 8, seed=7), noise(1, 3, 64, 64, seed=8)
    for index in (None, 0, 3):
        moved = sd.descend_windows(
            windows, lambda own, part: sd.decode_small(own, 1.0), anchor, 1.0, index
        )
        changed = (moved != windows).flatten(1).any(1).tolist()
        assert changed == [i != (2 if index is None else index) for i in range(4)]


def test_on_the_short_cut_the_weight_is_the_length_of_the_step(sd, lesson):
    """In x_0, for every window but the anchor; the noise stays the same."""
    _, views, _ = sd.plan_windows()
    windows = torch.cat([sd.draw_noise(8, 24, 5)[..., r, c] for r, c in views])
    embeddings = sd.embed_window_prompts("a duck", "", len(views))
    sync = sd.recommended()._replace(weight=0.25)
    moved, its_noise = sd.make_update(embeddings, 7.5, 10, sync)(windows, 500, 0)
    alpha_bar = diffusion.alpha_bar_at(sd.scheduler, 500)
    change = lesson.predict_x0(moved, its_noise, alpha_bar) - lesson.predict_x0(
        windows, its_noise, alpha_bar
    )
    wanted = [0.0 if i == len(views) // 2 else 0.25 for i in range(len(views))]
    assert change.square().mean((1, 2, 3)).sqrt().tolist() == pytest.approx(wanted, abs=1e-4)


def test_a_gradient_that_is_not_finite_is_skipped_with_a_warning(sd, monkeypatch):
    plain = sd.sample_latents()
    own = sd.distance
    monkeypatch.setattr(sd, "distance", lambda a, b: own(a, b) * float("nan"))
    with pytest.warns(CourseWarning, match="not finite"):
        result = sd.sample_latents(use_syncdiffusion=True)
    assert torch.equal(result, plain)


def test_one_bad_window_does_not_spread(sd, monkeypatch):
    calls, own = [], sd.distance

    def once_bad(a, b):
        calls.append(1)
        return own(a, b) * (math.inf if len(calls) == 2 else 1.0)

    monkeypatch.setattr(sd, "distance", once_bad)
    with pytest.warns(CourseWarning, match="In 1 of 3 steps a gradient was not finite") as caught:
        result = sd.sample_latents(
            use_syncdiffusion=True, sync=sd.recommended()._replace(until=1.0, every=1)
        )
    assert result.isfinite().all() and len(caught) == 1 and len(calls) > 4


def test_an_anchor_alone_has_nobody_to_lead(sd):
    side = sd.model.image_size
    alone = sd.sample_latents(width=side, use_syncdiffusion=True)
    assert torch.equal(alone, sd.sample_latents(width=side))


def test_nothing_keeps_a_gradient(sd):
    result = sd.sample_latents(use_syncdiffusion=True, sync=sd.paper())
    assert not result.requires_grad and result.grad_fn is None
    networks = (sd.unet, sd.vae, sd.text_encoder)
    assert all(
        p.grad is None and not p.requires_grad for network in networks for p in network.parameters()
    )


# --- Once around


def test_a_closed_decoder_knows_no_beginning(sd):
    latents = noise(1, 4, 8, 20, seed=1)
    around = sd.decode_closed(latents)
    for turn in (1, 7, 10):
        turned = sd.decode_closed(latents.roll(turn, dims=-1)).roll(-8 * turn, dims=-1)
        assert (turned - around).abs().max() <= 1e-4
    with torch.no_grad():
        plain = sd.decode_latents(latents)
    assert (plain - around).abs().max() > 1e-3  # and it differs from the plain one,
    assert torch.equal(sd.decode_latents(latents), plain)  # which is itself again afterwards


def in_tiles(sd, tile):
    """The same with `vae.enable_tiling()`, in tiles of `tile` latent pixels."""
    vae = copy.deepcopy(sd.vae)
    vae.enable_tiling()
    vae.tile_latent_min_size, vae.tile_sample_min_size = tile, 8 * tile
    return changed(sd, vae=vae)


@pytest.mark.parametrize(
    ("tile", "width"), [(4, 8), (4, 12), (8, 12), (8, 20), (8, 33), (16, 20), (16, 33)]
)
def test_a_closed_decoder_has_no_seam_where_it_works_in_tiles(sd, lesson, tile, width):
    """Smooth latents whose ends meet: the step across the wrap is like any other. Tiles that wrap
    around by themselves leave one that is larger."""
    tiled = in_tiles(sd, tile)
    angle = torch.arange(width) / width * 2 * math.pi
    waves = torch.stack([angle.sin(), angle.cos(), angle.sin(), -angle.cos()])
    latents = waves[None, :, None].repeat(1, 1, 8, 1)  # (1, 4, 8, width)
    with torch.no_grad():
        around = tiled.decode_closed(latents)
        with closed_convolutions(tiled.vae.decoder, lesson.ring_convolution):
            by_themselves = tiled.decode_latents(latents)
    assert around.shape == (1, 3, 64, 8 * width)
    steps = metrics.column_differences(around[0])
    assert steps[-1] <= steps[:-1].max()
    steps = metrics.column_differences(by_themselves[0])
    assert steps[-1] > 1.1 * steps[:-1].max()


@pytest.mark.parametrize("width", [8, 9, 12, 33])
def test_tiles_larger_than_the_panorama_close_it_too(sd, width):
    latents = noise(2, 4, 8, width)
    around = in_tiles(sd, 64).decode_closed(latents)
    assert around.shape == (2, 3, 64, 8 * width)
    for image in around:
        steps = metrics.column_differences(image)
        assert steps[-1] <= steps[:-1].max()


def test_a_closed_panorama_in_tiles_is_nearly_that_of_the_whole(sd):
    whole, tiled = (own.sample(closed=True, width=128, stride=4) for own in (sd, in_tiles(sd, 8)))
    assert whole.shape == tiled.shape and (whole - tiled).abs().mean() < 0.5 * whole.std()
    steps = metrics.column_differences(tiled)
    assert steps[-1] <= steps[:-1].max()


def test_a_closed_decoder_opens_again_after_an_error(sd, lesson):
    with (
        pytest.raises(ZeroDivisionError),
        closed_convolutions(sd.vae.decoder, lesson.ring_convolution),
    ):
        assert "forward" in vars(sd.vae.decoder.conv_in)
        1 / 0  # noqa: B018
    assert "forward" not in vars(sd.vae.decoder.conv_in)


@pytest.mark.parametrize("stride", [1, 3, 8])
def test_windows_of_a_ring_begin_somewhere_else_at_each_step(sd, lesson, monkeypatch, stride):
    """And x_0 stays where it is: with a network that does nothing, the noise is only scaled."""
    rolled: list[torch.Tensor] = []
    crop_windows = lesson.crop_windows

    def record(latents, views):
        rolled.append(latents)
        return crop_windows(latents, views)

    monkeypatch.setattr(lesson, "crop_windows", record)
    monkeypatch.setattr(sd, "predict_noise", lambda windows, *_: windows)
    latents_of = {
        closed: sd.sample_latents(stride=stride, closed=closed, num_sampling_steps=9)
        for closed in (True, False)
    }
    noise_ = sd.draw_noise(*latents_of[True].shape[-2:], lesson.SEED)

    def offset(latents: torch.Tensor) -> int:
        flat = lambda t: torch.nn.functional.normalize(t.flatten(), dim=0)
        turns = [
            float(flat(latents) @ flat(noise_.roll(-k, dims=-1))) for k in range(noise_.shape[-1])
        ]
        assert max(turns) > 0.999
        return turns.index(max(turns))

    turned = [offset(latents) for latents in rolled[:9]]
    assert all(0 <= k < stride for k in turned) and len(set(turned)) == min(
        stride, 9 - (stride == 8)
    )
    assert [offset(latents) for latents in rolled[9:]] == [0] * 9
    assert offset(latents_of[True]) == 0


def test_turned_noise_makes_a_turned_panorama(sd, lesson):
    """On a ring no place is special: noise turned by a stride gives the panorama, turned."""
    size, views, _ = sd.plan_windows(closed=True)
    weights = window_weights(len(views), 8)
    embeddings = sd.embed_window_prompts("a duck", "", len(views))
    start = sd.draw_noise(*size, 3)
    ends = []
    for latents in (start, start.roll(2, dims=-1)):
        *_, step = denoise(sd, latents, views, weights, embeddings, 3)
        ends.append(step.x_prev)
    assert (ends[0].roll(2, dims=-1) - ends[1]).abs().max() <= 1e-4


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 8])
def test_the_wrap_looks_like_any_other_place(sd, stride):
    image = sd.sample(closed=True, stride=stride, width=256, num_sampling_steps=2)
    steps = metrics.column_differences(image)
    assert steps[-1] <= 1.5 * steps[:-1].max()


# --- Regions


def test_regions_hear_their_own_prompt(sd, monkeypatch):
    """After one step another prompt has changed the latents inside its mask, and nowhere else."""
    monkeypatch.setattr(
        sd, "decode_latents", lambda latents: latents / 100
    )  # within what is clamped
    right = (torch.arange(24).expand(8, -1) >= 12).float()
    alike, other = (
        sd.sample_regions("a duck", [(prompt, right)], num_sampling_steps=1, stride=4)
        for prompt in ("a duck", "a car on mars")
    )
    changed = (alike - other).abs().amax(dim=(0, 1))  # (w,)
    assert changed[:12].max() < 1e-6 < 1e-4 < changed[12:].min()


def test_the_wall_stands_at_first_and_beyond_the_mask_alone(sd):
    masks = torch.zeros(2, 1, 8, 8)
    masks[:, :, :, :4] = 1
    prepare = sd.make_bootstrap(masks, seed=0)
    windows = noise(2, 4, 8, 8)
    early, late = (prepare(windows, progress, torch.tensor(1.0)) for progress in (0.19, 0.2))
    assert torch.equal(late, windows)
    assert torch.equal(early[..., :4], windows[..., :4])
    walls = early[..., 4:]
    assert torch.equal(walls, walls[..., :1, :1].expand_as(walls))  # plain
    assert (walls[0] - walls[1]).abs().max() > 1e-3  # of another color each
    noisy = prepare(windows, 0.1, torch.tensor(0.01))[..., 4:]
    assert 0.7 < noisy.std() < 1.3


@pytest.mark.parametrize(
    "kind", [np.array, np.float64, torch.tensor, list, lambda mask: np.array(mask) > 0]
)
def test_masks_are_arrays_of_any_kind(sd, kind):
    left = np.array([[1.0] * 12 + [0.0] * 12] * 8)
    request = dict(num_sampling_steps=1, stride=4)
    plain = sd.sample_regions("a tree", [("a car on mars", torch.tensor(left))], **request)
    assert torch.equal(
        plain, sd.sample_regions("a tree", [("a car on mars", kind(left))], **request)
    )


def test_regions_that_fill_the_image_need_no_background(sd):
    left = (torch.arange(24).expand(8, -1) < 12).float()
    request = dict(num_sampling_steps=1, stride=4)
    regions = [("a duck", left), ("a car on mars", 1 - left)]
    images = [
        sd.sample_regions(background, regions, **request) for background in ("a beach", "a tree")
    ]
    assert torch.equal(*images)


# --- What it refuses


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 32}, "width must be at least 8 latent pixels"),
        ({"height": 56}, "height must be at least 8 latent pixels, one window, got 7"),
        ({"width": 100}, "width must be a multiple of 8 .* got 100. The nearest is 96"),
        ({"height": 65}, "height must be a multiple of 8 .* got 65"),
        ({"stride": 9}, "stride between windows of 8 must be a whole number from 1 to 8, got 9"),
        ({"stride": 0}, "stride .* got 0"),
        ({"stride": 2.0}, "stride .* got 2.0"),
        ({"stride": True}, "stride .* got True"),
        ({"num_sampling_steps": 0}, "from 1 to 999, got 0"),
        ({"num_sampling_steps": 2.5}, "from 1 to 999, got 2.5"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be a number, got nan"),
        ({"guidance_scale": math.inf}, "guidance_scale must be a number, got inf"),
        ({"guidance_scale": "7"}, "guidance_scale must be a number, got '7'"),
        ({"guidance_scale": True}, "guidance_scale must be a number, got True"),
        ({"seed": 1.5}, "seed must be a whole number .* got 1.5"),
        ({"prompts": ["a duck", "a car"]}, "2 prompts for 9 windows"),
        ({"prompts": []}, "no prompt"),
        ({"prompts": ["a duck"] * 9, "negative_prompts": ["a", "b"]}, "9 prompts and 2 negative"),
    ],
)
def test_requests_that_cannot_be(sd, wrong, message):
    with pytest.raises(RequestError, match=message):
        sd.sample(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weight": 0.0}, "weight must be above 0 .* got 0.0"),
        ({"weight": float("nan")}, "weight must be a number, got nan"),
        ({"weight": -1.0}, "weight must be above 0 .* got -1"),
        ({"weight": math.inf}, "weight must be a number, got inf"),
        ({"weight": "20"}, "weight must be a number, got '20'"),
        ({"decay": 0.0}, "decay must be above 0 and at most 1, got 0"),
        ({"decay": 1.1}, "decay must be a number of at most 1, got 1.1"),
        ({"until": 0.0}, "until must be .* got 0"),
        ({"until": 2.0}, "until must be a number of at most 1, got 2"),
        ({"every": 0}, "every must be a whole number of at least 1, got 0"),
        ({"every": 1.5}, "every must be a whole number of at least 1, got 1.5"),
        ({"every": True}, "every must be a whole number of at least 1, got True"),
        ({"scale": 0.0}, "scale must be .* got 0"),
        ({"scale": 0.3}, "scale must be .* whole number of a window's 8 latent pixels .* got 0.3"),
        ({"through": "vae"}, "through must be 'denoiser' or 'decoder', got 'vae'"),
    ],
)
def test_synchronization_that_cannot_be(sd, wrong, message):
    with pytest.raises(RequestError, match=f"^sync.{message}"):
        sd.sample(use_syncdiffusion=True, sync=sd.recommended()._replace(**wrong))


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([], "no region"),
        ([("a car", torch.ones(8, 23))], r"mask of \"a car\" must .* \(8, 24\), got \(8, 23\)"),
        ([("a car", np.ones((8, 23)))], r"mask of \"a car\" must .* \(8, 24\), got \(8, 23\)"),
        ([("a car", torch.zeros(8, 24))], "above 0 somewhere"),
        ([("a car", torch.eye(8, 24) - 0.5)], "from 0 to 1"),
        ([("a car", torch.full((8, 24), 2.0))], "from 0 to 1"),
        ([("a car", torch.full((8, 24), float("nan")))], "from 0 to 1"),
    ],
)
def test_regions_that_cannot_be(sd, regions, message):
    with pytest.raises(RequestError, match=message):
        sd.sample_regions("a duck", regions)


def test_long_prompts_are_cut_with_a_warning(sd):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sd.sample("duck " * 100, num_sampling_steps=1)
    assert any("Cut from its end" in str(w.message) for w in caught)


@pytest.mark.weekly
def test_runs_on_a_model_from_a_folder(tiny_folder, tmp_path):
    lesson = notebooks.read(PATH)
    # The challenge compares times, which say nothing for a tiny model with two steps.
    lesson.cells = [cell for cell in lesson.cells if "checks.acceleration" not in cell.source]
    done = notebooks.execute(
        lesson,
        {"STEPS": 2, "OUTPUTS": str(tmp_path)},
        {"COURSE_MODEL": str(tiny_folder)},
    )
    text = "".join(o.get("text", "") for cell in done.cells for o in cell.get("outputs", []))
    assert text.count("✓") == 14
    names = {"my_panorama.png", "sync_demo.mp4", "pan.mp4", "turn.html"}
    assert {path.name for path in tmp_path.iterdir()} == names
    values = [float(value) for value in re.findall(r"intra-distance \(judge\) (\S+)", text)]
    assert len(values) == 2 and np.isfinite(values).all()
