"""Keep the tables that kernels need of a weight for as long as the weight itself lives."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

_T = TypeVar("_T")

_tables: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def remembered(
    source: Tensor, kind: Hashable, build: Callable[[], _T], *others: Tensor | None
) -> _T:
    """Return the table that `build` made from `source`, made again when `source` has changed.

    The tables of a view, such as a weight with an axis more, are kept with the tensor that it is a
    view of. Changes through `.data` that keep the address are not noticed, because they leave the
    version as it is. A tensor that was made under `torch.inference_mode` has no version, so nothing
    is remembered for it.

    Args:
        source: the weight.
        kind: tells the tables of one weight apart; each operation has kinds of its own.
        build: computes the table, which must not refer to `source`: it would never be freed.
        others: tensors that the table is made from as well.
    """
    sources = [source, *(other for other in others if other is not None)]
    if any(tensor.is_inference() for tensor in sources):
        return build()
    if source._base is not None:
        kind = (kind, source.data_ptr(), source.shape, source.stride())
    state = [(t._version, t.data_ptr(), t.shape, t.stride()) for t in sources]
    kept = [tensor if tensor._base is None else tensor._base for tensor in sources]
    tables = _tables.setdefault(kept[0], {})
    if kind in tables:
        known_state, references, table = tables[kind]
        # A state is not enough to know others by: an address is given again once it is free.
        same = len(references) == len(kept) - 1 and all(
            reference() is tensor for reference, tensor in zip(references, kept[1:], strict=True)
        )
        if same and known_state == state:
            found: _T = table
            return found
    table = build()
    if source.is_cuda and not torch.cuda.is_current_stream_capturing():
        # Other streams may read the table from now on, and do not wait for this one.
        torch.cuda.current_stream(source.device).synchronize()
    tables[kind] = state, [TensorWeakRef(tensor) for tensor in kept[1:]], table
    return table
