"""The joint stage: all parts of a trained codec are tuned together on the waveform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from melcap.model.stages import inputs_for, outputs_of
from melcap.training import losses
from melcap.training.config import TrainingConfig
from melcap.training.ema_codebook import Coded, EmaCodebook
from melcap.training.optimisers import optimisers_of
from melcap.training.pieces import Figures
from melcap.training.stage2 import Made, Stage2


class Joint(Stage2):
    """Stage 2 with an encoder and a codebook that are trained as well.

    The losses of the wave reach the encoder straight through the codebook, with the commitment loss
    of stage 1. The encoder has a learning rate of its own, `config.encoder_rate` times that of mel
    decoder and vocoder. The codebook follows the encoder as in stage 1, from its trained vectors.
    What comes out is another tokenizer.

    The mel decoder of a trained codec is tuned for its vocoder and does not decode to mels any
    more. So `config.picture_weight`, of the mel loss of stage 1 on the decoder's picture, is 0
    unless it is given.

    Args:
        config: the settings.
        tokenizer: the states of encoder, mel decoder and codebook, see `Checkpoint.tokenizer`.
    """

    def __init__(
        self, config: TrainingConfig, tokenizer: Mapping[str, Mapping[str, Tensor]]
    ) -> None:
        super().__init__(config, tokenizer)
        self.encoder.requires_grad_(True)
        self.ema_codebook = EmaCodebook(
            self.codebook,
            warmup=config.codebook_warmup,
            decay=config.codebook_decay,
            dead=config.codebook_dead,
            unit=config.codec.tokenizer.unit_latents,
        )
        self.ema_codebook.start_from(tokenizer["codebook"]["vectors"])
        assert self.decoder is not None
        self._to_picture = [*self.decoder]
        self._to_wave = self._trained[len(self._to_picture) :]
        self._mel, self._picture = self._picture_layout()
        self._weights |= {"commitment": config.commitment, "picture": config.picture_weight}
        named = [*self.encoder.named_parameters("encoder")]
        self._parameters += [parameter for _, parameter in named]
        optimisers = optimisers_of("encoder", named, config)
        for optimiser in optimisers.values():
            for group in optimiser.param_groups:
                group["share_of_rate"] = config.encoder_rate
        self._optimisers |= optimisers

    def _picture_layout(self) -> tuple[slice, slice]:
        """Return the supervised frames in the mel of a crop and in the mel decoder's picture."""
        codec = self.config.codec
        frames = self.config.columns * codec.tokenizer.patch_frames
        latents = inputs_for(self._trained, 0, self.config.columns * codec.column_samples)
        in_mel = outputs_of([self.front], *inputs_for(self._before, *latents))[0]
        in_picture = outputs_of(self._to_picture, *latents)[0]
        return slice(-in_mel, frames - in_mel), slice(-in_picture, frames - in_picture)

    def modules(self) -> dict[str, nn.Module]:
        """Return all modules of a checkpoint by name."""
        found = super().modules()
        del found["codebook"]  # `ema_codebook` holds it
        return found | {"ema_codebook": self.ema_codebook}

    def averaged(self) -> dict[str, nn.Module]:
        """Return the modules that are trained by gradients and exported."""
        return super().averaged() | {"encoder": self.encoder}

    def _made(self, wave: Tensor) -> Made:
        with torch.no_grad():
            mel = self.front(wave)
        with torch.autocast(wave.device.type, torch.bfloat16, enabled=self.bf16):
            latents = self._run([*self.encoder], mel)
        quantised, commitment, coded = self.ema_codebook(latents.float())
        with torch.autocast(wave.device.type, torch.bfloat16, enabled=self.bf16):
            picture = self._run(self._to_picture, quantised)
            made = self._run(self._to_wave, picture)[..., self._output]
        found = {"commitment": commitment}
        if self.config.picture_weight:
            loudness = self.config.loudness * self.config.codec.mel.std
            decoded, target = picture[..., self._picture].float(), mel[..., self._mel]
            found["picture"] = losses.loudness_l1(decoded, target, loudness)
        return Made(made, found, coded)

    def _after_step(self, coded: Sequence[Coded]) -> Figures:
        hits = self.ema_codebook.move(coded)
        return {"codes_in_batch": hits.count_nonzero().float()}
