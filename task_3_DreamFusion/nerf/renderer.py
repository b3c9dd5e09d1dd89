"""Volume rendering of a field: march rays through occupied cells, shade samples, composite.

`Renderer.forward` renders training images with gradient; `Renderer.render_eval` renders without.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from task_3_DreamFusion.nerf.network import Background, Field
from task_3_DreamFusion.nerf.provider import Cameras
from task_3_DreamFusion.raymarching import (
    AliveRays,
    Occupancy,
    Samples,
    composite_rays,
    march_rays,
    morton3d_invert,
    packbits,
    ray_aabb_intersect,
)

SHADING_MODES = ("albedo", "lambertian", "textureless", "normals")
NEAR_PLANE = 0.05
MIN_CELL_OPACITY = 0.01  # a cell is occupied if a step through it is at least so opaque
# Samples of a ray in a round of render_eval: in the first one, and at most, when few rays are left.
SAMPLES_PER_ROUND, MAX_SAMPLES_PER_ROUND = 16, 64
# Behind a field without a background: a wall as pocket's training images have it, in a soft color
# that contrasts with white and with dark objects.
PLAIN_COLOR = (0.60, 0.68, 0.76)


@dataclass(frozen=True)
class Shading:
    """How points are shaded.

    mode: one of SHADING_MODES; "lambertian" is lit albedo, "textureless" is lit white (DreamFusion,
    section 3.1). lights: (B, 3) position of a point light for each camera; None where the mode
    needs none. ambient: fraction of the light that is ambient.
    """

    mode: str = "albedo"
    lights: Tensor | None = None
    ambient: float = 0.3

    def __post_init__(self) -> None:
        if self.mode not in SHADING_MODES:
            raise ValueError(f"mode must be one of {', '.join(SHADING_MODES)}, got {self.mode!r}")
        if self.is_lit and self.lights is None:
            raise ValueError(f"lights must be given for the shading mode {self.mode!r}")

    @property
    def is_lit(self) -> bool:
        return self.mode in ("lambertian", "textureless")

    @property
    def needs_normals(self) -> bool:
        return self.mode != "albedo"

    def shade(
        self, albedo: Tensor, normals: Tensor | None, x: Tensor, camera_indices: Tensor
    ) -> Tensor:
        """Return colors (M, 3) of points x (M, 3), each seen by one of the cameras.

        albedo: (M, 3). normals: (M, 3) unit normals, if needed. camera_indices: (M,).
        """
        if normals is None:
            return albedo
        if not self.is_lit:
            return 0.5 + 0.5 * normals
        assert self.lights is not None
        to_light = nn.functional.normalize(self.lights.to(x)[camera_indices] - x, dim=-1)
        diffuse = (normals * to_light).sum(-1, keepdim=True).clamp(min=0)
        light = self.ambient + (1 - self.ambient) * diffuse
        return light * albedo if self.mode == "lambertian" else light.expand_as(albedo)


ALBEDO = Shading()


@dataclass(frozen=True)
class RenderOutput:
    """Rendered rays and their samples.

    image: (N, 3) with the background. opacity, depth: (N, 1). For the rays of whole images these
    are (B, 3, H, W) and (B, 1, H, W).
    positions: (M, 3) of the samples. weights: (M,) in the sum of their ray. ray_indices: (M,) and
    directions: (M, 3) of their rays. normals: (M, 3), if the shading needed them.
    """

    image: Tensor
    opacity: Tensor
    depth: Tensor
    positions: Tensor
    weights: Tensor
    ray_indices: Tensor
    directions: Tensor
    normals: Tensor | None


class Renderer(nn.Module):
    """A field, its background, and the grid of occupied cells.

    background: a network, or None for PLAIN_COLOR. max_steps: samples along the diagonal of the
    box. grid_size: cells along a side of the occupancy grid, a power of two.
    """

    density_grid: Tensor
    bits: Tensor
    plain_color: Tensor

    def __init__(
        self,
        field: Field,
        background: Background | None = None,
        max_steps: int = 256,
        grid_size: int = 64,
    ) -> None:
        super().__init__()
        if max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {max_steps}")
        self.field, self.background = field, background
        self.grid_size = grid_size
        self.step_size = 2 * math.sqrt(3) * field.bound / max_steps
        cells = grid_size**3
        self.register_buffer("density_grid", torch.zeros(cells))  # in Morton order
        # A buffer, so that it is on the device already.
        self.register_buffer("plain_color", torch.tensor(PLAIN_COLOR), persistent=False)
        # At first all cells are occupied.
        self.register_buffer("bits", torch.full((cells // 8,), 255, dtype=torch.uint8))

    @property
    def device(self) -> torch.device:
        return self.bits.device

    @property
    def occupancy(self) -> Occupancy:
        b = self.field.bound
        return Occupancy(self.bits, (-b, -b, -b, b, b, b))

    # --- The occupancy grid

    @torch.no_grad()
    def update_occupancy(
        self, generator: torch.Generator, fraction: float = 1.0, decay: float = 0.95
    ) -> None:
        """Evaluate the density at a random point in some of the cells (Instant-NGP, appendix E).

        fraction: of the cells; half of these are sampled from all cells, half from the occupied
        ones. Earlier densities decay, so that emptied cells are noticed. generator: on the CPU.
        """
        count = self.grid_size**3
        if fraction >= 1:
            indices = torch.arange(count, device=self.device)
        else:
            half = int(count * fraction / 2)
            indices = torch.randint(count, (half,), generator=generator)
            indices = indices.to(self.device, non_blocking=True)
            occupied = (self.density_grid > self._threshold()).nonzero()[:, 0]
            if len(occupied):
                uniform = torch.rand(half, generator=generator).to(self.device, non_blocking=True)
                indices = torch.cat([indices, occupied[(uniform * len(occupied)).long()]])
        cells = morton3d_invert(indices.int())
        offsets = torch.rand(len(indices), 3, generator=generator)
        offsets = offsets.to(self.device, non_blocking=True)
        x = ((cells + offsets) * (2 / self.grid_size) - 1) * self.field.bound
        density = torch.cat([self.field.density(part) for part in x.split(2**18)]).float()
        self.density_grid *= decay
        # The maximum where a cell was sampled twice, whatever the order.
        self.density_grid.scatter_reduce_(0, indices, density, "amax")
        self.bits.copy_(packbits(self._dilated_density(), self._threshold()))

    def _dilated_density(self) -> Tensor:
        """Return the largest density of each cell and its neighbors, in Morton order.

        A cell is known by few points, and a surface that just reaches into it would be cut off.
        """
        count, side = self.grid_size**3, self.grid_size
        cells = morton3d_invert(torch.arange(count, device=self.device, dtype=torch.int32)).long()
        rows = (cells[:, 0] * side + cells[:, 1]) * side + cells[:, 2]
        volume = torch.empty_like(self.density_grid)
        volume[rows] = self.density_grid
        dilated = F.max_pool3d(volume.view(1, 1, side, side, side), 3, stride=1, padding=1)
        return dilated.flatten()[rows]

    def _threshold(self) -> float:
        """Return the density of an occupied cell: at most the mean, to keep a thin field."""
        density = -math.log1p(-MIN_CELL_OPACITY) / self.step_size
        return min(density, self.density_grid.mean().item())

    # --- Images

    def forward(
        self,
        cameras: Cameras,
        height: int,
        width: int,
        generator: torch.Generator,
        shading: Shading = ALBEDO,
        background_color: Tensor | None = None,
    ) -> RenderOutput:
        """Render training images (B, 3, height, width) with gradient.

        generator: on the CPU; jitters the first step of each ray. background_color: (B, 3),
        replaces the background.
        """
        origins, directions = self._rays(cameras, height, width)
        samples = self.march(origins, directions, generator)
        camera_indices = torch.arange(len(cameras), device=self.device)
        camera_indices = camera_indices.repeat_interleave(height * width)
        output = self.render(samples, directions, camera_indices, shading, background_color)
        images = {name: getattr(output, name) for name in ("image", "opacity", "depth")}
        for name, values in images.items():  # (B * H * W, C) to (B, C, H, W)
            images[name] = values.view(len(cameras), height, width, -1).permute(0, 3, 1, 2)
        return replace(output, **images)

    def _rays(self, cameras: Cameras, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return origins and directions (B * height * width, 3)."""
        origins, directions = cameras.to(self.device).rays(height, width)
        return origins.reshape(-1, 3), directions.reshape(-1, 3)

    def _intersect(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        return ray_aabb_intersect(origins, directions, self.occupancy.box, NEAR_PLANE)

    def march(self, origins: Tensor, directions: Tensor, generator: torch.Generator) -> Samples:
        """Return the samples along rays (N, 3); `generator` as in `forward`."""
        nears, fars = self._intersect(origins, directions)
        jitter = torch.rand(len(nears), generator=generator).to(self.device, non_blocking=True)
        starts = nears + self.step_size * jitter
        return march_rays(origins, directions, starts, fars, self.occupancy, self.step_size)

    def render(
        self,
        samples: Samples,
        directions: Tensor,
        camera_indices: Tensor,
        shading: Shading = ALBEDO,
        background_color: Tensor | None = None,
    ) -> RenderOutput:
        """Render rays with these samples and directions (N, 3), with gradient.

        camera_indices: (N,), the camera of each ray, for the lights of `shading` and for
        `background_color`, both (B, 3).
        """
        x = samples.positions
        sigmas, colors, normals = self._shade(x, camera_indices[samples.ray_indices], shading)
        deltas = torch.full_like(sigmas, self.step_size)
        rays = composite_rays(sigmas, colors, deltas, samples)
        if background_color is None:
            background = self._background(directions)
        else:
            background = background_color.to(directions)[camera_indices]
        return RenderOutput(
            image=rays.image + (1 - rays.opacities)[:, None] * background,
            opacity=rays.opacities[:, None],
            depth=rays.depths[:, None],
            positions=x,
            weights=rays.weights,
            ray_indices=samples.ray_indices,
            directions=directions[samples.ray_indices],
            normals=normals,
        )

    def _shade(
        self, x: Tensor, camera_indices: Tensor, shading: Shading
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return density (M,), colors (M, 3) and, if needed, normals (M, 3) at points (M, 3)."""
        sigmas, albedo = self.field(x)
        normals = self.field.normals(x) if shading.needs_normals else None
        return sigmas, shading.shade(albedo, normals, x, camera_indices), normals

    def _background(self, directions: Tensor) -> Tensor:
        if self.background is None:
            return self.plain_color.expand_as(directions)
        return self.background(directions)

    @torch.no_grad()
    def render_eval(
        self, cameras: Cameras, height: int, width: int, shading: Shading = ALBEDO
    ) -> Iterator[Tensor]:
        """Yield an image (5, height, width) of each camera: color in [0, 1], opacity, mean depth.

        Depth is 0 where nothing is visible.
        """
        for i in range(len(cameras)):
            yield self._render_eval(cameras, i, height, width, shading)

    def _render_eval(
        self, cameras: Cameras, i: int, height: int, width: int, shading: Shading
    ) -> Tensor:
        origins, directions = self._rays(cameras[i : i + 1], height, width)
        nears, fars = self._intersect(origins, directions)
        starts = nears + self.step_size / 2
        rays = AliveRays(origins, directions, starts, fars, self.occupancy, self.step_size)
        while True:
            # As many samples as in the first round: each round waits for the GPU.
            count = SAMPLES_PER_ROUND * len(origins) // max(len(rays.indices), 1)
            samples = rays.march(min(count, MAX_SAMPLES_PER_ROUND))
            if samples is None:
                break
            camera_indices = torch.full_like(samples.ray_indices, i)
            sigmas, colors = self._shade(samples.positions, camera_indices, shading)[:2]
            rays.composite(samples, sigmas, colors)
        transmittance = (1 - rays.opacities)[:, None]
        color = rays.image + transmittance * self._background(directions)
        depth = rays.depths / rays.opacities.clamp(min=1e-6)
        values = torch.cat([color.clamp(0, 1), rays.opacities[:, None], depth[:, None]], -1)
        return values.view(height, width, 5).permute(2, 0, 1)
