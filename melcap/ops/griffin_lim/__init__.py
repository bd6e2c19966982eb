"""Griffin-Lim steps with momentum: `griffin_lim`.

`reference` has the definition, `portable` the form for other graph runtimes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.errors import InputError
from melcap.inputs import described
from melcap.ops.griffin_lim.inference import griffin_lim_inference
from melcap.ops.griffin_lim.reference import (
    LEAST_SHARE,
    QUIETEST_POWER,
    STEP,
    gain,
    griffin_lim_reference,
    inverse_window,
)
from melcap.ops.library import define_operation, wants_gradient
from melcap.ops.numerics import fft_flops, working_dtype
from melcap.ops.precision import without_autocast_for

__all__ = [
    "LEAST_SHARE",
    "QUIETEST_POWER",
    "STEP",
    "gain",
    "griffin_lim",
    "griffin_lim_reference",
    "inverse_window",
]


def griffin_lim(
    x: Tensor, n_fft: int, hop: int, *, momentum: float = 0.99, steps: int = 1
) -> Tensor:
    """Take Griffin-Lim steps on a wave in blocks of one hop, each with a frame's magnitudes.

    A step is an STFT, the replacement of its magnitudes by those wanted, and an inverse STFT
    (Griffin and Lim 1984). It starts from wave + momentum * (wave - wave one step before)
    (Perraudin, Balazs and Sondergaard 2013). A bin that is far below its wanted magnitude is scaled
    by a bounded factor, because its phase is mostly rounding. Where a gradient is wanted, the steps
    run in plain PyTorch, whatever the backend.

    Args:
        x: [batch, frames, 2 * hop + n_fft / 2 + 1], floating point. A frame holds `hop` samples of
            the wave, the same samples of the wave one step before, and the wanted magnitudes of
            the window whose middle is the middle of these samples less half a hop.
        n_fft: length of the periodic Hann window.
        hop: even; n_fft is a multiple of it, twice at least (four times for an exact inverse).
        momentum: 0 for none.
        steps: number of steps; each needs n_fft / hop - 1 frames on either side.

    Returns:
        [batch, frames - 2 * steps * (n_fft / hop - 1), 2 * hop + n_fft / 2 + 1]: the same layout
        for the frames that all steps reach; float32 (float64 for float64).

    Raises:
        InputError: if the sizes do not fit, or there are too few frames.

    Example:
        >>> import torch
        >>> from melcap.ops import griffin_lim
        >>> griffin_lim(torch.rand(1, 20, 2 * 256 + 513), 1024, 256, steps=2).shape
        torch.Size([1, 8, 1025])
    """
    if hop < 2 or hop % 2 or n_fft % hop or n_fft < 2 * hop:
        raise InputError(
            f"griffin_lim: hop must be even and n_fft a multiple of it, not {hop} and {n_fft}"
        )
    if x.ndim != 3 or not x.is_floating_point() or x.shape[2] != 2 * hop + n_fft // 2 + 1:
        raise InputError(
            "griffin_lim: x must be floating point [batch, frames, "
            f"{2 * hop + n_fft // 2 + 1}], not {described(x)}"
        )
    context = 2 * steps * (n_fft // hop - 1)
    if steps < 1 or x.shape[1] < context:
        raise InputError(
            f"griffin_lim: {steps} steps need {context} frames around those that come out, and "
            f"there are {x.shape[1]}"
        )
    if wants_gradient(x):
        with without_autocast_for(x):
            return griffin_lim_reference(x, n_fft, hop, momentum, steps)
    return torch.ops.melcap.griffin_lim(x, n_fft, hop, momentum, steps)


def _fake(x: Tensor, n_fft: int, hop: int, momentum: float, steps: int) -> Tensor:
    frames = x.shape[1] - 2 * steps * (n_fft // hop - 1)
    return x.new_empty((x.shape[0], frames, x.shape[2]), dtype=working_dtype(x))


def _flops(
    x: tuple[int, ...],
    n_fft: int,
    hop: int,
    momentum: float,
    steps: int,
    *,
    out_shape: tuple[int, ...],
) -> int:
    reach = n_fft // hop - 1
    frames = sum(x[1] - (2 * step - 1) * reach for step in range(1, steps + 1))
    return round(2 * x[0] * frames * fft_flops(n_fft))


define_operation(
    "griffin_lim(Tensor x, int n_fft, int hop, float momentum, int steps) -> Tensor",
    reference=griffin_lim_reference,
    inference=griffin_lim_inference,
    tolerance=STEP,
    fake=_fake,
    flops=_flops,
)
