"""How different two images look: channel weights on the image tower's features (Zhang et al. 2018).

The weights are learned without human judgments: of one kind of distortion the stronger one must be
farther away, and another scene farther than any of them. `course.metrics.PerceptualDistance` loads
the result.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPModel, CLIPVisionModel

from course.metrics.perceptual import layer_distances, tower_features
from course.metrics.preprocess import resize

from . import loop
from .distortions import DISTORTIONS, distances_by_strength, monotonicity, triplets
from .images import normalize, to_float
from .pool import Pool
from .run import Run

BATCH = 128
UNRELATED = 0.7  # mean distance of two unrelated images, about what the lpips package gives them
MARGIN = 4.0  # how sharply the ranking loss requires a relative difference


class PerceptualModel(nn.Module):
    """The distance with trainable weights, of images (N, 3, H, W) in [-1, 1].

    Args:
        tower: CLIP's image tower; frozen.
        layers: which of its hidden states to use; 0 is the embedded patches.
    """

    def __init__(self, tower: CLIPVisionModel, layers: Sequence[int]) -> None:
        super().__init__()
        self.tower = tower.requires_grad_(False).eval()
        self.layers = list(layers)
        self.image_size = tower.config.image_size
        # softplus keeps the weights positive; clamping would leave some of them stuck at 0.
        start = torch.full((tower.config.hidden_size,), math.log(math.expm1(1.0)))
        self.raw = nn.ParameterList(nn.Parameter(start.clone()) for _ in layers)

    def load_heads(self, folder: Path) -> None:
        """Load the weights that an earlier run saved."""
        heads = load_file(folder / "heads.safetensors")
        for raw, layer in zip(self.raw, self.layers, strict=True):
            weight = heads[f"layer_{layer}"].float()
            raw.data = weight.clamp(min=1e-8).expm1().log()  # the inverse of softplus

    def train(self, mode: bool = True) -> "PerceptualModel":
        super().train(mode)
        self.tower.eval()
        return self

    def weights(self) -> list[Tensor]:
        """Return the weights (C,) of each layer, all positive."""
        return [F.softplus(raw) for raw in self.raw]

    def forward(self, in0: Tensor, in1: Tensor) -> Tensor:
        """Return the distance (N, 1, 1, 1); differentiable in both images."""
        size = (self.image_size, self.image_size)
        x, y = (tower_features(self.tower, resize(i, size), self.layers) for i in (in0, in1))
        return torch.stack(layer_distances(x, y, self.weights())).sum(dim=0)


def ranking_loss(near: Tensor, far: Tensor) -> Tensor:
    """Return the mean softplus of how far near < far is violated, relative to the sum of both.

    near, far: distances (N,).
    """
    return F.softplus(-MARGIN * (far - near) / (far + near + 1e-8)).mean()


def main(run: Run) -> None:
    """Train the channel weights on WORK/data and the image tower; write WORK/perceptual/weights."""
    pool = Pool(run, size=128)
    tower = run.load(CLIPModel, "towers").vision_model
    depth = tower.config.num_hidden_layers
    model = PerceptualModel(tower, sorted({0, 1, depth // 2, depth - 1}))
    if run.init:
        model.load_heads(run.weights_of("perceptual"))
    model.to(run.device)
    names = list(DISTORTIONS)
    batch = run.batch or (4 if run.smoke else BATCH)

    def sample(count: int, generator: torch.Generator) -> Tensor:
        return normalize(to_float(pool.sample(count, generator)[0])).contiguous()

    def fixed_sample(seed: int) -> Tensor:
        return sample(min(len(pool), 64), torch.Generator(run.device).manual_seed(seed))

    def loss_fn(network: nn.Module, step: int, fraction: float) -> dict[str, Tensor]:
        images = sample(batch, run.generator)
        with torch.autocast(run.device.type, enabled=False):  # bfloat16 hides weak distortions
            near, far = triplets(images, names[step % len(names)], run.generator)
            x = torch.cat([images] * 3)
            y = torch.cat([near, far, images.roll(1, dims=0)])
            near, far, other = network(x, y).flatten().chunk(3)  # (B,) each
        losses = {"order": ranking_loss(near, far), "other": ranking_loss(far, other)}
        right = (near < far).float().mean()
        return {"loss": losses["order"] + 0.5 * losses["other"], **losses, "right": right}

    def save(folder: Path) -> None:
        with torch.no_grad():
            images = fixed_sample(0)
            # forward, not a call: the network compiled for training is left as it is.
            scale = UNRELATED / model.forward(images, images.roll(1, dims=0)).mean()
            pairs = zip(model.layers, model.weights(), strict=True)
            heads = {f"layer_{layer}": (scale * weight).cpu() for layer, weight in pairs}
        save_file(heads, folder / "heads.safetensors")
        config = {"layers": model.layers, "image_size": model.image_size}
        (folder / "config.json").write_text(json.dumps(config))

    settings = loop.Settings(1_400, minutes=2.0, warmup=50)
    optimizer = loop.adamw(model, lr=1e-2, weight_decay=0.0)
    loop.train(run, model, optimizer, loss_fn, save, settings)
    if run.is_main:
        distances = distances_by_strength(model.forward, fixed_sample(1))
        listed = ", ".join(f"{name} {monotonicity(d):.1f} %" for name, d in distances.items())
        run.log(f"distances that grow with the distortion: {listed}")
