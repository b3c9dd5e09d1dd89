"""SDS of a single image: the result, the saved grid, and messages about the exercise."""

import itertools
import math
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from course.checks import CheckFailed
from course.models import find_model
from task_3_DreamFusion import sds_2d
from task_3_DreamFusion.nerf import guidance as guidance_module
from task_3_DreamFusion.nerf import sd
from task_3_DreamFusion.nerf.guidance import GuidanceOutput, StableDiffusion, check_exercise


def test_leaves_a_sheet_and_repeats_itself(tiny_folder, tmp_path, capsys):
    sheets = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        path = tmp_path / "new" / f"{name}.png"
        options = [
            "--text",
            "a car",
            "--model",
            str(tiny_folder),
            "--iters",
            "6",
            "--seed",
            seed,
            "--out",
            str(path),
        ]
        assert sds_2d.main(options) == 0
        out = capsys.readouterr().out
        assert out.count("✓") == 4 and out.splitlines()[-1] == str(path)
        sheets.append(np.asarray(Image.open(path)))
    assert sheets[0].shape[1] > 4 * 256 and sheets[0].shape[0] > 2 * 256
    assert np.array_equal(sheets[0], sheets[1]) and not np.array_equal(sheets[0], sheets[2])


def test_moments_end_with_the_last_step(tiny_folder):
    guidance = StableDiffusion(find_model(tiny_folder))
    for iters in (1, 3, 50):
        kept, step = sds_2d.optimize(guidance, guidance.plain_prompts("a car"), iters, 0.5, 0)
        done = [number for number, _ in kept]
        assert done[-1] == iters and done == sorted(set(done)) and len(done) <= sds_2d.NUM_SNAPSHOTS
        assert torch.isfinite(kept[-1][1]).all() and step.noise_rmse > 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--text", " "], "text must not be empty"),
        (["--iters", "0"], "--iters must be a whole number of at least 1, got 0"),
        (["--lr", "-1"], "--lr must be a number of at least 0, got -1"),
        (["--seed", "-1"], "--seed must be a whole number from 0"),
        (["--guidance_scale", "inf"], "guidance_scale must be a number"),
        (["--model", "no such model"], "no such model"),
        (["--out", "image.jpg"], "--out must end in .png"),
        (["--out", "/dev/null/a.png", "--iters", "1"], "--out /dev/null/a.png cannot be written"),
    ],
)
def test_what_cannot_be_done(tiny_folder, more, message, capsys):
    assert sds_2d.main(["--text", "a car", "--model", str(tiny_folder), *more]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


@pytest.mark.parametrize("t", [20, 137, 500, 619, 979])
@pytest.mark.parametrize("steps", [1, 3, 7, 10])
def test_x_0_in_several_steps_goes_from_each_level_to_the_next(tiny_folder, monkeypatch, t, steps):
    """Timesteps fall strictly; each step ends where the next begins, the last one at x_0."""
    guidance = StableDiffusion(find_model(tiny_folder))
    prompts, camera = guidance.plain_prompts("a car"), (torch.zeros(1), torch.zeros(1))
    calls, images = [], []

    def predict_noise(x, t, *_):
        calls.append((x, t))
        return 0.5 * x

    monkeypatch.setattr(guidance, "predict_noise", predict_noise)
    monkeypatch.setattr(
        guidance, "decode_latents", lambda latents: images.append(latents) or latents
    )
    noisy, level = (
        torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0)),
        torch.tensor([t]),
    )
    step = GuidanceOutput(torch.zeros(()), noisy, torch.zeros(()), level, noisy, noisy, 0.5 * noisy)
    guidance.preview(step, prompts, *camera, steps=steps)
    calls = [(noisy, level), *calls]
    levels = [int(level) for _, level in calls]
    assert levels[0] == t and len(levels) == steps and levels[-1] > 0
    assert levels == sorted(set(levels), reverse=True)
    x = noisy
    for (seen, level), (_, below) in itertools.pairwise([*calls, (None, None)]):
        assert torch.allclose(seen, x, atol=1e-5)
        a = guidance.alpha_bar(level)
        x_0 = (seen - (1 - a).sqrt() * 0.5 * seen) / a.sqrt()
        b = torch.ones(()) if below is None else guidance.alpha_bar(below)
        x = b.sqrt() * x_0 + (1 - b).sqrt() * 0.5 * seen
    assert torch.allclose(images[-1], x, atol=1e-5)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("unet", math.nan, "The latents after step 1 of 2"),
        ("unet", math.inf, "The latents after step 1 of 2"),
        ("text_encoder", math.nan, "The latents after step 1 of 2"),
        ("vae", math.nan, "The decoded images"),
        ("vae", math.inf, "The decoded images"),
    ],
)
def test_weights_that_are_not_finite_are_an_error(
    tiny_folder, tmp_path, monkeypatch, capsys, part, value, message
):
    load = guidance_module.load_pipeline

    def load_damaged(model, dtype):
        pipe = load(model, dtype=dtype)
        names = [
            name
            for name, _ in getattr(pipe, part).named_parameters()
            if not name.startswith("encoder")
        ]
        getattr(pipe, part).get_parameter(names[-1]).data.view(-1)[0] = value
        return pipe

    monkeypatch.setattr(guidance_module, "load_pipeline", load_damaged)
    monkeypatch.setattr(sds_2d, "check_exercise", lambda guidance: None)
    path = tmp_path / "sheet.png"
    assert (
        sds_2d.main(
            ["--text", "a car", "--model", str(tiny_folder), "--iters", "2", "--out", str(path)]
        )
        == 1
    )
    [*_, error] = capsys.readouterr().err.strip().splitlines()
    assert f"error: {message} must be finite, but" in error and "download or save it again" in error
    assert not path.exists()


@pytest.mark.parametrize("rate", ["1e38", "1e30", "3e37"])
def test_latents_that_overflow_are_an_error(tiny_folder, tmp_path, capsys, rate):
    options = ["--text", "a car", "--model", str(tiny_folder), "--iters", "9", "--lr", rate]
    assert sds_2d.main([*options, "--out", str(tmp_path / "sheet.png")]) == 1
    [*_, error] = capsys.readouterr().err.strip().splitlines()
    assert re.search(r"error: The latents after step \d of 9 must be finite", error)


# --- The exercise


def solved(*parts: int) -> ModuleType:
    """Return nerf/sd.py with the solutions of some of its parts; the others are removed."""
    source = Path(sd.__file__).read_text()
    count = iter(range(4))
    cut = lambda match: match[0] if next(count) in parts else ""
    source = re.sub(r" *### BEGIN SOLUTION.*?### END SOLUTION", cut, source, flags=re.DOTALL)
    assert next(count, None) is None
    module = ModuleType("student")
    exec(compile(source, "sd.py", "exec"), module.__dict__)
    return module


def test_the_exercise_has_the_number_and_the_text_of_the_assignment():
    source = Path(sd.__file__).read_text()
    assert source.count("### BEGIN SOLUTION") == source.count("### END SOLUTION") == 4
    assert re.findall(r"TODO 3 \((\w)\)", source) == ["a", "b", "c", "d"]
    assert (
        "TODO 3: fill in a function to compute the SDS loss, and generate 3D objects from text"
        in source
    )


@pytest.mark.parametrize(
    ("parts", "missing"),
    [
        ((), "embed_text"),
        ((0,), "sample_timesteps"),
        ((0, 1), "predict_noise"),
        ((0, 1, 2), "sds_step"),
        ((1, 2, 3), "embed_text"),
        ((0, 1, 2, 3), None),
    ],
)
def test_a_student_is_told_which_part_is_missing(tiny_folder, parts, missing, capsys, monkeypatch):
    student = solved(*parts)
    for name in ("embed_text", "sample_timesteps", "predict_noise", "sds_step"):
        monkeypatch.setattr(sd, name, getattr(student, name))
    guidance = StableDiffusion(find_model(tiny_folder))
    if missing is None:
        check_exercise(guidance)
        assert capsys.readouterr().out.count("✓") == 4
        return
    message = f"`{missing}` returns is still empty: write the lines of the TODO"
    with pytest.raises(CheckFailed, match=message):
        check_exercise(guidance)


# --- On the embedded model


@pytest.mark.slow
def test_the_image_is_what_the_text_says(tmp_path):
    """With the defaults; read by a judge that took no part."""
    from course.metrics import Judge

    defaults = sds_2d.parser().parse_args([])
    options = sds_2d.options(defaults.guidance_scale, defaults.weighting)
    guidance = StableDiffusion(find_model("pocket"), options)
    prompts = guidance.plain_prompts(defaults.text)
    kept, last = sds_2d.optimize(guidance, prompts, defaults.iters, defaults.lr, defaults.seed)
    images = sds_2d.decode(guidance, prompts, kept, last)
    reading = Judge()([images[len(kept) - 1]])[0]
    assert (defaults.text, reading["object"], reading["color"], reading["ground"]) == (
        "a red car on grass",
        "car",
        "red",
        "grass",
    )
