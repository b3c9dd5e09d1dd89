"""Checks of lesson 0, diffusion in two dimensions."""

import itertools
from typing import Any

import torch
from torch import Tensor

from course.checks.common import Function, call, check, close, diagnose, expect
from course.checks.losses import flow_loss, hidden_labels, loss, training, v_loss
from course.checks.reference import guidance_mistakes
from course.checks.stand_ins import (
    CENTER,
    SamplingRecord,
    expect_loop,
    full_schedule,
    generator,
    labeled_output,
    scaled_linear_betas,
)
from course.diffusion import add_noise, guide, predict_noise, velocity
from course.metrics.points import sliced_wasserstein
from course.plane import average_by_cell, spirals
from course.plane.network import LEVELS

# The lesson finds all of its checks here.
__all__ = ["flow_loss", "hidden_labels", "loss", "training", "v_loss"]

CALLS = 8  # of the challenge
GOAL = 0.05  # its sliced Wasserstein distance; DDIM on equal timesteps reaches about 0.10


@check("0 (a)")
def schedule(function: Function) -> str:
    """The scaled linear noise schedule of Stable Diffusion."""
    for count in (LEVELS, 50):
        result = call(function, count)
        hint = "One entry a timestep, and 1 as the last one."
        expect.tensor(result, (count + 1,), f"alpha_bar of {count} timesteps", hint)
        expect(
            result[-1] == 1, f"The last entry is {float(result[-1]):.4g}: append a 1, for no noise."
        )
        betas = scaled_linear_betas(count)
        linear = torch.linspace(0.00085, 0.012, count)
        roots = torch.linspace(0.00085**0.5, 0.012**0.5, count)
        right, result = full_schedule(count)[:-1], result[:-1]
        mistakes = {
            "Those are the betas. alpha_bar is the product of all 1 - beta up to t.": betas,
            "Those are 1 - beta of each step: multiply them up with .cumprod(dim=0).": 1 - betas,
            "That is the product of the betas: multiply 1 - beta.": betas.cumprod(0),
            "Those are sums: a product of all steps is .cumprod(dim=0).": (1 - betas).cumsum(0),
            "That is 1 minus a sum; the steps multiply: .cumprod(dim=0).": 1 - betas.cumsum(0),
            "The betas are equally spaced; their square roots have to be.": (1 - linear).cumprod(0),
            "Square the equally spaced roots: ** 2 is missing.": (1 - roots).cumprod(0),
            "That is its square root: alpha_bar itself is wanted.": right.sqrt(),
            "That is 1 - alpha_bar, the share of the noise.": 1 - right,
            "The order is reversed: alpha_bar begins near 1 and falls.": right.flip(0),
            "alpha_bar is late by one: entry 0 holds step 1.": full_schedule(count).roll(1)[:-1],
        }
        otherwise = "alpha_bar is not the product of all 1 - beta up to t."
        diagnose(result, right, mistakes, otherwise, tolerance=2e-5)
    return "alpha_bar falls from 0.999 to 0.005: at the end hardly any of the data is left"


@check("0 (b)")
def noising(function: Function) -> str:
    """Noisy points in closed form."""
    x_0, noise = torch.randn(2, 64, 2, generator=generator())
    a = torch.rand(64, 1, generator=generator(1)) * 0.8 + 0.1
    result = call(function, x_0, noise, a)
    expect.tensor(result, x_0.shape, "x_t")
    expect(close(result, call(function, x_0, noise, a)), "Two calls differ: use the given `noise`.")
    r, s = a.sqrt(), (1 - a).sqrt()
    mistakes = {
        "The square roots are missing: .sqrt().": a * x_0 + (1 - a) * noise,
        "The factors are exchanged: sqrt(alpha_bar) belongs to x_0.": s * x_0 + r * noise,
        "The noise has sqrt(1 - alpha_bar), not 1 - sqrt(alpha_bar).": r * x_0 + (1 - r) * noise,
        "The noise needs its square root: sqrt(1 - alpha_bar).": r * x_0 + (1 - a) * noise,
        "x_0 needs its square root: sqrt(alpha_bar).": a * x_0 + s * noise,
        "The noise is not scaled: its factor is sqrt(1 - alpha_bar).": r * x_0 + noise,
        "x_0 is not scaled: its factor is sqrt(alpha_bar).": x_0 + s * noise,
        "The noise is added, not subtracted.": r * x_0 - s * noise,
    }
    otherwise = "That is not sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise."
    diagnose(result, add_noise(x_0, noise, a), mistakes, otherwise)
    return "any timestep in one line; the squares of the two factors sum to 1"


@check("0 (c)")
def score(function: Function) -> str:
    """The score of noisy points, from the noise in them."""
    noise = torch.randn(64, 2, generator=generator())
    a = torch.rand(64, 1, generator=generator(1)) * 0.8 + 0.1
    result = call(function, noise, a)
    expect.tensor(result, noise.shape, "The score")
    right = -noise / (1 - a).sqrt()
    mistakes = {
        "The sign is off: the score points against the noise.": -right,
        "Divide by the square root of 1 - alpha_bar.": -noise / (1 - a),
        "Divide by sqrt(1 - alpha_bar), do not multiply.": -noise * (1 - a).sqrt(),
        "Divide by sqrt(1 - alpha_bar): 1 minus is missing.": -noise / a.sqrt(),
        "The division by sqrt(1 - alpha_bar) is missing.": -noise,
    }
    diagnose(result, right, mistakes, "That is not -noise / sqrt(1 - alpha_bar).")
    return "the score leads against the noise, and is long where there is little noise"


@check("0 (d)")
def average_score(function: Function) -> str:
    """The average score of one noisy point, whose true score is known."""
    torch.manual_seed(0)
    t, count = 300, 200_000
    a = full_schedule()[t]
    x_0 = CENTER.expand(count, 2)
    result = call(function, x_0, t)
    noise = torch.randn(count, 2)
    x_t = add_noise(x_0, noise, a)
    score = -noise / (1 - a).sqrt()
    right = average_by_cell(x_t, score)
    expect.tensor(result, right.shape, "The result", "average_by_cell returns it.")
    expect(
        (result != 0).any(dim=1).sum() > 1,
        "All averages lie in one cell: hand x_t over, at alpha_bar[t].",
    )
    mistakes = {
        "Those are averages of the noise: apply score_from_noise to it.": (x_t, noise),
        "The sign is off: average what score_from_noise returns.": (x_t, -score),
        "The scores are averaged around the noise: hand x_t over.": (noise, score),
        "Those are averages of the positions: hand the scores over as well.": (x_t, x_t),
    }
    averages = {advice: average_by_cell(*pair) for advice, pair in mistakes.items()}
    full = average_by_cell(x_t, torch.ones_like(x_t), least=400)  # 1 where averages are precise
    averages = {advice: full * average for advice, average in averages.items()}
    otherwise = "The averages are not those of the scores of x_t at this timestep."
    diagnose(full * result, full * right, averages, otherwise, tolerance=0.1)
    return "the average of the scores of single points is the score of all of them"


def _ddpm(x_t: Any, noise: Any, a: Any, b: Any, fresh: Any) -> Any:
    """Return a step of DDPM from alpha_bar `a` to `b`."""
    alpha = a / b
    mean = (x_t - (1 - alpha) / (1 - a).sqrt() * noise) / alpha.sqrt()
    return mean + ((1 - b) / (1 - a) * (1 - alpha)).sqrt() * fresh


@check("0 (g)")
def ddpm(function: Function) -> str:
    """One step of DDPM, also over several timesteps, and the last one."""
    x_t, noise, fresh = torch.randn(3, 64, 2, generator=generator())
    a, b, one = torch.tensor(0.3), torch.tensor(0.6), torch.tensor(1.0)
    result = call(function, x_t, noise, a, b, fresh)
    expect.tensor(result, x_t.shape, "The result of the step")
    alpha = a / b
    sigma = ((1 - b) / (1 - a) * (1 - alpha)).sqrt()
    factor = (1 - alpha) / (1 - a).sqrt()
    mean = (x_t - factor * noise) / alpha.sqrt()
    step = lambda x: x / alpha.sqrt() + sigma * fresh
    mistakes = {
        "The fresh noise is missing.": mean,
        "The fresh noise is not scaled: multiply it by sigma.": mean + fresh,
        "The fresh noise is scaled by sigma^2: take the square root.": mean + sigma**2 * fresh,
        "That sigma is sqrt(1 - alpha): here it has the factor (1 - alpha_bar_prev) / "
        "(1 - alpha_bar) under the root.": mean + (1 - alpha).sqrt() * fresh,
        "The fresh noise is scaled by sqrt(1 - alpha_bar_prev).": mean + (1 - b).sqrt() * fresh,
        "alpha is alpha_bar / alpha_bar_prev, the share of this one step, not alpha_bar.": (
            (x_t - (1 - a).sqrt() * noise) / a.sqrt() + (1 - b).sqrt() * fresh
        ),
        "The division by sqrt(alpha) is missing.": x_t - factor * noise + sigma * fresh,
        "Divide by the square root of alpha.": (x_t - factor * noise) / alpha + sigma * fresh,
        "The predicted noise is added: subtract it.": step(x_t + factor * noise),
        "The predicted noise is subtracted whole: its factor is (1 - alpha) / "
        "sqrt(1 - alpha_bar).": step(x_t - noise),
        "In (1 - alpha) / sqrt(1 - alpha_bar) the root is missing.": step(
            x_t - (1 - alpha) / (1 - a) * noise
        ),
        "The factor is (1 - alpha) / sqrt(1 - alpha_bar), not sqrt(1 - alpha).": step(
            x_t - (1 - alpha).sqrt() * noise
        ),
        "`noise` and `fresh_noise` are exchanged.": _ddpm(x_t, fresh, a, b, noise),
    }
    if not isinstance(result, Tensor) or not close(result, _ddpm(x_t, noise, a, b, fresh)):
        expect(
            close(result, call(function, x_t, noise, a, b, fresh)),
            "Two calls differ: use `fresh_noise` of the arguments, and draw none.",
        )
    otherwise = "That is not mean + sigma fresh_noise: compare each factor with the formulas."
    diagnose(result, _ddpm(x_t, noise, a, b, fresh), mistakes, otherwise)
    last = call(function, x_t, noise, a, one, fresh)
    otherwise = "With alpha_bar_prev = 1, the last step, no noise may remain."
    diagnose(last, _ddpm(x_t, noise, a, one, fresh), {}, otherwise)
    return "the mean of all points that x_t may come from, and noise around it; none at the end"


@check("0 (h)")
def ddim(function: Function) -> str:
    """One step of DDIM without fresh noise, from the noisy points."""
    x_t, noise, fresh = torch.randn(3, 64, 2, generator=generator())
    a, b = torch.tensor(0.3), torch.tensor(0.6)
    result = call(function, x_t, noise, a, b, fresh)
    expect.tensor(result, x_t.shape, "The result of the step")
    part = (1 - a).sqrt() * noise
    x_0 = (x_t - part) / a.sqrt()
    ahead = lambda x_0: add_noise(x_0, noise, b)
    mistakes = {
        "That is x_0: add the noise of the next timestep to it.": x_0,
        "That is only the part of x_0: add sqrt(1 - alpha_bar_prev) noise.": b.sqrt() * x_0,
        "That leads back to x_t: mix with alpha_bar_prev.": x_t,
        "The share of noise is sqrt(1 - alpha_bar_prev), not that of t.": b.sqrt() * x_0 + part,
        "The share of x_0 is sqrt(alpha_bar_prev), not that of t.": (
            a.sqrt() * x_0 + (1 - b).sqrt() * noise
        ),
        "x_0 has the wrong sign in it: subtract the noise.": ahead((x_t + part) / a.sqrt()),
        "For x_0 divide by sqrt(alpha_bar).": ahead(x_t - part),
        "For x_0 divide by the square root of alpha_bar.": ahead((x_t - part) / a),
        "The square roots are missing.": b * ((x_t - (1 - a) * noise) / a) + (1 - b) * noise,
        "The last line lacks the square roots: use add_noise.": b * x_0 + (1 - b) * noise,
        "There is fresh noise in it: DDIM adds back the predicted noise.": add_noise(x_0, fresh, b),
        "alpha_bar and alpha_bar_prev are exchanged.": add_noise(
            (x_t - (1 - b).sqrt() * noise) / b.sqrt(), noise, a
        ),
        "That is a step of DDPM: DDIM adds back the predicted noise, and no fresh one.": _ddpm(
            x_t, noise, a, b, fresh
        ),
    }
    otherwise = "That is not sqrt(alpha_bar_prev) x_0 + sqrt(1 - alpha_bar_prev) noise."
    diagnose(result, ahead(x_0), mistakes, otherwise)
    return "predict x_0, then go back to a smaller noise level along the same noise"


@check("0 (i)")
def loop(function: Function) -> str:
    """The sampling loop, with a predictor and a step that remember what they are given."""
    torch.manual_seed(0)
    x = torch.randn(500, 2)
    start = x.clone()
    for count in (4, 3):
        times = [LEVELS - 1 - i * LEVELS // count for i in range(count)]
        record = SamplingRecord()
        states = call(function, record.predict, record.step, x, count)
        expect(torch.equal(x, start), "The starting points were changed in place.")
        expect_loop(record, start, times)
        expect(
            not isinstance(states, list | tuple),
            "The states are a list: return torch.stack(states).",
        )
        expect(
            not isinstance(states, Tensor) or states.shape != x.shape,
            "Only the last state is returned: return torch.stack(states).",
        )
        hint = "The start, and the result of each step."
        expect.tensor(states, (count + 1, *x.shape), "The result", hint)
        expect(not states.requires_grad, "The loop records gradients: keep @torch.no_grad().")
        right = torch.stack([start, *record.results])
        mistakes = {"The states are in reversed order: the start comes first.": right.flip(0)}
        diagnose(states, right, mistakes, "The states are not the start and each step's result.")
    return "from noise to data: predict, step, and the same again at the next timestep"


@check("0 (k)")
def guidance(function: Function) -> str:
    """Classifier-free guidance, with a network that depends on points, timestep and label."""
    x_t = torch.randn(64, 2, generator=generator())
    label = torch.arange(64) % 2
    result = call(function, labeled_output, x_t, 300, label, 3.0)
    expect.tensor(result, x_t.shape, "The result")
    uncond, cond = labeled_output(x_t, 300), labeled_output(x_t, 300, label)
    mistakes = guidance_mistakes(uncond, cond, 3, "label") | {
        "`w` makes no difference: the formula multiplies by it.": cond,
        "The label makes no difference: one of the two calls gets it.": uncond,
        "`uncond` and `cond` are exchanged: `uncond` has no label.": cond - 3 * (cond - uncond),
        "That is scaled as a whole: w multiplies only the difference.": 3 * cond,
    }
    otherwise = "At w = 3 that is not uncond + 3 (cond - uncond)."
    diagnose(result, guide(uncond, cond, 3.0), mistakes, otherwise)
    diagnose(
        call(function, labeled_output, x_t, 300, 1, 0.0), uncond, {}, "At w = 0 it is not uncond."
    )
    return "w = 0 ignores the label, w = 1 follows it, and a larger w exaggerates the difference"


@check("0 (m)")
def noise_of_v(function: Function) -> str:
    """The noise, from noisy points and v."""
    x_0, noise = torch.randn(2, 64, 2, generator=generator())
    a = torch.tensor(0.3)
    x_t, v = add_noise(x_0, noise, a), velocity(x_0, noise, a)
    result = call(function, x_t, v, a)
    expect.tensor(result, noise.shape, "The noise")
    mistakes = {
        "That is x_0: the noise is sqrt(1 - alpha_bar) x_t + sqrt(alpha_bar) v.": x_0,
        "That is v itself.": v,
        "The sign is off: both terms are added.": (1 - a).sqrt() * x_t - a.sqrt() * v,
        "The factors are exchanged: v has sqrt(alpha_bar).": a.sqrt() * x_t + (1 - a).sqrt() * v,
        "The square roots are missing.": (1 - a) * x_t + a * v,
        "x_t and v are exchanged.": (1 - a).sqrt() * v + a.sqrt() * x_t,
        "The part of x_t is missing.": a.sqrt() * v,
    }
    otherwise = "That is not sqrt(1 - alpha_bar) x_t + sqrt(alpha_bar) v."
    diagnose(result, predict_noise(x_t, v, a, "v_prediction"), mistakes, otherwise)
    return "from x_t and v both x_0 and the noise follow"


@check("0 (o)")
def flow_sampling(function: Function) -> str:
    """Euler's method from tau = 1 to 0, with a field that depends on position and timestep."""
    seen: list[float] = []

    def network(x: Any, t: Any, label: Any = None) -> Tensor:
        time = torch.as_tensor(t, dtype=torch.float32).flatten()
        seen.append(float(time[0]))
        return x + time[0] / LEVELS

    x, count = torch.randn(200, 2, generator=generator()), 5
    start = x.clone()
    states = call(function, network, x, count)
    expect(torch.equal(x, start), "The starting points were changed in place.")
    expect(len(seen) == count, f"{count} steps: the network was called {len(seen)} times.")
    falling = [LEVELS * (1 - i / count) for i in range(count)]
    expect(max(seen) > 2, "The network is given tau: it takes timesteps up to 1000, T * tau.")
    rising = all(a < b for a, b in itertools.pairwise(seen))
    expect(not rising, "tau rises: sampling begins at the noise, tau = 1.")
    expect(
        close(torch.tensor(seen), torch.tensor(falling), 1e-3),
        f"The network gets {[round(t) for t in seen]} where {[round(t) for t in falling]} are due: "
        "the i-th step begins at tau = 1 - i / count.",
    )
    expect(
        not isinstance(states, list | tuple) and getattr(states, "shape", None) != x.shape,
        "Return all states, the start included: torch.stack(states).",
    )
    expect.tensor(states, (count + 1, *x.shape), "The result", "The start, and each step's result.")

    def euler(factor: float) -> Tensor:
        steps = [start]
        for t in falling:
            steps.append(steps[-1] + factor * (steps[-1] + t / LEVELS))
        return torch.stack(steps)

    mistakes = {
        "The sign is off: tau falls, so each step subtracts.": euler(1 / count),
        "The steps are too long: each has the length 1 / count.": euler(-1.0),
    }
    otherwise = "A step is not x - output / count, or a state is missing."
    diagnose(states, euler(-1 / count), mistakes, otherwise)
    return "the same loop, with straight steps"


@check("0 challenge 1")
def challenge(function: Function) -> str:
    """Few calls of the best possible predictor; the distance to the data decides."""
    data, alpha_bar = spirals(), full_schedule()
    torch.manual_seed(0)
    start, reference = torch.randn(4000, 2), data.sample(20000)[0]
    calls: list[int] = []

    def predict(x_t: Tensor, t: Any) -> Tensor:
        level = int(torch.as_tensor(t).flatten()[0])
        expect(0 <= level < LEVELS, f"predict takes timesteps from 0 to {LEVELS - 1}, got {level}.")
        calls.append(level)
        expect(len(calls) <= CALLS, f"predict may be called {CALLS} times, and is called again.")
        a = alpha_bar[level]
        return -(1 - a).sqrt() * data.score(x_t, a)

    result = call(function, predict, start.clone())
    expect.tensor(result, start.shape, "The result", "The samples alone, one for each start.")
    expect(calls, "predict was not called: the samples have to come from the model.")
    distance = sliced_wasserstein(result, reference)
    expect(
        distance <= GOAL,
        f"The sliced Wasserstein distance to the data is {distance:.3f} after {len(calls)} calls; "
        f"the goal is {GOAL}. Where do the long steps go wrong?",
    )
    return f"a sliced Wasserstein distance of {distance:.3f} with {len(calls)} calls (at most 0.05)"


@check("0 (p)")
def token(value: Any) -> str:
    """A Hugging Face token, which only models that are not public need. Never prints the token."""
    expect(value is not ..., "`token` is still empty: write the line of the TODO above.")
    if value is None:
        return "no token is stored here; the embedded model, pocket, needs none"
    expect.is_a(value, str, "`token`", "get_token() returns a text or None.")
    expect(
        value.startswith("hf_"),
        'A Hugging Face token starts with "hf_". Copy it again from '
        "https://huggingface.co/settings/tokens",
    )
    return "a Hugging Face token is stored on this machine"
