"""Checks of score distillation in task 3: the functions of nerf/sd.py, and the loop."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from course import diffusion
from course.checks.common import (
    ATTENTION_MASK,
    TOKENS,
    CheckFailed,
    Function,
    call,
    check,
    close,
    diagnose,
    expect,
    tolerance_of,
)
from course.models import Model

NUM_TIMESTEPS = 1000


@check("3 (a)")
def prompt_embedding(function: Function, model: Model, text_encoder: Any) -> str:
    """`embed_text` gives the text encoder's vectors (L, D) of a text, short or long."""
    text, length = "a red car", model.text_length
    arguments = model.tokenizer, text_encoder, length
    result = call(function, text, *arguments)
    advice = "the vectors are [0] of what the text encoder returns."
    expect.is_a(result, Tensor, "That", advice)

    def encode(**options: Any) -> Tensor:
        tokens = model.tokenizer(text, return_tensors="pt", **options)
        with torch.no_grad():
            return text_encoder(tokens.input_ids.to(text_encoder.device))[0]

    batch = encode(padding="max_length", max_length=length, truncation=True)  # (1, L, D)
    right, unpadded = batch[0], encode()[0]
    expect(result.is_floating_point(), TOKENS)
    expect(result.shape != batch.shape, "The result is a batch of one: take its entry [0].")
    expect(
        result.shape != unpadded.shape or unpadded.shape == right.shape,
        f"The text encoder was trained on rows of {length} tokens: "
        'padding="max_length" and max_length.',
    )
    expect.tensor(result, right.shape, "The result")
    tokens = model.tokenizer(
        text, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).to(text_encoder.device)
    with torch.no_grad():
        masked = text_encoder(**tokens)[0][0]
    otherwise = "Those are not the text encoder's vectors of that text."
    diagnose(result, right, {ATTENTION_MASK: masked}, otherwise, tolerance_of(model))
    long = call(function, "a red car " * length, *arguments, allow=Exception)
    expect(
        isinstance(long, Tensor) and long.shape == result.shape,
        "A long text gives an error or too many vectors: truncation=True cuts it.",
    )
    expect(not result.requires_grad, "A gradient reaches the text encoder: keep @torch.no_grad().")
    return "embed_text: a prompt as a fixed number of vectors"


@check("3 (b)")
def timesteps(function: Function) -> str:
    """`sample_timesteps` is stratified, shuffled, in its ranges, and repeatable."""
    count, last = 8, NUM_TIMESTEPS - 1

    def sample(low: float, high: float, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        bounds = torch.full((count,), low), torch.full((count,), high)
        return call(function, *bounds, NUM_TIMESTEPS, generator)

    first = sample(0.2, 0.6, 0)
    rule = f"it has to be a tensor of shape ({count},): one timestep for each image."
    expect.is_a(first, Tensor, "The result", rule)
    expect(first.shape == (count,), f"The result has the shape {tuple(first.shape)}; {rule}")
    expect(
        not first.is_floating_point(),
        f"Timesteps are whole numbers, not {first.dtype}: .round().long().",
    )
    expect(float(first.max()) > 1, "The timesteps are 0 and 1: multiply by num_timesteps - 1.")
    expect(
        torch.equal(first, sample(0.2, 0.6, 0)),
        "Two calls with the same seed differ: use `generator`.",
    )
    many = torch.stack([sample(0.2, 0.6, seed) for seed in range(300)])  # (300, B)
    expect(
        not bool((many == many[0]).all()),
        "The generator has no effect: draw the numbers with torch.rand(..., generator=generator).",
    )
    low, high = round(0.2 * last), round(0.6 * last)
    expect(
        int(many.min()) >= low - 1 and int(many.max()) <= high + 1,
        f"For the range from 0.2 to 0.6 of {last} there are timesteps from {int(many.min())} to "
        f"{int(many.max())}: lowest + (highest - lowest) * share, times num_timesteps - 1.",
    )
    expect(
        int(many.min()) < low + 20 and int(many.max()) > high - 20,
        "The timesteps do not reach the ends of the range: is something left out or scaled twice?",
    )
    edges = last * (0.2 + 0.4 * torch.arange(count + 1) / count)
    ordered = many.sort(1).values
    in_parts = (ordered >= edges[:-1] - 1) & (ordered <= edges[1:] + 1)
    expect(
        bool(in_parts.all()),
        "The timesteps are not stratified: (torch.arange(B) + torch.rand(B)) / B has a number in "
        "each of B equal parts.",
    )
    means = many.float().mean(0)
    expect(
        float(means.std()) < 0.05 * last,
        "Each image keeps its own part: shuffle by torch.randperm.",
    )
    top = call(function, torch.ones(4), torch.ones(4), NUM_TIMESTEPS, torch.Generator())
    expect(
        torch.equal(top.cpu(), torch.full((4,), last)),
        f"The highest timestep is {last}, and the share 1 gives {int(top.max())}: the factor is "
        "num_timesteps - 1.",
    )
    return "sample_timesteps: stratified timesteps, shuffled"


class _Denoiser:
    """A denoiser whose output depends on latents, timesteps and prompts; it counts its calls."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(
        self, x: Tensor, t: Any, *others: Any, encoder_hidden_states: Any = None, **options: Any
    ) -> SimpleNamespace:
        prompts = encoder_hidden_states if encoder_hidden_states is not None else others[0]
        self.calls.append(len(x))
        if not len(x) == len(prompts) == len(t):
            raise CheckFailed(
                f"The denoiser got {len(x)} latents, {len(t)} timesteps and {len(prompts)} "
                "prompts: repeat latents and timesteps once for each prompt, and flatten the first "
                "two dimensions of the embeddings."
            )
        scale = prompts.float().mean((1, 2)) + t.float() / NUM_TIMESTEPS  # (N,)
        return SimpleNamespace(sample=x * scale[:, None, None, None] + 0.1 * x.square())


@check("3 (c)")
def noise_prediction(function: Function) -> str:
    """`predict_noise` guides, in one call of the denoiser, for both kinds of models."""
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn((2, 4, 5, 5), generator=generator)
    embeddings = torch.randn((2, 2, 7, 3), generator=generator)
    t = torch.tensor([100, 700])
    alpha_bar = torch.tensor([0.9, 0.2]).reshape(2, 1, 1, 1)
    w = 7.5

    def outputs(prompts: Tensor) -> list[Tensor]:
        return [_Denoiser()(x_t, t, prompt).sample for prompt in prompts]

    for kind in ("epsilon", "v_prediction"):
        denoiser = _Denoiser()
        arguments = denoiser, x_t, t, embeddings, alpha_bar, kind, w
        result = call(function, *arguments)
        expect.tensor(result, x_t.shape, "The predicted noise")
        _expect_one_call(denoiser, 4)
        raw = outputs(embeddings)
        uncond, cond = (diffusion.predict_noise(x_t, part, alpha_bar, kind) for part in raw)
        raw_guided = raw[0] + w * (raw[1] - raw[0])
        sigma, alpha = (1 - alpha_bar).sqrt(), alpha_bar.sqrt()
        swapped = [sigma * part + alpha * x_t for part in raw]
        no_roots = [alpha_bar * part + (1 - alpha_bar) * x_t for part in raw]
        mistakes = {
            "That is the prediction for the prompt alone, without guidance.": cond,
            "That is the prediction for the negative prompt alone.": uncond,
            "w scales the difference, not the prediction for the prompt.": uncond + w * cond,
            "The scaled difference is added to the prediction for the negative prompt, not to that "
            "for the prompt: (1 + w) is the convention of Ho and Salimans.": cond
            + w * (cond - uncond),
            "The prediction for the negative prompt is missing: add it.": w * (cond - uncond),
            "The prompts are exchanged: the negative one comes first.": diffusion.guide(
                cond, uncond, w
            ),
            "The difference has the wrong sign: cond - uncond.": uncond + w * (uncond - cond),
            "A model with v_prediction returns v: convert it to noise first.": raw_guided,
            "The roots of the conversion from v are exchanged.": diffusion.guide(
                swapped[0], swapped[1], w
            ),
            "The roots of the conversion from v are missing.": diffusion.guide(
                no_roots[0], no_roots[1], w
            ),
        }
        if kind == "epsilon":
            mistakes = {advice: wrong for advice, wrong in mistakes.items() if " v" not in advice}
        otherwise = f"With prediction_type={kind!r} that is not the guided noise."
        diagnose(result, diffusion.guide(uncond, cond, w), mistakes, otherwise)
    expect(not result.requires_grad, "A gradient reaches the denoiser: keep @torch.no_grad().")
    _expect_half_precision(function, arguments)
    _expect_more_prompts(function, arguments)
    return "predict_noise: guided noise, of models that predict noise or v"


def _expect_one_call(denoiser: _Denoiser, size: int) -> None:
    expect(denoiser.calls, "The denoiser was not called: unet(x, t, encoder_hidden_states=...).")
    expect(
        denoiser.calls == [size],
        f"The denoiser was called {len(denoiser.calls)} times, with {denoiser.calls} images: one "
        "call with all prompts in one batch is faster.",
    )


def _expect_half_precision(function: Function, arguments: tuple[Any, ...]) -> None:
    types: list[torch.dtype] = []

    def unet(x: Tensor, *others: Any, **options: Any) -> SimpleNamespace:
        types.append(x.dtype)
        return SimpleNamespace(sample=x)

    half = (unet, *arguments[1:3], arguments[3].half(), arguments[4], "epsilon", arguments[6])
    result = call(function, *half)
    expect(
        types == [torch.float16],
        "The embeddings are float16, as on a GPU, and the denoiser gets latents of another type: "
        ".to(embeddings.dtype).",
    )
    expect(
        result.dtype == torch.float32,
        f"The noise is {result.dtype}: go on in float32, .sample.float().",
    )


def _expect_more_prompts(function: Function, arguments: tuple[Any, ...]) -> None:
    unet, x_t, t, embeddings = arguments[:4]
    four = torch.cat([embeddings, embeddings.flip(0)])
    seen: list[int] = []

    def perp_neg(noise_preds: list[Tensor]) -> Tensor:
        seen.append(len(noise_preds))
        return 2 * noise_preds[3]

    result = call(function, unet, x_t, t, four, *arguments[4:], perp_neg)
    last = _Denoiser()(x_t, t, four[3]).sample
    right = 2 * diffusion.predict_noise(x_t, last, *arguments[4:6])
    expect(seen, "`perp_neg` was given and not called: return perp_neg(the predicted noises).")
    expect(seen == [4], f"With four prompts `perp_neg` got {seen[0]} predictions.")
    diagnose(result, right, {}, "`perp_neg` gets the predicted noises, and its result is returned.")


@check("3 (d)")
def sds_step(function: Function) -> str:
    """`sds_step` has the gradient of DreamFusion, as the derivative of its loss."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((3, 4, 5, 5), generator=generator).requires_grad_()
    alpha_bar = torch.tensor([0.9, 0.5, 0.1]).reshape(3, 1, 1, 1)
    omega = torch.tensor([0.2, 0.7, 1.3]).reshape(3, 1, 1, 1)
    t = torch.tensor([10, 300, 900])
    inputs: list[Tensor] = []

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        inputs.append(x_t)
        return 0.3 * x_t + 0.1 * x_t.square() + t[:, None, None, None] / NUM_TIMESTEPS

    def run(seed: int) -> Any:
        source = torch.Generator().manual_seed(seed)
        return call(function, latents, t, alpha_bar, omega, predict, source)

    step = run(1)
    names = ("loss", "gradient", "noise", "noisy_latents", "noise_pred")
    expect(
        all(hasattr(step, name) for name in names),
        f"`sds_step` returns a {type(step).__name__}: keep its last line, return SDSStep(...).",
    )
    for name in names:
        expect(
            getattr(step, name) is not ...,
            f"`{name}` of what `sds_step` returns is still empty: write the lines of the TODO.",
        )
    for name in names[1:]:
        expect.tensor(getattr(step, name), latents.shape, f"`{name}`", "It has that of the latents")
    expect.tensor(step.loss, (), "The loss", "backward() starts from one number: add them up.")
    _expect_noise(step, run(1), run(2))
    _expect_noisy(step, inputs, latents, alpha_bar)
    error = step.noise_pred - step.noise
    right = omega * error
    mistakes = {
        "The gradient has the opposite sign: predicted noise minus noise.": -right,
        "The weight omega(t) is missing in the gradient.": error,
        "The noise that was added is missing in the gradient: subtract it.": omega
        * step.noise_pred,
        "The gradient is the squared error; SDS has no square.": omega * error.square(),
        "The gradient has a factor 2: DreamFusion leaves it to omega(t).": 2 * right,
        "The weight counts twice in the gradient.": omega * right,
        "The weight is a factor of the gradient, not a divisor.": error / omega,
        "`gradient` is divided by the number of images already: only the loss is.": right / 3,
        "The gradient has the mean over the batch in it.": right.mean(0, keepdim=True).expand_as(
            right
        ),
    }
    otherwise = "`gradient` is not omega(t) (predicted noise - noise)."
    diagnose(step.gradient.detach(), right.detach(), mistakes, otherwise)
    _expect_derivative(step.loss, latents, right.detach())
    return "sds_step: a scalar loss with the gradient of score distillation"


def _expect_noise(step: Any, again: Any, other: Any) -> None:
    noise = step.noise
    expect(
        close(again.noise, noise),
        "Two calls with the same seed have different noise: torch.randn(..., generator=generator).",
    )
    expect(
        not close(other.noise, noise),
        "Another seed gives the same noise: draw it from `generator`, in every step anew.",
    )
    expect(float(noise.min()) < 0, "The noise is never negative: torch.randn, not torch.rand.")
    expect(
        not close(noise, noise[:1].expand_as(noise)),
        "All images have the same noise: draw it in the shape of the latents.",
    )


def _expect_noisy(step: Any, inputs: list[Tensor], latents: Tensor, alpha_bar: Tensor) -> None:
    expect(inputs, "`predict` was not called: noise_pred = predict(noisy_latents, timesteps).")
    expect(
        not inputs[0].requires_grad,
        "A gradient flows through the denoiser, the Jacobian that DreamFusion leaves out: "
        "noise `latents.detach()`.",
    )
    x, noise = latents.detach(), step.noise
    sigma, alpha = (1 - alpha_bar).sqrt(), alpha_bar.sqrt()
    mistakes = {
        "The latents are noisy without the square roots.": alpha_bar * x + (1 - alpha_bar) * noise,
        "The square roots are exchanged: latents have sqrt(alpha_bar).": sigma * x + alpha * noise,
        "The latents are not scaled by sqrt(alpha_bar).": x + sigma * noise,
        "The noise is not scaled by sqrt(1 - alpha_bar).": alpha * x + noise,
        "The noise is added unscaled.": x + noise,
        "The denoiser gets the clean latents: add the noise first.": x,
        "The denoiser gets nothing but noise.": noise,
    }
    otherwise = "noisy_latents are not sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps."
    diagnose(inputs[0], alpha * x + sigma * noise, mistakes, otherwise)
    diagnose(step.noisy_latents, inputs[0], {}, "`noisy_latents` are not what the denoiser got.")


def _expect_derivative(loss: Tensor, latents: Tensor, gradient: Tensor) -> None:
    expect(loss.requires_grad, "No gradient reaches the latents: detach `gradient` alone.")
    [derivative] = torch.autograd.grad(loss, latents, allow_unused=True)
    expect(derivative is not None, "The loss does not depend on `latents`: is it x_t or a copy?")
    right = gradient / len(gradient)
    mistakes = {
        "The loss has the wrong sign: the latents would move away from the prompt.": -right,
        "The loss is not divided by the number of images, len(latents).": gradient,
        "The mean of the loss runs over all numbers, so larger images would learn less: "
        ".sum() / len(latents).": gradient / gradient.numel(),
        "The loss is divided by the number of images twice.": right / len(gradient),
        "The derivative of the loss has a factor 2: half the square, or no square.": 2 * right,
    }
    otherwise = (
        "The derivative of the loss with respect to the latents is not gradient / B: "
        "(latents * gradient.detach()).sum() / B has it."
    )
    diagnose(derivative, right, mistakes, otherwise)


@check("3 (e)")
def descent(function: Function, step: Function) -> str:
    """`optimize` takes a step of plain gradient descent for each step of SDS.

    With a denoiser that always predicts the same clean latents, `goal`, the noise cancels, and the
    latents after the timesteps that it got are known exactly.
    """
    alphas_cumprod = torch.linspace(0.999, 0.005, NUM_TIMESTEPS)
    goal = torch.linspace(-1, 1, 2 * 4 * 3 * 3).reshape(2, 4, 3, 3)
    start, steps, lr = torch.zeros_like(goal), 12, 0.5
    seen: list[Tensor] = []

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        alpha_bar = alphas_cumprod[t][:, None, None, None]
        return (x_t - alpha_bar.sqrt() * goal) / (1 - alpha_bar).sqrt()

    generator = torch.Generator().manual_seed(0)
    result = call(function, start, predict, alphas_cumprod, steps, lr, generator, step)
    expect.tensor(result, goal.shape, "The optimized latents")
    expect(not bool(start.any()), "`optimize` changes the latents it was given: .clone() them.")
    expect(not result.requires_grad, "The result still has a gradient: return .detach().")
    expect(
        not close(result, start), "The latents have not changed: loss.backward(), optimizer.step()."
    )
    expect(len(seen) == steps, f"{len(seen)} steps of SDS were taken, and `steps` is {steps}.")
    times = torch.stack(seen)  # (steps, B)
    expect(
        bool((times != times[0]).any()), "All steps have the same timesteps: sample in the loop."
    )
    shares = times.float() / (NUM_TIMESTEPS - 1)
    expect(
        bool((shares.amax(1) > 0.4).any()) and float(shares.min()) >= 0.019,
        "The timesteps are not from 0.02 to the highest share.",
    )
    expect(
        bool((shares.amax(1) <= 0.981 - 0.48 * torch.arange(steps) / steps).all()),
        "The highest timestep has to fall evenly: 0.98 - 0.48 * i / steps in step i.",
    )
    _expect_descent(result, goal, alphas_cumprod[times][..., None, None, None], lr)
    return "optimize: gradient descent by SDS"


def _expect_descent(result: Tensor, goal: Tensor, alpha_bars: Tensor, lr: float) -> None:
    """Compare with gradient descent from 0 at alpha_bars (steps, B, 1, 1, 1)."""

    def descend(factor: float, power: float = 1.0, accumulate: bool = False) -> Tensor:
        x, total = torch.zeros_like(goal), torch.zeros_like(goal)
        for alpha_bar in alpha_bars:
            sigma = (1 - alpha_bar).sqrt()
            gradient = sigma ** (2 * power - 1) * alpha_bar.sqrt() * (x - goal)
            total = gradient + (total if accumulate else 0)
            x = x - factor * total
        return x

    mistakes = {
        "The latents move away from what the denoiser predicts: optimizer.step() goes against the "
        "gradient by itself.": descend(-lr),
        "The loss is a mean over B images, so each moves too little: SGD with "
        "lr * len(latents).": descend(lr / len(goal)),
        "The gradients of all steps add up: optimizer.zero_grad().": descend(lr, accumulate=True),
        "The weight omega(t) is not 1 - alpha_bar, but 1.": descend(lr, 0),
        "The weight omega(t) is not 1 - alpha_bar, but its root.": descend(lr, 0.5),
    }
    otherwise = (
        "That is not plain gradient descent with omega(t) = 1 - alpha_bar: torch.optim.SGD with "
        "lr * len(latents), and in each step zero_grad(), loss.backward() and step()."
    )
    diagnose(result, descend(lr), mistakes, otherwise, 1e-3)
