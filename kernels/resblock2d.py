"""resblock2d on Triton, in three launches: a norm into halves, and two convolutions.

Between the convolutions there are only halves. The first convolution writes them, behind the second
norm, which it can compute because a program has all channels of its positions. For each number of
the widest tensors of the tokenizer, the norm reads and writes 4 bytes, and so does the first
convolution; the second reads 4, reads 4 of the residual and writes 4: 28 bytes in all. A chain of
norms, activations, convolutions, biases and the residual moves 76. The kernels and their error
bounds are those of `conv2d`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.ops.registry import Implementation, Tolerance, register
from melcap.ops.resblock2d import Parameters, centre

from .conv2d import (
    halves_of,
    layer_of,
    matrix_of,
    norm_table,
    reasons_against,
    tiling_of,
)
from .conv2d.launches import Halves, placed, plan_conv2d
from .conv2d.sizes import MOST_NORMED, width_of
from .launch import Launch, run


def resblock2d(x: Tensor, *parameters: Tensor) -> Tensor:
    """Compute `melcap.ops.resblock2d`: float32 on float16 halves."""
    p = Parameters(*parameters)
    skip = placed(centre(x, p))
    clips, channels, rows, steps = skip.shape
    out = x.new_empty((clips, rows, steps, channels))
    if not out.numel():
        return out.movedim(-1, 1)
    norm1, norm2 = (p.norm1_weight, p.norm1_bias), (p.norm2_weight, p.norm2_bias)
    given = halves_of(x, norm_table(*norm1), norm1, "silu", 0)
    first, second = (
        layer_of(weight, [1, 1], [weight.shape[2] // 2, 0], False, True)
        for weight in (p.conv1_weight, p.conv2_weight)
    )
    between = steps + p.conv2_weight.shape[3] - 1
    hidden = Halves.empty(clips, rows, between, first.columns, norm_table(*norm2))
    run(
        plan_conv2d(
            first,
            given,
            matrix_of(first, p.conv1_weight),
            hidden,
            tiling_of(first, x.device),
            bias=p.conv1_bias.contiguous(),
            norm=[vector.contiguous() for vector in norm2],
            activation="silu",
        )
    )
    run(
        plan_conv2d(
            second,
            hidden,
            matrix_of(second, p.conv2_weight),
            out,
            tiling_of(second, x.device),
            bias=p.conv2_bias.contiguous(),
            residual=skip,
        )
    )
    return out.movedim(-1, 1)


def unsupported(x: Tensor, *parameters: Tensor) -> list[str]:
    """Return why the kernels cannot run on these arguments; [] if they can."""
    reasons = reasons_against(x, *parameters)
    channels, hidden = x.shape[1], len(Parameters(*parameters).conv1_weight)
    if max(channels, hidden) > MOST_NORMED:
        most = max(channels, hidden)
        reasons.append(f"at most {MOST_NORMED} channels fit into a program, not {most}")
    positions, widest = x.shape[2] * x.shape[3], width_of(max(channels, hidden))
    if positions * widest >= 2**31:
        reasons.append(f"a clip may have {(2**31 - 1) // widest} positions, not {positions}")
    return reasons


def shipped() -> dict[str, Launch]:
    """Return no launches: all of them are among those of `conv2d`."""
    return {}


register(
    "resblock2d",
    "triton",
    Implementation(resblock2d, {torch.float32: Tolerance(atol=2e-5, rtol=2e-5)}, unsupported),
)
