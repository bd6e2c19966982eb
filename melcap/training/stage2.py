"""Stage 2: the vocoder, first on true mels, then together with a copy of the mel decoder."""

from __future__ import annotations

from collections.abc import Mapping

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
from melcap.training.adversary import Adversary
from melcap.training.config import TrainingConfig
from melcap.training.constant_phase import with_constant_phase
from melcap.training.discriminators import (
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
)
from melcap.training.optimisers import descend, optimisers_of


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
        if config.constant_phase:
            self._learning = with_constant_phase(self._learning)
        self._judged = min(config.judged or config.columns, config.columns) * codec.column_samples
        self.samples, self._target, self._output = self._layout(config.columns)
        self._run = run
        named = [
            (f"{index}.{name}", parameter)
            for index, learning in enumerate(self._learning)
            for name, parameter in learning.named_parameters()
        ]
        self._parameters = [parameter for _, parameter in named]
        self._optimisers = optimisers_of("generator", named, config)
        self._weights = {
            **{"stft": config.stft_weight, "mel": config.mel_weight},
            **{"texture": config.texture_weight, "complex": config.complex_weight},
            "phase": config.phase_weight,
        }
        self.adversary: Adversary | None = None
        if width := config.discriminators:
            judges = MultiPeriodDiscriminator(base=width), MultiResolutionDiscriminator(base=width)
            self.adversary = Adversary(judges, config)

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

    def modules(self) -> dict[str, nn.Module]:
        found: dict[str, nn.Module] = {"vocoder": self.vocoder}
        if self.decoder is not None:
            found |= {"encoder": self.encoder, "codebook": self.codebook, "decoder": self.decoder}
        if self.adversary is not None:
            found["discriminators"] = self.adversary.judges
        return found

    def averaged(self) -> dict[str, nn.Module]:
        found: dict[str, nn.Module] = {"vocoder": self.vocoder}
        return found if self.decoder is None else found | {"decoder": self.decoder}

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        if self.adversary is None:
            return self._optimisers
        return self._optimisers | {"discriminators": self.adversary.optimiser}

    def compile(self, backend: str = "inductor") -> None:
        for name in ("_run", "_spectral"):
            setattr(self, name, torch.compile(getattr(self, name), backend=backend, dynamic=False))
        if self.adversary is not None:
            self.adversary.compile(backend)

    def uncompile(self) -> None:
        self._run = run
        vars(self).pop("_spectral", None)  # the method is below it
        if self.adversary is not None:
            self.adversary.uncompile()

    def step(self, wave: Tensor, progress: float) -> dict[str, Tensor]:
        with torch.no_grad():
            given = self._run(self._frozen, wave)
            if self.decoder is not None:
                given = self.codebook.latents(self.codebook.tokens(given))
        with torch.autocast(wave.device.type, torch.bfloat16, enabled=self.bf16):
            made = self._run(self._learning, given)[..., self._output]
        target = wave[..., self._target]
        first = int(torch.randint(made.shape[1] - self._judged + 1, ()))
        # contiguous: compiled, a network serves one layout of memory
        heard = made[:, first : first + self._judged].contiguous()
        wanted = target[:, first : first + self._judged].contiguous()
        figures: dict[str, Tensor] = {}
        if self.adversary is not None:
            figures["discriminator"] = self.adversary.learn(heard, wanted, self.bf16)
        distances = self._spectral(made, target)
        weighted = (self._weights[name] * distance for name, distance in distances.items())
        loss = torch.stack([*weighted]).sum()
        figures |= distances
        if self.adversary is not None:
            adversarial, matching = self.adversary.persuade(heard, wanted, self.bf16)
            loss = (
                self.config.spectral * loss
                + self.config.adversarial * adversarial
                + self.config.features * matching
            )
            figures |= {"adversarial": adversarial, "features": matching}
        figures["gradient"] = descend(loss, self._parameters, self._optimisers, self.config.clip)
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

    def _spectral(self, made: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The distances by their names in the logs."""
        spectra, wanted = losses.Spectra(made), losses.Spectra(target)
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
