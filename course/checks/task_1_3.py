"""Checks of lesson 1.3."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from course.checks.common import (
    call,
    check,
    close,
    diagnose,
    expect,
    expect_placed,
    expect_tensor,
    expect_type,
    expect_value,
    tolerance_of,
)
from course.checks.reference import constant_stride
from course.checks.task_1_1 import series as series  # an exercise of this lesson too
from course.diffusion import add_noise, guide, velocity
from course.images import conditions
from course.models import Model


@check("1.3 (a)")
def edges(function: Callable[..., np.ndarray], image: Image.Image) -> str:
    """Canny's edges of a smoothed image, in three channels of 0 and 1."""
    array = np.array(image)
    result = call(function, image)
    expect_type(result, np.ndarray, "The result of `canny_edges`", "it has to be an array.")
    expect(
        result.ndim != 2,
        "The edges have one channel; a ControlNet needs three: np.stack([edges] * 3, axis=2).",
    )
    shape = (*array.shape[:2], 3)
    expect(
        result.shape == shape,
        f"The edges have the shape {result.shape}, not {shape}: the channels are the last axis, "
        "axis=2.",
    )
    expect(result.max(initial=0) <= 1, "The edges are 255, and not 1: divide by 255.")
    expect(
        np.isin(result, (0, 1)).all(),
        "The edges are not all 0 or 1: is the image divided in place of the edges?",
    )
    right = conditions.canny(image)[..., 0]
    expect(
        right.any(),
        "This image has no edges at 100 and 200. Choose another IMAGE for the exercise.",
    )
    to_tensor = lambda edges: torch.from_numpy(np.float32(edges))
    unsmoothed = to_tensor(cv2.Canny(array, 100, 200) / 255)
    mistakes = {
        "The image was not smoothed: hand `smooth` to cv2.Canny, not `array`.": unsmoothed,
        "Black edges on white: a ControlNet knows white ones on black.": to_tensor(1 - right),
    }
    otherwise = "Those are not Canny's edges of the image after a blur of 1.4 pixels: use `smooth`."
    diagnose(to_tensor(result[..., 0]), to_tensor(right), mistakes, otherwise)
    for low, high in ((20, 40), (20, 200)):
        expect(
            np.array_equal(call(function, image, low, high), conditions.canny(image, low, high)),
            "With other thresholds the edges are not right: hand `low` and `high` on to cv2.Canny.",
        )
    return f"white edges on black; {right.mean():.1%} of the pixels are on one"


@check("1.3 (b)")
def condition(function: Callable[[np.ndarray], torch.Tensor], model: Model) -> str:
    """An array (H, W, 3) in [0, 1] as a ControlNet takes it, (1, 3, H, W), where the model is."""
    image = np.random.default_rng(0).random((16, 24, 3))
    result = call(function, image)
    advice = "torch.from_numpy(image) makes a tensor."
    expect_type(result, torch.Tensor, "The result of `to_condition`", advice)
    shape = tuple(result.shape)
    expect(shape != (3, 16, 24), "The batch is missing: [None] puts it before the channels.")
    expect(
        shape not in ((1, 16, 24, 3), (16, 24, 3)),
        "The channels come last: .permute(2, 0, 1) brings them to the front.",
    )
    expect(
        shape != (1, 3, 24, 16),
        "Height and width are exchanged: .permute(2, 0, 1) keeps their order, .T or "
        ".permute(2, 1, 0) does not.",
    )
    expect(shape == (1, 3, 16, 24), f"The shape is {shape}; for 16 x 24 it is (1, 3, 16, 24).")
    expect_placed(result, model, "The condition")
    right = torch.from_numpy(image).permute(2, 0, 1)[None].to(model.dtype)
    mistakes = {
        "The numbers go from -1 to 1; a condition goes from 0 to 1.": right * 2 - 1,
        "The array is in [0, 1] already: do not divide by 255 once more.": right / 255,
    }
    otherwise = "The numbers are not those of the array, in the order (channel, row, column)."
    diagnose(result.cpu(), right, mistakes, otherwise, 1e-2)
    return "a tensor (1, 3, height, width) in [0, 1], where the networks are"


@check("1.3 (c)")
def residuals(function: Callable[..., Any], control: Any, pipe: Any, model: Model) -> str:
    """The sum of what several ControlNets add, each times its scale."""
    x, embeddings = _step(pipe, model)
    other = control._replace(condition=control.condition.flip(3))
    weak, strong = control._replace(scale=0.4), other._replace(scale=1.5)

    def total(*controls: Any) -> list[torch.Tensor]:
        each = [_residuals(one, x, embeddings) for one in controls]
        return [sum(parts) for parts in zip(*each, strict=True)]

    def attempt(*controls: Any) -> list[torch.Tensor]:
        with torch.no_grad():
            result = call(function, list(controls), x, 500, embeddings)
        expect(
            isinstance(result, tuple) and len(result) == 2,
            f"`control_residuals` returns a {type(result).__name__}; return down, mid.",
        )
        down, mid = result
        expect_value(down, "`down`, the residuals of the skips,")
        expect_value(mid, "`mid`, the residual of the middle,")
        expect_type(down, list | tuple, "`down`", "it is a list of tensors.")
        return [*down, mid]

    result, right = attempt(control), total(control)
    expect(
        len(result) == len(right),
        f"There are {len(result) - 1} residuals for {len(right) - 1} skips: one for each, in the "
        "order of `down`.",
    )
    otherwise = "With one control at scale 1 the residuals are not those that its network returns."
    diagnose(result, right, {}, otherwise, 1e-2)
    right, unscaled = total(weak, strong), total(control, other)
    mistakes = {
        "The scales make no difference: multiply the residuals by each control's scale.": unscaled,
        "The residuals of the skips are not scaled: multiply each.": [*unscaled[:-1], right[-1]],
        "The residual of the middle is not scaled: multiply `mid`.": [*right[:-1], unscaled[-1]],
        "Only the last ControlNet counts: add up the residuals of all of them.": total(strong),
        "Only the first ControlNet counts: add up the residuals of all of them.": total(weak),
        "Add the residuals up; a mean makes each too weak.": [part / 2 for part in right],
    }
    otherwise = "For two controls the residuals are not the sum of scale times residual."
    diagnose(attempt(weak, strong), right, mistakes, otherwise, 1e-2)
    nothing = call(function, [], x, 500, embeddings)
    expect(nothing == (None, None), "Without any control return None, None.")
    count = len(right) - 1
    return f"{count} residuals for the skips and one for the middle; two ControlNets add up"


@check("1.3 (d)")
def controlled(function: Callable[..., torch.Tensor], control: Any, pipe: Any, model: Model) -> str:
    """The guided output of the denoiser with a ControlNet beside it."""
    both, embeddings = _step(pipe, model)
    latents, w = both[:1].float(), 3.0
    strong = control._replace(scale=1.5)

    @torch.no_grad()
    def predict(*scales: float) -> torch.Tensor:
        """Return both outputs, the residuals of each multiplied by its scale."""
        *down, mid = _residuals(strong, both, embeddings)
        mask = torch.tensor(scales).view(2, 1, 1, 1).to(mid)
        added = {
            "down_block_additional_residuals": [mask * part for part in down],
            "mid_block_additional_residual": mask * mid,
        }
        return pipe.unet(both, 500, encoder_hidden_states=embeddings, **added).sample.float()

    def guided(outputs: torch.Tensor, w: float = w) -> torch.Tensor:
        uncond, cond = outputs.chunk(2)
        return guide(uncond, cond, w)

    result = call(function, pipe.unet, latents, 500, embeddings, [strong], w)
    hint = "Take the denoiser's .sample, cut the output in two, and guide."
    expect_tensor(result, latents.shape, "The guided output", hint)
    outputs = predict(1, 1)
    mistakes = {
        "The control does not reach the denoiser: hand on both residuals.": guided(predict(0, 0)),
        "Only the output with the prompt is controlled: hand on `both`.": guided(predict(0, 1)),
        "Only the output without the prompt is controlled: hand on `both`.": guided(predict(1, 0)),
        "The two halves are exchanged: first the negative prompt.": guided(outputs.flip(0)),
        "The output is unguided: return diffusion.guide(...).": guided(outputs, 1),
        "Guidance starts from `uncond`, not from `cond`.": guided(outputs, w + 1),
    }
    otherwise = (
        "That is not the denoiser's output with these residuals: `down` to the skips, `mid` to the "
        "middle?"
    )
    diagnose(result, guided(outputs), mistakes, otherwise, tolerance_of(model))
    return "the condition counts in both outputs, with the prompt and without"


@check("1.3 (e)")
def active(function: Callable[..., list[Any]], control: Any) -> str:
    """Which controls count in a step."""
    first, last = control._replace(start=0.0, end=0.55), control._replace(start=0.6, end=1.0)
    controls = [control, first, last]
    names = {id(one): f"{one.start:g} to {one.end:g}" for one in controls}
    for count in (10, 4):
        for i in range(count):
            result = call(function, list(controls), i, count)
            expect_type(result, list, "The result of `active_controls`", "return a list.")
            start, end = i / count, (i + 1) / count
            right = [one for one in controls if one.start <= start and end <= one.end]
            expect(
                [id(one) for one in result] == [id(one) for one in right],
                f"In step {i} of {count}, from {start:g} to {end:g} of the way, those from "
                f"{', '.join(names.get(id(one), '?') for one in result) or 'nowhere'} are active, "
                f"and not those from {', '.join(names[id(one)] for one in right)}: the whole step "
                "has to lie between start and end.",
            )
    return "a control counts in the steps that lie between its start and its end"


@check("1.3")
def control_loop(
    function: Callable[..., torch.Tensor], control: Any, pipe: Any, model: Model
) -> str:
    """`function(prompt, *controls, ...)` ends at the latents of diffusers' ControlNet pipeline.

    With one ControlNet and with two.
    """
    other = control._replace(condition=control.condition.flip(3), scale=0.5, start=0.25, end=0.75)
    largest = 0.0
    for controls in ([control], [control._replace(end=0.5), other]):
        settings: dict[str, Any] = {"guidance_scale": 4.0, "negative_prompt": "a tree"}
        with constant_stride(pipe):
            expected = _sample_with_diffusers(pipe, model, controls, 3, 4, settings)
            result = call(function, "a duck", *controls, seed=3, steps=4, **settings)
        largest = max(largest, (result - expected).abs().max().item())
        expect(
            close(result, expected, tolerance_of(model)),
            f"With {len(controls)} ControlNet{'s' * (len(controls) > 1)} the latents are not those "
            "of StableDiffusionControlNetPipeline. Has the loop been changed?",
        )
    return (
        "the latents of StableDiffusionControlNetPipeline, with one and with two; off by "
        f"{largest:.0e} at most"
    )


def _sample_with_diffusers(
    pipe: Any, model: Model, controls: list[Any], seed: int, steps: int, settings: dict[str, Any]
) -> torch.Tensor:
    """Return the latents of StableDiffusionControlNetPipeline for the prompt "a duck"."""
    from diffusers import StableDiffusionControlNetPipeline

    options: dict[str, Any] = {
        "controlnet": [one.network for one in controls],
        "image": [one.condition for one in controls],
        "controlnet_conditioning_scale": [one.scale for one in controls],
        "control_guidance_start": [one.start for one in controls],
        "control_guidance_end": [one.end for one in controls],
    }
    if len(controls) == 1:
        options = {name: value for name, [value] in options.items()}
    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    reference = StableDiffusionControlNetPipeline(
        **parts, controlnet=options.pop("controlnet"), requires_safety_checker=False
    )
    reference.set_progress_bar_config(disable=True)
    sides = (side // model.scale_factor for side in controls[0].condition.shape[2:])
    shape = (1, pipe.unet.config.in_channels, *sides)
    noise = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))
    return reference(
        "a duck",
        num_inference_steps=steps,
        latents=noise.to(model.device, model.dtype),
        output_type="latent",
        **settings,
        **options,
    ).images.float()


@check("1.3 (g)")
def zero_convolution(function: Callable[[int], Any]) -> str:
    """A 1 x 1 convolution that is zero at first, and can learn."""
    layer = call(function, 6)
    expect_type(layer, torch.nn.Conv2d, "That", "make an nn.Conv2d.")
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
def control_loss(
    function: Callable[..., torch.Tensor], control: Any, pipe: Any, model: Model
) -> str:
    """The training loss, for a ControlNet whose output is not zero."""
    both, embeddings = _step(pipe, model)
    generator = torch.Generator().manual_seed(5)
    latents, noise = (torch.randn(both.shape, generator=generator).to(both) for _ in range(2))
    condition, kind = control.condition.expand(2, -1, -1, -1), model.prediction_type
    t = torch.tensor([300, 700], device=both.device)
    a = pipe.scheduler.alphas_cumprod.to(both)[t].view(-1, 1, 1, 1)
    v = velocity(latents, noise, a)
    targets = {"epsilon": noise, "v_prediction": v, "sample": latents}

    @torch.no_grad()
    def loss(scale: float = 1.0, noisy: bool = True, target: str = kind) -> torch.Tensor:
        x_t = add_noise(latents, noise, a) if noisy else latents
        *down, mid = _residuals(control._replace(scale=scale), x_t, embeddings, t)
        added = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        output = pipe.unet(x_t, t, encoder_hidden_states=embeddings, **added).sample
        return (output.float() - targets[target].float()).square().mean()

    # As in training.
    with torch.autocast(model.device.type, enabled=model.dtype != torch.float32):
        result = call(function, control.network, latents, condition, embeddings, t, noise)
    expect_tensor(result, (), "The loss", "It is one number: F.mse_loss(output, target).")
    expect(result.requires_grad, "No gradient flows back from the loss: no @torch.no_grad() here.")
    other = "epsilon" if kind == "v_prediction" else "v_prediction"
    mistakes = {
        "The ControlNet has no effect: hand both residuals to pipe.unet.": loss(scale=0),
        "The denoiser was shown the clean latents: add the noise, formula (3).": loss(noisy=False),
        "The target is not the clean image: compare with `target`.": loss(target="sample"),
        f"{model.name} predicts {kind}: compare with `target`.": loss(target=other),
    }
    otherwise = "The loss is not the mean square of the output minus the target."
    diagnose(result.detach(), loss(), mistakes, otherwise, tolerance_of(model))
    return "the denoiser's own loss, with the ControlNet beside it, and a gradient to learn by"


@torch.no_grad()
def _step(pipe: Any, model: Model) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the denoiser's inputs of a step: the same latents twice, (2, C, h, w), and embeddings.

    The embeddings (2, L, D) are those of the negative prompt and of the prompt.
    """
    shape = (1, pipe.unet.config.in_channels, *model.latent_size())
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    latents = latents.to(model.device, model.dtype)
    cond, uncond = pipe.encode_prompt("a duck", model.device, 1, True)
    return torch.cat([latents, latents]), torch.cat([uncond, cond])


@torch.no_grad()
def _residuals(
    control: Any, x: torch.Tensor, embeddings: torch.Tensor, t: Any = 500
) -> list[torch.Tensor]:
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
