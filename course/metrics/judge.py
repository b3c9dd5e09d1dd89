"""The judge: an attribute classifier of images of the pocket world, which generates nothing.

    judge = Judge()
    judge([image])[0]  # {"object": "hamburger", "ground": "grass", "view": "front", ...}

It knows the toy world only: its labels of other images mean nothing. pocket/weights/README.md says
how often it is right.
"""

from collections.abc import Sequence

import numpy as np
import torch

from course.images import ImageLike, to_pil
from course.metrics.preprocess import Preprocess
from course.models import embedded_folder
from course.models.files import load_network

Attributes = dict[str, str | float]


class Judge:
    """The embedded judge on a device. Its outputs are called "group:class"."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        from transformers import AutoModelForImageClassification

        folder = embedded_folder("judge")
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
            array = np.array(to_pil(image))
            pixels = torch.from_numpy(array).permute(2, 0, 1)[None].to(self.device)
            logits = self.logits(pixels.float() / 127.5 - 1)
            attributes.append(decode_logits(logits[0], self.names))
        return attributes

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return the raw outputs (N, classes) for images (N, 3, H, W) in [-1, 1]; differentiable.

        The images are on the judge's device.
        """
        return self.network(pixel_values=self.preprocess(images)).logits


def decode_logits(logits: torch.Tensor, names: dict[int, str]) -> Attributes:
    """Return one image's outputs (classes,) in words.

    The azimuth is the mean direction of the likeliest bin and its two neighbors on either side,
    weighted by their probabilities: finer than a bin, and continuous where 180 meets -180.
    """
    groups: dict[str, list[tuple[int, str]]] = {}
    for index, name in names.items():
        group, _, label = name.partition(":")
        groups.setdefault(group, []).append((int(index), label))
    attributes: Attributes = {}
    for group, members in groups.items():
        part = logits.float().cpu()[[index for index, _ in members]]  # (classes,)
        best = int(part.argmax())
        if group != "azimuth":
            attributes[group] = members[best][1]
            continue
        near = (best + torch.arange(-2, 3)) % len(members)
        angles = torch.deg2rad(torch.tensor([float(label) for _, label in members]))[near]
        weights = part.softmax(dim=0)[near]
        angle = torch.atan2((weights * angles.sin()).sum(), (weights * angles.cos()).sum())
        attributes[group] = float(torch.rad2deg(angle))
    if "azimuth" in attributes and "overhead" in attributes:
        overhead = attributes["overhead"] == "yes"
        attributes["view"] = "overhead" if overhead else _view(float(attributes["azimuth"]))
    return attributes


def _view(azimuth: float) -> str:
    if abs(azimuth) < 45:
        return "front"
    return "back" if abs(azimuth) > 135 else "side"
