"""Answers to lesson 3: to its cells, and to the functions of nerf/sd.py."""

from tests.grading.mutants import changed, rewritten

GUIDED = "noise_pred = uncond + guidance_scale * (cond - uncond)"
CONVERTED = "diffusion.predict_noise(noisy_latents, part, alpha_bar, prediction_type)"
NOISE = "torch.randn(latents.shape, generator=generator).to(latents.device)"
NOISY = "diffusion.add_noise(latents.detach(), noise, alpha_bar)"
GRADIENT = "(omega * (noise_pred - noise)).detach()"
LOSS = "loss = (latents * gradient).sum() / len(latents)"
SHARES = "(torch.arange(count) + torch.rand(count, generator=generator)) / count"
MIXTURE = "(1 - alpha_bar).sqrt() * (shares[..., None] * offsets).sum(1) / variance"
WEIGHTS = "(-before).exp() * (1 - (-depth).exp())"
PIXELS = "pixels.T.reshape(3, size, size)"
BEHIND = "(1 - opacity)[:, None] * background"
AROUND = "[1 - not_front, not_front - back, back]"
AWAY = "noise = uncond + w * (p - away)"

WRONG = [
    changed(
        "3 (a)",
        "tokens",
        "embedding = text_encoder(tokens.input_ids.to(text_encoder.device))[0][0]",
        "embedding = tokens.input_ids[0].float()",
    ),
    changed(
        "3 (a)",
        "attention mask",
        "text_encoder(tokens.input_ids.to(text_encoder.device))",
        "text_encoder(**tokens.to(text_encoder.device))",
    ),
    changed("3 (a)", "not padded", 'padding="max_length", ', ""),
    changed("3 (a)", "not cut", "truncation=True, ", ""),
    changed("3 (a)", "length of the lesson", "max_length=length", "max_length=18"),
    changed("3 (a)", "a batch", "[0][0]", "[0]"),
    changed("3 (a)", "graph kept", "@torch.no_grad()\n", ""),
    changed("3 (a)", "float16", "[0][0]", "[0][0].half()"),
    changed("3 (b)", "not stratified", SHARES, "torch.rand(count, generator=generator)"),
    changed(
        "3 (b)",
        "not shuffled",
        "shares = shares[torch.randperm(count, generator=generator)]",
        "pass",
    ),
    changed(
        "3 (b)", "other generator", "torch.rand(count, generator=generator)", "torch.rand(count)"
    ),
    changed(
        "3 (b)",
        "shuffled by another generator",
        "randperm(count, generator=generator)",
        "randperm(count)",
    ),
    changed("3 (b)", "middles of the parts", "torch.rand(count, generator=generator)", "0.5"),
    changed(
        "3 (b)",
        "range of the first image",
        "lowest + (highest - lowest)",
        "lowest[0] + (highest - lowest)[0]",
    ),
    changed("3 (b)", "one too many", "(num_timesteps - 1)", "num_timesteps"),
    changed("3 (b)", "1000 timesteps", "(num_timesteps - 1)", "999"),
    changed("3 (b)", "floats", ".round().long()", ".round()"),
    changed("3 (c)", "terms exchanged", "uncond, cond = noise_preds", "cond, uncond = noise_preds"),
    changed("3 (c)", "another convention", GUIDED, GUIDED.replace("uncond +", "cond +")),
    changed("3 (c)", "scale missing", "guidance_scale * (", "("),
    changed("3 (c)", "v as it is", CONVERTED, "part"),
    changed(
        "3 (c)",
        "noise for v",
        CONVERTED,
        'diffusion.predict_noise(noisy_latents, part, alpha_bar, "epsilon")',
    ),
    changed(
        "3 (c)",
        "batch and prompts exchanged",
        ".repeat(count, 1, 1, 1)",
        ".repeat_interleave(count, 0)",
    ),
    changed(
        "3 (c)",
        "half precision to the end",
        ".sample.float()",
        ".sample",
        CONVERTED,
        CONVERTED.replace("noisy_latents", "noisy_latents.to(part.dtype)").replace(
            "alpha_bar,", "alpha_bar.to(part.dtype),"
        ),
    ),
    changed(
        "3 (c)",
        "two prompts alone",
        "    if perp_neg:\n        return perp_neg(noise_preds)\n    uncond, cond = noise_preds\n",
        "    uncond, cond = noise_preds[:2]\n",
    ),
    changed("3 (c)", "graph kept", "@torch.no_grad()\n", ""),
    changed(
        "3 (c)",
        "called twice",
        "    noise_preds =",
        """\
    unet(noisy_latents, timesteps, encoder_hidden_states=embeddings[0])
    noise_preds =""",
    ),
    changed("3 (d)", "other seed", NOISE, "torch.randn_like(latents)"),
    changed("3 (d)", "uniform noise", "torch.randn(", "torch.rand("),
    changed("3 (d)", "seed 0", "generator=generator", "generator=torch.Generator().manual_seed(0)"),
    changed(
        "3 (d)",
        "gradient through the denoiser",
        NOISY,
        NOISY.replace(".detach()", ""),
        GRADIENT,
        GRADIENT.replace(".detach()", ""),
    ),
    changed("3 (d)", "no roots", NOISY, "alpha_bar * latents.detach() + (1 - alpha_bar) * noise"),
    changed("3 (d)", "wrong sign", "noise_pred - noise)", "noise - noise_pred)"),
    changed("3 (d)", "no weighting", "omega * ", ""),
    changed("3 (d)", "weighting twice", "omega * ", "omega**2 * "),
    changed("3 (d)", "noise not subtracted", "(noise_pred - noise)", "noise_pred"),
    changed("3 (d)", "noise added", "(noise_pred - noise)", "(noise_pred + noise)"),
    changed("3 (d)", "loss uphill", LOSS, LOSS.replace("(latents * ", "-(latents * ")),
    changed("3 (d)", "not divided by the images", " / len(latents)", ""),
    changed("3 (d)", "mean over all numbers", ".sum() / len(latents)", ".mean()"),
    changed("3 (d)", "graph detached", LOSS, LOSS.replace("latents *", "latents.detach() *")),
    changed(
        "3 (d)",
        "square of the error",
        LOSS,
        "loss = (omega * (noise_pred - noise + latents - noisy_latents) ** 2).sum() / len(latents)",
    ),
    changed("3 (d)", "latents changed", LOSS, f"{LOSS}\n    latents.data.mul_(0.9)"),
    changed("3 (e)", "rate of one image", "lr=lr * len(x)", "lr=lr"),
    changed("3 (e)", "gradients add up", "        optimizer.zero_grad()\n", ""),
    changed("3 (e)", "momentum", "lr=lr * len(x)", "lr=lr * len(x), momentum=0.5"),
    changed("3 (e)", "a step too few", "range(steps)", "range(steps - 1)"),
    changed(
        "3 (e)", "no weighting", "1 - alpha_bar, predict", "torch.ones_like(alpha_bar), predict"
    ),
    changed("3 (e)", "highest timestep stays", "0.98 - 0.48 * i / steps", "0.98"),
    changed("3 (e)", "falls a step too late", "0.48 * i / steps", "0.48 * (i - 1) / steps"),
    changed(
        "3 (e)", "latents changed", "latents.clone().requires_grad_()", "latents.requires_grad_()"
    ),
    changed("3 (e)", "graph kept", "result = x.detach()", "result = x"),
    changed("3 (e)", "Adam", "torch.optim.SGD", "torch.optim.Adam"),
    changed("3 (f)", "score in the place of noise", MIXTURE, f"-{MIXTURE}"),
    changed("3 (f)", "no root", "noise = (1 - alpha_bar).sqrt()", "noise = (1 - alpha_bar)"),
    changed("3 (f)", "means not scaled", "alpha_bar.sqrt()[..., None] * means", "means"),
    changed("3 (f)", "plain average", "(shares[..., None] * offsets).sum(1)", "offsets.mean(1)"),
    changed("3 (f)", "not normalized", ".softmax(-1)", ".exp()"),
    changed("3 (f)", "no spread", "alpha_bar * spread**2 + 1", "1"),
    changed(
        "3 (f)",
        "three Gaussians",
        "shares[..., None] * offsets",
        "(shares[..., None] * offsets)[:, :3]",
    ),
    changed("3 (g)", "right sign", "loss=-step.loss", "loss=step.loss"),
    changed("3 (g)", "weighting of before", "torch.ones_like(omega)", "omega"),
    changed("3 (g)", "noise without weight", "latents * omega * step", "latents * step"),
    changed("3 (g)", "two mistakes", "(latents * omega", "-(latents * omega"),
    changed("3 (h)", "corners of the pixels", "torch.arange(width) + 0.5", "torch.arange(width)"),
    changed("3 (h)", "half a pixel twice", "height / 2 - 0.5 -", "height / 2 - 1 -"),
    changed(
        "3 (h)",
        "upside down",
        "height / 2 - 0.5 - torch.arange(height)",
        "torch.arange(height) + 0.5 - height / 2",
    ),
    changed("3 (h)", "transposed", "pose[:3, :3].T", "pose[:3, :3]"),
    changed("3 (h)", "radians", "torch.deg2rad(fov)", "fov"),
    changed("3 (h)", "scale of the width", ") / 2) / height", ") / 2) / width"),
    changed(
        "3 (h)",
        "other lengths",
        "    directions = directions / directions.norm(dim=-1, keepdim=True)\n",
        "",
    ),
    changed("3 (h)", "backwards", "-torch.ones_like(x)", "torch.ones_like(x)"),
    changed("3 (i)", "no transmittance", WEIGHTS, "1 - (-depth).exp()"),
    changed("3 (i)", "light after the sample", "depth.cumsum(1) - depth", "depth.cumsum(1)"),
    changed("3 (i)", "no step", "sigmas * step", "sigmas"),
    changed(
        "3 (i)",
        "sum to 1",
        WEIGHTS,
        f"{WEIGHTS}\n    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-9)",
    ),
    changed("3 (i)", "first order alone", WEIGHTS, "(-before).exp() * depth"),
    changed("3 (i)", "float16", WEIGHTS, f"({WEIGHTS}).half()"),
    changed("3 (j)", "background missing", f" + {BEHIND}", ""),
    changed("3 (j)", "background in full", BEHIND, "background"),
    changed(
        "3 (j)",
        "depth of the opaque part",
        "(weights * distances).sum(1)",
        "(weights * distances).sum(1) / opacity",
    ),
    changed("3 (j)", "mean of the colors", "colors).sum(1)", "colors).mean(1)"),
    changed("3 (k)", "no factor", "factor * sigmas", "sigmas"),
    changed("3 (k)", "samples at the ends", "torch.arange(samples) + 0.5", "torch.arange(samples)"),
    changed("3 (k)", "rows and columns exchanged", PIXELS, f"{PIXELS}.mT"),
    changed("3 (k)", "pixels mixed up", PIXELS, PIXELS.replace(".T", "")),
    changed("3 (k)", "black background", "BACKGROUND)\n", "torch.zeros(3))\n"),
    changed("3 (k)", "128 samples", "3.5 / samples", "3.5 / 128"),
    changed("3 (l)", "no turns", "((azimuth + 180) % 360 - 180).abs()", "azimuth.abs()"),
    changed("3 (l)", "one side alone", "- 180).abs()", "- 180)"),
    changed("3 (l)", "borders without a blend", ") / 30 + 0.5).clamp(0, 1)", ") > 0).float()"),
    changed("3 (l)", "overhead on top", " * (1 - overhead)[:, None]", ""),
    changed("3 (l)", "another order", AROUND, "[back, not_front - back, 1 - not_front]"),
    changed(
        "3 (l)",
        "not clamped",
        "(elevation - 60) / 30 + 0.5).clamp(0, 1)",
        "(elevation - 60) / 30 + 0.5)",
    ),
    changed("3 (m)", "no projection", "n - (n * p).sum(axes, keepdim=True) / squared * p", "n"),
    changed("3 (m)", "the parallel part", "n - (n * p).sum", "(n * p).sum"),
    changed("3 (m)", "attracted", AWAY, AWAY.replace("p - away", "p + away")),
    changed("3 (m)", "w for the prompt alone", AWAY, "noise = uncond + w * p - away"),
    changed(
        "3 (m)", "no strengths", "strengths[..., None, None, None] * perpendicular", "perpendicular"
    ),
    changed(
        "3 (m)", "one projection for all images", "axes = (-3, -2, -1)", "axes = (-4, -3, -2, -1)"
    ),
    changed("3 (m)", "0 / 0", ".clamp(min=1e-12)", ""),
    changed("3 (m)", "mean of the views", "perpendicular).sum(0)", "perpendicular).mean(0)"),
    changed("3 (m)", "cond changed", "    p, n =", "    cond -= uncond\n    p, n ="),
    rewritten(
        "3 (l)",
        "the program's weights",
        """
from task_3_DreamFusion.nerf import views

weights = views.view_weights(azimuth, elevation)
""",
    ),
    rewritten(
        "3 (m)",
        "the library's Perp-Neg",
        """
from course.diffusion import perp_neg as away

noise = away(uncond, cond, negatives, strengths, w)
""",
    ),
]

HARMLESS = [
    rewritten(
        "3 (a)",
        "one by one",
        """
print("text:", text)
ids = tokenizer(text, padding="max_length", max_length=length, truncation=True).input_ids
output = text_encoder(torch.tensor(ids)[None].to(text_encoder.device))
embedding = output.last_hidden_state.squeeze(0)
""",
    ),
    rewritten(
        "3 (b)",
        "parts shuffled first",
        """
count, last = len(lowest), num_timesteps - 1
part = torch.randperm(count, generator=generator)
shares = (part + torch.rand(count, generator=generator)) / count
timesteps = (last * torch.lerp(lowest, highest, shares)).round().to(torch.int64)
""",
    ),
    rewritten(
        "3 (b)",
        "in float64, rounded down",
        """
count, last = len(lowest), num_timesteps - 1
shares = torch.arange(count).double().add(torch.rand(count, generator=generator)).div(count)
shares = shares[torch.randperm(count, generator=generator)]
low, high = lowest.double() * last, highest.double() * last
timesteps = (low + shares * (high - low) + 0.5).floor().long()
""",
    ),
    rewritten(
        "3 (c)",
        "by hand",
        """
if embeddings is None:
    raise ValueError("no prompts")
x = torch.cat([noisy_latents] * len(embeddings)).to(embeddings.dtype)
times = torch.cat([timesteps] * len(embeddings))
output = unet(x, times, encoder_hidden_states=torch.cat(list(embeddings))).sample
noises = output.float().unflatten(0, (len(embeddings), -1))
if prediction_type == "v_prediction":
    noises = alpha_bar.sqrt() * noises + (1 - alpha_bar).sqrt() * noisy_latents
if perp_neg is not None:
    return perp_neg(list(noises))
noise_pred = (1 - guidance_scale) * noises[0] + guidance_scale * noises[1]
""",
    ),
    changed(
        "3 (d)",
        "einsum",
        LOSS,
        'loss = torch.einsum("bchw,bchw->", latents, gradient) / latents.shape[0]',
    ),
    changed(
        "3 (d)",
        "distance to a target",
        LOSS,
        """\
target = (latents - gradient).detach()
    loss = 0.5 * torch.nn.functional.mse_loss(latents, target, reduction='sum') / len(latents)""",
    ),
    changed(
        "3 (d)",
        "by hand, without gradient",
        f"noisy_latents = {NOISY}",
        """\
with torch.no_grad():
        noisy_latents = alpha_bar**0.5 * latents + (1 - alpha_bar) ** 0.5 * noise""",
    ),
    changed("3 (e)", "no progress bar", "tqdm(range(steps), leave=False)", "range(steps)"),
    changed(
        "3 (e)",
        "by hand",
        "        optimizer.zero_grad()\n        loss.backward()\n        optimizer.step()\n",
        """\
        [gradient] = torch.autograd.grad(loss, x)
        x = (x - lr * len(x) * gradient).detach().requires_grad_()
""",
    ),
    rewritten(
        "3 (f)",
        "by autograd",
        """
x = x_t.clone().requires_grad_()
variance = alpha_bar * spread**2 + 1 - alpha_bar
squared = (x[:, None] - alpha_bar.sqrt()[..., None] * means).pow(2).sum(-1)
[score] = torch.autograd.grad(torch.logsumexp(-squared / (2 * variance), 1).sum(), x)
noise = -(1 - alpha_bar).sqrt() * score
""",
    ),
    changed(
        "3 (g)",
        "from the gradient",
        "(latents * omega * step.noise_pred)",
        "(latents * (step.gradient + omega * step.noise))",
    ),
    rewritten(
        "3 (h)",
        "a loop over pixels, in float64",
        """
import math

side = 2 * math.tan(math.radians(float(fov)) / 2) / height
origins, directions = torch.zeros(height, width, 3), torch.zeros(height, width, 3)
for i in range(height):
    for j in range(width):
        x, y = (j + 0.5 - width / 2) * side, (height / 2 - 0.5 - i) * side
        d = pose[:3, :3].double() @ torch.tensor([x, y, -1.0], dtype=torch.float64)
        origins[i, j], directions[i, j] = pose[:3, 3], d / d.norm()
rays = origins, directions
""",
    ),
    rewritten(
        "3 (i)",
        "a product",
        """
alpha = 1 - torch.exp(-sigmas * step)
light = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha], 1), 1)
weights = light[:, :-1] * alpha
""",
    ),
    rewritten(
        "3 (i)",
        "a loop",
        """
light, rows = torch.ones(len(sigmas)), []
for sigma in sigmas.T:
    alpha = 1 - (-sigma * step).exp()
    rows.append(light * alpha)
    light = light * (1 - alpha)
weights = torch.stack(rows, 1)
""",
    ),
    rewritten(
        "3 (j)",
        "a matrix product",
        """
sums = (weights[:, None] @ torch.cat([colors, distances[..., None]], -1))[:, 0]
opacity = weights.sum(dim=-1)
pixels = [sums[:, :3] + torch.outer(1 - opacity, background), opacity, sums[:, 3]]
""",
    ),
    rewritten(
        "3 (k)",
        "row by row",
        """
origins, directions = pixel_rays(camera.poses()[0], camera.fov[0], size, size)
step, rows = 3.5 / samples, []
for o, d in zip(origins, directions, strict=True):
    distances = camera.radius[0] - 1.75 + step * torch.arange(samples) + step / 2
    sigmas, colors = field(o[:, None] + distances[:, None] * d[:, None])
    weights = render_weights(sigmas * factor, step)
    row = (weights[..., None] * colors).sum(1)
    rows.append(row + (1 - weights.sum(1))[:, None] * BACKGROUND)
image = torch.stack(rows).permute(2, 0, 1)
""",
    ),
    rewritten(
        "3 (l)",
        "a loop",
        """
ramp = lambda angle, border: min(max((angle - border) / 30 + 0.5, 0), 1)
rows = []
for a, e in zip(azimuth.tolist(), elevation.tolist(), strict=True):
    a = abs((a + 180) % 360 - 180)
    around = [1 - ramp(a, 45), ramp(a, 45) - ramp(a, 135), ramp(a, 135)]
    rows.append([part * (1 - ramp(e, 60)) for part in around] + [ramp(e, 60)])
weights = torch.tensor(rows)
""",
    ),
    rewritten(
        "3 (m)",
        "einsum",
        """
p, n = cond - uncond, negatives - uncond
dots = torch.einsum("kbchw,bchw->kb", n, p)
squares = torch.einsum("bchw,bchw->b", p, p).clamp(min=1e-12)
parallel = torch.einsum("kb,bchw->kbchw", dots / squares, p)
noise = uncond + w * p - w * torch.einsum("kb,kbchw->bchw", strengths, n - parallel)
""",
    ),
]
