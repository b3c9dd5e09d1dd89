"""How different two images look: a learned distance that needs no download.

The features are the hidden states of the pocket model's image tower, weighted by channel (Zhang et
al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", equation 1). The
call is that of the lpips package, so `LPIPS(net="vgg")` can replace it where there is a network.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from course.errors import CourseError
from course.metrics.preprocess import Preprocess
from course.models import Model, embedded_folder
from course.models.files import load_network


class PerceptualDistance(torch.nn.Module):
    """sum over layers l of the mean over positions of w_l . (f_l(x) - f_l(y))^2.

    f is normalized along channels. Differentiable in both images; its own weights are frozen.
        distance = PerceptualDistance()
        distance(x, y)  # (N, 1, 1, 1); x, y (N, 3, H, W) in [-1, 1]
    """

    def __init__(self, clip: Path | None = None, heads: Path | None = None) -> None:
        """Load the image tower and the weights w_l from folders; by default the embedded ones."""
        super().__init__()
        from transformers import CLIPModel

        clip = clip or embedded_folder("clip")
        heads = heads or embedded_folder("perceptual")
        self.tower = load_network(CLIPModel, clip, "CLIP").vision_model
        self.preprocess = Preprocess(clip)
        config = json.loads((heads / "config.json").read_text(encoding="utf-8"))
        self.layers: list[int] = config["layers"]
        for name, head in load_file(heads / "heads.safetensors").items():
            self.register_buffer(name, head.float())  # layer_i: (C,)
        self.requires_grad_(False).eval()

    def forward(self, in0: torch.Tensor, in1: torch.Tensor) -> torch.Tensor:
        """Return the distance (N, 1, 1, 1) of images (N, 3, H, W) in [-1, 1]."""
        if in0.shape != in1.shape or in0.dim() != 4 or in0.shape[1] != 3:
            shapes = f"{tuple(in0.shape)} and {tuple(in1.shape)}"
            raise ValueError(f"in0 and in1 must have one shape (N, 3, H, W), got {shapes}.")
        x, y = (tower_features(self.tower, self.preprocess(i), self.layers) for i in (in0, in1))
        weights = [self.get_buffer(f"layer_{layer}") for layer in self.layers]
        shares = layer_distances(x, y, weights)
        return torch.stack(shares).sum(dim=0)


def tower_features(
    tower: torch.nn.Module, pixels: torch.Tensor, layers: Sequence[int]
) -> list[torch.Tensor]:
    """Return hidden states of an image tower, (N, positions, C) a layer, each position of length 1.

    layers: 0 is the embedded patches. The class token is left out.
    """
    states = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
    return [F.normalize(states[layer][:, 1:].float(), dim=-1) for layer in layers]


def layer_distances(
    x: Sequence[torch.Tensor], y: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Return each layer's share of the distance, (N, 1, 1, 1).

    x, y: features (N, positions, C) a layer. weights: (C,) a layer. Zhang et al. 2018, equation 1.
    """
    shares = []
    for f, g, weight in zip(x, y, weights, strict=True):
        share = ((f - g).square() @ weight).mean(dim=1)  # (N,)
        shares.append(share.view(-1, 1, 1, 1))
    return shares


def load_distance(model: Model) -> tuple[str, Callable[..., Any]]:
    """Return the name of the distance that guides images of `model`, and it on the model's device.

    It is LPIPS on VGG. For the embedded model, and where LPIPS is not available, it is the embedded
    distance; in the second case one line says so.
    """
    if not model.is_embedded:
        try:
            return "LPIPS (VGG)", load_lpips("vgg", model.device)
        except CourseError as error:
            print(f"{error} It is used instead.")
    return "the embedded distance", PerceptualDistance().to(model.device)


def load_lpips(net: str, device: str | torch.device = "cpu") -> Any:
    """Return `lpips.LPIPS(net=...)` on a device, frozen.

    Raises CourseError if the package or its network is not available.
    """
    try:
        import lpips

        distance = lpips.LPIPS(net=net, verbose=False)
    # A missing package, a failed download and a damaged file each raise their own error.
    except Exception as error:
        raise CourseError(
            f"LPIPS on {net} is not available here ({error}). It needs the package lpips, a "
            "torchvision that fits torch, and a network connection the first time. The embedded "
            "distance needs none of these."
        ) from error
    return distance.to(device).eval().requires_grad_(False)
