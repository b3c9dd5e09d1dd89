"""Lesson 1.2, the loop and what surrounds it: wrong answers, and others that are right."""

from tests.grading.mutants import changed, rewritten

LEVELS = "alpha_bar, alpha_bar_prev = self.alpha_bar_at(t), self.alpha_bar_at(t_prev)"
VISITED = "visited = [*timesteps(self.scheduler.config, num_sampling_steps), END]"
FRESH = "draw_noise(generators, latents.shape[1:], latents.device) if eta > 0 else 0"

WRONG = [
    changed(
        "1.2 (g)",
        "levels exchanged",
        LEVELS,
        "alpha_bar_prev, alpha_bar = self.alpha_bar_at(t), self.alpha_bar_at(t_prev)",
    ),
    changed("1.2 (g)", "one level", LEVELS, "alpha_bar = alpha_bar_prev = self.alpha_bar_at(t)"),
    changed("1.2 (g)", "last step missing", ", END]", "]"),
    changed(
        "1.2 (g)",
        "wrong final alpha_bar",
        LEVELS,
        f"{LEVELS}\n"
        "        if t_prev == END:\n"
        "            alpha_bar_prev = torch.ones_like(alpha_bar)",
    ),
    changed(
        "1.2 (g)",
        "constant stride",
        LEVELS,
        f"t_prev = max(t - 1000 // num_sampling_steps, END)\n        {LEVELS}",
    ),
    changed("1.2 (g)", "halves exchanged", "uncond, cond = output", "cond, uncond = output"),
    changed(
        "1.2 (g)",
        "unguided",
        "predict_x0_and_noise(latents, guided",
        "predict_x0_and_noise(latents, cond",
    ),
    changed("1.2 (g)", "always epsilon", "self.model.prediction_type", '"epsilon"'),
    changed(
        "1.2 (g)",
        "eta ignored",
        "alpha_bar_prev, eta, fresh_noise)",
        "alpha_bar_prev, 0.0, fresh_noise)",
    ),
    changed(
        "1.2 (g)",
        "one fresh noise for all",
        FRESH,
        "draw_noise(generators[:1], latents.shape[1:], latents.device) if eta > 0 else 0",
    ),
    changed(
        "1.2 (g)",
        "fresh noise of another seed",
        FRESH,
        "torch.randn_like(latents) if eta > 0 else 0",
    ),
    changed("1.2 (g)", "latents not updated", "        latents = x_prev\n", ""),
    changed("1.2 (g)", "latents damaged", "latents = x_prev", "latents.copy_(x_prev)"),
    changed(
        "1.2 (g)", "steps keep the result", "SamplingStep(t, latents,", "SamplingStep(t, x_prev,"
    ),
    changed(
        "1.2 (g)",
        "no conversion",
        "torch.cat([latents, latents]).to(self.unet.dtype)",
        "torch.cat([latents, latents])",
    ),
    changed("1.2 (g)", "half precision", "latents = x_prev", "latents = x_prev.half().float()"),
    changed(
        "1.2 (g)", "timestep of the next", "self.unet(both, t,", "self.unet(both, max(t_prev, 0),"
    ),
    changed(
        "1.2 (g)",
        "the lesson's object",
        "self.unet(both",
        "sd.unet(both.float()",
        "self.scheduler",
        "sd.scheduler",
    ),
    changed("1.2 (h)", "factor forgotten", "latents / self.vae.config.scaling_factor", "latents"),
    changed("1.2 (h)", "factor multiplied", "latents / self", "latents * self"),
    changed("1.2 (h)", "hard-coded factor", "self.vae.config.scaling_factor", "0.18215"),
    changed("1.2 (h)", "in [0, 1]", ".sample.float()", ".sample.float() / 2 + 0.5"),
    changed("1.2 (h)", "no conversion", "latents.to(self.vae.dtype)", "latents"),
    changed("1.2 (i)", "no result", "    latents.append(self.steps[-1].x_prev)\n", ""),
    changed("1.2 (i)", "result is x_0", "self.steps[-1].x_prev", "self.steps[-1].x_0"),
    changed("1.2 (i)", "name ignored", "getattr(step, name)", "step.x_0"),
    changed("1.2 (i)", "backwards", "for x in latents]", "for x in latents[::-1]]"),
    changed("1.2 (i)", "latents", "self.decode_latents(x) for", "x for"),
    changed(
        "1.2 (j)",
        "prompts exchanged",
        "request.prompts, request.negative_prompts",
        "request.negative_prompts, request.prompts",
    ),
    changed(
        "1.2 (j)",
        "no negative prompts",
        "request.prompts, request.negative_prompts",
        'request.prompts, [""] * len(request.prompts)',
    ),
    changed("1.2 (j)", "eta ignored", "w, request.eta,", "w, 0.0,"),
    changed(
        "1.2 (j)",
        "guidance ignored",
        "count, w = request.num_sampling_steps, request.guidance_scale",
        "count, w = request.num_sampling_steps, GUIDANCE_SCALE",
    ),
    changed(
        "1.2 (j)",
        "seed ignored",
        "draw_noise(request.generators, request",
        "draw_noise([torch.Generator().manual_seed(2) for _ in request.prompts], request",
    ),
    changed(
        "1.2 (j)",
        "x_0 decoded",
        "self.decode_latents(self.steps[-1].x_prev)",
        "self.decode_latents(self.steps[-1].x_0)",
    ),
    changed(
        "1.2 (j)",
        "size ignored",
        "request.shape, self",
        "(self.model.latent_channels, *self.model.latent_size()), self",
    ),
    changed(
        "1.2 (j)", "first step lost", "times = [", "self.steps = self.steps[1:]\n    times = ["
    ),
    changed("1.2 (j)", "no frames", "save_frames(folder, self.decode_steps(name), times)", "pass"),
    changed("1.2 (j)", "frames of x_t", "self.decode_steps(name)", 'self.decode_steps("x_t")'),
    changed(
        "1.2 (g)",
        "the library's step",
        "x_prev = ddim_step(x_0, noise, alpha_bar, alpha_bar_prev, eta, fresh_noise)",
        "self.scheduler.set_timesteps(num_sampling_steps)\n"
        "        x_prev = self.scheduler.step(guided, t, latents, eta=eta).prev_sample",
    ),
]

HARMLESS = [
    rewritten(
        "1.2 (g)",
        "one half at a time",
        "negative, positive = embeddings.chunk(2)\n"
        "times = timesteps(self.scheduler.config, num_sampling_steps)\n"
        "levels = [self.alpha_bar_at(t) for t in [*times, END]]\n"
        "for i, t in enumerate(times):\n"
        "    x = latents.to(self.unet.dtype)\n"
        "    uncond = self.unet(x, t, encoder_hidden_states=negative).sample.float()\n"
        "    cond = self.unet(x, t, encoder_hidden_states=positive, return_dict=False)[0].float()\n"
        "    output = guide(uncond, cond, guidance_scale)\n"
        "    kind = self.model.prediction_type\n"
        "    x_0, noise = predict_x0_and_noise(latents, output, levels[i], kind)\n"
        "    fresh = torch.zeros_like(latents)\n"
        "    if eta:\n"
        "        fresh = draw_noise(generators, latents.shape[1:], latents.device)\n"
        "    x_prev = ddim_step(x_0, noise, levels[i], levels[i + 1], eta, fresh)\n"
        "    yield SamplingStep(t, latents, uncond, cond, x_0, x_prev)\n"
        "    latents = x_prev.clone()",
    ),
    changed(
        "1.2 (g)",
        "double precision",
        "        guided = guide",
        "        latents = latents.double()\n        guided = guide",
    ),
    changed(
        "1.2 (g)",
        "progress bar",
        "in itertools.pairwise(visited):",
        "in tqdm(list(itertools.pairwise(visited))):",
        "    visited =",
        "    from tqdm.auto import tqdm\n\n    visited =",
    ),
    changed(
        "1.2 (g)",
        "timesteps as tensors",
        "self.unet(both, t,",
        "self.unet(both, torch.tensor(t, device=both.device),",
    ),
    changed(
        "1.2 (h)",
        "another order",
        "latents / self.vae.config.scaling_factor",
        "(1 / self.vae.config.scaling_factor) * latents",
    ),
    rewritten(
        "1.2 (h)",
        "one at a time",
        "images = []\n"
        "for one in latents:\n"
        "    scaled = one[None].to(self.vae.dtype) / self.vae.config.scaling_factor\n"
        "    images.append(self.vae.decode(scaled, return_dict=False)[0])\n"
        "return torch.cat(images).to(torch.float32)",
    ),
    rewritten(
        "1.2 (i)",
        "in one tensor",
        'latents = [step.x_t if name == "x_t" else step.x_0 for step in self.steps]\n'
        "images = map(self.decode_latents, [*latents, self.steps[-1].x_prev])\n"
        "return torch.stack(list(images))",
    ),
    changed(
        "1.2 (j)",
        "decoded one at a time",
        "[to_pil(image) for image in self.decode_latents(self.steps[-1].x_prev)]",
        "[to_pil(self.decode_latents(x[None])[0]) for x in self.steps[-1].x_prev]",
    ),
    changed("1.2 (j)", "no progress bar", "collect_steps(loop, count)", "list(loop)"),
    changed(
        "1.2 (j)",
        "None check, prints",
        "    embeddings =",
        "    if self.text_encoder is None:\n"
        '        raise ValueError("no text encoder")\n'
        "    print(request)\n"
        "    embeddings =",
    ),
]
