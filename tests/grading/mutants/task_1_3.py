"""Answers to lesson 1.3."""

from tests.grading.mutants import changed, rewritten

A, B = "1.3 (a)", "1.3 (b)"
C, D = "1.3 (c)", "1.3 (d)"
E, F = "1.3 (e)", "1.3 (f)"
G, H = "1.3 (g)", "1.3 (h)"

STACK = "np.stack([edges] * 3, axis=2) / 255"
SKIPS = "[control.scale * part for part in parts]"
TOTAL = "[total + part for total, part in zip(down, parts, strict=True)]"
CONDITION = "control.condition.expand(len(latents), -1, -1, -1)"
BOTH = "down_block_additional_residuals=down,\n        mid_block_additional_residual=mid,\n"
MID = "        mid_block_additional_residual=mid,\n"
DOWN = "        down_block_additional_residuals=down,\n"
GUIDED = "diffusion.guide(uncond, cond, guidance_scale)"
ACTIVE = "each.start <= begin and end <= each.end"
SCORE = "float(2 * precision * recall / (precision + recall))"
BIAS = "nn.init.zeros_(layer.bias)"
NOISY = "x_t = diffusion.add_noise(latents, noise, alpha_bar)"
CALL = "unet(\n        both,"
RESIDUALS = "control_residuals([Control(network, condition)], x_t, t, embeddings)"

WRONG = [
    changed(A, "not smoothed", "cv2.GaussianBlur(array, (0, 0), 1.4)", "array"),
    changed(A, "smoothed too much", "1.4", "2.0"),
    changed(A, "variance for deviation", "1.4", "1.4**2"),
    changed(A, "not divided", STACK, "np.stack([edges] * 3, axis=2)"),
    changed(A, "black on white", STACK, f"1 - {STACK}"),
    changed(A, "channels first", STACK, "np.stack([edges] * 3) / 255"),
    changed(A, "one channel", STACK, "edges / 255"),
    changed(A, "thresholds of the lesson", "low, high)", "100, 200)"),
    changed(A, "high from low", "low, high)", "low, 2 * low)"),
    changed(A, "thresholds exchanged with one", "low, high)", "high, high)"),
    changed(A, "gray values", "array = np.array(image)", "array = np.array(image.convert('L'))"),
    changed(A, "L2 gradient", "low, high)", "low, high, L2gradient=True)"),
    changed(A, "-1 to 1", STACK, f"{STACK} * 2 - 1"),
    changed(B, "channels last", ".permute(2, 0, 1)", ""),
    changed(B, "sides exchanged", ".permute(2, 0, 1)", ".permute(2, 1, 0)"),
    changed(B, "reshaped", ".permute(2, 0, 1)", ".reshape(3, *array.shape[:2])"),
    changed(B, "no batch", "channels_first[None]", "channels_first"),
    changed(B, "own dtype", "model.device, model.dtype", "model.device"),
    changed(B, "dtype of pocket", "model.device, model.dtype", "model.device, torch.float32"),
    changed(B, "on the CPU", "model.device, model.dtype", '"cpu", model.dtype'),
    changed(B, "-1 to 1", "channels_first[None]", "(2 * channels_first[None] - 1)"),
    changed(B, "divided again", "channels_first[None]", "(channels_first[None] / 255)"),
    changed(B, "upside down", "channels_first[None]", "channels_first[None].flip(2)"),
    changed(
        B, "eight bits", "channels_first[None]", "((channels_first[None] * 255).round() / 255)"
    ),
    changed(C, "no scale", "control.scale * ", ""),
    changed(C, "skips not scaled", SKIPS, "list(parts)"),
    changed(C, "middle not scaled", "control.scale * middle", "middle"),
    changed(C, "scale squared", "control.scale * part", "control.scale**2 * part"),
    changed(C, "scale of the first", "control.scale", "controls[0].scale"),
    changed(C, "absolute scale", "control.scale", "abs(control.scale)"),
    changed(C, "the last one alone", "down is None", "True"),
    changed(C, "the first one alone", "in controls:", "in controls[:1]:"),
    changed(C, "two of three", "in controls:", "in controls[:2]:"),
    changed(C, "mean", "[total + part for", "[(total + part) / 2 for"),
    changed(C, "middle of the last", "mid = mid + middle", "mid = middle"),
    changed(C, "skips of the last", f"down = {TOTAL}", "down = parts"),
    changed(C, "middle missing", "return down, mid", "return down, mid * 0 if controls else None"),
    changed(C, "subtracted", "total + part", "total - part", "mid + middle", "mid - middle"),
    changed(C, "lists joined", TOTAL, "down + parts"),
    changed(C, "condition of the first", CONDITION, CONDITION.replace("control.", "controls[0].")),
    changed(C, "condition of -1 to 1", f"={CONDITION}", f"=2 * {CONDITION} - 1"),
    changed(C, "order of the skips", "return down, mid", "return down and down[::-1], mid"),
    changed(C, "no embeddings", "=embeddings", "=0 * embeddings"),
    changed(C, "a timestep of the lesson", "            t,\n", "            500,\n"),
    changed(C, "window as the scale", "control.scale", "(control.scale * control.end)"),
    changed(C, "zeros without controls", "return down, mid", "return down or [], mid"),
    changed(
        C, "float16", "return down, mid", "return down, mid.half().float() if controls else mid"
    ),
    changed(
        C, "first latents alone", CONDITION, "control.condition", "latents,\n", "latents[:1],\n"
    ),
    changed(D, "middle missing", MID, ""),
    changed(D, "skips missing", DOWN, ""),
    changed(D, "control missing", f"        {BOTH}", ""),
    changed(D, "first control alone", "(controls, both", "(controls[:1], both"),
    changed(D, "halves exchanged", "uncond, cond = output", "cond, uncond = output"),
    changed(D, "from the prompt", GUIDED, "cond + guidance_scale * (cond - uncond)"),
    changed(D, "unguided", GUIDED, "cond"),
    changed(D, "negative scale", GUIDED, "diffusion.guide(uncond, cond, -guidance_scale)"),
    changed(D, "scale of the lesson", GUIDED, "diffusion.guide(uncond, cond, 3.0)"),
    changed(D, "other timestep", "(controls, both, t,", "(controls, both, t - 1,"),
    changed(
        D,
        "only the prompt is controlled",
        "    output = unet",
        "    down = down and [part * torch.tensor([0, 1]).view(2, 1, 1, 1) for part in down]\n"
        "    output = unet",
    ),
    changed(D, "prompt of the control", "both, t, embeddings)", "both, t, embeddings.flip(0))"),
    changed(D, "type of the latents", ".to(unet.dtype)", ""),
    changed(D, "type of the denoiser", ".sample.float()", ".sample"),
    changed(
        D,
        "residuals twice",
        "down, mid = control_residuals(controls,",
        "down, mid = control_residuals(controls * 2,",
    ),
    changed(D, "float16", GUIDED, f"{GUIDED}.half().float()"),
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
]

HARMLESS = [
    rewritten(
        A,
        "repeated",
        """
smooth = cv2.GaussianBlur(np.asarray(image.convert("RGB")), (0, 0), sigmaX=1.4, sigmaY=1.4)
lines = cv2.Canny(smooth, threshold1=low, threshold2=high)
print(f"{(lines > 0).mean():.1%} of the pixels are on an edge")
return (lines[..., None].repeat(3, axis=2) > 0).astype(np.float32)
""",
    ),
    rewritten(
        A,
        "converted by OpenCV",
        """
if image is None:
    raise ValueError("no image")
lines = cv2.Canny(cv2.GaussianBlur(np.array(image, np.uint8), (0, 0), 1.4), low, high)
return cv2.cvtColor(lines, cv2.COLOR_GRAY2RGB) // 255
""",
    ),
    rewritten(
        B,
        "transposed",
        """
channels_first = np.ascontiguousarray(np.asarray(array).transpose(2, 0, 1))
return torch.tensor(channels_first, dtype=model.dtype, device=model.device).unsqueeze(0)
""",
    ),
    rewritten(
        B,
        "einsum",
        """
tensor = torch.as_tensor(array, dtype=torch.float64)
tensor = torch.einsum("hwc->chw", tensor).reshape(1, 3, *array.shape[:2])
return tensor.to(dtype=model.dtype).to(model.device)
""",
    ),
    rewritten(
        C,
        "scaled by diffusers",
        """
if not controls:
    return None, None
answers = []
for network, condition, scale, *_ in controls:
    given = condition.repeat(latents.shape[0], 1, 1, 1)
    answers.append(network(latents, t, embeddings, given, scale, return_dict=False))
down = [sum(parts) for parts in zip(*(down for down, _ in answers))]
return down, sum(mid for _, mid in answers)
""",
    ),
    rewritten(
        C,
        "stacked, in double precision",
        """
if len(controls) == 0:
    return None, None
answers = []
for one in controls:
    condition = torch.cat([one.condition] * len(latents))
    output = one.network(latents, t, encoder_hidden_states=embeddings, controlnet_cond=condition)
    parts = (*output.down_block_res_samples, output.mid_block_res_sample)
    answers.append([one.scale * part.double() for part in parts])
*down, mid = [torch.stack(parts).sum(0).to(latents.dtype) for parts in zip(*answers)]
return tuple(down), mid
""",
    ),
    rewritten(
        C,
        "backwards and in place",
        """
down = mid = None
for control in reversed(controls):
    condition = control.condition.expand(latents.size(0), *control.condition.shape[1:])
    parts, middle = control.network(
        latents, t, encoder_hidden_states=embeddings, controlnet_cond=condition, return_dict=False
    )
    if mid is None:
        down, mid = [torch.zeros_like(part) for part in parts], torch.zeros_like(middle)
    for i, part in enumerate(parts):
        down[i] += part * control.scale
    mid += middle * control.scale
return down, mid
""",
    ),
    rewritten(
        D,
        "two calls",
        """
outputs = []
for embedding in embeddings.split(1):
    one = latents.to(unet.dtype)
    down, mid = control_residuals(controls, one, t, embedding)
    result = unet(one, t, embedding, down_block_additional_residuals=down,
                  mid_block_additional_residual=mid, return_dict=False)
    outputs.append(result[0].to(torch.float32))
return outputs[0] + guidance_scale * (outputs[1] - outputs[0])
""",
    ),
    rewritten(
        D,
        "a dictionary and a loop",
        """
import warnings

if not controls:
    warnings.warn("no control")
both = latents.to(unet.dtype).repeat(2, 1, 1, 1)
residuals = dict(zip(
    ("down_block_additional_residuals", "mid_block_additional_residual"),
    control_residuals(controls, both, t, embeddings),
))
output = unet(both, torch.tensor(t), encoder_hidden_states=embeddings, **residuals).sample
first, second = output.float()
return (guidance_scale * second + (1 - guidance_scale) * first)[None]
""",
    ),
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
