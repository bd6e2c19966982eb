"""A training run as it stands: the part that it has learnt, with an oracle for the rest."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from melcap import Codec as Weights
from melcap.errors import InputError
from melcap.evaluation.measures.signals import resample
from melcap.evaluation.measures.spectral import MEL
from melcap.evaluation.peers.base import Audio, Codec, Coded
from melcap.evaluation.peers.bounds import GriffinLim
from melcap.evaluation.peers.own import Melcap
from melcap.io.weights_file import HASH_BYTES
from melcap.model.stages import Chain, inputs_for, outputs_of, run
from melcap.training.checkpoint import INDEX, Checkpoint


def trained(name: str) -> Codec:
    """Return the codec of a checkpoint folder of `melcap.training.run`.

    Of stage 2 that is the whole codec, of stage 1 the `Tokenizer`, of a vocoder on true mels the
    `Vocoder`. Raises `InputError` where the folder holds no checkpoint.
    """
    found = Checkpoint(Path(name))
    index = (Path(name) / INDEX).read_bytes()  # it holds the hashes of all files
    digest = hashlib.sha256(index).hexdigest()[: 2 * HASH_BYTES]
    weights = Weights(found.codec, f"{found.codec.name}-{digest}")
    for part, state in found.exported().items():
        if part == "learner":
            weights.codebook.vectors.copy_(state["codebook.vectors"])
        elif part != "discriminators":
            weights.get_submodule(part).load_state_dict(state)
    weights.eval().requires_grad_(False)
    if found.recipe == "vocoder":
        return Vocoder(name, weights)
    weights.learn_silence()
    return Melcap(name, weights) if found.recipe == "stage2" else Tokenizer(name, weights)


class Tokenizer(Melcap):
    """Stage 1: tokens, and what the mel decoder makes of them with the phase that the oracle finds.

    Raises `InputError` for a codec whose mel is not the one that the oracle is made for.
    """

    def __init__(self, name: str, weights: Weights) -> None:
        super().__init__(name, weights)
        self.oracle = GriffinLim()
        mel = replace(weights.config.mel, floor=MEL.floor, mean=MEL.mean, std=MEL.std)
        if mel != MEL:
            raise InputError(
                f"{name}: only stage 2 of this codec can be measured: stage 1 goes through "
                f"Griffin-Lim, which is for {MEL.n_mels} mel bins of {MEL.n_fft} samples every "
                f"{MEL.hop} at {MEL.sample_rate} Hz"
            )

    @torch.no_grad()
    def decode(self, coded: Coded) -> Audio:
        mel, codebook = self.config.mel, self.weights.codebook
        tokens = self.codes(coded).tokens
        frames = tokens.shape[-1] * self.config.tokenizer.patch_frames
        quiet = codebook.latents(self.weights.silence[None, :, None])
        made = _through(self.weights.decoder, codebook.latents(tokens), quiet, frames)[0]
        magnitudes = (made * mel.std + mel.mean).exp()
        # The oracle's frames lie half a hop later.
        wave = self.oracle.wave(F.pad(magnitudes, (0, 1), "replicate"), frames * mel.hop)
        wave = F.pad(wave, (mel.hop // 2, 0)).clamp(-1, 1)
        return coded.fitted(wave.numpy(), mel.sample_rate)


class Vocoder(Codec):
    """Stage 2 on true mels: the vocoder, given the mel of the original, which counts no bytes."""

    bound = True

    def __init__(self, name: str, weights: Weights) -> None:
        self.name = name
        self.weights = weights
        self.identity = weights.model

    def encode(self, wave: Audio, sample_rate: int) -> Coded:
        rate = self.weights.config.mel.sample_rate
        return Coded(resample(wave, sample_rate, rate), 0, len(wave), sample_rate)

    @torch.no_grad()
    def decode(self, coded: Coded) -> Audio:
        weights, mel = self.weights, self.weights.config.mel
        source = torch.from_numpy(coded.payload).float()[None]
        stages = Chain(weights.front, *weights.vocoder)
        wave = _through(stages, source, source.new_zeros(1, 1), source.shape[-1])[0]
        return coded.fitted(wave.clamp(-1, 1).numpy(), mel.sample_rate)


def _through(stages: Chain, x: Tensor, quiet: Tensor, outputs: int) -> Tensor:
    """The first `outputs` of a chain over x [..., steps], before and after which it is `quiet`
    [..., 1]."""
    first, last = inputs_for([*stages], 0, outputs)
    before = quiet.expand(*x.shape[:-1], -first)
    behind = quiet.expand(*x.shape[:-1], last - x.shape[-1])
    made = run(stages, torch.cat((before, x, behind), dim=-1))
    given, _ = outputs_of([*stages], first, last)
    return made[..., -given : outputs - given]
