"""Stage 2: the vocoder is trained, first on true mels, then together with the mel decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from melcap.codec import Codec
from melcap.errors import InputError
from melcap.model.mel import LogMel
from melcap.model.quantizer import Codebook
from melcap.model.stages import Chain, Stage, inputs_for, outputs_of, run
from melcap.model.tokenizer import mel_decoder, mel_encoder
from melcap.model.vocoder import vocoder
from melcap.training import losses
from melcap.training.adversarial import AdversarialTraining
from melcap.training.config import TrainingConfig
from melcap.training.constant_phase import with_constant_phase
from melcap.training.discriminators import (
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
)
from melcap.training.ema_codebook import Coded
from melcap.training.magnitude_discriminator import MagnitudeDiscriminator
from melcap.training.optimisers import descend, optimisers_of
from melcap.training.pieces import Figures, Pieces
from melcap.training.spectra import Spectra


class Made(NamedTuple):
    """The output of the networks for some crops.

    Attributes:
        wave: the supervised samples [batch, samples].
        losses: losses other than those of the wave, by their names among the weights.
        coded: the latents and their tokens, where the codebook is trained.
    """

    wave: Tensor
    losses: Mapping[str, Tensor] = MappingProxyType({})
    coded: Coded | None = None


class _Pass(NamedTuple):
    """A forward pass: what was made of some crops, and its target [batch, samples]."""

    made: Made
    target: Tensor

    def part(self, samples: slice) -> tuple[Tensor, Tensor]:
        """Return some samples of both waves."""
        # A compiled network serves one memory layout. `contiguous` keeps the strides of one crop.
        form = torch.contiguous_format
        made = self.made.wave[:, samples].clone(memory_format=form)
        return made, self.target[:, samples].clone(memory_format=form)


class Stage2:
    """A recipe with multi-resolution spectral losses and, if asked for, discriminators of waves.

    Crops carry all the context that the supervised columns depend on. Discriminators cost far more
    than the vocoder. With `config.discriminator_columns` they see only that many columns of each
    crop, at a random place.

    Args:
        config: the settings.
        tokenizer: the states of encoder, mel decoder and codebook, see `Checkpoint.tokenizer`.
            Encoder and codebook are frozen then, and mel decoder and vocoder are trained on tokens.
            With None the vocoder is trained on true mels.

    Raises:
        InputError: for a tokenizer where the configuration says true mels, or none where it does
            not.
    """

    bf16 = False
    accumulate = 1

    def __init__(
        self,
        config: TrainingConfig,
        tokenizer: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> None:
        if config.from_mels != (tokenizer is None):
            raise InputError("stage 2 needs a tokenizer, or from_mels: give one of the two")
        self.config = config
        codec = config.codec
        self.front = LogMel(codec.mel)
        self.vocoder = vocoder(codec)
        self.decoder: Chain | None = None
        self._before: list[Stage] = [self.front]
        self._trained: list[Stage] = list(self.vocoder)
        if tokenizer is not None:
            encoder, self.decoder = mel_encoder(codec), mel_decoder(codec)
            encoder.load_state_dict(tokenizer["encoder"])
            self.decoder.load_state_dict(tokenizer["decoder"])
            self.codebook = Codebook(codec.tokenizer.codebook_size, codec.tokenizer.codebook_dim)
            self.codebook.vectors.copy_(tokenizer["codebook"]["vectors"])
            self.encoder = encoder.requires_grad_(False)
            self._before = [self.front, *encoder]
            self._trained = [*self.decoder, *self.vocoder]
        if config.constant_phase:
            self._trained = with_constant_phase(self._trained)
        seen = min(config.discriminator_columns or config.columns, config.columns)
        self._discriminator_samples = seen * codec.column_samples
        self.samples, self._target, self._output = self._layout(config.columns)
        self._run = run
        named = [
            (f"{index}.{name}", parameter)
            for index, stage in enumerate(self._trained)
            for name, parameter in stage.named_parameters()
        ]
        self._parameters = [parameter for _, parameter in named]
        self._optimisers = optimisers_of("generator", named, config)
        self._weights = {
            "stft": config.stft_weight,
            "mel": config.mel_weight,
            "texture": config.texture_weight,
            "complex": config.complex_weight,
            "phase": config.phase_weight,
        }
        self.adversarial: AdversarialTraining | None = None
        if width := config.discriminators:
            kinds: list[nn.Module]
            if config.discriminator_kind == "magnitudes":
                kinds = [MagnitudeDiscriminator(base=width)]
            else:
                periods = MultiPeriodDiscriminator(base=width)
                kinds = [periods, MultiResolutionDiscriminator(base=width)]
            self.adversarial = AdversarialTraining(kinds, config)

    def _layout(self, columns: int) -> tuple[int, slice, slice]:
        """Return the samples of a crop, and the supervised ones in it and in the output."""
        supervised = columns * self.config.codec.column_samples
        middle = inputs_for(self._trained, 0, supervised)
        first, last = inputs_for(self._before, *middle)
        begins = outputs_of(self._trained, *middle)[0]
        target, output = slice(-first, supervised - first), slice(-begins, supervised - begins)
        return last - first, target, output

    def start_from(self, codec: Codec) -> None:
        """Begin with a codec's vocoder; its tokenizer is given to the constructor."""
        self.vocoder.load_state_dict(codec.vocoder.state_dict())

    def modules(self) -> dict[str, nn.Module]:
        """Return all modules of a checkpoint by name."""
        found: dict[str, nn.Module] = {"vocoder": self.vocoder}
        if self.decoder is not None:
            found |= {"encoder": self.encoder, "codebook": self.codebook, "decoder": self.decoder}
        if self.adversarial is not None:
            found["discriminators"] = self.adversarial.discriminators
        return found

    def averaged(self) -> dict[str, nn.Module]:
        """Return the modules that are trained by gradients and exported."""
        found: dict[str, nn.Module] = {"vocoder": self.vocoder}
        return found if self.decoder is None else found | {"decoder": self.decoder}

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers by name."""
        if self.adversarial is None:
            return self._optimisers
        return self._optimisers | {"discriminators": self.adversarial.optimiser}

    def compile(self, backend: str = "inductor") -> None:
        """Compile the networks and the spectral losses with torch.compile."""
        for name in ("_run", "_spectral"):
            setattr(self, name, torch.compile(getattr(self, name), backend=backend, dynamic=False))
        if self.adversarial is not None:
            self.adversarial.compile(backend)

    def uncompile(self) -> None:
        """Undo `compile`."""
        self._run = run
        vars(self).pop("_spectral", None)  # uncovers the method
        if self.adversarial is not None:
            self.adversarial.uncompile()

    def step(self, wave: Tensor) -> Figures:
        """Update everything once from waves [batch, samples]; return the figures to log."""
        supervised = self.config.columns * self.config.codec.column_samples
        first = int(torch.randint(supervised - self._discriminator_samples + 1, ()))
        seen = slice(first, first + self._discriminator_samples)
        pieces = Pieces(wave, self.accumulate, self._pass)
        figures: Figures = {}
        if self.adversarial is not None:
            parts = (passed.part(seen) for passed in pieces.preview())
            figures["discriminator"] = self.adversarial.discriminator_step(parts, self.bf16)
        coded: list[Coded] = []

        def objective(passed: _Pass) -> tuple[Tensor, Figures]:
            if passed.made.coded is not None:
                coded.append(passed.made.coded)
            return self._objective(passed, seen)

        gradient = descend(
            pieces.losses(objective), self._parameters, self._optimisers, self.config.clip
        )
        return figures | pieces.figures() | {"gradient": gradient} | self._after_step(coded)

    def _pass(self, wave: Tensor) -> _Pass:
        return _Pass(self._made(wave), wave[..., self._target])

    def _made(self, wave: Tensor) -> Made:
        """Return what the networks make of waves [batch, samples]."""
        with torch.no_grad():
            source = self._run(self._before, wave)
            if self.decoder is not None:
                source = self.codebook.latents(self.codebook.tokens(source))
        with torch.autocast(wave.device.type, torch.bfloat16, enabled=self.bf16):
            return Made(self._run(self._trained, source)[..., self._output])

    def _objective(self, passed: _Pass, seen: slice) -> tuple[Tensor, Figures]:
        """Return the loss of waves, of which discriminators see a part, and the figures to log."""
        part = passed.part(seen)  # first: autograd adds gradients in the reverse order of use
        figures = {**passed.made.losses, **self._spectral(passed.made.wave, passed.target)}
        weighted = (self._weights[name] * distance for name, distance in figures.items())
        loss = torch.stack([*weighted]).sum()
        if self.adversarial is None:
            return loss, figures
        adversarial, matching = self.adversarial.generator_losses(*part, self.bf16)
        loss = (
            self.config.spectral * loss
            + self.config.adversarial * adversarial
            + self.config.features * matching
        )
        return loss, figures | {"adversarial": adversarial, "features": matching}

    def _after_step(self, coded: Sequence[Coded]) -> Figures:
        """Do what a step ends with, given the tokens of its pieces; return more figures to log."""
        return {}

    def samples_for(self, columns: int) -> int:
        """Return the samples of a crop for `reconstruct`."""
        return self._layout(columns)[0]

    @torch.no_grad()
    def reconstruct(self, wave: Tensor, columns: int) -> tuple[Tensor, Tensor]:
        """Return the waves [batch, samples] of crops, before and after."""
        _, target, output = self._layout(columns)
        source = run(self._before, wave)
        if self.decoder is not None:
            source = self.codebook.latents(self.codebook.tokens(source))
        return wave[..., target], run(self._trained, source)[..., output]

    def _spectral(self, made: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the distances by their names in the logs."""
        spectra, wanted = Spectra(made), Spectra(target)
        loudness = self.config.loudness
        found = {
            "stft": losses.multi_resolution_stft_loss(spectra, wanted, loudness=loudness),
            "mel": losses.multi_scale_mel_loss(spectra, wanted, loudness=loudness),
            "texture": losses.texture_loss(spectra, wanted),
        }
        if self._weights["complex"]:
            found["complex"] = losses.complex_stft_loss(spectra, wanted)
        if self._weights["phase"]:
            found["phase"] = losses.phase_loss(spectra, wanted)
        return found
