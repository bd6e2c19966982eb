"""Codec 2, a codec for speech over radio at 3200 bits a second and fewer."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from melcap.errors import InputError
from melcap.evaluation.peers.narrow import NarrowBand, Pcm
from melcap.extras import import_extra

MODES = (1200, 1300, 1400, 1600, 2400, 3200)


class Codec2(NarrowBand):
    """Codec 2 in one of `MODES`, through pycodec2.

    Its delay is 20 ms: the bits of a frame describe the middle of the 40 ms of audio that the
    encoder holds when the frame ends, and the decoder puts that at the end of the frame. The
    decoder makes up phases, so envelopes are aligned and waves are not. One random generator serves
    the whole process, so figures differ a little from run to run.

    Raises:
        InputError: for a mode that Codec 2 does not have.
        MelcapError: where pycodec2 is not installed.
    """

    delay = 160

    def __init__(self, bits_per_second: int) -> None:
        if bits_per_second not in MODES:
            raise InputError(
                f"Codec 2 runs at {', '.join(map(str, MODES))} bits per second, "
                f"not at {bits_per_second}"
            )
        self._library = import_extra(
            "pycodec2", 'pip install "melcap[eval]", with Python 3.11 or newer'
        )
        self._mode = bits_per_second
        self.name = f"codec2-{bits_per_second}"
        self.identity = f"pycodec2-{version('pycodec2')}"
        codec = self._library.Codec2(bits_per_second)
        self.frame = codec.samples_per_frame()
        self._bits = codec.bits_per_frame()

    def encode_frames(self, frames: Pcm) -> bytes:
        """Encode frames, and close the gaps between their bits."""
        codec = self._library.Codec2(self._mode)
        coded = np.stack([np.frombuffer(codec.encode(frame), np.uint8) for frame in frames])
        # A frame of 52 bits comes in 7 bytes, the last of which is half empty.
        return np.packbits(np.unpackbits(coded, axis=1)[:, : self._bits]).tobytes()

    def decode_frames(self, payload: bytes, frames: int) -> Pcm:
        """Decode frames from bits without gaps."""
        codec = self._library.Codec2(self._mode)
        bits = np.unpackbits(np.frombuffer(payload, np.uint8))[: frames * self._bits]
        coded = np.packbits(bits.reshape(frames, self._bits), axis=1)
        return np.stack([codec.decode(frame.tobytes()) for frame in coded])
