"""What is in an image of the pocket world? A classifier that took no part in drawing it reads it.

    judge = Judge()
    judge([image])[0]  # {"object": "hamburger", "ground": "grass", "view": "front", "azimuth": 12.0, ...}

It knows the toy world only: what it says of other images means nothing. pocket/weights/README.md says how often it
is right.
"""

from collections.abc import Sequence

import numpy as np
import torch

from course.images import ImageLike, to_pil
from course.metrics.preprocess import Preprocess
from course.models import embedded_folder, hide_loading_bars
from course.models.files import load_network

Reading = dict[str, str | float]


class Judge:
    """The embedded judge on a device (the CPU unless named). Its outputs are called "group:class"."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        from transformers import AutoModelForImageClassification

        hide_loading_bars()
        folder = embedded_folder("judge")
        self.device = torch.device(device)
        self.network = load_network(AutoModelForImageClassification, folder, "The judge")
        self.network.to(self.device).eval().requires_grad_(False)
        self.preprocess = Preprocess(folder).to(self.device)
        self.names: dict[int, str] = self.network.config.id2label

    def __call__(self, images: Sequence[ImageLike]) -> list[Reading]:
        """What the judge sees in each image (PIL, array or tensor, as `course.images.to_pil` takes them):
        for each group ("object", "color", "ground", ...) the likeliest class, "none" where there is nothing of the
        kind; "azimuth" in degrees, 0 at the object's front; and "view": "front", "side", "back" or "overhead"."""
        readings = []
        for image in images:
            pixels = (
                torch.from_numpy(np.array(to_pil(image))).permute(2, 0, 1)[None].to(self.device)
            )
            logits = self.logits(pixels.float() / 127.5 - 1)
            readings.append(read(logits[0], self.names))
        return readings

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """The raw outputs (N, classes) for images (N, 3, H, W) in [-1, 1] on the judge's device; differentiable."""
        return self.network(pixel_values=self.preprocess(images)).logits


def read(logits: torch.Tensor, names: dict[int, str]) -> Reading:
    """One image's outputs (classes,) in words. The azimuth is the mean direction of the best bin and its two
    neighbours on either side, weighted by their probabilities: finer than a bin, and not torn where 180 meets -180."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for index, name in names.items():
        group, _, label = name.partition(":")
        groups.setdefault(group, []).append((int(index), label))
    reading: Reading = {}
    for group, members in groups.items():
        part = logits.float().cpu()[[index for index, _ in members]]  # (classes,)
        best = int(part.argmax())
        if group != "azimuth":
            reading[group] = members[best][1]
            continue
        near = (best + torch.arange(-2, 3)) % len(members)
        angles = torch.deg2rad(torch.tensor([float(label) for _, label in members]))[near]
        weights = part.softmax(dim=0)[near]
        angle = torch.atan2((weights * angles.sin()).sum(), (weights * angles.cos()).sum())
        reading[group] = float(torch.rad2deg(angle))
    if "azimuth" in reading and "overhead" in reading:
        turn = abs(float(reading["azimuth"]))
        side = "front" if turn < 45 else "back" if turn > 135 else "side"
        reading["view"] = "overhead" if reading["overhead"] == "yes" else side
    return reading
