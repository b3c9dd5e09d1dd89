"""Answers to lesson 1.3: windows, F1, and training a ControlNet."""

from tests.grading.mutants import changed, rewritten

E, F = "1.3 (e)", "1.3 (f)"
G, H = "1.3 (g)", "1.3 (h)"

BOTH = "down_block_additional_residuals=down,\n        mid_block_additional_residual=mid,\n"
MID = "        mid_block_additional_residual=mid,\n"
DOWN = "        down_block_additional_residuals=down,\n"
ACTIVE = "each.start <= begin and end <= each.end"
SCORE = "float(2 * precision * recall / (precision + recall))"
BIAS = "nn.init.zeros_(layer.bias)"
NOISY = "x_t = diffusion.add_noise(latents, noise, alpha_bar)"

WRONG = [
    changed(E, "start alone", ACTIVE, "each.start <= begin"),
    changed(E, "end alone", ACTIVE, "end <= each.end"),
    changed(E, "begin of the step", ACTIVE, "each.start <= begin <= each.end"),
    changed(E, "end excluded", "end <= each.end", "end < each.end"),
    changed(E, "start excluded", "each.start <= begin", "each.start < begin"),
    changed(E, "overlap", ACTIVE, "each.start < end and begin < each.end"),
    changed(E, "counted from 1", "i / count, (i + 1) / count", "(i - 1) / count, i / count"),
    changed(E, "one step less", "i / count, (i + 1) / count", "i / (count - 1), i / (count - 1)"),
    changed(E, "all", "return [each for each in controls if " + ACTIVE + "]", "return controls"),
    changed(E, "backwards", "for each in controls", "for each in controls[::-1]"),
    changed(E, "rounded to steps", ACTIVE, "int(each.start * count) <= i < int(each.end * count)"),
    changed(F, "precision", SCORE, "float(precision)"),
    changed(F, "recall", SCORE, "float(recall)"),
    changed(F, "mean", SCORE, "float((precision + recall) / 2)"),
    changed(F, "no factor 2", SCORE, "float(precision * recall / (precision + recall))"),
    changed(F, "geometric mean", SCORE, "float((precision * recall) ** 0.5)"),
    changed(F, "square", "rows**2 + columns**2 <= within**2", "rows == rows"),
    changed(F, "open disc", "<= within**2", "< within**2"),
    changed(
        F, "diamond", "rows**2 + columns**2 <= within**2", "abs(rows) + abs(columns) <= within"
    ),
    changed(F, "distance of the lesson", "-within : within + 1", "-2:3", "within**2", "4"),
    changed(F, "no distance", "& near_expected)", "& expected)"),
    changed(F, "recall over the other map", "/ expected.sum()", "/ edges.sum()"),
    changed(F, "precision over all pixels", "correct / edges.sum()", "correct / edges.size"),
    changed(F, "no edges", "correct == 0", "False"),
    changed(F, "1 without edges", "return 0.0", "return 1.0"),
    changed(
        F,
        "in place",
        "edges, expected = edges[..., 0] > 0,",
        "edges[:] = edges > 1\n    edges, expected = edges[..., 0] > 0,",
    ),
    changed(F, "rounded", SCORE, SCORE.replace("float(", "round(")[:-1] + ", 1)"),
    changed(G, "random weights", "nn.init.zeros_(layer.weight)", "pass"),
    changed(G, "random bias", BIAS, "pass"),
    changed(G, "no bias", "kernel_size=1)", "kernel_size=1, bias=False)", BIAS, "pass"),
    changed(G, "3 x 3", "kernel_size=1", "kernel_size=3, padding=1"),
    changed(G, "ones", "zeros_(layer.weight)", "ones_(layer.weight)"),
    changed(G, "almost zero", "zeros_(layer.weight)", "normal_(layer.weight, std=1e-3)"),
    changed(G, "frozen", "return layer", "return layer.requires_grad_(False)"),
    changed(G, "depthwise", "kernel_size=1)", "kernel_size=1, groups=channels)"),
    changed(G, "channels of the lesson", "nn.Conv2d(channels, channels", "nn.Conv2d(8, 8"),
    changed(H, "noise for all", 'model.prediction_type == "v_prediction"', "False"),
    changed(H, "v for all", 'model.prediction_type == "v_prediction"', "True"),
    changed(H, "image as the target", "target = noise", "target = latents"),
    changed(
        H,
        "v negative",
        "velocity(latents, noise, alpha_bar)",
        "velocity(-latents, noise, alpha_bar)",
    ),
    changed(H, "exchanged", "add_noise(latents, noise", "add_noise(noise, latents"),
    changed(H, "clean latents", NOISY, "x_t = latents"),
    changed(H, "no roots", NOISY, "x_t = alpha_bar * latents + (1 - alpha_bar) * noise"),
    changed(H, "own scale of the noise", NOISY, "x_t = alpha_bar.sqrt() * latents + noise"),
    changed(
        H,
        "one timestep",
        "alphas_cumprod.to(latents.device)[t]",
        "alphas_cumprod.to(latents.device)[t[:1]]",
    ),
    changed(H, "timestep before", "(latents.device)[t]", "(latents.device)[t - 1]"),
    changed(H, "control missing", f"        {BOTH}", ""),
    changed(H, "middle missing", MID, ""),
    changed(H, "skips missing", DOWN, ""),
    changed(H, "control of clean latents", "x_t, t, embeddings)\n", "latents, t, embeddings)\n"),
    changed(H, "detached", "down, mid = c", "with torch.no_grad():\n        down, mid = c"),
    changed(H, "detached output", "output.float()", "output.detach().float()"),
    changed(H, "sum", "target)\n", 'target, reduction="sum")\n'),
    changed(H, "absolute error", "F.mse_loss", "F.l1_loss"),
    changed(
        H,
        "root",
        "return F.mse_loss(output.float(), target)",
        "return F.mse_loss(output.float(), target).sqrt()",
    ),
    changed(
        H,
        "weighted",
        "F.mse_loss(output.float(), target)",
        "((1 - alpha_bar) * (output - target) ** 2).mean()",
    ),
    changed(H, "first condition", "Control(network, condition)", "Control(network, condition[:1])"),
    changed(
        H, "half the control", "Control(network, condition)", "Control(network, condition, 0.5)"
    ),
    changed(H, "network of the lesson", "Control(network, condition)", "by_edges"),
    changed(
        H,
        "in place",
        NOISY,
        "x_t = latents.mul_(alpha_bar.sqrt()) + (1 - alpha_bar).sqrt() * noise",
    ),
    changed(
        H,
        "float16",
        "return F.mse_loss(output.float(), target)",
        "return F.mse_loss(output.float(), target).half().float()",
    ),
    rewritten(
        F,
        "of the course",
        """
from course.metrics.control import edge_f1 as metric

return metric(edges[..., 0], expected[..., 0], within)
""",
    ),
    rewritten(
        G,
        "of diffusers",
        """
from diffusers.models.controlnets.controlnet import zero_module

return zero_module(nn.Conv2d(channels, channels, 1))
""",
    ),
]

HARMLESS = [
    rewritten(
        E,
        "loop",
        """
chosen = []
for control in controls:
    if i / count < control.start or (i + 1) / count > control.end:
        continue
    chosen.append(control)
return chosen
""",
    ),
    rewritten(
        E,
        "in steps",
        """
result = list(filter(lambda c: c.start * count <= i and i + 1 <= c.end * count, controls))
print(len(result), "active")
return result
""",
    ),
    rewritten(
        F,
        "distance transform",
        """
from scipy.ndimage import distance_transform_edt

a, b = edges.max(axis=2) > 0, expected.max(axis=2) > 0
if not a.any() or not b.any():
    return 0
p = (distance_transform_edt(~b)[a] <= within).mean()
r = (distance_transform_edt(~a)[b] <= within).mean()
return 2 * p * r / (p + r) if p + r else 0
""",
    ),
    rewritten(
        F,
        "shifted maps",
        """
def grow(page):
    height, width = page.shape
    padded = np.pad(page, within)
    total = np.zeros_like(page)
    for y in range(-within, within + 1):
        for x in range(-within, within + 1):
            if y * y + x * x <= within * within:
                rows = slice(within + y, within + y + height)
                total |= padded[rows, within + x : within + x + width]
    return total


a, b = edges[:, :, 1].astype(bool), expected[:, :, 2].astype(bool)
hits, kept = np.sum(a & grow(b)), np.sum(b & grow(a))
if hits == 0 or kept == 0:
    return 0.0
return 2 / (a.sum() / hits + b.sum() / kept)
""",
    ),
    rewritten(
        G,
        "parameters filled",
        """
layer = nn.Conv2d(channels, channels, (1, 1), stride=1, padding=0)
with torch.no_grad():
    for parameter in layer.parameters():
        parameter.zero_()
return layer
""",
    ),
    rewritten(
        G,
        "state of zeros",
        """
layer = nn.Conv2d(in_channels=channels, out_channels=channels, kernel_size=1)
layer.load_state_dict({name: 0 * value for name, value in layer.state_dict().items()})
return layer
""",
    ),
    rewritten(
        H,
        "own formulas",
        """
table = pipe.scheduler.alphas_cumprod.to(latents)
a, b = table[t].sqrt()[:, None, None, None], (1 - table[t]).sqrt()[:, None, None, None]
x_t = a * latents + b * noise
down, mid = network(
    x_t, t, encoder_hidden_states=embeddings, controlnet_cond=condition, return_dict=False
)
(output,) = pipe.unet(
    x_t,
    t,
    embeddings,
    down_block_additional_residuals=tuple(down),
    mid_block_additional_residual=mid,
    return_dict=False,
)
target = a * noise - b * latents if model.prediction_type.startswith("v") else noise
return (output.double() - target).pow(2).mean().float()
""",
    ),
    rewritten(
        H,
        "by the scheduler",
        """
kind = model.prediction_type
if kind not in ("epsilon", "v_prediction"):
    raise ValueError(kind)
scheduler = pipe.scheduler
target = scheduler.get_velocity(latents, noise, t) if kind == "v_prediction" else noise
x_t = scheduler.add_noise(latents, noise, t)
down, mid = control_residuals([Control(network, condition)], x_t, t, embeddings)
residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
output = pipe.unet(x_t, t, encoder_hidden_states=embeddings, **residuals).sample
return torch.stack([F.mse_loss(o, g) for o, g in zip(output.float(), target)]).mean()
""",
    ),
]
