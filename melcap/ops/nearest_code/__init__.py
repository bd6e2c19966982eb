"""Exact search for the nearest codebook entry: `nearest_code`.

`reference` has the search in plain PyTorch, `portable` the form for other graph runtimes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from melcap.errors import InputError
from melcap.inputs import described
from melcap.ops.library import define_operation
from melcap.ops.nearest_code.portable import nearest_code_portable
from melcap.ops.nearest_code.reference import TIE, nearest_code_reference
from melcap.ops.registry import Tolerance

__all__ = ["TIE", "nearest_code", "nearest_code_portable", "nearest_code_reference"]


def nearest_code(x: Tensor, codebook: Tensor) -> Tensor:
    """Return the index of the nearest codebook entry of each row, by Euclidean distance.

    The search is exact: the index is the lowest one whose distance is within 1e-6 (relative) of the
    smallest. It does not depend on the batch around a row, so equal vectors always get equal codes.
    A row that holds NaN has no nearest entry and gets the last index. No index is ever outside the
    codebook.

    Args:
        x: [rows, dim], floating point.
        codebook: [codes, dim], floating point and finite, on the same device.

    Returns:
        int32 [rows].

    Raises:
        InputError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> from melcap.ops import nearest_code
        >>> codebook = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
        >>> nearest_code(torch.tensor([[0.9, 0.8], [1.9, 0.1]]), codebook)
        tensor([1, 2], dtype=torch.int32)
    """
    if x.ndim != 2 or codebook.ndim != 2 or x.shape[1] != codebook.shape[1] or not len(codebook):
        raise InputError(
            f"nearest_code: x must be [rows, dim] and codebook [codes, dim] with one dim, "
            f"not {described(x)} and {described(codebook)}"
        )
    return torch.ops.melcap.nearest_code(x, codebook)


def _fake(x: Tensor, codebook: Tensor) -> Tensor:
    return x.new_empty((x.shape[0],), dtype=torch.int32)


def _flops(x: tuple[int, ...], codebook: tuple[int, ...], **_: Any) -> int:
    return 2 * x[0] * codebook[0] * codebook[1]


define_operation(
    "nearest_code(Tensor x, Tensor codebook) -> Tensor",
    reference=nearest_code_reference,
    tolerance=Tolerance(atol=0.0, rtol=TIE),
    fake=_fake,
    flops=_flops,
    portable=nearest_code_portable,
)
