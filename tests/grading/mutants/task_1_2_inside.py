"""Lesson 1.2, from attention to the challenges: wrong answers, and others that are right."""

from tests.grading.mutants import changed, rewritten

NEXT = "alpha_bar, alpha_bar_next = self.alpha_bar_at(t), self.alpha_bar_at(t_next)"
STRENGTH = "((step.cond - step.uncond).norm() / step.uncond.norm()).item()"
PUT_BACK = "mask * latents + (1 - mask) * original"
SCORES = "query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5"

WRONG = [
    changed("1.2 (l)", "not scaled", " / query.shape[-1] ** 0.5", ""),
    changed("1.2 (l)", "scaled by the width", "query.shape[-1] ** 0.5", "query.shape[-1]"),
    changed("1.2 (l)", "hard-coded width", "query.shape[-1] ** 0.5", "4"),
    changed("1.2 (l)", "softmax over pixels", "dim=-1", "dim=-2"),
    changed("1.2 (l)", "scores for weights", "weights @ value, weights", "weights @ value, scores"),
    changed("1.2 (l)", "keys for values", "weights @ value", "weights @ key"),
    changed("1.2 (l)", "exchanged", "weights @ value, weights", "weights, weights @ value"),
    changed("1.2 (m)", "not divided", f"{STRENGTH}", "(step.cond - step.uncond).norm().item()"),
    changed("1.2 (m)", "divided by cond", "/ step.uncond.norm()", "/ step.cond.norm()"),
    changed(
        "1.2 (m)",
        "difference of norms",
        "(step.cond - step.uncond).norm()",
        "(step.cond.norm() - step.uncond.norm())",
    ),
    changed("1.2 (m)", "squares", f"{STRENGTH}", f"{STRENGTH} ** 2"),
    changed("1.2 (m)", "first step missing", "for step in steps", "for step in steps[1:]"),
    changed(
        "1.2 (m)",
        "half precision",
        "step.cond - step.uncond",
        "step.cond.half() - step.uncond.half()",
    ),
    changed("1.2 (n)", "not reversed", "pairwise(reversed(visited))", "pairwise(visited)"),
    changed("1.2 (n)", "first step missing", ", END]", "]"),
    changed(
        "1.2 (n)",
        "levels exchanged",
        NEXT,
        "alpha_bar_next, alpha_bar = self.alpha_bar_at(t), self.alpha_bar_at(t_next)",
    ),
    changed(
        "1.2 (n)",
        "level of t",
        "add_noise(x_0, noise, alpha_bar_next)",
        "add_noise(x_0, noise, alpha_bar)",
    ),
    changed("1.2 (n)", "always epsilon", "kind = self.model.prediction_type", 'kind = "epsilon"'),
    changed("1.2 (n)", "negative prompt", '[prompt], [""])[1:]', '[prompt], [""])[:1]'),
    changed(
        "1.2 (n)", "new noise", "add_noise(x_0, noise, ", "add_noise(x_0, torch.randn_like(noise), "
    ),
    changed("1.2 (n)", "x_0 not followed", "add_noise(x_0, noise, ", "add_noise(latents, noise, "),
    changed(
        "1.2 (n)",
        "hard-coded steps",
        "self.scheduler.config, num_sampling_steps",
        "self.scheduler.config, 25",
    ),
    changed("1.2 (n)", "one timestep", "self.unet(x_t, t_next,", "self.unet(x_t, 999,"),
    changed(
        "1.2 challenge 1",
        "strength reversed",
        "count - max(1, round(strength * count))",
        "round(strength * count)",
    ),
    changed("1.2 challenge 1", "one step late", "[skipped:]", "[skipped + 1 :]"),
    changed(
        "1.2 challenge 1",
        "no noise",
        "add_noise(clean, noise, sd.alpha_bar_at(visited[0]))",
        "clean",
    ),
    changed(
        "1.2 challenge 1",
        "noise of the noisiest level",
        "sd.alpha_bar_at(visited[0])",
        "sd.alpha_bar_at(999)",
    ),
    changed("1.2 challenge 1", "seed ignored", "make_generator(seed)", "make_generator(1)"),
    changed("1.2 challenge 1", "not to the end", ", END]", "]"),
    changed(
        "1.2 challenge 1",
        "blended images",
        "latents = take_step(latents, embeddings, t, t_prev)",
        "latents = strength * latents + (1 - strength) * clean",
    ),
    changed("1.2 challenge 2", "mask reversed", PUT_BACK, "(1 - mask) * latents + mask * original"),
    changed(
        "1.2 challenge 2",
        "put back without noise",
        "add_noise(clean, kept_noise, sd.alpha_bar_at(t_prev))",
        "clean",
    ),
    changed(
        "1.2 challenge 2",
        "level of t",
        "kept_noise, sd.alpha_bar_at(t_prev)",
        "kept_noise, sd.alpha_bar_at(t)",
    ),
    changed(
        "1.2 challenge 2",
        "put back at the end alone",
        f"latents = {PUT_BACK}",
        f"latents = {PUT_BACK} if t_prev == END else latents",
    ),
    changed("1.2 challenge 2", "never put back", f"        latents = {PUT_BACK}\n", ""),
    changed("1.2 challenge 2", "prompt not used", '[prompt], [""]', '[""], [prompt]'),
    changed("1.2 challenge 3", "first order", "before is not None and t_prev != END", "False"),
    changed("1.2 challenge 3", "second order to the end", " and t_prev != END", ""),
    changed("1.2 challenge 3", "weight doubled", "before / (2 * r)", "before / r"),
    changed("1.2 challenge 3", "ratio upside down", "h_before / h", "h / h_before"),
    changed(
        "1.2 challenge 3",
        "wrong sign",
        "(1 + 1 / (2 * r)) * x_0 - before",
        "(1 - 1 / (2 * r)) * x_0 + before",
    ),
    changed("1.2 challenge 3", "kappa not halved", ".log() / 2", ".log()"),
    changed("1.2 challenge 3", "wrong level", "b.sqrt() * (", "a.sqrt() * ("),
    changed("1.2 challenge 3", "always epsilon", "sd.model.prediction_type", '"epsilon"'),
    changed(
        "1.2 challenge 3",
        "unguided",
        "guide(*output.chunk(2), guidance_scale)",
        "output.chunk(2)[1]",
    ),
    changed(
        "1.2 challenge 3",
        "argument damaged",
        "latents = scale * latents -",
        "latents *= scale\n        latents -=",
    ),
    rewritten(
        "1.2 (l)",
        "the library's",
        "from course.diffusion import attention as library\n\nreturn library(query, key, value)",
    ),
    changed(
        "1.2 (n)",
        "the library's step",
        "latents = add_noise(x_0, noise, alpha_bar_next)",
        "from course.diffusion import ddim_inversion_step\n\n"
        "        latents = ddim_inversion_step(latents, noise, alpha_bar, alpha_bar_next)",
    ),
    rewritten(
        "1.2 challenge 3",
        "the library's",
        "from diffusers import DPMSolverMultistepScheduler\n\n"
        "scheduler = DPMSolverMultistepScheduler.from_config(sd.scheduler.config)\n"
        "scheduler.set_timesteps(count)\n"
        "for t in scheduler.timesteps:\n"
        "    both = torch.cat([latents, latents])\n"
        "    output = sd.unet(both, t, encoder_hidden_states=embeddings).sample\n"
        "    guided = guide(*output.chunk(2), guidance_scale)\n"
        "    latents = scheduler.step(guided, t, latents).prev_sample\n"
        "return latents",
    ),
]

HARMLESS = [
    rewritten(
        "1.2 (l)",
        "einsum, double precision",
        "q, k, v = query.double(), key.double(), value.double()\n"
        'scores = torch.einsum("...nd,...ld->...nl", q, k) * q.shape[-1] ** -0.5\n'
        "weights = torch.exp(scores - scores.amax(-1, keepdim=True))\n"
        "weights = weights / weights.sum(-1, keepdim=True)\n"
        'return torch.einsum("...nl,...ld->...nd", weights, v).float(), weights.float()',
    ),
    changed(
        "1.2 (l)",
        "a list",
        "return weights @ value, weights",
        "return [weights.matmul(value), weights]",
    ),
    rewritten(
        "1.2 (m)",
        "a loop of tensors",
        "strengths = []\n"
        "for step in steps:\n"
        "    difference = (step.cond - step.uncond).double()\n"
        "    strengths.append(torch.linalg.norm(difference) / step.uncond.double().norm())\n"
        "    print(strengths[-1])",
    ),
    changed(
        "1.2 (m)",
        "roots of sums",
        "(step.cond - step.uncond).norm()",
        "(step.cond - step.uncond).square().sum().sqrt()",
    ),
    changed(
        "1.2 (n)",
        "the network at the beginning of a step",
        "self.unet(x_t, t_next,",
        "self.unet(x_t, max(t, 0),",
    ),
    changed(
        "1.2 (n)",
        "both halves",
        '[""])[1:]',
        '[""])',
        "x_t = latents.to(self.unet.dtype)",
        "x_t = torch.cat([latents, latents]).to(self.unet.dtype)",
        ".sample.float()",
        ".sample.float()[1:]",
    ),
    changed(
        "1.2 (n)",
        "mixed by hand",
        "add_noise(x_0, noise, alpha_bar_next)",
        "(1 - alpha_bar_next) ** 0.5 * noise + alpha_bar_next**0.5 * x_0",
    ),
    changed("1.2 challenge 1", "int", "round(strength * count)", "int(strength * count + 1e-9)"),
    changed(
        "1.2 challenge 1",
        "noise by torch.randn",
        "draw_noise([make_generator(seed)], clean.shape[1:], model.device)",
        "torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)).to(clean)",
    ),
    changed(
        "1.2 challenge 2", "torch.where", PUT_BACK, "torch.where(mask.bool(), latents, original)"
    ),
    changed(
        "1.2 challenge 2",
        "noise of the start",
        "kept_noise, sd",
        "start, sd",
        "    embeddings =",
        "    start = latents\n    embeddings =",
    ),
    changed(
        "1.2 challenge 2",
        "new noise in each step",
        "kept_noise, sd",
        "draw_noise([generator], clean.shape[1:], clean.device), sd",
    ),
    changed(
        "1.2 challenge 3",
        "DDIM in the last step",
        "        scale =",
        "        if t_prev == END:\n"
        "            return b.sqrt() * x_0 + (1 - b).sqrt() * noise\n"
        "        scale =",
        "x_0, _ =",
        "x_0, noise =",
    ),
    changed(
        "1.2 challenge 3",
        "double precision",
        "x_0, _ =",
        "latents = latents.double()\n        x_0, _ =",
        "    return latents",
        "    return latents.float()",
    ),
]
