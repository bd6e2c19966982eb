"""CUDA graphs: all launches of a pass at once, where a short clip would wait for each of them.

A launch costs the host some microseconds whatever it computes. A function of fixed shapes is
recorded once and then replayed as a whole.
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
"""Passes before the recording: kernels are compiled, and tables of weights made, outside of it."""


@dataclass(frozen=True)
class Recording:
    """What `replay` reads (`given`) and writes (`made`); both keep their place in memory."""

    given: Tensor
    made: Tensor
    replay: Callable[[], None]


class Graphs:
    """Calls `function` [one tensor to one tensor] by replaying a graph for each shape and dtype.

    Args:
        function: of fixed launches for a fixed shape, without a look at values on the host.
        watched: the tensors that the function reads beside its argument; recordings are thrown
            away when one has changed or lies elsewhere, since tables are made from them anew then.
        most: graphs that are kept; the one that was not used for the longest time goes first.

    The function is called as it is where the `triton` backend does not run it: the reference looks
    at values. Not for several threads at a time.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], watched: Iterable[Tensor], most: int = 32
    ) -> None:
        self._function = function
        self._watched = [tensor for tensor in watched if not tensor.is_inference()]
        self._most = most
        self._recordings: dict[tuple[object, ...], Recording] = {}
        self._pool: Any = None
        self._state = self._versions()

    def __call__(self, x: Tensor) -> Tensor:
        """As the function does; the result is the caller's own.

        Raises `BackendError` where the function cannot be recorded.
        """
        if registry.choose(x.device.type) != "triton":
            return self._function(x)
        if (state := self._versions()) != self._state:
            self._recordings.clear()
            self._state = state
        key = (tuple(x.shape), x.dtype)
        recording = self._recordings.pop(key, None) or self._record(x)
        self._recordings[key] = recording  # the last used stand last
        recording.given.copy_(x)
        recording.replay()
        return recording.made.clone()

    def _versions(self) -> list[tuple[int, int]]:
        return [(tensor._version, tensor.data_ptr()) for tensor in self._watched]

    def _record(self, x: Tensor) -> Recording:
        while len(self._recordings) >= self._most:
            del self._recordings[next(iter(self._recordings))]
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            return record(self._function, x, self._pool)
        except RuntimeError as error:
            raise BackendError(
                f"this pass cannot be recorded as a CUDA graph ({error}): "
                "switch graphs off with codec.use_graphs(False)"
            ) from error


@torch.inference_mode(False)
@torch.no_grad()
def record(function: Callable[[Tensor], Tensor], x: Tensor, pool: Any) -> Recording:
    """Record `function` on a copy of x. Graphs may share a pool if what they made is copied away
    before the next one is replayed."""
    with torch.cuda.device(x.device):
        given = x.clone()
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARMUP):
                function(given)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # The default mode, "global", forbids every thread the calls that a recording cannot hold:
        # a loader that allocates or pins memory in the meantime would break it, or fail itself.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            made = function(given)
    return Recording(given, made, graph.replay)
