"""View prompts: the words "front", "side", "back" or "overhead view" follow the prompt.

Which word a camera gets depends on its azimuth and elevation in degrees (DreamFusion, section 3.1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from course.views import FRONT_SIDE, OVERHEAD, SIDE_BACK
from course.views import VIEWS as VIEWS

BLEND = 15.0  # degrees on each side of a border between views, where one turns into the other


@dataclass(frozen=True)
class ViewPrompts:
    """Text embeddings of a prompt for each view.

    text: the prompt without its view. views: (4, L, D), in the order of VIEWS. negative: (1, L, D),
    the negative prompt of classifier-free guidance.
    """

    text: str
    views: Tensor
    negative: Tensor

    def at(self, azimuth: Tensor, elevation: Tensor) -> Tensor:
        """Return embeddings (B, L, D) for cameras at (B,) degrees, mixed by `view_weights`."""
        weights = view_weights(azimuth, elevation).to(self.views)
        return torch.einsum("bv,vld->bld", weights, self.views)


def view_weights(azimuth: Tensor, elevation: Tensor) -> Tensor:
    """Return the weight of each of VIEWS for cameras: (B, 4), each row sums to 1.

    azimuth, elevation: (B,) degrees. Within BLEND degrees of a border between two views their
    weights change linearly; at the border itself they are equal.
    """

    def weight_above(angle: Tensor, border: float) -> Tensor:
        return ((angle - border) / (2 * BLEND) + 0.5).clamp(0, 1)

    angle = ((azimuth + 180) % 360 - 180).abs()
    overhead = weight_above(elevation, OVERHEAD)
    not_front = weight_above(angle, FRONT_SIDE)
    back = weight_above(angle, SIDE_BACK)
    around = torch.stack([1 - not_front, not_front - back, back], -1) * (1 - overhead)[:, None]
    return torch.cat([around, overhead[:, None]], -1)


def negative_views(azimuth: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two views that a camera shows least, and their Perp-Neg weights, each (B, 2).

    The views are indices in VIEWS; overhead is never one of them, since no object has its face
    there. A weight is 1 for a view that the camera does not show at all, and 0 for one that it
    shows at least as much as any other. azimuth: (B,) degrees.
    """
    weights = view_weights(azimuth, torch.zeros_like(azimuth))[:, :3]
    ascending, views = weights.sort(dim=1, stable=True)
    return views[:, :2], (1 - 2 * ascending[:, :2]).clamp(min=0)
