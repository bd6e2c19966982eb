"""The distances of the MelCap paper (arXiv 2510.01903), as its published evaluation computes them.

They serve to compare with the paper alone. `spectral` has distances without their quirks. Each
takes (reference, decoded, sample_rate) as `metrics` describes, works at 44.1 kHz, and is nan for a
signal that is too short to be reflected at its ends. It is nan as well for signals of a lower rate:
above half that rate only the noise of resampling would be compared, and the floors let it count.
"""

from __future__ import annotations

import math

import torch

from melcap.evaluation.measures.signals import Wave, both_at
from melcap.evaluation.measures.spectral import magnitudes
from melcap.ops.log_mel import mel_filters

RATE = 44100

FILTER_RATE = 24000
"""The rate of the paper's mel filters, although its audio has 44.1 kHz. It is the default of the
loss that was taken over from Vocos. A filter for the frequency f is therefore centred at 1.84 f."""

MEL_FLOOR = 1e-7
STFT_FLOOR = 1e-5


def paper_mel(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Return the mean absolute difference of ln max(mel, 1e-7), with the mel of Vocos's loss.

    100 HTK filters without normalisation, laid out from 0 to 12 kHz for bins of 24000 / 1024 Hz and
    used on bins of 44100 / 1024 Hz; magnitudes, periodic Hann window of 1024, hop 256, frames
    centred on multiples of the hop, the signal reflected at its ends.
    """
    both = both_at(RATE, reference, decoded, sample_rate)
    if sample_rate < RATE or len(both[0]) <= 512:
        return math.nan
    filters = mel_filters(FILTER_RATE, 1024, 100, torch.float64, torch.device("cpu"))
    spectra = magnitudes(both, 1024, 256, 1024, pad_mode="reflect")
    original, copy = (filters.t() @ spectra).clamp(min=MEL_FLOOR).log()
    return float((original - copy).abs().mean())


def paper_stft(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Return the multi-scale STFT loss of audiotools and DAC with its defaults, of a whole clip.

    It is the sum over windows of 2048 and 512 samples, with a hop of a quarter, of two means of
    absolute differences: of log10 of max(magnitude, 1e-5)^2, and of the magnitudes. Windows are
    periodic Hann, frames are centred on multiples of the hop, and the signal is reflected at its
    ends.
    """
    both = both_at(RATE, reference, decoded, sample_rate)
    if sample_rate < RATE or len(both[0]) <= 1024:
        return math.nan
    total = 0.0
    for window in (2048, 512):
        spectra = magnitudes(both, window, window // 4, window, pad_mode="reflect")
        logs = spectra.clamp(min=STFT_FLOOR).square().log10()
        total += float((logs[0] - logs[1]).abs().mean() + (spectra[0] - spectra[1]).abs().mean())
    return total
