"""Codecs for speech that know nothing above 4 kHz: 16-bit audio at 8 kHz in frames of samples."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import numpy.typing as npt

from melcap.evaluation.measures.signals import resample
from melcap.evaluation.peers.base import Audio, Codec, Coded

Pcm = npt.NDArray[np.int16]

RATE = 8000


class NarrowBand(Codec):
    """Resamples in and out, fills up the last frame, and takes the codec's delay away.

    Attributes:
        frame: samples that are coded at a time.
        delay: samples by which what is decoded comes late.
    """

    speech_only = True
    frame: int
    delay: int

    def encode(self, wave: Audio, sample_rate: int) -> Coded:
        source = resample(wave, sample_rate, RATE).clip(-1, 1)
        # What is decoded lasts as much longer as it comes later.
        behind = self.delay + -(len(source) + self.delay) % self.frame
        samples = np.pad(np.rint(32767 * source).astype(np.int16), (0, behind))
        payload = self.encode_frames(samples.reshape(-1, self.frame))
        return Coded((payload, len(source)), len(payload), len(wave), sample_rate)

    def decode(self, coded: Coded) -> Audio:
        payload, samples = coded.payload
        frames = -(-(samples + self.delay) // self.frame)
        decoded = self.decode_frames(payload, frames).reshape(-1) / np.float32(32768)
        on_time = decoded[self.delay : self.delay + samples]
        return coded.fitted(on_time, RATE)

    @abstractmethod
    def encode_frames(self, frames: Pcm) -> bytes:
        """[frames, samples of a frame] to the bits, without gaps between the frames."""

    @abstractmethod
    def decode_frames(self, payload: bytes, frames: int) -> Pcm:
        """The inverse: [frames, samples of a frame]."""
