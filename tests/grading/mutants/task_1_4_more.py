"""Answers to the lesson on training, from its measurements to its batches."""

from tests.grading.mutants import changed, rewritten

E, F = "1.4 (g)", "1.4 (i)"
J = "1.4 challenge 1"
G, H = "1.4 (h)", "1.4 (b)"
I = "1.4 (f)"

CHOICE = "indices[torch.randint(len(indices), (BATCH,), generator=generator)]"
CAPTIONS = "states[caption_index[chosen]]"
DISTANCES = "torch.cdist(samples.flatten(1), latents.flatten(1))"
COUNT = 'right += read["object"] == toy and read["color"] == color'

OTHERS = [
    changed(E, "one of both", " and ", " or "),
    changed(E, "toys alone", ' and read["color"] == color', ""),
    changed(E, "colors alone", 'read["object"] == toy and ', ""),
    changed(E, "percent", "right / len(pairs)", "100 * right / len(pairs)"),
    changed(E, "count", "right / len(pairs)", "right"),
    changed(E, "attributes counted", "right / len(pairs)", "right / (2 * len(pairs))"),
    changed(
        E,
        "shares multiplied",
        COUNT,
        'right += (read["object"] == toy) * 0.5 + (read["color"] == color) * 0.5',
    ),
    changed(E, "one less", "len(pairs)\n", "(len(pairs) - 1)\n"),
    changed(E, "captions of the lesson", "len(pairs)\n", "48\n"),
    changed(F, "farthest", "argmin", "argmax"),
    changed(F, "other axis", "dim=1", "dim=0"),
    changed(F, "distances", "argmin(dim=1)", "amin(dim=1)"),
    changed(F, "sum of the differences", DISTANCES, f"{DISTANCES[:-1]}, p=1)"),
    changed(F, "largest difference", DISTANCES, f"{DISTANCES[:-1]}, p=float('inf'))"),
    changed(F, "scalar product", DISTANCES, "-samples.flatten(1) @ latents.flatten(1).T"),
    changed(
        F,
        "first channel",
        DISTANCES,
        "torch.cdist(samples[:, 0].flatten(1), latents[:, 0].flatten(1))",
    ),
    changed(F, "axis kept", "argmin(dim=1)", "argmin(dim=1, keepdim=True)"),
    changed(F, "values of the lesson", "argmin(dim=1)", "argmin(dim=1).clamp(max=8)"),
    changed(G, "noise as the target", "(output - v)", "(output - noise)"),
    changed(G, "clean latents", "unet(x_t, t", "unet(x_0, t"),
    changed(G, "off by one", "unet(x_t, t,", "unet(x_t, t + 1,"),
    changed(
        G,
        "alpha_bar of the step before",
        "(x_0, noise, alpha_bar[t])",
        "(x_0, noise, alpha_bar[t - 1])",
    ),
    changed(G, "image and noise exchanged", "add_noise(x_0, noise", "add_noise(noise, x_0"),
    changed(G, "v of the noise", "velocity(x_0, noise", "velocity(noise, x_0"),
    changed(
        G,
        "new noise",
        "x_t = add_noise(x_0, noise",
        "noise = torch.randn_like(x_0)\n    x_t = add_noise(x_0, noise",
    ),
    changed(G, "sum", ".mean()", ".sum()"),
    changed(G, "root", ".mean().item()", ".mean().sqrt().item()"),
    changed(G, "tensor", ".item()", ""),
    changed(G, "float16", "(output - v)", "(output - v).half()"),
    changed(G, "no captions", "=states)", "=0 * states)"),
    changed(
        H,
        "blocks up in the wrong order",
        '("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D")',
        '("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D")',
    ),
    changed(H, "no attention on the way up", '"CrossAttnUpBlock2D"', '"UpBlock2D"'),
    changed(H, "two layers", "layers_per_block=1", "layers_per_block=2"),
    changed(H, "heads", "attention_head_dim=4", "attention_head_dim=8"),
    changed(H, "groups", "norm_num_groups=16", "norm_num_groups=32"),
    changed(
        H,
        "a block in the middle",
        "mid_block_type=None",
        'mid_block_type="UNetMidBlock2DCrossAttn"',
    ),
    changed(H, "size of the latents", "sample_size=16", "sample_size=32"),
    changed(H, "width of the lesson", "=width", "=64"),
    changed(H, "channels backwards", "(32, 64, 96)", "(96, 64, 32)"),
]
BATCHES = [
    changed(I, "positions as numbers", CHOICE, CHOICE[len("indices[") : -1]),
    changed(I, "captions of other images", CAPTIONS, "states[caption_index[chosen.flip(0)]]"),
    changed(I, "captions by image", CAPTIONS, "states[chosen % len(states)]"),
    changed(I, "no dropout", "DROPOUT, generator)", "0.0, generator)"),
    changed(I, "dropout of the lesson", "DROPOUT, generator)", "0.1, generator)"),
    changed(I, "batch of the lesson", "(BATCH,)", "(32,)"),
    changed(I, "first images", CHOICE, "indices.repeat(BATCH)[:BATCH]"),
    changed(I, "all images", "indices[torch.randint(len(indices)", "every_image[torch.randint(24"),
    changed(I, "first one missing", "torch.randint(len(indices)", "torch.randint(1, len(indices)"),
    changed(I, "other generator", "(BATCH,), generator=generator)", "(BATCH,))"),
    changed(I, "captions not dropped", "batch_states, alpha_bar", f"{CAPTIONS}, alpha_bar"),
    changed(I, "no step", "return take_step(loss, unet, optimizer, ema)", "return loss.item()"),
    changed(I, "no return", "return take_step", "take_step"),
    changed(I, "loss twice as large", "take_step(loss", "take_step(2 * loss"),
    changed(I, "one image for all", CHOICE, f"{CHOICE.replace('BATCH', '1')}.expand(BATCH)"),
]
CHALLENGE = [
    changed(J, "no training", "    train_on(every", "    continue\n    train_on(every"),
    changed(J, "images of before", "better_images = decode(better)\n", "better_images = images\n"),
    changed(J, "sampled from the old network", "better = sample(better,", "better = sample(unet,"),
    changed(
        J,
        "another order",
        "better_images = decode(better)\n",
        "better_images = decode(better.flip(0))\n",
    ),
    changed(
        J,
        "an image missing",
        "better_images = decode(better)\n",
        "better_images = decode(better)[1:]\n",
    ),
    changed(
        J,
        "one caption",
        "(better, scheduler, states",
        "(better, scheduler, states[:1].expand_as(states)",
    ),
    changed(
        J,
        "empty captions",
        "(better, scheduler, states",
        "(better, scheduler, empty.expand_as(states)",
    ),
    changed(J, "no time", "seconds = time.perf_counter() - start", "seconds = 0.0"),
    changed(J, "too long", "seconds = time.perf_counter() - start", "seconds = 200.0"),
    changed(J, "first image for all", "= decode(better)\n", "= decode(better)[:1] * 48\n"),
]
WRONG = [*OTHERS, *BATCHES, *CHALLENGE]

HARMLESS = [
    rewritten(
        E,
        "mean",
        """
matches = [
    (read["object"], read["color"]) == tuple(pair)
    for read, pair in zip(attributes, pairs, strict=True)
]
return sum(matches) / max(1, len(matches))
""",
    ),
    rewritten(
        E,
        "by index",
        """
import numpy as np

hits = np.zeros(len(pairs))
for i, (toy, color) in enumerate(pairs):
    if attributes[i]["object"] == toy:
        if attributes[i]["color"] == color:
            hits[i] = 1
return hits.mean()
""",
    ),
    rewritten(
        F,
        "differences",
        """
differences = samples[:, None].double() - latents[None].double()  # (B, N, 4, h, w)
return differences.square().sum((2, 3, 4)).argmin(1)
""",
    ),
    rewritten(
        F,
        "loop",
        """
indices = []
for one in samples:
    indices.append(int((latents - one).flatten(1).norm(dim=1).argmin()))
return torch.tensor(indices)
""",
    ),
    rewritten(
        G,
        "own formulas",
        """
a = alpha_bar[t]
x_t = a.sqrt() * x_0 + (1 - a).sqrt() * noise
times = torch.full((len(x_0),), int(t))
(output,) = unet(x_t, times, states, return_dict=False)
error = output - a.sqrt() * noise + (1 - a).sqrt() * x_0
return float((error.double() ** 2).sum() / error.numel())
""",
    ),
    rewritten(
        G,
        "one image at a time",
        """
a, total = alpha_bar[t], 0.0
for x, e, text in zip(x_0.split(1), noise.split(1), states.split(1)):
    output = unet(add_noise(x, e, a), t, encoder_hidden_states=text).sample
    total += torch.nn.functional.mse_loss(output, velocity(x, e, a)).item()
return total / len(x_0)
""",
    ),
    rewritten(
        H,
        "from a dictionary",
        """
settings = {"sample_size": 16, "in_channels": 4, "out_channels": 4, "norm_num_groups": 16}
settings |= {"block_out_channels": [32, 64, 96], "layers_per_block": 1, "attention_head_dim": 4}
down = ["DownBlock2D"] * 2 + ["CrossAttnDownBlock2D"]
up = [name.replace("Down", "Up") for name in reversed(down)]
unet = UNet2DConditionModel(
    down_block_types=down,
    up_block_types=up,
    mid_block_type=None,
    cross_attention_dim=width,
    **settings,
)
print(sum(weight.numel() for weight in unet.parameters()))
return unet.train()
""",
    ),
    rewritten(
        I,
        "caption by caption",
        """
positions = torch.randint(0, len(indices), (BATCH,), generator=generator)
chosen = torch.stack([indices[i] for i in positions])
texts = torch.stack([states[caption_index[i]] for i in chosen])
texts = drop_captions(texts, empty, DROPOUT, generator)
x_0 = torch.index_select(data.latents, 0, chosen)
return take_step(training_loss(unet, x_0, texts, alpha_bar, generator), unet, optimizer, ema)
""",
    ),
    rewritten(
        I,
        "by a permutation of many",
        """
weights = torch.ones(len(indices))
chosen = indices[torch.multinomial(weights, BATCH, replacement=True, generator=generator)]
texts = states[caption_index][chosen]
dropped = torch.rand(BATCH, 1, 1, generator=generator) < DROPOUT
texts = torch.where(dropped, empty, texts)
loss = training_loss(unet, data.latents[chosen], texts, alpha_bar, generator)
result = take_step(loss, unet, optimizer, ema)
return result
""",
    ),
    changed(J, "small steps", "2e-3 * (1 - i / count)", "2e-4"),
    changed(
        J,
        "large steps, guided more",
        "2e-3",
        "8e-3",
        "empty, x_T, 2 * STEPS, GUIDANCE_SCALE",
        "empty, x_T, STEPS, 6.0",
    ),
    changed(J, "larger batches", "count = 1", "BATCH = 64\ncount = 1"),
    changed(J, "no average", "better_ema.copy_to(better.parameters())", "print('trained')"),
    rewritten(
        J,
        "from random weights",
        """
from tqdm.auto import tqdm

torch.manual_seed(1)
mine = build_unet(states.shape[-1])
adam = torch.optim.Adam(mine.parameters(), lr=3e-3)
average = EMAModel(mine.parameters(), decay=0.9)
start = time.time()
for _ in tqdm(range(TRAINING_STEPS // 3)):
    train_on(every_image, mine, adam, average)
seconds = time.time() - start
with averaged_weights(average, mine):
    noise = torch.randn(x_T.shape, generator=torch.Generator().manual_seed(9))
    better_images = list(decode(sample(mine, scheduler, states, empty, noise, 30, 4.0)))
""",
    ),
    rewritten(
        J,
        "own loss, until the time is over",
        """
better = copy.deepcopy(unet)
adam = torch.optim.AdamW(better.parameters(), lr=1e-3)
start = time.perf_counter()
while time.perf_counter() - start < min(0.3, run.seconds / 3):
    chosen = torch.randint(len(every_image), (48,), generator=generator)
    t = (torch.rand(48, generator=generator) ** 0.5 * len(alpha_bar)).long()
    noise = torch.randn(data.latents[chosen].shape, generator=generator)
    a = alpha_bar[t][:, None, None, None]
    texts = drop_captions(states[caption_index[chosen]], empty, 0.15, generator)
    x_0 = data.latents[chosen]
    output = better(add_noise(x_0, noise, a), t, encoder_hidden_states=texts).sample
    loss = ((1 - a) * (output - velocity(x_0, noise, a)) ** 2).mean()
    adam.zero_grad()
    loss.backward()
    adam.step()
seconds = time.perf_counter() - start
better_images = []
for i in range(len(pairs)):
    latents = sample(better, scheduler, states[i : i + 1], empty, x_T[i : i + 1], 8, 2.0)
    better_images += decode(latents)
""",
    ),
]
