"""The checks of lesson 2, sections 1 and 2: wrong solutions get their advice, right ones pass."""

import numpy as np
import pytest
import torch

from course.checks import task_2 as checks
from tests.course.checks.helpers import JOINT, assert_advice, rewrite


def solution(name, *changes):
    """The lesson's function `name` with changes in its text."""
    return getattr(rewrite(JOINT, name, *changes), name)


# --- 2.1 (a): window placement


def spread(size, window, stride, closed=False):
    """Starts that are spread evenly, in the place of a last one that is shifted in."""
    if closed:
        count = -(-size // stride)
        starts = [i * size // count for i in range(count)]
        return starts if starts[-1] + window > size else [*starts, size - 1]
    count = -(-(size - window) // stride) + 1
    return np.linspace(0, size - window, count).round().astype(int)


def by_while(size, window, stride, closed=False):
    starts, left = [], 0
    while left < (size if closed else size - window):
        starts.append(left)
        left += stride
    if not closed:
        starts.append(size - window)
    elif starts[-1] + window <= size:
        starts.append(size - 1)
    return tuple(reversed(starts))


def test_right_placements_pass(joint):
    for right in (joint.window_starts, spread, by_while):
        checks.window_placement(right)


PLACEMENT = [
    (("return starts\n    starts", "return None\n    starts"), "returns None: is a `return`"),
    (("starts.append(size - window)", "pass"), "are in no window. Where the stride does not lead"),
    (("starts.append(size - window // 2)", "pass"), "no window has the last column beside"),
    (("range(0, size, stride)", "range(0, size - window + 1, stride)"), "more than a stride"),
    (("size - window + 1, stride", "size - window, stride"), "raised IndexError"),
    (("size - window + 1, stride", "size, stride"), "reaches beyond the border"),
    (("starts.append(size - window)", "starts.append(size - window + 1)"), "beyond the border"),
    (("starts.append(size - window)", "starts.append(size - 1)"), "beyond the border"),
    (("if starts[-1] < size - window:", "if True:"), "a window appears twice"),
    (
        (
            "starts = list(range(0, size - window",
            "starts = list(range(1, size - window + window // 4",
        ),
        "in no window|beyond",
    ),
    (("size - window + 1, stride", "size - window + 1, window"), "more than a stride|in no window"),
    (("size - window + 1, stride", "size - window + 1, 1"), "where .* are enough"),
    (("range(0, size, stride)", "range(0, size, 1)"), "where .* are enough"),
    (("range(0, size, stride)", "range(0, size + 1, stride)"), "has to be from 0 to"),
    (("if closed:", "if False:"), "no window has the last column"),
    (("if closed:", "if True:"), "reaches beyond the border"),
    (("list(range(0, size - window + 1, stride))", "[]"), "Your code raised IndexError"),
    (("size - window // 2", "size - window / 2"), "starts are integers"),
    (("size - window + 1, stride", "size - window + 1, stride / 1"), "raised TypeError"),
]


@pytest.mark.parametrize(("changes", "advice"), PLACEMENT)
def test_wrong_placements(changes, advice):
    assert_advice(advice, checks.window_placement, solution("window_starts", *changes))


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (lambda size, window, stride, closed: ..., "still empty"),
        (lambda size, window, stride, closed: 3, "is a int; it has to be a list"),
        (lambda size, window, stride, closed: [], "at least one window"),
        (lambda size, window, stride, closed: [[0, window]], "starts are integers"),
        (lambda size, window, stride, closed: [0, window], "has to be from 0 to 31"),
    ],
)
def test_placements_of_another_kind(wrong, advice):
    assert_advice(advice, checks.window_placement, wrong)


# --- 2.1 (b): views


def meshgrid_views(lesson):
    def window_views(height, width, window, stride, closed=False):
        side = torch.arange(window)
        views = []
        for top in lesson.window_starts(height, window, stride):
            for left in lesson.window_starts(width, window, stride, closed):
                views.append(((side + top).view(-1, 1), torch.remainder(side + left, width)))
        return views

    return window_views


def test_right_views_pass(joint):
    checks.views(joint.window_views, joint.crop_windows)
    stack = lambda latents, views: torch.stack([latents[0][:, r, c] for r, c in views])
    checks.views(meshgrid_views(joint), stack)

    def by_loops(latents, views):
        windows = []
        for rows, columns in views:
            windows.append(latents[0][:, rows.flatten()][:, :, columns])
        return torch.stack(windows)

    checks.views(lambda *request: tuple(joint.window_views(*request)), by_loops)


PAIRS = "[(row, column) for row in rows for column in columns]"
COLUMNS = "window_starts(width, window, stride, closed)"
ROWS = "window_starts(height, window, stride)"
VIEWS = [
    ((f"return {PAIRS}", "pass"), "returns None"),
    (("[(top + side)[:, None] for top", "[(top + side) for top"), r"has to be \(4, 1\)"),
    (("[(left + side) % width for", "[((left + side) % width)[None] for"), r"has to be \(4,\)"),
    (("(left + side) % width", "(left + side)"), "% width"),
    (("(left + side) % width", "(left + side).clamp(max=width - 1)"), "no window wraps|in no wind"),
    ((ROWS, ROWS.replace(")", ", closed)")), "not closed from top|a row is not"),
    ((COLUMNS, COLUMNS.replace("closed", "False")), "no window wraps around"),
    ((COLUMNS, COLUMNS.replace("closed", "True")), "wraps around where"),
    ((PAIRS, "list(zip(rows, columns))"), "in no window"),
    ((PAIRS, PAIRS.replace("(row, column)", "(column, row)")), "has to be"),
    ((PAIRS, "(rows, columns)"), r"has to be \(4,\)"),
    (
        ("side = torch.arange(window)", "side = torch.arange(window).float()"),
        "indices are integers",
    ),
    (("side = torch.arange(window)", "side = torch.arange(window - 1)"), "the shape"),
    (("side = torch.arange(window)", "side = range(window)"), "Your code raised TypeError"),
]
CROPS = [
    (("torch.cat([latents[..., rows, columns] for rows, columns in views])", "..."), "still empty"),
    (("torch.cat(", "torch.stack("), "has the shape"),
    (("return torch.cat(", "return list("), "a list"),
    (("[..., rows, columns]", "[..., columns, rows]"), "in line|transposed|the shape"),
    (("[..., rows, columns]", "[..., rows, columns].mT"), "transposed"),
    (("in views])", "in views[::-1]])"), "another order"),
    (("in views])", "in views[:1]])"), "has the shape"),
    (("[..., rows, columns]", "[..., rows, columns] * 2"), r"not latents\[\.\.\., rows"),
    (("[..., rows, columns]", "[..., rows]"), "in line|the shape"),
]


@pytest.mark.parametrize(("changes", "advice"), VIEWS)
def test_wrong_views(joint, changes, advice):
    assert_advice(advice, checks.views, solution("window_views", *changes), joint.crop_windows)


@pytest.mark.parametrize(("changes", "advice"), CROPS)
def test_wrong_crops(joint, changes, advice):
    assert_advice(advice, checks.views, joint.window_views, solution("crop_windows", *changes))


# --- 2.1 (1): denoise the windows


def test_right_denoising_passes(joint):
    checks.denoised_windows(joint.denoise_windows)
    checks.denoised_windows(
        lambda x, n, a, b: (b / a).sqrt() * x + ((1 - b).sqrt() - (b * (1 - a) / a).sqrt()) * n
    )
    checks.denoised_windows(
        lambda x, n, a, b: b**0.5 * joint.predict_x0(x, n, a) + torch.sqrt(1 - b) * n
    )


def test_wrong_denoising(joint):
    right, x_0 = joint.denoise_windows, joint.predict_x0
    for wrong, advice in [
        (lambda x, n, a, b: None, "returns None: is a `return` missing"),
        (lambda x, n, a, b: (x, n), "a tuple"),
        (lambda x, n, a, b: right(x, n, a, b)[:1], "shape of the windows"),
        (lambda x, n, a, b: x, "as they were"),
        (lambda x, n, a, b: x_0(x, n, a), "That is x_0"),
        (lambda x, n, a, b: right(x, n, a, a) + 0 * b, "as they were.*`alpha_bar_prev`"),
        (lambda x, n, a, b: b * x_0(x, n, a) + (1 - b) * n, "has roots"),
        (lambda x, n, a, b: b.sqrt() * x + (1 - b).sqrt() * n, "has to be mixed with x_0"),
        (lambda x, n, a, b: right(x, n, a, 1 - b), "exchanged: the image"),
        (lambda x, n, a, b: b.sqrt() * x_0(x, n, a), "noise is missing"),
        (lambda x, n, a, b: right(x, n, b, a), "levels are exchanged"),
        (lambda x, n, a, b: b.sqrt() * x_0(x, n, a) * a.sqrt() + (1 - b).sqrt() * n, "division by"),
        (lambda x, n, a, b: b.sqrt() * x_0(x, -n, a) + (1 - b).sqrt() * n, "noise is added"),
        (lambda x, n, a, b: right(x, n, a, b) * 1.1, "not those of formula"),
        (lambda x, n, a, b: (b - 1).sqrt() * n, "not finite.*negative"),
        (lambda x, n, a, b: x_0(x, n), "raised TypeError"),
    ]:
        assert_advice(advice, checks.denoised_windows, wrong)


# --- 2.1 (2), (3): sums and averages


def added(value, views, weights, change):
    """A sum over views in which `change` says what comes in the place of what was there."""
    for weight, (rows, columns) in zip(weights, views, strict=True):
        value[..., rows, columns] = change(value[..., rows, columns], weight)
    return value


def test_right_sums_pass(joint):
    checks.weight_sum(joint.weight_sum, joint.window_views)

    def scattered(views, weights, height, width):
        places = torch.stack([(r * width + c).flatten() for r, c in views]).flatten()
        return (
            torch.zeros(height * width)
            .index_add(0, places, weights.flatten())
            .view(1, 1, height, width)
        )

    checks.weight_sum(scattered, joint.window_views)


def test_wrong_sums(joint):
    def weight_sum(change):
        return lambda views, weights, h, w: added(torch.zeros(1, 1, h, w), views, weights, change)

    checks.weight_sum(weight_sum(lambda old, new: old + new), joint.window_views)
    for wrong, advice in [
        (lambda views, weights, h, w: None, "returns None: is a `return` missing"),
        (lambda views, weights, h, w: torch.zeros(1, 1, h, w), "Nothing is added up"),
        (lambda views, weights, h, w: torch.ones(h, w), "has the shape"),
        (lambda views, weights, h, w: torch.ones(1, 1, w, h), "has the shape"),
        (lambda views, weights, h, w: weights.sum(), "has the shape"),
        (weight_sum(lambda old, new: new), "last one alone"),
        (weight_sum(lambda old, new: old + 1), "weights: .= weight"),
        (weight_sum(lambda old, new: old + 2 * new), "not the sums"),
        (lambda v, g, h, w: joint.weight_sum(v, g[:1].expand_as(g), h, w), "of the first one"),
        (
            solution("weight_sum", "total[..., rows, columns] += weight", "total += weight"),
            "raised",
        ),
        (solution("weight_sum", "[..., rows, columns]", "[..., columns]"), "raised"),
        (solution("weight_sum", "[..., rows, columns]", "[..., columns, rows]"), "raised"),
    ]:
        assert_advice(advice, checks.weight_sum, wrong, joint.window_views)


def fuser(joint, change=lambda old, new: old + new, weigh=True, divide=lambda total, counts: total):
    """A function `fuse` that differs in one thing."""

    def fused(windows, views, weights, total):
        counts = joint.weight_sum(views, torch.ones_like(weights), *total.shape[-2:])
        parts = weights * windows if weigh else windows
        value = added(torch.zeros(1, windows.shape[1], *total.shape[-2:]), views, parts, change)
        return value / divide(total, counts)

    return fused


def test_right_averages_pass(joint):
    checks.fusion(joint.fuse, joint.window_views)
    checks.fusion(fuser(joint), joint.window_views)

    def shares(windows, views, weights, total):
        """Each weight is divided first."""
        panorama = torch.zeros(1, windows.shape[1], *total.shape[-2:])
        for window, weight, (rows, columns) in zip(windows, weights, views, strict=True):
            panorama[..., rows, columns] += weight / total[..., rows, columns] * window
        return panorama

    checks.fusion(shares, joint.window_views)


def test_wrong_averages(joint):
    fuse = lambda **changes: fuser(joint, **changes)
    for wrong, advice in [
        (lambda windows, views, weights, total: None, "returns None: is a `return` missing"),
        (lambda windows, views, weights, total: windows, "The panorama has the shape"),
        (lambda x, views, weights, total: fuse()(0 * x, views, weights, total), "Nothing has been"),
        (fuse(divide=lambda total, counts: 1), "not averaged"),
        (fuse(weigh=False), "not weighted"),
        (fuse(weigh=False, divide=lambda total, counts: counts), "count the same"),
        (fuse(divide=lambda total, counts: counts), "not by the number"),
        (fuse(change=lambda old, new: new), "last one alone"),
        (fuse(divide=lambda total, counts: 1 / total), "multiplied by `total`"),
        (fuse(divide=lambda total, counts: total.sqrt()), "not by its root"),
        (fuse(divide=lambda total, counts: total + 1), "not the weighted average"),
        (fuse(divide=lambda total, counts: 0 * total), "not finite.*division by zero"),
        (
            solution("fuse", "+= weight.to(exact) * window", "= weight * window"),
            "raised RuntimeErr",
        ),
        (solution("fuse", "value[..., rows, columns] +=", "value +="), "raised RuntimeError"),
    ]:
        assert_advice(advice, checks.fusion, wrong, joint.window_views)


# --- 2.1 (c): a joint step


def test_right_steps_pass(joint):
    checks.joint_step(joint.joint_step, joint.window_views)

    def averaged_first(self, latents, views, weights, update, a, b):
        """Formula (3) is linear: fuse windows and noise, then make one step."""
        total = joint.weight_sum(views, weights, *latents.shape[-2:])
        windows, noise = update(joint.crop_windows(latents, views))
        x_t, noise = (joint.fuse(part, views, weights, total) for part in (windows, noise))
        return [joint.predict_x0(x_t, noise, a), joint.denoise_windows(x_t, noise, a, b)]

    checks.joint_step(averaged_first, joint.window_views)

    def at_once(self, latents, views, weights, update, a, b):
        """Both results are fused together, as more channels."""
        windows, noise = update(torch.cat([latents[..., r, c] for r, c in views]))
        x_0 = (windows - (1 - a).sqrt() * noise) / a.sqrt()
        both = torch.cat([x_0, b.sqrt() * x_0 + (1 - b).sqrt() * noise], dim=1)
        total = joint.weight_sum(views, weights, *latents.shape[-2:])
        return joint.fuse(both, views, weights, total).chunk(2, dim=1)

    checks.joint_step(at_once, joint.window_views)


END = "return x_0, fuse(denoised, views, weights, total)"
UPDATE = "windows, noise = update(crop_windows(latents, views))"
STEPS = [
    ((END, "pass"), "returns None"),
    (("return x_0, fuse(", "return fuse("), "return the pair"),
    ((END, "return x_0, x_0, x_0"), "has 3 parts"),
    ((END, "return fuse(denoised, views, weights, total), x_0"), "are exchanged: first x_0"),
    ((END, "return x_0, x_0"), "x_prev is the clean"),
    (
        (END, "return 2 * [fuse(denoised, views, weights, total)]"),
        "x_0 is the panorama of the next",
    ),
    (("fuse(denoised,", "fuse(windows,"), "denoise them before"),
    ((END, "return x_0, denoised"), "x_prev has the shape"),
    ((UPDATE, f"{UPDATE}; windows = crop_windows(latents, views)"), "not used"),
    (("latents, views))", "latents, views).flip(-1))"), "other windows"),
    (("crop_windows(latents, views)", "latents"), "gets the shape"),
    (("update(crop", "2 * (crop"), "is not called|raised|in line"),
    ((UPDATE, f"{UPDATE}; {UPDATE}"), "called 2 times"),
    (
        ("alpha_bar, alpha_bar_prev)\n    return", "alpha_bar_prev, alpha_bar)\n    return"),
        "are exchanged",
    ),
    (
        ("noise, alpha_bar), views", "noise, alpha_bar_prev), views"),
        "predicted at `alpha_bar_prev`",
    ),
    (
        ("weight_sum(views, weights,", "weight_sum(views, 0 * weights + 1,"),
        "not the fused|count the same",
    ),
    ((END, f"latents += 1; {END}"), "changed in place"),
    (("(crop_windows(latents, views))", "(crop_windows(latents))"), "raised TypeError"),
]


@pytest.mark.parametrize(("changes", "advice"), STEPS)
def test_wrong_steps(joint, changes, advice):
    assert_advice(advice, checks.joint_step, solution("joint_step", *changes), joint.window_views)
