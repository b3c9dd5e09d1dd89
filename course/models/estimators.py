"""Depth and normals of any image, as conditions for a ControlNet.

    inverse_depth = estimate_depth(image, model)   # (H, W), larger is nearer
    normals = estimate_normals(image, model)       # (H, W, 3), x right, y up, z toward the viewer

The embedded model has small estimators that were trained on renders; a model in a folder may have
its own beside it. With real Stable Diffusion public ones are downloaded from the Hub.
`course.images.conditions` converts the outputs to images.
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
from course.models.model import Model
from course.models.weights import embedded_folder


class Estimator:
    """An estimator of "depth" or "normals", by default the embedded one."""

    def __init__(
        self, kind: str, folder: Path | None = None, device: str | torch.device = "cpu"
    ) -> None:
        from transformers import AutoModelForDepthEstimation, AutoModelForSemanticSegmentation

        self.kind, self.device = kind, torch.device(device)
        folder = folder or embedded_folder(f"estimators/{kind}")
        label = f"The estimator of {kind}"
        classes = {
            "depth": AutoModelForDepthEstimation,
            "normals": AutoModelForSemanticSegmentation,
        }
        network = load_network(classes[kind], folder, label)
        self.network = network.to(self.device).eval().requires_grad_(False)
        config = read_json(folder / "preprocessor_config.json", label)
        with loading(f"{label} ({folder / 'preprocessor_config.json'})"):
            side = config["size"]["height"]
            self.side = check_integer(f"{label}: size", side, 1, 4096, ModelError)
            self.mean = torch.tensor(config["image_mean"], device=self.device).view(1, 3, 1, 1)
            self.std = torch.tensor(config["image_std"], device=self.device).view(1, 3, 1, 1)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Estimate depth (N, H, W) or normals (N, H, W, 3) of images (N, 3, H, W) in [0, 1].

        Depth is inverse: larger is nearer. Normals have length 1, or 0 where there is no surface.
        """
        height, width = images.shape[-2:]
        # The network reads squares of one size: the image is fitted into one, its edges repeated.
        scale = self.side / max(height, width)
        inside = [max(1, round(height * scale)), max(1, round(width * scale))]
        top, left = (self.side - inside[0]) // 2, (self.side - inside[1]) // 2
        padding = (left, self.side - inside[1] - left, top, self.side - inside[0] - top)
        square = F.pad(_resize(images.to(self.device), inside), padding, mode="replicate")
        with torch.no_grad():
            output = self.network(pixel_values=(square - self.mean) / self.std)
        maps = output.predicted_depth[:, None] if self.kind == "depth" else output.logits
        maps = _resize(maps, [self.side, self.side])
        maps = maps[..., top : top + inside[0], left : left + inside[1]]
        maps = _resize(maps, [height, width])
        if self.kind == "depth":
            return maps[:, 0]
        normals = maps.permute(0, 2, 3, 1)
        return F.normalize(normals, dim=-1) * (normals.norm(dim=-1, keepdim=True) > 0.5)


def estimate_depth(image: ImageLike, model: Model) -> np.ndarray:
    """Return the relative inverse depth (H, W) of an image, in float32.

    Larger is nearer; scale and shift are arbitrary. Raises ModelError if the estimator is damaged
    or cannot be downloaded.
    """
    if estimator := own_estimator("depth", model):
        return _estimate(estimator, image)
    processor, network = _load_public_depth(model)
    rgb = to_pil(image)
    inputs = processor(images=rgb, return_tensors="pt").to(network.device, network.dtype)
    with torch.no_grad():
        depth = network(**inputs).predicted_depth  # (1, h, w)
    return _resize(depth[None].float(), [rgb.height, rgb.width])[0, 0].cpu().numpy()


def estimate_normals(image: ImageLike, model: Model) -> np.ndarray:
    """Return the camera-space normals (H, W, 3) of an image, in float32 and of length 1.

    x points right, y up, z toward the viewer. With real Stable Diffusion they are estimated by
    Marigold (Ke et al. 2024, arXiv:2312.02145), itself a latent diffusion model, in four steps from
    a fixed seed. Raises ModelError if the estimator is damaged or cannot be downloaded.
    """
    if estimator := own_estimator("normals", model):
        return _estimate(estimator, image)
    pipe = _load_public_normals(model)
    generator = torch.Generator().manual_seed(0)
    output = pipe(to_pil(image), num_inference_steps=4, generator=generator, output_type="np")
    normals = torch.tensor(output.prediction[0], dtype=torch.float32)  # (H, W, 3)
    return F.normalize(normals, dim=2, eps=1e-6).numpy()


_load_estimator = cache(Estimator)


def own_estimator(kind: str, model: Model) -> Estimator | None:
    """Return the estimator of "depth" or "normals" that comes with a model, or None."""
    if model.is_embedded:
        folder = embedded_folder(f"estimators/{kind}")
    else:
        folder = model.folder.parent / "estimators" / kind
        if not (folder / "config.json").exists():
            return None
    return _load_estimator(kind, folder, model.device)


def _estimate(estimator: Estimator, image: ImageLike) -> np.ndarray:
    pixels = torch.from_numpy(np.array(to_pil(image))).permute(2, 0, 1)[None].float() / 255
    return estimator(pixels)[0].cpu().numpy()


@cache
def _load_public_depth(model: Model) -> tuple[Any, Any]:
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    repo = ESTIMATORS["depth"]
    folder = fetch(repo, repo, ["*.json", "*.safetensors"])
    network = load_network(AutoModelForDepthEstimation, folder, repo)
    with loading(repo):
        processor = AutoImageProcessor.from_pretrained(folder)
    return processor, network.to(model.device).eval()


@cache
def _load_public_normals(model: Model) -> Any:
    from diffusers import MarigoldNormalsPipeline

    repo = ESTIMATORS["normals"]
    folder = fetch(repo, repo, ["*.json", "*.txt", "*.safetensors"])
    with loading(repo):
        pipe = MarigoldNormalsPipeline.from_pretrained(
            folder, dtype=model.dtype, use_safetensors=True
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(model.device)


def _resize(maps: torch.Tensor, size: list[int]) -> torch.Tensor:
    """Resize (N, C, H, W) to `size` (height, width), averaging where it shrinks."""
    if list(maps.shape[-2:]) == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=True)
