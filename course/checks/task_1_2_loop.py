"""Checks of lesson 1.2, second part: the timesteps, the sampling loop, and its images."""

import itertools
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from course.checks.common import (
    CheckFailed,
    Function,
    call,
    check,
    close,
    diagnose,
    expect,
    same,
    tolerance_of,
)
from course.checks.reference import (
    constant_stride,
    sample_at_levels,
    sample_with_diffusers,
    with_other_prediction,
)
from course.diffusion import (
    SamplingRequest,
    SamplingStep,
    check_request,
    draw_noise,
    guide,
    predict_x0_and_noise,
    timesteps,
)
from course.images import to_pil
from course.models import Model


@check("1.2 (c)")
def schedule(function: Function) -> str:
    """The timesteps of all three spacings, at counts that divide 1,000 and at others."""
    for spacing, offset in (("trailing", 0), ("leading", 0), ("leading", 1), ("linspace", 0)):
        config = SimpleNamespace(
            num_train_timesteps=1000, timestep_spacing=spacing, steps_offset=offset
        )
        for count in (8, 25, 61) if spacing == "trailing" else (1, 8, 60):
            _expect_timesteps(call(function, config, count), config, count)
    config = SimpleNamespace(num_train_timesteps=100, timestep_spacing="trailing", steps_offset=0)
    expect(
        list(call(function, config, 4)) == timesteps(config, 4),
        "With num_train_timesteps = 100 they are wrong: take T from the configuration.",
    )
    return "trailing, leading and linspace, each from noise to image"


def _expect_timesteps(result: Any, config: Any, count: int) -> None:
    """Raise CheckFailed unless `result` are the `count` timesteps of a configuration."""
    right, spacing = timesteps(config, count), config.timestep_spacing
    where = f"{spacing}, {count} steps"
    try:
        result = [float(t) for t in result]
    except (TypeError, ValueError):
        raise CheckFailed(f"For {where} that is not a list of numbers.") from None
    shown = f"got {', '.join(f'{t:g}' for t in result[:4])}, ..."
    expect(
        len(result) == count,
        f"For {where} there are {len(result)} timesteps. Rounding adds one: cut the list.",
    )
    exact = {
        "trailing": [1000 - i * 1000 / count for i in range(count)],
        "linspace": [999 * i / max(count - 1, 1) for i in range(count)][::-1],
        "leading": [(count - 1 - i) * 1000 / count + config.steps_offset for i in range(count)],
    }[spacing]
    shift = 1 if spacing == "trailing" else 0
    mistakes = {
        "They run from image to noise: reverse the list.": right[::-1],
        "T - i T / N counts from 1 to T, and timesteps from 0: subtract 1.": [t + 1 for t in right],
        "Add config.steps_offset.": [t - config.steps_offset for t in right],
        "Round them to whole numbers.": [t - shift for t in exact],
        "Round to the nearest whole number; int() rounds down.": [int(t) - shift for t in exact],
        "The stride is T // N, rounded down before it is multiplied.": [round(t) for t in exact],
    }
    for advice, wrong in mistakes.items():
        expect(
            result == right or not np.allclose(result, wrong), f"For {where} ({shown}): {advice}"
        )
    expect(
        result == right,
        f"For {where} the list has to be {', '.join(map(str, right[:4]))}, ...; {shown}",
    )


@check("1.2 (g)")
def loop(sd: Any, model: Model) -> str:
    """Three steps of `sd.denoise` beside the same three by diffusers' scheduler."""
    shape = (1, sd.unet.config.in_channels, *model.latent_size())
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(model.device)
    embeddings = sd.get_text_embeddings(["a duck"], [""])
    count, w, tolerance = 3, 4.0, tolerance_of(model)

    def attempt(sd: Any, eta: float) -> list[Any]:
        generators = [torch.Generator().manual_seed(2)]
        try:
            with constant_stride(sd):
                return call(sd.denoise, latents, embeddings, count, w, eta, generators)
        except CheckFailed as error:
            expect(
                "is not finite" not in str(error),
                "The latents are not finite. Are alpha_bar and alpha_bar_prev exchanged? A step "
                "goes to the larger one, alpha_bar_prev.",
            )
            expect(
                "returns None" not in str(error),
                "`denoise` hands out nothing: it has to `yield` a SamplingStep in every step. If "
                "the function is still empty, write the lines of the TODO above.",
            )
            raise

    def reference(sd: Any, eta: float) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        return sample_with_diffusers(sd, latents, embeddings, count, w, eta, generator)

    steps = attempt(sd, 0.0)
    _expect_steps(steps, count, tolerance)
    still, right = steps[-1].x_prev, reference(sd, 0.0)
    if not close(still, right, tolerance):
        _explain_loop(sd, latents, embeddings, still, tolerance)
    for step in steps:
        alpha_bar, kind = sd.scheduler.alphas_cumprod[step.t], sd.model.prediction_type
        guided = guide(step.uncond, step.cond, w)
        expect(
            close(step.x_0, predict_x0_and_noise(step.x_t, guided, alpha_bar, kind)[0], tolerance),
            "The latents are right, but not what the steps keep: SamplingStep(t, x_t, uncond, "
            "cond, x_0, x_prev), where x_t are the latents before the step.",
        )
    noisy = attempt(sd, 1.0)[-1].x_prev
    mistakes = {"`eta` makes no difference: pass it to `ddim_step`.": still}
    otherwise = (
        "With eta = 1 the latents are not diffusers': fresh noise comes from `draw_noise`, a new "
        "one in every step."
    )
    diagnose(noisy, reference(sd, 1.0), mistakes, otherwise, tolerance)
    other = with_other_prediction(sd)
    kind = other.model.prediction_type
    advice = (
        f"The loop is right for {model.name}, but not for a model that predicts {kind}: take the "
        "prediction type from self.model.prediction_type."
    )
    diagnose(attempt(other, 0.0)[-1].x_prev, reference(other, 0.0), {}, advice, tolerance)
    return f"{count} steps end where diffusers' own DDIM ends, for eta = 0 and eta = 1"


def _expect_steps(steps: Any, count: int, tolerance: float) -> None:
    """Raise CheckFailed unless `steps` are `count` complete steps, each continuing the last."""
    expect.is_a(steps, list, "The result of `denoise`", "it has to `yield` a SamplingStep a step.")
    expect(
        len(steps) == count, f"The loop took {len(steps)} steps, not {count}: `yield` in the loop."
    )
    for step in steps:
        expect.is_a(step, SamplingStep, "A step", "yield SamplingStep(t, ...).")
        for name in ("x_t", "uncond", "cond", "x_0", "x_prev"):
            value = getattr(step, name)
            expect.tensor(value, steps[0].x_t.shape, f"`{name}` of a step")
    expect(
        all(close(b.x_t, a.x_prev, tolerance) for a, b in itertools.pairwise(steps)),
        "A step does not continue from the result of the one before: end the loop with "
        "`latents = x_prev`.",
    )


def _explain_loop(
    sd: Any, latents: Tensor, embeddings: Tensor, result: Tensor, tolerance: float
) -> None:
    """Raise CheckFailed for the result of a loop that is not diffusers'."""

    def reference(w: float = 4.0, embeddings: Tensor = embeddings) -> Tensor:
        return sample_with_diffusers(sd, latents, embeddings, 3, w, 0.0, torch.Generator())

    def at(predict: int, mix: int) -> Tensor:
        return sample_at_levels(sd, latents, embeddings, 3, 4.0, predict, mix)

    mistakes = {
        "The two halves are exchanged: the negative prompt is first.": (
            reference(embeddings=embeddings.flip(0))
        ),
        "The output is unguided: pass both halves to `guide`, and use its result.": reference(1.0),
        "Only the negative prompt has an effect: pass both halves to `guide`.": reference(0.0),
        "Both noise levels of a step are the same, so the latents stay where they are: predict x_0 "
        "at alpha_bar of t, and mix at that of the next timestep.": at(0, 0),
    }
    otherwise = (
        "After three steps the latents are not those of diffusers' DDIM: is each step given "
        "alpha_bar of t, then that of the next timestep, and the prediction type of the model?"
    )
    diagnose(result, reference(), mistakes, otherwise, tolerance)


@check("1.2 (i)")
def decoded_steps(sd: Any, model: Model) -> str:
    """Images of x_t or x_0 at every step, and of the result."""
    x = torch.randn(3, 5, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(model.device)
    steps = [SamplingStep(9 - i, *tensors) for i, tensors in enumerate(x)]
    before = vars(sd).get("steps")
    sd.steps = steps
    try:
        for name in ("x_t", "x_0"):
            _expect_decoded(call(sd.decode_steps, name), sd, name, tolerance_of(model))
    finally:
        sd.steps = before
    return "an image of every step, and the result at the end"


def _expect_decoded(result: Any, sd: Any, name: str, tolerance: float) -> None:
    """Raise CheckFailed unless `result` are the images of `name` at all of `sd.steps`."""
    steps = sd.steps
    latents = [getattr(step, name) for step in steps]
    right = [sd.decode_latents(z) for z in [*latents, steps[-1].x_prev]]
    if isinstance(result, Tensor) and result.dim() == 5:
        result = list(result)
    expect.list_of(result, Tensor, "The result")
    other = [getattr(step, {"x_t": "x_0", "x_0": "x_t"}[name]) for step in steps]
    mistakes = {
        "The result of sampling is missing at the end: x_prev of the last step.": right[:-1],
        "The last image is that of x_prev of the last step.": [*right[:-1], right[-2]],
        f"`name` is ignored: {name} was requested. Use getattr(step, name).": (
            [*(sd.decode_latents(z) for z in other), right[-1]]
        ),
        "The images run backwards: the noise comes first.": right[::-1],
        "Those are latents: decode them with self.decode_latents.": [*latents, steps[-1].x_prev],
        "Those are all x_prev: take x_t or x_0 as `name` says.": (
            [sd.decode_latents(step.x_prev) for step in steps]
        ),
    }
    otherwise = "Those are not the decoded latents of each step, followed by the result."
    diagnose(result, right, mistakes, otherwise, tolerance)


@check("1.2 (j)")
def sampling(sd: Any, model: Model) -> str:
    """`sample` from prompts to images and frames, beside the parts it consists of."""
    prompts, negatives = ["a duck", "a red car on grass"], ["a tree", ""]
    settings: dict[str, Any] = {
        "num_sampling_steps": 2,
        "guidance_scale": 3.0,
        "seed": [1, 2],
        "eta": 0.5,
    }
    side = model.image_size // 2 // model.scale_factor * model.scale_factor
    with tempfile.TemporaryDirectory() as folder:
        frames: dict[str, Any] = {"save_dir": folder, "save_x_t": True, "height": side}
        result = call(sd.sample, prompts, negatives, **settings, **frames)
        names = sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*.png"))
    expect.is_a(result, list, "The result", "it has to be a list of images.")
    advice = "Convert each image with `to_pil`."
    expect(all(isinstance(image, Image.Image) for image in result), advice)
    expect(len(result) == 2, f"For two prompts there are {len(result)} images.")
    width, height = result[0].size
    expect(
        (width, height) == (model.image_size, side),
        f"With height={side} the image has {width} x {height} pixels: the shape of the noise is "
        "request.shape.",
    )
    _expect_sampled(sd, check_request(model, prompts, negatives, height=side, **settings))
    images = sd.decode_latents(sd.steps[-1].x_prev)
    expect(
        all(same(a, to_pil(b)) for a, b in zip(result, images, strict=True)),
        "The steps are right, but the images are not those of the last x_prev: decode it.",
    )
    expected = [f"x_t/{i:03d}_t{t:04d}.png" for i, t in enumerate([*(s.t for s in sd.steps), 0])]
    expect(
        names == expected,
        f"With save_x_t=True and save_x_0=False the files {', '.join(expected)} have to be saved; "
        f"got {', '.join(names[:4]) or 'none'}.",
    )
    return "images from prompts: text, noise, loop, decoder, and frames where they are requested"


def _expect_sampled(sd: Any, request: SamplingRequest) -> None:
    """Raise CheckFailed unless `sd.steps` are those of a request."""
    steps: Any = getattr(sd, "steps", None)
    expect(
        isinstance(steps, list) and len(steps) == request.num_sampling_steps,
        "`self.steps` has to be the list that collect_steps(...) returns, one entry a step.",
    )

    def run(swap: bool = False, **changes: Any) -> Tensor:
        changed = request._replace(**changes)
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        latents = draw_noise(generators, changed.shape, sd.model.device)
        texts = [changed.prompts, changed.negative_prompts]
        embeddings = sd.get_text_embeddings(*(texts[::-1] if swap else texts))
        count, w = changed.num_sampling_steps, changed.guidance_scale
        *_, last = sd.denoise(latents, embeddings, count, w, changed.eta, generators)
        return last.x_prev

    result, right, tolerance = steps[-1].x_prev, run(), tolerance_of(sd.model)
    if close(result, right, tolerance):
        return
    mistakes = {
        "Prompts and negative prompts are exchanged.": run(swap=True),
        "The negative prompts have no effect: pass them on.": run(negative_prompts=["", ""]),
        "`eta` has no effect: pass request.eta on.": run(eta=0.0),
    }
    for advice, wrong in mistakes.items():
        expect(not close(result, wrong, tolerance), advice)
    for w in (1.0, 5.0, 7.5):
        expect(
            not close(result, run(guidance_scale=w), tolerance),
            "`guidance_scale` has no effect: pass it on.",
        )
    start = draw_noise([torch.Generator().manual_seed(s) for s in (1, 2)], request.shape, "cpu")
    expect(close(steps[0].x_t.cpu(), start), "The loop does not start from draw_noise(...).")
    raise CheckFailed(
        "The steps are not those of `denoise` with this request: pass on the embeddings, "
        "request.num_sampling_steps, guidance_scale, eta and generators."
    )
