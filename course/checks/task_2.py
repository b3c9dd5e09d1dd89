"""Checks of lesson 2."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from course import metrics
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
from course.checks.reference import sample_windows
from course.checks.task_2_sync import anchor_image as anchor_image
from course.checks.task_2_sync import descent as descent
from course.checks.task_2_sync import short_cut as short_cut
from course.checks.task_2_sync import synchronization as synchronization
from course.checks.task_2_windows import denoised_windows as denoised_windows
from course.checks.task_2_windows import fusion as fusion
from course.checks.task_2_windows import joint_step as joint_step
from course.checks.task_2_windows import views as views
from course.checks.task_2_windows import weight_sum as weight_sum
from course.checks.task_2_windows import window_placement as window_placement
from course.images import to_pil

MIN_GAIN, MAX_TIME = 0.4, 0.5  # of an acceleration, as shares of the paper's gain and time


@check("2.1 (d)")
def own_panorama(sd: Any, prompt: object, panorama: Any, path: str | Path, example: str) -> str:
    """A panorama of one's own: a prompt, four times as wide as high, and a file.

    `example` is the prompt of the lesson.
    """
    expect.value(prompt, "MY_PROMPT")
    expect.is_a(prompt, str, "MY_PROMPT", "a prompt is text.")
    words = str(prompt).split()
    expect(words, 'MY_PROMPT is empty: write what the panorama shows, such as "snowy hills".')
    advice = f"MY_PROMPT is the prompt of the lesson, {example!r}: write one of your own."
    expect(words != example.split(), advice)
    expect.value(panorama, "my_panorama")
    expect.is_a(panorama, Tensor, "my_panorama", "it is what `sd.sample` returns.")
    side = sd.model.image_size
    shape = tuple(panorama.shape)
    expect(
        shape == (3, side, 4 * side),
        f"my_panorama has the shape {shape}; it has to be {(3, side, 4 * side)}, in the proportion "
        f"of 512 x 2048 pixels: height={side}, width={4 * side}.",
    )
    expect(panorama.isfinite().all(), "my_panorama has NaN or infinite values.")
    expect(float(panorama.std()) > 0.02, "my_panorama has one color everywhere.")
    path = Path(path)
    expect(path.is_file(), f"There is no file {path}: save the panorama there, as an image.")
    try:
        stored = Image.open(path).convert("RGB")
    except OSError as error:
        raise CheckFailed(f"{path} is not an image: to_pil(my_panorama).save(...).") from error
    expect(
        stored.size == (4 * side, side),
        f"{path} has {stored.size[0]} x {stored.size[1]} pixels: save the whole panorama.",
    )
    difference = np.abs(np.asarray(stored, np.int16) - np.asarray(to_pil(panorama), np.int16))
    expect(difference.mean() < 8, f"{path} shows another image: save my_panorama again.")
    return f'a panorama of "{prompt}", {4 * side} x {side} pixels'


@check("2.2 (f)")
def comparison(function: Function) -> str:
    """`compare` samples twice: with and without synchronization, everything else the same."""
    calls: list[dict[str, Any]] = []
    setting = object()

    def sample(prompts: Any = None, *args: Any, **settings: Any) -> Tensor:
        expect(not args, "Give the settings of `sd.sample` by name, such as seed=seed.")
        calls.append({"prompts": prompts, **settings})
        return torch.full((3, 4, 16), float(bool(settings.get("use_syncdiffusion"))))

    sd = SimpleNamespace(
        sample=sample, paper=lambda: setting, recommended=object, x0_histories=[[], []]
    )
    result = call(function, sd, "a desert", 7, stride=5)
    expect.is_a(result, tuple | list, "The result", "return the pair `multi, synced`.")
    expect(len(result) == 2, f"The result has {len(result)} parts; return `multi, synced`.")
    expect(len(calls) == 2, f"`sd.sample` is called {len(calls)} times: once for each method.")
    for settings in calls:
        expect(settings["prompts"] == "a desert", "Both panoramas have the prompt of the argument.")
        expect(
            settings.get("seed") == 7,
            "The seeds differ, or are not the argument: with other noise you compare two scenes, "
            "not two methods. Pass seed=seed to both.",
        )
        expect(settings.get("stride") == 5, "Pass the other settings to both: **settings.")
    synchronized = [bool(settings.get("use_syncdiffusion")) for settings in calls]
    expect(
        sum(synchronized) == 1, "Exactly one of the two is synchronized: use_syncdiffusion=True."
    )
    sync = calls[synchronized.index(True)].get("sync")
    expect(sync is setting, "Synchronize by the setting of the paper: sync=sd.paper().")
    for image in result:
        expect.tensor(image, (3, 4, 16), "A panorama", "Return what `sd.sample` returns.")
    expect(
        float(result[0].mean()) == 0 and float(result[1].mean()) == 1,
        "The two are exchanged: first MultiDiffusion, then SyncDiffusion.",
    )
    return "one prompt, one seed, two methods"


@check("2.2 (g)")
def intra_distance(function: Function) -> str:
    """`intra_distance` is the mean over all pairs of squares."""
    image = 2 * torch.rand((3, 5, 22), generator=torch.Generator().manual_seed(7)) - 1

    def distance(a: Tensor, b: Tensor) -> Tensor:
        shape = (3, 5, 5)
        for batch in (a, b):
            expect(
                batch.dim() == 4 and tuple(batch.shape[1:]) == shape,
                f"`distance` gets the shape {tuple(batch.shape)}; it takes batches of squares, "
                f"(b, {', '.join(map(str, shape))}).",
            )
        return (a - b).square().mean(dim=(1, 2, 3)) + (a - b).abs().amax(dim=(1, 2, 3))

    result = call(function, image, distance, 5)
    if isinstance(result, Tensor) and result.numel() == 1:
        result = result.item()
    expect.is_a(result, float, "The result", "return the mean as a float.")
    squares = [image[None, :, :, 5 * i : 5 * i + 5] for i in range(4)]
    values = torch.stack([torch.cat([distance(a, b) for b in squares]) for a in squares])  # (4, 4)
    pairs = values.triu(1).sum()
    mistakes = {
        "A square is compared with itself too: pairs of different squares.": values.mean(),
        "Only neighbors are compared: take all pairs.": values.diagonal(1).mean(),
        "All squares are compared with the first one alone: take all pairs.": values[0, 1:].mean(),
        "That is the sum: divide by the number of pairs.": pairs,
        "Each pair is counted twice.": pairs * 2 / 6,
        "Divide by the number of pairs, not of squares.": pairs / 4,
    }
    right = pairs / 6
    otherwise = "That is not the mean distance of all pairs of squares, from left to right."
    diagnose(torch.tensor(result), right, mistakes, otherwise)
    return "the mean distance of all pairs"


@check("2 (i)")
def ring_convolution(function: Function, sd: Any) -> str:
    """`ring_convolution` joins the left and the right edge, and keeps zeros above and below."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn((2, 3, 6, 9), generator=generator)
    layer = torch.nn.Conv2d(3, 4, 3, padding=1).requires_grad_(False)
    for parameter in layer.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    result = call(function, layer, x)
    expect.tensor(result, (2, 4, 6, 9), "The result", "A ring keeps the size of the latents.")
    convolve = lambda x: F.conv2d(x, layer.weight, layer.bias)
    wrapped = F.pad(x, (1, 1, 0, 0), mode="circular")
    right = convolve(F.pad(wrapped, (0, 0, 1, 1)))
    everywhere = convolve(F.pad(x, (1, 1, 1, 1), mode="circular"))
    upright = F.pad(F.pad(x, (0, 0, 1, 1), mode="circular"), (1, 1))
    assert layer.bias is not None
    mistakes = {
        "That is the convolution as it was, with zeros beyond the edges: pad the columns by those "
        "of the opposite edge.": layer(x),
        "Above and below the image wraps around too: sky and ground do not meet. Pad the columns "
        "alone, and rows by zeros.": everywhere,
        "The rows wrap around, not the columns: F.pad counts from the last dimension, (left, "
        "right, top, bottom).": convolve(upright),
        "The edge is repeated, not joined to the other one: mode='circular'.": convolve(
            F.pad(F.pad(x, (1, 1, 0, 0), mode="replicate"), (0, 0, 1, 1))
        ),
        "The bias is missing: pass layer.bias.": right - layer.bias[:, None, None],
    }
    diagnose(result, right, mistakes, "That is not the convolution of a ring.", 1e-5)
    wide = torch.nn.Conv2d(3, 2, 1).requires_grad_(False)
    expect(
        close(call(function, wide, x), wide(x)),
        "A 1 x 1 kernel has no padding: take layer.padding.",
    )
    double = torch.nn.Conv2d(3, 2, 3, padding=1, stride=2).requires_grad_(False)
    expect(
        call(function, double, x).shape == double(x).shape,
        "`layer.stride` makes no difference: pass it on.",
    )
    latents = sample_windows(sd, 1)
    with torch.no_grad():
        images = call(sd.decode_closed, latents)
        turned = call(sd.decode_closed, latents.roll(1, dims=-1)).roll(
            -sd.model.scale_factor, dims=-1
        )
        plain = sd.decode_latents(latents)
    expect.tensor(images, plain.shape, "What `decode_closed` returns")
    tolerance = tolerance_of(sd.vae)
    expect(
        not close(images, plain, 1e-6), "It decodes as before: decode inside `closed_convolutions`."
    )
    expect(
        close(turned, images, tolerance),
        "`decode_closed` of turned latents is not the turned image: all convolutions of the "
        "decoder have to wrap around.",
    )
    return "the last column is followed by the first"


@check("2 challenge 1")
def acceleration(
    function: Function,
    sd: Any,
    points: Mapping[str, metrics.Measurement],
    settings: Mapping[str, Any],
    networks: Any,
) -> str:
    """An acceleration of one's own: time against intra-distance, between Multi and the paper.

    points: at least "MultiDiffusion" and "paper", measured with `settings`.
    """
    multi, paper = points["MultiDiffusion"], points["paper"]
    side = sd.model.image_size
    sample = partial(call, function, sd, **settings)
    own = metrics.measure_panorama(sample, networks.distance, side)
    expect.tensor(own.image, multi.image.shape, "The panorama")
    if own.seconds > MAX_TIME * paper.seconds:  # another program may have been busy
        again = metrics.measure_panorama(sample, networks.distance, side)
        own = min(own, again, key=lambda each: each.seconds)
    time = own.seconds / paper.seconds
    gain = multi.distance - paper.distance
    # Where the paper's setting gains nothing, on this model and seed, time alone decides.
    share = (multi.distance - own.distance) / gain if gain > 0.02 * multi.distance else 1.0
    figures = (
        f"{own.seconds / multi.seconds:.1f} times MultiDiffusion's time ({time:.0%} of the "
        f"paper's), intra-distance {own.distance:.2f} (MultiDiffusion {multi.distance:.2f}, paper "
        f"{paper.distance:.2f}): {share:.0%} of the paper's gain"
    )
    expect(
        not close(own.image, multi.image),
        f"{figures}. That is MultiDiffusion's panorama: synchronize some steps.",
    )
    spread = float(own.image.std() / multi.image.std())
    expect(
        0.5 < spread < 2,
        f"{figures}. But its contrast is {spread:.1f} times MultiDiffusion's: a gray wall is "
        "coherent too. Use a smaller weight.",
    )
    expect(
        share >= MIN_GAIN,
        f"{figures}. At least {MIN_GAIN:.0%} of the gain is required: synchronize more.",
    )
    expect(
        time <= MAX_TIME,
        f"{figures}. At most {MAX_TIME:.0%} of the paper's time is allowed: save more.",
    )
    return figures
