"""The checks of lesson 1.2: its own solutions pass, and one mistake each gets its advice."""

import copy
import inspect
import itertools
from types import FunctionType

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
)
from PIL import Image, ImageFilter

from course import diffusion
from course.checks import task_1_2 as checks
from course.images import to_pil, video
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

    def tokens(self, texts):
        settings = {"padding": "max_length", "max_length": 77, "return_tensors": "pt"}
        return self.tokenizer(texts, **settings).input_ids

    def masked(self, texts):
        settings = {"padding": "max_length", "max_length": 77, "return_tensors": "pt"}
        with torch.no_grad():
            return self.text_encoder(**self.tokenizer(texts, **settings))[0]

    def in_two_calls(self, p, n):
        return torch.cat([encode(self, n), encode(self, p)])

    checks.text_embeddings(changed(sd, get_text_embeddings=in_two_calls), model)
    for wrong, advice in [
        (lambda self, p, n: None, "returns None: is a `return` missing"),
        (
            lambda self, p, n: self.text_encoder(torch.zeros(1, 77, dtype=torch.long)),
            r"first entry.*\[0\]",
        ),
        (lambda self, p, n: encode(self, n + p, entry=1), "one vector a text"),
        (lambda self, p, n: tokens(self, n + p), "pass them to the text encoder"),
        (lambda self, p, n: encode(self, n + p, padding=True), 'padding="max_length"'),
        (lambda self, p, n: encode(self, p), "all four in one batch"),
        (lambda self, p, n: encode(self, p + n), "prompts come first"),
        (
            lambda self, p, n: encode(self, n + p[::-1]),
            "not those of the text encoder for these texts",
        ),
        (lambda self, p, n: encode(self, n + p, truncation=False), "truncation=True"),
        (lambda self, p, n: masked(self, n + p), "attention mask"),
        (
            lambda self, p, n: encode(self, [x for pair in zip(n, p, strict=True) for x in pair]),
            "alternate",
        ),
        (lambda self, p, n: encode(self, n + p).sum(1), "one vector a text"),
        (lambda self, p, n: encode(self, n + p).long(), "has the type torch.int64"),
    ]:
        assert_advice(advice, checks.text_embeddings, changed(sd, get_text_embeddings=wrong), model)


def test_guidance_and_its_mistakes(lesson):
    checks.guidance(lesson.guide)
    checks.guidance(lambda u, c, w: (1 - w) * u + w * c)
    checks.guidance(torch.lerp)
    for wrong, advice in [
        (lambda u, c, w: None, "returns None: is a `return` missing"),
        (lambda u, c, w: c + w * (c - u), "wrong term.*their w is our w - 1"),
        (lambda u, c, w: (1 + w) * c - w * u, "wrong term.*their w is our w - 1"),
        (lambda u, c, w: u + w * (u - c), "away from the prompt"),
        (lambda u, c, w: u + w * c, "Scale the difference"),
        (lambda u, c, w: w * (c - u), "add it to `uncond`"),
        (lambda u, c, w: u + (c - u), "makes no difference"),
        (lambda u, c, w: u + w * (c - u) / 2, "not uncond"),
    ]:
        assert_advice(advice, checks.guidance, wrong)


def test_prediction_and_its_mistakes(lesson):
    checks.prediction(lesson.predict_x0_and_noise)
    checks.prediction(diffusion.predict_x0_and_noise)

    def by_angle(x_t, output, alpha_bar, prediction_type):
        """The quarter circle: cosine and sine of the angle."""
        angle = alpha_bar.sqrt().acos()
        if prediction_type == "epsilon":
            return x_t / angle.cos() - angle.tan() * output, output
        if prediction_type != "v_prediction":
            raise ValueError(prediction_type)
        x_0 = angle.cos() * x_t - angle.sin() * output
        return x_0, (x_t - angle.cos() * x_0) / angle.sin()

    checks.prediction(by_angle)
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
        (
            of_v(
                lambda x, o, a: right(x, o, a, "v_prediction")[0],
                lambda x, o, a: a.sqrt() * o - (1 - a).sqrt() * x,
            ),
            "the signs are off",
        ),
        (
            of_v(
                lambda x, o, a: right(x, o, a, "v_prediction")[0],
                lambda x, o, a: a.sqrt() * x + (1 - a).sqrt() * o,
            ),
            "two roots are exchanged",
        ),
        (of_epsilon(lambda x, o, a: (x - (1 - a).sqrt() * o) / a.sqrt() * 0 / 0), "is not finite"),
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
    checks.ddim(diffusion.ddim_step)

    def by_variances(x_0, noise, a, b, eta, fresh):
        variance = eta**2 * (1 - b) / (1 - a) * (1 - a / b)
        mean = torch.sqrt(b) * x_0 + torch.sqrt(1 - b - variance) * noise
        return mean + torch.sqrt(torch.as_tensor(variance)) * fresh

    checks.ddim(by_variances)
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
        (step(s=lambda a, b, e: sigma(a, b, 1)), "`eta` is missing in sigma"),
        (
            step(s=lambda a, b, e: e * ((1 - b) / (1 - a) * (1 - b / a)).sqrt()),
            "in sigma the ratio is alpha_bar / alpha_bar_prev",
        ),
        (lambda x, n, a, b, e, f: step()(x, n, a, b, e, f).sum(), "has the shape"),
    ]:
        assert_advice(advice, checks.ddim, wrong)


# --- The timesteps and the loop


@pytest.mark.parametrize("right", ["lesson", "course", "formulas", "scheduler"])
def test_timesteps_in_several_ways(lesson, right):
    def by_formulas(config, count):
        total, numbers = config.num_train_timesteps, range(count)
        if config.timestep_spacing == "trailing":
            return [round(total - i * total / count) - 1 for i in numbers]
        if config.timestep_spacing == "leading":
            rising = [i * (total // count) + config.steps_offset for i in numbers]
        else:
            rising = [round(i * (total - 1) / max(count - 1, 1)) for i in numbers]
        return np.array(rising[::-1])

    def by_scheduler(config, count):
        scheduler = DDIMScheduler(**vars(config))
        scheduler.set_timesteps(count)
        return scheduler.timesteps[:count]

    functions = {"lesson": lesson.timesteps, "course": diffusion.timesteps}
    checks.schedule((functions | {"formulas": by_formulas, "scheduler": by_scheduler})[right])


def test_timesteps_and_their_mistakes(lesson):
    right = lesson.timesteps

    def only(spacing, wrong):
        """Right for the other spacings."""

        def function(config, count):
            if config.timestep_spacing != spacing:
                return right(config, count)
            return wrong(config.num_train_timesteps, count, config)

        return function

    def trailing(wrong):
        return only("trailing", lambda T, n, c: wrong(T, n))

    def leading(wrong):
        return only("leading", lambda T, n, c: wrong(T, n, c.steps_offset))

    def linspace(wrong):
        return only("linspace", lambda T, n, c: wrong(T, n))

    for wrong, advice in [
        (lambda config, count: None, "returns None: is a `return` missing"),
        (lambda config, count: count, "not a list of numbers"),
        (lambda config, count: right(config, count)[::-1], "reverse the list"),
        (lambda config, count: right(config, count)[:-1], "there are 7 timesteps"),
        (trailing(lambda T, n: np.arange(T, 0, -T / n).round() - 1), "for|cut the list"),
        (trailing(lambda T, n: np.arange(T, 0, -T / n)[:n].round()), "subtract 1"),
        (trailing(lambda T, n: np.arange(T, 0, -T / n)[:n] - 1), "Round them to whole numbers"),
        (trailing(lambda T, n: [int(T - i * T / n) - 1 for i in range(n)]), "int.. rounds down"),
        (trailing(lambda T, n: [round(1000 - i * 1000 / n) - 1 for i in range(n)]), "take T from"),
        (trailing(lambda T, n: [T - 1 - i * (T // n) for i in range(n)]), "the list has to be"),
        (leading(lambda T, n, k: [i * (T // n) + k for i in range(n)]), "reverse the list"),
        (leading(lambda T, n, k: [i * (T // n) for i in range(n)][::-1]), "steps_offset"),
        (leading(lambda T, n, k: [i * T / n + k for i in range(n)][::-1]), "Round them"),
        (
            leading(lambda T, n, k: [round(i * T / n) + k for i in range(n)][::-1]),
            "rounded down before it is multiplied",
        ),
        (linspace(lambda T, n: np.linspace(0, T - 1, n).round()), "reverse the list"),
        (linspace(lambda T, n: np.linspace(0, T, n).round()[::-1]), "the list has to be"),
        (linspace(lambda T, n: np.linspace(0, T - 1, n)[::-1]), "Round them to whole numbers"),
        (linspace(lambda T, n: np.linspace(0, T - 1, n)[::-1].astype(int)), "int.. rounds down"),
        (linspace(lambda T, n: [T - 1 - i * T // n for i in range(n)]), "the list has to be"),
        (lambda config, count: right(config, count, 1), "A call does not fit"),
        (lambda config, count: np.arange(config.T), "Your code raised AttributeError"),
    ]:
        assert_advice(advice, checks.schedule, wrong)


def test_the_loop_in_other_words(lesson, sd, model):
    checks.loop(sd, model)

    @torch.no_grad()
    def one_by_one(self, latents, embeddings, count, w, eta=0.0, generators=()):
        """Two calls of the network, course.diffusion, and a list of levels."""
        visited = [*diffusion.timesteps(self.scheduler.config, count), diffusion.END]
        levels = [diffusion.alpha_bar_at(self.scheduler, t) for t in visited]
        for i, t in enumerate(visited[:-1]):
            halves = embeddings.chunk(2)
            outputs = [self.unet(latents, t, encoder_hidden_states=e).sample for e in halves]
            guided = diffusion.guide(*outputs, w)
            kind = self.scheduler.config.prediction_type
            x_0, noise = diffusion.predict_x0_and_noise(latents, guided, levels[i], kind)
            shape = latents.shape[1:]
            fresh = diffusion.draw_noise(generators, shape, "cpu") if eta else torch.zeros(1)
            x_prev = diffusion.ddim_step(x_0, noise, *levels[i : i + 2], eta, fresh)
            yield lesson.SamplingStep(t, latents, *outputs, x_0, x_prev)
            latents = x_prev

    checks.loop(changed(sd, denoise=one_by_one), model)

    def as_list(self, *arguments):
        return list(lesson.denoise(self, *arguments))

    checks.loop(changed(sd, denoise=as_list), model)


def test_the_loop_and_its_mistakes(lesson, sd, model):
    right = lesson.denoise

    def empty(self, latents, *others):
        yield lesson.SamplingStep(0, latents, ..., ..., ..., ...)

    def forgetful(self, latents, embeddings, count, w, eta, generators):
        """Begins every step with the first noise."""
        for step in right(self, latents, embeddings, count, w, eta, generators):
            yield step._replace(x_t=latents)

    for wrong, advice in [
        (lambda self, *a: None, "`denoise` hands out nothing: it has to `yield`"),
        (lambda self, *a: [], "0 steps, not 3"),
        (empty, "1 steps, not 3"),
        (lambda self, *a: list(right(self, *a))[-1], "is a SamplingStep; it has to `yield`"),
        (lambda self, *a: [s.x_prev for s in right(self, *a)], "A step is a Tensor"),
        (lambda self, *a: [s._replace(x_prev=...) for s in right(self, *a)], "`x_prev` of a step"),
        (
            lambda self, *a: [s._replace(x_0=s.x_t) for s in right(self, *a)],
            "not what the steps keep",
        ),
        (
            lambda self, *a: [s._replace(cond=s.uncond, uncond=s.cond) for s in right(self, *a)],
            "not what the steps keep",
        ),
        (
            lambda self, *a: [s._replace(cond=torch.cat([s.cond] * 2)) for s in right(self, *a)],
            "`cond` of a step has the shape",
        ),
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


LEVELS = "alpha_bar, alpha_bar_prev = self.alpha_bar_at(t), self.alpha_bar_at(t_prev)"


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        (
            (LEVELS, "alpha_bar, alpha_bar_prev = self.alpha_bar_at(t_prev), self.alpha_bar_at(t)"),
            "Are alpha_bar and alpha_bar_prev exchanged",
        ),
        (
            (LEVELS, "alpha_bar = alpha_bar_prev = self.alpha_bar_at(t_prev)"),
            "Both noise levels of a step are the same",
        ),
        (
            (LEVELS, "alpha_bar = alpha_bar_prev = self.alpha_bar_at(t)"),
            "Both noise levels of a step",
        ),
        (("self.model.prediction_type", '"epsilon"'), "but not for a model that predicts v_pred"),
        (("guided, alpha_bar, self.model", "uncond, alpha_bar, self.model"), "Only the negative"),
        (("guided, alpha_bar, self.model", "cond, alpha_bar, self.model"), "unguided"),
        (("guided, alpha_bar, self.model", "output, alpha_bar, self.model"), "size of tensor"),
        (("        latents = x_prev", "        pass"), "does not continue from"),
        (("uncond, cond = output.chunk(2)", "cond, uncond = output.chunk(2)"), "two halves"),
        (("[latents, latents]", "[latents]"), "Your code raised"),
        ((", encoder_hidden_states=embeddings", ""), "Your code raised TypeError"),
        ((", END]", "]"), "2 steps, not 3"),
    ],
)
def test_a_loop_with_one_line_changed(sd, model, changes, advice):
    other = rewrite(DETAILED, "denoise", *changes)
    assert_advice(advice, checks.loop, changed(sd, denoise=other.denoise), model)


def test_decoded_steps_and_their_mistakes(lesson, sd, model):
    checks.decoded_steps(sd, model)
    right = lesson.decode_steps

    def in_one_tensor(self, name):
        return torch.stack(right(self, name))

    def with_if(self, name):
        latents = [step.x_t if name == "x_t" else step.x_0 for step in self.steps]
        return [*map(self.decode_latents, latents), self.decode_latents(self.steps[-1].x_prev)]

    for function in (in_one_tensor, with_if):
        checks.decoded_steps(changed(sd, decode_steps=function), model)
    for wrong, advice in [
        (lambda self, name: None, "returns None"),
        (lambda self, name: right(self, name)[:-1], "result of sampling is missing"),
        (lambda self, name: [*right(self, name)[:-1], right(self, name)[-2]], "last image is that"),
        (lambda self, name: right(self, "x_0"), "`name` is ignored: x_t was requested"),
        (lambda self, name: right(self, "x_t"), "`name` is ignored: x_0 was requested"),
        (lambda self, name: right(self, name)[::-1], "run backwards"),
        (
            lambda self, name: [*(getattr(s, name) for s in self.steps), self.steps[-1].x_prev],
            "Those are latents",
        ),
        (lambda self, name: [self.decode_latents(s.x_prev) for s in self.steps], "all x_prev"),
        (lambda self, name: [x[:1] for x in right(self, name)], "not the decoded latents"),
        (lambda self, name: [x[0] for x in right(self, name)], "not the decoded latents"),
        (lambda self, name: right(self, name)[0], "is a Tensor; it has to be a list"),
        (lambda self, name: right(self, name + "_"), "Your code raised AttributeError"),
        (lambda self, name: [None for _ in right(self, name)], "Entry 0 of the list is a NoneType"),
    ]:
        assert_advice(advice, checks.decoded_steps, changed(sd, decode_steps=wrong), model)


SAMPLE_CHANGES = [
    (
        ("request.prompts, request.negative_prompts", "request.negative_prompts, request.prompts"),
        "Prompts and negative prompts are exchanged",
    ),
    (
        ("request.prompts, request.negative_prompts", 'request.prompts, [""] * len(prompts)'),
        "negative prompts have no effect",
    ),
    (("count, w, request.eta", "count, w, 0.0"), "`eta` has no effect"),
    (
        ("request.num_sampling_steps, request.guidance_scale", "request.num_sampling_steps, 5.0"),
        "`guidance_scale` has no effect",
    ),
    (
        ("request.num_sampling_steps, request.guidance_scale", "3, request.guidance_scale"),
        "one entry a step",
    ),
    (
        ("self.steps = collect_steps(loop, count)", "self.steps = list(loop)[:-1]"),
        "one entry a step",
    ),
    (
        ("draw_noise(request.generators, request.shape", "torch.randn(2, *request.shape"),
        "Your code raised|does not start from the noise",
    ),
    (
        ("self.decode_latents(self.steps[-1].x_prev)", "self.decode_latents(self.steps[-1].x_t)"),
        "images are not those of the last x_prev",
    ),
    (("to_pil(image) for image in", "image for image in"), "Convert each image with `to_pil`"),
    (("return [to_pil(image)", "[to_pil(image)"), "returns None"),
    (("save_frames(folder, self.decode_steps(name), times)", "pass"), "got none"),
    (("request.frames.items()", '{"x_t": save_dir}.items()'), "have to be saved; got"),
    (("*(step.t for step in self.steps), 0]", "*range(count), 0]"), "have to be saved; got"),
    (
        ("self.denoise(latents, embeddings, count", "self.denoise(latents, embeddings * 0, count"),
        "pass on the embeddings",
    ),
    (("request.shape, self", "(4, 8, 8), self"), "the shape of the noise is request.shape"),
]


@pytest.mark.parametrize(("changes", "advice"), SAMPLE_CHANGES)
def test_sample_with_one_line_changed(sd, model, changes, advice):
    other = rewrite(DETAILED, "sample", *changes)
    assert_advice(advice, checks.sampling, changed(sd, sample=other.sample), model)


def test_sample_in_other_words(lesson, sd, model):
    checks.sampling(sd, model)

    def one_prompt_at_a_time(
        self, prompts, negative_prompts="", steps=3, w=5.0, *frames, **options
    ):
        """Each image by itself: a seed gives the same image alone and in a batch."""
        arguments = dict(zip(("save_dir", "save_x_t", "save_x_0"), frames, strict=False)) | options
        steps = arguments.pop("num_sampling_steps", steps)
        w = arguments.pop("guidance_scale", w)
        request = diffusion.check_request(
            self.model, prompts, negative_prompts, steps, w, **arguments
        )
        embeddings = self.get_text_embeddings(request.prompts, request.negative_prompts)
        latents = diffusion.draw_noise(request.generators, request.shape, "cpu")
        loop = self.denoise(latents, embeddings, steps, w, request.eta, request.generators)
        self.steps = list(loop)
        if "x_t" in request.frames:
            times = [step.t for step in self.steps]
            lesson.save_frames(request.frames["x_t"], self.decode_steps("x_t"), [*times, 0])
        return [lesson.to_pil(self.decode_latents(x[None])[0]) for x in self.steps[-1].x_prev]

    checks.sampling(changed(sd, sample=one_prompt_at_a_time), model)


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
        (video.side_by_side(left[:1] * 5, left[:1] * 5)[:3], "3 frames and the folder 5"),
    ]:
        assert_advice(advice, checks.clip, wrong, *folders)
    clip = video.side_by_side(left, right)
    assert_advice("There are no frames in", checks.clip, clip, tmp_path / "a", tmp_path / "b")
    checks.clip(clip, *folders, left[0].image)
    example = right[-1].image
    assert_advice("a prompt or a seed of your own", checks.clip, clip, *folders, example)


def test_attention_and_its_mistakes(lesson):
    checks.attention(lesson.attention)

    def weighted(weights):
        return lambda q, k, v: (
            weights(q @ k.transpose(-1, -2)) @ v,
            weights(q @ k.transpose(-1, -2)),
        )

    right = weighted(lambda s: (s / 4).softmax(-1))
    checks.attention(right)

    def by_einsum(query, key, value):
        scores = torch.einsum("...nd,...ld->...nl", query, key) * query.shape[-1] ** -0.5
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        weights = weights / weights.sum(-1, keepdim=True)
        return torch.einsum("...nl,...ld->...nd", weights, value), weights

    checks.attention(by_einsum)
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
        (weighted(lambda s: s.softmax(-1) / 4), "The softmax comes last"),
        (lambda q, k, v: right(q, k, k), "product with the values"),
        (lambda q, k, v: right(q, k, v)[::-1], "the weights, has the shape"),
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
        ([(c - u).norm() / c.norm() for u, c in tensors], "not of `cond`"),
        ([((c - u) / u).norm() for u, c in tensors], "norm of a ratio"),
        ([(c.norm() - u.norm()) / u.norm() for u, c in tensors], "difference of norms"),
        ([c.norm() / u.norm() for u, c in tensors], "ratio of the other two norms"),
        ([1 / x for x in right], "upside down"),
        ([float("nan")] * 4, "is not finite"),
        ([[x] for x in right], "Entry 0 of `strengths` is a list"),
    ]:
        assert_advice(advice, checks.strengths, wrong, steps)


# --- Inversion and the challenges


def test_inversion_and_its_mistakes(lesson, sd, model):
    checks.inversion(sd, model)
    right = lesson.invert

    @torch.no_grad()
    def with_both_halves(self, latents, prompt, count=3):
        """The network at the beginning of a step, as in the paper; guidance of 1; course's step."""
        visited = [*diffusion.timesteps(self.scheduler.config, count), diffusion.END][::-1]
        embeddings = self.get_text_embeddings([prompt], [""])
        kind = self.model.prediction_type
        for t, t_next in itertools.pairwise(visited):
            both = torch.cat([latents] * 2)
            output = self.unet(both, max(t, 0), encoder_hidden_states=embeddings).sample
            a, b = (diffusion.alpha_bar_at(self.scheduler, x) for x in (t, t_next))
            noise = diffusion.predict_noise(latents, output[1:], a, kind)
            latents = diffusion.ddim_inversion_step(latents, noise, a, b)
        return latents

    checks.inversion(changed(sd, invert=with_both_halves), model)
    for wrong, advice in [
        (lambda self, *a: None, "returns None"),
        (lambda self, x, *a: x, "the image itself"),
        (lambda self, *a: right(self, *a)[0], r"has the shape \(4, 8, 8\)"),
        (lambda self, *a: right(self, *a) + torch.randn(1, 4, 8, 8), "new random noise"),
        (lambda self, x, p, n: right(self, x, "", n), "text of the prompt is not used"),
        (lambda self, x, p, n: right(self, x, p, n + 1), "not the latents of DDIM inversion"),
        (lambda self, *a: right(self, *a) * 2, "not the latents of DDIM inversion"),
        (lambda self, x, p: right(self, x, p, 3), "A call does not fit"),
    ]:
        assert_advice(advice, checks.inversion, changed(sd, invert=wrong), model)


NEXT = "alpha_bar, alpha_bar_next = self.alpha_bar_at(t), self.alpha_bar_at(t_next)"
LAST_LINE = "latents = add_noise(x_0, noise, alpha_bar_next)"


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        (("pairwise(reversed(visited))", "pairwise(visited)"), "reverse the list of timesteps"),
        (("num_sampling_steps), END]", "num_sampling_steps)]"), "The first step is missing"),
        (
            (NEXT, NEXT.replace("bar, alpha_bar_next", "bar_next, alpha_bar")),
            "levels are exchanged",
        ),
        (
            (LAST_LINE, "latents = ddim_step(x_0, noise, alpha_bar, alpha_bar_next, 0, 0)"),
            "`ddim_step` cannot go to a level with more noise",
        ),
        ((LAST_LINE, LAST_LINE.replace("bar_next", "bar")), "the image itself"),
        (("kind = self.model.prediction_type", 'kind = "epsilon"'), "for a model that predicts v_"),
        (('[prompt], [""])[1:]', '[prompt], [""])[:1]'), "text of the prompt is not used"),
        (('[prompt], [""])[1:]', '[""], [prompt])[1:]'), "text of the prompt is not used"),
        (('[prompt], [""])[1:]', '[prompt], [""])'), "Your code raised"),
        (("embeddings).sample.float()", "embeddings).float()"), "Your code raised AttributeError"),
    ],
)
def test_inversion_with_one_line_changed(sd, model, changes, advice):
    other = rewrite(DETAILED, "invert", *changes)
    assert_advice(advice, checks.inversion, changed(sd, invert=other.invert), model)


def blurred(image, radius):
    return image.filter(ImageFilter.GaussianBlur(radius))


def test_sdedit_and_its_mistakes(sd, photograph):
    """On a model that is not pocket; the judge is not asked."""

    def check(function):
        checks.sdedit(function, photograph, "a red car", "car", sd)

    check(lambda image, prompt, strength: blurred(image, 9 * strength))
    check(lambda image, prompt, strength=0.5: Image.blend(image, blurred(image, 9), strength))
    for wrong, advice in [
        (lambda image, prompt, strength: None, "returns None"),
        (lambda image, prompt, strength: np.asarray(image), "it has to be an image .PIL."),
        (lambda image, prompt, strength: image.resize((8, 8)), r"has \(8, 8\) pixels"),
        (lambda image, prompt, strength: blurred(image, 3), "`strength` makes no difference"),
        (lambda image, prompt, strength: blurred(image, 9 - 9 * strength), "stay closer"),
        (lambda image, prompt: image, "A call does not fit"),
        (
            lambda image, prompt, strength: Image.fromarray(
                (np.asarray(image) * (1 - strength) * torch.rand(1).item()).astype(np.uint8)
            ),
            "two different images|stay closer",
        ),
    ]:
        assert_advice(advice, check, wrong)


def test_inpainting_and_its_mistakes(sd, photograph):
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    with torch.no_grad():
        before = to_pil(sd.decode_latents(sd.encode_image(photograph))[0])

    def painted(box, color=(200, 30, 90)):
        image = before.copy()
        image.paste(color, box)
        return image

    def check(function):
        checks.inpainting(function, photograph, mask, "a red car", "car", sd)

    check(lambda image, mask, prompt: painted((16, 16, 48, 48)))
    check(lambda image, mask, prompt, seed=3: painted((20, 20, 40, 40)))
    for wrong, advice in [
        (lambda image, mask, prompt: None, "returns None"),
        (lambda image, mask, prompt: mask, "it has to be an image .PIL."),
        (lambda image, mask, prompt: before.crop((0, 0, 32, 32)), r"has \(32, 32\) pixels"),
        (lambda image, mask, prompt: before, "Inside of the mask nothing has changed"),
        (lambda image, mask, prompt: painted((0, 0, 64, 64)), "Outside of the mask the image has"),
        (lambda image, mask, prompt: painted((0, 0, 16, 64)), "Outside of the mask the image has"),
        (lambda image, prompt: before, "A call does not fit"),
    ]:
        assert_advice(advice, check, wrong)


@pytest.mark.parametrize("seen", ["car", "duck"])
def test_the_judge_decides_on_pocket(sd, photograph, monkeypatch, seen):
    monkeypatch.setattr("course.checks.task_1_2_inside._recognized", lambda image: seen)
    monkeypatch.setattr(type(sd.model), "is_embedded", True)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1

    def inpaint(image, mask, prompt):
        result = to_pil(sd.decode_latents(sd.encode_image(image))[0])
        result.paste((200, 30, 90), (16, 16, 48, 48))
        return result

    attempts = [
        lambda: checks.sdedit(lambda d, p, s: blurred(d, 9 * s), photograph, "a car", "car", sd),
        lambda: checks.inpainting(inpaint, photograph, mask, "a car", "car", sd),
    ]
    for attempt in attempts:
        if seen == "car":
            attempt()
        else:
            assert_advice("the judge sees duck, not car", attempt)


def test_the_solver_and_its_mistakes(lesson, sd):
    right = lesson.sample_dpm
    checks.solver(right, sd)

    def by_scheduler(sd, latents, embeddings, count, guidance_scale):
        """diffusers' DPM-Solver++, with the timesteps of the lesson."""
        scheduler = DPMSolverMultistepScheduler.from_config(
            sd.scheduler.config, final_sigmas_type="zero", lower_order_final=True
        )
        scheduler.set_timesteps(count)
        for t in scheduler.timesteps:
            output = sd.unet(latents, int(t)).sample
            latents = scheduler.step(output, t, latents).prev_sample
        return latents

    checks.solver(by_scheduler, sd)

    def ddim(sd, latents, embeddings, count, guidance_scale):
        *_, last = sd.denoise(latents, embeddings, count, guidance_scale)
        return last.x_prev

    def exact(sd, latents, embeddings, count, guidance_scale):
        return sd.unet.exact(latents, count)

    for wrong, advice in [
        (..., "still empty"),
        (lambda *a: None, "returns None"),
        (ddim, "no better than DDIM, a method of first order"),
        (exact, "The error is zero"),
        (lambda *a: right(*a)[0], "has the shape"),
        (lambda *a: 2 * right(*a), "no better than DDIM"),
        (lambda *a: (ddim(*a) + right(*a)) / 2, "At most 0.5 of DDIM's"),
        (lambda *a: right(*a) / 0, "is not finite"),
        (lambda sd, latents: latents, "A call does not fit"),
    ]:
        assert_advice(advice, checks.solver, wrong, sd)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        (("before is not None and t_prev != END", "False"), "no better than DDIM"),
        (("before / (2 * r)", "before / r"), "no better than|At most 0.5"),
        (("r = h_before / h", "r = h / h_before"), "no better than|At most 0.5"),
        (("(1 + 1 / (2 * r))", "(1 - 1 / (2 * r))"), "no better than|At most 0.5"),
        (("(-h).exp()", "h.exp()"), "no better than|is not finite"),
        ((" and t_prev != END", ""), "is not finite|At most 0.5|no better than"),
        (("b.sqrt() * (", "a.sqrt() * ("), "no better than"),
    ],
)
def test_the_solver_with_one_line_changed(sd, changes, advice):
    other = rewrite(DETAILED, "sample_dpm", *changes)
    assert_advice(advice, checks.solver, other.sample_dpm, sd)


ATTEMPTS = {
    "1.2 (l)": ("attention", ("key.transpose(-1, -2)", "key.T")),
    "1.2 (l) no transpose": ("attention", ("key.transpose(-1, -2)", "key")),
    "1.2 (d) numbers": ("guide", ("uncond + guidance", "uncond[None] + ... * guid")),
    "1.2 (e) swapped": ("predict_x0_and_noise", ("alpha_bar.sqrt() * x_t", "alpha_bar.sqrt * x_t")),
    "1.2 (f) ratio": ("ddim_step", ("eta * (", "eta * math.sqrt(")),
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
