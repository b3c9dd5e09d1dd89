"""The checks of lesson 1.1: right work passes, and each usual mistake gets its advice."""

import inspect

import numpy as np
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
from course.models import find_model
from tests.course.checks.helpers import right_noise


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

    def generator(seed):
        return torch.Generator("cpu").manual_seed(seed)

    def seeded_globally(seed):
        torch.manual_seed(seed)
        return torch.randn(1, 4, 8, 8)

    def in_two_lines(seed):
        noise = torch.empty(1, 4, 8, 8).normal_(generator=generator(seed))
        return noise.to(model.dtype).to(model.device)

    checks.noise(in_two_lines, model)

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
        (double, "generate first"),
        (seeded_globally, "global generator was used"),
        (lambda seed: torch.rand(1, 4, 8, 8, generator=generator(seed)), "not that of torch.randn"),
        (lambda seed: right_noise(model)(seed)[0], r"shape \(4, 8, 8\)"),
        (lambda seed: 2 * right_noise(model)(seed), "not that of torch.randn"),
        (lambda seed: right_noise(model)(seed) / 0, "is not finite"),
        (lambda: right_noise(model)(1), "A call does not fit"),
        (lambda seed: torch.randn(1, 4, 8, 8, generator=seed), "Your code raised"),
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


def test_generate_in_other_words(pipe, model):
    right = right_generate(pipe, model)

    def with_keywords(*, prompt, negative_prompt, seed, steps, guidance_scale):
        return right(prompt, negative_prompt, seed, steps, guidance_scale)

    def from_dictionary(prompt, negative_prompt="", seed=0, steps=2, guidance_scale=5.0):
        settings = {"num_inference_steps": steps, "guidance_scale": guidance_scale}
        noise = right_noise(model)(seed)
        result = pipe([prompt], negative_prompt=[negative_prompt], latents=noise, **settings)
        [image] = result.images
        return image

    for function in (with_keywords, from_dictionary):
        checks.generate(function, "a duck", model)


SCALES, COUNTS, SEEDS = [1.0, 5.0, 9.0], [1, 5, 9], [1, 2, 3]
PROMPTS = ["a", "bb"]
SERIES = {
    "d": lambda images: checks.guidance_series(colored, images, "a", SCALES),
    "e": lambda images: checks.steps_series(colored, images, "a", COUNTS),
    "f": lambda images: checks.crossed_series(colored, images, PROMPTS, SEEDS),
    "g": lambda images: checks.negative_series(colored, images, "a", SEEDS, "ccc"),
}


def colored(prompt, seed=0, steps=0, guidance_scale=0.0, negative_prompt=""):
    """A stand-in for `generate`: one color for each setting."""
    color = len(prompt) * 20 + len(negative_prompt) * 7, seed * 10, steps * 10 + guidance_scale * 3
    return Image.fromarray(np.full((8, 8, 3), color, np.uint8))


def right_series(letter):
    return {
        "d": [colored("a", guidance_scale=w) for w in SCALES],
        "e": [colored("a", steps=n) for n in COUNTS],
        "f": [colored(p, seed=s) for p in PROMPTS for s in SEEDS],
        "g": [colored("a", seed=s, negative_prompt="ccc") for s in SEEDS],
    }[letter]


@pytest.mark.parametrize(
    ("letter", "message"),
    [
        ("d", "3 images that differ only in the guidance scale"),
        ("e", "3 images that differ only in the number of steps"),
        ("f", "6 images: for each prompt one for each seed"),
        ("g", "3 images, one for each seed, each with the negative prompt 'ccc'"),
    ],
)
def test_series_are_right(letter, message, capsys):
    SERIES[letter](right_series(letter))
    assert message in capsys.readouterr().out


@pytest.mark.parametrize("letter", SERIES)
def test_mistakes_in_every_series(letter):
    right = right_series(letter)
    for wrong, advice in [
        (..., "still empty"),
        (right[0], "has to be a list"),
        (tuple(right), "has to be a list"),
        (right[:-1], f"{len(right) - 1} images for {len(right)} settings"),
        ([right], "Entry 0 of the list is a list"),
        ([*right[:-1], None], f"Entry {len(right) - 1} of the list is a NoneType"),
        ([right[0], right[0], *right[2:]], "Images 0, 1 are the same: does"),
        (right[::-1], "keep the order of the values"),
        ([*right[:-2], right[-1], right[-2]], "keep the order of the values"),
        ([*right[:-1], colored("zzzz", seed=9)], f"Image {len(right) - 1} .* Change only"),
        ([right[0], colored("zzzz", seed=9), *right[2:]], "Image 1 .* keep everything else"),
    ]:
        with pytest.raises(CheckFailed, match=advice):
            SERIES[letter](wrong)


def test_mistakes_of_one_series():
    exchanged = [colored(p, seed=s) for s in SEEDS for p in PROMPTS]
    for letter, wrong, advice in [
        (
            "d",
            [colored("a", seed=i, guidance_scale=w) for i, w in enumerate(SCALES)],
            "Change only",
        ),
        ("e", [colored("bb", steps=n) for n in COUNTS], "Change only steps"),
        ("f", exchanged, "all of seed for each of prompt"),
        ("f", [exchanged[:2], exchanged[2:]], "Entry 0 of the list is a list"),
        ("g", [colored("a", seed=s) for s in SEEDS], "without a negative prompt"),
        ("g", [colored("a ccc", seed=s) for s in SEEDS], "negative_prompt = 'ccc'"),
        ("g", [colored("ccc", seed=s, negative_prompt="a") for s in SEEDS], "Change only seed"),
    ]:
        with pytest.raises(CheckFailed, match=advice):
            SERIES[letter](wrong)


def angle_between(a, b):
    return ((a * b).sum() / (a.norm() * b.norm())).acos()


def test_interpolation_and_its_mistakes(capsys):
    def walk(weight, angle=angle_between, divide=torch.sin):
        def slerp(a, b, u):
            theta = angle(a, b)
            return (weight((1 - u) * theta) * a + weight(u * theta) * b) / divide(theta)

        return slerp

    right = walk(torch.sin)
    checks.interpolation(right)
    assert "halfway the standard deviation is 1.0" in capsys.readouterr().out

    def with_unit_vectors(a, b, u):
        a_unit, b_unit = a / a.norm(), b / b.norm()
        angle = torch.arccos((a_unit.flatten() @ b_unit.flatten()).clamp(-1, 1))
        one, two = torch.sin((1 - u) * angle), torch.sin(angle * u)
        return a * (one / torch.sin(angle)) + b * (two / torch.sin(angle))

    checks.interpolation(with_unit_vectors)
    for wrong, advice in [
        (lambda a, b, u: None, "returns None: is a `return` missing"),
        (lambda a, b, u: ..., "still empty"),
        (torch.lerp, "straight line between both"),
        (lambda a, b, u: u * a + (1 - u) * b, "not the formula"),
        (lambda a, b, u: right(b, a, u), "weights are exchanged"),
        (walk(torch.sin, divide=lambda x: 1), "Divide by the sine"),
        (walk(torch.sin, lambda a, b: angle_between(a, b).cos()), "missing its arccosine"),
        (walk(torch.sin, lambda a, b: (a * b).sum().acos()), "is not finite"),
        (walk(torch.sin, lambda a, b: (a * b).sum().clamp(-1, 1).acos()), "is not finite"),
        (walk(torch.cos), "weights are cosines"),
        (walk(torch.sin, divide=torch.cos), "not the formula"),
        (lambda a, b, u: right(a, b, 0.25), "At 0 the result has to be `a`"),
        (lambda a, b, u: right(a, b, u).flatten(), r"has the shape \(4096,\)"),
        (lambda a, b, u: right(a, b), "A call does not fit"),
        (walk(torch.sin, lambda a, b: (a @ b).sum().acos()), "is not finite"),
    ]:
        with pytest.raises(CheckFailed, match=advice):
            checks.interpolation(wrong)


def test_the_budget_and_its_mistakes(model):
    """A model that is not pocket is not judged."""
    arguments = "a red car on grass", [1, 2], model
    checks.budget(colored, {"steps": 4}, *arguments)
    checks.budget(colored, {"steps": 4, "guidance_scale": 3.0, "negative_prompt": "x"}, *arguments)
    for wrong, advice in [
        (..., "still empty"),
        (None, "is None"),
        (4, "has to be a dictionary"),
        ({"guidance_scale": 3.0}, "give `steps`"),
        ({"steps": 4, "seed": 7}, "has the keys"),
        ({"steps": "4"}, "Your code raised"),
    ]:
        with pytest.raises(CheckFailed, match=advice):
            checks.budget(colored, wrong, *arguments)


def test_the_budget_by_the_judge(monkeypatch):
    """On pocket: what the judge sees decides, and the number of steps."""
    seen = {"object": "car", "color": "red", "ground": "grass"}

    class Judge:
        def __call__(self, images):
            return [seen for _ in images]

    monkeypatch.setattr("course.metrics.judge.Judge", Judge)
    arguments = "a red car on grass", [1, 2], find_model("pocket")
    checks.budget(colored, {"steps": 4}, *arguments)
    with pytest.raises(CheckFailed, match="9 steps are more than 8"):
        checks.budget(colored, {"steps": 9}, *arguments)
    seen["color"] = "blue"
    with pytest.raises(CheckFailed, match="4 of 6 attributes at 4 steps; 90% are needed"):
        checks.budget(colored, {"steps": 4}, *arguments)
