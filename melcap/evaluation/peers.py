"""Codecs to compare on the same clips, each behind one call: audio in, audio and a byte count out.

The bytes are what must be kept to get the audio back. For Opus they are the packets alone, without
Ogg pages around them; for melcap they are the whole `.melcap` file.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from melcap import container
from melcap.errors import InputError, MelcapError
from melcap.evaluation.metrics import MEL, resample
from melcap.ops.reference import mel_filters
from melcap.pretrained import load, weights_hash

Audio: TypeAlias = npt.NDArray[np.float32]

NAMES = ("melcap", "opus-6", "opus-8", "opus-12", "opus-16", "opus-24", "griffin-lim", "original")


class Codec(Protocol):
    """`identity` tells results of this codec from those of another version, or other weights."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    def round_trip(self, wave: Audio, sample_rate: int) -> tuple[Audio, int]:
        """[samples] at `sample_rate` Hz to as many samples, aligned in time, and the bytes."""
        ...


class Original:
    """The audio as it is, with the bytes of 16-bit PCM: what each measure gives at best."""

    name = "original"
    identity = "pcm-16"

    def round_trip(self, wave: Audio, sample_rate: int) -> tuple[Audio, int]:
        return wave.copy(), 2 * len(wave)


class Opus:
    """libopus through PyAV: mono, 20 ms frames, application "audio", variable bit rate.

    libopus aims at `kbps` over all kinds of audio, so a clip's own rate lies around it: report the
    bytes. Raises `InputError` for a rate that Opus does not have, and `MelcapError` where PyAV was
    built without libopus.
    """

    def __init__(self, kbps: int) -> None:
        import av

        if not 6 <= kbps <= 256:
            raise InputError(f"Opus runs from 6 to 256 kbps in mono, not at {kbps}")
        self.kbps = kbps
        self.name = f"opus-{kbps}"
        if "libopus" not in av.codecs_available:
            raise MelcapError("this PyAV has no libopus: install the wheel, pip install av")
        self.identity = "libavcodec-" + ".".join(map(str, av.library_versions["libavcodec"]))

    def round_trip(self, wave: Audio, sample_rate: int) -> tuple[Audio, int]:
        import av

        encoder: Any = av.CodecContext.create("libopus", "w")
        encoder.sample_rate, encoder.layout, encoder.format = 48000, "mono", "flt"
        encoder.bit_rate = 1000 * self.kbps
        encoder.options = {"application": "audio", "vbr": "on", "frame_duration": "20"}
        encoder.open()
        source = resample(wave, sample_rate, 48000).astype(np.float32)
        size = encoder.frame_size
        packets = []
        for start in range(0, len(source), size):
            block = np.ascontiguousarray(source[None, start : start + size])
            frame = av.AudioFrame.from_ndarray(block, format="flt", layout="mono")
            frame.sample_rate, frame.pts = 48000, start
            packets += encoder.encode(frame)
        # The last, short frame and what the encoder's delay still holds back.
        packets += encoder.encode(None)
        # The decoder reads the pre-skip from the header that it is given, and drops it. FFmpeg's
        # own one, "opus", is a few samples late in the speech modes.
        decoder: Any = av.CodecContext.create("libopus", "r")
        decoder.extradata = encoder.extradata
        decoder.options = {"request_sample_fmt": "flt"}
        frames = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
        decoded = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
        # Lengths are rounded up both ways, so there are never too few samples.
        decoded = resample(decoded[: len(source)], 48000, sample_rate)[: len(wave)]
        return decoded.astype(np.float32), sum(packet.size for packet in packets)


class GriffinLim:
    """An oracle, no codec: the true 96-bin mel, unquantised, with phase found by iteration.

    What is left to gain on the way from mel to wave shows in its figures. It counts no bytes.
    """

    name = "griffin-lim"

    def __init__(self, iterations: int = 32) -> None:
        self.iterations = iterations
        self.identity = f"mel-{MEL.n_mels}-iterations-{iterations}"

    def round_trip(self, wave: Audio, sample_rate: int) -> tuple[Audio, int]:
        source = torch.from_numpy(resample(wave, sample_rate, MEL.sample_rate).astype(np.float32))
        here = torch.device("cpu")
        filters = mel_filters(MEL.sample_rate, MEL.n_fft, MEL.n_mels, torch.float32, here)
        magnitude = magnitude_from_mel(filters.t() @ _stft(source).abs(), filters)
        decoded = self._wave(magnitude, len(source)).numpy()
        return resample(decoded, MEL.sample_rate, sample_rate)[: len(wave)].astype(np.float32), 0

    def _wave(self, magnitude: Tensor, samples: int) -> Tensor:
        """Fast Griffin-Lim (Perraudin et al. 2013), momentum 0.99, from random phase."""
        generator = torch.Generator().manual_seed(0)
        angle = 2 * torch.pi * torch.rand(magnitude.shape, generator=generator)
        guess, previous = torch.polar(magnitude, angle), torch.zeros(())
        for _ in range(self.iterations):
            consistent = _stft(_istft(guess, samples))
            guess = consistent + 0.99 * (consistent - previous)
            guess = magnitude * guess / guess.abs().clamp(min=1e-12)
            previous = consistent
        return _istft(guess, samples)


class Melcap:
    """melcap with the weights that ship, or of a file, through a real `.melcap` file."""

    def __init__(self, weights: str | None = None) -> None:
        self.name = weights or "melcap"
        self._codec = load(weights)
        self.identity = self._codec.model

    def round_trip(self, wave: Audio, sample_rate: int) -> tuple[Audio, int]:
        codes = self._codec.encode(wave, sample_rate)
        tokens = codes.tokens.numpy()
        header = container.Header(
            model=self._codec.config.name,
            weights=weights_hash(self._codec),
            sample_rate=sample_rate,
            channels=1,
            samples=len(wave),
            rows=tokens.shape[1],
            columns=tokens.shape[2],
            bits=self._codec.config.tokenizer.bits,
        )
        with tempfile.TemporaryDirectory() as folder:
            size = container.write(Path(folder) / "clip.melcap", header, tokens)
        return self._codec.decode(codes)[0].numpy(), size


@cache
def codec(name: str) -> Codec:
    """The codec of that name, built once in a process.

    `opus-KBPS`, another of `NAMES`, or a melcap weights file, FILE.safetensors. Raises `InputError`
    for an unknown name and `WeightsError` for a file that holds no weights.
    """
    kind, _, rate = name.partition("-")
    if kind == "opus" and rate.isdecimal():
        return Opus(int(rate))
    if name.endswith(".safetensors"):
        return Melcap(name)
    simple = {"melcap": Melcap, "griffin-lim": GriffinLim, "original": Original}
    if name not in simple:
        raise InputError(
            f"unknown codec {name!r}: choose among {', '.join(NAMES)}, FILE.safetensors"
        )
    built: Codec = simple[name]()
    return built


def magnitude_from_mel(mel: Tensor, filters: Tensor, steps: int = 50) -> Tensor:
    """Non-negative least squares by multiplicative updates.

    mel [n_mels, frames], filters [bins, n_mels] to magnitudes [bins, frames] >= 0.
    """
    target = filters @ mel
    magnitude = target.clone()
    for _ in range(steps):
        magnitude *= target / (filters @ (filters.t() @ magnitude)).clamp(min=1e-12)
    return magnitude


def _stft(wave: Tensor) -> Tensor:
    return torch.stft(
        wave,
        MEL.n_fft,
        MEL.hop,
        window=torch.hann_window(MEL.n_fft),
        pad_mode="constant",
        return_complex=True,
    )


def _istft(spectrum: Tensor, samples: int) -> Tensor:
    return torch.istft(
        spectrum, MEL.n_fft, MEL.hop, window=torch.hann_window(MEL.n_fft), length=samples
    )
