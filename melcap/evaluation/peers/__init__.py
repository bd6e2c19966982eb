"""Codecs to compare on the same clips, each behind two calls: encode, and decode what that gave.

The bytes are what must be kept to get the audio back. For Opus they are the packets alone, without
Ogg pages around them, for Codec 2 and Speex the bits of the frames; for melcap they are the whole
`.melcap` file.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from melcap.errors import InputError
from melcap.evaluation import CODECS
from melcap.evaluation.peers.base import Audio, Codec, Coded

__all__ = ["Audio", "Codec", "Coded", "codec", "label"]


@cache
def codec(name: str) -> Codec:
    """The codec of that name, built once in a process.

    One of `CODECS`, `opus-KBPS`, `codec2-BPS`, `speex-KBPS`, a melcap weights file,
    FILE.safetensors, or a checkpoint folder of its training, RUN/stage2. Raises
    `InputError` for an unknown name, a rate that the codec does not have and a folder without a
    checkpoint, `WeightsError` for a file that holds no weights, and `MelcapError`, with what to
    install, for a codec that is not installed.
    """
    from melcap.evaluation.peers.bounds import GriffinLim, Original
    from melcap.evaluation.peers.checkpoint import trained
    from melcap.evaluation.peers.codec2 import Codec2
    from melcap.evaluation.peers.opus import Opus
    from melcap.evaluation.peers.own import Melcap
    from melcap.evaluation.peers.speex import Speex
    from melcap.pretrained import load

    family, _, rate = name.partition("-")
    if name.endswith(".safetensors"):
        return Melcap(name, load(name))
    if _is_checkpoint(name):
        return trained(name)
    if family == "opus" and rate.isdecimal():
        return Opus(int(rate))
    if family == "codec2" and rate.isdecimal():
        return Codec2(int(rate))
    if name == "speex" or (family == "speex" and rate.isdecimal()):
        return Speex(int(rate or 4), name)
    if name == "melcap":
        return Melcap(name, load())
    if name == "melcap-fast":
        return Melcap(name, load(quality="fast"))
    if name == "melcap-best":
        return Melcap(name, load(quality="best"))
    if name == "griffin-lim":
        return GriffinLim()
    if name == "original":
        return Original()
    raise InputError(
        f"unknown codec {name!r}: choose among {', '.join(CODECS)}, FILE.safetensors, RUN/stage2"
    )


def _is_checkpoint(name: str) -> bool:
    from melcap.training.checkpoint import INDEX

    return (Path(name) / INDEX).is_file()


def label(name: str) -> str:
    """What a file of weights, or a checkpoint, is called in pictures; other names as they are."""
    path = Path(name)
    if _is_checkpoint(name):  # the checkpoints of all runs have the same names
        return f"{path.absolute().parent.name}-{path.name}"
    return path.stem if path.suffix == ".safetensors" else name
