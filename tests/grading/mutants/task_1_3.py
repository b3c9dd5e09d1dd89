"""Answers to lesson 1.3: conditions, residuals and guidance."""

from tests.grading.mutants import changed, rewritten

A, B = "1.3 (a)", "1.3 (b)"
C, D = "1.3 (c)", "1.3 (d)"

STACK = "np.stack([edges] * 3, axis=2) / 255"
SKIPS = "[control.scale * part for part in parts]"
TOTAL = "[total + part for total, part in zip(down, parts, strict=True)]"
CONDITION = "control.condition.expand(len(latents), -1, -1, -1)"
BOTH = "down_block_additional_residuals=down,\n        mid_block_additional_residual=mid,\n"
MID = "        mid_block_additional_residual=mid,\n"
DOWN = "        down_block_additional_residuals=down,\n"
GUIDED = "diffusion.guide(uncond, cond, guidance_scale)"

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
    changed(D, "denoiser of the pipeline", "    output = unet(", "    output = pipe.unet("),
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
    rewritten(A, "of the course", "return conditions.canny(image, low, high)"),
    rewritten(
        B, "of the course", "return conditions.to_control(array).to(model.device, model.dtype)"
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
]
