"""Every test that takes `path` runs on the compiled kernels and on plain PyTorch."""

import warnings
from collections.abc import Iterator

import pytest
import torch

from task_3_DreamFusion import kernels

CPU = torch.device("cpu")


def need(package: str) -> None:
    """Skips, loudly, where nothing can be compiled."""
    if not kernels.is_available(package, CPU):
        warnings.warn(f"NO COMPILED KERNELS: {package} was tested on PyTorch alone", stacklevel=2)
        pytest.skip(f"NO COMPILED KERNELS: {kernels.load(package, 'cpu')}")


@pytest.fixture(params=["compiled", "pytorch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which path runs; the package is that of the test's file name."""
    package = next(name for name in kernels.PACKAGES if name in request.path.name)
    if request.param == "compiled":
        need(package)
    else:
        monkeypatch.setattr(kernels, "_is_available", lambda package, device: False)
    return request.param


@pytest.fixture
def compiled(request: pytest.FixtureRequest) -> None:
    need(next(name for name in kernels.PACKAGES if name in request.path.name))


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch.set_num_threads(1)


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over norm; NaN counts as infinitely far."""
    error = ((result.double() - expected.double()).norm() / expected.double().norm()).item()
    return error if error == error else float("inf")
