"""Files: audio to `.melcap` and back, piece by piece: memory does not grow with the length."""

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
from melcap.codec import Codec
from melcap.errors import (
    AudioFileError,
    ContainerError,
    InputError,
    ModelMismatchError,
    OutputExistsError,
)
from melcap.io import container, row_tables
from melcap.io.resample import resampled_length
from melcap.limits import checked_rate
from melcap.pretrained import load, require_file
from melcap.streaming import StreamDecoder, StreamEncoder

Progress = Callable[[float], None]
"""Called with the seconds of audio done since the last call."""

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Transcoded:
    """What became of one file."""

    source: Path
    target: Path
    seconds: float
    channels: int
    sample_rate: int
    file_bytes: int
    clipped: int = 0

    @property
    def kbps(self) -> float:
        """Of the file as it is on disk, header and all."""
        return self.file_bytes * 8 / 1000 / self.seconds


def encode_file(
    source: PathLike,
    target: PathLike | None = None,
    codec: Codec | None = None,
    *,
    compact: bool = False,
    force: bool = False,
    progress: Progress = lambda _: None,
) -> Transcoded:
    """Encode an audio file; every channel is coded, at any sample rate.

    Args:
        source: a file that `melcap.audio` reads.
        target: the `.melcap` file; None puts it beside the source.
        codec: None for the default weights.
        compact: code the tokens by the row tables of their tokenizer; see `Codes.to_bytes`.
        force: overwrite an existing target.

    Raises:
        AudioFileError, OutputExistsError, ContainerError: nothing is left behind.
    """
    source = Path(source)
    target = Path(target) if target is not None else source.with_suffix(".melcap")
    refuse_existing(source, target, force)
    codec = codec or load()
    require_file(codec)
    if compact:
        row_tables.find(codec.tokenizer_id)  # refused before the audio is worked through
    with AudioReader(source) as reader:
        rate, groups = reader.sample_rate, _groups(codec, reader.channels)
        streams = [StreamEncoder(codec, rate, each.stop - each.start) for each in groups]
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
    codec: Codec | None = None,
    *,
    sample_rate: int | None = None,
    force: bool = False,
    progress: Progress = lambda _: None,
) -> Transcoded:
    """Decode a `.melcap` file.

    Args:
        source: the `.melcap` file.
        target: a wav or flac file; None puts a wav beside the source.
        codec: None for the default weights.
        sample_rate: of the audio to write; None for the original's, with its exact length.
        force: overwrite an existing target.

    Raises:
        ContainerError, ModelMismatchError, AudioFileError, OutputExistsError: nothing is left.
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
    return Transcoded(
        source,
        target,
        samples / rate,
        header.channels,
        rate,
        source.stat().st_size,
        clipped,
    )


def write_audio(
    target: Path,
    header: container.Header,
    tokens: npt.NDArray[np.integer[Any]],
    codec: Codec,
    sample_rate: int,
    progress: Progress = lambda _: None,
) -> int:
    """Decode tokens [channels, rows, columns] that `check_model` allows to a wav or flac file.

    Returns how many samples were clipped. Raises `AudioFileError`: nothing is left.
    """
    samples = resampled_length(header.samples, header.sample_rate, sample_rate)
    unit, rate = codec.config.column_samples, codec.config.mel.sample_rate
    step = max(1, int(_piece_seconds(header.channels) * rate) // unit)
    groups = _groups(codec, header.channels)
    streams = [StreamDecoder(codec, sample_rate, each.stop - each.start) for each in groups]
    with AudioWriter(target, sample_rate, header.channels, samples=samples) as writer:
        for first in range(0, header.columns, step):
            piece = tokens[..., first : first + step]
            pushed = zip(streams, groups, strict=True)
            made = torch.cat([stream.push(piece[group]) for stream, group in pushed])
            writer.write(made.cpu().numpy())
            progress(piece.shape[-1] * unit / rate)
        writer.write(torch.cat([stream.flush(samples) for stream in streams]).cpu().numpy())
    return writer.clipped


def _piece_seconds(channels: int) -> float:
    """Return how much of each channel is in memory at once: about 10 s over all channels."""
    return max(1, 10 / channels)


def _groups(codec: Codec, channels: int) -> list[slice]:
    """Return the channels that are computed together: one on a CPU, all of them on a GPU.

    The activations of several would not fit in the caches of a CPU, and would fill its memory.
    """
    if codec.device.type == "cuda":
        return [slice(0, channels)]
    return [slice(channel, channel + 1) for channel in range(channels)]


def check_model(source: str | Path, header: container.Header, codec: Codec) -> None:
    """Refuse a file that these weights cannot decode.

    Raises:
        ModelMismatchError: for tokens of another tokenizer; it says which weights would do.
        ContainerError: for samples and columns that do not fit together.
    """
    try:
        codec.require_tokenizer(header.tokenizer_id, header.model)
    except ModelMismatchError as error:
        tokenizer_id, model = _built_in()
        fits = header.tokenizer_id == tokenizer_id
        hint = f"; those that come with melcap, {model}, are of it" if fits else ""
        raise ModelMismatchError(f"{source}: {error}{hint}") from None
    if header.rows != codec.rows or header.bits > codec.config.tokenizer.bits:
        raise ModelMismatchError(f"{source}: its token grid is not that of {codec.model}")
    samples = resampled_length(header.samples, header.sample_rate, codec.config.mel.sample_rate)
    if codec.columns(samples) != header.columns:
        raise ContainerError(
            f"{source}: damaged: {header.columns} columns cannot hold {header.samples} samples at "
            f"{header.sample_rate} Hz"
        )


@cache
def _built_in() -> tuple[str, str]:
    """Return the tokenizer's id and the model of the weights that come with melcap."""
    codec = load()
    return codec.tokenizer_id, codec.model


def refuse_existing(source: Path, target: Path, force: bool) -> None:
    """Raise where writing `target` would destroy the source, or a file that must stay."""
    if target.exists():
        if source.exists() and target.samefile(source):
            raise InputError(f"{target}: is the input file; choose another name for the output")
        if not force:
            raise OutputExistsError(
                f"{target}: exists already; use --force (force=True) to replace"
            )
