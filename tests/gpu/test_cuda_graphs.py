"""CUDA graphs on a GPU: the same results, for every shape, and the plain network otherwise."""

import gc

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from course.speed.cuda_graphs import MAX_GRAPHS, CudaGraphModule, CudaGraphWarning
from course.speed.frozen_vae import optimize_frozen_vae

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    sizes = {
        "block_out_channels": (32, 64, 64, 64),
        "cross_attention_dim": 32,
        "attention_head_dim": 8,
    }
    return UNet2DConditionModel(sample_size=16, **sizes).to("cuda", torch.float16).eval()


def inputs(batch: int = 2, side: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, states = (
        torch.randn(batch, 4, side, side, generator=generator),
        torch.randn(batch, 9, 32, generator=generator),
    )
    return x.to("cuda", torch.float16), states.to("cuda", torch.float16)


def assert_same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-2, rtol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("compile", [False, True])
def test_results_are_those_of_the_plain_network(unet, compile):
    graphed = CudaGraphModule(unet, compile=compile)
    for seed, t in enumerate([999, 500, 1]):
        x, states = inputs(seed=seed)
        assert_same(
            graphed(x, t, encoder_hidden_states=states).sample,
            unet(x, t, encoder_hidden_states=states).sample,
        )
    assert len(graphed._graphs) == 1


@torch.no_grad()
def test_timesteps_of_any_kind_share_a_captured_call(unet):
    graphed, (x, states) = CudaGraphModule(unet), inputs()
    expected = unet(x, 7, states).sample
    for t in (7, torch.tensor(7), torch.tensor(7, device="cuda")):
        assert_same(graphed(x, t, states).sample, expected)
    assert len(graphed._graphs) == 1


@torch.no_grad()
def test_results_stay_when_it_is_called_again(unet):
    graphed, (x, states) = CudaGraphModule(unet), inputs()
    first = graphed(x, 10, states).sample
    kept = first.clone()
    graphed(x + 1, 900, states)
    assert torch.equal(first, kept)


@torch.no_grad()
def test_a_changed_shape_is_captured_again_and_reported(unet, capsys):
    graphed = CudaGraphModule(unet)
    for batch in (1, 2, 1, 3):
        x, states = inputs(batch)
        assert_same(graphed(x, 5, states).sample, unet(x, 5, states).sample)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and "captured again for (3, 4, 16, 16)" in lines[-1]
    for side in (8, 16, 24, 32, 40):
        x, states = inputs(side=side)
        assert_same(graphed(x, 5, states).sample, unet(x, 5, states).sample)
    assert len(graphed._graphs) == MAX_GRAPHS


@torch.no_grad()
def test_weights_may_change_in_place(unet):
    network = nn.Linear(3, 3).cuda()
    graphed, x = CudaGraphModule(network), torch.ones(1, 3, device="cuda")
    graphed(x)
    network.bias.add_(1)
    torch.testing.assert_close(graphed(x), network(x))


def test_gradients_take_the_plain_network(unet):
    x, states = inputs()
    graphed = CudaGraphModule(unet)
    x.requires_grad_()
    graphed(x, 5, states).sample.float().sum().backward()
    assert x.grad is not None and not graphed._graphs
    with pytest.warns(CudaGraphWarning, match="no_grad"):
        graphed(x.detach(), 5, states)


def test_inference_mode_and_back(unet):
    graphed, (x, states) = CudaGraphModule(unet), inputs()
    with torch.inference_mode():
        graphed(x.clone(), 5, states)
    with torch.no_grad():
        assert_same(graphed(x, 6, states).sample, unet(x, 6, states).sample)


@torch.no_grad()
def test_memory_goes_with_the_object(unet):
    x, states = inputs(side=64)
    unet(x, 5, states)
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    graphed = CudaGraphModule(unet)
    graphed(x, 5, states)
    assert torch.cuda.memory_reserved() > before
    del graphed
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before + 2**21


@torch.no_grad()
def test_what_cannot_be_captured_runs_without_a_graph():
    class Looks(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * (2 if x.sum().item() > 0 else 1)

    network, x = Looks(3, 3).cuda(), torch.ones(1, 3, device="cuda")
    graphed = CudaGraphModule(network)
    with pytest.warns(CudaGraphWarning, match="cannot be captured"):
        result = graphed(x)
    torch.testing.assert_close(result, network(x))
    torch.testing.assert_close(graphed(-x), network(-x))
    assert (
        CudaGraphModule(nn.Linear(3, 3).cuda())(x).shape == x.shape
    )  # the GPU is as good as before


def test_a_light_autoencoder_says_the_same():
    torch.manual_seed(0)
    blocks = {
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    }
    vae = (
        AutoencoderKL(block_out_channels=(64, 64), layers_per_block=1, **blocks)
        .to("cuda", torch.float16)
        .eval()
    )
    vae.requires_grad_(False)
    x, sent = (
        torch.rand(1, 3, 128, 128, device="cuda").half(),
        torch.randn(1, 4, 64, 64, device="cuda").half(),
    )

    def both_ways() -> list[torch.Tensor]:
        own = x.clone().requires_grad_()
        result = vae.encode(own).latent_dist.mean
        result.backward(sent)
        latents = result.detach().requires_grad_()
        image = vae.decode(latents).sample
        image.backward(x)
        assert own.grad is not None and latents.grad is not None
        return [result.detach(), own.grad, image.detach(), latents.grad]

    plain = both_ways()
    assert optimize_frozen_vae(vae) is vae
    for a, b in zip(both_ways(), plain, strict=True):
        assert (a - b).float().norm() < 1e-2 * b.float().norm()


def test_gradients_are_captured_on_request(unet):
    x, states = inputs()
    graphed = CudaGraphModule(unet.requires_grad_(False), gradients=True)
    try:
        for seed in (1, 2):  # the second time by a replay
            own = inputs(seed=seed)[0].requires_grad_()
            [result] = torch.autograd.grad(graphed(own, 5, states).sample.square().sum(), own)
            [expected] = torch.autograd.grad(unet(own, 5, states).sample.square().sum(), own)
            assert (result - expected).float().norm() < 2e-2 * expected.float().norm()
        kept = graphed(own, 5, states).sample
        graphed(own, 5, states)
        with pytest.raises(RuntimeError, match="called again before the gradient"):
            kept.sum().backward()
        with torch.no_grad():
            assert_same(graphed(x, 6, states).sample, unet(x, 6, states).sample)
    finally:
        unet.requires_grad_(True)
