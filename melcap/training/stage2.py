"""Stage 2: the vocoder, first on true mels, then together with a copy of the mel decoder."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from melcap.codec import Codec
from melcap.config import CodecConfig
from melcap.mel import LogMel
from melcap.quantizer import Codebook
from melcap.stages import Chain, Stage, inputs_for, outputs_of, run
from melcap.tokenizer import mel_decoder, mel_encoder
from melcap.training import losses
from melcap.training.discriminators import (
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
)
from melcap.vocoder import vocoder

BETAS = (0.8, 0.99)
MEL_WEIGHT, STFT_WEIGHT = 1.0, 1.0
"""Spectral losses alone: the warm start. Under a discriminator both count `SPECTRAL` times more."""
SPECTRAL, FEATURES, ADVERSARIAL = 5.0, 2.0, 1.0


class Stage2:
    """Multi-resolution spectral losses, and discriminators once they are asked for.

    With `tokenizer` (the modules of a stage-1 checkpoint) the encoder and the codebook are frozen
    and mel decoder and vocoder learn from tokens; without it the vocoder learns from true mels.
    Crops carry all the context that the supervised `columns` depend on. Discriminators cost far
    more than the vocoder: with `judged_columns` they hear so many columns of each crop, anywhere.
    """

    bf16 = False
    peak_rate = 1e-3
    peak_rate_on_tokens = 7e-4

    def __init__(
        self,
        config: CodecConfig,
        columns: int = 10,
        batch: int = 8,
        tokenizer: Mapping[str, Mapping[str, Tensor]] | None = None,
        discriminator_width: int = 0,
        judged_columns: int | None = None,
    ) -> None:
        self.batch = batch
        self.front = LogMel(config.mel)
        self.vocoder = vocoder(config)
        self.decoder: Chain | None = None
        self._frozen: list[Stage] = [self.front]
        self._learning: list[Stage] = list(self.vocoder)
        if tokenizer is not None:
            self.peak_rate = self.peak_rate_on_tokens
            encoder, self.decoder = mel_encoder(config), mel_decoder(config)
            encoder.load_state_dict(tokenizer["encoder"])
            self.decoder.load_state_dict(tokenizer["decoder"])
            self.codebook = Codebook(config.tokenizer.codebook_size, config.tokenizer.codebook_dim)
            self.codebook.vectors.copy_(tokenizer["learner"]["codebook.vectors"])
            self.encoder = encoder.requires_grad_(False)
            self._frozen = [self.front, *encoder]
            self._learning = [*self.decoder, *self.vocoder]
        supervised = columns * config.column_samples
        self._judged = min(judged_columns or columns, columns) * config.column_samples
        middle = inputs_for(self._learning, 0, supervised)
        first, last = inputs_for(self._frozen, *middle)
        given = outputs_of(self._learning, *middle)
        self.samples = last - first
        self._target = slice(-first, supervised - first)
        self._output = slice(-given[0], supervised - given[0])
        self._generator = torch.optim.AdamW(self._parameters(), betas=BETAS, weight_decay=0.01)
        self.judges: nn.ModuleList | None = None
        if discriminator_width:
            self.judges = nn.ModuleList(
                [
                    MultiPeriodDiscriminator(base=discriminator_width),
                    MultiResolutionDiscriminator(base=discriminator_width),
                ]
            )
            self._judging = torch.optim.AdamW(
                self.judges.parameters(), betas=BETAS, weight_decay=0.01
            )

    def start_from(self, codec: Codec) -> None:
        """Begin with the codec's vocoder; its tokenizer is given to the constructor."""
        self.vocoder.load_state_dict(codec.vocoder.state_dict())

    def _parameters(self) -> list[nn.Parameter]:
        return list(itertools.chain.from_iterable(stage.parameters() for stage in self._learning))

    def modules(self) -> dict[str, nn.Module]:
        found: dict[str, nn.Module] = {"vocoder": self.vocoder}
        if self.decoder is not None:
            found |= {"encoder": self.encoder, "codebook": self.codebook, "decoder": self.decoder}
        if self.judges is not None:
            found["discriminators"] = self.judges
        return found

    def averaged(self) -> dict[str, nn.Module]:
        found: dict[str, nn.Module] = {"vocoder": self.vocoder}
        return found if self.decoder is None else found | {"decoder": self.decoder}

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        found: dict[str, torch.optim.Optimizer] = {"generator": self._generator}
        if self.judges is not None:
            found["discriminators"] = self._judging
        return found

    def step(self, wave: Tensor, progress: float) -> dict[str, Tensor]:
        with torch.no_grad():
            given = run(self._frozen, wave)
            if self.decoder is not None:
                given = self.codebook.latents(self.codebook.tokens(given))
        with self._autocast(wave):
            features = run(self._learning[:-1], given)
        made = self._learning[-1](features.float())[..., self._output]  # phases need float32
        target = wave[..., self._target]
        first = int(torch.randint(made.shape[1] - self._judged + 1, ()))
        heard = slice(first, first + self._judged)
        figures = (
            self._judge(made.detach()[:, heard], target[:, heard])
            if self.judges is not None
            else {}
        )
        spectra, wanted = losses.Spectra(made), losses.Spectra(target)
        stft = losses.multi_resolution_stft_loss(spectra, wanted)
        mel = losses.multi_scale_mel_loss(spectra, wanted)
        loss = STFT_WEIGHT * stft + MEL_WEIGHT * mel
        figures |= {"stft": stft, "mel": mel}
        if self.judges is not None:
            adversarial, matching = self._persuade(made[:, heard], target[:, heard])
            loss = SPECTRAL * loss + ADVERSARIAL * adversarial + FEATURES * matching
            figures |= {"adversarial": adversarial, "features": matching}
        self._generator.zero_grad(set_to_none=True)
        loss.backward()
        figures["gradient"] = nn.utils.clip_grad_norm_(self._parameters(), 10.0)
        self._generator.step()
        return figures

    def _autocast(self, wave: Tensor) -> torch.autocast:
        return torch.autocast(wave.device.type, torch.bfloat16, enabled=self.bf16)

    def _judge(self, made: Tensor, target: Tensor) -> dict[str, Tensor]:
        assert self.judges is not None
        with self._autocast(made):
            verdicts = [(judge(target)[0], judge(made)[0]) for judge in self.judges]
        loss = torch.stack(
            [losses.hinge_discriminator_loss(real, fake) for real, fake in verdicts]
        ).sum()
        self._judging.zero_grad(set_to_none=True)
        loss.backward()
        self._judging.step()
        return {"discriminator": loss}

    def _persuade(self, made: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        assert self.judges is not None
        self.judges.requires_grad_(False)
        adversarial, matching = made.new_zeros(()), made.new_zeros(())
        for judge in self.judges:
            with self._autocast(made):
                scores, features = judge(made)
                with torch.no_grad():
                    _, wanted = judge(target)
            adversarial = adversarial + losses.hinge_generator_loss(scores)
            matching = matching + losses.feature_matching_loss(wanted, features)
        self.judges.requires_grad_(True)
        return adversarial, matching
