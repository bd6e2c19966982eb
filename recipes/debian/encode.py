"""Encoded clips: their parts are read, joined, levelled, and written as FLAC or Ogg Opus."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from melcap.io.files import replacing
from melcap.io.resample import resample
from melcap.training.audio_cache import SAMPLE_RATE
from recipes.debian.apt import FetchError
from recipes.debian.clips import GAP, Clip, Part
from recipes.debian.probe import FloatArray, bandwidth, mono, opened, spectrum

_OPUS_RATE, _OPUS_BITS = 48_000, 96_000
_FADE = SAMPLE_RATE // 200
_NOTHING: FloatArray = np.zeros(0, np.float32)
# Peaks above the first are lowered to it, because a lossy coder overshoots. Peaks below the second
# are raised to the third, because noise of 16 bits would be audible.
_LOUD, _QUIET, _RAISED = 0.95, 0.1, 0.3


@dataclass(frozen=True)
class Made:
    """The length of an encoded clip in seconds, and where its spectrum ends at -60 dB, in Hz."""

    seconds: float
    bandwidth: int


def make(clips: Sequence[tuple[Clip, Path]]) -> int:
    """Write clips to their paths unless they are there, and return their number.

    The clips come from one file, or are one clip from many files. A clip appears whole, after a
    .json of the same name with its `Made`. The bytes depend only on the sources.

    Raises:
        AudioFileError: For a source that cannot be read any more.
        FetchError: For a source that has changed since it was probed.
    """
    todo = [(clip, target) for clip, target in clips if not target.exists()]
    if not todo:
        return len(clips)
    waves = _read([part for clip, _ in todo for part in clip.parts])
    for clip, target in todo:
        words = [_levelled(_faded(wave)) for wave in itertools.islice(waves, len(clip.parts))]
        gap = np.zeros(GAP, np.float32)
        pieces = [piece for word in words for piece in (gap, word)][1:]
        wave = np.concatenate(pieces)
        data = _flac(wave) if target.suffix == ".flac" else _opus(wave)
        half = max(part.facts.rate for part in clip.parts) // 2
        width = min(bandwidth(spectrum(wave), SAMPLE_RATE), half)
        note = json.dumps(asdict(Made(clip.seconds, width)))
        for path, content in ((target.with_suffix(".json"), note.encode()), (target, data)):
            with replacing(path) as partial:
                partial.write_bytes(content)
    return len(clips)


def made(target: Path) -> Made:
    """Return what `make` wrote beside a clip."""
    return Made(**json.loads(target.with_suffix(".json").read_text()))


def _read(parts: Sequence[Part]) -> Iterator[FloatArray]:
    """Yield each part as float32 [n] at 44.1 kHz; parts of one file are in the order of time."""
    for path, run in itertools.groupby(parts, key=lambda part: part.audio.path):
        wanted = list(run)
        facts = wanted[0].facts
        with opened(path) as (_, _, blocks):
            waves = _spans(
                (mono(block, facts.left) for block in blocks),
                [span for part in wanted for span in part.spans],
            )
            for part in wanted:
                whole = np.concatenate([*itertools.islice(waves, len(part.spans))])
                yield resample(whole[None], facts.rate, SAMPLE_RATE)[0]


def _spans(blocks: Iterator[FloatArray], spans: Sequence[tuple[int, int]]) -> Iterator[FloatArray]:
    """Yield the samples of each span [start, stop); spans are in order and do not overlap."""
    held, begin = _NOTHING, 0
    for start, stop in spans:
        pieces = []
        while True:
            pieces.append(held[max(0, start - begin) : max(0, stop - begin)])
            if begin + len(held) >= stop:
                break
            begin += len(held)
            held = next(blocks, _NOTHING)
            if not len(held):
                raise FetchError("a file became shorter while it was read; run the command again")
        yield np.concatenate(pieces)


def _faded(wave: FloatArray) -> FloatArray:
    """Return the wave with 5 ms of fade at both ends, so that cuts do not click."""
    length = min(len(wave) // 2, _FADE)
    ramp = np.linspace(0, 1, length, dtype=np.float32)
    wave = wave.copy()
    wave[:length] *= ramp
    wave[len(wave) - length :] *= ramp[::-1]
    return wave


def _levelled(wave: FloatArray) -> FloatArray:
    """Return the wave with its peak lowered or raised where it is too loud or too quiet."""
    peak = float(np.abs(wave).max())
    if peak > _LOUD:
        return wave * np.float32(_LOUD / peak)
    return wave * np.float32(_RAISED / max(peak, 1e-6)) if peak < _QUIET else wave


def _flac(wave: FloatArray) -> bytes:
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, wave, SAMPLE_RATE, "PCM_16", format="FLAC")
    return out.getvalue()


def _opus(wave: FloatArray) -> bytes:
    import av

    out = io.BytesIO()
    # Bit-exact: without a serial number from the clock and the version of the library.
    options = {"fflags": "+bitexact"}
    with av.open(out, "w", format="ogg", container_options=options) as container:
        stream = container.add_stream("libopus", rate=_OPUS_RATE, layout="mono")
        stream.bit_rate = _OPUS_BITS
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        samples = resample(wave[None], SAMPLE_RATE, _OPUS_RATE)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "flt", "mono")
        frame.sample_rate = _OPUS_RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return out.getvalue()
