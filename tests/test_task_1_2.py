"""Lesson 1.2: its own loop against diffusers' pipeline, its frames, its look inside, and what it refuses."""

import ast
import inspect
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image

from course import notebooks, video
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
    settings = {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "set_alpha_to_one": True}
    return with_settings(tiny_folder, target, **settings)


@pytest.fixture(scope="module")
def sds(lesson, tiny_folder, v_folder):
    """The lesson's class on a model that predicts the noise, and on one that predicts v."""
    folders = {"epsilon": tiny_folder, "v_prediction": v_folder}
    made = {kind: lesson.StableDiffusion(find_model(folder)) for kind, folder in folders.items()}
    assert {kind: sd.model.prediction_type for kind, sd in made.items()} == {kind: kind for kind in made}
    return made


@pytest.fixture
def sd(sds):
    return sds["epsilon"]


# --- The loop


@pytest.mark.parametrize("settings", [
    {"timestep_spacing": "trailing"}, {"timestep_spacing": "linspace"}, {"timestep_spacing": "leading"},
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing", "num_train_timesteps": 100},
], ids=str)  # fmt: skip
def test_timesteps_are_those_of_the_models_scheduler(lesson, settings):
    scheduler = DDIMScheduler(**settings)
    levels = scheduler.config.num_train_timesteps
    for count in range(1, levels + 1):
        scheduler.set_timesteps(count)
        assert lesson.timesteps(scheduler.config, count) == scheduler.timesteps.tolist(), count


@pytest.mark.parametrize("count", [2, 3])  # 3 does not divide the 1,000 levels
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_loop_is_that_of_the_pipeline(sds, kind, eta, count):
    sd, seeds = sds[kind], [3, 4]
    scheduler = DDIMScheduler.from_pretrained(sd.model.folder, subfolder="scheduler")
    pipe = StableDiffusionPipeline.from_pretrained(sd.model.folder, scheduler=scheduler).to(sd.model.device)
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        PROMPTS, negative_prompt=NEGATIVES, num_inference_steps=count, guidance_scale=GUIDANCE, eta=eta,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds], output_type="latent",
    ).images  # fmt: skip
    sd.sample(PROMPTS, NEGATIVES, count, GUIDANCE, seed=seeds, eta=eta)
    assert (sd.steps[-1].x_prev - expected).abs().max() <= 1e-4
    assert [step.t for step in sd.steps] == pipe.scheduler.timesteps.tolist()


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
        if isinstance(node, ast.FunctionDef) and re.search(r"\.step\(|set_timesteps", ast.unparse(node))
    }
    assert users == {"sample_with"}


def test_another_kind_of_prediction_is_refused(lesson):
    with pytest.raises(ValueError, match="'sample'"):
        lesson.predict(torch.ones(1), torch.ones(1), torch.tensor(0.5), "sample")


def test_a_picture_of_a_batch_is_the_one_made_alone(sd):
    sd.sample(PROMPTS, NEGATIVES, 3, seed=[7, 8], eta=0.5)
    both = sd.steps[-1].x_prev
    sd.sample(PROMPTS[1], NEGATIVES[1], 3, seed=8, eta=0.5)
    assert torch.allclose(sd.steps[-1].x_prev[0], both[1], atol=1e-4)


def test_one_seed_gives_one_picture_and_one_noise_to_all(sd):
    first, second = sd.sample(["a duck", "a duck"], seed=5)
    [again] = sd.sample("a duck", seed=5)
    assert np.array_equal(first, second) and np.abs(np.int16(first) - np.int16(again)).max() <= 1
    [other] = sd.sample("a duck", seed=6)
    assert not np.array_equal(other, again)


@pytest.mark.parametrize("kind", ["DDPMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_other_samplers_reach_the_end(sds, lesson, kind):
    for sd in sds.values():
        latents = sd.sample_with(getattr(lesson, kind), "a duck", 4)
        assert latents.shape == (1, 4, 8, 8) and latents.isfinite().all()
        assert torch.equal(latents, sd.sample_with(getattr(lesson, kind), "a duck", 4))


def test_sampling_with_diffusers_own_ddim_in_their_place_is_the_loop(sd, lesson):
    """So the comparison differs from the lesson's loop in the sampler alone."""
    theirs = sd.sample_with(lesson.DDIMScheduler, "a duck", 3)
    sd.sample("a duck", num_sampling_steps=3)
    assert (sd.steps[-1].x_prev - theirs).abs().max() <= 1e-4


# --- Frames


def test_frames_of_every_step(sd, tmp_path):
    [picture] = sd.sample("a duck", num_sampling_steps=7, save_dir=tmp_path, save_x_t=True, save_x_0=True)
    names = [f"{i:03d}_t{t:04d}.png" for i, t in enumerate([*(step.t for step in sd.steps), 0])]
    for series in ("x_t", "x_0"):
        assert sorted(path.name for path in (tmp_path / series).iterdir()) == names
        last = Image.open(tmp_path / series / names[-1])
        assert np.abs(np.int16(last) - np.int16(picture)).max() <= 1
    first = Image.open(tmp_path / "x_t" / names[0])
    decoded = sd.decode_latents(sd.steps[0].x_t)
    assert np.abs(np.asarray(first) / 127.5 - 1 - decoded[0].clamp(-1, 1).permute(1, 2, 0).cpu().numpy()).max() < 0.01

    sd.sample("a duck", num_sampling_steps=2, save_dir=tmp_path, save_x_t=True)
    assert len(video.read_frames(tmp_path / "x_t")) == 3  # those of the longer run are gone
    assert len(video.read_frames(tmp_path / "x_0")) == 8  # not asked for: as they were


def test_frames_of_a_batch_stand_side_by_side(sd, tmp_path):
    pictures = sd.sample(PROMPTS, seed=[1, 2], num_sampling_steps=2, save_dir=tmp_path, save_x_0=True, width=96)
    [*_, last] = video.read_frames(tmp_path / "x_0")
    assert last.picture.height == 64 and last.picture.width >= 2 * 96
    assert np.abs(np.int16(last.picture)[:, :96] - np.int16(pictures[0])).max() <= 1
    assert np.abs(np.int16(last.picture)[:, -96:] - np.int16(pictures[1])).max() <= 1


def test_key_steps(lesson):
    assert lesson.key_steps("x_t", 25) == [0, 17, 25]
    assert lesson.key_steps("x_0", 25) == [0, 1, 2, 4, 8, 16, 25]
    for last in (1, 2, 3, 1000):
        for name in ("x_t", "x_0"):
            keys = lesson.key_steps(name, last)
            assert keys[0] == 0 and keys[-1] == last and len(keys) <= 13


def test_colours_between_the_keys_are_exact_for_a_linear_decoder(lesson, sd):
    """Latents of one colour each, which a matrix turns into pixels: nothing is lost between the keys."""

    class Linear(lesson.StableDiffusion):
        def decode_latents(self, latents):
            colors = torch.einsum("bchw,cn->bnhw", latents, matrix) + 0.1
            return torch.nn.functional.interpolate(colors, scale_factor=8, mode="bicubic")

    generator = torch.Generator().manual_seed(0)
    matrix = 0.1 * torch.randn((4, 3), generator=generator)
    series = torch.randn((10, 4, 1, 1), generator=generator).expand(-1, -1, 8, 12)
    linear = Linear(sd.model)
    wanted = linear.decode_latents(series)
    found = torch.stack(list(linear.decode_series(series, [0, 1, 2, 4, 6, 9], wanted[-1])))
    assert (found - wanted).abs().max() < 1e-3
    assert found.std(0).mean() > 0.01  # they differ, and not by fading alone:
    assert (found[5] - (found[4] + found[6]) / 2).abs().max() > 0.01


@pytest.mark.slow
def test_frames_between_the_keys_are_close_to_the_decoder(lesson):
    sd = lesson.StableDiffusion(find_model("pocket"))
    sd.sample("a hamburger", num_sampling_steps=10)
    for name in ("x_t", "x_0"):
        series = torch.stack([*(getattr(step, name)[0] for step in sd.steps), sd.steps[-1].x_prev[0]])
        keys = lesson.key_steps(name, 10)
        exact = torch.cat([sd.decode_latents(latents[None]) for latents in series]).clamp(-1, 1)
        filled = torch.stack(list(sd.decode_series(series, keys, exact[-1]))).clamp(-1, 1)
        errors = ((filled - exact) / 2).square().mean((1, 2, 3))
        assert errors[keys].max() < 1e-8
        assert errors.max() < 10**-2.2  # 22 dB, and most of them far better
        assert errors.median() < 10**-3.0


# --- The look inside


def test_the_listener_changes_nothing_and_hears_all(lesson, sd):
    usual, listener = sd.unet.attn_processors, lesson.Listener()
    sd.sample("a duck", height=64, width=96)
    expected = sd.steps[-1].x_prev
    calls = sum("attn2" in name for name in usual) * len(sd.steps)
    sd.unet.set_attn_processor({name: listener if "attn2" in name else own for name, own in usual.items()})
    try:
        sd.sample("a duck", height=64, width=96)
    finally:
        sd.unet.set_attn_processor(usual)
    assert (sd.steps[-1].x_prev - expected).abs().max() <= 1e-4
    for pixels, seen in listener.maps.items():
        assert seen.shape == (1, pixels, 77)
    total = sum(seen.mean(1).sum() for seen in listener.maps.values())
    assert total == pytest.approx(calls, rel=1e-4)  # each pixel shares out an attention of 1


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 5), (6, 10), (1, 3)])
def test_maps_of_all_layers_find_their_shape(lesson, height, width):
    listener = lesson.Listener()
    sizes = [(-(-height // 2**i), -(-width // 2**i)) for i in range(3)]
    for rows, columns in sizes:
        seen = torch.zeros(2, rows, columns, 7)
        seen[:, 0, -1, 3] = 1  # one token, at the top right
        listener.maps[rows * columns] = listener.maps.get(rows * columns, 0) + seen.flatten(1, 2)
    maps = lesson.token_maps(listener, height, width)
    assert maps.shape == (2, 7, height, width)
    assert maps[0, 3].flatten().argmax() == width - 1


def test_words_know_the_places_of_their_tokens(lesson, sd):
    assert lesson.places_of_words(sd, "a red duck") == [("a", [1]), ("red", [2, 3, 4]), ("duck", [5, 6, 7, 8])]
    assert lesson.places_of_words(sd, "") == []
    long = lesson.places_of_words(sd, "duck " * 40)
    assert long[-1][1][-1] == sd.model.text_length - 2


# --- What it refuses, and what it takes


def test_requests_that_cannot_be(sd):
    for wrong, message in [
        ({"num_sampling_steps": 0}, "0 sampling steps"),
        ({"num_sampling_steps": -1}, "-1 sampling steps"),
        ({"num_sampling_steps": 2.5}, "2.5 sampling steps"),
        ({"num_sampling_steps": 1001}, "from 1 to 999"),
        ({"height": 60}, "side of 60 pixels.*such as 64"),
        ({"width": 0}, "side of 0 pixels.*such as 8"),
        ({"negative_prompts": ["a tree", "a car"]}, "1 prompts and 2 negative prompts"),
        ({"seed": [1, 2]}, "2 seeds for 1 prompts"),
        ({"save_x_t": True}, "save_dir"),
    ]:
        with pytest.raises(RequestError, match=message):
            sd.sample("a duck", **wrong)
    with pytest.raises(RequestError, match="no prompt"):
        sd.sample([])
    for wrong in (7, ["a duck", 7]):
        with pytest.raises(RequestError, match="not 7"):
            sd.sample(wrong)


def test_requests_that_can_be(sd):
    [empty] = sd.sample("")
    assert empty.size == (64, 64)
    many = sd.sample(["a duck", "a car", ""], "a tree", height=72, width=40)
    assert [picture.size for picture in many] == [(40, 72)] * 3
    with pytest.warns(match="Cut from its end"):
        sd.sample("duck " * 100, num_sampling_steps=1)


def test_the_signature_of_the_assignment(lesson):
    names = list(inspect.signature(lesson.StableDiffusion.sample).parameters)
    assert names[1:8] == [
        "prompts", "negative_prompts", "num_sampling_steps", "guidance_scale", "save_dir", "save_x_t", "save_x_0",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_runs_on_a_model_from_a_folder(kind, tiny_folder, v_folder, tmp_path):
    folder = {"epsilon": tiny_folder, "v_prediction": v_folder}[kind]
    done = notebooks.execute(
        notebooks.read(PATH), {"STEPS": 2, "OUTPUTS": str(tmp_path)}, {"COURSE_MODEL": str(folder)}
    )
    text = "".join(o.get("text", "") for cell in done.cells for o in cell.get("outputs", []))
    assert text.count("✓") == 10
    assert "the same picture: True" in text
    assert len(video.read_frames(tmp_path / "x_t")) == 3
    assert {path.name for path in tmp_path.glob("sampling.*")} == {"sampling.mp4", "sampling.gif"}
