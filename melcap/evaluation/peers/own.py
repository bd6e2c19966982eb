"""melcap itself: the weights that ship, or those of a file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from melcap import Codec as Weights
from melcap import container
from melcap.codes import Codes
from melcap.evaluation.peers.base import Audio, Codec, Coded
from melcap.pretrained import weights_hash


class Melcap(Codec):
    """melcap with these weights, through a real `.melcap` file."""

    def __init__(self, name: str, weights: Weights) -> None:
        self.name = name
        self.weights = weights
        self.config = weights.config
        self.identity = weights.model
        self.codebook_size = self.config.tokenizer.codebook_size

    def encode(self, wave: Audio, sample_rate: int) -> Coded:
        tokens = self.weights.encode(wave, sample_rate).tokens.numpy()
        header = container.Header(
            model=self.config.name,
            weights=weights_hash(self.weights),
            sample_rate=sample_rate,
            channels=1,
            samples=len(wave),
            rows=tokens.shape[1],
            columns=tokens.shape[2],
            bits=self.config.tokenizer.bits,
        )
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "clip.melcap"
            container.write(file, header, tokens)
            payload = file.read_bytes()
        return Coded(payload, len(payload), len(wave), sample_rate, tokens[0])

    def decode(self, coded: Coded) -> Audio:
        wave: Audio = self.weights.decode(self.codes(coded))[0].numpy()
        return wave

    def codes(self, coded: Coded) -> Codes:
        """What is in the file."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "clip.melcap"
            file.write_bytes(coded.payload)
            header, tokens = container.read(file)
        return Codes(
            torch.from_numpy(tokens),
            (header.columns,),
            (header.samples,),
            header.sample_rate,
            self.identity,
        )
