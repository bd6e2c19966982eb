"""Describe one shape of one operation, with everything that is compared on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import melcap

Contenders = dict[str, Callable[[], Tensor]]


def with_tf32(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Return the call with products and convolutions that round to TF32, as no kernel of ours."""

    def run() -> Tensor:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
            before = torch.backends.cuda.matmul.allow_tf32
            torch.backends.cuda.matmul.allow_tf32 = True
            try:
                return call()
            finally:
                torch.backends.cuda.matmul.allow_tf32 = before

    return run


@dataclass
class Case:
    """One shape of one operation; `bytes` and `flops` are the fewest that the work needs."""

    operation: str
    name: str
    dtype: torch.dtype
    bytes: float
    flops: float
    units: str
    build: Callable[[], tuple[Any, ...]]
    call: Callable[..., Tensor]
    peers: Callable[..., Contenders]
    truth: Callable[..., Tensor]
    _arguments: tuple[Any, ...] = field(default=())

    def arguments(self) -> tuple[Any, ...]:
        """Return the arguments for the backends' implementations, made once, on the device."""
        self._arguments = self._arguments or self.build()
        return self._arguments

    def contenders(self) -> Contenders:
        """Return melcap on both backends, then the peers."""
        torch.compiler.reset()  # torch.compile gives up after eight shapes of a function

        def on(backend: str) -> Callable[[], Tensor]:
            def run() -> Tensor:
                with melcap.use_backend(backend):
                    return self.call(*self.arguments())

            return run

        ours = {"melcap triton": on("triton"), "melcap torch": on("torch")}
        return ours | self.peers(*self.arguments())

    def expected(self) -> Tensor:
        """Return the result in float64."""
        return self.truth(*self.arguments())
