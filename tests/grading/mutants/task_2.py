"""Answers to lesson 2."""

from tests.grading.mutants import changed, rewritten

ADD = "total[..., rows, columns] += weight"
FUSE = "value[..., rows, columns] += weight.to(exact) * window"
AVERAGE = "return (value / total).to(windows.dtype)"
MIX = "alpha_bar_prev.sqrt() * x_0 + (1 - alpha_bar_prev).sqrt() * noise"
VIEWS = "[(row, column) for row in rows for column in columns]"
FUSED = "return x_0, fuse(denoised, views, weights, total)"
MOVED = "return windows - weight * gradient / loss_scale"
DESCEND = "return self.descend_windows(windows, to_images, anchor, weight)"
SHORT = "return windows + alpha_bar.sqrt() * weight * move / rms"

WRONG = [
    changed("2.1 (a)", "last window missing", "starts.append(size - window)\n", "pass\n"),
    changed("2.1 (a)", "ring not closed", "if closed:", "if False:"),
    changed("2.1 (a)", "ring without a window across", "starts.append(size - window // 2)", "pass"),
    changed("2.1 (a)", "off by one at the border", "starts[-1] < size - window:", "False:"),
    changed(
        "2.1 (a)", "range ends too early", "size - window + 1, stride", "size - window, stride"
    ),
    changed("2.1 (a)", "the last one twice", "if starts[-1] < size - window:", "if True:"),
    changed(
        "2.1 (a)", "a stride of 1", "range(0, size - window + 1, stride)", "range(size - window)"
    ),
    rewritten(
        "2.1 (a)",
        "values of the lesson",
        """
known = {(8, 8, 2): [0], (32, 8, 2): list(range(0, 25, 2)), (24, 8, 4): list(range(0, 17, 4))}
if closed:
    return list(range(0, 32, 2))
return known.get((size, window, stride), [0, size - window])
""",
    ),
    changed("2.1 (b)", "columns beyond the last", "(left + side) % width", "(left + side)"),
    changed(
        "2.1 (b)",
        "columns held at the border",
        "(left + side) % width",
        "(left + side).clamp(max=width - 1)",
    ),
    changed("2.1 (b)", "closed not passed on", "window, stride, closed)]", "window, stride)]"),
    changed("2.1 (b)", "the diagonal alone", VIEWS, "list(zip(rows, columns))"),
    changed(
        "2.1 (b)", "windows transposed", "[..., rows, columns] for", "[..., rows, columns].mT for"
    ),
    changed("2.1 (b)", "a window too few", "in views])", "in views[:-1]])"),
    changed("2.1 (b)", "windows backwards", "in views])", "in views[::-1]])"),
    changed("2.1 (1)", "noise added", "(windows - (1", "(windows + (1"),
    changed("2.1 (1)", "no division", ") / alpha_bar.sqrt()", ")"),
    changed(
        "2.1 (1)", "levels exchanged", MIX, MIX.replace("(1 - alpha_bar_prev)", "alpha_bar_prev")
    ),
    changed("2.1 (1)", "no roots", MIX, "alpha_bar_prev * x_0 + (1 - alpha_bar_prev) * noise"),
    changed("2.1 (1)", "level of t again", MIX, MIX.replace("_prev", "")),
    changed("2.1 (1)", "in place", "x_0 = (windows -", "x_0 = windows.sub_("),
    changed("2.1 (1)", "float16", f"return {MIX}", f"return ({MIX}).half().float()"),
    changed("2.1 (2)", "last one alone", "+= weight", "= weight"),
    changed("2.1 (2)", "windows counted", "+= weight", "+= 1"),
    changed("2.1 (2)", "first weights alone", "+= weight", "+= weights[0]"),
    changed(
        "2.1 (2)",
        "last window missing",
        "return total",
        "total[..., rows, columns] -= weight\n    return total",
    ),
    changed("2.1 (2)", "weights in place", ADD, f"{ADD}\n        weight += 1"),
    changed("2.1 (3)", "no average", AVERAGE, "return value.to(windows.dtype)"),
    changed("2.1 (3)", "plain average", "weight.to(exact) * window", "window"),
    changed(
        "2.1 (3)",
        "last one alone",
        FUSE,
        FUSE.replace("+=", "=").replace("window", "window.to(exact)"),
    ),
    changed(
        "2.1 (3)",
        "sum of half precision",
        "dtype=exact",
        "dtype=windows.dtype",
        FUSE,
        FUSE.replace("weight.to(exact)", "weight.to(windows.dtype)"),
    ),
    changed("2.1 (3)", "total changed", AVERAGE, "total += 1e-2\n    " + AVERAGE),
    changed("2.1 (3)", "windows changed", FUSE, f"{FUSE}\n        window *= weight"),
    changed("2.1 (3)", "root of the sum", "value / total", "value / total.sqrt()"),
    rewritten(
        "2.1 (3)",
        "mean of the windows at a pixel",
        """
shape = (1, windows.shape[1], *total.shape[-2:])
value, count = torch.zeros(shape, dtype=exact), torch.zeros(shape, dtype=exact)
for window, (rows, columns) in zip(windows, views, strict=True):
    value[..., rows, columns] += window
    count[..., rows, columns] += 1
return (value / count).to(windows.dtype)
""",
    ),
    changed(
        "2.1 (c)",
        "windows of before",
        "windows, noise = update(crop_windows(latents, views))",
        "windows = crop_windows(latents, views)\n    _, noise = update(windows)",
    ),
    changed(
        "2.1 (c)", "results exchanged", FUSED, "return fuse(denoised, views, weights, total), x_0"
    ),
    changed("2.1 (c)", "x_0 at the next level", "noise, alpha_bar),", "noise, alpha_bar_prev),"),
    changed(
        "2.1 (c)",
        "weights of 1",
        "total = weight",
        "weights = torch.ones_like(weights)\n    total = weight",
    ),
    changed("2.1 (c)", "latents changed", FUSED, f"latents.mul_(0.5)\n    {FUSED}"),
    changed(
        "2.1 (c)",
        "one window after the other",
        "update(crop_windows(latents, views))",
        "map(torch.cat, zip(*map(update, crop_windows(latents, views).split(1)), strict=True))",
    ),
    changed(
        "2.2 (4)",
        "noisy window",
        "self.decode_small(x_0, scale)",
        "self.decode_small(window, scale)",
    ),
    changed("2.2 (4)", "no scale", "self.decode_small(x_0, scale)", "self.decode_small(x_0, 1)"),
    changed("2.2 (4)", "gradient into the anchor", "@torch.no_grad()", "@torch.enable_grad()"),
    changed("2.2 (4)", "wrong level", "noise, alpha_bar)", "noise, 1 - alpha_bar)"),
    changed("2.2 (5)", "uphill", MOVED, MOVED.replace(" - ", " + ")),
    changed("2.2 (5)", "mean in the place of the sum", ").sum()", ").mean()"),
    changed("2.2 (5)", "still scaled up", " / loss_scale", ""),
    changed("2.2 (5)", "not scaled up", "loss_scale = 1024.0", "loss_scale = 1.0"),
    changed("2.2 (5)", "no weight", "weight * gradient", "gradient"),
    changed("2.2 (5)", "gradient of the first window", "* gradient /", "* gradient[:1] /"),
    changed(
        "2.2 (5)", "graph kept", f"    {MOVED}", f"        {MOVED.replace('windows', 'inputs')}"
    ),
    changed(
        "2.2 (5)",
        "windows changed in place",
        MOVED,
        MOVED.replace("windows - ", "windows.sub_(") + ")",
    ),
    changed("2.2 (e)", "first window is the anchor", "slice(middle, middle + 1)", "slice(0, 1)"),
    changed(
        "2.2 (e)",
        "no gradient through the denoiser",
        "predict(inputs, part), alpha",
        "predict(inputs.detach(), part), alpha",
    ),
    changed(
        "2.2 (e)",
        "anchor with its noise",
        "self.predict_anchor(windows[part], noise, alpha_bar, scale)",
        "self.decode_small(windows[part], scale)",
    ),
    changed(
        "2.2 (e)",
        "windows with their noise",
        "predict_x0(inputs, predict(inputs, part), alpha_bar)",
        "inputs",
    ),
    changed("2.2 (e)", "nothing moves", DESCEND, "return windows"),
    changed(
        "2.2 (e)",
        "anchor moves",
        DESCEND,
        f"moved = {DESCEND[7:]}\n    moved[middle] += 0.1\n    return moved",
    ),
    changed("2.2 (e)", "no weight", "anchor, weight)", "anchor, 1.0)"),
    changed("2.2 (f)", "another seed", "seed=seed, use", "seed=seed + 1, use"),
    changed("2.2 (f)", "settings left out", "sync=sd.paper(), **settings", "sync=sd.paper()"),
    changed("2.2 (f)", "exchanged", "return multi, synced", "return synced, multi"),
    changed("2.2 (f)", "another setting", "sync=sd.paper(), ", ""),
    changed("2.2 (g)", "neighbors alone", "combinations(squares, 2)", "pairwise(squares)"),
    changed("2.2 (g)", "sum", " / len(values)", ""),
    changed(
        "2.2 (g)", "square beside itself", "combinations(squares, 2)", "product(squares, squares)"
    ),
    changed("2.2 (g)", "last square missing", "// size)]", "// size - 1)]"),
    changed(
        "2.2 (g)",
        "shifted by a pixel",
        "i * size : (i + 1) * size",
        "i * size + 1 : (i + 1) * size + 1",
    ),
    changed("2.2 (h)", "uphill", SHORT, SHORT.replace(" + ", " - ")),
    changed("2.2 (h)", "added whole", "alpha_bar.sqrt() * weight", "weight"),
    changed("2.2 (h)", "level without root", "alpha_bar.sqrt() * weight", "alpha_bar * weight"),
    changed("2.2 (h)", "one length for all windows", "mean(dim=(1, 2, 3), keepdim=True)", "mean()"),
    changed("2.2 (h)", "norm in the place of the RMS", ".mean(dim", ".sum(dim"),
    changed("2.2 (h)", "0 / 0 at the anchor", ".clamp_min(1e-12)", ""),
    changed("2.2 (h)", "x_0 comes back", "return windows +", "return x_0 +"),
    changed("2 (i)", "edge repeated", '"circular"', '"replicate"'),
    changed("2 (i)", "padding of zeros", '"circular"', '"constant"'),
    changed("2 (i)", "no bias", "layer.bias", "None"),
    changed("2 (i)", "no stride", "layer.stride", "1"),
    changed("2 (i)", "no groups", ", layer.groups", ""),
    changed(
        "2 (i)",
        "one column of padding",
        "rows, columns = layer.padding",
        "rows, columns = layer.padding[0], 1",
    ),
    changed(
        "2 (i)",
        "plain decoder",
        "with closed_convolutions(self.vae.decoder, ring_convolution):",
        "if True:",
    ),
    rewritten(
        "2.1 (1)",
        "the library's step",
        """
from course.diffusion import ddim_step, predict_x0

x_0 = predict_x0(windows, noise, alpha_bar)
return ddim_step(x_0, noise, alpha_bar, alpha_bar_prev)
""",
    ),
    rewritten(
        "2.2 (g)",
        "the library's metric",
        """
from course import metrics

return metrics.intra_distance(image[..., : image.shape[-1] // size * size], distance, size)
""",
    ),
    rewritten("2.2 (g)", "value of the lesson", "return 3.39"),
]

HARMLESS = [
    rewritten(
        "2.1 (a)",
        "a loop and a tuple",
        """
starts, left = [], 0
while left < (size if closed else size - window):
    starts.append(left)
    left += stride
if not closed:
    starts.append(size - window)
elif starts[-1] + window <= size:
    starts.append(size - window // 2)
return tuple(starts)
""",
    ),
    changed(
        "2.1 (a)",
        "a tensor, backwards",
        "return starts\n    ###",
        "return torch.tensor(starts).flip(0)\n    ###",
    ),
    rewritten(
        "2.1 (a)",
        "evenly spread",
        """
if closed:
    count = -(-size // stride)
    starts = [i * size // count for i in range(count)]
    return starts if starts[-1] + window > size else [*starts, size - 1]
count = -(-(size - window) // stride) + 1
return torch.linspace(0, size - window, count).round().int().tolist()
""",
    ),
    changed(
        "2.1 (b)", "columns outside", VIEWS, "[(row, column) for column in columns for row in rows]"
    ),
    changed(
        "2.1 (b)",
        "stacked",
        "torch.cat([latents[..., rows, columns] for",
        "torch.stack([latents[0][:, rows, columns] for",
    ),
    changed(
        "2.1 (b)",
        "a loop, int32",
        "torch.arange(window)",
        "torch.arange(window, dtype=torch.int32)",
    ),
    rewritten(
        "2.1 (1)",
        "in float64",
        """
x, n, a, b = (v.double() for v in (windows, noise, alpha_bar, alpha_bar_prev))
return (b**0.5 * (x - (1 - a) ** 0.5 * n) / a**0.5 + (1 - b) ** 0.5 * n).float()
""",
    ),
    rewritten(
        "2.1 (1)",
        "one formula",
        """
a, b = alpha_bar, alpha_bar_prev
return (b / a).sqrt() * windows + ((1 - b).sqrt() - (b * (1 - a) / a).sqrt()) * noise
""",
    ),
    rewritten(
        "2.1 (2)",
        "scattered",
        """
places = torch.cat([(rows * width + columns).flatten() for rows, columns in views])
total = torch.zeros(height * width, dtype=weights.dtype)
return total.index_add(0, places, weights.flatten()).view(1, 1, height, width)
""",
    ),
    changed(
        "2.1 (2)",
        "backwards",
        "zip(weights, views, strict=True)",
        "list(zip(weights, views))[::-1]",
    ),
    changed(
        "2.1 (3)",
        "prints, a progress bar and a warning",
        "zip(windows, weights, views, strict=True)",
        "tqdm(zip(windows, weights, views), leave=False)",
        "    shape =",
        """\
    import warnings

    from tqdm.auto import tqdm

    print('fusing', windows.shape)
    warnings.warn('slow', stacklevel=1)
    shape =""",
    ),
    rewritten(
        "2.1 (3)",
        "shares first",
        """
value = torch.zeros(1, windows.shape[1], *total.shape[-2:], dtype=exact)
for window, weight, (rows, columns) in zip(windows, weights, views, strict=True):
    value[..., rows, columns] += weight.to(exact) / total[..., rows, columns] * window
return value.to(windows.dtype)
""",
    ),
    rewritten(
        "2.1 (c)",
        "averages first, without fuse of x_0",
        """
if views is None or latents is None:
    raise ValueError("There are no windows.")
total = weight_sum(views, weights, *latents.shape[-2:])
windows, noise = update(crop_windows(latents, views))
x_t, noise = (fuse(part, views, weights, total) for part in (windows, noise))
return [predict_x0(x_t, noise, alpha_bar), denoise_windows(x_t, noise, alpha_bar, alpha_bar_prev)]
""",
    ),
    rewritten(
        "2.2 (4)",
        "by the formula",
        """
x_0 = (window - (1 - alpha_bar) ** 0.5 * noise) / alpha_bar**0.5
return self.decode_small(x_0, scale).detach()
""",
    ),
    rewritten(
        "2.2 (5)",
        "a vector of ones",
        """
with torch.enable_grad():
    x = windows.clone().requires_grad_(True)
    distances = self.distance(to_images(x), anchor.repeat(len(windows), 1, 1, 1))
    ones = torch.full_like(distances, loss_scale)
    (gradient,) = torch.autograd.grad(distances, x, ones)
return windows.sub(gradient / loss_scale, alpha=weight)
""",
    ),
    rewritten(
        "2.2 (5)",
        "window by window, backward",
        """
moved = []
for window in windows.detach().split(1):
    with torch.enable_grad():
        x = window.clone().requires_grad_()
        (loss_scale * self.distance(anchor, to_images(x))).mean().backward()
    moved.append((window - weight * x.grad / loss_scale).detach())
return torch.cat(moved)
""",
    ),
    rewritten(
        "2.2 (e)",
        "all at once",
        """
def image(x):
    return self.decode_small(predict_x0(x, predict(x), alpha_bar), scale)

anchor = image(windows).detach()[middle : middle + 1]
return self.descend(windows, image, anchor, weight)
""",
    ),
    rewritten(
        "2.2 (f)",
        "by a dictionary",
        """
both = dict(prompts=prompt, seed=seed, **settings)
synced = sd.sample(**both, use_syncdiffusion=True, sync=sd.paper())
return [sd.sample(**both), synced]
""",
    ),
    rewritten(
        "2.2 (g)",
        "in one batch",
        """
squares = torch.stack(image.split(size, dim=-1)[: image.shape[-1] // size])
left, right = torch.triu_indices(len(squares), len(squares), 1)
return float(distance(squares[left], squares[right]).mean())
""",
    ),
    rewritten(
        "2.2 (h)",
        "the same noise again",
        """
x_0 = predict_x0(windows, noise, alpha_bar)
anchor = self.predict_anchor(windows[part], noise[part], alpha_bar, scale)
step = self.descend(x_0, lambda x: self.decode_small(x, scale), anchor, 50.0) - x_0
step = weight * x_0[0].numel() ** 0.5 * F.normalize(step.flatten(1), dim=1).view_as(x_0)
step[part] = 0
return alpha_bar.sqrt() * (x_0 + step) + (1 - alpha_bar).sqrt() * noise
""",
    ),
    changed(
        "2 (i)",
        "columns by index",
        'F.pad(x, (columns, columns, 0, 0), mode="circular")',
        "x[..., torch.arange(-columns, x.shape[-1] + columns) % x.shape[-1]]",
    ),
]
