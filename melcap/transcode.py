"""Audio files to `.melcap` files and back, in pieces, so that memory does not grow with length."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from melcap.audio import AudioReader, AudioWriter
from melcap.audio_codec import AudioCodec
from melcap.base_codec import BaseCodec
from melcap.errors import (
    AudioFileError,
    ContainerError,
    InputError,
    ModelMismatchError,
    OutputExistsError,
)
from melcap.io import container
from melcap.io.container import row_tables
from melcap.io.resample import resampled_length
from melcap.limits import checked_rate
from melcap.pretrained import load, require_file
from melcap.streaming import StreamDecoder, StreamEncoder
from melcap.windowed import WindowedDecoder, WindowedEncoder

Advance = Callable[[float], None]
"""A function that is called with the seconds of audio done since its last call."""

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Transcoded:
    """The result of `encode_file` or `decode_file`.

    Attributes:
        source: the file that was read.
        target: the file that was written.
        seconds: length of the audio.
        channels: number of channels.
        sample_rate: of the audio, in Hz.
        file_bytes: size of the `.melcap` file.
        clipped: samples that decoding clipped to full scale.
    """

    source: Path
    target: Path
    seconds: float
    channels: int
    sample_rate: int
    file_bytes: int
    clipped: int = 0

    @property
    def kbps(self) -> float:
        """The bit rate of the whole `.melcap` file, in kbit/s."""
        return self.file_bytes * 8 / 1000 / self.seconds


def encode_file(
    source: PathLike,
    target: PathLike | None = None,
    codec: AudioCodec | None = None,
    *,
    compact: bool = False,
    force: bool = False,
    progress: Advance = lambda _: None,
) -> Transcoded:
    """Encode an audio file of any sample rate, with all its channels.

    The target is complete or not there at all, also after an error.

    Args:
        source: a file that `melcap.audio` reads.
        target: the `.melcap` file; None puts it beside the source.
        codec: None for the default weights.
        compact: code the tokens with the row tables of their tokenizer; see `Codes.to_bytes`.
        force: overwrite an existing target.
        progress: is called with the seconds of audio done since its last call.

    Returns:
        What was read and written.

    Raises:
        AudioFileError: for a source that cannot be read as audio.
        OutputExistsError: for an existing target without `force`.
        InputError: for a target that is the source.
        ContainerError: for a target that cannot be written, or where `compact` is asked for and the
            row tables are not at hand.
        WeightsError: for a codec whose weights are in no file.

    Example:
        >>> import tempfile, melcap
        >>> from melcap import audio
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     clipped = audio.write(f"{folder}/a.wav", np.zeros((2, 22050), np.float32), 22050)
        ...     encoded = melcap.encode_file(f"{folder}/a.wav")
        ...     decoded = melcap.decode_file(f"{folder}/a.melcap", f"{folder}/b.flac")
        >>> encoded.channels, encoded.seconds, decoded.sample_rate, decoded.target.name
        (2, 1.0, 22050, 'b.flac')
    """
    source = Path(source)
    target = Path(target) if target is not None else source.with_suffix(".melcap")
    refuse_existing(source, target, force)
    codec = codec or load()
    require_file(codec)
    if compact:
        row_tables.find(codec.tokenizer_id)  # fails before the audio is read
    with AudioReader(source) as reader:
        rate, groups = reader.sample_rate, _groups(codec, reader.channels)
        streams = [_encoder(codec, rate, each.stop - each.start) for each in groups]
        parts: list[list[Tensor]] = [[] for _ in groups]
        for block in reader.blocks(max(1, int(_piece_seconds(reader.channels) * rate))):
            for group, stream, done in zip(groups, streams, parts, strict=True):
                done.append(stream.push(block[group]).cpu())
            progress(block.shape[1] / rate)
        for stream, done in zip(streams, parts, strict=True):
            done.append(stream.flush().cpu())
    samples = streams[0].samples
    if not samples:
        raise AudioFileError(f"{source}: holds no audio")
    tokens = torch.cat([torch.cat(done, dim=-1) for done in parts])
    header = container.Header(
        model=codec.model,
        tokenizer_id=codec.tokenizer_id,
        sample_rate=rate,
        channels=len(tokens),
        samples=samples,
        rows=tokens.shape[1],
        columns=tokens.shape[2],
        bits=codec.config.tokenizer.bits,
        compact=compact,
    )
    written = container.write(target, header, tokens.numpy())
    return Transcoded(source, target, samples / rate, len(tokens), rate, written)


def decode_file(
    source: PathLike,
    target: PathLike | None = None,
    codec: AudioCodec | None = None,
    *,
    sample_rate: int | None = None,
    force: bool = False,
    progress: Advance = lambda _: None,
) -> Transcoded:
    """Decode a `.melcap` file to an audio file; see `encode_file` for an example.

    The target is complete or not there at all, also after an error.

    Args:
        source: the `.melcap` file.
        target: a wav or flac file; None puts a wav beside the source.
        codec: None for the default weights.
        sample_rate: of the audio to write, in Hz; None for that of the original, which gives its
            exact length.
        force: overwrite an existing target.
        progress: is called with the seconds of audio done since its last call.

    Returns:
        What was read and written.

    Raises:
        ContainerError: for a source that cannot be read or is damaged.
        ModelMismatchError: for tokens of another tokenizer.
        AudioFileError: for a target that cannot be written.
        OutputExistsError: for an existing target without `force`.
        InputError: for a target that is the source, or a wrong sample rate.
    """
    source = Path(source)
    target = Path(target) if target is not None else source.with_suffix(".wav")
    refuse_existing(source, target, force)
    codec = codec or load()
    header, stored = container.read(source)
    check_model(source, header, codec)
    rate = checked_rate(header.sample_rate if sample_rate is None else sample_rate)
    samples = resampled_length(header.samples, header.sample_rate, rate)
    clipped = write_audio(target, header, stored, codec, rate, progress)
    size = source.stat().st_size
    return Transcoded(source, target, samples / rate, header.channels, rate, size, clipped)


def write_audio(
    target: Path,
    header: container.Header,
    tokens: npt.NDArray[np.integer[Any]],
    codec: AudioCodec,
    sample_rate: int,
    progress: Advance = lambda _: None,
) -> int:
    """Decode tokens to a wav or flac file, and return how many samples were clipped.

    Args:
        target: the audio file, complete or not there at all.
        header: the header of the tokens, which `check_model` has accepted.
        tokens: integers [channels, rows, columns].
        codec: a codec of their tokenizer.
        sample_rate: of the audio to write, in Hz.
        progress: is called with the seconds of audio done since its last call.

    Raises:
        AudioFileError: for a target that cannot be written.
    """
    samples = resampled_length(header.samples, header.sample_rate, sample_rate)
    unit, rate = codec.config.column_samples, codec.config.mel.sample_rate
    step = max(1, int(_piece_seconds(header.channels) * rate) // unit)
    groups = _groups(codec, header.channels)
    streams = [_decoder(codec, sample_rate, each.stop - each.start) for each in groups]
    with AudioWriter(target, sample_rate, header.channels, samples=samples) as writer:
        for first in range(0, header.columns, step):
            piece = tokens[..., first : first + step]
            pushed = zip(streams, groups, strict=True)
            made = torch.cat([stream.push(piece[group]) for stream, group in pushed])
            writer.write(made.cpu().numpy())
            progress(piece.shape[-1] * unit / rate)
        writer.write(torch.cat([stream.flush(samples) for stream in streams]).cpu().numpy())
    return writer.clipped


def _encoder(codec: AudioCodec, sample_rate: int, batch: int) -> StreamEncoder | WindowedEncoder:
    """Return an encoder for a file, which takes it in pieces."""
    if isinstance(codec, BaseCodec):
        return WindowedEncoder(codec, sample_rate, batch)
    return StreamEncoder(codec, sample_rate, batch)


def _decoder(codec: AudioCodec, sample_rate: int, batch: int) -> StreamDecoder | WindowedDecoder:
    """Return a decoder for a file, which takes it in pieces."""
    if isinstance(codec, BaseCodec):
        return WindowedDecoder(codec, sample_rate, batch)
    return StreamDecoder(codec, sample_rate, batch)


def _piece_seconds(channels: int) -> float:
    """Return how many seconds of each channel are in memory at once, 10 s over all channels."""
    return max(1, 10 / channels)


def _groups(codec: AudioCodec, channels: int) -> list[slice]:
    """Return the groups of channels that are computed together.

    A GPU computes all channels together. A CPU computes one at a time, because the activations of
    several would not fit in its caches, and could fill its memory.
    """
    if codec.device.type == "cuda":
        return [slice(0, channels)]
    return [slice(channel, channel + 1) for channel in range(channels)]


def check_model(source: str | Path, header: container.Header, codec: AudioCodec) -> None:
    """Refuse a file that a codec cannot decode.

    Args:
        source: the file, for the error.
        header: its header.
        codec: the codec.

    Raises:
        ModelMismatchError: for tokens of another tokenizer; it says which weights can decode them.
        ContainerError: for samples and columns that do not fit together.
    """
    try:
        codec.require_tokenizer(header.tokenizer_id, header.model)
    except ModelMismatchError as error:
        tokenizer_id, model = _built_in()
        fits = header.tokenizer_id == tokenizer_id
        hint = f"; the weights that come with melcap, {model}, are of it" if fits else ""
        raise ModelMismatchError(f"{source}: {error}{hint}") from None
    if header.rows != codec.rows or header.bits > codec.config.tokenizer.bits:
        raise ModelMismatchError(
            f"{source}: its rows or bits per token are not those of {codec.model}"
        )
    samples = resampled_length(header.samples, header.sample_rate, codec.config.mel.sample_rate)
    if codec.columns(samples) != header.columns:
        raise ContainerError(
            f"{source}: damaged: {header.columns} columns do not fit {header.samples} samples at "
            f"{header.sample_rate} Hz"
        )


@cache
def _built_in() -> tuple[str, str]:
    """Return the tokenizer's id and the model name of the weights that come with melcap."""
    codec = load()
    return codec.tokenizer_id, codec.model


def refuse_existing(source: Path, target: Path, force: bool) -> None:
    """Refuse to overwrite the source, or an existing target without `force`.

    Raises:
        InputError: where the target is the source.
        OutputExistsError: where the target exists and `force` is false.
    """
    if target.exists():
        if source.exists() and target.samefile(source):
            raise InputError(f"{target}: is the input file; choose another name for the output")
        if not force:
            raise OutputExistsError(
                f"{target}: exists already; use --force (force=True) to replace it"
            )
