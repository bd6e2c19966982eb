"""Stage 2: the vocoder, first on true mels, then together with a copy of the mel decoder."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from melcap.codec import Codec
from melcap.errors import InputError
from melcap.mel import LogMel
from melcap.quantizer import Codebook
from melcap.stages import Chain, Stage, inputs_for, outputs_of, run
from melcap.tokenizer import mel_decoder, mel_encoder
from melcap.training import losses
from melcap.training.config import TrainingConfig
from melcap.training.discriminators import (
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
)
from melcap.vocoder import vocoder


class Stage2:
    """Multi-resolution spectral losses, and discriminators once they are asked for.

    With `tokenizer` (the modules of a stage-1 checkpoint) the encoder and the codebook are frozen
    and mel decoder and vocoder learn from tokens; without it the vocoder learns from true mels.
    Crops carry all the context that the supervised columns depend on. Discriminators cost far more
    than the vocoder: with `config.judged` they hear so many columns of each crop, anywhere.

    Raises InputError for a tokenizer where the configuration says true mels, or none where not.
    """

    bf16 = False

    def __init__(
        self,
        config: TrainingConfig,
        tokenizer: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> None:
        if config.from_mels != (tokenizer is None):
            raise InputError("stage 2 needs a tokenizer, or from_mels: one of the two")
        self.config = config
        codec = config.codec
        self.front = LogMel(codec.mel)
        self.vocoder = vocoder(codec)
        self.decoder: Chain | None = None
        self._frozen: list[Stage] = [self.front]
        self._learning: list[Stage] = list(self.vocoder)
        if tokenizer is not None:
            encoder, self.decoder = mel_encoder(codec), mel_decoder(codec)
            encoder.load_state_dict(tokenizer["encoder"])
            self.decoder.load_state_dict(tokenizer["decoder"])
            self.codebook = Codebook(codec.tokenizer.codebook_size, codec.tokenizer.codebook_dim)
            self.codebook.vectors.copy_(tokenizer["learner"]["codebook.vectors"])
            self.encoder = encoder.requires_grad_(False)
            self._frozen = [self.front, *encoder]
            self._learning = [*self.decoder, *self.vocoder]
        self._judged = min(config.judged or config.columns, config.columns) * codec.column_samples
        self.samples, self._target, self._output = self._layout(config.columns)
        self._run = run
        self._generator = torch.optim.AdamW(
            self._parameters(), betas=config.betas, weight_decay=config.weight_decay
        )
        self.judges: nn.ModuleList | None = None
        if config.discriminators:
            self.judges = nn.ModuleList(
                [
                    MultiPeriodDiscriminator(base=config.discriminators),
                    MultiResolutionDiscriminator(base=config.discriminators),
                ]
            )
            self._judging = torch.optim.AdamW(
                self.judges.parameters(), betas=config.betas, weight_decay=config.weight_decay
            )

    def _layout(self, columns: int) -> tuple[int, slice, slice]:
        """Samples of a crop, and where the supervised ones lie in it and in what is made of it."""
        supervised = columns * self.config.codec.column_samples
        middle = inputs_for(self._learning, 0, supervised)
        first, last = inputs_for(self._frozen, *middle)
        given = outputs_of(self._learning, *middle)[0]
        return last - first, slice(-first, supervised - first), slice(-given, supervised - given)

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

    def compile(self, backend: str = "inductor") -> None:
        for name in ("_run", "_spectral"):
            setattr(self, name, torch.compile(getattr(self, name), backend=backend, dynamic=False))
        for judge in self.judges or ():
            judge.compile(backend=backend, dynamic=False)

    def step(self, wave: Tensor, progress: float) -> dict[str, Tensor]:
        with torch.no_grad():
            given = self._run(self._frozen, wave)
            if self.decoder is not None:
                given = self.codebook.latents(self.codebook.tokens(given))
        with self._autocast(wave):
            made = self._run(self._learning, given)[..., self._output]
        target = wave[..., self._target]
        first = int(torch.randint(made.shape[1] - self._judged + 1, ()))
        # contiguous: compiled, a network serves one layout of memory
        heard = made[:, first : first + self._judged].contiguous()
        wanted = target[:, first : first + self._judged].contiguous()
        figures = self._judge(heard.detach(), wanted) if self.judges is not None else {}
        stft, mel, texture = self._spectral(made, target)
        loss = self.config.stft_weight * stft + self.config.mel_weight * mel
        loss = loss + self.config.texture_weight * texture
        figures |= {"stft": stft, "mel": mel, "texture": texture}
        if self.judges is not None:
            adversarial, matching = self._persuade(heard, wanted)
            loss = (
                self.config.spectral * loss
                + self.config.adversarial * adversarial
                + self.config.features * matching
            )
            figures |= {"adversarial": adversarial, "features": matching}
        self._generator.zero_grad(set_to_none=True)
        loss.backward()
        figures["gradient"] = nn.utils.clip_grad_norm_(self._parameters(), self.config.clip)
        self._generator.step()
        return figures

    def samples_for(self, columns: int) -> int:
        return self._layout(columns)[0]

    @torch.no_grad()
    def reconstruct(self, wave: Tensor, columns: int) -> tuple[Tensor, Tensor]:
        _, target, output = self._layout(columns)
        given = run(self._frozen, wave)
        if self.decoder is not None:
            given = self.codebook.latents(self.codebook.tokens(given))
        return wave[..., target], run(self._learning, given)[..., output]

    @staticmethod
    def _spectral(made: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        spectra, wanted = losses.Spectra(made), losses.Spectra(target)
        return (
            losses.multi_resolution_stft_loss(spectra, wanted),
            losses.multi_scale_mel_loss(spectra, wanted),
            losses.texture_loss(spectra, wanted),
        )

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
