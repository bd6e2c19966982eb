"""Modules that only an extra of the package brings."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from melcap.errors import MelcapError


def import_extra(module: str, otherwise: str = 'pip install "melcap[eval]"') -> ModuleType:
    """A module of the `eval` extra, or of another that `otherwise` says how to install.

    Raises `MelcapError` with what to do where it is missing.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MelcapError(f"{module} is needed here and not installed: {otherwise}") from error
