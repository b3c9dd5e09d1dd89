"""The self-checks: right work passes, and each usual mistake is told apart by its advice."""

import copy
import inspect
import math
import re
from inspect import isfunction
from types import FunctionType, MethodType, SimpleNamespace

import nbformat
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

from course import checks, notebooks
from course.checks import CheckFailed, common
from course.checks.common import call
from course.images import load_image, video
from course.models import Model, ModelError, find_model, load_pipeline
from course.models.controlnet import load_controlnet


@pytest.fixture(scope="module")
def model(tiny_folder) -> Model:
    return find_model(tiny_folder)


@pytest.fixture(scope="module")
def pipe(model):
    scheduler = DDIMScheduler.from_pretrained(model.folder, subfolder="scheduler")
    pipe = StableDiffusionPipeline.from_pretrained(model.folder, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(model.device)


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
        (pipe, DDIMScheduler, "class itself"),
        (pipe, PNDMScheduler.from_config(own.config), "is a PNDMScheduler"),
        (pipe, DDIMScheduler(), "was trained with scaled_linear.*subfolder"),
        (..., own, "`pipe` is still empty"),
        (pipe.unet, own, "is a UNet2DConditionModel"),
        (other_kind, own, "is a StableDiffusionImg2ImgPipeline, no StableDiffusionPipeline"),
        (other, own, "hand yours over with scheduler=scheduler"),
        (half, own, r"dtype=model\.dtype"),
        (elsewhere, own, r"is on meta.*\.to\(model\.device\)"),
    ]:
        with pytest.raises(CheckFailed, match=advice):
            checks.pipeline(p, s, model)


def right_noise(model):
    def starting_noise(seed):
        return torch.randn((1, 4, 8, 8), generator=torch.Generator("cpu").manual_seed(seed)).to(
            model.device
        )

    return starting_noise


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
        (lambda seed: right_noise(model)(seed).half(), r"end with \.to"),
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
            "draws",
        ),
        (lambda prompt, negative_prompt, seed, steps, guidance_scale: black, "all black"),
        (unseeded, r"latents=starting_noise\(seed\)"),
        (forgetting(right, seed=1), "change with seed"),
        (forgetting(right, steps=2), "change with steps"),
        (forgetting(right, guidance_scale=5.0), "change with guidance_scale"),
        (forgetting(right, negative_prompt=""), "change with negative_prompt"),
        (forgetting(right, prompt="a duck"), "change with the prompt"),
    ]:
        with pytest.raises(CheckFailed, match=advice):
            checks.generate(wrong, "a duck", model)


def colored(prompt: str, seed: int = 0, steps: int = 0) -> Image.Image:
    """A stand-in for `generate`: one colour for each setting."""
    return Image.fromarray(np.full((8, 8, 3), (len(prompt), seed * 10, steps * 10), np.uint8))


def test_series_of_one_setting_and_of_two(capsys):
    checks.series(colored, [colored("a", steps=n) for n in (1, 5)], prompt="a", steps=[1, 5])
    crossed = [colored(p, seed=s) for p in ("a", "bb") for s in (1, 2, 3)]
    checks.series(colored, crossed, prompt=["a", "bb"], seed=[1, 2, 3])
    assert "6 pictures that differ in prompt and seed only" in capsys.readouterr().out


def test_series_mistakes():
    right = [colored("a", steps=n) for n in (1, 5, 9)]
    for wrong, advice in [
        (..., "still empty"),
        (right[0], "make a list"),
        (right[:2], "2 pictures for 3 settings"),
        ([*right[:2], None], "Entry 2 of the list is a NoneType"),
        ([right[0], right[0], right[2]], "Pictures 0, 1 are the same: does steps reach"),
        (right[::-1], "take the values in their order"),
        ([colored("a", seed=i, steps=n) for i, n in enumerate((2, 5, 9))], "keep everything else"),
    ]:
        with pytest.raises(CheckFailed, match=advice):
            checks.series(colored, wrong, prompt="a", steps=[1, 5, 9])


def test_series_with_rows_and_columns_exchanged():
    exchanged = [colored(p, seed=s) for s in (1, 2, 3) for p in ("a", "bb")]
    with pytest.raises(CheckFailed, match="prompt = 'a', seed = 2.*all of seed for each of prompt"):
        checks.series(colored, exchanged, prompt=["a", "bb"], seed=[1, 2, 3])


# --- Task 1.2: the lesson's own solutions pass, and with one thing wrong each is told what


@pytest.fixture(scope="module")
def lesson():
    return notebooks.definitions(
        notebooks.read(notebooks.ROOT / "task_1_2_Stable_Diffusion_detailed.ipynb"), {"STEPS": 3}
    )


@pytest.fixture(scope="module")
def sd(lesson, model):
    return lesson.StableDiffusion(model)


def told(advice, check, *arguments):
    with pytest.raises(CheckFailed, match=advice):
        check(*arguments)


def changed(sd, **parts):
    """A copy of `sd` in which some parts or methods are others."""
    other = object.__new__(type(sd))
    other.__dict__.update(
        sd.__dict__ | {n: MethodType(p, other) if isfunction(p) else p for n, p in parts.items()}
    )
    return other


def test_modules_and_their_mistakes(sd, model, capsys):
    checks.modules(sd, model)
    assert capsys.readouterr().out.startswith("✓")
    half, away = copy.deepcopy(sd.unet).bfloat16(), copy.deepcopy(sd.vae).to("meta")
    for part, advice in [
        ({"tokenizer": ...}, "`tokenizer` is still empty"),
        ({"unet": type(sd.unet)}, "`unet` is the class itself"),
        ({"vae": sd.unet}, "`vae` is a UNet2DConditionModel; it has to be a AutoencoderKL"),
        ({"scheduler": PNDMScheduler()}, "has to be a DDIMScheduler"),
        ({"scheduler": DDIMScheduler()}, "was trained with scaled_linear.*subfolder"),
        ({"unet": half}, r"dtype=model\.dtype"),
        ({"vae": away}, r"add \.to\(model\.device\)"),
    ]:
        told(advice, checks.modules, changed(sd, **part), model)


def test_text_embeddings_and_their_mistakes(sd, model):
    checks.text_embeddings(sd, model)

    def encode(self, texts, entry=0, **settings):
        settings = {
            "padding": "max_length",
            "max_length": 77,
            "truncation": True,
            "return_tensors": "pt",
        } | settings
        with torch.no_grad():
            return self.text_encoder(self.tokenizer(texts, **settings).input_ids.to(model.device))[
                entry
            ]

    for wrong, advice in [
        (lambda self, p, n: None, "returns None: is a `return` missing"),
        (
            lambda self, p, n: self.text_encoder(torch.zeros(1, 77, dtype=torch.long)),
            r"first entry.*\[0\]",
        ),
        (lambda self, p, n: encode(self, n + p, entry=1), "one vector a text"),
        (lambda self, p, n: encode(self, n + p, padding=True), 'padding="max_length"'),
        (lambda self, p, n: encode(self, p), "all four in one batch"),
        (lambda self, p, n: encode(self, p + n), "prompts come first"),
        (
            lambda self, p, n: encode(self, n + p[::-1]),
            "not those of the text encoder for these texts",
        ),
        (lambda self, p, n: encode(self, n + p, truncation=False), "truncation=True"),
    ]:
        told(advice, checks.text_embeddings, changed(sd, get_text_embeddings=wrong), model)


def test_guidance_and_its_mistakes(lesson):
    checks.guidance(lesson.guide)
    for wrong, advice in [
        (lambda u, c, w: None, "returns None: is a `return` missing"),
        (lambda u, c, w: c + w * (c - u), "wrong term"),
        (lambda u, c, w: u + w * (u - c), "away from the prompt"),
        (lambda u, c, w: u + w * c, "Scale the difference"),
        (lambda u, c, w: w * (c - u), "add it to `uncond`"),
        (lambda u, c, w: u + (c - u), "makes no difference"),
        (lambda u, c, w: u + w * (c - u) / 2, "not uncond"),
    ]:
        told(advice, checks.guidance, wrong)


def test_prediction_and_its_mistakes(lesson):
    checks.prediction(lesson.predict_x0_and_noise)
    right = lesson.predict_x0_and_noise

    def of_epsilon(x_0):
        """Right for v; for epsilon `x_0` of x_t, the noise and alpha_bar."""
        return lambda x, o, a, kind: (
            (x_0(x, o, a), o) if kind == "epsilon" else right(x, o, a, kind)
        )

    def of_v(x_0, noise=None):
        def predict(x, o, a, kind):
            if kind != "v_prediction":
                return right(x, o, a, kind)
            return x_0(x, o, a), noise(x, o, a) if noise else o

        return predict

    for wrong, advice in [
        (lambda x, o, a, kind: None, "returns None: is a `return` missing"),
        (lambda x, o, a, kind: right(x, o, a, kind)[0], "two tensors"),
        (lambda x, o, a, kind: right(x, o, a, kind)[::-1], "exchanged"),
        (of_epsilon(lambda x, o, a: (x - (1 - a) * o) / a), "square roots are missing"),
        (of_epsilon(lambda x, o, a: x - (1 - a).sqrt() * o), r"Divide by sqrt\(alpha_bar\)"),
        (of_epsilon(lambda x, o, a: (x - (1 - a).sqrt() * o) / a), "not by alpha_bar"),
        (of_epsilon(lambda x, o, a: x), "For epsilon x_0 is not right"),
        (lambda x, o, a, kind: right(x, o, a, "epsilon"), "v was taken for the noise"),
        (of_v(lambda x, o, a: a.sqrt() * x + (1 - a).sqrt() * o), "signs are off"),
        (of_v(lambda x, o, a: right(x, o, a, "v_prediction")[0]), "but the noise is not"),
        (
            lambda x, o, a, k: right(x, o, a, "epsilon" if k == "epsilon" else "v_prediction"),
            "raise ValueError",
        ),
    ]:
        told(advice, checks.prediction, wrong)


def test_ddim_step_and_its_mistakes(lesson):
    checks.ddim(lesson.ddim_step)

    def sigma(a, b, eta):
        return eta * ((1 - b) / (1 - a) * (1 - a / b)).sqrt()

    def step(s=sigma, room=lambda b, s: 1 - b - s**2, new=lambda s: s):
        def ddim_step(x_0, noise, a, b, eta, fresh):
            return (
                b.sqrt() * x_0
                + room(b, s(a, b, eta)).clamp_min(0).sqrt() * noise
                + new(s(a, b, eta)) * fresh
            )

        return ddim_step

    checks.ddim(step())
    for wrong, advice in [
        (lambda x, n, a, b, e, f: None, "returns None: is a `return` missing"),
        (lambda x, n, a, b, e, f: a.sqrt() * x + (1 - a).sqrt() * n, "back to x_t"),
        (lambda x, n, a, b, e, f: b.sqrt() * x + (1 - a).sqrt() * n, "share of noise is"),
        (lambda x, n, a, b, e, f: a.sqrt() * x + (1 - b).sqrt() * n, "share of x_0 is"),
        (lambda x, n, a, b, e, f: b * x + (1 - b) * n, "square roots are missing"),
        (lambda x, n, a, b, e, f: b.sqrt() * x, "noise term is missing"),
        (
            lambda x, n, a, b, e, f: b.sqrt() * x + (1 - b).sqrt() * n + 0.1 * f,
            "With eta = 0 there is fresh noise",
        ),
        (lambda x, n, a, b, e, f: x, "With eta = 0 that is not"),
        (lambda x, n, a, b, e, f: b.sqrt() * x + (1 - b).sqrt() * n, "`eta` makes no difference"),
        (step(room=lambda b, s: 1 - b), "Make room for the fresh noise"),
        (step(room=lambda b, s: 1 - b - s), "sigma is squared"),
        (step(new=lambda s: 0), "fresh noise was not added"),
        (step(new=lambda s: s**2), "not by its square"),
        (
            step(s=lambda a, b, e: e * (1 - b) / (1 - a) * (1 - a / b)),
            "sigma is not that of the formula",
        ),
        (
            step(s=lambda a, b, e: e * ((1 - a) / (1 - b) * (1 - a / b)).sqrt()),
            "sigma is not that of the formula",
        ),
        (
            step(s=lambda a, b, e: sigma(a, b, 1) if e else 0 * a),
            "sigma is not that of the formula",
        ),
        (step(s=lambda a, b, e: e * (1 - b).sqrt() / 2), "With eta = 1 the step is not right"),
    ]:
        told(advice, checks.ddim, wrong)


def test_the_loop_and_its_mistakes(lesson, sd, model):
    checks.loop(sd, model)
    right = lesson.denoise

    def empty(self, latents, *others):
        yield lesson.SamplingStep(0, latents, ..., ..., ..., ...)

    def forgetful(self, latents, embeddings, count, w, eta, generators):
        """Begins every step with the first noise."""
        for step in right(self, latents, embeddings, count, w, eta, generators):
            yield step._replace(x_t=latents)

    for wrong, advice in [
        (empty, "`x_prev`.*still empty"),
        (lambda self, *a: list(right(self, *a))[:2], "2 steps of 3"),
        (forgetful, "does not go on from"),
        (lambda self, x, e, *a: right(self, x, e.flip(0), *a), "two halves are exchanged"),
        (lambda self, x, e, n, w, *a: right(self, x, e, n, 1.0, *a), "unguided"),
        (lambda self, x, e, n, w, *a: right(self, x, e, n, 0.0, *a), "Only the negative prompt"),
        (lambda self, x, e, n, w, *a: right(self, x, e, n, w + 2, *a), "not those of diffusers"),
        (
            lambda self, x, e, n, w, eta, g: right(self, x, e, n, w, 0.0, g),
            "`eta` makes no difference",
        ),
        (
            lambda self, x, e, n, w, eta, g: right(self, x, e, n, w, eta / 2, g),
            "With eta = 1 the latents",
        ),
    ]:
        told(advice, checks.loop, changed(sd, denoise=wrong), model)
    wrong_functions = {
        "guide": (lambda u, c, w: c + w * (c - u), "not those of diffusers"),
        "predict_x0_and_noise": (
            lambda x, o, a, k: lesson.predict_x0_and_noise(x, o, a, "v_prediction"),
            "not those of diffusers",
        ),
        "draw_noise": (lambda g, shape, device: torch.ones(1, *shape), "With eta = 1 the latents"),
    }
    for name, (function, advice) in wrong_functions.items():
        body = FunctionType(inspect.unwrap(right).__code__, vars(lesson) | {name: function})
        told(advice, checks.loop, changed(sd, denoise=torch.no_grad()(body)), model)


def test_decoding_and_its_mistakes(lesson, sd, model):
    checks.decoding(sd, model)
    right, factor = lesson.decode_latents, sd.vae.config.scaling_factor
    for wrong, advice in [
        (lambda self, z: None, "returns None: is a `return` missing"),
        (lambda self, z: self.vae.decode(z), r"\.sample"),
        (lambda self, z: right(self, z)[..., :-1], "The shape is"),
        (lambda self, z: right(self, z * factor), "scaling factor was forgotten"),
        (lambda self, z: right(self, z * factor * factor), "do not multiply"),
        (lambda self, z: (right(self, z) + 1) / 2, r"in \[-1, 1\]"),
        (lambda self, z: -right(self, z), "not the pictures"),
        (lambda self, z: self.vae.decode(z / factor).sample, "no_grad"),
    ]:
        told(advice, checks.decoding, changed(sd, decode_latents=wrong), model)


def test_the_clip_and_its_mistakes(tmp_path):
    for name, color in (("x_t", 0), ("x_0", 1)):
        (tmp_path / name).mkdir()
        for i in range(5):
            array = np.zeros((96, 96, 3), np.uint8)
            array[..., color] = 50 * i + 20
            Image.fromarray(array).save(tmp_path / name / f"{i:03d}_t{900 - i:04d}.png")
    folders = tmp_path / "x_t", tmp_path / "x_0"
    left, right = map(video.read_frames, folders)
    checks.clip(video.side_by_side(left, right), *folders)
    checks.clip(video.side_by_side(left, right, headings=("x_t", "x_0"), height=48), *folders)
    for wrong, advice in [
        (..., "still empty"),
        (tuple(left), "has to be a list"),
        (left, "Entry 0 of `clip` is a Frame"),
        (video.side_by_side(left, right)[:-1], "4 frames and the folder 5"),
        ([frame.image for frame in left], "not wide enough"),
        (video.side_by_side(right, left), "sides are exchanged"),
        (video.side_by_side(left, right)[::-1], "run backwards"),
    ]:
        told(advice, checks.clip, wrong, *folders)


def test_attention_and_its_mistakes(lesson):
    checks.attention(lesson.attention)

    def weighted(weights):
        return lambda q, k, v: (
            weights(q @ k.transpose(-1, -2)) @ v,
            weights(q @ k.transpose(-1, -2)),
        )

    right = weighted(lambda s: (s / 4).softmax(-1))
    for wrong, advice in [
        (lambda q, k, v: None, "returns None: is a `return` missing"),
        (lambda q, k, v: right(q, k, v)[0], "returns two tensors"),
        (
            lambda q, k, v: (right(q, k, v)[0], right(q, k, v)[1].transpose(-1, -2)),
            "The weights have the shape",
        ),
        (weighted(lambda s: s.softmax(-1)), "not scaled"),
        (weighted(lambda s: (s / 16).softmax(-1)), "not by the width"),
        (weighted(lambda s: (s / 4).softmax(-2)), "runs over the pixels"),
        (weighted(lambda s: s / 4), "Those are scores"),
        (weighted(lambda s: (s / 3).softmax(-1)), "not softmax"),
        (lambda q, k, v: (2 * right(q, k, v)[0], right(q, k, v)[1]), "product with the values"),
    ]:
        told(advice, checks.attention, wrong)


def test_strengths_and_their_mistakes(lesson):
    tensors = torch.randn(4, 2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    steps = [lesson.SamplingStep(0, u, u, c, u, u) for u, c in tensors]
    pushes, plain = (
        [x.norm().item() for x in xs] for xs in zip(*[(c - u, u) for u, c in tensors], strict=True)
    )
    right = [p / n for p, n in zip(pushes, plain, strict=True)]
    checks.strengths(right, steps)
    for wrong, advice in [
        (..., "still empty"),
        (right[0], "has to be a list"),
        (right[:-1], "3 numbers for 4 steps"),
        (pushes, "Divide by the norm"),
        ([x**2 for x in right], "Those are squares"),
        (right[::-1], "not the norms"),
    ]:
        told(advice, checks.strengths, wrong, steps)


# --- Task 1.3: the lesson's own solutions, with one thing wrong each

CONTROL_LESSON = notebooks.ROOT / "task_1_3_ControlNet.ipynb"


@pytest.fixture(scope="module")
def control_lesson(steered_folder):
    """The lesson's functions on the tiny model, whose ControlNets are noise but have something to say."""
    lesson = notebooks.definitions(notebooks.read(CONTROL_LESSON), {"STEPS": 3, "SEED": 2})
    lesson.model = find_model(steered_folder)
    lesson.pipe = load_pipeline(lesson.model)
    return lesson


@pytest.fixture(scope="module")
def photograph():
    return load_image(notebooks.ROOT / "assets" / "samples" / "house.png", 64)


@pytest.fixture(scope="module")
def by_edges(control_lesson, photograph):
    network = load_controlnet("canny", control_lesson.model)
    return control_lesson.Control(
        network, control_lesson.to_condition(control_lesson.canny_edges(photograph))
    )


def rewritten(lesson, name, *changes):
    """The lesson with pieces of the text of its function `name` exchanged: old, new, old, new, ..."""
    other = rewrite(CONTROL_LESSON, name, *changes)
    other.model, other.pipe = lesson.model, lesson.pipe
    return other


def rewrite(path, name, *changes):
    """Return what the lesson at `path` defines, with those changes in the text of its function `name`."""
    notebook = notebooks.read(path)
    [cell] = [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and f"def {name}(" in cell.source
    ]
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in cell.source
        cell.source = cell.source.replace(old, new)
    return notebooks.definitions(notebook, {"STEPS": 3, "SEED": 2})


def mistaken(lesson, name, *changes):
    """That function of the lesson with these changes."""
    return getattr(rewritten(lesson, name, *changes), name)


def test_edges_and_their_mistakes(control_lesson, photograph, capsys):
    checks.edges(control_lesson.canny_edges, photograph)
    assert capsys.readouterr().out.startswith("✓")
    for changes, advice in [
        (("return np.stack", "np.stack"), "returns None"),
        (("np.stack([edges] * 3, axis=2) / 255", "edges / 255"), "one channel"),
        (("axis=2", "axis=0"), "channels are the last axis"),
        ((" / 255", ""), "divide by 255"),
        (("cv2.Canny(smooth, ", "cv2.Canny(array, "), "not smoothed"),
        (
            ("np.stack([edges] * 3, axis=2) / 255", "1 - np.stack([edges] * 3, axis=2) / 255"),
            "Black edges on white",
        ),
        (("1.4", "3"), "not Canny's edges"),
        (("low, high)  #", "100, 200)  #"), "hand `low` and `high` on"),
        (("low, high)  #", "low, 200)  #"), "hand `low` and `high` on"),
        (("return np.stack([edges] * 3, axis=2) / 255", "return list(edges)"), "no array"),
    ]:
        told(advice, checks.edges, mistaken(control_lesson, "canny_edges", *changes), photograph)
    told("has no edges", checks.edges, control_lesson.canny_edges, Image.new("RGB", (64, 64)))


def test_condition_and_its_mistakes(control_lesson):
    model = control_lesson.model
    checks.condition(control_lesson.to_condition, model)
    for changes, advice in [
        (("return ", ""), "returns None"),
        (
            (
                "return torch.from_numpy(image).permute(2, 0, 1)[None].to(model.device, model.dtype)",
                "return image",
            ),
            "ndarray",
        ),
        (("[None]", ""), "batch is missing"),
        ((".permute(2, 0, 1)", ""), "channels come last"),
        ((".permute(2, 0, 1)[None]", ""), "channels come last"),
        (("(2, 0, 1)", "(2, 1, 0)"), "Height and width are exchanged"),
        ((".to(model.device, model.dtype)", ".to(model.device)"), r"float64, and the networks'"),
        (("from_numpy(image)", "from_numpy(image * 2 - 1)"), "from -1 to 1"),
        (("from_numpy(image)", "from_numpy(image / 255)"), "do not divide by 255"),
        (("from_numpy(image)", "from_numpy(image[::-1].copy())"), "not those of the array"),
        (("permute(2, 0, 1)[None]", "reshape(1, 3, *image.shape[:2])"), "not those of the array"),
    ]:
        told(advice, checks.condition, mistaken(control_lesson, "to_condition", *changes), model)
    elsewhere = mistaken(control_lesson, "to_condition", "model.device", '"meta"')
    told("It is on meta", checks.condition, elsewhere, model)


def test_residuals_and_their_mistakes(control_lesson, by_edges):
    given = (by_edges, control_lesson.pipe, control_lesson.model)
    checks.residuals(control_lesson.control_residuals, *given)
    scaled = "each.scale * part for part in (*down, mid)"
    for changes, advice in [
        (("    *down, mid = (sum", "    down, mid = ..., ...\n    (sum"), "`down`.*still empty"),
        (("return down, mid", "return [*down, mid]"), "return down, mid"),
        (("return down, mid", "return down, None"), "`mid`.*is None"),
        (("return down, mid", "return down[0], mid"), "`down` is a Tensor"),
        (("return down, mid", "return down[1:], mid"), "residuals for .* skips"),
        (("return down, mid", "return down[::-1], mid"), "not those that its network returns"),
        (("each.scale * part", "part"), "scales make no difference"),
        ((scaled, "*down, each.scale * mid"), "residuals of the skips are not scaled"),
        ((scaled, "*(each.scale * part for part in down), mid"), "residual of the middle is not scaled"),
        (("answers.append([each.scale * part for part in (*down, mid)])",
          "answers = [[each.scale * part for part in (*down, mid)]]"), "Only the last ControlNet"),
        (("for each in controls", "for each in controls[:1]"), "Only the first ControlNet"),
        (("sum(parts) for", "sum(parts) / len(parts) for"), "a mean makes"),
        (("each.scale * part", "each.scale**2 * part"), "not the sum of scale times residual"),
        (("return None, None", "return [], 0"), "return None, None"),
    ]:  # fmt: skip
        told(
            advice,
            checks.residuals,
            mistaken(control_lesson, "control_residuals", *changes),
            *given,
        )


def test_the_controlled_answer_and_its_mistakes(control_lesson, by_edges):
    given = (by_edges, control_lesson.pipe, control_lesson.model)
    checks.controlled(control_lesson.guided_output, *given)
    w = "diffusion.guide(uncond, cond, guidance_scale)"
    muted = "heard = torch.tensor({}).view(2, 1, 1, 1)\n    down, mid = [heard * part for part in down], heard * mid\n    "
    for changes, advice in [
        ((f"return {w}", w), "still empty"),
        (("output = unet", "return unet", ".sample.float()", ""), "take the denoiser's .sample"),
        ((w, "output"), "cut the answer in two"),
        ((", **residuals", ""), "does not reach the denoiser"),
        (
            ("residuals = {", muted.format([0.0, 1.0]) + "residuals = {"),
            "Only the question with the prompt",
        ),
        (
            ("residuals = {", muted.format([1.0, 0.0]) + "residuals = {"),
            "Only the question without the prompt",
        ),
        (("uncond, cond = output", "cond, uncond = output"), "two halves are exchanged"),
        ((w, "cond"), "unguided"),
        ((w, "cond + guidance_scale * (cond - uncond)"), "starts from `uncond`"),
        ((w, "uncond + 2 * (cond - uncond)"), "not the denoiser's answer"),
    ]:
        told(advice, checks.controlled, mistaken(control_lesson, "guided_output", *changes), *given)


def test_active_controls_and_their_mistakes(control_lesson, by_edges):
    checks.active(control_lesson.active_controls, by_edges)
    for changes, advice in [
        (("return ", ""), "returns None"),
        (
            (
                "return [each for each in controls",
                "return tuple(each for each in controls",
                "each.end]",
                "each.end)",
            ),
            "a tuple",
        ),
        (("(i + 1) / count", "i / count"), "In step 5 of 10.*0 to 1, 0 to 0.55 are active"),
        (("(i + 1) / count <= each.end", "i / count < each.end"), "In step 5 of 10"),
        (("each.start <= i / count and ", ""), "In step 0 of 10"),
        ((" if each.start <= i / count and (i + 1) / count <= each.end", ""), "In step 0 of 10"),
        (("(i + 1) / count <=", "(i + 1) / count <"), "and not those from 0 to 1"),
    ]:
        told(advice, checks.active, mistaken(control_lesson, "active_controls", *changes), by_edges)


def test_the_controlled_loop_and_what_breaks_it(control_lesson, by_edges, capsys):
    given = (by_edges, control_lesson.pipe, control_lesson.model)
    checks.control_loop(control_lesson.sample, *given)
    assert "with one and with two" in capsys.readouterr().out
    for name, old, new, advice in [
        (
            "denoise",
            "active_controls(controls, i, count)",
            "controls",
            "With 2 ControlNets the latents",
        ),
        ("denoise", "active_controls(controls, i, count)", "[]", "With 1 ControlNet the latents"),
        ("control_residuals", "each.scale * part", "part", "With 2 ControlNets the latents"),
        ("embed", "[uncond, cond]", "[cond, uncond]", "With 1 ControlNet the latents"),
    ]:
        told(advice, checks.control_loop, rewritten(control_lesson, name, old, new).sample, *given)


def test_zero_convolution_and_its_mistakes(control_lesson):
    checks.zero_convolution(control_lesson.zero_convolution)
    for changes, advice in [
        (("return layer", "layer"), "returns None"),
        (("return layer", "return layer.weight"), "That is a Parameter"),
        (("kernel_size=1", "kernel_size=3"), r"window is \(3, 3\)"),
        (("channels, channels, kernel", "channels, 1, kernel"), "makes 1 channels of 6"),
        (("nn.init.zeros_(layer.weight)", ""), "weights are not zero"),
        (("nn.init.zeros_(layer.bias)", ""), "bias is not zero"),
        (
            ("kernel_size=1)", "kernel_size=1, bias=False)", "nn.init.zeros_(layer.bias)", ""),
            "bias is missing",
        ),
        (("return layer", "return layer.requires_grad_(False)"), "cannot learn"),
    ]:
        told(
            advice, checks.zero_convolution, mistaken(control_lesson, "zero_convolution", *changes)
        )


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_loss_of_training_and_its_mistakes(control_lesson, by_edges, kind, monkeypatch):
    monkeypatch.setitem(vars(control_lesson.model), "prediction_type", kind)
    given = (by_edges, control_lesson.pipe, control_lesson.model)
    checks.control_loss(control_lesson.control_loss, *given)
    other = "noise" if kind == "v_prediction" else "v"
    mixed = "diffusion.add_noise(latents, noise, alpha_bar)"
    for changes, advice in [
        (("return F.mse_loss", "F.mse_loss"), "returns None"),
        (("F.mse_loss(output.float(), target)", "(output.float() - target) ** 2"), "one number"),
        (
            (
                "return F.mse_loss(output.float(), target)",
                "return F.mse_loss(output.float(), target).detach()",
            ),
            "No gradient",
        ),
        (
            (
                ", **residuals",
                ", **{k: v * 0 if k[0] == 'm' else [p * 0 for p in v] for k, v in residuals.items()}",
            ),
            "has no say",
        ),
        ((f"x_t = {mixed}", "x_t = latents"), "clean latents"),
        (("output.float(), target", "output.float(), latents"), "not the clean picture"),
        (("output.float(), target", f"output.float(), {other}"), f"predicts {kind}"),
        (("F.mse_loss(output", "F.l1_loss(output"), "not the mean square"),
    ]:
        told(
            advice, checks.control_loss, mistaken(control_lesson, "control_loss", *changes), *given
        )


# --- Task 2


@pytest.fixture(scope="module")
def joint():
    return notebooks.definitions(notebooks.read(notebooks.ROOT / "task_2_Joint_Diffusion.ipynb"))


@pytest.fixture(scope="module")
def joint_sd(joint, model):
    return joint.JointDiffusion(model)


def test_denoised_windows_and_their_mistakes(joint):
    checks.denoised_windows(joint.denoise_windows)
    right, x_0 = joint.denoise_windows, joint.foresee
    for wrong, advice in [
        (lambda x, n, a, b: None, "returns None: is a `return` missing"),
        (lambda x, n, a, b: (x, n), "a tuple"),
        (lambda x, n, a, b: right(x, n, a, b)[:1], "shape of the windows"),
        (lambda x, n, a, b: x, "as they were"),
        (lambda x, n, a, b: x_0(x, n, a), "That is x_0"),
        (lambda x, n, a, b: right(x, n, a, a) + 0 * b, "as they were"),
        (lambda x, n, a, b: b * x_0(x, n, a) + (1 - b) * n, "has roots"),
        (lambda x, n, a, b: b.sqrt() * x + (1 - b).sqrt() * n, "has to be mixed with x_0"),
        (lambda x, n, a, b: right(x, n, a, 1 - b), "exchanged"),
        (lambda x, n, a, b: b.sqrt() * x_0(x, n, a), "noise is missing"),
        (lambda x, n, a, b: right(x, n, a, b) * 1.1, "not those of formula"),
    ]:
        told(advice, checks.denoised_windows, wrong)


def added(value, views, weights, change):
    """A sum over views in which `change` says what comes in the place of what was there."""
    for weight, (rows, columns) in zip(weights, views, strict=True):
        value[..., rows, columns] = change(value[..., rows, columns], weight)
    return value


def test_overlaps_and_their_mistakes(joint):
    checks.overlapping(joint.overlaps, joint.window_views)

    def overlaps(change):
        return lambda views, weights, h, w: added(torch.zeros(1, 1, h, w), views, weights, change)

    checks.overlapping(overlaps(lambda old, new: old + new), joint.window_views)
    for wrong, advice in [
        (lambda views, weights, h, w: None, "returns None: is a `return` missing"),
        (lambda views, weights, h, w: torch.zeros(1, 1, h, w), "still empty"),
        (lambda views, weights, h, w: torch.ones(h, w), "The shape is"),
        (overlaps(lambda old, new: new), "last one alone"),
        (overlaps(lambda old, new: old + 1), "weights: .= weight"),
        (overlaps(lambda old, new: old + 2 * new), "not the sums"),
    ]:
        told(advice, checks.overlapping, wrong, joint.window_views)


def test_the_average_and_its_mistakes(joint):
    checks.fusion(joint.fuse, joint.window_views)

    def fuse(change=lambda old, new: old + new, weigh=True, divide=lambda total, counts: total):
        def fused(windows, views, weights, total):
            counts = joint.overlaps(views, torch.ones_like(weights), *total.shape[-2:])
            parts = weights * windows if weigh else windows
            value = added(torch.zeros(1, windows.shape[1], *total.shape[-2:]), views, parts, change)
            return value / divide(total, counts)

        return fused

    checks.fusion(fuse(), joint.window_views)
    for wrong, advice in [
        (lambda windows, views, weights, total: None, "returns None: is a `return` missing"),
        (lambda windows, views, weights, total: windows, "the panorama is a tensor"),
        (
            lambda windows, views, weights, total: fuse()(0 * windows, views, weights, total),
            "Nothing has been added",
        ),
        (fuse(divide=lambda total, counts: 1), "not averaged"),
        (fuse(weigh=False), "not weighted"),
        (fuse(weigh=False, divide=lambda total, counts: counts), "same say"),
        (fuse(divide=lambda total, counts: counts), "not by the number"),
        (fuse(change=lambda old, new: new), "last one alone"),
        (fuse(divide=lambda total, counts: total + 1), "not the weighted average"),
    ]:
        told(advice, checks.fusion, wrong, joint.window_views)


def test_the_anchor_and_its_mistakes(joint, joint_sd):
    checks.anchor_image(joint_sd)
    right = joint.foresee_anchor

    def loose(self, window, noise, alpha_bar, scale):
        return self.decode_small(joint.foresee(window, noise, alpha_bar), scale)

    for wrong, advice in [
        (lambda self, x, n, a, scale: None, "returns None: is a `return` missing"),
        (lambda self, x, n, a, scale: [right(self, x, n, a, scale)], "a list"),
        (lambda self, x, n, a, scale: joint.foresee(x, n, a), "those are latents"),
        (lambda self, x, n, a, scale: right(self, x, n, a, 1), "`scale` makes no difference"),
        (lambda self, x, n, a, scale: self.decode_small(x, scale).detach(), "as it is now"),
        (lambda self, x, n, a, scale: right(self, x, -n, a, scale), "not the picture of x_0"),
        (loose, "keep @torch.no_grad"),
    ]:
        told(advice, checks.anchor_image, changed(joint_sd, foresee_anchor=wrong))


def test_the_descent_and_its_mistakes(joint, joint_sd):
    checks.descent(joint_sd)
    right = joint.descend

    def move(self, windows, look, anchor, factor):
        """`factor` times the gradient."""
        return (windows - right(self, windows, look, anchor, 1.0)) * factor

    for wrong, advice in [
        (lambda self, x, look, anchor, w: None, "returns None: is a `return` missing"),
        (lambda self, x, look, anchor, w: [x], "a list"),
        (lambda self, x, look, anchor, w: x[:1], "The shape is"),
        (lambda self, x, look, anchor, w: x, "as they were"),
        (lambda self, x, look, anchor, w: x + move(self, x, look, anchor, w), "Uphill"),
        (
            lambda self, x, look, anchor, w: x - move(self, x, look, anchor, 1024 * w),
            "still enlarged",
        ),
        (
            lambda self, x, look, anchor, w: x - move(self, x, look, anchor, w / 1024),
            "was not multiplied",
        ),
        (lambda self, x, look, anchor, w: x - move(self, x, look, anchor, w / 2), "not their mean"),
        (lambda self, x, look, anchor, w: -move(self, x, look, anchor, w), "gradient alone"),
        (
            lambda self, x, look, anchor, w: x - move(self, x, look, anchor, w).flip(-1),
            "do not move along",
        ),
        (
            lambda self, x, look, anchor, w: right(self, x, look, anchor, 1.0),
            "`weight` makes no difference",
        ),
        (
            lambda self, x, look, anchor, w: right(self, x, look, anchor, w).requires_grad_(),
            "graph of gradients",
        ),
    ]:
        told(advice, checks.descent, changed(joint_sd, descend=wrong))


def test_the_text_embedding_of_task_3_and_its_mistakes(model, pipe, capsys):
    def embed(batch=0, encode=True, **options):
        settings = {
            "padding": "max_length",
            "max_length": model.text_length,
            "truncation": True,
        } | options

        @torch.no_grad()
        def function(text):
            ids = model.tokenizer(text, return_tensors="pt", **settings).input_ids
            return (pipe.text_encoder(ids)[0] if encode else ids)[batch]

        return function

    check = lambda function: checks.prompt_embedding(function, model, pipe.text_encoder)
    check(embed())
    assert "✓" in capsys.readouterr().out
    for wrong, advice in [
        (lambda text: ..., "returns is still empty"),
        (lambda text: [1.0], "is a list"),
        (embed(encode=False), "Those are the tokens"),
        (embed(batch=slice(None)), "batch of one"),
        (embed(padding=False), "rows of 77 tokens"),
        (embed(max_length=30), r"it has to be \(77, 16\)"),
        (lambda text: embed()("a car"), "not the text encoder's vectors of that text"),
        (embed(truncation=False), "truncation=True cuts it"),
        (lambda text: embed()(text).requires_grad_(), "no_grad"),
    ]:
        told(advice, check, wrong)


def test_the_sds_gradient_and_its_mistakes(capsys):
    checks.sds_gradient(lambda noise_pred, noise, w: w * (noise_pred - noise))
    assert "✓" in capsys.readouterr().out
    for wrong, advice in [
        (lambda e, n, w: ..., "returns is still empty"),
        (lambda e, n, w: 0.5, "is a float"),
        (lambda e, n, w: (w * (e - n)).mean(), "nothing is summed up"),
        (lambda e, n, w: w * (n - e), "sign turned round"),
        (lambda e, n, w: e - n, r"w\(t\) is missing"),
        (lambda e, n, w: w * e, "noise that was added is missing"),
        (lambda e, n, w: w * (e - n) ** 2, "no square"),
        (lambda e, n, w: 2 * w * (e - n), "factor 2"),
        (lambda e, n, w: w * w * (e - n), "counts once"),
        (lambda e, n, w: (e - n) / w, "is a factor"),
        (lambda e, n, w: w * (e + n), "That is not"),
    ]:
        told(advice, checks.sds_gradient, wrong)


def test_the_sds_loss_and_its_mistakes(capsys):
    checks.sds_loss(lambda x, g: (x * g.detach()).sum() / len(x))
    # The other usual way to write it: half the square of the distance to a target that stands still.
    checks.sds_loss(lambda x, g: 0.5 * (x - (x - g).detach()).square().sum() / len(x))
    assert capsys.readouterr().out.count("✓") == 2
    for wrong, advice in [
        (lambda x, g: ..., "returns is still empty"),
        (lambda x, g: 1.0, "is a float"),
        (lambda x, g: x * g.detach(), "add them up"),
        (lambda x, g: (x.detach() * g.detach()).sum(), "No gradient would reach"),
        (lambda x, g: -(x * g.detach()).sum() / len(x), "sign is turned round"),
        (lambda x, g: (x * g.detach()).sum(), "number of pictures"),
        (lambda x, g: (x * g.detach()).mean(), "mean runs over all numbers"),
        (lambda x, g: (x * g).sum() / len(x), "constant here"),
        (lambda x, g: (x * g.detach()).square().sum(), "not the one handed in"),
    ]:
        told(advice, checks.sds_loss, wrong)


FILM = notebooks.definitions(notebooks.read(notebooks.ROOT / "make_video.ipynb"))
in_order, paired, held = FILM.in_order, FILM.pairs, FILM.held


def digits(place: int):
    """A wrong key: the first (0) or the last (-1) number of a name, whichever counts."""
    return lambda name: int(re.findall("[0-9]+", name)[place])


def test_frame_order(capsys):
    checks.frame_order(in_order)
    assert "✓" in capsys.readouterr().out
    for wrong, advice in [
        (lambda names: None, "returns None: is a `return` missing"),
        (sorted, "Compare numbers, not text"),
        (
            lambda names: sorted(names, key=lambda name: (len(name), name)),
            "Compare numbers, not text",
        ),
        (lambda names: in_order(names)[::-1], "by their numbers they are"),
        (lambda names: sorted(video.frame_numbers(names).values()), "return the same names"),
        (lambda names: in_order(names)[1:], "return the same names"),
        (lambda names: sorted(names, key=digits(0)), "x_0_.*those that video.frame_numbers"),
        (lambda names: sorted(names, key=digits(-1)), "009_t0641.*those that video.frame_numbers"),
    ]:
        with pytest.raises(CheckFailed, match=advice):
            checks.frame_order(wrong)


def test_frame_pairs(capsys):
    checks.frame_pairs(paired)
    assert "✓" in capsys.readouterr().out
    for wrong, advice in [
        (lambda left, right: None, "returns None: is a `return` missing"),
        (lambda left, right: list(zip(left, right, strict=True)), "Put both sides in order first"),
        (
            lambda left, right: list(zip(in_order(left), in_order(right), strict=False)),
            "have no partner",
        ),
        (
            lambda left, right: list(zip(in_order(left), in_order(right), strict=True)),
            "compare the steps",
        ),
    ]:
        with pytest.raises(CheckFailed, match=advice):
            checks.frame_pairs(wrong)


def test_hold(capsys):
    checks.hold(held)
    assert "✓" in capsys.readouterr().out
    for wrong, advice in [
        (lambda frames, fps, hold: None, "returns None: is a `return` missing"),
        (lambda frames, fps, hold: (*frames,), "return a list"),
        (lambda frames, fps, hold: frames * 3, "only the last frame"),
        (lambda frames, fps, hold: [frames[-1]] * round(hold * fps), "all frames come first"),
        (lambda frames, fps, hold: frames + [frames[-1]] * round(hold), "that takes 16"),
        (
            lambda frames, fps, hold: frames + [frames[-1]] * (round(hold * fps) - 1),
            "that takes 16",
        ),
        (
            lambda frames, fps, hold: frames + [frames[-1]] * int(hold * fps),
            "0.9 seconds.* takes 3.*nearest whole",
        ),
        (
            lambda frames, fps, hold: frames + [frames[-1]] * math.ceil(hold * fps),
            "0.3 seconds.* takes 2",
        ),
    ]:
        with pytest.raises(CheckFailed, match=advice):
            checks.hold(wrong)


# --- Errors and odd results of a student's function


def raises(error):
    """Return a function of any arguments that raises `error`."""

    def function(*_, **__):
        raise error

    return function


def mixed_shapes(x):
    return x + torch.ones(2)


def mixed_types(x):
    return x.double() @ x


def mixed_index_types(x):
    x.clone()[:] = x.double()
    y = x.clone()
    y[[0, 1]] = x.double()[[0, 1]]
    return y


def without_gradient(x):
    return torch.autograd.grad(x.sum(), x)


def of_nothing(x):
    return x.sort(inplace=None).values if x is None else {}.get("x").shape


def unfinished(x):
    return x + ...


def misspelled(x):
    return x + noize  # noqa: F821


def wrong_call(x):
    return mixed_shapes(x, 5.0)


def on_arrays(x):
    return np.ones(3) + np.ones(2)


@torch.no_grad()
def decorated(x):
    return x.view(7)


def steps_that_fail(x):
    yield x
    yield x + torch.ones(2)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (mixed_shapes, r"RuntimeError: The size of tensor a \(3\).*x \+ torch\.ones\(2\)\nTwo shapes do not fit"),
        (mixed_types, r"RuntimeError: .*same dtype.*x\.double\(\) @ x\nTwo number types.*\.to\(other\.dtype\)"),
        (mixed_index_types, r"dtypes match.*y\[\[0, 1\]\] = x.double.*Two number types do not fit"),
        (without_gradient, r"RuntimeError: .*does not require grad.*autograd.*torch\.enable_grad\(\)"),
        (of_nothing, r"AttributeError: 'NoneType' object.*get.*is None: .*`return`"),
        (unfinished, r"TypeError: unsupported operand.*x \+ \.\.\.\n`\.\.\.` is still in the place of a value"),
        (misspelled, r"NameError: name 'noize'.*x \+ noize.*spelled"),
        (wrong_call, r"TypeError: mixed_shapes\(\) takes 1.*mixed_shapes\(x, 5\.0\)\nA call does not fit"),
        (on_arrays, r"ValueError: operands could not be broadcast.*np\.ones\(3\).*Two shapes do not fit"),
        (decorated, r"of `decorated`: return x\.view\(7\)\nTwo shapes"),
        (steps_that_fail, r"of `steps_that_fail`: yield x \+ torch\.ones\(2\)\nTwo shapes"),
        (lambda: 1, r"raised TypeError: .*takes 0 positional arguments.*\nA call does not fit"),
        (raises(ValueError("no partner\nfor 3.png")), r"raised ValueError: no partner\nin line \d+ of `function`"),
        (raises(KeyError()), r"raised KeyError\nin line"),
        (raises(RecursionError("too deep")), "raised RecursionError: too deep"),
    ],
)  # fmt: skip
def test_an_error_in_a_students_function_becomes_advice(function, said):
    """The type, the message, the student's own line, and a hint."""
    with pytest.raises(CheckFailed, match=f"(?s)^Your code raised {said}|{said}") as caught:
        call(function, torch.ones(3, 3) if function is mixed_types else torch.ones(3))
    assert "course" not in str(caught.value) and "torch/" not in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3
    assert str(caught.value).startswith("Your code raised ")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "^Your function returns None: is a `return` missing"),
        (..., "^What your function returns is still empty"),
        (torch.tensor([1.0, float("nan")]), "is not finite: .*square root of a negative"),
        ((torch.zeros(2), torch.tensor(float("inf"))), "is not finite"),
        ([{}, np.array([1.0, -np.inf])], "is not finite"),
        (float("nan"), "is not finite"),
        (np.float32("inf"), "is not finite"),
    ],
)
def test_a_result_that_cannot_be_right_is_named_first(value, said):
    with pytest.raises(CheckFailed, match=said):
        call(lambda: value)


@pytest.mark.parametrize(
    "value", [0, "", [], torch.zeros(2).bool(), np.zeros(2, int), torch.zeros(2, device="meta")]
)
def test_other_results_are_handed_on(value):
    assert call(lambda *a, **o: value, 1, option=2) is value


def test_names_of_functions_that_return_nothing():
    def guide(*_):
        pass

    with pytest.raises(CheckFailed, match="^`guide` returns None"):
        call(guide)
    with pytest.raises(CheckFailed, match="not a value of type ellipsis: run the cell"):
        call(...)
    with pytest.raises(CheckFailed, match="not a value of type type"):
        call(int)


def test_errors_that_a_check_expects_and_advice_that_is_advice_already():
    assert str(call(raises(ValueError("x")), allow=ValueError)) == "x"
    with pytest.raises(ModelError, match="^no such model$"):
        call(raises(ModelError("no such model")))
    with pytest.raises(KeyboardInterrupt):
        call(raises(KeyboardInterrupt()))
    with pytest.raises(CheckFailed, match="raised KeyError") as caught:
        call(raises(KeyError("y")), allow=ValueError)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_cell_shows_advice_without_traceback():
    """In a notebook the line is counted within the cell, and library frames do not appear."""
    wrong = "import torch\n\n\ndef guide(uncond, cond, w):\n    return uncond + w * cond[0, :2]"
    sources = ["from course import checks", wrong, "checks.guidance(guide)"]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    with pytest.raises(notebooks.LessonError) as caught:
        notebooks.execute(nbformat.v4.new_notebook(cells=cells))
    text = str(caught.value)
    assert text.startswith("CheckFailed: Your code raised RuntimeError: The size of tensor")
    assert "\nin line 5 of `guide`: return uncond + w * cond[0, :2]\nTwo shapes do not fit" in text
    assert "Traceback" not in text and "site-packages" not in text


# --- Attempts of a review that ended in a bare error of PyTorch or of the student's own

DETAILED = notebooks.ROOT / "task_1_2_Stable_Diffusion_detailed.ipynb"
JOINT = notebooks.ROOT / "task_2_Joint_Diffusion.ipynb"
ATTEMPTS = {
    "1.2 (i)": (DETAILED, "attention", ("key.transpose(-1, -2)", "key.T")),
    "1.2 (i) no transpose": (DETAILED, "attention", ("key.transpose(-1, -2)", "key")),
    "1.2 (c) numbers": (DETAILED, "guide", ("uncond + guidance", "uncond[None] + ... * guid")),
    "1.2 (d) swapped": (DETAILED, "predict_x0_and_noise", ("alpha_bar.sqrt() * x_t", "alpha_bar.sqrt * x_t")),
    "1.2 (e) ratio": (DETAILED, "ddim_step", ("eta * (", "eta * math.sqrt(")),
    "2 (2) total": (JOINT, "overlaps", ("total[..., rows, columns] += weight", "total += weight")),
    "2 (2) axes": (JOINT, "overlaps", ("[..., rows, columns]", "[..., columns]")),
    "2 (2) order": (JOINT, "overlaps", ("[..., rows, columns]", "[..., columns, rows]")),
    "2 (3) =": (JOINT, "fuse", ("+= weight.to(exact) * window", "= weight * window")),
    "2 (3) no [...]": (JOINT, "fuse", ("value[..., rows, columns] +=", "value +=")),
}  # fmt: skip


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_attempts_that_ended_in_a_bare_error(attempt):
    path, name, changes = ATTEMPTS[attempt]
    lesson = rewrite(path, name, *changes)
    check = {
        "attention": checks.attention,
        "guide": checks.guidance,
        "predict_x0_and_noise": checks.prediction,
        "ddim_step": checks.ddim,
        "overlaps": lambda function: checks.overlapping(function, lesson.window_views),
        "fuse": lambda function: checks.fusion(function, lesson.window_views),
    }[name]
    told(
        rf"^Your code raised \w+Error: (.|\n)*in line \d+ of `{name}`", check, getattr(lesson, name)
    )


def test_prediction_on_both_halves(lesson, sd, model):
    """`predict_x0_and_noise` is given the output for both halves, and the latents of one."""
    source = "guided = guide(uncond, cond, guidance_scale)"
    other = rewrite(DETAILED, "denoise", source, "guided = output[:, :3]")
    told(
        "Your code raised RuntimeError: The size of tensor",
        checks.loop,
        changed(sd, denoise=other.denoise),
        model,
    )


@pytest.mark.parametrize(
    "changes",
    [
        (', "mid_block_additional_residual": mid', ""),
        ("both, t, encoder", "latents, t, encoder"),
        ("controls, both, t, embeddings", "controls, latents, t, embeddings[0]"),
        ("output.chunk(2)", "output.chunk(1)"),
        (".sample.float()", ""),
    ],
)
def test_controlled_answers_that_ended_in_a_bare_error(control_lesson, by_edges, changes):
    wrong = mistaken(control_lesson, "guided_output", *changes)
    given = (by_edges, control_lesson.pipe, control_lesson.model)
    told(
        r"^Your code raised \w+: (.|\n)*in line \d+ of `guided_output`",
        checks.controlled,
        wrong,
        *given,
    )


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        (
            ("anchor.expand_as(images)", "anchor"),
            "raised ValueError: two batches .* of one shape, not .*in line 8 of `descend`",
        ),
        (
            ("with torch.enable_grad():", "if True:"),
            r"does not require grad.*torch\.enable_grad\(\)",
        ),
        (
            ("windows.detach().requires_grad_()", "windows.detach()"),
            r"does not require grad.*requires_grad_",
        ),
        (("look(own)", "look(windows)"), "does not require grad.*No gradient was recorded"),
        (("look(own)", "look"), "raised .*in line"),
    ],
)
def test_descents_that_ended_in_a_bare_error(joint_sd, changes, advice):
    other = rewrite(JOINT, "descend", *changes)
    told(f"(?s){advice}", checks.descent, changed(joint_sd, descend=other.descend))


@pytest.mark.parametrize(
    "error", [ValueError("no partner"), TypeError("not a list"), KeyError(3), StopIteration()]
)
def test_pairs_whose_own_error_is_raised_for_names_that_fit(error):
    told("Your code raised .*Error|Iteration", checks.frame_pairs, raises(error))


# --- Comparisons


@pytest.mark.parametrize("scale", [1e4, 1.0, 1e-3])
def test_tensors_are_close_relative_to_their_size(scale):
    right = scale * torch.ones(4)
    assert common.close(right * (1 + 9e-5), right) and not common.close(right * (1 + 1.1e-4), right)
    assert common.close(right * 1.009, right, 1e-2) and not common.close(right * 1.011, right, 1e-2)
    assert not common.close(right[:3], right) and not common.close(right.tolist(), right)


def test_tensors_beside_nothing():
    assert common.close(torch.full((4,), 4e-11), torch.zeros(4))
    assert not common.close(torch.full((4,), 1e-9), torch.zeros(4))
    assert common.close(torch.ones(3).double(), torch.ones(3).half())


def test_lists_of_tensors_are_close_if_each_is():
    parts = [torch.ones(3), torch.zeros(2)]
    assert common.all_close(parts, [torch.ones(3) * 1.009, torch.zeros(2)])
    assert not common.all_close(parts, parts[:1]) and not common.all_close(
        parts, [parts[0], torch.ones(2)]
    )


def test_images_are_the_same_up_to_a_rounding_here_and_there():
    image = Image.new("RGB", (10, 10), (100, 100, 100))
    almost = image.copy()
    for x in range(4):
        almost.putpixel((x, 0), (101, 101, 101))
    assert common.same(almost, image)
    almost.putpixel((4, 0), (101, 101, 101))
    assert not common.same(almost, image)  # 5 % of the pixels, by one: 0.05 on average
    assert not common.same(image, image.resize((9, 10)))
    assert not common.same(Image.new("L", (4, 4), 255), Image.new("L", (4, 4), 0))


def test_half_precision_is_given_more_room():
    assert [
        common.tolerance_of(SimpleNamespace(dtype=d)) for d in (torch.float32, torch.float16)
    ] == [1e-3, 3e-2]


# --- Odd results: no check ends in another error than advice

ODD = {
    "zero": lambda _: 0,
    "text": lambda _: "text",
    "empty text": lambda _: "",
    "bytes": lambda _: b"\0",
    "empty list": lambda _: [],
    "empty tuple": lambda _: (),
    "dictionary": lambda _: {"x": 1},
    "set": lambda _: {1, 2},
    "class": lambda _: torch.Tensor,
    "function": lambda _: print,
    "picture": lambda _: Image.new("L", (3, 2)),
    "array": lambda _: np.zeros((2, 3, 4)),
    "array of texts": lambda _: np.array(["a", "b"]),
    "scalar": lambda _: torch.tensor(1.0),
    "no rows": lambda _: torch.zeros(0, 4),
    "complex": lambda _: torch.ones(2, 3, dtype=torch.complex64),
    "pair": lambda value: (value, value),
    "pair of numbers": lambda _: (1, 2),
    "pair of nothing": lambda _: (None, None),
    "list": lambda value: [value],
    "nested": lambda value: [[value]],
    "as list": lambda value: each_tensor(value, torch.Tensor.tolist),
    "as array": lambda value: each_tensor(value, lambda x: x.detach().cpu().numpy()),
    "as integers": lambda value: each_tensor(value, torch.Tensor.int),
    "as booleans": lambda value: each_tensor(value, torch.Tensor.bool),
    "doubled": lambda value: each_tensor(value, lambda x: x.double() * 2),
    "flat": lambda value: each_tensor(value, torch.Tensor.flatten),
    "one more": lambda value: each_tensor(value, lambda x: x[None]),
    "no axis": lambda value: each_tensor(value, torch.Tensor.sum),
    "not finite": lambda value: each_tensor(value, lambda x: x * float("nan")),
}


def each_tensor(value, change):
    if isinstance(value, torch.Tensor):
        return change(value)
    return (
        type(value)(each_tensor(v, change) for v in value)
        if type(value) in (list, tuple)
        else value
    )


@pytest.mark.parametrize("odd", ODD)
def test_odd_results_end_in_advice(
    odd, lesson, sd, pipe, model, control_lesson, by_edges, photograph, joint, joint_sd
):
    def strange(function):
        return lambda *arguments, **options: ODD[odd](function(*arguments, **options))

    of_model = (by_edges, control_lesson.pipe, control_lesson.model)
    sources = {
        "noise": lambda: checks.noise(strange(right_noise(model)), model),
        "prediction": lambda: checks.prediction(strange(lesson.predict_x0_and_noise)),
        "guidance": lambda: checks.guidance(strange(lesson.guide)),
        "ddim": lambda: checks.ddim(strange(lesson.ddim_step)),
        "attention": lambda: checks.attention(strange(lesson.attention)),
        "text_embeddings": lambda: checks.text_embeddings(odd_part("get_text_embeddings", sd, strange), model),
        "decoding": lambda: checks.decoding(odd_part("decode_latents", sd, strange), model),
        "strengths": lambda: checks.strengths(ODD[odd]([1.0]), [lesson.SamplingStep(0, *torch.ones(5, 1))]),
        "series": lambda: checks.series(colored, ODD[odd]([colored("a")]), prompt="a", steps=[1]),
        "token": lambda: checks.token(ODD[odd]("hf_x"), model),
        "edges": lambda: checks.edges(strange(control_lesson.canny_edges), photograph),
        "condition": lambda: checks.condition(strange(control_lesson.to_condition), model),
        "residuals": lambda: checks.residuals(strange(control_lesson.control_residuals), *of_model),
        "controlled": lambda: checks.controlled(strange(control_lesson.guided_output), *of_model),
        "active": lambda: checks.active(strange(control_lesson.active_controls), by_edges),
        "zero_convolution": lambda: checks.zero_convolution(strange(control_lesson.zero_convolution)),
        "control_loss": lambda: checks.control_loss(strange(control_lesson.control_loss), *of_model),
        "denoised_windows": lambda: checks.denoised_windows(strange(joint.denoise_windows)),
        "overlapping": lambda: checks.overlapping(strange(joint.overlaps), joint.window_views),
        "fusion": lambda: checks.fusion(strange(joint.fuse), joint.window_views),
        "anchor_image": lambda: checks.anchor_image(odd_part("foresee_anchor", joint_sd, strange)),
        "descent": lambda: checks.descent(odd_part("descend", joint_sd, strange)),
        "sds_gradient": lambda: checks.sds_gradient(strange(lambda e, n, w: w * (e - n))),
        "sds_loss": lambda: checks.sds_loss(strange(lambda x, g: (x * g.detach()).sum() / len(x))),
        "prompt_embedding": lambda: checks.prompt_embedding(
            strange(lambda text: torch.zeros(model.text_length, 16)), model, pipe.text_encoder
        ),
        "frame_order": lambda: checks.frame_order(strange(in_order)),
        "frame_pairs": lambda: checks.frame_pairs(strange(paired)),
        "hold": lambda: checks.hold(strange(lambda frames, fps, hold: frames + [frames[-1]] * round(hold * fps))),
    }  # fmt: skip
    failures = {}
    for name, attempt in sources.items():
        try:
            attempt()
        except CheckFailed:
            continue
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {error}"[:150]
    assert failures == {}


def odd_part(name, sd, strange):
    return changed(sd, **{name: lambda self, *arguments: strange(getattr(sd, name))(*arguments)})
