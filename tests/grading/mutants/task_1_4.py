"""Answers to the lesson on training."""

from tests.grading.mutants import changed, rewritten

A, B = "1.4 (a)", "1.4 (c)"
C, D = "1.4 (d)", "1.4 (e)"

DRAWN = "torch.rand(len(states), 1, 1, generator=generator) < probability"
TIMES = "torch.randint(0, len(alpha_bar), (len(x_0),), generator=generator)"
NOISE = "torch.randn(x_0.shape, generator=generator)"
X_T = "x_t = a.sqrt() * x_0 + (1 - a).sqrt() * noise"
V = "v = a.sqrt() * noise - (1 - a).sqrt() * x_0"
ERROR = "(output - v).square().mean()"
CLIP = "torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)"
AVERAGE = "ema.step(unet.parameters())"
GUIDED = "guide(*output.chunk(2), guidance_scale)"

DROPOUT = [
    changed(A, "exchanged", "< probability", "> probability"),
    changed(A, "half of them", "< probability", "< probability / 2"),
    changed(A, "parts of a caption", "len(states), 1, 1", "*states.shape"),
    changed(A, "tokens of a caption", "len(states), 1, 1", "*states.shape[:2], 1"),
    changed(A, "one choice for all", "len(states), 1, 1", "1"),
    changed(A, "neighbors together", DRAWN, f"({DRAWN})[::2].repeat_interleave(2, 0)"),
    changed(A, "without the generator", ", generator=generator", ""),
    changed(A, "other seed", "generator=generator", "generator=generator.manual_seed(0)"),
    changed(A, "value of the lesson", "< probability", "< 0.1"),
    changed(A, "zeros", "(dropped, empty, states)", "(dropped, 0 * empty, states)"),
    changed(A, "float16", "empty, states)", "empty, states).half().float()"),
    rewritten(A, "in place", f"states[({DRAWN})[:, 0, 0]] = empty[0]\nreturn states"),
    rewritten(A, "captions left out", f"return states[~({DRAWN})[:, 0, 0]]"),
    rewritten(A, "nothing", "return states"),
]
LOSS = [
    changed(B, "noise as the target", "(output - v)", "(output - noise)"),
    changed(B, "image as the target", "(output - v)", "(output - x_0)"),
    changed(B, "wrong sign in v", "noise - (1", "noise + (1"),
    changed(B, "v negative", V, V.replace("v =", "v = -1 *")),
    changed(B, "roots of v exchanged", V, "v = (1 - a).sqrt() * noise - a.sqrt() * x_0"),
    changed(B, "roots exchanged", X_T, "x_t = (1 - a).sqrt() * x_0 + a.sqrt() * noise"),
    changed(B, "no roots", X_T, "x_t = a * x_0 + (1 - a) * noise"),
    changed(B, "noise too strong", X_T, "x_t = a.sqrt() * x_0 + noise"),
    changed(B, "clean latents", "unet(x_t", "unet(x_0"),
    changed(B, "first timestep missing", "randint(0", "randint(1"),
    changed(B, "last timestep missing", "len(alpha_bar)", "len(alpha_bar) - 1"),
    changed(B, "one timestep", TIMES, f"{TIMES}[:1].expand(len(x_0))"),
    changed(B, "late timesteps", TIMES, f"({TIMES} ** 2 // len(alpha_bar))"),
    changed(B, "alpha_bar of the next", "alpha_bar[t]", "alpha_bar.roll(-1)[t]"),
    changed(B, "uniform noise", "torch.randn", "torch.rand"),
    changed(B, "strong noise", f"noise = {NOISE}", f"noise = 1.3 * {NOISE}"),
    changed(B, "one noise", NOISE, "torch.randn(x_0[:1].shape, generator=generator)"),
    changed(B, "noise without the generator", NOISE, "torch.randn_like(x_0)"),
    changed(B, "timesteps without the generator", TIMES, TIMES.replace(", generator=gen", ")#")),
    changed(B, "other seed", "generator=generator", "generator=generator.manual_seed(0)"),
    changed(B, "no captions", "=states)", "=torch.zeros_like(states))"),
    changed(B, "sum", ".mean()", ".sum()"),
    changed(B, "sum over an image", ERROR, "(output - v).square().flatten(1).sum(1).mean()"),
    changed(B, "absolute error", ".square()", ".abs()"),
    changed(B, "root", ".square().mean()", ".square().mean().sqrt()"),
    changed(B, "weighted", ERROR, "(a * (output - v).square()).mean()"),
    changed(B, "weighted by SNR", ERROR, "((a / (1 - a)).clamp(max=5) * (output - v) ** 2).mean()"),
    changed(B, "detached output", ".sample", ".sample.detach()"),
    changed(B, "no gradient", f"return {ERROR}", f"return {ERROR}.item()"),
    changed(B, "float16", ERROR, "(output - v).half().square().mean().float()"),
]
STEP = [
    changed(C, "zero_grad missing", "optimizer.zero_grad()\n", "pass\n"),
    changed(C, "clip missing", CLIP, "pass"),
    changed(
        C, "clip after the step", f"{CLIP}\n    optimizer.step()", f"optimizer.step()\n    {CLIP}"
    ),
    changed(C, "values clipped", "clip_grad_norm_", "clip_grad_value_"),
    changed(C, "clipped to 2", "1.0", "2.0"),
    changed(C, "step missing", "optimizer.step()", "pass"),
    changed(C, "two steps", "optimizer.step()\n", "optimizer.step()\n    optimizer.step()\n"),
    changed(C, "average missing", AVERAGE, "pass"),
    changed(C, "average before the step", "optimizer.step()", f"{AVERAGE}; optimizer.step()"),
    changed(C, "average copied back", AVERAGE, f"{AVERAGE}; ema.copy_to(unet.parameters())"),
    changed(C, "tensor", "loss.item()", "loss"),
    changed(C, "uphill", "loss.backward()", "(-loss).backward()"),
    changed(C, "no return", "return loss.item()", "loss.item()"),
    changed(
        C, "gradients cleared too late", "loss.backward()", "loss.backward(); unet.zero_grad()"
    ),
]
SAMPLE = [
    changed(D, "exchanged", "*output.chunk(2)", "*output.chunk(2)[::-1]"),
    changed(
        D,
        "embeddings exchanged",
        "[empty.expand_as(states), states]",
        "[states, empty.expand_as(states)]",
    ),
    changed(D, "unguided", GUIDED, "output.chunk(2)[1]"),
    changed(D, "guided from the caption", GUIDED, "guide(*output.chunk(2), guidance_scale + 1)"),
    changed(D, "negative scale", ", guidance_scale)\n", ", -guidance_scale)\n"),
    changed(D, "predicts noise", '"v_prediction"', '"epsilon"'),
    changed(D, "last step missing", ", END]", "]"),
    changed(D, "one step more", "config, count)", "config, count + 1)"),
    changed(
        D,
        "alpha_bar 1 at the end",
        "alpha_bar_at(scheduler, t_prev)",
        "alpha_bar_at(scheduler, t_prev) ** (t_prev != END)",
    ),
    changed(D, "noise as strong as before", "noise, now, then)", "noise, now, now)"),
    changed(D, "alpha_bars exchanged", "noise, now, then)", "noise, then, now)"),
    changed(D, "steps from x_T", "torch.cat([x_t, x_t])", "torch.cat([x_T, x_T])"),
    changed(
        D,
        "evenly spaced",
        "timesteps(scheduler.config, count)",
        "range(len(scheduler.betas) - 1, 0, -len(scheduler.betas) // count)",
    ),
    changed(
        D,
        "timesteps rising",
        "*timesteps(scheduler.config, count)",
        "*timesteps(scheduler.config, count)[::-1]",
    ),
    changed(D, "values of the lesson", GUIDED, "guide(*output.chunk(2), 3.0)"),
    changed(
        D,
        "in place",
        "x_t = x_T",
        "x_t = x_T.mul_(1)",
        "x_t = ddim_step(x_0, noise, now, then)",
        "x_t.copy_(ddim_step(x_0, noise, now, then))",
    ),
    changed(D, "float16", "return x_t", "return x_t.half().float()"),
    changed(D, "clipped", "x_t = ddim_step(x_0", "x_t = ddim_step(x_0.clamp(-1, 1)"),
    changed(D, "no no_grad", "@torch.no_grad()\n", ""),
]
WRONG = [*DROPOUT, *LOSS, *STEP, *SAMPLE]

HARMLESS = [
    rewritten(
        A,
        "vector of choices",
        """
dropped = torch.rand(len(states), generator=generator) < probability
return torch.where(dropped[:, None, None], empty, states)
""",
    ),
    rewritten(
        A,
        "loop",
        """
choices = torch.rand(states.shape[0], generator=generator).tolist()
rows = [empty[0] if choice < probability else row for choice, row in zip(choices, states)]
return torch.stack(rows)
""",
    ),
    rewritten(
        A,
        "bernoulli",
        """
kept = torch.bernoulli(torch.full((len(states),), 1.0 - probability), generator=generator)
result = states.clone()
result[kept == 0] = empty
return result
""",
    ),
    rewritten(
        A,
        "multiplied",
        """
if generator is None:
    raise ValueError("no generator")
keep = (torch.rand((len(states), 1, 1), generator=generator) >= probability).float()
print("share:", keep.mean())
return keep * states + (1 - keep) * empty
""",
    ),
    rewritten(
        B,
        "noise before timesteps",
        """
noise = torch.randn(*x_0.shape, generator=generator)
t = torch.randint(alpha_bar.shape[0], (x_0.shape[0],), generator=generator)
now = alpha_bar[t][:, None, None, None]
x_t = now**0.5 * x_0 + (1 - now) ** 0.5 * noise
v = now**0.5 * noise - (1 - now) ** 0.5 * x_0
return torch.nn.functional.mse_loss(unet(x_t, t, states).sample, v)
""",
    ),
    rewritten(
        B,
        "float64 and tuples",
        """
B = x_0.size(0)
t = (torch.rand(B, generator=generator, dtype=torch.float64) * len(alpha_bar)).long()
noise = torch.empty(x_0.shape).normal_(generator=generator)
a = alpha_bar.double()[t].view(B, 1, 1, 1)
x_t = (a.sqrt() * x_0 + (1 - a).sqrt() * noise).to(x_0.dtype)
(output,) = unet(x_t, t, encoder_hidden_states=states, return_dict=False)
v = a.sqrt() * noise.double() - (1 - a).sqrt() * x_0.double()
return ((output - v) ** 2).mean().float()
""",
    ),
    rewritten(
        B,
        "one image at a time",
        """
losses = []
for image, text in zip(x_0, states):
    t = torch.randint(0, len(alpha_bar), (1,), generator=generator)
    noise = torch.randn(image[None].shape, generator=generator)
    a, b = alpha_bar[t].sqrt(), (1 - alpha_bar[t]).sqrt()
    output = unet(a * image[None] + b * noise, t, encoder_hidden_states=text[None]).sample
    losses.append((output - (a * noise - b * image[None])).square().mean())
return sum(losses) / len(losses)
""",
    ),
    rewritten(
        B,
        "mean of means",
        """
t = torch.randint(0, len(alpha_bar), (len(x_0),), generator=generator)
noise = torch.randn(x_0.shape, generator=generator)
a, b = (table[t].reshape(-1, 1, 1, 1) for table in (alpha_bar.sqrt(), (1 - alpha_bar).sqrt()))
output = unet(a * x_0 + b * noise, t, encoder_hidden_states=states).sample
difference = b * x_0 - a * noise + output
return difference.pow(2).mean((1, 2, 3)).mean()
""",
    ),
    rewritten(
        C,
        "network cleared",
        """
for weight in unet.parameters():
    weight.grad = None
loss.backward()
norm = torch.nn.utils.clip_grad_norm_(list(unet.parameters()), max_norm=1)
optimizer.step()
ema.step(unet.parameters())
return float(loss)
""",
    ),
    rewritten(
        C,
        "gradients set and checked",
        """
optimizer.zero_grad(set_to_none=False)
loss.backward()
torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
if not torch.isfinite(loss):
    print("the loss is not finite")
optimizer.step()
ema.step(unet.parameters())
value = loss.detach().item()
return value
""",
    ),
    rewritten(
        D,
        "two calls",
        """
x_t = x_T.clone()
visited = list(timesteps(scheduler.config, count)) + [END]
for i in range(count):
    uncond = unet(x_t, visited[i], encoder_hidden_states=empty.repeat(len(x_t), 1, 1)).sample
    cond = unet(x_t, visited[i], encoder_hidden_states=states).sample
    output = uncond + guidance_scale * (cond - uncond)
    a, b = alpha_bar_at(scheduler, visited[i]), alpha_bar_at(scheduler, visited[i + 1])
    x_0 = a.sqrt() * x_t - (1 - a).sqrt() * output
    noise = (1 - a).sqrt() * x_t + a.sqrt() * output
    x_t = b.sqrt() * x_0 + (1 - b).sqrt() * noise
return x_t
""",
    ),
    rewritten(
        D,
        "progress bar",
        """
from tqdm.auto import tqdm

x_t, embeddings = x_T, torch.cat([states, empty.expand_as(states)])
chosen = timesteps(scheduler.config, count)
for i, t in enumerate(tqdm(chosen, leave=False)):
    times = torch.full((2 * len(x_t),), t)
    cond, uncond = unet(x_t.repeat(2, 1, 1, 1), times, embeddings, return_dict=False)[0].chunk(2)
    now = alpha_bar_at(scheduler, t)
    then = alpha_bar_at(scheduler, chosen[i + 1] if i + 1 < count else END)
    output = guide(uncond, cond, guidance_scale)
    x_t = ddim_step(*predict_x0_and_noise(x_t, output, now, "v_prediction"), now, then)
return x_t
""",
    ),
]
