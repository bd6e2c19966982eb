"""The Triton backend of melcap; imported by the registry alone, and only where it could run."""

from melcap.kernels import log_mel

OPERATIONS = ("log_mel",)
"""The modules that hold the kernels of an operation of that name."""

__all__ = ["OPERATIONS", "log_mel"]
