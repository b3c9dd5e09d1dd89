"""The denoiser: its loss by the book, its data, and a network of the size that was promised."""

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, DDIMScheduler

from pocket.train import denoiser as d
from tests.pocket.text import Text


@pytest.fixture
def trainee() -> d.DiffusionLoss:
    torch.manual_seed(0)
    return d.DiffusionLoss(d.build(d.SMOKE, 16), Text(), 0.5, torch.zeros(6, dtype=torch.long))


def test_the_network_that_ships_fits_its_budget():
    unet = d.build(d.CONFIG, 256)
    assert sum(p.numel() for p in unet.parameters()) <= 32e6
    assert sum(p.numel() for p in ControlNetModel.from_unet(unet).parameters()) * 2 <= 24 * 2**20


def test_timesteps_cover_the_schedule_evenly():
    torch.manual_seed(0)
    t = d.stratified_timesteps(50, 1000, torch.device("cpu"))
    assert (t // 20).tolist() == list(range(50))
    many = torch.cat([d.stratified_timesteps(50, 1000, torch.device("cpu")) for _ in range(400)])
    assert many.min() == 0 and many.max() == 999


def test_min_snr_weight_is_one_where_noise_rules_and_falls_as_the_signal_grows():
    alphas_cumprod = torch.tensor([0.1, 0.5, 5 / 6, 0.99])  # SNR 1/9, 1, 5, 99
    torch.testing.assert_close(
        d.min_snr_weight(alphas_cumprod, 5.0), torch.tensor([1.0, 1.0, 1.0, 5 / 99])
    )


def test_the_schedule_is_stable_diffusions(trainee):
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    torch.testing.assert_close(trainee.alphas_cumprod, torch.cumprod(1 - beta, dim=0))
    assert DDIMScheduler(**d.SCHEDULER).config.prediction_type == "epsilon"


def test_a_perfect_guess_has_no_loss(trainee, monkeypatch):
    """The denoiser sees sqrt(a) z + sqrt(1 - a) noise and is asked for the noise."""
    mean = torch.randn(3, 4, 32, 32)
    moments = torch.cat(
        [mean, torch.full_like(mean, -30.0)], dim=1
    )  # no spread: the latents are the means

    def perfect(noisy, t, states, return_dict):
        a = trainee.alphas_cumprod[t][:, None, None, None]
        return ((noisy - a.sqrt() * mean * trainee.scaling_factor) / (1 - a).sqrt(),)

    monkeypatch.setattr(trainee.unet, "forward", perfect)
    losses = trainee(moments, torch.ones(3, 6, dtype=torch.long))
    assert losses["loss"] < 1e-6 and losses["mse"] < 1e-6


def test_one_caption_in_ten_is_left_out(trainee, monkeypatch):
    seen = []

    def look(noisy, t, states, return_dict):
        seen.append(states)
        return (noisy,)

    monkeypatch.setattr(trainee.unet, "forward", look)
    torch.manual_seed(0)
    trainee(torch.zeros(1000, 8, 1, 1), torch.ones(1000, 6, dtype=torch.long))
    empty = trainee.text(torch.zeros(1, 6, dtype=torch.long))[0]
    assert (seen[0] == empty).all((1, 2)).float().mean() == pytest.approx(0.1, abs=0.03)


def test_only_the_denoiser_trains(trainee):
    losses = trainee(torch.randn(2, 8, 32, 32).half(), torch.ones(2, 6, dtype=torch.long))
    losses["loss"].backward()
    assert trainee.text.table.weight.grad is None
    assert all(p.grad is not None for p in trainee.unet.parameters())


def write_shard(folder, first: int, count: int) -> None:
    folder.mkdir(parents=True)
    values = np.arange(first, first + count)
    np.save(
        folder / "moments.npy",
        np.broadcast_to(values[:, None, None, None], (count, 8, 2, 2)).astype(np.float16),
    )
    np.save(
        folder / "tokens.npy",
        np.broadcast_to(values[:, None, None], (count, 4, 6)).astype(np.int16),
    )


def test_latents_keep_their_captions_and_are_shared_out(tmp_path):
    write_shard(tmp_path / "pool-0-00000000", 0, 10)
    write_shard(tmp_path / "extra-00000000", 10, 5)
    both = [d.LatentDataset(tmp_path, torch.device("cpu"), rank, 2) for rank in range(2)]
    assert sorted(map(len, both)) == [5, 10]
    everything = d.LatentDataset(tmp_path, torch.device("cpu"))
    moments, tokens = everything.sample(200, torch.Generator().manual_seed(0))
    assert moments.dtype == torch.float16 and tokens.dtype == torch.int64
    assert (moments[:, 0, 0, 0] == tokens[:, 0]).all()
    held_out = everything.moments[everything.held_out][:, 0, 0, 0].tolist()
    assert len(held_out) == 3
    assert set(tokens[:, 0].tolist()) == set(range(15)) - set(held_out)


def test_missing_latents_name_the_command_that_makes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"pocket\.train latents"):
        d.LatentDataset(tmp_path, torch.device("cpu"))
