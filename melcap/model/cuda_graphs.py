"""CUDA graphs, which launch all kernels of a pass at once.

Each launch costs the host some microseconds, whatever the kernel computes. A function of fixed
shapes is recorded once and then replayed as a whole.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from melcap.errors import BackendError
from melcap.model.weight_state import WeightState
from melcap.ops import registry

logger = logging.getLogger("melcap")

N = TypeVar("N", bound=nn.Module)

MOST_GRAPHS = 32
"""Graphs that are kept of a function; the least recently used one is discarded first."""
MOST_SHAPES = 1024
"""Shapes that are remembered to have been used once."""

_recording = threading.Lock()
"""PyTorch records graphs on one stream, so that there is one recording at a time in a process."""


@dataclass(frozen=True)
class Capture:
    """A recorded graph with its tensors.

    Attributes:
        static_input: the input, which `replay` reads from the same memory each time.
        static_output: the output, which `replay` writes to the same memory each time.
        replay: the call that runs the graph.
    """

    static_input: Tensor
    static_output: Tensor
    replay: Callable[[], None]


class GraphedFunction(Generic[N]):
    """A function of a network and a tensor that runs as CUDA graphs, one for each shape and dtype.

    A shape runs eagerly at its first use, so that one that never comes again costs nothing. It is
    recorded at its second use.

    Threads may share an object. All graphs work in the same memory, so a lock lets one thread at a
    time launch the copy of its input, the replay, and the copy of the output. The next thread may
    have another stream, which then waits for an event, as the device may still be busy. Graphs for
    each thread would need no lock, but memory for each thread, and a recording of each shape in
    each.

    A copy, also by `pickle`, has no graphs, because these belong to the weights of the original.

    Args:
        function: it returns one tensor, launches the same kernels for the same shape, and reads no
            values on the host. It belongs to no object, because graphs must not keep the network
            alive.
        parts: names of the modules of the network whose weights the function reads. When one of
            these has changed, all graphs are discarded, because the tables that are made from it
            must be made again.
        required: raise an error where a graph cannot be recorded. Otherwise the reason is logged,
            and the function runs eagerly from then on.

    Attributes:
        required: as it was given.
        failed: whether a graph could not be recorded, so that none is used.
    """

    def __init__(
        self,
        function: Callable[[N, Tensor], Tensor],
        parts: Sequence[str],
        required: bool = False,
    ) -> None:
        self._function = function
        self._parts = parts
        self.required = required
        self.failed = False
        self._lock = threading.Lock()
        self._captures: dict[tuple[object, ...], Capture] = {}
        self._used_once: dict[tuple[object, ...], None] = {}
        self._weights: WeightState | None = None
        self._pool: Any = None
        self._replayed: Any = None

    def __reduce__(self) -> tuple[object, ...]:
        return GraphedFunction, (self._function, self._parts, self.required)

    def __call__(self, network: N, x: Tensor) -> Tensor:
        """Return a new tensor with the result of the function.

        Raises:
            BackendError: if graphs are required, and the function cannot be recorded.
        """
        if not self.failed:
            # A graph goes on launching the kernels that were in force when it was recorded.
            key = (x.shape, x.dtype, registry.kernels_in_force())
            with self._lock:
                if captured := self._capture_for(key, network, x):
                    return self._replay(captured, x)
        return self._function(network, x)

    def _capture_for(self, key: tuple[object, ...], network: N, x: Tensor) -> Capture | None:
        """Return the graph for an input, or None where the function is to run eagerly."""
        parts = [getattr(network, part) for part in self._parts]
        if self._weights is None or not self._weights.holds(*parts):
            self._discard(len(self._captures))
            self._used_once.clear()  # weights that change at every call are never recorded
            self._weights = WeightState(*parts)
        captured = self._captures.pop(key, None)
        if captured is None and key not in self._used_once:
            if len(self._used_once) >= MOST_SHAPES:
                self._used_once.clear()
            self._used_once[key] = None
            return None
        try:
            captured = captured or self._record(network, x)
        except RuntimeError as error:
            said = str(error).partition("\n")[0]  # CUDA's advice follows
            reason = f"this pass cannot be recorded as a CUDA graph ({said})"
            if self.required:
                raise BackendError(
                    f"{reason}: switch graphs off with codec.use_graphs(False)"
                ) from error
            self.failed = True
            self._discard(len(self._captures))
            logger.warning("melcap: %s: it runs without graphs from now on", reason)
            return None
        self._used_once.pop(key, None)
        self._captures[key] = captured  # the most recently used are last
        return captured

    def _record(self, network: N, x: Tensor) -> Capture:
        self._discard(len(self._captures) + 1 - MOST_GRAPHS)
        if not self._captures:
            self._pool = torch.cuda.graph_pool_handle()
            self._replayed = torch.cuda.Event()
        with _recording:
            return capture(partial(self._function, network), x, self._pool)

    def _replay(self, captured: Capture, x: Tensor) -> Tensor:
        stream = torch.cuda.current_stream(x.device)
        stream.wait_event(self._replayed)
        captured.static_input.copy_(x)
        captured.replay()
        result = captured.static_output.clone()
        self._replayed.record(stream)
        return result

    def _discard(self, count: int) -> None:
        """Discard the least recently used graphs, once the device has finished with them."""
        if count > 0:
            self._replayed.synchronize()
        for _ in range(count):
            del self._captures[next(iter(self._captures))]


@torch.inference_mode(False)
@torch.no_grad()
def capture(function: Callable[[Tensor], Tensor], x: Tensor, pool: Any) -> Capture:
    """Record a function as a graph that reads a copy of `x`.

    Graphs may share a memory pool if the result of each is copied before the next one is replayed.
    """
    with torch.cuda.device(x.device):
        static_input = x.clone()
        side_stream = torch.cuda.Stream()
        side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side_stream):
            # Kernels are compiled, and tables of weights are made, outside of the graph.
            function(static_input)
        torch.cuda.current_stream().wait_stream(side_stream)
        graph = torch.cuda.CUDAGraph()
        # In the default mode, "global", calls that cannot be recorded are errors in every thread. A
        # data loader that allocates or pins memory meanwhile would fail, or make this fail.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            static_output = function(static_input)
    return Capture(static_input, static_output, graph.replay)
