"""Images of a field: rays march through what is occupied, samples are shaded and composited.

Training images carry gradients, and say what the regularisers need; finished ones are made in rounds, without.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

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

LOOKS = ("albedo", "lambertian", "textureless", "normals")
OPAQUE = 0.01  # a cell is occupied if a step through it is at least so opaque
ROUND, LONGEST = (
    16,
    64,
)  # samples a ray takes in a round of a finished image: at first, and when few are left
# Behind a field without a background: a plain wall in a soft colour, as pocket draws it, which stands out from white as
# well as from dark things.
PLAIN = (0.60, 0.68, 0.76)


@dataclass(frozen=True)
class Shading:
    """How points are coloured.

    look: one of LOOKS; "lambertian" is lit albedo, "textureless" is lit white (DreamFusion, section 3.1).
    lights: (B, 3) positions of a light for each camera; None where the look needs none. ambient: the share of light
    that comes from everywhere.
    """

    look: str = "albedo"
    lights: Tensor | None = None
    ambient: float = 0.3

    def __post_init__(self) -> None:
        if self.look not in LOOKS:
            raise ValueError(f"no look {self.look!r}: choose from {', '.join(LOOKS)}")
        if self.is_lit and self.lights is None:
            raise ValueError(f"the look {self.look!r} needs lights")

    @property
    def is_lit(self) -> bool:
        return self.look in ("lambertian", "textureless")

    @property
    def needs_normals(self) -> bool:
        return self.look != "albedo"

    def colours(self, albedo: Tensor, normals: Tensor | None, x: Tensor, cameras: Tensor) -> Tensor:
        """Colours (M, 3) of points x (M, 3), seen by the cameras (M,), with unit normals (M, 3) if they are needed."""
        if normals is None:
            return albedo
        if not self.is_lit:
            return 0.5 + 0.5 * normals
        assert self.lights is not None
        to_light = torch.nn.functional.normalize(self.lights.to(x)[cameras] - x, dim=-1)
        light = self.ambient + (1 - self.ambient) * (normals * to_light).sum(
            -1, keepdim=True
        ).clamp(min=0)
        return light * albedo if self.look == "lambertian" else light.expand_as(albedo)


@dataclass(frozen=True)
class Rendered:
    """What rays have seen. image: (N, 3) with the background. opacity, depth: (N, 1); or (B, 3, H, W) and (B, 1, H, W),
    if the rays are those of whole images.

    positions: (M, 3) the samples. weights: (M,) what each adds to its ray. directions: (M, 3) of their rays. normals:
    (M, 3), if the shading needed them.
    """

    image: Tensor
    opacity: Tensor
    depth: Tensor
    positions: Tensor
    weights: Tensor
    directions: Tensor
    normals: Tensor | None


class Renderer(nn.Module):
    """A field, what is behind it, and the grid of cells that are occupied.

    background: a network, or None for colours given with each call, or else PLAIN. steps: samples along the box's
    diagonal. cells: along a side of the occupancy grid, a power of two. normal_step: of central differences, in units
    of `bound`; None takes analytic normals.
    """

    density_grid: Tensor
    bits: Tensor
    plain: Tensor

    def __init__(
        self,
        field: Field,
        background: Background | None = None,
        steps: int = 256,
        cells: int = 64,
        normal_step: float | None = 1e-2,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps is at least 1, not {steps}")
        self.field, self.background, self.cells = field, background, cells
        self.step = 2 * math.sqrt(3) * field.bound / steps
        self.normal_step = None if normal_step is None else normal_step * field.bound
        self.register_buffer("density_grid", torch.zeros(cells**3))  # in Morton order
        self.register_buffer(
            "plain", torch.tensor(PLAIN), persistent=False
        )  # there already: nobody waits for its way
        self.register_buffer(
            "bits", torch.full((cells**3 // 8,), 255, dtype=torch.uint8)
        )  # at first all

    @property
    def device(self) -> torch.device:
        return self.bits.device

    @property
    def occupancy(self) -> Occupancy:
        b = self.field.bound
        return Occupancy(self.bits, (-b, -b, -b, b, b, b))

    @property
    def filled(self) -> float:
        """The share of cells that are occupied."""
        bits = self.bits.to(torch.int32)
        return sum(((bits >> i) & 1).sum().item() for i in range(8)) / (8 * len(self.bits))

    # --- The occupancy grid

    @torch.no_grad()
    def update_occupancy(
        self, generator: torch.Generator, share: float = 1.0, decay: float = 0.95
    ) -> None:
        """Asks the field for its density in some of the cells, at a random place in each (Instant-NGP, appendix E).

        share: of the cells; half of these are drawn from all, half from those that are occupied. What was found
        before fades by `decay`, so that a cell that has emptied is noticed.
        """
        count = self.cells**3
        if share >= 1:
            chosen = torch.arange(count, device=self.device)
        else:
            half = int(count * share / 2)
            chosen = torch.randint(count, (half,), generator=generator).to(
                self.device, non_blocking=True
            )
            occupied = (self.density_grid > self._threshold()).nonzero()[:, 0]
            if len(occupied):
                drawn = torch.rand(half, generator=generator).to(self.device, non_blocking=True)
                chosen = torch.cat([chosen, occupied[(drawn * len(occupied)).long()]])
        cells = morton3d_invert(chosen.int())
        inside = torch.rand(len(chosen), 3, generator=generator).to(self.device, non_blocking=True)
        x = ((cells + inside) * (2 / self.cells) - 1) * self.field.bound
        found = torch.cat([self.field.density(part) for part in x.split(2**18)]).float()
        self.density_grid *= decay
        # The largest where a cell was drawn twice, in whatever order.
        self.density_grid.scatter_reduce_(0, chosen, found, "amax")
        self.bits.copy_(packbits(self.density_grid, self._threshold()))

    def _threshold(self) -> float:
        """The density from which a cell counts as occupied: at most the mean, so that a thin field is not lost."""
        return min(-math.log1p(-OPAQUE) / self.step, self.density_grid.mean().item())

    # --- Images

    def forward(
        self,
        cameras: Cameras,
        height: int,
        width: int,
        generator: torch.Generator,
        shading: Shading | None = None,
        behind: Tensor | None = None,
    ) -> Rendered:
        """A training image (B, 3, height, width) with gradient.

        generator: on the CPU; each ray begins at a random place of its first step. behind: (B, 3) background colours
        in place of the network's.
        """
        origins, directions = (
            part.reshape(-1, 3) for part in cameras.to(self.device).rays(height, width)
        )
        owners = torch.arange(len(cameras), device=self.device).repeat_interleave(height * width)
        seen = self.render(
            self.march(origins, directions, generator), directions, owners, shading, behind
        )

        def image(values: Tensor) -> Tensor:  # (B * H * W, C) to (B, C, H, W)
            return values.view(len(cameras), height, width, -1).permute(0, 3, 1, 2)

        return replace(
            seen,
            image=image(seen.image),
            opacity=image(seen.opacity),
            depth=image(seen.depth),
        )

    def march(self, origins: Tensor, directions: Tensor, generator: torch.Generator) -> Samples:
        """Where to ask the field along rays (N, 3). generator: as `forward` has it."""
        nears, fars = ray_aabb_intersect(origins, directions, self.occupancy.box, near_plane=0.05)
        starts = nears + self.step * torch.rand(len(nears), generator=generator).to(
            self.device, non_blocking=True
        )
        return march_rays(origins, directions, starts, fars, self.occupancy, self.step)

    def render(
        self,
        samples: Samples,
        directions: Tensor,
        owners: Tensor,
        shading: Shading | None = None,
        behind: Tensor | None = None,
    ) -> Rendered:
        """What rays (N, 3) with these samples see, with gradient. owners: (N,) which camera each belongs to, for the
        lights of `shading` and the colours `behind`, both (B, 3)."""
        shading = shading or Shading()
        x, d = samples.positions, directions[samples.ray_indices]
        sigmas, albedo = self.field(x)
        normals = self.field.normals(x, self.normal_step) if shading.needs_normals else None
        colours = shading.colours(albedo, normals, x, owners[samples.ray_indices])
        sums = composite_rays(sigmas, colours, torch.full_like(sigmas, self.step), samples)
        far = self._behind(directions) if behind is None else behind.to(directions)[owners]
        image = sums.image + (1 - sums.opacities)[:, None] * far
        return Rendered(
            image, sums.opacities[:, None], sums.depths[:, None], x, sums.weights, d, normals
        )

    def _behind(self, directions: Tensor) -> Tensor:
        """Colours (N, 3) of the background."""
        if self.background is None:
            return self.plain.expand_as(directions)
        return self.background(directions)

    @torch.no_grad()
    def finished(
        self, cameras: Cameras, height: int, width: int, shading: Shading | None = None
    ) -> Iterator[Tensor]:
        """Images (5, height, width) of one camera after the other: colour in [0, 1], opacity, depth.

        Depth is the mean over what is seen; 0 where nothing is.
        """
        shading = shading or Shading()
        for i in range(len(cameras)):
            one = cameras[i : i + 1]
            origins, directions = (
                part.reshape(-1, 3) for part in one.to(self.device).rays(height, width)
            )
            nears, fars = ray_aabb_intersect(
                origins, directions, self.occupancy.box, near_plane=0.05
            )
            rays = AliveRays(
                origins, directions, nears + self.step / 2, fars, self.occupancy, self.step
            )
            lit = (
                shading
                if shading.lights is None
                else Shading(shading.look, shading.lights[i : i + 1], shading.ambient)
            )
            # As many samples a round as in the first: each waits for the GPU to count the alive rays.
            while (
                samples := rays.march(
                    min(ROUND * len(origins) // max(len(rays.indices), 1), LONGEST)
                )
            ) is not None:
                x = samples.positions
                sigmas, albedo = self.field(x)
                normals = self.field.normals(x, self.normal_step) if lit.needs_normals else None
                camera = torch.zeros(len(x), dtype=torch.long, device=x.device)
                rays.composite(samples, sigmas, lit.colours(albedo, normals, x, camera))
            left = (1 - rays.opacities)[:, None]
            colours = rays.image + left * self._behind(directions)
            depth = rays.depths / rays.opacities.clamp(min=1e-6)
            values = torch.cat([colours.clamp(0, 1), rays.opacities[:, None], depth[:, None]], -1)
            yield values.view(height, width, 5).permute(2, 0, 1)
