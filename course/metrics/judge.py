"""The judge: an attribute classifier of images of the pocket world, which generates nothing.

    judge = Judge()
    judge([image])[0]  # {"object": "hamburger", "ground": "grass", "view": "front", ...}

It knows the toy world only: its labels of other images mean nothing. pocket/weights/README.md says
how often it is right.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from course.images import ImageLike, to_pil
from course.metrics.preprocess import Preprocess
from course.models import embedded_folder
from course.models.files import load_network
from course.views import view_word

Attributes = dict[str, str | float]


class Judge:
    """The judge of a folder, by default the embedded one. Its outputs are called "group:class"."""

    def __init__(self, device: str | torch.device = "cpu", folder: Path | None = None) -> None:
        from transformers import AutoModelForImageClassification

        folder = folder or embedded_folder("judge")
        self.device = torch.device(device)
        self.network = load_network(AutoModelForImageClassification, folder, "The judge")
        self.network.to(self.device).eval().requires_grad_(False)
        self.preprocess = Preprocess(folder).to(self.device)
        self.names: dict[int, str] = self.network.config.id2label

    def __call__(self, images: Sequence[ImageLike]) -> list[Attributes]:
        """Return the attributes of each image, in any form that `course.images.to_pil` takes.

        For each group ("object", "color", "ground", ...) the likeliest class, "none" where there is
        nothing of the kind; "azimuth" in degrees, 0 at the object's front; and "view": "front",
        "side", "back" or "overhead".
        """
        attributes = []
        for image in images:
            classes = self.classify(torch.from_numpy(np.array(to_pil(image)))[None])
            result: Attributes = {group: values.tolist()[0] for group, values in classes.items()}
            if "azimuth" in result and "overhead" in result:
                elevation = 90 if result["overhead"] == "yes" else 0
                result["view"] = view_word(float(result["azimuth"]), elevation)
            attributes.append(result)
        return attributes

    @torch.no_grad()
    def classify(self, images: torch.Tensor, batch: int = 250) -> dict[str, np.ndarray]:
        """Return the classes of images uint8 (N, H, W, 3) of one size, as `decode_logits` does."""
        logits = []
        for part in images.split(batch):
            pixels = part.to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
            logits.append(self.logits(pixels).cpu())
        return decode_logits(torch.cat(logits), self.names)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return the raw outputs (N, classes) for images (N, 3, H, W) in [-1, 1]; differentiable.

        The images are on the judge's device.
        """
        return self.network(pixel_values=self.preprocess(images)).logits


def decode_logits(logits: torch.Tensor, names: dict[int, str]) -> dict[str, np.ndarray]:
    """Return the likeliest class of each group, str (N,), and "azimuth" in degrees, float (N,).

    logits: (N, classes). The azimuth is the mean direction of the likeliest bin and its two
    neighbors on either side, weighted by their probabilities: finer than a bin, and continuous
    where 180 meets -180.
    """
    groups: dict[str, list[tuple[int, str]]] = {}
    for index, name in names.items():
        group, _, label = name.partition(":")
        groups.setdefault(group, []).append((int(index), label))
    logits = logits.detach().float().cpu()
    attributes = {}
    for group, members in groups.items():
        part = logits[:, [index for index, _ in members]]  # (N, members)
        labels = np.array([label for _, label in members])
        best = part.argmax(dim=1)
        if group != "azimuth":
            attributes[group] = labels[best.numpy()]
            continue
        near = (best[:, None] + torch.arange(-2, 3)) % len(members)  # (N, 5)
        angles = torch.deg2rad(torch.from_numpy(labels.astype(np.float32)))[near]
        weights = part.softmax(dim=1).gather(1, near)
        angle = torch.atan2((weights * angles.sin()).sum(1), (weights * angles.cos()).sum(1))
        attributes[group] = torch.rad2deg(angle).numpy()
    return attributes
