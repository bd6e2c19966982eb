"""What profiling/kernels.py measures: shapes, contenders, and the fewest bytes and FLOP of each."""

from __future__ import annotations

from collections.abc import Callable

from cases import (
    channel_norm,
    convnext1d,
    griffin_lim,
    log_mel,
    nearest_code,
    upsample_conv1d,
)
from cases.case import Case

CASES: dict[str, Callable[[], list[Case]]] = {
    "log_mel": log_mel.cases,
    "nearest_code": nearest_code.cases,
    "upsample_conv1d": upsample_conv1d.cases,
    "convnext1d": convnext1d.cases,
    "griffin_lim": griffin_lim.cases,
    "channel_norm": channel_norm.cases,
}

__all__ = ["CASES", "Case"]
