"""Codecs for speech at 8 kHz, which code 16-bit samples in frames."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import numpy.typing as npt

from melcap.evaluation.measures.signals import resample
from melcap.evaluation.peers.base import Audio, Coded, Peer

Pcm = npt.NDArray[np.int16]

RATE = 8000


class NarrowBand(Peer):
    """A codec for speech that is resampled to 8 kHz and back.

    The last frame is filled up with zeros, and the codec's delay is removed.

    Attributes:
        frame: samples in a frame.
        delay: samples by which decoded audio is late.
    """

    speech_only = True
    frame: int
    delay: int

    def encode(self, wave: Audio, sample_rate: int) -> Coded:
        """Encode [samples] frame by frame."""
        source = resample(wave, sample_rate, RATE).clip(-1, 1)
        # Decoded audio is late by the delay, so it must be longer by as much.
        padding = self.delay + -(len(source) + self.delay) % self.frame
        samples = np.pad(np.rint(32767 * source).astype(np.int16), (0, padding))
        payload = self.encode_frames(samples.reshape(-1, self.frame))
        return Coded((payload, len(source)), len(payload), len(wave), sample_rate)

    def decode(self, coded: Coded) -> Audio:
        """Decode frame by frame, and remove the delay."""
        payload, samples = coded.payload
        frames = -(-(samples + self.delay) // self.frame)
        decoded = self.decode_frames(payload, frames).reshape(-1) / np.float32(32768)
        on_time = decoded[self.delay : self.delay + samples]
        return coded.fitted(on_time, RATE)

    @abstractmethod
    def encode_frames(self, frames: Pcm) -> bytes:
        """Encode [frames, samples of a frame] to bits without gaps between the frames."""

    @abstractmethod
    def decode_frames(self, payload: bytes, frames: int) -> Pcm:
        """Decode the bits of `encode_frames` to [frames, samples of a frame]."""
