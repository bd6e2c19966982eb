"""Opus, the codec to beat at low rates."""

from __future__ import annotations

from typing import Any

import numpy as np

from melcap.errors import InputError, MelcapError
from melcap.evaluation.measures.signals import resample
from melcap.evaluation.peers.base import Audio, Codec, Coded


class Opus(Codec):
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

    def encode(self, wave: Audio, sample_rate: int) -> Coded:
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
        payload = (packets, encoder.extradata, len(source))
        return Coded(payload, sum(packet.size for packet in packets), len(wave), sample_rate)

    def decode(self, coded: Coded) -> Audio:
        import av

        packets, header, samples = coded.payload
        # The decoder reads the pre-skip from the header that it is given, and drops it. FFmpeg's
        # own one, "opus", is a few samples late in the speech modes.
        decoder: Any = av.CodecContext.create("libopus", "r")
        decoder.extradata = header
        decoder.options = {"request_sample_fmt": "flt"}
        frames = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
        decoded = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
        return coded.fitted(decoded[:samples], 48000)
