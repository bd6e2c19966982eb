"""Find out whether decoded files lie where their clips lie: their lengths and their lags."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from melcap.evaluation.measures.signals import Wave

LONGEST_LAG = 0.1
"""The longest lag that is looked for in either direction, in seconds."""
NOTABLE_LAG = 0.002
"""A median lag above so many seconds is worth a warning."""
AGREEMENT = {"lag": 0.001, "envelope_lag": 0.002}
"""Lags that agree lie within so many seconds of their median. A codec that makes up phases has no
lag of the wave, and one of the envelope."""
ENVELOPE = 0.02
"""The window over which loudness is taken for the envelope, in seconds."""
ROUNDING = 0.001
"""A difference in length of so many seconds may be the rounding of resamplers."""


def lags(reference: Wave, decoded: Wave, sample_rate: int) -> dict[str, float | None]:
    """Return the lag of a decoded wave ("lag") and that of its loudness ("envelope_lag").

    Args:
        reference: the original, [samples].
        decoded: the decoded audio, [samples], as long as the original.
        sample_rate: their rate in Hz.

    Returns:
        The lags as `lag_seconds` returns them.
    """
    first, second = (_envelope(wave, sample_rate) for wave in (reference, decoded))
    return {
        "lag": lag_seconds(reference, decoded, sample_rate),
        "envelope_lag": lag_seconds(first, second, sample_rate),
    }


def lag_seconds(reference: Wave, decoded: Wave, sample_rate: int) -> float | None:
    """Return the time by which one signal comes after another; it is negative for an early one.

    It is the peak of the cross-correlation's magnitude within `LONGEST_LAG`, so a signal with its
    sign turned has its lag too. Where the signals do not resemble each other, it is arbitrary.

    Args:
        reference: the original, [samples].
        decoded: the decoded audio, [samples], as long as the original.
        sample_rate: their rate in Hz.

    Returns:
        The lag in seconds, to a sample. None where one of the signals is silent.
    """
    if not (reference.any() and decoded.any()):
        return None
    most = min(round(LONGEST_LAG * sample_rate), len(reference) - 1)
    size = 1 << (len(reference) + most).bit_length()
    product = np.fft.rfft(reference, size).conj() * np.fft.rfft(decoded, size)
    correlation = np.abs(np.fft.irfft(product, size))
    around = np.concatenate((correlation[size - most :], correlation[: most + 1]))
    return (int(around.argmax()) - most) / sample_rate


@dataclass(frozen=True)
class Alignment:
    """The lengths and the lag of the files of a codec that somebody else ran.

    Attributes:
        clips: the number of clips.
        differing: the number of files that are longer or shorter than their clips.
        longest_difference: the largest difference in seconds.
        lag: the median lag in seconds: of the waves, or else of their envelopes, where at least
            half of the clips agree on one; None where they agree on neither.
    """

    clips: int
    differing: int
    longest_difference: float
    lag: float | None

    @classmethod
    def of(cls, rows: Iterable[dict[str, Any]]) -> Alignment:
        """Return the alignment over lines of scores.jsonl, of one codec."""
        rows = list(rows)
        differences = [abs(row["length_difference"]) for row in rows]
        return cls(
            clips=len(rows),
            differing=sum(difference > ROUNDING for difference in differences),
            longest_difference=max(differences, default=0.0),
            lag=_agreed(rows),
        )

    def note(self, name: str) -> str:
        """Return a sentence about the files of a codec of that name."""
        if self.differing:
            lengths = (
                f"{self.differing} of {self.clips} files differ from their clips in length, by at "
                f"most {1000 * self.longest_difference:.0f} ms, and are cut or padded with silence"
            )
        else:
            lengths = f"its {self.clips} files are as long as their clips"
        if self.lag is None:
            return f"{name}: {lengths}; its lag is not known, because the clips agree on none."
        return f"{name}: {lengths}; its lag is {1000 * self.lag:.1f} ms, the median over clips."

    def warning(self, name: str) -> str | None:
        """Return a sentence about a lag that spoils the figures, or None where there is none."""
        if self.lag is None or abs(self.lag) <= NOTABLE_LAG:
            return None
        way = "late" if self.lag > 0 else "early"
        return (
            f"{name} is {1000 * abs(self.lag):.1f} ms {way} (median over {self.clips} clips), and "
            "all measures compare what lies at the same time: shift its files and run again"
        )


def _agreed(rows: list[dict[str, Any]]) -> float | None:
    """Return the first kind of lag, as a median over clips, that at least half of them agree on."""
    for kind, near in AGREEMENT.items():
        found = [row[kind] for row in rows if row[kind] is not None]
        middle = median(found) if found else 0.0
        if found and 2 * sum(abs(lag - middle) <= near for lag in found) >= len(found):
            return middle
    return None


def _envelope(wave: Wave, sample_rate: int) -> Wave:
    """Return the loudness around each sample, without its mean, half a window late."""
    window = np.hanning(round(ENVELOPE * sample_rate) + 2)
    size = 1 << (len(wave) + len(window)).bit_length()
    spectrum = np.fft.rfft(np.square(wave, dtype=np.float64), size) * np.fft.rfft(window, size)
    loudness: Wave = np.sqrt(np.fft.irfft(spectrum, size)[: len(wave)].clip(min=0))
    return loudness - loudness.mean()
