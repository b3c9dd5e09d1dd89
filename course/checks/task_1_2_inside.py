"""Checks of lesson 1.2, third part: clips, attention, guidance, inversion and challenges."""

import copy
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
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
from course.checks.reference import copy_of, invert, with_other_prediction
from course.diffusion import ddim_step, predict_x0, timesteps
from course.images import to_pil
from course.models import Model


@check("1.2 (k)")
def clip(
    frames: Sequence[Image.Image],
    left: str | Path,
    right: str | Path,
    example: Image.Image | None = None,
) -> str:
    """The images of two folders side by side, one frame for each step, not those of `example`."""
    from course.images import video

    expect.list_of(frames, Image.Image, "`clip`")
    expect(
        all(Path(folder).is_dir() for folder in (left, right)),
        f"There are no frames in {Path(left).parent}: sample with that folder as save_dir, "
        "save_x_t=True and save_x_0=True.",
    )
    a, b = video.read_frames(left), video.read_frames(right)
    expect(len(frames) == len(a), f"`clip` has {len(frames)} frames and the folder {len(a)}.")
    single = a[0].image.width / a[0].image.height
    expect(
        # Two, less what headings and captions take.
        frames[0].width / frames[0].height > 1.15 * single,
        "A frame is not wide enough for two images.",
    )
    exchanged = video.side_by_side(b[-2:], a[-2:])
    expect(
        not same(_middle(frames[-2]), _middle(exchanged[0])),
        "The sides are exchanged: x_t is left.",
    )
    turned = video.side_by_side(a[::-1][:2], b[::-1][:2])
    expect(not same(_middle(frames[0]), _middle(turned[1])), "The frames run backwards.")
    expect(
        example is None or not same(b[-1].image, example),
        "That is the image from above: a prompt or a seed of your own.",
    )
    return f"{len(frames)} frames, x_t at the left and its x_0 at the right"


def _middle(frame: Image.Image) -> Image.Image:
    """Return the middle of a frame, without headings and captions, small."""
    width, height = frame.size
    return frame.crop((0, height // 4, width, 3 * height // 4)).resize((64, 16))


@check("1.2 (l)")
def attention(function: Function) -> str:
    """Scaled dot-product attention, and the weights it used."""
    query = torch.randn(2, 3, 5, 16, generator=torch.Generator().manual_seed(0))
    key, value = torch.randn(2, 2, 3, 7, 16, generator=torch.Generator().manual_seed(1))
    result = call(function, query, key, value)
    expect(
        isinstance(result, tuple) and len(result) == 2,
        "`attention` returns two tensors: weights @ value, weights.",
    )
    out, weights = result
    hint = "5 pixels look at 7 tokens."
    expect.tensor(weights, (2, 3, 5, 7), "The second result, the weights,", hint)
    scores = query @ key.transpose(-1, -2)
    mistakes = {
        "The scores are not scaled: divide by the square root of the width.": scores.softmax(-1),
        "Divide by the square root of the width, not by the width.": (scores / 16).softmax(-1),
        "The softmax runs over the pixels; every pixel distributes its attention over the tokens: "
        "dim=-1.": (scores / 4).softmax(-2),
        "Those are scores; a softmax over the tokens turns them into weights.": scores / 4,
        "The softmax comes last: divide by the square root before it.": (scores.softmax(-1) / 4),
    }
    right = (scores / 4).softmax(-1)
    diagnose(weights, right, mistakes, "The weights are not softmax(query key^T / sqrt(d)).")
    expect(
        close(out, right @ value), "The weights are right; return their product with the values."
    )
    return "the attention of each pixel to all tokens sums to 100 %"


@check("1.2 (m)")
def strengths(values: Sequence[Any], steps: Sequence[Any]) -> str:
    """The norm of the difference that guidance scales, relative to the unguided output."""
    expect.value(values, "`strengths`")
    expect.is_a(values, list, "`strengths`", "it has to be a list of numbers.")
    expect(
        len(values) == len(steps), f"`strengths` has {len(values)} numbers for {len(steps)} steps."
    )
    for i, value in enumerate(values):
        expect(
            isinstance(value, int | float) or getattr(value, "ndim", None) == 0,
            f"Entry {i} of `strengths` is a {type(value).__name__}; it has to be one number.",
        )
    result = torch.tensor([float(value) for value in values])
    expect.finite(result, "`strengths`")
    pushes = torch.stack([(step.cond - step.uncond).norm() for step in steps]).cpu()
    plain = torch.stack([step.uncond.norm() for step in steps]).cpu()
    guided = torch.stack([step.cond.norm() for step in steps]).cpu()
    means = torch.stack([((s.cond - s.uncond) / s.uncond).norm() for s in steps]).cpu()
    mistakes = {
        "Divide by the norm of `uncond`: only the ratio tells how strong guidance is.": pushes,
        "Those are squares: the norm is the root of the sum of squares.": (pushes / plain) ** 2,
        "Divide by the norm of `uncond`, not of `cond`.": pushes / guided,
        "That is the norm of a ratio; take the ratio of two norms.": means,
        "That is a difference of norms; take the norm of cond - uncond.": (
            (guided - plain) / plain
        ),
        "That is the ratio of the other two norms: cond - uncond is missing.": guided / plain,
        "The ratio is upside down: divide by the norm of `uncond`.": plain / pushes,
    }
    otherwise = "Those are not the norms of cond - uncond, each divided by the norm of uncond."
    diagnose(result, pushes / plain, mistakes, otherwise)
    return f"from {result.min():.0%} to {result.max():.0%} of the norm of the unguided output"


@check("1.2 (n)")
def inversion(sd: Any, model: Model) -> str:
    """DDIM inversion in three steps, from latents to noise."""
    shape = (1, sd.unet.config.in_channels, *model.latent_size())
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(model.device)
    prompt, count, tolerance = "a duck", 3, tolerance_of(model)
    for place in (sd, with_other_prediction(sd)):
        try:
            result = call(place.invert, latents, prompt, count)
        except CheckFailed as error:
            expect(
                "is not finite" not in str(error),
                "The latents are not finite. `ddim_step` cannot go to a level with more noise: the "
                "number under the root of sigma is negative. Use `add_noise`.",
            )
            raise
        expect.tensor(result, shape, "The result of `invert`")
        # At which end of a step the network is called is a convention: both are in use.
        rights = [invert(place, latents, prompt, count, end=end) for end in (1, 0)]
        if any(close(result, right, tolerance) for right in rights):
            continue
        mistakes = {
            "The result is the image itself: `latents` has to change in every step.": latents,
            "The steps run from noise to image: reverse the list of timesteps, END first.": (
                invert(place, latents, prompt, count, backwards=True)
            ),
            "The text of the prompt is not used: get_text_embeddings returns the negative prompt "
            "first, then the prompt.": invert(place, latents, "", count),
            "Both noise levels are exchanged: a step goes from alpha_bar of t to that of t_next, "
            "which is smaller.": invert(place, latents, prompt, count, exchange=True),
            "The first step is missing: it begins at END, where the latents are clean.": (
                invert(place, latents, prompt, count, first=1)
            ),
            "x_0 is mixed with new random noise; inversion uses the noise that the network "
            "predicts.": result
            if not torch.equal(result, place.invert(latents, prompt, count))
            else rights[0],
        }
        for advice, wrong in mistakes.items():
            expect(not close(result, wrong, tolerance), advice)
        kind = place.model.prediction_type
        expect(
            place is sd,
            f"Inversion is right for {model.name}, but not for a model that predicts {kind}: use "
            "`predict_x0_and_noise` with self.model.prediction_type.",
        )
        raise CheckFailed(
            "After three steps those are not the latents of DDIM inversion: predict x_0 and the "
            "noise at alpha_bar of t, and mix them again at alpha_bar of t_next."
        )
    return f"{count} steps from an image back to its noise, for models of both prediction types"


def _reconstruction(sd: Any, image: Image.Image) -> Tensor:
    """Return the image (3, H, W) in [0, 1] that the autoencoder makes of an image."""
    return _pixels(to_pil(sd.decode_latents(sd.encode_image(image))[0]))


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255


def _recognized(image: Image.Image) -> str:
    """Return the object that the judge sees in an image."""
    from course.metrics.judge import Judge

    return str(Judge()([image])[0]["object"])


def _expect_image(image: Any, model: Model, what: str) -> None:
    expect.is_a(image, Image.Image, what, "it has to be an image (PIL): end with `to_pil`.")
    size = (model.image_size, model.image_size)
    expect(image.size == size, f"{what} has {image.size} pixels; it has to have {size}.")


@check("1.2 challenge 1")
def sdedit(function: Function, drawing: Image.Image, prompt: str, word: str, sd: Any) -> str:
    """Images from a drawing: the larger the strength, the further away, and `word` is in them."""
    images, distances = [], []
    for strength in (0.3, 0.9):
        images.append(call(function, drawing, prompt, strength))
        _expect_image(images[-1], sd.model, f"The image at strength {strength:g}")
        difference = _pixels(images[-1]) - _pixels(drawing)
        distances.append(difference.square().mean().sqrt().item())
    score = (
        f"RMS distance from the drawing {distances[0]:.3f} at strength 0.3 and {distances[1]:.3f} "
        "at 0.9"
    )
    expect(distances[0] != distances[1], f"{score}: `strength` makes no difference.")
    expect(
        distances[0] < distances[1],
        f"{score}: a small strength has to stay closer to the drawing. Is it the share of steps "
        "that are taken, not of those that are skipped?",
    )
    expect(
        same(images[0], call(function, drawing, prompt, 0.3)),
        "The same call gave two different images: make_generator(seed).",
    )
    if not sd.model.is_embedded:
        return f"{score}; the judge knows pocket's world only"
    seen = _recognized(images[-1])
    expect(
        seen == word,
        f"{score}, but at 0.9 the judge sees {seen}, not {word}: does the noise that is added fit "
        "the timestep at which sampling begins?",
    )
    return f"{score}, where the judge sees {word}"


MIN_PSNR = 25.0  # dB


@check("1.2 challenge 2")
def inpainting(
    function: Function, image: Image.Image, mask: Tensor, prompt: str, word: str, sd: Any
) -> str:
    """A new object inside of the mask (1, 1, h, w), and the image as it was outside."""
    result = call(function, image, mask, prompt)
    _expect_image(result, sd.model, "The image")
    before, after = _reconstruction(sd, image), _pixels(result)
    # Less the border, where the decoder mixes both sides.
    wide = F.max_pool2d(mask.float(), 3, stride=1, padding=1)
    outside = 1 - F.interpolate(wide, before.shape[-2:])[0].cpu()  # (1, H, W)
    error = ((after - before).square() * outside).sum() / (3 * outside.sum()).clamp_min(1)
    inside = ((after - before).square() * (1 - outside)).mean()
    psnr = -10 * torch.log10(error.clamp_min(1e-10)).item()
    expect(
        psnr >= MIN_PSNR,
        f"Outside of the mask the image has changed: PSNR {psnr:.1f} dB, at least {MIN_PSNR:g} are "
        "needed. After each step put the noisy latents of the image back where mask is 0.",
    )
    expect(inside > 1e-4, "Inside of the mask nothing has changed: mask is 1 for new content.")
    if not sd.model.is_embedded:
        return f"PSNR {psnr:.1f} dB outside of the mask; the judge knows pocket's world only"
    seen = _recognized(result)
    expect(
        seen == word,
        f"PSNR {psnr:.1f} dB outside of the mask, but the judge sees {seen}, not {word}: is the "
        "noise that is put back that of the level at which the step ends?",
    )
    return f"PSNR {psnr:.1f} dB outside of the mask, and the judge sees {word}"


MAX_RATIOS = {5: 0.5, 10: 0.25}  # of DDIM's error, by the number of steps


@check("1.2 challenge 3")
def solver(function: Function, sd: Any) -> str:
    """A sampler of higher order, against the exact solution for Gaussian data.

    The latents of the data are normally distributed, so the best denoiser and the path that
    sampling follows are known in closed form.
    """
    from diffusers import DDIMScheduler

    model = copy.copy(sd.model)
    vars(model)["prediction_type"] = "epsilon"
    stand_in = copy_of(sd)
    # From the noisiest level, in even steps to the end.
    settings = {"timestep_spacing": "trailing", "set_alpha_to_one": True}
    stand_in.scheduler = DDIMScheduler.from_config(sd.scheduler.config, **settings)
    stand_in.model, stand_in.unet = model, GaussianDenoiser(stand_in.scheduler)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    embeddings = torch.zeros(2, 1, 1)
    errors = []
    for count in MAX_RATIOS:
        result = call(function, stand_in, noise, embeddings, count, 1.0)
        expect.tensor(result, noise.shape, "The result of the sampler")
        *_, last = stand_in.denoise(noise, embeddings, count, 1.0)
        exact = stand_in.unet.exact(noise, count)
        errors.append([(x - exact).norm() / exact.norm() for x in (result, last.x_prev)])
    score = ", ".join(
        f"{count} steps: {mine:.4f} (DDIM: {ddim:.4f})"
        for count, (mine, ddim) in zip(MAX_RATIOS, errors, strict=True)
    )
    ratios = [float(mine / ddim) for mine, ddim in errors]
    expect(max(ratios) > 0, "The error is zero; the exact solution is not known to a sampler.")
    expect(
        max(ratios) < 0.999,
        f"Relative errors: {score}. That is no better than DDIM, a method of first order: use the "
        "prediction of the step before as well.",
    )
    expect(
        all(ratio <= limit for ratio, limit in zip(ratios, MAX_RATIOS.values(), strict=True)),
        f"Relative errors: {score}. At most {MAX_RATIOS[5]:g} of DDIM's are allowed at 5 steps, "
        f"and {MAX_RATIOS[10]:g} at 10: look at the weights of both predictions, and at the first "
        "and the last step.",
    )
    return f"relative errors with {score}"


class GaussianDenoiser:
    """The best possible denoiser of latents from a normal distribution, as a U-Net is called."""

    mean, std = 1.5, 0.5
    dtype = torch.float32

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.config = SimpleNamespace(in_channels=4)

    def __call__(self, x: Tensor, t: Any, **_: Any) -> SimpleNamespace:
        a = self.scheduler.alphas_cumprod[int(t)]
        noise = (1 - a).sqrt() * (x - a.sqrt() * self.mean) / (a * self.std**2 + 1 - a)
        return SimpleNamespace(sample=noise)

    def exact(self, x: Tensor, count: int) -> Tensor:
        """Return where the exact path from `x` leads in `count` steps.

        It is followed to the last timestep; the step from there to the end is DDIM's, as in every
        sampler.
        """
        visited = timesteps(self.scheduler.config, count)
        first, last = (self.scheduler.alphas_cumprod[t] for t in (visited[0], visited[-1]))
        z = (x - first.sqrt() * self.mean) / (first * self.std**2 + 1 - first).sqrt()
        x_t = last.sqrt() * self.mean + (last * self.std**2 + 1 - last).sqrt() * z
        noise = self(x_t, visited[-1]).sample
        return ddim_step(
            predict_x0(x_t, noise, last), noise, last, self.scheduler.final_alpha_cumprod
        )
