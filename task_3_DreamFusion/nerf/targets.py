"""Targets: the images that a field learns from with `--space pixels`, and their rays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from course.arguments import check_number
from task_3_DreamFusion.nerf.provider import Cameras
from task_3_DreamFusion.nerf.renderer import Shading
from task_3_DreamFusion.nerf.settings import Settings

WALL_OPACITY = 0.05  # of a ray that does not meet the field


@dataclass(frozen=True)
class Target:
    """What the field should look like from one camera.

    image: (3, H, W) in [0, 1]. shading: of that image. background_color: (3,), or None if the field
    has its own background. normals: (3, H, W) of the surfaces in the image, in camera space, 0
    where there is none; None if they are not known.
    """

    camera: Cameras
    image: Tensor
    shading: Shading
    background_color: Tensor | None
    normals: Tensor | None = None

    def state(self) -> dict[str, Any]:
        """Return the target for a checkpoint; `from_state` reads it."""
        return {
            "camera": vars(self.camera),
            "image": self.image,
            "background_color": self.background_color,
            "normals": self.normals,
            "mode": self.shading.mode,
            "lights": self.shading.lights,
            "ambient": self.shading.ambient,
        }

    @classmethod
    def from_state(
        cls, state: dict[str, Any], settings: Settings, device: torch.device
    ) -> "Target":
        """Return the target of a checkpoint.

        Raises TypeError, ValueError, LookupError or AttributeError for foreign data.
        """
        camera = {
            name: check_shape(name, value, (1, 3) if name == "target" else (1,)).cpu()
            for name, value in state["camera"].items()
        }
        image = check_shape("image", state["image"], (3, settings.size, settings.size))
        lights = state["lights"]
        if lights is not None:
            check_shape("lights", lights, (1, 3))
        color = state["background_color"]
        if settings.background != "network":
            check_shape("background_color", color, (3,))
        elif color is not None:
            raise ValueError("a target has a background color")
        normals = state["normals"]
        if normals is not None:
            normals = check_shape("normals", normals, image.shape).to(device)
        ambient = check_number("ambient", state["ambient"], 0, 1)
        shading = Shading(state["mode"], lights, ambient)
        return cls(Cameras(**camera), image.to(device), shading, color, normals)


@dataclass(frozen=True)
class TargetRays:
    """The rays, colors and normals, each (N, 3), of all pixels of targets lit in one way.

    All are in the space of the world. normals: None if the targets have none. shading: of the first
    target, with the lights of all. background_colors: (B, 3), or None.
    """

    origins: Tensor
    directions: Tensor
    colors: Tensor
    normals: Tensor | None
    shading: Shading
    background_colors: Tensor | None

    @classmethod
    def from_targets(
        cls, targets: Sequence[Target], size: int, device: torch.device
    ) -> "TargetRays":
        """Return the rays of targets of size x size pixels, target after target."""
        cameras = Cameras.cat([target.camera for target in targets]).to(device)
        origins, directions = (part.reshape(-1, 3) for part in cameras.rays(size, size))
        images = torch.stack([target.image for target in targets]).permute(0, 2, 3, 1)
        own_normals = [target.normals for target in targets if target.normals is not None]
        normals = None
        if own_normals:
            rotations = cameras.poses()[:, :3, :3]
            normals = torch.einsum("bij,bjhw->bhwi", rotations, torch.stack(own_normals))
            normals = normals.reshape(-1, 3)
        lights = [target.shading.lights for target in targets if target.shading.lights is not None]
        shading = replace(targets[0].shading, lights=torch.cat(lights) if lights else None)
        walls = [t.background_color for t in targets if t.background_color is not None]
        background_colors = torch.stack([c.to(device) for c in walls]) if walls else None
        colors = images.reshape(-1, 3)
        return cls(origins, directions, colors, normals, shading, background_colors)


def wall_colors(images: Tensor, opacity: Tensor, default: Tensor) -> Tensor:
    """Return the color of the wall in each target image, (B, 3).

    It is the median color where the field is empty, or `default` (3,) where it nowhere is. The
    prompt says "a plain background", and the model chooses a color anew at each step. Before a wall
    of one color the field would have to fill its box to show it.

    images: (B, 3, H, W). opacity: of the rendered images, of B * H * W rays.
    """
    is_wall = opacity.reshape(len(images), 1, -1) < WALL_OPACITY  # (B, 1, H * W)
    colors = torch.where(is_wall, images.flatten(2), torch.nan).nanmedian(dim=2).values
    return torch.where(colors.isnan(), default, colors)


def check_shape(name: str, value: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a tensor of this shape. Raises ValueError for another shape, and TypeError."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is not a tensor")
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name} has the shape {tuple(value.shape)}, not {tuple(shape)}")
    return value
