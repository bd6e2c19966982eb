"""Every error that melcap raises on purpose; catch `MelcapError` for all of them.

Example:
    >>> import melcap
    >>> from melcap.errors import MelcapError
    >>> try:
    ...     melcap.load("missing.safetensors")
    ... except MelcapError as error:
    ...     print(error)
    missing.safetensors: cannot read the weights: No such file or directory
"""

from __future__ import annotations


class MelcapError(Exception):
    """The base of all errors. The message says what was wrong, where, and what to do."""


class InputError(MelcapError, ValueError):
    """The error for an argument, array or tensor that the function cannot use."""


class AudioFileError(MelcapError):
    """The error for a file that cannot be read or written as audio."""


class ContainerError(MelcapError):
    """The error for a file of tokens that is damaged, truncated, or of another format."""


class ModelMismatchError(ContainerError):
    """The error for tokens, or a decoder, of another tokenizer than that of the codec."""


class WeightsError(MelcapError):
    """The error for weights or a configuration that cannot be read or written."""


class BackendError(MelcapError, RuntimeError):
    """The error for a backend that is unknown or cannot run here, or for a failed CUDA graph."""


class OutputExistsError(MelcapError):
    """The error for an output file that exists and that may not be overwritten."""
