"""Is a run becoming an object? Measured in images of its field from all around.

Fog satisfies the guidance at high noise, and some shapes satisfy it without looking like their
text: the loss does not show that a run has failed. Two measures do: how many of the visible pixels
are neither clear nor opaque, and how well CLIP finds the text prompt in the images.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from course.metrics.clip import ClipEncoder
from course.views import view_word
from task_3_DreamFusion.nerf.options import FailedRun
from task_3_DreamFusion.nerf.provider import orbit
from task_3_DreamFusion.nerf.utils import Trainer

VIEWS, ELEVATION, SIZE = 8, 15.0, 96
FOG = (0.1, 0.9)  # opacity of a pixel that is neither clear nor opaque
MIN_OPACITY = 0.01  # mean of the images


@dataclass(frozen=True)
class Appearance:
    """What images of a field from all around show.

    opacity: their mean. fog: which share of the visible pixels is neither clear nor opaque.
    agreement: the mean cosine of CLIP's vectors of an image and of the prompt with its view.
    """

    opacity: float
    fog: float
    agreement: float


@dataclass(frozen=True)
class Limits:
    """Limits of an appearance when this share of the run is done."""

    share: float
    max_fog: float
    min_agreement: float


# At a quarter of a run every field is mostly fog, so that only the agreement counts there.
LIMITS = (Limits(0.25, 1.0, 0.2), Limits(0.5, 0.8, 0.3), Limits(1.0, 0.35, 0.35))


class Appraiser:
    """Appraises runs with the CLIP whose text encoder guides them.

    folder: of the CLIP model. Raises ModelError.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.clip = ClipEncoder(folder=folder, device=device)

    @torch.no_grad()
    def measure(self, trainer: Trainer) -> Appearance:
        """Measure the averaged field of a run."""
        cameras = orbit(VIEWS, ELEVATION)
        images = torch.stack(trainer.images(cameras, SIZE)).float()  # (VIEWS, 5, SIZE, SIZE)
        opacity = images[:, 3]
        words = [view_word(azimuth, ELEVATION) for azimuth in cameras.azimuth.tolist()]
        texts = [f"{trainer.settings.prompt}, {word} view" for word in words]
        agreement = self._agreement(images[:, :3], texts)
        return Appearance(float(opacity.mean()), fog_share(opacity), agreement)

    def _agreement(self, images: Tensor, texts: list[str]) -> float:
        """Return the mean cosine of images (N, 3, H, W) in [0, 1] and their texts."""
        vectors = self.clip.encode_images(2 * images.clamp(0, 1) - 1)
        return float((vectors * self.clip.encode_texts(texts)).sum(-1).mean())

    def after_step(self, trainer: Trainer, figures: dict[str, float]) -> None:
        """Check a run after the steps of LIMITS. Raises FailedRun."""
        steps = trainer.settings.iters
        for limits in LIMITS:
            if trainer.step != max(1, round(limits.share * steps)):
                continue
            if problem := find_problem(self.measure(trainer), limits):
                raise FailedRun(f"step {trainer.step}: {problem}")


def fog_share(opacity: Tensor) -> float:
    """Return which share of the visible pixels is neither clear nor opaque; 0 if none is visible.

    A surface has few of them, at its outline. opacity: of any shape.
    """
    visible = opacity > FOG[0]
    return float((visible & (opacity < FOG[1])).sum() / visible.sum().clamp(min=1))


def find_problem(appearance: Appearance, limits: Limits) -> str:
    """Return what is wrong with an appearance, "" if it is within the limits."""
    if appearance.opacity < MIN_OPACITY:
        return "nothing is visible"
    if appearance.fog > limits.max_fog:
        return f"{appearance.fog:.0%} of what is visible is fog"
    if appearance.agreement < limits.min_agreement:
        return "the images do not look like the text"
    return ""
