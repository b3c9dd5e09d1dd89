"""The fast path where there is no GPU: the network as it is. What is recorded is tested in tests/gpu."""

import copy

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

from course.fast import as_tensor, economise, fast, signature, spread_norm
from course.models import find_model, load_pipeline


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor, scale: float, flag: bool = False) -> dict[str, torch.Tensor]:
        return {"y": self.linear(x) * scale, "z": x if flag else -x}


def test_on_a_cpu_the_network_runs_as_it_is():
    network = Scaled()
    quick, x = fast(network), torch.randn(2, 3)
    assert torch.equal(quick(x, 0.5)["y"], network(x, 0.5)["y"])
    assert torch.equal(quick(x, 0.5, flag=True)["z"], x)
    quick(x, 1.0)["y"].sum().backward()
    assert network.linear.weight.grad is not None


def test_attributes_are_the_networks():
    quick = fast(Scaled())
    assert quick.linear is quick.network.linear and not hasattr(quick, "nothing")
    assert isinstance(copy.copy(quick).network, Scaled)


def test_a_pipeline_takes_it(tiny_folder):
    def draw() -> torch.Tensor:
        return pipe("a cat", num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="pt").images

    pipe = load_pipeline(find_model(tiny_folder))
    expected = draw()
    pipe.unet = fast(pipe.unet)
    assert torch.equal(draw(), expected)


def test_numbers_may_change_without_a_new_recording_but_shapes_not():
    assert as_tensor(3).dtype == torch.int64 and as_tensor(0.5).dtype == torch.float32
    assert as_tensor(False) is False and as_tensor("a") == "a" and as_tensor(None) is None
    assert signature(as_tensor(3)) == signature(as_tensor(4))
    x = torch.zeros(2, 3, 4, 4)
    others = [x[:1], x.half(), x.to(memory_format=torch.channels_last)]
    assert signature(x) not in [signature(other) for other in others]
    assert hash(signature(x)) == hash(signature(x + 1))


@pytest.mark.parametrize("silu", [False, True])
def test_a_spread_norm_is_torchs_with_its_gradient(silu):
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 8).double().requires_grad_(False)
    norm.weight.normal_()
    norm.bias.normal_()
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64, requires_grad=True)
    expected = nn.functional.silu(norm(x)) if silu else norm(x)
    torch.testing.assert_close(spread_norm(norm, x, silu), expected)
    assert torch.autograd.gradcheck(lambda y: spread_norm(norm, y, silu), x)


def test_an_autoencoder_that_keeps_less_says_the_same():
    """Both ways, with its gradient, and though nothing but the norms' inputs is kept."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    vae = AutoencoderKL(block_out_channels=(32, 32), layers_per_block=1, **blocks).double().eval().requires_grad_(False)
    x, sent = torch.rand(1, 3, 16, 16, dtype=torch.float64), torch.randn(1, 3, 16, 16, dtype=torch.float64)

    def both_ways() -> tuple[list[torch.Tensor], int]:
        kept: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        own = x.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            found = vae.decode(vae.encode(own).latent_dist.mean).sample
        weights = {p.untyped_storage().data_ptr() for p in vae.parameters()}
        size = sum(storage.nbytes() for place, storage in kept.items() if place not in weights)
        found.backward(sent)
        assert own.grad is not None
        return [found.detach(), own.grad], size

    plain, before = both_ways()
    economise(vae)
    found, after = both_ways()
    for a, b in zip(found, plain, strict=True):
        torch.testing.assert_close(a, b)
    assert after < before / 2
