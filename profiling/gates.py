"""Check codecs before they are timed: they work, and melcap gives what the reference gives."""

from __future__ import annotations

from functools import partial

import torch
from contenders import CODECS, codec_of
from torch import Tensor

from melcap.bench.agreement import disagreement
from melcap.bench.speed import Contender, settled

LONGER = 4096
"""Samples by which a peer's wave may differ in length from what went in."""


def agreement(contender: Contender, wave: Tensor) -> str | None:
    """Return why a contender must not be timed, or None.

    Tokens and samples of melcap's codecs, base among them, are compared with those of the same
    codec on the reference backend of a CPU (melcap.bench.agreement). A peer has random weights: its
    waves must be finite, and about as long as what went in.
    """
    wave = wave[None].to(contender.device)
    made = settled(partial(contender.encode, wave), contender.device)
    decoded = settled(partial(contender.decode, made), contender.device)
    if (codec := codec_of(contender.name)) is not None:
        return disagreement(made, decoded, wave, CODECS[codec]())
    length = decoded.numel()
    if not torch.isfinite(decoded).all() or abs(length - wave.numel()) > LONGER:
        return f"gave {length} samples for {wave.numel()}, or some that are not finite"
    return None
