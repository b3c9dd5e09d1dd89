"""Lesson 1.2, components and formulas: answers that are wrong, and others that are right."""

from tests.grading.mutants import changed, rewritten

TEXTS = "negative_prompts + prompts"
GUIDED = "uncond + guidance_scale * (cond - uncond)"
X_0_OF_V = "alpha_bar.sqrt() * x_t - (1 - alpha_bar).sqrt() * output"
NOISE_OF_V = "(1 - alpha_bar).sqrt() * x_t + alpha_bar.sqrt() * output"
MIXED = "alpha_bar_prev.sqrt() * x_0 + direction + sigma * fresh_noise"

WRONG = [
    changed(
        "1.2 (a)",
        "library's noise schedule",
        'DDIMScheduler.from_pretrained(folder, subfolder="scheduler")',
        "DDIMScheduler()",
    ),
    changed("1.2 (a)", "no dtype", 'subfolder="unet", dtype=dtype', 'subfolder="unet"'),
    changed(
        "1.2 (a)",
        "weights not loaded",
        'AutoencoderKL.from_pretrained(folder, subfolder="vae", dtype=dtype)',
        'AutoencoderKL.from_config(AutoencoderKL.load_config(folder, subfolder="vae"))',
    ),
    changed(
        "1.2 (a)",
        "hard-coded model",
        "folder, dtype = model.folder, model.dtype",
        'folder, dtype = find_model("pocket").folder, model.dtype',
    ),
    changed("1.2 (b)", "prompts first", TEXTS, "prompts + negative_prompts"),
    changed("1.2 (b)", "no negative prompts", TEXTS, "prompts + prompts"),
    changed("1.2 (b)", "not padded", 'padding="max_length"', "padding=True"),
    changed("1.2 (b)", "not cut", "        truncation=True,\n", ""),
    changed("1.2 (b)", "hard-coded length", "self.model.text_length", "77"),
    changed("1.2 (b)", "pooled", "(self.model.device))[0]", "(self.model.device))[1]"),
    changed(
        "1.2 (b)",
        "attention mask",
        "tokens.input_ids.to(self.model.device)",
        "**tokens.to(self.model.device)",
    ),
    changed(
        "1.2 (b)", "pairs", TEXTS, "[x for pair in zip(negative_prompts, prompts) for x in pair]"
    ),
    changed(
        "1.2 (c)",
        "image to noise",
        "round().astype(int) - 1).tolist()",
        "round().astype(int) - 1).tolist()[::-1]",
    ),
    changed("1.2 (c)", "one too many", "-total / count)[:count]", "-total / count)"),
    changed("1.2 (c)", "off by one", "astype(int) - 1)", "astype(int))"),
    changed("1.2 (c)", "rounded down", "falling.round().astype(int)", "falling.astype(int)"),
    changed("1.2 (c)", "hard-coded T", "config.num_train_timesteps", "1000"),
    changed("1.2 (c)", "no offset", " + config.steps_offset", ""),
    changed("1.2 (c)", "stride not whole", "(total // count)", "round(total / count)"),
    changed(
        "1.2 (c)", "linspace up to T", "linspace(0, total - 1, count)", "linspace(0, total, count)"
    ),
    changed("1.2 (c)", "linspace backwards", ".round()[::-1]", ".round()"),
    changed("1.2 (d)", "guidance terms swapped", GUIDED, "cond + guidance_scale * (uncond - cond)"),
    changed("1.2 (d)", "wrong term", GUIDED, "cond + guidance_scale * (cond - uncond)"),
    changed("1.2 (d)", "wrong sign", GUIDED, "uncond - guidance_scale * (cond - uncond)"),
    changed("1.2 (d)", "prompt scaled", GUIDED, "uncond + guidance_scale * cond"),
    changed("1.2 (d)", "scale ignored", GUIDED, "cond"),
    changed(
        "1.2 (d)",
        "argument damaged",
        f"return {GUIDED}",
        "uncond += guidance_scale * (cond - uncond)\n    return uncond",
    ),
    changed("1.2 (d)", "half precision", GUIDED, f"({GUIDED}).half().float()"),
    changed("1.2 (d)", "hard-coded scale", "guidance_scale *", "3.0 *"),
    changed(
        "1.2 (e)",
        "no roots",
        "(1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()",
        "(1 - alpha_bar) * noise) / alpha_bar",
    ),
    changed("1.2 (e)", "not divided", "noise) / alpha_bar.sqrt()", "noise)"),
    changed("1.2 (e)", "wrong sign", X_0_OF_V, X_0_OF_V.replace("x_t -", "x_t +")),
    changed("1.2 (e)", "v taken for noise", NOISE_OF_V, "output"),
    changed("1.2 (e)", "always epsilon", 'if prediction_type == "epsilon"', "if True"),
    changed("1.2 (e)", "exchanged", "return x_0, noise", "return noise, x_0"),
    changed(
        "1.2 (e)",
        "roots exchanged",
        NOISE_OF_V,
        "alpha_bar.sqrt() * x_t + (1 - alpha_bar).sqrt() * output",
    ),
    changed("1.2 (e)", "bfloat16", "return x_0, noise", "return x_0.bfloat16().float(), noise"),
    changed(
        "1.2 (e)",
        "argument damaged",
        '    if prediction_type == "epsilon":\n        noise = output',
        '    if prediction_type == "epsilon":\n        x_t.mul_(1.001)\n        noise = output',
    ),
    changed("1.2 (f)", "eta ignored", "sigma = eta *", "sigma = 0 *"),
    changed("1.2 (f)", "eta always 1", "sigma = eta *", "sigma = 1.0 *"),
    changed("1.2 (f)", "no room", "(1 - alpha_bar_prev - sigma**2)", "(1 - alpha_bar_prev)"),
    changed("1.2 (f)", "sigma not squared", "sigma**2", "sigma"),
    changed("1.2 (f)", "fresh noise missing", MIXED, "alpha_bar_prev.sqrt() * x_0 + direction"),
    changed(
        "1.2 (f)", "wrong level", MIXED, "alpha_bar.sqrt() * x_0 + direction + sigma * fresh_noise"
    ),
    changed("1.2 (f)", "no root", MIXED, "alpha_bar_prev * x_0 + direction + sigma * fresh_noise"),
    changed(
        "1.2 (f)",
        "ratio upside down",
        "(1 - alpha_bar_prev) / (1 - alpha_bar)",
        "(1 - alpha_bar) / (1 - alpha_bar_prev)",
    ),
    changed(
        "1.2 (f)",
        "variance for sigma",
        "(1 - alpha_bar / alpha_bar_prev)).sqrt()",
        "(1 - alpha_bar / alpha_bar_prev))",
    ),
    changed("1.2 (f)", "noise for fresh noise", "sigma * fresh_noise", "sigma * noise"),
    changed(
        "1.2 (c)",
        "the library's timesteps",
        "    total = config",
        "    scheduler = DDIMScheduler.from_config(config)\n"
        "    scheduler.set_timesteps(count)\n"
        "    return scheduler.timesteps.tolist()[:count]\n"
        "    total = config",
    ),
    rewritten(
        "1.2 (d)",
        "the library's",
        "import course.diffusion as d\n\nreturn d.guide(uncond, cond, guidance_scale)",
    ),
    rewritten(
        "1.2 (e)",
        "the library's",
        "from course.diffusion import predict_x0_and_noise as solve\n\n"
        "return solve(x_t, output, alpha_bar, prediction_type)",
    ),
    rewritten(
        "1.2 (f)",
        "the library's",
        "from course import diffusion\n\n"
        "return diffusion.ddim_step(x_0, noise, alpha_bar, alpha_bar_prev, eta, fresh_noise)",
    ),
]

HARMLESS = [
    changed(
        "1.2 (a)",
        "prints",
        "        folder, dtype",
        '        print("loading", model.name)\n        folder, dtype',
    ),
    changed(
        "1.2 (a)",
        "moved at the end",
        "text_encoder.to(model.device)",
        "text_encoder",
        "        self.scheduler =",
        "        self.text_encoder.to(model.device)\n        self.scheduler =",
    ),
    rewritten(
        "1.2 (b)",
        "in two calls",
        'options = dict(padding="max_length", truncation=True, return_tensors="pt")\n'
        "rows = []\n"
        "for texts in (negative_prompts, prompts):\n"
        "    assert texts is not None\n"
        "    result = self.tokenizer(texts, max_length=self.model.text_length, **options)\n"
        '    ids = result["input_ids"].to(self.model.device)\n'
        "    rows.append(self.text_encoder(input_ids=ids).last_hidden_state)\n"
        "return torch.cat(rows, dim=0)",
    ),
    rewritten(
        "1.2 (c)",
        "integers",
        "T, n = config.num_train_timesteps, count\n"
        'if config.timestep_spacing == "trailing":\n'
        "    return [round(T - i * T / n) - 1 for i in range(n)]\n"
        'if config.timestep_spacing == "leading":\n'
        "    return list(reversed([i * (T // n) + config.steps_offset for i in range(n)]))\n"
        "return [round(i * (T - 1) / max(n - 1, 1)) for i in reversed(range(n))]",
    ),
    rewritten(
        "1.2 (c)",
        "an array",
        'T = config["num_train_timesteps"]\n'
        'if config.timestep_spacing == "leading":\n'
        "    steps = torch.arange(count) * (T // count)\n"
        "    return (steps + config.steps_offset).flip(0)\n"
        'if config.timestep_spacing == "linspace":\n'
        "    return torch.linspace(0, T - 1, count, dtype=torch.float64).round().long().flip(0)\n"
        "return np.round(T * (1 - np.arange(count) / count)).astype(np.int64) - 1",
    ),
    changed(
        "1.2 (d)", "another order", GUIDED, "(1 - guidance_scale) * uncond + guidance_scale * cond"
    ),
    changed("1.2 (d)", "torch.lerp", GUIDED, "torch.lerp(uncond, cond, float(guidance_scale))"),
    rewritten(
        "1.2 (d)",
        "double precision",
        "u, c = uncond.double(), cond.double()\nreturn (u + guidance_scale * (c - u)).float()",
    ),
    rewritten(
        "1.2 (d)",
        "a loop",
        "rows = []\n"
        "for u, c in zip(uncond, cond):\n"
        "    rows.append(u + (c - u) * guidance_scale)\n"
        "    print(len(rows))\n"
        "return torch.stack(rows)",
    ),
    rewritten(
        "1.2 (e)",
        "by angle",
        "angle = alpha_bar.sqrt().acos()\n"
        'if prediction_type == "epsilon":\n'
        "    return x_t / angle.cos() - angle.tan() * output, output\n"
        "x_0 = angle.cos() * x_t - angle.sin() * output\n"
        "return x_0, (x_t - angle.cos() * x_0) / angle.sin()",
    ),
    rewritten(
        "1.2 (e)",
        "double precision, a list",
        "a = float(alpha_bar)\n"
        'if prediction_type == "v_prediction":\n'
        "    x_0 = a**0.5 * x_t.double() - (1 - a) ** 0.5 * output\n"
        "    noise = (1 - a) ** 0.5 * x_t + a**0.5 * output.double()\n"
        "    return [x_0, noise]\n"
        "return [(x_t.double() - (1 - a) ** 0.5 * output) / a**0.5, output]",
    ),
    rewritten(
        "1.2 (f)",
        "variances",
        "a, b = alpha_bar, alpha_bar_prev\n"
        "variance = eta**2 * (1 - b) / (1 - a) * (1 - a / b)\n"
        "mean = torch.sqrt(b) * x_0 + torch.sqrt(1 - b - variance) * noise\n"
        "return torch.sqrt(torch.as_tensor(variance)) * fresh_noise + mean",
    ),
    rewritten(
        "1.2 (f)",
        "numbers, with a branch",
        "import math\nimport warnings\n\n"
        "a, b = float(alpha_bar), float(alpha_bar_prev)\n"
        "if eta == 0 or fresh_noise is None:\n"
        "    return math.sqrt(b) * x_0 + math.sqrt(1 - b) * noise\n"
        'warnings.warn("fresh noise", stacklevel=1)\n'
        "sigma = eta * math.sqrt((1 - b) / (1 - a)) * math.sqrt(1 - a / b)\n"
        "return math.sqrt(b) * x_0 + math.sqrt(1 - b - sigma**2) * noise + sigma * fresh_noise",
    ),
]
