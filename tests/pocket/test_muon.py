"""Muon: orthogonal steps for matrices and kernels in either memory order, AdamW for the rest."""

import copy

import pytest
import torch
from torch import nn

from pocket.train.muon import STEP_RMS, Muon, as_matrix, as_weight, orthogonalize


@pytest.mark.parametrize("shape", [(3, 40, 90), (2, 90, 40), (1, 64, 64), (4, 5, 1)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_singular_values_come_near_one(shape, scale):
    matrices = scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrices).float())
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_the_singular_vectors_stay():
    matrix = torch.randn(1, 20, 30, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix[0], full_matrices=False)
    polar = u @ v  # the nearest matrix with orthogonal rows
    result = orthogonalize(matrix)[0].float()
    assert torch.cosine_similarity(result.flatten(), polar.flatten(), dim=0) > 0.97


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_kernel_becomes_a_matrix_without_a_copy_and_back(channels_last):
    kernel = torch.randn(6, 4, 3, 3)
    if channels_last:
        kernel = kernel.contiguous(memory_format=torch.channels_last)
    matrix = as_matrix(kernel)
    assert matrix.shape == (6, 36)
    assert matrix.data_ptr() == kernel.data_ptr()
    back = as_weight(matrix, kernel)
    assert torch.equal(back, kernel)
    assert back.stride() == kernel.stride()


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = {
        "conv_in": nn.Conv2d(3, 8, 3),
        "hidden": nn.Conv2d(8, 8, 3),
        "norm": nn.GroupNorm(2, 8),
    }
    return nn.ModuleDict(layers)


def gradients(model: nn.Module) -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    model["norm"](model["hidden"](model["conv_in"](x)).sin()).sigmoid().sum().backward()


def test_the_first_layer_norms_and_biases_take_the_steps_of_adamw():
    model, other = network(), network()
    optimizer = Muon(model, lr=1e-2)
    names = {name for name, _ in other.named_parameters()} - {"hidden.weight"}
    adam = torch.optim.AdamW(
        [p for n, p in other.named_parameters() if n in names], 1e-2, (0.9, 0.99), weight_decay=0
    )
    for m, o in ((model, optimizer), (other, adam)):
        gradients(m)
        o.step()
    theirs = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter, theirs[name], atol=1e-7) == (name != "hidden.weight"), name


def test_a_step_has_the_length_of_adamw_and_does_not_depend_on_the_gradients_scale():
    steps = []
    for scale in (1.0, 1e-4):
        model = network()
        before = model["hidden"].weight.detach().clone()
        gradients(model)
        for p in model.parameters():
            p.grad.mul_(scale)
        Muon(model, lr=1e-2, weight_decay=0.0).step()
        steps.append(model["hidden"].weight.detach() - before)
    # 8 x 72: eight singular values near 1, scaled by the square root of 72
    assert steps[0].square().mean().sqrt() == pytest.approx(1e-2 * STEP_RMS, rel=0.25)
    assert torch.allclose(steps[0], steps[1], rtol=0.05, atol=2e-4)


def test_memory_order_does_not_change_the_step():
    plain, last = network(), network().to(memory_format=torch.channels_last)
    for model in (plain, last):
        gradients(model)
        Muon(model, lr=1e-2).step()
    assert torch.allclose(plain["hidden"].weight, last["hidden"].weight, atol=2e-4)


def test_it_resumes_from_its_state():
    model = network()
    optimizer = Muon(model, lr=1e-2)
    gradients(model)
    optimizer.step()
    twin = copy.deepcopy(model)
    again = Muon(twin, lr=1e-2)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for m, o in ((model, optimizer), (twin, again)):
        o.zero_grad()
        gradients(m)
        o.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
