"""The text and the image tower: a small CLIP (Radford et al. 2021), trained on the pool.

Its text tower conditions the denoiser; its image tower gives CLIP scores and the features of the
perceptual distance. Each image has to prefer its caption to those of the batch, and to a hard
negative.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from course.metrics.preprocess import resize
from pocket.world import render

from . import loop
from .images import augment, normalize, to_float, write_processor
from .pool import Pool
from .run import Run
from .scenes import TEST_SEED, caption_pair, sample_all, worker_count
from .tokenizer import LENGTH, encode, load

SIZE = 128
BATCH = 1024
WIDTH = 256  # of the text tower: the denoiser's cross_attention_dim
MAX_SCALE = 100.0  # of the logits, as in CLIP


def build(tokenizer: CLIPTokenizer, smoke: bool = False) -> CLIPModel:
    """Return both untrained towers: 3.5 M parameters for text, 3.2 M for images."""
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LENGTH,
        "hidden_act": "gelu",
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": 4,
        "num_hidden_layers": 1 if smoke else 4,
        "projection_dim": 256,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "image_size": SIZE,
        "patch_size": 16 if smoke else 8,
        "hidden_act": "gelu",
        "hidden_size": 48 if smoke else 192,
        "intermediate_size": 96 if smoke else 768,
        "num_attention_heads": 3,
        "num_hidden_layers": 3 if smoke else 7,
        "projection_dim": 256,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=256))


def gather(features: Tensor) -> Tensor:
    """Return the features (B, ...) of all W processes by rank, (W * B, ...), differentiable."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return features
    return torch.cat(all_gather(features))


def hash_rows(tokens: Tensor) -> Tensor:
    """Return an int64 hash of each row of token ids (B, LENGTH)."""
    factors = torch.arange(1, tokens.shape[1] + 1, device=tokens.device) * 0x9E3779B97F4A7C1 | 1
    mixed = (tokens + 1) * factors
    return (mixed ^ (mixed >> 29)).mul(0x5851F42D4C957F2D).sum(dim=1)


def contrastive_loss(
    image: Tensor, text: Tensor, negative: Tensor, tokens: Tensor, scale: Tensor
) -> dict[str, Tensor]:
    """Return the symmetric contrastive loss over the batches of all processes.

    Captions with the same ids are no negatives of each other. "top1" is the accuracy with which
    images find their caption, "pair" that with which they prefer it to the hard negative.

    Args:
        image, text, negative: features (B, D) of length 1 of images, captions, hard negatives.
        tokens: ids of the captions, (B, LENGTH).
        scale: of the logits, ().
    """
    texts, images = gather(text), gather(image)  # (W*B, D)
    hashes = hash_rows(tokens)
    rank = torch.distributed.get_rank() if len(texts) > len(text) else 0
    own = torch.arange(len(text), device=text.device) + rank * len(text)  # (B,)
    is_other = own[:, None] != torch.arange(len(texts), device=text.device)  # (B, W*B)
    is_same_caption = is_other & (hashes[:, None] == gather(hashes))  # (B, W*B)
    by_image = (scale * image @ texts.T).masked_fill(is_same_caption, -torch.inf)
    by_text = (scale * text @ images.T).masked_fill(is_same_caption, -torch.inf)
    hard = scale * (image * negative).sum(dim=1, keepdim=True)  # (B, 1)
    right = by_image.gather(1, own[:, None])  # (B, 1)
    logits = torch.cat([by_image, hard], dim=1)
    loss = (F.cross_entropy(logits, own) + F.cross_entropy(by_text, own)) / 2
    return {
        "loss": loss,
        "top1": (logits.argmax(1) == own).float().mean(),
        "pair": (right > hard).float().mean(),
    }


def main(run: Run) -> None:
    """Train both towers on WORK/data; write WORK/towers/weights, with the tokenizer."""
    batch = run.batch or (8 if run.smoke else BATCH)
    pool = Pool(run, size=SIZE)
    tokenizer = load(run.work / "tokenizer", *([run.weights_of("towers")] if run.init else []))
    torch.manual_seed(run.seed)
    model = run.load(CLIPModel) if run.init else build(tokenizer, run.smoke)
    model.to(run.device)

    def loss_fn(network: nn.Module, step: int, fraction: float) -> dict[str, Tensor]:
        images, indices = pool.sample(batch, run.generator)
        tokens, negatives = pool.captions(indices, run.generator)
        pixels = normalize(augment(to_float(images), run.generator))
        output = network(input_ids=torch.cat([tokens, negatives]), pixel_values=pixels)
        # bfloat16 is too coarse for scaled cosines.
        with torch.autocast(run.device.type, enabled=False):
            text, negative = F.normalize(output.text_embeds.float(), dim=1).chunk(2)
            image = F.normalize(output.image_embeds.float(), dim=1)
            scale = model.logit_scale.clamp(max=math.log(MAX_SCALE)).exp()
            return contrastive_loss(image, text, negative, tokens, scale)

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_processor(folder, SIZE)

    settings = loop.Settings(8_000, minutes=5.0, warmup=300)
    optimizer = loop.adamw(model, lr=1e-3, weight_decay=0.05, betas=(0.9, 0.98))
    loop.train(run, model, optimizer, loss_fn, save, settings)
    if run.is_main:
        result = measure(model, tokenizer, run.device, 4 if run.smoke else 2000)
        listed = ", ".join(f"{field} {100 * value:.1f} %" for field, value in result.items())
        run.log(f"prefers the caption to its hard negative: {listed}")
        (run.folder / "pairs.json").write_text(json.dumps(result, indent=2))


@torch.no_grad()
def measure(
    model: CLIPModel, tokenizer: CLIPTokenizer, device: torch.device, count: int
) -> dict[str, float]:
    """Return how often a new render prefers its caption to the hard negative, by changed field."""
    scenes = sample_all(range(TEST_SEED, TEST_SEED + count), workers=worker_count())
    rng = np.random.default_rng(0)
    pairs = [caption_pair(record, rng) for record in scenes.labels]
    captions, negatives = (
        torch.from_numpy(encode(tokenizer, [pair[k] for pair in pairs])).long() for k in (0, 1)
    )
    samples = 4 if count > 100 else 1
    is_right = []
    for i in range(0, count, 250):
        rows = slice(i, i + 250)
        images = render(scenes.params[rows], samples=samples, device=device).color
        pixels = normalize(resize(to_float(images), (SIZE, SIZE)))
        ids = torch.cat([captions[rows], negatives[rows]]).to(device)
        # forward, not a call: the model compiled for training would be compiled again.
        output = model.forward(input_ids=ids, pixel_values=pixels)
        right, wrong = (output.text_embeds @ output.image_embeds.T).chunk(2)  # (n, n) each
        is_right.append((right.diagonal() > wrong.diagonal()).cpu())
    hits = torch.cat(is_right).numpy()
    fields = np.array([pair[2] for pair in pairs])
    by_field = {field: float(hits[fields == field].mean()) for field in sorted(set(fields))}
    return {"all": float(hits.mean())} | by_field
