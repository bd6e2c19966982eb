"""Facts about a `.melcap` file or a model, as data and as text: what `melcap info` prints."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from torch import nn

from melcap.audio import AUDIO_SUFFIXES
from melcap.audio_codec import AudioCodec
from melcap.cli.output import columns
from melcap.codec import Codec
from melcap.config import BaseConfig
from melcap.errors import AudioFileError, ContainerError
from melcap.io import container, weights_file
from melcap.io.files import require_regular
from melcap.io.weights_file import WeightsFile
from melcap.model.stages import inputs_for
from melcap.pretrained import DEFAULT, load
from melcap.streaming import StreamDecoder, StreamEncoder


def describe(path: Path | None) -> tuple[dict[str, Any], str]:
    """Describe a file.

    Args:
        path: a `.melcap` file or a weights file; None for the default weights.

    Returns:
        The facts, ready for JSON, and the same as text.

    Raises:
        ContainerError: a `.melcap` file that is damaged, or a file that cannot be read.
        WeightsError: a file of anything else that holds no weights.
        AudioFileError: an audio file.
    """
    if path is None:
        with resources.as_file(resources.files("melcap") / "weights" / DEFAULT) as default:
            return _codec(default, load())
    if path.suffix.lower() in AUDIO_SUFFIXES:
        raise AudioFileError(f"{path} is audio: `melcap info` reads .melcap and weights files")
    try:
        require_regular(path)
        with path.open("rb") as file:
            is_tokens = file.read(len(container.MAGIC)) == container.MAGIC
    except OSError as error:
        raise ContainerError(f"{path}: cannot be read: {error.strerror}") from error
    if is_tokens or path.suffix.lower() == ".melcap":
        return _tokens(path)
    weights = weights_file.read(path)
    if weights.tokenizer_id is not None:
        return _decoder(weights)
    return _codec(path, load(path))


def _decoder(weights: WeightsFile) -> tuple[dict[str, Any], str]:
    """Describe a file that holds a decoder alone."""
    data: dict[str, Any] = {
        "file": str(weights.path),
        "bytes": weights.path.stat().st_size,
        "sha256": weights.digest,
        "model": weights.model,
        "decoder_for_tokenizer": weights.tokenizer_id,
        "parameters": sum(tensor.numel() for tensor in weights.state.values()),
    }
    return data, columns(
        ("model", weights.model),
        ("weights", f"{weights.path}, {data['bytes'] / 1e6:.2f} MB: a decoder alone"),
        ("sha-256", weights.digest),
        ("for tokenizer", weights.tokenizer_id),
        ("parameters", f"{data['parameters'] / 1e6:.2f} M"),
    )


def _tokens(path: Path) -> tuple[dict[str, Any], str]:
    header = container.verify(path)  # all of it: a damaged file must not pass for a good one
    seconds = header.samples / header.sample_rate
    size = path.stat().st_size
    data = {
        "file": str(path),
        "model": header.model,
        "tokenizer_id": header.tokenizer_id,
        "sample_rate": header.sample_rate,
        "channels": header.channels,
        "samples": header.samples,
        "seconds": seconds,
        "rows": header.rows,
        "columns": header.columns,
        "bits_per_token": header.bits,
        "tokens": header.token_count,
        "compact": header.compact,
        "bytes": size,
        "kbps": size * 8 / 1000 / seconds,
    }
    grid = f"{header.rows} rows x {header.columns} columns for each channel"
    return data, columns(
        ("file", f"{path}, {size} bytes"),
        ("tokenizer", header.tokenizer_id),
        ("made with", header.model),
        ("audio", f"{seconds:.2f} s, {header.samples} samples at {header.sample_rate} Hz"),
        ("channels", header.channels),
        ("tokens", f"{header.token_count} of {header.bits} bits: {grid}"),
        ("coding", "compact, by row tables" if header.compact else "packed"),
        ("bit rate", f"{data['kbps']:.2f} kbps, header and all"),
    )


def _codec(path: Path, codec: AudioCodec) -> tuple[dict[str, Any], str]:
    config, mel = codec.config, codec.config.mel
    rate, unit = mel.sample_rate, config.column_samples
    parts = {"encoder": "encoder", "codebook": "codebook", "mel_decoder": "decoder"}
    sizes = {
        name: _numbers(codec.get_submodule(part))
        for name, part in {**parts, "vocoder": "vocoder"}.items()
    }
    reach, reach_text = _reach(codec) if isinstance(codec, Codec) else _window(codec)
    data: dict[str, Any] = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": weights_file.sha256_of(path),
        "model": codec.model,
        "tokenizer_id": codec.tokenizer_id,
        "sample_rate": rate,
        "mel_bins": mel.n_mels,
        "rows": config.rows,
        "columns_per_second": rate / unit,
        "tokens_per_second": config.tokens_per_second,
        "bits_per_token": config.tokenizer.bits,
        "kbps": config.bits_per_second / 1000,
        "codebook_size": config.tokenizer.codebook_size,
        "codebook_dim": config.tokenizer.codebook_dim,
        "parameters": {**sizes, "total": sum(sizes.values())},
        "column_seconds": unit / rate,
        **reach,
    }
    millions = ", ".join(f"{name.replace('_', ' ')} {n / 1e6:.2f}" for name, n in sizes.items())
    return data, columns(
        ("model", codec.model),
        ("tokenizer", codec.tokenizer_id),
        ("weights", f"{path}, {data['bytes'] / 1e6:.2f} MB"),
        ("sha-256", data["sha256"]),
        ("parameters", f"{sum(sizes.values()) / 1e6:.2f} M: {millions}"),
        ("audio", f"{rate} Hz, {mel.n_mels} mel bins, window {mel.n_fft}, hop {mel.hop}"),
        ("column", f"{config.rows} tokens for {unit} samples, {1000 * unit / rate:.1f} ms"),
        ("tokens", f"{config.tokens_per_second:.1f} a second, {config.tokenizer.bits} bits each"),
        ("bit rate", f"{data['kbps']:.2f} kbps for each channel"),
        ("codebook", f"{config.tokenizer.codebook_size} x {config.tokenizer.codebook_dim}"),
        *reach_text,
    )


def _reach(codec: Codec) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Describe the receptive fields of a codec, and the latency that follows from them."""
    rate, unit = codec.sample_rate, codec.config.column_samples
    first, last = inputs_for(codec.encode_stages, 0, 1)
    earliest, latest = inputs_for(codec.decode_stages, 0, unit)
    encoding = StreamEncoder(codec).latency
    decoding = StreamDecoder(codec).latency
    together = unit / rate + encoding + decoding
    data = {
        "encoder_sees_seconds": {"before": -first / rate, "after": (last - unit) / rate},
        "decoder_sees_columns": {"before": -earliest, "after": latest - 1},
        "latency_seconds": {"encoder": encoding, "decoder": decoding, "together": together},
    }
    return data, [
        (
            "encoder reads",
            f"{-1000 * first / rate:.0f} ms of audio before a column, "
            f"{1000 * (last - unit) / rate:.0f} ms after it",
        ),
        ("decoder reads", f"{-earliest} columns before a column, {latest - 1} after it"),
        (
            "live latency",
            f"{1000 * together:.0f} ms: column {1000 * unit / rate:.0f},"
            f" encoder {1000 * encoding:.0f}, decoder {1000 * decoding:.0f}",
        ),
    ]


def _window(codec: AudioCodec) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Describe the windows of a codec of the published architecture."""
    assert isinstance(codec.config, BaseConfig)
    columns_at_once = codec.config.tokenizer.window_columns
    seconds = columns_at_once / codec.frame_rate
    data = {
        "architecture": "base",
        "activation": codec.config.tokenizer.activation,
        "window_columns": columns_at_once,
        "window_seconds": seconds,
    }
    return data, [
        ("architecture", f"published MelCap, {codec.config.tokenizer.activation}"),
        ("window", f"{columns_at_once} columns, {seconds:.1f} s, which are coded together"),
    ]


def _numbers(module: nn.Module) -> int:
    return sum(tensor.numel() for tensor in module.state_dict().values())
