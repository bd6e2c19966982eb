"""The configuration of the front end."""

from __future__ import annotations

from dataclasses import dataclass

from melcap.config.fields import bounded, check_fields, require
from melcap.limits import MAX_RATE, MIN_RATE


@dataclass(frozen=True)
class MelSpec:
    """The log-mel front end: periodic Hann window, magnitude, HTK mel filters, natural log, affine.

    A frame is centred on its hop: frame t covers the `n_fft` samples around
    [t * hop, (t + 1) * hop). A value is (ln(max(mel, floor)) - mean) / std.

    Attributes:
        sample_rate: of the audio, in Hz.
        n_fft: samples of a window.
        hop: samples from one frame to the next.
        n_mels: mel bins, from 0 Hz to half the sample rate.
        floor: the smallest mel magnitude.
        mean: what is subtracted from the logarithm.
        std: what the difference is divided by.

    Raises:
        WeightsError: for a value of another type, or out of range.

    Example:
        >>> from melcap.config import MelSpec
        >>> MelSpec(sample_rate=16000, n_fft=512, hop=128).margin
        192
    """

    sample_rate: int = bounded(44100, MIN_RATE, MAX_RATE)
    n_fft: int = bounded(1024, 1, 2**14)
    hop: int = bounded(256, 1, 2**14)
    n_mels: int = bounded(96, 1, 2**10)
    floor: float = bounded(1e-3, 1e-30, 1e6)
    mean: float = bounded(-2.0, -1e6, 1e6)
    std: float = bounded(2.8, 1e-6, 1e6)

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            self.hop <= self.n_fft and (self.n_fft - self.hop) % 2 == 0,
            f"hop must be in 1..n_fft and n_fft - hop even, not {self.hop} and {self.n_fft}",
        )

    @property
    def margin(self) -> int:
        """Return how many samples a frame covers beyond its hop, on each side."""
        return (self.n_fft - self.hop) // 2
