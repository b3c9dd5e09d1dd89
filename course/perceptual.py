"""How different two pictures look: a learned distance that needs no download.

The features are the hidden states of the pocket model's image tower, weighted by channel (Zhang et al. 2018, "The
Unreasonable Effectiveness of Deep Features as a Perceptual Metric", equation 1). The call is that of the lpips package,
so `LPIPS(net="vgg")` can stand in its place where there is a network.
"""

import json

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from course.models import embedded


class PerceptualDistance(torch.nn.Module):
    """sum over layers l of the mean over positions of w_l . (f_l(x) - f_l(y))^2, f normalised along channels.

    Differentiable in both pictures; its own weights are frozen.
        distance = PerceptualDistance()
        distance(x, y)  # (N, 1, 1, 1); x, y (N, 3, H, W) in [-1, 1]
    """

    def __init__(self) -> None:
        super().__init__()
        from transformers import CLIPImageProcessor, CLIPVisionModel

        folder = embedded("perceptual")
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.layers: list[int] = settings["layers"]
        self.image_size: int = settings["image_size"]
        clip = embedded("clip")
        self.tower = CLIPVisionModel.from_pretrained(clip)
        processor = CLIPImageProcessor.from_pretrained(clip)
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(processor.image_mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(processor.image_std).view(1, 3, 1, 1))
        for name, head in load_file(folder / "heads.safetensors").items():
            self.register_buffer(name, head.float())  # (C,)
        self.requires_grad_(False).eval()

    def features(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """Pictures (N, 3, H, W) in [-1, 1] to one (N, positions, C) a layer, each position of length 1."""
        size = (self.image_size, self.image_size)
        if pictures.shape[-2:] != size:
            pictures = F.interpolate(pictures, size, mode="bilinear", align_corners=False, antialias=True)
        pixels = ((pictures + 1) / 2 - self.mean) / self.std
        states = self.tower(pixel_values=pixels, output_hidden_states=True).hidden_states
        return [F.normalize(states[layer][:, 1:], dim=-1) for layer in self.layers]  # without the class token

    def forward(
        self, in0: torch.Tensor, in1: torch.Tensor, retPerLayer: bool = False, normalize: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, list[torch.Tensor]]:
        """The distance (N, 1, 1, 1) of pictures (N, 3, H, W) in [-1, 1], or in [0, 1] with `normalize`. With
        `retPerLayer` also the list of the layers' shares, each (N, 1, 1, 1). Names as in the lpips package."""
        if in0.shape != in1.shape or in0.dim() != 4 or in0.shape[1] != 3:
            raise ValueError(f"two batches (N, 3, H, W) of one shape, not {tuple(in0.shape)} and {tuple(in1.shape)}")
        if normalize:
            in0, in1 = 2 * in0 - 1, 2 * in1 - 1
        shares = []
        for layer, x, y in zip(self.layers, self.features(in0), self.features(in1), strict=True):
            share = ((x - y).square() @ self.get_buffer(f"layer_{layer}")).mean(dim=1)  # (N,)
            shares.append(share.view(-1, 1, 1, 1))
        total = torch.stack(shares).sum(dim=0)
        return (total, shares) if retPerLayer else total
