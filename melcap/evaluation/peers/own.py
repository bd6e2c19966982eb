"""melcap itself: the weights that ship, or those of a file."""

from __future__ import annotations

from melcap import Codec as Weights
from melcap.codes import Codes
from melcap.evaluation.peers.base import Audio, Codec, Coded
from melcap.io import container


class Melcap(Codec):
    """melcap with these weights, through a real `.melcap` file."""

    def __init__(self, name: str, weights: Weights) -> None:
        self.name = name
        self.weights = weights
        self.config = weights.config
        self.identity = weights.model
        if weights.quality != "default":
            self.identity += f" {weights.quality}"
        self.codebook_size = weights.vocab_size
        self.tokenizer_id = weights.tokenizer_id

    def encode(self, wave: Audio, sample_rate: int) -> Coded:
        codes = self.weights.encode(wave, sample_rate)
        header = container.Header(
            model=codes.model,
            tokenizer_id=codes.tokenizer_id,
            sample_rate=sample_rate,
            channels=1,
            samples=len(wave),
            rows=self.weights.rows,
            columns=codes.columns[0],
            bits=self.config.tokenizer.bits,
        )
        tokens = codes.numpy()
        payload = container.pack(header, tokens[None])
        return Coded(payload, len(payload), len(wave), sample_rate, tokens)

    def decode(self, coded: Coded) -> Audio:
        wave: Audio = self.weights.decode(self.codes(coded))[0].numpy()
        return wave

    def codes(self, coded: Coded) -> Codes:
        """Return what is in the file, a clip of one channel."""
        return Codes.from_bytes(coded.payload)
