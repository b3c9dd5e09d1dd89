"""Checks of cameras, rays, volume rendering and view prompts in task 3."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from course import diffusion
from course.checks.common import CheckFailed, Function, call, check, close, diagnose, expect
from course.views import FRONT_SIDE, OVERHEAD, SIDE_BACK

BLEND = 15.0  # degrees on either side of a border between views


@check("3 (h)")
def pixel_rays(function: Function, cameras: Any) -> str:
    """`pixel_rays` goes through the centers of the pixels, the top row first."""
    height, width = 4, 6
    origins, right = cameras.rays(height, width)
    pose, fov = cameras.poses()[0], cameras.fov[0]
    result = call(function, pose, fov, height, width)
    expect.is_a(result, tuple, "The result", "it has to be (origins, directions).")
    expect(len(result) == 2, "The result has to be (origins, directions).")
    for name, value in zip(("origins", "directions"), result, strict=True):
        expect.tensor(value, (height, width, 3), f"`{name}`")
    got_origins, directions = result
    diagnose(
        got_origins,
        origins[0],
        {"The origin is the camera's position, the last column of the pose.": -origins[0]},
        "The origins of all rays are the camera's position, pose[:3, 3].",
    )
    lengths = directions.norm(dim=-1)
    expect(
        close(lengths, torch.ones_like(lengths)),
        "The directions are not of length 1: divide by .norm(dim=-1, keepdim=True).",
    )
    diagnose(directions, right[0], _ray_mistakes(pose, fov, height, width), _RAYS_OTHERWISE)
    return "pixel_rays: one ray for each pixel"


_RAYS_OTHERWISE = (
    "The directions are not those through the pixel centers: x = (column + 0.5 - W/2) s to the "
    "right, y = (H/2 - row - 0.5) s upwards, -1 along the view axis, rotated by pose[:3, :3]."
)


def _ray_mistakes(pose: Tensor, fov: Tensor, height: int, width: int) -> dict[str, Tensor]:
    """Return the directions (H, W, 3) of usual mistakes, by their advice."""

    def rays(
        half: float = 0.5, up: float = 1, ahead: float = -1, size: Tensor | None = None
    ) -> Tensor:
        """Return the directions in the world; size: that of the image at distance 1."""
        scale = (2 * tangent if size is None else size) / height
        x = (torch.arange(width) + half - width / 2) * scale
        y = up * (height / 2 - half - torch.arange(height)) * scale
        grid = torch.stack(torch.broadcast_tensors(x[None], y[:, None], torch.tensor(ahead)), -1)
        return torch.nn.functional.normalize(grid, dim=-1) @ rotation.T

    rotation, angle = pose[:3, :3], torch.deg2rad(fov)
    tangent = torch.tan(angle / 2)
    return {
        "The image is upside down: row 0 is the top row, y points upwards.": rays(up=-1),
        "The rays go backwards: a camera looks along its -z.": rays(ahead=1.0),
        "The rays go through the corners: add half a pixel.": rays(0.0),
        "These are the camera's: rotate them into the world by pose[:3, :3].": rays() @ rotation,
        "The rotation is from world to camera: its transpose.": rays() @ rotation @ rotation,
        "The field of view is vertical: one scale for both axes, from the height.": rays(
            size=2 * tangent * height / width
        ),
        "The angle is in degrees: torch.deg2rad.": rays(size=2 * torch.tan(fov / 2)),
        "Half the angle belongs to half the height: tan(fov / 2).": rays(size=2 * torch.tan(angle)),
        "A pixel has the size 2 tan(fov / 2) / H, twice as large.": rays(size=tangent),
    }


@check("3 (i)")
def render_weights(function: Function) -> str:
    """`render_weights` is alpha compositing along rays, NeRF's equation 3."""
    sigmas = torch.rand((3, 6), generator=torch.Generator().manual_seed(0)) * 8
    sigmas[2] = 0
    step = 0.2
    result = call(function, sigmas, step)
    expect.tensor(result, sigmas.shape, "The result", "One weight for each sample.")
    alpha = 1 - (-sigmas * step).exp()
    after = (1 - alpha).cumprod(1)
    before = torch.cat([torch.ones(3, 1), after[:, :-1]], 1)
    total = (sigmas * step).cumsum(1)
    right = before * alpha
    mistakes = {
        "The light that reaches a sample passed those *before* it: shift the product by one, so "
        "that the first sample has T = 1.": after * alpha,
        "That is the opacity of each sample: multiply it by the light T that reaches it.": alpha,
        "That is the light T that reaches each sample: multiply it by its opacity.": before,
        "The step size is missing: the opacity is 1 - exp(-sigma * step).": _weights(sigmas),
        "The opacity is 1 - exp(-sigma * step), not the density itself.": sigmas * step * before,
        "T is a product along the ray, not over the rays: dim=1.": alpha
        * torch.cat([torch.ones(1, 6), (1 - alpha).cumprod(0)[:-1]]),
        "T is the product of 1 - alpha, not of alpha.": alpha
        * torch.cat([torch.ones(3, 1), alpha.cumprod(1)[:, :-1]], 1),
        "The samples are in the wrong order: the first one is the nearest.": (
            _weights(sigmas.flip(1) * step).flip(1)
        ),
        "The weights are not divided by their sum: what is left is the background.": (
            right / right.sum(1, keepdim=True).clamp(min=1e-6)
        ),
        "The exponent has the wrong sign: light is lost.": (1 - (sigmas * step).exp())
        * total.exp(),
    }
    otherwise = "That is not T_i (1 - exp(-sigma_i * step)), with T_i = prod_(j<i) (1 - alpha_j)."
    diagnose(result, right, mistakes, otherwise)
    dense = call(function, torch.full((1, 300), 1e4), 1.0)
    expect(close(dense[0, 0], torch.ones(())), "The weight of a very dense sample is 1.")
    return "render_weights: how much each sample contributes to its pixel"


def _weights(depth: Tensor) -> Tensor:
    """Return the weights (N, K) of samples of optical depth (N, K)."""
    before = depth.cumsum(1) - depth
    return (-before).exp() * (1 - (-depth).exp())


@check("3 (j)")
def composite(function: Function) -> str:
    """`composite` sums up color and depth of the samples, in front of the background."""
    generator = torch.Generator().manual_seed(0)
    weights = _weights(torch.rand((4, 6), generator=generator))
    colors = torch.rand((4, 6, 3), generator=generator)
    ts = torch.linspace(1, 2, 6).expand(4, 6)
    background = torch.tensor([0.2, 0.5, 0.9])
    result = call(function, weights, colors, ts, background)
    expect.is_a(result, tuple, "The result", "it has to be (image, opacity, depth).")
    expect(len(result) == 3, "The result has to be (image, opacity, depth).")
    image, opacity, depth = result
    expect.tensor(image, (4, 3), "`image`")
    expect.tensor(opacity, (4,), "`opacity`")
    expect.tensor(depth, (4,), "`depth`")
    total = weights.sum(1)
    diagnose(
        opacity,
        total,
        {
            "That is what shines through: the opacity is the sum of the weights.": 1 - total,
            "The opacity is the sum of the weights, not their mean.": weights.mean(1),
            "The opacity is the sum of the weights, not the largest.": weights.amax(1),
        },
        "The opacity is the sum of the weights.",
    )
    alone, wall = (weights[..., None] * colors).sum(1), (1 - total)[:, None] * background
    diagnose(
        image,
        alone + wall,
        {
            "The background is missing: what is not opaque shows it.": alone,
            "The background is added in full: multiply it by 1 - opacity.": alone + background,
            "The background is multiplied by opacity, not by 1 - opacity.": (
                alone + background - wall
            ),
            "The colors have no weights.": colors.sum(1) + wall,
            "The colors are averaged: they are summed, the weights do the rest.": alone / 6 + wall,
            "The colors are divided by the opacity, so that fog becomes solid.": (
                alone / total[:, None] + wall
            ),
        },
        "The image is sum_i w_i c_i + (1 - opacity) background.",
    )
    diagnose(
        depth,
        (weights * ts).sum(1),
        {
            "The depth has no weights.": ts.sum(1),
            "The depth is a sum, not divided by the opacity.": (weights * ts).sum(1) / total,
        },
        "The depth is sum_i w_i t_i.",
    )
    return "composite: image, opacity and depth"


@check("3 (k)")
def render(function: Function, camera: Any, background: Tensor) -> str:
    """`render` puts samples into the ball around the object, and returns an image."""
    size, samples, factor = 6, 20, 3.0

    def field(x: Tensor) -> tuple[Tensor, Tensor]:
        if not isinstance(x, Tensor) or x.shape[-1:] != (3,):
            raise CheckFailed("The field gets points (..., 3): origin + distance * direction.")
        return (1.2 - x.norm(dim=-1)).clamp(min=0) * (2 + x[..., 0]), (x / 4 + 0.5).clamp(0, 1)

    result = call(function, field, camera, size, factor, samples)
    hint = "Channels first: .T.reshape(3, size, size)."
    expect.tensor(result, (3, size, size), "The image", hint)

    def image(
        start: float = -1.75, offset: float = 0.5, scale: float = factor, wall: Tensor = background
    ) -> Tensor:
        origins, directions = (part[0][..., None, :] for part in camera.rays(size, size))
        step = 3.5 / samples
        distances = camera.radius[0] + start + step * (torch.arange(samples) + offset)
        sigmas, colors = field(origins + distances[:, None] * directions)  # (H, W, K)
        weights = _weights((scale * step * sigmas).flatten(0, 1)).unflatten(0, (size, size))
        pixels = (weights[..., None] * colors).sum(2) + (1 - weights.sum(2))[..., None] * wall
        return pixels.permute(2, 0, 1)

    right = image()
    mistakes = {
        "The factor has no effect: multiply the densities by it.": image(scale=1.0),
        "Rows and columns are exchanged.": right.transpose(1, 2),
        "The image is upside down.": right.flip(1),
        "The pixels were reshaped without .T: colors and pixels are mixed up.": (
            right.permute(1, 2, 0).reshape(3, size, size)
        ),
        "The samples lie at the ends of their steps: k + 1/2.": image(offset=0.0),
        "The samples begin at the center of the ball: radius - 1.75.": image(0.0),
        "The samples begin behind the ball: radius - 1.75.": image(1.75),
        "The background is missing.": image(wall=torch.zeros(3)),
    }
    otherwise = (
        "That is not the image of the field: pixel_rays, samples at radius - 1.75 + "
        "step (k + 1/2), render_weights(factor * sigmas, step), composite."
    )
    diagnose(result, right, mistakes, otherwise)
    return "render: an image of a field"


@check("3 (l)")
def view_weights(function: Function) -> str:
    """`view_weights` says how much a camera shows of front, side, back and overhead."""
    azimuth = torch.tensor([0, 29, 45, 90, -90, -135, 180, -170, 10, 10, 50, 190, 350.0])
    elevation = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 60, 80, 52, 0, 0.0])
    result = call(function, azimuth, elevation)
    expect.tensor(result, (len(azimuth), 4), "The result", "A row for each camera.")
    views = partial(_view_weights, azimuth, elevation)
    right = views()
    mistakes = {
        "Left and right are both sides: the absolute value.": views(absolute=False),
        "Azimuths beyond 180 degrees start again at -180: (azimuth + 180) % 360 - 180.": (
            views(wrap=False)
        ),
        "The views change at once: within 15 degrees of a border they blend.": views(1e-4),
        "The blend is as wide on each side as it should be on both: 30 degrees in all.": (
            views(2 * BLEND)
        ),
        "The blend is 15 degrees on each side of a border, 30 in all.": views(BLEND / 2),
        "The overhead view takes its share from the others: multiply them by 1 - overhead.": (
            views(overhead_takes=False)
        ),
        "Front and back are exchanged: azimuth 0 is the front.": right[:, [2, 1, 0, 3]],
        "The order is front, side, back, overhead.": right[:, [0, 2, 1, 3]],
        "The elevation decides about overhead alone.": _view_weights(elevation, azimuth),
    }
    sums = result.sum(1)
    worst = int((sums - 1).abs().argmax())
    otherwise = "Those are not the weights of the formula."
    if abs(float(sums[worst]) - 1) > 1e-3:
        otherwise = (
            f"The weights of a camera at azimuth {float(azimuth[worst]):.0f} and elevation "
            f"{float(elevation[worst]):.0f} sum to {float(sums[worst]):.2f}, not to 1."
        )
    diagnose(result, right, mistakes, otherwise)
    return "view_weights: which words a camera's prompt gets"


def _view_weights(
    azimuth: Tensor,
    elevation: Tensor,
    blend: float = BLEND,
    absolute: bool = True,
    wrap: bool = True,
    overhead_takes: bool = True,
) -> Tensor:
    def above(angle: Tensor, border: float) -> Tensor:
        return ((angle - border) / (2 * blend) + 0.5).clamp(0, 1)

    angle = (azimuth + 180) % 360 - 180 if wrap else azimuth
    angle = angle.abs() if absolute else angle
    overhead = above(elevation, OVERHEAD)
    not_front, back = above(angle, FRONT_SIDE), above(angle, SIDE_BACK)
    around = torch.stack([1 - not_front, not_front - back, back], 1)
    if overhead_takes:
        around = around * (1 - overhead)[:, None]
    return torch.cat([around, overhead[:, None]], 1)


@check("3 (m)")
def perp_neg(function: Function) -> str:
    """`perp_neg` pushes away only what is perpendicular to the direction of the prompt."""
    generator = torch.Generator().manual_seed(0)
    uncond, cond, *negatives = torch.randn((4, 2, 4, 5, 5), generator=generator)
    stacked = torch.stack([part + 0.5 * cond for part in negatives])  # (2, B, C, h, w)
    weights, w = torch.tensor([[0.3, 1.0], [0.7, 0.0]]), 7.5
    result = call(function, uncond, cond, stacked, weights, w)
    expect.tensor(result, cond.shape, "The result")
    right = diffusion.perp_neg(uncond, cond, stacked, weights, w)
    positive, differences = cond - uncond, stacked - uncond
    scaled = weights[..., None, None, None] * differences

    def away(sum_over: tuple[int, ...] = (1, 2, 3), divide: bool = True) -> Tensor:
        dots = (differences * positive).sum([d + 1 for d in sum_over], keepdim=True)
        squares = positive.square().sum(sum_over, keepdim=True) if divide else 1
        perpendicular = differences - dots / squares * positive
        return (weights[..., None, None, None] * perpendicular).sum(0)

    parallel = differences.sub(0).mul(positive).sum((2, 3, 4), keepdim=True)
    parallel = parallel / positive.square().sum((1, 2, 3), keepdim=True) * positive
    less = lambda push: uncond + w * (positive - push)
    mistakes = {
        "That is guidance alone: the negative views have no effect.": less(0),
        "The whole negative direction is pushed away: subtract its part along the prompt.": (
            less(scaled.sum(0))
        ),
        "The part along the prompt is pushed away: it is the perpendicular one.": (
            less((weights[..., None, None, None] * parallel).sum(0))
        ),
        "The negative views attract: their part is subtracted.": less(-away()),
        "The prediction for the negative prompt is missing: add it.": w * (positive - away()),
        "The weights are missing.": less((differences - parallel).sum(0)),
        "w scales both parts, also what is pushed away.": less(away() / w),
        "Each image has a projection of its own: sum over all dimensions but the batch's.": (
            less(away((0, 1, 2, 3)))
        ),
        "It runs over channels and pixels, not over the channels alone.": less(away((1,))),
        "The projection is divided by the squared length of the direction.": (
            less(away(divide=False))
        ),
        "A direction is the difference from the prediction without prompt: subtract `uncond` from "
        "the negatives.": diffusion.perp_neg(uncond, cond, stacked + uncond, weights, w),
        "The negatives are averaged: their sum counts.": less(away() / 2),
    }
    diagnose(result, right, mistakes, "That is not uncond + w (positive - sum of weight * part).")
    zero = call(function, uncond, uncond, stacked, weights, w, allow=CheckFailed)
    expect(isinstance(zero, Tensor), "For equal predictions it divides by zero: .clamp(min=1e-12).")
    return "perp_neg: guidance that keeps away from hidden views"
