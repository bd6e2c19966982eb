"""Facts about an audio file, from decoding it once: length, bandwidth, loudness, silences."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melcap.audio import AudioReader
from melcap.errors import MelcapError
from recipes.debian.unpack import RAW_SUFFIXES

FloatArray = npt.NDArray[np.float32]
Span = tuple[int, int]
"""From one sample to before another, at the rate of the file."""

FRAMES_PER_SECOND = 50
"""The frames whose level decides whether the file sounds."""
_FRAMES_PER_BLOCK = 500
_WINDOW = 2048
FULL_SCALE = 0.999
"""The least amplitude that counts as clipped."""
# A frame is silent if it is so many dB below the loudest, or below so many dB.
_SILENCE, _SILENT = -50.0, -75.0
# Frames that are kept of a silence inside the file, before its first sound and after its last.
_PAUSE, _BEFORE, _AFTER = 20, 2, 3


@dataclass(frozen=True)
class Facts:
    """The facts that decoding a file gives.

    Attributes:
        error: Why it cannot be decoded; then the other facts have no meaning.
        rate: The sample rate in Hz.
        channels: The number of channels.
        samples: The samples per channel.
        peak: The largest amplitude after mixing to mono.
        clipped: The share of samples at full scale after mixing to mono.
        bandwidth: Where the spectrum ends at -60 dB, in Hz.
        left: Whether the first channel is used alone, because the channels cancel each other.
        digest: A digest of the mono samples at 16 bits.
        spans: Where it sounds.
    """

    error: str = ""
    rate: int = 0
    channels: int = 0
    samples: int = 0
    peak: float = 0.0
    clipped: float = 0.0
    bandwidth: int = 0
    left: bool = False
    digest: str = ""
    spans: tuple[Span, ...] = field(default=())

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.samples / self.rate if self.rate else 0.0

    @classmethod
    def of(cls, values: dict[str, Any]) -> Facts:
        """Return the facts from the result of `dataclasses.asdict` that went through JSON."""
        spans = tuple((start, stop) for start, stop in values.pop("spans"))
        return cls(**values, spans=spans)


def probe(path: Path) -> Facts:
    """Decode a file from start to end and return its facts, or only `error` if that fails."""
    try:
        facts, cancels = _measure(path, left=False)
        return _measure(path, left=True)[0] if cancels else facts
    except (MelcapError, OSError, RuntimeError, ValueError) as error:
        return Facts(error=str(error).replace(str(path), path.name))


@contextmanager
def opened(path: Path) -> Iterator[tuple[int, int, Iterator[FloatArray]]]:
    """Open a file and yield its rate in Hz, its channels, and its samples in blocks.

    Blocks are float32 [channels, n], of whole frames of 1/50 s except the last.

    Raises:
        AudioFileError: For a file that cannot be read.
    """
    if path.suffix.lower() in RAW_SUFFIXES:
        rate, wave = _read_raw(path)
        size = _block_size(rate)
        yield rate, 1, (wave[None, start : start + size] for start in range(0, len(wave), size))
        return
    with AudioReader(path) as reader:
        blocks = reader.blocks(_block_size(reader.sample_rate))
        yield reader.sample_rate, reader.channels, blocks


def mono(block: FloatArray, left: bool) -> FloatArray:
    """Return [n] from [channels, n]: the mean of the channels, or the first one."""
    return block[0] if left else block.mean(axis=0, dtype=np.float32)


def bandwidth(power: npt.NDArray[np.float64], rate: int) -> int:
    """Return the Hz up to which a power spectrum is within 60 dB of its peak.

    Args:
        power: The spectrum [window / 2 + 1]. It is smoothed over nine bins.
        rate: The sample rate in Hz.
    """
    decibels = 10 * np.log10(power + 1e-20)
    smooth = np.convolve(decibels, np.ones(9) / 9, "same")
    # At the ends "same" averages with zeros, that is 0 dB, louder than any spectrum here.
    smooth[:4], smooth[-4:] = decibels[:4], decibels[-4:]
    top = int(np.flatnonzero(smooth > smooth.max() - 60)[-1])
    return min(top * rate // (2 * (len(power) - 1)), rate // 2)


def spectrum(wave: FloatArray) -> npt.NDArray[np.float64]:
    """Return the power [1025] of a wave [n], summed over adjacent Hann windows of 2048 samples."""
    if len(wave) < _WINDOW:
        wave = np.pad(wave, (0, _WINDOW - len(wave)))
    windows = wave[: len(wave) // _WINDOW * _WINDOW].reshape(-1, _WINDOW)
    bins = np.fft.rfft(windows * np.hanning(_WINDOW).astype(np.float32), axis=1)
    power: npt.NDArray[np.float64] = (np.abs(bins) ** 2).sum(axis=0, dtype=np.float64)
    return power


def sounding(levels: npt.NDArray[np.float32]) -> list[Span]:
    """Return the spans of frames that sound, given the levels of frames in dB.

    Silence at the ends is left out, except for two or three frames, and silence inside shrinks to
    0.4 s.
    """
    on = np.flatnonzero(levels > max(float(levels.max(initial=-np.inf)) + _SILENCE, _SILENT))
    if not len(on):
        return []
    start = max(0, int(on[0]) - _BEFORE)
    spans = []
    for before, after in zip(on[:-1].tolist(), on[1:].tolist(), strict=True):
        if after - before - 1 > _PAUSE:
            spans.append((start, before + 1 + _PAUSE))
            start = after
    spans.append((start, min(len(levels), int(on[-1]) + 1 + _AFTER)))
    return spans


def _measure(path: Path, left: bool) -> tuple[Facts, bool]:
    """Return the facts, and whether mixing to mono cancels most of the sound."""
    digest, power = hashlib.sha256(), np.zeros(_WINDOW // 2 + 1)
    squares: list[npt.NDArray[np.float32]] = []
    samples = at_full_scale = 0
    peak = mixed = apart = 0.0
    with opened(path) as (rate, channels, blocks):
        frame = _frame_size(rate)
        for block in blocks:
            wave = mono(block, left)
            samples += len(wave)
            loud = np.abs(wave)
            peak = max(peak, float(loud.max()))
            at_full_scale += int(np.count_nonzero(loud >= FULL_SCALE))
            power += spectrum(wave)
            digest.update(np.rint(np.clip(wave, -1, 1) * 32767).astype("<i2").tobytes())
            ends = np.arange(0, len(wave), frame)
            counts = np.diff(np.append(ends, len(wave)))
            squares.append((np.add.reduceat(wave * wave, ends) / counts).astype(np.float32))
            mixed += float(np.square(wave, dtype=np.float64).sum())
            apart += float(np.square(block, dtype=np.float64).mean(axis=0).sum())
    levels = 10 * np.log10(np.concatenate(squares) + np.float32(1e-10))
    spans = tuple((first * frame, min(last * frame, samples)) for first, last in sounding(levels))
    facts = Facts(
        rate=rate,
        channels=channels,
        samples=samples,
        peak=peak,
        clipped=at_full_scale / samples,
        bandwidth=bandwidth(power, rate),
        left=left,
        digest=f"{rate}-{digest.hexdigest()}",
        spans=spans,
    )
    return facts, mixed < 0.1 * apart


def _frame_size(rate: int) -> int:
    return max(1, rate // FRAMES_PER_SECOND)


def _block_size(rate: int) -> int:
    return _frame_size(rate) * _FRAMES_PER_BLOCK


def _read_raw(path: Path) -> tuple[int, FloatArray]:
    """Return the rate in Hz and float32 [samples] of a headerless file: G.722 or 16-bit PCM."""
    import av

    suffix = path.suffix.lower()
    if suffix != ".g722":
        whole = np.frombuffer(path.read_bytes()[: path.stat().st_size // 2 * 2], "<i2")
    else:
        with av.open(str(path), format="g722") as container:
            frames: Sequence[Any] = [*container.decode(audio=0)]
            whole = np.concatenate([frame.to_ndarray()[0] for frame in frames] or [np.empty(0)])
    if not len(whole):
        raise ValueError(f"{path} holds no audio samples")
    return RAW_SUFFIXES[suffix], whole.astype(np.float32) / np.float32(32768)
