"""Checks of lesson 2, sections 1 and 2: where windows are, and how they are fused."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course.checks.common import CheckFailed, Function, call, check, close, diagnose, expect
from course.diffusion import add_noise, predict_x0

SEQUENCES = list | tuple | range | Tensor | np.ndarray  # type: ignore[type-arg]
# Sizes, windows and strides of a side, in latent pixels.
OPEN_SIDES = ((32, 32, 8), (128, 32, 8), (33, 32, 8), (100, 32, 24), (31, 8, 3), (16, 8, 8))
CLOSED_SIDES = ((128, 32, 8), (16, 8, 8), (24, 8, 8), (20, 8, 8), (31, 8, 3), (8, 8, 3))


@check("2.1 (a)")
def window_placement(function: Function) -> str:
    """`window_starts` covers a side by few windows, at most a stride apart."""
    for closed, sides in ((False, OPEN_SIDES), (True, CLOSED_SIDES)):
        for side in sides:
            _check_starts(call(function, *side, closed), *side, closed)
    return "every latent pixel is in a window, on a ring also across the wrap"


def _check_starts(result: Any, size: int, window: int, stride: int, closed: bool) -> None:
    request = f"window_starts({size}, {window}, {stride}, closed={closed})"
    expect.is_a(result, SEQUENCES, request, "it has to be a list of integers.")
    values = np.asarray(result).tolist() if hasattr(result, "tolist") else list(result)
    expect.is_a(values, list, request, "it has to be a list of integers.")
    shown = f"{request} = {values}"
    expect(len(values), f"{shown}: there has to be at least one window.")
    expect(
        all(isinstance(start, int) and not isinstance(start, bool) for start in values),
        f"{shown}: starts are integers. `//` divides integers, `range` counts in them.",
    )
    starts = sorted(values)
    expect(
        0 <= starts[0] and starts[-1] < size, f"{shown}: a start has to be from 0 to {size - 1}."
    )
    expect(len(set(starts)) == len(starts), f"{shown}: a window appears twice.")
    expect(
        closed or starts[-1] + window <= size,
        f"{shown}: the last window reaches beyond the border. Where the edges do not meet, the "
        f"last start is at most size - window = {size - window}.",
    )
    covered = {(start + k) % size for start in starts for k in range(window)}
    missing = sorted(set(range(size)) - covered)
    expect(
        not missing,
        f"{shown}: columns {missing[:1]} to {missing[-1:]} are in no window. "
        + (
            "On a ring windows begin at every multiple of the stride below `size`."
            if closed
            else "Where the stride does not lead to the border, add a window that ends there."
        ),
    )
    expect(
        not closed or any(start + window > size for start in starts),
        f"{shown}: no window has the last column beside the first one. On a ring at least one has "
        "to reach across the wrap: add one there.",
    )
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    expect(
        max(gaps, default=0) <= stride, f"{shown}: two are more than a stride of {stride} apart."
    )
    most = -(-size // stride) + 1 if closed else -(-(size - window) // stride) + 1
    expect(len(starts) <= most, f"{shown}: {len(starts)} windows, where {most} are enough.")


@check("2.1 (b)")
def views(window_views: Function, crop_windows: Function) -> str:
    """`window_views` pairs rows with columns, and `crop_windows` cuts windows out of latents."""
    height, width, window, stride = 7, 11, 4, 3
    for closed in (False, True):
        result = call(window_views, height, width, window, stride, closed)
        name = f"window_views(..., closed={closed})"
        expect.is_a(result, list | tuple, name, "return a list with a pair for each window.")
        for view in result:
            expect(
                isinstance(view, list | tuple) and len(view) == 2, f"{name}: each entry is a pair."
            )
            for part, shape, what in zip(
                view, [(window, 1), (window,)], ("rows", "columns"), strict=True
            ):
                _check_indices(part, shape, f"The {what} of a view")
        _check_coverage(result, name, height, width)
        wraps = any(0 in columns[1:].tolist() for _, columns in result)
        expect(wraps or not closed, f"{name}: no window wraps around: pass `closed` on.")
        expect(closed or not wraps, f"{name}: a window wraps around where the edges do not meet.")
    latents = torch.randn((1, 3, height, width), generator=torch.Generator().manual_seed(6))
    windows = call(crop_windows, latents, result)
    shape = (len(result), 3, window, window)
    expect.tensor(windows, shape, "What `crop_windows` returns", "Join the windows by torch.cat.")
    right = torch.cat([latents[..., rows, columns] for rows, columns in result])
    diagnose(
        windows,
        right,
        {
            "The windows are transposed: latents[..., rows, columns].": right.mT,
            "The windows are in another order: keep that of the views.": right.flip(0),
        },
        "The windows are not latents[..., rows, columns] of each view.",
    )
    return "rows meet columns, and windows are cut out at each view"


def _check_coverage(views: Sequence[Any], name: str, height: int, width: int) -> None:
    seen = torch.zeros(height, width, dtype=torch.int)
    for rows, columns in views:
        expect(
            int(rows.max()) < height and int(rows.min()) >= 0,
            f"{name}: a row is not between 0 and {height - 1}. Panoramas are not closed from top "
            "to bottom.",
        )
        expect(
            int(columns.max()) < width and int(columns.min()) >= 0,
            f"{name}: a column is not between 0 and {width - 1}. Beyond the last column the first "
            "one follows: % width.",
        )
        seen[rows, columns] += 1
    expect(
        seen.min() > 0,
        f"{name}: some latent pixels are in no window: every start of rows has to meet every "
        "start of columns.",
    )


def _check_indices(value: Any, shape: tuple[int, ...], what: str) -> None:
    expect.is_a(value, Tensor, what, "make it of torch.arange(window).")
    expect(
        tuple(value.shape) == shape,
        f"{what} have the shape {tuple(value.shape)}; it has to be {shape}, so that rows and "
        "columns are broadcast to a square.",
    )
    integers = (torch.int64, torch.int32, torch.int16, torch.uint8)
    expect(value.dtype in integers, f"{what} are {value.dtype}: indices are integers.")


@check("2.1 (1)")
def denoised_windows(function: Function) -> str:
    """`denoise_windows` makes a step of DDIM of each window."""
    windows, noise = torch.randn((2, 3, 4, 5, 5), generator=torch.Generator().manual_seed(0))
    a, b = torch.tensor(0.4), torch.tensor(0.7)
    result = call(function, windows, noise, a, b)
    expect.tensor(result, windows.shape, "The result", "That is the shape of the windows.")
    x_0 = predict_x0(windows, noise, a)
    mistakes = {
        "The windows come back as they were. Mix x_0 with noise at the level of `alpha_bar_prev`, "
        "not at that of `alpha_bar`.": windows,
        "That is x_0, the clean image. Mix it with noise again, at the level of "
        "`alpha_bar_prev`.": x_0,
        "Formula (3) has roots: alpha_bar_prev.sqrt() and (1 - alpha_bar_prev).sqrt().": (
            b * x_0 + (1 - b) * noise
        ),
        "The noise is mixed with the windows as they are: it has to be mixed with x_0, the first "
        "half of formula (3).": add_noise(windows, noise, b),
        "The two roots are exchanged: the image has alpha_bar_prev.": add_noise(x_0, noise, 1 - b),
        "The noise is missing: + (1 - alpha_bar_prev).sqrt() * noise.": b.sqrt() * x_0,
        "In x_0 the division by alpha_bar.sqrt() is missing.": add_noise(x_0 * a.sqrt(), noise, b),
        "In x_0 the noise is added, not subtracted.": add_noise(
            predict_x0(windows, -noise, a), noise, b
        ),
        "In x_0 the levels are exchanged: it is predicted at `alpha_bar`, and the noise is added "
        "at `alpha_bar_prev`.": add_noise(predict_x0(windows, noise, b), noise, a),
    }
    otherwise = "The windows are not those of formula (3): look at its roots."
    diagnose(result, add_noise(x_0, noise, b), mistakes, otherwise)
    return "each window is one step less noisy"


Views = Sequence[Any]  # the rows and columns of each window


def _sample_views(window_views: Function) -> tuple[Views, Tensor, tuple[int, int]]:
    """Return views that overlap unevenly and cross the wrap, their weights, and the size.

    The weights (N, 1, 4, 4) differ.
    """
    size = (6, 11)
    views = window_views(*size, 4, 3, True)
    weights = 0.1 + torch.rand((len(views), 1, 4, 4), generator=torch.Generator().manual_seed(1))
    return views, weights, size


def _scatter(values: Tensor, views: Views, size: tuple[int, int], last: bool = False) -> Tensor:
    """Return the sum (1, C, h, w) of windows (N, C, k, k) at their places.

    last: the last window replaces the others instead.
    """
    total = torch.zeros((1, values.shape[1], *size), dtype=torch.float64)
    for value, (rows, columns) in zip(values.double(), views, strict=True):
        before = 0 if last else total[0, :, rows, columns]
        total[0, :, rows, columns] = before + value
    return total


@check("2.1 (2)")
def weight_sum(function: Function, window_views: Function) -> str:
    """`weight_sum` adds up the weights of all windows."""
    views, weights, size = _sample_views(window_views)
    result = call(function, views, weights, *size)
    if isinstance(result, Tensor) and not result.any():
        raise CheckFailed(
            "Nothing is added up: the sum is zero everywhere. In a loop over views and weights, "
            "add each weight to total[..., rows, columns]."
        )
    expect.tensor(result, (1, 1, *size), "The sum of the weights")
    mistakes = {
        "Of overlaps the last one alone counts: `+=`, not `=`.": _scatter(
            weights, views, size, last=True
        ),
        "The windows are counted, not their weights: += weight.": _scatter(
            torch.ones_like(weights), views, size
        ),
        "All windows have the weights of the first one.": _scatter(
            weights[:1].expand_as(weights), views, size
        ),
    }
    otherwise = "Those are not the sums of the weights: add each at its view, [rows, columns]."
    diagnose(result, _scatter(weights, views, size), mistakes, otherwise)
    return "the weights of all windows, each at its place, also across the wrap"


@check("2.1 (3)")
def fusion(function: Function, window_views: Function) -> str:
    """`fuse` is the weighted average, which is the least-squares solution."""
    views, weights, size = _sample_views(window_views)
    windows = torch.randn((len(views), 3, 4, 4), generator=torch.Generator().manual_seed(2))
    total = _scatter(weights, views, size)
    result = call(function, windows, views, weights, total.float())
    expect.tensor(result, (1, 3, *size), "The panorama")
    added = _scatter(weights * windows, views, size)
    counts = _scatter(torch.ones_like(weights), views, size)
    unweighted = _scatter(windows, views, size)
    last = _scatter(weights * windows, views, size, last=True)
    mistakes = {
        "Nothing has been added up: every window goes to its place in the panorama.": 0 * added,
        "The windows are added up, but not averaged: divide by `total`.": added,
        "The windows are not weighted: weight * window.": unweighted / total,
        "All windows count the same: multiply each by its weight.": unweighted / counts,
        "Divide by `total`, the sum of the weights, not by the number of windows.": added / counts,
        "Where windows overlap, the last one alone counts: `+=`, not `=`.": last / total,
        "The sum is multiplied by `total`: divide by it.": added * total,
        "Divide by the sum of the weights themselves, not by its root.": added / total.sqrt(),
    }
    otherwise = "That is not the weighted average of formula (2)."
    diagnose(result, added / total, mistakes, otherwise)
    return "every latent pixel is the weighted average of the windows that see it"


@check("2.1 (c)")
def joint_step(function: Function, window_views: Function) -> str:
    """`joint_step` crops, denoises and fuses."""
    views, weights, size = _sample_views(window_views)
    latents = torch.randn((1, 3, *size), generator=torch.Generator().manual_seed(4))
    before = latents.clone()
    a, b = torch.tensor(0.4), torch.tensor(0.7)
    windows = torch.cat([latents[..., rows, columns] for rows, columns in views])
    inputs: list[Tensor] = []

    def update(own: Tensor) -> tuple[Tensor, Tensor]:
        shape = tuple(getattr(own, "shape", ()))
        expect(
            shape == tuple(windows.shape),
            f"`update` gets the shape {shape}; it takes all windows, {tuple(windows.shape)}.",
        )
        inputs.append(own)
        return 0.5 * own + 0.2, own.flip(-1)

    result = call(function, None, latents, views, weights, update, a, b)
    expect.is_a(result, tuple | list, "The result", "return the pair `x_0, x_prev`.")
    expect(len(result) == 2, f"The result has {len(result)} parts; return the pair `x_0, x_prev`.")
    expect(inputs, "`update` is not called: it gives the windows and the noise in them.")
    expect(
        len(inputs) == 1, f"`update` is called {len(inputs)} times: give it all windows at once."
    )
    expect(close(inputs[0], windows), "`update` gets other windows than those of `crop_windows`.")
    for value, name in zip(result, ("x_0", "x_prev"), strict=True):
        expect.tensor(value, latents.shape, name, "That is the shape of the panorama: fuse it.")
    expect(torch.equal(latents, before), "`latents` are changed in place: fuse into new latents.")
    moved, noise = 0.5 * windows + 0.2, windows.flip(-1)
    _diagnose_step(result, (windows, moved, noise), views, weights, (a, b))
    return "crop, denoise, fuse: one step of MultiDiffusion"


def _diagnose_step(
    result: Sequence[Tensor],
    parts: tuple[Tensor, Tensor, Tensor],
    views: Views,
    weights: Tensor,
    levels: tuple[Tensor, Tensor],
) -> None:
    """Compare a joint step with that of these windows, moved, with this noise in them."""
    (windows, moved, noise), (a, b) = parts, levels
    size = (int(result[0].shape[-2]), int(result[0].shape[-1]))
    total = _scatter(weights, views, size)
    fused = lambda values: _scatter(weights * values, views, size) / total
    x_0, x_prev = predict_x0(moved, noise, a), add_noise(predict_x0(moved, noise, a), noise, b)
    unmoved = add_noise(predict_x0(windows, noise, a), noise, b)
    right = [fused(x_0), fused(x_prev)]
    expect(not close(list(result), right[::-1]), "The two are exchanged: first x_0, then x_prev.")
    mistakes = {
        "x_prev is the clean panorama: fuse what `denoise_windows` returns.": fused(x_0),
        "The windows that `update` returns are not used.": fused(unmoved),
        "x_prev has the windows as they were: denoise them before you fuse them.": fused(moved),
        "alpha_bar and alpha_bar_prev are exchanged.": fused(
            add_noise(predict_x0(moved, noise, b), noise, a)
        ),
        "All windows count the same: fuse with `weights`, and `weight_sum` of them.": (
            _scatter(x_prev, views, size) / _scatter(torch.ones_like(weights), views, size)
        ),
    }
    otherwise = "x_prev is not the fused panorama of the denoised windows."
    diagnose(result[1], right[1], mistakes, otherwise)
    mistakes = {
        "x_0 is the panorama of the next step: fuse what `predict_x0` returns.": right[1],
        "x_0 is predicted at `alpha_bar_prev`: the windows are still at `alpha_bar`.": fused(
            predict_x0(moved, noise, b)
        ),
        "x_0 is predicted from windows that were not moved.": fused(predict_x0(windows, noise, a)),
    }
    diagnose(result[0], right[0], mistakes, "x_0 is not the fused prediction of the windows.")
