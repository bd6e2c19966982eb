"""Opus, the codec that melcap is measured against at low rates."""

from __future__ import annotations

from typing import Any

import numpy as np

from melcap.errors import InputError, MelcapError
from melcap.evaluation.measures.signals import resample
from melcap.evaluation.peers.base import Audio, Coded, Peer


class Opus(Peer):
    """libopus through PyAV: mono, 20 ms frames, application "audio", variable bit rate.

    libopus aims at `kbps` over all kinds of audio, so the rate of one clip lies around it. Reports
    therefore count the bytes.

    Raises:
        InputError: for a rate that Opus does not have.
        MelcapError: where PyAV was built without libopus.
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
        """Encode [samples] to packets."""
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
        # The last, short frame, and the audio that is still in the encoder's delay.
        packets += encoder.encode(None)
        payload = (packets, encoder.extradata, len(source))
        return Coded(payload, sum(packet.size for packet in packets), len(wave), sample_rate)

    def decode(self, coded: Coded) -> Audio:
        """Decode packets to [samples]."""
        import av

        packets, header, samples = coded.payload
        # libopus's decoder reads the pre-skip from the header, and drops as many samples. FFmpeg's
        # own decoder, "opus", is a few samples late in the speech modes.
        decoder: Any = av.CodecContext.create("libopus", "r")
        decoder.extradata = header
        decoder.options = {"request_sample_fmt": "flt"}
        frames = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
        decoded = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
        return coded.fitted(decoded[:samples], 48000)
