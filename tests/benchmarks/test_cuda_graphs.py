"""The benchmark of CUDA graphs runs, and stores nothing that a machine without GPU measured."""

import torch

from benchmarks import cuda_graphs
from benchmarks.common import sd21_unet, sd21_vae


def test_rehearsal_stores_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cuda_graphs, "CUDA", False)
    monkeypatch.setattr(cuda_graphs, "DEVICE", torch.device("cpu"))
    monkeypatch.setattr(cuda_graphs, "ROUNDS", 1)
    monkeypatch.setattr(cuda_graphs, "RESULTS", tmp_path)
    monkeypatch.setitem(
        cuda_graphs.GROUPS,
        "graph",
        lambda: cuda_graphs.compare(cuda_graphs.denoiser(), "graph", "small", None),
    )
    rows = cuda_graphs.main(["graph"])
    assert {row.command for row in rows} == {"python -m benchmarks.cuda_graphs graph"}
    assert (
        next(row for row in rows if row.id == "cuda_graphs.graph.error").value == 0
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
