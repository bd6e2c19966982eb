"""The Triton backend of melcap; imported by the registry alone, and only where it could run."""

from melcap.kernels import log_mel, nearest_code, upsample_conv1d

__all__ = ["log_mel", "nearest_code", "upsample_conv1d"]
