"""Checks of lesson 1.3."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from course.checks.common import all_close, call, close, expect, made, passed, tolerance_of
from course.checks.task_1_2 import constant_stride
from course.models import Model


def edges(function: Callable[..., np.ndarray], image: Image.Image) -> None:
    """Task 1.3 (a): Canny's edges of a smoothed image, in three channels of 0 and 1."""
    import cv2

    from course.images import conditions

    array = np.array(image)
    found = call(function, image)
    expect(
        isinstance(found, np.ndarray), f"`canny_edges` returns a {type(found).__name__}, no array."
    )
    expect(
        found.ndim != 2,
        "The edges have one channel; a ControlNet wants three: np.stack([edges] * 3, axis=2).",
    )
    shape = (*array.shape[:2], 3)
    expect(
        found.shape == shape,
        f"The edges have the shape {found.shape}, not {shape}: the channels are the last axis, axis=2.",
    )
    expect(found.max(initial=0) <= 1, "The edges are 255, and not 1: divide by 255.")
    expect(
        np.isin(found, (0, 1)).all(),
        "The edges are not all 0 or 1: is the picture divided in place of the edges?",
    )
    soft = cv2.GaussianBlur(array, (0, 0), conditions.CANNY_BLUR)
    right = conditions.canny(image)[..., 0]
    expect(
        right.any(),
        "This picture has no edges at 100 and 200. Choose another PICTURE for the exercise.",
    )
    for wrong, advice in (
        (
            cv2.Canny(array, 100, 200) / 255,
            "The picture was not smoothed: hand `smooth` to cv2.Canny, not `array`.",
        ),
        (1 - right, "Black edges on white: a ControlNet knows white ones on black."),
    ):
        expect(np.array_equal(wrong, right) or not np.array_equal(found[..., 0], wrong), advice)
    expect(
        np.array_equal(found[..., 0], right),
        "Those are not Canny's edges of the picture after a blur of 1.4 pixels: cv2.Canny(smooth, low, high).",
    )
    for low, high in ((20, 40), (20, 200)):
        expect(
            np.array_equal(
                call(function, image, low, high)[..., 0], cv2.Canny(soft, low, high) / 255
            ),
            "With other thresholds the edges are not right: hand `low` and `high` on to cv2.Canny.",
        )
    passed(f"white edges on black; {right.mean():.1%} of the pixels are on one")


def condition(function: Callable[[np.ndarray], torch.Tensor], model: Model) -> None:
    """Task 1.3 (b): an array (H, W, 3) in [0, 1] as a ControlNet reads it, (1, 3, H, W), where the model is."""
    image = np.random.default_rng(0).random((16, 24, 3))
    found = call(function, image)
    expect(
        isinstance(found, torch.Tensor),
        f"`to_condition` returns a {type(found).__name__}: torch.from_numpy(image).",
    )
    expect(
        tuple(found.shape) != (3, 16, 24),
        "The batch is missing: [None] puts it before the channels.",
    )
    expect(
        tuple(found.shape) not in ((1, 16, 24, 3), (16, 24, 3)),
        "The channels come last: .permute(2, 0, 1) brings them to the front.",
    )
    expect(
        tuple(found.shape) != (1, 3, 24, 16),
        "Height and width are exchanged: .permute(2, 0, 1) keeps their order, .T or .permute(2, 1, 0) does not.",
    )
    expect(
        tuple(found.shape) == (1, 3, 16, 24),
        f"The shape is {tuple(found.shape)}; for 16 x 24 it is (1, 3, 16, 24).",
    )
    expect(
        found.dtype == model.dtype,
        f"The type is {found.dtype}, and the networks' {model.dtype}: .to(..., model.dtype).",
    )
    expect(
        found.device.type == model.device.type,
        f"It is on {found.device.type}: .to(model.device, ...).",
    )
    right = torch.from_numpy(image).permute(2, 0, 1)[None].to(model.dtype)
    found = found.cpu()
    expect(
        not close(found, right * 2 - 1, 1e-2),
        "The numbers go from -1 to 1; a condition goes from 0 to 1.",
    )
    expect(
        not close(found, right / 255, 1e-2),
        "The array is in [0, 1] already: do not divide by 255 once more.",
    )
    expect(
        close(found, right, 1e-2),
        "The numbers are not those of the array, in the order (channel, row, column).",
    )
    passed("a tensor (1, 3, height, width) in [0, 1], where the networks are")


def residuals(function: Callable[..., Any], control: Any, pipe: Any, model: Model) -> None:
    """Task 1.3 (c): what several ControlNets add, each times its scale, in all."""
    x, embeddings = _step(pipe, model)
    other = control._replace(condition=control.condition.flip(3))
    quiet, loud = control._replace(scale=0.4), other._replace(scale=1.5)

    def answer(*controls: Any) -> list[torch.Tensor]:
        return [
            sum(parts)
            for parts in zip(*(_answer(each, x, embeddings) for each in controls), strict=True)
        ]

    def attempt(*controls: Any) -> list[torch.Tensor]:
        with torch.no_grad():
            found = call(function, list(controls), x, 500, embeddings)
        expect(
            isinstance(found, tuple) and len(found) == 2,
            f"`control_residuals` returns a {type(found).__name__}; return down, mid.",
        )
        made(found[0], "`down`, the residuals of the skips,")
        made(found[1], "`mid`, the residual of the middle,")
        expect(
            isinstance(found[0], list | tuple),
            f"`down` is a {type(found[0]).__name__}; it is a list of tensors.",
        )
        return [*found[0], found[1]]

    found, right = attempt(control), answer(control)
    expect(
        len(found) == len(right),
        f"There are {len(found) - 1} residuals for {len(right) - 1} skips: one for each, in the order of `down`.",
    )
    expect(
        all_close(found, right),
        "With one control at scale 1 the residuals are not those that its network returns.",
    )
    found, right = attempt(quiet, loud), answer(quiet, loud)
    plain = [control, other]
    scaled_mid = [*answer(*plain)[:-1], right[-1]]
    scaled_down = [*right[:-1], answer(*plain)[-1]]
    for wrong, advice in (
        (
            answer(*plain),
            "The scales make no difference: multiply the residuals by each control's scale.",
        ),
        (
            scaled_mid,
            "The residuals of the skips are not scaled: each of `down` is multiplied, as `mid` is.",
        ),
        (
            scaled_down,
            "The residual of the middle is not scaled: multiply `mid`, as each of `down`.",
        ),
        (
            answer(loud),
            "Only the last ControlNet is heard: add what it says to what the ones before said.",
        ),
        (answer(quiet), "Only the first ControlNet is heard: add up what all of them say."),
        (
            [part / 2 for part in right],
            "Add the residuals up; a mean makes each ControlNet quieter than its scale.",
        ),
    ):
        expect(all_close(wrong, right) or not all_close(found, wrong), advice)
    expect(
        all_close(found, right),
        "For two controls the residuals are not the sum of scale times residual.",
    )
    expect(
        call(function, [], x, 500, embeddings) == (None, None),
        "Without any control return None, None.",
    )
    passed(
        f"{len(right) - 1} residuals for the skips and one for the middle; two ControlNets add up"
    )


def controlled(
    function: Callable[..., torch.Tensor], control: Any, pipe: Any, model: Model
) -> None:
    """Task 1.3 (d): the guided answer of the denoiser with a ControlNet at its side."""
    both, embeddings = _step(pipe, model)
    latents, w = both[:1].float(), 3.0
    strong = control._replace(scale=1.5)

    @torch.no_grad()
    def ask(heard: tuple[int, ...]) -> torch.Tensor:
        """Both answers, where only the questions `heard` are controlled."""
        *down, mid = _answer(strong, both, embeddings)
        mask = torch.tensor([float(i in heard) for i in range(2)]).view(2, 1, 1, 1).to(mid)
        added = {
            "down_block_additional_residuals": [mask * part for part in down],
            "mid_block_additional_residual": mask * mid,
        }
        return pipe.unet(both, 500, encoder_hidden_states=embeddings, **added).sample.float()

    def guided(answers: torch.Tensor, w: float = w) -> torch.Tensor:
        uncond, cond = answers.chunk(2)
        return uncond + w * (cond - uncond)

    found = call(function, pipe.unet, latents, 500, embeddings, [strong], w)
    expect(
        isinstance(found, torch.Tensor),
        f"That is a {type(found).__name__}; take the denoiser's .sample.",
    )
    expect(
        tuple(found.shape) == tuple(latents.shape),
        f"The shape is {tuple(found.shape)}, not {tuple(latents.shape)}: cut the answer in two, and guide.",
    )
    answers = ask((0, 1))
    right = guided(answers)
    tolerance = tolerance_of(model)
    for wrong, advice in (
        (
            guided(ask(())),
            "The control does not reach the denoiser: hand both residuals to unet(...).",
        ),
        (
            guided(ask((1,))),
            "Only the question with the prompt is controlled: ask the ControlNet about `both`.",
        ),
        (
            guided(ask((0,))),
            "Only the question without the prompt is controlled: ask the ControlNet about `both`.",
        ),
        (
            guided(answers.flip(0)),
            "The two halves are exchanged: the first belongs to the negative prompt.",
        ),
        (
            guided(answers, 1),
            "The answer is unguided: return diffusion.guide(uncond, cond, guidance_scale).",
        ),
        (guided(answers, w + 1), "Guidance starts from `uncond`, not from `cond`."),
    ):
        expect(close(wrong, right, tolerance) or not close(found, wrong, tolerance), advice)
    expect(
        close(found, right, tolerance),
        "That is not the denoiser's answer with these residuals: `down` to the skips, `mid` to the middle?",
    )
    passed("the condition counts in both questions, with the prompt and without")


def active(function: Callable[..., list[Any]], control: Any) -> None:
    """Task 1.3 (e): which controls count in a step."""
    first, last = control._replace(start=0.0, end=0.55), control._replace(start=0.6, end=1.0)
    given = [control, first, last]
    for count in (10, 4):
        for i in range(count):
            found = call(function, list(given), i, count)
            expect(
                isinstance(found, list),
                f"`active_controls` returns a {type(found).__name__}; return a list.",
            )
            names = dict(zip(map(id, given), ("0 to 1", "0 to 0.55", "0.6 to 1"), strict=True))
            wanted = [
                each for each in given if each.start <= i / count and (i + 1) / count <= each.end
            ]
            expect(
                [id(each) for each in found] == [id(each) for each in wanted],
                f"In step {i} of {count}, from {i / count:g} to {(i + 1) / count:g} of the way, those from "
                f"{', '.join(names.get(id(each), '?') for each in found) or 'nowhere'} are active, and not those from "
                f"{', '.join(names[id(each)] for each in wanted)}: the whole step has to lie between start and end.",
            )
    passed("a control counts in the steps that lie between its start and its end")


def control_loop(
    function: Callable[..., torch.Tensor], control: Any, pipe: Any, model: Model
) -> None:
    """Task 1.3: `function(prompt, *controls, ...)` ends at the latents of diffusers' StableDiffusionControlNetPipeline,
    with one ControlNet and with two."""
    from diffusers import StableDiffusionControlNetPipeline

    prompt, negative, count, w = "a duck", "a tree", 4, 4.0
    other = control._replace(condition=control.condition.flip(3), scale=0.5, start=0.25, end=0.75)
    shape = (
        1,
        pipe.unet.config.in_channels,
        *(side // model.scale_factor for side in control.condition.shape[2:]),
    )
    noise = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(3)).to(model.device)
    largest = 0.0
    for controls in ([control], [control._replace(end=0.5), other]):
        networks = [each.network for each in controls]
        settings = {
            "image": [each.condition for each in controls],
            "controlnet_conditioning_scale": [each.scale for each in controls],
            "control_guidance_start": [each.start for each in controls],
            "control_guidance_end": [each.end for each in controls],
        }
        if len(controls) == 1:
            settings = {name: values[0] for name, values in settings.items()}
        with constant_stride(pipe):
            parts = {
                name: part for name, part in pipe.components.items() if name != "image_encoder"
            }
            reference = StableDiffusionControlNetPipeline(
                **parts,
                controlnet=networks if len(networks) > 1 else networks[0],
                requires_safety_checker=False,
            )
            reference.set_progress_bar_config(disable=True)
            expected = reference(
                prompt, negative_prompt=negative, num_inference_steps=count, guidance_scale=w,
                latents=noise.to(model.dtype), output_type="latent", **settings,
            ).images.float()  # fmt: skip
            found = call(
                function,
                prompt,
                *controls,
                seed=3,
                steps=count,
                guidance_scale=w,
                negative_prompt=negative,
            )
        largest = max(largest, (found - expected).abs().max().item())
        expect(
            close(found, expected, tolerance_of(model)),
            f"With {len(controls)} ControlNet{'s' * (len(controls) > 1)} the latents are not those of "
            "StableDiffusionControlNetPipeline. Has the loop been changed?",
        )
    passed(
        f"the latents of StableDiffusionControlNetPipeline, with one and with two; off by {largest:.0e} at most"
    )


def zero_convolution(function: Callable[[int], Any]) -> None:
    """Task 1.3 (g): a 1 x 1 convolution that says nothing yet, and can learn."""
    layer = call(function, 6)
    expect(
        isinstance(layer, torch.nn.Conv2d), f"That is a {type(layer).__name__}; make an nn.Conv2d."
    )
    expect(
        tuple(layer.kernel_size) == (1, 1),
        f"The window is {tuple(layer.kernel_size)}: kernel_size=1.",
    )
    expect(
        (layer.in_channels, layer.out_channels) == (6, 6),
        f"It makes {layer.out_channels} channels of {layer.in_channels}; both are `channels`.",
    )
    expect(not layer.weight.any(), "The weights are not zero: nn.init.zeros_(layer.weight).")
    expect(
        layer.bias is not None,
        "The bias is missing; it belongs to the layer, and begins at zero too.",
    )
    expect(not layer.bias.any(), "The bias is not zero: nn.init.zeros_(layer.bias).")
    expect(
        layer.weight.requires_grad and layer.bias.requires_grad,
        "The layer cannot learn: its weights are cut off from the gradient.",
    )
    passed("it says nothing, whatever it is given, and it can learn to")


def control_loss(
    function: Callable[..., torch.Tensor], control: Any, pipe: Any, model: Model
) -> None:
    """Task 1.3 (h): the loss of training, for a ControlNet that says something."""
    both, embeddings = _step(pipe, model)
    generator = torch.Generator().manual_seed(5)
    latents, noise = (torch.randn(both.shape, generator=generator).to(both) for _ in range(2))
    condition, t = (
        control.condition.expand(2, -1, -1, -1),
        torch.tensor([300, 700], device=both.device),
    )
    a = pipe.scheduler.alphas_cumprod.to(both)[t].view(-1, 1, 1, 1)

    @torch.no_grad()
    def loss(
        heard: float = 1.0, mixed: bool = True, target: str = model.prediction_type
    ) -> torch.Tensor:
        x_t = a.sqrt() * latents + (1 - a).sqrt() * noise if mixed else latents
        targets = {
            "epsilon": noise,
            "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * latents,
            "sample": latents,
        }
        *down, mid = _answer(control._replace(scale=heard), x_t, embeddings, t)
        added = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        output = pipe.unet(x_t, t, encoder_hidden_states=embeddings, **added).sample
        return (output.float() - targets[target].float()).square().mean()

    with torch.autocast(
        model.device.type, enabled=model.dtype != torch.float32
    ):  # as training has it
        found = call(function, control.network, latents, condition, embeddings, t, noise)
    expect(
        isinstance(found, torch.Tensor) and found.dim() == 0,
        "The loss is one number, a tensor without dimensions: F.mse_loss(output, target).",
    )
    expect(
        found.requires_grad,
        "No gradient can flow back from the loss: work out everything inside, without no_grad and without .item().",
    )
    found, right, tolerance = found.detach(), loss(), tolerance_of(model)
    other = "epsilon" if model.prediction_type == "v_prediction" else "v_prediction"
    for wrong, advice in (
        (loss(heard=0), "The ControlNet has no say: hand both residuals to pipe.unet."),
        (
            loss(mixed=False),
            "The denoiser was shown the clean latents: mix them with the noise, formula (3).",
        ),
        (loss(target="sample"), "The target is not the clean picture: compare with `target`."),
        (
            loss(target=other),
            f"{model.name} predicts {model.prediction_type}: compare with `target`.",
        ),
    ):
        expect(close(wrong, right, tolerance) or not close(found, wrong, tolerance), advice)
    expect(
        close(found, right, tolerance),
        "The loss is not the mean square of the answer less the target.",
    )
    passed("the denoiser's own loss, with the ControlNet at its side, and a gradient to learn by")


@torch.no_grad()
def _step(pipe: Any, model: Model) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (2, C, h, w), twice the same, and texts (2, L, D), as the denoiser is asked in a step."""
    shape = (1, pipe.unet.config.in_channels, *model.latent_size())
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(
        model.device, model.dtype
    )
    cond, uncond = pipe.encode_prompt("a duck", model.device, 1, True)
    return torch.cat([latents, latents]), torch.cat([uncond, cond])


@torch.no_grad()
def _answer(
    control: Any, x: torch.Tensor, embeddings: torch.Tensor, t: Any = 500
) -> list[torch.Tensor]:
    """What one control adds to the skips and, last, to the middle, by diffusers' own scaling."""
    down, mid = control.network(
        x, t, encoder_hidden_states=embeddings, controlnet_cond=control.condition.expand(len(x), -1, -1, -1),
        conditioning_scale=control.scale, return_dict=False,
    )  # fmt: skip
    return [*down, mid]
