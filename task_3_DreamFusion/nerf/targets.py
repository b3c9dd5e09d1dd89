"""Targets: the images that a field learns from in the space of pixels, and the rays of their pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from course.arguments import check_number
from task_3_DreamFusion.nerf.provider import Cameras
from task_3_DreamFusion.nerf.renderer import Shading
from task_3_DreamFusion.nerf.settings import Settings


def check_shape(name: str, value: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a tensor of this shape. Raise ValueError for another shape, and TypeError for what is no tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is not a tensor")
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name} has the shape {tuple(value.shape)}, not {tuple(shape)}")
    return value


@dataclass(frozen=True)
class Target:
    """An image that the field shall come to look like. camera: one. image: (3, H, W) in [0, 1]. shading: of that
    image. behind: (3,), or None for the background of the field."""

    camera: Cameras
    image: Tensor
    shading: Shading
    behind: Tensor | None

    def state(self) -> dict[str, Any]:
        """For a checkpoint; `Target.of` reads it."""
        camera, shading = vars(self.camera), self.shading
        return {
            "camera": camera, "picture": self.image, "behind": self.behind,
            "mode": shading.mode, "lights": shading.lights, "ambient": shading.ambient,
        }  # fmt: skip

    @classmethod
    def of(cls, state: dict[str, Any], settings: Settings, device: torch.device) -> "Target":
        """Return the target of a checkpoint. Raises TypeError, ValueError or KeyError for something else."""
        camera = Cameras(
            **{
                name: check_shape(name, value, (1, 3) if name == "target" else (1,)).cpu()
                for name, value in state["camera"].items()
            }
        )
        image = check_shape("picture", state["picture"], (3, settings.size, settings.size))
        lights, behind = state["lights"], state["behind"]
        if lights is not None:
            check_shape("lights", lights, (1, 3))
        if settings.background == "random":
            check_shape("behind", behind, (3,))
        elif behind is not None:
            raise ValueError("there is a color behind a target")
        shading = Shading(state["mode"], lights, check_number("ambient", state["ambient"], 0, 1))
        return cls(camera, image.to(device), shading, behind)


@dataclass(frozen=True)
class TargetRays:
    """The pixels of targets that are lit in one way: their rays and colours, each (N, 3), target after target.

    shading: of the first, with the lights of all. behind: the colours (B, 3) behind them, or None.
    """

    origins: Tensor
    directions: Tensor
    pixels: Tensor
    shading: Shading
    behind: Tensor | None

    @classmethod
    def of(cls, targets: Sequence[Target], size: int, device: torch.device) -> "TargetRays":
        """Those of `targets`, of size x size pixels each."""
        rays = Cameras.cat([target.camera for target in targets]).to(device).rays(size, size)
        images = torch.stack([target.image for target in targets]).permute(0, 2, 3, 1)
        origins, directions, pixels = (part.reshape(-1, 3) for part in (*rays, images))
        lights = [target.shading.lights for target in targets if target.shading.lights is not None]
        shading = replace(targets[0].shading, lights=torch.cat(lights) if lights else None)
        behind = [target.behind for target in targets if target.behind is not None]
        return cls(origins, directions, pixels, shading, torch.stack(behind) if behind else None)
