"""CUDA graphs, which launch all kernels of a pass at once.

Each launch costs the host some microseconds, whatever the kernel computes. A function of fixed
shapes is captured once and then replayed as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from melcap.errors import BackendError
from melcap.ops import registry

WARMUP = 3
"""Passes before the capture, which compile kernels and make tables of weights outside of it."""


@dataclass(frozen=True)
class Capture:
    """A captured graph with its tensors.

    Attributes:
        static_input: the input, which `replay` reads from the same memory each time.
        static_output: the output, which `replay` writes to the same memory each time.
        replay: the call that runs the graph.
    """

    static_input: Tensor
    static_output: Tensor
    replay: Callable[[], None]


class GraphedFunction:
    """A function of one tensor that runs as a CUDA graph, one for each shape and dtype.

    On any backend but `triton` the function is called without a graph, because the reference reads
    values on the host. An object serves one thread at a time.

    Args:
        function: it returns one tensor, launches the same kernels for the same shape, and reads no
            values on the host.
        watched: the tensors that the function reads beside its argument. When one has changed, or
            lies at another address, all captures are discarded, because the tables that are made
            from it must be made again.
        max_graphs: graphs that are kept; the least recently used one is discarded first.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], watched: Iterable[Tensor], max_graphs: int = 32
    ) -> None:
        self._function = function
        # Tensors made in inference mode do not count their changes, so they cannot be watched.
        self._watched = [tensor for tensor in watched if not tensor.is_inference()]
        self._max_graphs = max_graphs
        self._captures: dict[tuple[object, ...], Capture] = {}
        self._pool: Any = None
        self._state = self._versions()

    def __call__(self, x: Tensor) -> Tensor:
        """Return a new tensor with the result of the function.

        Raises:
            BackendError: if the function cannot be captured.
        """
        if registry.choose(x.device.type) != "triton":
            return self._function(x)
        if (state := self._versions()) != self._state:
            self._captures.clear()
            self._state = state
        key = (tuple(x.shape), x.dtype)
        captured = self._captures.pop(key, None) or self._capture(x)
        self._captures[key] = captured  # the most recently used are last
        captured.static_input.copy_(x)
        captured.replay()
        return captured.static_output.clone()

    def _versions(self) -> list[tuple[int, int]]:
        """Return the number of changes and the address of each watched tensor."""
        return [(tensor._version, tensor.data_ptr()) for tensor in self._watched]

    def _capture(self, x: Tensor) -> Capture:
        while len(self._captures) >= self._max_graphs:
            del self._captures[next(iter(self._captures))]
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            return capture(self._function, x, self._pool)
        except RuntimeError as error:
            raise BackendError(
                f"this pass cannot be captured as a CUDA graph ({error}): "
                "switch graphs off with codec.use_graphs(False)"
            ) from error


@torch.inference_mode(False)
@torch.no_grad()
def capture(function: Callable[[Tensor], Tensor], x: Tensor, pool: Any) -> Capture:
    """Capture a function as a graph that reads a copy of `x`.

    Graphs may share a memory pool if the result of each is copied before the next one is replayed.
    """
    with torch.cuda.device(x.device):
        static_input = x.clone()
        side_stream = torch.cuda.Stream()
        side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side_stream):
            for _ in range(WARMUP):
                function(static_input)
        torch.cuda.current_stream().wait_stream(side_stream)
        graph = torch.cuda.CUDAGraph()
        # In the default mode, "global", calls that cannot be captured are errors in every thread. A
        # data loader that allocates or pins memory meanwhile would fail, or make the capture fail.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            static_output = function(static_input)
    return Capture(static_input, static_output, graph.replay)
