"""The checks of lesson 1.2: its own solutions pass, and one mistake each gets its advice."""

import copy
import inspect
from types import FunctionType

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    PNDMScheduler,
)
from PIL import Image

from course.checks import task_1_2 as checks
from course.images import video
from tests.course.checks.helpers import (
    DETAILED,
    assert_advice,
    changed,
    rewrite,
)


def test_modules_and_their_mistakes(sd, model, capsys):
    checks.modules(sd, model)
    assert capsys.readouterr().out.startswith("✓")
    half, away = copy.deepcopy(sd.unet).bfloat16(), copy.deepcopy(sd.vae).to("meta")
    for part, advice in [
        ({"tokenizer": ...}, "`tokenizer` is still empty"),
        ({"unet": type(sd.unet)}, "`unet` is the class UNet2DConditionModel itself"),
        ({"vae": sd.unet}, "`vae` is a UNet2DConditionModel; it has to be a AutoencoderKL"),
        ({"scheduler": PNDMScheduler()}, "has to be a DDIMScheduler"),
        ({"scheduler": DDIMScheduler()}, "was trained with scaled_linear.*subfolder"),
        ({"unet": half}, r"dtype=model\.dtype"),
        ({"vae": away}, r"add \.to\(model\.device\)"),
    ]:
        assert_advice(advice, checks.modules, changed(sd, **part), model)


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
        assert_advice(advice, checks.text_embeddings, changed(sd, get_text_embeddings=wrong), model)


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
        assert_advice(advice, checks.guidance, wrong)


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
        assert_advice(advice, checks.prediction, wrong)


def test_ddim_step_and_its_mistakes(lesson):
    checks.ddim(lesson.ddim_step)

    def sigma(a, b, eta):
        return eta * ((1 - b) / (1 - a) * (1 - a / b)).sqrt()

    def step(s=sigma, room=lambda b, s: 1 - b - s**2, new=lambda s: s):
        def ddim_step(x_0, noise, a, b, eta, fresh):
            own = s(a, b, eta)
            return b.sqrt() * x_0 + room(b, own).sqrt() * noise + new(own) * fresh

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
        (step(s=lambda a, b, e: e * (1 - b).sqrt() / 2), "With eta = 0.5 the step is not right"),
    ]:
        assert_advice(advice, checks.ddim, wrong)


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
        (lambda self, *a: list(right(self, *a))[:2], "2 steps, not 3"),
        (forgetful, "does not continue from"),
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
        assert_advice(advice, checks.loop, changed(sd, denoise=wrong), model)
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
        assert_advice(advice, checks.loop, changed(sd, denoise=torch.no_grad()(body)), model)


def test_decoding_and_its_mistakes(lesson, sd, model):
    checks.decoding(sd, model)
    right, factor = lesson.decode_latents, sd.vae.config.scaling_factor
    for wrong, advice in [
        (lambda self, z: None, "returns None: is a `return` missing"),
        (lambda self, z: self.vae.decode(z), r"\.sample"),
        (lambda self, z: right(self, z)[..., :-1], "has the shape"),
        (lambda self, z: right(self, z * factor), "scaling factor was forgotten"),
        (lambda self, z: right(self, z * factor * factor), "do not multiply"),
        (lambda self, z: (right(self, z) + 1) / 2, r"in \[-1, 1\]"),
        (lambda self, z: -right(self, z), "not the images"),
        (lambda self, z: self.vae.decode(z / factor).sample, "no_grad"),
    ]:
        assert_advice(advice, checks.decoding, changed(sd, decode_latents=wrong), model)


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
        (left, "Entry 0 of the list is a Frame"),
        (video.side_by_side(left, right)[:-1], "4 frames and the folder 5"),
        ([frame.image for frame in left], "not wide enough"),
        (video.side_by_side(right, left), "sides are exchanged"),
        (video.side_by_side(left, right)[::-1], "run backwards"),
    ]:
        assert_advice(advice, checks.clip, wrong, *folders)


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
            "the weights, has the shape",
        ),
        (weighted(lambda s: s.softmax(-1)), "not scaled"),
        (weighted(lambda s: (s / 16).softmax(-1)), "not by the width"),
        (weighted(lambda s: (s / 4).softmax(-2)), "runs over the pixels"),
        (weighted(lambda s: s / 4), "Those are scores"),
        (weighted(lambda s: (s / 3).softmax(-1)), "not softmax"),
        (lambda q, k, v: (2 * right(q, k, v)[0], right(q, k, v)[1]), "product with the values"),
    ]:
        assert_advice(advice, checks.attention, wrong)


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
        assert_advice(advice, checks.strengths, wrong, steps)


ATTEMPTS = {
    "1.2 (i)": ("attention", ("key.transpose(-1, -2)", "key.T")),
    "1.2 (i) no transpose": ("attention", ("key.transpose(-1, -2)", "key")),
    "1.2 (c) numbers": ("guide", ("uncond + guidance", "uncond[None] + ... * guid")),
    "1.2 (d) swapped": ("predict_x0_and_noise", ("alpha_bar.sqrt() * x_t", "alpha_bar.sqrt * x_t")),
    "1.2 (e) ratio": ("ddim_step", ("eta * (", "eta * math.sqrt(")),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_attempts_that_ended_in_a_bare_error(attempt):
    name, changes = ATTEMPTS[attempt]
    lesson = rewrite(DETAILED, name, *changes)
    check = {
        "attention": checks.attention,
        "guide": checks.guidance,
        "predict_x0_and_noise": checks.prediction,
        "ddim_step": checks.ddim,
    }[name]
    advice = rf"^Your code raised \w+Error: (.|\n)*in line \d+ of `{name}`"
    assert_advice(advice, check, getattr(lesson, name))


def test_prediction_on_both_halves(lesson, sd, model):
    """`predict_x0_and_noise` is given the output for both halves, and the latents of one."""
    source = "guided = guide(uncond, cond, guidance_scale)"
    other = rewrite(DETAILED, "denoise", source, "guided = output[:, :3]")
    assert_advice(
        "Your code raised RuntimeError: The size of tensor",
        checks.loop,
        changed(sd, denoise=other.denoise),
        model,
    )
