"""The checks of task 3: right work passes, and each usual mistake gets its advice.

Most wrong solutions are the reference solution with a change in its text: old, new, advice.
"""

from pathlib import Path
from types import ModuleType

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from course import notebooks
from course.checks import task_3 as checks
from course.images.video import write_video
from task_3_DreamFusion.nerf import sd as reference
from task_3_DreamFusion.nerf.provider import orbit
from task_3_DreamFusion.nerf.renderer import PLAIN_COLOR
from tests.course.checks.helpers import assert_advice, rewrite

LESSON = notebooks.ROOT / "task_3_DreamFusion" / "task_3_DreamFusion.ipynb"
CAMERAS = orbit(1, elevation=30, start=40)


def changed_sd(*changes: str) -> ModuleType:
    """Return nerf/sd.py with changes in its text: old, new, old, new, ..."""
    source = Path(reference.__file__).read_text(encoding="utf-8")
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    module = ModuleType("student")
    exec(compile(source, "sd.py", "exec"), module.__dict__)
    return module


def changed(name: str, *changes: str):
    """Return the function `name` of the lesson with such changes."""
    return getattr(rewrite(LESSON, name, *changes), name)


# --- 3 (a)


def test_the_text_embedding_and_its_mistakes(model, pipe, capsys):
    def embed(batch=0, encode=True, **options):
        @torch.no_grad()
        def function(text, tokenizer, text_encoder, length):
            settings = {"padding": "max_length", "max_length": length, "truncation": True}
            ids = tokenizer(text, return_tensors="pt", **settings | options).input_ids
            return (text_encoder(ids)[0] if encode else ids)[batch]

        return function

    check = lambda function: checks.prompt_embedding(function, model, pipe.text_encoder)
    check(embed())
    check(reference.embed_text)
    check(
        lambda text, tokenizer, encoder, length: embed(batch=-1)(text, tokenizer, encoder, length)
    )
    assert capsys.readouterr().out.count("✓") == 3
    for wrong, advice in [
        (lambda *_: ..., "returns is still empty"),
        (lambda *_: None, "returns None"),
        (lambda *_: [1.0], "is a list"),
        (embed(encode=False), "Those are the tokens"),
        (embed(batch=slice(None)), "batch of one"),
        (embed(padding=False), "rows of 77 tokens"),
        (embed(max_length=30), r"of shape \(77, 16\)"),
        (lambda text, *others: embed()("a car", *others), "not the text encoder's vectors"),
        (embed(truncation=False), "truncation=True cuts it"),
        (lambda *all: embed()(*all).requires_grad_(), "no_grad"),
        (lambda text: text, "raised TypeError"),
    ]:
        assert_advice(advice, check, wrong)


# --- 3 (b)


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        ("timesteps = ((num_timesteps - 1) * share).round().long()", "", "still empty"),
        (".round().long()", ".round()", "whole numbers"),
        ("((num_timesteps - 1) * share).round()", "share.round()", "0 and 1"),
        ("torch.rand(count, generator=generator)", "torch.rand(count)", "same seed differ"),
        (
            "torch.randperm(count, generator=generator)",
            "torch.randperm(count)",
            "same seed differ",
        ),
        (
            "torch.rand(count, generator=generator)",
            "0.5",
            "do not reach the ends of the range",
        ),
        (
            "(torch.arange(count) + torch.rand(count, generator=generator)) / count",
            "torch.rand(count, generator=generator)",
            "not stratified",
        ),
        ("shares = shares[torch.randperm(count, generator=generator)]", "", "keeps its own part"),
        ("lowest + (highest - lowest) * shares", "lowest + highest * shares", "For the range"),
        ("lowest + (highest - lowest) * shares", "shares", "For the range"),
        ("lowest + (highest - lowest) * shares", "highest * shares", "For the range"),
        ("((num_timesteps - 1) * share)", "((num_timesteps - 1) * share * share)", "range"),
        ("((num_timesteps - 1) * share)", "(num_timesteps * share)", "The highest timestep is 999"),
        (
            "lowest + (highest - lowest) * shares",
            "(lowest + highest) / 2 + 0 * shares",
            "no effect",
        ),
        ("* shares\n    timesteps", "* shares[:1]\n    timesteps", "shape|stratified"),
        ("* shares\n    timesteps", "* shares[None]\n    timesteps", "shape"),
    ],
)
def test_the_timesteps_and_their_mistakes(old, new, advice):
    assert_advice(advice, checks.timesteps, changed_sd(old, new).sample_timesteps)


def test_right_timesteps(capsys):
    def other_order(lowest, highest, num_timesteps, generator):
        count = len(lowest)
        part = torch.randperm(count, generator=generator)
        shares = (part + torch.rand(count, generator=generator)) / count
        return ((num_timesteps - 1) * torch.lerp(lowest, highest, shares)).round().to(torch.int64)

    def floored(lowest, highest, num_timesteps, generator):
        count, last = len(lowest), num_timesteps - 1
        shares = torch.arange(count).float().add(torch.rand(count, generator=generator)).div(count)
        shares = shares[torch.randperm(count, generator=generator)]
        low, high = lowest.double() * last, highest.double() * last
        return (low + shares * (high - low) + 0.5).floor().long()

    for function in (reference.sample_timesteps, other_order, floored):
        checks.timesteps(function)
    assert capsys.readouterr().out.count("✓") == 3


# --- 3 (c)


NOISE_PRED = "noise_pred = uncond + guidance_scale * (cond - uncond)"


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        (NOISE_PRED, "", "still empty"),
        (NOISE_PRED, "noise_pred = cond", "without guidance"),
        (NOISE_PRED, "noise_pred = uncond", "negative prompt alone"),
        (NOISE_PRED, "noise_pred = uncond + guidance_scale * cond", "scales the difference"),
        (
            NOISE_PRED,
            "noise_pred = cond + guidance_scale * (cond - uncond)",
            r"\(1 \+ w\) is the convention",
        ),
        (NOISE_PRED, "noise_pred = guidance_scale * (cond - uncond)", "is missing: add it"),
        ("uncond, cond = noise_preds", "cond, uncond = noise_preds", "exchanged"),
        (NOISE_PRED, "noise_pred = uncond - guidance_scale * (cond - uncond)", "wrong sign"),
        (
            "diffusion.predict_noise(noisy_latents, part, alpha_bar, prediction_type)",
            "part",
            "v_prediction returns v",
        ),
        ("alpha_bar, prediction_type)\n", "1 - alpha_bar, prediction_type)\n", "exchanged"),
        (
            "diffusion.predict_noise(noisy_latents, part, alpha_bar, prediction_type)",
            "part if prediction_type[0] == 'e' else alpha_bar * part "
            "+ (1 - alpha_bar) * noisy_latents",
            "roots of the conversion from v are missing",
        ),
        ("prediction_type)\n        for", "'v_prediction')\n        for", "'epsilon' that is not"),
        (".repeat(count, 1, 1, 1)", "", "repeat latents and timesteps"),
        ("timesteps.repeat(count)", "timesteps", "repeat latents and timesteps"),
        ("embeddings.flatten(0, 1)", "embeddings[0]", "repeat latents and timesteps"),
        (".repeat(count, 1, 1, 1)", ".repeat_interleave(count, 0)", "that is not the guided"),
        (".to(embeddings.dtype)", "", "latents of another type"),
        (".sample.float()", ".sample.to(embeddings.dtype)", "go on in float32"),
        (".sample.float()", "", "raised AttributeError"),
        ("return perp_neg(noise_preds)", "pass", "raised ValueError|`perp_neg` was given"),
        (
            "return perp_neg(noise_preds)",
            "return perp_neg(noise_preds[2:])",
            "got 2 predictions|raised",
        ),
        ("return perp_neg(noise_preds)", "return -perp_neg(noise_preds)", "its result is returned"),
    ],
)
def test_the_noise_prediction_and_its_mistakes(old, new, advice):
    assert_advice(advice, checks.noise_prediction, changed_sd(old, new).predict_noise)


def test_two_calls_of_the_denoiser_are_one_too_many():
    def twice(unet, x, t, embeddings, alpha_bar, kind, w, perp_neg=None):
        parts = [unet(x, t, encoder_hidden_states=e).sample for e in embeddings]
        return parts[0] + w * (parts[1] - parts[0])

    assert_advice("called 2 times", checks.noise_prediction, twice)
    without = lambda *arguments: arguments[1]
    assert_advice("was not called", checks.noise_prediction, without)


def test_right_noise_predictions(capsys):
    @torch.no_grad()
    def by_hand(unet, x_t, t, embeddings, alpha_bar, kind, w, perp_neg=None):
        x = torch.cat([x_t] * len(embeddings)).to(embeddings.dtype)
        times = torch.cat([t] * len(embeddings))
        output = unet(x, times, encoder_hidden_states=torch.cat(list(embeddings))).sample
        parts = output.float().unflatten(0, (len(embeddings), -1))
        if kind == "v_prediction":
            parts = alpha_bar.sqrt() * parts + (1 - alpha_bar).sqrt() * x_t
        if perp_neg is not None:
            return perp_neg(list(parts))
        return torch.lerp(parts[0], parts[1], w)

    def positional(unet, x_t, t, embeddings, *others):
        call = lambda x, times, encoder_hidden_states: unet(x, times, encoder_hidden_states)
        return reference.predict_noise(call, x_t, t, embeddings, *others)

    for function in (reference.predict_noise, by_hand, positional):
        checks.noise_prediction(function)
    assert capsys.readouterr().out.count("✓") == 3


# --- 3 (d)


NOISE = "noise = torch.randn(latents.shape, generator=generator).to(latents.device)"
NOISY = "noisy_latents = diffusion.add_noise(latents.detach(), noise, alpha_bar)"
GRADIENT = "gradient = (omega * (noise_pred - noise)).detach()"
LOSS = "loss = (latents * gradient).sum() / len(latents)"


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        (LOSS, "", "`loss` of what `sds_step` returns is still empty"),
        (NOISE, "noise = torch.randn_like(latents)", "same seed have different noise"),
        (NOISE, "noise = torch.rand(latents.shape, generator=generator)", "never negative"),
        (NOISE, "noise = torch.randn(latents.shape, generator=torch.Generator())", "Another seed"),
        (
            NOISE,
            "noise = torch.randn(latents[:1].shape, generator=generator).expand_as(latents)",
            "All images have the same noise",
        ),
        ("latents.detach(), noise, alpha_bar)", "latents, noise, alpha_bar)", "the Jacobian"),
        (NOISY, "noisy_latents = latents.detach()", "clean latents"),
        (NOISY, "noisy_latents = noise", "nothing but noise"),
        (NOISY, "noisy_latents = latents.detach() + noise", "added unscaled"),
        (
            NOISY,
            "noisy_latents = alpha_bar * latents.detach() + (1 - alpha_bar) * noise",
            "without the square roots",
        ),
        ("noise, alpha_bar)\n    noise_pred", "noise, 1 - alpha_bar)\n    noise_pred", "exchanged"),
        (
            NOISY,
            "noisy_latents = latents.detach() + (1 - alpha_bar).sqrt() * noise",
            "latents are not scaled",
        ),
        (
            NOISY,
            "noisy_latents = alpha_bar.sqrt() * latents.detach() + noise",
            "noise is not scaled",
        ),
        ("noise_pred = predict(noisy_latents, timesteps)", "noise_pred = noise", "not called"),
        (
            "noise_pred = predict(noisy_latents, timesteps)",
            "noise_pred = predict(noisy_latents)",
            "raised TypeError",
        ),
        ("(noise_pred - noise)", "(noise - noise_pred)", "opposite sign"),
        (GRADIENT, "gradient = (noise_pred - noise).detach()", "weight omega"),
        (GRADIENT, "gradient = omega * noise_pred", "noise that was added is missing"),
        (GRADIENT, "gradient = omega * (noise_pred - noise) ** 2", "no square"),
        (GRADIENT, "gradient = 2 * omega * (noise_pred - noise)", "factor 2"),
        (GRADIENT, "gradient = omega**2 * (noise_pred - noise)", "counts twice"),
        (GRADIENT, "gradient = (noise_pred - noise) / omega", "not a divisor"),
        (GRADIENT, "gradient = omega * (noise_pred - noise) / len(latents)", "only the loss is"),
        (GRADIENT, "gradient = (omega * (noise_pred + noise)).detach()", "is not omega"),
        (GRADIENT, "gradient = (omega * (noise_pred - noise)).sum()", "`gradient` has the shape"),
        (LOSS, "loss = latents * gradient", "add them up"),
        (LOSS, "loss = -(latents * gradient).sum() / len(latents)", "wrong sign"),
        (LOSS, "loss = (latents * gradient).sum()", "not divided by the number of images"),
        (LOSS, "loss = (latents * gradient).mean()", "larger images would learn less"),
        (LOSS, "loss = (latents.detach() * gradient).sum()", "No gradient reaches the latents"),
        (
            LOSS,
            "loss = (latents - latents.detach() + gradient).square().sum() / len(latents)",
            "factor 2",
        ),
        (LOSS, "loss = (latents * gradient).sum() / len(latents) ** 2", "twice"),
        (LOSS, "loss = (latents * gradient).square().sum()", "is not gradient / B"),
        (LOSS, "loss = gradient.square().mean().requires_grad_()", "does not depend on `latents`"),
    ],
)
def test_the_sds_step_and_its_mistakes(old, new, advice):
    assert_advice(advice, checks.sds_step, changed_sd(old, new).sds_step)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (LOSS, "loss = torch.einsum('bchw,bchw->', latents, gradient) / latents.shape[0]"),
        (LOSS, "loss = (latents * gradient).flatten(1).sum(1).mean()"),
        (  # threestudio's form: half the squared distance to a constant target
            LOSS,
            "target = (latents - gradient).detach()\n"
            "    loss = 0.5 * torch.nn.functional.mse_loss(latents, target, reduction='sum') / "
            "len(latents)",
        ),
        (GRADIENT, "gradient = omega * noise_pred.detach() - omega * noise"),
        (
            NOISY,
            "with torch.no_grad():\n"
            "        noisy_latents = alpha_bar**0.5 * latents + (1 - alpha_bar) ** 0.5 * noise",
        ),
    ],
)
def test_right_sds_steps(old, new, capsys):
    checks.sds_step(changed_sd(old, new).sds_step)
    assert "✓" in capsys.readouterr().out


# --- 3 (e)


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        ("result = x.detach()", "", "still empty"),
        ("result = x.detach()", "result = x", "return .detach"),
        ("latents.clone().requires_grad_()", "latents.requires_grad_()", "clone"),
        ("        optimizer.step()\n", "", "have not changed"),
        ("        loss.backward()\n", "", "have not changed"),
        ("        optimizer.zero_grad()\n", "", "add up"),
        ("lr=lr * len(x)", "lr=lr", "each moves too little"),
        ("loss.backward()", "(-loss).backward()", "move away"),
        ("1 - alpha_bar, predict", "torch.ones_like(alpha_bar), predict", "but 1"),
        ("1 - alpha_bar, predict", "(1 - alpha_bar).sqrt(), predict", "its root"),
        ("range(steps)", "range(steps - 1)", "11 steps of SDS were taken"),
        ("torch.optim.SGD([x], lr=lr * len(x))", "torch.optim.Adam([x], lr=lr)", "plain gradient"),
        ("0.98 - 0.48 * i / steps", "0.98", "has to fall evenly"),
        ("0.98 - 0.48 * i / steps", "0.5 + 0.48 * i / steps", "has to fall evenly"),
        ("torch.full((len(x),), 0.02)", "torch.full((len(x),), 0.0)", "not from 0.02|fall|plain"),
        ("0.98 - 0.48 * i / steps", "0.1", "not from 0.02 to the highest"),
        (
            "t = sd.sample_timesteps(lowest, highest, len(alphas_cumprod), generator)",
            "t = torch.tensor([100, 400])",
            "same timesteps",
        ),
        ("1 - alpha_bar, predict, generator)", "1 - alpha_bar, predict)", "raised TypeError"),
    ],
)
def test_the_loop_and_its_mistakes(old, new, advice):
    check = lambda function: checks.descent(function, reference.sds_step)
    assert_advice(advice, check, changed("optimize", old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("latents.clone().requires_grad_()", "latents.detach().clone().requires_grad_(True)"),
        ("tqdm(range(steps), leave=False)", "range(steps)"),
        (
            "        optimizer.zero_grad()\n        loss.backward()\n        optimizer.step()\n",
            "        [gradient] = torch.autograd.grad(loss, x)\n"
            "        x = (x - lr * len(x) * gradient).detach().requires_grad_()\n",
        ),
    ],
)
def test_right_loops(old, new):
    checks.descent(changed("optimize", old, new), reference.sds_step)


# --- 3 (f), 3 (g)


MIXTURE = "(1 - alpha_bar).sqrt() * (shares[..., None] * offsets).sum(1) / variance"


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        (f"    noise = {MIXTURE}\n", "", "still empty"),
        (MIXTURE, f"-{MIXTURE}", "opposite sign"),
        ("(1 - alpha_bar).sqrt() * (", "(", "minus the score: multiply"),
        ("(1 - alpha_bar).sqrt() * (", "(1 - alpha_bar) * (", "the root of 1 - alpha_bar"),
        ("alpha_bar.sqrt()[..., None] * means", "means", "not scaled by sqrt"),
        ("alpha_bar.sqrt()[..., None]", "alpha_bar[..., None]", "not by its root"),
        ("alpha_bar * spread**2 + 1 - alpha_bar", "1 - alpha_bar", "spread is left out"),
        ("alpha_bar * spread**2 + 1 - alpha_bar", "spread**2", "not rho\\^2 alone"),
        ("alpha_bar * spread**2", "alpha_bar * spread", "square it"),
        (".softmax(-1)", ".exp()", "divided by their sum"),
        (".softmax(-1)", ".softmax(0)", "runs over the points"),
        ("(-offsets.square()", "(offsets.square()", "has a minus"),
        (" / (2 * variance)).softmax", " / variance).softmax", "divided by 2 nu"),
        ("offsets.square().sum(-1)", "offsets.norm(dim=-1)", "exponent is squared"),
        ("(shares[..., None] * offsets).sum(1)", "offsets.mean(1)", "count alike"),
        (".sum(1) / variance", ".sum(1)", "not divided by the variance"),
        (".sum(1) / variance", ".sum(2) / variance", "raised RuntimeError|shape"),
    ],
)
def test_the_perfect_denoiser_and_its_mistakes(old, new, advice):
    assert_advice(advice, checks.mixture_noise, changed("mixture_noise", old, new))


def test_right_perfect_denoisers(capsys):
    def by_autograd(x, alpha_bar, means, spread):
        x = x.clone().requires_grad_()
        variance = alpha_bar * spread**2 + 1 - alpha_bar
        squared = torch.cdist(x[:, None], alpha_bar.sqrt()[..., None] * means)[:, 0] ** 2
        log_density = torch.logsumexp(-squared / (2 * variance), 1)
        [score] = torch.autograd.grad(log_density.sum(), x)
        return -(1 - alpha_bar).sqrt() * score

    def by_posterior_mean(x, alpha_bar, means, spread):
        """The noise in x if the clean point is its mean given x."""
        alpha, variance = alpha_bar.sqrt(), alpha_bar * spread**2 + 1 - alpha_bar
        shares = -(x[:, None] - alpha[..., None] * means).pow(2).sum(2) / variance / 2
        gain = alpha * spread**2 / variance
        clean = means + gain[..., None] * (x[:, None] - alpha[..., None] * means)
        x_0 = (shares.softmax(1)[..., None] * clean).sum(1)
        return (x - alpha * x_0) / (1 - alpha_bar).sqrt()

    for function in (by_autograd, by_posterior_mean):
        checks.mixture_noise(function)
    assert capsys.readouterr().out.count("✓") == 2


def wrong_steps(**others):
    """Return the three wrong steps of the lesson, some of which are others."""
    lesson = rewrite(LESSON, "wrong_sign")
    lesson.sd = reference
    names = ("wrong sign", "no weighting", "noise not subtracted")
    steps = {name: getattr(lesson, name.replace(" ", "_")) for name in names}
    return steps | {name.replace("_", " "): step for name, step in others.items()}


def test_mistakes_on_purpose(capsys):
    def other_sign(*arguments):
        step = reference.sds_step(*arguments)
        return reference.SDSStep(0 - step.loss, *step[1:])

    check = lambda steps: checks.mistakes(steps, reference.sds_step)
    check(wrong_steps())
    check(wrong_steps(wrong_sign=other_sign))
    assert capsys.readouterr().out.count("✓") == 2
    right, steps = reference.sds_step, wrong_steps()

    def scaled(step, factor):
        def function(*arguments):
            result = step(*arguments)
            return result._replace(loss=factor * result.loss)

        return function

    doubled = scaled(right, -2)
    negative = scaled(steps["no weighting"], -1)
    detached = lambda x, *others: right(x.detach(), *others)
    for wrong, advice in [
        (..., "MISTAKES is still empty"),
        (None, "MISTAKES is None"),
        ([right], "is a list"),
        ({"wrong sign": right}, "has no 'no weighting', 'noise not subtracted'"),
        (wrong_steps(wrong_sign=right), "'wrong sign' is right: it has to be wrong"),
        (wrong_steps(no_weighting=right), "'no weighting' is right"),
        (wrong_steps(wrong_sign=doubled), "not divided by the number of images"),
        (wrong_steps(no_weighting=negative), "opposite sign, too"),
        (wrong_steps(wrong_sign=steps["no weighting"]), "makes the mistake 'no weighting'"),
        (wrong_steps(no_weighting=scaled(right, 0.25)), "change only one thing"),
        (wrong_steps(no_weighting=detached), "No gradient reaches the latents"),
        (wrong_steps(no_weighting=lambda *all: right(*all).loss), "is a NoneType"),
        (wrong_steps(no_weighting=lambda x: x), "raised TypeError"),
    ]:
        assert_advice(advice, check, wrong)


# --- 3 (h)


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        ("    rays = pose[:3, 3].expand_as(directions), directions\n", "", "still empty"),
        (
            "rays = pose[:3, 3].expand_as(directions), directions",
            "rays = directions",
            "is a Tensor",
        ),
        (
            "rays = pose[:3, 3].expand_as(directions), directions",
            "rays = directions, pose[:3, 3].expand_as(directions)",
            "origins of all rays",
        ),
        ("pose[:3, 3].expand_as(directions)", "pose[:3, 3]", "`origins` has the shape"),
        ("pose[:3, 3].expand_as", "pose[3, :3].expand_as", "origins of all rays"),
        ("pose[:3, 3].expand_as", "(-pose[:3, 3]).expand_as", "the last column of the pose"),
        (
            "height / 2 - 0.5 - torch.arange(height)",
            "torch.arange(height) + 0.5 - height / 2",
            "upside",
        ),
        ("-torch.ones_like(x)", "torch.ones_like(x)", "backwards"),
        (
            "(torch.arange(width) + 0.5 - width / 2) * side\n"
            "    y = (height / 2 - 0.5 - torch.arange(height)) * side",
            "(torch.arange(width) - width / 2) * side\n"
            "    y = (height / 2 - torch.arange(height)) * side",
            "half a pixel",
        ),
        ("local @ pose[:3, :3].T", "local", "rotate them into the world"),
        ("local @ pose[:3, :3].T", "local @ pose[:3, :3]", "its transpose"),
        ("torch.deg2rad(fov) / 2) / height", "torch.deg2rad(fov) / 2) / width", "is vertical"),
        ("torch.tan(torch.deg2rad(fov) / 2)", "torch.tan(fov / 2)", "in degrees"),
        ("torch.tan(torch.deg2rad(fov) / 2)", "torch.tan(torch.deg2rad(fov))", "Half the angle"),
        ("side = 2 * torch.tan", "side = torch.tan", "twice as large"),
        ("    directions = directions / directions.norm(dim=-1, keepdim=True)\n", "", "length 1"),
        ('torch.meshgrid(y, x, indexing="ij")', 'torch.meshgrid(y, x, indexing="xy")', "shape"),
        ("torch.stack([x, y, -torch", "torch.stack([y, x, -torch", "not those through the pixel"),
        (" + 0.5 - width / 2", " + 0.5", "not those through the pixel"),
        ("pose[:3, :3].T", "pose.T", "raised RuntimeError"),
    ],
)
def test_the_rays_and_their_mistakes(old, new, advice):
    check = lambda function: checks.pixel_rays(function, CAMERAS)
    assert_advice(advice, check, changed("pixel_rays", old, new))


def test_right_rays(capsys):
    def by_provider(pose, fov, height, width):
        origins, directions = CAMERAS.rays(height, width)
        return origins[0], directions[0]

    def by_einsum(pose, fov, height, width):
        scale = torch.tan(torch.deg2rad(fov) / 2) / (height / 2)
        rows, columns = torch.arange(height), torch.arange(width)
        grid = torch.ones(height, width)
        y = (height / 2 - (rows + 0.5))[:, None] * scale * grid
        x = (columns + 0.5 - width / 2)[None] * scale * grid
        local = F.normalize(torch.stack([x, y, -grid], -1), dim=-1)
        directions = torch.einsum("ij,hwj->hwi", pose[:3, :3], local)
        return pose[:3, 3].repeat(height, width, 1), directions

    for function in (by_provider, by_einsum):
        checks.pixel_rays(function, CAMERAS)
    assert capsys.readouterr().out.count("✓") == 2


# --- 3 (i), 3 (j)


WEIGHTS = "(-before).exp() * (1 - (-depth).exp())"


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        (f"    weights = {WEIGHTS}\n", "", "still empty"),
        ("depth.cumsum(1) - depth", "depth.cumsum(1)", "those \\*before\\* it"),
        (WEIGHTS, "1 - (-depth).exp()", "opacity of each sample: multiply"),
        (WEIGHTS, "(-before).exp()", "light T that reaches each sample"),
        ("sigmas * step", "sigmas", "step size is missing"),
        (WEIGHTS, "(-before).exp() * depth", "not the density itself"),
        (
            WEIGHTS,
            "(1 - (-depth).exp()) * torch.cat([torch.ones_like(depth[:1]), "
            "(-depth).exp().cumprod(0)[:-1]])",
            "not over the rays",
        ),
        (
            WEIGHTS,
            "(1 - (-depth).exp()) * torch.cat([torch.ones_like(depth[:, :1]), "
            "(1 - (-depth).exp()).cumprod(1)[:, :-1]], 1)",
            "not of alpha",
        ),
        ("depth.cumsum(1) - depth", "depth.flip(1).cumsum(1).flip(1) - depth", "wrong order"),
        (
            WEIGHTS,
            f"{WEIGHTS}\n    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-6)",
            "not divided by their sum",
        ),
        (WEIGHTS, "((-before).exp() * (1 - (-depth).exp())).sum(1)", "One weight for each sample"),
        (WEIGHTS, "(-before).exp() / (-depth).exp()", "That is not T_i"),
        (WEIGHTS, "torch.log(-depth)", "is not finite"),
        ("depth.cumsum(1)", "depth.cumsum(2)", "raised IndexError"),
    ],
)
def test_the_weights_and_their_mistakes(old, new, advice):
    assert_advice(advice, checks.render_weights, changed("render_weights", old, new))


def test_right_weights(capsys):
    def by_product(sigmas, step):
        alpha = 1 - torch.exp(-sigmas * step)
        light = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha], 1), 1)
        return light[:, :-1] * alpha

    def by_loop(sigmas, step):
        light, weights = torch.ones(len(sigmas)), []
        for sigma in sigmas.T:
            alpha = 1 - (-sigma * step).exp()
            weights.append(light * alpha)
            light = light * (1 - alpha)
        return torch.stack(weights, 1)

    for function in (by_product, by_loop):
        checks.render_weights(function)
    assert capsys.readouterr().out.count("✓") == 2


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        ("    pixels = image, opacity, (weights * distances).sum(1)\n", "", "still empty"),
        ("pixels = image, opacity, (", "pixels = image, (", "has to be \\(image, opacity, depth"),
        ("pixels = image, opacity, (weights * distances).sum(1)", "pixels = image", "is a Tensor"),
        ("opacity = weights.sum(1)", "opacity = 1 - weights.sum(1)", "shines through"),
        ("opacity = weights.sum(1)", "opacity = weights.mean(1)", "not their mean"),
        ("opacity = weights.sum(1)", "opacity = weights.amax(1)", "not the largest"),
        (" + (1 - opacity)[:, None] * background", "", "background is missing"),
        ("(1 - opacity)[:, None] * background", "background", "added in full"),
        ("(1 - opacity)[:, None]", "opacity[:, None]", "not by 1 - opacity"),
        ("(weights[..., None] * colors).sum(1)", "colors.sum(1)", "colors have no weights"),
        ("colors).sum(1)", "colors).mean(1)", "are averaged"),
        (
            "(weights[..., None] * colors).sum(1)",
            "(weights[..., None] * colors).sum(1) / opacity[:, None]",
            "fog becomes solid",
        ),
        ("(weights * distances).sum(1)", "distances.sum(1)", "depth has no weights"),
        ("(weights * distances).sum(1)", "(weights * distances).sum(1) / opacity", "not divided"),
        (
            "(weights[..., None] * colors).sum(1)",
            "(weights * colors).sum(1)",
            "raised RuntimeError",
        ),
    ],
)
def test_the_compositing_and_its_mistakes(old, new, advice):
    assert_advice(advice, checks.composite, changed("composite", old, new))


def test_right_compositing(capsys):
    def by_einsum(weights, colors, distances, background):
        opacity = weights.sum(dim=-1)
        image = torch.einsum("nk,nkc->nc", weights, colors) + torch.outer(1 - opacity, background)
        return image, opacity, torch.einsum("nk,nk->n", weights, distances)

    def by_matmul(weights, colors, distances, background):
        sums = (weights[:, None] @ torch.cat([colors, distances[..., None]], -1))[:, 0]
        opacity = weights.sum(1)
        return sums[:, :3] + (1 - opacity[:, None]) * background, opacity, sums[:, 3]

    for function in (by_einsum, by_matmul):
        checks.composite(function)
    assert capsys.readouterr().out.count("✓") == 2


# --- 3 (k)


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        ("    image = pixels.T.reshape(3, size, size)\n", "", "still empty"),
        ("pixels.T.reshape(3, size, size)", "pixels.reshape(size, size, 3)", "Channels first"),
        ("pixels.T.reshape(3, size, size)", "pixels.reshape(3, size, size)", "without .T"),
        ("(3, size, size)\n    ###", "(3, size, size).transpose(1, 2)\n    ###", "are exchanged"),
        ("(3, size, size)\n    ###", "(3, size, size).flip(1)\n    ###", "upside down"),
        ("factor * sigmas", "sigmas", "factor has no effect"),
        ("torch.arange(samples) + 0.5", "torch.arange(samples)", "ends of their steps"),
        ("torch.arange(samples) + 0.5", "torch.arange(samples) + 1", "ends of their steps"),
        ("- 1.75 + step", "+ step", "begin at the center"),
        ("- 1.75 + step", "+ 1.75 + step", "begin behind the ball"),
        ("weights), BACKGROUND)", "weights), torch.zeros(3))", "background is missing"),
        ("field(x)\n", "field(origins)\n", "raised|That is not"),
        ("field(x)\n", "field(x[..., :2])\n", "gets points"),
        ("sigmas, step)\n", "sigmas, 1.0)\n", "That is not the image of the field"),
    ],
)
def test_the_renderer_and_its_mistakes(old, new, advice):
    check = lambda function: checks.render(function, CAMERAS, torch.tensor(PLAIN_COLOR))
    lesson = rewrite(LESSON, "render", old, new)
    lesson.BACKGROUND = torch.tensor(PLAIN_COLOR)
    assert_advice(advice, check, lesson.render)


def test_right_renderers(capsys):
    lesson = rewrite(LESSON, "render")
    lesson.BACKGROUND = torch.tensor(PLAIN_COLOR)

    def row_by_row(field, camera, size, factor=1.0, samples=128):
        origins, directions = (part[0] for part in camera.rays(size, size))
        step, rows = 3.5 / samples, []
        for o, d in zip(origins, directions, strict=True):
            k = torch.arange(samples)
            distances = camera.radius[0] - 1.75 + step * k + step / 2
            sigmas, colors = field(o[:, None] + distances[:, None] * d[:, None])
            weights = lesson.render_weights(sigmas * factor, step)
            rows.append((weights[..., None] * colors).sum(1))
            rows[-1] += (1 - weights.sum(1))[:, None] * lesson.BACKGROUND
        return torch.stack(rows).permute(2, 0, 1)

    for function in (lesson.render, row_by_row):
        checks.render(function, CAMERAS, lesson.BACKGROUND)
    assert capsys.readouterr().out.count("✓") == 2


# --- 3 (l)


AROUND = "[1 - not_front, not_front - back, back]"
VIEW_WEIGHTS = "torch.cat([around * (1 - overhead)[:, None], overhead[:, None]], 1)"


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        (f"    weights = {VIEW_WEIGHTS}\n", "", "still empty"),
        (".abs()", "", "absolute value"),
        ("((azimuth + 180) % 360 - 180).abs()", "azimuth.abs()", "start again at -180"),
        ("(angle - 45) / 30", "(angle - 45) / 1e-3", "not the weights|sum|blend"),
        (" * (1 - overhead)[:, None]", "", "takes its share"),
        (AROUND, "[back, not_front - back, 1 - not_front]", "exchanged"),
        (AROUND, "[1 - not_front, back, not_front - back]", "order is front"),
        (AROUND, "[1 - not_front, not_front, back]", "sum to"),
        ("(elevation - 60) / 30", "(elevation - 45) / 30", "not the weights"),
        ("(angle - 135) / 30", "(angle - 120) / 30", "not the weights"),
        ("(angle - 45) / 30 + 0.5", "(angle - 45) / 30", "not the weights"),
        ("(angle - 135) / 30 + 0.5).clamp(0, 1)", "(angle - 135) / 30 + 0.5)", "not the weights"),
        ("overhead[:, None]], 1)", "overhead[:, None]], 0)", "raised RuntimeError"),
        (f"{AROUND}, 1)", f"{AROUND})", "raised RuntimeError"),
    ],
)
def test_the_view_weights_and_their_mistakes(old, new, advice):
    assert_advice(advice, checks.view_weights, changed("view_weights", old, new))


@pytest.mark.parametrize(
    ("width", "advice"),
    [("1e-4", "change at once"), ("60", "as wide on each side"), ("15", "15 degrees on each side")],
)
def test_the_width_of_the_blend(width, advice):
    function = changed("view_weights", ") / 30", f") / {width}")
    assert_advice(advice, checks.view_weights, function)
    swapped = lambda azimuth, elevation: changed("view_weights")(elevation, azimuth)
    assert_advice("elevation decides", checks.view_weights, swapped)


def test_right_view_weights(capsys):
    from task_3_DreamFusion.nerf import views

    def by_loop(azimuth, elevation):
        rows = []
        for a, e in zip(azimuth.tolist(), elevation.tolist(), strict=True):
            a = abs((a + 180) % 360 - 180)
            ramp = lambda angle, border: min(max((angle - border) / 30 + 0.5, 0), 1)
            around = [1 - ramp(a, 45), ramp(a, 45) - ramp(a, 135), ramp(a, 135)]
            rows.append([part * (1 - ramp(e, 60)) for part in around] + [ramp(e, 60)])
        return torch.tensor(rows)

    for function in (views.view_weights, by_loop):
        checks.view_weights(function)
    assert capsys.readouterr().out.count("✓") == 2


# --- 3 (m)


AWAY = "noise = uncond + w * (p - away)"


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        (f"    {AWAY}\n", "", "still empty"),
        (AWAY, "noise = uncond + w * p", "guidance alone"),
        ("n - (n * p).sum(axes, keepdim=True) / squared * p", "n", "subtract its part along"),
        ("= n - (n * p).sum", "= (n * p).sum", "it is the perpendicular one"),
        (AWAY, "noise = uncond + w * (p + away)", "attract"),
        (AWAY, "noise = w * (p - away)", "is missing: add it"),
        (
            "strengths[..., None, None, None] * perpendicular",
            "perpendicular",
            "weights are missing",
        ),
        (AWAY, "noise = uncond + w * p - away", "w scales both parts"),
        ("axes = (-3, -2, -1)", "axes = (-4, -3, -2, -1)", "projection of its own"),
        ("axes = (-3, -2, -1)", "axes = (-3,)", "not over the channels alone"),
        (" / squared * p", " * p", "divided by the squared length"),
        ("negatives - uncond", "negatives", "subtract `uncond`"),
        ("perpendicular).sum(0)", "perpendicular).mean(0)", "averaged"),
        ("cond - uncond, negatives", "uncond - cond, negatives", "That is not uncond"),
        ("keepdim=True).clamp(min=1e-12)", "keepdim=True)", "not finite|division by zero"),
        ("strengths[..., None, None, None]", "strengths", "raised RuntimeError"),
    ],
)
def test_perp_neg_and_its_mistakes(old, new, advice):
    assert_advice(advice, checks.perp_neg, changed("perp_neg", old, new))


def test_right_perp_neg(capsys):
    from course import diffusion

    def by_einsum(uncond, cond, negatives, strengths, w):
        p, n = cond - uncond, negatives - uncond
        dots = torch.einsum("kbchw,bchw->kb", n, p)
        squares = torch.einsum("bchw,bchw->b", p, p).clamp(min=1e-12)
        parallel = torch.einsum("kb,bchw->kbchw", dots / squares, p)
        return uncond + w * (p - torch.einsum("kb,kbchw->bchw", strengths, n - parallel))

    for function in (diffusion.perp_neg, by_einsum):
        checks.perp_neg(function)
    assert capsys.readouterr().out.count("✓") == 2


# --- 3 (n), 3 challenge 1


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips as students may hand them in: those of README, mirrored and darker."""
    folder = tmp_path_factory.mktemp("clips")

    def write(name: str, frames) -> Path:
        return write_video(folder / f"{name}.mp4", [Image.fromarray(f) for f in frames], 30, hold=0)

    paths = {}
    for name in ("hamburger", "squirrel", "bunny"):
        frames = iio.imread(notebooks.ROOT / "assets" / f"{name}.gif")[..., :3]
        turn = frames[np.arange(0, 60) * len(frames) // 60]
        paths[name] = write(name, (turn[::-1, :, ::-1] * 0.9).astype(np.uint8))
        paths[f"{name} as handed out"] = write(f"{name}_course", turn)
    panels = np.concatenate([turn[::-1, :, ::-1], turn, turn], 2)
    paths["three panels"] = write("panels", panels)
    paths["short"] = write("short", turn[:20])
    paths["still"] = write("still", turn[:1].repeat(60, 0))
    paths["damaged"] = folder / "damaged.mp4"
    paths["damaged"].write_bytes(b"no video")
    paths["image"] = folder / "image.png"
    Image.fromarray(turn[0]).save(paths["image"])
    return paths


def hand_in(clips, **other):
    """Return three right clips, some of which are others; _ in a name stands for a space."""
    names = {"a hamburger": "hamburger", "a squirrel": "squirrel", "a bunny": "bunny"}
    names |= {text.replace("_", " "): name for text, name in other.items()}
    return {text: str(clips[name]) for text, name in names.items()}


def test_turntables_that_are_right(clips, capsys):
    checks.turntables(hand_in(clips))
    checks.turntables(hand_in(clips, a_bunny="three panels"))
    unknown = hand_in(clips)
    unknown["a blue zeppelin"] = unknown.pop("a bunny")
    checks.turntables({text: Path(path) for text, path in unknown.items()})
    output = capsys.readouterr().out
    assert output.count("✓") == 3 and "a hamburger: 8 of 8 sides" in output
    assert "a blue zeppelin: no word that the judge knows" in output


@pytest.mark.parametrize(
    ("other", "advice"),
    [
        ({"a_bunny": "squirrel"}, "'a squirrel' and of 'a bunny' are the same"),
        ({"a_bunny": "bunny as handed out"}, "the course's own bunny.gif"),
        ({"a_bunny": "hamburger", "a_hamburger": "bunny"}, "reads 'hamburger' from 0 of 8 sides"),
        ({"a_bunny": "short"}, "has 20 frames"),
        ({"a_bunny": "still"}, "does not move"),
        ({"a_bunny": "damaged"}, "cannot be read as a video"),
        ({"a_bunny": "image"}, "has to be an .mp4"),
        ({"_": "bunny"}, "A prompt has to be a text"),
    ],
)
def test_turntables_that_are_wrong(clips, other, advice):
    assert_advice(advice, checks.turntables, hand_in(clips, **other))


def test_other_hand_ins_that_are_wrong(clips):
    right = hand_in(clips)
    for wrong, advice in [
        (..., "TURNTABLES is still empty"),
        (None, "TURNTABLES is None"),
        (list(right.values()), "is a list; it has to be a dictionary"),
        (dict(list(right.items())[:2]), "has 2 prompts"),
        (right | {"a bunny": 3}, "is a int; it has to be a path"),
        (right | {"a bunny": "nowhere/bunny.mp4"}, "There is no clip bunny.mp4"),
    ]:
        assert_advice(advice, checks.turntables, wrong)
    for wrong, advice in [
        (..., "BEST is still empty"),
        (str(clips["bunny"]), "is a str; it has to be a tuple"),
        (("a bunny",), "has 1 entries"),
        (("a zeppelin", clips["bunny"]), "knows no object"),
        (("a bunny", clips["squirrel"]), "right in 0 of 16 directions; 12 are needed"),
        (("a bunny", clips["short"]), "has 20 frames"),
    ]:
        assert_advice(advice, checks.best_object, wrong)


def test_a_best_object(clips, capsys):
    """The README's own hamburger has no front; its squirrel is read from most sides."""
    checks.best_object(("a squirrel", clips["squirrel as handed out"]))
    assert "challenge 1, a squirrel: object and view right in 1" in capsys.readouterr().out
