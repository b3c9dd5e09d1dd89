"""CUDA graphs: a network's kernels are captured once and then replayed.

    unet = CudaGraphModule(pipe.unet)
    with torch.no_grad():
        noise_pred = unet(latents, t, encoder_hidden_states=embeddings).sample

A denoiser at batch size 1 consists of a thousand small kernels, and launching each from Python
takes longer than running it. A graph launches them all at once. Without a GPU the network runs as
it is.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from tqdm import tqdm

from course.errors import CourseWarning

MAX_GRAPHS = 4  # shapes that are kept, so that a loop that alternates between a few captures once
WARMUP_CALLS = 2  # before the capture: libraries choose kernels and allocate memory in the first


class CudaGraphWarning(CourseWarning):
    """A network runs without a CUDA graph; the message says why."""


class CudaGraphModule:
    """A network whose calls without gradient are captured, once for each input shape, and replayed.

    Called like the network, with its results, and with its attributes. The forward of the network
    must take and return tensors, or containers of them, and must not look at their values. Numbers
    among the inputs are passed as tensors, so they may change from call to call without a new
    capture. Weights may change in place between calls.

    A call that needs gradients runs the plain network, unless `gradients` is set: then the call is
    captured with its backward pass, and the gradient of a result has to be computed before the next
    call, or else an error says so. Captured calls hold GPU memory as long as this object lives.

    Args:
        compile: compile the network (torch.compile) before the capture. The first call then takes
            a minute instead of a second.
        gradients: capture calls with a gradient too, forward and backward.
    """

    def __init__(self, network: nn.Module, compile: bool = False, gradients: bool = False) -> None:
        self.network, self.gradients = network, gradients
        self._run = torch.compile(network, dynamic=False) if compile else network
        self._graphs: dict[Any, CapturedCall] = {}
        self._graphs_with_gradient: dict[Any, Callable[..., Any]] = {}
        self._calls = 0
        self._capture_failed = False  # then it is not tried again

    def __getattr__(self, name: str) -> Any:
        if name == "network":  # not yet there while an object is being copied
            raise AttributeError(name)
        return getattr(self.network, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        weight = next(self.network.parameters())
        if weight.device.type != "cuda" or self._capture_failed:
            return self.network(*args, **kwargs)
        leaves, structure = pytree.tree_flatten((args, kwargs))
        needs_gradient = torch.is_grad_enabled() and self._needs_gradient(leaves)
        if needs_gradient and (not self.gradients or self._is_training()):
            return self.network(*args, **kwargs)
        inputs = [number_to_tensor(leaf) for leaf in leaves]
        key = (weight.data_ptr(), weight.dtype, structure, *map(signature, inputs))
        if needs_gradient:
            key = (*key, *(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in inputs))
        try:
            if needs_gradient:
                self._capture_with_gradient(key, inputs, structure, weight.device)
            else:
                self._capture(key, inputs, structure, weight.device)
        except RuntimeError as error:
            self._capture_failed = True
            self._graphs.clear()
            self._graphs_with_gradient.clear()
            reason = str(error).strip().partition("\n")[0]
            self._warn(f"cannot be captured as a CUDA graph ({reason}): it runs without one")
            return self.network(*args, **kwargs)
        if needs_gradient:
            return self._replay_with_gradient(key, inputs, weight.device)
        return self._graphs[key].replay(inputs)

    def _is_training(self) -> bool:
        return any(p.requires_grad for p in self.network.parameters())

    def _needs_gradient(self, leaves: Sequence[Any]) -> bool:
        if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves):
            return True
        if self._is_training() and not self._graphs:
            self._warn(
                "runs without a CUDA graph, because its weights require gradients: call it within "
                "torch.no_grad()"
            )
        return self._is_training()

    def _capture(self, key: Any, inputs: list[Any], structure: Any, device: torch.device) -> None:
        """Capture a call unless one of this key is there."""
        if key in self._graphs:
            return
        start = time.perf_counter()
        pools = [graph.pool for graph in self._graphs.values()]
        pool = pools[0] if pools else torch.cuda.graph_pool_handle()
        evict_oldest(self._graphs)
        self._graphs[key] = CapturedCall(self._run, inputs, structure, device, pool)
        event = "captured again for" if len(self._graphs) > 1 else "captured for"
        self._report(event, inputs, start)

    def _capture_with_gradient(
        self, key: Any, inputs: list[Any], structure: Any, device: torch.device
    ) -> None:
        """Capture a call and its backward pass unless one of this key is there."""
        if key in self._graphs_with_gradient:
            return
        start = time.perf_counter()
        indices = [k for k, leaf in enumerate(inputs) if isinstance(leaf, Tensor)]
        # Without the tensors, which would keep what computed them.
        constants = [None if isinstance(leaf, Tensor) else leaf for leaf in inputs]

        def run(*tensors: Tensor) -> Any:
            leaves = list(constants)
            for k, tensor in zip(indices, tensors, strict=True):
                leaves[k] = tensor
            args, kwargs = pytree.tree_unflatten(leaves, structure)
            return self._run(*args, **kwargs)

        samples = [
            inputs[k].detach().to(device, copy=True).requires_grad_(inputs[k].requires_grad)
            for k in indices
        ]
        evict_oldest(self._graphs_with_gradient)
        self._graphs_with_gradient[key] = torch.cuda.make_graphed_callables(run, tuple(samples))
        self._report("captured, with its gradient, for", inputs, start)

    def _replay_with_gradient(self, key: Any, inputs: list[Any], device: torch.device) -> Any:
        """Return copies of the results of a call, whose gradient is the captured one."""
        self._calls += 1
        number = self._calls

        def copy(result: Tensor) -> Tensor:
            if result.requires_grad:
                result.register_hook(lambda _: self._check_is_last(number))
            return result.clone()

        tensors = [leaf.to(device) for leaf in inputs if isinstance(leaf, Tensor)]
        results = self._graphs_with_gradient[key](*tensors)
        return pytree.tree_map_only(Tensor, copy, results)

    def _check_is_last(self, number: int) -> None:
        if number != self._calls:
            raise RuntimeError(
                f"{self._name} was called again before the gradient of its last result was "
                "computed. With a CUDA graph, compute each gradient before the next call."
            )

    def _report(self, event: str, inputs: list[Any], start: float) -> None:
        tensors = [leaf for leaf in inputs if isinstance(leaf, Tensor) and leaf.ndim]
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        tqdm.write(f"{self._name}: {event} {shapes} in {time.perf_counter() - start:.1f} s")

    @property
    def _name(self) -> str:
        return type(self.network).__name__

    def _warn(self, text: str) -> None:
        warnings.warn(f"{self._name} {text}", CudaGraphWarning, stacklevel=3)


class CapturedCall:
    """One call of a network as a CUDA graph, with the memory of its inputs and outputs.

    inputs: the leaves of (args, kwargs), whose tree is `structure`. pool: the graphs' memory;
    graphs that never run at the same time share one, because `replay` returns copies.
    """

    @torch.inference_mode(False)  # or else the inputs could not be overwritten outside of it
    @torch.no_grad()
    def __init__(
        self, run: Any, inputs: Sequence[Any], structure: Any, device: torch.device, pool: Any
    ) -> None:
        self.pool = pool
        self.inputs = [
            leaf.to(device, copy=True) if isinstance(leaf, Tensor) else leaf for leaf in inputs
        ]
        args, kwargs = pytree.tree_unflatten(self.inputs, structure)
        with torch.cuda.device(device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARMUP_CALLS):
                    run(*args, **kwargs)
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            # cuBLAS keeps a workspace for each stream. Cleared before and after the capture, it is
            # part of the graphs' memory and is freed with it.
            torch._C._cuda_clearCublasWorkspaces()
            with torch.cuda.graph(self.graph, pool=pool, stream=stream):
                self.outputs = run(*args, **kwargs)
            torch._C._cuda_clearCublasWorkspaces()

    @torch.no_grad()
    def replay(self, inputs: Sequence[Any]) -> Any:
        """Return the outputs for new inputs of the same shapes, as copies."""
        for own, new in zip(self.inputs, inputs, strict=True):
            if isinstance(own, Tensor):
                own.copy_(new, non_blocking=True)
        self.graph.replay()
        return pytree.tree_map_only(Tensor, torch.clone, self.outputs)


def evict_oldest(graphs: dict[Any, Any]) -> None:
    """Remove the oldest graphs until there is room for one more."""
    while len(graphs) >= MAX_GRAPHS:
        del graphs[next(iter(graphs))]


def number_to_tensor(leaf: Any) -> Any:
    """Return a number as a tensor without dimensions; anything else, also a bool, as it is."""
    is_number = isinstance(leaf, int | float) and not isinstance(leaf, bool)
    return torch.tensor(leaf) if is_number else leaf


def signature(leaf: Any) -> Any:
    """Return what a captured call depends on: shape, dtype and strides of a tensor.

    Anything else is returned as it is.
    """
    if not isinstance(leaf, Tensor):
        return leaf
    return leaf.shape, leaf.dtype, leaf.stride()
