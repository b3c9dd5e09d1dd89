"""How different two images look: a learned distance that needs no download.

The features are the hidden states of the pocket model's image tower, weighted by channel (Zhang et al. 2018, "The
Unreasonable Effectiveness of Deep Features as a Perceptual Metric", equation 1). The call is that of the lpips package,
so `LPIPS(net="vgg")` can stand in its place where there is a network.
"""

import json
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from course.errors import CourseError
from course.metrics.preprocess import Preprocess
from course.models import Model, embedded_folder, hide_loading_bars
from course.models.files import load_network


class PerceptualDistance(torch.nn.Module):
    """sum over layers l of the mean over positions of w_l . (f_l(x) - f_l(y))^2, f normalised along channels.

    Differentiable in both images; its own weights are frozen.
        distance = PerceptualDistance()
        distance(x, y)  # (N, 1, 1, 1); x, y (N, 3, H, W) in [-1, 1]
    """

    def __init__(self) -> None:
        super().__init__()
        from transformers import CLIPModel

        hide_loading_bars()
        clip, own = embedded_folder("clip"), embedded_folder("perceptual")
        self.tower = load_network(CLIPModel, clip, "CLIP").vision_model
        self.preprocess = Preprocess(clip)
        self.layers: list[int] = json.loads((own / "config.json").read_text(encoding="utf-8"))[
            "layers"
        ]
        for name, head in load_file(own / "heads.safetensors").items():
            self.register_buffer(name, head.float())  # layer_i: (C,)
        self.requires_grad_(False).eval()

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Images (N, 3, H, W) in [-1, 1] to one (N, positions, C) a layer, each position of length 1."""
        states = self.tower(
            pixel_values=self.preprocess(images), output_hidden_states=True
        ).hidden_states
        return [
            F.normalize(states[layer][:, 1:], dim=-1) for layer in self.layers
        ]  # without the class token

    def forward(
        self,
        in0: torch.Tensor,
        in1: torch.Tensor,
        retPerLayer: bool = False,
        normalize: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, list[torch.Tensor]]:
        """The distance (N, 1, 1, 1) of images (N, 3, H, W) in [-1, 1], or in [0, 1] with `normalize`. With
        `retPerLayer` also the list of the layers' shares, each (N, 1, 1, 1). Names as in the lpips package."""
        if in0.shape != in1.shape or in0.dim() != 4 or in0.shape[1] != 3:
            raise ValueError(
                f"two batches (N, 3, H, W) of one shape, not {tuple(in0.shape)} and {tuple(in1.shape)}"
            )
        if normalize:
            in0, in1 = 2 * in0 - 1, 2 * in1 - 1
        shares = []
        for layer, x, y in zip(self.layers, self.features(in0), self.features(in1), strict=True):
            share = ((x - y).square() @ self.get_buffer(f"layer_{layer}")).mean(dim=1)  # (N,)
            shares.append(share.view(-1, 1, 1, 1))
        total = torch.stack(shares).sum(dim=0)
        return (total, shares) if retPerLayer else total


def find_distance(model: Model) -> tuple[str, Callable[..., Any]]:
    """The distance that guides images of `model`, on its device, and its name: LPIPS on VGG, or the embedded one for
    the embedded model, and where LPIPS cannot be had; one line then says so."""
    if not model.is_embedded:
        try:
            return "LPIPS (VGG)", published_lpips("vgg", model.device)
        except CourseError as error:
            print(f"{error} It takes its place.")
    return "the embedded distance", PerceptualDistance().to(model.device)


def published_lpips(net: str, device: str | torch.device = "cpu") -> Any:
    """`lpips.LPIPS(net=...)` on a device, frozen. Raises CourseError if the package or its trunk cannot be had."""
    try:
        import lpips

        distance = lpips.LPIPS(net=net, verbose=False)
    except (
        Exception
    ) as error:  # a missing package, a failed download and a damaged file each raise their own
        raise CourseError(
            f"LPIPS on {net} cannot be had here ({error}). It takes the package lpips, a torchvision that fits torch, "
            "and a network the first time. The embedded distance needs none of that."
        ) from error
    return distance.to(device).eval().requires_grad_(False)
