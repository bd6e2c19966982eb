"""Take Griffin-Lim steps as the reference does, with fewer passes through memory.

Results are overwritten where the reference makes new ones, which a gradient would need. What does
not change from step to step is computed once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.ops.griffin_lim.reference import LEAST_SHARE, QUIETEST_POWER, inverse_window
from melcap.ops.numerics import hann_window, working_dtype


def griffin_lim_inference(x: Tensor, n_fft: int, hop: int, momentum: float, steps: int) -> Tensor:
    """Compute `melcap.ops.griffin_lim` where no gradient is wanted."""
    dtype, blocks = working_dtype(x), n_fft // hop
    window = hann_window(n_fft, dtype, x.device)
    inverse = inverse_window(n_fft, hop, dtype, x.device).view(blocks, hop)
    wave, before, magnitude = x.to(dtype).tensor_split((hop, 2 * hop), dim=2)
    wanted = magnitude[:, blocks // 2 :].contiguous()
    least = (wanted * wanted).mul_(LEAST_SHARE**2).add_(QUIETEST_POWER)
    reach = blocks - 1
    for step in range(steps):
        moved = torch.lerp(before, wave, 1 + momentum)
        spectrum = torch.fft.rfft(moved.flatten(1).unfold(1, n_fft, hop) * window)
        frames = slice(step * reach, step * reach + spectrum.shape[1])
        squares = torch.view_as_real(spectrum).square()
        # the formula of `gain`
        gain = squares[..., 0].add(squares[..., 1]).add_(least[:, frames]).rsqrt_()
        spectrum.mul_(gain.mul_(wanted[:, frames]))
        parts = torch.fft.irfft(spectrum, n_fft).unflatten(2, (blocks, hop))
        whole = parts.shape[1] - reach
        agreed = parts[:, :whole, reach] * inverse[reach]
        for k in range(1, blocks):
            agreed.addcmul_(parts[:, k : k + whole, reach - k], inverse[reach - k])
        wave, before = agreed, wave[:, reach:-reach]
    cut = steps * reach
    return torch.cat((wave, before, magnitude[:, cut : magnitude.shape[1] - cut]), dim=2)
