"""The networks behind the metrics: the embedded judge and CLIP, or published ones.

A distance that guides is not the distance that judges: no network here takes part in generation.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from course.metrics.clip import ClipEncoder
from course.metrics.errors import MetricError
from course.metrics.judge import Judge
from course.metrics.perceptual import load_lpips


class JudgeFeatures:
    """The hidden states of a judge, from its first convolutions to its last.

    folder: of the judge, by default the embedded one.
    """

    def __init__(self, device: str | torch.device = "cpu", folder: Path | None = None) -> None:
        self.judge = Judge(device, folder)

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return one (N, C, h, w) a layer of images (N, 3, H, W) in [-1, 1]."""
        pixels = self.judge.preprocess(images.to(self.judge.device))
        output = self.judge.network.resnet(pixel_values=pixels, output_hidden_states=True)
        return list(output.hidden_states)

    def pool(self, images: Tensor) -> Tensor:
        """Return the means (N, D) over positions of the last layer, of images (N, 3, H, W)."""
        return self(images)[-1].mean((2, 3))

    @torch.no_grad()
    def embed(self, images: Iterable[Tensor]) -> Tensor:
        """Return vectors (N, D) on the CPU of images (3, H, W) in [-1, 1], of any sizes."""
        return torch.stack([self.pool(image[None])[0].cpu() for image in images])


class FeatureDistance:
    """The perceptual distance on any features (Zhang et al. 2018, equation 1, equal weights).

    The sum over layers of the mean over positions of |f(x) - f(y)|^2, f of length 1 at each.
    """

    def __init__(self, features: Callable[[Tensor], list[Tensor]]) -> None:
        self.features = features

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distances (N,) of two batches (N, 3, H, W) in [-1, 1]."""
        if x.shape != y.shape:
            raise MetricError(
                f"Two batches must have one shape, got {tuple(x.shape)} and {tuple(y.shape)}."
            )
        layers = zip(self.features(x), self.features(y), strict=True)
        distances = [
            (F.normalize(f, dim=1) - F.normalize(g, dim=1)).square().sum(dim=1).mean(dim=(1, 2))
            for f, g in layers
        ]
        return torch.stack(distances).sum(dim=0)


@dataclass
class MetricNetworks:
    """A perceptual distance, the features of its layers, vectors of images, and CLIP.

    `name` says whose they are, to stand beside the figures.
    """

    name: str
    distance: Callable[[Tensor, Tensor], Tensor]
    features: Callable[[Tensor], list[Tensor]]
    embed: Callable[[Iterable[Tensor]], Tensor]
    clip: ClipEncoder


def load_networks(published: bool = False, device: str | torch.device = "cpu") -> MetricNetworks:
    """Load the embedded judge with the embedded CLIP, or the published networks.

    Those are LPIPS on AlexNet (LPIPS on VGG is what guides) and OpenAI's CLIP, whose vectors of
    images give CLIP-FID. Raises CourseError if they are not available.
    """
    if not published:
        judge = JudgeFeatures(device)
        clip = ClipEncoder(device=device)
        return MetricNetworks("judge", FeatureDistance(judge), judge, judge.embed, clip)
    alex = load_lpips("alex", device)
    clip = ClipEncoder(published=True, device=device)

    @torch.no_grad()
    def embed(images: Iterable[Tensor]) -> Tensor:
        return torch.cat([clip.encode_images(image[None]).cpu() for image in images])

    def features(images: Tensor) -> list[Tensor]:
        return list(alex.net(alex.scaling_layer(images)))

    return MetricNetworks("LPIPS AlexNet, CLIP ViT-B/32", alex, features, embed, clip)
