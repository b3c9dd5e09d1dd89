"""Images of a field that is known exactly: a ball, red on the side of +x."""

import math

import pytest
import torch

from task_3_DreamFusion.nerf.network import Background, Field
from task_3_DreamFusion.nerf.provider import ViewRange, orbit
from task_3_DreamFusion.nerf.renderer import PLAIN_COLOR, Renderer, Shading
from task_3_DreamFusion.raymarching import morton3d, morton3d_invert

RADIUS = 0.5


class Ball(Field):
    """Dense inside, sharp at the rim; red where x > 0, else blue."""

    def __init__(self, bound: float = 1.0) -> None:
        super().__init__(bound)
        self.density_of_inside = torch.nn.Parameter(torch.tensor(300.0))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.density(x), self.albedo(x)

    def density(self, x: torch.Tensor) -> torch.Tensor:
        return self.density_of_inside * torch.sigmoid((RADIUS - x.norm(dim=-1)) * 1000)

    def albedo(self, x: torch.Tensor) -> torch.Tensor:
        red = (x[:, 0] > 0).to(x)
        return torch.stack([red, torch.zeros_like(red), 1 - red], -1)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def occupied_fraction(renderer: Renderer) -> float:
    bits = renderer.bits.to(torch.int32)
    return sum(((bits >> i) & 1).sum().item() for i in range(8)) / (8 * len(bits))


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    renderer = Renderer(Ball(), grid_size=32, max_steps=400)
    renderer.update_occupancy(generator())
    return renderer


def test_occupancy_holds_the_ball_and_little_else(renderer):
    share = 4 / 3 * math.pi * RADIUS**3 / 8
    assert share < occupied_fraction(renderer) < 1.8 * share


def test_occupancy_holds_the_neighbors_of_occupied_cells():
    renderer = Renderer(Ball(), grid_size=8)
    renderer.density_grid.zero_()
    renderer.density_grid[-1] = 100.0  # the last cell in Morton order is a corner of the box
    assert (renderer._dilated_density() > 0).sum() == 8
    renderer.density_grid.zero_()
    middle = int(morton3d(torch.tensor([[4, 3, 4]], dtype=torch.int32)))
    renderer.density_grid[middle] = 100.0
    near = morton3d_invert((renderer._dilated_density() > 0).nonzero()[:, 0].int())
    assert len(near) == 27 and ((near - torch.tensor([4, 3, 4])).abs() <= 1).all()


def test_occupancy_notices_what_comes_and_goes():
    renderer = Renderer(Ball(), grid_size=16)
    assert occupied_fraction(renderer) == 1
    draw = generator()
    renderer.update_occupancy(draw)
    before = occupied_fraction(renderer)
    with torch.no_grad():
        renderer.field.density_of_inside.zero_()
    for _ in range(200):
        renderer.update_occupancy(draw, fraction=0.5)
    assert renderer.density_grid.max() < 0.05
    with torch.no_grad():
        renderer.field.density_of_inside.fill_(300.0)
    for _ in range(20):
        renderer.update_occupancy(draw, fraction=0.5)
    assert (
        before <= occupied_fraction(renderer) < 1.5 * before
    )  # cells of the rim are hit by and by


def test_half_of_the_updated_cells_are_occupied_ones_of_all_parts(monkeypatch):
    renderer = Renderer(Ball(), grid_size=32, max_steps=400)
    renderer.update_occupancy(generator())
    calls = []
    density = renderer.field.density
    monkeypatch.setattr(renderer.field, "density", lambda x: calls.append(x) or density(x))
    renderer.update_occupancy(generator(), fraction=0.1)
    anywhere, occupied = calls[0].split(int(32**3 * 0.1 / 2))
    # Uniform over the box [-1, 1]^3, and over the ball and the cells that its surface cuts.
    assert (anywhere.std(0) - 1 / math.sqrt(3)).abs().max() < 0.03
    assert occupied.norm(dim=-1).max() < RADIUS + 2 * math.sqrt(3) * 2 / 32
    assert (occupied.std(0) - RADIUS / math.sqrt(5)).abs().max() < 0.04
    assert anywhere.mean(0).abs().max() < 0.05 and occupied.mean(0).abs().max() < 0.05


def test_silhouette_depth_and_color_are_the_balls(renderer):
    cameras, side = orbit(4, elevation=0), 64
    for i, image in enumerate(renderer.render_eval(cameras, side, side)):
        color, opacity, depth = image[:3], image[3], image[4]
        distance = cameras.radius[i].item()
        # The outline of a ball: a cone of rays that touch it.
        edge = math.tan(math.asin(RADIUS / distance)) / math.tan(
            math.radians(cameras.fov[i].item() / 2)
        )
        assert opacity.mean().item() == pytest.approx(math.pi * edge**2 / 4, rel=0.03)
        assert depth[side // 2, side // 2].item() == pytest.approx(distance - RADIUS, abs=0.03)
        assert color[:, 0, 0].tolist() == pytest.approx(PLAIN_COLOR) and depth[0, 0] == 0
        azimuth = cameras.azimuth[i].item()
        left, right = color[:, side // 2, side // 2 - 8], color[:, side // 2, side // 2 + 8]
        red, blue = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])
        expected = {0: (blue, red), 90: (red, red), -180: (red, blue), -90: (blue, blue)}[
            round(azimuth)
        ]
        for result, wanted in zip((left, right), expected, strict=True):
            torch.testing.assert_close(result, wanted, atol=0.02, rtol=0)


def test_training_images_are_those_of_the_finished_ones_but_for_noise(renderer):
    cameras = orbit(3, elevation=20)
    trained = renderer(cameras, 32, 32, generator())
    finished = torch.stack(list(renderer.render_eval(cameras, 32, 32)))
    assert (trained.image - finished[:, :3]).abs().mean() < 0.02
    assert (trained.opacity - finished[:, 3:4]).abs().mean() < 0.02
    assert trained.weights.shape == trained.positions.shape[:1] == trained.directions.shape[:1]
    assert trained.weights.sum().item() == pytest.approx(trained.opacity.sum().item(), rel=1e-4)


def test_rays_of_several_cameras_see_what_their_images_show(renderer):
    cameras = orbit(2, elevation=20)
    origins, directions = (part.reshape(-1, 3) for part in cameras.rays(16, 16))
    chosen = torch.randperm(2 * 16 * 16)[:100]
    lights = Shading("lambertian", torch.tensor([[0.0, 5.0, 0.0], [5.0, 0.0, 0.0]]))
    behind = torch.tensor([[0.1, 0.2, 0.3], [0.9, 0.8, 0.7]])
    samples = renderer.march(origins[chosen], directions[chosen], generator())
    seen = renderer.render(samples, directions[chosen], chosen // 256, lights, behind)
    whole = (
        renderer(cameras, 16, 16, generator(), lights, behind)
        .image.permute(0, 2, 3, 1)
        .reshape(-1, 3)
    )
    assert seen.image.shape == (100, 3) and seen.opacity.shape == seen.depth.shape == (100, 1)
    assert (seen.image - whole[chosen]).abs().mean() < 0.03


def test_one_seed_one_image(renderer):
    cameras = ViewRange().sample(2, generator())
    images = [renderer(cameras, 16, 16, generator()).image for _ in range(2)]
    assert torch.equal(*images)


def test_gradients_reach_field_and_background():
    renderer = Renderer(Ball(), Background(), grid_size=16, max_steps=100)
    renderer.update_occupancy(generator())
    renderer(orbit(1), 16, 16, generator()).image.sum().backward()
    assert renderer.field.density_of_inside.grad.abs() > 0
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in renderer.background.parameters()
    )


def test_colors_behind_can_be_given(renderer):
    behind = torch.tensor([[0.1, 0.2, 0.3], [0.9, 0.8, 0.7]])
    image = renderer(orbit(2), 16, 16, generator(), background_color=behind).image
    torch.testing.assert_close(image[:, :, 0, 0], behind)


def test_normals_and_light():
    renderer = Renderer(Ball(), grid_size=32, max_steps=400)
    renderer.update_occupancy(generator())
    cameras, side = orbit(1, elevation=0), 33
    [normals] = renderer.render_eval(cameras, side, side, Shading("normals"))
    torch.testing.assert_close(
        normals[:3, 16, 16], torch.tensor([0.5, 0.5, 1.0]), atol=0.06, rtol=0
    )  # to the camera
    assert normals[0, 16, 23] > 0.7 and normals[0, 16, 9] < 0.3 and normals[1, 9, 16] > 0.7
    above = Shading("textureless", torch.tensor([[0.0, 5.0, 0.0]]), ambient=0.2)
    [lit] = renderer.render_eval(cameras, side, side, above)
    assert lit[0, 9, 16] > lit[0, 16, 16] + 0.2 and lit[0, 23, 16].item() == pytest.approx(
        0.2, abs=0.05
    )
    colored = renderer(
        cameras, side, side, generator(), Shading("lambertian", torch.tensor([[0.0, 5.0, 0.0]]))
    )
    assert colored.image[0, 1, 16, 16] < 0.05  # red and blue have no green
    assert colored.normals.shape == colored.positions.shape


@pytest.mark.parametrize("wrong", [{"mode": "shiny"}, {"mode": "lambertian"}])
def test_invalid_shading(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong.values()))):
        Shading(**wrong)


def test_no_steps():
    with pytest.raises(ValueError, match="0"):
        Renderer(Ball(), max_steps=0)


def test_one_step_is_the_diagonal_of_the_box():
    assert Renderer(Ball(), max_steps=1).step_size == pytest.approx(2 * math.sqrt(3))
    assert Renderer(Ball(bound=2.5), max_steps=100).step_size == pytest.approx(0.05 * math.sqrt(3))
