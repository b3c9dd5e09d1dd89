"""The checks of the lesson on training: right solutions pass, each mistake gets its advice."""

import itertools

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from PIL import Image

from course import notebooks
from course.checks import task_1_4 as checks
from course.diffusion import (
    END,
    add_noise,
    alpha_bar_at,
    ddim_step,
    guide,
    predict_x0_and_noise,
    timesteps,
    velocity,
)
from tests.course.checks.helpers import assert_advice

PATH = notebooks.ROOT / "task_1_4_Training.ipynb"


@pytest.fixture(scope="module")
def lesson():
    return notebooks.definitions(notebooks.read(PATH))


@pytest.fixture(scope="module")
def scheduler():
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        prediction_type="v_prediction",
        clip_sample=False,
    )


# --- (a) Caption dropout


def rand(generator, *shape):
    return torch.rand(*shape, generator=generator)


def drop_in_place(states, empty, p, g):
    states[rand(g, len(states)) < p] = empty
    return states


def drop_by_loop(states, empty, p, g):
    chosen = rand(g, len(states)) < p
    return torch.stack([empty[0] if c else s for c, s in zip(chosen, states, strict=True)])


def drop_clone(states, empty, p, g):
    result = states.clone()
    result[torch.bernoulli(torch.full((len(states),), p), generator=g).bool()] = empty[0]
    return result


def test_caption_dropout(lesson):
    checks.caption_dropout(lesson.drop_captions)
    checks.caption_dropout(drop_by_loop)
    checks.caption_dropout(drop_clone)
    for wrong, advice in [
        (lambda s, e, p, g: None, "returns None: is a `return` missing"),
        (lambda s, e, p, g: s, "No caption was replaced"),
        (lambda s, e, p, g: e.expand_as(s), "All captions were replaced at once"),
        (drop_in_place, "`states` itself was changed"),
        (
            lambda s, e, p, g: torch.where(rand(g, len(s), 1, 1) > p, e, s),
            "exchange the two",
        ),
        (
            lambda s, e, p, g: torch.where(rand(g, *s.shape) < p, e, s),
            "Only a part of a caption",
        ),
        (
            lambda s, e, p, g: torch.where(rand(g, len(s), s.shape[1], 1) < p, e, s),
            "Only a part of a caption",
        ),
        (lambda s, e, p, g: s * (rand(g, len(s), 1, 1) >= p) + 0.5, "neither those of the caption"),
        (lambda s, e, p, g: torch.where(torch.rand(len(s), 1, 1) < p, e, s), "generators of one"),
        (
            lambda s, e, p, g: torch.where(
                rand(torch.Generator().manual_seed(0), len(s), 1, 1) < p, e, s
            ),
            "does not depend on `generator`",
        ),
        (lambda s, e, p, g: torch.where(rand(g, len(s), 1, 1) < 0.2, e, s), "At probability 0"),
        (lambda s, e, p, g: torch.where(rand(g, len(s), 1, 1) < p / 2, e, s), "10% of the capt"),
        (lambda s, e, p, g: torch.where(rand(g, len(s)) < p, e, s), "raised RuntimeError"),
        (lambda s, e, p, g: s[rand(g, len(s)) >= p], "shape"),
        (lambda s, e, p, g: s if rand(g, 1) < p else e.expand_as(s), "All captions were replaced"),
    ]:
        assert_advice(advice, checks.caption_dropout, wrong)


# --- (h) The network


def unet_with(**changes):
    """Return a `build_unet` with some settings changed."""
    settings = checks.UNET | {"cross_attention_dim": 32}
    return UNet2DConditionModel(**settings | changes)


def test_network(lesson):
    checks.network(lesson.build_unet(32), 32)
    checks.network(unet_with(block_out_channels=[32, 64, 96], dropout=0.1), 32)
    attention_down = ("CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D")
    attention_up = ("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D")
    for wrong, advice in [
        (..., "is still empty"),
        (None, "`build_unet` is still empty"),
        (UNet2DConditionModel, "the class UNet2DConditionModel itself"),
        (torch.nn.Linear(1, 1), "has to return a UNet2DConditionModel"),
        (unet_with(up_block_types=attention_up), "wrong order"),
        (unet_with(down_block_types=attention_down), "down_block_types is"),
        (unet_with(block_out_channels=(96, 64, 32)), "block_out_channels is"),
        (unet_with(layers_per_block=2), "layers_per_block is 2"),
        (unet_with(mid_block_type="UNetMidBlock2DCrossAttn"), "mid_block_type is"),
        (unet_with(cross_attention_dim=64), "cross_attention_dim is 64; in the table it is 32"),
        (unet_with(attention_head_dim=8), "attention_head_dim is 8"),
        (unet_with(norm_num_groups=32), "norm_num_groups is 32"),
        (unet_with(in_channels=3), "in_channels is 3"),
        (unet_with(sample_size=32), "sample_size is 32"),
    ]:
        assert_advice(advice, checks.network, wrong, 32)


# --- (b) The loss


def loss_with(
    t=lambda n, g: torch.randint(0, 10, (n,), generator=g),
    noise=lambda x, g: torch.randn(x.shape, generator=g),
    mix=lambda x, e, a: a.sqrt() * x + (1 - a).sqrt() * e,
    target=velocity,
    error=lambda difference: difference.square().mean(),
    states=lambda s: s,
    shape=(-1, 1, 1, 1),
):
    """Return a loss in which one line is another one."""

    def loss(unet, x_0, embeddings, alpha_bar, generator):
        times = t(len(x_0), generator)
        e = noise(x_0, generator)
        a = alpha_bar[times].reshape(shape)
        x_t = mix(x_0, e, a)
        output = unet(x_t, times, encoder_hidden_states=states(embeddings)).sample
        return error(output - target(x_0, e, a))

    return loss


def loss_in_another_style(unet, x_0, states, alpha_bar, generator):
    noise = torch.empty_like(x_0).normal_(generator=generator)
    t = (torch.rand(len(x_0), generator=generator) * len(alpha_bar)).long()
    a, b = alpha_bar[t].sqrt(), (1 - alpha_bar[t]).sqrt()
    x_t = torch.einsum("b,bchw->bchw", a, x_0) + torch.einsum("b,bchw->bchw", b, noise)
    output = unet(x_t, t, states, return_dict=False)[0]
    v = a[:, None, None, None] * noise - b[:, None, None, None] * x_0
    return torch.nn.functional.mse_loss(output, v)


def test_training_loss(lesson):
    checks.training_loss(lesson.training_loss)
    checks.training_loss(loss_in_another_style)
    checks.training_loss(loss_with(error=lambda d: (d**2).flatten(1).mean(1).mean()))
    same = torch.Generator()
    for wrong, advice in [
        (lambda *_: None, "returns None: is a `return` missing"),
        (lambda *_: torch.tensor(1.0, requires_grad=True), "never called"),
        (loss_with(t=lambda n, g: torch.randint(0, 10, (1,), generator=g)), "one for each image"),
        (
            loss_with(t=lambda n, g: torch.randint(0, 10, (1,), generator=g).expand(n)),
            "All images have the same timestep",
        ),
        (loss_with(t=lambda n, g: torch.randint(1, 10, (n,), generator=g)), "those from 1 to 9"),
        (loss_with(t=lambda n, g: torch.randint(0, 9, (n,), generator=g)), "those from 0 to 8"),
        (
            loss_with(t=lambda n, g: (torch.rand(n, generator=g) ** 2 * 10).long()),
            "far too often",
        ),
        (loss_with(t=lambda n, g: torch.randint(0, 1000, (n,), generator=g)), "raised IndexError"),
        (loss_with(t=lambda n, g: torch.randint(0, 10, (n,))), "generators of one seed differ"),
        (loss_with(noise=lambda x, g: torch.randn(x.shape)), "generators of one seed differ"),
        (
            loss_with(
                t=lambda n, g: torch.randint(0, 10, (n,), generator=same.manual_seed(0)),
                noise=lambda x, g: torch.randn(x.shape, generator=same.manual_seed(1)),
            ),
            "Another seed gives the same",
        ),
        (loss_with(noise=lambda x, g: torch.rand(x.shape, generator=g)), "uniform"),
        (
            loss_with(noise=lambda x, g: torch.randn(x[:1].shape, generator=g).expand_as(x)),
            "All images have the same noise",
        ),
        (loss_with(noise=lambda x, g: torch.zeros_like(x)), "There is no noise"),
        (loss_with(mix=lambda x, e, a: a * x + (1 - a) * e), "square roots are missing"),
        (
            loss_with(mix=lambda x, e, a: (1 - a).sqrt() * x + a.sqrt() * e),
            "Image and noise are exchanged",
        ),
        (loss_with(mix=lambda x, e, a: x + (1 - a).sqrt() * e), "image is as strong"),
        (loss_with(mix=lambda x, e, a: a.sqrt() * x + e), "noise is as strong"),
        (
            loss_with(mix=lambda x, e, a: a.sqrt() * x + 2 * (1 - a).sqrt() * e),
            "x_t is not sqrt",
        ),
        (loss_with(shape=(-1,)), "raised RuntimeError"),
        (loss_with(states=lambda s: s.flip(0)), "encoder_hidden_states"),
        (loss_with(states=torch.zeros_like), "encoder_hidden_states"),
        (loss_with(target=lambda x, e, a: e), "compared with the noise"),
        (loss_with(target=lambda x, e, a: x), "compared with x_0"),
        (loss_with(target=lambda x, e, a: velocity(x, e, 1 - a)), "exchanged in v"),
        (loss_with(target=lambda x, e, a: -velocity(x, e, a)), "sign of v"),
        (
            loss_with(target=lambda x, e, a: a.sqrt() * e + (1 - a).sqrt() * x),
            "minus sign",
        ),
        (loss_with(error=lambda d: d.square().sum()), "That is the sum"),
        (loss_with(error=lambda d: d.square().flatten(1).sum(1).mean()), "mean over the images"),
        (loss_with(error=lambda d: d.abs().mean()), "absolute error"),
        (loss_with(error=lambda d: d.square().mean().sqrt()), "root of the mean"),
        (loss_with(error=lambda d: d.mean()), "cancel"),
        (loss_with(error=lambda d: d.square()), "one number"),
        (loss_with(error=lambda d: d.square().mean() * 3), "not the mean of"),
        (loss_with(error=lambda d: d.detach().square().mean()), "has no gradient"),
        (loss_with(error=lambda d: d.square().mean().item()), "a tensor with a gradient"),
    ]:
        assert_advice(advice, checks.training_loss, wrong)


# --- (c) A step


def step_with(*lines):
    """Return a step that does these things in this order."""
    actions = {
        "zero": lambda loss, n, o, e: o.zero_grad(),
        "zero network": lambda loss, n, o, e: n.zero_grad(),
        "backward": lambda loss, n, o, e: loss.backward(),
        "clip": lambda loss, n, o, e: torch.nn.utils.clip_grad_norm_(n.parameters(), 1.0),
        "clip values": lambda loss, n, o, e: torch.nn.utils.clip_grad_value_(n.parameters(), 1.0),
        "step": lambda loss, n, o, e: o.step(),
        "ema": lambda loss, n, o, e: e.step(n.parameters()),
    }

    def step(loss, network, optimizer, ema):
        for line in lines:
            actions[line](loss, network, optimizer, ema)
        return loss.item()

    return step


RIGHT = ("zero", "backward", "clip", "step", "ema")


def without(line):
    return step_with(*(each for each in RIGHT if each != line))


def test_training_step(lesson):
    checks.training_step(lesson.take_step)
    checks.training_step(step_with(*RIGHT))
    checks.training_step(step_with("backward", "clip", "step", "ema", "zero"))
    checks.training_step(step_with("zero network", "backward", "clip", "step", "ema"))
    for wrong, advice in [
        (lambda *_: None, "returns None: is a `return` missing"),
        (lambda *_: ..., "is still empty"),
        (lambda loss, *_: loss.item(), "weights do not change"),
        (lambda *parts: step_with(*RIGHT)(*parts) and None, "returns None"),
        (lambda *parts: (step_with(*RIGHT)(*parts), parts[0])[1], "loss as a number"),
        (lambda *parts: step_with(*RIGHT)(*parts) * 2, "loss as a number"),
        (without("zero"), "step before are still in there"),
        (without("backward"), "weights do not change"),
        (without("step"), "weights do not change"),
        (without("clip"), "not clipped"),
        (without("ema"), "running average was not updated"),
        (step_with("backward", "zero", "clip", "step", "ema"), "weights do not change"),
        (step_with("zero", "backward", "step", "clip", "ema"), "not clipped"),
        (step_with("zero", "backward", "clip values", "step", "ema"), "weights are not those"),
        (step_with("zero", "backward", "clip", "ema", "step"), "updated before the weights"),
        (step_with("zero", "backward", "clip", "step", "step", "ema"), "weights are not those"),
        (step_with(*RIGHT, "ema"), "not updated once"),
    ]:
        assert_advice(advice, checks.training_step, wrong)


# --- (i) A batch


@pytest.fixture
def batch_parts(lesson):
    """What the lesson has when it writes `train_on`: latents, states of each image, empty."""
    generator = torch.Generator().manual_seed(0)
    latents, states = (torch.randn(6, *shape, generator=generator) for shape in ((4, 4, 4), (3, 2)))
    return latents, states, torch.zeros(1, 3, 2)


def train_on_with(lesson, parts, **changes):
    """Return a `train_on` in which one line is another one."""
    latents, states, empty = parts
    generator = torch.Generator().manual_seed(1)

    def choose(indices):
        return indices[torch.randint(len(indices), (32,), generator=generator)]

    def train_on(indices, unet, optimizer, ema):
        chosen = changes.get("choose", choose)(indices)
        given = changes.get("states", lambda c: states[c])(chosen)
        p = changes.get("dropout", 0.1)
        given = lesson.drop_captions(given, empty, p, generator)
        alpha_bar = torch.linspace(0.95, 0.05, 10)
        loss = lesson.training_loss(unet, latents[chosen], given, alpha_bar, generator)
        step = changes.get("step", lesson.take_step)
        return step(loss, unet, optimizer, ema)

    return train_on


def test_training_batch(lesson, batch_parts):
    checks.training_batch(train_on_with(lesson, batch_parts), *batch_parts, 32)

    def choose_by_permutation(indices):
        return indices.repeat(16)[torch.randperm(32)]

    right = train_on_with(lesson, batch_parts, choose=choose_by_permutation)
    checks.training_batch(right, *batch_parts, 32)
    for changes, advice in [
        ({"choose": lambda i: i}, "choose BATCH = 32"),
        ({"choose": lambda i: i[:1].expand(32)}, "Not all images"),
        ({"choose": lambda i: torch.randint(len(i), (32,))}, "not those of the images"),
        ({"choose": lambda i: torch.randint(6, (32,))}, "not those of the images"),
        ({"states": lambda c: batch_parts[1][c - 1]}, "not those of the images"),
        ({"states": lambda c: batch_parts[1][c].flip(1)}, "not those of the images"),
        ({"dropout": 0.0}, "No caption was dropped"),
        ({"dropout": 0.9}, "captions were dropped: the probability"),
        ({"step": lambda loss, *_: loss.item()}, "did not change"),
        ({"step": lambda *_: None}, "returns None"),
        ({"step": lambda loss, *_: loss}, "a number"),
        ({"step": lambda loss, unet, o, ema: ema.step(unet.parameters()) or 1.0}, "did not change"),
    ]:
        wrong = train_on_with(lesson, batch_parts, **changes)
        assert_advice(advice, checks.training_batch, wrong, *batch_parts, 32)
    assert_advice("never called", checks.training_batch, lambda *_: 1.0, *batch_parts, 32)


# --- (d) Sampling


def sample_with(
    guided=guide,
    chosen=lambda s, n: timesteps(s.config, n),
    following=lambda s, times: [*times[1:], END],
    predict=lambda x, o, a: predict_x0_and_noise(x, o, a, "v_prediction"),
    step=ddim_step,
    no_grad=True,
    first=lambda x: x,
):
    """Return a sampling loop in which one line is another one."""

    def sample(unet, scheduler, states, empty, x_T, count, w):
        x = first(x_T)
        times = chosen(scheduler, count)
        with torch.set_grad_enabled(not no_grad):
            for t, t_prev in zip(times, following(scheduler, times), strict=False):
                uncond = unet(x, t, encoder_hidden_states=empty.expand_as(states)).sample
                cond = unet(x, t, encoder_hidden_states=states).sample
                a, b = alpha_bar_at(scheduler, t), alpha_bar_at(scheduler, t_prev)
                x = step(*predict(x, guided(uncond, cond, w), a), a, b)
        return x

    return sample


def sample_in_one_batch(unet, scheduler, states, empty, x_T, count, w):
    with torch.no_grad():
        both = torch.cat([states, empty.repeat(len(states), 1, 1)])
        for t, t_prev in itertools.pairwise([*timesteps(scheduler.config, count), END]):
            t_batch = torch.full((2 * len(x_T),), t)
            cond, uncond = unet(torch.cat([x_T] * 2), t_batch, both, return_dict=False)[0].chunk(2)
            a, b = alpha_bar_at(scheduler, t), alpha_bar_at(scheduler, t_prev)
            x_0, noise = predict_x0_and_noise(x_T, (1 - w) * uncond + w * cond, a, "v_prediction")
            x_T = b.sqrt() * x_0 + (1 - b).sqrt() * noise
    return x_T


def in_place(unet, scheduler, states, empty, x_T, count, w):
    x_T.copy_(sample_with()(unet, scheduler, states, empty, x_T.clone(), count, w))
    return x_T


def test_sampling(lesson, scheduler):
    checks.sampling(lesson.sample, scheduler)
    checks.sampling(sample_with(), scheduler)
    checks.sampling(sample_in_one_batch, scheduler)
    for wrong, advice in [
        (lambda *_: None, "returns None: is a `return` missing"),
        (lambda u, s, c, e, x, n, w: x, "never called"),
        (sample_with(guided=lambda u, c, w: guide(c, u, w)), "exchanged: guide"),
        (sample_with(guided=lambda u, c, w: c), "unguided"),
        (sample_with(guided=lambda u, c, w: u), "prompt has no effect"),
        (sample_with(guided=lambda u, c, w: c + w * (c - u)), "not that of DDIM"),
        (sample_with(chosen=lambda s, n: timesteps(s.config, n)[::-1]), "at the timesteps"),
        (sample_with(chosen=lambda s, n: list(range(n))), "at the timesteps"),
        (sample_with(chosen=lambda s, n: timesteps(s.config, n + 1)), "at the timesteps"),
        (sample_with(chosen=lambda s, n: timesteps(s.config, n)[:-1]), "at the timesteps"),
        (sample_with(following=lambda s, times: times), "stays as strong"),
        (
            sample_with(following=lambda s, times: [*times[1:], times[-1]]),
            "last step is missing",
        ),
        (sample_with(predict=lambda x, o, a: predict_x0_and_noise(x, o, a, "epsilon")), "noise"),
        (
            sample_with(
                predict=lambda x, o, a: predict_x0_and_noise(x, o, a, "v_prediction")[::-1]
            ),
            "not that of DDIM",
        ),
        (sample_with(step=lambda x_0, e, a, b: x_0), "not that of DDIM"),
        (
            sample_with(step=lambda x_0, e, a, b: ddim_step(x_0, e, a, b, 1.0, torch.ones(1))),
            "not that of DDIM",
        ),
        (sample_with(no_grad=False), "recorded gradients"),
        (sample_with(first=lambda x: x * 2), "not that of DDIM"),
        (in_place, "`x_T` itself was changed"),
        (lambda *parts: sample_with()(*parts)[:1], "shape"),
        (lambda *parts: [sample_with()(*parts)], "is a list"),
    ]:
        assert_advice(advice, checks.sampling, wrong, scheduler)


# --- (e) to (g) and the challenge


def images_of(count):
    return [Image.fromarray(np.full((64, 64, 3), 200, np.uint8)) for _ in range(count)]


def right_count(read, pairs):
    return sum((r["object"], r["color"]) == pair for r, pair in zip(read, pairs, strict=True))


def test_share_right(lesson, capsys):
    pairs = [("duck", "red"), ("car", "blue")]
    checks.share_right(lesson.share_right, images_of(2), pairs)
    assert "0% of your 2 images" in capsys.readouterr().out
    checks.share_right(
        lambda read, p: float(
            np.mean(
                [r["object"] == a and r["color"] == b for r, (a, b) in zip(read, p, strict=True)]
            )
        ),
        images_of(2),
        pairs,
    )

    def share(field, i):
        return lambda read, p: sum(r[field] == q[i] for r, q in zip(read, p, strict=True)) / len(p)

    toys, colors = share("object", 0), share("color", 1)
    for wrong, advice in [
        (lambda read, p: None, "returns None: is a `return` missing"),
        (toys, "counts toys alone"),
        (colors, "counts colors alone"),
        (lambda read, p: (toys(read, p) + colors(read, p)) / 2, "mean of both"),
        (right_count, "That is a number of images"),
        (lambda read, p: 100 * right_count(read, p) / len(p), "percent"),
        (
            lambda read, p: (
                sum(r["object"] == a or r["color"] == b for r, (a, b) in zip(read, p, strict=True))
                / len(p)
            ),
            "and, not or",
        ),
        (lambda read, p: 0.5, "with two right the share is 0.4"),
        (lambda read, p: "0.4", "it has to be a number"),
        (lambda read, p: read[0]["toy"], "raised KeyError"),
    ]:
        assert_advice(advice, checks.share_right, wrong, images_of(2), pairs)


def loss_at_with(mix=add_noise, target=velocity, error=lambda d: d.square().mean(), **changes):
    """Return a loss at one timestep in which one line is another one."""

    def loss(t, unet, x_0, states, noise, alpha_bar):
        a = alpha_bar[changes.get("level", t)]
        with torch.no_grad():
            output = unet(mix(x_0, noise, a), changes.get("t", t), changes.get("states", states))
        return error(output.sample - target(x_0, noise, a)).item()

    return loss


def test_loss_at_timestep(lesson):
    checks.loss_at_timestep(lesson.loss_at)
    checks.loss_at_timestep(loss_at_with(error=lambda d: (d * d).flatten(1).mean(1).mean()))
    for wrong, advice in [
        (lambda *_: None, "returns None: is a `return` missing"),
        (lambda *_: 1.0, "never called"),
        (lambda *parts: torch.tensor(loss_at_with()(*parts)), "return a number"),
        (loss_at_with(t=3), "was given the timestep 3, not 6"),
        (loss_at_with(level=3), "not given x_t"),
        (loss_at_with(states=torch.zeros(3, 3, 2)), "Hand `states`"),
        (loss_at_with(mix=lambda x, e, a: x), "not given x_t"),
        (loss_at_with(mix=lambda x, e, a: add_noise(e, x, a)), "not given x_t"),
        (loss_at_with(mix=lambda x, e, a: add_noise(x, e, a**2)), "not given x_t"),
        (loss_at_with(target=lambda x, e, a: e), "compared with the noise"),
        (loss_at_with(target=lambda x, e, a: x), "compared with x_0"),
        (loss_at_with(target=lambda x, e, a: velocity(x, e, 1 - a)), "roots are exchanged"),
        (loss_at_with(error=lambda d: d.square().sum()), "take the mean"),
        (loss_at_with(error=lambda d: d.abs().mean()), "not the mean of"),
        (lambda *parts: loss_at_with(error=lambda d: d.square())(*parts), "RuntimeError"),
    ]:
        assert_advice(advice, checks.loss_at_timestep, wrong)


def distances(samples, latents):
    return torch.cdist(samples.flatten(1), latents.flatten(1))


def test_nearest(lesson):
    checks.nearest(lesson.nearest)
    checks.nearest(lambda s, l: torch.stack([(l - x).square().sum((1, 2, 3)).argmin() for x in s]))
    for wrong, advice in [
        (lambda s, l: None, "returns None: is a `return` missing"),
        (lambda s, l: distances(s, l).argmax(1), "farthest"),
        (lambda s, l: distances(s, l).min(1).values, "Those are distances"),
        (lambda s, l: distances(s, l).argmin(), "one index for each sample"),
        (lambda s, l: distances(s, l).argmin(0), "one index for each sample"),
        (lambda s, l: distances(l, s).argmin(1), "one index for each sample"),
        (lambda s, l: (s.flatten(1) @ l.flatten(1).T).argmin(1), "not the nearest"),
        (lambda s, l: distances(s[:, :1], l[:, :1]).argmin(1) * 0 + 10, "not the nearest"),
        (lambda s, l: torch.cdist(s, l).argmin(1), "raised|one index"),
        (lambda s, l: distances(s, l).argmin(1).tolist(), "tensor of indices"),
    ]:
        assert_advice(advice, checks.nearest, wrong)


def test_challenge(monkeypatch, capsys):
    pairs = [("duck", "red"), ("car", "blue")]
    good, bad = images_of(2), images_of(2)
    read = {id(image): {"object": "none", "color": "none"} for image in bad}
    for image, (toy, color) in zip(good, pairs, strict=True):
        read[id(image)] = {"object": toy, "color": color}
    monkeypatch.setattr(
        "course.metrics.judge.Judge", lambda: lambda images: [read[id(image)] for image in images]
    )
    checks.challenge(good, bad, pairs, 10.0, 30.0)
    checks.challenge([bad[0], good[1]], bad, pairs, 30.0, 30.0)
    assert "100% of your images are read right, 0% of the lesson's" in capsys.readouterr().out
    for arguments, advice in [
        ((..., bad, pairs, 1.0, 30.0), "is still empty"),
        ((None, bad, pairs, 1.0, 30.0), "is None"),
        ((tuple(good), bad, pairs, 1.0, 30.0), "has to be a list"),
        ((good[:1], bad, pairs, 1.0, 30.0), "1 images for 2 captions"),
        (([1, 2], bad, pairs, 1.0, 30.0), "has to be a Image"),
        ((good, bad, pairs, 60.0, 30.0), "took 60 s, and 30 s are allowed"),
        ((good, bad, pairs, "fast", 30.0), "`seconds`"),
        ((good, good, pairs, 1.0, 30.0), "more have to be right"),
        ((bad, good, pairs, 1.0, 30.0), "more have to be right"),
    ]:
        assert_advice(advice, checks.challenge, *arguments)
