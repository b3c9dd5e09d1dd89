"""Depth and normals of any image, for a ControlNet to go by.

    inverse_depth = estimate_depth(image, model)   # (H, W), larger is nearer
    normals = estimate_normals(image, model)       # (H, W, 3), x right, y up, z towards the viewer

Beside the embedded model small estimators that come with the course and learnt from renders, or those that lie beside
a model in a folder in the same way; beside real Stable Diffusion public ones from the Hub. `course.images.conditions`
turns their outputs into images.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from course.arguments import check_integer
from course.images import ImageLike, to_pil
from course.models.files import ModelError, load_network, loading, read_json
from course.models.hub import ESTIMATORS, fetch
from course.models.model import Model, embedded, hide_loading_bars


class Estimator:
    """The embedded estimator of "depth" or "normals" on a device.

    `folder` is one that holds such a network (default: the embedded one, checked against the manifest).
    """

    def __init__(
        self, kind: str, folder: Path | None = None, device: str | torch.device = "cpu"
    ) -> None:
        from transformers import AutoModelForDepthEstimation, AutoModelForSemanticSegmentation

        hide_loading_bars()
        self.kind, self.device = kind, torch.device(device)
        folder = folder or embedded(f"estimators/{kind}")
        auto = {"depth": AutoModelForDepthEstimation, "normals": AutoModelForSemanticSegmentation}[
            kind
        ]
        label = f"The estimator of {kind}"
        self.network = (
            load_network(auto, folder, label).to(self.device).eval().requires_grad_(False)
        )
        settings = read_json(folder / "preprocessor_config.json", label)
        with loading(f"{label} ({folder / 'preprocessor_config.json'})"):
            self.side = check_integer(
                f"{label}: size", settings["size"]["height"], 1, 4096, ModelError
            )
            self.mean, self.std = (
                torch.tensor(settings[f"image_{name}"], device=self.device).view(1, 3, 1, 1)
                for name in ("mean", "std")
            )

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) in [0, 1] of any size to inverse depth (N, H, W), larger where nearer, or to normals
        (N, H, W, 3) of length 1, 0 where there is no surface."""
        height, width = images.shape[-2:]
        scale = self.side / max(
            height, width
        )  # the network reads squares of one size: the image is fitted into one
        inside = [max(1, round(n * scale)) for n in (height, width)]
        top, left = ((self.side - n) // 2 for n in inside)
        below, right = self.side - inside[0] - top, self.side - inside[1] - left
        square = F.pad(
            _resize(images.to(self.device), inside), (left, right, top, below), mode="replicate"
        )
        with torch.no_grad():
            found = self.network(pixel_values=(square - self.mean) / self.std)
        maps = found.predicted_depth[:, None] if self.kind == "depth" else found.logits
        maps = _resize(maps, [self.side, self.side])[
            ..., top : top + inside[0], left : left + inside[1]
        ]
        maps = _resize(maps, [height, width])
        if self.kind == "depth":
            return maps[:, 0]
        normals = maps.permute(0, 2, 3, 1)
        length = normals.norm(dim=-1, keepdim=True)
        return torch.where(length > 0.5, normals / length.clamp(min=1e-6), 0.0)


def estimate_depth(image: ImageLike, model: Model) -> np.ndarray:
    """Relative inverse depth (H, W) float32 of an image: larger is nearer, scale and shift are free.

    Raises ModelError if the estimator is damaged or cannot be fetched.
    """
    if folder := _own(model, "depth"):
        return _read(folder, "depth", image, model)
    processor, network = _public_depth(model)
    rgb = to_pil(image)
    inputs = processor(images=rgb, return_tensors="pt").to(network.device, network.dtype)
    with torch.no_grad():
        found = network(**inputs).predicted_depth  # (1, h, w)
    return _resize(found[None].float(), [rgb.height, rgb.width])[0, 0].cpu().numpy()


def estimate_normals(image: ImageLike, model: Model) -> np.ndarray:
    """Camera-space normals (H, W, 3) float32 of an image: x to the right, y up, z towards the viewer, length 1.

    Beside real Stable Diffusion by Marigold (Ke et al. 2024), itself a latent diffusion model, in four steps; its noise
    is drawn from a fixed seed. Raises ModelError if the estimator is damaged or cannot be fetched.
    """
    if folder := _own(model, "normals"):
        return _read(folder, "normals", image, model)
    pipe = _public_normals(model)
    rgb, generator = to_pil(image), torch.Generator().manual_seed(0)
    found = pipe(rgb, num_inference_steps=4, generator=generator, output_type="np").prediction[
        0
    ]  # (H, W, 3)
    return (found / np.maximum(np.linalg.norm(found, axis=2, keepdims=True), 1e-6)).astype(
        np.float32
    )


def _own(model: Model, kind: str) -> Path | None:
    """The folder of the estimator that comes with a model: with the embedded one always, with one in a folder if it
    lies beside it in the same way."""
    if model.is_embedded:
        return embedded(f"estimators/{kind}")
    folder = model.folder.parent / "estimators" / kind
    return folder if (folder / "config.json").exists() else None


def _read(folder: Path, kind: str, image: ImageLike, model: Model) -> np.ndarray:
    pixels = torch.from_numpy(np.array(to_pil(image))).permute(2, 0, 1)[None].float() / 255
    return _loaded(folder, kind, str(model.device))(pixels)[0].cpu().numpy()


@cache
def _loaded(folder: Path, kind: str, device: str) -> Estimator:
    return Estimator(kind, folder, device)


@cache
def _public_depth(model: Model) -> tuple[Any, Any]:
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    hide_loading_bars()
    folder = fetch(ESTIMATORS["depth"], ESTIMATORS["depth"], ["*.json", "*.safetensors"])
    network = load_network(AutoModelForDepthEstimation, folder, ESTIMATORS["depth"])
    with loading(ESTIMATORS["depth"]):
        processor = AutoImageProcessor.from_pretrained(folder)
    return processor, network.to(model.device).eval()


@cache
def _public_normals(model: Model) -> Any:
    from diffusers import MarigoldNormalsPipeline

    hide_loading_bars()
    folder = fetch(
        ESTIMATORS["normals"], ESTIMATORS["normals"], ["*.json", "*.txt", "*.safetensors"]
    )
    with loading(ESTIMATORS["normals"]):
        pipe = MarigoldNormalsPipeline.from_pretrained(
            folder, dtype=model.dtype, use_safetensors=True
        )
    pipe = pipe.to(model.device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _resize(maps: torch.Tensor, size: list[int]) -> torch.Tensor:
    """(N, C, H, W) at another size (height, width), averaging where it shrinks."""
    if list(maps.shape[-2:]) == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=True)
