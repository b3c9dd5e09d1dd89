"""A fast path for a network on a GPU: its kernels are recorded once, as a CUDA graph, and then replayed.

    unet = fast(pipe.unet)
    with torch.no_grad():
        noise_pred = unet(latents, t, encoder_hidden_states=embeddings).sample

A denoiser that sees one image at a time is made of a thousand small kernels, and launching each from Python takes
longer than running it. A graph launches them all at once. Without a GPU the network runs as it is.
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

GRAPHS = 4  # as many shapes are kept, so that a loop that alternates between a few does not record at every call
WARM_UP = 2  # calls before the recording: libraries choose their kernels and take their memory in the first


class FastWarning(CourseWarning):
    """The fast path cannot be taken; the plain one runs."""


def fast(network: nn.Module, compile: bool = False, gradients: bool = False) -> "Fast":
    """`network` on the fast path: called like the network, with its results, and with its attributes.

    compile: compiles the network (torch.compile) before recording. The first call then takes a minute, not a second.
    gradients: records calls with a gradient too, forth and back, for inputs whose gradient is wanted.
    """
    return Fast(network, compile, gradients)


class Fast:
    """A network whose calls without gradient are recorded, once for each shape of the inputs, and replayed.

    Takes any network whose forward gets and gives tensors, or containers of them, and does not look at their values.
    Numbers among the inputs are passed as tensors: they may change from call to call without a new recording.
    Weights may change in place between calls. A call that needs gradients runs the plain network, unless `gradients`
    are recorded too: then the gradient of a result is to be asked for before the next call, and an error says so if it
    is not. What was recorded holds GPU memory until this object goes.
    """

    def __init__(self, network: nn.Module, compile: bool = False, gradients: bool = False) -> None:
        self.network, self.gradients = network, gradients
        self._run = torch.compile(network, dynamic=False) if compile else network
        self._graphs: dict[Any, Recording] = {}
        self._both_ways: dict[Any, Callable[..., Any]] = {}  # recorded with their gradients
        self._calls = 0
        self._refused = False  # a recording failed: not tried again

    def __getattr__(self, name: str) -> Any:
        if name == "network":  # not yet there while an object is being copied
            raise AttributeError(name)
        return getattr(self.network, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        weight = next(self.network.parameters())
        if weight.device.type != "cuda" or self._refused:
            return self.network(*args, **kwargs)
        leaves, form = pytree.tree_flatten((args, kwargs))
        needs = torch.is_grad_enabled() and self._needs_gradient(leaves)
        if needs and not (
            self.gradients and not any(p.requires_grad for p in self.network.parameters())
        ):
            return self.network(*args, **kwargs)
        inputs = [as_tensor(leaf) for leaf in leaves]
        key = (weight.data_ptr(), weight.dtype, form, *map(signature, inputs))
        if needs:
            key = (*key, *(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in inputs))
        try:
            if key not in (self._both_ways if needs else self._graphs):
                (self._record_both_ways if needs else self._record)(
                    key, inputs, form, weight.device
                )
        except RuntimeError as error:
            self._refused = True
            self._graphs.clear()
            self._both_ways.clear()
            self._warn(
                f"cannot be recorded as a CUDA graph ({first_line(error)}): it runs as it is"
            )
            return self.network(*args, **kwargs)
        return (
            self._with_gradient(key, inputs, weight.device)
            if needs
            else self._graphs[key].replay(inputs)
        )

    def _with_gradient(self, key: Any, inputs: list[Any], device: torch.device) -> Any:
        """The results of a call, copied, with the gradient that was recorded beside it."""
        self._calls += 1
        number = self._calls

        def own(result: Tensor) -> Tensor:
            if result.requires_grad:
                result.register_hook(lambda _: self._check_last(number))
            return result.clone()

        tensors = [leaf.to(device) for leaf in inputs if isinstance(leaf, Tensor)]
        return pytree.tree_map_only(Tensor, own, self._both_ways[key](*tensors))

    def _check_last(self, number: int) -> None:
        if number != self._calls:
            raise RuntimeError(
                f"{self._name} was called again before the gradient of its last result was asked for: on the fast path "
                "with gradients ask for one after the other"
            )

    def _needs_gradient(self, leaves: Sequence[Any]) -> bool:
        if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves):
            return True
        needs = any(p.requires_grad for p in self.network.parameters())
        if needs and not self._graphs:
            self._warn(
                "runs as it is, since its weights ask for gradients: call it within torch.no_grad()"
            )
        return needs

    def _record(self, key: Any, inputs: list[Any], form: Any, device: torch.device) -> None:
        began = time.perf_counter()
        pool = (
            next(iter(self._graphs.values())).pool
            if self._graphs
            else torch.cuda.graph_pool_handle()
        )
        make_room(self._graphs)
        self._graphs[key] = Recording(self._run, inputs, form, device, pool)
        self._tell("recorded again for" if len(self._graphs) > 1 else "recorded for", inputs, began)

    def _record_both_ways(
        self, key: Any, inputs: list[Any], form: Any, device: torch.device
    ) -> None:
        began = time.perf_counter()
        places = [k for k, leaf in enumerate(inputs) if isinstance(leaf, Tensor)]
        others = [
            None if isinstance(leaf, Tensor) else leaf for leaf in inputs
        ]  # tensors would keep what made them

        def run(*given: Tensor) -> Any:
            leaves = list(others)
            for k, tensor in zip(places, given, strict=True):
                leaves[k] = tensor
            args, kwargs = pytree.tree_unflatten(leaves, form)
            return self._run(*args, **kwargs)

        like = [
            inputs[k].detach().to(device, copy=True).requires_grad_(inputs[k].requires_grad)
            for k in places
        ]
        make_room(self._both_ways)
        self._both_ways[key] = torch.cuda.make_graphed_callables(run, tuple(like))
        self._tell("recorded, with its gradient, for", inputs, began)

    def _tell(self, what: str, inputs: list[Any], began: float) -> None:
        shapes = ", ".join(
            f"{tuple(leaf.shape)}" for leaf in inputs if isinstance(leaf, Tensor) and leaf.ndim
        )
        tqdm.write(f"{self._name}: {what} {shapes} in {time.perf_counter() - began:.1f} s")

    @property
    def _name(self) -> str:
        return type(self.network).__name__

    def _warn(self, text: str) -> None:
        warnings.warn(f"{self._name} {text}", FastWarning, stacklevel=3)


class Recording:
    """One call of a network as a CUDA graph, with the memory that its inputs and outputs have in every replay.

    inputs: the leaves of (args, kwargs), whose structure is `form`. pool: the graphs' memory; graphs that never run
    at the same time share one, because `replay` gives out copies.
    """

    @torch.inference_mode(
        False
    )  # or else the inputs could not be overwritten outside of inference mode
    @torch.no_grad()
    def __init__(
        self, run: Any, inputs: Sequence[Any], form: Any, device: torch.device, pool: Any
    ) -> None:
        self.pool = pool
        self.inputs = [
            leaf.to(device, copy=True) if isinstance(leaf, Tensor) else leaf for leaf in inputs
        ]
        args, kwargs = pytree.tree_unflatten(self.inputs, form)
        with torch.cuda.device(device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    run(*args, **kwargs)
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            # cuBLAS keeps working memory for each stream that it has seen. Let go of it before and after, it is part
            # of the graphs' memory, and goes with them.
            torch._C._cuda_clearCublasWorkspaces()
            with torch.cuda.graph(self.graph, pool=pool, stream=stream):
                self.outputs = run(*args, **kwargs)
            torch._C._cuda_clearCublasWorkspaces()

    @torch.no_grad()
    def replay(self, inputs: Sequence[Any]) -> Any:
        """The outputs for new inputs of the same shapes, as copies that later replays leave alone."""
        for own, new in zip(self.inputs, inputs, strict=True):
            if isinstance(own, Tensor):
                own.copy_(new, non_blocking=True)
        self.graph.replay()
        return pytree.tree_map_only(Tensor, torch.clone, self.outputs)


def make_room(graphs: dict[Any, Any]) -> None:
    """Lets the oldest recordings go until there is room for one more."""
    while len(graphs) >= GRAPHS:
        del graphs[next(iter(graphs))]


def as_tensor(leaf: Any) -> Any:
    """A number as a tensor without dimensions; anything else, truth values too, as it is."""
    number = isinstance(leaf, int | float) and not isinstance(leaf, bool)
    return torch.tensor(leaf) if number else leaf


def signature(leaf: Any) -> Any:
    """What a recording depends on: of a tensor its shape, type and memory format; anything else as it is."""
    if not isinstance(leaf, Tensor):
        return leaf
    return leaf.shape, leaf.dtype, leaf.stride()


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
