"""Codecs to compare on the same clips, each behind two calls: encode, and decode what that gave.

The bytes are what must be kept to get the audio back. For Opus they are the packets alone, without
Ogg pages around them, for Codec 2 and Speex the bits of the frames; for melcap they are the whole
`.melcap` file.
"""

from __future__ import annotations

from functools import cache

from melcap.errors import InputError
from melcap.evaluation import CODECS
from melcap.evaluation.peers.base import Audio, Codec, Coded

__all__ = ["Audio", "Codec", "Coded", "codec"]


@cache
def codec(name: str) -> Codec:
    """The codec of that name, built once in a process.

    One of `CODECS`, `opus-KBPS`, `codec2-BPS`, `speex-KBPS`, or a melcap weights file,
    FILE.safetensors. Raises `InputError` for an unknown name or a rate that the codec does not
    have, `WeightsError` for a file that holds no weights, and `MelcapError`, with what to install,
    for a codec that is not installed.
    """
    from melcap.evaluation.peers.bounds import GriffinLim, Original
    from melcap.evaluation.peers.codec2 import Codec2
    from melcap.evaluation.peers.opus import Opus
    from melcap.evaluation.peers.own import Melcap
    from melcap.evaluation.peers.speex import Speex

    family, _, rate = name.partition("-")
    if name.endswith(".safetensors"):
        return Melcap(name)
    if family == "opus" and rate.isdecimal():
        return Opus(int(rate))
    if family == "codec2" and rate.isdecimal():
        return Codec2(int(rate))
    if name == "speex" or (family == "speex" and rate.isdecimal()):
        return Speex(int(rate or 4), name)
    if name == "melcap":
        return Melcap()
    if name == "griffin-lim":
        return GriffinLim()
    if name == "original":
        return Original()
    raise InputError(f"unknown codec {name!r}: choose among {', '.join(CODECS)}, FILE.safetensors")
