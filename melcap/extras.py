"""Imports of modules that only an optional extra of the package installs."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from melcap.errors import MelcapError


def import_extra(module: str, otherwise: str = 'pip install "melcap[eval]"') -> ModuleType:
    """Return an optional module.

    Args:
        module: its name.
        otherwise: how to install it; by default, with the `eval` extra.

    Raises:
        MelcapError: where the module is missing; it says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MelcapError(f"{module} is needed here and not installed: {otherwise}") from error
