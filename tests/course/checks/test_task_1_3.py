"""The checks of lesson 1.3: its solutions and others that are right pass, mistakes get advice."""

import textwrap

import pytest
import torch
from PIL import Image

from course.checks import task_1_3 as checks
from tests.course.checks.helpers import assert_advice, mistaken, rewritten


def written(lesson, signature, body):
    """Return a student's function with that body, which sees the names of the lesson."""
    namespace = dict(vars(lesson))
    exec(f"def {signature}:\n{textwrap.indent(textwrap.dedent(body), '    ')}", namespace)
    return namespace[signature.split("(")[0]]


# --- (a) Canny edges

EDGES = "canny_edges(image, low=100, high=200)"
SMOOTH = "smooth = cv2.GaussianBlur(np.array(image), (0, 0), 1.4)\n"
LINES = "lines = cv2.Canny(smooth, low, high)\n"
WRONG_EDGES = {
    "...": "is still empty, write the lines",
    SMOOTH + LINES + "np.stack([lines] * 3, axis=2) / 255": "returns None",
    SMOOTH + LINES + "return lines / 255": "one channel",
    SMOOTH + LINES + "return np.stack([lines] * 3) / 255": "channels are the last axis",
    SMOOTH + LINES + "return lines[..., None] / 255": r"the shape \(64, 64, 1\)",
    SMOOTH + LINES + "return np.stack([lines] * 3, axis=2)": "divide by 255",
    "lines = cv2.Canny(np.array(image), low, high)\nreturn np.stack([lines] * 3, 2) / 255": (
        "not smoothed"
    ),
    SMOOTH + LINES + "return 1 - np.stack([lines] * 3, axis=2) / 255": "Black edges on white",
    SMOOTH.replace("1.4", "3") + LINES + "return np.stack([lines] * 3, 2) / 255": "blur of 1.4",
    SMOOTH.replace("1.4", "1.4**2") + LINES + "return np.stack([lines] * 3, 2) / 255": (
        "blur of 1.4"
    ),
    SMOOTH + "lines = cv2.Canny(smooth, 100, 200)\nreturn np.stack([lines] * 3, 2) / 255": (
        "pass `low` and `high`"
    ),
    SMOOTH + "lines = cv2.Canny(smooth, low, 2 * low)\nreturn np.stack([lines] * 3, 2) / 255": (
        "pass `low` and `high`"
    ),
    SMOOTH + LINES + "return np.stack([lines] * 3, axis=2).astype(str)": "have to be numbers",
    SMOOTH + LINES + "return list(lines)": "has to be an array",
    SMOOTH + LINES + "return torch.from_numpy(lines)": "has to be an array",
    "smooth = cv2.GaussianBlur(image, (0, 0), 1.4)\n" + LINES + "return lines": (
        r"Your code raised error"
    ),
    SMOOTH.replace("np.array(image)", "np.array(image) / 255") + LINES + "return lines": (
        "Your code raised error"
    ),
}


@pytest.mark.parametrize("body", WRONG_EDGES)
def test_edges_that_are_wrong(control_lesson, photograph, body):
    assert_advice(WRONG_EDGES[body], checks.edges, written(control_lesson, EDGES, body), photograph)


@pytest.mark.parametrize(
    "body",
    [
        SMOOTH + LINES + "return (lines[..., None].repeat(3, axis=2) > 0).astype(np.float32)",
        SMOOTH + LINES + "return cv2.cvtColor(lines, cv2.COLOR_GRAY2RGB) / 255.0",
        SMOOTH.replace("np.array", "np.asarray") + LINES + "return np.dstack([lines] * 3) // 255",
        """
        smooth = cv2.GaussianBlur(np.array(image), (0, 0), 1.4)
        strong, weak = cv2.Canny(smooth, high, high), cv2.Canny(smooth, low, low)
        _, labels = cv2.connectedComponents(weak)
        kept = np.isin(labels, np.unique(labels[strong > 0]))
        return np.stack([kept] * 3, axis=2) * 1.0
        """,
    ],
)
def test_edges_that_are_right(control_lesson, photograph, body, capsys):
    checks.edges(written(control_lesson, EDGES, body), photograph)
    assert capsys.readouterr().out.startswith("✓")


def test_an_image_without_edges_is_no_exercise(control_lesson):
    black = Image.new("RGB", (64, 64))
    assert_advice("has no edges", checks.edges, control_lesson.canny_edges, black)


# --- (b) The condition

CONDITION = "to_condition(array)"
TENSOR = "tensor = torch.from_numpy(array)\n"
WRONG_CONDITIONS = {
    "...": "is still empty, write the lines",
    "return array": "is a ndarray",
    TENSOR + "return tensor.permute(2, 0, 1).to(model.dtype)": "batch is missing",
    TENSOR + "return tensor[None].to(model.dtype)": "channels come last",
    TENSOR + "return tensor.to(model.dtype)": "channels come last",
    TENSOR + "return tensor.permute(2, 1, 0)[None].to(model.dtype)": "Height and width",
    TENSOR + "return tensor.T[None].to(model.dtype)": "Height and width are exchanged",
    TENSOR + "return tensor.permute(2, 0, 1)[None].to(model.device)": "float64, and the model",
    TENSOR + "return (tensor.permute(2, 0, 1)[None] * 2 - 1).to(model.dtype)": "from -1 to 1",
    TENSOR + "return (tensor.permute(2, 0, 1)[None] / 255).to(model.dtype)": "divide by 255",
    TENSOR + "return tensor.permute(2, 0, 1)[None].to('meta', model.dtype)": "is on meta",
    TENSOR + "return tensor.reshape(1, 3, *array.shape[:2]).to(model.dtype)": "not those of the",
    TENSOR + "return tensor.flip(0).permute(2, 0, 1)[None].to(model.dtype)": "not those of the",
}


@pytest.mark.parametrize("body", WRONG_CONDITIONS)
def test_conditions_that_are_wrong(control_lesson, body):
    wrong = written(control_lesson, CONDITION, body)
    assert_advice(WRONG_CONDITIONS[body], checks.condition, wrong, control_lesson.model)


@pytest.mark.parametrize(
    "body",
    [
        "return torch.tensor(array.transpose(2, 0, 1)[None], dtype=model.dtype).to(model.device)",
        "return torch.as_tensor(array).to(model.dtype).movedim(-1, 0).unsqueeze(0)",
        "return torch.from_numpy(np.moveaxis(array, 2, 0).copy()).unsqueeze(0).float()",
    ],
)
def test_conditions_that_are_right(control_lesson, body):
    checks.condition(written(control_lesson, CONDITION, body), control_lesson.model)


# --- (c) Residuals

RESIDUALS = "control_residuals(controls, latents, t, embeddings)"
RIGHT_RESIDUALS = """
down, mid = None, None
for control in controls:
    condition = control.condition.expand(len(latents), -1, -1, -1)
    parts, middle = control.network(
        latents, t, encoder_hidden_states=embeddings, controlnet_cond=condition, return_dict=False
    )
    parts, middle = [control.scale * part for part in parts], control.scale * middle
    if down is not None:
        parts = [a + b for a, b in zip(down, parts)]
        middle = mid + middle
    down, mid = parts, middle
return down, mid
"""
WRONG_RESIDUALS = [
    ((RIGHT_RESIDUALS, "..."), "is still empty, write the lines"),
    (("return down, mid", "down, mid"), "returns None"),
    (("return down, mid", "return [*down, mid]"), "return down, mid"),
    (("return down, mid", "return down, None"), "`mid`.*is None"),
    (("return down, mid", "return ..., mid"), "`down`.*still empty"),
    (("return down, mid", "return down[0], mid"), "`down` is a Tensor"),
    (("return down, mid", "return down[1:], mid"), "residuals for .* skips"),
    (("return down, mid", "return down[::-1], mid"), "not those that its network returns"),
    (("[control.scale * part for part in parts]", "list(parts)"), "skips are not scaled"),
    (("control.scale * middle", "middle"), "middle is not scaled"),
    (
        ("[control.scale * part for part in parts], control.scale * middle", "parts, middle"),
        "scales make no difference",
    ),
    (("if down is not None", "if False"), "Only the last ControlNet"),
    (("in controls:", "in controls[:1]:"), "Only the first ControlNet"),
    (("a + b for", "(a + b) / 2 for", "mid + middle", "(mid + middle) / 2"), "a mean makes"),
    (("[a + b for a, b in zip(down, parts)]", "down + parts"), "lists were joined"),
    (("in controls:", "in controls[::-1]:", "control.scale", "controls[0].scale"), "scale of the"),
    (("control.scale", "controls[-1].scale"), "scale of the last"),
    (("control.condition", "controls[0].condition"), "another condition than that of its"),
    (("control.condition", "controls[-1].condition"), "another condition than that of its"),
    (("control.scale * part", "control.scale**2 * part"), "not the sum of scale times residual"),
    (
        ("return down, mid", "return (down or [], mid or 0) if not controls else (down, mid)"),
        "return None, None",
    ),
    ((".expand(len(latents), -1, -1, -1)", ".float().flatten(1)"), "Your code raised"),
    ((", return_dict=False", ""), "Your code raised|another condition|not those|is a str"),
]


@pytest.mark.parametrize(("changes", "advice"), WRONG_RESIDUALS)
def test_residuals_that_are_wrong(control_lesson, by_edges, changes, advice):
    body = replaced(RIGHT_RESIDUALS, changes)
    wrong = written(control_lesson, RESIDUALS, body)
    assert_advice(advice, checks.residuals, wrong, by_edges, *model_of(control_lesson))


@pytest.mark.parametrize(
    "body",
    [
        RIGHT_RESIDUALS,
        RIGHT_RESIDUALS.replace("[control.scale * part for part in parts]", "tuple(parts)")
        .replace("control.scale * middle", "middle")
        .replace("return_dict", "conditioning_scale=control.scale, return_dict"),
        """
        if len(controls) == 0:
            return None, None
        answers = []
        for one in controls:
            condition = one.condition.repeat(latents.shape[0], 1, 1, 1)
            output = one.network(latents, t, embeddings, condition)
            down, mid = output.down_block_res_samples, output.mid_block_res_sample
            answers.append([one.scale * part for part in (*down, mid)])
        *down, mid = [torch.stack(parts).sum(0) for parts in zip(*answers)]
        return tuple(down), mid
        """,
    ],
)
def test_residuals_that_are_right(control_lesson, by_edges, body):
    right = written(control_lesson, RESIDUALS, body)
    checks.residuals(right, by_edges, *model_of(control_lesson))


# --- (d) The guided output

OUTPUT = "guided_output(unet, latents, t, embeddings, controls, guidance_scale)"
RIGHT_OUTPUT = """
with torch.no_grad():
    both = torch.cat([latents, latents]).to(unet.dtype)
    down, mid = control_residuals(controls, both, t, embeddings)
    residuals = dict(down_block_additional_residuals=down, mid_block_additional_residual=mid)
    output = unet(both, t, encoder_hidden_states=embeddings, **residuals).sample.float()
    uncond, cond = output.chunk(2)
    return diffusion.guide(uncond, cond, guidance_scale)
"""
GUIDED = "diffusion.guide(uncond, cond, guidance_scale)"
MUTED = (
    "mask = torch.tensor({}).view(2, 1, 1, 1)\n"
    "    down, mid = [mask * part for part in down], mask * mid\n    residuals = "
)
WRONG_OUTPUTS = [
    ((RIGHT_OUTPUT, "..."), "is still empty, write the lines"),
    ((f"return {GUIDED}", GUIDED), "returns None"),
    (("output = unet", "return unet", ".sample.float()", ""), "Take the denoiser's .sample"),
    ((GUIDED, "output"), "cut the output in two"),
    ((", **residuals", ""), "does not reach the denoiser"),
    (("residuals = ", MUTED.format([0.0, 1.0])), "Only the output with the prompt"),
    (("residuals = ", MUTED.format([1.0, 0.0])), "Only the output without the prompt"),
    (("uncond, cond = output", "cond, uncond = output"), "two halves are exchanged"),
    ((GUIDED, "cond"), "unguided"),
    ((GUIDED, "cond + guidance_scale * (cond - uncond)"), "starts from `uncond`"),
    ((GUIDED, "uncond + 2 * (cond - uncond)"), "not the denoiser's output"),
    ((GUIDED, "diffusion.guide(uncond, cond, -guidance_scale)"), "not the denoiser's output"),
    ((", mid_block_additional_residual=mid", ""), "did not get mid_block_additional_residual"),
    (("down_block_additional_residuals=down, ", ""), "did not get down_block_additional_res"),
    (("both, t, encoder", "latents, t, encoder"), "Your code raised"),
    (
        ("controls, both, t, embeddings", "controls, latents, t, embeddings[:1]"),
        "not the denoiser's output",
    ),
    (("output.chunk(2)", "output.chunk(1)"), "Your code raised ValueError"),
    ((".sample.float()", ""), "Your code raised AttributeError"),
    (("control_residuals(controls, both", "control_residuals([], both"), "does not reach"),
    (("(controls, both, t,", "(controls, both, t - 100,"), "not the denoiser's output"),
]


@pytest.mark.parametrize(("changes", "advice"), WRONG_OUTPUTS)
def test_guided_outputs_that_are_wrong(control_lesson, by_edges, changes, advice):
    wrong = written(control_lesson, OUTPUT, replaced(RIGHT_OUTPUT, changes))
    assert_advice(advice, checks.controlled, wrong, by_edges, *model_of(control_lesson))


@pytest.mark.parametrize(
    "body",
    [
        RIGHT_OUTPUT,
        RIGHT_OUTPUT.replace(GUIDED, "uncond + guidance_scale * (cond - uncond)").replace(
            "torch.cat([latents, latents])", "latents.repeat(2, 1, 1, 1)"
        ),
        """
        outputs = []
        with torch.no_grad():
            for embedding in embeddings.split(1):
                one = latents.to(unet.dtype)
                down, mid = control_residuals(controls, one, t, embedding)
                outputs.append(unet(one, t, embedding, down_block_additional_residuals=down,
                                    mid_block_additional_residual=mid).sample.float())
        return outputs[0] + guidance_scale * (outputs[1] - outputs[0])
        """,
    ],
)
def test_guided_outputs_that_are_right(control_lesson, by_edges, body):
    right = written(control_lesson, OUTPUT, body)
    checks.controlled(right, by_edges, *model_of(control_lesson))


# --- (e) Windows, and the loop

ACTIVE = "active_controls(controls, i, count)"


@pytest.mark.parametrize(
    ("body", "advice"),
    [
        ("...", "is still empty, write the lines"),
        ("return tuple(controls)", "a tuple"),
        ("return controls", "In step 0 of 10"),
        ("return [c for c in controls if c.start <= i / count <= c.end]", "0 to 0.55 are active"),
        ("return [c for c in controls if c.start <= i / count < c.end]", "0 to 0.55 are active"),
        ("return [c for c in controls if (i + 1) / count <= c.end]", "In step 0 of 10"),
        ("return [c for c in controls if c.start <= i / count]", "In step 5 of 10"),
        (
            "return [c for c in controls if c.start <= i / count and (i + 1) / count < c.end]",
            "and not those from 0 to 1",
        ),
        (
            "return [c for c in controls if c.start < i / count and (i + 1) / count <= c.end]",
            "In step 0 of 10",
        ),
        ("return [c for c in controls if int(c.start * count) <= i < int(c.end * count)]", "of 4"),
    ],
)
def test_windows_that_are_wrong(control_lesson, by_edges, body, advice):
    assert_advice(advice, checks.active, written(control_lesson, ACTIVE, body), by_edges)


def test_windows_that_are_right(control_lesson, by_edges):
    checks.active(control_lesson.active_controls, by_edges)
    body = """
    chosen = []
    for control in controls:
        if i / count < control.start or (i + 1) / count > control.end:
            continue
        chosen.append(control)
    return chosen
    """
    checks.active(written(control_lesson, ACTIVE, body), by_edges)
    body = (
        "return list(filter(lambda c: c.start <= i / count < (i + 1) / count <= c.end, controls))"
    )
    checks.active(written(control_lesson, ACTIVE, body), by_edges)


def test_the_controlled_loop_and_what_breaks_it(control_lesson, by_edges, capsys):
    given = (by_edges, *model_of(control_lesson))
    checks.control_loop(control_lesson.sample, *given)
    assert "with one and with two" in capsys.readouterr().out
    for name, old, new, advice in [
        ("denoise", "active_controls(controls, i, count)", "controls", "With 2 ControlNets"),
        ("denoise", "active_controls(controls, i, count)", "[]", "With 1 ControlNet the latents"),
        ("control_residuals", "control.scale * part", "part", "With 2 ControlNets the latents"),
        ("sample", "prompt, negative_prompt)", "negative_prompt, prompt)", "With 1 ControlNet"),
        (
            "denoise",
            "latents, output, alpha_bar, kind",
            "latents, output, alpha_bar_prev, kind",
            "With 1 ControlNet the latents",
        ),
    ]:
        wrong = rewritten(control_lesson, name, old, new).sample
        assert_advice(advice, checks.control_loop, wrong, *given)


# --- (f) F1

F1 = "edge_f1(edges, expected, within=2)"
RIGHT_F1 = """
rows, columns = np.mgrid[-within : within + 1, -within : within + 1]
disc = (rows**2 + columns**2 <= within**2).astype(np.uint8)
edges, expected = edges[..., 0] > 0, expected[..., 0] > 0
near_edges = cv2.dilate(edges.astype(np.uint8), disc) > 0
near_expected = cv2.dilate(expected.astype(np.uint8), disc) > 0
if not (edges & near_expected).any():
    return 0.0
precision = near_expected[edges].mean()
recall = near_edges[expected].mean()
return float(2 * precision * recall / (precision + recall))
"""
SCORE = "float(2 * precision * recall / (precision + recall))"
WRONG_F1 = [
    ((RIGHT_F1, "..."), "is still empty, write the lines"),
    ((f"return {SCORE}", SCORE), "returns None"),
    ((SCORE, "float(precision)"), "That is the precision alone"),
    ((SCORE, "float(recall)"), "That is the recall alone"),
    ((SCORE, "float((precision + recall) / 2)"), "mean of precision and recall"),
    (
        (SCORE, "float(precision * recall / (precision + recall))"),
        "F1 is 1, and `edge_f1` returns 0.5",
    ),
    (
        ("near_expected[edges]", "expected[edges]", "near_edges[expected]", "edges[expected]"),
        "For lines 2 pixels from each other: .* not finite",
    ),
    (("rows**2 + columns**2 <= within**2", "rows == rows"), "is a disc"),
    (("if not (edges & near_expected).any()", "if False"), "not finite"),
    ((f"return {SCORE}", "return near_edges"), "one number"),
    (("within : within + 1", "2 : 3"), "and within=3 F1 is 1.*Use `within`"),
    (("<= within**2", "< within**2"), "at most `within` pixels"),
    (("return 0.0", "return 1.0"), "F1 is 0"),
    (("return 0.0", "return None"), "returns None"),
    ((SCORE, "float(max(precision, recall))"), "the larger one"),
    ((SCORE, "float(min(precision, recall))"), "the smaller one"),
]


@pytest.mark.parametrize(("changes", "advice"), WRONG_F1)
def test_f1_that_is_wrong(control_lesson, changes, advice):
    wrong = written(control_lesson, F1, replaced(RIGHT_F1, changes))
    assert_advice(advice, checks.edge_f1, wrong)


@pytest.mark.parametrize(
    "body",
    [
        RIGHT_F1,
        """
        from scipy.ndimage import distance_transform_edt
        a, b = edges.max(axis=2) > 0, expected.max(axis=2) > 0
        if not a.any() or not b.any():
            return 0
        to_a, to_b = distance_transform_edt(~a), distance_transform_edt(~b)
        p, r = (to_b[a] <= within).mean(), (to_a[b] <= within).mean()
        return 2 * p * r / (p + r) if p + r else 0
        """,
        """
        from course.metrics.control import edge_f1 as metric
        a, b = edges[..., 0], expected[..., 0]
        return metric(a, b, within) if a.any() and b.any() else 0.0
        """,
    ],
)
def test_f1_that_is_right(control_lesson, body):
    checks.edge_f1(written(control_lesson, F1, body))


# --- (g) The zero convolution

ZERO = "zero_convolution(channels)"
LAYER = "layer = nn.Conv2d(channels, channels, 1)\n"
WRONG_ZEROS = {
    "...": "is still empty, write the lines",
    LAYER + "return layer.weight": "That is a Parameter",
    LAYER + "return layer": "weights are not zero",
    LAYER + "nn.init.zeros_(layer.weight)\nreturn layer": "bias is not zero",
    LAYER + "nn.init.zeros_(layer.bias)\nreturn layer": "weights are not zero",
    LAYER.replace("1)", "3)") + "return layer": r"window is \(3, 3\)",
    LAYER.replace("channels, 1", "1, 1") + "return layer": "makes 1 channels of 6",
    LAYER.replace("1)", "1, bias=False)") + "nn.init.zeros_(layer.weight)\nreturn layer": (
        "bias is missing"
    ),
    LAYER + "[nn.init.zeros_(p) for p in layer.parameters()]\n"
    "return layer.requires_grad_(False)": "cannot learn",
    "return nn.Linear(channels, channels)": "That is a Linear",
}


@pytest.mark.parametrize("body", WRONG_ZEROS)
def test_zero_convolutions_that_are_wrong(control_lesson, body):
    wrong = written(control_lesson, ZERO, body)
    assert_advice(WRONG_ZEROS[body], checks.zero_convolution, wrong)


def test_zero_convolutions_that_are_right(control_lesson):
    checks.zero_convolution(control_lesson.zero_convolution)
    body = LAYER + "for p in layer.parameters():\n    nn.init.constant_(p, 0.0)\nreturn layer"
    checks.zero_convolution(written(control_lesson, ZERO, body))
    body = LAYER + "layer.weight.data.zero_()\nlayer.bias.data *= 0\nreturn layer"
    checks.zero_convolution(written(control_lesson, ZERO, body))


# --- (h) The loss

LOSS = "control_loss(network, latents, condition, embeddings, t, noise)"
RIGHT_LOSS = """
a = pipe.scheduler.alphas_cumprod.to(latents.device)[t].view(-1, 1, 1, 1)
target = noise
if model.prediction_type == "v_prediction":
    target = diffusion.velocity(latents, noise, a)
x_t = diffusion.add_noise(latents, noise, a)
down, mid = control_residuals([Control(network, condition)], x_t, t, embeddings)
residuals = dict(down_block_additional_residuals=down, mid_block_additional_residual=mid)
output = pipe.unet(x_t, t, encoder_hidden_states=embeddings, **residuals).sample
return F.mse_loss(output.float(), target)
"""
MSE = "F.mse_loss(output.float(), target)"
MIX = "diffusion.add_noise(latents, noise, a)"
WRONG_LOSSES = [
    ((RIGHT_LOSS, "..."), "is still empty, write the lines"),
    ((f"return {MSE}", MSE), "returns None"),
    ((MSE, "(output.float() - target) ** 2"), "one number"),
    ((MSE, f"{MSE}.item()"), "is a float"),
    ((MSE, f"{MSE}.detach()"), "No gradient"),
    (("output = pipe", "with torch.no_grad(): output = pipe"), "No gradient"),
    ((f"x_t = {MIX}", "x_t = latents"), "clean latents"),
    ((f"x_t = {MIX}", "x_t = noise"), "the noise alone"),
    ((f"x_t = {MIX}", "x_t = a * latents + (1 - a) * noise"), "square roots are missing"),
    ((MIX, "diffusion.add_noise(noise, latents, a)"), "are exchanged in x_t"),
    (("output.float(), target", "output.float(), latents"), "not the clean image"),
    (("F.mse_loss", "F.l1_loss"), "absolute differences"),
    ((MSE, "((output.float() - target) ** 2).sum()"), "sum of the squares"),
    ((MSE, "((output.float() - target) ** 2).sum() / len(latents)"), "number of all values"),
    ((MSE, f"{MSE}.sqrt()"), "root of the mean square"),
    ((MSE, f"2 * {MSE}"), "not the mean square"),
    ((", **residuals", ""), "has no effect"),
    (('if model.prediction_type == "v_prediction"', "if False"), "predicts v_prediction"),
    (('if model.prediction_type == "v_prediction"', "if True"), "predicts epsilon"),
    ((".view(-1, 1, 1, 1)", ""), "Your code raised"),
    (("Control(network, condition)", "Control(network, condition, scale=0.0)"), "has no effect"),
    (("[t]", "[t[:1]]"), "not the mean square"),
]


@pytest.mark.parametrize(("changes", "advice"), WRONG_LOSSES)
def test_losses_that_are_wrong(control_lesson, by_edges, changes, advice):
    wrong = written(control_lesson, LOSS, replaced(RIGHT_LOSS, changes))
    before = control_lesson.model.prediction_type
    assert_advice(advice, checks.control_loss, wrong, by_edges, *model_of(control_lesson))
    assert control_lesson.model.prediction_type == before


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    "changes",
    [
        (),
        (MSE, "(output.float() - target).square().mean()"),
        (MSE, "torch.mean((target.float() - output) ** 2)"),
        (MIX, "a.sqrt() * latents + (1 - a).sqrt() * noise"),
    ],
)
def test_losses_that_are_right(control_lesson, by_edges, kind, changes, monkeypatch):
    monkeypatch.setitem(vars(control_lesson.model), "prediction_type", kind)
    right = written(control_lesson, LOSS, replaced(RIGHT_LOSS, changes))
    checks.control_loss(right, by_edges, *model_of(control_lesson))
    checks.control_loss(control_lesson.control_loss, by_edges, *model_of(control_lesson))


def test_the_line_of_an_error_is_named(control_lesson, by_edges):
    wrong = mistaken(control_lesson, "guided_output", "output.chunk(2)", "output.chunk(1)")
    advice = r"^Your code raised \w+: (.|\n)*in line \d+ of `guided_output`"
    assert_advice(advice, checks.controlled, wrong, by_edges, *model_of(control_lesson))


def replaced(body: str, changes: tuple[str, ...]) -> str:
    """Return a body with changes: old, new, old, new, ..."""
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in body, old
        body = body.replace(old, new)
    return body


def model_of(lesson):
    return lesson.pipe, lesson.model


def test_the_solutions_of_the_lesson_pass(control_lesson, photograph, by_edges):
    given = (by_edges, *model_of(control_lesson))
    checks.edges(control_lesson.canny_edges, photograph)
    checks.condition(control_lesson.to_condition, control_lesson.model)
    checks.residuals(control_lesson.control_residuals, *given)
    checks.controlled(control_lesson.guided_output, *given)
    checks.edge_f1(control_lesson.edge_f1)
    checks.control_loss(control_lesson.control_loss, *given)
    assert torch.is_grad_enabled()
