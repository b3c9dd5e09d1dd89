"""Frequency encoding: NeRF's equation 4, its derivatives, on the compiled path and on PyTorch."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from task_3_DreamFusion.freqencoder import FreqEncoder, freq_encode, reference


def test_equation_4_written_out(path):
    x = torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    expected = [
        f(2**level * math.pi * p)
        for level in range(3)
        for f in (math.sin, math.cos)
        for p in (0.3, -0.7)
    ]
    assert freq_encode(x, 3)[0].tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("levels", [1, 10, 24])
def test_float32_keeps_its_digits_at_every_level(path, levels):
    x = 2 * torch.rand(500, 3) - 1
    assert (freq_encode(x, levels) - reference.freq_encode(x.double(), levels)).abs().max() < 1e-6


def test_derivatives(path):
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: freq_encode(x, 3), x)
    assert gradgradcheck(lambda x: freq_encode(x, 3), x)


def test_empty_and_strided_input(path):
    assert freq_encode(torch.zeros(0, 3), 4).shape == (0, 24)
    x = torch.rand(3, 50).t()
    assert torch.equal(freq_encode(x, 4), freq_encode(x.contiguous(), 4))


def test_any_number_of_threads(compiled):
    x, result = torch.rand(9000, 3), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        result.append(freq_encode(x, 6))
    assert torch.equal(*result)


def test_is_traced(path):
    encode = torch.compile(
        lambda x: freq_encode(x, 4).square().sin(), backend="aot_eager", fullgraph=True
    )
    x = torch.rand(10, 3, requires_grad=True)
    y = encode(x)
    [dx] = torch.autograd.grad(y.sum(), x)
    [expected] = torch.autograd.grad(freq_encode(x, 4).square().sin().sum(), x)
    torch.testing.assert_close(dx, expected)


def test_registered_as_torch_expects(compiled):
    x = torch.rand(4, 3, requires_grad=True)
    torch.library.opcheck(torch.ops.dreamfusion.freq_encode.default, (x, 4, None))


def test_a_third_derivative_is_refused(compiled):
    x = torch.rand(4, 3, requires_grad=True)
    [dx] = torch.autograd.grad(freq_encode(x, 2).square().sum(), x, create_graph=True)
    [second] = torch.autograd.grad(dx.sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="no third derivative"):
        second.sum().backward()


def test_module():
    encoder = FreqEncoder(2, 5)
    assert encoder(torch.rand(4, 6, 2)).shape == (4, 6, encoder.output_dim) == (4, 6, 20)
    with pytest.raises(ValueError, match=r"must have shape \(..., 2\), got \(4, 3\)"):
        encoder(torch.rand(4, 3))


@pytest.mark.parametrize(
    ("x", "levels", "error", "message"),
    [
        (torch.rand(4, 3).half(), 4, TypeError, "x must be float32 or float64, got torch.float16"),
        (torch.rand(3), 4, ValueError, r"x must have shape \(N, D\), got \(3,\)"),
        (torch.rand(4, 3), 0, ValueError, "levels must be from 1 to 24, got 0"),
        (torch.rand(4, 3), 25, ValueError, "levels must be from 1 to 24, got 25"),
    ],
)
def test_bad_input(x, levels, error, message):
    with pytest.raises(error, match=message):
        freq_encode(x, levels)
