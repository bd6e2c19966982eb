"""The codec's hot operations, each with a plain-PyTorch reference and a backend registry."""

from melcap.ops.functional import (
    channel_norm,
    convnext1d,
    griffin_lim,
    log_mel,
    nearest_code,
    upsample_conv1d,
)
from melcap.ops.registry import backend_report, get_backend, set_backend, use_backend

__all__ = [
    "backend_report",
    "channel_norm",
    "convnext1d",
    "get_backend",
    "griffin_lim",
    "log_mel",
    "nearest_code",
    "set_backend",
    "upsample_conv1d",
    "use_backend",
]
