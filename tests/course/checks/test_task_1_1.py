"""The checks of lesson 1.1: right work passes, and each usual mistake gets its advice."""

import inspect

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from PIL import Image

from course.checks import CheckFailed
from course.checks import task_1_1 as checks
from tests.course.checks.helpers import (
    colored,
    right_noise,
)


def test_token(model, capsys):
    checks.token(None, model)
    checks.token("hf_secret", model)
    assert "secret" not in capsys.readouterr().out
    for wrong, advice in [(..., "still empty"), (7, "int"), ("my password", "starts with")]:
        with pytest.raises(CheckFailed, match=advice) as caught:
            checks.token(wrong, model)
        assert "password" not in str(caught.value)


def test_pipeline(pipe, model, capsys):
    checks.pipeline(pipe, pipe.scheduler, model)
    assert capsys.readouterr().out.startswith("✓")


def test_pipeline_mistakes(pipe, model):
    own = pipe.scheduler
    other = StableDiffusionPipeline.from_pretrained(model.folder)
    half = StableDiffusionPipeline.from_pretrained(
        model.folder, scheduler=own, dtype=torch.bfloat16
    )
    elsewhere = StableDiffusionPipeline.from_pretrained(model.folder, scheduler=own).to("meta")
    other_kind = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    for p, s, advice in [
        (..., ..., "`scheduler` is still empty"),
        (pipe, DDIMScheduler, "is the class DDIMScheduler itself; load it with"),
        (pipe, PNDMScheduler.from_config(own.config), "is a PNDMScheduler"),
        (pipe, DDIMScheduler(), "was trained with scaled_linear.*subfolder"),
        (..., own, "`pipe` is still empty"),
        (pipe.unet, own, "is a UNet2DConditionModel"),
        (
            other_kind,
            own,
            "is a StableDiffusionImg2ImgPipeline; it has to be a StableDiffusionPipeline",
        ),
        (other, own, "hand yours over with scheduler=scheduler"),
        (half, own, r"dtype=model\.dtype"),
        (elsewhere, own, r"is on meta.*\.to\(model\.device\)"),
    ]:
        with pytest.raises(CheckFailed, match=advice):
            checks.pipeline(p, s, model)


def test_noise_and_its_mistakes(model):
    checks.noise(right_noise(model), model)
    shared = torch.Generator("cpu").manual_seed(0)

    def double(seed):
        wide = torch.randn(
            (1, 4, 8, 8), generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float64
        )
        return wide.float().to(model.device)

    for wrong, advice in [
        (lambda seed: None, "returns None: is a `return` missing"),
        (lambda seed: [0.0], "is a list"),
        (lambda seed: torch.randn(1, 3, 64, 64), r"shape \(1, 3, 64, 64\).*\(1, 4, 8, 8\)"),
        (
            lambda seed: torch.randn((1, 4, 8, 8), generator=shared),
            "same seed gave different noise",
        ),
        (lambda seed: torch.zeros(1, 4, 8, 8), "Two seeds gave the same"),
        (lambda seed: right_noise(model)(seed).half(), r"or end with \.to"),
        (double, "draw first"),
    ]:
        with pytest.raises(CheckFailed, match=advice):
            checks.noise(wrong, model)


def right_generate(pipe, model):
    """What the lesson asks for; the tests hand on less of it."""

    def generate(prompt, negative_prompt="", seed=0, steps=2, guidance_scale=5.0):
        return pipe(
            prompt,
            negative_prompt=negative_prompt,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            latents=right_noise(model)(seed),
        ).images[0]

    return generate


def forgetting(generate, **kept):
    """`generate`, deaf to some of its arguments."""

    def forgetful(prompt, negative_prompt="", seed=0, steps=2, guidance_scale=5.0):
        arguments = locals() | kept
        return generate(
            **{name: arguments[name] for name in inspect.signature(generate).parameters}
        )

    return forgetful


def test_generate(pipe, model, capsys):
    checks.generate(right_generate(pipe, model), "a duck", model)
    assert capsys.readouterr().out.startswith("✓")


def test_generate_mistakes(pipe, model):
    right = right_generate(pipe, model)
    black = Image.new("RGB", (64, 64))

    def unseeded(prompt, negative_prompt="", seed=0, steps=2, guidance_scale=5.0):
        return pipe(prompt, num_inference_steps=steps).images[0]

    for wrong, advice in [
        (lambda prompt, **_: None, "lost its argument"),
        (
            lambda prompt, negative_prompt, seed, steps, guidance_scale: None,
            "returns None: is a `return` missing",
        ),
        (
            lambda prompt, negative_prompt, seed, steps, guidance_scale: [black],
            r"result\.images\[0\]",
        ),
        (
            lambda prompt, negative_prompt, seed, steps, guidance_scale: black.resize((8, 8)),
            "makes",
        ),
        (lambda prompt, negative_prompt, seed, steps, guidance_scale: black, "all black"),
        (unseeded, r"latents=starting_noise\(seed\)"),
        (forgetting(right, seed=1), "change with seed"),
        (forgetting(right, steps=2), "change with steps"),
        (forgetting(right, guidance_scale=5.0), "change with guidance_scale"),
        (forgetting(right, negative_prompt=""), "change with negative_prompt"),
        (forgetting(right, prompt="a duck"), "change with prompt"),
    ]:
        with pytest.raises(CheckFailed, match=advice):
            checks.generate(wrong, "a duck", model)


def test_series_of_one_setting_and_of_two(capsys):
    checks.series(colored, [colored("a", steps=n) for n in (1, 5)], prompt="a", steps=[1, 5])
    crossed = [colored(p, seed=s) for p in ("a", "bb") for s in (1, 2, 3)]
    checks.series(colored, crossed, prompt=["a", "bb"], seed=[1, 2, 3])
    assert "6 images that differ in prompt and seed only" in capsys.readouterr().out


def test_series_mistakes():
    right = [colored("a", steps=n) for n in (1, 5, 9)]
    for wrong, advice in [
        (..., "still empty"),
        (right[0], "has to be a list"),
        (right[:2], "2 images for 3 settings"),
        ([*right[:2], None], "Entry 2 of the list is a NoneType"),
        ([right[0], right[0], right[2]], "Images 0, 1 are the same: does steps reach"),
        (right[::-1], "take the values in their order"),
        ([colored("a", seed=i, steps=n) for i, n in enumerate((2, 5, 9))], "keep everything else"),
    ]:
        with pytest.raises(CheckFailed, match=advice):
            checks.series(colored, wrong, prompt="a", steps=[1, 5, 9])


def test_series_with_rows_and_columns_exchanged():
    exchanged = [colored(p, seed=s) for s in (1, 2, 3) for p in ("a", "bb")]
    with pytest.raises(CheckFailed, match="prompt = 'a', seed = 2.*all of seed for each of prompt"):
        checks.series(colored, exchanged, prompt=["a", "bb"], seed=[1, 2, 3])
