"""Points in the plane: the mixture's exact score, averages, the network and its figures."""

import pytest
import torch

from course.metrics.points import sliced_wasserstein
from course.plane import (
    NO_LABEL,
    Mixture,
    PointNetwork,
    average_by_cell,
    compare_scores,
    compare_with_data,
    grid,
    spirals,
)


@pytest.fixture
def data() -> Mixture:
    torch.manual_seed(0)
    return spirals()


@pytest.mark.parametrize("alpha_bar", [1.0, 0.9, 0.3, 0.005])
@pytest.mark.parametrize("label", [None, 0, 1])
def test_score_is_the_gradient_of_the_log_density(data, alpha_bar, label):
    """Beside the gradient of the density's own formula, in float64."""
    a = torch.tensor(alpha_bar, dtype=torch.float64)
    exact = Mixture(data.means.double(), data.labels, data.std)
    x = data.sample(50)[0].double() * a.sqrt() + (1 - a).sqrt() * torch.randn(50, 2)
    x.requires_grad_()
    means = exact.means if label is None else exact.means[exact.labels == label]
    variance = a * data.std**2 + 1 - a
    squares = (x[:, None] - a.sqrt() * means).square().sum(-1)
    log_density = (-squares / (2 * variance)).logsumexp(1).sum()
    [gradient] = torch.autograd.grad(log_density, x)
    assert torch.allclose(exact.score(x.detach(), a, label), gradient, atol=1e-8)


def test_spirals_are_two_arms_of_one_shape(data):
    points, labels = data.sample(20_000)
    assert torch.equal(data.means[:150], -data.means[150:])
    assert abs(labels.float().mean() - 0.5) < 0.02
    distance = torch.cdist(points, data.means)
    assert torch.equal(data.labels[distance.argmin(1)], labels)  # the arms do not touch
    spacing = (data.means[1:150] - data.means[:149]).norm(dim=1)
    assert spacing.max() < 1.1 * spacing.min()


def test_averages_around_the_positions_of_a_grid():
    positions = grid(5)
    assert positions.shape == (25, 2)
    points = positions.repeat(10, 1) + 0.01
    values = positions.repeat(10, 1) * 3
    assert torch.allclose(average_by_cell(points, values, side=5, least=10), positions * 3)
    assert not average_by_cell(points, values, side=5, least=11).any()
    between = positions + 0.5 * (positions[1] - positions[0]).norm()
    assert not average_by_cell(between, between, side=5, least=1).any()
    assert not average_by_cell(positions * 100, positions, side=5, least=1)[:12].any()


def test_network_takes_one_timestep_and_label_or_one_for_each(data):
    network = PointNetwork()
    x, label = data.sample(8)
    each = network(x, torch.full((8,), 300), torch.full((8,), 1))
    assert each.shape == (8, 2)
    assert torch.allclose(each, network(x, 300, 1), atol=1e-6)
    assert torch.allclose(network(x, 300.0), network(x, 300, NO_LABEL), atol=1e-6)
    for other in (
        network(x, 301, 1),
        network(x, 300, 0),
        network(x, 300),
        network(x + 0.1, 300, 1),
    ):
        assert not torch.allclose(each, other, atol=1e-5)
    assert not torch.allclose(network(x, 300, label), network(x, 300, 1 - label))


def test_network_learns_the_noise_of_one_timestep(data):
    """Close to the loss of the best predictor, the one from the true score."""
    torch.manual_seed(0)
    a, network = torch.tensor(0.5), PointNetwork(width=32)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses, best = [], []
    for _ in range(300):
        x_0, noise = data.sample(256)[0], torch.randn(256, 2)
        x_t = a.sqrt() * x_0 + (1 - a).sqrt() * noise
        loss = (network(x_t, 200) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        best.append((-(1 - a).sqrt() * data.score(x_t, a) - noise).square().mean().item())
    assert sum(losses[-50:]) < 1.15 * sum(best[-50:])


def test_sliced_wasserstein_distance(data):
    first, second = data.sample(4000)[0], data.sample(4000)[0]
    assert sliced_wasserstein(first, first) == 0
    assert sliced_wasserstein(first, second) < 0.04
    moved = sliced_wasserstein(first, first + torch.tensor([1.0, 0.0]))
    assert moved == pytest.approx(2 / torch.pi, rel=0.02)  # the average of |cos| over directions
    assert sliced_wasserstein(first, second) == pytest.approx(sliced_wasserstein(second, first))


def test_figures(data):
    alpha_bar = torch.linspace(1, 0.01, 10)
    scores = {2: data.score(grid(), alpha_bar[2]), 8: data.score(grid(), alpha_bar[8])}
    assert compare_scores(data, alpha_bar, scores, "network").size[0] == 600
    samples = {"good": data.sample(500)[0], "bad": torch.randn(500, 2) * 3}
    assert compare_with_data(samples, data, columns=2).size[0] == 600
