"""Fields: their values, their initial blob, levels that fade in, and normals."""

import pytest
import torch

from task_3_DreamFusion.encoding import NAMES, get_encoder
from task_3_DreamFusion.nerf.network import MLP, Background, Field, FrequencyField
from task_3_DreamFusion.nerf.network_grid import GridField

SMALL = {"levels": 4, "log2_table_size": 10}


def fields(bound: float = 1.0) -> list[Field]:
    torch.manual_seed(0)
    return [GridField(bound, **SMALL), FrequencyField(bound, levels=4, width=16, layers=4)]


def points(count: int = 50, bound: float = 1.0) -> torch.Tensor:
    return bound * (2 * torch.rand(count, 3, generator=torch.Generator().manual_seed(1)) - 1)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("bound", [1.0, 2.5])
def test_a_field_begins_as_a_cloud_in_the_middle(kind, bound):
    field = fields(bound)[kind]
    x = points(bound=bound)
    sigmas, albedo = field(x)
    assert sigmas.shape == (50,) and albedo.shape == (50, 3)
    assert sigmas.min() >= 0 and 0 <= albedo.min() and albedo.max() <= 1
    torch.testing.assert_close(field.density(x), sigmas)
    torch.testing.assert_close(field.albedo(x), albedo)
    far = x.norm(dim=-1) > 0.8 * bound
    assert field.density(torch.zeros(1, 3)) > 5 and sigmas[far].max() < 0.1


@pytest.mark.parametrize("kind", [0, 1])
def test_levels_fade_in_one_after_the_other(kind):
    field, x = fields()[kind], points()
    with torch.no_grad():
        for p in field.encoder.parameters():
            p.uniform_(-1, 1)  # a table fresh from its initialization says next to nothing
        whole = field.raw(x)
        changes = []
        for share in (0.0, 0.25, 0.375, 0.75, 1.0):
            field.fade_in(share)
            changes.append((field.raw(x) - whole).abs().mean().item())
            if share < 1:
                weights = field.level_weights
                assert (weights.diff() <= 0).all() and weights[0] == (share > 0)
        assert field.level_weights is None and changes[-1] == 0 and min(changes[:-1]) > 0


@pytest.mark.parametrize("kind", [0, 1])
def test_normals_point_outward_and_can_be_trained(kind):
    field = fields()[kind]
    x = 0.4 * torch.nn.functional.normalize(points(), dim=-1)
    normals = field.normals(x)
    points_x = x.clone().requires_grad_()
    [gradient] = torch.autograd.grad(field.density(points_x).sum(), points_x)
    analytic = -torch.nn.functional.normalize(gradient, dim=-1)
    outward = torch.nn.functional.normalize(x, dim=-1)
    assert ((analytic * outward).sum(-1) > 0.8).all()
    assert ((analytic * normals).sum(-1) > 0.99).all()
    (normals * torch.tensor([0.0, 1.0, 0.0])).sum().backward()
    gradients = [p.grad for p in field.mlp.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)
    assert max(g.abs().max() for g in gradients) > 0


def test_normals_where_nothing_is_are_finite():
    class Empty(Field):
        def raw(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight - 200

        weight = torch.zeros(3, 4, requires_grad=True)

    field = Empty()
    normals = field.normals(points())
    normals.sum().backward()
    assert normals.abs().max() < 1e-3 and field.weight.grad.isfinite().all()


def test_perceptron_with_and_without_skip():
    torch.manual_seed(0)
    mlp, plain = MLP(5, 2, 8, 4, skip=True), MLP(5, 2, 8, 4)
    assert [layer.in_features for layer in mlp.layers] == [5, 8, 13, 8]
    assert [layer.in_features for layer in plain.layers] == [5, 8, 8, 8]
    assert mlp(torch.randn(7, 5)).shape == (7, 2)
    x = torch.randn(7, 5)
    expected = plain.layers[3](
        plain.layers[2](plain.layers[1](plain.layers[0](x).relu()).relu()).relu()
    )
    torch.testing.assert_close(plain(x), expected)


def test_background_is_a_color_for_every_direction():
    colors = Background()(torch.nn.functional.normalize(points(), dim=-1))
    assert (
        colors.shape == (50, 3) and 0 <= colors.min() and colors.max() <= 1 and colors.requires_grad
    )


@pytest.mark.parametrize("name", NAMES)
def test_encoders_by_name(name):
    options = {"levels": 3} if name == "frequency" else {"levels": 3, "max_resolution": 32}
    encoder, size = get_encoder(name, 3, **options)
    assert encoder(points()).shape == (50, size)


def test_encodings_that_do_not_exist():
    with pytest.raises(ValueError, match="'spherical'"):
        get_encoder("spherical")
    with pytest.raises(TypeError, match="level"):
        get_encoder("frequency", level=3)
    with pytest.raises(ValueError, match="bound"):
        GridField(0.0)
