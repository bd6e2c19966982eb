"""Compute `griffin_lim` in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.ops.numerics import hann_window, kept, working_dtype
from melcap.ops.registry import Tolerance

QUIETEST_POWER = 1e-6
"""A bin far below this power is scaled by a bounded factor: a phase cannot be made from nothing."""

LEAST_SHARE = 0.03
"""A bin far below this share of its wanted magnitude is scaled by a bounded factor too.

Otherwise the step would amplify rounding errors into phase.
"""

STEP = Tolerance(atol=5e-6, rtol=5e-6)
"""The tolerance of one step, where bins have a phase.

Where they hardly have one, steps magnify the rounding errors in it.
"""


@kept
def inverse_window(n_fft: int, hop: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the synthesis window [n_fft]: Hann over the sum of squared Hann windows.

    That sum is constant for hops of a quarter of the window and less.
    """
    window = hann_window(n_fft, torch.float64, torch.device("cpu"))
    squares = window.view(-1, hop).square().sum(0).mean()
    return (window / squares).to(device=device, dtype=dtype)


def gain(power: Tensor, wanted: Tensor) -> Tensor:
    """Return the factor that gives bins of this power the wanted magnitude.

    The factor is bounded for bins whose phase is mostly rounding; see `LEAST_SHARE` and
    `QUIETEST_POWER`.
    """
    least = torch.addcmul(power, wanted, wanted, value=LEAST_SHARE**2) + QUIETEST_POWER
    return wanted * torch.rsqrt(least)


def griffin_lim_reference(x: Tensor, n_fft: int, hop: int, momentum: float, steps: int) -> Tensor:
    """Compute `melcap.ops.griffin_lim`."""
    dtype, blocks = working_dtype(x), n_fft // hop
    window = hann_window(n_fft, dtype, x.device)
    inverse = inverse_window(n_fft, hop, dtype, x.device).view(blocks, hop)
    wave, before, magnitude = x.to(dtype).tensor_split((hop, 2 * hop), dim=2)
    reach = blocks - 1
    for _ in range(steps):
        moved = torch.lerp(before, wave, 1 + momentum)
        windows = moved.flatten(1).unfold(1, n_fft, hop) * window
        spectrum = torch.fft.rfft(windows)
        # `abs` of complex numbers guards against overflow and takes twice the time.
        squares = torch.view_as_real(spectrum).square()
        wanted = magnitude[:, blocks // 2 :][:, : spectrum.shape[1]]
        spectrum = spectrum * gain(squares[..., 0] + squares[..., 1], wanted)
        parts = torch.fft.irfft(spectrum, n_fft).unflatten(2, (blocks, hop))
        whole = parts.shape[1] - reach
        agreed = parts[:, :whole, reach] * inverse[reach]
        for k in range(1, blocks):
            agreed.addcmul_(parts[:, k : k + whole, reach - k], inverse[reach - k])
        before, magnitude = wave[:, reach:-reach], magnitude[:, reach:-reach]
        wave = agreed
    return torch.cat((wave, before, magnitude), dim=2)
