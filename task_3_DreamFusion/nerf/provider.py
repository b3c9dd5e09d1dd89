"""Where the cameras stand: random views for training, an orbit for videos, and the rays through their pixels.

The world has y up and an object's front looks along +z. Angles are in degrees: azimuth 0 faces the front and grows
counter-clockwise seen from above; elevation is above the horizon. View words: front below 45 degrees either way, back
beyond 135, side between, overhead from elevation 60.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

GOLDEN = (math.sqrt(5) - 1) / 2
SIZE = 0.75  # radius of the sphere that the camera frames; the field fills the box [-1, 1]^3


@dataclass(frozen=True)
class Cameras:
    """Cameras that look at `target`, one a row.

    azimuth, elevation, fov: (B,) degrees; fov from the lower to the upper edge. radius: (B,) distance to the target.
    target: (B, 3).
    """

    azimuth: Tensor
    elevation: Tensor
    radius: Tensor
    fov: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.azimuth)

    def to(self, device: torch.device | str) -> "Cameras":
        return replace(
            self,
            **{name: value.to(device, non_blocking=True) for name, value in vars(self).items()},
        )

    def __getitem__(self, rows: Any) -> "Cameras":
        """The cameras of a slice or of a list of rows."""
        return replace(self, **{name: value[rows] for name, value in vars(self).items()})

    def poses(self) -> Tensor:
        """Camera to world, (B, 4, 4): the columns are right, up, back (the camera looks along its -z) and the eye."""
        a, e = torch.deg2rad(self.azimuth), torch.deg2rad(self.elevation)
        zero, one = torch.zeros_like(a), torch.ones_like(a)
        back = torch.stack([a.sin() * e.cos(), e.sin(), a.cos() * e.cos()], -1)  # (B, 3)
        right = torch.stack([a.cos(), zero, -a.sin()], -1)  # defined from straight above too
        up = torch.linalg.cross(back, right)
        eye = self.target + back * self.radius[:, None]
        top = torch.stack([right, up, back, eye], -1)  # (B, 3, 4)
        return torch.cat([top, torch.stack([zero, zero, zero, one], -1)[:, None]], 1)

    def rays(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Origins and unit directions (B, height, width, 3) of the rays through the centres of the pixels.

        Row 0 is the upper edge. Raises ValueError for an image without pixels.
        """
        if height < 1 or width < 1:
            raise ValueError(f"a picture has at least one pixel, not {height} x {width}")
        poses = self.poses()
        like = {"device": poses.device, "dtype": poses.dtype}
        scale = (
            torch.tan(torch.deg2rad(self.fov) / 2)[:, None, None] * 2 / height
        )  # of a pixel at distance 1
        y = (height / 2 - 0.5 - torch.arange(height, **like))[
            None, :, None
        ] * scale  # (B, height, 1)
        x = (torch.arange(width, **like) + 0.5 - width / 2)[None, None, :] * scale  # (B, 1, width)
        x, y = torch.broadcast_tensors(x, y)
        local = torch.stack([x, y, -torch.ones_like(x)], -1)  # (B, height, width, 3)
        # Not a product of matrices: mixed precision would round it to half.
        turned = (poses[:, None, None, :3, :3] * local[..., None, :]).sum(-1)
        directions = torch.nn.functional.normalize(turned, dim=-1)
        return poses[:, None, None, :3, 3].expand_as(directions), directions


@dataclass(frozen=True)
class ViewRange:
    """The views that training draws from.

    azimuth, elevation, fov: lowest and highest, in degrees. fill: the share of the image's height that a sphere of
    radius SIZE takes; the distance follows from it. jitter: how far the target is moved, at most, along each axis.
    """

    azimuth: tuple[float, float] = (-180.0, 180.0)
    elevation: tuple[float, float] = (-5.0, 70.0)
    fov: tuple[float, float] = (28.0, 52.0)
    fill: tuple[float, float] = (0.7, 0.9)
    jitter: float = 0.05

    def __post_init__(self) -> None:
        limits = {
            "azimuth": (-360, 360),
            "elevation": (-90, 90),
            "fov": (1, 170),
            "fill": (0.01, 10),
        }
        for name, (least, most) in limits.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ValueError(f"{name} is a range within [{least}, {most}], not {low} to {high}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter is in [0, 1), not {self.jitter}")

    def narrowed(self, share: float) -> "ViewRange":
        """The range for the beginning of a run: `share` of the angles about the front, at a height near the horizon."""
        horizon = min(max(15.0, self.elevation[0]), self.elevation[1])
        azimuth = share * self.azimuth[0], share * self.azimuth[1]
        low, high = (horizon + share * (angle - horizon) for angle in self.elevation)
        return replace(self, azimuth=azimuth, elevation=(low, high))

    def sample(self, count: int, generator: torch.Generator, turn: int | None = None) -> Cameras:
        """`count` random views, drawn on the CPU: evenly over the sphere, with azimuths spread over their range.

        The views of one step lie in sectors of equal width, one in each, so that no step sees a single side. turn: the
        number of the step; with it the azimuths are not random, but go on by the golden ratio of a sector, so that
        few steps have seen all sides evenly.
        """
        if count < 1:
            raise ValueError(f"at least one view, not {count}")

        def draw(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(count, generator=generator)

        low, high = self.azimuth
        within = (
            torch.rand(count, generator=generator)
            if turn is None
            else torch.tensor(turn * GOLDEN % 1)
        )
        sector = (torch.arange(count) + within) / count
        azimuth = low + (high - low) * sector
        heights = [
            math.sin(math.radians(angle)) for angle in self.elevation
        ]  # even in these is even over the sphere
        elevation = torch.rad2deg(torch.asin(draw(heights[0], heights[1])))
        fov = draw(*self.fov)
        target = self.jitter * (2 * torch.rand(count, 3, generator=generator) - 1)
        return Cameras(wrap(azimuth), elevation, distance(fov, draw(*self.fill)), fov, target)


def joined(cameras: Sequence[Cameras]) -> Cameras:
    """The cameras of all, in their order."""
    return Cameras(*(torch.cat([getattr(one, f.name) for one in cameras]) for f in fields(Cameras)))


def distance(fov: Tensor, fill: Tensor) -> Tensor:
    """How far a camera stands for a sphere of radius SIZE to take the share `fill` of its image's height."""
    return SIZE / (fill * torch.tan(torch.deg2rad(fov) / 2))


def wrap(azimuth: Tensor) -> Tensor:
    """The same directions as angles in [-180, 180)."""
    return (azimuth + 180) % 360 - 180


def orbit(
    count: int, elevation: float = 15.0, fov: float = 40.0, fill: float = 0.8, start: float = 0.0
) -> Cameras:
    """`count` views once around, from azimuth `start`, all at one elevation."""
    if count < 1:
        raise ValueError(f"at least one view, not {count}")
    azimuth = wrap(start + 360 * torch.arange(count) / count)
    same = torch.ones(count)
    return Cameras(
        azimuth, elevation * same, distance(fov * same, fill * same), fov * same, torch.zeros(count, 3)
    )  # fmt: skip
