"""melcap itself."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from melcap import container
from melcap.codes import Codes
from melcap.evaluation.peers.base import Audio, Codec, Coded
from melcap.pretrained import load, weights_hash


class Melcap(Codec):
    """melcap with the weights that ship, or of a file, through a real `.melcap` file."""

    def __init__(self, weights: str | None = None) -> None:
        self.name = weights or "melcap"
        self._codec = load(weights)
        self.config = self._codec.config
        self.identity = self._codec.model
        self.codebook_size = self.config.tokenizer.codebook_size

    def encode(self, wave: Audio, sample_rate: int) -> Coded:
        tokens = self._codec.encode(wave, sample_rate).tokens.numpy()
        header = container.Header(
            model=self.config.name,
            weights=weights_hash(self._codec),
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
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "clip.melcap"
            file.write_bytes(coded.payload)
            header, tokens = container.read(file)
        codes = Codes(
            torch.from_numpy(tokens),
            (header.columns,),
            (header.samples,),
            header.sample_rate,
            self.identity,
        )
        wave: Audio = self._codec.decode(codes)[0].numpy()
        return wave
