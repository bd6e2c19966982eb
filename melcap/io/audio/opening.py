"""Decoders for a file: libsndfile or FFmpeg for each recording, and several recordings as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from melcap.io.audio.errors import audio_error
from melcap.io.audio.ffmpeg import FfmpegSource
from melcap.io.audio.formats.detect import scan
from melcap.io.audio.input_file import AudioInput
from melcap.io.audio.libsndfile import LibsndfileSource
from melcap.io.audio.recording import Recording
from melcap.io.audio.source import Source, checked_blocks, reblocked
from melcap.io.resample import FloatArray


def open_source(file: AudioInput) -> Source:
    """Return a decoder for all recordings of a file.

    Raises:
        AudioFileError: For a file that is no audio, and for one that is cut or damaged as far as
            that shows without decoding.
    """
    recordings = scan(file)
    if len(recordings) == 1:
        return _open_recording(file, recordings[0])
    return JoinedSource(file, recordings)


def _open_recording(file: AudioInput, recording: Recording) -> Source:
    """Return libsndfile's decoder where it reads the whole recording, else FFmpeg's."""
    if recording.sndfile:
        try:
            source = LibsndfileSource(file, recording)
        except (RuntimeError, TypeError):  # TypeError: soundfile takes .raw for headerless sound
            return FfmpegSource(file, recording)
        declared = (recording.samples or 0) - recording.slack
        if source.frames is None or declared <= source.frames:
            return source
        source.close()
    return FfmpegSource(file, recording)


class JoinedSource:
    """Several recordings in one file, read one after the other as one."""

    def __init__(self, file: AudioInput, recordings: Sequence[Recording]) -> None:
        self._file = file
        self._recordings = recordings
        self._open = _open_recording(file, recordings[0])
        self.sample_rate = self._open.sample_rate
        self.channels = self._open.channels
        lengths = [self._open.samples, *(recording.samples for recording in recordings[1:])]
        known = [length for length in lengths if length is not None]
        self.samples = sum(known) if len(known) == len(recordings) else None
        self.at_least = 0.0  # each recording is checked by itself
        self.limit: int | None = None
        self.spare = 0

    def skip(self, samples: int) -> int:
        """Skip nothing and return 0: all recordings are decoded from the start."""
        return 0

    def blocks(self, size: int) -> Iterator[FloatArray]:
        """Yield float32 [channels, size], the last one shorter.

        Raises:
            AudioFileError: Where a recording has another sample rate or number of channels.
        """
        return reblocked(self._pieces(size), self.channels, size)

    def _pieces(self, size: int) -> Iterator[FloatArray]:
        done = 0
        for number, recording in enumerate(self._recordings):
            if number:
                self._open.close()
                self._open = _open_recording(self._file, recording)
            self._require_same(done)
            for block in checked_blocks(self._open, self._file.name, size):
                done += block.shape[1]
                yield block

    def _require_same(self, done: int) -> None:
        before, here = _rate_and_channels(self), _rate_and_channels(self._open)
        if here != before:
            raise audio_error(
                self._file.name,
                f"is several recordings in one file, and they differ: {before} up to "
                f"{done / self.sample_rate:.2f} s, then {here}; split it",
            )

    def close(self) -> None:
        """Close the decoder of the recording that is being read."""
        self._open.close()


def _rate_and_channels(source: Source) -> str:
    """Return the sample rate and the channels in words, for a message."""
    plural = "s" if source.channels > 1 else ""
    return f"{source.sample_rate} Hz with {source.channels} channel{plural}"
