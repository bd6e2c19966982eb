"""Codecs of which a part is still untrained: true mels or Griffin-Lim stand in for it."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from melcap.codec import Codec
from melcap.errors import InputError
from melcap.evaluation.measures.signals import resample
from melcap.evaluation.measures.spectral import MEL
from melcap.evaluation.peers.base import Audio, Coded, Peer
from melcap.evaluation.peers.bounds import GriffinLimOracle
from melcap.evaluation.peers.own import Melcap
from melcap.model.stages import Chain, inputs_for, outputs_of, run


class WithoutVocoder(Melcap):
    """A trained tokenizer and mel decoder (stage 1), with phases found by Griffin-Lim.

    Raises:
        InputError: for a codec whose log-mel is not the one that `GriffinLimOracle` inverts.
    """

    codec: Codec

    def __init__(self, name: str, codec: Codec) -> None:
        super().__init__(name, codec)
        self.griffin_lim = GriffinLimOracle()
        mel = replace(codec.config.mel, floor=MEL.floor, mean=MEL.mean, std=MEL.std)
        if mel != MEL:
            raise InputError(
                f"{name}: only stage 2 of this codec can be measured: stage 1 goes through "
                f"Griffin-Lim, which is for {MEL.n_mels} mel bins of {MEL.n_fft} samples every "
                f"{MEL.hop} at {MEL.sample_rate} Hz"
            )

    @torch.no_grad()
    def decode(self, coded: Coded) -> Audio:
        """Decode tokens to a log-mel, and find a wave for it by Griffin-Lim."""
        mel, codebook = self.config.mel, self.codec.codebook
        tokens = self.codes(coded).tokens
        frames = tokens.shape[-1] * self.config.tokenizer.patch_frames
        silence = codebook.latents(self.codec.silence[None, :, None])
        log_mel = run_padded(self.codec.decoder, codebook.latents(tokens), silence, frames)[0]
        magnitudes = (log_mel * mel.std + mel.mean).exp()
        # The frames of GriffinLimOracle lie half a hop later than the codec's.
        wave = self.griffin_lim.wave(F.pad(magnitudes, (0, 1), "replicate"), frames * mel.hop)
        wave = F.pad(wave, (mel.hop // 2, 0)).clamp(-1, 1)
        return coded.fitted(wave.numpy(), mel.sample_rate)


class OnlyVocoder(Peer):
    """A vocoder that is given the log-mel of the original audio, which counts no bytes."""

    bound = True

    def __init__(self, name: str, codec: Codec) -> None:
        self.name = name
        self.codec = codec
        self.identity = codec.model

    def encode(self, wave: Audio, sample_rate: int) -> Coded:
        """Resample [samples] to the rate of the codec."""
        rate = self.codec.config.mel.sample_rate
        return Coded(resample(wave, sample_rate, rate), 0, len(wave), sample_rate)

    @torch.no_grad()
    def decode(self, coded: Coded) -> Audio:
        """Compute the log-mel of the audio and make a wave of it."""
        codec, mel = self.codec, self.codec.config.mel
        source = torch.from_numpy(coded.payload).float()[None]
        stages = Chain(codec.front, *codec.vocoder)
        wave = run_padded(stages, source, source.new_zeros(1, 1), source.shape[-1])[0]
        return coded.fitted(wave.clamp(-1, 1).numpy(), mel.sample_rate)


def run_padded(stages: Chain, x: Tensor, silence: Tensor, outputs: int) -> Tensor:
    """Run a chain of stages on a signal that is extended with silence on both sides.

    Args:
        stages: the chain.
        x: the signal, [..., steps].
        silence: one step of silence, [..., 1].
        outputs: how many steps to return.

    Returns:
        The steps of the output from the beginning of the signal, [..., outputs].
    """
    first, last = inputs_for([*stages], 0, outputs)
    before = silence.expand(*x.shape[:-1], -first)
    after = silence.expand(*x.shape[:-1], last - x.shape[-1])
    made = run(stages, torch.cat((before, x, after), dim=-1))
    given, _ = outputs_of([*stages], first, last)
    return made[..., -given : outputs - given]
