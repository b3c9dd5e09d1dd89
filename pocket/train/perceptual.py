"""How different two images look: channel weights on the image tower's features (Zhang et al. 2018, LPIPS).

The weights are learnt without people: within a kind of distortion the stronger one must be farther away, and
another scene farther than any of them. `course/metrics/perceptual.py` is the same distance for users.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPModel, CLIPVisionModel

from pocket.train.data import Pool, resize, to_float, to_input

from . import loop
from .run import Run

BATCH = 128
UNRELATED = (
    0.7  # the mean distance of two unrelated images: about what the lpips package gives them
)
MARGIN = 4.0  # how sharply the ranking loss asks for a relative difference


class PerceptualDistance(nn.Module):
    """sum over layers l of the mean over positions of w_l . (f_l(x) - f_l(y))^2, f normalised along channels.

    tower: CLIP's image tower; frozen. layers: which of its hidden states, 0 being the embedded patches.
    Equation 1 of Zhang et al. 2018; the weights w_l >= 0 are the only parameters that train.
    """

    def __init__(self, tower: CLIPVisionModel, layers: list[int]) -> None:
        super().__init__()
        self.tower, self.layers = tower.requires_grad_(False).eval(), layers
        width, self.image_size = tower.config.hidden_size, tower.config.image_size
        # softplus keeps the weights positive, and smooth where clamping would leave them stuck at 0.
        start = math.log(math.expm1(1.0))
        self.raw = nn.ParameterList(nn.Parameter(torch.full((width,), start)) for _ in layers)

    @classmethod
    def load(cls, clip: Path, heads: Path) -> "PerceptualDistance":
        """From the folders of the two stages' weights; all of it frozen."""
        tower = CLIPModel.from_pretrained(clip, dtype=torch.float32).vision_model
        distance = cls(tower, json.loads((heads / "config.json").read_text())["layers"])
        for raw, layer in zip(distance.raw, distance.layers, strict=True):
            weight = load_file(heads / "heads.safetensors")[f"layer_{layer}"].float()
            raw.data = weight.clamp(min=1e-8).expm1().log()  # the inverse of softplus
        return distance.requires_grad_(False)

    def train(self, mode: bool = True) -> "PerceptualDistance":
        super().train(mode)
        self.tower.eval()
        return self

    def weights(self) -> list[Tensor]:
        """One (C,) a layer, all positive."""
        return [F.softplus(raw) for raw in self.raw]

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) in [-1, 1] to one (N, positions, C) a layer, each position of length 1."""
        states = self.tower(
            pixel_values=resize(images, self.image_size), output_hidden_states=True
        ).hidden_states
        return [
            F.normalize(states[layer][:, 1:].float(), dim=-1) for layer in self.layers
        ]  # no class token

    def forward(self, in0: Tensor, in1: Tensor) -> Tensor:
        """The distance (N, 1, 1, 1) of images (N, 3, H, W) in [-1, 1]; differentiable in both."""
        pairs = zip(self.features(in0), self.features(in1), self.weights(), strict=True)
        shares = [
            ((x - y).square() * weight).sum(dim=-1).mean(dim=1) for x, y, weight in pairs
        ]  # each (N,)
        return torch.stack(shares).sum(dim=0).view(-1, 1, 1, 1)


def blur(images: Tensor, strength: Tensor) -> Tensor:
    """Gaussian blur, standard deviation 0.3 to 4 % of the width."""
    sigma = (0.003 + 0.037 * strength) * images.shape[-1]  # (N,)
    reach = int(0.12 * images.shape[-1])
    offsets = torch.arange(-reach, reach + 1, device=images.device)
    kernel = torch.softmax(
        -0.5 * (offsets / sigma[:, None]) ** 2, dim=1
    )  # (N, K): a normalised Gaussian
    n, c, h, w = images.shape
    weight = kernel.repeat_interleave(c, dim=0)  # (N*C, K)
    flat = F.pad(images.reshape(1, n * c, h, w), (reach,) * 4, mode="reflect")
    flat = F.conv2d(flat, weight[:, None, None, :], groups=n * c)
    return F.conv2d(flat, weight[:, None, :, None], groups=n * c).view(n, c, h, w)


def noise(images: Tensor, strength: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """White noise, standard deviation up to 0.3 of the range."""
    values = torch.randn(images.shape, device=images.device, generator=generator)
    return (images + 0.6 * strength.view(-1, 1, 1, 1) * values).clamp(-1, 1)


def _move(images: Tensor, theta: Tensor) -> Tensor:
    """Samples images through an affine map, (N, 2, 3) or one for all."""
    grid = F.affine_grid(theta.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def shift(images: Tensor, strength: Tensor) -> Tensor:
    """Moves the image to the right by up to 12 % of its width."""
    theta = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    theta[:, 0, 2] = -0.24 * strength
    return _move(images, theta)


def zoom(images: Tensor, strength: Tensor) -> Tensor:
    """Enlarges the image about its middle by up to 25 %."""
    theta = torch.eye(2, 3, device=images.device) * (1 - 0.2 * strength).view(-1, 1, 1)
    return _move(images, theta)


def hue(images: Tensor, strength: Tensor) -> Tensor:
    """Turns the colours about the gray axis by up to 180 degrees."""
    angle = math.pi * strength
    a = angle.cos() + (1 - angle.cos()) / 3
    b = (1 - angle.cos()) / 3 - angle.sin() / math.sqrt(3)
    c = (1 - angle.cos()) / 3 + angle.sin() / math.sqrt(3)
    turn = torch.stack([a, b, c, c, a, b, b, c, a], dim=1).view(
        -1, 3, 3
    )  # Rodrigues about (1, 1, 1)
    return torch.einsum("nij,njhw->nihw", turn, images).clamp(-1, 1)


def fade(images: Tensor, strength: Tensor) -> Tensor:
    """Takes the colour out, up to gray."""
    return torch.lerp(
        images, images.mean(dim=1, keepdim=True).expand_as(images), strength.view(-1, 1, 1, 1)
    )


def darken(images: Tensor, strength: Tensor) -> Tensor:
    """Takes up to 70 % of the light."""
    return (images + 1) * (1 - 0.7 * strength).view(-1, 1, 1, 1) - 1


# name: (images (N, 3, H, W) in [-1, 1], strength (N,) in [0, 1]) -> images
DISTORTIONS = {
    "blur": blur, "noise": noise, "shift": shift, "zoom": zoom, "hue": hue, "fade": fade, "darken": darken,
}  # fmt: skip


def triplets(images: Tensor, name: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each image distorted weakly and more strongly, both (N, 3, H, W)."""
    strengths = (
        torch.rand(2, len(images), device=images.device, generator=generator).sort(dim=0).values
    )
    weak, strong = strengths[0] * 0.9, strengths[1] * 0.9 + 0.1  # at least a tenth apart
    if name == "noise":
        state = generator.get_state()
        weaker = noise(images, weak, generator)
        generator.set_state(state)
        return weaker, noise(images, strong, generator)
    return DISTORTIONS[name](images, weak), DISTORTIONS[name](images, strong)


def ranking_loss(near: Tensor, far: Tensor) -> Tensor:
    """Mean softplus of how far the order near < far is missed; distances (N,), compared relative to their sum."""
    return F.softplus(-MARGIN * (far - near) / (far + near + 1e-8)).mean()


def main(run: Run) -> None:
    """Learns the channel weights on WORK/data and the image tower, and writes WORK/perceptual/weights."""
    pool = Pool(run.work, run.device, rank=run.rank, world_size=run.processes, size=128)
    clip = run.weights_of("towers")
    tower = CLIPModel.from_pretrained(clip, dtype=torch.float32).vision_model
    depth = tower.config.num_hidden_layers
    model = PerceptualDistance(tower, sorted({0, 1, depth // 2, depth - 1}))
    if run.init:
        start = PerceptualDistance.load(clip, run.weights_of("perceptual"))
        for own, loaded in zip(model.raw, start.raw, strict=True):
            own.data = loaded.data
    model.to(run.device)
    names, batch = list(DISTORTIONS), run.batch or (4 if run.smoke else BATCH)

    def loss_fn(net: nn.Module, step: int, fraction: float) -> dict[str, Tensor]:
        images = to_input(to_float(pool.sample(batch, run.generator)[0])).contiguous()
        with torch.autocast(run.device.type, enabled=False):  # weak distortions drown in bfloat16
            near, far = triplets(images, names[step % len(names)], run.generator)
            x, y = torch.cat([images] * 3), torch.cat([near, far, images.roll(1, dims=0)])
            near, far, other = net(x, y).flatten().chunk(3)  # (B,) each
        losses = {"order": ranking_loss(near, far), "other": ranking_loss(far, other)}
        right = (near < far).float().mean()
        return {"loss": losses["order"] + 0.5 * losses["other"], **losses, "right": right}

    def save(folder: Path) -> None:
        with torch.no_grad():
            images = to_input(
                to_float(
                    pool.sample(min(len(pool), 64), torch.Generator(run.device).manual_seed(0))[0]
                )
            )
            # Not a call of the module: the network compiled for training is left as it is.
            scale = UNRELATED / model.forward(images, images.roll(1, dims=0)).mean()
            heads = {
                f"layer_{k}": (scale * w).cpu()
                for k, w in zip(model.layers, model.weights(), strict=True)
            }
        save_file(heads, folder / "heads.safetensors")
        (folder / "config.json").write_text(
            json.dumps({"layers": model.layers, "image_size": model.image_size})
        )

    optimizer = loop.adamw(model, lr=1e-2, weight_decay=0.0)
    limits: dict[str, Any] = (
        {"steps": 4, "minutes": 1.0} if run.smoke else {"steps": 1_400, "minutes": 2.0}
    )
    loop.train(
        run, model, optimizer, loss_fn, save, loop.Settings(warmup=1 if run.smoke else 50, **limits)
    )
    if run.is_main:
        images = to_input(
            to_float(pool.sample(min(len(pool), 64), torch.Generator(run.device).manual_seed(1))[0])
        )
        found = order(model, images.contiguous())
        run.log(
            "distances that grow with the distortion: "
            + ", ".join(f"{k} {100 * x:.1f} %" for k, x in found.items())
        )
    run.accelerator.wait_for_everyone()


@torch.no_grad()
def order(distance: PerceptualDistance, images: Tensor, steps: int = 6) -> dict[str, float]:
    """For each distortion, the share of neighbouring strengths (of `steps`, evenly apart) that are in order.

    images: (N, 3, H, W) in [-1, 1].
    """
    found = {}
    for name, distort in DISTORTIONS.items():
        rows = []
        for k in range(1, steps + 1):
            strength = torch.full((len(images),), k / steps, device=images.device)
            if name == "noise":
                generator = torch.Generator(images.device).manual_seed(
                    0
                )  # the same noise, only stronger
                changed = noise(images, strength, generator)
            else:
                changed = distort(images, strength)
            rows.append(distance.forward(images, changed).flatten())
        found[name] = float((torch.stack(rows).diff(dim=0) > 0).float().mean())
    return found
