"""Measure each operation on these cases: shapes, contenders, the fewest bytes and FLOP of each.

The cases of an operation are in the module of its name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from cases.case import Case
from melcap.ops.registry import OPERATIONS

CASES: dict[str, Callable[[], list[Case]]] = {
    name: importlib.import_module(f"cases.{name}").cases for name in OPERATIONS
}

__all__ = ["CASES", "Case"]
