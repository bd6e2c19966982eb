"""Keep the tables that kernels need of a weight for as long as the weight itself lives."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_T = TypeVar("_T")

_tables: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def remembered(source: Tensor, kind: Hashable, build: Callable[[], _T]) -> _T:
    """Return the table that `build` made from `source`, made again when `source` has changed.

    Changes through `.data` that keep the address are not noticed, because they leave the version as
    it is. A tensor that was made under `torch.inference_mode` has no version, so nothing is
    remembered for it.

    Args:
        source: the weight.
        kind: tells the tables of one weight apart; each operation has kinds of its own.
        build: computes the table, which must not refer to `source`: it would never be freed.
    """
    if source.is_inference():
        return build()
    state = source._version, source.data_ptr()
    tables = _tables.setdefault(source, {})
    if kind not in tables or tables[kind][0] != state:
        tables[kind] = state, build()
    found: _T = tables[kind][1]
    return found
