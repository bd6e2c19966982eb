"""The inverse STFT of spectra in polar form: `polar_istft`.

Vocoders that predict magnitudes and phases, as Vocos and iSTFTNet do, end in it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.errors import InputError
from melcap.inputs import described
from melcap.ops.library import define_operation, wants_gradient
from melcap.ops.numerics import fft_flops, working_dtype
from melcap.ops.precision import without_autocast_for
from melcap.ops.registry import Tolerance

TOLERANCE = Tolerance(atol=1e-6, rtol=1e-6)
"""The tolerance for magnitudes of about 1; the error grows with them."""


def polar_istft(x: Tensor, window: Tensor, hop: int, *, loudest: float) -> Tensor:
    """Return the sum of overlapping windows with given magnitudes and phases.

    Only blocks of `hop` samples that all windows cover are returned. The phases of bins 0 and
    n_fft / 2 count by their cosines, because these bins of a real wave have no imaginary part.
    Where a gradient is wanted, it runs in plain PyTorch, whatever the backend.

    Args:
        x: [batch, steps, n_fft + 2], floating point: for each window the natural logarithms of
            n_fft / 2 + 1 magnitudes, then as many phases in radians.
        window: [n_fft], the synthesis window.
        hop: samples from one window to the next; n_fft is a multiple of it, twice at least.
        loudest: the upper bound of the logarithms, which keeps the magnitudes finite.

    Returns:
        [batch, (steps - n_fft / hop + 1) * hop], float32 (float64 for float64).

    Raises:
        InputError: if the sizes do not fit, or there are too few steps.

    Example:
        >>> import torch
        >>> from melcap.ops import polar_istft
        >>> polar_istft(torch.zeros(1, 9, 1026), torch.hann_window(1024), 256, loudest=6.0).shape
        torch.Size([1, 1536])
    """
    if window.ndim != 1 or not window.is_floating_point() or len(window) % 2 or not len(window):
        raise InputError(
            f"polar_istft: window must be floating point [n_fft], even, not {described(window)}"
        )
    n_fft = len(window)
    if x.ndim != 3 or not x.is_floating_point() or x.shape[2] != n_fft + 2:
        raise InputError(
            f"polar_istft: x must be floating point [batch, steps, {n_fft + 2}], not {described(x)}"
        )
    if hop < 1 or n_fft % hop or n_fft < 2 * hop:
        raise InputError(
            f"polar_istft: n_fft must be a multiple of hop, twice at least, not {n_fft} and {hop}"
        )
    if x.shape[1] < n_fft // hop - 1:
        raise InputError(
            f"polar_istft: the sum of {n_fft // hop} windows needs at least {n_fft // hop - 1} "
            f"steps, and there are {x.shape[1]}"
        )
    if wants_gradient(x, window):
        with without_autocast_for(x):
            return polar_istft_reference(x, window, hop, loudest)
    return torch.ops.melcap.polar_istft(x, window, hop, loudest)


def polar_istft_reference(x: Tensor, window: Tensor, hop: int, loudest: float) -> Tensor:
    """Compute `polar_istft` in plain PyTorch."""
    dtype, n_fft = working_dtype(x), len(window)
    real, imaginary = cartesian(x.to(dtype), loudest)
    # The FFT of a CPU ignores these values. cuFFT adds them for some numbers of windows only.
    imaginary[..., :: n_fft // 2] = 0
    frames = torch.fft.irfft(torch.complex(real, imaginary), n_fft)
    return overlap_add(frames * window.to(dtype), hop)


def polar_istft_inference(x: Tensor, window: Tensor, hop: int, loudest: float) -> Tensor:
    """Compute `polar_istft` where no gradient is wanted, with fewer passes through memory."""
    dtype, n_fft = working_dtype(x), len(window)
    ln_magnitude, phase = x.to(dtype).chunk(2, dim=-1)
    magnitude = ln_magnitude.clamp(max=loudest).exp_()
    parts = magnitude.new_empty((*magnitude.shape, 2))
    torch.mul(magnitude, phase.cos(), out=parts[..., 0])
    torch.mul(magnitude, phase.sin(), out=parts[..., 1])
    parts[..., :: n_fft // 2, 1] = 0  # as in the reference
    frames = torch.fft.irfft(torch.view_as_complex(parts), n_fft)
    return overlap_add(frames.mul_(window.to(dtype)), hop)


def cartesian(x: Tensor, loudest: float) -> tuple[Tensor, Tensor]:
    """Return the real and the imaginary parts of the bins, [batch, steps, n_fft / 2 + 1]."""
    ln_magnitude, phase = x.chunk(2, dim=-1)
    magnitude = ln_magnitude.clamp(max=loudest).exp()
    return magnitude * phase.cos(), magnitude * phase.sin()


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Return the samples [batch, samples] that all windows [batch, steps, n_fft] cover."""
    overlap = frames.shape[2] // hop
    whole = frames.shape[1] - overlap + 1
    wave = torch.zeros_like(frames[:, :whole, :hop])
    for k, part in enumerate(frames.unflatten(-1, (overlap, hop)).unbind(2)):
        wave = wave + part[:, overlap - 1 - k :][:, :whole]
    return wave.flatten(1)


def _fake(x: Tensor, window: Tensor, hop: int, loudest: float) -> Tensor:
    samples = (x.shape[1] - len(window) // hop + 1) * hop
    return x.new_empty((x.shape[0], samples), dtype=working_dtype(x))


def _flops(
    x: tuple[int, ...],
    window: tuple[int, ...],
    hop: int,
    loudest: float,
    *,
    out_shape: tuple[int, ...],
) -> int:
    return round(x[0] * x[1] * fft_flops(window[0]))


define_operation(
    "polar_istft(Tensor x, Tensor window, int hop, float loudest) -> Tensor",
    reference=polar_istft_reference,
    inference=polar_istft_inference,
    tolerance=TOLERANCE,
    fake=_fake,
    flops=_flops,
)
