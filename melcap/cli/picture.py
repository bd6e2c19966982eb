"""The part of a file that `melcap plot` draws, before and after the codec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from melcap.audio import AudioReader, resample
from melcap.audio_codec import AudioCodec
from melcap.errors import InputError
from melcap.io import container
from melcap.plot.spectrogram import Tokens, Wave, write_picture
from melcap.transcode import check_model


def picture_of_file(
    source: Path,
    target: Path,
    codec: AudioCodec,
    *,
    start: float = 0,
    seconds: float = 10,
    channel: int = 1,
) -> None:
    """Draw a part of a file.

    A part of audio is coded by itself. With a `BaseCodec` its tokens are therefore not those of the
    whole file. A part of a `.melcap` file is decoded as it is in the whole file.

    Args:
        source: an audio file, or a `.melcap` file, for which no spectrogram before is drawn.
        target: the .png file to write.
        codec: the codec that encodes and decodes the part.
        start: where the part begins, in seconds.
        seconds: the length of the part.
        channel: the channel to draw, from 1.

    Raises:
        InputError: the part or the channel does not exist.
        AudioFileError: the audio cannot be read.
        ContainerError: the `.melcap` file cannot be read, or was made with other weights.
    """
    if source.suffix.lower() == ".melcap":
        before, after, tokens = None, *_decoded_part(source, codec, start, seconds, channel)
    else:
        before, after, tokens = _coded_part(source, codec, start, seconds, channel)
    config = codec.config
    write_picture(
        target,
        before,
        after,
        tokens,
        config.mel.sample_rate,
        f"{source.name}, {config.bits_per_second / 1000:.2f} kbps",
        codebook_size=config.tokenizer.codebook_size,
        column_seconds=config.column_samples / config.mel.sample_rate,
        start=start,
    )


def _coded_part(
    source: Path, codec: AudioCodec, start: float, seconds: float, channel: int
) -> tuple[Wave, Wave, Tokens]:
    rate = codec.config.mel.sample_rate
    with AudioReader(source) as reader:
        _check_channel(source, channel, reader.channels)
        first = round(start * reader.sample_rate)
        wanted = max(1, round(seconds * reader.sample_rate))
        pieces, done = [], 0
        for block in reader.blocks():
            if done >= first + wanted:
                break
            pieces.append(block[channel - 1, max(0, first - done) : max(0, first + wanted - done)])
            done += block.shape[1]
        _check_start(source, start, done / reader.sample_rate)
        wave = resample(np.concatenate(pieces)[None], reader.sample_rate, rate)[0]
    codes = codec.encode(wave, rate)
    return wave, codec.decode(codes).cpu().numpy(), codes.cpu().numpy()


def _decoded_part(
    source: Path, codec: AudioCodec, start: float, seconds: float, channel: int
) -> tuple[Wave, Tokens]:
    """Decode a part as it is in the whole file, with the columns around it that affect it."""
    header, stored = container.read(source)
    check_model(source, header, codec)
    _check_channel(source, channel, header.channels)
    _check_start(source, start, header.samples / header.sample_rate)
    rate, unit = codec.config.mel.sample_rate, codec.config.column_samples
    begin = int(start * rate) // unit
    end = min(header.columns, begin + max(1, round(seconds * rate / unit)))
    earliest, latest = codec.needed_columns(begin, end, header.columns)
    codes = codec.codes_of(torch.from_numpy(stored[channel - 1, :, earliest:latest]))
    wave = codec.decode(codes)[(begin - earliest) * unit : (end - earliest) * unit]
    return wave.cpu().numpy(), stored[channel - 1, :, begin:end]


def _check_channel(source: Path, channel: int, channels: int) -> None:
    if not 1 <= channel <= channels:
        raise InputError(f"{source} has no channel {channel}: it has {channels}")


def _check_start(source: Path, start: float, seconds: float) -> None:
    if start >= seconds:
        raise InputError(f"{source} ends before {start:g} s: it has {seconds:.2f} s")
