"""The benchmark of the fast path goes through, and keeps what a machine without GPU measured to itself."""

import torch

from benchmarks import fast
from benchmarks.common import sd21_unet, sd21_vae


def test_rehearsal_stores_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fast, "CUDA", False)
    monkeypatch.setattr(fast, "DEVICE", torch.device("cpu"))
    monkeypatch.setattr(fast, "ROUNDS", 1)
    monkeypatch.setattr(fast, "RESULTS", tmp_path)
    monkeypatch.setitem(fast.GROUPS, "graph", lambda: fast.compare(fast.denoiser(), "small", None))
    rows = fast.main(["graph"])
    assert {row.command for row in rows} == {"python -m benchmarks.fast graph"}
    assert (
        next(row for row in rows if "norm" in row.figure).value == 0
    )  # the same network, without a GPU
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
