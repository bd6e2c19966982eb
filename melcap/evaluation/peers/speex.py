"""Speex, the codec for speech that Opus replaced, through the system's libspeex."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_int, c_void_p
from ctypes.util import find_library
from functools import cache

import numpy as np

from melcap.errors import InputError, MelcapError
from melcap.evaluation.peers.narrow import NarrowBand, Pcm

QUALITIES = {2: 0, 4: 1, 6: 2, 8: 4, 11: 6, 15: 8, 18: 9, 25: 10}
"""libspeex's quality for each rate, in kilobits a second, rounded."""

# SPEEX_SET_QUALITY and others in speex/speex.h.
_SET_QUALITY, _SET_COMPLEXITY, _GET_LOOKAHEAD, _GET_VERSION = 4, 16, 39, 9
_NARROW_BAND = 0
_MOST_BYTES = 64
"""Enough for a frame at the highest rate, which takes 62 bytes."""


class _Bits(ctypes.Structure):
    _fields_ = (
        ("chars", c_void_p),
        ("bits", c_int),
        ("char_position", c_int),
        ("bit_position", c_int),
        ("owner", c_int),
        ("overflow", c_int),
        ("buffer_size", c_int),
        ("reserved1", c_int),
        ("reserved2", c_void_p),
    )


class Speex(NarrowBand):
    """Speex in narrow band, constant bit rate, at its highest complexity.

    Raises:
        InputError: for a rate that is not in `QUALITIES`.
        MelcapError: where libspeex is not installed.
    """

    frame = 160

    def __init__(self, kbps: int, name: str) -> None:
        if kbps not in QUALITIES:
            raise InputError(
                f"Speex runs at {', '.join(map(str, QUALITIES))} kbps, rounded, not at {kbps}"
            )
        self._quality = QUALITIES[kbps]
        self.name = name
        library = _library()
        version = ctypes.c_char_p()
        library.speex_lib_ctl(_GET_VERSION, byref(version))
        self.identity = f"libspeex-{(version.value or b'').decode()}-quality-{self._quality}"
        with _Coder("encoder") as encoder, _Coder("decoder") as decoder:
            self.delay = encoder.get(_GET_LOOKAHEAD) + decoder.get(_GET_LOOKAHEAD)

    def encode_frames(self, frames: Pcm) -> bytes:
        """Encode frames to one run of bits."""
        library = _library()
        buffer = ctypes.create_string_buffer(len(frames) * _MOST_BYTES)
        with _Coder("encoder") as encoder:
            library.speex_bits_init_buffer(byref(encoder.bits), buffer, len(buffer))
            encoder.set(_SET_QUALITY, self._quality)
            encoder.set(_SET_COMPLEXITY, 10)
            for frame in frames.copy():  # libspeex writes into its input
                library.speex_encode_int(encoder.state, frame.ctypes, byref(encoder.bits))
            return buffer.raw[: library.speex_bits_nbytes(byref(encoder.bits))]

    def decode_frames(self, payload: bytes, frames: int) -> Pcm:
        """Decode frames from one run of bits."""
        library = _library()
        decoded = np.empty((frames, self.frame), np.int16)
        with _Coder("decoder") as decoder:
            library.speex_bits_set_bit_buffer(byref(decoder.bits), payload, len(payload))
            for frame in decoded:
                if library.speex_decode_int(decoder.state, byref(decoder.bits), frame.ctypes):
                    raise MelcapError("libspeex cannot decode its own bits")
        return decoded


class _Coder:
    """A context with an encoder or a decoder of libspeex, and the bits that it writes or reads."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __enter__(self) -> _Coder:
        library = _library()
        self.state = c_void_p(
            self._call("init", c_void_p(library.speex_lib_get_mode(_NARROW_BAND)))
        )
        # The buffer is Python's. libspeex prints to stderr whenever its own buffer has to grow.
        self.bits = _Bits()
        return self

    def __exit__(self, *_: object) -> None:
        self._call("destroy", self.state)

    def get(self, request: int) -> int:
        value = c_int()
        self._call("ctl", self.state, request, byref(value))
        return value.value

    def set(self, request: int, value: int) -> None:
        self._call("ctl", self.state, request, byref(c_int(value)))

    def _call(self, what: str, *arguments: object) -> int:
        called: int = getattr(_library(), f"speex_{self._kind}_{what}")(*arguments)
        return called


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(find_library("speex") or "libspeex.so.1")
    except OSError as error:
        raise MelcapError(
            "the codec speex needs libspeex, which is not found: install it (Debian and Ubuntu: "
            "apt install libspeex1, Fedora: dnf install speex, macOS: brew install speex)"
        ) from error
    for name in ("speex_encoder_init", "speex_decoder_init", "speex_lib_get_mode"):
        getattr(library, name).restype = c_void_p
    return library
