"""Lesson 1.2: its loop beside diffusers' pipeline, frames, attention, and invalid requests."""

import ast
import copy
import inspect
import itertools
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionPipeline
from PIL import Image

from course import diffusion, notebooks
from course.checks import task_1_2 as checks
from course.errors import CourseError
from course.images import video
from course.models import RequestError, find_model

PATH = notebooks.ROOT / "task_1_2_Stable_Diffusion_detailed.ipynb"
PROMPTS, NEGATIVES = ["a red duck", "a bunny on grass at night"], ["", "a tree"]
GUIDANCE = 5.0


@pytest.fixture(scope="module")
def lesson():
    """The lesson's own functions and classes."""
    return notebooks.definitions(notebooks.read(PATH), {"STEPS": 3, "SEED": 2})


def with_settings(folder: Path, target: Path, **settings: object) -> Path:
    """A copy of the model in `folder` whose scheduler is configured otherwise."""
    shutil.copytree(folder, target)
    file = target / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return target


@pytest.fixture(scope="module")
def v_folder(tiny_folder, tmp_path_factory) -> Path:
    """The tiny model taken for one that predicts v, with timesteps as pocket has them."""
    target = tmp_path_factory.mktemp("v") / "model"
    settings = {
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "set_alpha_to_one": True,
    }
    return with_settings(tiny_folder, target, **settings)


@pytest.fixture(scope="module")
def sds(lesson, tiny_folder, v_folder):
    """The lesson's class on a model that predicts the noise, and on one that predicts v."""
    folders = {"epsilon": tiny_folder, "v_prediction": v_folder}
    models = {kind: lesson.StableDiffusion(find_model(folder)) for kind, folder in folders.items()}
    assert {kind: sd.model.prediction_type for kind, sd in models.items()} == {
        kind: kind for kind in models
    }
    return models


@pytest.fixture
def sd(sds):
    return sds["epsilon"]


# --- The loop


SPACINGS = ("trailing", "leading", "linspace")
ODD_COUNTS = (13, 60, 61, 67, 91, 103, 121, 122, 201)  # they do not divide the 1,000 levels


@pytest.mark.parametrize(
    "settings",
    [
        {"timestep_spacing": "trailing"},
        {"timestep_spacing": "linspace"},
        {"timestep_spacing": "leading"},
        {"timestep_spacing": "leading", "steps_offset": 1},
        {"timestep_spacing": "trailing", "num_train_timesteps": 100},
        {"timestep_spacing": "linspace", "num_train_timesteps": 997},
    ],
    ids=str,
)
def test_timesteps_fall_strictly_at_every_count(lesson, settings):
    """The right number, all in range: diffusers' own, without the extra one at some counts."""
    scheduler = DDIMScheduler(**settings)
    levels = scheduler.config.num_train_timesteps
    for count in range(1, levels - scheduler.config.steps_offset + 1):
        chosen = lesson.timesteps(scheduler.config, count)
        assert len(chosen) == count
        assert all(t > t_prev for t, t_prev in itertools.pairwise(chosen)), count
        assert 0 <= chosen[-1] and chosen[0] < levels, count
        scheduler.set_timesteps(count)
        assert chosen == scheduler.timesteps.tolist()[:count], count
        assert chosen == diffusion.timesteps(scheduler.config, count), count


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize(
    ("kind", "count"), [("epsilon", 2), ("epsilon", 3), ("v_prediction", 2), ("v_prediction", 4)]
)
def test_the_loop_is_that_of_the_pipeline(sds, kind, count, eta):
    """Where both agree: any count with leading timesteps, divisors of 1,000 with trailing ones."""
    sd, seeds = sds[kind], [3, 4]
    scheduler = DDIMScheduler.from_pretrained(sd.model.folder, subfolder="scheduler")
    pipe = StableDiffusionPipeline.from_pretrained(sd.model.folder, scheduler=scheduler).to(
        sd.model.device
    )
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        PROMPTS,
        negative_prompt=NEGATIVES,
        num_inference_steps=count,
        guidance_scale=GUIDANCE,
        eta=eta,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        output_type="latent",
    ).images
    sd.sample(PROMPTS, NEGATIVES, count, GUIDANCE, seed=seeds, eta=eta)
    assert (sd.steps[-1].x_prev - expected).abs().max() <= 1e-4
    assert [step.t for step in sd.steps] == pipe.scheduler.timesteps.tolist()


class Gaussian:
    """The best denoiser of all for latents from a normal distribution: a UNet by its call alone."""

    dtype = torch.float32
    mean, std = 1.5, 0.5

    def __init__(self, scheduler):
        self.alphas = np.append(scheduler.alphas_cumprod.numpy(), 1.0)  # the last for t = -1
        self.prediction_type = scheduler.config.prediction_type
        self.config = SimpleNamespace(in_channels=4)

    def __call__(self, x, t, **_):
        a = torch.tensor(
            np.interp(float(t), range(-1, len(self.alphas) - 1), np.roll(self.alphas, 1))
        )
        noise = (1 - a).sqrt() * (x - a.sqrt() * self.mean) / (a * self.std**2 + 1 - a)
        v = (noise - (1 - a).sqrt() * x) / a.sqrt()
        return SimpleNamespace(sample=(noise if self.prediction_type == "epsilon" else v).float())


def by_euler(scheduler, levels, latents, network):
    """Return the latents after diffusers' Euler steps: DDIM without fresh noise in other units."""
    euler = EulerDiscreteScheduler.from_config(scheduler.config)
    euler.set_timesteps(timesteps=levels)
    latents = latents / scheduler.alphas_cumprod[levels[0]].sqrt()
    for t in euler.timesteps:
        output = network(euler.scale_model_input(latents, t), t).sample
        latents = euler.step(output, t, latents).prev_sample
    return latents


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_each_step_goes_to_the_next_timestep_at_any_count(lesson, sds, spacing, kind):
    """Where diffusers' DDIM would miss it, beside diffusers' Euler on the same timesteps."""
    scheduler = DDIMScheduler.from_config(
        sds[kind].scheduler.config, timestep_spacing=spacing, set_alpha_to_one=True
    )
    sd = changed(sds[kind], scheduler=scheduler, unet=Gaussian(scheduler))
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    for count in ODD_COUNTS:
        steps = list(sd.denoise(latents, None, count, GUIDANCE))
        expected = by_euler(scheduler, [step.t for step in steps], latents, sd.unet)
        assert (steps[-1].x_prev - expected).abs().max() <= 1e-3, count
        assert abs(steps[-1].x_prev.std() - Gaussian.std) < 0.15, count  # neither black nor grain


@pytest.mark.parametrize("to_one", [False, True])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_last_step_goes_to_the_final_alpha(sd, spacing, to_one):
    scheduler = DDIMScheduler.from_config(
        sd.scheduler.config, timestep_spacing=spacing, set_alpha_to_one=to_one
    )
    other = changed(sd, scheduler=scheduler, unet=Gaussian(scheduler))
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    for count in (1, *ODD_COUNTS, 999):
        *_, last = other.denoise(latents, None, count, GUIDANCE)
        a, final = scheduler.alphas_cumprod[last.t], scheduler.final_alpha_cumprod
        assert final == (1 if to_one else scheduler.alphas_cumprod[0])
        noise = (last.x_t - a.sqrt() * last.x_0) / (1 - a).sqrt()
        assert torch.allclose(
            last.x_prev, final.sqrt() * last.x_0 + (1 - final).sqrt() * noise, atol=1e-4
        )


@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_lesson_says_where_diffusers_agrees(lesson, sd, spacing):
    """Its list of counts beside the latents that diffusers' DDIM reaches at each of them."""
    scheduler = DDIMScheduler.from_config(
        sd.scheduler.config, timestep_spacing=spacing, set_alpha_to_one=True
    )
    other = changed(sd, scheduler=scheduler, unet=Gaussian(scheduler))
    start = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    agreeing = []
    for count in range(1, 51):
        *_, last = other.denoise(start, None, count, GUIDANCE)
        latents = start
        scheduler.set_timesteps(count)
        for t in scheduler.timesteps:
            latents = scheduler.step(other.unet(latents, int(t)).sample, t, latents).prev_sample
        agreeing += [count] if (latents - last.x_prev).abs().max() < 1e-5 else []
    assert agreeing == [
        count for count in range(1, 51) if lesson.agrees_with_diffusers(scheduler.config, count)
    ]
    expected = {
        "trailing": [1, 2, 4, 5, 8, 10, 20, 25, 40, 50],
        "leading": [*range(1, 51)],
        "linspace": [1],
    }
    assert agreeing == expected[spacing]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_check_of_the_loop_passes_whatever_the_spacing(sds, spacing, kind, capsys):
    """Its reference is diffusers' DDIM, which goes to the next timestep with leading ones alone."""
    scheduler = DDIMScheduler.from_config(sds[kind].scheduler.config, timestep_spacing=spacing)
    sd = changed(sds[kind], scheduler=scheduler)
    checks.loop(sd, sd.model)
    assert "3 steps end where diffusers' own DDIM ends" in capsys.readouterr().out
    assert sd.scheduler is scheduler


def changed(sd, **parts):
    """A copy of `sd` with other parts."""
    other = copy.copy(sd)
    other.__dict__.update(parts)
    return other


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_x_0_is_that_of_the_closed_form_at_every_step(sds, kind):
    sd = sds[kind]
    sd.sample(PROMPTS, NEGATIVES, 4, GUIDANCE)
    for step in sd.steps:
        a = sd.scheduler.alphas_cumprod[step.t].double()
        x_t, uncond, cond = (x.double() for x in (step.x_t, step.uncond, step.cond))
        guided = (uncond + GUIDANCE * (cond - uncond)).cpu()
        if kind == "epsilon":
            x_0 = (x_t.cpu() - (1 - a).sqrt() * guided) / a.sqrt()
        else:
            x_0 = a.sqrt() * x_t.cpu() - (1 - a).sqrt() * guided
        assert (step.x_0.double().cpu() - x_0).abs().max() <= 1e-5


def test_the_solution_takes_its_steps_itself(lesson):
    """diffusers' `step` appears in the comparison alone."""
    users = {
        node.name
        for cell in notebooks.read(PATH).cells
        if cell.cell_type == "code"
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.FunctionDef)
        and re.search(r"\.step\(|set_timesteps", ast.unparse(node))
    }
    assert users == {"sample_with"}


def test_another_kind_of_prediction_is_refused(lesson):
    with pytest.raises(ValueError, match="'sample'"):
        lesson.predict_x0_and_noise(torch.ones(1), torch.ones(1), torch.tensor(0.5), "sample")


def test_an_image_of_a_batch_is_the_one_made_alone(sd):
    sd.sample(PROMPTS, NEGATIVES, 3, seed=[7, 8], eta=0.5)
    both = sd.steps[-1].x_prev
    sd.sample(PROMPTS[1], NEGATIVES[1], 3, seed=8, eta=0.5)
    assert torch.allclose(sd.steps[-1].x_prev[0], both[1], atol=1e-4)


def test_one_seed_gives_one_image_and_one_noise_to_all(sd):
    first, second = sd.sample(["a duck", "a duck"], seed=5)
    [again] = sd.sample("a duck", seed=5)
    assert np.array_equal(first, second) and np.abs(np.int16(first) - np.int16(again)).max() <= 1
    [other] = sd.sample("a duck", seed=6)
    assert not np.array_equal(other, again)


SAMPLERS = [
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
]


@pytest.mark.parametrize("kind", SAMPLERS)
def test_other_samplers_reach_the_end(sds, kind):
    """On a model that predicts the noise and on one that predicts v; the same image each time."""
    for sd in sds.values():
        for count in (1, 3):
            latents = sd.sample_with(getattr(diffusers, kind), "a duck", count)
            assert latents.shape == (1, 4, 8, 8) and latents.isfinite().all()
        assert torch.equal(latents, sd.sample_with(getattr(diffusers, kind), "a duck", np.int64(3)))


@pytest.mark.parametrize("kind", SAMPLERS)
def test_other_samplers_find_the_distribution(sds, kind):
    """At a divisor of 1,000, and at a count where diffusers' list has a timestep below 0."""
    for sd in sds.values():
        other = changed(sd, unet=Gaussian(sd.scheduler))
        for count in (25, 61):
            latents = other.sample_with(getattr(diffusers, kind), "a duck", count)
            assert abs(latents.mean() - Gaussian.mean) < 0.25, (sd.model.prediction_type, count)
            assert abs(latents.std() - Gaussian.std) < 0.15, (sd.model.prediction_type, count)


@pytest.mark.parametrize(
    "kind",
    [
        "EDMEulerScheduler",
        "EDMDPMSolverMultistepScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "IPNDMScheduler",
        "CMStochasticIterativeScheduler",
        "ScoreSdeVeScheduler",
    ],
)
def test_samplers_of_other_models_are_refused(sd, kind):
    with pytest.raises(
        RequestError, match=f"{kind} cannot take over the noise levels .* UniPCMultistepScheduler"
    ):
        sd.sample_with(getattr(diffusers, kind), "a duck", 3)


def test_samplers_that_cannot_take_the_settings_are_refused(sd):
    class Absent:
        @classmethod
        def from_config(cls, *_, **__):
            raise ImportError("install torchsde")

    for kind, count, message in [
        (Absent, 3, "Absent cannot sample in 3 steps: install torchsde"),
        (
            diffusers.UnCLIPScheduler,
            3,
            "UnCLIPScheduler cannot sample in 3 steps: .* only supports `beta_schedule`",
        ),
        (
            diffusers.TCDScheduler,
            61,
            "TCDScheduler cannot sample in 61 steps: .* smaller than `num_inference_steps`",
        ),
        (diffusers.LCMScheduler, 61, "LCMScheduler cannot sample in 61 steps"),
        (diffusers.DDPMScheduler, 0, "from 1 to 999, got 0"),
        (diffusers.DDPMScheduler, 2.5, "from 1 to 999, got 2.5"),
    ]:
        with pytest.raises(RequestError, match=message):
            sd.sample_with(kind, "a duck", count)


def test_sampling_with_diffusers_own_ddim_in_their_place_is_the_loop(sd, lesson):
    """So the comparison differs from the lesson's loop in the sampler alone."""
    theirs = sd.sample_with(lesson.DDIMScheduler, "a duck", 3)
    sd.sample("a duck", num_sampling_steps=3)
    assert (sd.steps[-1].x_prev - theirs).abs().max() <= 1e-4


# --- Frames


def test_frames_of_every_step(sd, tmp_path):
    [image] = sd.sample(
        "a duck", num_sampling_steps=7, save_dir=tmp_path, save_x_t=True, save_x_0=True
    )
    names = [f"{i:03d}_t{t:04d}.png" for i, t in enumerate([*(step.t for step in sd.steps), 0])]
    for series in ("x_t", "x_0"):
        assert sorted(path.name for path in (tmp_path / series).iterdir()) == names
        last = Image.open(tmp_path / series / names[-1])
        assert np.abs(np.int16(last) - np.int16(image)).max() <= 1
    first = Image.open(tmp_path / "x_t" / names[0])
    decoded = sd.decode_latents(sd.steps[0].x_t)
    assert (
        np.abs(
            np.asarray(first) / 127.5 - 1 - decoded[0].clamp(-1, 1).permute(1, 2, 0).cpu().numpy()
        ).max()
        < 0.01
    )

    sd.sample("a duck", num_sampling_steps=2, save_dir=tmp_path, save_x_t=True)
    assert len(video.read_frames(tmp_path / "x_t")) == 3  # those of the longer run are gone
    assert len(video.read_frames(tmp_path / "x_0")) == 8  # not asked for: as they were


def test_frames_of_a_batch_stand_side_by_side(sd, tmp_path):
    images = sd.sample(
        PROMPTS, seed=[1, 2], num_sampling_steps=2, save_dir=tmp_path, save_x_0=True, width=96
    )
    [*_, last] = video.read_frames(tmp_path / "x_0")
    assert last.image.height == 64 and last.image.width >= 2 * 96
    assert np.abs(np.int16(last.image)[:, :96] - np.int16(images[0])).max() <= 1
    assert np.abs(np.int16(last.image)[:, -96:] - np.int16(images[1])).max() <= 1


# --- The look inside


def test_the_recorder_changes_nothing_and_records_all(lesson, sd):
    processors = sd.unet.attn_processors
    sd.sample("a duck", height=64, width=96)
    expected = sd.steps[-1].x_prev
    calls = sum("attn2" in name for name in processors) * len(sd.steps)
    with diffusion.record_attention(sd.unet, lesson.attention) as recorder:
        sd.sample("a duck", height=64, width=96)
    assert sd.unet.attn_processors == processors
    assert (sd.steps[-1].x_prev - expected).abs().max() <= 1e-4
    for pixels, seen in recorder.maps.items():
        assert seen.shape == (1, pixels, 77)
    total = sum(seen.mean(1).sum() for seen in recorder.maps.values())
    assert total == pytest.approx(calls, rel=1e-4)  # each pixel shares out an attention of 1


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 5), (6, 10), (1, 3)])
def test_maps_of_all_layers_find_their_shape(lesson, height, width):
    recorder = diffusion.AttentionRecorder()
    sizes = [(-(-height // 2**i), -(-width // 2**i)) for i in range(3)]
    for rows, columns in sizes:
        seen = torch.zeros(2, rows, columns, 7)
        seen[:, 0, -1, 3] = 1  # one token, at the top right
        recorder.maps[rows * columns] = recorder.maps.get(rows * columns, 0) + seen.flatten(1, 2)
    maps = diffusion.token_maps(recorder, height, width)
    assert maps.shape == (2, 7, height, width)
    assert maps[0, 3].flatten().argmax() == width - 1


def test_words_come_with_the_indices_of_their_tokens(lesson, sd):
    assert diffusion.word_token_indices(sd.tokenizer, "a red duck", 77) == [
        ("a", [1]),
        ("red", [2, 3, 4]),
        ("duck", [5, 6, 7, 8]),
    ]
    assert diffusion.word_token_indices(sd.tokenizer, "", 77) == []
    long = diffusion.word_token_indices(sd.tokenizer, "duck " * 40, 77)
    assert long[-1][1][-1] == sd.model.text_length - 2


# --- What it refuses


def test_invalid_requests_are_refused(sd):
    for wrong, message in [
        ({"num_sampling_steps": 0}, "from 1 to 999, got 0"),
        ({"num_sampling_steps": -1}, "from 1 to 999, got -1"),
        ({"num_sampling_steps": 2.5}, "from 1 to 999, got 2.5"),
        ({"num_sampling_steps": 1001}, "from 1 to 999, got 1001"),
        ({"height": 60}, "height must be a multiple of 8 .* got 60. The nearest is 64"),
        ({"width": 0}, "width must be a whole number of at least 8, got 0"),
        ({"negative_prompts": ["a tree", "a car"]}, "1 prompts and 2 negative prompts"),
        ({"seed": [1, 2]}, "2 seeds for 1 prompts"),
        ({"save_x_t": True}, "save_dir"),
    ]:
        with pytest.raises(RequestError, match=message):
            sd.sample("a duck", **wrong)
    with pytest.raises(RequestError, match="no prompt"):
        sd.sample([])
    for wrong in (7, ["a duck", 7]):
        with pytest.raises(RequestError, match="must be text, got 7"):
            sd.sample(wrong)


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    "eta", [1.5, 2, NAN, -1, INFINITY, -0.001, "1", None, True, np.float32(1.1), [0.5]]
)
def test_eta_outside_its_range_is_refused(sd, eta):
    with pytest.raises(RequestError, match="^eta must be a (finite )?number from 0 to 1, got"):
        sd.sample("a duck", eta=eta)


@pytest.mark.parametrize(
    "eta", [0, 1, 0.5, np.float32(0.5), np.float64(1), torch.tensor(0.25), np.array(0.5)]
)
def test_any_number_in_its_range_is_an_eta(sd, eta):
    sd.sample("a duck", eta=eta)
    latents = sd.steps[-1].x_prev
    sd.sample("a duck", eta=float(eta))
    assert torch.equal(sd.steps[-1].x_prev, latents)


@pytest.mark.parametrize("scale", [NAN, INFINITY, -INFINITY, "7", None, True, np.float64("nan")])
def test_a_guidance_scale_that_is_no_finite_number_is_refused(sd, scale):
    with pytest.raises(RequestError, match="^guidance_scale must be a (finite )?number, got"):
        sd.sample("a duck", guidance_scale=scale)


@pytest.mark.parametrize("number", [np.int64, np.int32, np.uint8, np.array, torch.tensor, np.intp])
def test_whatever_behaves_like_an_integer_is_one(sd, number):
    """Height, width, number of steps and seed."""
    settings = {"height": 72, "width": 40, "num_sampling_steps": 2, "seed": 3}
    [plain] = sd.sample("a duck", **settings)
    [image] = sd.sample("a duck", **{name: number(value) for name, value in settings.items()})
    assert np.array_equal(plain, image)


@pytest.mark.parametrize(
    "seeds",
    [(7, 8), range(7, 9), np.array([7, 8]), torch.tensor([7, 8]), [np.int64(7), torch.tensor(8)]],
    ids=repr,
)
def test_seeds_come_in_any_sequence(sd, seeds):
    plain, images = sd.sample(PROMPTS, seed=[7, 8]), sd.sample(PROMPTS, seed=seeds)
    assert np.array_equal(plain, images)


@pytest.mark.parametrize(
    "seed", [True, 1.5, "1", None, -1, 2**63, np.float64(1), [1.5], [None], ["1"]]
)
def test_invalid_seeds_are_refused(sd, seed):
    with pytest.raises(RequestError, match="^seed must be a whole number from 0 to .*, got"):
        sd.sample("a duck", seed=seed)


def test_frames_are_saved_for_a_numpy_boolean(sd, tmp_path):
    sd.sample("a duck", save_dir=tmp_path, save_x_t=np.True_, save_x_0=np.False_)
    assert [path.name for path in tmp_path.iterdir()] == ["x_t"]


# --- Numbers that are not finite


@pytest.mark.parametrize("value", [NAN, INFINITY])
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_are_not_finite_are_an_error(sd, part, value):
    """In the denoiser and the text encoder after the first step, in the decoder when it decodes."""
    network = copy.deepcopy(getattr(sd, part))
    weights = [
        weight
        for name, weight in network.named_parameters()
        if "encoder." not in name or part != "vae"
    ]
    with torch.no_grad():
        weights[-1].view(-1)[0] = value
    message = r"^The latents after step 1 of 3 \(t = 667\) must be finite, but .* download or save"
    if part == "vae":
        message = "^The image has NaN or infinite values"
    with pytest.raises(CourseError, match=message):
        changed(sd, **{part: network}).sample("a duck")


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("place", [1, 2, 5])
def test_the_step_that_is_not_finite_is_named(sd, place, value):
    """And nothing is done after it."""
    network, seen = Gaussian(sd.scheduler), []

    def broken(x, t, **_):
        seen.append(t)
        output = network(x, t).sample
        output[0, 0, 0, 0] = value if len(seen) == place else 0.0
        return SimpleNamespace(sample=output)

    broken.dtype, broken.config = network.dtype, network.config
    with pytest.raises(CourseError, match=rf"after step {place} of 5 \(t = .*but 1 of 256 values"):
        changed(sd, unet=broken).sample("a duck", num_sampling_steps=5)
    assert len(seen) == place
    seen.clear()
    with pytest.raises(CourseError, match="after the step at t = .*but 1 of 256 values"):
        changed(sd, unet=broken).sample_with(diffusers.UniPCMultistepScheduler, "a duck", 5)


def test_a_guidance_scale_that_overflows_is_an_error(sd):
    with pytest.raises(
        CourseError, match="after step 1 of 3 .* lower settings such as guidance_scale"
    ):
        sd.sample("a duck", guidance_scale=1e38)


# --- What it takes


def test_valid_requests(sd):
    [empty] = sd.sample("")
    assert empty.size == (64, 64)
    many = sd.sample(["a duck", "a car", ""], "a tree", height=72, width=40)
    assert [image.size for image in many] == [(40, 72)] * 3
    with pytest.warns(match="Cut from its end"):
        sd.sample("duck " * 100, num_sampling_steps=1)


def test_the_signature_of_the_assignment(lesson):
    names = list(inspect.signature(lesson.StableDiffusion.sample).parameters)
    assert names[1:8] == [
        "prompts",
        "negative_prompts",
        "num_sampling_steps",
        "guidance_scale",
        "save_dir",
        "save_x_t",
        "save_x_0",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_runs_on_a_model_from_a_folder(kind, tiny_folder, v_folder, tmp_path):
    folder = {"epsilon": tiny_folder, "v_prediction": v_folder}[kind]
    done = notebooks.execute(
        notebooks.read(PATH), {"STEPS": 2, "OUTPUTS": str(tmp_path)}, {"COURSE_MODEL": str(folder)}
    )
    text = "".join(o.get("text", "") for cell in done.cells for o in cell.get("outputs", []))
    assert text.count("✓") == 17
    assert re.search(r"the same \w+: True", text)
    assert len(video.read_frames(tmp_path / "x_t")) == 3
    assert len(video.read_frames(tmp_path / "own" / "x_0")) == 11
    assert {path.name for path in tmp_path.rglob("*.mp4")} == {"sampling.mp4"}
