"""What every codec in a comparison can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from melcap.evaluation.measures.signals import Wave, resample

Audio: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Coded:
    """A clip, encoded.

    Attributes:
        payload: all that the decoder gets, besides `samples` and `sample_rate`.
        size: bytes of it, as a file would keep it.
        samples, sample_rate: of the audio that went in, and is to come out.
        tokens: integers, where there is a codebook.
    """

    payload: Any
    size: int
    samples: int
    sample_rate: int
    tokens: npt.NDArray[np.integer[Any]] | None = None

    def fitted(self, decoded: Wave, rate: int) -> Audio:
        """What was decoded, [samples] at `rate`, at the rate and the length of what went in."""
        wave = resample(decoded, rate, self.sample_rate)[: self.samples]
        return np.pad(wave, (0, self.samples - len(wave))).astype(np.float32)


class Codec(ABC):
    """A codec, or a bound for one.

    Attributes:
        name: as it stands in tables.
        identity: tells results of this codec from those of another version, or other weights.
        speech_only: made for speech, and measured on nothing else.
        bound: no codec, but the best or the worst that one can do; its speed says nothing.
        codebook_size: entries of the codebook that `Coded.tokens` point into.
        tokenizer_id: what the tokens mean, where there are any.
    """

    name: str
    identity: str
    speech_only: ClassVar[bool] = False
    bound: ClassVar[bool] = False
    codebook_size: int | None = None
    tokenizer_id: str | None = None

    @abstractmethod
    def encode(self, wave: Audio, sample_rate: int) -> Coded:
        """[samples] at `sample_rate` Hz, full scale at 1."""

    @abstractmethod
    def decode(self, coded: Coded) -> Audio:
        """As many samples as went in, at the same rate, aligned in time."""

    def round_trip(self, wave: Audio, sample_rate: int) -> tuple[Audio, int]:
        """[samples] at `sample_rate` Hz to as many samples, aligned in time, and the bytes."""
        coded = self.encode(wave, sample_rate)
        return self.decode(coded), coded.size
