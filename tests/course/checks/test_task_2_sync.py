"""The checks of lesson 2: anchor, descent, synchronization, shortcut and ring."""

import pytest
import torch
import torch.nn.functional as F

from course.checks import task_2 as checks
from tests.course.checks.helpers import JOINT, assert_advice, changed, rewrite


def with_change(sd, name, *changes):
    """`sd` with changes in the text of its method `name`."""
    return changed(sd, **{name: getattr(rewrite(JOINT, name, *changes), name)})


# --- 2.2 (4), (5): anchor and descent


def test_the_anchor_and_its_mistakes(joint, joint_sd):
    checks.anchor_image(joint_sd)
    right = joint.predict_anchor

    def loose(self, window, noise, alpha_bar, scale):
        return self.decode_small(joint.predict_x0(window, noise, alpha_bar), scale)

    def by_formula(self, x, n, a, scale):
        return self.decode_small((x - (1 - a) ** 0.5 * n) / a**0.5, scale).detach()

    checks.anchor_image(changed(joint_sd, predict_anchor=by_formula))
    for wrong, advice in [
        (lambda self, x, n, a, scale: None, "returns None: is a `return` missing"),
        (lambda self, x, n, a, scale: [right(self, x, n, a, scale)], "a list"),
        (lambda self, x, n, a, scale: joint.predict_x0(x, n, a), "those are latents"),
        (lambda self, x, n, a, scale: right(self, x, n, a, scale)[0], "has to be .1, 3, H, W"),
        (lambda self, x, n, a, scale: right(self, x, n, a, 1), "`scale` makes no difference"),
        (lambda self, x, n, a, scale: self.decode_small(x, scale).detach(), "as it is now"),
        (lambda self, x, n, a, scale: right(self, x, -n, a, scale), "not the image of x_0"),
        (lambda self, x, n, a, scale: right(self, x, n, 1 - a, scale), "not the image of x_0"),
        (lambda self, x, n, a, scale: self.decode_small(n, scale).detach(), "not the image of x_0"),
        (lambda self, x, n, a, scale: joint.predict_x0(x, n), "raised TypeError"),
        (loose, "keep @torch.no_grad"),
    ]:
        assert_advice(advice, checks.anchor_image, changed(joint_sd, predict_anchor=wrong))


def by_backward(self, windows, to_images, anchor, weight):
    """Without a scale, each window by itself, its gradient by `backward`."""
    moved = []
    for window in windows.detach().split(1):
        with torch.enable_grad():
            window.requires_grad_()
            self.distance(to_images(window), anchor).mean().backward()
        moved.append((window - weight * window.grad).detach())
    return torch.cat(moved)


def test_right_descents_pass(joint_sd):
    checks.descent(joint_sd)
    checks.descent(changed(joint_sd, descend=by_backward))

    def by_vector(self, windows, to_images, anchor, weight):
        """The gradient of all distances at once, by a vector of ones."""
        with torch.enable_grad():
            inputs = windows.clone().requires_grad_(True)
            distances = self.distance(to_images(inputs), anchor.repeat(len(windows), 1, 1, 1))
            (gradient,) = torch.autograd.grad(distances, inputs, torch.ones_like(distances))
        return windows.sub(gradient, alpha=weight)

    checks.descent(changed(joint_sd, descend=by_vector))


def test_wrong_descents(joint, joint_sd):
    right = joint.descend

    def move(self, windows, to_images, anchor, factor):
        """`factor` times the gradient."""
        return (windows - right(self, windows, to_images, anchor, 1.0)) * factor

    for wrong, advice in [
        (lambda self, x, f, anchor, w: None, "returns None: is a `return` missing"),
        (lambda self, x, f, anchor, w: [x], "a list"),
        (lambda self, x, f, anchor, w: x[:1], "has the shape"),
        (lambda self, x, f, anchor, w: x, "as they were"),
        (lambda self, x, f, anchor, w: x + move(self, x, f, anchor, w), "Uphill"),
        (lambda self, x, f, anchor, w: x - move(self, x, f, anchor, 1024 * w), "still scaled up"),
        (lambda self, x, f, anchor, w: x - move(self, x, f, anchor, w / 1024), "was not multi"),
        (lambda self, x, f, anchor, w: x - move(self, x, f, anchor, w / 2), "not their mean"),
        (lambda self, x, f, anchor, w: -move(self, x, f, anchor, w), "gradient alone: return"),
        (lambda self, x, f, anchor, w: move(self, x, f, anchor, w), "gradient alone: return"),
        (lambda self, x, f, anchor, w: x - move(self, x, f, anchor, w).flip(-1), "do not move a"),
        (lambda self, x, f, anchor, w: right(self, x, f, anchor, 1.0), "`weight` makes no"),
        (lambda self, x, *rest: right(self, x, *rest).requires_grad_(), "graph for gradients"),
    ]:
        assert_advice(advice, checks.descent, changed(joint_sd, descend=wrong))


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
        ((".sum()", ""), "raised RuntimeError.*in line"),
    ],
)
def test_descents_that_ended_in_a_bare_error(joint_sd, changes, advice):
    assert_advice(f"(?s){advice}", checks.descent, with_change(joint_sd, "descend", *changes))


# --- 2.2 (e): synchronize


def one_by_one(self, windows, predict, alpha_bar, weight, scale):
    """Without `descend_windows`: a loop over windows, as in the paper's pseudocode."""
    middle = len(windows) // 2
    parts = [slice(i, i + 1) for i in range(len(windows))]

    def image(window, part):
        noise = predict(window, part)
        x_0 = (window - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()
        return self.decode_small(x_0, scale)

    anchor = image(windows[parts[middle]], parts[middle]).detach()
    moved = [
        self.descend(windows[part], lambda x, part=part: image(x, part), anchor, weight)
        for part in parts
    ]
    return torch.cat(moved)


def test_right_synchronizations_pass(joint_sd):
    checks.synchronization(joint_sd)
    checks.synchronization(changed(joint_sd, synchronize=one_by_one))

    def all_at_once(self, windows, predict, alpha_bar, weight, scale):
        """All windows in one batch; the anchor's own gradient is zero."""
        image = lambda x: self.decode_small(
            (x - (1 - alpha_bar) ** 0.5 * predict(x)) / alpha_bar**0.5, scale
        )
        middle = len(windows) // 2
        anchor = image(windows).detach()[middle : middle + 1]
        return self.descend(windows, image, anchor, weight)

    checks.synchronization(changed(joint_sd, synchronize=all_at_once))


SYNC = [
    (("return self.descend_windows(windows, to_images, anchor, weight)", "pass"), "returns None"),
    (
        ("return self.descend_windows(windows, to_images, anchor, weight)", "return windows"),
        "as they were",
    ),
    (("anchor, weight)", "anchor, weight), noise"), "moved windows alone"),
    (("return self.descend_windows(", "return 2 * windows - self.descend_windows("), "Uphill"),
    (("slice(middle, middle + 1)", "slice(0, 1)"), "first window is the anchor"),
    (("slice(middle, middle + 1)", "slice(2, 3)"), "last window is the anchor"),
    (("windows[part], noise,", "windows[part], 0 * noise,"), "do not move as in formula"),
    (
        ("noise = predict(windows[part], part)", "noise = predict(windows[part])"),
        "1 windows for 3 prompts",
    ),
    (("predict(inputs, part), alpha_bar", "predict(inputs), alpha_bar"), "say which windows"),
    (
        ("predict(inputs, part), alpha_bar", "predict(inputs.detach(), part), alpha_bar"),
        "through the denoiser",
    ),
    (
        ("x_0 = predict_x0(inputs, predict(inputs, part), alpha_bar)", "x_0 = inputs"),
        "The windows are compared as they are now",
    ),
    (
        (
            "self.predict_anchor(windows[part], noise, alpha_bar, scale)",
            "self.decode_small(windows[part], scale)",
        ),
        "The anchor is compared as it is now",
    ),
    (
        ("return self.decode_small(x_0, scale)", "return self.decode_small(x_0.detach(), scale)"),
        "does not require grad",
    ),
    (
        ("return self.decode_small(x_0, scale)", "return self.decode_small(x_0, 1)"),
        "raised RuntimeError: The expanded size",
    ),
    (
        ("middle = len(windows) // 2", "scale, middle = 1, len(windows) // 2"),
        "`scale` makes no difference",
    ),
    (("anchor, weight)", "anchor, 1.0)"), "`weight` makes no difference"),
    (("def to_images(inputs, part):", "def to_images(inputs):"), "raised TypeError"),
    (
        (
            "predict_x0(inputs, predict(inputs, part), alpha_bar)",
            "predict_x0(predict(inputs, part), inputs, alpha_bar)",
        ),
        "do not move as in formula",
    ),
]


@pytest.mark.parametrize(("changes", "advice"), SYNC)
def test_wrong_synchronizations(joint_sd, changes, advice):
    assert_advice(advice, checks.synchronization, with_change(joint_sd, "synchronize", *changes))


# --- 2.2 (h): the shortcut


def test_right_short_cuts_pass(joint, joint_sd):
    checks.short_cut(joint_sd)

    def by_noise(self, windows, noise, alpha_bar, weight, scale):
        """Add the same noise to the moved x_0, and move by a norm."""
        middle = len(windows) // 2
        x_0 = joint.predict_x0(windows, noise, alpha_bar)
        anchor = self.decode_small(x_0[middle : middle + 1], scale).detach()
        to_images = lambda inputs: self.decode_small(inputs, scale)
        step = self.descend(x_0, to_images, anchor, 50.0) - x_0
        step = weight * x_0[0].numel() ** 0.5 * F.normalize(step.flatten(1), dim=1).view_as(x_0)
        step[middle] = 0
        return alpha_bar.sqrt() * (x_0 + step) + (1 - alpha_bar).sqrt() * noise

    checks.short_cut(changed(joint_sd, synchronize_x0=by_noise))

    def each_window(self, windows, noise, alpha_bar, weight, scale):
        """A loop over windows, with a root mean square from the standard deviation."""
        x_0 = (windows - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()
        anchor = self.decode_small(x_0, scale).detach()[len(windows) // 2][None]
        result = windows.clone()
        for i in range(len(windows)):
            if i != len(windows) // 2:
                image = lambda own: self.decode_small(own, scale)
                step = self.descend(x_0[i : i + 1], image, anchor, 7.0) - x_0[i : i + 1]
                rms = (step.var(correction=0) + step.mean() ** 2) ** 0.5
                result[i] += (alpha_bar.sqrt() * weight / rms * step)[0]
        return result

    checks.short_cut(changed(joint_sd, synchronize_x0=each_window))


SHORT = [
    (("return windows + alpha", "alpha_bar + alpha"), "returns None"),
    (("return windows + alpha_bar.sqrt() * weight * move / rms", "return windows"), "as they were"),
    (("return windows + alpha_bar.sqrt() *", "return windows - alpha_bar.sqrt() *"), "Uphill"),
    (("return windows + alpha_bar.sqrt() *", "return windows +"), "is added whole"),
    (("return windows + alpha_bar.sqrt() *", "return windows + alpha_bar *"), "take its root"),
    (("return windows + alpha_bar.sqrt() *", "return x_0 +"), "That is x_0, moved"),
    (("weight * move / rms", "weight * move"), "not rescaled"),
    (("weight * move / rms", "move / rms"), "`weight` makes no difference"),
    (("weight * move / rms", "0.5 * move / rms"), "`weight` makes no difference"),
    (
        ("move.square().mean(dim=(1, 2, 3), keepdim=True)", "move.square().mean()"),
        "of all windows together",
    ),
    ((".mean(dim=(1, 2, 3)", ".sum(dim=(1, 2, 3)"), "the norm, not the root mean square"),
    ((".clamp_min(1e-12)", ""), "not finite"),
    (("slice(len(windows) // 2, len(windows) // 2 + 1)", "slice(0, 1)"), "do not move along"),
    (("descend_windows(x_0,", "descend_windows(windows,"), "do not move along"),
    (("anchor, 1e3) - x_0", "anchor, 1e3)"), "do not move along"),
    (("keepdim=True)", "keepdim=False)"), "raised RuntimeError"),
    (("lambda inputs, part:", "lambda inputs:"), "raised TypeError"),
]


@pytest.mark.parametrize(("changes", "advice"), SHORT)
def test_wrong_short_cuts(joint_sd, changes, advice):
    assert_advice(advice, checks.short_cut, with_change(joint_sd, "synchronize_x0", *changes))


# --- 2 (i): a ring


def test_right_convolutions_pass(joint, joint_sd):
    checks.ring_convolution(joint.ring_convolution, joint_sd)

    def by_concatenation(layer, x):
        rows, columns = layer.padding
        if columns:
            x = torch.cat([x[..., -columns:], x, x[..., :columns]], dim=-1)
        x = F.pad(x, (0, 0, rows, rows))
        return F.conv2d(x, layer.weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups)

    checks.ring_convolution(by_concatenation, joint_sd)

    def by_index(layer, x):
        rows, columns = layer.padding
        around = torch.arange(-columns, x.shape[-1] + columns) % x.shape[-1]
        options = layer.stride, (rows, 0), layer.dilation, layer.groups
        return torch.conv2d(x[..., around], layer.weight, layer.bias, *options)

    checks.ring_convolution(by_index, joint_sd)


RING = [
    (("return F.conv2d(", "F.conv2d("), "returns None"),
    (("(columns, columns, 0, 0)", "(0, 0, 0, 0)"), "has the shape"),
    (('mode="circular"', 'mode="replicate"'), "edge is repeated"),
    (('mode="circular"', 'mode="constant"'), "with zeros beyond the edges"),
    (("(columns, columns, 0, 0)", "(columns, columns, rows, rows)"), "has the shape"),
    (("(columns, columns, 0, 0)", "(0, 0, columns, columns)"), "has the shape"),
    (("(rows, 0)", "(rows, columns)"), "has the shape"),
    (("(rows, 0)", "rows"), "has the shape"),
    (("layer.bias,", "None,"), "bias is missing"),
    (("layer.stride,", "1,"), "layer.stride` makes no difference"),
    (("rows, columns = layer.padding", "rows, columns = 1, 1"), "1 x 1 kernel"),
    (("layer.weight,", "layer.weight.mT,"), "not the convolution of a ring"),
    (("return F.conv2d(\n        x,", "return F.conv2d(\n        x.mT,"), "has the shape|in line"),
]


@pytest.mark.parametrize(("changes", "advice"), RING)
def test_wrong_convolutions(joint_sd, changes, advice):
    wrong = rewrite(JOINT, "ring_convolution", *changes).ring_convolution
    assert_advice(advice, checks.ring_convolution, wrong, joint_sd)


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (lambda self, latents: None, "returns None"),
        (lambda self, latents: latents, "has the shape"),
        (lambda self, latents: self.decode_latents(latents), "decodes as before"),
        (
            lambda self, latents: self.decode_latents(
                F.pad(latents, (1, 1, 0, 0), mode="circular")
            )[..., 8:-8],
            "is not the turned image",
        ),
    ],
)
def test_wrong_closed_decoders(joint, joint_sd, wrong, advice):
    other = changed(joint_sd, decode_closed=wrong)
    assert_advice(advice, checks.ring_convolution, joint.ring_convolution, other)
