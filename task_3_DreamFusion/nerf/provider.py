"""Cameras: random views for training, an orbit for videos, and the rays through their pixels.

The world has y up, and the front of an object faces +z. Angles are in degrees: azimuth 0 faces the
front and grows counter-clockwise seen from above; elevation is above the horizon. Views: front
below 45 degrees either way, back beyond 135, side between, overhead from elevation 60.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
SUBJECT_RADIUS = 0.75  # of the sphere that cameras frame; the field fills the box [-1, 1]^3
# Of random training views: the vertical angle in degrees, the fraction of the image height that the
# sphere fills, which determines the distance, and the largest offset of the target along each axis.
FOV, FILL, JITTER = (28.0, 52.0), (0.7, 0.9), 0.05


@dataclass(frozen=True)
class Cameras:
    """B cameras that look at their targets.

    azimuth, elevation, fov: (B,) degrees; fov is vertical. radius: (B,) distance to the target.
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
        moved = {name: value.to(device, non_blocking=True) for name, value in vars(self).items()}
        return replace(self, **moved)

    def __getitem__(self, rows: slice | list[int]) -> "Cameras":
        return replace(self, **{name: value[rows] for name, value in vars(self).items()})

    @classmethod
    def cat(cls, cameras: Sequence["Cameras"]) -> "Cameras":
        return cls(*(torch.cat([getattr(one, f.name) for one in cameras]) for f in fields(cls)))

    def poses(self) -> Tensor:
        """Return the camera-to-world matrices (B, 4, 4).

        Their columns are right, up, back (a camera looks along its -z) and the camera's position.
        """
        a, e = torch.deg2rad(self.azimuth), torch.deg2rad(self.elevation)
        zero, one = torch.zeros_like(a), torch.ones_like(a)
        back = torch.stack([a.sin() * e.cos(), e.sin(), a.cos() * e.cos()], -1)  # (B, 3)
        right = torch.stack([a.cos(), zero, -a.sin()], -1)  # defined at elevation 90 too
        up = torch.linalg.cross(back, right)
        position = self.target + back * self.radius[:, None]
        top = torch.stack([right, up, back, position], -1)  # (B, 3, 4)
        return torch.cat([top, torch.stack([zero, zero, zero, one], -1)[:, None]], 1)

    def rays(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return origins and unit directions (B, height, width, 3) of rays through pixel centers.

        Row 0 is the top row. Raises ValueError for an image without pixels.
        """
        if height < 1 or width < 1:
            raise ValueError(f"height and width must be at least 1, got {height} and {width}")
        poses = self.poses()
        # Size of a pixel at distance 1.
        scale = torch.tan(torch.deg2rad(self.fov) / 2)[:, None, None] * 2 / height
        rows = torch.arange(height, device=poses.device, dtype=poses.dtype)
        columns = torch.arange(width, device=poses.device, dtype=poses.dtype)
        y = (height / 2 - 0.5 - rows)[None, :, None] * scale  # (B, height, 1)
        x = (columns + 0.5 - width / 2)[None, None, :] * scale  # (B, 1, width)
        x, y = torch.broadcast_tensors(x, y)
        local = torch.stack([x, y, -torch.ones_like(x)], -1)  # (B, height, width, 3)
        # Not a matrix product, which mixed precision would round to half.
        rotated = (poses[:, None, None, :3, :3] * local[..., None, :]).sum(-1)
        directions = torch.nn.functional.normalize(rotated, dim=-1)
        return poses[:, None, None, :3, 3].expand_as(directions), directions


@dataclass(frozen=True)
class ViewRange:
    """The range of random training views: lowest and highest angle, in degrees.

    fov, fill, jitter: see FOV, FILL and JITTER.
    """

    azimuth: tuple[float, float] = (-180.0, 180.0)
    elevation: tuple[float, float] = (-5.0, 70.0)
    fov: tuple[float, float] = FOV
    fill: tuple[float, float] = FILL
    jitter: float = JITTER

    def narrow(self, fraction: float) -> "ViewRange":
        """Return the range for the start of a run: a fraction of the angles, around the front."""
        horizon = min(max(15.0, self.elevation[0]), self.elevation[1])
        azimuth = fraction * self.azimuth[0], fraction * self.azimuth[1]
        low, high = (horizon + fraction * (angle - horizon) for angle in self.elevation)
        return replace(self, azimuth=azimuth, elevation=(low, high))

    def sample(self, count: int, generator: torch.Generator, step: int | None = None) -> Cameras:
        """Sample views on the CPU, uniformly over the sphere, with stratified azimuths.

        The azimuth range is divided into `count` sectors with one view each, so that no step sees a
        single side. step: number of the training step; then azimuths are not random, but advance by
        the golden ratio of a sector, so that few steps see all sides evenly.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(count, generator=generator)

        if step is None:
            offset = torch.rand(count, generator=generator)
        else:
            offset = torch.tensor(step * GOLDEN_RATIO % 1)
        low, high = self.azimuth
        azimuth = low + (high - low) * ((torch.arange(count) + offset) / count)
        # Uniform in the sine of the elevation is uniform over the sphere.
        sines = [math.sin(math.radians(angle)) for angle in self.elevation]
        elevation = torch.rad2deg(torch.asin(uniform(*sines)))
        fov = uniform(*self.fov)
        target = self.jitter * (2 * torch.rand(count, 3, generator=generator) - 1)
        radius = camera_distance(fov, uniform(*self.fill))
        return Cameras(wrap_azimuth(azimuth), elevation, radius, fov, target)


# The cameras of a model of several views, which stand where `orbit` puts them.
MULTIVIEW = ViewRange(fov=(40.0, 40.0), fill=(0.8, 0.8), jitter=0.0)


def camera_distance(fov: Tensor, fill: Tensor) -> Tensor:
    """Return the distance at which a sphere of SUBJECT_RADIUS fills a fraction of the height."""
    return SUBJECT_RADIUS / (fill * torch.tan(torch.deg2rad(fov) / 2))


def wrap_azimuth(azimuth: Tensor) -> Tensor:
    """Return equal angles in [-180, 180)."""
    return (azimuth + 180) % 360 - 180


def orbit(
    count: int, elevation: float = 15.0, fov: float = 40.0, fill: float = 0.8, start: float = 0.0
) -> Cameras:
    """Return `count` views of a full turn, from azimuth `start`, at one elevation."""
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    azimuth = wrap_azimuth(start + 360 * torch.arange(count) / count)
    ones = torch.ones(count)
    radius = camera_distance(fov * ones, fill * ones)
    return Cameras(azimuth, elevation * ones, radius, fov * ones, torch.zeros(count, 3))
