"""Checks of task 3: the four functions of nerf/sd.py, and those of the lesson."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from course import diffusion
from course.checks.common import (
    CheckFailed,
    call,
    check,
    close,
    diagnose,
    expect,
    expect_tensor,
    expect_type,
    tolerance_of,
)
from course.models import Model
from course.views import FRONT_SIDE, OVERHEAD, SIDE_BACK

NUM_TIMESTEPS = 1000
BLEND = 15.0  # degrees on either side of a border between views


# --- nerf/sd.py


@check("3 (a)")
def prompt_embedding(function: Callable[..., Tensor], model: Model, text_encoder: Any) -> str:
    """`embed_text` gives the text encoder's vectors (L, D) of a text, short or long."""
    text, length = "a red car", model.text_length
    arguments = model.tokenizer, text_encoder, length
    result = call(function, text, *arguments)
    advice = "the vectors are [0] of what the text encoder returns."
    expect_type(result, torch.Tensor, "That", advice)

    def encode(**options: Any) -> Tensor:
        tokens = model.tokenizer(text, return_tensors="pt", **options)
        with torch.no_grad():
            return text_encoder(tokens.input_ids.to(text_encoder.device))[0]

    batch = encode(padding="max_length", max_length=length, truncation=True)  # (1, L, D)
    right, unpadded = batch[0], encode()[0]
    expect(result.is_floating_point(), "Those are the tokens: hand them to the text encoder.")
    expect(
        result.shape != batch.shape,
        "The result is a batch of one: leave out its first dimension, with [0].",
    )
    expect(
        result.shape != unpadded.shape or unpadded.shape == right.shape,
        f"The text encoder was trained on rows of {length} tokens: "
        'padding="max_length" and max_length.',
    )
    expect_tensor(result, right.shape, "The result")
    otherwise = "Those are not the text encoder's vectors of that text."
    diagnose(result, right, {}, otherwise, tolerance_of(model))
    long = call(function, "a red car " * length, *arguments, allow=Exception)
    expect(
        isinstance(long, torch.Tensor) and long.shape == result.shape,
        "A long text gives an error or too many vectors: truncation=True cuts it.",
    )
    expect(not result.requires_grad, "A gradient reaches the text encoder: keep @torch.no_grad().")
    return "embed_text: a prompt as vectors, always as many"


@check("3 (b)")
def timesteps(function: Callable[..., Tensor]) -> str:
    """`sample_timesteps` is stratified, shuffled, in its ranges, and repeatable."""
    count, last = 8, NUM_TIMESTEPS - 1

    def sample(low: float, high: float, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        bounds = torch.full((count,), low), torch.full((count,), high)
        return call(function, *bounds, NUM_TIMESTEPS, generator)

    first = sample(0.2, 0.6, 0)
    rule = f"it has to be a tensor of shape ({count},): one timestep for each image."
    expect_type(first, torch.Tensor, "The result", rule)
    expect(first.shape == (count,), f"The result has the shape {tuple(first.shape)}; {rule}")
    expect(
        not first.is_floating_point(),
        f"Timesteps are whole numbers, and these are {first.dtype}: .round().long().",
    )
    expect(
        float(first.max()) > 1,
        "The timesteps are 0 and 1: multiply the shares by num_timesteps - 1.",
    )
    expect(
        torch.equal(first, sample(0.2, 0.6, 0)),
        "Two calls with the same seed differ: give `generator` to every random function.",
    )
    many = torch.stack([sample(0.2, 0.6, seed) for seed in range(300)])  # (300, B)
    expect(
        not bool((many == many[0]).all()),
        "The generator has no effect: draw the numbers with torch.rand(..., generator=generator).",
    )
    low, high = round(0.2 * last), round(0.6 * last)
    expect(
        int(many.min()) >= low and int(many.max()) <= high,
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
        "Each image keeps its own part of the range: shuffle the shares, by torch.randperm.",
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
def noise_prediction(function: Callable[..., Tensor]) -> str:
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
        expect_tensor(result, x_t.shape, "The predicted noise")
        _expect_one_call(denoiser, 4)
        raw = outputs(embeddings)
        uncond, cond = (diffusion.predict_noise(x_t, part, alpha_bar, kind) for part in raw)
        raw_guided = diffusion.guide(*raw, w)
        sigma, alpha = (1 - alpha_bar).sqrt(), alpha_bar.sqrt()
        swapped = [sigma * part + alpha * x_t for part in raw]
        mistakes = {
            "That is the prediction for the prompt alone, without guidance.": cond,
            "That is the prediction for the negative prompt alone.": uncond,
            "w scales the difference, not the prediction for the prompt.": uncond + w * cond,
            "The scaled difference is added to the prediction for the negative prompt, not to that "
            "for the prompt: (1 + w) is the convention of Ho and Salimans.": cond
            + w * (cond - uncond),
            "The prediction for the negative prompt is missing: add it.": w * (cond - uncond),
            "The two prompts are exchanged: the negative prompt comes first.": diffusion.guide(
                cond, uncond, w
            ),
            "The difference has the wrong sign: prompt minus negative prompt.": uncond
            + w * (uncond - cond),
            "A model with v_prediction returns v: convert it to noise first.": raw_guided,
            "The roots of the conversion from v are exchanged.": diffusion.guide(*swapped, w),
            "The roots of the conversion from v are missing.": diffusion.guide(
                *(alpha_bar * part + (1 - alpha_bar) * x_t for part in raw), w
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


def _expect_half_precision(function: Callable[..., Tensor], arguments: tuple[Any, ...]) -> None:
    types: list[torch.dtype] = []

    def unet(x: Tensor, *others: Any, **options: Any) -> SimpleNamespace:
        types.append(x.dtype)
        return SimpleNamespace(sample=x)

    half = (unet, *arguments[1:3], arguments[3].half(), *arguments[4:])
    result = call(function, *half)
    expect(
        types == [torch.float16],
        "The embeddings are float16, as on a GPU, and the denoiser gets latents of another type: "
        ".to(embeddings.dtype).",
    )
    expect(
        result.dtype == torch.float32,
        f"The predicted noise is {result.dtype}: go on in float32, with .sample.float().",
    )


def _expect_more_prompts(function: Callable[..., Tensor], arguments: tuple[Any, ...]) -> None:
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
    expect(
        seen == [4],
        f"With four prompts `perp_neg` got {seen[0]} predictions: one for each prompt.",
    )
    diagnose(
        result, right, {}, "`perp_neg` gets the predicted noises, and its result is returned."
    )


@check("3 (d)")
def sds_step(function: Callable[..., Any]) -> str:
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
    for name in ("loss", "gradient", "noise", "noisy_latents", "noise_pred"):
        expect(
            getattr(step, name, ...) is not ...,
            f"`{name}` of what `sds_step` returns is still empty: write the lines of the TODO.",
        )
    for name in ("gradient", "noise", "noisy_latents", "noise_pred"):
        expect_tensor(getattr(step, name), latents.shape, f"`{name}`", "It has that of the latents")
    expect_tensor(step.loss, (), "The loss", "backward() starts from one number: add them up.")
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
    return "sds_step: the gradient of score distillation, as that of a scalar"


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
    expect(
        float(noise.min()) < 0,
        "The noise is never negative: Gaussian noise comes from torch.randn, not torch.rand.",
    )
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
        "The latents are noisy without the square roots of alpha_bar.": alpha_bar * x
        + (1 - alpha_bar) * noise,
        "The two square roots are exchanged: sqrt(alpha_bar) belongs to the latents.": sigma * x
        + alpha * noise,
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


# --- The lesson


@check("3 (e)")
def descent(function: Callable[..., Any], step: Callable[..., Any]) -> str:
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
    expect_tensor(result, goal.shape, "The optimized latents")
    expect(not bool(start.any()), "`optimize` changes the latents it was given: .clone() them.")
    expect(not result.requires_grad, "The result still has a gradient: return .detach().")
    expect(
        not close(result, start),
        "The latents have not changed: .requires_grad_(), loss.backward(), optimizer.step().",
    )
    expect(len(seen) == steps, f"{len(seen)} steps of SDS were taken, and `steps` is {steps}.")
    times = torch.stack(seen)  # (steps, B)
    expect(
        bool((times != times[0]).any()),
        "All steps have the same timesteps: sample them in the loop, in every step anew.",
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
        "The gradients of all steps add up: optimizer.zero_grad() in every step.": descend(
            lr, accumulate=True
        ),
        "The weight omega(t) is not 1 - alpha_bar, but 1.": descend(lr, 0),
        "The weight omega(t) is not 1 - alpha_bar, but its root.": descend(lr, 0.5),
    }
    otherwise = (
        "That is not plain gradient descent with omega(t) = 1 - alpha_bar: torch.optim.SGD with "
        "lr * len(latents), and in each step zero_grad(), loss.backward() and step()."
    )
    diagnose(result, descend(lr), mistakes, otherwise, 1e-3)


@check("3 (f)")
def pixel_rays(function: Callable[..., Any], cameras: Any) -> str:
    """`pixel_rays` goes through the centers of the pixels, the top row first."""
    height, width = 4, 6
    origins, right = cameras.rays(height, width)
    pose, fov = cameras.poses()[0], cameras.fov[0]
    result = call(function, pose, fov, height, width)
    expect_type(result, tuple, "The result", "it has to be (origins, directions).")
    expect(len(result) == 2, "The result has to be (origins, directions).")
    for name, value in zip(("origins", "directions"), result, strict=True):
        expect_tensor(value, (height, width, 3), f"`{name}`")
    got_origins, directions = result
    diagnose(
        got_origins,
        origins[0],
        {"The origin is the camera's position, the last column of the pose.": -origins[0]},
        "The origins of all rays are the camera's position, pose[:3, 3].",
    )
    norms = directions.norm(dim=-1)
    longer = {"not of length 1: divide by .norm(dim=-1, keepdim=True)": norms}
    for advice, lengths in longer.items():
        expect(close(lengths, torch.ones_like(lengths)), f"The directions are {advice}.")
    diagnose(directions, right[0], _ray_mistakes(pose, fov, height, width), _RAYS_OTHERWISE)
    return "pixel_rays: one ray for each pixel"


_RAYS_OTHERWISE = (
    "The directions are not those through the pixel centers: x = (column + 0.5 - W/2) s to the "
    "right, y = (H/2 - row - 0.5) s upwards, -1 along the view axis, rotated by pose[:3, :3]."
)


def _ray_mistakes(pose: Tensor, fov: Tensor, height: int, width: int) -> dict[str, Tensor]:
    """Return the directions (H, W, 3) of usual mistakes, by their advice."""

    def directions(
        half: float = 0.5, up: float = 1, ahead: float = -1, scale: Tensor | None = None
    ) -> Tensor:
        if scale is None:
            scale = 2 * torch.tan(torch.deg2rad(fov) / 2) / height
        x = (torch.arange(width) + half - width / 2) * scale
        y = up * (height / 2 - half - torch.arange(height)) * scale
        grid = torch.stack(torch.broadcast_tensors(x[None], y[:, None], torch.tensor(ahead)), -1)
        return torch.nn.functional.normalize(grid, dim=-1)

    rotation = pose[:3, :3]
    tangent = torch.tan(torch.deg2rad(fov) / 2)
    return {
        "The image is upside down: row 0 is the top row, y points upwards.": directions(up=-1)
        @ rotation.T,
        "The rays go backwards: a camera looks along its -z.": directions(ahead=1.0) @ rotation.T,
        "The rays go through the corners of the pixels: add half a pixel.": directions(0.0)
        @ rotation.T,
        "The directions are those of the camera: rotate them into the world by pose[:3, :3].": (
            directions()
        ),
        "The rotation is that from the world to the camera: its transpose.": directions()
        @ rotation,
        "The field of view is vertical: one scale for both axes, from the height.": directions(
            scale=2 * tangent / width
        )
        @ rotation.T,
        "The angle is in degrees: torch.deg2rad.": directions(
            scale=2 * torch.tan(fov / 2) / height
        )
        @ rotation.T,
        "Half the angle belongs to half the height: tan(fov / 2).": directions(
            scale=2 * torch.tan(torch.deg2rad(fov)) / height
        )
        @ rotation.T,
        "A pixel has the size 2 tan(fov / 2) / H, twice as large.": directions(
            scale=tangent / height
        )
        @ rotation.T,
    }


@check("3 (g)")
def render_weights(function: Callable[..., Tensor]) -> str:
    """`render_weights` is alpha compositing along rays, NeRF's equation 3."""
    sigmas = torch.rand((3, 6), generator=torch.Generator().manual_seed(0)) * 8
    sigmas[2] = 0
    step = 0.2
    result = call(function, sigmas, step)
    expect_tensor(result, sigmas.shape, "The result", "One weight for each sample.")
    alpha = 1 - (-sigmas * step).exp()
    after = (1 - alpha).cumprod(1)
    before = torch.cat([torch.ones(3, 1), after[:, :-1]], 1)
    total = (sigmas * step).cumsum(1)
    mistakes = {
        "The light that reaches a sample passed those *before* it: shift the product by one, so "
        "that the first sample has T = 1.": after * alpha,
        "That is the opacity of each sample: multiply it by the light T that reaches it.": alpha,
        "That is the light T that reaches each sample: multiply it by the sample's opacity.": (
            before
        ),
        "The step size is missing: the opacity is 1 - exp(-sigma * step).": _weights(sigmas),
        "The opacity is 1 - exp(-sigma * step), not the density itself.": sigmas * step * before,
        "T is a product along the ray, not over the rays: dim=1.": alpha
        * torch.cat([torch.ones(1, 6), (1 - alpha).cumprod(0)[:-1]]),
        "T is the product of 1 - alpha, not of alpha.": alpha
        * torch.cat([torch.ones(3, 1), alpha.cumprod(1)[:, :-1]], 1),
        "The samples are in the wrong order: the first one is the nearest.": _weights(
            sigmas.flip(1) * step
        ).flip(1),
        "The weights are not divided by their sum: what is left is the background.": before
        * alpha
        / (before * alpha).sum(1, keepdim=True).clamp(min=1e-6),
        "The exponent has the wrong sign: light is lost on the way.": (1 - (sigmas * step).exp())
        * total.exp(),
    }
    otherwise = "That is not T_i (1 - exp(-sigma_i * step)), with T_i = prod_(j<i) (1 - alpha_j)."
    diagnose(result, before * alpha, mistakes, otherwise)
    dense = call(function, torch.full((1, 300), 1e4), 1.0)
    expect(
        close(dense[0, 0], torch.ones(())),
        "A very dense sample has to hide all others: its weight is 1.",
    )
    return "render_weights: how much each sample contributes to its pixel"


def _weights(depth: Tensor) -> Tensor:
    """Return the weights (N, K) of samples of optical depth (N, K)."""
    before = depth.cumsum(1) - depth
    return (-before).exp() * (1 - (-depth).exp())


@check("3 (h)")
def composite(function: Callable[..., Any]) -> str:
    """`composite` sums up color and depth of the samples, in front of the background."""
    generator = torch.Generator().manual_seed(0)
    weights = _weights(torch.rand((4, 6), generator=generator))
    colors = torch.rand((4, 6, 3), generator=generator)
    ts = torch.linspace(1, 2, 6).expand(4, 6)
    background = torch.tensor([0.2, 0.5, 0.9])
    result = call(function, weights, colors, ts, background)
    expect_type(result, tuple, "The result", "it has to be (image, opacity, depth).")
    expect(len(result) == 3, "The result has to be (image, opacity, depth).")
    image, opacity, depth = result
    expect_tensor(image, (4, 3), "`image`")
    expect_tensor(opacity, (4,), "`opacity`")
    expect_tensor(depth, (4,), "`depth`")
    total = weights.sum(1)
    diagnose(
        opacity,
        total,
        {
            "That is what shines through: the opacity is the sum of the weights.": 1 - total,
            "The opacity is the sum of the weights, not their mean.": weights.mean(1),
            "The opacity is the sum of the weights, not the largest.": weights.amax(1),
        },
        "The opacity is the sum of the weights.",
    )
    alone = (weights[..., None] * colors).sum(1)
    diagnose(
        image,
        alone + (1 - total)[:, None] * background,
        {
            "The background is missing: what is not opaque shows it.": alone,
            "The background is added in full: multiply it by 1 - opacity.": alone + background,
            "The background is multiplied by the opacity, not by 1 - opacity.": alone
            + total[:, None] * background,
            "The colors have no weights.": colors.sum(1) + (1 - total)[:, None] * background,
            "The colors are averaged: they are summed, the weights do the rest.": alone / 6
            + (1 - total)[:, None] * background,
            "The colors are divided by the opacity, so that fog becomes solid.": alone
            / total[:, None]
            + (1 - total)[:, None] * background,
        },
        "The image is sum_i w_i c_i + (1 - opacity) background.",
    )
    diagnose(
        depth,
        (weights * ts).sum(1),
        {
            "The depth has no weights.": ts.sum(1),
            "The depth is the sum of w t, not divided by the opacity.": (weights * ts).sum(1)
            / total,
        },
        "The depth is sum_i w_i t_i.",
    )
    return "composite: image, opacity and depth"


@check("3 (i)")
def view_weights(function: Callable[..., Tensor]) -> str:
    """`view_weights` says how much a camera shows of front, side, back and overhead."""
    azimuth = torch.tensor([0, 29, 45, 90, -90, -135, 180, -170, 10, 10, 50, 190, 350.0])
    elevation = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 60, 80, 52, 0, 0.0])
    result = call(function, azimuth, elevation)
    expect_tensor(result, (len(azimuth), 4), "The result", "A row for each camera.")
    right = _view_weights(azimuth, elevation)
    mistakes = {
        "Left and right are both sides: use the absolute value of the azimuth.": _view_weights(
            azimuth, elevation, absolute=False
        ),
        "Azimuths beyond 180 degrees start again at -180: (azimuth + 180) % 360 - 180.": (
            _view_weights(azimuth, elevation, wrap=False)
        ),
        "The views change at once: within 15 degrees of a border they blend.": _view_weights(
            azimuth, elevation, 1e-4
        ),
        "The blend is as wide on each side as it should be on both: 30 degrees in all.": (
            _view_weights(azimuth, elevation, 2 * BLEND)
        ),
        "The blend is 15 degrees on each side of a border, 30 in all.": _view_weights(
            azimuth, elevation, BLEND / 2
        ),
        "The overhead view takes its share from the others: multiply them by 1 - overhead.": (
            _view_weights(azimuth, elevation, overhead_takes=False)
        ),
        "Front and back are exchanged: azimuth 0 is the front.": right[:, [2, 1, 0, 3]],
        "The order is front, side, back, overhead.": right[:, [0, 2, 1, 3]],
        "The elevation decides about overhead, the azimuth about the others.": _view_weights(
            elevation, azimuth
        ),
    }
    sums = result.sum(1)
    worst = int((sums - 1).abs().argmax())
    otherwise = "Those are not the weights of the formula."
    if abs(float(sums[worst]) - 1) > 1e-3:
        otherwise = (
            f"The weights of a camera at azimuth {float(azimuth[worst]):.0f} and elevation "
            f"{float(elevation[worst]):.0f} sum to {float(sums[worst]):.2f}, not to 1."
        )
    diagnose(result, right, mistakes, otherwise)
    return "view_weights: which words a camera's prompt gets"


def _view_weights(
    azimuth: Tensor,
    elevation: Tensor,
    blend: float = BLEND,
    absolute: bool = True,
    wrap: bool = True,
    overhead_takes: bool = True,
) -> Tensor:
    def above(angle: Tensor, border: float) -> Tensor:
        return ((angle - border) / (2 * blend) + 0.5).clamp(0, 1)

    angle = (azimuth + 180) % 360 - 180 if wrap else azimuth
    angle = angle.abs() if absolute else angle
    overhead = above(elevation, OVERHEAD)
    not_front, back = above(angle, FRONT_SIDE), above(angle, SIDE_BACK)
    around = torch.stack([1 - not_front, not_front - back, back], 1)
    if overhead_takes:
        around = around * (1 - overhead)[:, None]
    return torch.cat([around, overhead[:, None]], 1)


@check("3 (j)")
def perp_neg(function: Callable[..., Tensor]) -> str:
    """`perp_neg` pushes away only what is perpendicular to the direction of the prompt."""
    generator = torch.Generator().manual_seed(0)
    uncond, cond, *negatives = torch.randn((4, 2, 4, 5, 5), generator=generator)
    stacked = torch.stack([part + 0.5 * cond for part in negatives])  # (2, B, C, h, w)
    weights, w = torch.tensor([[0.3, 1.0], [0.7, 0.0]]), 7.5
    result = call(function, uncond, cond, stacked, weights, w)
    expect_tensor(result, cond.shape, "The result")
    right = diffusion.perp_neg(uncond, cond, stacked, weights, w)
    positive, differences = cond - uncond, stacked - uncond
    scaled = weights[..., None, None, None] * differences

    def away(sum_over: tuple[int, ...] = (1, 2, 3), divide: bool = True) -> Tensor:
        dots = (differences * positive).sum([d + 1 for d in sum_over], keepdim=True)
        squares = positive.square().sum(sum_over, keepdim=True) if divide else 1
        perpendicular = differences - dots / squares * positive
        return (weights[..., None, None, None] * perpendicular).sum(0)

    parallel = differences.sub(0).mul(positive).sum((2, 3, 4), keepdim=True)
    parallel = parallel / positive.square().sum((1, 2, 3), keepdim=True) * positive
    mistakes = {
        "That is guidance alone: the negative views have no effect.": uncond + w * positive,
        "The whole negative direction is pushed away: subtract its part along the prompt.": uncond
        + w * (positive - scaled.sum(0)),
        "The part along the prompt is pushed away: it is the perpendicular one.": uncond
        + w * (positive - (weights[..., None, None, None] * parallel).sum(0)),
        "The negative views attract: their part is subtracted.": uncond + w * (positive + away()),
        "The prediction for the negative prompt is missing: add it.": w * (positive - away()),
        "The weights are missing.": uncond + w * (positive - (differences - parallel).sum(0)),
        "w scales both parts: the prompt's direction and what is pushed away.": uncond
        + w * positive
        - away(),
        "Each image has a projection of its own: sum over all dimensions but the batch's.": uncond
        + w * (positive - away((0, 1, 2, 3))),
        "The projection runs over channels and pixels, not over the channels alone.": uncond
        + w * (positive - away((1,))),
        "The projection is divided by the squared length of the prompt's direction.": uncond
        + w * (positive - away(divide=False)),
        "A direction is the difference from the prediction without prompt: subtract `uncond` from "
        "the negatives.": diffusion.perp_neg(uncond, cond, stacked + uncond, weights, w),
        "The negatives are averaged: their sum counts.": uncond + w * (positive - away() / 2),
    }
    diagnose(result, right, mistakes, "That is not uncond + w (positive - sum of weight * part).")
    zero = call(function, uncond, uncond, stacked, weights, w, allow=CheckFailed)
    expect(
        isinstance(zero, Tensor),
        "Where both predictions agree there is a division by zero: .clamp(min=1e-12).",
    )
    return "perp_neg: guidance that keeps away from hidden views"
