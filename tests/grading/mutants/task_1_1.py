"""Lesson 1.1: answers that are wrong, and answers that are right in another way."""

from tests.grading.mutants import changed, rewritten

SCHEDULER = 'DDIMScheduler.from_pretrained(model.folder, subfolder="scheduler")'
SERIES_D = "[generate(PROMPT, guidance_scale=scale) for scale in scales]"
SERIES_E = "[generate(PROMPT, steps=count) for count in counts]"
FLAT = "for prompt in prompts for seed in seeds"
NEGATIVE = '"a hamburger", seed=seed, negative_prompt=avoid'
WEIGHTS = "weight_a * a + weight_b * b"

WRONG = [
    changed("1.1 (a)", "library's noise schedule", SCHEDULER, "DDIMScheduler()"),
    changed("1.1 (a)", "two schedulers", "scheduler=scheduler, ", ""),
    changed("1.1 (a)", "no dtype", ", dtype=model.dtype", ""),
    changed("1.1 (a)", "hard-coded model", "(model.folder", '(find_model("pocket").folder'),
    changed(
        "1.1 (a)",
        "another sampler",
        f"scheduler = {SCHEDULER}",
        "from diffusers import PNDMScheduler\n\n"
        'scheduler = PNDMScheduler.from_pretrained(model.folder, subfolder="scheduler")',
    ),
    changed(
        "1.1 (b)",
        "global generator",
        'noise = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))',
        "torch.manual_seed(seed)\n    noise = torch.randn(shape)",
    ),
    changed("1.1 (b)", "noise in half precision", "shape, gen", "shape, dtype=model.dtype, gen"),
    changed("1.1 (b)", "another seed", "manual_seed(seed)", "manual_seed(seed + 1)"),
    changed("1.1 (b)", "seed ignored", "manual_seed(seed)", "manual_seed(2)"),
    changed("1.1 (b)", "hard-coded channels", "pipe.unet.config.in_channels", "4"),
    changed("1.1 (b)", "hard-coded side", "model.image_size // model.scale_factor", "32"),
    changed("1.1 (b)", "no batch axis", "noise.to(", "noise[0].to("),
    changed("1.1 (b)", "uniform noise", "torch.randn(", "torch.rand("),
    changed(
        "1.1 (c)",
        "prompts exchanged",
        "prompt=prompt,\n        negative_prompt=negative_prompt,",
        "prompt=negative_prompt,\n        negative_prompt=prompt,",
    ),
    changed("1.1 (c)", "no negative prompt", "negative_prompt=negative_prompt,", ""),
    changed("1.1 (c)", "steps ignored", "num_inference_steps=steps", "num_inference_steps=STEPS"),
    changed("1.1 (c)", "one step more", "_steps=steps", "_steps=steps + 1"),
    changed("1.1 (c)", "guidance ignored", "guidance_scale=guidance_scale,", ""),
    changed("1.1 (c)", "seed ignored", "starting_noise(seed)", "starting_noise(SEED)"),
    changed("1.1 (c)", "noise too weak", "starting_noise(seed)", "0.9 * starting_noise(seed)"),
    changed("1.1 (c)", "fresh noise", "latents=", "eta=1.0, latents="),
    changed("1.1 (c)", "a list", "result.images[0]", "result.images"),
    changed("1.1 (d)", "one scale for all", "guidance_scale=scale", "guidance_scale=5.0"),
    changed("1.1 (d)", "scale as steps", "guidance_scale=scale", "steps=int(scale)"),
    changed("1.1 (d)", "w - 1", "guidance_scale=scale", "guidance_scale=scale - 1"),
    changed("1.1 (d)", "backwards", SERIES_D, f"{SERIES_D}[::-1]"),
    changed("1.1 (d)", "another prompt", "generate(PROMPT", 'generate("a hamburger"'),
    changed("1.1 (e)", "one step more", "steps=count", "steps=count + 1"),
    changed("1.1 (e)", "another seed", "steps=count", "steps=count, seed=1"),
    changed("1.1 (e)", "counts as seeds", "steps=count", "seed=count"),
    changed("1.1 (e)", "the last one missing", SERIES_E, f"{SERIES_E}[:-1]"),
    changed("1.1 (f)", "loops exchanged", FLAT, "for seed in seeds for prompt in prompts"),
    changed("1.1 (f)", "one seed", "seed=seed", "seed=1"),
    changed("1.1 (f)", "seed ignored", ", seed=seed", ""),
    changed("1.1 (g)", "no negative prompt", ", negative_prompt=avoid", ""),
    changed("1.1 (g)", "in the prompt", NEGATIVE, 'f"a hamburger not {avoid}", seed=seed'),
    changed("1.1 (g)", "exchanged", NEGATIVE, 'avoid, "a hamburger", seed=seed'),
    changed("1.1 (g)", "hard-coded seeds", "for seed in seeds", "for seed in [1, 2, 3, 4]"),
    rewritten("1.1 (h)", "straight line", "return torch.lerp(a, b, amount)"),
    changed("1.1 (h)", "weights exchanged", WEIGHTS, "weight_b * a + weight_a * b"),
    changed("1.1 (h)", "wrong sign", WEIGHTS, "weight_a * a - weight_b * b"),
    changed("1.1 (h)", "half precision", WEIGHTS, f"({WEIGHTS}).half().float()"),
    changed("1.1 (h)", "argument damaged", f"return {WEIGHTS}", f"b *= 1.01\n    return {WEIGHTS}"),
    changed("1.1 (h)", "no arccosine", "cosine.acos()", "cosine"),
    changed("1.1 (h)", "always perpendicular", "cosine.acos()", "torch.tensor(torch.pi / 2)"),
    changed("1.1 (h)", "one norm", "(a.norm() * b.norm())", "a.norm() ** 2"),
    changed("1.1 (h)", "cosines", ".sin() /", ".cos() /"),
    changed("1.1 (h)", "not divided", ".sin() / angle.sin()", ".sin()"),
    changed("1.1 (h)", "hard-coded amount", "(amount * angle)", "(0.5 * angle)"),
    rewritten("1.1 challenge 1", "one step", 'settings = {"steps": 1}'),
    rewritten("1.1 challenge 1", "too many steps", 'settings = {"steps": 12}'),
    rewritten("1.1 challenge 1", "guidance", 'settings = {"steps": 8, "guidance_scale": 80.0}'),
    rewritten("1.1 challenge 1", "unknown key", 'settings = {"steps": 8, "size": 512}'),
]

HARMLESS = [
    changed("1.1 (a)", "prints", "pipe = pipe.to", 'print("loaded", pipe)\npipe = pipe.to'),
    changed("1.1 (a)", "str of the folder", "model.folder", "str(model.folder)"),
    changed(
        "1.1 (a)",
        "scheduler set later",
        "scheduler=scheduler, dtype=model.dtype)",
        "dtype=model.dtype)\npipe.scheduler = scheduler",
    ),
    rewritten(
        "1.1 (b)",
        "in one line",
        "return torch.randn(\n"
        "    (1, model.latent_channels, *model.latent_size()),\n"
        "    generator=torch.Generator().manual_seed(seed),\n"
        ").to(device=model.device).to(dtype=model.dtype)",
    ),
    changed(
        "1.1 (b)", "None check", "    side =", "    if seed is None:\n        seed = 0\n    side ="
    ),
    rewritten(
        "1.1 (c)",
        "lists and options",
        'options = {"guidance_scale": guidance_scale, "num_inference_steps": steps}\n'
        "noise = starting_noise(seed)\n"
        "[image] = pipe([prompt], negative_prompt=[negative_prompt], latents=noise, **options)[0]\n"
        "return image",
    ),
    changed("1.1 (c)", "progress bar", "result =", "pipe.set_progress_bar_config()\n    result ="),
    changed(
        "1.1 (d)",
        "a loop",
        f"guided = {SERIES_D}",
        "guided = []\nfor w in scales:\n    print(w)\n"
        "    guided.append(generate(PROMPT, guidance_scale=w))",
    ),
    changed("1.1 (e)", "map", SERIES_E, "list(map(lambda n: generate(PROMPT, steps=n), counts))"),
    changed(
        "1.1 (f)",
        "itertools",
        f"crossed = [generate(prompt, seed=seed) {FLAT}]",
        "import itertools\n\n"
        "pairs = itertools.product(prompts, seeds)\n"
        "crossed = [generate(prompt, seed=seed) for prompt, seed in pairs]",
    ),
    changed("1.1 (g)", "another order of arguments", NEGATIVE, '"a hamburger", avoid, seed'),
    changed("1.1 (h)", "double precision", "    dot", "    a, b = a.double(), b.double()\n    dot"),
    rewritten(
        "1.1 (h)",
        "unit vectors",
        "import warnings\n\n"
        'warnings.warn("interpolating", stacklevel=1)\n'
        "flat_a, flat_b = a.reshape(-1) / a.norm(), b.reshape(-1) / b.norm()\n"
        "angle = torch.arccos(torch.clamp(flat_a @ flat_b, -1.0, 1.0))\n"
        "parts = torch.sin(amount * angle) * b + torch.sin((1 - amount) * angle) * a\n"
        "return parts / torch.sin(angle)",
    ),
    rewritten("1.1 challenge 1", "found before", 'settings = {"steps": 4}'),
    changed(
        "1.1 challenge 1",
        "from the top",
        "(2, 3, 4, 6, 8)",
        "(8, 6, 4, 3)",
        "        break",
        '        print("enough")',
    ),
]
