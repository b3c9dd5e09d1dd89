"""Cameras: poses, rays, ranges, and the same angles as in the pocket world."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pocket.world import sample_scene, vocabulary
from pocket.world.renderer import layout
from task_3_DreamFusion.nerf import provider
from task_3_DreamFusion.nerf.provider import (
    SUBJECT_RADIUS,
    Cameras,
    ViewRange,
    orbit,
    wrap_azimuth,
)

ANGLES = {"azimuth": st.floats(-400, 400), "elevation": st.floats(-90, 90)}


def camera(azimuth: float, elevation: float, radius: float = 3.0, fov: float = 40.0) -> Cameras:
    values = (torch.tensor([x], dtype=torch.float64) for x in (azimuth, elevation, radius, fov))
    return Cameras(*values, target=torch.zeros(1, 3, dtype=torch.float64))


@given(**ANGLES)
def test_poses_are_rotations_that_look_at_the_target(azimuth, elevation):
    pose = camera(azimuth, elevation).poses()[0]
    rotation, eye = pose[:3, :3], pose[:3, 3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(rotation).item() == pytest.approx(1)
    torch.testing.assert_close(eye, 3 * rotation[:, 2])
    assert rotation[1, 1] >= -1e-9  # never upside down


@pytest.mark.parametrize(
    ("azimuth", "elevation", "eye"),
    [
        (0, 0, (0, 0, 3)),
        (90, 0, (3, 0, 0)),
        (180, 0, (0, 0, -3)),
        (-90, 0, (-3, 0, 0)),
        (0, 90, (0, 3, 0)),
    ],
)
def test_front_is_z_and_azimuth_grows_counter_clockwise_from_above(azimuth, elevation, eye):
    pose = camera(azimuth, elevation).poses()[0]
    torch.testing.assert_close(
        pose[:3, 3], torch.tensor(eye, dtype=torch.float64), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("seed", range(0, 40, 5))
def test_angles_are_those_of_the_pocket_world(seed):
    scene = sample_scene(seed, kind="object")
    pose = camera(float(scene.labels["azimuth"]), float(scene.labels["elevation"])).poses()[0]
    for name, column in (
        ("H_RIGHT", pose[:3, 0]),
        ("H_UP", pose[:3, 1]),
        ("H_FORWARD", -pose[:3, 2]),
    ):
        place = layout()[name]
        own = torch.tensor(scene.params[place : place + 3], dtype=torch.float64)
        torch.testing.assert_close(column, own, atol=1e-5, rtol=0)


@given(**ANGLES, height=st.integers(1, 9), width=st.integers(1, 9))
def test_rays_are_unit_and_their_middle_hits_the_target(azimuth, elevation, height, width):
    one = camera(azimuth, elevation)
    origins, directions = one.rays(height, width)
    assert origins.shape == directions.shape == (1, height, width, 3)
    torch.testing.assert_close(
        directions.norm(dim=-1), torch.ones(1, height, width, dtype=torch.float64)
    )
    middle = torch.nn.functional.normalize(directions.sum((1, 2))[0], dim=0)
    torch.testing.assert_close(middle, -one.poses()[0, :3, 2], atol=1e-9, rtol=0)


def test_rows_go_down_columns_to_the_right_and_the_edge_is_half_the_field_of_view():
    _, directions = camera(0, 0, fov=60.0).rays(100, 50)
    assert (
        directions[0, 0, 0, 1] > 0 > directions[0, -1, 0, 1]
        and directions[0, 0, 0, 0] < 0 < directions[0, 0, -1, 0]
    )
    slopes = directions[0, :, 25, 1] / -directions[0, :, 25, 2]
    half = torch.tan(torch.deg2rad(torch.tensor(30.0))).item()
    torch.testing.assert_close(slopes[0].item(), half * 0.99)  # the center of the first of 100 rows
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 5"):
        camera(0, 0).rays(0, 5)


@given(st.integers(1, 6), st.integers(0, 50))
def test_steps_that_are_numbered_soon_have_seen_all_sides(count, first):
    """Any eight views in a row leave no gap of a quarter turn; those of one step are even."""
    views = ViewRange()
    steps = [
        views.sample(count, torch.Generator().manual_seed(0), first + i).azimuth
        for i in range(-(-8 // count))
    ]
    angles = torch.cat(steps).sort().values
    gaps = torch.diff(angles, append=angles[:1] + 360)
    assert gaps.max() < 90 and angles.min() >= -180 and angles.max() < 180
    even = steps[0].sort().values
    torch.testing.assert_close(
        torch.diff(even, append=even[:1] + 360), torch.full((count,), 360 / count)
    )


def test_joined_cameras_are_those_in_their_order():
    cameras = ViewRange().sample(5, torch.Generator().manual_seed(0))
    for name, value in vars(Cameras.cat([cameras[0:2], cameras[2:3], cameras[3:5]])).items():
        assert torch.equal(value, getattr(cameras, name))


def test_a_turn_is_even_and_of_one_height():
    cameras = orbit(8, elevation=20, start=45)
    torch.testing.assert_close(
        wrap_azimuth(cameras.azimuth - cameras.azimuth.roll(1)), torch.full((8,), 45.0)
    )
    assert cameras.azimuth[0] == 45 and (cameras.elevation == 20).all() and len(cameras[2:5]) == 3
    assert len({tuple(pose.flatten().tolist()) for pose in cameras.to("cpu").poses()}) == 8


@given(
    count=st.integers(1, 12),
    seed=st.integers(0, 1000),
    share=st.floats(0, 1),
    step=st.none() | st.integers(0, 1000),
)
def test_views_stay_in_their_range_one_in_each_sector(count, seed, share, step):
    views = ViewRange().narrow(share)
    cameras = views.sample(count, torch.Generator().manual_seed(seed), step)
    assert len(cameras) == count and cameras.target.abs().max() <= provider.JITTER
    ranges = {"azimuth": views.azimuth, "elevation": views.elevation, "fov": provider.FOV}
    for name, (low, high) in ranges.items():
        assert (
            low - 1e-3 <= getattr(cameras, name).min()
            and getattr(cameras, name).max() <= high + 1e-3
        )
    if share == 1:
        sectors = ((cameras.azimuth + 180) / 360 * count).floor().clamp(0, count - 1)
        assert sorted(sectors.tolist()) == list(range(count))
    tops = SUBJECT_RADIUS / (cameras.radius * torch.tan(torch.deg2rad(cameras.fov) / 2))
    assert provider.FILL[0] - 1e-3 <= tops.min() and tops.max() <= provider.FILL[1] + 1e-3


def test_views_of_training_reach_the_ends_of_their_ranges():
    """All the way around, from just below the horizon to overhead, near and far."""
    cameras = ViewRange().sample(20_000, torch.Generator().manual_seed(0))
    fill = SUBJECT_RADIUS / (cameras.radius * torch.tan(torch.deg2rad(cameras.fov) / 2))
    ranges = [
        (cameras.azimuth, -180, 180),
        (cameras.elevation, -5, 70),
        (cameras.fov, 28, 52),
        (fill, 0.7, 0.9),
        *((axis, -0.05, 0.05) for axis in cameras.target.T),
    ]
    for values, low, high in ranges:
        assert values.min().item() == pytest.approx(low, abs=0.002 * (high - low))
        assert values.max().item() == pytest.approx(high, abs=0.002 * (high - low))


def test_views_are_even_over_the_sphere():
    elevation = (
        ViewRange(elevation=(-90, 90)).sample(20_000, torch.Generator().manual_seed(0)).elevation
    )
    assert (elevation.abs() < 30).float().mean().item() == pytest.approx(
        0.5, abs=0.02
    )  # half of a sphere's area
    overhead = ViewRange().sample(20_000, torch.Generator().manual_seed(0)).elevation >= 60
    assert 0.05 < overhead.float().mean() < 0.2 and vocabulary.view_word(0, 60) == "overhead"


@pytest.mark.parametrize("count", [0, -3])
def test_no_views(count):
    with pytest.raises(ValueError, match=str(count)):
        orbit(count)
    with pytest.raises(ValueError, match=str(count)):
        ViewRange().sample(count, torch.Generator())
