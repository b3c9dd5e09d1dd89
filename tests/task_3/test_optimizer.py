"""Adan against its algorithm written out in float64, one parameter at a time."""

import copy

import pytest
import torch
from torch import nn

from task_3_DreamFusion.optimizer import Adan

BETAS, LR, EPS = (0.98, 0.92, 0.99), 0.02, 1e-8


def written_out(
    theta: torch.Tensor, gradients: list[torch.Tensor], weight_decay: float
) -> torch.Tensor:
    """Algorithm 1 of the paper, in its own betas, with bias correction."""
    b1, b2, b3 = (1 - beta for beta in BETAS)
    m = v = n = torch.zeros_like(theta)
    before = gradients[0]
    for k, g in enumerate(gradients, 1):
        m = (1 - b1) * m + b1 * g
        v = (1 - b2) * v + b2 * (g - before)
        n = (1 - b3) * n + b3 * (g + (1 - b2) * (g - before)) ** 2
        before = g
        m_hat, v_hat, n_hat = (
            m / (1 - (1 - b1) ** k),
            v / (1 - (1 - b2) ** k),
            n / (1 - (1 - b3) ** k),
        )
        theta = (theta - LR * (m_hat + (1 - b2) * v_hat) / (n_hat.sqrt() + EPS)) / (
            1 + weight_decay * LR
        )
    return theta


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_are_those_of_the_paper(weight_decay):
    torch.manual_seed(0)
    starts = [torch.randn(3, 2, dtype=torch.float64), torch.randn(5, dtype=torch.float64)]
    params = [nn.Parameter(start.clone()) for start in starts]
    optimizer = Adan(params, LR, BETAS, EPS, weight_decay)
    gradients = [[torch.randn_like(start) for _ in range(7)] for start in starts]
    for k in range(7):
        for p, own in zip(params, gradients, strict=True):
            p.grad = own[k].clone()
        optimizer.step()
    for p, start, own in zip(params, starts, gradients, strict=True):
        torch.testing.assert_close(
            p.detach(), written_out(start, own, weight_decay), rtol=1e-10, atol=1e-12
        )


def test_a_parameter_that_joins_late_has_a_count_of_its_own():
    first, late = (nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2))
    optimizer = Adan([first, late], LR, BETAS, EPS)
    gradients = [torch.full((2,), value, dtype=torch.float64) for value in (1.0, -2.0, 0.5)]
    for k, gradient in enumerate(gradients):
        first.grad = gradient.clone()
        late.grad = gradient.clone() if k else None
        optimizer.step()
    expected = written_out(torch.ones(2, dtype=torch.float64), gradients[1:], 0.0)
    torch.testing.assert_close(late.detach(), expected, rtol=1e-10, atol=1e-12)


def test_it_finds_the_bottom_and_goes_on_from_its_state():
    def run(steps: int, p: nn.Parameter, optimizer: Adan) -> float:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = optimizer.step(lambda: backward(p))
        return loss.item()

    def backward(p: nn.Parameter) -> torch.Tensor:
        loss = ((p - torch.tensor([1.0, -2.0])) * torch.tensor([1.0, 30.0])).square().sum()
        loss.backward()
        return loss

    p = nn.Parameter(torch.zeros(2))
    optimizer = Adan([p], LR)
    run(100, p, optimizer)
    other = nn.Parameter(p.detach().clone())
    resumed = Adan([other], LR)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert run(300, p, optimizer) == run(300, other, resumed) < 3  # of 3601 at first


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": -1},
        {"betas": (0.9, 0.9)},
        {"betas": (0.9, 1.0, 0.9)},
        {"eps": 0},
        {"weight_decay": -0.1},
        {"lr": float("nan")},
    ],
)
def test_values_out_of_range(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Adan([nn.Parameter(torch.zeros(1))], **wrong)
