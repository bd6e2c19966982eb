"""Count the floating-point operations of a piece of the codec, two for each multiply-add.

Convolutions and matrix products are counted by PyTorch's counter, the operations of melcap by the
formulas that they register, and FFTs of n real numbers as 2.5 n log2 n. Work of a few operations
for each number (norms, activations, windows) is left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from melcap.ops.numerics import fft_flops
from melcap.ops.products import has_onednn
from melcap.ops.registry import OPERATIONS

Result = TypeVar("Result")


def count(step: Callable[[Tensor], Result], x: Tensor) -> tuple[Counter[str], Result]:
    """Return the operations of `step(x)` by kind, and its result.

    On the meta device nothing is computed.
    """
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    with torch.no_grad(), torch.device(x.device), counter:
        y = step(x)
    kinds = counter.get_flop_counts().get("Global", {})
    return Counter({str(kind): int(number) for kind, number in kinds.items()}), y


def _inverse_fft(
    x: tuple[int, ...], dims: Any, norm: Any, last: int, *, out_shape: tuple[int, ...]
) -> int:
    return round(math.prod(x[:-1]) * fft_flops(last))


def _linear(
    x: tuple[int, ...], weight: tuple[int, ...], *_: Any, out_shape: tuple[int, ...]
) -> int:
    return 2 * math.prod(x) * weight[0]


def _attention(
    query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: Any, **__: Any
) -> int:
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


FORMULAS: dict[Any, Callable[..., int]] = {
    getattr(torch.ops.melcap, name): operation.flops
    for name, operation in OPERATIONS.items()
    if operation.flops is not None
}
FORMULAS[torch.ops.aten._fft_c2r] = _inverse_fft
# PyTorch's counter knows the fused attention of a GPU only.
FORMULAS[torch.ops.aten._scaled_dot_product_flash_attention_for_cpu] = _attention
if has_onednn():
    FORMULAS[torch.ops.mkldnn._linear_pointwise] = _linear
