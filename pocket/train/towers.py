"""The text and the image tower: a small CLIP (Radford et al. 2021), trained from scratch on the pool.

Its text tower conditions the denoiser; its image tower gives CLIP scores and the features of the perceptual
distance. Beside the batch's other captions each image must tell its own caption from one with one thing wrong.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from pocket.train.data import (
    TEST_SEED,
    Pool,
    augment,
    contrast,
    resize,
    scenes_to_arrays,
    to_float,
    to_input,
    workers_here,
    write_processor,
)
from pocket.train.tokenizer import LENGTH, encode, load
from pocket.world import render

from . import loop
from .run import Run

SIZE = 128
BATCH = 1024
WIDTH = 256  # of the text tower: the denoiser's cross_attention_dim
MAX_SCALE = 100.0  # of the logits, as in CLIP


def build(tokenizer: CLIPTokenizer, smoke: bool = False) -> CLIPModel:
    """Both towers with random weights: 3.5 M parameters for text, 3.2 M for images."""
    text = {
        "vocab_size": len(tokenizer), "max_position_embeddings": LENGTH, "hidden_act": "gelu",
        "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 4,
        "num_hidden_layers": 1 if smoke else 4, "projection_dim": 256,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {
        "image_size": SIZE, "patch_size": 16 if smoke else 8, "hidden_act": "gelu",
        "hidden_size": 48 if smoke else 192, "intermediate_size": 96 if smoke else 768, "num_attention_heads": 3,
        "num_hidden_layers": 3 if smoke else 7, "projection_dim": 256,
    }  # fmt: skip
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=256))


def gather(features: Tensor) -> Tensor:
    """(B, ...) of this process to (processes * B, ...) of all, in order of rank; gradients find their way back."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return features
    if not features.is_floating_point():
        parts = [torch.empty_like(features) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, features)
        return torch.cat(parts)
    return torch.cat(all_gather(features))


def keys_of(tokens: Tensor) -> Tensor:
    """One int64 a row of token ids (B, LENGTH): equal rows have equal keys (the others, in practice, different)."""
    factors = torch.arange(1, tokens.shape[1] + 1, device=tokens.device) * 0x9E3779B97F4A7C1 | 1
    mixed = (tokens + 1) * factors
    return (mixed ^ (mixed >> 29)).mul(0x5851F42D4C957F2D).sum(dim=1)


def contrastive_loss(
    image: Tensor, text: Tensor, wrong: Tensor, tokens: Tensor, scale: Tensor
) -> dict[str, Tensor]:
    """The symmetric contrastive loss over the batches of all processes, one wrong caption an image besides.

    image, text, wrong: (B, D) of length 1. tokens: (B, LENGTH), the ids of `text`. scale: (), of the logits.
    Captions with the same ids are no negatives of each other. Beside "loss": the share of images that find
    their caption ("top1"), and that prefer it to the wrong one ("pair").
    """
    texts, images, keys = gather(text), gather(image), gather(keys_of(tokens))  # (W*B, ...)
    rank = torch.distributed.get_rank() if len(texts) > len(text) else 0
    own = torch.arange(len(text), device=text.device) + rank * len(text)  # (B,)
    others = own[:, None] != torch.arange(len(texts), device=text.device)  # (B, W*B)
    same = others & (keys_of(tokens)[:, None] == keys)  # (B, W*B): another pair, but the same words
    by_image = (scale * image @ texts.T).masked_fill(same, -torch.inf)
    by_text = (scale * text @ images.T).masked_fill(same, -torch.inf)
    hard = scale * (image * wrong).sum(dim=1, keepdim=True)  # (B, 1)
    right = by_image.gather(1, own[:, None])  # (B, 1)
    logits = torch.cat([by_image, hard], dim=1)
    loss = (F.cross_entropy(logits, own) + F.cross_entropy(by_text, own)) / 2
    return {
        "loss": loss,
        "top1": (logits.argmax(1) == own).float().mean(),
        "pair": (right > hard).float().mean(),
    }


def main(run: Run) -> None:
    """Trains both towers on WORK/data and writes WORK/towers/weights, the tokenizer with them."""
    batch = run.batch or (8 if run.smoke else BATCH)
    pool = Pool(run.work, run.device, rank=run.rank, world_size=run.processes, size=SIZE)
    tokenizer = load(run.work / "tokenizer", *([run.weights_of("towers")] if run.init else []))
    torch.manual_seed(run.seed)
    model = build(tokenizer, run.smoke)
    if run.init:
        model = CLIPModel.from_pretrained(run.weights_of("towers"), dtype=torch.float32)
    model.to(run.device)

    def loss_fn(net: nn.Module, step: int, fraction: float) -> dict[str, Tensor]:
        images, indices = pool.sample(batch, run.generator)
        tokens, opposites = pool.captions(indices, run.generator)
        pixels = to_input(augment(to_float(images), run.generator))
        out = net(input_ids=torch.cat([tokens, opposites]), pixel_values=pixels)
        with torch.autocast(
            run.device.type, enabled=False
        ):  # bfloat16 is too coarse for scaled cosines
            text, wrong = F.normalize(out.text_embeds.float(), dim=1).chunk(2)
            image = F.normalize(out.image_embeds.float(), dim=1)
            scale = model.logit_scale.clamp(max=math.log(MAX_SCALE)).exp()
            return contrastive_loss(image, text, wrong, tokens, scale)

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_processor(folder, SIZE)

    optimizer = loop.adamw(model, lr=1e-3, weight_decay=0.05, betas=(0.9, 0.98))
    limits: dict[str, Any] = (
        {"steps": 4, "minutes": 1.0} if run.smoke else {"steps": 8_000, "minutes": 5.0}
    )
    loop.train(
        run,
        model,
        optimizer,
        loss_fn,
        save,
        loop.Settings(warmup=1 if run.smoke else 300, **limits),
    )
    if run.is_main:
        found = measure(model, tokenizer, run.device, 4 if run.smoke else 2000)
        run.log(
            "tells a caption from a wrong one: "
            + ", ".join(f"{k} {100 * x:.1f} %" for k, x in found.items())
        )
        (run.folder / "pairs.json").write_text(json.dumps(found, indent=2))
    run.accelerator.wait_for_everyone()


@torch.no_grad()
def measure(
    model: CLIPModel, tokenizer: CLIPTokenizer, device: torch.device, scenes: int
) -> dict[str, float]:
    """How often a fresh render prefers its caption to one with one thing wrong, by the thing ("swap": the objects)."""
    fresh = scenes_to_arrays(range(TEST_SEED, TEST_SEED + scenes), workers=workers_here())
    rng = np.random.default_rng(0)
    pairs = [contrast(record, rng) for record in fresh.labels]
    ids = [
        torch.from_numpy(encode(tokenizer, [pair[k] for pair in pairs])).long().to(device)
        for k in (0, 1)
    ]
    samples, hits = (4 if scenes > 100 else 1), []
    for i in range(0, scenes, 250):
        images = render(fresh.params[i : i + 250], samples=samples, device=device).color
        pixels = to_input(resize(to_float(images), SIZE))
        # forward, not a call: a model that was compiled for training is not compiled again for this.
        out = model.forward(
            input_ids=torch.cat([part[i : i + 250] for part in ids]), pixel_values=pixels
        )
        right, wrong = (out.text_embeds @ out.image_embeds.T).chunk(2)  # (n, n) each
        hits.append((right.diagonal() > wrong.diagonal()).cpu())
    hit, fields = torch.cat(hits).numpy(), np.array([pair[2] for pair in pairs])
    return {"all": float(hit.mean())} | {
        field: float(hit[fields == field].mean()) for field in sorted(set(fields))
    }
