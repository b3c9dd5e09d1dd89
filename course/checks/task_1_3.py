"""Checks of lesson 1.3; those of measured results and of own data are in task_1_3_results.py."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import cv2
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
    tolerance_of,
)
from course.checks.recorder import Recorder
from course.checks.reference import constant_stride, sample_with_controlnets
from course.checks.task_1_3_results import edge_f1 as edge_f1
from course.checks.task_1_3_results import from_depth as from_depth
from course.checks.task_1_3_results import keep_edges as keep_edges
from course.checks.task_1_3_results import own_image as own_image
from course.checks.task_1_3_results import own_kind as own_kind
from course.diffusion import add_noise, guide, velocity
from course.images import conditions
from course.models import Model


@check("1.3 (a)")
def edges(function: Function, image: Image.Image) -> str:
    """Canny's edges of a smoothed image, in three channels of 0 and 1."""
    array = np.array(image)
    result = call(function, image)
    expect.is_a(result, np.ndarray, "The result of `canny_edges`", "it has to be an array.")
    expect(
        result.ndim != 2, "The edges have one channel, not three: np.stack([edges] * 3, axis=2)."
    )
    shape = (*array.shape[:2], 3)
    expect(
        result.shape == shape,
        f"The edges have the shape {result.shape}, not {shape}: the channels are the last axis.",
    )
    expect(
        np.issubdtype(result.dtype, np.number) or result.dtype == bool,
        f"The edges are {result.dtype}: they have to be numbers.",
    )
    expect(result.max(initial=0) <= 1, "The edges are 255, and not 1: divide by 255.")
    expect(
        np.isin(result, (0, 1)).all(), "The edges are not all 0 or 1: divide them, not the image."
    )
    right = conditions.canny(image)[..., 0]
    expect(right.any(), "This image has no edges at 100 and 200. Choose another IMAGE.")
    to_tensor = lambda edges: torch.from_numpy(np.float32(edges))
    unsmoothed = to_tensor(cv2.Canny(array, 100, 200) / 255)
    mistakes = {
        "The image was not smoothed: cv2.Canny has to get the blurred image.": unsmoothed,
        "Black edges on white: a ControlNet knows white ones on black.": to_tensor(1 - right),
    }
    otherwise = "Those are not Canny's edges of the image after a blur of 1.4 pixels."
    diagnose(to_tensor(result[..., 0]), to_tensor(right), mistakes, otherwise)
    for low, high in ((20, 40), (20, 200)):
        expect(
            np.array_equal(call(function, image, low, high), conditions.canny(image, low, high)),
            "With other thresholds the edges are not right: pass `low` and `high` to cv2.Canny.",
        )
    return f"white edges on black; {right.mean():.1%} of the pixels are edge pixels"


@check("1.3 (b)")
def condition(function: Function, model: Model) -> str:
    """An array (H, W, 3) in [0, 1] as a ControlNet takes it, (1, 3, H, W), where the model is."""
    image = np.random.default_rng(0).random((16, 24, 3))
    result = call(function, image)
    advice = "torch.from_numpy(image) makes a tensor."
    expect.is_a(result, Tensor, "The result of `to_condition`", advice)
    shape = tuple(result.shape)
    expect(shape != (3, 16, 24), "The batch is missing: [None] puts it before the channels.")
    expect(shape not in ((1, 16, 24, 3), (16, 24, 3)), "The channels come last: .permute(2, 0, 1).")
    expect(
        shape != (1, 3, 24, 16),
        "Height and width are exchanged: .permute(2, 0, 1) keeps their order.",
    )
    expect(shape == (1, 3, 16, 24), f"The shape is {shape}; for 16 x 24 it is (1, 3, 16, 24).")
    expect.placed(result, model, "The condition")
    right = torch.from_numpy(image).permute(2, 0, 1)[None].to(model.dtype)
    mistakes = {
        "The numbers go from -1 to 1; a condition goes from 0 to 1.": right * 2 - 1,
        "The array is in [0, 1] already: do not divide by 255 once more.": right / 255,
    }
    otherwise = "The numbers are not those of the array, in the order (channel, row, column)."
    diagnose(result.cpu(), right, mistakes, otherwise, 1e-2)
    return "a tensor (1, 3, height, width) in [0, 1], on the model's device"


@check("1.3 (c)")
def residuals(function: Function, control: Any, pipe: Any, model: Model) -> str:
    """The sum of what several ControlNets add, each times its scale."""
    x, embeddings = _step(pipe, model)
    other = control._replace(condition=control.condition.flip(3))
    weak, strong = control._replace(scale=0.4), other._replace(scale=1.5)

    def total(*controls: Any) -> list[Tensor]:
        each = [_residuals(one, x, embeddings) for one in controls]
        return [sum(parts) for parts in zip(*each, strict=True)]

    attempt = functools.partial(_attempt_residuals, function, x, embeddings)
    result, right = attempt(control), total(control)
    expect(
        len(result) == len(right),
        f"There are {len(result) - 1} residuals for {len(right) - 1} skips: one for each, in the "
        "order of `down`.",
    )
    otherwise = "With one control at scale 1 the residuals are not those that its network returns."
    diagnose(result, right, {}, otherwise, 1e-2)
    result, right = attempt(weak, strong), total(weak, strong)
    expect(
        len(result) != 2 * len(right) - 1,
        "For two controls `down` is twice as long: the lists were joined. Add them, tensor by "
        "tensor.",
    )
    unscaled = total(control, other)
    swapped = total(weak._replace(scale=1.5), strong._replace(scale=0.4))
    mistakes = {
        "The scales make no difference: multiply the residuals by each control's scale.": unscaled,
        "The residuals of the skips are not scaled: multiply each.": [*unscaled[:-1], right[-1]],
        "The residual of the middle is not scaled: multiply `mid`.": [*right[:-1], unscaled[-1]],
        "Only the last ControlNet counts: add up the residuals of all of them.": total(strong),
        "Only the first ControlNet counts: add up the residuals of all of them.": total(weak),
        "Add the residuals up; a mean makes each too weak.": [part / 2 for part in right],
        "Each control has its own scale; here the scales are exchanged.": swapped,
        "All controls get the scale of the first: multiply each by its own.": total(
            weak, strong._replace(scale=weak.scale)
        ),
        "All controls get the scale of the last: multiply each by its own.": total(
            weak._replace(scale=strong.scale), strong
        ),
    }
    otherwise = "For two controls the residuals are not the sum of scale times residual."
    diagnose(result, right, mistakes, otherwise, 1e-2)
    nothing = call(function, [], x, 500, embeddings)
    expect(
        isinstance(nothing, tuple) and len(nothing) == 2 and all(x is None for x in nothing),
        "Without any control return None, None.",
    )
    count = len(right) - 1
    return f"{count} residuals for the skips and one for the middle; two ControlNets add up"


def _attempt_residuals(
    function: Function, x: Tensor, embeddings: Tensor, *controls: Any
) -> list[Tensor]:
    """Return what the student's function gives for the controls: skips and, last, the middle."""
    recorders = [Recorder(one.network) for one in controls]
    recorded = [one._replace(network=r) for one, r in zip(controls, recorders, strict=True)]
    with torch.no_grad():
        result = call(function, recorded, x, 500, embeddings)
    for one, recorder in zip(controls, recorders, strict=True):
        recorder.expect_condition(one.condition)
    expect(
        isinstance(result, tuple) and len(result) == 2,
        f"`control_residuals` returns a {type(result).__name__}; return down, mid.",
    )
    down, mid = result
    expect.value(down, "`down`, the residuals of the skips,")
    expect.value(mid, "`mid`, the residual of the middle,")
    expect.is_a(down, list | tuple, "`down`", "it is a list of tensors.")
    return [*down, mid]


@check("1.3 (d)")
def controlled(function: Function, control: Any, pipe: Any, model: Model) -> str:
    """The guided output of the denoiser with a ControlNet beside it."""
    both, embeddings = _step(pipe, model)
    latents, w = both[:1].float(), 3.0
    strong = control._replace(scale=1.5)

    @torch.no_grad()
    def predict(*scales: float) -> Tensor:
        """Return both outputs, the residuals of each multiplied by its scale."""
        *down, mid = _residuals(strong, both, embeddings)
        mask = torch.tensor(scales).view(2, 1, 1, 1).to(mid)
        added = {
            "down_block_additional_residuals": [mask * part for part in down],
            "mid_block_additional_residual": mask * mid,
        }
        return pipe.unet(both, 500, encoder_hidden_states=embeddings, **added).sample.float()

    def guided(outputs: Tensor, w: float = w) -> Tensor:
        uncond, cond = outputs.chunk(2)
        return guide(uncond, cond, w)

    unet = Recorder(pipe.unet)
    try:
        result = call(function, unet, latents, 500, embeddings, [strong], w)
    except CheckFailed:
        unet.expect_residuals()  # a missing one is the usual cause of an error
        raise
    unet.expect_residuals()
    hint = "Take the denoiser's .sample, cut the output in two, and guide."
    expect.tensor(result, latents.shape, "The guided output", hint)
    outputs = predict(1, 1)
    mistakes = {
        "The control does not reach the denoiser: pass both residuals.": guided(predict(0, 0)),
        "Only the output with the prompt is controlled: the batch is both.": guided(predict(0, 1)),
        "Only the output without the prompt is controlled: use both.": guided(predict(1, 0)),
        "The two halves are exchanged: first the negative prompt.": guided(outputs.flip(0)),
        "The output is unguided: return diffusion.guide(...).": guided(outputs, 1),
        "Guidance starts from `uncond`, not from `cond`.": guided(outputs, w + 1),
    }
    otherwise = (
        "That is not the denoiser's output with these residuals: `down` to the skips, `mid` to the "
        "middle?"
    )
    diagnose(result, guided(outputs), mistakes, otherwise, tolerance_of(model))
    free = call(function, pipe.unet, latents, 500, embeddings, [], w)
    with torch.no_grad():
        plain = pipe.unet(both, 500, encoder_hidden_states=embeddings).sample.float()
    otherwise = "Without any control that is not the denoiser's guided output: the list is empty."
    diagnose(free, guided(plain), {}, otherwise, tolerance_of(model))
    return "the condition affects both outputs, with the prompt and without"


@check("1.3 (e)")
def active(function: Function, control: Any) -> str:
    """Which controls count in a step."""
    first, last = control._replace(start=0.0, end=0.55), control._replace(start=0.6, end=1.0)
    controls = [control, first, last]
    names = {id(one): f"{one.start:g} to {one.end:g}" for one in controls}
    for count in (10, 4):
        for i in range(count):
            result = call(function, list(controls), i, count)
            expect.is_a(result, list, "The result of `active_controls`", "return a list.")
            start, end = i / count, (i + 1) / count
            right = [one for one in controls if one.start <= start and end <= one.end]
            expect(
                [id(one) for one in result] == [id(one) for one in right],
                f"In step {i} of {count}, from {start:g} to {end:g} of the way, those from "
                f"{', '.join(names.get(id(one), '?') for one in result) or 'nowhere'} are active, "
                f"and not those from {', '.join(names[id(one)] for one in right)}: the whole step "
                "has to lie between start and end.",
            )
    return "a control is active in the steps that lie between its start and its end"


@check("1.3")
def control_loop(function: Function, control: Any, pipe: Any, model: Model) -> str:
    """`function(prompt, *controls, ...)` ends at the latents of diffusers' ControlNet pipeline.

    With one ControlNet and with two.
    """
    other = control._replace(condition=control.condition.flip(3), scale=0.5, start=0.25, end=0.75)
    largest = 0.0
    for controls in ([control], [control._replace(end=0.5), other]):
        settings: dict[str, Any] = {"guidance_scale": 4.0, "negative_prompt": "a tree"}
        with constant_stride(pipe):
            expected = sample_with_controlnets(pipe, model, controls, 3, 4, settings)
            result = call(function, "a duck", *controls, seed=3, steps=4, **settings)
        largest = max(largest, (result - expected).abs().max().item())
        expect(
            close(result, expected, tolerance_of(model)),
            f"With {len(controls)} ControlNet{'s' * (len(controls) > 1)} the latents are not those "
            "of StableDiffusionControlNetPipeline. Has the loop been changed?",
        )
    return (
        "the latents of StableDiffusionControlNetPipeline, with one and with two; the largest "
        f"difference is {largest:.1g}"
    )


@check("1.3 (g)")
def zero_convolution(function: Function) -> str:
    """A 1 x 1 convolution that is zero at first, and can learn."""
    layer = call(function, 6)
    expect.is_a(layer, torch.nn.Conv2d, "That", "make an nn.Conv2d.")
    expect(layer.kernel_size == (1, 1), f"The window is {layer.kernel_size}: kernel_size=1.")
    expect(
        (layer.in_channels, layer.out_channels) == (6, 6),
        f"It makes {layer.out_channels} channels of {layer.in_channels}; both are `channels`.",
    )
    expect(not layer.weight.any(), "The weights are not zero: nn.init.zeros_(layer.weight).")
    expect(layer.bias is not None, "The bias is missing; it starts at zero too.")
    expect(not layer.bias.any(), "The bias is not zero: nn.init.zeros_(layer.bias).")
    expect(
        layer.weight.requires_grad and layer.bias.requires_grad,
        "The layer cannot learn: its weights are cut off from the gradient.",
    )
    return "its output is zero, whatever the input, and it can learn to change that"


@check("1.3 (h)")
def control_loss(function: Function, control: Any, pipe: Any, model: Model) -> str:
    """The training loss, for a ControlNet whose output is not zero, and for both predictions."""
    own = model.prediction_type
    other = "epsilon" if own == "v_prediction" else "v_prediction"
    for kind in (own, other):
        with _predicting(model, kind):
            _check_loss(function, control, pipe, model)
    return "the diffusion loss with the ControlNet's residuals, and a gradient for the ControlNet"


@contextlib.contextmanager
def _predicting(model: Model, kind: str) -> Iterator[None]:
    """Within this block `model.prediction_type` is `kind`."""
    own, values = model.prediction_type, vars(model)
    values["prediction_type"] = kind
    try:
        yield
    finally:
        values["prediction_type"] = own


def _check_loss(function: Function, control: Any, pipe: Any, model: Model) -> None:
    """Raise CheckFailed unless the loss is right for the model's prediction type."""
    both, embeddings = _step(pipe, model)
    generator = torch.Generator().manual_seed(5)
    latents, noise = (torch.randn(both.shape, generator=generator).to(both) for _ in range(2))
    condition, kind = control.condition.expand(2, -1, -1, -1), model.prediction_type
    t = torch.tensor([300, 700], device=both.device)
    a = pipe.scheduler.alphas_cumprod.to(both)[t].view(-1, 1, 1, 1)
    targets = {"epsilon": noise, "v_prediction": velocity(latents, noise, a), "sample": latents}

    @torch.no_grad()
    def loss(
        scale: float = 1.0,
        x_t: Tensor | None = None,
        target: str = kind,
        distance: Function = torch.square,
    ) -> Tensor:
        x_t = add_noise(latents, noise, a) if x_t is None else x_t
        *down, mid = _residuals(control._replace(scale=scale), x_t, embeddings, t)
        added = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        output = pipe.unet(x_t, t, encoder_hidden_states=embeddings, **added).sample
        return distance(output.float() - targets[target].float()).mean()

    # As in training.
    with torch.autocast(model.device.type, enabled=model.dtype != torch.float32):
        result = call(function, control.network, latents, condition, embeddings, t, noise)
    expect.tensor(result, (), "The loss", "It is one number: F.mse_loss(output, target).")
    expect(result.requires_grad, "No gradient flows back from the loss: no @torch.no_grad() here.")
    other = "epsilon" if kind == "v_prediction" else "v_prediction"
    mistakes = {
        "The ControlNet has no effect: pass both residuals to pipe.unet.": loss(scale=0),
        "The denoiser gets the clean latents: add the noise, formula (4).": loss(x_t=latents),
        "The denoiser gets the noise alone: mix it with the latents, formula (4).": loss(x_t=noise),
        "The square roots are missing in x_t: add_noise.": loss(x_t=a * latents + (1 - a) * noise),
        "Latents and noise are exchanged in x_t: add_noise(latents, noise, alpha_bar).": loss(
            x_t=add_noise(noise, latents, a)
        ),
        "The target is not the clean image: it is the noise, or v.": loss(target="sample"),
        f"For a model that predicts {kind} that is the wrong target: look at "
        "model.prediction_type.": loss(target=other),
        "Those are absolute differences; square them: F.mse_loss.": loss(distance=torch.abs),
        "That is the sum of the squares; the loss is their mean.": loss() * latents.numel(),
        "Divide by the number of all values, not by the number of images: F.mse_loss.": (
            loss() * latents[0].numel()
        ),
        "That is the root of the mean square; leave out the root.": loss().sqrt(),
    }
    otherwise = "The loss is not the mean square of the output minus the target, formula (4)."
    diagnose(result.detach(), loss(), mistakes, otherwise, tolerance_of(model))


@torch.no_grad()
def _step(pipe: Any, model: Model) -> tuple[Tensor, Tensor]:
    """Return the denoiser's inputs of a step: the same latents twice, (2, C, h, w), and embeddings.

    The embeddings (2, L, D) are those of the negative prompt and of the prompt.
    """
    shape = (1, pipe.unet.config.in_channels, *model.latent_size())
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    latents = latents.to(model.device, model.dtype)
    cond, uncond = pipe.encode_prompt("a duck", model.device, 1, True)
    return torch.cat([latents, latents]), torch.cat([uncond, cond])


@torch.no_grad()
def _residuals(control: Any, x: Tensor, embeddings: Tensor, t: Any = 500) -> list[Tensor]:
    """Return what one control adds to the skips and, last, to the middle, scaled by diffusers."""
    down, mid = control.network(
        x,
        t,
        encoder_hidden_states=embeddings,
        controlnet_cond=control.condition.expand(len(x), -1, -1, -1),
        conditioning_scale=control.scale,
        return_dict=False,
    )
    return [*down, mid]
