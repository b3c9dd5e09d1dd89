"""The checks of lesson 2: its own solutions pass, and one mistake each gets its advice."""

import pytest
import torch

from course.checks import task_2 as checks
from tests.course.checks.helpers import (
    JOINT,
    assert_advice,
    changed,
    rewrite,
)


def test_denoised_windows_and_their_mistakes(joint):
    checks.denoised_windows(joint.denoise_windows)
    right, x_0 = joint.denoise_windows, joint.predict_x0
    for wrong, advice in [
        (lambda x, n, a, b: None, "returns None: is a `return` missing"),
        (lambda x, n, a, b: (x, n), "a tuple"),
        (lambda x, n, a, b: right(x, n, a, b)[:1], "shape of the windows"),
        (lambda x, n, a, b: x, "as they were"),
        (lambda x, n, a, b: x_0(x, n, a), "That is x_0"),
        (lambda x, n, a, b: right(x, n, a, a) + 0 * b, "as they were"),
        (lambda x, n, a, b: b * x_0(x, n, a) + (1 - b) * n, "has roots"),
        (lambda x, n, a, b: b.sqrt() * x + (1 - b).sqrt() * n, "has to be mixed with x_0"),
        (lambda x, n, a, b: right(x, n, a, 1 - b), "exchanged"),
        (lambda x, n, a, b: b.sqrt() * x_0(x, n, a), "noise is missing"),
        (lambda x, n, a, b: right(x, n, a, b) * 1.1, "not those of formula"),
    ]:
        assert_advice(advice, checks.denoised_windows, wrong)


def added(value, views, weights, change):
    """A sum over views in which `change` says what comes in the place of what was there."""
    for weight, (rows, columns) in zip(weights, views, strict=True):
        value[..., rows, columns] = change(value[..., rows, columns], weight)
    return value


def test_overlaps_and_their_mistakes(joint):
    checks.weight_sum(joint.weight_sum, joint.window_views)

    def weight_sum(change):
        return lambda views, weights, h, w: added(torch.zeros(1, 1, h, w), views, weights, change)

    checks.weight_sum(weight_sum(lambda old, new: old + new), joint.window_views)
    for wrong, advice in [
        (lambda views, weights, h, w: None, "returns None: is a `return` missing"),
        (lambda views, weights, h, w: torch.zeros(1, 1, h, w), "still empty"),
        (lambda views, weights, h, w: torch.ones(h, w), "has the shape"),
        (weight_sum(lambda old, new: new), "last one alone"),
        (weight_sum(lambda old, new: old + 1), "weights: .= weight"),
        (weight_sum(lambda old, new: old + 2 * new), "not the sums"),
    ]:
        assert_advice(advice, checks.weight_sum, wrong, joint.window_views)


def test_the_average_and_its_mistakes(joint):
    checks.fusion(joint.fuse, joint.window_views)

    def fuse(change=lambda old, new: old + new, weigh=True, divide=lambda total, counts: total):
        def fused(windows, views, weights, total):
            counts = joint.weight_sum(views, torch.ones_like(weights), *total.shape[-2:])
            parts = weights * windows if weigh else windows
            value = added(torch.zeros(1, windows.shape[1], *total.shape[-2:]), views, parts, change)
            return value / divide(total, counts)

        return fused

    checks.fusion(fuse(), joint.window_views)
    for wrong, advice in [
        (lambda windows, views, weights, total: None, "returns None: is a `return` missing"),
        (lambda windows, views, weights, total: windows, "The panorama has the shape"),
        (
            lambda windows, views, weights, total: fuse()(0 * windows, views, weights, total),
            "Nothing has been added",
        ),
        (fuse(divide=lambda total, counts: 1), "not averaged"),
        (fuse(weigh=False), "not weighted"),
        (fuse(weigh=False, divide=lambda total, counts: counts), "count the same"),
        (fuse(divide=lambda total, counts: counts), "not by the number"),
        (fuse(change=lambda old, new: new), "last one alone"),
        (fuse(divide=lambda total, counts: total + 1), "not the weighted average"),
    ]:
        assert_advice(advice, checks.fusion, wrong, joint.window_views)


def test_the_anchor_and_its_mistakes(joint, joint_sd):
    checks.anchor_image(joint_sd)
    right = joint.predict_anchor

    def loose(self, window, noise, alpha_bar, scale):
        return self.decode_small(joint.predict_x0(window, noise, alpha_bar), scale)

    for wrong, advice in [
        (lambda self, x, n, a, scale: None, "returns None: is a `return` missing"),
        (lambda self, x, n, a, scale: [right(self, x, n, a, scale)], "a list"),
        (lambda self, x, n, a, scale: joint.predict_x0(x, n, a), "those are latents"),
        (lambda self, x, n, a, scale: right(self, x, n, a, 1), "`scale` makes no difference"),
        (lambda self, x, n, a, scale: self.decode_small(x, scale).detach(), "as it is now"),
        (lambda self, x, n, a, scale: right(self, x, -n, a, scale), "not the image of x_0"),
        (loose, "keep @torch.no_grad"),
    ]:
        assert_advice(advice, checks.anchor_image, changed(joint_sd, predict_anchor=wrong))


def test_the_descent_and_its_mistakes(joint, joint_sd):
    checks.descent(joint_sd)
    right = joint.descend

    def move(self, windows, to_images, anchor, factor):
        """`factor` times the gradient."""
        return (windows - right(self, windows, to_images, anchor, 1.0)) * factor

    for wrong, advice in [
        (lambda self, x, to_images, anchor, w: None, "returns None: is a `return` missing"),
        (lambda self, x, to_images, anchor, w: [x], "a list"),
        (lambda self, x, to_images, anchor, w: x[:1], "has the shape"),
        (lambda self, x, to_images, anchor, w: x, "as they were"),
        (lambda self, x, to_images, anchor, w: x + move(self, x, to_images, anchor, w), "Uphill"),
        (
            lambda self, x, to_images, anchor, w: x - move(self, x, to_images, anchor, 1024 * w),
            "still scaled up",
        ),
        (
            lambda self, x, to_images, anchor, w: x - move(self, x, to_images, anchor, w / 1024),
            "was not multiplied",
        ),
        (
            lambda self, x, to_images, anchor, w: x - move(self, x, to_images, anchor, w / 2),
            "not their mean",
        ),
        (
            lambda self, x, to_images, anchor, w: -move(self, x, to_images, anchor, w),
            "gradient alone",
        ),
        (
            lambda self, x, to_images, anchor, w: x - move(self, x, to_images, anchor, w).flip(-1),
            "do not move along",
        ),
        (
            lambda self, x, to_images, anchor, w: right(self, x, to_images, anchor, 1.0),
            "`weight` makes no difference",
        ),
        (
            lambda self, x, to_images, anchor, w: right(
                self, x, to_images, anchor, w
            ).requires_grad_(),
            "graph for gradients",
        ),
    ]:
        assert_advice(advice, checks.descent, changed(joint_sd, descend=wrong))


ATTEMPTS = {
    "2 (2) total": ("weight_sum", ("total[..., rows, columns] += weight", "total += weight")),
    "2 (2) axes": ("weight_sum", ("[..., rows, columns]", "[..., columns]")),
    "2 (2) order": ("weight_sum", ("[..., rows, columns]", "[..., columns, rows]")),
    "2 (3) =": ("fuse", ("+= weight.to(exact) * window", "= weight * window")),
    "2 (3) no [...]": ("fuse", ("value[..., rows, columns] +=", "value +=")),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_attempts_that_ended_in_a_bare_error(attempt):
    name, changes = ATTEMPTS[attempt]
    lesson = rewrite(JOINT, name, *changes)
    check = {
        "weight_sum": lambda function: checks.weight_sum(function, lesson.window_views),
        "fuse": lambda function: checks.fusion(function, lesson.window_views),
    }[name]
    advice = rf"^Your code raised \w+Error: (.|\n)*in line \d+ of `{name}`"
    assert_advice(advice, check, getattr(lesson, name))


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        (
            ("anchor.expand_as(images)", "anchor"),
            "raised ValueError: in0 and in1 must have one shape.*in line 8 of `descend`",
        ),
        (
            ("with torch.enable_grad():", "if True:"),
            r"does not require grad.*torch\.enable_grad\(\)",
        ),
        (
            ("windows.detach().requires_grad_()", "windows.detach()"),
            r"does not require grad.*requires_grad_",
        ),
        (
            ("to_images(inputs)", "to_images(windows)"),
            "does not require grad.*No gradient was recorded",
        ),
        (("to_images(inputs)", "to_images"), "raised .*in line"),
    ],
)
def test_descents_that_ended_in_a_bare_error(joint_sd, changes, advice):
    other = rewrite(JOINT, "descend", *changes)
    assert_advice(f"(?s){advice}", checks.descent, changed(joint_sd, descend=other.descend))
