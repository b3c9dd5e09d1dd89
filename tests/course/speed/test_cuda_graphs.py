"""CUDA graphs without a GPU: the network as it is. Captured calls are tested in tests/gpu."""

import copy

import torch
from torch import nn

from course.models import find_model, load_pipeline
from course.speed.cuda_graphs import CudaGraphModule, number_to_tensor, signature


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor, scale: float, flag: bool = False) -> dict[str, torch.Tensor]:
        return {"y": self.linear(x) * scale, "z": x if flag else -x}


def test_on_a_cpu_the_network_runs_as_it_is():
    network = Scaled()
    graphed, x = CudaGraphModule(network), torch.randn(2, 3)
    assert torch.equal(graphed(x, 0.5)["y"], network(x, 0.5)["y"])
    assert torch.equal(graphed(x, 0.5, flag=True)["z"], x)
    graphed(x, 1.0)["y"].sum().backward()
    assert network.linear.weight.grad is not None


def test_attributes_are_the_networks():
    graphed = CudaGraphModule(Scaled())
    assert graphed.linear is graphed.network.linear and not hasattr(graphed, "nothing")
    assert isinstance(copy.copy(graphed).network, Scaled)


def test_a_pipeline_takes_it(tiny_folder):
    def draw() -> torch.Tensor:
        return pipe(
            "a cat",
            num_inference_steps=2,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
        ).images

    pipe = load_pipeline(find_model(tiny_folder))
    expected = draw()
    pipe.unet = CudaGraphModule(pipe.unet)
    assert torch.equal(draw(), expected)


def test_numbers_may_change_without_a_new_recording_but_shapes_not():
    assert number_to_tensor(3).dtype == torch.int64 and number_to_tensor(0.5).dtype == torch.float32
    assert (
        number_to_tensor(False) is False
        and number_to_tensor("a") == "a"
        and number_to_tensor(None) is None
    )
    assert signature(number_to_tensor(3)) == signature(number_to_tensor(4))
    x = torch.zeros(2, 3, 4, 4)
    others = [x[:1], x.half(), x.to(memory_format=torch.channels_last)]
    assert signature(x) not in [signature(other) for other in others]
    assert hash(signature(x)) == hash(signature(x + 1))
