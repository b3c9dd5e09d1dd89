"""The checks of lesson 1.3: its own solutions pass, and one mistake each gets its advice."""

import pytest
from PIL import Image

from course.checks import task_1_3 as checks
from tests.course.checks.helpers import (
    assert_advice,
    mistaken,
    rewritten,
)


def test_edges_and_their_mistakes(control_lesson, photograph, capsys):
    checks.edges(control_lesson.canny_edges, photograph)
    assert capsys.readouterr().out.startswith("✓")
    for changes, advice in [
        (("return np.stack", "np.stack"), "returns None"),
        (("np.stack([edges] * 3, axis=2) / 255", "edges / 255"), "one channel"),
        (("axis=2", "axis=0"), "channels are the last axis"),
        ((" / 255", ""), "divide by 255"),
        (("cv2.Canny(smooth, ", "cv2.Canny(array, "), "not smoothed"),
        (
            ("np.stack([edges] * 3, axis=2) / 255", "1 - np.stack([edges] * 3, axis=2) / 255"),
            "Black edges on white",
        ),
        (("1.4", "3"), "not Canny's edges"),
        (("low, high)  #", "100, 200)  #"), "hand `low` and `high` on"),
        (("low, high)  #", "low, 200)  #"), "hand `low` and `high` on"),
        (
            ("return np.stack([edges] * 3, axis=2) / 255", "return list(edges)"),
            "has to be an array",
        ),
    ]:
        assert_advice(
            advice, checks.edges, mistaken(control_lesson, "canny_edges", *changes), photograph
        )
    assert_advice(
        "has no edges", checks.edges, control_lesson.canny_edges, Image.new("RGB", (64, 64))
    )


def test_condition_and_its_mistakes(control_lesson):
    model = control_lesson.model
    checks.condition(control_lesson.to_condition, model)
    for changes, advice in [
        (("return ", ""), "returns None"),
        (
            (
                "return torch.from_numpy(image).permute(2, 0, 1)[None]"
                ".to(model.device, model.dtype)",
                "return image",
            ),
            "ndarray",
        ),
        (("[None]", ""), "batch is missing"),
        ((".permute(2, 0, 1)", ""), "channels come last"),
        ((".permute(2, 0, 1)[None]", ""), "channels come last"),
        (("(2, 0, 1)", "(2, 1, 0)"), "Height and width are exchanged"),
        ((".to(model.device, model.dtype)", ".to(model.device)"), r"float64, and the model"),
        (("from_numpy(image)", "from_numpy(image * 2 - 1)"), "from -1 to 1"),
        (("from_numpy(image)", "from_numpy(image / 255)"), "do not divide by 255"),
        (("from_numpy(image)", "from_numpy(image[::-1].copy())"), "not those of the array"),
        (("permute(2, 0, 1)[None]", "reshape(1, 3, *image.shape[:2])"), "not those of the array"),
    ]:
        assert_advice(
            advice, checks.condition, mistaken(control_lesson, "to_condition", *changes), model
        )
    elsewhere = mistaken(control_lesson, "to_condition", "model.device", '"meta"')
    assert_advice("is on meta", checks.condition, elsewhere, model)


def test_residuals_and_their_mistakes(control_lesson, by_edges):
    given = (by_edges, control_lesson.pipe, control_lesson.model)
    checks.residuals(control_lesson.control_residuals, *given)
    scaled = "each.scale * part for part in (*down, mid)"
    for changes, advice in [
        (("    *down, mid = (sum", "    down, mid = ..., ...\n    (sum"), "`down`.*still empty"),
        (("return down, mid", "return [*down, mid]"), "return down, mid"),
        (("return down, mid", "return down, None"), "`mid`.*is None"),
        (("return down, mid", "return down[0], mid"), "`down` is a Tensor"),
        (("return down, mid", "return down[1:], mid"), "residuals for .* skips"),
        (("return down, mid", "return down[::-1], mid"), "not those that its network returns"),
        (("each.scale * part", "part"), "scales make no difference"),
        ((scaled, "*down, each.scale * mid"), "residuals of the skips are not scaled"),
        (
            (scaled, "*(each.scale * part for part in down), mid"),
            "residual of the middle is not scaled",
        ),
        (
            (
                "answers.append([each.scale * part for part in (*down, mid)])",
                "answers = [[each.scale * part for part in (*down, mid)]]",
            ),
            "Only the last ControlNet",
        ),
        (("for each in controls", "for each in controls[:1]"), "Only the first ControlNet"),
        (("sum(parts) for", "sum(parts) / len(parts) for"), "a mean makes"),
        (("each.scale * part", "each.scale**2 * part"), "not the sum of scale times residual"),
        (("return None, None", "return [], 0"), "return None, None"),
    ]:
        assert_advice(
            advice,
            checks.residuals,
            mistaken(control_lesson, "control_residuals", *changes),
            *given,
        )


def test_the_controlled_answer_and_its_mistakes(control_lesson, by_edges):
    given = (by_edges, control_lesson.pipe, control_lesson.model)
    checks.controlled(control_lesson.guided_output, *given)
    w = "diffusion.guide(uncond, cond, guidance_scale)"
    muted = (
        "mask = torch.tensor({}).view(2, 1, 1, 1)\n"
        "    down, mid = [mask * part for part in down], mask * mid\n    "
    )
    for changes, advice in [
        ((f"return {w}", w), "still empty"),
        (("output = unet", "return unet", ".sample.float()", ""), "Take the denoiser's .sample"),
        ((w, "output"), "cut the output in two"),
        ((", **residuals", ""), "does not reach the denoiser"),
        (
            ("residuals = {", muted.format([0.0, 1.0]) + "residuals = {"),
            "Only the output with the prompt",
        ),
        (
            ("residuals = {", muted.format([1.0, 0.0]) + "residuals = {"),
            "Only the output without the prompt",
        ),
        (("uncond, cond = output", "cond, uncond = output"), "two halves are exchanged"),
        ((w, "cond"), "unguided"),
        ((w, "cond + guidance_scale * (cond - uncond)"), "starts from `uncond`"),
        ((w, "uncond + 2 * (cond - uncond)"), "not the denoiser's output"),
    ]:
        assert_advice(
            advice, checks.controlled, mistaken(control_lesson, "guided_output", *changes), *given
        )


def test_active_controls_and_their_mistakes(control_lesson, by_edges):
    checks.active(control_lesson.active_controls, by_edges)
    for changes, advice in [
        (("return ", ""), "returns None"),
        (
            (
                "return [each for each in controls",
                "return tuple(each for each in controls",
                "each.end]",
                "each.end)",
            ),
            "a tuple",
        ),
        (("(i + 1) / count", "i / count"), "In step 5 of 10.*0 to 1, 0 to 0.55 are active"),
        (("(i + 1) / count <= each.end", "i / count < each.end"), "In step 5 of 10"),
        (("each.start <= i / count and ", ""), "In step 0 of 10"),
        ((" if each.start <= i / count and (i + 1) / count <= each.end", ""), "In step 0 of 10"),
        (("(i + 1) / count <=", "(i + 1) / count <"), "and not those from 0 to 1"),
    ]:
        assert_advice(
            advice, checks.active, mistaken(control_lesson, "active_controls", *changes), by_edges
        )


def test_the_controlled_loop_and_what_breaks_it(control_lesson, by_edges, capsys):
    given = (by_edges, control_lesson.pipe, control_lesson.model)
    checks.control_loop(control_lesson.sample, *given)
    assert "with one and with two" in capsys.readouterr().out
    for name, old, new, advice in [
        (
            "denoise",
            "active_controls(controls, i, count)",
            "controls",
            "With 2 ControlNets the latents",
        ),
        ("denoise", "active_controls(controls, i, count)", "[]", "With 1 ControlNet the latents"),
        ("control_residuals", "each.scale * part", "part", "With 2 ControlNets the latents"),
        ("embed", "[uncond, cond]", "[cond, uncond]", "With 1 ControlNet the latents"),
    ]:
        assert_advice(
            advice, checks.control_loop, rewritten(control_lesson, name, old, new).sample, *given
        )


def test_zero_convolution_and_its_mistakes(control_lesson):
    checks.zero_convolution(control_lesson.zero_convolution)
    for changes, advice in [
        (("return layer", "layer"), "returns None"),
        (("return layer", "return layer.weight"), "That is a Parameter"),
        (("kernel_size=1", "kernel_size=3"), r"window is \(3, 3\)"),
        (("channels, channels, kernel", "channels, 1, kernel"), "makes 1 channels of 6"),
        (("nn.init.zeros_(layer.weight)", ""), "weights are not zero"),
        (("nn.init.zeros_(layer.bias)", ""), "bias is not zero"),
        (
            ("kernel_size=1)", "kernel_size=1, bias=False)", "nn.init.zeros_(layer.bias)", ""),
            "bias is missing",
        ),
        (("return layer", "return layer.requires_grad_(False)"), "cannot learn"),
    ]:
        assert_advice(
            advice, checks.zero_convolution, mistaken(control_lesson, "zero_convolution", *changes)
        )


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_loss_of_training_and_its_mistakes(control_lesson, by_edges, kind, monkeypatch):
    monkeypatch.setitem(vars(control_lesson.model), "prediction_type", kind)
    given = (by_edges, control_lesson.pipe, control_lesson.model)
    checks.control_loss(control_lesson.control_loss, *given)
    other = "noise" if kind == "v_prediction" else "v"
    mixed = "diffusion.add_noise(latents, noise, alpha_bar)"
    for changes, advice in [
        (("return F.mse_loss", "F.mse_loss"), "returns None"),
        (("F.mse_loss(output.float(), target)", "(output.float() - target) ** 2"), "one number"),
        (
            (
                "return F.mse_loss(output.float(), target)",
                "return F.mse_loss(output.float(), target).detach()",
            ),
            "No gradient",
        ),
        (
            (
                ", **residuals",
                ", **{k: v * 0 if k[0] == 'm' else [p * 0 for p in v] "
                "for k, v in residuals.items()}",
            ),
            "has no effect",
        ),
        ((f"x_t = {mixed}", "x_t = latents"), "clean latents"),
        (("output.float(), target", "output.float(), latents"), "not the clean image"),
        (("output.float(), target", f"output.float(), {other}"), f"predicts {kind}"),
        (("F.mse_loss(output", "F.l1_loss(output"), "not the mean square"),
    ]:
        assert_advice(
            advice, checks.control_loss, mistaken(control_lesson, "control_loss", *changes), *given
        )


@pytest.mark.parametrize(
    "changes",
    [
        (', "mid_block_additional_residual": mid', ""),
        ("both, t, encoder", "latents, t, encoder"),
        ("controls, both, t, embeddings", "controls, latents, t, embeddings[0]"),
        ("output.chunk(2)", "output.chunk(1)"),
        (".sample.float()", ""),
    ],
)
def test_controlled_answers_that_ended_in_a_bare_error(control_lesson, by_edges, changes):
    wrong = mistaken(control_lesson, "guided_output", *changes)
    given = (by_edges, control_lesson.pipe, control_lesson.model)
    assert_advice(
        r"^Your code raised \w+: (.|\n)*in line \d+ of `guided_output`",
        checks.controlled,
        wrong,
        *given,
    )
