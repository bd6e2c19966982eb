"""Find the codec that a name stands for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeAlias

from melcap.errors import InputError
from melcap.evaluation.peers import CODECS
from melcap.evaluation.peers.base import Peer
from melcap.evaluation.peers.bounds import GriffinLimOracle, Original
from melcap.evaluation.peers.codec2 import Codec2
from melcap.evaluation.peers.opus import Opus
from melcap.evaluation.peers.own import Melcap
from melcap.evaluation.peers.speex import Speex
from melcap.pretrained import load

RATED = ("opus", "codec2", "speex")
"""The codecs whose names end in a rate."""

FindPeer: TypeAlias = Callable[[str], Peer]
"""A function that finds a codec by its name, such as `peer`.

Worker processes call it again, so it must be a function of a module, not a lambda or a closure.
"""


@cache
def peer(name: str) -> Peer:
    """Return the codec that a name stands for, built once in each process.

    Args:
        name: one of `CODECS`, `opus-KBPS`, `codec2-BPS`, `speex-KBPS`, or a file of melcap weights,
            FILE.safetensors.

    Raises:
        InputError: for an unknown name, or a rate that the codec does not have.
        WeightsError: for a file that holds no weights.
        MelcapError: for a codec that is not installed; it says what to install.
    """
    family, _, rate = name.partition("-")
    if name.endswith(".safetensors"):
        return Melcap(name, load(name))
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
        return GriffinLimOracle()
    if name == "original":
        return Original()
    raise InputError(
        f"unknown codec {name!r}: choose among {', '.join(CODECS)}, a weights file "
        "FILE.safetensors, or (`melcap evaluate` and `melcap probe`) a checkpoint RUN/stage2"
    )


def is_codec(name: str) -> bool:
    """Return whether `peer` takes a name for that of a codec, which need not be installed."""
    family, _, rate = name.partition("-")
    rated = family in RATED and (not rate or rate.isdecimal())
    return rated or name in CODECS or name.endswith(".safetensors")


def label(name: str) -> str:
    """Return what a codec is called in pictures and in the names of files.

    A weights file is called by its name without the suffix. A checkpoint is called RUN-STAGE, since
    the checkpoints of all training runs have the same names. Other names stay as they are.
    """
    path = Path(name)
    if path.suffix == ".safetensors":
        return path.stem
    return f"{path.parent.name}-{path.name}" if len(path.parts) > 1 else name
