"""Images as a vision network takes them, by the settings that lie beside its weights."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F


def resize(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return images (N, 3, H, W) at a size (height, width), bilinear with antialiasing, as by PIL.

    Differentiable.
    """
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)


class Preprocess(torch.nn.Module):
    """Images (N, 3, H, W) in [-1, 1] to (N, 3, size, size), normalized for the network.

    Size, mean and standard deviation come from `folder`/preprocessor_config.json. Differentiable,
    on the images' device: transformers' own image processors go through PIL and cut the gradient.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, folder: Path) -> None:
        super().__init__()
        settings = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        self.size = (settings["size"]["height"], settings["size"]["width"])
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(settings[f"image_{name}"]).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.dim() != 4 or images.shape[1] != 3:
            shape = tuple(images.shape)
            raise ValueError(f"images must be a tensor (N, 3, H, W) in [-1, 1], got {shape}.")
        return ((resize(images, self.size) + 1) / 2 - self.mean) / self.std
