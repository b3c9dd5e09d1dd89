"""The autoencoder: crops, losses, the discriminator's weight, and standardized latents."""

import pytest
import torch
from torch.nn import functional as F

from pocket.train import autoencoder as a


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return a.build(a.SMOKE)


@pytest.fixture
def images() -> torch.Tensor:
    torch.manual_seed(1)
    return F.interpolate(torch.rand(4, 3, 8, 8), 64, mode="bilinear") * 2 - 1


def test_the_network_that_ships_fits_its_budget():
    vae = a.build(a.CONFIG)
    assert sum(p.numel() for p in vae.parameters()) * 2 < 16 * 2**20
    assert vae.encoder(torch.zeros(1, 3, 64, 64)).shape == (1, 8, 8, 8)


def test_crops_are_windows_of_their_image_in_any_mirroring():
    images = torch.arange(2 * 6 * 6).view(2, 6, 6, 1).expand(-1, -1, -1, 3).to(torch.uint8)
    generator, seen = torch.Generator().manual_seed(0), set()
    for _ in range(40):
        crops = a.random_crops(images, 4, generator)
        assert crops.shape == (2, 4, 4, 3)
        for k in range(2):
            down, across = (crops[k, :, :, 0].int().diff(dim=d) for d in (0, 1))
            assert (down.abs() == 6).all() and (across.abs() == 1).all()
            assert (crops[k] // 36 == k).all()
            seen.add((int(down[0, 0]), int(across[0, 0])))
    assert len(seen) == 4


def test_losses_vanish_on_the_image_itself_and_see_a_wrong_hue(images):
    assert all(value == 0 for value in a.image_losses(images, images).values())
    turned = a.image_losses(images.roll(1, dims=1), images)
    grayed = a.image_losses(images + 0.1, images)
    assert turned["color"] > 0.1 and grayed["color"] < 1e-6 < grayed["l1"]


def test_the_critic_gets_the_share_it_is_given():
    y = torch.randn(100, requires_grad=True)
    (a.RescaleGradient.apply(y, torch.tensor(3.0)) * torch.randn(100)).sum().backward()
    assert y.grad.norm() == pytest.approx(3)


def test_a_frozen_critic_passes_gradient_to_the_image_only(images):
    critic, x = a.PatchDiscriminator(), images.clone().requires_grad_()
    critic(x, frozen=True).sum().backward()
    assert x.grad.abs().sum() > 0 and all(p.grad is None for p in critic.parameters())


def test_without_its_share_the_critic_neither_learns_nor_persuades(vae, images):
    trainee = a.AutoencoderLoss(vae)
    losses = trainee(images, torch.zeros(()))
    losses["loss"].backward()
    assert all(p.grad.abs().sum() == 0 for p in trainee.critic.parameters())
    parts = (
        sum(losses[name] for name in ("l1", "pyramid", "edges", "color"))
        + a.KL_WEIGHT * losses["kl"]
    )
    torch.testing.assert_close(losses["loss"], parts)


def test_training_brings_an_image_back(vae, images):
    trainee = a.AutoencoderLoss(vae)
    optimizer = torch.optim.Adam(trainee.parameters(), 5e-3)
    history = []
    for step in range(60):
        losses = trainee(images, torch.full((), 0.3 if step > 40 else 0.0))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        history.append(float(losses["l1"].detach()))
    assert history[-1] < 0.7 * history[0]


def test_standardised_latents_are_alike_and_images_stay(vae, images):
    with torch.no_grad():
        vae.quant_conv.weight[0].mul_(5)
        vae.quant_conv.bias[1].add_(2)
        before = vae.decode(vae.encode(images).latent_dist.mode()).sample
        ready = a.standardize_latents(vae, images)
        posterior = ready.encode(images).latent_dist
        torch.testing.assert_close(
            ready.decode(posterior.mode()).sample, before, atol=1e-4, rtol=1e-4
        )
        deviation = (posterior.mean.var((0, 2, 3)) + posterior.var.mean((0, 2, 3))).sqrt()
    torch.testing.assert_close(posterior.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        deviation * ready.config.scaling_factor, torch.ones(4), atol=1e-3, rtol=0
    )


def test_psnr_is_that_of_the_definition(vae, images):
    with torch.no_grad():
        y = vae.decode(vae.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
    wanted = torch.stack(
        [-10 * ((y[i] - images[i]) / 2).square().mean().log10() for i in range(4)]
    ).mean()
    assert a.psnr(vae, images) == pytest.approx(float(wanted), abs=1e-3)
