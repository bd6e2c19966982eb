"""Compute in true float32, regardless of autocast and of the process's precision settings."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import torch

logger = logging.getLogger("melcap")

SETTINGS: tuple[tuple[Any, str, object], ...] = (
    (torch.backends.cudnn.conv, "fp32_precision", "ieee"),  # type: ignore[attr-defined]
    (torch.backends.cuda.matmul, "fp32_precision", "ieee"),
    (torch.backends.mkldnn.conv, "fp32_precision", "ieee"),  # type: ignore[attr-defined]
    (torch.backends.mkldnn.matmul, "fp32_precision", "ieee"),  # type: ignore[attr-defined]
    # The algorithm that is fastest at the moment may round differently from the one before.
    (torch.backends.cudnn, "benchmark", False),
)
"""The settings of the process that change float32 results, as (object, attribute, exact value)."""

_AUTOCAST_DEVICES = ("cpu", "cuda", "xpu", "mps")
_lock = threading.Lock()
_open_blocks = 0
"""The number of `exact_float32` blocks that are open, in all threads."""
_values_before: list[object] = []
"""The settings before the first of the open blocks was entered."""
_thread_pool_is_lost = False
"""True in a forked process, in which the threads of torch's pool do not exist."""


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Compute in float32 inside the block: no autocast, no TF32, no bfloat16 products.

    By default cuDNN rounds the operands of convolutions to TF32, and tokens would differ from those
    of another machine. These settings belong to the process: while any thread is inside, all
    threads compute in this way, and the last thread that leaves restores the settings from before
    the first one entered. Autocast belongs to the thread.
    """
    with without_autocast():
        _enter()
        try:
            yield
        finally:
            _leave()


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """Switch autocast off inside the block, on every kind of device."""
    with contextlib.ExitStack() as stack:
        for kind in _AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def without_autocast_for(x: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
    """Return a context without autocast on the device of `x`, in a form that can be compiled."""
    known = torch.amp.is_autocast_available(x.device.type)  # the meta device has no autocast
    return torch.autocast(x.device.type if known else "cpu", enabled=False)


def _enter() -> None:
    global _open_blocks, _values_before
    _use_one_thread_after_fork()
    with _lock:
        if not _open_blocks:
            _values_before = [getattr(place, name) for place, name, _ in SETTINGS]
            for place, name, value in SETTINGS:
                setattr(place, name, value)
        _open_blocks += 1


def _leave() -> None:
    global _open_blocks
    with _lock:
        _open_blocks -= 1
        if not _open_blocks:
            for (place, name, _), value in zip(SETTINGS, _values_before, strict=True):
                setattr(place, name, value)


def _after_fork() -> None:
    """Forget the other threads of the parent, which do not exist in the child."""
    global _lock, _open_blocks, _thread_pool_is_lost
    _lock = threading.Lock()
    if _open_blocks:
        _open_blocks = 1
        _leave()
    _thread_pool_is_lost = True


def _use_one_thread_after_fork() -> None:
    """Compute with one thread in a forked process, where more would wait for ever.

    The threads of torch's pool do not survive a fork, but the pool still counts on them.
    """
    global _thread_pool_is_lost
    if _thread_pool_is_lost:
        _thread_pool_is_lost = False
        if torch.get_num_threads() > 1:
            torch.set_num_threads(1)
            logger.warning(
                "melcap: this process was forked from one that had loaded torch, whose threads do "
                "not survive a fork; it computes with 1 thread. Start processes with the method "
                "'spawn' to use more."
            )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
