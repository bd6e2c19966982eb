"""float32 that is float32, whatever the process has set."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_SETTINGS = (
    torch.backends.cudnn.conv,  # type: ignore[attr-defined]
    torch.backends.cuda.matmul,
    torch.backends.mkldnn.conv,  # type: ignore[attr-defined]
    torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
)
_lock = threading.Lock()
_inside = 0
_before: list[str] = []
"""What was set when the first of the blocks that are open was entered, in any thread."""


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Convolutions and matrix products in float32 are not rounded to TF32 or bfloat16 inside.

    By default cuDNN's convolutions are, and tokens would differ from those of another machine. The
    settings belong to the process: while one thread is inside, all threads compute like that, and
    the last one out puts back what was set before the first.
    """
    global _inside
    with _lock:
        if not _inside:
            _set(["ieee"] * len(_SETTINGS))
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _set(_before)


def _set(precisions: list[str]) -> None:
    global _before
    _before = [setting.fp32_precision for setting in _SETTINGS]
    for setting, precision in zip(_SETTINGS, precisions, strict=True):
        setting.fp32_precision = precision
