"""Stage 1: encoder, codebook and mel decoder are trained to reconstruct log-mel pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcap.codec import Codec
from melcap.model.mel import LogMel
from melcap.model.quantizer import Codebook
from melcap.model.stages import inputs_for, outputs_of, run
from melcap.model.tokenizer import mel_decoder, mel_encoder
from melcap.training import losses
from melcap.training.adversarial import AdversarialTraining
from melcap.training.config import TrainingConfig
from melcap.training.discriminators import MelDiscriminator
from melcap.training.ema_codebook import Coded, EmaCodebook, count_tokens
from melcap.training.optimisers import descend, optimisers_of
from melcap.training.pieces import Figures, Pieces


class _Pass(NamedTuple):
    """A forward pass: pictures [batch, mels, frames] before and after, and the codes between."""

    decoded: Tensor
    target: Tensor
    commitment: Tensor
    coded: Coded


class Stage1:
    """A recipe with an L1 loss of the normalised log-mel, commitment, and an EMA codebook.

    A texture loss and a discriminator of pictures are added where the configuration asks for them.
    With `config.decoder_only` encoder and codebook do not change, and the decoder is trained on
    tokens. Crops carry the context of encoder and decoder, so every supervised frame is computed
    exactly as in use. `config.columns` columns of the picture are compared in each crop.
    """

    bf16 = False
    accumulate = 1

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        codec = config.codec
        self.front = LogMel(codec.mel)
        self.encoder = mel_encoder(codec)
        self.decoder = mel_decoder(codec)
        self.codebook = Codebook(codec.tokenizer.codebook_size, codec.tokenizer.codebook_dim)
        self.ema_codebook = EmaCodebook(
            self.codebook,
            warmup=config.codebook_warmup,
            decay=config.codebook_decay,
            dead=config.codebook_dead,
            unit=codec.tokenizer.unit_latents,
        )
        self.samples, self._target, self._output = self._layout(config.columns)
        self._run = run
        named = [*self.decoder.named_parameters("decoder")]
        if config.decoder_only:
            self.encoder.requires_grad_(False)
        else:
            named = [*self.encoder.named_parameters("encoder"), *named]
        self._parameters = [parameter for _, parameter in named]
        self._optimisers = optimisers_of("tokenizer", named, config)
        self.adversarial: AdversarialTraining | None = None
        if config.discriminators:
            discriminator = MelDiscriminator(base=config.discriminators)
            self.adversarial = AdversarialTraining([discriminator], config)

    def _layout(self, columns: int) -> tuple[int, slice, slice]:
        """Return the samples of a crop, and the supervised frames in its mel and in the output."""
        encode = [self.front, *self.encoder]
        frames = columns * self.config.codec.tokenizer.patch_frames
        latents = inputs_for([*self.decoder], 0, frames)
        first, last = inputs_for(encode, *latents)
        in_mel = outputs_of([self.front], first, last)[0]
        in_output = outputs_of([*self.decoder], *latents)[0]
        target, output = slice(-in_mel, frames - in_mel), slice(-in_output, frames - in_output)
        return last - first, target, output

    def start_from(self, codec: Codec, mel_decoder: Mapping[str, Tensor] | None = None) -> None:
        """Begin with a codec's weights. The codebook then needs no k-means.

        Args:
            codec: the codec.
            mel_decoder: the state of a mel decoder in the place of the codec's own, which was tuned
                for its vocoder and does not decode to mels any more.
        """
        self.encoder.load_state_dict(codec.encoder.state_dict())
        self.decoder.load_state_dict(mel_decoder or codec.decoder.state_dict())
        self.ema_codebook.start_from(codec.codebook.vectors)

    def modules(self) -> dict[str, nn.Module]:
        """Return all modules of a checkpoint by name."""
        found: dict[str, nn.Module] = {"encoder": self.encoder, "decoder": self.decoder}
        found["ema_codebook"] = self.ema_codebook
        if self.adversarial is not None:
            found["discriminators"] = self.adversarial.discriminators
        return found

    def averaged(self) -> dict[str, nn.Module]:
        """Return the modules that are trained by gradients and exported."""
        if self.config.decoder_only:
            return {"decoder": self.decoder}
        return {"encoder": self.encoder, "decoder": self.decoder}

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers by name."""
        if self.adversarial is None:
            return self._optimisers
        return self._optimisers | {"discriminators": self.adversarial.optimiser}

    def compile(self, backend: str = "inductor") -> None:
        """Compile encoder, decoder and discriminators with torch.compile."""
        # Compiling a Chain itself would compile each layer alone.
        self._run = torch.compile(run, backend=backend, dynamic=False)
        if self.adversarial is not None:
            self.adversarial.compile(backend)

    def uncompile(self) -> None:
        """Undo `compile`."""
        self._run = run
        if self.adversarial is not None:
            self.adversarial.uncompile()

    def step(self, wave: Tensor) -> Figures:
        """Update everything once from waves [batch, samples]; return the figures to log."""
        pieces = Pieces(wave, self.accumulate, self._pass)
        figures: Figures = {}
        if self.adversarial is not None:
            seen = (_seen(passed) for passed in pieces.preview())
            figures["discriminator"] = self.adversarial.discriminator_step(seen, self.bf16)
        coded: list[Coded] = []

        def objective(passed: _Pass) -> tuple[Tensor, Figures]:
            coded.append(passed.coded)
            return self._objective(passed)

        gradient = descend(
            pieces.losses(objective), self._parameters, self._optimisers, self.config.clip
        )
        figures |= {**pieces.figures(), "gradient": gradient}
        if self.config.decoder_only:
            tokens = torch.cat([each.tokens for each in coded if each.tokens is not None])
            hits = count_tokens(tokens, len(self.codebook.vectors))
        else:
            hits = self.ema_codebook.move(coded)
        return figures | {"codes_in_batch": hits.count_nonzero().float()}

    def _pass(self, wave: Tensor) -> _Pass:
        with torch.no_grad():
            mel = self.front(wave)
        quantised, commitment, coded = self._quantised(mel)
        with torch.autocast(wave.device.type, torch.bfloat16, enabled=self.bf16):
            decoded = self._run([*self.decoder], quantised)[..., self._output]
        return _Pass(decoded.float(), mel[..., self._target], commitment, coded)

    def _quantised(self, mel: Tensor) -> tuple[Tensor, Tensor, Coded]:
        """Return the quantised latents, the commitment loss, and the latents with their tokens."""
        if self.config.decoder_only:
            with torch.no_grad():
                tokens = self.codebook.tokens(self._run([*self.encoder], mel))
                # Without latents, because this codebook does not move.
                coded = Coded(self.codebook.vectors[:0], tokens.flatten())
                return self.codebook.latents(tokens), mel.new_zeros(()), coded
        with torch.autocast(mel.device.type, torch.bfloat16, enabled=self.bf16):
            latents = self._run([*self.encoder], mel)
        quantised, commitment, coded = self.ema_codebook(latents.float())
        return quantised, commitment, coded

    def _objective(self, passed: _Pass) -> tuple[Tensor, Figures]:
        """Return the loss of pictures, and the figures to log."""
        config = self.config
        decoded, target = passed.decoded, passed.target
        # The picture's values are log magnitudes over `std`.
        loudness = losses.loudness_l1(decoded, target, config.loudness * config.codec.mel.std)
        figures = {"mel_l1": F.l1_loss(decoded, target), "loudness_l1": loudness}
        figures["commitment"] = passed.commitment
        loss = loudness + config.commitment * passed.commitment
        if config.texture_weight:
            figures["texture"] = losses.roughness_loss(decoded, target)
            loss = loss + config.texture_weight * figures["texture"]
        if self.adversarial is not None:
            adversarial, matching = self.adversarial.generator_losses(*_seen(passed), self.bf16)
            loss = config.spectral * loss
            loss = loss + config.adversarial * adversarial + config.features * matching
            figures |= {"adversarial": adversarial, "features": matching}
        return loss, figures

    def samples_for(self, columns: int) -> int:
        """Return the samples of a crop for `reconstruct`."""
        return self._layout(columns)[0]

    @torch.no_grad()
    def reconstruct(self, wave: Tensor, columns: int) -> tuple[Tensor, Tensor]:
        """Return the normalised log-mels [batch, mels, frames] of crops, before and after."""
        _, target, output = self._layout(columns)
        mel = self.front(wave)
        latents = run(self.encoder, mel)  # uncompiled: compiling for this length would not pay
        warm = int(self.ema_codebook.seen) > self.ema_codebook.warmup
        if self.config.decoder_only or warm:
            latents = self.codebook.latents(self.codebook.tokens(latents))
        return mel[..., target], run(self.decoder, latents)[..., output]


def _seen(passed: _Pass) -> tuple[Tensor, Tensor]:
    """Return output and target as discriminators see them, [batch, 1, mels, frames]."""
    return passed.decoded[:, None], passed.target[:, None].contiguous()
