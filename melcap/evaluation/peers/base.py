"""The interface of every codec in a comparison."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from melcap.evaluation.measures.signals import Audio, Wave, resample

__all__ = ["Audio", "Coded", "Peer"]


@dataclass(frozen=True)
class Coded:
    """An encoded clip.

    Attributes:
        payload: all that the decoder gets besides `samples` and `sample_rate`.
        size: the payload's bytes, as a file would hold them.
        samples: the length of the audio that was encoded, and of the audio to decode.
        sample_rate: the rate of that audio in Hz.
        tokens: integers, for a codec with a codebook.
        facts: what else the clip's line in scores.jsonl says.
    """

    payload: Any
    size: int
    samples: int
    sample_rate: int
    tokens: npt.NDArray[np.integer[Any]] | None = None
    facts: Mapping[str, float | None] = field(default_factory=dict)

    def fitted(self, decoded: Wave, rate: int) -> Audio:
        """Return decoded audio, [samples] at `rate` Hz, at the rate and length of the original."""
        wave = resample(decoded, rate, self.sample_rate)[: self.samples]
        return np.pad(wave, (0, self.samples - len(wave))).astype(np.float32)


class Peer(ABC):
    """A codec, or a bound for codecs.

    Attributes:
        name: its name in the tables.
        identity: a text that changes with the version or the weights of the codec, so that results
            of different ones are never mixed.
        speech_only: whether the codec is made for speech; then it is measured on speech alone.
        bound: whether this is not a codec but the best or worst that one can do. The speed of a
            bound means nothing.
        from_files: whether somebody else encoded and decoded, and audio files are read instead.
            Then nothing is known of speed and bytes.
        codebook_size: the number of entries of the codebook that `Coded.tokens` point into.
        codebook: these entries, [codebook size, dim]. A codec that has them has tokens
            [rows, columns].
        column_seconds: the seconds that a column of these tokens lasts.
        tokenizer_id: the identity of the tokenizer, for a codec with tokens.
    """

    name: str
    identity: str
    speech_only: ClassVar[bool] = False
    bound: ClassVar[bool] = False
    from_files: ClassVar[bool] = False
    codebook_size: int | None = None
    codebook: npt.NDArray[np.float32] | None = None
    column_seconds: float = 0.0
    tokenizer_id: str | None = None

    @abstractmethod
    def encode(self, wave: Audio, sample_rate: int) -> Coded:
        """Encode [samples] at `sample_rate` Hz, full scale at 1."""

    @abstractmethod
    def decode(self, coded: Coded) -> Audio:
        """Decode as many samples as were encoded, at the same rate and aligned in time."""

    def round_trip(self, wave: Audio, sample_rate: int) -> tuple[Audio, int]:
        """Return [samples] after encoding and decoding, and the number of bytes in between."""
        coded = self.encode(wave, sample_rate)
        return self.decode(coded), coded.size
