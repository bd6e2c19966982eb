"""Every error that melcap raises on purpose; catch `MelcapError` for all of them."""

from __future__ import annotations


class MelcapError(Exception):
    """Base of the family. The message says what was wrong, where, and what to do."""


class InputError(MelcapError, ValueError):
    """An argument, array or tensor that the function cannot work with."""


class AudioFileError(MelcapError):
    """A file that cannot be read or written as audio."""


class ContainerError(MelcapError):
    """A `.melcap` file that is damaged, truncated, or not a `.melcap` file."""


class ModelMismatchError(ContainerError):
    """Tokens that were made with other weights than the ones at hand."""


class WeightsError(MelcapError):
    """Weights or a configuration that cannot be loaded."""


class BackendError(MelcapError, RuntimeError):
    """A backend that is unknown, or cannot run here; the message lists every reason."""


class OutputExistsError(MelcapError):
    """An output file that is already there, while overwriting was not asked for."""
