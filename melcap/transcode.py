"""Files: audio to `.melcap` and back, piece by piece: memory does not grow with the length."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from melcap import container
from melcap.audio import AudioReader, AudioWriter
from melcap.codec import Codec
from melcap.errors import (
    AudioFileError,
    ContainerError,
    InputError,
    ModelMismatchError,
    OutputExistsError,
)
from melcap.limits import checked_rate
from melcap.pretrained import load, weights_hash
from melcap.resample import resampled_length
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
    force: bool = False,
    progress: Progress = lambda _: None,
) -> Transcoded:
    """Encode an audio file; every channel is coded, at any sample rate.

    Args:
        source: a file that `melcap.audio` reads.
        target: the `.melcap` file; None puts it beside the source.
        codec: None for the default weights.
        force: overwrite an existing target.

    Raises:
        AudioFileError, OutputExistsError, ContainerError: nothing is left behind.
    """
    source = Path(source)
    target = Path(target) if target is not None else source.with_suffix(".melcap")
    refuse_existing(source, target, force)
    codec = codec or load()
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
        model=codec.config.name,
        weights=weights_hash(codec),
        sample_rate=rate,
        channels=len(tokens),
        samples=samples,
        rows=tokens.shape[1],
        columns=tokens.shape[2],
        bits=codec.config.tokenizer.bits,
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
    """Refuse a file that these weights cannot decode."""
    made_with = f"{header.model}-{header.weights.hex()}"
    if made_with != codec.model:
        raise ModelMismatchError(
            f"{source}: made with {made_with}, but the weights at hand are {codec.model}; "
            "pass the weights file that made it"
        )
    if header.rows != codec.config.rows or header.bits != codec.config.tokenizer.bits:
        raise ModelMismatchError(f"{source}: its token grid is not that of {codec.model}")
    samples = resampled_length(header.samples, header.sample_rate, codec.config.mel.sample_rate)
    if codec.columns(samples) != header.columns:
        raise ContainerError(
            f"{source}: damaged: {header.columns} columns cannot hold {header.samples} samples at "
            f"{header.sample_rate} Hz"
        )


def refuse_existing(source: Path, target: Path, force: bool) -> None:
    """Raise where writing `target` would destroy the source, or a file that must stay."""
    if target.exists():
        if source.exists() and target.samefile(source):
            raise InputError(f"{target}: is the input file; choose another name for the output")
        if not force:
            raise OutputExistsError(
                f"{target}: exists already; use --force (force=True) to replace"
            )
