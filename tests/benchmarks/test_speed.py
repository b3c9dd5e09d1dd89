"""The benchmark of speed runs, and stores nothing that a machine without a GPU measured."""

import torch

from benchmarks import speed
from benchmarks.common import sd21_unet, sd21_vae


def test_rehearsal_stores_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speed, "CUDA", False)
    monkeypatch.setattr(speed, "DEVICE", torch.device("cpu"))
    monkeypatch.setattr(speed, "DTYPE", torch.float32)
    monkeypatch.setattr(speed, "ROUNDS", 1)
    monkeypatch.setattr(speed, "CALLS", 1)
    monkeypatch.setattr(speed, "STEPS", 2)
    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    rows = {row.id: row for row in speed.main(["sdxl", "sampling"])}
    assert {row.command for row in rows.values()} == {
        "python -m benchmarks.speed sdxl",
        "python -m benchmarks.speed sampling",
    }
    assert rows["speed.sdxl.course_error"].value < 1e-5
    assert rows["speed.sampling.course_psnr"].value > 60
    assert "not stored" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_networks_have_the_size_of_stable_diffusion():
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in network.parameters()) for network in (sd21_unet(), sd21_vae())
        ]
        toys = [
            sum(p.numel() for p in network.parameters())
            for network in (sd21_unet(toy=True), sd21_vae(toy=True))
        ]
    assert counts == [865_910_724, 83_653_863] and max(toys) < 2e6
