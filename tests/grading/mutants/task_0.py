"""Answers to lesson 0."""

from tests.grading.mutants import changed, rewritten

SCHEDULE, NOISE, SCORE, AVERAGE = "0 (a)", "0 (b)", "0 (c)", "0 (d)"
LOSS, TRAINING, DDPM, DDIM, LOOP = "0 (e)", "0 (f)", "0 (g)", "0 (h)", "0 (i)"
LABELS, GUIDANCE, V_LOSS, V, FLOW, EULER = "0 (j)", "0 (k)", "0 (l)", "0 (m)", "0 (n)", "0 (o)"
CHALLENGE = "0 challenge 1"
RESULT = "return alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise"

WRONG = [
    changed(SCHEDULE, "linear betas", "0.00085**0.5, 0.012**0.5", "0.00085, 0.012", "**2", ""),
    changed(SCHEDULE, "no end", "torch.cat([alpha_bar, torch.ones(1)])", "alpha_bar"),
    changed(SCHEDULE, "a zero as end", "torch.ones(1)", "torch.zeros(1)"),
    changed(SCHEDULE, "lesson's size", "0.5, count)", "0.5, T)"),
    changed(SCHEDULE, "off by one", "(1 - betas).cumprod(dim=0)", "(1 - betas).cumprod(0).roll(1)"),
    changed(SCHEDULE, "float16", "alpha_bar, torch", "alpha_bar.half(), torch"),
    changed(NOISE, "no roots", ".sqrt()", ""),
    changed(NOISE, "wrong sign", "+ (1", "- (1"),
    changed(
        NOISE, "swapped", "sqrt() * x_0", "sqrt() * noise", "sqrt() * noise\n", "sqrt() * x_0\n"
    ),
    changed(NOISE, "own noise", ".sqrt() * noise", ".sqrt() * torch.randn_like(noise)"),
    changed(NOISE, "float16", RESULT, RESULT.replace("x_0", "x_0.half()")),
    changed(NOISE, "in place", RESULT, f"x_0 *= 1.1\n    {RESULT}"),
    changed(SCORE, "wrong sign", "-noise", "noise"),
    changed(SCORE, "variance", ".sqrt()", ""),
    changed(SCORE, "missing scale", " / std", ""),
    changed(AVERAGE, "wrong sign", "cell(x_t, scores)", "cell(x_t, -scores)"),
    changed(AVERAGE, "noise averaged", "cell(x_t, scores)", "cell(x_t, noise)"),
    changed(AVERAGE, "around clean points", "cell(x_t, scores)", "cell(x_0, scores)"),
    changed(AVERAGE, "next timestep", "alpha_bar[t])", "alpha_bar[t + 60])"),
    changed(AVERAGE, "no average", "return plane.average_by_cell(x_t, scores)", "return scores"),
    changed(LOSS, "sum", ".mean()", ".sum()"),
    changed(LOSS, "absolute", ".square()", ".abs()"),
    changed(LOSS, "target x_0", "predicted - noise", "predicted - x_0"),
    changed(LOSS, "target x_t", "predicted - noise", "predicted - x_t"),
    changed(LOSS, "detached", "return (predicted", "return (predicted.detach()"),
    changed(LOSS, "one timestep", "torch.randint(T, (len(x_0),))", "torch.randint(T, (1,))"),
    changed(LOSS, "half of the timesteps", "randint(T,", "randint(T // 2,"),
    changed(LOSS, "no label", "x_t, t, label", "x_t, t"),
    changed(LOSS, "clean points", "network(x_t", "network(x_0"),
    changed(LOSS, "weighted", "noise).square()", "noise).square() * alpha_bar[t, None]"),
    changed(LOSS, "uniform noise", "randn_like", "rand_like"),
    changed(TRAINING, "no zero_grad", "        optimizer.zero_grad()\n", ""),
    changed(TRAINING, "one batch", "512)", "512)[:1]", "x_0, label = ", "label = None; x_0, = "),
    changed(TRAINING, "another rate", "5e-3", "5e-2"),
    changed(TRAINING, "SGD", "optim.Adam(", "optim.SGD("),
    changed(TRAINING, "another seed", "manual_seed(SEED)", "manual_seed(SEED + 1)"),
    changed(TRAINING, "no steps", "        optimizer.step()\n", ""),
    changed(TRAINING, "one more", "trange(steps)", "trange(steps + 1)"),
    changed(TRAINING, "last loss", "return network, losses", "return network, losses[-1:]"),
    changed(DDPM, "no fresh noise", " + sigma * fresh_noise", ""),
    changed(DDPM, "variance for sigma", "variance.sqrt()", "variance"),
    changed(DDPM, "wrong sign", "x_t - (1", "x_t + (1"),
    changed(DDPM, "not scaled", "/ alpha.sqrt()", ""),
    changed(DDPM, "larger variance", "(1 - alpha_bar_prev) / (1 - alpha_bar) * ", ""),
    changed(DDIM, "wrong sign", "x_t - (1", "x_t + (1"),
    changed(DDIM, "to the same level", "noise, alpha_bar_prev", "noise, alpha_bar"),
    changed(DDIM, "x_0", "return add_noise(x_0, noise, alpha_bar_prev)", "return x_0"),
    changed(DDIM, "fresh noise", "add_noise(x_0, noise,", "add_noise(x_0, fresh_noise,"),
    changed(LOOP, "off by one", "T - 1 - i", "T - 2 - i"),
    changed(LOOP, "upward", "for i in range(count)]", "for i in range(count)][::-1]"),
    changed(LOOP, "no end", "[*chosen[1:], END]", "[*chosen[1:], 0]"),
    changed(LOOP, "last state", "torch.stack(states)", "states[-1]"),
    changed(LOOP, "no start", "states = [x]", "states = []"),
    changed(
        LOOP,
        "same noise",
        "    for t,",
        "    fresh = torch.randn_like(x)\n    for t,",
        "torch.randn_like(x)\n        x",
        "fresh\n        x",
    ),
    changed(LOOP, "with gradients", "@torch.no_grad()\n", ""),
    changed(LABELS, "too many", "< 0.2", "> 0.2"),
    changed(LABELS, "a third", "< 0.2", "< 0.3"),
    changed(LABELS, "all or none", "torch.rand(len(label))", "torch.rand(1)"),
    changed(LABELS, "class zero", "plane.NO_LABEL", "0"),
    changed(GUIDANCE, "swapped terms", "cond - uncond", "uncond - cond"),
    changed(GUIDANCE, "from cond", "uncond + w", "cond + w"),
    changed(GUIDANCE, "scaled as a whole", "uncond + w * difference", "w * cond"),
    changed(GUIDANCE, "lesson's scale", "w * difference", "3 * difference"),
    changed(V_LOSS, "target noise", "predicted - v", "predicted - noise"),
    changed(V_LOSS, "wrong sign", "noise - (1", "noise + (1"),
    changed(V_LOSS, "no roots", "a.sqrt() * noise - (1 - a).sqrt()", "a * noise - (1 - a)"),
    changed(V, "wrong sign", "x_t + alpha", "x_t - alpha"),
    changed(
        V,
        "x_0",
        "(1 - alpha_bar).sqrt() * x_t + alpha_bar.sqrt() * v",
        "alpha_bar.sqrt() * x_t - (1 - alpha_bar).sqrt() * v",
    ),
    changed(FLOW, "wrong sign", "noise - x_0", "x_0 - noise"),
    changed(FLOW, "tau for the network", "T * tau", "tau"),
    changed(
        FLOW,
        "reversed path",
        "(1 - share) * x_0 + share * noise",
        "share * x_0 + (1 - share) * noise",
    ),
    changed(EULER, "wrong sign", "x - network", "x + network"),
    changed(EULER, "late", "1 - i / count", "1 - (i + 1) / count"),
    changed(EULER, "long steps", " / count\n        states", "\n        states"),
    changed(
        CHALLENGE,
        "equal steps",
        "(1 - i / 8) ** 2",
        "(1 - i / 8)",
        "1.5 * noise - 0.5 * before",
        "noise",
    ),
    rewritten(CHALLENGE, "the data itself", "predict(x, 999)\nreturn data.sample(len(x))[0]"),
    rewritten("0 (p)", "another text", 'token = "hf_abc"'),
]

HARMLESS = [
    rewritten(
        SCHEDULE,
        "a loop",
        """
product, values = 1.0, []
for i in range(count):
    root = 0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * i / max(count - 1, 1)
    product *= 1 - root**2
    values.append(product)
return torch.tensor([*values, 1.0])
""",
    ),
    changed(SCHEDULE, "float64", "0.5, count)", "0.5, count, dtype=torch.float64)"),
    rewritten(
        NOISE,
        "float64 and prints",
        """
print("shapes", x_0.shape, noise.shape)
if x_0 is None:
    return None
a = alpha_bar.double()
return torch.sqrt(a) * x_0 + noise * torch.sqrt(1 - a)
""",
    ),
    rewritten(SCORE, "a power", "return noise * -((1 - alpha_bar) ** -0.5)"),
    rewritten(
        AVERAGE,
        "one line each",
        """
e = torch.randn(x_0.shape)
a = alpha_bar[t]
return plane.average_by_cell(add_noise(x_0, e, a), score_from_noise(e, a)).double()
""",
    ),
    rewritten(
        LOSS,
        "noise first",
        """
noise = torch.randn(x_0.shape)
t = torch.randint(0, T, (x_0.shape[0],))
a = alpha_bar[t].unsqueeze(1)
predicted = network(a.sqrt() * x_0 + (1 - a).sqrt() * noise, t, label)
return torch.nn.functional.mse_loss(predicted, noise)
""",
    ),
    changed(TRAINING, "no schedule of the rate", "        schedule.step()\n", ""),
    changed(TRAINING, "with a progress bar", "trange(steps)", 'trange(steps, desc="training")'),
    rewritten(
        DDPM,
        "from x_0",
        """
alpha = alpha_bar / alpha_bar_prev
x_0 = (x_t - torch.sqrt(1 - alpha_bar) * noise) / torch.sqrt(alpha_bar)
first = torch.sqrt(alpha_bar_prev) * (1 - alpha) / (1 - alpha_bar)
second = torch.sqrt(alpha) * (1 - alpha_bar_prev) / (1 - alpha_bar)
sigma = torch.sqrt((1 - alpha_bar_prev) * (1 - alpha) / (1 - alpha_bar))
return first * x_0 + second * x_t + sigma * fresh_noise
""",
    ),
    rewritten(
        DDIM,
        "without add_noise",
        """
x_0 = (x_t - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()
return alpha_bar_prev.sqrt() * x_0 + (1 - alpha_bar_prev).sqrt() * noise
""",
    ),
    rewritten(
        LOOP,
        "an index",
        """
states = [x.clone()]
for i in range(count):
    t = T - 1 - i * T // count
    t_prev = T - 1 - (i + 1) * T // count if i < count - 1 else END
    x = step(x, predict(x, t), alpha_bar[t], alpha_bar[t_prev], torch.randn(x.shape))
    states.append(x)
return torch.cat([state[None] for state in states])
""",
    ),
    rewritten(
        LABELS,
        "masked",
        """
label = label.clone()
label[torch.rand(label.shape) < 0.2] = plane.NO_LABEL
return training_loss(network, x_0, label)
""",
    ),
    rewritten(
        GUIDANCE,
        "other order",
        """
cond = network(x_t, t, label)
return w * cond + (1 - w) * network(x_t, t)
""",
    ),
    rewritten(
        FLOW,
        "lerp",
        """
noise = torch.randn_like(x_0)
tau = torch.rand(len(x_0), 1)
predicted = network(torch.lerp(x_0, noise, tau), 1000 * tau[:, 0], label)
return ((noise - x_0 - predicted) ** 2).mean()
""",
    ),
    rewritten(
        "0 (p)", "by the module", "import huggingface_hub\ntoken = huggingface_hub.get_token()"
    ),
]
