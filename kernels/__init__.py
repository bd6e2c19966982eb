"""The Triton backend of melcap; imported by the registry alone, and only where it could run."""

from melcap.kernels import (
    channel_norm,
    convnext1d,
    griffin_lim,
    log_mel,
    nearest_code,
    upsample_conv1d,
)

OPERATIONS = (
    *("log_mel", "nearest_code", "upsample_conv1d", "convnext1d", "griffin_lim", "channel_norm"),
)
"""The modules that hold the kernels of an operation of that name."""

__all__ = [
    "OPERATIONS",
    "channel_norm",
    "convnext1d",
    "griffin_lim",
    "log_mel",
    "nearest_code",
    "upsample_conv1d",
]
